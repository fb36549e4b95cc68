// A training on its node: curve, figures, log, samples, and the buttons that end it.

import { api } from "../../../scripts/api.js";
import { addElement, everyNode, follow, isLinked, widgetOf } from "./canvas.js";
import { button, el, keepEvents, svg } from "./dom.js";
import { address, hearAlone } from "./player.js";
import * as curve from "./pure/curve.js";
import * as pure from "./pure/training.js";
import * as server from "./server.js";
import { t } from "./words.js";

export const TRAINER = "ACEStepTrainLoRA";
const EVENT = "acestep.train";
const MARGIN = { left: 40, right: 14, top: 6, bottom: 16 };
const SOON = 400; // milliseconds between a change of the name and the question for its history
const WORDS = {
  preparing: "train.preparing",
  running: "train.running",
  stopping: "train.stopping",
  done: "train.done",
  stopped: "train.stopped",
  cancelled: "train.cancelled",
  failed: "train.failed",
  idle: "train.idle",
  unknown: "train.unknown",
};
const FIGURES = [
  ["loss", "train.loss", "train.loss.tip"],
  ["rate", "train.rate", "train.rate.tip"],
  ["left", "train.left", "train.left.tip"],
  ["pace", "train.pace", "train.pace.tip"],
  ["memory", "train.memory", "train.memory.tip"],
];
const widgets = new Set(); // those on a canvas

