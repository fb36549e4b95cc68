"""Fetches published models from the Hugging Face hub into ComfyUI's folder.

    >>> from acestep_graph.acestep_core import host
    >>> from acestep_graph.acestep_core.checkpoints import download
    >>> download.download("turbo", host.current())

Only the files of the catalog's allow-list are fetched, and nothing fetched is executed. A file is written
under a temporary name, continued there after an interruption, checked against the hub's own size and
hash, and only then given its final name.
"""

from __future__ import annotations

import fnmatch
import hashlib
import inspect
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..host import Host
from .catalog import BY_ID, GROUPS, HUB, PublishedModel

MB = 1_000_000
SPARE_BYTES = 200 * MB
"""Left free on the disk beside the download."""
PARTIAL_FOLDER = ".partial"


class DownloadError(RuntimeError):
    """The download did not succeed. What has arrived is kept, and the message says what to do."""


@dataclass(frozen=True)
class HubFile:
    """One file as the hub lists it: ``size`` in bytes; ``sha256`` for large files, git's ``blob`` for small ones."""

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None


class Hub(Protocol):
    """What the download needs of the hub."""

    def listing(self, repo: str, revision: str | None) -> tuple[str, list[HubFile]]:
        """The commit that ``revision`` (None: the newest) names, and the files in it."""

    def fetch(self, repo: str, path: str, commit: str, into: BinaryIO, start: int, size: int) -> None:
        """Append the bytes of ``path`` from ``start`` to ``into``, which is at that position."""


def names() -> list[str]:
    """What :func:`download` takes: sets that make music together first, then single models."""
    return [*GROUPS, *BY_ID]


def download(name: str, host: Host, *, revision: str | None = None, hub: Hub | None = None) -> Path:
    """Fetch one published model, or one of the sets in :data:`catalog.GROUPS`.

    Files that are there and intact are not fetched again; an interrupted file goes on where it stopped.
    Progress is reported in MB, and the user can stop at any chunk.

    Args:
        name: one of :func:`names`; upper and lower case do not matter.
        revision: branch, tag or commit; None is the newest. It must exist in every repository involved.
        hub: stands in for the Hugging Face hub in tests.

    Returns:
        The model's folder in the first ``acestep`` model folder; for a set, that of its diffusion model.

    Raises:
        ValueError: unknown name.
        DownloadError: no connection, no room, a damaged file, or ``huggingface_hub`` is not installed.
        host.Cancelled, or what the host raises instead: the user stopped.
    """
    models = _chosen(name)
    root = host.model_roots("acestep")[0]
    hub = hub or HuggingFace()
    plans = [_plan(model, root / model.folder, hub, revision) for model in models]
    todo = [(plan, file) for plan in plans for file in plan.files]
    _check_room(root, sum(_missing_bytes(plan, file) for plan, file in todo))
    progress = _Progress(host, sum(file.size for _, file in todo))
    for plan, file in todo:
        _obtain(plan, file, hub, progress)
    for plan in plans:
        shutil.rmtree(plan.folder / PARTIAL_FOLDER, ignore_errors=True)
    return plans[0].folder


@dataclass(frozen=True)
class _Plan:
    model: PublishedModel
    folder: Path
    commit: str
    files: tuple[HubFile, ...]

    def target(self, file: HubFile) -> Path:
        return self.folder / file.path.rpartition("/")[2]

    def partial(self, file: HubFile) -> Path:
        """Where ``file`` grows: named after its content, so that a new revision starts afresh."""
        return (
            self.folder / PARTIAL_FOLDER / f"{self.target(file).name}.{(file.sha256 or file.blob or self.commit)[:16]}"
        )

    def url(self, file: HubFile) -> str:
        return f"{HUB}/{self.model.repo}/resolve/{self.commit}/{file.path}"


