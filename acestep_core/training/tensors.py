"""Tensors on disk as a value: which folder, what is in it, and whether it is still what it was.

>>> tensors = open_tensors("output/acestep/tensors/jazz")
>>> items = tensors.items(width=model.config.encoder_width)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .items import ItemError, TrainItem
from .published import load_tensors


@dataclass(frozen=True)
class Tensors:
    """A folder of training items, as it was when it was looked at.

    Attributes:
        fingerprint: of names, sizes and times of its files. count: songs. repeats: the same with repeats.
        longest: seconds of the longest song.
    """

    folder: Path
    fingerprint: str
    count: int
    repeats: int
    longest: float

    def items(self, width: int | None = None) -> tuple[TrainItem, ...]:
        """What there is to learn from.

        Raises:
            ItemError: nothing can be used, or the folder has changed since it was looked at.
        """
        if fingerprint_of(self.folder) != self.fingerprint:
            raise ItemError(f"The tensors in {self.folder} have changed or are gone. Queue again to look at them anew.")
        return load_tensors(self.folder, width).items


def open_tensors(folder: str | Path, width: int | None = None) -> tuple[Tensors, str]:
    """The tensors of a folder of either kind (see :func:`published.load_tensors`), and a report to read.

    Raises:
        ItemError: nothing in it can be used.
    """
    folder = Path(folder)
    before = fingerprint_of(folder)
    found = load_tensors(folder, width)
    made = Tensors(
        folder=folder,
        fingerprint=before,
        count=len(found.items),
        repeats=sum(item.repeat for item in found.items),
        longest=max(item.seconds for item in found.items),
    )
    return made, found.text()


def fingerprint_of(folder: str | Path) -> str:
    """SHA-256 over names, sizes and times of the files of a folder; of one that is gone, of nothing."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.suffix in (".safetensors", ".pt", ".json"):
            about = path.stat()
            digest.update(f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()