export class Training {
  /** `nameOf()`: the run that the node speaks of, "" where only a run will tell. `every()`: epochs between samples. */
  constructor({ nameOf, every = () => 0 }) {
    this.nameOf = nameOf;
    this.every = every;
    this.width = 0;
    this.build();
    this.forget("");
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.plot);
  }

  build() {
    this.state = el("span", { className: "acestep-state" });
    this.place = el("span", { className: "acestep-place" });
    this.done = el("div");
    this.figures = Object.fromEntries(FIGURES.map(([name]) => [name, el("span", { className: "acestep-figure" })]));
    this.plot = svg("svg", { class: "acestep-curve", role: "img", "aria-label": t("train.curve") });
    this.hint = el("div", { className: "acestep-hint", hidden: true });
    this.empty = el("div", { className: "acestep-empty" });
    this.stopButton = button(t("train.stop"), () => this.stopAndKeep(), { icon: "pi pi-save", title: t("train.stop.tip"), action: "stop" });
    this.cancelButton = button(t("train.cancel"), () => this.cancel(), { icon: "pi pi-pause", title: t("train.cancel.tip"), action: "cancel" });
    this.error = el("div", { className: "acestep-error", attributes: { role: "alert" } });
    this.samples = el("div", { className: "acestep-samples acestep-scroll", hidden: true, attributes: { "aria-label": t("train.samples") } });
    this.log = el("div", { className: "acestep-log acestep-scroll", attributes: { role: "log", "aria-label": t("train.log"), tabindex: 0 } });
    this.audio = el("audio", { preload: "none" });
    for (const name of ["play", "pause", "ended"]) this.audio.addEventListener(name, () => this.drawSamples());
    this.audio.addEventListener("error", () => {
      if (this.playing) this.say(t("player.failed", { file: this.playing.file.filename }));
    });
    const figures = FIGURES.map(([name, label, tip]) =>
      el("div", { title: t(tip) }, el("span", { className: "acestep-label", textContent: t(label) }), this.figures[name]),
    );
    const chart = el("div", { className: "acestep-chart", on: { pointermove: (event) => this.point(event), pointerleave: () => this.point(null) } });
    chart.append(this.plot, this.hint, this.empty);
    this.element = keepEvents(
      el(
        "div",
        { className: "acestep-training" },
        el("div", { className: "acestep-headline", attributes: { role: "status" } }, this.state, this.place),
        el("div", { className: "acestep-progress" }, this.done),
        el("div", { className: "acestep-figures" }, ...figures),
        chart,
        el("div", { className: "acestep-actions" }, this.stopButton, this.cancelButton),
        ...[this.error, this.samples, this.log, this.audio],
      ),
    );
  }

  /** Begin again with another run. */
  forget(run) {
    this.run = run;
    this.points = [];
    this.lines = [];
    this.pieces = [];
    this.told = { ...pure.readTraining({}), state: "unknown" };
    this.between = 0; // steps that the server leaves out between its points
    this.question = (this.question ?? 0) + 1; // answers to earlier ones are of another run
    this.asking = null;
    this.again = false;
    this.playing = null;
    this.stop();
    this.say("");
    this.drawLog();
    this.drawSamples();
    this.draw();
  }

  /** Silence the sample that plays. */
  stop() {
    this.audio.pause();
  }

  remove() {
    clearTimeout(this.waiting);
    widgets.delete(this);
    this.stop();
    this.observer.disconnect();
    this.question += 1;
  }

  /** Show the run `name`; its history is fetched where it is another one, or where this is `asked` for. */
  show(name, asked = false) {
    const other = name !== this.run;
    if (other) this.forget(name);
    if (name && (other || asked)) this.fetch(0);
  }

  /** The name of the run was edited: ask when the typing ends. */
  renamed() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      if (this.nameOf()) this.show(this.nameOf());
    }, SOON);
  }

  /** Ask the server for what is not known behind step `after`. One question at a time: a further one follows it. */
  async fetch(after = this.points.at(-1)?.step ?? 0) {
    if (this.asking !== null) {
      this.again = true;
      return;
    }
    const question = (this.question += 1);
    this.asking = question;
    this.heard = { event: false, lines: [], from: Infinity };
    try {
      const told = await server.training(this.run, after);
      if (question !== this.question) return;
      const sure = this.points.filter(({ step }) => step <= after || step >= this.heard.from);
      this.points = pure.filledIn(sure, told.points);
      this.lines = told.log;
      this.pieces = told.samples ?? this.pieces;
      this.again ||= this.heard.lines.some((line) => !told.log.includes(line));
      if (!this.heard.event) this.told = told; // an event is newer
      this.say("");
      this.drawLog();
      this.drawSamples();
    } catch (error) {
      if (question === this.question) this.say(error.message);
    }
    if (question !== this.question) return;
    this.draw();
    this.asking = null;
    if (this.again) {
      this.again = false;
      await this.fetch();
    }
  }

  /** An event of this run. */
  news(told) {
    if (told.run !== this.run) this.forget(told.run);
    const { epoch, state } = this.told;
    const last = this.points.at(-1)?.step ?? 0;
    const missing = pure.gap(this.points, told.points);
    if (this.asking !== null) {
      this.heard.event = true;
      this.heard.lines.push(...told.log);
      this.heard.from = Math.min(this.heard.from, told.points[0]?.step ?? Infinity);
    }
    this.told = told;
    this.points = pure.goneOn(this.points, told.points);
    if (told.log.length) {
      this.lines = pure.longer(this.lines, told.log);
      this.drawLog();
    }
    if (told.samples) {
      this.pieces = told.samples;
      this.drawSamples();
    }
    this.draw();
    const unheard = !told.samples && (this.madeAt(told.epoch) > this.madeAt(epoch) || (pure.isLive(state) && !pure.isLive(told.state)));
    if (missing > this.between && this.asking === null) this.fillIn(last, told.points[0].step);
    else if (unheard) this.fetch(); // events say nothing of samples
  }

  /** Fetch the steps between two; where there are none, the server leaves that many out. */
  async fillIn(from, to) {
    const { run } = this;
    await this.fetch(from);
    const filled = this.points.some(({ step }) => step > from && step < to);
    if (run === this.run && !filled) this.between = Math.max(this.between, to - from - 1);
  }

  /** How many samples are there for sure while an epoch is under way. */
  madeAt(epoch) {
    const every = this.every();
    return every > 0 ? Math.floor((epoch - 1) / every) : 0;
  }

  say(text) {
    this.error.textContent = text;
  }

  async stopAndKeep() {
    await this.press(() => server.stopTraining(this.run), "stopping");
  }

  async cancel() {
    await this.press(async () => {
      if (!(await server.cancelTraining(TRAINER))) await this.fetch();
    });
  }

  async press(act, state = this.told.state) {
    this.stopButton.disabled = true;
    this.cancelButton.disabled = true;
    try {
      await act();
      if (pure.isLive(this.told.state)) this.told = { ...this.told, state };
      this.say("");
    } catch (error) {
      this.say(error.message);
    }
    this.draw();
  }

  // -- what is seen

  /** Draw with the next frame; many changes, one drawing. */
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.drawFigures();
      this.drawCurve();
    });
  }

  drawFigures() {
    const { state, step, total, epoch, epochs, eta, secondsAStep, memory } = this.told;
    const live = pure.isLive(state);
    this.element.dataset.state = state;
    this.state.textContent = this.run ? t(WORDS[state]) : "";
    this.place.textContent = total ? t("train.place", { step, total, epoch, epochs }) : "";
    this.done.style.width = `${total ? Math.min(100, (100 * step) / total) : 0}%`;
    const last = this.points.at(-1);
    const left = live ? pure.timeLeft(eta) : null;
    this.figures.loss.textContent = last ? pure.loss(last.mean ?? last.loss) : "–";
    this.figures.rate.textContent = last ? pure.rate(last.rate) : "–";
    this.figures.left.textContent = left ? t(...left) : "–";
    this.figures.pace.textContent = secondsAStep === null || !live ? "–" : `${secondsAStep.toPrecision(2)} s`;
    this.figures.memory.textContent = memory === null ? "–" : `${memory.toFixed(1)} GB`;
    this.stopButton.disabled = state !== "running";
    this.cancelButton.disabled = !live;
    this.empty.textContent = t(live ? "train.soon" : "train.empty");
    this.empty.hidden = this.points.length > 0;
  }

  drawCurve() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    const range = curve.range(this.points);
    this.plot.replaceChildren();
    this.axes = null;
    this.point(null);
    if (!range || width < 80 || height < 40) return;
    this.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
    const first = Math.min(this.points[0].step, 1);
    const last = Math.max(this.points.at(-1).step, first + 1);
    const x = curve.scale(first, last, MARGIN.left, right);
    const y = curve.scale(range.low, range.high, bottom, MARGIN.top);
    const shown = curve.thinned(this.points, Math.max(50, Math.round(right - MARGIN.left)));
    for (const value of curve.ticks(range.low, range.high, height / 40)) {
      this.plot.append(
        svg("path", { d: `M${MARGIN.left} ${y(value)}H${right}`, class: "acestep-grid" }),
        svg("text", { x: MARGIN.left - 5, y: y(value) + 3, class: "acestep-mark acestep-beside" }, String(value)),
      );
    }
    for (const value of curve.ticks(first, last, width / 80, true)) {
      this.plot.append(svg("text", { x: x(value), y: height - 3, class: "acestep-mark acestep-under" }, curve.shortStep(value)));
    }
    this.plot.append(
      svg("path", { d: curve.line(shown, "loss", x, y), class: "acestep-loss" }),
      svg("path", { d: curve.line(shown, "mean", x, y), class: "acestep-mean" }),
    );
    this.cursor = svg("path", { class: "acestep-cursor" });
    this.dot = svg("circle", { r: 3, class: "acestep-dot", visibility: "hidden" });
    this.plot.append(this.cursor, this.dot);
    this.axes = { x, y, first, last, right, bottom };
    if (this.hovered !== undefined) this.pointAt(this.hovered);
  }

  /** Follow the pointer over the curve: a share of its width, or none. */
  point(event) {
    const box = event && this.plot.getBoundingClientRect();
    if (!event) {
      if (this.axes) this.hovered = undefined;
      this.hint.hidden = true;
      this.cursor?.setAttribute("d", "");
      this.dot?.setAttribute("visibility", "hidden");
    } else if (this.axes && box.width) {
      this.hovered = (event.clientX - box.left) / box.width;
      this.pointAt(this.hovered);
    }
  }

  pointAt(share) {
    const { x, y, first, last, right, bottom } = this.axes;
    const along = (share * this.plot.clientWidth - MARGIN.left) / (right - MARGIN.left);
    const point = curve.nearest(this.points, first + Math.min(1, Math.max(0, along)) * (last - first));
    const value = point.mean ?? point.loss;
    this.cursor.setAttribute("d", `M${x(point.step)} ${MARGIN.top}V${bottom}`);
    this.dot.setAttribute("visibility", value === null ? "hidden" : "visible");
    this.dot.setAttribute("cx", x(point.step));
    this.dot.setAttribute("cy", value === null ? 0 : y(value));
    const numbers = { step: point.step, epoch: point.epoch ?? "–", loss: pure.loss(point.loss), mean: pure.loss(point.mean), rate: pure.rate(point.rate) };
    this.hint.textContent = t("train.hint", numbers);
    this.hint.hidden = false;
    this.hint.classList.toggle("acestep-left", along > 0.5);
  }

  drawLog() {
    const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
    this.log.hidden = !this.lines.length;
    this.log.replaceChildren(...this.lines.map((line) => el("div", { textContent: line })));
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  drawSamples() {
    this.samples.hidden = !this.pieces.length;
    this.samples.replaceChildren(
      ...this.pieces.map((piece) => {
        const sounds = this.isSame(piece) && !this.audio.paused && !this.audio.ended;
        const name = piece.epoch === null ? piece.file.filename : t("train.sample", { epoch: piece.epoch });
        const icon = sounds ? "pi pi-pause" : "pi pi-play";
        return button(name, () => this.toggle(piece), { icon, title: piece.file.filename, action: "sample", quiet: true });
      }),
    );
  }

  isSame(piece) {
    return Boolean(this.playing) && address(this.playing.file) === address(piece.file);
  }

  async toggle(piece) {
    if (this.isSame(piece) && !this.audio.paused) {
      this.stop();
      return;
    }
    if (!this.isSame(piece)) {
      this.playing = piece;
      this.audio.src = address(piece.file);
    }
    hearAlone(this);
    try {
      await this.audio.play();
    } catch (error) {
      if (error.name !== "AbortError") this.say(t("player.failed", { file: piece.file.filename }));
    }
  }
}

