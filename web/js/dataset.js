// The songs of a data set as a table. What is changed in it stands in the node's edits, so a workflow keeps it.

import { app } from "../../../scripts/app.js";
import { addElement, follow, isLinked, nodeOfLocator, widgetOf, write, writeAll } from "./canvas.js";
import { button, el, keepEvents } from "./dom.js";
import * as pure from "./pure/edits.js";
import { clock } from "./pure/time.js";
import { t } from "./words.js";

export const EDITOR = "ACEStepEditDataset";
const EDITS = "edits";
const LARGE = ["caption", "lyrics"];
const SWITCHES = ["instrumental", "labelled"];
const COLUMNS = [
  ["labelled", "table.labelled", "table.labelled.tip"],
  ["caption", "table.caption", "table.caption.tip"],
  ["lyrics", "table.lyrics", "table.lyrics.tip"],
  ["instrumental", "table.instrumental", "table.instrumental.tip"],
  ["language", "table.language", "table.language.tip"],
  ["bpm", "table.bpm", "table.bpm.tip"],
  ["key", "table.key", "table.key.tip"],
  ["time_signature", "table.signature", "table.signature.tip"],
  ["genre", "table.genre", "table.genre.tip"],
  ["prompt", "table.prompt", "table.prompt.tip"],
  ["tag", "table.tag", "table.tag.tip"],
  ["repeat", "table.repeat", "table.repeat.tip"],
];

export class EditTable {
  /**
   * `read()`: the text of the edits. `write(text, done)`: what they become, `done` where a value is typed to its end.
   * `locked()`: whether a link feeds them. `onFold()`: show or hide the text itself.
   */
  constructor({ read, write, locked, onFold }) {
    Object.assign(this, { read, write, locked });
    this.table = pure.readTable(null);
    this.edits = {};
    this.open = null; // [index, field] of the text that is open below its row
    this.status = el("div", { className: "acestep-status", attributes: { role: "status" } });
    this.error = el("div", { className: "acestep-error", attributes: { role: "alert" } });
    this.find = el("input", {
      type: "search",
      className: "acestep-find",
      placeholder: t("table.find"),
      attributes: { "aria-label": t("table.find") },
      on: { input: () => this.filter() },
    });
    this.foldButton = button("", onFold, { icon: "pi pi-code", title: t("table.text"), action: "text", quiet: true });
    this.body = el("tbody");
    const heads = COLUMNS.map(([, label, tip]) => el("th", { textContent: t(label), title: t(tip), scope: "col" }));
    this.grid = el(
      "table",
      {},
      el("thead", {}, el("tr", {}, el("th", { textContent: t("table.song"), scope: "col" }), ...heads, el("th", { attributes: { "aria-label": t("table.undo") } }))),
      this.body,
    );
    this.scroll = el("div", { className: "acestep-table acestep-scroll" }, this.grid);
    this.empty = el("div", { className: "acestep-empty" });
    this.element = keepEvents(
      el(
        "div",
        { className: "acestep-dataset" },
        el("div", { className: "acestep-head" }, this.find, this.status, this.foldButton),
        ...[this.error, this.empty, this.scroll],
      ),
    );
    this.element.addEventListener("keydown", keepKeys);
    this.refresh();
  }

  /** Show other songs. */
  show(output) {
    const same = JSON.stringify(output);
    if (same === this.shown) return;
    this.shown = same;
    this.table = pure.readTable(output);
    this.open = null;
    this.refresh();
  }

  /** The edits were changed from outside: by hand, by undo, by another workflow. */
  refresh() {
    const { edits, error } = pure.parse(this.read());
    this.edits = edits ?? {};
    this.broken = error;
    this.linked = this.locked();
    this.body.replaceChildren(...this.table.rows.flatMap((_, index) => this.row(index)));
    this.say();
    this.filter();
  }

  /** A link may have come or gone. */
  relink() {
    if (this.locked() !== this.linked) this.refresh();
  }

  get fixed() {
    return Boolean(this.broken) || this.linked;
  }

  /** What stands above the table. */
  say() {
    const { rows, more } = this.table;
    const changed = rows.filter((_, index) => pure.after(this.edits, rows, index).changed.length).length;
    const strangers = rows.length && !more ? pure.strangers(this.edits, rows) : [];
    const words = rows.length
      ? [t("table.count", { count: rows.length, changed }), more ? t("table.more", { count: more }) : ""]
      : [Object.keys(this.edits).length ? t("table.kept", { count: Object.keys(this.edits).length }) : ""];
    if (this.linked) words.push(t("table.locked"));
    this.status.textContent = words.filter(Boolean).join(" ");
    const wrong = [];
    if (this.broken) wrong.push(t("table.broken", { reason: this.broken }));
    if (strangers.length) wrong.push(t("table.strangers", { names: strangers.slice(0, 5).join(", ") }));
    this.error.textContent = wrong.join(" ");
    this.empty.textContent = t("table.empty");
    this.empty.hidden = rows.length > 0;
    this.scroll.hidden = !rows.length;
    this.find.hidden = rows.length < 8;
  }

