import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, clock, duration } from "../../web/js/pure/time.js";

test("a clock never shows sixty seconds, and 0:00 of anything strange", () => {
  assert.deepEqual([0, 59.99, 60, 185.4, 3723].map(clock), ["0:00", "0:59", "1:00", "3:05", "1:02:03"]);
  for (const odd of [NaN, Infinity, -5, undefined, null, "x"]) assert.equal(clock(odd), "0:00");
  for (let second = 0; second < 7300; second += 7) assert.match(clock(second), /^(\d+:)?[0-5]?\d:[0-5]\d$/);
});

test("durations and sizes are short", () => {
  assert.deepEqual([0, 9.94, 12.3, 125].map(duration), ["0.0 s", "9.9 s", "12 s", "2 min 5 s"]);
  assert.equal(duration(NaN), "");
  assert.deepEqual([0, 999, 1200, 4_800_000_000].map(bytes), ["0 B", "999 B", "1.2 kB", "4.8 GB"]);
  assert.equal(bytes(-1), "");
});
