"""What has been saved: results found in the output folder, and single ones opened again.

Nothing here trusts a file: names stay inside the folders of the host, wrong types become nothing, and what is no
result is left out with a reason.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import audio as sound
from . import sidecar
from .host import Host
from .keeping import load_latents
from .restoring import Restored, restore
from .result import EXTRA, Trim
from .saved_files import INPUT, LATENTS_SUFFIX, SETTINGS_SUFFIX, find, sound_of, walk
from .sidecar import SidecarError
from .song import Song
from .tasks.codes import Codes

MOST_LINES, MOST_WORDS, LONGEST_TEXT = 2000, 200, 400


@dataclass(frozen=True)
class Kept:
    """A saved result, opened again.

    Attributes:
        record: its fields as they stand in the file. restored: what they mean. sound: the file of its sound.
    """

    record: Mapping[str, Any]
    restored: Restored
    sound: Path | None

    @property
    def song(self) -> Song:
        return self.restored.song

    @property
    def codes(self) -> Codes:
        return self.restored.codes

    @property
    def seed(self) -> int | None:
        return self.restored.seed

    def sampler(self) -> tuple[Any, dict[str, Any], int, float, float]:
        """Sampler settings, guidance settings, steps, guidance scale, shift."""
        used = self.restored.sampler
        return used, dict(self.restored.guidance), used.steps, used.guidance_scale, used.shift

    def audio(self) -> dict[str, Any] | None:
        """ComfyUI's AUDIO; None where there is no sound beside the settings."""
        if self.sound is None:
            return None
        waveform, rate = sound.read(self.sound)
        return {"waveform": waveform[None], "sample_rate": rate, EXTRA: {"seed": self.seed}}

    def latent(self) -> dict[str, Any] | None:
        """ComfyUI's LATENT; None where the latents were not kept."""
        path = None if self.sound is None else self.sound.with_name(self.sound.stem + LATENTS_SUFFIX)
        if path is None or not path.is_file():
            return None
        latent = load_latents(path)
        frames = latent["samples"].shape[-1]
        return {**latent, EXTRA: (Trim(frames, frames, seed=self.seed),)}

    def text(self) -> str:
        """Everything that is known, to read."""
        return self.restored.text()


def load(host: Host, name: str) -> Kept:
    """Open a saved result.

    Raises:
        FileNotFoundError: there is none of this name inside the folders. SidecarError: its settings cannot be read.
    """
    path = find(host, name)
    if path is None:
        raise FileNotFoundError(f"There is no result {name!r} in {host.output} or {host.input}.")
    record, place = record_at(path)
    kept = Kept(record, restore(record), place)
    for note in kept.restored.notes:
        host.say(note)
    if place is None:
        host.say(f"There is no sound beside {path.name}, so only its settings were loaded.")
    return kept


def record_at(path: Path) -> tuple[dict[str, Any], Path | None]:
    """Fields and sound of a settings file or of a sound, whose own tag is read where no file lies beside it."""
    if path.suffix.lower() == SETTINGS_SUFFIX:
        return sidecar.read(path), sound_of(path)
    beside = path.with_suffix(SETTINGS_SUFFIX)
    if beside.is_file():
        return sidecar.read(beside), path
    tag = sound.read_tags(path).get("acestep")
    return (sidecar.parse(tag, f"The tag in {path.name}") if tag else {"caption": "", "lyrics": ""}), path


# -- for the results panel


@dataclass(frozen=True)
class Batch:
    """Results that were made together: id, time in Unix seconds, and a card for each."""

    id: str
    time: float
    cards: tuple[dict[str, Any], ...]

    def values(self) -> dict[str, Any]:
        title = next((card["title"] for card in self.cards if card["title"]), "")
        return {"id": self.id, "time": self.time, "title": title, "items": list(self.cards)}


def batches(host: Host, limit: int = 30, before: str = "") -> dict[str, Any]:
    """The newest ``limit`` batches of the output folder behind batch ``before``: batches, more, skipped."""
    root, found, skipped = host.output, {}, []
    waiting, more = bool(before), False
    files = [(when, name) for when, name in walk(root) if name.lower().endswith(SETTINGS_SUFFIX)]
    for when, name in sorted(files, reverse=True):
        path = root / name
        try:
            record = _read_again(str(path), path.stat().st_mtime_ns)
        except (SidecarError, OSError) as error:
            if not waiting:
                skipped.append({"file": name, "reason": str(error)})
            continue
        batch = sidecar.text_of(record, "batch", 80) or name
        if waiting:
            waiting = batch != before
            continue
        if batch == before:
            continue
        if batch not in found and len(found) == limit:
            more = True
            break
        try:
            card = card_of(host, path, record)
        except (ValueError, ArithmeticError) as error:
            skipped.append({"file": name, "reason": str(error)})
            continue
        entry = found.setdefault(batch, (when, []))
        entry[1].append({**card, "lines": [], "timed": bool(card["lines"])})
    ordered = [
        Batch(batch, when, tuple(sorted(cards, key=lambda card: (card["item"], card["sidecar"]))))
        for batch, (when, cards) in found.items()
    ]
    return {"batches": [batch.values() for batch in ordered], "more": more, "skipped": skipped[:50]}


