/** The screens of the page and their addresses. A screen other than the chat is loaded when it is first opened. */

/** @import {SessionFacts} from "../data/types.js" */
import { addStyle } from "../ui/style.js";

/** @type {{screen: string, path: string}[]} */
export const ROUTES = [
  { screen: "chat", path: "/" },
  { screen: "chat", path: "/chat" },
  { screen: "chat", path: "/chat/:chat" },
  { screen: "compare", path: "/compare" },
  { screen: "arena", path: "/arena" },
  { screen: "arena", path: "/arena/:battle" },
  { screen: "leaderboard", path: "/leaderboard" },
  { screen: "training", path: "/training" },
  { screen: "training", path: "/training/:run" },
  { screen: "evals", path: "/evals" },
  { screen: "evals", path: "/evals/:run" },
  { screen: "keys", path: "/keys" },
  { screen: "fleet", path: "/workers" }, // /fleet is the API's
  { screen: "models", path: "/library" }, // /models is where clients without /v1 in their base URL knock
];

/**
 * @typedef {object} Screen
 * @property {string} name
 * @property {string} label
 * @property {string} icon
 * @property {string} path  where its link leads
 * @property {(facts: SessionFacts) => boolean} isThere
 * @property {() => Promise<any>} load  the component
 */

/** @type {Screen[]} */
export const SCREENS = [
  {
    name: "chat",
    label: "Chat",
    icon: "chat",
    path: "/",
    isThere: () => true,
    load: async () => (await import("../chat/chat_screen.js")).ChatScreen,
  },
  {
    name: "compare",
    label: "Compare",
    icon: "columns",
    path: "/compare",
    isThere: () => true,
    load: async () => (await styled(import("../compare/compare_screen.js"))).CompareScreen,
  },
  {
    name: "arena",
    label: "Arena",
    icon: "scales",
    path: "/arena",
    isThere: () => true,
    load: async () => (await styled(import("../arena/arena_screen.js"))).ArenaScreen,
  },
  {
    name: "leaderboard",
    label: "Ratings",
    icon: "podium",
    path: "/leaderboard",
    isThere: () => true,
    load: async () => (await styled(import("../leaderboard/leaderboard_screen.js"))).LeaderboardScreen,
  },
  {
    name: "training",
    label: "Training",
    icon: "chart",
    path: "/training",
    isThere: (facts) => facts.sees_runs === true,
    load: async () => (await styled(import("../training/training_screen.js"))).TrainingScreen,
  },
  {
    name: "evals",
    label: "Evals",
    icon: "thumb",
    path: "/evals",
    isThere: (facts) => facts.sees_runs === true,
    load: async () => (await styled(import("../evals/evals_screen.js"))).EvalsScreen,
  },
  {
    name: "models",
    label: "Models",
    icon: "box",
    path: "/library",
    isThere: () => true,
    load: async () => (await styled(import("../models/models_screen.js"))).ModelsScreen,
  },
  {
    name: "keys",
    label: "Keys",
    icon: "key",
    path: "/keys",
    isThere: (facts) => facts.sees_keys === true,
    load: async () => (await styled(import("../keys/keys_screen.js"))).KeysScreen,
  },
  {
    name: "fleet",
    label: "Fleet",
    icon: "server",
    path: "/workers",
    isThere: (facts) => facts.sees_fleet === true,
    load: async () => (await styled(import("../fleet/fleet_screen.js"))).FleetScreen,
  },
];

/** A screen's module, when the style sheets that it needs hold too. @template {object} T @param {Promise<T>} loading */
async function styled(loading) {
  const [screen] = await Promise.all([loading, addStyle(new URL("../ui/kit.css", import.meta.url))]);
  if ("styled" in screen) await screen.styled;
  return screen;
}
