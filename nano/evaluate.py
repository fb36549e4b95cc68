"""What the nano checkpoint can do, measured: ``python -m nano.evaluate [--models models/nano] [--out FOLDER]``.

Everything is asked of songs whose seeds were never trained on. Each condition is also taken away, so that one that
does nothing is seen, and each measure is also taken of what the composer played itself, which shows its ceiling.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.checkpoints.handles import DiffusionModel
from acestep_graph.acestep_core.host import Host, use
from acestep_graph.acestep_core.lm import songs as lm_songs
from acestep_graph.acestep_core.lm import think
from acestep_graph.acestep_core.lora.apply import with_adapter
from acestep_graph.acestep_core.lyrics import timing
from acestep_graph.acestep_core.lyrics.attention import heard_lyrics, lyric_attention
from acestep_graph.acestep_core.result import splice
from acestep_graph.acestep_core.sampling import sampler
from acestep_graph.acestep_core.sampling.conditioning import Conditioning
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import Song, make_song
from acestep_graph.acestep_core.tasks import codes as code_tasks
from acestep_graph.acestep_core.tasks import complete, extract, flow_edit, lego, remix, repaint, text2music
from acestep_graph.acestep_core.tasks.instructions import TRACKS
from acestep_graph.acestep_core.tasks.source import Source, encode_source
from acestep_graph.acestep_core.training.items import TrainItem
from acestep_graph.acestep_core.training.settings import TrainSettings
from acestep_graph.acestep_core.training.trainer import train

from . import arrangement, measures
from .compose import Piece, compose
from .hearing import Listener, taught

SECONDS = 12.0
FIRST, LESSONS, TWINS = 100, range(5000, 5120), 100_000
"""First seed of the songs that are asked for; seeds that the listener is taught with; where other songs of the same
genre and mood are sought."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a measure of a task with its condition, without it, and of the composer's own sound.

    ``without``, ``ceiling`` and ``chance`` are None where they mean nothing. ``count``: how many pieces.
    """

    task: str
    measure: str
    with_it: float
    without: float | None = None
    ceiling: float | None = None
    chance: float | None = None
    count: int = 0
    unit: str = "%"

    def cells(self) -> list[str]:
        def shown(value: float | None) -> str:
            if value is None or np.isnan(value):
                return ""
            return f"{100 * value:.0f} %" if self.unit == "%" else f"{value:.2f} {self.unit}".strip()

        numbers = (self.with_it, self.without, self.ceiling, self.chance)
        return [self.task, self.measure, *map(shown, numbers), str(self.count)]


HEADS = ("task", "measure", "nano", "without the condition", "composer's own", "by chance", "pieces")


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [HEADS, ("---",) * len(HEADS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass
class Player:
    """The models of a folder, and the songs that are asked of them."""

    models: Path
    count: int
    seconds: float = SECONDS
    kept: dict[int, Piece] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.turbo, self.base = (
            loading.load_diffusion_model(self.models / f"acestep-v15-{kind}") for kind in ("turbo", "base")
        )
        self.text = loading.load_text_encoder(self.models / "Qwen3-Embedding-0.6B")
        self.vae = loading.load_vae(self.models / "vae")
        self.lm = loading.load_language_model(self.models / "acestep-5Hz-lm-1.7B")
        self.host = Host(models=self.models)

    @property
    def seeds(self) -> range:
        return range(FIRST, FIRST + self.count)

    def piece(self, seed: int) -> Piece:
        if seed not in self.kept:
            self.kept[seed] = compose(seed, self.seconds)
        return self.kept[seed]

    def other(self, seed: int) -> Piece:
        """Another song than that of ``seed``, for comparison."""
        return self.piece(FIRST + (seed - FIRST + self.count // 2) % self.count)

    def twin(self, seed: int) -> Piece:
        """A further song in the genre and mood of that of ``seed``: what its caption alone lets one expect."""
        wanted, number = (self.piece(seed).genre, self.piece(seed).mood), TWINS + 1000 * seed
        while ((found := arrangement.arranged(number, self.seconds)).genre.name, found.mood.name) != wanted:
            number += 1
        if number not in self.kept:
            self.kept[number] = compose(number, self.seconds)
        return self.kept[number]

    def source(self, wave: np.ndarray) -> Source:
        return encode_source(self.vae, torch.from_numpy(np.ascontiguousarray(wave)))

    def vae_trip(self, wave: np.ndarray) -> np.ndarray:
        """What the autoencoder makes of ``wave``."""
        latents = codec.encode(self.vae, torch.from_numpy(np.ascontiguousarray(wave))[None])
        return codec.decode(self.vae, latents)[0, :, : wave.shape[1]].numpy()

    def play(
        self, model: DiffusionModel, conditioning: Conditioning, seed: int, settings: SamplerSettings | None = None
    ) -> np.ndarray:
        """Sound ``[2, N]``."""
        made = sampler.sample(model, conditioning, settings, seed=seed)
        return codec.decode(self.vae, made.latents)[0].numpy()

    def song(self, song: Song, seed: int, model: DiffusionModel | None = None, **more: Any) -> np.ndarray:
        model = model or self.turbo
        return self.play(model, text2music.prepare(model, self.text, song, **more), seed)


def key_of(song: Song) -> tuple[int, str]:
    """Pitch class of the tonic, and the mode, of a song with a key."""
    tonic, mode = song.key.split()
    sharps = sum({"#": 1, "♯": 1, "b": -1, "♭": -1}[sign] for sign in tonic[1:])
    return ("C_D_EF_G_A_B".index(tonic[0]) + sharps) % 12, mode


def mono(wave: np.ndarray) -> np.ndarray:
    return wave.mean(axis=0)


def mean(values: Iterable[float]) -> float:
    found = [float(value) for value in values]
    return float(np.mean(found)) if found else float("nan")


def in_tempo(wave: np.ndarray, song: Song) -> bool:
    return measures.same_pulse(measures.tempo(mono(wave)), song.bpm)


def nearer(wave: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> bool:
    """Whether ``wave`` sounds more like ``right`` than like ``wrong``."""
    a, b, c = (measures.colour(mono(sound)) for sound in (wave, right, wrong))
    return bool(np.abs(a - b).mean() < np.abs(a - c).mean())


def followed(player: Player, kinds: Sequence[str] = ("turbo", "base")) -> list[Row]:
    """Text to music: whether tempo, key and caption do what they say."""
    rows = []
    for name in kinds:
        model = getattr(player, name)
        full, no_tempo, no_key, no_words = [], [], [], []
        for seed in player.seeds:
            asked = replace(player.piece(seed).song, caption=player.piece(seed).captions[0])
            full.append(player.song(asked, seed, model))
            no_tempo.append(player.song(replace(asked, bpm=None), seed, model))
            no_key.append(player.song(replace(asked, key=""), seed, model))
            no_words.append(player.song(replace(asked, caption="music"), seed, model))
        pieces = [player.piece(seed) for seed in player.seeds]
        asked = [piece.song for piece in pieces]

        def share(judge: Callable[..., float], *lists: Sequence[Any]) -> float:
            return mean(map(judge, *lists))

        def right(wave: np.ndarray, song: Song) -> bool:
            return measures.key(mono(wave)) == key_of(song)

        def near(wave: np.ndarray, song: Song) -> float:
            return measures.key_score(measures.key(mono(wave)), key_of(song))

        def beat(wave: np.ndarray, song: Song) -> bool:
            return abs(measures.tempo(mono(wave)) / song.bpm - 1) <= 0.02

        own = [piece.mix for piece in pieces]
        task = f"text2music, {name}"
        for judge, measure, without in (
            (beat, "tempo within 2 %", no_tempo),
            (in_tempo, "tempo within 2 %, metrical level open", no_tempo),
            (right, "key right", no_key),
            (near, "key, MIREX score", no_key),
        ):
            values = [share(judge, waves, asked) for waves in (full, without, own)]
            turned = share(judge, [own[(at + len(own) // 2) % len(own)] for at in range(len(own))], asked)
            rows.append(Row(task, measure, *values, turned, len(full)))
        others = [player.other(seed).mix for seed in player.seeds]
        twins = [player.twin(seed).mix for seed in player.seeds]
        rows.append(
            Row(
                task,
                "sounds more like the song of its caption than like another",
                share(nearer, full, own, others),
                share(nearer, no_words, own, others),
                share(nearer, twins, own, others),
                0.5,
                len(full),
            )
        )
    return rows


def followed_source(player: Player) -> list[Row]:
    """Remix: whether the music follows its source, through the codes and past them."""
    rows = []
    for quantizer, name in ((True, "cover, through codes"), (False, "cover, without the quantizer")):
        right, wrong, own = [], [], []
        for seed in player.seeds:
            piece, other = player.piece(seed), player.other(seed)
            source = player.source(piece.mix)
            song = replace(other.song, duration=player.seconds, lyrics=piece.song.lyrics, language=piece.song.language)
            batch = remix.prepare(player.turbo, player.text, song, source, quantizer=quantizer)
            wave = player.play(player.turbo, batch, seed)
            right.append(measures.likeness(mono(wave), mono(piece.mix)))
            wrong.append(measures.likeness(mono(player.song(song, seed)), mono(piece.mix)))
            own.append(measures.likeness(mono(player.vae_trip(piece.mix)), mono(piece.mix)))
        rows.append(
            Row(name, "likeness to the source (log-mel)", mean(right), mean(wrong), mean(own), 0.0, len(right), "")
        )
    return rows


def edited(player: Player) -> list[Row]:
    """Flow edit: how much of the source stays under another song's words, and how much of it those words have alone."""
    starts, without, own = (0.0, 0.6), [], []
    with_it: dict[float, list[float]] = {start: [] for start in starts}
    for seed in player.seeds:
        piece, other = player.piece(seed), player.other(seed).song
        words = {"caption": other.caption, "lyrics": other.lyrics, "language": other.language}
        song = replace(piece.song, instrumental=other.instrumental, **words)
        source, mix = player.source(piece.mix), mono(piece.mix)
        for start in starts:
            batch = flow_edit.prepare(player.base, player.text, song, source, piece.song, start=start)
            with_it[start].append(measures.likeness(mono(player.play(player.base, batch, seed)), mix))
        without.append(measures.likeness(mono(player.song(song, seed, player.base)), mix))
        own.append(measures.likeness(mono(player.vae_trip(piece.mix)), mix))
    measure = "likeness to the source (log-mel)"
    return [
        Row(f"flow edit, start {start:g}", measure, mean(found), mean(without), mean(own), 0.0, len(own), "")
        for start, found in with_it.items()
    ]


