// Questions to the pack's routes.

import { api } from "../../../scripts/api.js";
import { readBatches, readDetail } from "./pure/cards.js";

async function ask(path, query = {}) {
  const answer = await api.fetchApi(`/acestep_graph/${path}?${new URLSearchParams(query)}`);
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

let known = null;

/** Example songs and descriptions, asked for once. */
export function examples() {
  known ??= ask("examples").catch((error) => {
    known = null;
    throw error;
  });
  return known;
}
