/** Arena: the same message to two models without names, a vote, and only then who they were. */

/** @import {Choice} from "./battle.js" */
/** @import {Part, Problem} from "../data/types.js" */
import { goTo, replaceAddress } from "../app/address.js";
import { commandOf } from "../app/shortcuts.js";
import { Composer } from "../chat/composer.js";
import { textOf } from "../chat/tree.js";
import { get, problemOf } from "../data/api.js";
import { Observable, useChanges } from "../data/observable.js";
import { Resource } from "../data/resource.js";
import { html, useLayoutEffect, useMemo, useRef, useState } from "../ui/html.js";
import { useMedia } from "../ui/media.js";
import { ErrorCard } from "../ui/notices.js";
import { Shown } from "../ui/states.js";
import { addStyle } from "../ui/style.js";
import { Tabs } from "../ui/tabs.js";
import { Battle, SIDES } from "./battle.js";
import { ConsentForm } from "./consent.js";
import { SideView } from "./side_view.js";
import { Outcome, VoteBar, choiceOf } from "./vote_bar.js";

export const styled = addStyle(new URL("arena.css", import.meta.url));

const NARROW = "(max-width: 720px)";
const NOTHING = new Observable();

/** @param {import("../app/app.js").ScreenProps} props */
export function ArenaScreen({ models, route, say, complain, isCovered }) {
  useChanges(models);
  const terms = useMemo(() => new Resource(() => get("/arena")), []);
  useChanges(terms);
  const ready = models.ready.map((model) => model.id);
  useLayoutEffect(() => void terms.load(), [terms, ready.join("\n")]);
  useLayoutEffect(() => void (document.title = "Arena · chaku"), []);
  return html`<main class="arena-screen">
    <${Shown}
      resource=${terms}
      draw=${(/** @type {any} */ data) => html`<${Rounds} terms=${data} onPlayed=${() => terms.load()} route=${route} say=${say} complain=${complain} isCovered=${isCovered} />`}
    />
  </main>`;
}

