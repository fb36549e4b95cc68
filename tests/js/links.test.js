import assert from "node:assert/strict";
import { test } from "node:test";
import { isFed } from "../../web/js/pure/links.js";

const graph = (...links) => ({ getLink: (id) => links.find((link) => link.id === id) });
const node = (home, inputs) => ({ graph: home, inputs });
const seed = (link) => ({ name: "seed", widget: { name: "seed" }, link });
const OUTSIDE = { id: 1, origin_id: 7, origin_slot: 0 };
const OWN = { id: 2, origin_id: -10, origin_slot: 1 };

test("a link from another node feeds a widget, no link does not", () => {
  assert.ok(isFed(node(graph(OUTSIDE), [seed(1)]), "seed"));
  assert.ok(!isFed(node(graph(OUTSIDE), [seed(null)]), "seed"));
  assert.ok(!isFed(node(graph(OUTSIDE), [seed(1)]), "steps"));
  assert.ok(!isFed({}, "seed"));
  assert.ok(isFed(node(graph(), [seed(1)]), "seed"), "a link that is not known yet");
});

test("a widget that its subgraph shows is fed where the subgraph is", () => {
  const inner = node(graph(OWN), [seed(2)]);
  const owner = (link) => node(graph(OUTSIDE, OWN), [{ name: "caption", link: 1 }, { name: "seed", link }]);
  assert.ok(!isFed(inner, "seed", [owner(null)]));
  assert.ok(isFed(inner, "seed", [owner(1)]));
  assert.ok(!isFed(inner, "seed"));
});

test("and so on through subgraphs in subgraphs", () => {
  const inner = node(graph(OWN), [seed(2)]);
  const middle = node(graph(OWN), [{ name: "a", link: null }, { name: "seed", link: 2 }]);
  const outer = (link) => node(graph(OUTSIDE), [{ name: "a", link: null }, { name: "seed", link }]);
  assert.ok(!isFed(inner, "seed", [middle, outer(null)]));
  assert.ok(isFed(inner, "seed", [middle, outer(1)]));
});