def kept_outside(player: Player) -> list[Row]:
    """Repaint: the rest exact, the region new, and no seam between them."""
    first, last = 4.0, 8.0
    a, b = int(first * measures.RATE), int(last * measures.RATE)
    outside, inside, seams, own = [], [], [], []
    for seed in player.seeds:
        piece = player.piece(seed)
        source = player.source(piece.mix)
        batch = repaint.prepare(player.turbo, player.text, piece.song, source, first, last)
        made = sampler.sample(player.turbo, batch, seed=seed)
        wave = splice(codec.decode(player.vae, made.latents)[0], batch.items[0].splice).numpy()
        fade = batch.items[0].splice.fade
        rest = np.r_[0 : a - fade, b + fade : piece.mix.shape[1]]
        outside.append(np.array_equal(wave[:, rest], piece.mix[:, rest]))
        difference = wave[:, a:b] - piece.mix[:, a:b]
        inside.append(10 * np.log10((difference**2).mean() / ((piece.mix[:, a:b] ** 2).mean() + 1e-9) + 1e-9))
        seams.append(seam(wave, (a, b)))
        own.append(seam(piece.mix, (a, b)))
    return [
        Row("repaint", "the rest is the source, sample for sample", mean(outside), None, 1.0, None, len(outside)),
        Row("repaint", "difference inside against the source", mean(inside), None, None, None, len(inside), "dB"),
        Row("repaint", "change at the seams against the piece's median", mean(seams), None, mean(own), 1.0,
            len(seams), "×"),
    ]  # fmt: skip


