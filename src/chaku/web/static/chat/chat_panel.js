/**
 * One conversation on the screen: its messages and the composer. It knows nothing of the page around it, so that several
 * can stand side by side.
 */

/** @import {Conversation} from "./conversation.js" */
/** @import {Model} from "../data/types.js" */
import { Composer } from "./composer.js";
import { problemOf, takesImages } from "./conversation.js";
import { html, useCallback, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { Icon } from "../ui/icons.js";
import { MessageView } from "./message_view.js";
import { ErrorCard } from "../ui/notices.js";
import { useChanges } from "../data/observable.js";

const FIRST_SHOWN = 30;
const NEAR_END = 80; // pixels

/**
 * @param {object} props
 * @param {Conversation} props.conversation
 * @param {Model[]} props.models
 * @param {(text: string) => void} props.onComplain
 * @param {any} [props.children]  what stands there while nothing was said
 * @param {{text: string} | null} [props.start]  an example for the composer
 */
export function ChatPanel({ conversation, models, onComplain, children, start }) {
  useChanges(conversation);
  const [problem, setProblem] = useState(/** @type {import("../data/types.js").Problem | null} */ (null));
  const [numShown, setNumShown] = useState(FIRST_SHOWN);
  const [isAtEnd, setAtEnd] = useState(true);
  const [spoken, setSpoken] = useState("");
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const sticks = useRef(true);

  useLayoutEffect(() => {
    conversation.announce = setSpoken;
    return () => (conversation.announce = () => {});
  }, [conversation]);

  const path = conversation.path;
  const running = conversation.running;
  const hidden = Math.max(0, path.length - numShown);
  const last = path.at(-1);
  const model = models.find((m) => m.id === conversation.model);

  const toEnd = useCallback(() => {
    const box = scroller.current;
    if (box && sticks.current) box.scrollTop = box.scrollHeight;
  }, []);
  useLayoutEffect(toEnd, [last?.id, last?.state, conversation.isLoaded]);
  const onScroll = () => {
    const box = /** @type {HTMLElement} */ (scroller.current);
    const isNear = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END;
    sticks.current = isNear;
    setAtEnd(isNear);
  };

  const attempt = async (/** @type {() => Promise<void>} */ work) => {
    setProblem(null);
    try {
      await work();
      return true;
    } catch (error) {
      setProblem(problemOf(error));
      return false;
    }
  };
  const send = (/** @type {any} */ content) => {
    sticks.current = true;
    return attempt(() => conversation.send(content, last?.id ?? null));
  };
  const editLast = () => {
    const mine = path.findLast((message) => message.role === "user");
    if (mine) /** @type {HTMLElement | null} */ (document.querySelector(`#message-${CSS.escape(mine.id)} .edit`))?.click();
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape" || !running || event.defaultPrevented) return;
    event.preventDefault();
    attempt(() => conversation.stop(running.id));
  };

  return html`<section class="chat-panel" aria-label="Chat" onKeyDown=${onKey}>
    <div class="messages" ref=${scroller} onScroll=${onScroll} role="log" aria-live="off" aria-label="Messages" tabindex="0">
      <div class="column">
        ${hidden > 0 &&
        html`<button type="button" class="quiet earlier" onClick=${() => setNumShown(numShown + 100)}>
          Show earlier messages (${hidden})
        </button>`}
        ${path.slice(hidden).map(
          (message) => html`<${MessageView}
            key=${message.id}
            message=${message}
            conversation=${conversation}
            models=${models}
            isLast=${message === last}
            attempt=${attempt}
            onDrawn=${toEnd}
          />`,
        )}
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
    <div class="composer-area">
      ${!isAtEnd &&
      html`<button type="button" class="to-end" onClick=${() => ((sticks.current = true), toEnd())}>
        <${Icon} name="down" /> Newest
      </button>`}
      ${!conversation.isOnline && html`<p class="offline" role="alert">Connection lost. Trying again; the answer goes on at the server.</p>`}
      <${Composer}
        isRunning=${Boolean(running)}
        blocked=${blockedBy(conversation, model)}
        allowImages=${takesImages(model)}
        onSend=${send}
        onStop=${() => running && attempt(() => conversation.stop(running.id))}
        onEditLast=${editLast}
        onComplain=${onComplain}
        start=${start}
      />
    </div>
    <p class="visually-hidden" role="status">${spoken}</p>
  </section>`;
}

/** Why nothing can be sent now. @param {Conversation} conversation @param {Model | undefined} model */
function blockedBy(conversation, model) {
  if (!conversation.isLoaded) return "Loading…";
  if (!conversation.model) return "Choose a model above";
  if (!model) return `${conversation.model} is not served here: choose a model above`;
  if (model.state === "ready") return "";
  return `${model.id} is ${model.state}: wait, or choose another model`;
}