  filter() {
    const wanted = this.find.hidden ? "" : this.find.value.trim().toLowerCase();
    const speaks = (index) => {
      const { row } = pure.after(this.edits, this.table.rows, index);
      return [row.name, row.caption, row.lyrics, row.genre].some((one) => String(one).toLowerCase().includes(wanted));
    };
    for (const line of this.body.children) line.hidden = Boolean(wanted) && !speaks(Number(line.dataset.index));
  }

  /** The lines of a song: its row, and the text that is open below it. */
  row(index) {
    const { row, changed } = pure.after(this.edits, this.table.rows, index);
    const line = el("tr", { data: { index }, className: row.labelled ? "" : "acestep-unlabelled" });
    const name = el("th", { title: row.name, scope: "row" }, el("span", { textContent: row.name }), el("small", { textContent: clock(row.seconds) }));
    const cells = COLUMNS.map(([field, , tip]) => this.cell(index, field, row, changed, t(tip)));
    const undo = button("", () => this.undo(index), { icon: "pi pi-undo", title: t("table.undo"), action: "undo", quiet: true, disabled: this.fixed });
    undo.hidden = !changed.length;
    line.append(name, ...cells, el("td", {}, undo));
    const [openIndex, field] = this.open ?? [];
    return openIndex === index ? [line, this.large(index, field, row)] : [line];
  }

  cell(index, field, row, changed, tip) {
    const differs = changed.includes(field);
    const before = differs ? `\n${t("table.before", { value: String(this.table.rows[index][field] ?? "").slice(0, 200) || "–" })}` : "";
    const cell = el("td", { data: { field }, className: differs ? "acestep-changed" : "", title: tip + before });
    cell.append(this.control(index, field, row[field]));
    return cell;
  }

  /** What a value is edited with. */
  control(index, field, value) {
    const label = `${this.table.rows[index].name}: ${field}`;
    const shared = { disabled: this.fixed, attributes: { "aria-label": label } };
    if (SWITCHES.includes(field)) {
      return el("input", { type: "checkbox", checked: value === true, on: { change: (event) => this.set(index, field, event.target.checked) }, ...shared });
    }
    if (LARGE.includes(field)) {
      const text = String(value ?? "");
      const words = field === "lyrics" && text ? t("table.lines", { count: text.split("\n").filter((one) => one.trim()).length }) : text;
      return el("button", { type: "button", className: "acestep-cell", textContent: words || "–", on: { click: () => this.unfold(index, field) }, attributes: { "aria-label": label } });
    }
    const choices = this.choices(field);
    if (choices) return this.select(index, field, value, choices, shared);
    const numeric = Object.hasOwn(pure.LIMITS, field);
    const [min, max] = pure.LIMITS[field] ?? ["", ""];
    return el("input", {
      ...{ type: numeric ? "number" : "text", value: value ?? "", ...(numeric && { min, max, step: 1 }) },
      ...{ className: numeric ? "acestep-numeric" : "", placeholder: field === "bpm" ? t("table.auto") : "" },
      on: {
        input: (event) => this.enter(index, field, event.target, false),
        change: (event) => this.enter(index, field, event.target),
      },
      ...shared,
    });
  }

  /** A list of choices, filled when it is turned to: all of them in every row of a large table take seconds to make. */
  select(index, field, value, choices, shared) {
    const option = ([one, words]) => el("option", { value: one, textContent: words });
    const present = choices.find(([one]) => one === value) ?? [value, String(value)];
    const fill = () => {
      if (select.options.length > 1) return;
      const at = choices.indexOf(present);
      select.style.width = `${select.offsetWidth}px`; // as wide as before: nothing moves below the pointer
      select.prepend(...choices.slice(0, Math.max(0, at)).map(option));
      select.append(...choices.slice(at + 1).map(option));
    };
    const change = (event) => this.set(index, field, event.target.value);
    const select = el("select", { on: { focus: fill, pointerdown: fill, change }, ...shared }, option(present));
    return select;
  }

  /** [value, words] to choose from; null for a field of free text. */
  choices(field) {
    const { languages, keys, signatures } = this.table;
    const free = (values) => [["", t("table.auto")], ...values.filter(Boolean).map((one) => [one, one])];
    if (field === "language") return languages.length ? languages.map((one) => [one, one]) : null;
    if (field === "key") return keys.length ? free(keys) : null;
    if (field === "time_signature") return signatures.length ? free(signatures) : null;
    if (field === "prompt") return [["", t("table.prompt.ratio")], ["caption", t("table.caption")], ["genre", t("table.genre")]];
    return null;
  }

