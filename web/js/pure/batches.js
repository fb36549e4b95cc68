// Walking through batches, newest first, and when to make another.

/** `{ position, count }` as people count: the oldest is 1. */
export function place(index, count) {
  return { position: count ? count - index : 0, count };
}

/** Index of the batch `id` in a fresh list; 0 (the newest) where it is gone or there was none. */
export function find(batches, id) {
  const index = batches.findIndex((batch) => batch.id === id);
  return index < 0 ? 0 : index;
}

/** What the "next" button does: show the newer batch, make one, or wait for the one that is being made. */
export function next({ index, count, queued }) {
  if (count && index > 0) return "show";
  return queued > 0 ? "wait" : "make";
}

/** Whether AutoGen makes a batch now: one is always ready, or being made, behind the one that is looked at. */
export function shouldMake({ autogen, index, count, queued }) {
  return Boolean(autogen) && count > 0 && index === 0 && queued === 0;
}

/** Key of the text that says why AutoGen must not queue what is on the canvas; empty where it may. */
export function waitsFor({ home, open, sampler }) {
  if (home !== open) return "panel.autogen.elsewhere";
  return sampler ? "" : "panel.autogen.no sampler";
}

/** Whether the run that is waited for may be gone: it was taken by the queue, never began, and the queue is empty. */
export function isLost({ busy, asking, started, queued }) {
  return busy && !asking && !started && queued === 0;
}

/** `known` with a further page behind it, each batch once. */
export function joined(known, page) {
  const ids = new Set(known.map((batch) => batch.id));
  return [...known, ...page.filter((batch) => !ids.has(batch.id))];
}

/** The page behind the `known` batches: `ask(id)` brings what is behind one, nothing where that one is gone. */
export async function behind(known, ask) {
  for (const { id } of [...known].reverse()) {
    const page = await ask(id);
    if (page.batches.length) return page;
  }
  return { batches: [], more: false };
}

/** A fresh first page in front of what is known of older batches. */
export function renewed(known, fresh) {
  if (!fresh.length) return [];
  const ids = new Set(fresh.map((batch) => batch.id));
  const last = fresh[fresh.length - 1].id;
  const behind = known.findIndex((batch) => batch.id === last);
  return behind < 0 ? fresh : [...fresh, ...known.slice(behind + 1).filter((batch) => !ids.has(batch.id))];
}

/** `{ batches, more }` with a fresh first page in front: what is behind is as it was, unless it had to be let go. */
export function refreshed(known, page) {
  const batches = renewed(known.batches, page.batches);
  return { batches, more: batches.length > page.batches.length ? known.more : page.more };
}
