/**
 * One conversation on the screen: its messages and the composer. It knows nothing of the page around it, so that several
 * can stand side by side.
 */

/** @import {Conversation} from "./conversation.js" */
/** @import {Model, Problem} from "../data/types.js" */
import { useChanges } from "../data/observable.js";
import { html, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { Composer } from "./composer.js";
import { problemOf } from "../data/api.js";
import { Messages } from "./messages.js";
import { takesImages } from "./records.js";

/**
 * @param {object} props
 * @param {Conversation} props.conversation
 * @param {Model[]} props.models
 * @param {(text: string) => void} props.onComplain
 * @param {(text: string, action?: string, onAction?: () => void) => void} props.onSay
 * @param {import("./messages.js").Goal | null} [props.goal]  the message to show
 * @param {any} [props.children]  what stands there while nothing was said
 * @param {{text: string} | null} [props.start]  an example for the composer
 */
export function ChatPanel({ conversation, models, onComplain, onSay, goal = null, children, start }) {
  useChanges(conversation);
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [spoken, setSpoken] = useState("");
  const [sent, setSent] = useState(0);
  const panel = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => {
    conversation.announce = setSpoken;
    conversation.say = onSay;
    return () => (conversation.announce = conversation.say = () => {});
  }, [conversation]);

  useLayoutEffect(() => {
    if (!goal || !conversation.isLoaded || conversation.problem) return;
    if (!conversation.messages.has(goal.id)) onSay("The message that the link names is not in this chat any more.");
    else if (!conversation.path.some((message) => message.id === goal.id)) attempt(() => conversation.choose(goal.id));
  }, [goal, conversation, conversation.isLoaded]);

  const path = conversation.path;
  const running = conversation.running;
  const model = models.find((m) => m.id === conversation.model);
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
  const send = async (/** @type {any} */ content) => {
    setSent((n) => n + 1);
    const isSent = await attempt(() => conversation.send(content, path.at(-1)?.id ?? null));
    setSent((n) => n + 1);
    return isSent;
  };
  const editLast = () => {
    const mine = path.findLast((message) => message.role === "user");
    const edit = mine && panel.current?.querySelector(`[data-message="${CSS.escape(mine.id)}"] .edit`);
    /** @type {HTMLElement | null | undefined} */ (edit)?.click();
  };
  const stop = () => running && attempt(() => conversation.stop(running.id));
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape" || !running || event.defaultPrevented) return;
    event.preventDefault();
    stop();
  };

  return html`<section class="chat-panel" aria-label="Chat" ref=${panel} onKeyDown=${onKey}>
    <${Messages} conversation=${conversation} models=${models} problem=${problem} attempt=${attempt} sent=${sent} goal=${goal}>${children}<//>
    <div class="composer-area">
      ${!conversation.isOnline && html`<p class="offline" role="alert">Connection lost. Trying again; the server continues the answer.</p>`}
      <${Composer}
        draftKey=${conversation.id ?? "new"}
        isRunning=${Boolean(running)}
        blocked=${blockedBy(conversation, model)}
        allowImages=${takesImages(model)}
        context=${{ path, system: conversation.inForce.system, limit: model?.context_tokens ?? null }}
        onSend=${send}
        onStop=${stop}
        onEditLast=${editLast}
        onComplain=${onComplain}
        start=${start}
      />
    </div>
    <p class="visually-hidden" role="status">${spoken}</p>
  </section>`;
}

/** Why nothing can be sent now. @param {Conversation} conversation @param {Model | undefined} model */
export function blockedBy(conversation, model) {
  if (!conversation.isLoaded) return "Loading…";
  if (!conversation.model) return "Choose a model above";
  if (!model) return `${conversation.model} is not served here: choose a model above`;
  if (model.state === "ready") return "";
  return `${model.id} is ${model.state}: wait, or choose another model`;
}
