// The results panel: batches of the output folder, one after the other, with everything about each piece.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { hasSampler, onCanvas, queueNext, sendTo, sources, useSettings } from "./canvas.js";
import { button, copyText, el } from "./dom.js";
import { address, Player } from "./player.js";
import { behind, find, isLost, joined, next, place, refreshed, shouldMake, waitsFor } from "./pure/batches.js";
import { bytes, duration } from "./pure/time.js";
import * as server from "./server.js";
import { t } from "./words.js";

const AGAIN = 1000; // milliseconds until AutoGen looks again whether it may go on
const SHOWN = 20_000; // characters of a long text; all of it is copied

const toast = (severity, summary, detail = "") =>
  app.extensionManager.toast.add({ severity, summary, detail, life: severity === "error" ? 8000 : 4000 });

export class Panel {
  constructor({ limit = () => 30, lyrics = () => "words" } = {}) {
    this.limit = limit;
    this.batches = [];
    this.index = 0;
    this.queued = 0;
    this.autogen = false;
    this.home = null; // the workflow that AutoGen was switched on for
    this.waits = ""; // key of the text that says why it does not go on
    this.busy = false; // from the start of a run until its batch is in the list
    this.ahead = false; // whether the run under way is AutoGen's
    this.asking = false; // until the server has answered whether it takes a run
    this.started = false; // whether the run under way has begun, as far as was heard
    this.pinned = null;
    this.unfolded = new Set();
    this.status = "";
    this.player = new Player({ lyrics, onChoose: (card) => this.open(card), empty: "panel.none" });
    this.previousButton = button("", () => this.go(this.index + 1), { icon: "pi pi-chevron-left", title: t("panel.previous"), action: "previous" });
    this.nextButton = button("", () => this.goNext(), { icon: "pi pi-chevron-right", title: t("panel.next"), action: "next" });
    this.where = el("span", { className: "acestep-where" });
    this.refreshButton = button("", () => this.refresh(), { icon: "pi pi-refresh", title: t("panel.refresh"), action: "refresh", quiet: true });
    this.autogenBox = el("input", { type: "checkbox", data: { action: "autogen" }, on: { change: () => this.setAutogen(this.autogenBox.checked) } });
    this.statusLine = el("div", { className: "acestep-status", attributes: { role: "status" } });
    this.title = el("div", { className: "acestep-title" });
    this.workflowButton = button(t("panel.workflow"), () => this.openWorkflow(), { icon: "pi pi-sitemap", title: t("panel.workflow.tip"), action: "workflow" });
    this.actions = el(
      "div",
      { className: "acestep-actions", hidden: true },
      button(t("panel.send"), () => this.send(), { icon: "pi pi-send", title: t("panel.send.tip"), action: "send" }),
      button(t("panel.use"), () => this.use(), { icon: "pi pi-sliders-h", title: t("panel.use.tip"), action: "use" }),
      button(t("panel.save"), () => this.save(), { icon: "pi pi-download", title: t("panel.save.tip"), action: "save" }),
      button(t("panel.compare"), () => this.pin(this.player.card), { icon: "pi pi-arrows-h", title: t("panel.compare.tip"), action: "compare" }),
      this.workflowButton,
    );
    this.choice = el("div", { className: "acestep-choice", hidden: true });
    this.compare = el("div", { className: "acestep-compare", hidden: true });
    this.about = el("div", { className: "acestep-about" });
    this.all = el("div", { className: "acestep-all" });
    this.allFold = this.fold("panel.all", this.all, "all");
    this.element = el(
      "div",
      { className: "acestep-panel acestep-scroll" },
      el("div", { className: "acestep-head" }, this.previousButton, this.where, this.nextButton, this.refreshButton),
      el("label", { className: "acestep-autogen", title: t("panel.autogen.tip") }, this.autogenBox, el("span", { textContent: t("panel.autogen") })),
      this.statusLine,
      this.title,
      this.player.element,
      this.compare,
      this.actions,
      this.choice,
      this.about,
      this.allFold,
    );
    this.listen();
    this.draw();
  }

  /** Put the panel into a sidebar. */
  render(container) {
    if (container.firstChild === this.element) return;
    container.replaceChildren(this.element);
    this.refresh();
  }

  get batch() {
    return this.batches[this.index];
  }

