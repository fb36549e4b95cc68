import assert from "node:assert/strict";
import { test } from "node:test";
import { latest, position, shown } from "../../web/js/pure/lyrics.js";

const word = (start) => ({ text: "la", start, end: start + 1 });
const lines = [
  { text: "[Verse]", start: 0, end: 1, tag: true, words: [word(0)] },
  { text: "la la", start: 1, end: 3, tag: false, words: [word(1), word(2)] },
  { text: "end", start: 5, end: 6, tag: false, words: [] },
];

test("the line and word of every moment", () => {
  assert.deepEqual(position(lines, -1), { line: -1, word: -1 });
  assert.deepEqual(position(lines, 0), { line: 0, word: 0 });
  assert.deepEqual(position(lines, 1.99), { line: 1, word: 0 });
  assert.deepEqual(position(lines, 2), { line: 1, word: 1 });
  assert.deepEqual(position(lines, 99), { line: 2, word: -1 });
  assert.deepEqual(position([], 3), { line: -1, word: -1 });
});

test("the search agrees with looking at every entry", () => {
  for (let size = 0; size < 12; size += 1) {
    const entries = Array.from({ length: size }, (_, n) => ({ start: Math.floor(n / 2) }));
    for (let time = -1; time < size; time += 0.5) {
      const plain = entries.reduce((found, entry, index) => (entry.start <= time ? index : found), -1);
      assert.equal(latest(entries, time), plain);
    }
  }
});

test("marks can be left out", () => {
  assert.equal(shown(lines).length, 3);
  assert.deepEqual(shown(lines, false).map((line) => line.text), ["la la", "end"]);
});
