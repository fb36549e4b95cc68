"""The one door through which the outside reaches the engine.

A :class:`Host` answers four questions: which device and dtype to compute with, where files live, how
far the work is, and whether the user wants to stop. :class:`Host` itself is the answer for a plain
Python program or a terminal; a user interface installs a subclass with :func:`install` or, for the
length of a block, :func:`use`.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

log = logging.getLogger("acestep")

MODEL_FOLDERS = ("acestep", "diffusion_models", "text_encoders", "vae", "checkpoints", "loras")
"""Kinds of model folder. ``acestep`` holds the original folders (``acestep-v15-turbo`` and so on); the
others are ComfyUI's standard ones."""
OLD_FOLDERS = {"diffusion_models": "unet", "text_encoders": "clip"}
"""Former names of ComfyUI's folders, searched too."""

WEIGHT_SUFFIXES = (
    *(".safetensors", ".sft", ".bin", ".pt", ".ckpt", ".gguf"),
    *(".safetensors.index.json", ".bin.index.json"),
)

MPS_SHARE = 0.7
"""The part of main memory that an Apple GPU may use, where PyTorch does not tell it."""


class Cancelled(Exception):
    """The user asked to stop. Raised between two steps, never inside one."""


class Progress:
    """Counts the steps of one piece of work and lets the user stop between them.

    >>> bar = Host().progress(3, "sampling")
    >>> for done in range(1, 4):
    ...     bar.update(done)
    """

    def __init__(self, host: Host, total: int, what: str, unit: str = "step", open_ended: bool = False):
        """``open_ended``: ``total`` is only the most there can be, so nothing is promised about the rest."""
        self.host, self.total, self.what, self.unit = host, max(1, int(total)), what, unit
        self.open_ended, self.started = open_ended, time.perf_counter()
        host.check_cancelled()
        host.on_progress(0, self.total, f"{what}: {self._count(0)}")

    def _count(self, done: int) -> str:
        return f"{done}{'' if self.open_ended else f'/{self.total}'} {self.unit}s"

    def update(self, done: int, note: str = "") -> None:
        """Report that ``done`` of ``total`` are finished. Raises what the host raises on cancel."""
        elapsed = time.perf_counter() - self.started
        text = f"{self.what}: {self._count(done)}, {elapsed:.1f} s"
        if 0 < done < self.total and not self.open_ended:
            text += f", about {elapsed / done * (self.total - done):.0f} s left"
        if note:
            text += f" ({note})"
        self.host.on_progress(min(done, self.total), self.total, text)
        self.host.check_cancelled()

    def finish(self, done: int) -> None:
        """Open-ended work is over after ``done``: the bar is full."""
        text = f"{self.what}: {self._count(done)}, {time.perf_counter() - self.started:.1f} s"
        self.host.on_progress(self.total, self.total, text)


