"""What a GGUF file says about itself: names, types and shapes of its tensors, and its configuration.

As the readers of :mod:`header`, for files from strangers: bounded, without the package ``gguf``, and answering a
damaged file with :class:`CheckpointError` alone. Format: github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from .header import MAX_HEADER_BYTES, CheckpointError

CONFIG = "acestep.config_json"
"""Metadata under which acestep.cpp keeps the config.json of a model."""
OWN_SHAPE = "comfy.gguf.orig_shape."
"""Metadata, followed by a tensor's name, of files whose tensors were reshaped before they were packed."""

PLAIN = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}
"""Types of one weight each, with its bytes."""
BLOCKS = {
    "Q8_0": (32, 34), "Q6_K": (256, 210), "Q5_K": (256, 176), "Q4_K": (256, 144),
    "Q5_0": (32, 22), "Q5_1": (32, 24), "Q4_0": (32, 18), "Q4_1": (32, 20),
}  # fmt: skip
"""Packed types that are read: weights in a block, and its bytes."""

_TYPES = {
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1"))),
    **dict(enumerate(("Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"), 6)),
    **dict(enumerate(("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS"), 16)),
    **dict(enumerate(("I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"), 24)),
    **{34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"},
}
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the scalar kinds of metadata, by their number in the format."""
_STRING, _ARRAY, _UINT32, _INT32 = 8, 9, 4, 5
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class Stored:
    """One tensor: its type by name, its shape as PyTorch counts, and whether its blocks go by rows of that shape."""

    type: str
    shape: tuple[int, ...]
    by_rows: bool = True


@dataclass
class GGUFHeader:
    tensors: dict[str, Stored] = field(default_factory=dict)
    config: str = "{}"


class _Cursor:
    """Reads the first bytes of a file one after the other."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.at = path, data, 0

    def take(self, count: int) -> bytes:
        self.skip(count)
        return self.data[self.at - count : self.at]

    def skip(self, count: int) -> None:
        if self.at + count > len(self.data):
            raise CheckpointError(f"{self.path} is truncated within its header. Fetch it again.")
        if self.at + count > MAX_HEADER_BYTES:
            raise _bad(self.path, f"its header has more than the {MAX_HEADER_BYTES} bytes allowed")
        self.at += count

    def number(self, form: str) -> int:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        raw = self.take(self.number("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _bad(self.path, "a text in its header is not UTF-8") from error

    def skip_value(self, kind: int) -> None:
        if kind in _WIDTHS:
            self.skip(_WIDTHS[kind])
        elif kind == _STRING:
            self.skip(self.number("Q"))
        elif kind == _ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner in _WIDTHS:
                self.skip(_WIDTHS[inner] * count)
            elif inner == _STRING:
                for _ in range(count):
                    self.skip(self.number("Q"))
            else:
                raise _bad(self.path, "its metadata holds lists of an unknown kind")
        else:
            raise _bad(self.path, f"its metadata holds the unknown kind {kind}")


def gguf_header(path: str | os.PathLike) -> GGUFHeader:
    """Tensors and configuration of one GGUF file; every tensor of a type that is read lies inside the file.

    Raises:
        CheckpointError: unreadable, truncated, not GGUF, of another version, or inconsistent.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise _bad(path, "it does not begin as a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(_Cursor(path, data))
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _read(cursor: _Cursor) -> GGUFHeader:
    path = cursor.path
    cursor.skip(4)
    version = cursor.number("I")
    if version not in (2, 3):
        raise _bad(path, f"it is of version {version}; versions 2 and 3 are read, written little-endian")
    tensor_count, value_count = cursor.number("Q"), cursor.number("Q")
    found, alignment, own_shapes = GGUFHeader(), 32, {}
    for _ in range(value_count):
        key, kind = cursor.text(), cursor.number("I")
        if key == CONFIG and kind == _STRING:
            found.config = cursor.text()
        elif key == "general.alignment" and kind == _UINT32:
            alignment = cursor.number("I")
        elif key.startswith(OWN_SHAPE) and kind == _ARRAY:
            own_shapes[key.removeprefix(OWN_SHAPE)] = _whole_numbers(cursor)
        else:
            cursor.skip_value(kind)
    if not 0 < alignment <= 1 << 16:
        raise _bad(path, f"its alignment is {alignment}")
    spans = [_tensor(cursor, found, own_shapes) for _ in range(tensor_count)]
    start = -(-cursor.at // alignment) * alignment
    for name, end in spans:
        if start + end > len(cursor.data):
            raise CheckpointError(
                f"{path} is truncated: tensor {name!r} ends at byte {start + end} of a file of {len(cursor.data)}. "
                "The download or copy was cut short; fetch the file again."
            )
    return found


def _whole_numbers(cursor: _Cursor) -> tuple[int, ...]:
    inner, count = cursor.number("I"), cursor.number("Q")
    if inner not in (_UINT32, _INT32) or count > _MAX_DIMENSIONS:
        raise _bad(cursor.path, "a shape in its metadata is not a short list of whole numbers")
    return tuple(cursor.number("i") for _ in range(count))


def _tensor(cursor: _Cursor, found: GGUFHeader, own_shapes: dict[str, tuple[int, ...]]) -> tuple[str, int]:
    """Add the next tensor to ``found``; its name and its end in the data, 0 where its type is not read."""
    path, name, dimensions = cursor.path, cursor.text(), cursor.number("I")
    if dimensions > _MAX_DIMENSIONS:
        raise _bad(path, f"tensor {name!r} has {dimensions} dimensions")
    packed = tuple(reversed([cursor.number("Q") for _ in range(dimensions)]))
    number, offset = cursor.number("I"), cursor.number("Q")
    kind = _TYPES.get(number, f"type {number}")
    if name in found.tensors:
        raise _bad(path, f"tensor {name!r} stands twice")
    shape = own_shapes.get(name, packed)
    if prod(shape) != prod(packed):
        raise _bad(path, f"the shape {list(shape)} of tensor {name!r} does not go with {list(packed)}")
    found.tensors[name] = Stored(kind, shape, shape == packed)
    if kind in PLAIN:
        return name, offset + prod(packed) * PLAIN[kind]
    if kind not in BLOCKS:
        return name, 0
    weights, width = BLOCKS[kind]
    if not packed or packed[-1] % weights:
        raise _bad(
            path, f"rows of tensor {name!r} {list(packed)} are no whole blocks of {kind}, {weights} weights each"
        )
    return name, offset + prod(packed) // weights * width


def _bad(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a usable GGUF file: {reason}. Fetch it again from where it was published.")
