// What the server says, made safe: every field has its type, whatever arrived. Nothing here trusts its input.

const MOST = { cards: 64, peaks: 400, lines: 2000, words: 200, text: 2000, shown: 100_000, copied: 2_000_000 };

const object = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
const list = (value, most) => (Array.isArray(value) ? value.slice(0, most) : []);
const text = (value, most = MOST.text) => (typeof value === "string" ? value.slice(0, most) : "");
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

const inside = (path) => !path.split(/[\\/]/).includes("..");

/** { filename, subfolder, type } of a file that /view can serve; null where there is none. */
export function readFile(value) {
  const file = object(value);
  const filename = text(file.filename);
  const subfolder = text(file.subfolder);
  if (!filename || /[\\/]/.test(filename) || !inside(filename) || !inside(subfolder)) return null;
  const type = ["output", "temp", "input"].includes(file.type) ? file.type : "output";
  return { filename, subfolder, type, label: text(file.label, 40) };
}

function readSpan(value, earliest) {
  const entry = object(value);
  const start = number(entry.start);
  const words = text(entry.text, 400);
  if (start === null || !words) return null;
  const from = Math.max(earliest, start);
  return { text: words, start: from, end: Math.max(from, number(entry.end) ?? from) };
}

function readSpans(values, most) {
  const found = [];
  let earliest = 0;
  for (const value of list(values, most)) {
    const span = readSpan(value, earliest);
    if (!span) continue;
    earliest = span.start;
    found.push([span, object(value)]);
  }
  return found;
}

/** Lines with words, times that never fall. Words that do not spell their line are left out. */
export function readLines(values) {
  return readSpans(values, MOST.lines).map(([line, entry]) => {
    const words = readSpans(entry.words, MOST.words).map(([word]) => word);
    const spelled = words.map((word) => word.text).join("") === line.text;
    return { ...line, tag: entry.tag === true, words: spelled ? words : [] };
  });
}

/** One piece of music as players show it. */
export function readCard(value) {
  const card = object(value);
  const scores = object(card.scores);
  return {
    file: readFile(card.file),
    sidecar: inside(text(card.sidecar)) ? text(card.sidecar) : "",
    title: text(card.title, 80),
    seconds: Math.max(0, number(card.seconds) ?? 0),
    peaks: list(card.peaks, MOST.peaks).map((peak) => Math.min(100, Math.max(0, number(peak) ?? 0))),
    seed: number(card.seed),
    scores: { total: number(scores.total), planner: number(scores.planner), lyrics: number(scores.lyrics) },
    lines: readLines(card.lines),
    timed: card.timed === true,
    batch: text(card.batch, 80),
    item: number(card.item) ?? 0,
  };
}

/** Cards of a node's output; those without a file are left out. */
export function readCards(values) {
  return list(values, MOST.cards).map(readCard).filter((card) => card.file);
}

/** The answer of the results route: batches with their cards, newest first. */
export function readBatches(value) {
  const answer = object(value);
  const batches = list(answer.batches, 1000).map((entry) => {
    const batch = object(entry);
    const items = list(batch.items, MOST.cards).map(readCard);
    return { id: text(batch.id, 200), time: number(batch.time) ?? 0, title: text(batch.title, 80), items };
  });
  const skipped = list(answer.skipped, 50).map((entry) => ({
    file: text(object(entry).file),
    reason: text(object(entry).reason),
  }));
  return { batches: batches.filter((batch) => batch.id && batch.items.length), more: answer.more === true, skipped };
}

/** The answer of the result route. */
export function readDetail(value) {
  const detail = object(value);
  const times = Object.entries(object(detail.times)).filter(([, seconds]) => number(seconds) !== null);
  return {
    card: readCard(detail.card),
    summary: text(detail.summary, MOST.shown),
    codes: text(detail.codes, MOST.copied),
    lrc: text(detail.lrc, MOST.copied),
    vtt: text(detail.vtt, MOST.copied),
    scoreReport: text(detail.score_report, MOST.shown),
    times: times.map(([name, seconds]) => [text(name, 80), seconds]),
    models: list(detail.models, 20).map((entry) => {
      const model = object(entry);
      return { name: text(model.name), bytes: number(model.bytes), fingerprint: text(model.fingerprint, 80) };
    }),
    notes: list(detail.notes, 50).map((note) => text(note)).filter(Boolean),
    files: list(detail.files, 20).map(readFile).filter(Boolean),
    nodes: readNodes(detail.nodes),
    hasWorkflow: detail.has_workflow === true,
  };
}

/** Nodes of a saved run: id, type, title, and the widget values that are plain. */
export function readNodes(values) {
  return list(values, 2000).map((entry) => {
    const node = object(entry);
    const plain = Object.entries(object(node.values)).filter(([, value]) =>
      ["string", "number", "boolean"].includes(typeof value),
    );
    const id = typeof node.id === "number" ? String(node.id) : text(node.id, 40);
    return { id, type: text(node.type, 200), title: text(node.title, 200), values: Object.fromEntries(plain) };
  });
}
