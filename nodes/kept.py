"""Whether files that a node has written are still what they were, so that it runs again where they are not."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Made:
    stamp: str
    holds: str


class Kept:
    """What was made under each key, and how often it has become something else since: changed by somebody else, or
    made anew of something else, which leaves results that a node cached before behind.

    >>> kept.made("jazz", folder)          # after the node ran
    >>> kept.state("jazz")                 # for IS_CHANGED: the same text until the folder changes
    """

    def __init__(self, only_gone: bool = False) -> None:
        """``only_gone``: nothing but a file that is gone counts."""
        self.only_gone = only_gone
        self._known: dict[str, dict[Path, _Made]] = {}
        self._changes: Counter[str] = Counter()

    def made(self, key: str, path: Path) -> None:
        known, now = self._known.setdefault(key, {}), _Made(_stamp(path), "" if self.only_gone else _holds(path))
        if path in known and known[path].holds != now.holds:
            self._changes[key] += 1
        known[path] = now

    def state(self, key: str | None) -> str:
        known = self._known.get(key or "", {})
        for path in [path for path, made in known.items() if self._changed(path, made)]:
            del known[path]
            self._changes[key or ""] += 1
        return str(self._changes[key or ""])

    def _changed(self, path: Path, made: _Made) -> bool:
        return not path.exists() if self.only_gone else _stamp(path) != made.stamp


def _holds(path: Path) -> str:
    """What is in a file, however often it was written; in a folder the tensor files, which stay where nothing new was
    to be made."""
    try:
        return _stamp(path, "*.safetensors") if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _stamp(path: Path, pattern: str = "*") -> str:
    """Names, sizes and times of a file, or of everything in a folder."""
    try:
        files = sorted(path.rglob(pattern)) if path.is_dir() else [path]
        about = [(str(file), file.stat()) for file in files if not file.name.startswith(".")]
    except OSError:
        return ""
    return "|".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in about)