/** The value of a widget, undefined where a link feeds it. */
const own = (node, name) => (isLinked(node, name) ? undefined : widgetOf(node, name)?.value);

/** Curve, log and buttons at the end of a Train LoRA node. */
export function addTraining(node) {
  const training = new Training({
    nameOf: () => String(own(node, "name") ?? "").trim(),
    every: () => Number(own(node, "samples_every")) || 0,
  });
  addElement(node, "training", "ACESTEP_TRAINING", training.element, 360);
  node.setSize([Math.max(node.size[0], 380), node.size[1]]);
  node.acestepTraining = training;
  training.node = node;
  widgets.add(training);
  follow(node, "name", () => training.renamed());
  const before = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    before?.call(this, output, ...rest);
    showOutput(node, output, true);
  };
  const removed = node.onRemoved;
  node.onRemoved = function (...rest) {
    training.remove();
    removed?.apply(this, rest);
  };
  setTimeout(() => training.renamed()); // a workflow brings its values after its nodes
}

/** A run has ended on the node, or its output came back with the workflow. */
export function showOutput(node, output, asked = false) {
  const run = output?.acestep_training?.[0]?.run;
  if (typeof run === "string" && run) node?.acestepTraining?.show(run, asked);
}

/** Whether an event speaks of what a node shows: its run by name, or by the node where a link feeds the name. */
function concerns(training, told) {
  const name = training.nameOf();
  return name ? name === told.run : told.node.split(":").at(-1) === String(training.node.id);
}

/** Those on the canvas. Nobody tells the nodes of a subgraph that its workflow has been left. */
function shown() {
  const there = new Set([...everyNode()].map(([, node]) => node));
  for (const training of widgets) if (!there.has(training.node)) training.remove();
  return widgets;
}

/** Hear of trainings, and of what may have been missed: a lost connection, a run that ended without a word. */
export function listen() {
  api.addEventListener(EVENT, ({ detail }) => {
    const told = pure.readTraining(detail);
    for (const training of shown()) if (concerns(training, told)) training.news(told);
  });
  const askAgain = (all) => {
    for (const training of shown()) if (training.run && (all || pure.isLive(training.told.state))) training.fetch(all ? 0 : undefined);
  };
  api.addEventListener("reconnected", () => askAgain(true));
  for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
    api.addEventListener(end, () => askAgain(false));
  }
}
