// The picture of a sound: bars from its loudest moments.

/** `count` heights from 0 to 1 of `peaks` (0 to 100), the loudest of each part; a flat line where there are none. */
export function bars(peaks, count) {
  if (!peaks.length) return new Array(count).fill(0);
  return Array.from({ length: count }, (_, index) => {
    const first = Math.floor((index * peaks.length) / count);
    const last = Math.max(first + 1, Math.floor(((index + 1) * peaks.length) / count));
    return Math.min(1, Math.max(0, Math.max(...peaks.slice(first, last)) / 100));
  });
}

/** SVG path of bars mirrored around the middle of a box, one unit wide each with a gap between them. */
export function path(heights, height) {
  const middle = height / 2;
  return heights
    .map((value, index) => {
      const half = Math.max(0.5, value * (middle - 0.5));
      return `M${index + 0.2} ${round(middle - half)}h.6v${round(2 * half)}h-.6z`;
    })
    .join("");
}

function round(value) {
  return Math.round(value * 100) / 100;
}

/** Seconds that a click at `x` means on a picture of `width` from `left`. */
export function seekTo(x, left, width, seconds) {
  if (!(width > 0)) return 0;
  return Math.min(1, Math.max(0, (x - left) / width)) * seconds;
}
