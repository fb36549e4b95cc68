// From points of a training to a drawing: ranges, marks on the axes, lines.

/** The points to draw in `count` columns: of each column the lowest, the highest and the last loss, in order. */
export function thinned(points, count) {
  if (points.length <= 3 * count) return points;
  const kept = [];
  for (let column = 0; column < count; column += 1) {
    const start = Math.floor((column * points.length) / count);
    const end = Math.floor(((column + 1) * points.length) / count);
    let [low, high] = [-1, -1];
    for (let index = start; index < end; index += 1) {
      if (points[index].loss === null) continue;
      if (low < 0 || points[index].loss < points[low].loss) low = index;
      if (high < 0 || points[index].loss > points[high].loss) high = index;
    }
    const chosen = new Set([low, high, end - 1].filter((index) => index >= 0));
    kept.push(...[...chosen].sort((a, b) => a - b).map((index) => points[index]));
  }
  return kept;
}

/**
 * { low, high } of the losses that a drawing shows: all running means, and all losses but rare peaks far above the
 * others, which would press the rest flat. Null where there is no loss at all.
 */
export function range(points) {
  const losses = points.map((point) => point.loss).filter((value) => value !== null).sort((a, b) => a - b);
  const means = points.map((point) => point.mean).filter((value) => value !== null);
  if (!losses.length && !means.length) return null;
  const at = (share) => losses[Math.round(share * (losses.length - 1))];
  let [low, high] = losses.length ? [losses[0], losses.at(-1)] : [Infinity, -Infinity];
  if (losses.length >= 20) high = Math.min(high, at(0.98) + 2 * (at(0.98) - at(0.5)));
  for (const mean of means) [low, high] = [Math.min(low, mean), Math.max(high, mean)];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return { low: low >= 0 ? Math.max(0, low - room) : low - room, high: high + room };
}

/** Round numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart, about `count` of them. */
export function ticks(low, high, count, whole = false) {
  if (!(high > low) || !(count > 0)) return [];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  let apart = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= rough * 0.999);
  if (whole) apart = Math.max(1, Math.round(apart));
  const first = Math.ceil(low / apart - 1e-9);
  const last = Math.floor(high / apart + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => Number(((first + index) * apart).toPrecision(12)));
}

/** A step as few signs: "800", "12k", "1.5k". */
export function shortStep(step) {
  return step >= 1000 && step % 100 === 0 ? `${step / 1000}k` : String(step);
}

/** A function from [low, high] to [from, to]; what lies outside is put on the border. */
export function scale(low, high, from, to) {
  const span = high - low;
  return (value) => from + (span > 0 ? Math.min(1, Math.max(0, (value - low) / span)) : 0.5) * (to - from);
}

/** SVG path through the points where `field` is a number, broken where it is none. */
export function line(points, field, x, y) {
  let pen = "M";
  let path = "";
  for (const point of points) {
    if (point[field] === null) {
      pen = "M";
      continue;
    }
    path += `${pen}${round(x(point.step))} ${round(y(point[field]))}`;
    pen = "L";
  }
  return path;
}

function round(value) {
  return Math.round(value * 10) / 10;
}

/** The point whose step is nearest to `step`, null where there is none. Steps rise. */
export function nearest(points, step) {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].step < step) low = middle + 1;
    else high = middle;
  }
  const [before, after] = [points[low - 1], points[low]];
  if (!before || !after) return after ?? null;
  return step - before.step <= after.step - step ? before : after;
}
