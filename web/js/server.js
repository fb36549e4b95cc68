// Questions to the pack's routes.

import { api } from "../../../scripts/api.js";
import { readBatches, readDetail } from "./pure/cards.js";
import { readTraining } from "./pure/training.js";

const ask = async (path, query = {}) => read(await api.fetchApi(`/acestep_graph/${path}?${new URLSearchParams(query)}`));

const post = async (path, body) => read(await api.fetchApi(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));

async function read(answer) {
  const found = await answer.json();
  if (!answer.ok) throw new Error(typeof found?.error === "string" ? found.error : answer.statusText);
  return found;
}

/** How many runs are in ComfyUI's queue, the present one included. */
export async function queueLength() {
  const { exec_info: info } = await (await api.fetchApi("/prompt")).json();
  return Number(info?.queue_remaining) || 0;
}

/** Batches behind `before`, newest first. */
export async function batches(limit, before = "") {
  return readBatches(await ask("results", before ? { limit, before } : { limit }));
}

/** Everything about one saved result. */
export async function detail(file) {
  return readDetail(await ask("result", { file }));
}

/** The workflow that made a result. */
export function workflow(file) {
  return ask("workflow", { file });
}

/** Where a training stands, with its points behind step `after`. */
export async function training(run, after = 0) {
  return readTraining(await ask("training", { run, after }));
}

/** Ask a training to stop after its step and to keep what it learned. */
export function stopTraining(run) {
  return post("/acestep_graph/training/stop", { run });
}

/** Interrupt the run of the queue that trains, and no other. Whether there was one. */
export async function cancelTraining(node) {
  const { queue_running: running } = await (await api.fetchApi("/queue")).json();
  const trains = ([, , prompt]) => Object.values(prompt ?? {}).some((one) => one?.class_type === node);
  const found = (running ?? []).find(trains);
  if (!found) return false;
  const answer = await api.fetchApi("/interrupt", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ prompt_id: found[1] }) });
  if (!answer.ok) throw new Error(answer.statusText);
  return true;
}

let known = null;

/** Example songs and descriptions, asked for once. */
export function examples() {
  known ??= ask("examples").catch((error) => {
    known = null;
    throw error;
  });
  return known;
}
