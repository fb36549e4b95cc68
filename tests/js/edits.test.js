import assert from "node:assert/strict";
import { test } from "node:test";
import { after, FIELDS, indexOf, parse, readRow, readTable, set, strangers, typed, undone, write } from "../../web/js/pure/edits.js";

const STRANGE = [undefined, null, 0, NaN, Infinity, "x", true, [], [1, "a", null], {}, { a: 1 }, () => 1];
const ROWS = [
  readRow({ name: "live/tide.flac", caption: "folk", bpm: 90, key: "C major", instrumental: true, language: "en" }),
  readRow({ name: "grey.mp3", lyrics: "[Verse]\nGrey", labelled: true }),
  readRow({ name: "a/same.wav" }),
  readRow({ name: "b/same.wav" }),
];

test("whatever arrives, a row has its types", () => {
  for (const value of STRANGE) {
    for (const told of [value, ...[...FIELDS, "name", "seconds"].map((field) => ({ [field]: value }))]) {
      const row = readRow(told);
      for (const field of ["name", "caption", "genre", "lyrics", "language", "key", "time_signature", "prompt", "tag"]) {
        assert.equal(typeof row[field], "string");
      }
      assert.ok(row.bpm === null || Number.isFinite(row.bpm));
      assert.ok(Number.isFinite(row.seconds) && Number.isFinite(row.repeat));
      assert.equal(typeof row.instrumental + typeof row.labelled, "booleanboolean");
    }
    assert.deepEqual(readTable(value).rows, []);
    assert.deepEqual(readTable([{ original: value, languages: value, more: value }]).rows, []);
  }
  assert.equal(readTable([{ original: new Array(900).fill({ name: "x" }), more: 400 }]).rows.length, 500);
});

test("an edit keeps only what differs, and nothing when it is put back", () => {
  const one = set({}, ROWS, 0, "bpm", 84);
  assert.deepEqual(one, { "live/tide.flac": { bpm: 84 } });
  const two = set(one, ROWS, 0, "key", "A minor");
  assert.deepEqual(two, { "live/tide.flac": { bpm: 84, key: "A minor" } });
  assert.deepEqual(set(two, ROWS, 0, "bpm", 90), { "live/tide.flac": { key: "A minor" } });
  assert.deepEqual(set(set(two, ROWS, 0, "bpm", 90), ROWS, 0, "key", "C major"), {});
  assert.deepEqual(one, { "live/tide.flac": { bpm: 84 } }, "what was given is not changed");
});

test("no tempo at all is an edit where one was found", () => {
  assert.deepEqual(set({}, ROWS, 0, "bpm", null), { "live/tide.flac": { bpm: null } });
  assert.deepEqual(set({}, ROWS, 1, "bpm", null), {});
});

test("new lyrics make a sung piece and a new caption a labelled one, as on the server", () => {
  const sung = set({}, ROWS, 0, "lyrics", "la la");
  assert.deepEqual(sung, { "live/tide.flac": { lyrics: "la la" } });
  assert.equal(after(sung, ROWS, 0).row.instrumental, false);
  assert.deepEqual(after(sung, ROWS, 0).changed, ["lyrics", "instrumental"]);
  const hummed = set(sung, ROWS, 0, "instrumental", true);
  assert.deepEqual(hummed["live/tide.flac"], { lyrics: "la la", instrumental: true });
  assert.deepEqual(set(hummed, ROWS, 0, "lyrics", ""), {});
  const named = set({}, ROWS, 0, "caption", "slow folk");
  assert.equal(after(named, ROWS, 0).row.labelled, true);
  assert.deepEqual(set(named, ROWS, 0, "labelled", false)["live/tide.flac"], { caption: "slow folk", labelled: false });
  assert.equal(after(set({}, ROWS, 1, "lyrics", ""), ROWS, 1).row.instrumental, true);
});

test("the same edits give the same text, whatever the order they were made in", () => {
  const steps = [[0, "bpm", 84], [1, "genre", "pop"], [0, "caption", "é"], [2, "tag", "x"]];
  const made = (order) => write(order.reduce((edits, [index, field, value]) => set(edits, ROWS, index, field, value), {}));
  assert.equal(made(steps), made([...steps].reverse()));
  assert.equal(write(set({}, ROWS, 0, "bpm", 84)), '{\n "live/tide.flac": {\n  "bpm": 84\n }\n}');
  assert.equal(write({}), "");
  assert.equal(write(parse(made(steps)).edits), made(steps));
});

test("text by hand is respected", () => {
  const { edits } = parse('{"#1": {"bpm": 100, "later": [1]}, "nowhere.wav": {"bpm": 5}, "__proto__": {"bpm": 7}}');
  assert.equal(after(edits, ROWS, 0).row.bpm, 100);
  assert.deepEqual(strangers(edits, ROWS), ["nowhere.wav", "__proto__"]);
  const text = write(set(edits, ROWS, 0, "genre", "folk"));
  assert.deepEqual(JSON.parse(text)["#1"], { bpm: 100, genre: "folk", later: [1] });
  assert.deepEqual(JSON.parse(text)["nowhere.wav"], { bpm: 5 });
  assert.ok(text.includes('"__proto__"'));
  assert.ok(!("bpm" in {}));
});

test("text that cannot be read is said, and gives no edits", () => {
  for (const broken of ["{", "[1]", "3", '"x"', "null", '{"a": 1}', '{"a": [1]}', '{"a": null}']) {
    const found = parse(broken);
    assert.equal(found.edits, null, broken);
    assert.ok(found.error.length > 0, broken);
  }
  for (const empty of ["", "  \n"]) assert.deepEqual(parse(empty), { edits: {}, error: "" });
});

test("songs are found by name, number, or file name where only one has it", () => {
  const names = ["live/tide.flac", "tide.flac", "#2", "#9", "#0", "same.wav", "b/same.wav", ""];
  assert.deepEqual(names.map((name) => indexOf(ROWS, name)), [0, 0, 1, -1, -1, -1, 3, -1]);
});

test("of a large data set each name is looked up once a change, not once for each song", () => {
  let read = 0;
  const counting = (name) => ({ ...readRow({}), get name() { return (read += 1, name); } });
  const rows = Array.from({ length: 500 }, (_, index) => counting(`songs/${index}.flac`));
  const edits = Object.fromEntries(rows.map((row, index) => [index % 2 ? row.name : `${index}.flac`, { bpm: 100 }]));
  read = 0;
  const found = rows.map((_, index) => after(edits, rows, index).row.bpm);
  assert.ok(found.every((bpm) => bpm === 100));
  assert.deepEqual(strangers(edits, rows), []);
  assert.ok(read < 10 * rows.length, `${read} looks at names`);
});

test("several names of one song become one", () => {
  const edits = { "#1": { bpm: 100 }, "tide.flac": { genre: "folk" } };
  assert.deepEqual(set(edits, ROWS, 0, "tag", "x"), { "live/tide.flac": { bpm: 100, genre: "folk", tag: "x" } });
  assert.deepEqual(undone({ ...edits, "grey.mp3": { bpm: 60 } }, ROWS, 0), { "grey.mp3": { bpm: 60 } });
});

test("numbers are typed within their limits", () => {
  assert.deepEqual(["84", " 84 ", "", "29", "301", "84.5", "x"].map((text) => typed("bpm", text)), [{ value: 84 }, { value: 84 }, { value: null }, {}, {}, {}, {}]);
  assert.deepEqual(["1", "0", "", "1001"].map((text) => typed("repeat", text)), [{ value: 1 }, {}, {}, {}]);
  assert.deepEqual(typed("genre", " pop "), { value: " pop " });
});
