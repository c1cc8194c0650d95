/** Where the next message is written. */

/** @import {Attachment} from "./attachments.js" */
/** @import {Part} from "../data/types.js" */
import { html, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { Icon, IconButton } from "../ui/icons.js";
import { onDemand } from "../ui/on_demand.js";
import { Attached } from "./attached.js";
import { LONG_PASTE, attach, attachPaste, contentOf } from "./attachments.js";
import { draftOf, keepDraft } from "./drafts.js";

const ContextMeter = onDemand(async () => (await import("./context_meter.js")).ContextMeter, true);

/**
 * @param {object} props
 * @param {string} props.draftKey  under which what is written is kept until the server has it
 * @param {boolean} props.isRunning
 * @param {string} props.blocked  why nothing can be sent, "" if something can
 * @param {boolean} props.allowImages
 * @param {{path: import("../data/types.js").Message[], system: string, limit: number | null}} props.context  what is sent before the message, and the tokens that fit
 * @param {(content: string | Part[]) => Promise<boolean>} props.onSend  false: keep what was written
 * @param {() => void} props.onStop
 * @param {() => void} props.onEditLast
 * @param {(text: string) => void} props.onComplain
 * @param {{text: string} | null} [props.start]  an example that was chosen
 */
export function Composer({ draftKey, isRunning, blocked, allowImages, context, onSend, onStop, onEditLast, onComplain, start = null }) {
  const [text, setText] = useState(() => draftOf(draftKey).text);
  const [files, setFiles] = useState(() => draftOf(draftKey).files);
  const [isOver, setOver] = useState(false);
  const [sending, setSending] = useState(/** @type {import("./drafts.js").Draft | null} */ (null)); // the server has not said yet
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const chooser = useRef(/** @type {HTMLInputElement | null} */ (null));
  const key = useRef(draftKey); // a new chat gets its own with its first message
  key.current = draftKey;

  useLayoutEffect(() => {
    if (!start) return;
    setText(start.text);
    field.current?.focus();
  }, [start]);
  useLayoutEffect(() => {
    const area = /** @type {HTMLTextAreaElement} */ (field.current);
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, innerHeight * 0.4)}px`;
  }, [text]);
  useLayoutEffect(() => {
    keepDraft(draftKey, sending ? joined(sending, { text, files }) : { text, files });
  }, [draftKey, text, files, sending]);

  const hasContent = Boolean(text.trim() || files.length);
  const canSend = hasContent && !isRunning && !blocked && !sending;
  const send = async () => {
    if (!canSend) return;
    const draft = { text, files };
    setSending(draft);
    setText(""); // at once: what is typed while the message is under way belongs to the next one
    setFiles([]);
    let isSent = false;
    try {
      isSent = await onSend(contentOf(text.trim(), files));
    } finally {
      if (isSent) for (const name of new Set([draftKey, key.current])) keepDraft(name, { text: "", files: [] });
      setSending(null);
      if (!isSent) {
        setText((since) => joined(draft, { text: since, files: [] }).text);
        setFiles((since) => [...draft.files, ...since]);
      }
    }
  };
  const add = async (/** @type {Iterable<File>} */ list) => {
    for (const file of list) {
      try {
        const attachment = await attach(file, allowImages);
        setFiles((before) => [...before, attachment]);
      } catch (error) {
        onComplain(/** @type {Error} */ (error).message);
      }
    }
    field.current?.focus();
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.isComposing) return; // Enter belongs to the input method
    if (event.key === "Enter" && !event.shiftKey && !isTouch()) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && !text) {
      event.preventDefault();
      onEditLast();
    }
  };
  const onPaste = (/** @type {ClipboardEvent} */ event) => {
    const given = [...(event.clipboardData?.files ?? [])];
    const pasted = event.clipboardData?.getData("text/plain") ?? "";
    if (given.length && !pasted) {
      event.preventDefault();
      add(given);
    } else if (pasted.length > LONG_PASTE) {
      event.preventDefault();
      try {
        const file = attachPaste(pasted, files);
        setFiles((before) => [...before, file]);
      } catch (error) {
        onComplain(/** @type {Error} */ (error).message);
      }
    }
  };
  const onDrop = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    setOver(false);
    add(event.dataTransfer?.files ?? []);
  };
  const onDrag = (/** @type {DragEvent} */ event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    setOver(true);
  };

  return html`<form
    class=${`composer${isOver ? " over" : ""}`}
    onSubmit=${(/** @type {Event} */ event) => (event.preventDefault(), send())}
    onDragOver=${onDrag}
    onDragLeave=${() => setOver(false)}
    onDrop=${onDrop}
  >
    <${Attached} files=${files} onRemove=${(/** @type {Attachment} */ file) => setFiles(files.filter((f) => f !== file))} />
    <textarea
      ref=${field}
      dir="auto"
      rows="1"
      aria-label="Message"
      placeholder="Write a message"
      value=${text}
      onInput=${(/** @type {any} */ event) => setText(event.target.value)}
      onKeyDown=${onKey}
      onPaste=${onPaste}
    ></textarea>
    <div class="composer-bar">
      <input
        ref=${chooser}
        type="file"
        multiple
        hidden
        onChange=${(/** @type {any} */ event) => (add([...event.target.files]), (event.target.value = ""))}
      />
      <${IconButton}
        icon="paperclip"
        label=${allowImages ? "Attach pictures or text files" : "Attach text files"}
        onClick=${() => chooser.current?.click()}
      />
      <span class="hint">${blocked || "Enter sends, Shift+Enter starts a line"}</span>
      ${context.limit &&
      (hasContent || context.path.length > 0) &&
      html`<${ContextMeter} ...${context} draft=${[text, ...files.map((file) => file.text ?? "")].join("\n")} />`}
      ${isRunning
        ? html`<${IconButton} icon="stop" label="Stop the answer" class="send" onClick=${onStop} />`
        : html`<button type="submit" class="icon-button send" aria-label="Send" title="Send" disabled=${!canSend}>
            <${Icon} name="send" />
          </button>`}
    </div>
  </form>`;
}

/** @param {import("./drafts.js").Draft} first @param {import("./drafts.js").Draft} second */
function joined(first, second) {
  return { text: [first.text, second.text].filter(Boolean).join("\n\n"), files: [...first.files, ...second.files] };
}

/** On a touch keyboard Enter starts a line; sending has its button. */
function isTouch() {
  return matchMedia("(hover: none) and (pointer: coarse)").matches;
}
