/** One column of the comparison: a chat of its own, with what went wrong in it last. */

/** @import {Model, Part, Problem} from "../data/types.js" */
import { problemOf } from "../data/api.js";
import { Observable } from "../data/observable.js";
import { Conversation } from "../chat/conversation.js";

let number = 0;

export class Column extends Observable {
  /** @param {string | null} id  of its chat @param {string | null} model @param {(model: string) => Model["recommended"] | undefined} recommended */
  constructor(id, model, recommended) {
    super();
    this.key = String(number++);
    this.conversation = new Conversation(id, recommended);
    if (model) this.conversation.model = model;
    /** @type {Problem | null} */
    this.problem = null;
    this.numSent = 0;
    this.isAddressed = true; // the composer writes to it
  }

  /** @param {() => Promise<void>} work @returns {Promise<boolean>} whether it worked */
  attempt = async (work) => {
    this.problem = null;
    this.changed();
    try {
      await work();
      return true;
    } catch (error) {
      this.problem = problemOf(error);
      return false;
    } finally {
      this.changed();
    }
  };

  /** @param {string | Part[]} content */
  send(content) {
    this.numSent++;
    return this.attempt(() => this.conversation.send(content, this.conversation.path.at(-1)?.id ?? null));
  }

  async stop() {
    const { running } = this.conversation;
    if (running) await this.attempt(() => this.conversation.stop(running.id));
  }
}