@functools.lru_cache(maxsize=512)
def _read_again(path: str, _changed: int) -> dict[str, Any]:
    """The fields of a settings file that the panel needs, remembered while the file stays as it is."""
    record = sidecar.read(Path(path))
    return {name: value for name, value in record.items() if name not in ("prompt", "workflow", "audio_codes")}


def card_of(host: Host, path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """A card from the fields of a settings file, every value of the type it must have."""
    place = sound_of(path)
    peaks = [value for value in sidecar.list_of(record, "peaks", 400) if isinstance(value, (int, float))]
    scores = sidecar.mapping_of(record, "scores")
    return {
        "file": None if place is None else file_of(host, place),
        "sidecar": path.relative_to(host.output).as_posix(),
        "title": (sidecar.text_of(record, "caption").split("\n") or [""])[0][:80],
        "seconds": sidecar.number_of(record, "seconds") or sidecar.number_of(record, "duration") or 0.0,
        "peaks": [round(max(0.0, min(100.0, value))) for value in peaks],
        "seed": sidecar.seed_of(record),
        "scores": {name: sidecar.number_of(scores, name) for name in ("total", "planner", "lyrics")},
        "lines": lines_of(record),
        "batch": sidecar.text_of(record, "batch", 80),
        "item": sidecar.whole_of(record, "item") or 0,
    }


def file_of(host: Host, path: Path) -> dict[str, str]:
    """ComfyUI's description of a file of the output folder."""
    folder = path.parent.relative_to(host.output).as_posix()
    return {"filename": path.name, "subfolder": "" if folder == "." else folder, "type": "output"}


def lines_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Timed lines whose times are numbers that do not fall."""
    found, latest = [], 0.0
    for entry in sidecar.list_of(record, "lines", MOST_LINES):
        line = _span(entry, latest)
        if line is None:
            continue
        latest = line["start"]
        words, spoken = [], line["start"]
        for entry_word in sidecar.list_of(entry, "words", MOST_WORDS):
            word = _span(entry_word, spoken)
            if word is not None:
                words.append(word)
                spoken = word["start"]
        found.append({**line, "tag": entry.get("tag") is True, "words": words})
    return found


def _span(entry: Any, earliest: float) -> dict[str, Any] | None:
    if not isinstance(entry, dict):
        return None
    start, end = sidecar.number_of(entry, "start"), sidecar.number_of(entry, "end")
    text = sidecar.text_of(entry, "text", LONGEST_TEXT)
    if start is None or not text:
        return None
    start = max(earliest, start)
    return {"text": text, "start": start, "end": max(start, end if end is not None else start)}


LABELS = {"settings": SETTINGS_SUFFIX, "latents": LATENTS_SUFFIX, "lrc": ".lrc", "vtt": ".vtt"}


def detail(host: Host, name: str) -> dict[str, Any]:
    """Everything about one saved result, for the panel. Raises as :func:`load`."""
    path = find(host, name)
    if path is None or path.suffix.lower() != SETTINGS_SUFFIX or name.endswith(INPUT):
        raise FileNotFoundError(f"There is no settings file {name!r} in the output folder.")
    record = sidecar.read(path)
    card, restored = card_of(host, path, record), restore(record)
    files = [] if card["file"] is None else [{**card["file"], "label": "audio"}]
    for label, ending in LABELS.items():
        beside = path.with_name(path.stem + ending)
        if beside.is_file():
            files.append({**file_of(host, beside), "label": label})
    times = sidecar.mapping_of(record, "time_costs")
    models = [entry for entry in sidecar.list_of(record, "models", 20) if isinstance(entry, dict)]
    return {
        "card": card,
        "summary": restored.text(),
        "codes": sidecar.text_of(record, "audio_codes"),
        "lrc": sidecar.text_of(record, "lrc", 200_000),
        "vtt": sidecar.text_of(record, "vtt", 200_000),
        "score_report": sidecar.text_of(record, "score_report", 20_000),
        "times": {k: v for k in list(times)[:40] if (v := sidecar.number_of(times, k)) is not None},
        "models": [
            {
                "name": sidecar.text_of(entry, "name", 200),
                "bytes": sidecar.whole_of(entry, "bytes"),
                "fingerprint": sidecar.text_of(entry, "fingerprint", 80),
            }
            for entry in models
        ],
        "notes": [str(note)[:1000] for note in sidecar.list_of(record, "notes", 50) if isinstance(note, str)],
        "files": files,
        "has_workflow": bool(sidecar.mapping_of(record, "workflow")),
        "restored": restored,
    }


def workflow_of(host: Host, name: str) -> dict[str, Any]:
    """The canvas form of the workflow that a result was made with. Raises as :func:`load`."""
    path = find(host, name)
    workflow = {} if path is None or name.endswith(INPUT) else sidecar.mapping_of(record_at(path)[0], "workflow")
    if not workflow:
        raise FileNotFoundError(f"{name!r} keeps no workflow.")
    return dict(workflow)
