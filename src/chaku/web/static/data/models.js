/** The models that are served, and how each of them does. */

/** @import {EventStream} from "./events.js" */
/** @import {Model} from "./types.js" */
import { get } from "./api.js";
import { Resource } from "./resource.js";

/** @extends {Resource<Model[]>} */
export class Models extends Resource {
  /** @param {EventStream} events */
  constructor(events) {
    super(async () => (await get("/models")).models, (models) => !models.length);
    this.live(events, { models: (_, event) => event.models });
  }

  /** Every model, in the server's order. */
  get all() {
    return this.data ?? [];
  }

  /** Those that can answer now. */
  get ready() {
    return this.all.filter((model) => model.state === "ready");
  }

  /** @param {string | null | undefined} id */
  find(id) {
    return this.all.find((model) => model.id === id);
  }
}
