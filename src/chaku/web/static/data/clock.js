/** Tells who shows how long ago something was that it is later now. */

import { Observable } from "./observable.js";

const TICK_MS = 30_000;

export const clock = new Observable();
setInterval(() => document.hidden || clock.changed(), TICK_MS);
document.addEventListener("visibilitychange", () => document.hidden || clock.changed());
