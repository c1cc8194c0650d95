/** Scrolls boxes together: the one that the reader moves leads, the others go to the same share of their length. */

const KINDS = ["wheel", "touchstart", "pointerdown", "keydown", "focusin"];
const SETTLING_FRAMES = 15; // in which a box learns the heights of what it has not drawn, and stops following its end

/**
 * @param {HTMLElement} root
 * @param {string} boxes  selects the boxes that scroll
 * @returns {() => void} ends it
 */
export function linkScrolling(root, boxes) {
  /** @type {Element | null} */
  let leader = null;
  const lead = (/** @type {Event} */ event) => void (leader = /** @type {Element} */ (event.target).closest(boxes) ?? leader);
  let frames = 0;
  const follow = () => {
    if (!leader?.isConnected) return;
    const share = leader.scrollTop / Math.max(1, leader.scrollHeight - leader.clientHeight);
    for (const box of root.querySelectorAll(boxes)) {
      if (box !== leader) box.scrollTop = share * (box.scrollHeight - box.clientHeight);
    }
    if (--frames > 0) requestAnimationFrame(follow);
  };
  const onScroll = (/** @type {Event} */ event) => {
    if (!leader || event.target !== leader) return;
    const isFollowing = frames > 0;
    frames = SETTLING_FRAMES;
    if (!isFollowing) follow();
  };
  for (const kind of KINDS) root.addEventListener(kind, lead, { capture: true, passive: true });
  root.addEventListener("scroll", onScroll, { capture: true, passive: true });
  return () => {
    frames = 0;
    for (const kind of KINDS) root.removeEventListener(kind, lead, { capture: true });
    root.removeEventListener("scroll", onScroll, { capture: true });
  };
}
