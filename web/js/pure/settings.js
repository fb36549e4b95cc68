// Which widgets of the canvas get which saved values.
//
// A node here is { id, type, widgets: [name], linked: [name] }; a saved one { id, type, title, values }.

/** Pairs of [saved, node]: the same id and type first, then by type in the order of ids. */
export function pairs(saved, nodes) {
  const free = [...nodes].sort((a, b) => Number(a.id) - Number(b.id));
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

/**
 * { writes: [{ node, name, value }], without: [saved nodes that found no partner] }.
 * Widgets that are fed by a link are left alone.
 */
export function plan(saved, nodes) {
  const matched = pairs(saved, nodes);
  const partners = new Set(matched.map(([entry]) => entry));
  const writes = matched.flatMap(([entry, node]) =>
    Object.entries(entry.values)
      .filter(([name]) => node.widgets.includes(name) && !node.linked.includes(name))
      .map(([name, value]) => ({ node: node.id, name, value })),
  );
  return { writes, without: saved.filter((entry) => !partners.has(entry) && Object.keys(entry.values).length) };
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
