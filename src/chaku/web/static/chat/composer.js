/** Where the next message is written. */

/** @import {Attachment} from "./attachments.js" */
/** @import {Part} from "../data/types.js" */
import { attach, contentOf } from "./attachments.js";
import { html, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { Icon, IconButton } from "../ui/icons.js";

const LONG_PASTE = 6_000; // characters; beyond that a paste becomes a file

/**
 * @param {object} props
 * @param {boolean} props.isRunning
 * @param {string} props.blocked  why nothing can be sent, "" if something can
 * @param {boolean} props.allowImages
 * @param {(content: string | Part[]) => Promise<boolean>} props.onSend  false: keep what was written
 * @param {() => void} props.onStop
 * @param {() => void} props.onEditLast
 * @param {(text: string) => void} props.onComplain
 * @param {{text: string} | null} [props.start]  an example that was chosen
 */
export function Composer({ isRunning, blocked, allowImages, onSend, onStop, onEditLast, onComplain, start = null }) {
  const [text, setText] = useState("");
  const [files, setFiles] = useState(/** @type {Attachment[]} */ ([]));
  const [isOver, setOver] = useState(false);
  const [isSending, setSending] = useState(false);
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const chooser = useRef(/** @type {HTMLInputElement | null} */ (null));

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

  const hasContent = Boolean(text.trim() || files.length);
  const canSend = hasContent && !isRunning && !blocked && !isSending;
  const send = async () => {
    if (!canSend) return;
    setSending(true);
    setText(""); // at once: what is typed while the message is under way belongs to the next one
    setFiles([]);
    const isSent = await onSend(contentOf(text.trim(), files));
    setSending(false);
    if (isSent) return;
    setText((since) => [text, since].filter(Boolean).join("\n\n"));
    setFiles((since) => [...files, ...since]);
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
      setFiles((before) => [...before, { name: `pasted-${before.length + 1}.txt`, image: null, text: pasted }]);
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
    ${files.length > 0 &&
    html`<ul class="attachments" aria-label="Attached">
      ${files.map(
        (file) => html`<li>
          ${file.image ? html`<img src=${file.image} alt="" />` : html`<${Icon} name="text" />`}
          <span>${file.name}</span>
          <${IconButton} icon="close" label=${`Remove ${file.name}`} onClick=${() => setFiles(files.filter((f) => f !== file))} />
        </li>`,
      )}
    </ul>`}
    <textarea
      ref=${field}
      id="composer"
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
      ${isRunning
        ? html`<${IconButton} icon="stop" label="Stop the answer" class="send" onClick=${onStop} />`
        : html`<button type="submit" class="icon-button send" aria-label="Send" title="Send" disabled=${!canSend}>
            <${Icon} name="send" />
          </button>`}
    </div>
  </form>`;
}

/** On a touch keyboard Enter starts a line; sending has its button. */
function isTouch() {
  return matchMedia("(hover: none) and (pointer: coarse)").matches;
}
