/** Sizes of memory and files as people read them. */

/** "98 MB" or "1.8 GB", in powers of ten as the terminal shows them. @param {number | null} bytes */
export function size(bytes) {
  if (bytes == null) return "–";
  return bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
