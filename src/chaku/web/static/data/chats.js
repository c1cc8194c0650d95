/** The list of chats: searched, paged, changed here and elsewhere. */

/** @import {EventStream} from "./events.js" */
/** @import {Chat} from "./types.js" */
import { get, patch, post, remove } from "./api.js";
import { Resource } from "./resource.js";

const PAGE = 50;

/** @typedef {{query: string, rows: Chat[], next: string | null}} ChatList  next: where the page after it begins */

/** @extends {Resource<ChatList>} */
export class Chats extends Resource {
  /** @param {EventStream} events */
  constructor(events) {
    super((before) => page(before?.query ?? ""), ({ rows }) => !rows.length);
    this.live(events, {
      chat: (list, event) => placed(list, event.chat),
      chats: () => null,
      chat_deleted: (list, event) => without(list, event.id),
    });
  }

  get rows() {
    return this.data?.rows ?? [];
  }

  get query() {
    return this.data?.query ?? "";
  }

  get hasMore() {
    return Boolean(this.data?.next);
  }

  /** @param {string} query */
  async search(query) {
    if (this.data) this.data.query = query; // what is listed changes when the rows are there
    await this.refresh();
  }

  /** Fetch the page after the last one. */
  async more() {
    const { query } = this;
    if (!this.data?.next) return;
    const { rows, next } = await page(query, this.data.next);
    if (!this.data || query !== this.query) return; // another list by now
    const known = new Set(this.rows.map((chat) => chat.id));
    this.take({ query, rows: [...this.rows, ...rows.filter((chat) => !known.has(chat.id))], next });
  }

  /** @param {string} id @param {Partial<Chat>} fields */
  async update(id, fields) {
    const chat = await patch(`/chats/${id}`, fields);
    if (this.data) this.take(placed(this.data, chat));
  }

  /** @param {Chat} chat */
  async delete(chat) {
    await remove(`/chats/${chat.id}`);
    if (this.data) this.take(without(this.data, chat.id));
  }

  /** @param {Chat} chat */
  async restore(chat) {
    await post(`/chats/${chat.id}/restore`);
    await this.refresh();
  }
}

/** @param {string} query @param {string} [before]  the `next` of the page before @returns {Promise<ChatList>} */
async function page(query, before) {
  const { chats, next } = await get(`/chats?${new URLSearchParams({ limit: String(PAGE), query, ...(before && { before }) })}`);
  return { query, rows: chats, next };
}

/** The list with a chat where it belongs: pinned first, then the newest. @param {ChatList} list @param {Chat} chat */
function placed(list, chat) {
  const old = list.rows.find(({ id }) => id === chat.id);
  if (!old && list.query) return list;
  const { messages: _, ...row } = chat;
  const rows = [...list.rows.filter((other) => other !== old), { ...old, ...row }].sort(
    (a, b) => Number(b.pinned) - Number(a.pinned) || (a.updated_at < b.updated_at ? 1 : -1),
  );
  return { ...list, rows };
}

/** @param {ChatList} list @param {string} id */
function without(list, id) {
  return { ...list, rows: list.rows.filter((chat) => chat.id !== id) };
}
