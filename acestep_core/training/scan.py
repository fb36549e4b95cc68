"""A folder of songs as a data set. Every file is used, belongs to one that is, or is named with the reason.

>>> found = scan("my songs", tag="hrbrtape")
>>> print(found.report())
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..audio import AudioError
from ..host import Host, current
from .dataset import Dataset, DatasetError, Found, Sample, configured, make_sample, unique_names
from .measure import measure
from .sidecars import ENDINGS, beside, plain, read_table

SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac")
OTHER_SOUNDS = (".wma", ".aif", ".aiff", ".ape", ".alac", ".mka", ".webm", ".mp4", ".wv", ".mid", ".midi", ".oga")
"""Names that promise sound but are not taken."""
MOST_NAMED = 8


def scan(
    folder: str | os.PathLike,
    *,
    name: str = "",
    tag: str = "",
    tag_position: str = "prepend",
    all_instrumental: bool = True,
    host: Host | None = None,
) -> Found:
    """Every song in ``folder`` and the folders in it, in natural order, with what lies beside it.

    Hidden files and folders are passed over. See :mod:`training.sidecars` for what is read beside a song.

    Args:
        name, tag, tag_position, all_instrumental: of the :class:`Dataset`; the name is that of the folder by default.

    Raises:
        DatasetError: no such folder, or not one song in it can be used; it tells the reason for every file.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        raise DatasetError(f"There is no folder {folder}. Give the folder that your songs are in.")
    empty = configured(
        Dataset(),
        **{"name": name or _shown(root.name) or "songs", "tag": tag, "tag_position": tag_position},
        all_instrumental=all_instrumental,
    )
    files, refused = walk(root)
    sounds = [file for file in files if Path(file).suffix.lower() in SUFFIXES]
    rows, remarks = tables(root, files, sounds)
    used = {file for file in files if "/" not in file and file.lower().endswith(".csv")}
    samples: list[Sample] = []
    named = unique_names(unicodedata.normalize("NFC", file) for file in sounds)
    bar = (host or current()).progress(len(sounds), "reading songs", "file")
    for done, (file, shown) in enumerate(zip(sounds, named, strict=True), start=1):
        path = root / file
        row_from, row = rows.get(file, ("", None))
        about = beside(path, row, row_from)
        used |= {neighbour.relative_to(root).as_posix() for neighbour in about.files}
        remarks += [(f"{shown}, {where}", text) for where, text in about.remarks]
        try:
            length = measure(path)
        except AudioError as error:
            refused.append((shown, str(error)))
        else:
            remarks += [(shown, f"{text}.") for text in length.remarks]
            known: dict[str, Any] = {"instrumental": all_instrumental, **about.values}
            samples.append(make_sample(shown, path, duration=length.seconds, **known))
        bar.update(done)
    strangers = [file for file in files if file not in used and file not in sounds]
    refused += [(file, "only " + ", ".join(SUFFIXES) + " are read; convert it to one.") for file in _sounds(strangers)]
    remarks += _leftovers([file for file in strangers if file not in set(_sounds(strangers))])
    if not samples:
        raise DatasetError(_nothing(root, refused, remarks))
    return Found(replace(empty, samples=_with_ids(samples)), tuple(refused), tuple(remarks))


