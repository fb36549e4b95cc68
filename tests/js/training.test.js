import assert from "node:assert/strict";
import { test } from "node:test";
import { filledIn, gap, goneOn, isLive, longer, loss, rate, readPoints, readTraining, STATES, timeLeft } from "../../web/js/pure/training.js";

const STRANGE = [undefined, null, 0, NaN, Infinity, "x", true, [], [1, "a", null], {}, { a: 1 }, () => 1];
const FIELDS = ["node", "run", "state", "step", "total", "epoch", "epochs", "points", "log", "eta", "seconds_a_step", "memory_gb", "samples"];
const points = (...steps) => readPoints(steps.map((step) => [step, 1, step / 10, step / 20, 1e-4, 1]));
const steps = (found) => found.map((point) => point.step);

test("whatever arrives, a training has its types", () => {
  for (const value of STRANGE) {
    for (const told of [value, ...FIELDS.map((field) => ({ [field]: value }))]) {
      const read = readTraining(told);
      assert.ok(STATES.includes(read.state));
      for (const field of ["step", "total", "epoch", "epochs"]) assert.ok(Number.isInteger(read[field]) && read[field] >= 0);
      for (const field of ["eta", "secondsAStep", "memory"]) assert.ok(read[field] === null || Number.isFinite(read[field]));
      assert.ok(read.log.every((line) => typeof line === "string"));
      assert.ok(read.samples === null || Array.isArray(read.samples));
      assert.equal(typeof read.node + typeof read.run, "stringstring");
    }
  }
});

test("an event is read whole", () => {
  const read = readTraining({
    ...{ node: "5:12", run: "jazz", state: "running", step: 120, total: 2000, epoch: 3, epochs: 500 },
    ...{ points: [[119, 3, 0.5, 0.6, 1e-4, 2], [120, 3, null, 0.59, 1e-4, null]], log: ["on"] },
    ...{ eta: 812, seconds_a_step: 1.21, memory_gb: 7.9, samples: [{ filename: "a.flac", subfolder: "s", type: "output", epoch: 2 }, {}] },
  });
  assert.deepEqual(read.points[1], { step: 120, epoch: 3, loss: null, mean: 0.59, rate: 1e-4, norm: null });
  assert.deepEqual([read.node, read.run, read.step, read.memory], ["5:12", "jazz", 120, 7.9]);
  assert.equal(read.samples.length, 1);
  assert.equal(read.samples[0].epoch, 2);
  assert.equal(readTraining({ samples: [{ filename: "../x.flac" }] }).samples.length, 0);
});

test("steps of points rise", () => {
  assert.deepEqual(steps(readPoints([[1], [3], [2], [3], [null], "x", [4]])), [1, 3, 4]);
  assert.deepEqual(readPoints([[7]])[0], { step: 7, epoch: null, loss: null, mean: null, rate: null, norm: null });
});

test("events append, and a run that went back takes the curve along", () => {
  assert.deepEqual(steps(goneOn(points(1, 2), points(3, 4))), [1, 2, 3, 4]);
  assert.deepEqual(steps(goneOn(points(1, 2, 3, 4), points(3))), [1, 2, 3]);
  assert.deepEqual(steps(goneOn(points(5, 6), points(1))), [1]);
  const known = points(1);
  assert.equal(goneOn(known, []), known);
});

test("history fills in what is missing and keeps what events brought since", () => {
  assert.deepEqual(steps(filledIn(points(1, 2, 9), points(3, 4, 5, 6, 7, 8))), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.deepEqual(steps(filledIn(points(8, 9), points(2, 4, 6, 8))), [2, 4, 6, 8, 9]);
  assert.deepEqual(steps(filledIn([], points(1, 2))), [1, 2]);
  assert.deepEqual(steps(filledIn(points(1, 2), [])), [1, 2]);
});

test("a gap is counted from the last step that is known", () => {
  assert.equal(gap([], points(1)), 0);
  assert.equal(gap([], points(150)), 149);
  assert.equal(gap(points(4), points(5, 6)), 0);
  assert.equal(gap(points(4), points(7)), 2);
  assert.equal(gap(points(9), points(3)), 0);
  assert.equal(gap(points(9), []), 0);
});

test("the log keeps its last two hundred lines", () => {
  const lines = longer(Array.from({ length: 199 }, (_, index) => String(index)), ["a", "b"]);
  assert.equal(lines.length, 200);
  assert.deepEqual([lines[0], lines.at(-1)], ["1", "b"]);
});

test("times left are in words, and nothing is said of what is not known", () => {
  assert.deepEqual(timeLeft(5), ["train.left.moment", {}]);
  assert.deepEqual(timeLeft(812), ["train.left.minutes", { minutes: 14 }]);
  assert.deepEqual(timeLeft(3599), ["train.left.hours", { hours: 1, minutes: 0 }]);
  assert.deepEqual(timeLeft(9000), ["train.left.hours", { hours: 2, minutes: 30 }]);
  for (const odd of [null, NaN, Infinity, -1, undefined]) assert.equal(timeLeft(odd), null);
});

test("losses and learning rates are short", () => {
  assert.deepEqual([0.81234, 12.345, 0.000312, 0, null].map(loss), ["0.812", "12.3", "0.00031", "0.000", "–"]);
  assert.deepEqual([1e-4, 7.63e-5, 0, null].map(rate), ["1e-4", "7.6e-5", "0", "–"]);
});

test("only some states are work", () => {
  assert.deepEqual(STATES.filter(isLive), ["preparing", "running", "stopping"]);
});
