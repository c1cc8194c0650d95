/** The page's frame: the rail of screens, the one that is open, and what opens over all of them. */

/** @import {Chats} from "../data/chats.js" */
/** @import {EventStream} from "../data/events.js" */
/** @import {Models} from "../data/models.js" */
/** @import {Session} from "../data/session.js" */
/** @import {Route} from "./address.js" */
/** @import {Screen} from "./routes.js" */
import { ChatScreen } from "../chat/chat_screen.js";
import { problemOf } from "../data/api.js";
import { useChanges } from "../data/observable.js";
import { Boundary, html, useLayoutEffect, useMemo, useReducer, useState } from "../ui/html.js";
import { Icon } from "../ui/icons.js";
import { Broken, ErrorCard, Notices, Toast } from "../ui/notices.js";
import { onDemand } from "../ui/on_demand.js";
import { currentRoute, onAddressChange } from "./address.js";
import { Login } from "./login.js";
import { SCREENS } from "./routes.js";
import { commandOf } from "./shortcuts.js";
import { nextTheme, themeName } from "./theme.js";

/**
 * What every screen gets.
 * @typedef {object} ScreenProps
 * @property {Session} session
 * @property {Models} models
 * @property {Chats} chats
 * @property {EventStream} events
 * @property {Route} route
 * @property {(text: string, action?: string, onAction?: () => void) => void} say
 * @property {(text: string) => void} complain
 * @property {(work: Promise<any>) => Promise<void>} attempt  say so when it fails
 * @property {boolean} isCovered  something is open over the screen
 * @property {() => void} onShortcuts
 * @property {{name: string, next: () => void}} theme
 */

const Shortcuts = onDemand(async () => (await import("./shortcuts_list.js")).Shortcuts);
/** @type {Map<string, any>} */
const loaded = new Map([["chat", ChatScreen]]);

/** @param {{session: Session, models: Models, chats: Chats, events: EventStream}} props */
export function App({ session, models, chats, events }) {
  useChanges(session);
  const notices = useMemo(() => new Notices(), []);
  const [route, setRoute] = useState(currentRoute);
  const [hasShortcuts, setShortcuts] = useState(false);
  const [, redraw] = useReducer((/** @type {number} */ n) => n + 1, 0);
  useLayoutEffect(() => onAddressChange(() => setRoute(currentRoute())), []);
  useLayoutEffect(() => void setTimeout(Shortcuts.fetch), []); // after the first paint: the next key may be for it
  useLayoutEffect(() => {
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      if (session.needsLogin || hasShortcuts || commandOf(event) !== "shortcuts") return;
      event.preventDefault();
      setShortcuts(true);
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [hasShortcuts]);

  if (session.needsLogin || !session.facts) return html`<${Login} session=${session} />`;
  const { facts } = session;
  const complain = (/** @type {string} */ text) => notices.show({ text, isError: true });
  const screens = SCREENS.filter((screen) => screen.isThere(facts));
  const screen = screens.find(({ name }) => name === route?.screen);
  const props = {
    session,
    models,
    chats,
    events,
    route,
    say: (/** @type {string} */ text, /** @type {string} */ action = "", onAction = () => {}) => notices.show({ text, action, onAction }),
    complain,
    attempt: async (/** @type {Promise<any>} */ work) => {
      try {
        await work;
      } catch (error) {
        const { message, fix } = problemOf(error);
        complain([message, fix].filter(Boolean).join(" "));
      }
    },
    isCovered: hasShortcuts,
    onShortcuts: () => setShortcuts(true),
    theme: { name: themeName(), next: () => (nextTheme(), redraw(0)) },
  };
  return html`<div class="frame">
    ${screens.length > 1 && html`<${Rail} screens=${screens} chosen=${screen?.name} />`}
    <${Boundary} key=${screen?.name} fallback=${Broken}>
      ${screen ? html`<${Opened} screen=${screen} props=${props} />` : html`<${Nowhere} />`}
    <//>
    ${hasShortcuts && html`<${Shortcuts} onClose=${() => setShortcuts(false)} />`}
    <${Toast} notices=${notices} />
  </div>`;
}

/** @param {{screens: Screen[], chosen: string | undefined}} props */
function Rail({ screens, chosen }) {
  useLayoutEffect(() => document.querySelector(".rail [aria-current]")?.scrollIntoView({ inline: "nearest" }), [chosen]);
  return html`<nav class="rail" aria-label="Screens">
    ${screens.map(
      ({ name, label, icon, path }) => html`<a key=${name} href=${path} aria-current=${name === chosen ? "page" : undefined}>
        <${Icon} name=${icon} /><span>${label}</span>
      </a>`,
    )}
  </nav>`;
}

/** A screen, which comes when it is first opened. @param {{screen: Screen, props: any}} arguments_ */
function Opened({ screen, props }) {
  const [problem, setProblem] = useState(/** @type {import("../data/types.js").Problem | null} */ (null));
  const [, redraw] = useReducer((/** @type {number} */ n) => n + 1, 0);
  const component = loaded.get(screen.name);
  useLayoutEffect(() => {
    if (component) return;
    screen.load().then(
      (found) => (loaded.set(screen.name, found), redraw(0)),
      () => setProblem({ message: `The files of ${screen.label} did not load.`, fix: "Check the connection and reload the page.", code: "unreachable" }),
    );
  }, [screen]);
  if (component) return html`<${component} ...${props} />`;
  if (problem) return html`<main class="screen"><${ErrorCard} title="This screen can't be opened" problem=${problem} onRetry=${() => location.reload()} /></main>`;
  return html`<main class="screen" aria-busy="true"><p class="hint">Loading…</p></main>`;
}

function Nowhere() {
  return html`<main class="screen"><h1>There is nothing here</h1><p>There is no screen at this address, or you may not see it. <a href="/">Go to the chat</a></p></main>`;
}

/** What is shown when the page can't even begin. @param {{problem: import("../data/types.js").Problem}} props */
export function NotStarted({ problem }) {
  return html`<main class="login">
    <${ErrorCard} title="The page can't start" problem=${problem} onRetry=${() => location.reload()} />
  </main>`;
}
