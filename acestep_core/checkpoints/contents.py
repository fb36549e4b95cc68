"""Which parts of ACE-Step 1.5 a weight file holds, told from its tensor names and shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path

from .header import HeaderError, safetensors_header, shard_index, torch_file_names

Shapes = Mapping[str, tuple[int, ...] | None]
"""Shapes by tensor name; None where the file tells only names."""

DIT_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "")
VAE_PREFIXES = ("", "vae.")
LYRIC_KEY = "encoder.lyric_encoder.layers.0.input_layernorm.weight"
DIFFUSERS_KEYS = ("layers.0.scale_shift_table", "proj_in_conv.weight")

TEXT_VOCABULARY = range(151_643, 151_936)
"""Rows of the embedding model's table: 151669 as published. Plain Qwen3 models, which are not ours, have 151936."""
LM_VOCABULARY = range(151_937, 218_000)
"""Rows of a language model with audio codes: 217204 as published."""
TEXT_WIDTH = 1024
"""Width of the published embedding model. Wider ones with the same vocabulary are other models; narrower ones are
small models of this family, such as the demo's."""
LATENT_CHANNELS = 64
HOP = 1920
"""Samples a latent frame: tells this VAE from Stable Audio's, whose keys are the same and hop is 2048."""

_QWEN_PART = re.compile(r"(|model\.|text_encoders\.([^.]+)\.transformer\.(?:model\.)?)embed_tokens\.weight")
_AIO_TAGS = {"qwen3_06b": "text", "qwen3_2b": "lm", "qwen3_4b": "lm"}
_AUDIO_CODE = b"<|audio_code_0|>"

_known: dict[tuple[str, int, int, str | None], frozenset[str] | HeaderError] = {}


def components_in(path: Path, name_hint: str | None = None) -> frozenset[str]:
    """Components (``"dit"``, ``"text"``, ``"vae"``, ``"lm"``) a weight file holds; empty for other models.

    Only headers are read, and remembered until the file's size or time changes.

    Args:
        path: ``.safetensors``, a pickle of torch, or the index of a sharded model.
        name_hint: the component its name speaks of; asked only where shapes and tokenizer leave open
            which of the two Qwen3 models it is, as in small test models.

    Raises:
        HeaderError: unreadable, damaged, with parts missing, or of an unsupported format.
    """
    path = Path(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror or error}.") from error
    key = (str(path), stat.st_size, stat.st_mtime_ns, name_hint)
    if key not in _known:
        try:
            _known[key] = _identify(shapes_in(path), path, name_hint)
        except HeaderError as error:
            if path.name.endswith(".index.json"):  # its parts may still be on their way
                raise
            _known[key] = error
    found = _known[key]
    if isinstance(found, HeaderError):
        raise HeaderError(str(found))
    return found


def shapes_in(path: Path) -> dict[str, tuple[int, ...] | None]:
    """Shapes of all tensors of a file, or of the model whose index it is; None where only names are told.

    Raises:
        HeaderError: as :func:`components_in`.
    """
    name = path.name
    if name.endswith(".safetensors.index.json"):
        wanted, shapes = shard_index(path), {}
        for part in sorted(set(wanted.values())):
            if not (path.parent / part).is_file():
                raise HeaderError(f"{path} names {part}, which is not beside it. Download the missing part.")
            shapes.update({tensor: shape for tensor, (_, shape) in safetensors_header(path.parent / part)[0].items()})
        lost = [tensor for tensor in wanted if tensor not in shapes]
        if lost:
            raise HeaderError(
                f"{path} names tensors that its parts lack, first {lost[0]!r}. Download the folder again."
            )
        return shapes
    if name.endswith(".bin.index.json"):
        wanted = shard_index(path)
        for part in sorted(set(wanted.values())):
            if not (path.parent / part).is_file():
                raise HeaderError(f"{path} names {part}, which is not beside it. Download the missing part.")
        return dict.fromkeys(wanted)
    if name.endswith((".safetensors", ".sft")):
        return {tensor: shape for tensor, (_, shape) in safetensors_header(path)[0].items()}
    if name.endswith((".bin", ".pt", ".pth", ".ckpt")):
        return dict.fromkeys(torch_file_names(path))
    raise HeaderError(f"{path} is of a format that cannot be loaded; use the .safetensors file of the model.")


def _identify(shapes: Shapes, path: Path, name_hint: str | None) -> frozenset[str]:
    found = set()
    if any(prefix + LYRIC_KEY in shapes for prefix in DIT_PREFIXES) or all(key in shapes for key in DIFFUSERS_KEYS):
        found.add("dit")
    if any(_is_vae(shapes, prefix) for prefix in VAE_PREFIXES):
        found.add("vae")
    for name in shapes:
        part = _QWEN_PART.fullmatch(name)
        if part and f"{part[1]}layers.0.self_attn.q_norm.weight" in shapes:
            found.add(_qwen(shapes[name], path, _AIO_TAGS.get(part[2], name_hint)))
    return frozenset(found - {""})


def _is_vae(shapes: Shapes, prefix: str) -> bool:
    """Whether the decoder takes 64 channels and makes 1920 samples of each frame."""
    first = _weight(shapes, f"{prefix}decoder.conv1", f"{prefix}decoder.layers.0")
    ups = [
        _weight(shapes, f"{prefix}decoder.block.{block}.conv_t1", f"{prefix}decoder.layers.{block + 1}.layers.1")
        for block in range(5)
    ]
    if first is None or None in ups:
        return False
    if () in (first, *ups):
        return True
    return first[1:2] == (LATENT_CHANNELS,) and prod(kernel[-1] // 2 for kernel in ups) == HOP


def _weight(shapes: Shapes, *modules: str) -> tuple[int, ...] | None:
    """Shape of a convolution, weight norm folded or not; () where unknown, None where there is none."""
    for module in modules:
        for suffix in ("weight_v", "parametrizations.weight.original1", "weight"):
            if f"{module}.{suffix}" in shapes:
                return shapes[f"{module}.{suffix}"] or ()
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
        rows = json.loads((folder / "config.json").read_bytes()).get("vocab_size", 0)
    except (OSError, ValueError, AttributeError, RecursionError):
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
