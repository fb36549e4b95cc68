"""Weight files as one lookup: names, shapes, and tensors mapped from disk one at a time.

Reads ``.safetensors`` and PyTorch ``.bin`` files, single or sharded with an index; the latter only with
``weights_only=True``, so nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .header import INDEX, SAFETENSORS, CheckpointError, safetensors_header, weight_parts

WEIGHT_NAMES = ("model", "diffusion_pytorch_model", "pytorch_model")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What weights may be stored as, by the name in safetensors headers."""
CONFIG_KEY = "acestep_config"
"""Metadata of a lone safetensors file under which it may carry its config.json."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


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

    def read(self, name: str) -> Tensor:
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
    others = [f for f in path.iterdir() if f.suffix in SAFETENSORS and not f.name.startswith("silence_latent")]
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
                else:
                    _add_pickle(weights, prefix, file)
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
