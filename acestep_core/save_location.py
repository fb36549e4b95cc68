"""Saved files: prefixes with the time in them, numbers that count on, never outside a folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .host import Host

LONGEST_NAME = 255 - len("_00001_.latents.safetensors.part")
"""Bytes of a name: file systems take 255 with all that comes behind it."""


class SaveLocation(NamedTuple):
    """Where the next file of a prefix goes: ``folder / f"{name}_{counter:05}_.flac"``."""

    folder: Path
    name: str
    counter: int
    subfolder: str


def save_location(root: str | os.PathLike, prefix: str) -> SaveLocation:
    """Resolve a ``filename_prefix`` such as ``audio/%year%/song`` as ComfyUI does, and count on.

    ``%year% %month% %day% %hour% %minute% %second%`` and ``%date:yyyy-MM-dd_hhmmss%`` become the present
    time; ``%batch_num%`` is left for the caller to replace. The folder is created. The counter is one above
    the highest of any file ``name_<digits>_…``, whatever its suffix.

    Raises:
        ValueError: the prefix leads outside ``root`` or names no file.
    """
    root = Path(os.path.abspath(root))
    name, folder = _place(root, prefix)
    folder.mkdir(parents=True, exist_ok=True)
    pattern = re.escape(os.path.normcase(name)).replace("%batch_num%", r"\d+")
    numbered = re.compile(pattern + r"_(\d+)(?:_|\.|$)")
    taken = [int(hit[1]) for entry in os.listdir(folder) if (hit := numbered.match(os.path.normcase(entry)))]
    subfolder = folder.relative_to(root).as_posix()
    return SaveLocation(folder, name, max(taken, default=0) + 1, "" if subfolder == "." else subfolder)


def check_prefix(root: str | os.PathLike, prefix: str) -> None:
    """Raise what :func:`save_location` would, and where the folder cannot be written, before anything is made.

    Raises:
        ValueError: as above. OSError: nothing can be written there.
    """
    _, folder = _place(Path(os.path.abspath(root)), prefix)
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise OSError(f"Nothing can be written into {place}; choose another output folder, or allow writing there.")


def _place(root: Path, prefix: str) -> tuple[str, Path]:
    """Name and folder of a prefix."""
    given, prefix = prefix, os.path.normpath(_with_time(str(prefix)).replace("\\", "/"))
    name, folder = os.path.basename(prefix), Path(os.path.abspath(root / os.path.dirname(prefix)))
    if not folder.is_relative_to(root):
        raise ValueError(f"The prefix {given!r} leads outside the output folder {root}; use a name inside it.")
    if name in ("", ".", "..") or "\0" in prefix:
        raise ValueError(f"The prefix {given!r} names no file; write something like 'audio/song'.")
    if os.name == "nt" and (bad := re.search(r'[:*?"<>|]', os.path.relpath(folder / name, root))):
        raise ValueError(f"The prefix {given!r} has a {bad[0]} in it, which Windows allows in no name.")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise ValueError(
            f"The name in the prefix {given[:40]!r}… is too long; at most {LONGEST_NAME} bytes can be saved."
        )
    return name, folder


def _with_time(prefix: str) -> str:
    now = time.localtime()
    parts = {"year": now.tm_year, "month": now.tm_mon, "day": now.tm_mday}
    parts.update(hour=now.tm_hour, minute=now.tm_min, second=now.tm_sec)
    for name, value in parts.items():
        prefix = prefix.replace(f"%{name}%", f"{value:02}")
    letters = {"y": now.tm_year, "M": now.tm_mon, "d": now.tm_mday, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}

    def token(hit: re.Match) -> str:
        return f"{letters[hit[0][0]]:0{min(len(hit[0]), 2)}}"[-2 if hit[0] == "yy" else 0 :]

    return re.sub(r"%date:([^%]*)%", lambda hit: re.sub(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?", token, hit[1]), prefix)


def save_sounds(
    host: Host,
    kind: str,
    prefix: str,
    audio: Mapping[str, Any],
    suffix: str,
    quality: str | None = None,
    sample_format: str = "s16",
    *,
    tags: Mapping[str, str] | None = None,
    first: int = 0,
) -> list[dict[str, str]]:
    """Write every item of ComfyUI's AUDIO to a file of its own and say what had to be changed.

    Args:
        kind: ``output`` or ``temp``, the folder of the host.
        suffix, quality, sample_format, tags: as in :func:`audio.write`.
        first: number of the first item, for ``%batch_num%``.

    Returns:
        ComfyUI's description of the files: filename, subfolder, type.
    """
    from . import audio as sound

    location = save_location(host.output if kind == "output" else host.temp, prefix)
    if audio["waveform"].shape[1] > 2:
        host.say(f"The audio has {audio['waveform'].shape[1]} channels; the first two were saved.")
    saved = []
    for item, waveform in enumerate(audio["waveform"]):
        name = location.name.replace("%batch_num%", str(first + item))
        file = f"{name}_{location.counter + item:05}_.{suffix}"
        written = {"quality": quality, "sample_format": sample_format, "tags": tags}
        rate = sound.write(location.folder / file, waveform[:2], audio["sample_rate"], **written)
        if suffix == "mp3" and rate != audio["sample_rate"]:
            host.say(f"MP3 knows no rate of {audio['sample_rate']} Hz; {file} has {rate} Hz.")
        saved.append({"filename": file, "subfolder": location.subfolder, "type": kind})
    return saved
