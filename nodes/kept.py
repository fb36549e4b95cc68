"""Whether files that a node has written are still what they were, so that it runs again where they are not."""

from __future__ import annotations

from pathlib import Path


class Kept:
    """What was made under each key, and how often somebody else has changed it since.

    >>> kept.made("jazz", folder)          # after the node ran
    >>> kept.state("jazz")                 # for IS_CHANGED: the same text until the folder changes
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Path, str]] = {}
        self._changes: dict[str, int] = {}

    def made(self, key: str, path: Path) -> None:
        self._known[key] = (path, _stamp(path))

    def state(self, key: str) -> str:
        known = self._known.get(key)
        if known is not None and _stamp(known[0]) != known[1]:
            del self._known[key]
            self._changes[key] = self._changes.get(key, 0) + 1
        return str(self._changes.get(key, 0))


def _stamp(path: Path) -> str:
    """Names, sizes and times of a file, or of everything in a folder."""
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        about = [(str(file), file.stat()) for file in files if not file.name.startswith(".")]
    except OSError:
        return ""
    return "|".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in about)