class _Progress:
    """Bytes done over the whole download, told to the host in MB."""

    def __init__(self, host: Host, total: int):
        self.host, self.total, self.done = host, total, 0
        self.started, self.received = time.perf_counter(), 0
        host.check_cancelled()

    def received_bytes(self, count: int, what: str) -> None:
        self.received += count
        seconds = time.perf_counter() - self.started
        speed = self.received / seconds if seconds > 0 else 0
        self.show(count, f"downloading {what}", f", {speed / MB:.1f} MB/s" if speed else "")

    def show(self, count: int, text: str, note: str = "") -> None:
        self.done += count
        done, total = math.ceil(self.done / MB), max(1, math.ceil(self.total / MB))
        self.host.on_progress(min(done, total), total, f"{text}: {done} of {total} MB{note}")
        self.host.check_cancelled()


def _chosen(name: str) -> list[PublishedModel]:
    by_name = {key.lower(): (key,) for key in BY_ID} | GROUPS
    if name.lower() not in by_name:
        raise ValueError(f"There is no published model {name!r}. Choose one of: {', '.join(names())}.")
    return [BY_ID[member] for member in by_name[name.lower()]]


def _plan(model: PublishedModel, folder: Path, hub: Hub, revision: str | None) -> _Plan:
    commit, listed = _asking(model.repo, folder, lambda: hub.listing(model.repo, revision))
    prefix = f"{model.subfolder}/" if model.subfolder else ""
    wanted = tuple(file for file in listed if _allowed(file.path, prefix, model.files))
    if not any(file.path.endswith(".safetensors") for file in wanted):
        raise DownloadError(
            f"{model.page} holds no weights under the expected names ({', '.join(model.files)}). "
            "The repository may have changed; look there, and choose another revision."
        )
    return _Plan(model, folder, commit, wanted)


def _allowed(path: str, prefix: str, patterns: tuple[str, ...]) -> bool:
    name = path.removeprefix(prefix)
    plain = path.startswith(prefix) and "/" not in name and "\\" not in name
    return plain and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _missing_bytes(plan: _Plan, file: HubFile) -> int:
    if plan.target(file).exists():
        return 0
    partial = plan.partial(file)
    return max(0, file.size - (partial.stat().st_size if partial.is_file() else 0))


def _check_room(root: Path, needed: int) -> None:
    place = root.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed and free < needed + SPARE_BYTES:
        raise DownloadError(
            f"Not enough room in {root}: the download needs {(needed + SPARE_BYTES) / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free. Free some, or add a model folder on another disk."
        )


def _obtain(plan: _Plan, file: HubFile, hub: Hub, progress: _Progress) -> None:
    """Bring one file to its final name, fetched and checked, or leave it where it is and intact."""
    target, partial = plan.target(file), plan.partial(file)
    what = f"{plan.model.folder}/{target.name}"
    if target.exists():
        problem = _problem(target, file, lambda count: progress.show(count, f"checking {what}"))
        if problem:
            raise DownloadError(
                f"{target} is not the published file ({problem}). If it is yours, keep it and move it elsewhere; "
                "if not, delete it. Then download again."
            )
        return
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        _receive(plan, file, hub, progress, what)
        progress.host.check_cancelled()
        problem = _problem(partial, file, lambda count: progress.show(0, f"checking {what}"))
        if problem:
            partial.unlink()
            raise DownloadError(f"{what} arrived damaged ({problem}) and was deleted. Download it again.")
        os.replace(partial, target)
    except OSError as error:
        raise DownloadError(
            f"{what} could not be written to {plan.folder}: {error.strerror or error}. "
            "Make room or check the folder's permissions, then download again; it goes on where it stopped."
        ) from error


def _receive(plan: _Plan, file: HubFile, hub: Hub, progress: _Progress, what: str) -> None:
    partial = plan.partial(file)
    with partial.open("ab") as stream:
        if stream.tell() > file.size:
            stream.truncate(0)
        start = stream.tell()
        progress.show(start, f"downloading {what}")
        if start < file.size:
            counted = _Counted(stream, lambda count: progress.received_bytes(count, what))
            _asking(
                plan.model.repo,
                plan.folder,
                lambda: hub.fetch(plan.model.repo, file.path, plan.commit, counted, start, file.size),
                plan.url(file),
            )


