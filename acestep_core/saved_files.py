"""Which saved files are results: their names, and where they lie. Opens none of them and imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .host import Host, find_inside

SOUNDS = (".flac", ".mp3", ".wav", ".opus", ".ogg", ".m4a", ".aac")
SETTINGS_SUFFIX = ".json"
LATENTS_SUFFIX = ".latents.safetensors"
INPUT = " [input]"
"""Behind the names of files in the input folder."""
MOST_NAMES = 2000


def sound_of(path: Path) -> Path | None:
    """The sound that a settings file describes: the file of the same name beside it."""
    found = [path.with_suffix(spelling) for ending in SOUNDS for spelling in (ending, ending.upper())]
    return next((sound for sound in found if sound.is_file()), None)


def walk(root: Path) -> Iterator[tuple[float, str]]:
    """(time of change, relative name) of every settings file with a sound, and every sound without one."""
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".")]
        parts = [os.path.splitext(name) for name in files]
        here = {(stem, ending.lower()) for stem, ending in parts}
        for name, (stem, ending) in zip(files, parts, strict=True):
            ending = ending.lower()
            settings = ending == SETTINGS_SUFFIX and any((stem, other) in here for other in SOUNDS)
            if settings or (ending in SOUNDS and (stem, SETTINGS_SUFFIX) not in here):
                path = Path(folder, name)
                try:
                    yield path.stat().st_mtime, path.relative_to(root).as_posix()
                except OSError:
                    continue


def names(host: Host) -> list[str]:
    """What Load Result offers: newest first, those of the input folder behind, marked ``[input]``."""
    made = [name for _, name in sorted(walk(host.output), reverse=True)]
    given = [name + INPUT for _, name in sorted(walk(host.input), reverse=True)]
    return (made + given)[:MOST_NAMES]


def find(host: Host, name: str) -> Path | None:
    """The file ``name`` of :func:`names`; None where there is none or ``name`` leads outside the folders."""
    ending = os.path.splitext(name.removesuffix(INPUT))[1].lower()
    if ending not in (*SOUNDS, SETTINGS_SUFFIX) or "\0" in name:
        return None
    root = host.input if name.endswith(INPUT) else host.output
    return find_inside([root], name.removesuffix(INPUT))


def fingerprint(host: Host, name: str) -> str:
    """Changes when the file or the sound beside it does."""
    path = find(host, name)
    parts = [] if path is None else [path, sound_of(path), path.with_name(path.stem + LATENTS_SUFFIX)]
    return " ".join(str(part.stat().st_mtime_ns) for part in parts if part is not None and part.is_file())
