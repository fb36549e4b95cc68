"""What a weight file says about itself, read without loading it: names, dtypes and shapes.

Every reader here is for files from strangers. It reads a bounded number of bytes, runs nothing, and
answers a damaged or hostile file with :class:`CheckpointError` and nothing else.
"""

from __future__ import annotations

import json
import os
import pickletools
import struct
import zipfile
from math import prod
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 100_000_000
"""Largest header read, the limit of the safetensors format itself."""

SAFETENSORS = (".safetensors", ".sft")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
WEIGHT_NAMES = ("model", "diffusion_pytorch_model", "pytorch_model")
"""What weight files in the original and diffusers folders are called; the folder says which model."""
GGUF = ".gguf"
INDEX = ".index.json"
"""Endings of weight files that are read, and of the index of a sharded model."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element, by safetensors dtype name."""

Tensors = dict[str, tuple[str, tuple[int, ...]]]


class CheckpointError(ValueError):
    """A file is damaged, incomplete, or not the model it should be. The message names the file and the reason."""


def safetensors_header(path: str | os.PathLike) -> tuple[Tensors, dict[str, str]]:
    """Header of one safetensors file: ``{name: (dtype, shape)}`` and the metadata.

    dtype is the format's name, such as ``"BF16"``. The whole layout is checked: every tensor lies inside
    the file, has the bytes its shape needs, and touches its neighbours without gap or overlap.

    Raises:
        CheckpointError: unreadable, truncated, not safetensors, or inconsistent.
    """
    path = Path(path)
    header, data_bytes = _read_header(path)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad(path, "its __metadata__ is not a table of strings")
    tensors: Tensors = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(path, name, entry)
        if end > data_bytes:
            raise CheckpointError(
                f"{path} is truncated: tensor {name!r} ends at byte {end} of the data, of which only {data_bytes} "
                "are there. The download or copy was cut short; fetch the file again."
            )
        tensors[name] = (dtype, shape)
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            kind = "overlaps the one before it" if begin < position else "leaves a gap before it"
            raise _bad(path, f"tensor {name!r} {kind}")
        position = end
    if position != data_bytes:
        raise _bad(path, f"{data_bytes - position} bytes follow the last tensor")
    return tensors, metadata


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The table in a JSON file, such as a configuration or a shard index.

    Raises:
        CheckpointError: unreadable, too large, not JSON, or not a table.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise _bad(path, "it is too large")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise _bad(path, "it is not JSON") from error
    if not isinstance(content, dict):
        raise _bad(path, "it is not a JSON object")
    return content


def shard_index(path: str | os.PathLike) -> dict[str, str]:
    """Which file holds which tensor, from a ``*.index.json``: ``{name: file name}``.

    File names are plain: an index that points out of its own folder is refused.

    Raises:
        CheckpointError: unreadable, not an index, or pointing elsewhere.
    """
    path = Path(path)
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise _bad(path, "it has no weight_map")
    if not all(isinstance(file, str) for file in shards.values()):
        raise _bad(path, "its weight_map does not map names to file names")
    for file in set(shards.values()):
        if file != os.path.basename(file) or "\\" in file or file in ("", ".", "..") or "\0" in file:
            raise _bad(path, f"it points to {file!r}; the parts must lie in the same folder")
    return shards


def weight_parts(path: str | os.PathLike) -> list[Path]:
    """The files that make up the model at ``path``: itself, or the parts its index names. All are there.

    Raises:
        CheckpointError: a file is missing or of a format that is not read, or as :func:`shard_index`.
    """
    path = Path(path)
    is_index = path.name.endswith(INDEX)
    names = sorted(set(shard_index(path).values())) if is_index else [path.name]
    parts = [path.parent / name for name in names]
    for part in parts:
        if part.suffix not in (*SAFETENSORS, *PICKLES, GGUF):
            raise CheckpointError(f"{part}: this format is not read. Take the .safetensors file of the same model.")
    missing = [part.name for part in parts if not part.is_file()]
    if missing and is_index:
        raise CheckpointError(
            f"{path.parent} lacks {len(missing)} of {len(parts)} parts: {', '.join(missing)}. Download them again."
        )
    if missing:
        raise CheckpointError(f"{path} does not exist.")
    return parts


def torch_file_names(path: str | os.PathLike) -> set[str]:
    """Strings inside the pickle of a ``torch.save`` file, tensor names among them. Nothing is unpickled.

    Raises:
        CheckpointError: not a file of ``torch.save`` (zip form), or damaged.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.rpartition("/")[2] == "data.pkl"]
            if len(entries) != 1 or entries[0].file_size > MAX_HEADER_BYTES // 4:
                raise _bad(path, "it holds no readable data.pkl")
            with archive.open(entries[0]) as stream:
                pickled = stream.read(MAX_HEADER_BYTES // 4)
        return {argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)}
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # zipfile and pickletools raise many kinds for damaged input
        raise _bad(path, f"it is not a file of torch.save ({error})") from error


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            if len(prefix) < 8:
                raise CheckpointError(
                    f"{path} is truncated: {size} bytes are too few for a safetensors file. Fetch it again."
                )
            (length,) = struct.unpack("<Q", prefix)
            if length > MAX_HEADER_BYTES:
                raise _bad(path, f"it announces a header of {length} bytes, more than the {MAX_HEADER_BYTES} allowed")
            if length > size - 8:
                raise CheckpointError(
                    f"{path} is truncated: its header has {length} bytes, the file only {size}. Fetch it again."
                )
            raw = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not raw.startswith(b"{"):
        raise _bad(path, "its header is not JSON")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"its header is not valid JSON ({str(error)[:80]})") from error
    return header, size - 8 - length


def _entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, first and end byte of one tensor, each checked."""
    if not isinstance(entry, dict):
        raise _bad(path, f"the entry of {name!r} is not a table")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _bad(path, f"tensor {name!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not _counts(shape):
        raise _bad(path, f"the shape of {name!r} is not a list of sizes")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(path, f"the data_offsets of {name!r} are not a range")
    begin, end = offsets
    if (end - begin) * 8 != prod(shape) * BITS[dtype]:
        raise _bad(path, f"tensor {name!r} of {dtype} {shape} does not fit its {end - begin} bytes")
    return dtype, tuple(shape), begin, end


def _counts(values: Any) -> bool:
    """Whether this is a short list of sizes; a long one would only serve to keep the machine busy."""
    return isinstance(values, list) and len(values) <= 16 and all(type(n) is int and 0 <= n < 1 << 63 for n in values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


def _bad(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a usable weight file: {reason}. Fetch it again from where it was published.")
