// What players and panel do to the graph: write widgets, connect nodes, queue. Nothing is done unasked.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { isFed } from "./pure/links.js";
import { newSeed, plan } from "./pure/settings.js";
import { links, targets } from "./pure/targets.js";
import { address } from "./player.js";
import { t } from "./words.js";

const CONTROL = "control_after_generate";
const SAMPLER = "ACEStepSampler";
const LOADER = "ACEStepLoadResult";
const GAP = 60;

const root = () => app.rootGraph ?? app.graph;
export const widgetOf = (node, name) => node.widgets?.find((one) => one.name === name);

/** [id, node, around] of every node: its id in a prompt ("5:12" in a subgraph) and the subgraph nodes it lies in. */
export function* everyNode(graph = root(), prefix = "", around = []) {
  for (const node of graph?.nodes ?? []) {
    yield [`${prefix}${node.id}`, node, around];
    if (node.subgraph) yield* everyNode(node.subgraph, `${prefix}${node.id}:`, [node, ...around]);
  }
}

function nodeById(id) {
  for (const [own, node] of everyNode()) if (own === String(id)) return node;
  return null;
}

/** The node that an output belongs to: "5", or "<subgraph's uuid>:12" inside one. */
export function nodeOfLocator(locator) {
  const parts = String(locator).split(":");
  const [graph, id] = parts.length > 1 ? [root().subgraphs?.get(parts[0]), parts[1]] : [root(), parts[0]];
  return graph?.getNodeById(id) ?? null;
}

/** Whether a link feeds a widget, wherever its subgraph is used. */
export function isLinked(node, name) {
  const places = [...everyNode()].filter(([, one]) => one === node);
  return places.length ? places.every(([, , around]) => isFed(node, name, around)) : isFed(node, name);
}

const runs = (node, around) => [node, ...around].every(({ mode }) => mode === undefined || mode === 0);
const samplers = () => [...everyNode()].filter(([, node]) => node.comfyClass === SAMPLER);

/** Whether the canvas makes music when it is queued. */
export const hasSampler = () => samplers().some(([, node, around]) => runs(node, around));

/** The workflow on the canvas, the same one for as long as it stays open. */
export const onCanvas = () => app.extensionManager?.workflow?.activeWorkflow ?? null;

/**
 * An element at the end of a node, at least `height` high, that is saved nowhere. Nodes 2.0 goes on showing the element
 * of a node that undo has put anew under its old number: the new one takes its place.
 */
export function addElement(node, name, type, element, height) {
  const widget = node.addDOMWidget(name, type, element, { serialize: false, hideOnZoom: false, getMinHeight: () => height });
  widget.serialize = false;
  setTimeout(() => {
    if (element.isConnected || node.graph !== app.canvas.graph) return;
    document.querySelector(`.lg-node[data-node-id="${node.id}"] .${element.classList[0]}`)?.replaceWith(element);
  });
}

/** Set a widget as if the user had. */
export function write(node, name, value) {
  const found = widgetOf(node, name);
  if (!found) return false;
  const options = found.options?.values;
  if (Array.isArray(options) && typeof value === "string" && !options.includes(value)) options.push(value);
  found.value = value;
  found.callback?.(value, app.canvas, node);
  return true;
}

/** Call `act` whenever a widget gets another value. */
export function follow(node, name, act) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  const before = widget.callback;
  widget.callback = function (...values) {
    const answer = before?.apply(this, values);
    act();
    return answer;
  };
}

/** Write several widgets of one node. */
export function writeAll(node, values) {
  for (const [name, value] of Object.entries(values)) write(node, name, value);
  changed();
}

/** Draw the canvas again, and make what was done one step of undo. */
function changed() {
  root().setDirtyCanvas?.(true, true);
  onCanvas()?.changeTracker?.checkState?.();
}

function described([id, node, around]) {
  const own = (node.widgets ?? []).filter((one) => one.serialize !== false && one.type !== "button");
  return {
    id,
    type: node.comfyClass ?? node.type,
    title: node.title,
    active: runs(node, around),
    widgets: own.map((one) => ({
      name: one.name,
      value: one.value,
      options: Array.isArray(one.options?.values) ? [...one.options.values] : null,
      linked: isFed(node, one.name, around),
    })),
  };
}

const nodes = () => [...everyNode()].map(described);

