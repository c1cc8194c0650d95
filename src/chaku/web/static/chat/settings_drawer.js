/** What goes with every message of a chat: system prompt and sampling, and the same as a call in code. */

/** @import {Conversation} from "./conversation.js" */
import { copyText } from "../ui/clipboard.js";
import { Dialog } from "../ui/dialog.js";
import { html, useId, useState } from "../ui/html.js";
import { Tabs } from "../ui/tabs.js";
import { useChanges } from "../data/observable.js";
import { forgetDefaults, keepDefaults, keptDefaults } from "./defaults.js";
import { BUILT_IN, keepPresets, ownPresets } from "./presets.js";
import { asCurl, asPython, requestBody } from "./request_code.js";

/**
 * @typedef {object} Setting
 * @property {string} name
 * @property {string} label
 * @property {string} help
 * @property {number} min
 * @property {number} max
 * @property {number} step
 */

/** @type {Setting[]} */
const SETTINGS = [
  { name: "temperature", label: "Temperature", help: "0 gives the same answer each time; higher is more varied", min: 0, max: 2, step: 0.05 },
  { name: "top_p", label: "Top-p", help: "Keep the likeliest tokens up to this share", min: 0, max: 1, step: 0.01 },
  { name: "min_p", label: "Min-p", help: "Drop tokens below this share of the likeliest", min: 0, max: 1, step: 0.01 },
  { name: "top_k", label: "Top-k", help: "Keep this many tokens, 0 for all", min: 0, max: 1000, step: 1 },
  { name: "max_tokens", label: "Longest answer", help: "In tokens", min: 1, max: 1_000_000, step: 1 },
  { name: "repetition_penalty", label: "Repetition penalty", help: "1 is none", min: 0.5, max: 2, step: 0.01 },
  { name: "presence_penalty", label: "Presence penalty", help: "Against words used before", min: -2, max: 2, step: 0.05 },
  { name: "frequency_penalty", label: "Frequency penalty", help: "Against words used often", min: -2, max: 2, step: 0.05 },
  { name: "seed", label: "Seed", help: "The same seed, the same answer", min: 0, max: 2_147_483_647, step: 1 },
];

/** Settings in a few words. @param {import("../data/types.js").Settings} settings */
function inWords(settings) {
  const known = SETTINGS.filter(({ name }) => settings[name] !== undefined);
  const words = known.map(({ name, label }) => `${label.toLowerCase()} ${settings[name]}`);
  if (Array.isArray(settings.stop)) words.push(`stop words ${settings.stop.map((word) => JSON.stringify(word)).join(", ")}`);
  return words.join(", ");
}

/** @param {{conversation: Conversation, needsKey: boolean, onClose: () => void, attempt: (work: Promise<any>) => void}} props */
export function SettingsDrawer({ conversation, needsKey, onClose, attempt }) {
  useChanges(conversation);
  const { settings, defaults } = conversation;
  const set = (/** @type {string} */ name, /** @type {number | string[] | null} */ value) => {
    const next = { ...settings };
    if (value === null) delete next[name];
    else next[name] = value;
    attempt(conversation.update({ settings: next }));
  };
  const numSet = Object.keys(settings).length;
  return html`<${Dialog} title="Chat settings" kind="drawer" onClose=${onClose}>
    <${SystemPrompt} conversation=${conversation} attempt=${attempt} />
    <section>
      <div class="row spread">
        <h3>Sampling</h3>
        <button
          type="button"
          class="quiet"
          disabled=${!numSet}
          onClick=${() => attempt(conversation.update({ settings: {} }))}
        >
          Reset to model default
        </button>
      </div>
      <p class="hint">
        ${conversation.model ? `Default of ${conversation.model}: ${inWords(defaults.sampling) || "its server decides"}.` : "No model is chosen."}
      </p>
      ${SETTINGS.map((setting) => html`<${NumberSetting} key=${setting.name} setting=${setting} value=${settings[setting.name]} usual=${defaults.sampling[setting.name]} onSet=${set} />`)}
      <${StopWords} value=${/** @type {string[] | undefined} */ (settings.stop)} usual=${defaults.sampling.stop} onSet=${set} />
    </section>
    <${ForNewChats} conversation=${conversation} />
    <${AsCode} conversation=${conversation} needsKey=${needsKey} />
  <//>`;
}

/**
 * A field that shows `value`, and what is being typed into it until `onChange` takes that.
 * @param {string} value
 * @param {(field: any) => void | boolean} onChange  false: it can't be taken and stays to be mended
 */
function useDraft(value, onChange) {
  const [draft, setDraft] = useState(/** @type {string | null} */ (null));
  return {
    value: draft ?? value,
    onInput: (/** @type {any} */ event) => setDraft(event.target.value === value ? null : event.target.value),
    onChange: (/** @type {any} */ event) => onChange(event.target) !== false && setDraft(null),
  };
}

