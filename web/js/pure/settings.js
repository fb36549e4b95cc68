// Which widgets of the canvas get which saved values.
//
// A node here is { id, type, title, active, widgets: [{ name, value, options, linked }] }; a saved one
// { id, type, title, values }. Ids of nodes inside subgraphs read "5:12".

/** Order of ids: "2" before "10", "5:1" before "5:12". */
function byId(a, b) {
  const [left, right] = [a, b].map((node) => String(node.id).split(":").map(Number));
  for (let depth = 0; depth < Math.min(left.length, right.length); depth += 1) {
    if (left[depth] !== right[depth]) return left[depth] - right[depth];
  }
  return left.length - right.length;
}

/** Pairs of [saved, node]: the same id and type first, then by type in the order of ids. Nodes that do not run stay out. */
export function pairs(saved, nodes) {
  const free = nodes.filter((node) => node.active).sort(byId);
  const found = new Map();
  const take = (entry, match) => {
    const index = free.findIndex(match);
    if (index >= 0) found.set(entry, free.splice(index, 1)[0]);
  };
  for (const entry of saved) {
    if (entry.id) take(entry, (node) => String(node.id) === entry.id && node.type === entry.type);
  }
  for (const entry of saved) {
    if (!found.has(entry)) take(entry, (node) => node.type === entry.type);
  }
  return saved.filter((entry) => found.has(entry)).map((entry) => [entry, found.get(entry)]);
}

/** Whether a widget takes a value: it is of the kind of the present one, and a number that a prompt can hold. */
export function fits(widget, value) {
  if (typeof value === "number" && !Number.isFinite(value)) return false;
  return widget.value === undefined || widget.value === null || typeof widget.value === typeof value;
}

/**
 * { writes: [{ node, name, value }], without, doubtful }: what to write, the saved nodes that found no partner, and
 * [{ title, name, value, linked }] of values that are of another kind or fed by a link (not written), or not among the
 * choices offered here (written all the same: the server decides).
 */
export function plan(saved, nodes) {
  const matched = pairs(saved, nodes);
  const partners = new Set(matched.map(([entry]) => entry));
  const writes = [];
  const doubtful = [];
  for (const [entry, node] of matched) {
    for (const widget of node.widgets) {
      const { name, options, linked = false } = widget;
      if (!Object.hasOwn(entry.values, name)) continue;
      const value = entry.values[name];
      const taken = !linked && fits(widget, value);
      if (taken) writes.push({ node: node.id, name, value });
      if (!taken || (options && !options.includes(value))) doubtful.push({ title: node.title, name, value, linked });
    }
  }
  const without = saved.filter((entry) => !partners.has(entry) && Object.keys(entry.values).length);
  return { writes, without, doubtful };
}

/** A seed from 0 to 2^32 - 1. `random` gives numbers in [0, 1). */
export function newSeed(random = Math.random) {
  return Math.floor(random() * 2 ** 32);
}

/** Widget values of the Song node from an example song. */
export function songValues(song) {
  return {
    caption: song.caption ?? "",
    lyrics: song.lyrics ?? "",
    instrumental: song.instrumental === true,
    language: song.language ?? "unknown",
    bpm: song.bpm ?? 0,
    key: song.key || "auto",
    time_signature: String(song.time_signature || "auto"),
    duration: song.duration ?? -1,
  };
}

/** Widget values of Create Sample from an example description. */
export function descriptionValues(entry) {
  return {
    description: entry.description ?? "",
    instrumental: entry.instrumental === true,
    language: entry.language ?? "unknown",
    random_example: false,
  };
}