/** Write saved settings into the nodes of the canvas. Returns { written, without, doubtful }, the last two to read. */
export function useSettings(saved) {
  const { writes, without, doubtful } = plan(saved, nodes());
  const seeded = new Set();
  for (const { node, name, value } of writes) {
    const found = nodeById(node);
    write(found, name, value);
    if (name === "seed") seeded.add(found);
  }
  for (const node of seeded) write(node, CONTROL, "fixed");
  changed();
  return {
    written: writes.length,
    without: without.map((entry) => entry.title || entry.type),
    doubtful: doubtful.map(({ title, name, value, linked }) => {
      const text = `${title}: ${name} = ${String(value).slice(0, 80)}`;
      return linked ? t("use.linked", { value: text }) : text;
    }),
  };
}

/** A new seed in a sampler, which then keeps it. */
export function freshSeed(node) {
  write(node, "seed", newSeed());
  write(node, CONTROL, "fixed");
  changed();
}

/** A new seed in every sampler. */
export function freshSeeds() {
  for (const [, node] of samplers()) freshSeed(node);
}

/** Queue the canvas with new seeds in all samplers; how they go on afterwards stays as the user set it. */
export async function queueNext() {
  for (const [, node, around] of samplers()) if (!isFed(node, "seed", around)) write(node, "seed", newSeed());
  changed();
  const later = app.processingQueue === true; // the canvas is being queued already: this one follows, unseen from here
  let accepted = later;
  const accept = () => (accepted = true);
  api.addEventListener("promptQueued", accept);
  try {
    await app.queuePrompt(0);
  } finally {
    api.removeEventListener("promptQueued", accept);
  }
  if (!accepted) throw new Error(refusal());
}

/** Why the server did not accept the canvas; where no node is at fault, ComfyUI's own message has more. */
function refusal() {
  const [first] = Object.values(app.extensionManager?.lastNodeErrors ?? {}).flatMap((node) => node?.errors ?? []);
  return first ? [first.message, first.details].filter(Boolean).join(": ") : "?";
}

/** Nodes that can take a recording. */
export function sources() {
  return targets(nodes());
}

const nameOf = (card) => card.sidecar || [card.file.subfolder, card.file.filename].filter(Boolean).join("/");

/** Put a saved result into the node `target`. Returns a sentence on what was done. */
export async function sendTo(target, card) {
  const node = nodeById(target.id);
  if (!node) throw new Error(t("send.gone"));
  if (target.how === "result") {
    write(node, "file", nameOf(card));
  } else if (target.how === "upload") {
    write(node, "audio", await upload(card.file));
  } else {
    connect(node, target.type, card);
  }
  changed();
  return t("send.done", { node: node.title });
}

/** Copy a file into the input folder. Returns the name it has there: another one where the user has such a file. */
async function upload(file) {
  const answer = await fetch(address(file));
  if (!answer.ok) throw new Error(t("player.failed", { file: file.filename }));
  const body = new FormData();
  body.append("image", new File([await answer.blob()], file.filename));
  const stored = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!stored.ok) throw new Error(stored.statusText);
  const { name, subfolder } = await stored.json();
  return subfolder ? `${subfolder}/${name}` : name;
}

/** Feed a node by a Load Result: the one that feeds it already, or a new one left of it. */
function connect(node, type, card) {
  const wanted = links(type).map(([output, input]) => [output, node.inputs.findIndex((one) => one.name === input)]);
  const before = node.getInputNode?.(wanted[0][1]);
  const loader = before?.comfyClass === LOADER ? before : placed(window.LiteGraph.createNode(LOADER), node);
  write(loader, "file", nameOf(card));
  for (const [output, input] of wanted) {
    const slot = loader.outputs.findIndex((one) => one.name === output);
    if (input >= 0 && slot >= 0) loader.connect(slot, node, input);
  }
}

/** Put a new node left of another, lower where something lies there already. */
function placed(loader, node) {
  const others = [...node.graph.nodes];
  node.graph.add(loader);
  const [width, height] = loader.size;
  const spot = [node.pos[0] - width - GAP, node.pos[1]];
  const inTheWay = () =>
    others.find(
      (other) =>
        spot[0] < other.pos[0] + other.size[0] + GAP / 2 && other.pos[0] < spot[0] + width + GAP / 2 &&
        spot[1] < other.pos[1] + other.size[1] + GAP && other.pos[1] < spot[1] + height + GAP,
    );
  for (let tries = 0, other = inTheWay(); other && tries <= others.length; tries += 1, other = inTheWay()) {
    spot[1] = other.pos[1] + other.size[1] + GAP;
  }
  loader.pos = spot;
  return loader;
}
