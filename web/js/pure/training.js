// What the server says of a training, made safe, and how news joins what is known already.

import { readFile } from "./cards.js";

export const STATES = ["preparing", "running", "stopping", "done", "stopped", "cancelled", "failed", "idle", "unknown"];
const LIVE = ["preparing", "running", "stopping"];
const MOST = { points: 200_000, lines: 200, line: 2000, samples: 200 };

const object = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
const list = (value) => (Array.isArray(value) ? value : []);
const text = (value, most = MOST.line) => (typeof value === "string" ? value.slice(0, most) : "");
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const count = (value) => Math.max(0, Math.floor(number(value) ?? 0));

/** Points { step, epoch, loss, mean, rate, norm } from lists; steps rise, and numbers that are none are null. */
export function readPoints(values) {
  const points = [];
  for (const value of list(values).slice(-MOST.points)) {
    const [step, epoch, loss, mean, rate, norm] = list(value).map(number);
    if (!(step > (points.at(-1)?.step ?? -1))) continue;
    const rest = { epoch, loss, mean, rate, norm };
    points.push({ step, ...Object.fromEntries(Object.entries(rest).map(([name, one]) => [name, one ?? null])) });
  }
  return points;
}

/** An event of a training, or the answer of its route. `samples` is null where nothing was said about them. */
export function readTraining(value) {
  const told = object(value);
  const samples = list(told.samples).slice(-MOST.samples).map((entry) => {
    const file = readFile(entry);
    return file && { file, epoch: number(object(entry).epoch) };
  });
  return {
    node: typeof told.node === "number" ? String(told.node) : text(told.node, 200),
    run: text(told.run, 400),
    state: STATES.includes(told.state) ? told.state : "unknown",
    step: count(told.step),
    total: count(told.total),
    epoch: count(told.epoch),
    epochs: count(told.epochs),
    points: readPoints(told.points),
    log: list(told.log).slice(-MOST.lines).map((line) => text(line)),
    eta: number(told.eta),
    secondsAStep: number(told.seconds_a_step),
    memory: number(told.memory_gb),
    samples: Array.isArray(told.samples) ? samples.filter(Boolean) : null,
  };
}

/** Whether a training is at work. */
export const isLive = (state) => LIVE.includes(state);

/** `known` points with those of an event behind them. A run that went back to an earlier step takes the curve along. */
export function goneOn(known, fresh) {
  if (!fresh.length) return known;
  const first = fresh[0].step;
  const kept = first > (known.at(-1)?.step ?? -1) ? known : known.filter((point) => point.step < first);
  return [...kept, ...fresh].slice(-MOST.points);
}

/** `known` points with those of the server's history, which may have come later than events about further steps. */
export function filledIn(known, fetched) {
  if (!fetched.length) return known;
  const [first, last] = [fetched[0].step, fetched.at(-1).step];
  const before = known.filter((point) => point.step < first);
  return [...before, ...fetched, ...known.filter((point) => point.step > last)].slice(-MOST.points);
}

/** Steps that are missing between what is known and an event's first point. */
export function gap(known, fresh) {
  if (!fresh.length) return 0;
  return Math.max(0, fresh[0].step - (known.at(-1)?.step ?? 0) - 1);
}

/** Lines of the log with new ones, the last 200. */
export function longer(lines, fresh) {
  return [...lines, ...fresh].slice(-MOST.lines);
}

/** How long a time is in words: [key, values] of a text, null where nothing is known. */
export function timeLeft(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return null;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1) return ["train.left.moment", {}];
  if (minutes < 60) return ["train.left.minutes", { minutes }];
  return ["train.left.hours", { hours: Math.floor(minutes / 60), minutes: minutes % 60 }];
}

/** A loss: "0.812", "12.4", "0.00031". */
export function loss(value) {
  if (!Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.01) return value.toPrecision(2);
  return Math.abs(value) < 10 ? value.toFixed(3) : value.toFixed(1);
}

/** A learning rate: "1e-4", "7.6e-5", "0". */
export function rate(value) {
  if (!Number.isFinite(value)) return "–";
  return value === 0 ? "0" : value.toExponential(1).replace(".0e", "e");
}
