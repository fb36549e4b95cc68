// What players and panel do to the graph: write widgets, connect nodes, queue. Nothing is done unasked.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { newSeed, plan } from "./pure/settings.js";
import { links, targets } from "./pure/targets.js";
import { address } from "./player.js";
import { t } from "./words.js";

const CONTROL = "control_after_generate";
const SAMPLER = "ACEStepSampler";
const LOADER = "ACEStepLoadResult";

const graph = () => app.rootGraph ?? app.graph;
const nodeById = (id) => graph().getNodeById(id);
const widget = (node, name) => node.widgets?.find((one) => one.name === name);

/** Set a widget as if the user had. */
export function write(node, name, value) {
  const found = widget(node, name);
  if (!found) return false;
  const options = found.options?.values;
  if (Array.isArray(options) && typeof value === "string" && !options.includes(value)) options.push(value);
  found.value = value;
  found.callback?.(value, app.canvas, node);
  return true;
}

/** Write several widgets of one node. */
export function writeAll(node, values) {
  for (const [name, value] of Object.entries(values)) write(node, name, value);
  refresh();
}

function refresh() {
  graph().setDirtyCanvas?.(true, true);
}

function described(node) {
  const linked = (node.inputs ?? []).filter((input) => input.widget && input.link != null);
  return {
    id: node.id,
    type: node.comfyClass ?? node.type,
    title: node.title,
    widgets: (node.widgets ?? []).map((one) => one.name),
    linked: linked.map((input) => input.widget.name),
  };
}

const nodes = () => graph().nodes.map(described);

/** Write saved settings into the nodes of the canvas. Returns { written, without: titles of nodes not found }. */
export function useSettings(saved) {
  const { writes, without } = plan(saved, nodes());
  const touched = new Set();
  for (const { node, name, value } of writes) {
    const found = nodeById(node);
    write(found, name, value);
    if (name === "seed") touched.add(found);
  }
  for (const node of touched) write(node, CONTROL, "fixed");
  refresh();
  return { written: writes.length, without: without.map((entry) => entry.title || entry.type) };
}

/** A new seed in a sampler, which then keeps it. */
export function freshSeed(node) {
  write(node, "seed", newSeed());
  write(node, CONTROL, "fixed");
  refresh();
}

/** Queue the canvas with new seeds in all samplers; how they go on afterwards stays as the user set it. */
export async function queueNext() {
  for (const node of graph().nodes.filter((one) => one.comfyClass === SAMPLER)) write(node, "seed", newSeed());
  refresh();
  await app.queuePrompt(0);
}

/** Nodes that can take a recording. */
export function sources() {
  return targets(nodes());
}

/** Put a saved result into the node `target`. Returns a sentence on what was done. */
export async function sendTo(target, card) {
  const node = nodeById(target.id);
  if (!node) throw new Error(t("send.gone"));
  if (target.how === "result") {
    write(node, "file", card.sidecar || `${card.file.subfolder}/${card.file.filename}`);
  } else if (target.how === "upload") {
    write(node, "audio", await upload(card.file));
  } else {
    connect(node, target.type, card);
  }
  refresh();
  return t("send.done", { node: node.title });
}

async function upload(file) {
  const answer = await fetch(address(file));
  if (!answer.ok) throw new Error(t("player.failed", { file: file.filename }));
  const body = new FormData();
  body.append("image", new File([await answer.blob()], file.filename));
  body.append("overwrite", "true");
  const stored = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!stored.ok) throw new Error(stored.statusText);
  const { name, subfolder } = await stored.json();
  return subfolder ? `${subfolder}/${name}` : name;
}

function connect(node, type, card) {
  const wanted = links(type).map(([output, input]) => [output, node.inputs.findIndex((one) => one.name === input)]);
  const before = node.inputs[wanted[0][1]]?.link;
  const origin = before == null ? null : nodeById(graph().links[before]?.origin_id ?? graph().getLink?.(before)?.origin_id);
  let loader = origin?.comfyClass === LOADER ? origin : null;
  if (!loader) {
    loader = window.LiteGraph.createNode(LOADER);
    graph().add(loader);
    const [width] = loader.size;
    loader.pos = [node.pos[0] - width - 80, node.pos[1]];
  }
  write(loader, "file", card.sidecar || `${card.file.subfolder}/${card.file.filename}`);
  for (const [output, input] of wanted) {
    const slot = loader.outputs.findIndex((one) => one.name === output);
    if (input >= 0 && slot >= 0) loader.connect(slot, node, input);
  }
}