def seam(wave: np.ndarray, places: Sequence[int]) -> float:
    """Spectral flux at ``places`` (samples) against the median of the piece."""
    changes = measures.flux(mono(wave))
    at = [changes[max(place // 960 - 2, 0) : place // 960 + 2].max() for place in places]
    highest = [changes[i : i + 4].max() for i in range(len(changes) - 4)]
    return float(np.mean(at) / np.median(highest))


def taken_out(player: Player) -> list[Row]:
    """Extract: how much of a stem comes out of a mix, against the mix itself and against what the autoencoder keeps."""
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for seed in player.seeds:
        piece = player.piece(seed)
        source = player.source(piece.mix)
        names = list(piece.stems)
        for track in names[seed % 2 :: 2]:
            wave = player.play(player.base, extract.prepare(player.base, player.text, source, track), seed)
            wrong = names[(names.index(track) + 1) % len(names)]
            other = player.play(player.base, extract.prepare(player.base, player.text, source, wrong), seed)
            stem = piece.stems[track]
            found.setdefault(track, []).append(
                tuple(measures.si_sdr(sound, stem) for sound in (wave, other, player.vae_trip(stem), piece.mix))
            )
    everything = [values for some in found.values() for values in some]
    rows = [
        Row("extract", f"SI-SDR, {name} of all tracks", *of(everything, 0), len(everything), "dB")
        for name, of in (("median", np.median), ("mean", np.mean))
    ]
    for track in TRACKS:
        if track in found:
            rows.append(Row("extract", f"SI-SDR, {track}", *np.mean(found[track], 0), len(found[track]), "dB"))
    return rows


def added(player: Player, listener: Listener) -> list[Row]:
    """Lego: whether the track that was asked for is what is heard."""
    one, wrong, own = [], [], []
    for seed in player.seeds:
        piece = player.piece(seed)
        names = list(piece.stems)
        track = names[seed % len(names)]
        rest = player.source(piece.mix - piece.stems[track])
        own.append(TRACKS[int(np.argmax(listener.hears(piece.stems[track])))] == track)
        for asked_for, found in ((track, one), (names[(seed + 1) % len(names)], wrong)):
            song = replace(piece.song, caption=piece.stem_captions[asked_for])
            batch = lego.prepare(player.base, player.text, song, rest, asked_for)
            wave = player.play(player.base, batch, seed)
            found.append(TRACKS[int(np.argmax(listener.hears(wave)))] == track)
    measure = "the asked track is what is heard"
    return [Row("lego", measure, mean(one), mean(wrong), mean(own), 1 / len(TRACKS), len(one))]


def arranged(player: Player, listener: Listener) -> list[Row]:
    """Complete: whether the tracks that were asked for are heard, and others are not."""
    asked_more, others_more, true, false = [], [], [], []
    for seed in player.seeds:
        piece = player.piece(seed)
        names = list(piece.stems)
        track = names[seed % len(names)]
        alone = player.source(piece.stems[track])
        asked, others = [name for name in names if name != track], [name for name in TRACKS if name not in names]
        wave = player.play(player.base, complete.prepare(player.base, player.text, piece.song, alone, asked), seed)
        made, own = listener.hears(wave), listener.hears(piece.mix)
        asked_more += [made[TRACKS.index(name)] > 0 for name in asked]
        others_more += [made[TRACKS.index(name)] > 0 for name in others]
        true += [own[TRACKS.index(name)] > 0 for name in names]
        false += [own[TRACKS.index(name)] > 0 for name in others]
    return [
        Row("complete", "a track that was asked for is heard", mean(asked_more), None, mean(true), None,
            len(asked_more)),
        Row("complete", "a track that was not asked for is heard", mean(others_more), None, mean(false), None,
            len(others_more)),
    ]  # fmt: skip


def tracks_heard(player: Player) -> list[Row]:
    """Lego and complete, by one listener."""
    listener = taught(LESSONS)
    return [*added(player, listener), *arranged(player, listener)]


def timed(player: Player) -> list[Row]:
    """Lyric timing of songs whose times the composer knows."""
    rows = []
    for name, model in (("turbo", player.turbo), ("base", player.base)):
        errors, spread = [], []
        for seed in player.seeds:
            piece = player.piece(seed)
            if not piece.lines:
                continue
            batch = text2music.prepare(model, player.text, replace(piece.song, duration=player.seconds))
            latents = player.source(piece.mix).latents[0]
            lyrics = heard_lyrics(batch.items[0].prompt, batch.tokenizer)
            frames = len(latents)
            with use(player.host):
                attention = lyric_attention(model, batch.items[0], latents, 0.125, lyrics, frames, player.host)
            found = [line for line in timing.timed(batch, attention, lyrics, player.seconds).lines if not line.tag]
            errors += [abs(a.start - b.start) for a, b in zip(found, piece.lines, strict=True)]
            even = np.linspace(0, player.seconds, len(piece.lines), endpoint=False)
            spread += [abs(a - b.start) for a, b in zip(even, piece.lines, strict=True)]
        task = f"lyric timing, {name}"
        rows.append(
            Row(task, "median error of a line's start", float(np.median(errors)), None, 0.0,
                float(np.median(spread)), len(errors), "s")
        )  # fmt: skip
        within = [mean(e < 0.3 for e in values) for values in (errors, spread)]
        rows.append(Row(task, "lines within 0.3 s", within[0], None, 1.0, within[1], len(errors)))
    return rows


def planned(player: Player) -> list[Row]:
    """The planner before the music: whether codes that it writes bring tempo and key, against the words alone, codes of
    what the composer played, and random ones."""
    tempo, key, parsed = [], [], []
    for seed in player.seeds:
        piece = player.piece(seed)
        free = make_song(piece.captions[0], piece.song.lyrics, piece.song.language, duration=player.seconds)
        parsed.append(think.think(player.lm, free, seeds=[seed], parts=think.Parts(codes=False)).song.complete)
        song = replace(piece.song, duration=player.seconds)
        own = code_tasks.encode_codes(player.turbo, player.source(piece.mix).latents)
        number = int(np.prod(player.turbo.config.fsq_input_levels))
        drawn = np.random.default_rng(seed).integers(0, number, len(own))
        written = think.think(player.lm, song, seeds=[seed]).codes
        kinds = (written, None, code_tasks.Codes((own,)), code_tasks.Codes((tuple(map(int, drawn)),)))
        waves = [player.song(song, seed, codes=codes) for codes in kinds]
        tempo.append([in_tempo(wave, song) for wave in waves])
        key.append([measures.key_score(measures.key(mono(wave)), key_of(song)) for wave in waves])
    count = len(parsed)
    return [
        Row("planner", "plans that parse", mean(parsed), None, 1.0, None, count),
        Row("music from its codes", "tempo within 2 %, metrical level open", *np.mean(tempo, 0), count),
        Row("music from its codes", "key, MIREX score", *np.mean(key, 0), count),
    ]


def understood(player: Player) -> list[Row]:
    """What the planner tells of codes, against what it is told of another song."""
    tempo, key = [], []
    for seed in player.seeds:
        song, other = player.piece(seed).song, player.other(seed).song
        heard = code_tasks.encode_codes(player.turbo, player.source(player.piece(seed).mix).latents)
        said = lm_songs.transcribe(player.lm, heard).song
        tempo.append([bool(s.bpm) and measures.same_pulse(s.bpm, song.bpm, 0.04) for s in (said, other)])
        key.append([measures.key_score(key_of(s), key_of(song)) if s.key else 0.0 for s in (said, other)])
    return [
        Row("understand", measure, mean(v[0] for v in values), None, 1.0, mean(v[1] for v in values), len(values))
        for measure, values in (("tempo within 4 %, metrical level open", tempo), ("key, MIREX score", key))
    ]


TRAINING = TrainSettings(
    rank=16,
    alpha=32.0,
    dropout=0.0,
    learning_rate=2e-3,
    warmup_steps=10,
    epochs=300,
    condition_dropout=0.0,
    gradient_checkpointing=False,
    save_every=1000,
    save_minutes=0.0,
)
"""One song, by heart."""


def learned(player: Player, count: int = 4) -> list[Row]:
    """A LoRA of one song: whether it is what is played afterwards."""
    with_it, without, own = [], [], []
    for seed in player.seeds[:count]:
        piece, model = player.piece(seed), player.base
        batch = text2music.prepare(model, player.text, piece.song)
        latents = player.source(piece.mix).latents[0]
        item = TrainItem(piece.song.caption, latents, batch.items[0].conditions.sequence[0].cpu())
        with tempfile.TemporaryDirectory() as folder, use(Host(models=player.models, output=folder, device="cpu")):
            adapter = train(model, [item], TRAINING, Path(folder) / "song").adapter
        tuned = with_adapter(model, adapter, 1.0)
        for heard, lists in ((tuned, with_it), (model, without)):
            lists.append(measures.likeness(mono(player.play(heard, batch, seed)), mono(piece.mix)))
        own.append(measures.likeness(mono(player.vae_trip(piece.mix)), mono(piece.mix)))
    measure = "likeness to the one song it was trained on (log-mel)"
    return [Row("LoRA", measure, mean(with_it), mean(without), mean(own), 0.0, len(own), "")]


PARTS: dict[str, Callable[[Player], list[Row]]] = {
    "text2music": followed,
    "cover": followed_source,
    "edit": edited,
    "repaint": kept_outside,
    "extract": taken_out,
    "tracks": tracks_heard,
    "timing": timed,
    "planner": planned,
    "understand": understood,
    "lora": learned,
}


def evaluate(player: Player, parts: Iterable[str] = tuple(PARTS)) -> list[Row]:
    """Rows of the table, in order."""
    rows = []
    for part in parts:
        began = time.perf_counter()
        rows += PARTS[part](player)
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and keep it beside the numbers."""
    parser = argparse.ArgumentParser(prog="python -m nano.evaluate", description="Measure the nano checkpoint.")
    parser.add_argument("--models", type=Path, default=Path(__file__).parent.parent / "models" / "nano")
    parser.add_argument("--pieces", type=int, default=40, help="songs that are asked for (default 40)")
    parser.add_argument("--only", nargs="*", choices=tuple(PARTS), default=tuple(PARTS), help="parts of the table")
    parser.add_argument("--out", type=Path, help="folder for table.md and rows.json")
    given = parser.parse_args(arguments)
    if given.pieces < 2:
        parser.error("--pieces must be 2 or more: each song is compared with another one.")
    rows = evaluate(Player(given.models, given.pieces), given.only)
    print(table(rows))
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "table.md").write_text(table(rows) + "\n", encoding="utf-8")
        (given.out / "rows.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