/** @param {{conversation: Conversation, attempt: (work: Promise<any>) => void}} props */
function SystemPrompt({ conversation, attempt }) {
  const id = useId();
  const [own, setOwn] = useState(ownPresets);
  const [name, setName] = useState("");
  const { system } = conversation;
  const usual = conversation.inForce.system;
  const save = (/** @type {string} */ text) => {
    conversation.takesNoSystem = text === "";
    attempt(conversation.update({ system: text }));
  };
  const field = useDraft(system, ({ value }) => save(value));
  const keep = (/** @type {import("./presets.js").Preset[]} */ presets) => (keepPresets(presets), setOwn(presets));
  const take = (/** @type {import("./presets.js").Preset} */ { text, settings }) => {
    attempt(conversation.update({ ...(text && { system: text }), ...(settings && { settings }) }));
  };
  const all = [...BUILT_IN, ...own];
  return html`<section>
    <h3><label for=${id}>System prompt</label></h3>
    <textarea
      id=${id}
      dir="auto"
      rows="5"
      placeholder=${`Model default: ${usual || "none"}`}
      ...${field}
    ></textarea>
    <div class="chips" role="group" aria-label="Presets">
      ${all.map(
        (preset) => html`<button
          type="button"
          class="chip"
          title=${[preset.text, inWords(preset.settings ?? {})].filter(Boolean).join("\n")}
          onClick=${() => take(preset)}
        >
          ${preset.name}
        </button>`,
      )}
      ${(system || usual) && html`<button type="button" class="chip" onClick=${() => save("")}>None</button>`}
    </div>
    <div class="row">
      <input
        aria-label="Name of the preset"
        placeholder="Keep prompt and sampling as…"
        value=${name}
        onInput=${(/** @type {any} */ event) => setName(event.target.value)}
      />
      <button
        type="button"
        class="button"
        disabled=${!name.trim() || !(system.trim() || Object.keys(conversation.settings).length)}
        onClick=${() => {
          const preset = { name: name.trim(), text: system, settings: conversation.settings };
          keep([...own.filter((p) => p.name !== preset.name), preset]);
          setName("");
        }}
      >
        Keep
      </button>
      ${own.some((p) => p.name === name.trim()) &&
      html`<button type="button" class="quiet" onClick=${() => (keep(own.filter((p) => p.name !== name.trim())), setName(""))}>Forget</button>`}
    </div>
  </section>`;
}

/** What all new chats begin with. @param {{conversation: Conversation}} props */
function ForNewChats({ conversation }) {
  const [kept, setKept] = useState(keptDefaults);
  const keep = () => (keepDefaults(conversation), setKept(keptDefaults()));
  const forget = () => (forgetDefaults(), setKept(null));
  const system = kept?.system === "" ? "no system prompt" : kept?.system ? `the system prompt “${kept.system.slice(0, 60)}${kept.system.length > 60 ? "…" : ""}”` : "";
  const words = kept && [kept.model, system, inWords(kept.settings)].filter(Boolean).join(", ");
  return html`<section>
    <h3>New chats</h3>
    <p class="hint">${words ? `They begin with ${words}.` : "They begin with the model that was used last and its defaults."}</p>
    <div class="row">
      <button type="button" class="button" onClick=${keep}>Begin new chats like this one</button>
      ${kept && html`<button type="button" class="quiet" onClick=${forget}>Back to the model's defaults</button>`}
    </div>
  </section>`;
}

/** @param {{setting: Setting, value: any, usual: any, onSet: (name: string, value: number | null) => void}} props */
function NumberSetting({ setting, value, usual, onSet }) {
  const id = useId();
  const { name, label, help, min, max, step } = setting;
  const field = useDraft(String(value ?? ""), (input) => {
    const { validity } = input;
    if (validity.rangeOverflow || validity.rangeUnderflow || validity.badInput) return input.reportValidity();
    onSet(name, input.value === "" ? null : Number(input.value));
  });
  return html`<div class="setting">
    <label for=${id}>${label}<small>${help}</small></label>
    <input
      id=${id}
      type="number"
      inputmode="decimal"
      min=${min}
      max=${max}
      step=${step < 1 ? "any" : step}
      placeholder=${usual === undefined ? "model default" : `default ${usual}`}
      ...${field}
    />
  </div>`;
}

/** @param {{value: string[] | undefined, usual: any, onSet: (name: string, value: string[] | null) => void}} props */
function StopWords({ value, usual, onSet }) {
  const id = useId();
  const field = useDraft((value ?? []).join("\n"), ({ value }) => {
    const words = value.split("\n").filter(Boolean).slice(0, 4);
    onSet("stop", words.length ? words : null);
  });
  return html`<div class="setting">
    <label for=${id}>Stop words<small>One per line, 4 at most</small></label>
    <textarea id=${id} rows="2" placeholder=${usual === undefined ? "model default" : `default ${usual}`} ...${field}></textarea>
  </div>`;
}

/** @param {{conversation: Conversation, needsKey: boolean}} props */
function AsCode({ conversation, needsKey }) {
  const [language, setLanguage] = useState("curl");
  const [isCopied, setCopied] = useState(false);
  const { model, path } = conversation;
  const { system, settings } = conversation.inForce;
  const body = requestBody({ model: model ?? "MODEL", system, settings, path });
  const code = (language === "curl" ? asCurl : asPython)(location.origin, body, needsKey);
  const copy = async () => {
    setCopied(await copyText(code));
    setTimeout(() => setCopied(false), 1500);
  };
  return html`<section>
    <h3>The same in code</h3>
    <${Tabs} label="Language" tabs=${["curl", "Python"].map((name) => ({ name, label: name }))} chosen=${language} onChoose=${setLanguage}>
      <pre class="request-code" tabindex="0" role="region" aria-label="The request in code">${code}</pre>
      <button type="button" class="quiet" onClick=${copy}>${isCopied ? "Copied" : "Copy"}</button>
    <//>
  </section>`;
}
