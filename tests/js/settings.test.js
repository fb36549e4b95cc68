import assert from "node:assert/strict";
import { test } from "node:test";
import { descriptionValues, newSeed, pairs, plan, songValues } from "../../web/js/pure/settings.js";
import { links, targets } from "../../web/js/pure/targets.js";

const node = (id, type, widgets = [], active = true) => ({ id, type, title: type, active, widgets });
const widget = (name, value, more = {}) => ({ name, value, linked: false, ...more });
const saved = (id, type, values = {}) => ({ id, type, title: type, values });

test("the same id and type come first, then the type in order", () => {
  const nodes = [node(9, "Song"), node(2, "Song"), node(4, "Sampler")];
  const found = pairs([saved("7", "Song"), saved("9", "Song"), saved("2", "Sampler")], nodes);
  assert.deepEqual(found.map(([entry, one]) => [entry.id, one.id]), [["7", 2], ["9", 9], ["2", 4]]);
});

test("each node is used once", () => {
  const found = pairs([saved("", "Song"), saved("", "Song")], [node(1, "Song")]);
  assert.equal(found.length, 1);
});

test("ids of subgraphs are in order too, and nodes that do not run stay out", () => {
  const nodes = [node("5:12", "Song"), node("5:3", "Song"), node("10", "Song"), node("2", "Song", [], false)];
  const found = pairs([saved("", "Song"), saved("", "Song"), saved("", "Song"), saved("2", "Song")], nodes);
  assert.deepEqual(found.map(([, one]) => one.id), ["5:3", "5:12", "10"]);
});

test("only widgets that are there and not linked are written; the rest is named", () => {
  const nodes = [node(1, "Song", [widget("caption", ""), widget("bpm", 0, { linked: true })])];
  const { writes, without, doubtful } = plan(
    [saved("1", "Song", { caption: "x", bpm: 90, gone: 1 }), saved("5", "Score", { scale: 1 }), saved("6", "Empty")],
    nodes,
  );
  assert.deepEqual(writes, [{ node: 1, name: "caption", value: "x" }]);
  assert.deepEqual(without.map((entry) => entry.type), ["Score"]);
  assert.deepEqual(doubtful, [{ title: "Song", name: "bpm", value: 90, linked: true }]);
});

test("a value of another kind is not written, one that is not offered is written, and both are named", () => {
  const model = widget("model", "a", { options: ["a", "b"] });
  const nodes = [node(1, "Sampler", [widget("steps", 8), widget("shift", 1), model, widget("new", undefined)])];
  const values = { steps: "8; DROP", shift: Infinity, model: "c", new: true, toString: "x" };
  const { writes, doubtful } = plan([saved("1", "Sampler", values)], nodes);
  assert.deepEqual(writes.map((write) => [write.name, write.value]), [["model", "c"], ["new", true]]);
  assert.deepEqual(doubtful.map((entry) => entry.name), ["steps", "shift", "model"]);
});

test("seeds stay within what the sampler takes", () => {
  assert.equal(newSeed(() => 0), 0);
  assert.equal(newSeed(() => 0.9999999999999999), 2 ** 32 - 1);
  for (let n = 0; n < 100; n += 1) assert.ok(Number.isInteger(newSeed()));
});

test("examples fill every widget", () => {
  const values = songValues({ caption: "a", lyrics: "b", language: "ja", bpm: 92, key: "D minor", time_signature: "6", duration: 150 });
  assert.deepEqual(values, {
    caption: "a", lyrics: "b", instrumental: false, language: "ja", bpm: 92, key: "D minor", time_signature: "6", duration: 150,
  });
  assert.deepEqual(songValues({}), {
    caption: "", lyrics: "", instrumental: false, language: "unknown", bpm: 0, key: "auto", time_signature: "auto", duration: -1,
  });
  assert.equal(descriptionValues({ description: "x", instrumental: true, language: "en" }).random_example, false);
});

test("nodes that take a recording, and how", () => {
  const nodes = [node(1, "LoadAudio"), node(2, "ACEStepEncodeSource"), node(3, "KSampler"), node(4, "ACEStepLoadResult")];
  assert.deepEqual(targets(nodes).map((target) => [target.id, target.how]), [[1, "upload"], [2, "connect"], [4, "result"]]);
  assert.deepEqual(targets([node(1, "toString")]), []);
  assert.deepEqual(links("ACEStepEncodeSource"), [["audio", "audio"], ["latent", "latent"]]);
  assert.deepEqual(links("ACEStepReferenceAudio"), [["audio", "audio"]]);
});