/** @param {{terms: any, onPlayed: () => void, route: import("../app/address.js").Route, say: any, complain: (text: string) => void, isCovered: boolean}} props */
function Rounds({ terms, onPlayed, route, say, complain, isCovered }) {
  const id = route.params.battle ?? null;
  const [battle, setBattle] = useState(/** @type {Battle | null} */ (null));
  const [publish, setPublish] = useState(/** @type {boolean | null} */ (terms.consent?.publish ?? null));
  const [reasons, setReasons] = useState(/** @type {string[]} */ ([]));
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [shown, setShown] = useState("a");
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const isNarrow = useMedia(NARROW);
  useChanges(battle ?? NOTHING);

  const current = useRef(battle);
  current.current = battle;
  useLayoutEffect(() => {
    setProblem(null);
    if ((battle?.id ?? null) === id) return;
    battle?.close();
    setBattle(null);
    setReasons([]);
    if (!id) return;
    Battle.open(id).then(setBattle, (error) => setProblem(problemOf(error)));
  }, [route]); // a battle that began here has its address, and not its route
  useLayoutEffect(() => () => current.current?.close(), []);

  const isOver = battle?.state === "failed";
  const send = async (/** @type {string | Part[]} */ content) => {
    setProblem(null);
    let open = battle;
    try {
      open ??= await Battle.begin(publish ?? false);
    } catch (error) {
      setProblem(problemOf(error));
      return false;
    }
    if (!battle) {
      setBattle(open);
      replaceAddress(`/arena/${encodeURIComponent(open.id)}`);
      onPlayed();
    }
    const isSent = await open.send(textOf(content));
    if (isSent) place.current?.focus({ preventScroll: true }); // so that the next key can be a vote
    return isSent;
  };
  const undo = async () => {
    if (await battle?.undo()) say("The vote was taken back. Another one is kept, but does not count: you have seen the names.");
  };
  const vote = async (/** @type {Choice} */ choice) => {
    if (!battle?.canVote || !(await battle.vote(choice, reasons))) return;
    place.current?.focus({ preventScroll: true });
  };
  const renew = () => goTo("/arena");
  useLayoutEffect(() => {
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      if (isCovered || event.defaultPrevented) return;
      const choice = choiceOf(event);
      const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat && !/** @type {HTMLElement} */ (event.target).matches?.("input, textarea, select");
      if (choice && battle?.canVote) void vote(choice);
      else if (isPlain && (battle?.revealed || isOver) && event.key.toLowerCase() === "n") renew();
      else if (isPlain && battle?.revealed && event.key.toLowerCase() === "u" && battle.undoLeftS > 0) void undo();
      else if (commandOf(event) === "composer") /** @type {HTMLElement | null} */ (document.querySelector(".composer textarea"))?.focus();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  });

  if (terms.consent_needed && publish === null) {
    return html`<${Head} terms=${terms} />${terms.is_open ? html`<${ConsentForm} onAgree=${setPublish} />` : html`<${Closed} terms=${terms} />`}`;
  }
  if (id && !battle) return problem ? html`<${ErrorCard} title="This battle can't be opened" problem=${problem} />` : html`<p class="hint" aria-busy="true">Loading…</p>`;
  const wrong = battle?.problem ?? problem;
  const view = (/** @type {"a" | "b"} */ side) => battle && html`<${SideView} key=${`${battle.id}-${side}`} battle=${battle} side=${side} />`;
  const canWrite = !battle?.revealed && !isOver && (battle?.turn ?? 0) < terms.limits.turns;
  return html`
    <${Head} terms=${terms} />
    <div class="battle" ref=${place} tabindex="-1" role="group" aria-label="Battle: 1 A is better, 2 tie, 3 both are bad, 4 B is better">
      ${battle
        ? isNarrow
          ? html`<${Tabs} label="Sides" tabs=${SIDES.map((side) => ({ name: side, label: `Model ${side.toUpperCase()}` }))} chosen=${shown} onChoose=${setShown}>${view(/** @type {"a" | "b"} */ (shown))}<//>`
          : SIDES.map(view)
        : html`<${Start} terms=${terms} publish=${publish} onPublish=${setPublish} />`}
    </div>
    <div class="composer-area arena-foot">
      ${battle && !battle.isOnline && html`<p class="offline" role="alert">Connection lost. Trying again; the server continues the answers.</p>`}
      ${wrong && html`<${ErrorCard} title="That did not work" problem=${wrong} />`}
      ${battle && battle.sideReplaced && !battle.revealed && html`<p class="hint" role="status">A model failed and was replaced. This battle does not count.</p>`}
      ${isOver && html`<p role="status">A model gave no answer. This battle does not count. <button type="button" class="button" onClick=${renew}><kbd>N</kbd> New battle</button></p>`}
      ${battle?.revealed && html`<${Outcome} battle=${battle} offered=${terms.reasons} onUndo=${undo} onNew=${renew} />`}
      ${battle && battle.turn > 0 && !battle.revealed && !isOver && html`<${VoteBar} battle=${battle} isWide=${!isNarrow} offered=${terms.reasons} reasons=${reasons} onReasons=${setReasons} onVote=${vote} />`}
      ${canWrite &&
      (terms.is_open || battle
        ? html`<${Composer}
            draftKey="arena"
            isRunning=${false}
            blocked=${battle?.isAnswering ? "Both models answer first; you can already vote" : !battle && terms.limits.battles_left === 0 ? "No battles are left in this hour" : ""}
            allowImages=${false}
            context=${{ path: [], system: "", limit: null }}
            onSend=${send}
            onStop=${() => {}}
            onEditLast=${() => {}}
            onComplain=${complain}
          />`
        : html`<${Closed} terms=${terms} />`)}
    </div>
  `;
}

/** @param {{terms: any}} props */
function Head({ terms }) {
  return html`<header class="bar"><h1>Arena</h1><span class="hint">${terms.contestants_count} models · ${terms.limits.battles_left} battles left in this hour</span></header>`;
}

/** @param {{terms: any, publish: boolean | null, onPublish: (publish: boolean) => void}} props */
function Start({ terms, publish, onPublish }) {
  return html`<div class="empty">
    <h2>Which model is better?</h2>
    <p>Write a message. Two models answer it without their names. You vote, and then you see who they were.</p>
    <p class="hint">${terms.sampling}</p>
    <label class="hint"><input type="checkbox" checked=${publish ?? false} onChange=${() => onPublish(!publish)} /> My messages and their answers may be shown to others, beside the ratings</label>
  </div>`;
}

/** @param {{terms: any}} props */
function Closed({ terms }) {
  return html`<div class="empty-state">
    <h2>The arena is closed</h2>
    <p>${terms.why_closed}</p>
    <pre tabindex="0"><code>chaku serve smollm2-135m qwen3-0.6b</code></pre>
  </div>`;
}