def fingerprint(folder: str | os.PathLike) -> str:
    """SHA-256 over names, sizes and times of everything a scan would look at."""
    root, digest = Path(os.path.abspath(folder)), hashlib.sha256()
    for file in walk(root)[0]:
        with contextlib.suppress(OSError):
            about = os.stat(root / file)
            digest.update(f"{file} {about.st_size} {about.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def natural(path: str) -> tuple[Any, ...]:
    """Sorts ``2.wav`` before ``10.wav``, and folders part by part.

    >>> sorted(["10.wav", "2.wav"], key=natural)
    ['2.wav', '10.wav']
    """
    parts = []
    for part in path.split("/"):
        pieces = re.split(r"([0-9]+)", plain(part))
        parts.append(tuple((0, int(p), p) if p.isascii() and p.isdigit() else (1, 0, p) for p in pieces if p))
    return parts, path


def walk(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Relative names (with ``/``) of all files that are not hidden, and (name, reason) of what cannot be entered."""
    files: list[str] = []
    refused: list[tuple[str, str]] = []
    seen: set[str] = {os.path.realpath(root)}

    def closed(error: OSError) -> None:
        shown = os.path.relpath(error.filename, root) if error.filename else "a folder"
        refused.append((_shown(shown), f"it cannot be opened ({error.strerror})."))

    for folder, folders, names in os.walk(root, followlinks=True, onerror=closed):
        inside = []
        for name in sorted(folders, key=natural):
            if name.startswith("."):
                continue
            target = os.path.realpath(os.path.join(folder, name))
            if target in seen:
                shown = _shown(Path(folder, name).relative_to(root).as_posix())
                refused.append((shown, "it leads to a folder that is read already."))
            else:
                seen.add(target)
                inside.append(name)
        folders[:] = inside
        for name in names:
            relative = Path(folder, name).relative_to(root).as_posix()
            if name.startswith("."):
                continue
            if _shown(relative) != relative:
                refused.append((_shown(relative), "its name is not valid text on this system; rename it."))
            else:
                files.append(relative)
    return sorted(files, key=natural), refused


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()


def tables(
    root: Path, files: Iterable[str], sounds: Iterable[str]
) -> tuple[dict[str, tuple[str, dict[str, str]]], list[tuple[str, str]]]:
    """For every song that a CSV of the top folder names: the table and the song's row. And what fits no song."""
    by_path = {plain(file): file for file in sounds}
    by_name: dict[str, list[str]] = {}
    for file in sounds:
        by_name.setdefault(plain(file.rsplit("/", 1)[-1]), []).append(file)
    rows: dict[str, tuple[str, dict[str, str]]] = {}
    remarks: list[tuple[str, str]] = []
    for table in (file for file in files if "/" not in file and file.lower().endswith(".csv")):
        lost: list[str] = []
        try:
            for file, row in read_table(root / table):
                wanted = plain(file.removeprefix("./"))
                places = [by_path[wanted]] if wanted in by_path else by_name.get(wanted.rsplit("/", 1)[-1], [])
                if len(places) > 1:
                    where = " and ".join(places[:3])
                    remarks.append((table, f"{file} could be {where}; write the path within the folder under File."))
                elif places:
                    rows[places[0]] = (table, {**rows.get(places[0], ("", {}))[1], **row})
                else:
                    lost.append(file)
        except DatasetError as error:
            remarks.append((table, f"{error}."))
        if lost:
            remarks.append((table, f"there is no song for {_some(lost)}."))
    return rows, remarks


def _sounds(files: Iterable[str]) -> list[str]:
    return [file for file in files if Path(file).suffix.lower() in OTHER_SOUNDS]


def _leftovers(files: list[str]) -> list[tuple[str, str]]:
    """What is said about files that are neither songs nor beside one."""
    alone = [file for file in files if file.lower().endswith((*ENDINGS, ".csv"))]
    others = [file for file in files if file not in set(alone)]
    said = []
    if alone:
        said.append((_some(alone), "no song of that name lies beside, so it is not read."))
    if others:
        said.append((_some(others), "no recording, passed over."))
    return said


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _with_ids(samples: list[Sample]) -> tuple[Sample, ...]:
    """Every sample with an id that follows from its name, so that scanning again gives the same."""
    taken: set[str] = set()
    made = []
    for sample in samples:
        digits = hashlib.sha256(sample.name.encode()).hexdigest()
        size = next(size for size in range(8, 65) if digits[:size] not in taken)
        taken.add(digits[:size])
        made.append(replace(sample, id=digits[:size]))
    return tuple(made)


def _nothing(root: Path, refused: list[tuple[str, str]], remarks: list[tuple[str, str]]) -> str:
    if not refused:
        seen = "".join(f"\n{name}: {text}" for name, text in remarks)
        return f"There are no songs in {root}. Put files named {', '.join(SUFFIXES)} into it.{seen}"
    reasons = "".join(f"\n{name}: {reason}" for name, reason in refused)
    return f"None of the {len(refused)} files in {root} can be used:{reasons}"
