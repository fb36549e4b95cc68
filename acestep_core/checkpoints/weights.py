"""Weight files as one lookup: names, shapes, and tensors mapped from disk one at a time.

Reads ``.safetensors``, ``.gguf`` and PyTorch ``.bin`` files, single or sharded with an index; the last only with
``weights_only=True``, so nothing in a file is ever executed. Weights in fp8 and in blocks of GGUF can be had as they
are stored, by :meth:`Weights.packed`, and as numbers, by :meth:`Weights.read`.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..memory import fp8
from ..memory.packed import Packed
from .gguf_header import BLOCKS, PLAIN, Stored, gguf_header
from .header import GGUF, INDEX, SAFETENSORS, WEIGHT_NAMES, CheckpointError, safetensors_header, weight_parts

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What weights may be stored as, by the name in safetensors headers."""
FP8 = {"F8_E4M3": fp8.E4M3, "F8_E5M2": fp8.E5M2}
PACKED = (*FP8, *BLOCKS)
"""What they may be packed as besides."""
SCALE = re.compile(r"(^|.*\.)(scale_weight|weight_scale)$")
MARK = re.compile(r"(^|\.)(scaled_fp8|comfy_quant|scale_input|input_scale)$")
"""ComfyUI's names for the scale of a matrix in fp8, and for what says that there is one. Scales of inputs are for
multiplying in fp8, which is not done here."""
QUANTIZATION_KEY = "_quantization_metadata"
MOST_TOLD = 1 << 16
"""Bytes in which a layer may say how it is quantized."""
CONFIG_KEY = "acestep_config"
"""Metadata of a lone safetensors file under which it may carry its config.json."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()} | {fp8.FORMS[form]: name for name, form in FP8.items()}


@dataclass
class Weights:
    """Tensors of one or more files. Tensors returned by :meth:`read` are views of the mapped file where the
    format allows; do not write to them. ``metadata`` is what safetensors files say about themselves."""

    path: Path
    files: list[Path] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    _read: dict[str, Callable[[], Tensor]] = field(default_factory=dict, repr=False)
    _scales: dict[str, Callable[[], Tensor]] = field(default_factory=dict, repr=False)
    _by_rows: set[str] = field(default_factory=set, repr=False)

    def packed(self, name: str) -> Packed | None:
        """A matrix as it is stored, where that is packed by rows; else None."""
        dtype, shape = self.dtypes[name], self.shapes[name]
        if len(shape) != 2 or not (dtype in FP8 or name in self._by_rows):
            return None
        stored = self._stored(name)
        if dtype in BLOCKS:
            return Packed(dtype, stored.view(shape[0], -1))
        return Packed(FP8[dtype], stored.view(torch.uint8), self._scale(name))

    def read(self, name: str) -> Tensor:
        """The tensor ``name``; packed ones as numbers in float32."""
        stored, dtype = self._stored(name), self.dtypes[name]
        if dtype in BLOCKS:
            return Packed(dtype, stored).dense(torch.float32).view(self.shapes[name])
        if dtype in FP8:
            scale = self._scale(name)
            if scale is None:
                return stored.float()
            return stored.float().mul_(scale.reshape(()) if scale.numel() == 1 else scale)
        return stored

    def _scale(self, name: str) -> Tensor | None:
        """[out, 1] or [1, 1] in float32."""
        if name not in self._scales:
            return None
        try:
            return self._scales[name]().float().reshape(-1, 1)
        except Exception as error:  # of the format's library, which names no kinds
            raise CheckpointError(f"{self.path} is damaged: the scale of {name!r} cannot be read ({error}).") from error

    def _stored(self, name: str) -> Tensor:
        try:
            return self._read[name]()
        except Exception as error:  # of the format's library, which names no kinds
            raise CheckpointError(f"{self.path} is damaged: tensor {name!r} cannot be read ({error}).") from error

    def config(self) -> dict[str, Any]:
        """The configuration that the file carries inside; {} where it carries none.

        Raises:
            CheckpointError: it is no JSON object.
        """
        try:
            found = json.loads(self.metadata.get(CONFIG_KEY, "{}"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"The configuration in {self.path} is no JSON ({error}).") from error
        if not isinstance(found, dict):
            raise CheckpointError(f"The configuration in {self.path} is no JSON object.")
        return found

    def add(self, name: str, shape: Iterable[int], dtype: str, read: Callable[[], Tensor]) -> None:
        self.shapes[name], self.dtypes[name], self._read[name] = tuple(shape), dtype, read

    def join_scales(self) -> None:
        """Take off the scales of fp8 matrices, and the marks that go with them.

        What is not understood (another format, a scale a block) stays where it is, as a tensor of its own.
        """
        formats = self._told_formats()
        known = {stem: told in FP8.values() for stem, told in formats.items()}
        for name in list(self.shapes):
            found = SCALE.match(name)
            weight = f"{found[1]}weight" if found else ""
            if self.dtypes.get(weight) not in FP8 or not known.get(found[1], True):
                continue
            rows = self.shapes[weight][0] if len(self.shapes[weight]) == 2 else 1
            if self.dtypes[name] in DTYPES and prod(self.shapes[name]) in (1, rows):
                self._scales[weight] = self._read[name]
                self._forget(name)
        for name in list(self.shapes):
            stem = name[: name.rfind(".") + 1]
            if MARK.search(name) and known.get(stem, True) and f"{stem}weight_scale" not in self.shapes:
                self._forget(name)

    def _told_formats(self) -> dict[str, Any]:
        """The format of each layer that names one, in the file's metadata or in a tensor of bytes."""
        told: dict[str, Any] = {}
        try:
            layers = json.loads(self.metadata.get(QUANTIZATION_KEY, "{}")).get("layers", {})
            told |= {f"{layer}.": about.get("format") for layer, about in layers.items()}
            for name in self.shapes:
                size = prod(self.shapes[name])
                if name.endswith("comfy_quant") and self.dtypes[name] in ("U8", "torch.uint8") and size <= MOST_TOLD:
                    about = json.loads(bytes(self._stored(name).tolist()))
                    told[name.removesuffix("comfy_quant")] = about.get("format", "")
        except (ValueError, AttributeError, RecursionError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{self.path}: what it says about its quantization is no JSON ({error}).") from error
        return told

    def _forget(self, name: str) -> None:
        del self.shapes[name], self.dtypes[name], self._read[name]


def find_weight_file(path: str | Path) -> Path:
    """``path`` itself if it is a file; of a model folder, its weight file or shard index.

    That is the one of a published name, else the only weight file there is.

    Raises:
        CheckpointError: nothing there.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in WEIGHT_NAMES:
        for suffix in (".safetensors", f".safetensors{INDEX}", ".bin", f".bin{INDEX}"):
            if (path / (name + suffix)).is_file():
                return path / (name + suffix)
    others = [f for f in path.iterdir() if f.suffix in (*SAFETENSORS, GGUF) and not f.name.startswith("silence_latent")]
    if len(others) == 1:
        return others[0]
    raise CheckpointError(f"{path} holds no weight file (looked for {', '.join(WEIGHT_NAMES)}.safetensors).")


@contextmanager
def open_weights(path: str | Path, parts: Iterable[str] = ()) -> Iterator[Weights]:
    """Open the weights at ``path``: a file, a shard index, or a folder that holds either.

    With ``parts``, such as ``("transformer/", "vae/")``, the weights of these sub-folders where they exist,
    each tensor named ``part/name``.

    Raises:
        CheckpointError: no such file, truncated or damaged file, missing shards, or a pickle that holds
            anything but tensors.
    """
    path = Path(path)
    places = [(part, find_weight_file(path / part)) for part in parts if (path / part).is_dir()]
    places = places or [("", find_weight_file(path))]
    weights = Weights(path if len(places) > 1 else places[0][1])
    with ExitStack() as stack:
        for prefix, place in places:
            for file in weight_parts(place):
                weights.files.append(file)
                if file.suffix in SAFETENSORS:
                    _add_safetensors(weights, prefix, file, stack)
                elif file.suffix == GGUF:
                    _add_gguf(weights, prefix, file)
                else:
                    _add_pickle(weights, prefix, file)
        weights.join_scales()
        yield weights


def _add_safetensors(weights: Weights, prefix: str, file: Path, stack: ExitStack) -> None:
    tensors, metadata = safetensors_header(file)
    weights.metadata.update(metadata)
    try:
        reader = stack.enter_context(safe_open(str(file), framework="pt", device="cpu"))
    except Exception as error:  # of the format's library, which names no kinds
        raise CheckpointError(f"{file} is damaged: {error}. Download it again.") from error
    for name, (dtype, shape) in tensors.items():
        weights.add(prefix + name, shape, dtype, partial(reader.get_tensor, name))


def _add_gguf(weights: Weights, prefix: str, file: Path) -> None:
    header = gguf_header(file)
    odd = [(name, stored.type) for name, stored in header.tensors.items() if stored.type not in (*PLAIN, *BLOCKS)]
    if odd:
        raise CheckpointError(
            f"{file} holds {odd[0][0]} as {odd[0][1]} ({len(odd)} tensors are of a type that is not read). Read are "
            f"{', '.join((*PLAIN, *BLOCKS))}, which is what files named Q8_0, Q6_K, Q5_K_M and Q4_K_M hold: take one "
            "of those."
        )
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(
            f"{file} is a GGUF file, and reading those needs the package gguf: run `pip install gguf` with the Python "
            f"of your ComfyUI ({sys.executable} -m pip install gguf), then start again."
        ) from error
    try:
        reader = gguf.GGUFReader(file, "c")
    except Exception as error:  # of the format's library, which names no kinds
        raise CheckpointError(f"{file} is damaged: {error}. Download it again.") from error
    weights.metadata[CONFIG_KEY] = header.config
    for tensor in reader.tensors:
        stored = header.tensors[tensor.name]
        weights.add(prefix + tensor.name, stored.shape, stored.type, partial(_gguf_tensor, tensor.data, stored))
        if stored.type in BLOCKS and stored.by_rows:
            weights._by_rows.add(prefix + tensor.name)


def _gguf_tensor(data: Any, stored: Stored) -> Tensor:
    """The mapped tensor: blocks as bytes [..., bytes], other types with their shape."""
    tensor = torch.from_numpy(data)
    if stored.type in BLOCKS:
        return tensor
    return (tensor.view(torch.bfloat16) if stored.type == "BF16" else tensor).view(stored.shape)


def _add_pickle(weights: Weights, prefix: str, file: Path) -> None:
    state = load_pickle(file)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(k, str) and _is_plain(v) for k, v in state.items()):
        raise CheckpointError(f"{file} is not a state dict of tensors.")
    for name, tensor in state.items():
        weights.add(prefix + name, tensor.shape, _NAMES.get(tensor.dtype, str(tensor.dtype)), tensor.detach)


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def load_pickle(file: Path) -> object:
    """The content of a PyTorch file, tensors and plain containers only."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds something other than tensors and was not opened, because opening it could run code. "
            "Take a .safetensors file from a source you trust."
        ) from error
    except Exception as error:  # torch raises many kinds for damaged input
        raise CheckpointError(f"{file} is damaged or not a PyTorch file: {error}") from error
