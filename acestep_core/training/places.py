"""Where data sets, labels, tensors and runs lie, and what they may be called. Imports no torch.

Everything is written below ``acestep`` in the output folder. Songs and data set files are read from wherever the
user has them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..host import Host

ROOM = "acestep"
DATASETS, LABELS, TENSORS, RUNS = "datasets", "labels", "tensors", "runs"
LONGEST_NAME = 80
RUN = "run.json"
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def checked_name(name: str) -> str:
    """``name`` as the name of one file or folder on any system.

    Raises:
        ValueError: why it cannot be one.
    """
    name = name.strip()
    if not name:
        raise ValueError("Give it a name, such as jazz-1.")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"The name has {len(name)} characters; at most {LONGEST_NAME} are allowed.")
    wrong = _FORBIDDEN.search(name)
    if wrong:
        raise ValueError(f'The name {name!r} has a {wrong[0]!r} in it; leave out / \\ : * ? " < > | and line breaks.')
    if name.startswith(".") or name.endswith(".") or name.split(".")[0].lower() in _RESERVED:
        raise ValueError(f"{name!r} cannot be the name of a file on every system; choose another.")
    return name


def folder_of(host: Host, kind: str) -> Path:
    """The folder of all :data:`DATASETS`, :data:`LABELS`, :data:`TENSORS` or :data:`RUNS`."""
    return Path(host.output) / ROOM / kind


def place_of(host: Host, kind: str, name: str) -> Path:
    """Where what is called ``name`` lies. Raises ValueError for a name that cannot be one."""
    return folder_of(host, kind) / checked_name(name)


def dataset_file(host: Host, name: str) -> Path:
    """The file of the data set ``name``, which may be written with its ``.json``."""
    return place_of(host, DATASETS, f"{name.strip().removesuffix('.json')}.json")


def labels_file(host: Host, name: str) -> Path:
    """Where the labels of a data set are kept while they are made; any name of a data set will do."""
    shortened = _FORBIDDEN.sub("_", name).strip(" .")[:LONGEST_NAME] or "songs"
    return folder_of(host, LABELS) / f"{shortened}.labels.jsonl"


def names(host: Host, kind: str) -> list[str]:
    """What is there of a kind, newest first: folders of tensors and runs, files of data sets."""
    folder = folder_of(host, kind)
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:
        return []
    wanted = {RUNS: lambda e: (folder / e.name / RUN).is_file(), TENSORS: lambda e: e.is_dir()}
    fits = wanted.get(kind, lambda e: e.name.endswith(".json"))
    found = [(entry.stat().st_mtime, entry.name) for entry in entries if fits(entry)]
    return [name for _, name in sorted(found, reverse=True)]


def find(host: Host, text: str, kind: str) -> Path:
    """The file or folder that ``text`` means: a whole path, one below the input or output folder, or the name of one
    of ours.

    Raises:
        ValueError: there is none; it says where was looked.
    """
    given = text.strip().strip('"').strip()
    if not given or "\0" in given:
        raise ValueError("Give a path, such as C:\\music\\my songs or /home/me/my songs.")
    path = Path(os.path.expanduser(given))
    if path.is_absolute():
        places = [path]
    else:
        places = [root / path for root in (folder_of(host, kind), Path(host.input), Path(host.output))]
        places += [places[0].with_name(places[0].name + ".json")] if kind == DATASETS else []
    for place in places:
        if place.exists():
            return Path(os.path.abspath(place))
    looked = ", ".join(str(place) for place in places)
    raise ValueError(f"There is no {given!r}. Looked for {looked}.")
