// A player of up to a dozen pieces: a row for each, and waveform and lyrics of the chosen one.

import { api } from "../../../scripts/api.js";
import { button, el, keepEvents, svg } from "./dom.js";
import { position, shown } from "./pure/lyrics.js";
import { clock } from "./pure/time.js";
import { bars, path, seekTo } from "./pure/waveform.js";
import { t } from "./words.js";

const BARS = 160;
const HEIGHT = 40;
const JUMP = 5;
let sounding = null; // the player that plays; all others are silent
const players = new Set(); // weak references to all of them

/** Silence whatever plays, so that `player` (something with `stop`) is heard alone. */
export function hearAlone(player) {
  if (sounding && sounding !== player) sounding.stop();
  sounding = player;
}

/** Where /view serves a file from. */
export function address(file) {
  const { filename, subfolder, type } = file;
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

export class Player {
  /**
   * `lyrics`: words, lines or off. `onChoose(card)`: another piece was chosen.
   */
  constructor({ lyrics = () => "words", onChoose = () => {}, empty = "player.empty" } = {}) {
    this.cards = [];
    this.index = 0;
    this.mode = lyrics;
    this.onChoose = onChoose;
    this.audio = el("audio", { preload: "none" });
    this.rows = el("div", { className: "acestep-rows acestep-scroll", attributes: { role: "listbox", "aria-label": t("panel.title") } });
    this.wave = svg("svg", { class: "acestep-wave", preserveAspectRatio: "none", viewBox: `0 0 ${BARS} ${HEIGHT}` });
    this.slider = el(
      "div",
      {
        className: "acestep-seek",
        tabIndex: 0,
        attributes: { role: "slider", "aria-valuemin": 0, "aria-label": t("player.position") },
        on: {
          pointerdown: (event) => this.drag(event),
        },
      },
      this.wave,
    );
    this.toggleButton = button("", () => this.toggle(), { icon: "pi pi-play", title: t("player.play"), action: "play" });
    this.time = el("span", { className: "acestep-time" });
    this.error = el("span", { className: "acestep-error", attributes: { role: "alert" } });
    this.bar = el("div", { className: "acestep-bar" }, this.toggleButton, this.slider, this.time);
    this.lyrics = el("div", { className: "acestep-lyrics acestep-scroll" });
    this.empty = el("div", { className: "acestep-empty", textContent: t(empty) });
    this.element = keepEvents(
      el(
        "div",
        { className: "acestep-player", on: { keydown: (event) => this.key(event) } },
        ...[this.empty, this.rows, this.bar, this.error, this.lyrics, this.audio],
      ),
    );
    for (const name of ["play", "pause", "ended", "seeked", "loadedmetadata"]) {
      this.audio.addEventListener(name, () => this.follow());
    }
    this.audio.addEventListener("error", () => this.failed());
    players.add(new WeakRef(this));
    this.show([]);
  }

  /** Follow a change of how lyrics are shown. */
  static redrawAll() {
    for (const reference of players) {
      const player = reference.deref();
      if (!player) players.delete(reference);
      else if (player.card) {
        player.drawLyrics();
        player.follow();
      }
    }
  }

  get card() {
    return this.cards[this.index];
  }

  get seconds() {
    return this.loaded && Number.isFinite(this.audio.duration) ? this.audio.duration : (this.card?.seconds ?? 0);
  }

  /** Show other pieces. The same ones again leave everything as it is. */
  show(cards) {
    const name = ({ file, batch, seconds }) => [file.type, file.subfolder, file.filename, batch, seconds].join("/");
    const same = cards.map(name).join("|");
    if (same === this.shown) return;
    this.shown = same;
    this.stop();
    this.cards = cards;
    this.index = 0;
    const some = cards.length > 0;
    this.empty.hidden = some;
    this.rows.hidden = !some;
    this.bar.hidden = !some;
    this.rows.replaceChildren(...cards.map((card, index) => this.row(card, index)));
    this.choose(0);
  }

  row(card, index) {
    const score = card.scores.total;
    return el(
      "div",
      {
        className: "acestep-row",
        tabIndex: 0,
        title: card.title,
        attributes: { role: "option" },
        on: {
          click: () => this.choose(index, true),
          dblclick: () => this.play(),
        },
      },
      el("span", { className: "acestep-number", textContent: String(index + 1) }),
      el("span", { className: "acestep-seed", textContent: card.seed === null ? card.title : t("player.seed", { seed: card.seed }) }),
      el("span", { className: "acestep-score", textContent: score === null ? "" : score.toFixed(2), title: t("player.score") }),
      el("span", { className: "acestep-length", textContent: clock(card.seconds) }),
      el("a", {
        className: "acestep-download pi pi-download",
        href: address(card.file),
        download: card.file.filename,
        title: t("player.download"),
        attributes: { "aria-label": t("player.download") },
        on: { click: (event) => event.stopPropagation() },
      }),
    );
  }

  /** Choose a piece. While one plays, the new one goes on at the same moment, so that takes can be compared. */
  choose(index, byUser = false) {
    const card = this.cards[index];
    [...this.rows.children].forEach((row, number) => {
      row.classList.toggle("acestep-chosen", number === index);
      row.setAttribute("aria-selected", String(number === index));
    });
    this.error.textContent = "";
    if (!card) {
      this.lyrics.hidden = true;
      return;
    }
    const goesOn = byUser && !this.audio.paused;
    const moment = byUser ? this.audio.currentTime : 0;
    this.index = index;
    this.at = moment;
    this.audio.removeAttribute("src");
    this.loaded = false;
    this.drawWave();
    this.drawLyrics();
    if (goesOn) this.play(moment);
    else this.follow();
    if (byUser) this.onChoose(card);
  }

  load() {
    if (this.loaded || !this.card) return;
    this.audio.src = address(this.card.file);
    this.loaded = true;
  }

  async play(from = null) {
    if (!this.card) return;
    const start = from ?? (this.loaded ? null : this.at);
    this.load();
    if (start) this.audio.currentTime = start;
    hearAlone(this);
    try {
      await this.audio.play();
    } catch (error) {
      if (error.name !== "AbortError") this.failed();
    }
  }

  stop() {
    this.audio.pause();
  }

  toggle() {
    if (this.audio.paused) this.play();
    else this.stop();
  }

  seek(seconds) {
    this.at = Math.min(Math.max(0, seconds), this.seconds);
    this.load();
    this.audio.currentTime = this.at;
    this.follow();
  }

  failed() {
    if (this.loaded) this.error.textContent = t("player.failed", { file: this.card?.file.filename ?? "" });
  }

  /** Follow the pointer until it is let go, also above what keeps its events to itself. */
  drag(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.slider.focus({ preventScroll: true });
    const box = this.slider.getBoundingClientRect();
    const move = (moved) => this.seek(seekTo(moved.clientX, box.left, box.width, this.seconds));
    const end = new AbortController();
    const listen = (name, act) => window.addEventListener(name, act, { capture: true, signal: end.signal });
    listen("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) listen(name, () => end.abort());
    move(event);
  }

  /** Keys: space, left and right wherever one is in the player; up and down through the rows. */
  key(event) {
    if (!this.card || event.ctrlKey || event.metaKey || event.altKey) return;
    const own = event.target.closest("button, a"); // they answer space and enter themselves
    const row = [...this.rows.children].indexOf(event.target);
    const now = this.loaded ? this.audio.currentTime : (this.at ?? 0);
    const pick = (index) => {
      this.choose(Math.min(this.cards.length - 1, Math.max(0, index)), true);
      if (row >= 0) this.rows.children[this.index].focus({ preventScroll: true });
    };
    const start = () => {
      if (row >= 0 && row !== this.index) pick(row);
      else this.toggle();
    };
    const actions = {
      " ": own ? null : start,
      Enter: own || row < 0 ? null : start,
      ArrowLeft: () => this.seek(now - JUMP),
      ArrowRight: () => this.seek(now + JUMP),
      Home: () => this.seek(0),
      ArrowUp: () => pick(this.index - 1),
      ArrowDown: () => pick(this.index + 1),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }

  drawWave() {
    const outline = path(bars(this.card.peaks, BARS), HEIGHT);
    this.played = svg("path", { d: outline, class: "acestep-played" });
    this.wave.replaceChildren(svg("path", { d: outline, class: "acestep-ahead" }), this.played);
  }

  drawLyrics() {
    const mode = this.mode();
    this.lines = mode === "off" ? [] : shown(this.card.lines);
    this.lyrics.hidden = !this.lines.length;
    this.current = { line: -2, word: -2 };
    this.lyrics.replaceChildren(
      ...this.lines.map((line) =>
        el(
          "div",
          {
            className: `acestep-line${line.tag ? " acestep-tag" : ""}`,
            title: clock(line.start),
            on: { click: () => this.seek(line.start) },
          },
          ...(mode === "words" && line.words.length
            ? line.words.map((word) => el("span", { textContent: word.text }))
            : [el("span", { textContent: line.text })]),
        ),
      ),
    );
    this.lyrics.scrollTop = 0;
  }

  /** Bring everything to the present moment, and go on while the music does. */
  follow() {
    const playing = !this.audio.paused && !this.audio.ended;
    const now = this.loaded ? this.audio.currentTime : (this.at ?? 0);
    const seconds = this.seconds;
    const share = seconds > 0 ? Math.min(1, now / seconds) : 0;
    const icon = this.toggleButton.firstChild;
    icon.className = playing ? "pi pi-pause" : "pi pi-play";
    const title = t(playing ? "player.pause" : "player.play");
    this.toggleButton.title = title;
    this.toggleButton.setAttribute("aria-label", title);
    this.time.textContent = `${clock(now)} / ${clock(seconds)}`;
    this.slider.setAttribute("aria-valuemax", String(Math.round(seconds)));
    this.slider.setAttribute("aria-valuenow", String(Math.round(now)));
    this.slider.setAttribute("aria-valuetext", clock(now));
    this.played?.style.setProperty("clip-path", `inset(0 ${(1 - share) * 100}% 0 0)`);
    this.sing(now);
    if (playing && !this.following) {
      this.following = true;
      requestAnimationFrame(() => {
        this.following = false;
        if (this.element.isConnected) this.follow();
        else this.stop();
      });
    }
  }

  sing(now) {
    if (!this.lines?.length) return;
    const { line, word } = position(this.lines, now);
    if (line === this.current.line && word === this.current.word) return;
    const rows = this.lyrics.children;
    if (line !== this.current.line) {
      [...rows].forEach((row, index) => {
        row.classList.toggle("acestep-now", index === line);
        row.classList.toggle("acestep-past", index < line);
      });
      const row = rows[Math.max(0, line)];
      this.lyrics.scrollTop = row.offsetTop - this.lyrics.clientHeight / 2 + row.clientHeight / 2;
    }
    if (line >= 0) [...rows[line].children].forEach((span, index) => span.classList.toggle("acestep-sung", index <= word));
    this.current = { line, word };
  }
}