  listen() {
    server.queueLength().then((length) => {
      this.queued = length;
      this.draw();
    }, () => {});
    api.addEventListener("status", ({ detail }) => {
      if (!detail) return; // the server is away
      this.queued = detail.exec_info?.queue_remaining ?? 0;
      this.draw();
      if (isLost(this)) this.lookAfter();
      else this.makeAhead();
    });
    api.addEventListener("reconnected", () => {
      this.started = false; // its end may have gone unheard
      this.lookAfter();
    });
    api.addEventListener("execution_start", () => {
      this.busy = true;
      this.started = true;
      this.say(t("panel.running"));
    });
    api.addEventListener("execution_success", () => this.finished());
    api.addEventListener("execution_interrupted", () => this.failed(t("panel.interrupted")));
    api.addEventListener("execution_error", ({ detail }) => this.failed(String(detail?.exception_message ?? "")));
  }

  say(text) {
    this.status = text;
    this.draw();
  }

  /** No run is under way any more. */
  rest() {
    this.busy = false;
    this.started = false;
    this.ahead = false;
  }

  /** Ask the server whether the run under way is still in its queue, and go on without it where it is not. */
  async lookAfter() {
    if (this.checking) return;
    this.checking = true;
    try {
      this.queued = await server.queueLength();
      if (isLost(this)) await this.refresh({ follow: !this.ahead && this.player.audio.paused });
      if (isLost(this)) {
        this.rest();
        this.say("");
      }
    } catch {
      return; // still away: it reconnects again
    } finally {
      this.checking = false;
      this.draw();
    }
    await this.makeAhead();
  }

  failed(reason) {
    const stopped = this.autogen;
    this.rest();
    this.setAutogen(false);
    this.say([t("panel.failed", { reason }), stopped ? t("panel.autogen.off") : ""].join(" ").trim());
  }

  /** A run ended well. Its batch is shown unless another is being listened to; AutoGen's waits to be asked for. */
  async finished() {
    this.say("");
    const { ahead } = this;
    const newest = this.batches[0]?.id;
    await this.refresh({ follow: !ahead && this.player.audio.paused });
    this.rest();
    if (this.batches[0]?.id !== newest) await this.makeAhead();
    else if (ahead && this.autogen) {
      this.setAutogen(false); // the same again, as where the seed is linked: nothing new would come of going on
      this.say(t("panel.autogen.off"));
    }
  }

  /** Read the newest batches again. With `follow`, show the newest where there is a new one. */
  async refresh({ follow = false } = {}) {
    try {
      const page = await server.batches(this.limit());
      const shown = this.batch?.id;
      const newest = this.batches[0]?.id;
      Object.assign(this, refreshed(this, page));
      this.skipped = page.skipped;
      const fresh = follow && this.batches[0] && this.batches[0].id !== newest;
      this.index = fresh || !shown ? 0 : find(this.batches, shown);
    } catch (error) {
      this.say(t("panel.unreachable", { reason: error.message }));
    }
    this.showBatch();
  }

  async loadMore() {
    try {
      const { batches, more } = await behind(this.batches, (id) => server.batches(this.limit(), id));
      this.batches = joined(this.batches, batches);
      this.more = more;
    } catch (error) {
      this.say(t("panel.unreachable", { reason: error.message }));
    }
    this.draw();
  }

  async go(index) {
    if (index >= this.batches.length && this.more) await this.loadMore();
    if (index < 0 || index >= this.batches.length) return;
    this.index = index;
    this.showBatch();
    await this.makeAhead();
  }

  async goNext() {
    const what = next({ index: this.index, count: this.batches.length, queued: this.queued });
    if (what === "show") await this.go(this.index - 1);
    else if (what === "make") await this.make();
    else toast("info", t("panel.wait"));
  }

  async make() {
    this.queued += 1;
    this.busy = true;
    this.started = false;
    this.asking = true;
    this.say(t("panel.queued"));
    try {
      await queueNext();
    } catch (error) {
      this.queued -= 1;
      this.failed(error.message);
    } finally {
      this.asking = false;
    }
  }

  /** Make a batch where AutoGen wants one; where it must wait, say so and look again. */
  async makeAhead() {
    clearTimeout(this.later);
    const { autogen, busy, index, queued } = this;
    const wanted = !busy && shouldMake({ autogen, index, count: this.batches.length, queued });
    const waits = wanted ? waitsFor({ home: this.home, open: onCanvas(), sampler: hasSampler() }) : "";
    if (waits) this.later = setTimeout(() => this.makeAhead(), AGAIN);
    if (waits !== this.waits) {
      this.waits = waits;
      this.draw();
    }
    if (!wanted || waits) return;
    this.ahead = true;
    await this.make();
  }

  async setAutogen(on) {
    this.autogen = on;
    this.autogenBox.checked = on;
    this.home = on ? onCanvas() : null;
    this.draw();
    await this.makeAhead();
  }

