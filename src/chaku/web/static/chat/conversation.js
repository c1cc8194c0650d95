/**
 * One chat as the page holds it: its messages, the branch that is read, and the answers that are being written.
 * Knows the server and no component, so several of them can stand side by side.
 */

/** @import {EventStream} from "../data/events.js" */
/** @import {Chat, Message, Model, Part, Settings} from "../data/types.js" */
import { call, get, patch, post, problemOf, remove } from "../data/api.js";
import { Observable } from "../data/observable.js";
import { LiveAnswers } from "./live_answers.js";
import { knownSettings, titleOf, withoutDefaults } from "./records.js";
import { Branches, pathTo } from "./tree.js";

export class Conversation extends Observable {
  /**
   * @param {string | null} id  null: a chat that begins with its first message
   * @param {(model: string) => Model["recommended"] | undefined} [recommended]  what a model's makers advise
   */
  constructor(id, recommended = () => undefined) {
    super();
    this._recommended = recommended;
    this.id = id;
    this.title = "";
    /** @type {string | null} */
    this.model = null;
    this.system = "";
    /** @type {Settings} what was set here; the rest is the model's default */
    this.settings = {};
    this.takesNoSystem = false; // not even the model's own
    /** @type {Map<string, Message>} */
    this.messages = new Map();
    /** @type {string | null} */
    this.leafId = null;
    this.isLoaded = id === null;
    this.isOnline = true;
    /** @type {import("../data/types.js").Problem | null} */
    this.problem = null;
    /** @type {(id: string) => void} called once, when the server knows the chat */
    this.onCreated = () => {};
    /** @type {(text: string) => void} what a screen reader should hear */
    this.announce = () => {};
    /** @type {(text: string, action?: string, onAction?: () => void) => void} a notice over the page */
    this.say = () => {};
    this.answers = new LiveAnswers(this);
    /** @type {Message[] | null} */
    this._path = null;
    /** @type {Branches | null} */
    this._branches = null;
    this._saving = 0;
    this._choosing = 0; // branches that the server has not heard of: what it says of the branch is older
    this._numChosen = 0;
    this._sending = 0;
    /** @type {[Message | null, Chat | null][]} */
    this._unheard = [];
  }

  /** The messages that are read, from the first. */
  get path() {
    return (this._path ??= pathTo(this.messages, this.leafId));
  }

  get branches() {
    return (this._branches ??= new Branches(this.messages));
  }

  /** A message was added, changed or left: what was worked out from all of them is old. */
  _restructured() {
    this._path = null;
    this._branches = null;
  }

  /** The answer that is being written on the branch that is read, if any. */
  get running() {
    return this.path.find((message) => message.state === "streaming");
  }

  /** What the model's makers advise, which counts where nothing was set. @returns {{system: string, sampling: Settings}} */
  get defaults() {
    const { system, ...sampling } = this._recommended(this.model ?? "") ?? {};
    return { system: system ?? "", sampling: knownSettings(sampling) };
  }

  /** What goes with the next message. @returns {{system: string, settings: Settings}} */
  get inForce() {
    const { system, sampling } = this.defaults;
    const own = this.system || this.id || this.takesNoSystem ? this.system : system;
    return { system: own, settings: { ...sampling, ...this.settings } };
  }

  /** Bring everything from the server, and take up answers that are being written. */
  async load() {
    if (!this.id) return;
    const numChosen = this._numChosen;
    try {
      const chat = await get(`/chats/${this.id}`);
      this._take(numChosen === this._numChosen && !this._choosing ? chat : { ...chat, leaf_id: undefined }); // asked before
      const fresh = new Map(chat.messages.map((/** @type {Message} */ m) => [m.id, m]));
      for (const [id, message] of fresh) {
        const own = this.messages.get(id);
        if (own && this.answers.isFollowed(id) && message.state === "streaming") fresh.set(id, own); // ours is further on
      }
      this.messages = fresh;
      this._restructured();
      this.problem = null;
    } catch (error) {
      this.problem = problemOf(error);
    }
    this.isLoaded = true;
    this._show();
  }

  /** @param {Chat} chat */
  _take(chat) {
    this.title = chat.title;
    if (chat.leaf_id !== undefined) this.leafId = chat.leaf_id;
    this._path = null;
    if (this._saving) return; // what is being typed here is newer
    if (chat.model !== undefined) this.model = chat.model ?? this.model;
    if (chat.system !== undefined) this.system = chat.system ?? "";
    if (chat.settings) this.settings = withoutDefaults(knownSettings(chat.settings), this.defaults.sampling);
  }

  /** Hear what other pages change here, until what comes back is called. @param {EventStream} events */
  listen(events) {
    return events.on({
      chat: ({ chat }) => this.id === chat.id && this.heard(null, chat),
      message: ({ chat_id, message }) => this.id === chat_id && this.heard(message, null),
      messages: ({ chat_id }) => this.id === chat_id && this.heard(null, null),
      missed: () => this.id && this.heard(null, null),
    });
  }

