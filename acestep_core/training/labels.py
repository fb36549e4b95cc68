"""What the planner hears in recordings: captions, tempo, key, time signature, language, lyrics.

>>> done = auto_label(songs, model, vae, lm, kept="my songs/dataset.labels.jsonl")
>>> save(done.dataset, "my songs/dataset.json")

Two passes: first every recording becomes codes, then the planner describes them, so that the models change places
on a small card once. Everything made is kept at once in ``kept``; asked again, only the rest is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..audio import for_model, read
from ..checkpoints.fingerprint import described, fingerprint
from ..checkpoints.handles import Autoencoder, DiffusionModel, LanguageModel
from ..host import Host, current
from ..lm import parsing, songs
from ..lm.settings import PlannerSettings
from ..song import DURATION_RANGE, UNKNOWN_LANGUAGE, Song, make_song
from ..tasks.codes import encode_codes, require_tokenizer
from ..tasks.source import encode_source, source_latents
from .dataset import Dataset, DatasetError, Sample

LONGEST = DURATION_RANGE[1]
"""Seconds of a recording that the planner hears at most."""
TEMPERATURES = {"heard": 0.7, "formatted": 0.85}
METAS = ("bpm", "key", "time_signature")


@dataclass(frozen=True)
class LabelSettings:
    """What is asked of the planner, and what of its answer is taken.

    Attributes:
        only_unlabelled: pass over samples that are labelled and have a caption.
        skip_metas: leave tempo, key and time signature as they are. A sample with a caption is then ready as it is.
        format_lyrics: where there are lyrics, have them formatted and described, instead of the recording.
        transcribe_lyrics: take the planner's lyrics also where there are some. It hears many words wrong.
        overwrite: let the answer replace what is known; otherwise it only fills what is open.
        seed: of the planner's choices.
        planner: how it chooses; None is as the original does for each of its two tasks.
        budget: tokens of an answer at most.
    """

    only_unlabelled: bool = True
    skip_metas: bool = False
    format_lyrics: bool = False
    transcribe_lyrics: bool = False
    overwrite: bool = False
    seed: int = 42
    planner: PlannerSettings | None = None
    budget: int = songs.TEXT_BUDGET


@dataclass(frozen=True)
class Label:
    """An answer of the planner."""

    song: Song
    genre: str = ""


@dataclass(frozen=True)
class Labelled:
    """The data set after labelling.

    Attributes:
        made: names of samples the planner was asked about; kept: of those whose answer was there from an earlier run;
            passed: of those that needed none. failed: (name, reason).
    """

    dataset: Dataset
    made: tuple[str, ...]
    kept: tuple[str, ...]
    passed: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]

    def report(self) -> str:
        counts = f"{len(self.made)} labelled, {len(self.kept)} from an earlier run, {len(self.passed)} needed nothing"
        lines = [f"{counts}, {len(self.failed)} failed."]
        return "\n".join(lines + [f"Not labelled: {name}: {reason}" for name, reason in self.failed])


def auto_label(
    dataset: Dataset,
    model: DiffusionModel,
    vae: Autoencoder,
    lm: LanguageModel,
    settings: LabelSettings | None = None,
    *,
    kept: str | os.PathLike | None = None,
    on_label: Callable[[int, Sample], None] | None = None,
    host: Host | None = None,
) -> Labelled:
    """Let the planner label the samples. One that fails is named and the rest goes on.

    Args:
        kept: file that keeps codes and answers, a line each; created with its folder, and only ever added to.
        on_label: called with the index and the new sample as soon as it is made.

    Raises:
        ValueError: the model came without its audio tokenizer.
        DatasetError: there was something to label, and not one could be; it tells the reasons.
        Cancelled: between two samples; ``kept`` has everything made so far.
    """
    require_tokenizer(model)
    host, settings = host or current(), settings or LabelSettings()
    memory = Memory(kept)
    heard_by = [_weights(model.report), _weights(vae.report)]
    asked_with = [_weights(lm.report), settings.seed, settings.budget]
    todo = [index for index, sample in enumerate(dataset.samples) if _wanted(sample, settings)]
    passed = tuple(sample.name for index, sample in enumerate(dataset.samples) if index not in set(todo))
    if not todo:
        return Labelled(dataset, (), (), passed, ())
    failed: dict[int, str] = {}
    keys: dict[int, str] = {}
    codes: dict[int, tuple[int, ...]] = {}

    bar = host.progress(len(todo), "listening", "song")
    for done, index in enumerate(todo, start=1):
        sample = dataset.samples[index]
        with _named(failed, index, sample, host):
            if _as_it_is(sample, settings):
                pass
            elif _formats(sample, settings):
                keys[index] = _digest(["formatted", _draft(sample, settings).digest, *asked_with, _how(settings, True)])
            else:
                heard = _digest(["heard", fingerprint(sample.path), *heard_by])
                keys[index] = _digest(["answer", heard, *asked_with, _how(settings, False)])
                if memory.answer(keys[index]) is None:
                    codes[index] = memory.codes(heard) or memory.keep_codes(heard, _listen(sample, model, vae, host))
        bar.update(done)

    made, old = [], []
    left = [index for index in todo if index not in failed]
    bar = host.progress(len(left), "labelling", "song")
    for done, index in enumerate(left, start=1):
        sample = dataset.samples[index]
        with _named(failed, index, sample, host):
            if index not in keys:
                dataset = dataset.with_sample(index, replace(sample, labelled=True))
                old.append(sample.name)
            else:
                label, before = memory.answer(keys[index]), True
                if label is None:
                    label, before = _ask(sample, codes.get(index), lm, settings, host), False
                    memory.keep_answer(keys[index], label)
                dataset = dataset.with_sample(index, merged(sample, label, settings))
                (old if before else made).append(sample.name)
        if on_label is not None and index not in failed:
            on_label(index, dataset.samples[index])
        bar.update(done)

    reasons = tuple((dataset.samples[index].name, failed[index]) for index in sorted(failed))
    if not made and not old:
        lines = "".join(f"\n{name}: {reason}" for name, reason in reasons)
        raise DatasetError(f"None of the {len(todo)} samples could be labelled:{lines}")
    return Labelled(dataset, tuple(made), tuple(old), passed, reasons)


def merged(sample: Sample, label: Label, settings: LabelSettings | None = None) -> Sample:
    """``sample`` with what ``label`` adds to it.

    What is known stays, unless ``overwrite``. Lyrics found beside a recording stay what is sung, unless they were to
    be formatted or transcribed; an instrumental stays one.
    """
    settings = settings or LabelSettings()
    song = label.song

    def chosen(known: Any, answer: Any, nothing: Any = "") -> Any:
        return answer if answer != nothing and (settings.overwrite or known == nothing) else known

    changes: dict[str, Any] = {
        "caption": chosen(sample.caption, song.caption),
        "genre": chosen(sample.genre, label.genre),
        "labelled": True,
    }
    if not settings.skip_metas:
        changes["bpm"] = chosen(sample.bpm, song.bpm, None)
        changes |= {name: chosen(getattr(sample, name), getattr(song, name)) for name in ("key", "time_signature")}
    if sample.instrumental:
        return replace(sample, **changes)
    changes["language"] = chosen(sample.language, song.language, UNKNOWN_LANGUAGE)
    if _formats(sample, settings):
        changes |= {"lyrics": song.lyrics, "formatted_lyrics": song.lyrics}
    elif song.lyrics.strip() and not song.instrumental:
        if settings.transcribe_lyrics or not sample.lyrics.strip():
            changes["lyrics"] = song.lyrics
    elif not sample.lyrics.strip():
        changes["instrumental"] = True
    return replace(sample, **changes)


def _wanted(sample: Sample, settings: LabelSettings) -> bool:
    return not (settings.only_unlabelled and sample.labelled and sample.caption.strip())


def _as_it_is(sample: Sample, settings: LabelSettings) -> bool:
    return settings.skip_metas and bool(sample.caption.strip()) and not settings.overwrite


def _formats(sample: Sample, settings: LabelSettings) -> bool:
    return settings.format_lyrics and not sample.instrumental and bool(sample.raw_lyrics.strip())


def _draft(sample: Sample, settings: LabelSettings) -> Song:
    """What is given to be formatted: the lyrics, and metas that are not to be replaced."""
    if settings.overwrite:
        return make_song(lyrics=sample.raw_lyrics)
    metas = {name: getattr(sample, name) for name in METAS}
    return make_song(lyrics=sample.raw_lyrics, language=sample.language, **metas)


def _how(settings: LabelSettings, formats: bool) -> dict[str, Any]:
    return asdict(_planner(settings, formats))


def _planner(settings: LabelSettings, formats: bool) -> PlannerSettings:
    return settings.planner or PlannerSettings(temperature=TEMPERATURES["formatted" if formats else "heard"])


def _listen(sample: Sample, model: DiffusionModel, vae: Autoencoder, host: Host) -> tuple[int, ...]:
    waveform, rate = read(sample.path, seconds=LONGEST)
    audio = for_model({"waveform": waveform[None], "sample_rate": rate})[0]
    return encode_codes(model, source_latents(model, encode_source(vae, audio, host=host)), host)


def _ask(
    sample: Sample, codes: tuple[int, ...] | None, lm: LanguageModel, settings: LabelSettings, host: Host
) -> Label:
    formats = codes is None
    how = {"seed": settings.seed, "settings": _planner(settings, formats), "budget": settings.budget, "host": host}
    made = songs.rewrite(lm, _draft(sample, settings), **how) if formats else songs.transcribe(lm, codes, **how)
    if not made.song.caption.strip():
        raise ValueError("The planner wrote no caption. Another seed may give one.")
    genre = parsing.read(made.reply.text).metas.get("genres", "")
    return Label(made.song, genre if isinstance(genre, str) else "")


@contextlib.contextmanager
def _named(failed: dict[int, str], index: int, sample: Sample, host: Host):
    """Keeps the reason why a sample failed, and goes on."""
    try:
        yield
    except (ValueError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"{sample.path} cannot be opened ({error.strerror})."
        failed[index] = reason
        host.say(f"{sample.name} is not labelled: {reason}")


# -- what is kept between runs


class Memory:
    """Codes and answers under the digest of everything they follow from: a line of JSON each.

    Lines that cannot be read, such as one that was being written when the machine went off, count as not there.
    """

    def __init__(self, path: str | os.PathLike | None):
        self.path = None if path is None else Path(path)
        self.lines: dict[str, Mapping[str, Any]] = {}
        self.torn = False
        if self.path is None or not self.path.is_file():
            return
        raw = self.path.read_bytes()
        self.torn = bool(raw) and not raw.endswith(b"\n")
        for line in raw.split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                    self.lines[entry["key"]] = entry

    def answer(self, key: str) -> Label | None:
        entry = self.lines.get(key, {})
        fields, genre = entry.get("song"), entry.get("genre")
        if not isinstance(fields, dict) or not isinstance(genre, str):
            return None
        try:
            return Label(make_song(**fields), genre)
        except (TypeError, ValueError):
            return None

    def codes(self, key: str) -> tuple[int, ...] | None:
        found = self.lines.get(key, {}).get("codes")
        if not isinstance(found, list) or not all(type(code) is int and code >= 0 for code in found):
            return None
        return tuple(found)

    def keep_answer(self, key: str, label: Label) -> None:
        self._add(key, {"song": asdict(label.song), "genre": label.genre})

    def keep_codes(self, key: str, codes: tuple[int, ...]) -> tuple[int, ...]:
        self._add(key, {"codes": list(codes)})
        return codes

    def _add(self, key: str, values: Mapping[str, Any]) -> None:
        entry = {"key": key, **values}
        self.lines[key] = entry
        if self.path is None:
            return
        text = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(b"\n" + text if self.torn else text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RuntimeError(f"{self.path} cannot be written ({error.strerror}); no label can be kept.") from error
        self.torn = False


def _weights(report: Any) -> list[Any]:
    return [report.dtype, *(described(report.component, file) for file in report.files)]


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode("utf-8", "replace")).hexdigest()
