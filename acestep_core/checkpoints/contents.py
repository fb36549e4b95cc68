"""Which parts of ACE-Step 1.5 a weight file holds, told from its tensor names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from .gguf_header import gguf_header
from .header import (
    GGUF,
    INDEX,
    SAFETENSORS,
    CheckpointError,
    read_json,
    safetensors_header,
    shard_index,
    torch_file_names,
    weight_parts,
)
from .layouts import (
    DIFFUSERS_MARKS,
    DIT_MARK,
    DIT_PREFIXES,
    QWEN_MARK,
    QWEN_PREFIXES,
    STABLE_AUDIO,
    VAE_MARK,
    VAE_PREFIXES,
    WEIGHT_NORM,
)

Shapes = Mapping[str, tuple[int, ...] | None]
"""Shapes by tensor name; None where the file tells only names."""

TEXT_VOCABULARY = range(151_643, 151_936)
"""Rows of the embedding model's table: 151669 as published. Plain Qwen3 models, which are not ours, have 151936."""
LM_VOCABULARY = range(151_937, 218_000)
"""Rows of a language model with audio codes: 217204 as published."""
TEXT_WIDTH = 1024
"""Width of the published embedding model. Wider ones with the same vocabulary are other models; narrower ones are
small models of this family, such as the nano ones."""
LATENT_CHANNELS = 64
HOP = 1920
"""Samples a latent frame: tells this VAE from Stable Audio's, whose keys are the same and hop is 2048."""

_AUDIO_CODE = b"<|audio_code_0|>"

_known: dict[tuple[tuple, str | None], frozenset[str] | CheckpointError] = {}


def components_in(path: Path, name_hint: str | None = None) -> frozenset[str]:
    """Components (``"dit"``, ``"text"``, ``"vae"``, ``"lm"``) a weight file holds; empty for other models.

    Only headers are read, and remembered until a file's size or time changes.

    Args:
        path: ``.safetensors``, ``.gguf``, a pickle of torch, or the index of a sharded model.
        name_hint: the component its name speaks of; asked only where shapes and tokenizer leave open
            which of the two Qwen3 models it is, as in small test models.

    Raises:
        CheckpointError: unreadable, damaged, with parts missing, or of an unsupported format.
    """
    path = Path(path)
    files = {path, *weight_parts(path)}
    try:
        stamps = tuple(sorted((str(file), (s := file.stat()).st_size, s.st_mtime_ns) for file in files))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    key = (stamps, name_hint)
    if key not in _known:
        try:
            _known[key] = identify(shapes_in(path), path, name_hint)
        except CheckpointError as error:
            _known[key] = CheckpointError(str(error))  # the caught one holds every frame that led here
    found = _known[key]
    if isinstance(found, CheckpointError):
        raise CheckpointError(str(found))
    return found


def shapes_in(path: Path) -> dict[str, tuple[int, ...] | None]:
    """Shapes of all tensors of a file, or of the model whose index it is; None where only names are told.

    Raises:
        CheckpointError: as :func:`components_in`.
    """
    shapes: dict[str, tuple[int, ...] | None] = {}
    for part in weight_parts(path):
        if part.suffix in SAFETENSORS:
            shapes.update({tensor: shape for tensor, (_, shape) in safetensors_header(part)[0].items()})
        elif part.suffix == GGUF:
            shapes.update({tensor: stored.shape for tensor, stored in gguf_header(part).tensors.items()})
        else:
            shapes.update(dict.fromkeys(torch_file_names(part)))
    lost = [tensor for tensor in shard_index(path) if tensor not in shapes] if path.name.endswith(INDEX) else []
    if lost:
        raise CheckpointError(
            f"{path} names tensors that its parts lack, first {lost[0]!r}. Download the folder again."
        )
    return shapes


def identify(shapes: Shapes, path: Path, name_hint: str | None = None) -> frozenset[str]:
    """Components among tensors of the weight file ``path``; arguments and answer as :func:`components_in`."""
    found = set()
    if any(prefix + DIT_MARK in shapes for prefix in DIT_PREFIXES) or all(mark in shapes for mark in DIFFUSERS_MARKS):
        found.add("dit")
    if any(_is_vae(shapes, prefix) for prefix in VAE_PREFIXES):
        found.add("vae")
    for prefix, owner in QWEN_PREFIXES.items():
        if prefix + QWEN_MARK in shapes and f"{prefix}embed_tokens.weight" in shapes:
            found.add(_qwen(shapes[f"{prefix}embed_tokens.weight"], path, owner or name_hint))
    return frozenset(found - {""})


def _is_vae(shapes: Shapes, prefix: str) -> bool:
    """Whether the decoder takes 64 channels and makes 1920 samples of each frame."""
    first, *ups = (
        _weight(shapes, prefix, module) for module in (VAE_MARK, *(f"decoder.block.{n}.conv_t1" for n in range(5)))
    )
    while ups and ups[-1] is None:
        ups.pop()
    if first is None or not ups or None in ups:
        return False
    if () in (first, *ups):
        return True
    return first[1:2] == (LATENT_CHANNELS,) and prod(kernel[-1] // 2 for kernel in ups) == HOP


def _weight(shapes: Shapes, prefix: str, module: str) -> tuple[int, ...] | None:
    """Shape of a convolution, weight norm folded or not; () where unknown, None where there is none."""
    for spelling in (module, STABLE_AUDIO[module]):
        for suffix in ("weight", *(suffix for suffix, kind in WEIGHT_NORM.items() if kind == "v")):
            if f"{prefix}{spelling}.{suffix}" in shapes:
                return shapes[f"{prefix}{spelling}.{suffix}"] or ()
    return None


def _qwen(embedding: tuple[int, ...] | None, path: Path, name_hint: str | None) -> str:
    """``"text"``, ``"lm"``, or ``""`` for a Qwen3 that is neither of ours."""
    rows, width = embedding if embedding and len(embedding) == 2 else (_configured_rows(path.parent), None)
    if rows in TEXT_VOCABULARY:
        return "text" if width is None or width <= TEXT_WIDTH else ""
    if rows in LM_VOCABULARY:
        return "lm"
    if rows >= TEXT_VOCABULARY.stop:
        return ""
    has_codes = _tokenizer_has_codes(path.parent)
    if has_codes is not None:
        return "lm" if has_codes else "text"
    return name_hint if name_hint in ("text", "lm") else "text"


def _configured_rows(folder: Path) -> int:
    try:
        rows = read_json(folder / "config.json").get("vocab_size")
    except CheckpointError:
        return 0
    return rows if isinstance(rows, int) else 0


def _tokenizer_has_codes(folder: Path) -> bool | None:
    """Whether the tokenizer beside the weights knows audio codes; None where there is no tokenizer."""
    seen = False
    for name in ("added_tokens.json", "tokenizer.json", "tokenizer_config.json"):
        try:
            text = (folder / name).read_bytes()
        except OSError:
            continue
        if _AUDIO_CODE in text:
            return True
        seen = True
    return False if seen else None