  showBatch() {
    const cards = (this.batch?.items ?? []).filter((card) => card.file);
    this.player.show(cards);
    this.draw();
    this.open(this.player.card);
  }

  draw() {
    const { position, count } = place(this.index, this.batches.length);
    this.where.textContent = count ? t("panel.batch", { position, count: this.more ? `${count}+` : count }) : t("panel.no batch");
    this.previousButton.disabled = this.index + 1 >= this.batches.length && !this.more;
    const makes = this.index === 0;
    const title = t(makes ? "panel.make" : "panel.next");
    this.nextButton.title = title;
    this.nextButton.setAttribute("aria-label", title);
    this.nextButton.firstChild.className = makes ? "pi pi-plus" : "pi pi-chevron-right";
    this.statusLine.textContent = (this.waits && t(this.waits)) || this.status || (this.queued ? t("panel.in queue", { count: this.queued }) : "");
    const batch = this.batch;
    this.title.textContent = batch ? batch.title || t("panel.untitled") : "";
    this.title.title = batch?.time ? new Date(batch.time * 1000).toLocaleString() : "";
    this.drawAll();
  }

  /** The list of all batches, made anew only where it says something new: the focus in it stays. */
  drawAll() {
    const names = this.batches.map(({ id, title, items }) => [id, title, items.map((card) => card.sidecar)]);
    const says = JSON.stringify([names, this.index, this.more, this.skipped]);
    if (says === this.listed) return;
    this.listed = says;
    const fileOf = (card) =>
      card.file
        ? el("a", { textContent: card.file.filename, href: address(card.file), download: card.file.filename })
        : el("span", { textContent: card.sidecar });
    const rows = this.batches.map((batch, index) => {
      const head = el("button", {
        type: "button",
        className: `acestep-batch${index === this.index ? " acestep-chosen" : ""}`,
        textContent: `${place(index, this.batches.length).position}  ${batch.title || t("panel.untitled")}`,
        title: batch.time ? new Date(batch.time * 1000).toLocaleString() : "",
        on: { click: () => this.go(index) },
      });
      return el("div", {}, head, el("div", { className: "acestep-files" }, ...batch.items.map(fileOf)));
    });
    const more = this.more ? [button(t("panel.more"), () => this.loadMore(), { action: "more", quiet: true })] : [];
    const left = (this.skipped ?? []).map(({ file, reason }) =>
      el("div", { className: "acestep-skipped", textContent: t("panel.skipped", { file, reason }) }),
    );
    this.all.replaceChildren(...rows, ...more, ...left);
  }

  /** Show everything about one piece. What is there stays until it has come, so that nothing jumps. */
  async open(card) {
    this.choice.hidden = true;
    this.drawCompare();
    const file = card?.sidecar ?? "";
    this.actions.hidden = !file;
    if (file === this.opened) return;
    this.opened = file;
    this.detail = null;
    delete this.actions.dataset.ready;
    if (!file) {
      this.about.replaceChildren();
      return;
    }
    let found;
    try {
      found = await server.detail(file);
    } catch (error) {
      if (this.opened !== file) return;
      this.opened = null; // to be asked for again
      this.about.replaceChildren(el("div", { className: "acestep-error", textContent: error.message }));
      return;
    }
    if (this.opened !== file) return;
    this.detail = found;
    this.actions.dataset.ready = file;
    if (found.card.lines.length && !card.lines.length) {
      card.lines = found.card.lines;
      this.player.drawLyrics();
      this.player.follow();
    }
    this.workflowButton.disabled = !found.hasWorkflow;
    this.workflowButton.title = t(found.hasWorkflow ? "panel.workflow.tip" : "panel.workflow.none");
    this.about.replaceChildren(...this.sections(found));
  }

  /** A part that can be folded away; what is open stays open from piece to piece. */
  fold(key, content, name) {
    const details = el(
      "details",
      { className: "acestep-fold", data: { about: name }, open: this.unfolded.has(name) },
      el("summary", { textContent: t(key) }),
      content,
    );
    details.addEventListener("toggle", () => this.unfolded[details.open ? "add" : "delete"](name));
    return details;
  }

