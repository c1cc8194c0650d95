/** What the frame of the page shows: who is here, which models there are, which chats; kept live by /api/events. */

/** @import {Chat, Message, Model, Session} from "./types.js" */
import { CallFailed, get, patch, post, remove } from "./api.js";
import { listen } from "./events.js";
import { Observable } from "./observable.js";

const PAGE = 50;

export class Library extends Observable {
  constructor() {
    super();
    /** @type {Session | null} */
    this.session = null;
    /** @type {Model[]} */
    this.models = [];
    /** @type {Chat[]} */
    this.chats = [];
    /** @type {string | null} */
    this.next = null;
    this.query = "";
    this.isOnline = true;
    this.isLoaded = false;
    /** @type {Set<(chatId: string, message: Message | null, chat: Chat | null) => void>} */
    this._chatListeners = new Set();
    /** @type {(() => void) | null} */
    this._end = null;
  }

  get needsLogin() {
    return this.session !== null && this.session.login_required && !this.session.user;
  }

  /** Ask who we are; when we may, load everything and stay live. */
  async start() {
    this.session = await get("/session");
    if (!this.needsLogin) {
      await Promise.all([this.refreshModels(), this.refreshChats()]);
      this.isLoaded = true;
      this._live();
    }
    this.changed();
  }

  /** @param {string} key */
  async login(key) {
    await post("/login", { key });
    await this.start();
  }

  async logout() {
    await post("/logout");
    this.forget();
  }

  /** The server no longer knows us: show the login. */
  forget() {
    this._end?.();
    this._end = null;
    this.chats = [];
    this.isLoaded = false;
    if (this.session) this.session = { ...this.session, login_required: true, user: null };
    this.changed();
  }

  async refreshModels() {
    this.models = (await get("/models")).models;
    this.changed();
  }

  async refreshChats() {
    const query = this.query;
    const found = await get(`/chats?limit=${PAGE}&query=${encodeURIComponent(query)}`);
    if (query !== this.query) return; // a newer search is under way
    this.chats = found.chats;
    this.next = found.next;
    this.changed();
  }

  async moreChats() {
    if (!this.next) return;
    const query = encodeURIComponent(this.query);
    const found = await get(`/chats?limit=${PAGE}&query=${query}&before=${encodeURIComponent(this.next)}`);
    const known = new Set(this.chats.map((chat) => chat.id));
    this.chats = [...this.chats, ...found.chats.filter((/** @type {Chat} */ chat) => !known.has(chat.id))];
    this.next = found.next;
    this.changed();
  }

  /** @param {string} query */
  async search(query) {
    this.query = query;
    await this.refreshChats();
  }

  /** @param {string} id @param {Partial<Chat>} fields */
  async update(id, fields) {
    this._place(await patch(`/chats/${id}`, fields));
  }

  /** @param {Chat} chat */
  async delete(chat) {
    await remove(`/chats/${chat.id}`);
    this._drop(chat.id);
  }

  /** @param {Chat} chat */
  async restore(chat) {
    await post(`/chats/${chat.id}/restore`);
    await this.refreshChats();
  }

  /** @param {string} id */
  model(id) {
    return this.models.find((model) => model.id === id);
  }

  /** @param {(chatId: string, message: Message | null, chat: Chat | null) => void} listener @returns {() => void} */
  onChat(listener) {
    this._chatListeners.add(listener);
    return () => void this._chatListeners.delete(listener);
  }

  /** Put a chat where it belongs: pinned first, then the newest. @param {Chat} chat */
  _place(chat) {
    const isKnown = this.chats.some((other) => other.id === chat.id);
    const { messages: _, ...row } = chat;
    if (!isKnown && this.query) return;
    const old = this.chats.find((other) => other.id === chat.id);
    const rest = this.chats.filter((other) => other.id !== chat.id);
    this.chats = [...rest, { ...old, ...row }].sort(
      (a, b) => Number(b.pinned) - Number(a.pinned) || (a.updated_at < b.updated_at ? 1 : -1),
    );
    this.changed();
  }

  /** @param {string} id */
  _drop(id) {
    this.chats = this.chats.filter((chat) => chat.id !== id);
    this.changed();
  }

  /** Follow what happens elsewhere. */
  _live() {
    this._end ??= listen({
      onEvent: (event) => this._event(event),
      onConnection: (isUp) => {
        if (this.isOnline === isUp) return;
        this.isOnline = isUp;
        this.changed();
      },
      onMissed: () => this._catchUp(),
      onRefused: () => this.forget(),
    });
  }

  _catchUp() {
    Promise.all([this.refreshModels(), this.refreshChats()]).catch(ignoreLoss);
    for (const listener of this._chatListeners) listener("*", null, null);
  }

  /** @param {any} event */
  _event(event) {
    if (event.type === "models") {
      this.models = event.models;
      this.changed();
    } else if (event.type === "chat") {
      this._place(event.chat);
      for (const listener of this._chatListeners) listener(event.chat.id, null, event.chat);
    } else if (event.type === "chats") this.refreshChats().catch(ignoreLoss);
    else if (event.type === "chat_deleted") this._drop(event.id);
    else if (event.type === "messages") {
      for (const listener of this._chatListeners) listener(event.chat_id, null, null);
    } else if (event.type === "message") {
      for (const listener of this._chatListeners) listener(event.chat_id, event.message, null);
    }
  }
}

/** A call that fails for the connection is made again when that is back, which the stream of events sees. @param {unknown} error */
function ignoreLoss(error) {
  if (!(error instanceof CallFailed)) throw error;
}
