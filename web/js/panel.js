// The results panel: batches of the output folder, one after the other, with everything about each piece.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { queueNext, sendTo, sources, useSettings } from "./canvas.js";
import { button, el } from "./dom.js";
import { address, Player } from "./player.js";
import { find, joined, next, place, renewed, shouldMake } from "./pure/batches.js";
import { bytes, duration } from "./pure/time.js";
import * as server from "./server.js";
import { t } from "./words.js";

const toast = (severity, summary, detail = "") =>
  app.extensionManager.toast.add({ severity, summary, detail, life: severity === "error" ? 8000 : 4000 });

export class Panel {
  constructor({ limit = () => 30, lyrics = () => "words" } = {}) {
    this.limit = limit;
    this.batches = [];
    this.index = 0;
    this.queued = 0;
    this.autogen = false;
    this.pinned = null;
    this.status = "";
    this.player = new Player({ lyrics, onChoose: (card) => this.open(card), empty: "panel.none" });
    this.previousButton = button("", () => this.go(this.index + 1), { icon: "pi pi-chevron-left", title: t("panel.previous"), action: "previous" });
    this.nextButton = button("", () => this.goNext(), { icon: "pi pi-chevron-right", title: t("panel.next"), action: "next" });
    this.where = el("span", { className: "acestep-where" });
    this.refreshButton = button("", () => this.refresh(), { icon: "pi pi-refresh", title: t("panel.refresh"), action: "refresh", quiet: true });
    this.autogenBox = el("input", { type: "checkbox", data: { action: "autogen" }, on: { change: () => this.setAutogen(this.autogenBox.checked) } });
    this.statusLine = el("div", { className: "acestep-status", attributes: { role: "status" } });
    this.title = el("div", { className: "acestep-title" });
    this.actions = el("div", { className: "acestep-actions" });
    this.choice = el("div", { className: "acestep-choice", hidden: true });
    this.compare = el("div", { className: "acestep-compare", hidden: true });
    this.about = el("div", { className: "acestep-about" });
    this.all = el("div", { className: "acestep-all" });
    this.allFold = fold("panel.all", this.all, "all");
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
    container.replaceChildren(this.element);
    this.refresh();
  }

  get batch() {
    return this.batches[this.index];
  }

  listen() {
    api.addEventListener("status", ({ detail }) => {
      this.queued = detail?.exec_info?.queue_remaining ?? 0;
      this.draw();
    });
    api.addEventListener("execution_start", () => this.say(t("panel.running")));
    api.addEventListener("execution_success", () => this.finished());
    api.addEventListener("execution_interrupted", () => this.failed(t("panel.interrupted")));
    api.addEventListener("execution_error", ({ detail }) => this.failed(String(detail?.exception_message ?? "")));
  }

  say(text) {
    this.status = text;
    this.draw();
  }

  failed(reason) {
    const stopped = this.autogen;
    this.setAutogen(false);
    this.say([t("panel.failed", { reason }), stopped ? t("panel.autogen.off") : ""].join(" ").trim());
  }

  async finished() {
    this.say("");
    const before = this.batches[0]?.id;
    await this.refresh({ follow: !this.autogen });
    if (this.batches[0]?.id !== before) await this.makeAhead();
  }

  /** Read the newest batches again. With `follow`, show the newest where there is a new one. */
  async refresh({ follow = false } = {}) {
    try {
      const { batches, more, skipped } = await server.batches(this.limit());
      const shown = this.batch?.id;
      const newest = this.batches[0]?.id;
      this.more = this.batches.length > batches.length ? this.more : more;
      this.batches = renewed(this.batches, batches);
      this.skipped = skipped;
      const fresh = follow && batches[0] && batches[0].id !== newest;
      this.index = fresh || !shown ? 0 : find(this.batches, shown);
    } catch (error) {
      this.say(t("panel.unreachable", { reason: error.message }));
    }
    this.showBatch();
  }

  async loadMore() {
    const last = this.batches[this.batches.length - 1]?.id ?? "";
    const { batches, more } = await server.batches(this.limit(), last);
    this.batches = joined(this.batches, batches);
    this.more = more;
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
    this.say(t("panel.queued"));
    try {
      await queueNext();
    } catch (error) {
      this.failed(error.message);
    }
  }

  async makeAhead() {
    const { autogen, index, queued } = this;
    if (shouldMake({ autogen, index, count: this.batches.length, queued })) await this.make();
  }