  sections(found) {
    const fold = (...parts) => this.fold(...parts);
    const plain = (name, text) => fold(name, el("div", { className: "acestep-text", textContent: text }), name.split(".")[1]);
    const copied = (name, text) =>
      fold(
        name,
        el(
          "div",
          {},
          button(t("panel.copy"), () => copy(text), { icon: "pi pi-copy", quiet: true, action: `copy ${name.split(".")[1]}` }),
          el("pre", { className: "acestep-code acestep-scroll", textContent: text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text }),
        ),
        name.split(".")[1],
      );
    const rows = (pairs) => el("dl", {}, ...pairs.flatMap(([name, value]) => [el("dt", { textContent: name }), el("dd", { textContent: value })]));
    return [
      found.notes.length ? plain("about.notes", found.notes.join("\n")) : null,
      plain("about.settings", found.summary),
      found.scoreReport ? plain("about.scores", found.scoreReport) : null,
      found.lrc ? copied("about.lrc", found.lrc) : null,
      found.vtt ? copied("about.vtt", found.vtt) : null,
      found.codes ? copied("about.codes", found.codes) : null,
      found.times.length ? fold("about.times", rows(found.times.map(([name, seconds]) => [name, duration(seconds)])), "times") : null,
      found.models.length
        ? fold("about.models", rows(found.models.map((m) => [m.name, `${m.bytes === null ? "" : bytes(m.bytes)} ${m.fingerprint.slice(0, 12)}`])), "models")
        : null,
      fold(
        "about.files",
        el("div", { className: "acestep-files" }, ...found.files.map((file) => el("a", { textContent: file.filename, href: address(file), download: file.filename }))),
        "files",
      ),
    ].filter(Boolean);
  }

  async send() {
    const { card } = this.player;
    const places = sources();
    if (!places.length) {
      toast("warn", t("send.none"));
      return;
    }
    if (places.length === 1) {
      await this.sendTo(places[0], card);
      return;
    }
    this.choice.replaceChildren(
      el("div", { textContent: t("send.which") }),
      ...places.map((target) => button(`${target.title} (${target.id})`, () => this.sendTo(target, card), { action: `target ${target.id}`, quiet: true })),
    );
    this.choice.hidden = false;
  }

  async sendTo(target, card) {
    this.choice.hidden = true;
    try {
      toast("success", await sendTo(target, card));
    } catch (error) {
      toast("error", t("send.failed"), error.message);
    }
  }

  use() {
    if (!this.detail) return;
    const { written, without, doubtful } = useSettings(this.detail.nodes);
    const rest = doubtful.map((line) => `? ${line}`);
    if (without.length) rest.unshift(t("use.without", { nodes: without.join(", ") }));
    toast(rest.length ? "warn" : "success", t(rest.length ? "use.some" : "use.done", { count: written }), rest.join("\n"));
  }

  save() {
    for (const file of (this.detail?.files ?? []).filter((one) => ["audio", "settings"].includes(one.label))) {
      const link = el("a", { href: address(file), download: file.filename });
      document.body.append(link);
      link.click();
      link.remove();
    }
  }

  async openWorkflow() {
    const { sidecar } = this.player.card;
    const message = t("workflow.ask");
    if (!(await app.extensionManager.dialog.confirm({ title: t("panel.workflow"), message }))) return;
    try {
      await app.loadGraphData(await server.workflow(sidecar));
    } catch (error) {
      toast("error", t("workflow.failed"), error.message);
    }
  }

  /** Remember a piece, to switch between it and any other at the same moment. */
  pin(card) {
    this.pinned = this.pinned?.sidecar === card.sidecar ? null : card;
    this.drawCompare();
  }

  drawCompare() {
    this.compare.hidden = !this.pinned;
    if (!this.pinned) return;
    const other = this.pinned;
    const same = this.player.card?.sidecar === other.sidecar;
    const name = t("compare.with", { title: other.title || t("panel.untitled"), seed: other.seed ?? "?" });
    this.compare.replaceChildren(
      el("span", { textContent: same ? t("compare.choose") : name, title: name }),
      button(t("compare.switch"), () => this.switchTo(other), { icon: "pi pi-sync", disabled: same, action: "switch" }),
      button("", () => this.pin(other), { icon: "pi pi-times", title: t("compare.stop"), quiet: true, action: "unpin" }),
    );
  }

  switchTo(other) {
    const here = this.player.card;
    const moment = this.player.loaded ? this.player.audio.currentTime : 0;
    const playing = !this.player.audio.paused;
    const index = this.batches.findIndex((batch) => batch.items.some((card) => card.sidecar === other.sidecar));
    if (index < 0) return;
    this.index = index;
    this.pinned = here;
    this.player.show(this.batch.items.filter((card) => card.file));
    this.player.choose(this.player.cards.findIndex((card) => card.sidecar === other.sidecar));
    this.draw();
    this.open(this.player.card);
    if (playing) this.player.play(moment);
    else this.player.seek(moment);
  }
}

async function copy(text) {
  try {
    await copyText(text);
    toast("success", t("panel.copied"));
  } catch (error) {
    toast("error", t("panel.copy.failed"), error.message);
  }
}
