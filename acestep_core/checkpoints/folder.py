"""What lies beside the weights: configuration, tokenizer files, silence latent, the parts of a diffusers folder.

Only data is read: ``auto_map`` and the Python files of a published folder are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .handles import KINDS
from .header import CheckpointError, read_json
from .layouts import SILENCE
from .weights import find_weight_file, load_pickle, open_weights

_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files that make a tokenizer."""


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a model folder; empty where there is none, as for a lone file in a shared folder."""
    folder = path if path.is_dir() else path.parent
    file = folder / "config.json"
    return read_json(file) if file.is_file() and _belongs(path, folder) else {}


def _belongs(path: Path, folder: Path) -> bool:
    """Whether what lies in ``folder`` is about the weights at ``path``, not about one of several files there."""
    try:
        return path == folder or find_weight_file(folder) == path
    except CheckpointError:
        return False


def tokenizer_folder(path: Path) -> Path | None:
    """The folder with tokenizer files of the model at ``path``; None where it brings none.

    In a folder of several files, such as ComfyUI's ``text_encoders``, they are nobody's.
    """
    folder = path if path.is_dir() else path.parent
    if not _belongs(path, folder):
        return None
    for candidate in (folder, folder / "tokenizer", folder.parent / "tokenizer"):
        if any(all((candidate / name).is_file() for name in names) for names in _TOKENIZERS):
            return candidate
    return None


def diffusers_root(path: Path) -> Path | None:
    """The diffusers folder that ``path``, its root or its transformer file, stands for."""
    root = path.parent.parent if path.parent.name == "transformer" and not path.is_dir() else path
    return root if (root / "transformer").is_dir() and (root / "condition_encoder").is_dir() else None


def diffusers_config(root: Path) -> dict[str, Any]:
    """One original-style configuration from the parts' own; empty where the transformer has none."""
    parts = ("transformer", "condition_encoder", "audio_tokenizer")
    decoder, encoder, tokens = (read_config(root / part) for part in parts)
    if not decoder:
        return {}
    config = {**encoder, **tokens, **decoder, "encoder_hidden_size": None}
    config["fsq_dim"] = tokens.get("fsq_dim", encoder.get("hidden_size"))
    if encoder.get("hidden_size") not in (None, decoder.get("hidden_size")):
        for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
            config[f"encoder_{name}"] = encoder.get(name)
    return config


def kind_of(config: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """turbo, sft or base, from the configuration, the name of the file and then that of its folder; a note if it was
    guessed.

    ``model_version`` counts only where it says sft or base: every published configuration may say turbo.
    """
    path = path.absolute()
    names = (path.name,) if path.is_dir() else (path.name, path.parent.name)
    words = [set(re.split(r"[^a-z0-9]+", name.lower())) for name in names]
    named = next((kind for some in words for kind in KINDS if kind in some), None)
    told = next((kind for kind in KINDS[1:] if config.get("model_version") == kind), None)
    turbo = config.get("is_turbo")
    if turbo:
        return "turbo", ""
    if turbo is False:
        return (named if named in KINDS[1:] else told or "base"), ""
    if named or told:
        return named or told, ""
    return "turbo", (
        "Neither the configuration nor the name tells turbo, sft or base; turbo was assumed. "
        "If the music is noise, choose the kind on the loader."
    )


def silence_beside(path: Path, channels: int) -> Tensor | None:
    """The silence latent in the model's own folder, as tensors or as a PyTorch file."""
    folder = path if path.is_dir() else path.parent
    file = folder / f"{SILENCE}.safetensors"
    if file.is_file():
        with open_weights(file) as weights:
            if len(weights.shapes) != 1:
                raise CheckpointError(f"{file} does not hold one tensor.")
            return orient_silence(weights.read(*weights.shapes), channels, file)
    file = folder / f"{SILENCE}.pt"
    return orient_silence(load_pickle(file), channels, file) if file.is_file() else None


def orient_silence(tensor: object, channels: int, file: Path) -> Tensor:
    """[1, C, T] (original), [1, T, C] (diffusers) or [T, C] → [T, C] float32."""
    fits = (
        isinstance(tensor, Tensor)
        and tensor.is_floating_point()
        and channels in tensor.shape[-2:]
        and (tensor.dim() == 2 or (tensor.dim() == 3 and tensor.shape[0] == 1))
    )
    if not fits or not tensor.numel() or not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(
            f"{file}: the silence latent is not a tensor [1, {channels}, frames] of finite numbers. Download it again."
        )
    tensor = tensor.reshape(tensor.shape[-2:])
    return (tensor if tensor.shape[1] == channels else tensor.T).float().contiguous()