  async setAutogen(on) {
    this.autogen = on;
    this.autogenBox.checked = on;
    this.draw();
    if (on) await this.makeAhead();
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
    this.statusLine.textContent = this.status || (this.queued ? t("panel.in queue", { count: this.queued }) : "");
    const batch = this.batch;
    this.title.textContent = batch ? batch.title || t("panel.untitled") : "";
    this.title.title = batch?.time ? new Date(batch.time * 1000).toLocaleString() : "";
    this.drawAll();
  }

  drawAll() {
    const rows = this.batches.map((batch, index) => {
      const files = batch.items.map((card) =>
        el("a", { textContent: card.file?.filename ?? card.sidecar, href: card.file ? address(card.file) : "", download: card.file?.filename ?? "" }),
      );
      const head = el("button", {
        type: "button",
        className: `acestep-batch${index === this.index ? " acestep-chosen" : ""}`,
        textContent: `${place(index, this.batches.length).position}  ${batch.title || t("panel.untitled")}`,
        title: batch.time ? new Date(batch.time * 1000).toLocaleString() : "",
        on: { click: () => this.go(index) },
      });
      return el("div", {}, head, el("div", { className: "acestep-files" }, ...files));
    });
    const more = this.more ? [button(t("panel.more"), () => this.loadMore(), { action: "more", quiet: true })] : [];
    const left = (this.skipped ?? []).map(({ file, reason }) =>
      el("div", { className: "acestep-skipped", textContent: t("panel.skipped", { file, reason }) }),
    );
    this.all.replaceChildren(...rows, ...more, ...left);
  }

  /** Show everything about one piece. */
  async open(card) {
    this.choice.hidden = true;
    this.actions.replaceChildren();
    this.about.replaceChildren();
    this.drawCompare();
    if (!card?.sidecar) return;
    this.opened = card.sidecar;
    let found;
    try {
      found = await server.detail(card.sidecar);
    } catch (error) {
      this.about.replaceChildren(el("div", { className: "acestep-error", textContent: error.message }));
      return;
    }
    if (this.opened !== card.sidecar) return;
    this.detail = found;
    if (found.card.lines.length && !card.lines.length) {
      card.lines = found.card.lines;
      this.player.drawLyrics();
      this.player.follow();
    }
    this.actions.replaceChildren(
      button(t("panel.send"), () => this.send(card), { icon: "pi pi-send", title: t("panel.send.tip"), action: "send" }),
      button(t("panel.use"), () => this.use(), { icon: "pi pi-sliders-h", title: t("panel.use.tip"), action: "use" }),
      button(t("panel.save"), () => this.save(), { icon: "pi pi-download", title: t("panel.save.tip"), action: "save" }),
      button(t("panel.compare"), () => this.pin(card), { icon: "pi pi-arrows-h", title: t("panel.compare.tip"), action: "compare" }),
      button(t("panel.workflow"), () => this.openWorkflow(card), {
        icon: "pi pi-sitemap",
        title: t(found.hasWorkflow ? "panel.workflow.tip" : "panel.workflow.none"),
        action: "workflow",
        disabled: !found.hasWorkflow,
      }),
    );
    this.about.replaceChildren(...this.sections(found));
  }

  sections(found) {
    const plain = (name, text) => fold(name, el("div", { className: "acestep-text", textContent: text }), name.split(".")[1]);
    const copied = (name, text) =>
      fold(
        name,
        el(
          "div",
          {},
          button(t("panel.copy"), () => copy(text), { icon: "pi pi-copy", quiet: true, action: `copy ${name.split(".")[1]}` }),
          el("pre", { className: "acestep-code acestep-scroll", textContent: text }),
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

  async send(card) {
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
    const { written, without } = useSettings(this.detail.nodes);
    const rest = without.length ? t("use.without", { nodes: without.join(", ") }) : "";
    toast(without.length ? "warn" : "success", t("use.done", { count: written }), rest);
  }

  save() {
    for (const file of this.detail.files.filter((one) => ["audio", "settings"].includes(one.label))) {
      const link = el("a", { href: address(file), download: file.filename });
      document.body.append(link);
      link.click();
      link.remove();
    }
  }

  async openWorkflow(card) {
    const message = t("workflow.ask");
    if (!(await app.extensionManager.dialog.confirm({ title: t("panel.workflow"), message }))) return;
    try {
      await app.loadGraphData(await server.workflow(card.sidecar));
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

function fold(key, content, name) {
  return el("details", { className: "acestep-fold", data: { about: name } }, el("summary", { textContent: t(key) }), content);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("success", t("panel.copied"));
  } catch (error) {
    toast("error", t("panel.copy.failed"), error.message);
  }
}
