"""The settings file beside each saved sound: one flat JSON object, with the original's field names where it has them.

Written whole, read with suspicion: a file may come from a stranger, from another program, or from years ago.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import result as results
from .lyrics.timing import Timing
from .result import Result, Score

FORMAT = 1
MARK = "acestep_graph"
LARGEST_BYTES = 16_000_000
VOLATILE = ("time_costs", "lines", "lrc", "vtt", "peaks")
PER_BATCH = ("audio_codes", "seeds", "batch_seeds", "time_costs", "models", "model_files")


class SidecarError(ValueError):
    """A file that is no settings file of a result, in the user's words."""


def item_record(result: Result, index: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about one item of a result as plain values; ``more`` is what was done to its sound."""
    batch = result.record
    codes = results.codes_of(result)
    own = type(codes)((codes.for_item(index),)).text() if codes else ""
    score = result.scores[index] if result.scores else None
    timing = result.timings[index] if result.timings else None
    settings = {name: value for name, value in batch.items() if name not in PER_BATCH}
    settings |= {"seed": result.made.seeds[index], "audio_codes": own, "thinking": bool(own), **more}
    return {
        MARK: FORMAT,
        **settings,
        "key": key_of(settings),
        "seeds": batch.get("batch_seeds", list(result.made.seeds)),
        "item": index,
        "model_files": batch["model_files"],
        "models": [*batch["models"], *more.get("models", ())],
        "scores": score_values(score),
        "score_report": score.report() if score else "",
        **timing_values(timing),
        "time_costs": batch["time_costs"],
    }


def key_of(settings: Mapping[str, Any]) -> str:
    """A name that the same settings always have: SHA-256 of them as JSON, shown as 8-4-4-4-12 digits."""
    text = json.dumps({k: v for k, v in settings.items() if k != "notes"}, sort_keys=True, ensure_ascii=False)
    digits = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))


def score_values(score: Score | None) -> dict[str, float | None]:
    """The three scores of a piece, None for each that there is not."""
    names = {"total": "both", "planner": "planner", "lyrics": "lyrics"}
    return {name: None if score is None else _rounded(score.by(by)) for name, by in names.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def timing_values(timing: Timing | None) -> dict[str, Any]:
    """LRC, VTT and lines of a piece; empty where there are none."""
    if timing is None:
        return {"lrc": "", "vtt": "", "lines": []}
    lines = [
        {
            "text": line.text,
            "start": line.start,
            "end": line.end,
            "tag": line.tag,
            "confidence": round(line.confidence, 4),
            "words": [{"text": word.text, "start": word.start, "end": word.end} for word in line.words],
        }
        for line in timing.lines
    ]
    return {"lrc": timing.lrc, "vtt": timing.vtt, "lines": lines}


def tag_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into the sound file itself: the record less what differs from run to run, and what is long."""
    return {name: value for name, value in record.items() if name not in VOLATILE}


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a settings file, complete or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        text = json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False)
        part.write_bytes(text.encode("utf-8", "replace"))  # half an emoji is no reason to lose the settings
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """The fields of a settings file.

    Raises:
        SidecarError: it is too large, no JSON object, or about something else than music.
    """
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        limit = LARGEST_BYTES // 1_000_000
        raise SidecarError(f"{path.name} has {size // 1_000_000} MB; a settings file has at most {limit} MB.")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SidecarError(f"{path.name} cannot be read as text ({error}).") from error
    return parse(text, path.name)


def parse(text: str, name: str = "this text") -> dict[str, Any]:
    """The fields of a settings file's text. Raises as :func:`read`."""
    try:
        found = json.loads(text, parse_float=_finite, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"{name} is not valid JSON ({error}).") from error
    if not isinstance(found, dict) or not ({MARK, "caption", "lyrics"} & set(found)):
        raise SidecarError(f"{name} holds no settings of a song; save one with Save Result.")
    return found


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


# -- single fields, whatever stands there


def text_of(record: Mapping[str, Any], name: str, limit: int = 1_000_000) -> str:
    """A text, "" where there is none."""
    value = record.get(name)
    return value[:limit] if isinstance(value, str) else ""


def number_of(record: Mapping[str, Any], name: str) -> float | None:
    """A finite number, also one written as text; None where there is none."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def whole_of(record: Mapping[str, Any], name: str) -> int | None:
    """A whole number; None where there is none."""
    value = record.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = number_of(record, name)
    return None if number is None else int(number)


def flag_of(record: Mapping[str, Any], name: str) -> bool | None:
    value = record.get(name)
    return value if isinstance(value, bool) else None


def list_of(record: Mapping[str, Any], name: str, limit: int = 10_000) -> Sequence[Any]:
    """A list, cut to ``limit`` entries; empty where there is none."""
    value = record.get(name)
    return value[:limit] if isinstance(value, list) else ()


def mapping_of(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def seed_of(record: Mapping[str, Any]) -> int | None:
    """The seed of this piece: a number, or the first of a comma list; None where it was left to chance."""
    first = text_of(record, "seed").split(",")[0].strip()
    number = whole_of({"seed": first} if first else record, "seed")
    return number if number is not None and number >= 0 else None
