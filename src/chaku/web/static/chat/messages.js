/** The messages of a conversation, read from the end. Who scrolls up is left where they are. */

/** @import {Conversation} from "./conversation.js" */
/** @import {Model, Problem} from "../data/types.js" */
import { useChanges } from "../data/observable.js";
import { html, useCallback, useLayoutEffect, useMemo, useRef, useState } from "../ui/html.js";
import { Icon } from "../ui/icons.js";
import { ErrorCard } from "../ui/notices.js";
import { MessageView } from "./message_view.js";

const FIRST_SHOWN = 30;
const MORE_SHOWN = 100;
const AT_END = 4; // pixels

/** @typedef {{id: string, words: string}} Goal  a message, and what was searched for in it */

/**
 * @param {object} props
 * @param {Conversation} props.conversation
 * @param {Model[]} props.models
 * @param {Problem | null} props.problem  with what was tried last
 * @param {(work: () => Promise<void>) => Promise<boolean>} props.attempt
 * @param {number} props.sent  counts the messages that were sent from here: each is followed to the end
 * @param {Goal | null} [props.goal]  the message to show
 * @param {boolean} [props.isBlind]  no model is named
 * @param {any} [props.children]  what stands there while nothing was said
 */
export function Messages({ conversation, models, problem, attempt, sent, goal = null, isBlind = false, children }) {
  useChanges(conversation);
  const [numShown, setNumShown] = useState(FIRST_SHOWN);
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const column = useRef(/** @type {HTMLElement | null} */ (null));
  const { isAtEnd, toEnd, leaveEnd, onScroll } = useEnd(scroller, column);
  const path = conversation.path;
  const hidden = Math.max(0, path.length - numShown);
  const last = path.at(-1);
  const isBusy = Boolean(conversation.running);
  const served = useServed(models);
  const tryIt = useRef(attempt);
  tryIt.current = attempt;
  const attempted = useCallback((/** @type {() => Promise<void>} */ work) => tryIt.current(work), []);

  useLayoutEffect(toEnd, [sent, conversation.isLoaded]);

  const reached = useRef(/** @type {Goal | null} */ (null));
  useLayoutEffect(() => {
    const at = goal ? path.findIndex((message) => message.id === goal.id) : -1;
    if (!goal || at < 0 || reached.current === goal) return;
    if (path.length - at > numShown) return setNumShown(path.length - at + 2);
    reached.current = goal;
    leaveEnd();
    const box = /** @type {HTMLElement} */ (scroller.current);
    const message = /** @type {HTMLElement} */ (box.querySelector(`[data-message="${CSS.escape(goal.id)}"]`));
    message.scrollIntoView({ block: "center" });
    message.focus({ preventScroll: true });
    tryIt.current(async () => (await import("./found.js")).showFound(box, message, goal.words));
  });

  const showEarlier = () => {
    const box = /** @type {HTMLElement} */ (scroller.current);
    keepInPlace(box, /** @type {HTMLElement} */ (box.querySelector(".message")));
    setNumShown((number) => number + MORE_SHOWN);
  };
  return html`<div class="messages-area">
    <div class="messages" ref=${scroller} onScroll=${onScroll} role="log" aria-live="off" aria-label="Messages" tabindex="0">
      <div class="column" ref=${column}>
        ${hidden > 0 &&
        html`<button type="button" class="quiet earlier" onClick=${showEarlier}>Show earlier messages (${hidden})</button>`}
        ${path.slice(hidden).map((message) => {
          const { all, index } = conversation.branches.siblingsOf(message);
          return html`<${MessageView}
            key=${message.id}
            message=${message}
            conversation=${conversation}
            models=${served}
            isLast=${message === last}
            isBusy=${isBusy}
            version=${all.length > 1 ? `${index + 1} / ${all.length}` : ""}
            attempt=${attempted}
            isBlind=${isBlind}
          />`;
        })}
        ${!path.length && conversation.isLoaded && !conversation.problem && children}
        ${conversation.problem &&
        html`<${ErrorCard}
          title="The chat can't be opened"
          problem=${conversation.problem}
          onRetry=${() => conversation.load()}
        />`}
        ${problem && html`<${ErrorCard} title="That did not work" problem=${problem} />`}
      </div>
    </div>
    ${!isAtEnd &&
    html`<button type="button" class="to-end" onClick=${toEnd}><${Icon} name="down" /> Newest</button>`}
  </div>`;
}

/**
 * Keeps a scrolling box at its end while its content grows, until the reader scrolls up.
 * @param {{current: HTMLElement | null}} scroller
 * @param {{current: HTMLElement | null}} column
 */
export function useEnd(scroller, column) {
  const [isAtEnd, setAtEnd] = useState(true);
  const sticks = useRef(true);
  const top = useRef(0); // where the box stood when it was last looked at
  const toEnd = useCallback(() => {
    sticks.current = true;
    pin();
  }, []);
  const leaveEnd = useCallback(() => {
    sticks.current = false;
    setAtEnd(false);
  }, []);
  const pin = () => {
    const box = scroller.current;
    if (!box || !sticks.current) return;
    box.scrollTop = box.scrollHeight;
    top.current = box.scrollTop;
  };
  useLayoutEffect(() => {
    // Formulas, pictures and colours come late; whatever changes the height is followed.
    const watcher = new ResizeObserver(pin);
    watcher.observe(/** @type {HTMLElement} */ (column.current));
    watcher.observe(/** @type {HTMLElement} */ (scroller.current));
    const box = /** @type {HTMLElement} */ (scroller.current);
    const onWheel = (/** @type {WheelEvent} */ event) => {
      if (event.deltaY < 0 && box.scrollHeight > box.clientHeight) sticks.current = false;
    };
    box.addEventListener("wheel", onWheel, { passive: true });
    return () => (watcher.disconnect(), box.removeEventListener("wheel", onWheel));
  }, []);
  const onScroll = (/** @type {Event} */ event) => {
    const box = /** @type {HTMLElement} */ (event.currentTarget);
    const fromEnd = box.scrollHeight - box.scrollTop - box.clientHeight;
    if (box.scrollTop < top.current - 1 && fromEnd > AT_END) sticks.current = false;
    else if (fromEnd <= AT_END) sticks.current = true;
    top.current = box.scrollTop;
    setAtEnd(sticks.current || fromEnd <= AT_END);
  };
  return { isAtEnd, toEnd, leaveEnd, onScroll };
}

const SETTLING_FRAMES = 15; // in which the browser learns the heights of what it has not drawn before

/** Hold a message where it stands while others come above it. @param {HTMLElement} box @param {HTMLElement} message */
function keepInPlace(box, message) {
  const before = message.getBoundingClientRect().top;
  let frames = 0;
  const stop = () => (frames = SETTLING_FRAMES);
  box.addEventListener("wheel", stop, { once: true, passive: true });
  box.addEventListener("touchmove", stop, { once: true, passive: true });
  const hold = () => {
    if (frames++ >= SETTLING_FRAMES || !message.isConnected) return;
    box.scrollTop += message.getBoundingClientRect().top - before;
    requestAnimationFrame(hold);
  };
  requestAnimationFrame(hold);
}

/** The models, as long as nothing changes that an answer's menu shows of them. @param {Model[]} models */
function useServed(models) {
  const key = models.map((model) => `${model.id} ${model.state === "ready"} ${model.capabilities}`).join("\n");
  return useMemo(() => models, [key]);
}