class Host:
    """A plain Python program around the engine.

    Args:
        models: folder that holds the model folders (see :data:`MODEL_FOLDERS`); the original folders may
            also lie directly in it.
        input, output, temp: folders for audio in and out.
        device: ``"auto"`` (CUDA, MPS, XPU, CPU in this order), or a torch device name.
        offload: keep models that are not at work in main memory; None decides by the size of the card.
        stream: keep the layers of the diffusion model in main memory and bring each for its turn; None does so with
            as many as do not fit on the card.
        on_progress: called with (done, total, text).
        should_stop: called between steps; true stops the work with :class:`Cancelled`.
    """

    name = "python"

    def __init__(
        self,
        models: str | os.PathLike = "models",
        input: str | os.PathLike = "input",
        output: str | os.PathLike = "output",
        temp: str | os.PathLike | None = None,
        device: str = "auto",
        on_progress: Callable[[int, int, str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        offload: bool | None = None,
        stream: bool | None = None,
    ):
        self.models, self.input, self.output = Path(models), Path(input), Path(output)
        self.temp = Path(temp) if temp else self.output / "temp"
        self._device, self._on_progress, self._should_stop = device, on_progress, should_stop
        self.notes: list[str] = []
        self.offload, self.stream = offload, stream
        self._resident: list[weakref.ref] = []

    # -- progress, messages, cancelling

    def progress(self, total: int, what: str, unit: str = "step", open_ended: bool = False) -> Progress:
        return Progress(self, total, what, unit, open_ended)

    def on_progress(self, done: int, total: int, text: str) -> None:
        if self._on_progress:
            self._on_progress(done, total, text)

    def check_cancelled(self) -> None:
        if self._should_stop and self._should_stop():
            raise Cancelled("Stopped by the user.")

    def is_cancel(self, error: BaseException) -> bool:
        """Whether ``error`` is what :meth:`check_cancelled` raises."""
        return isinstance(error, Cancelled)

    def send(self, event: str, values: Mapping[str, Any]) -> None:
        """Tell whoever shows the work, such as a page, what is new. Here nobody listens."""

    @property
    def shares_workflows(self) -> bool:
        """Whether saved files may hold the workflow and the words they were made with."""
        return True

    def say(self, text: str) -> None:
        """Tell the user something they did not ask for but must know (a value clamped, a fallback taken)."""
        self.notes.append(text)
        log.info(text)

    # -- devices

    def let_go(self) -> None:
        """Free models that nobody uses any more, before another is read and would lie beside them. Here none stays."""

    def device(self, component: str) -> torch.device:
        """Where ``component`` (``"dit"``, ``"text"``, ``"vae"`` or ``"lm"``) computes."""
        import torch

        if self._device != "auto":
            return torch.device(self._device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        if hasattr(torch, "xpu") and torch.xpu.is_available():
            return torch.device("xpu")
        return torch.device("cpu")

    def dtype(self, component: str) -> torch.dtype:
        """What ``auto`` means: bfloat16 where the device computes it natively, else float32.

        float16 is never chosen: the lyric encoder exceeds its range.
        """
        import torch

        device = self.device(component)
        if device.type == "xpu" or (device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8):
            return torch.bfloat16
        return torch.float32

    def prepare(self, module: torch.nn.Module, component: str, activation_bytes: int = 0) -> torch.device:
        """Bring ``module`` to its device, with room for ``activation_bytes``, and name the device.

        On a small card every other module of this host leaves it first; not where it shares the machine's memory.
        Layers of a diffusion model that does not fit all the same stay in main memory until their turn.
        """
        device = self.device(component)
        if device.type in ("cpu", "mps"):
            _settled(module).to(device)
            return device
        if self._offloads():
            self._send_home(keep=module)
        self._resident = [ref for ref in self._resident if ref() not in (None, module)] + [weakref.ref(module)]
        if component == "dit" and self.stream is not False:
            from .memory import streaming

            if not streaming.fits(module, self._room(module, device, activation_bytes)):
                self._send_home(keep=module)
            streaming.arrange(module, device, self._room(module, device, activation_bytes))
        else:
            _settled(module).to(device)
        return device

    def _room(self, module: torch.nn.Module, device: torch.device, activation_bytes: int) -> int:
        """Bytes that the weights of ``module`` may take beside its working memory."""
        from .memory import streaming
        from .memory.tiers import GIB

        if self.stream:
            return 0
        free = int(self.free_gb(keep=module) * GIB) + streaming.bytes_on(module, device)
        return free - activation_bytes - streaming.MARGIN_BYTES

    def make_room(self) -> None:
        """Send every module of this host back to main memory."""
        self._send_home()
        from .memory.recovery import empty_cache

        empty_cache()

    def _send_home(self, keep: torch.nn.Module | None = None) -> None:
        for ref in self._resident:
            module = ref()
            if module is not None and module is not keep:
                _settled(module).to("cpu")
        self._resident = [ref for ref in self._resident if keep is not None and ref() is keep]

    def _offloads(self) -> bool:
        from .memory.tiers import tier_of

        return tier_of(self.memory_gb()).offload if self.offload is None else self.offload

    def memory_gb(self) -> float:
        """Memory of the card in GB of 1024³ bytes, as the environment has it look; 0 where there is no card."""
        from .memory.tiers import GIB, simulated

        looked = simulated()
        return looked if looked is not None else self._total_bytes() / GIB

    def free_gb(self, keep: torch.nn.Module | None = None) -> float:
        """GB of the card that are free or can be made so while ``keep`` stays; the machine's where there is no card."""
        from .memory.tiers import GIB, simulated

        total, free, looked = self._total_bytes(), self._free_bytes() + self._evictable_bytes(keep), simulated()
        if looked is not None:
            free = min(free, max(0.5, looked - 0.5) * GIB - (total - free if total else 0))
        return max(0.0, free / GIB)

    def _evictable_bytes(self, keep: torch.nn.Module | None) -> int:
        """Of other models that would leave the card if its memory were asked for."""
        return 0

    def _total_bytes(self) -> int:
        import torch

        device = self.device("dit")
        if device.type in ("cuda", "xpu"):
            return getattr(torch, device.type).get_device_properties(device).total_memory
        if device.type != "mps":
            return 0
        if hasattr(torch.mps, "recommended_max_memory"):  # from torch 2.5 on
            return torch.mps.recommended_max_memory()
        return int(MPS_SHARE * _machine_bytes("SC_PHYS_PAGES"))

    def _free_bytes(self) -> int:
        import torch

        device = self.device("dit")
        if device.type == "cuda":
            return free_cuda_bytes(device)
        if device.type == "xpu":
            return self._total_bytes() - getattr(torch.xpu, "memory_allocated", lambda _: 0)(device)
        if device.type == "mps":
            return self._total_bytes() - torch.mps.current_allocated_memory()
        return _machine_bytes("SC_AVPHYS_PAGES") or _machine_bytes("SC_PHYS_PAGES")

    # -- files

    def model_roots(self, kind: str) -> list[Path]:
        """Folders searched for one of :data:`MODEL_FOLDERS`; the first is where downloads go."""
        roots = [self.models / name for name in (kind, OLD_FOLDERS.get(kind)) if name]
        return [*roots, self.models] if kind == "acestep" else roots

    def list_models(self, kind: str) -> list[str]:
        """Names (relative, with ``/``) of the weight files in the folders of one kind, sorted."""
        found: set[str] = set()
        for root in self.model_roots(kind):
            for folder, folders, files in os.walk(root, followlinks=True):
                depth = len(Path(folder).relative_to(root).parts)
                folders[:] = sorted(f for f in folders if not f.startswith(".")) if depth < 3 else []
                if kind == "acestep" and root == self.models and depth == 0:
                    folders[:] = [f for f in folders if f not in (*MODEL_FOLDERS, *OLD_FOLDERS.values())]
                relative = Path(folder).relative_to(root)
                found.update((relative / f).as_posix() for f in files if f.endswith(WEIGHT_SUFFIXES))
        return sorted(found)

    def find_model(self, kind: str, name: str) -> Path | None:
        """The file ``name`` of :meth:`list_models`, or None. Never a path outside the model folders."""
        return find_inside(self.model_roots(kind), name)


def _settled(module: torch.nn.Module) -> torch.nn.Module:
    """``module``, no layer of which comes and goes any longer."""
    from .memory import streaming

    streaming.settle(module)
    return module


def free_cuda_bytes(device: torch.device) -> int:
    """Bytes of a CUDA card that are free, those that PyTorch keeps for later among them."""
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    index = torch.cuda.current_device() if device.index is None else device.index  # torch 2.4 wants a number
    return torch.cuda.mem_get_info(index)[0] + kept


def _machine_bytes(pages: str) -> int:
    """Main memory that the system counts as ``pages``; 0 where it does not."""
    try:
        return max(0, os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return 0


def find_inside(roots: list[Path], name: str) -> Path | None:
    """The file ``name`` under one of ``roots``; None where there is none or ``name`` leads outside.

    A name that was written on Windows is found on other systems too.
    """
    for root in roots:
        base = os.path.abspath(root)
        path = os.path.abspath(os.path.join(base, name))
        try:
            inside = os.path.commonpath([base, path]) == base
        except ValueError:  # another drive
            continue
        if inside and os.path.isfile(path):
            return Path(path)
    return find_inside(roots, name.replace("\\", "/")) if "\\" in name and os.sep != "\\" else None


_active: contextvars.ContextVar[Host | None] = contextvars.ContextVar("acestep_host", default=None)
_installed: Host | None = None


def install(host: Host) -> None:
    """Make ``host`` the one that :func:`current` answers with, in every thread."""
    global _installed
    _installed = host


@contextlib.contextmanager
def use(host: Host) -> Iterator[Host]:
    """Make ``host`` the current one within a ``with`` block of this thread."""
    token = _active.set(host)
    try:
        yield host
    finally:
        _active.reset(token)


def current() -> Host:
    """The host of this moment: of :func:`use`, else of :func:`install`, else a plain :class:`Host`."""
    global _installed
    active = _active.get()
    if active is not None:
        return active
    if _installed is None:
        _installed = Host()
    return _installed
