// Edits of a data set as JSON text: for each song the fields that differ from what was found.
//
// The text belongs to the user: what cannot be read is said and left alone, and what the table does not know is kept.

export const FIELDS = [
  ...["caption", "genre", "lyrics", "language", "instrumental", "bpm", "key", "time_signature"],
  ...["prompt", "tag", "labelled", "repeat"],
];
export const PROMPTS = ["", "caption", "genre"];
const MOST = { rows: 500, choices: 500, text: 100_000, name: 1000 };

const isObject = (value) => Boolean(value) && typeof value === "object" && !Array.isArray(value);
const object = (value) => (isObject(value) ? value : {});
const text = (value, most = MOST.text) => (typeof value === "string" ? value.slice(0, most) : "");
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const texts = (value) => (Array.isArray(value) ? value : []).filter((one) => typeof one === "string").slice(0, MOST.choices);

/** One song as the table shows it, every field of its type. */
export function readRow(value) {
  const row = object(value);
  return {
    name: text(row.name, MOST.name),
    seconds: Math.max(0, number(row.seconds) ?? 0),
    caption: text(row.caption),
    genre: text(row.genre),
    lyrics: text(row.lyrics),
    language: text(row.language),
    instrumental: row.instrumental === true,
    bpm: number(row.bpm),
    key: text(row.key),
    time_signature: text(row.time_signature),
    prompt: PROMPTS.includes(row.prompt) ? row.prompt : "",
    tag: text(row.tag),
    labelled: row.labelled === true,
    repeat: number(row.repeat) ?? 1,
  };
}

/** What Edit Dataset reports: the songs before its edits, what can be chosen, and how many songs are not shown. */
export function readTable(value) {
  const told = object(Array.isArray(value) ? value[0] : value);
  const rows = (Array.isArray(told.original) ? told.original : []).slice(0, MOST.rows).map(readRow).filter((row) => row.name);
  return {
    rows,
    languages: texts(told.languages),
    keys: texts(told.keys),
    signatures: texts(told.time_signatures),
    more: Math.max(0, number(told.more) ?? 0),
  };
}

/** { edits, error } of the text: what is wrong is said in a few words, and then there are no edits. */
export function parse(source) {
  if (!source.trim()) return { edits: {}, error: "" };
  let edits;
  try {
    edits = JSON.parse(source);
  } catch (error) {
    return { edits: null, error: error.message };
  }
  const wrong = isObject(edits) ? Object.entries(edits).find(([, changes]) => !isObject(changes)) : ["{}"];
  return wrong ? { edits: null, error: wrong[0] } : { edits, error: "" };
}

const sorted = (record) =>
  Object.fromEntries(
    Object.entries(record)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, value]) => [key, isObject(value) ? sorted(value) : value]),
  );

/** The text of edits: the same edits give the same text. */
export function write(edits) {
  return Object.keys(edits).length ? JSON.stringify(sorted(edits), null, 1) : "";
}

/** What `make` gives of an object that never changes, made once. */
function once(make) {
  const made = new WeakMap();
  return (of) => made.get(of) ?? made.set(of, make(of)).get(of);
}

function grouped(values, keyOf) {
  const groups = new Map();
  for (const value of values) {
    const key = keyOf(value);
    if (groups.has(key)) groups.get(key).push(value);
    else groups.set(key, [value]);
  }
  return groups;
}

/** Which song has a name: the first of its own, or the only one with a file of that name. */
const places = once((rows) => {
  const files = [...grouped(rows.keys(), (index) => rows[index].name.split("/").at(-1))];
  const owns = [...grouped(rows.keys(), (index) => rows[index].name)];
  return new Map([...files.filter(([, those]) => those.length === 1), ...owns].map(([name, [index]]) => [name, index]));
});

/** Which song a name in the edits speaks of, -1 for none of these. */
export function indexOf(rows, name) {
  if (/^#\d+$/.test(name)) return Number(name.slice(1)) <= rows.length ? Number(name.slice(1)) - 1 : -1;
  return places(rows).get(name) ?? -1;
}

const spoken = once((rows) => once((edits) => grouped(Object.keys(edits), (name) => indexOf(rows, name))));

/** Names in the edits that speak of a song: its own name, "#1" for the first, or the name of its file alone. */
const namesOf = (edits, rows, index) => spoken(rows)(edits).get(index) ?? [];

/** Names in the edits that speak of none of the songs. */
export const strangers = (edits, rows) => namesOf(edits, rows, -1);

/** The edits of one song under one name. */
function changesOf(edits, rows, index) {
  return Object.assign({}, ...namesOf(edits, rows, index).map((name) => edits[name]));
}

/** What a song is without edits of `field`: new lyrics make it a sung piece, a new caption a labelled one. */
function base(row, changes, field) {
  if (field === "instrumental" && typeof changes.lyrics === "string") return !changes.lyrics.trim();
  if (field === "labelled" && changes.caption) return true;
  return row[field];
}

/** A song after its edits: { row, changed }, the latter names of fields that differ from what was found. */
export function after(edits, rows, index) {
  const found = rows[index];
  const changes = changesOf(edits, rows, index);
  const told = FIELDS.map((field) => [field, Object.hasOwn(changes, field) ? changes[field] : base(found, changes, field)]);
  const row = { ...found, ...Object.fromEntries(told) };
  return { row, changed: FIELDS.filter((field) => row[field] !== found[field]) };
}

/** `edits` with one field of a song set. What is as it was found is no edit. */
export function set(edits, rows, index, field, value) {
  const names = namesOf(edits, rows, index);
  const changes = { ...changesOf(edits, rows, index), [field]: value };
  for (const key of FIELDS) if (changes[key] === base(rows[index], changes, key)) delete changes[key];
  const kept = undone(edits, rows, index);
  if (!Object.keys(changes).length) return kept;
  return Object.fromEntries([...Object.entries(kept), [names.length === 1 ? names[0] : rows[index].name, changes]]);
}

/** `edits` without those of a song. */
export function undone(edits, rows, index) {
  const names = namesOf(edits, rows, index);
  return Object.fromEntries(Object.entries(edits).filter(([name]) => !names.includes(name)));
}

/** Whole numbers that a field takes. */
export const LIMITS = { bpm: [30, 300], repeat: [1, 1000] };

/** What was typed as the value of a field: { value }, or {} where it is none. */
export function typed(field, input) {
  if (!Object.hasOwn(LIMITS, field)) return { value: input };
  if (!input.trim()) return field === "bpm" ? { value: null } : {};
  const [low, high] = LIMITS[field];
  const value = Number(input);
  return Number.isInteger(value) && value >= low && value <= high ? { value } : {};
}