  /** The large text below a row. */
  large(index, field, row) {
    const area = el("textarea", {
      className: "acestep-scroll",
      value: String(row[field] ?? ""),
      rows: field === "lyrics" ? 10 : 4,
      spellcheck: false,
      readOnly: this.fixed,
      attributes: { "aria-label": `${row.name}: ${field}` },
      data: { large: field },
      on: {
        input: (event) => this.set(index, field, event.target.value, false),
        change: (event) => this.set(index, field, event.target.value),
        keydown: (event) => event.key === "Escape" && this.fold(),
      },
    });
    const head = el("div", { className: "acestep-head" }, el("span", { className: "acestep-where", textContent: `${row.name}: ${t(field === "lyrics" ? "table.lyrics" : "table.caption")}` }), button("", () => this.fold(), { icon: "pi pi-times", title: t("table.close"), action: "close", quiet: true }));
    return el("tr", { data: { index }, className: "acestep-open" }, el("td", { colSpan: COLUMNS.length + 2 }, el("div", { className: "acestep-large" }, head, area)));
  }

  unfold(index, field) {
    const same = this.open?.[0] === index && this.open[1] === field;
    const before = this.open?.[0];
    this.open = same ? null : [index, field];
    if (before !== undefined && before !== index) this.redraw(before);
    this.redraw(index);
    this.body.querySelector("textarea")?.focus({ preventScroll: true });
  }

  fold() {
    if (!this.open) return;
    const [index, field] = this.open;
    this.open = null;
    this.redraw(index);
    this.body.querySelector(`tr[data-index="${index}"] [data-field="${field}"] button`)?.focus({ preventScroll: true });
  }

  /** Draw one song again; where the keys were in it, they stay. */
  redraw(index) {
    const lines = [...this.body.querySelectorAll(`tr[data-index="${index}"]`)];
    const focused = document.activeElement?.closest?.("[data-field], [data-large]");
    const inside = focused && lines.some((line) => line.contains(focused)) ? focused.dataset : null;
    const fresh = this.row(index);
    lines[0].before(...fresh);
    for (const line of lines) line.remove();
    const again = inside?.large ? "textarea" : inside && `[data-field="${inside.field}"] > *`;
    if (again) fresh.map((line) => line.querySelector(again)).find(Boolean)?.focus({ preventScroll: true });
  }

  enter(index, field, input, done = true) {
    const { value } = pure.typed(field, input.value);
    input.classList.toggle("acestep-wrong", value === undefined);
    if (value !== undefined) this.set(index, field, value, done);
  }

  /** Set a field. While it is being typed (not `done`) the row stays as it is, and so does the undo history. */
  set(index, field, value, done = true) {
    this.keep(pure.set(this.edits, this.table.rows, index, field, value), index, done);
  }

  undo(index) {
    this.keep(pure.undone(this.edits, this.table.rows, index), index);
  }

  keep(edits, index, done = true) {
    this.relink();
    if (this.fixed) return;
    this.edits = edits;
    this.write(pure.write(edits), done);
    this.say();
    if (done) setTimeout(() => this.redraw(index)); // when the keys have gone where they were going
  }
}

/** Keep keys from the canvas, but those with Ctrl or Cmd that mean nothing to a text: queue, save. */
function keepKeys(event) {
  const text = event.target.matches("textarea, input:not([type=checkbox])");
  const command = event.ctrlKey || event.metaKey;
  if (!command || (text && !["Enter", "s"].includes(event.key))) event.stopPropagation();
}

/** The table at the end of an Edit Dataset node; the text that it writes is folded away until asked for. */
export function addTable(node) {
  let writing = false;
  const text = widgetOf(node, EDITS);
  const fold = (hidden) => {
    if (!text) return;
    text.hidden = hidden;
    text.options.hidden = hidden;
    const all = [...node.widgets];
    node.widgets = []; // only another list makes Nodes 2.0 look again
    node.widgets = all;
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
    node.setDirtyCanvas?.(true, true);
  };
  const table = new EditTable({
    read: () => String(text?.value ?? ""),
    locked: () => isLinked(node, EDITS),
    onFold: () => fold(!text?.hidden),
    write(value, done) {
      writing = true;
      try {
        if (done) writeAll(node, { [EDITS]: value });
        else write(node, EDITS, value);
      } finally {
        writing = false;
      }
    },
  });
  addElement(node, "songs", "ACESTEP_EDITS", table.element, 260);
  fold(true);
  node.setSize([Math.max(node.size[0], 720), Math.max(node.size[1], 400)]);
  node.acestepTable = table;
  follow(node, EDITS, () => writing || table.refresh());
  const before = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    before?.call(this, output, ...rest);
    showOutput(node, output);
  };
  const connected = node.onConnectionsChange;
  node.onConnectionsChange = function (...rest) {
    connected?.apply(this, rest);
    table.relink();
  };
  setTimeout(() => {
    table.refresh(); // a workflow brings its values after its nodes
    if (table.broken) fold(false);
    const [, output] = Object.entries(app.nodeOutputs ?? {}).find(([locator]) => nodeOfLocator(locator) === node) ?? [];
    showOutput(node, output);
  });
}

/** The songs that the node reported. */
export function showOutput(node, output) {
  if (Array.isArray(output?.acestep_dataset)) node?.acestepTable?.show(output.acestep_dataset);
}