class _Counted:
    """A binary file that reports what is written to it; the place where a transfer can be stopped."""

    def __init__(self, stream: BinaryIO, report: Callable[[int], None]):
        self.stream, self.report = stream, report

    def write(self, chunk: bytes) -> int:
        try:
            self.stream.write(chunk)
            self.report(len(chunk))
        except Exception as error:
            raise _Ours(error) from error
        return len(chunk)

    def truncate(self) -> int:
        """The server starts over: what lies behind the current position no longer counts."""
        try:
            self.stream.flush()
            size = os.fstat(self.stream.fileno()).st_size
            kept = self.stream.truncate()
            self.report(kept - size)
        except Exception as error:
            raise _Ours(error) from error
        return kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Ours(Exception):
    """Carries an error of this side (a full disk, the user's stop) through the hub's library unchanged."""


def _asking(repo: str, folder: Path, request: Callable[[], Any], url: str = "") -> Any:
    """Run one request to the hub; what goes wrong there becomes a DownloadError in the user's words."""
    try:
        return request()
    except _Ours as error:
        raise error.args[0] from None
    except DownloadError:
        raise
    except Exception as error:
        kind = type(error).__name__
        if kind in ("RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError", "RemoteEntryNotFoundError"):
            raise DownloadError(
                f"{url or f'{HUB}/{repo}'} is not there or not open to you ({kind}). Check the revision; "
                "for a repository that asks for it, log in with `hf auth login`."
            ) from error
        raise DownloadError(
            f"The connection to {HUB} failed ({kind}: {str(error)[:200]}). Check the network and download again: what "
            f"has arrived is kept. Without a network, copy the files of {HUB}/{repo} into {folder} by hand."
        ) from error


def _problem(path: Path, file: HubFile, report: Callable[[int], None]) -> str | None:
    """What tells ``path`` from the hub's file; None when size and hash agree. Reports bytes read."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size} bytes instead of {file.size}"
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(8 * 1024 * 1024):
            digest.update(chunk)
            report(len(chunk))
    expected = file.sha256 or file.blob
    return None if expected in (None, digest.hexdigest()) else f"its hash is {digest.hexdigest()}, not {expected}"


class HuggingFace:
    """The hub itself, through ``huggingface_hub``.

    The library's ``hf_hub_download`` throws an interrupted file away, so the files come through the
    function beneath it, which can start in the middle.
    """

    def __init__(self):
        try:
            import huggingface_hub
        except ImportError as error:
            raise DownloadError(
                "Downloading needs the package huggingface_hub. Install it with `pip install huggingface_hub`, "
                'or with the pack: `pip install "acestep-graph[download]"`.'
            ) from error
        self.library = huggingface_hub

    def listing(self, repo: str, revision: str | None) -> tuple[str, list[HubFile]]:
        info = self.library.HfApi().model_info(repo, revision=revision, files_metadata=True)
        files = [
            HubFile(
                path=entry.rfilename,
                size=entry.lfs.size if entry.lfs else entry.size,
                sha256=entry.lfs.sha256 if entry.lfs else None,
                blob=None if entry.lfs else entry.blob_id,
            )
            for entry in info.siblings or ()
        ]
        return info.sha, files

    def fetch(self, repo: str, path: str, commit: str, into: BinaryIO, start: int, size: int) -> None:
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        url = self.library.hf_hub_url(repo, path, revision=commit)
        bar = {"tqdm_class": _no_bar()} if "tqdm_class" in inspect.signature(http_get).parameters else {}
        http_get(url, into, resume_size=start, headers=headers, expected_size=size, **bar)


def _no_bar() -> type:
    """The library's progress bar, switched off: progress goes to the host."""
    from huggingface_hub.utils import tqdm

    class NoBar(tqdm):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **{**options, "disable": True})

    return NoBar
