"""One training example: exactly the tensors that the model would be given to make this music.

>>> from acestep_core.training.items import load_item, save_item
>>> save_item(item, "tensors/song.safetensors")
>>> load_item("tensors/song.safetensors").seconds
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..lora.writing import with_sorted_header
from .limits import REPEAT_RANGE

FORMAT = "acestep-graph training item 1"
LATENT_WIDTH, CONTEXT_WIDTH = 64, 128
FRAMES_A_SECOND = 25


class ItemError(ValueError):
    """A file that is no training item, or holds what cannot be trained on."""


@dataclass(frozen=True, eq=False)
class TrainItem:
    """An example, of any float precision, on the CPU.

    Attributes:
        name: what the user calls it.
        latents: the music, [T, 64] at 25 frames a second.
        conditions: packed sequence of the condition encoder, without padding, [L, E].
        context: source latents and chunk mask [T, 128]; None for the model's silence and a mask of ones, which
            is what music from text starts from.
        repeat: how often it comes in an epoch.
        about: what else is known: model, prompt, lyrics, audio file, crop. Plain values.
        path: the file it was read from, "" for an item that was made in memory.
    """

    name: str
    latents: Tensor
    conditions: Tensor
    context: Tensor | None = None
    repeat: int = 1
    about: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    def __post_init__(self) -> None:
        expected = {"latents": LATENT_WIDTH, "conditions": None, "context": CONTEXT_WIDTH}
        for part, tensor in self.tensors().items():
            width = expected[part]
            if tensor.dim() != 2 or 0 in tensor.shape or (width and tensor.shape[1] != width):
                raise ItemError(f"{self.name}: {part} is {list(tensor.shape)}, expected [length, {width or 'width'}].")
            if not tensor.dtype.is_floating_point:
                raise ItemError(f"{self.name}: {part} holds {tensor.dtype}, expected floating point numbers.")
            if not bool(torch.isfinite(tensor).all()):
                raise ItemError(f"{self.name}: {part} holds values that are no numbers. Preprocess it again.")
        if self.context is not None and self.context.shape[0] != self.latents.shape[0]:
            raise ItemError(
                f"{self.name}: the context has {self.context.shape[0]} frames, the latents {self.latents.shape[0]}."
            )
        low, high = REPEAT_RANGE
        if isinstance(self.repeat, bool) or not isinstance(self.repeat, int) or not low <= self.repeat <= high:
            raise ItemError(f"{self.name}: repeat is {self.repeat!r}; allowed is a whole number from {low} to {high}.")

    def tensors(self) -> dict[str, Tensor]:
        parts = {"latents": self.latents, "conditions": self.conditions, "context": self.context}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    @property
    def seconds(self) -> float:
        return self.latents.shape[0] / FRAMES_A_SECOND

    @property
    def shape(self) -> tuple[int, int]:
        """Frames and condition tokens; items that share them can run as rows of one batch."""
        return self.latents.shape[0], self.conditions.shape[0]


def save_item(item: TrainItem, path: str | Path) -> Path:
    """Write ``item`` as .safetensors beside its place and move it there whole; what was there is replaced.

    Equal items are equal files.
    """
    path = Path(path)
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in item.tensors().items()}
    header = {"format": FORMAT, "name": item.name, "repeat": str(item.repeat), "about": json.dumps(dict(item.about))}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        fresh.write_bytes(with_sorted_header(save(tensors, header)))
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return path


def load_item(path: str | Path) -> TrainItem:
    """Read what :func:`save_item` wrote.

    Raises:
        ItemError: the file is broken, or something else.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ItemError(f"{path.name} cannot be read: {error}. Preprocess it again.") from error
    if header.get("format") != FORMAT or not {"latents", "conditions"} <= set(tensors):
        raise ItemError(f"{path.name} is no training item. Preprocess the data set to make some.")
    try:
        about, repeat = json.loads(header.get("about", "{}")), int(header.get("repeat", "1"))
    except ValueError as error:
        raise ItemError(f"{path.name} has a broken header: {error}. Preprocess it again.") from error
    parts = (tensors["latents"], tensors["conditions"], tensors.get("context"))
    return TrainItem(header.get("name", path.stem), *parts, repeat, about, str(path.absolute()))


def fingerprint(items: Iterable[TrainItem]) -> str:
    """SHA-256 over everything that is trained on, in order; names do not count."""
    digest = hashlib.sha256()
    for item in items:
        for name, tensor in item.tensors().items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
            digest.update(tensor.detach().contiguous().view(torch.uint8).numpy())
        digest.update(f"x{item.repeat};".encode())
    return digest.hexdigest()
