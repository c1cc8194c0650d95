/** A sent message while it is written anew; what went with it stays attached until it is taken off. */

/** @import {Attachment} from "./attachments.js" */
/** @import {Part} from "../data/types.js" */
import { html, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { Attached } from "./attached.js";
import { LONG_PASTE, attachPaste, contentOf } from "./attachments.js";

export const LONGEST_WRITTEN = 20_000; // characters; a field with more answers its keys late

/**
 * @param {object} props
 * @param {string} props.text
 * @param {Attachment[]} props.attachments
 * @param {(content: string | Part[]) => Promise<boolean>} props.onSave  false: keep what was written
 * @param {() => void} props.onEnd
 * @param {boolean} [props.isAnswer]  what a model wrote: saved beside the old version, and not answered
 */
export function Editor({ text, attachments, onSave, onEnd, isAnswer = false }) {
  const isLong = text.length > LONGEST_WRITTEN;
  const [draft, setDraft] = useState(isLong ? "" : text);
  const [files, setFiles] = useState(() =>
    isLong ? [{ name: "what was written", image: null, text, isBare: true }, ...attachments] : attachments,
  );
  const [complaint, setComplaint] = useState("");
  const ref = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useLayoutEffect(() => {
    const field = /** @type {HTMLTextAreaElement} */ (ref.current);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
    const editor = /** @type {HTMLElement} */ (field.parentElement);
    const next = /** @type {HTMLElement | null | undefined} */ (field.closest(".chat-panel")?.querySelector(".composer textarea"));
    return () => editor.contains(document.activeElement) && next?.focus();
  }, []);
  const hasContent = Boolean(draft.trim() || files.length);
  const save = async () => {
    if (hasContent && (await onSave(contentOf(draft, files)))) onEnd();
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") (event.preventDefault(), event.stopPropagation(), onEnd());
    if (event.key === "Enter" && !event.shiftKey && (!isAnswer || event.ctrlKey || event.metaKey)) (event.preventDefault(), save());
  };
  const onPaste = (/** @type {ClipboardEvent} */ event) => {
    const pasted = event.clipboardData?.getData("text/plain") ?? "";
    if (isAnswer || pasted.length <= LONG_PASTE) return;
    event.preventDefault();
    try {
      setFiles([...files, attachPaste(pasted, files)]);
    } catch (error) {
      setComplaint(/** @type {Error} */ (error).message);
    }
  };
  return html`<div class="editor">
    <${Attached} files=${files} onRemove=${(/** @type {Attachment} */ file) => setFiles(files.filter((f) => f !== file))} />
    <textarea
      ref=${ref}
      dir="auto"
      aria-label=${isAnswer ? "Edit the answer" : "Edit the message"}
      rows=${Math.min(12, draft.split("\n").length + 1)}
      value=${draft}
      onInput=${(/** @type {any} */ event) => setDraft(event.target.value)}
      onKeyDown=${onKey}
      onPaste=${onPaste}
    ></textarea>
    <div class="row end">
      <span class="hint" role="status">${complaint || (isAnswer ? "Ctrl Enter saves a new version; the old one stays, with what follows it." : "Sending starts a new branch; the old one stays.")}</span>
      <button type="button" class="quiet" onClick=${onEnd}>Cancel</button>
      <button type="button" class="button primary" disabled=${!hasContent} onClick=${save}>${isAnswer ? "Save" : "Send"}</button>
    </div>
  </div>`;
}
