"""What a parity check is: a function over one golden file that yields differences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.checkpoints.handles import Autoencoder, DiffusionModel, LanguageModel, TextEncoder

TOLERANCE = 1e-4
FOLDERS = {"turbo": "acestep-v15-turbo", "base": "acestep-v15-base", "xl": "acestep-v15-xl-turbo"}


class Fixtures:
    """One fixture directory; files and models are read when first asked for."""

    def __init__(self, root: Path):
        self.root, self._models = Path(root), {}

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.root / "goldens" / name)

    def json(self, name: str) -> Any:
        path = self.root / "goldens" / name
        return json.loads((path if path.is_file() else self.root / name).read_text("utf-8"))

    def model(self, folder: str) -> DiffusionModel:
        folder = FOLDERS.get(folder, folder)
        if folder not in self._models:
            path = self.root / "checkpoints" / folder
            self._models[folder] = loading.load_diffusion_model(path, dtype=torch.float32)
        return self._models[folder]

    @cached_property
    def vae(self) -> Autoencoder:
        return loading.load_vae(self.root / "checkpoints" / "vae", dtype=torch.float32)

    @cached_property
    def text(self) -> TextEncoder:
        return loading.load_text_encoder(self.root / "checkpoints" / "Qwen3-Embedding-0.6B", dtype=torch.float32)

    @cached_property
    def lm(self) -> LanguageModel:
        return loading.load_language_model(self.root / "checkpoints" / "acestep-5Hz-lm-0.6B", dtype=torch.float32)

    def files(self) -> list[str]:
        """Every golden file, with the ones beside the goldens folder."""
        found = [p.name for p in (self.root / "goldens").iterdir() if p.is_file()]
        return sorted(found + [p.name for p in self.root.glob("*.json")])


@dataclass
class Difference:
    """One comparison: ``error`` is the largest absolute difference, or the number of unequal entries."""

    case: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # NaN fails


def close(case: str, ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE, relative: bool = False) -> Difference:
    """Largest absolute difference; with ``relative`` divided by the largest reference value above 1."""
    if tuple(ours.shape) != tuple(theirs.shape):
        return Difference(f"{case} (shape {list(ours.shape)} instead of {list(theirs.shape)})", float("inf"), tolerance)
    error = (ours.double() - theirs.double()).abs().max().item() if ours.numel() else 0.0
    if relative:
        error /= max(1.0, theirs.abs().max().item())
    return Difference(case, error if error == error else float("inf"), tolerance)


def equal(case: str, ours: Any, theirs: Any) -> Difference:
    """0 where equal, else the number of entries that differ (1 for anything but tensors)."""
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        if ours.shape != theirs.shape:
            return Difference(f"{case} (shape)", float("inf"), 0)
        return Difference(case, float((ours.long() != theirs.long()).sum()), 0)
    if ours != theirs:
        return Difference(f"{case}: {str(ours)[:60]!r} instead of {str(theirs)[:60]!r}", 1.0, 0)
    return Difference(case, 0.0, 0)


Check = Callable[[Fixtures], Iterator[Difference]]


@dataclass
class Golden:
    """A named check and the files it stands for."""

    name: str
    files: tuple[str, ...]
    check: Check
    omitted: tuple[str, ...] = field(default=())
    """Parts of the files that are not checked yet, for the last lines of the report."""


GOLDENS: list[Golden] = []


def golden(name: str, *files: str, omitted: tuple[str, ...] = ()) -> Callable[[Check], Check]:
    """Register a check. ``files`` default to ``name.safetensors``."""

    def register(check: Check) -> Check:
        GOLDENS.append(Golden(name, files or (f"{name}.safetensors",), check, omitted))
        return check

    return register
