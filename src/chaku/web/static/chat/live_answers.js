/** The answers of one chat that are being written: each is followed until it ends, and its pieces go to who draws them. */

/** @import {Message} from "../data/types.js" */
/** @import {Conversation} from "./conversation.js" */
import { follow, problemOf } from "../data/api.js";
import { textOf } from "./tree.js";

/** @typedef {{content: string, reasoning: string, isNew: boolean}} Piece  isNew: it replaces what was there */

export class LiveAnswers {
  /** @param {Conversation} conversation */
  constructor(conversation) {
    this._conversation = conversation;
    /** @type {Map<string, Set<(piece: Piece) => void>>} */
    this._readers = new Map();
    /** @type {Map<string, AbortController>} */
    this._streams = new Map();
  }

  /** @param {string} id */
  isFollowed(id) {
    return this._streams.has(id);
  }

  /** Hear the pieces of an answer as they come. @param {string} id @param {(piece: Piece) => void} reader */
  read(id, reader) {
    const readers = this._readers.get(id) ?? new Set();
    this._readers.set(id, readers.add(reader));
    return () => void readers.delete(reader);
  }

  /** Follow each answer that is being written. @param {Message[]} messages */
  followAll(messages) {
    for (const message of messages) {
      if (message.state === "streaming" && !this._streams.has(message.id)) this._follow(message.id);
    }
  }

  /** @param {string} id */
  async _follow(id) {
    const conversation = this._conversation;
    const stream = new AbortController();
    this._streams.set(id, stream);
    conversation.announce("Answer started");
    const path = (/** @type {string} */ after) =>
      `/chats/${conversation.id}/messages/${id}/stream${after ? `?after=${encodeURIComponent(after)}` : ""}`;
    try {
      await follow(path, (event) => this._take(id, event), {
        signal: stream.signal,
        onConnection: (isUp) => conversation.setOnline(isUp),
      });
    } catch (error) {
      const message = conversation.messages.get(id);
      if (message) this.settle({ ...message, state: "failed", error: problemOf(error) });
    } finally {
      if (this._streams.get(id) === stream) this._streams.delete(id);
    }
  }

  /** @param {string} id @param {any} event @returns {boolean} whether it was the last */
  _take(id, event) {
    const message = this._conversation.messages.get(id);
    if (!message) return true;
    if (event.type === "delta") {
      const content = event.content ?? "";
      const reasoning = event.reasoning ?? "";
      message.content = /** @type {string} */ (message.content ?? "") + content;
      message.reasoning = (message.reasoning ?? "") + reasoning;
      this._tell(id, { content, reasoning, isNew: false });
      return false;
    }
    if (event.type === "snapshot") {
      const fresh = { ...message, ...event.message };
      this._conversation.replace(fresh);
      this._tell(id, { content: textOf(fresh.content), reasoning: fresh.reasoning ?? "", isNew: true });
      this._conversation.changed();
      return false;
    }
    this.settle(event.message);
    return true;
  }

  /** @param {string} id @param {Piece} piece */
  _tell(id, piece) {
    for (const reader of this._readers.get(id) ?? []) reader(piece);
  }

  /** An answer has ended. @param {Message} message */
  settle(message) {
    const conversation = this._conversation;
    this._streams.get(message.id)?.abort();
    this._streams.delete(message.id);
    conversation.replace({ ...message, feedback: message.feedback ?? conversation.messages.get(message.id)?.feedback });
    conversation.isOnline = true;
    const tokens = message.usage?.completion_tokens;
    const how = { complete: "finished", stopped: "stopped", failed: "failed", streaming: "goes on" }[message.state];
    conversation.announce(`Answer ${how}${tokens == null ? "" : `, ${tokens} tokens`}`);
    conversation.changed();
  }

  close() {
    for (const stream of this._streams.values()) stream.abort();
  }
}
