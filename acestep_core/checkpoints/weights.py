"""Weight files as one lookup: names, shapes, and tensors mapped from disk one at a time.

Reads ``.safetensors`` (single or sharded with an index) and PyTorch ``.bin`` files; the latter only with
``weights_only=True``, so nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .header import HeaderError as CheckpointError
from .header import safetensors_header

WEIGHT_NAMES = ("model", "diffusion_pytorch_model", "pytorch_model")
PLAIN_DTYPES = {"F64", "F32", "F16", "BF16"}
TORCH_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass
class Weights:
    """Tensors of one or more files. Tensors returned by :meth:`read` are views of the mapped file where the
    format allows; do not write to them."""

    files: list[Path] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    _readers: dict[str, object] = field(default_factory=dict, repr=False)

    def read(self, name: str) -> Tensor:
        reader = self._readers[name]
        try:
            return reader[name] if isinstance(reader, dict) else reader.get_tensor(name)
        except Exception as error:
            raise CheckpointError(f"Cannot read tensor {name!r}: {error}") from error

    def add(self, other: Weights, prefix: str) -> None:
        """Take over another set of files under ``prefix`` (a diffusers sub-folder)."""
        self.files += other.files
        for name in other.shapes:
            self.shapes[prefix + name] = other.shapes[name]
            self.dtypes[prefix + name] = other.dtypes[name]
            self._readers[prefix + name] = _Renamed(other, name)


@dataclass(frozen=True)
class _Renamed:
    source: Weights
    name: str

    def get_tensor(self, _: str) -> Tensor:
        return self.source.read(self.name)


def find_weight_file(folder: Path) -> Path | None:
    """The weight file (or shard index) of a model folder in the published spelling, or None."""
    for name in WEIGHT_NAMES:
        for suffix in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    shards = sorted(folder.glob("model*.safetensors"))
    return shards[0] if len(shards) == 1 else None


def weight_parts(path: Path) -> list[Path]:
    """The files behind ``path``: itself, or the shards that an index names. All must exist."""
    if not path.name.endswith(".index.json"):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a shard index: {error}. Download the file again.") from error
    if any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise CheckpointError(f"{path} names shards outside its own folder; it is not used.")
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{path.parent} lacks {len(missing)} of {len(names)} shards: {', '.join(missing)}. Download them again."
        )
    return [path.parent / name for name in names]


@contextmanager
def open_weights(path: Path) -> Iterator[Weights]:
    """Open the weights at ``path``: a file, a shard index, or a folder that holds either.

    Raises:
        CheckpointError: no such file, truncated or damaged file, missing shards, or a pickle that holds
            anything but tensors.
    """
    path = Path(path)
    if path.is_dir():
        found = find_weight_file(path)
        if found is None:
            raise CheckpointError(f"{path} holds no weight file (looked for {', '.join(WEIGHT_NAMES)}.safetensors).")
        path = found
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    weights = Weights()
    with ExitStack() as stack:
        for part in weight_parts(path):
            weights.files.append(part)
            if part.suffix in (".safetensors", ".sft"):
                _add_safetensors(weights, part, stack)
            elif part.suffix in (".bin", ".pt", ".ckpt", ".pth"):
                _add_pickle(weights, part)
            else:
                raise CheckpointError(
                    f"{part.name}: {part.suffix} files are not read. Take the .safetensors file of the same model."
                )
        yield weights


def _add_safetensors(weights: Weights, part: Path, stack: ExitStack) -> None:
    tensors, _ = safetensors_header(part)
    try:
        reader = stack.enter_context(safe_open(str(part), framework="pt", device="cpu"))
    except Exception as error:
        raise CheckpointError(f"{part} is damaged: {error}. Download it again.") from error
    for name, (dtype, shape) in tensors.items():
        weights.shapes[name], weights.dtypes[name] = tuple(shape), dtype
        weights._readers[name] = reader


def load_pickle(path: Path) -> object:
    """The content of a PyTorch file, tensors and plain containers only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds something other than tensors and was not opened, because opening it could run code. "
            "Take a .safetensors file from a source you trust."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a PyTorch file: {error}") from error


def _add_pickle(weights: Weights, part: Path) -> None:
    state = load_pickle(part)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{part} is not a state dict of tensors.")
    for name, tensor in state.items():
        weights.shapes[name] = tuple(tensor.shape)
        weights.dtypes[name] = TORCH_NAMES.get(tensor.dtype, str(tensor.dtype))
        weights._readers[name] = state
