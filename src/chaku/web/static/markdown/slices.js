/** Long work on the page in slices, between which the browser answers its user. */

const SLICE_MS = 30;

/** @type {(() => void)[]} */
const waiting = [];
const channel = new MessageChannel();
let end = 0; // of the slice that runs now; 0 when none does
let isWoken = false;

/** Whether this turn has time left for more work. */
export function hasTime() {
  if (!end) {
    end = performance.now() + SLICE_MS;
    wake();
  }
  return performance.now() < end;
}

/** Resolves in a later turn, of whoever waits the one that came last: the newest is what is read. @returns {Promise<void>} */
export function nextSlice() {
  return new Promise((resolve) => {
    waiting.push(resolve);
    wake();
  });
}

function wake() {
  if (isWoken) return;
  isWoken = true;
  setTimeout(() => channel.port2.postMessage(0)); // behind what the user does
}

channel.port1.onmessage = () => {
  isWoken = false;
  end = 0;
  const resume = waiting.pop();
  if (!resume) return;
  end = performance.now() + SLICE_MS;
  wake();
  resume();
};
