import assert from "node:assert/strict";
import { test } from "node:test";
import { readBatches, readCard, readCards, readDetail, readLines, readNodes } from "../../web/js/pure/cards.js";

const STRANGE = [undefined, null, 0, NaN, Infinity, "x", true, [], [1, "a", null], {}, { a: 1 }, () => 1];
const FIELDS = ["file", "sidecar", "title", "seconds", "peaks", "seed", "scores", "lines", "batch", "item", "timed"];

test("whatever arrives, a card has its types", () => {
  for (const value of STRANGE) {
    for (const field of FIELDS) check(readCard({ [field]: value }));
    check(readCard(value));
  }
});

function check(card) {
  assert.ok(card.file === null || typeof card.file.filename === "string");
  for (const field of ["sidecar", "title", "batch"]) assert.equal(typeof card[field], "string");
  assert.ok(Number.isFinite(card.seconds) && card.seconds >= 0);
  assert.ok(card.peaks.every((peak) => peak >= 0 && peak <= 100));
  assert.ok(card.seed === null || Number.isFinite(card.seed));
  for (const score of Object.values(card.scores)) assert.ok(score === null || Number.isFinite(score));
  assert.ok(Array.isArray(card.lines));
}

test("times of lines and words never fall", () => {
  const lines = readLines([
    { text: "b", start: 5, end: 4, words: [{ text: "b", start: 1 }, { start: 3 }, "x"] },
    { text: "a", start: 2, end: 9 },
    { text: "", start: 8 },
    { text: "no time" },
  ]);
  assert.deepEqual(lines.map((line) => [line.text, line.start, line.end]), [["b", 5, 5], ["a", 5, 9]]);
  assert.deepEqual(lines[0].words, [{ text: "b", start: 1, end: 1 }]);
});

test("words that do not spell their line are left out", () => {
  const words = [{ text: "Walking", start: 1 }, { text: " home", start: 2 }];
  assert.equal(readLines([{ text: "Walking home", start: 1, words }])[0].words.length, 2);
  assert.equal(readLines([{ text: "Going home", start: 1, words }])[0].words.length, 0);
});

test("long texts and lists are cut", () => {
  const huge = "x".repeat(5_000_000);
  assert.equal(readCard({ title: huge }).title.length, 80);
  assert.equal(readCard({ peaks: new Array(100_000).fill(5) }).peaks.length, 400);
  assert.equal(readLines(new Array(50_000).fill({ text: "a", start: 0 })).length, 2000);
  assert.equal(readDetail({ codes: huge }).codes.length, 2_000_000);
  assert.equal(readDetail({ summary: huge }).summary.length, 100_000);
});

test("markup stays what it is: text", () => {
  const name = "<img src=x onerror=alert(1)>";
  assert.equal(readCard({ title: name }).title, name);
  assert.equal(readDetail({ notes: [name, 3] }).notes[0], name);
});

test("a file is of a folder that the server serves", () => {
  assert.equal(readCard({ file: { filename: "a.flac", type: "secret" } }).file.type, "output");
  assert.equal(readCard({ file: { filename: "a.flac", type: "temp" } }).file.type, "temp");
  assert.equal(readCards([{ file: { filename: "a.flac" } }, { file: {} }, null]).length, 1);
});

test("no path leads upward", () => {
  for (const filename of ["..", "../a.flac", "a/b.flac", "..\\a.flac"]) assert.equal(readCard({ file: { filename } }).file, null);
  for (const subfolder of ["..", "audio/../..", "..\\x"]) {
    assert.equal(readCard({ file: { filename: "a.flac", subfolder } }).file, null);
  }
  assert.ok(readCard({ file: { filename: "a..b.flac", subfolder: "my..songs/x" } }).file);
  assert.equal(readCard({ sidecar: "../../etc/passwd.json" }).sidecar, "");
});

test("batches without an id or items are left out", () => {
  const card = { file: { filename: "a.flac" } };
  const found = readBatches({ batches: [{ id: "1", items: [card] }, { items: [card] }, { id: "2" }, 7], more: 1 });
  assert.deepEqual(found.batches.map((batch) => batch.id), ["1"]);
  assert.equal(found.more, false);
  for (const value of STRANGE) assert.deepEqual(readBatches(value).batches, []);
});

test("details and nodes keep only plain values", () => {
  for (const value of STRANGE) readDetail(value);
  const [node] = readNodes([{ id: 5, type: "A", values: { a: 1, b: "x", c: false, d: {}, e: null, f: ["1", 0] } }]);
  assert.deepEqual(node, { id: "5", type: "A", title: "", values: { a: 1, b: "x", c: false } });
});