  /** Another page changed something. @param {Message | null} message @param {Chat | null} chat */
  heard(message, chat) {
    if (this._sending) return void this._unheard.push([message, chat]); // most of it is our own doing
    const known = message && this.messages.get(message.id);
    if (message?.feedback !== undefined && known) this._rated(message.id, message.feedback);
    const isCurrent = message && (known?.state === message.state || this.answers.isFollowed(message.id));
    if (chat) {
      const leaf = chat.leaf_id;
      this._take({ ...chat, leaf_id: leaf && this.messages.has(leaf) && !this._choosing ? leaf : undefined });
      this._show();
      if (leaf && !this.messages.has(leaf)) this.load();
    } else if (!isCurrent) this.load();
  }

  /**
   * Ask something after `parentId`; the answer is written by the server, whether or not this page stays.
   * @param {string | Part[]} content
   * @param {string | null} parentId
   */
  send(content, parentId) {
    return this._busy(async () => {
      const { user, answer } = await this._ask(content, parentId);
      this._add(user);
      if (answer) this._add(answer);
    });
  }

  /** @param {string | Part[]} content @param {string | null} parentId */
  async _ask(content, parentId) {
    if (!this.id) {
      const { model, inForce } = this;
      const chat = await post("/chats", { title: titleOf(content), model, ...inForce });
      this.system = inForce.system;
      this.id = chat.id;
      this.onCreated(chat.id);
    }
    const body = { parent_id: parentId, content, model: this.model, settings: this.inForce.settings, answer: true };
    return post(`/chats/${this.id}/messages`, body);
  }

  /** Another answer to the same message. @param {string} userId @param {string} [model] */
  answerAgain(userId, model) {
    const sampling = knownSettings(this._recommended(model ?? this.model ?? "") ?? {});
    const body = { parent_id: userId, model: model ?? this.model, settings: { ...sampling, ...this.settings } };
    return this._busy(async () => this._add((await post(`/chats/${this.id}/answers`, body)).answer));
  }

  /** Have an answer that was cut off go on where it ended. @param {Message} message */
  resume(message) {
    const body = { model: message.model ?? this.model, settings: this.inForce.settings };
    return this._busy(async () => this._add((await post(`/chats/${this.id}/messages/${message.id}/continue`, body)).answer));
  }

  /** Another wording beside the old one, without a new answer. @param {string} id @param {Message["content"]} content */
  edit(id, content) {
    return this._busy(async () => this._add((await post(`/chats/${this.id}/messages/${id}/edit`, { content })).message));
  }

  /** Take a message away, with all that follows it. @param {string} id */
  remove(id) {
    return this._busy(async () => {
      const { deleted, leaf_id } = await remove(`/chats/${this.id}/messages/${id}`);
      for (const gone of deleted) this.messages.delete(gone);
      this.leafId = leaf_id;
      this._restructured();
      this.changed();
    });
  }

  /** Undo `remove`. @param {string} id */
  restore(id) {
    return this._busy(() => post(`/chats/${this.id}/messages/${id}/restore`).then(() => this.load()));
  }

  /** @param {string} id @param {{value: "up" | "down", reasons?: string[], consent?: boolean}} thumb */
  async rate(id, { value, reasons, consent }) {
    this._rated(id, (await call("PUT", `/chats/${this.id}/messages/${id}/feedback`, { value, reasons, consent })).feedback);
  }

  /** @param {string} id */
  async unrate(id) {
    await remove(`/chats/${this.id}/messages/${id}/feedback`);
    this._rated(id, null);
  }

  /** @param {string} id @param {Message["feedback"]} feedback */
  _rated(id, feedback) {
    const message = this.messages.get(id);
    if (!message) return;
    this.replace({ ...message, feedback });
    this.changed();
  }

  /** Do something that other pages are told of, and then hear what this page was told. @param {() => Promise<void>} work */
  async _busy(work) {
    this._sending++;
    try {
      await work();
    } finally {
      this._sending--;
      for (const [message, chat] of this._unheard.splice(0)) this.heard(message, chat);
    }
  }

  /** @param {string} messageId */
  async stop(messageId) {
    const { answer } = await post(`/chats/${this.id}/messages/${messageId}/stop`);
    if (answer.state !== "streaming") this.answers.settle(answer);
  }

  /** Read the branch that goes through this message. @param {string} messageId */
  async choose(messageId) {
    this.leafId = this.branches.newestLeaf(messageId);
    this._path = null;
    this._show();
    this._numChosen++;
    this._choosing++;
    try {
      await patch(`/chats/${this.id}`, { leaf_id: this.leafId });
    } finally {
      this._choosing--;
    }
  }

  /** @param {{model?: string, system?: string, settings?: Settings, title?: string}} fields */
  async update(fields) {
    Object.assign(this, fields);
    this.changed();
    if (!this.id) return;
    this._saving++;
    try {
      await patch(`/chats/${this.id}`, fields);
    } finally {
      this._saving--;
    }
  }

  /** @param {Message} message */
  _add(message) {
    this.replace(message);
    this.leafId = message.id;
    this._show();
  }

  /** An answer's new record. @param {Message} message */
  replace(message) {
    this.messages.set(message.id, message);
    this._restructured();
  }

  /** @param {boolean} isUp */
  setOnline(isUp) {
    if (this.isOnline === isUp) return;
    this.isOnline = isUp;
    this.changed();
  }

  /** Draw the branch that is read anew, and follow its answers. */
  _show() {
    this.answers.followAll(this.path);
    this.changed();
  }

  close() {
    this.answers.close();
  }
}
