"""Writing adapters: one file for ComfyUI, a folder for PEFT, or LoKr as LyCORIS writes it.

>>> from acestep_core.lora import writing
>>> writing.write_file(adapter, "models/loras/jazz.safetensors", about={"tag": "jzz"})
>>> writing.write_peft(adapter, "models/loras/jazz")
>>> writing.write_lycoris(lokr, "models/loras/jazz/lokr_weights.safetensors")

All are written beside their place and moved there whole, so that a broken write leaves nothing half done.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .adapter import Adapter, Change, Hadamard, Kron, LowRank
from .formats import CONFIG, FOLDER_FILES

PREFIX = "base_model.model."
"""Before every layer: the spelling of the original trainers, which ComfyUI, PEFT and diffusers know."""
LYCORIS_PREFIX = "lycoris_"
LOKR_FILE = "lokr_weights.safetensors"
"""What the original calls a LoKr in a folder of its own."""


def write_file(
    adapter: Adapter,
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    about: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one .safetensors file, with an alpha for every layer, so that it is as loud anywhere as here.

    Args:
        dtype: of the tensors; None for what they have. Alphas and the magnitudes of DoRA are always float32: what
            was learned of a magnitude is a small part of it, which fewer bits would round away.
        about: further metadata, such as base_model, tag, steps, date.

    Raises:
        FileExistsError: ``path`` is there and ``overwrite`` is not set.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path.name} must end with .safetensors.")
    _require_free(path, overwrite)
    tensors: dict[str, Tensor] = {}
    for layer, change in adapter.changes.items():
        tensors |= {f"{PREFIX}{layer}.{part}": tensor for part, tensor in _parts(change, dtype).items()}
    metadata = {"format": "pt", "adapter": ", ".join(adapter.kinds), "base_width": str(adapter.width)}
    metadata |= {"rank": ", ".join(f"{r}" for r in adapter.ranks), "alpha": ", ".join(f"{a:g}" for a in adapter.alphas)}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(path)
    try:
        fresh.write_bytes(save(tensors, metadata | {str(k): str(v) for k, v in (about or {}).items()}))
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return path


def write_peft(
    adapter: Adapter, folder: str | Path, *, dtype: torch.dtype | None = None, overwrite: bool = False
) -> Path:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which PEFT and the original load.

    ``dtype`` as in :func:`write_file`.

    Raises:
        ValueError: an adapter of another form than LoRA or DoRA, or with biases.
        FileExistsError: ``folder`` is there and ``overwrite`` is not set.
    """
    folder = Path(folder)
    config = peft_config(adapter)
    _require_free(folder, overwrite)
    tensors: dict[str, Tensor] = {}
    for layer, change in adapter.changes.items():
        stem = f"{PREFIX}{layer}"
        parts = _parts(change, dtype)
        tensors |= {f"{stem}.{part}": parts[part] for part in ("lora_A.weight", "lora_B.weight")}
        if change.magnitude is not None:
            flat = parts["dora_scale"].flatten()
            tensors[f"{stem}.lora_magnitude_vector"] = flat if change.kernel == 1 else flat[None, :, None]
    fresh = _beside(folder)
    fresh.mkdir(parents=True)
    try:
        (fresh / FOLDER_FILES[0]).write_bytes(save(tensors, {"format": "pt"}))
        (fresh / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        _put_in_place(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return folder


def write_lycoris(
    adapter: Adapter, path: str | Path, *, dtype: torch.dtype | None = None, overwrite: bool = False
) -> Path:
    """Write a LoKr as LyCORIS and the original trainer do, with the settings of the network in the header.

    ``dtype`` as in :func:`write_file`.

    Raises:
        ValueError: an adapter of another form, or with biases. FileExistsError: as :func:`write_file`.
    """
    path = Path(path)
    config = lokr_config(adapter)
    _require_free(path, overwrite)
    rank = torch.tensor(float(config["linear_dim"]))
    tensors: dict[str, Tensor] = {}
    for layer, change in adapter.changes.items():
        parts = {"alpha": rank, **_parts(change, dtype)}
        tensors |= {f"{LYCORIS_PREFIX}{layer.replace('.', '_')}.{part}": t.clone() for part, t in parts.items()}
    header = {"format": "lycoris", "algo": "lokr", "lokr_config": json.dumps(config, sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(path)
    try:
        fresh.write_bytes(with_sorted_header(save(tensors, header)))
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return path


def write_folder(adapter: Adapter, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a folder that plays anywhere: PEFT's, or for a LoKr, which PEFT writes differently, LyCORIS' file in one.

    Raises:
        ValueError, FileExistsError: as :func:`write_peft` and :func:`write_lycoris`.
    """
    if not all(isinstance(change.form, Kron) for change in adapter.changes.values()):
        return write_peft(adapter, folder, overwrite=overwrite)
    folder = Path(folder)
    _require_free(folder, overwrite)
    fresh = _beside(folder)
    try:
        write_lycoris(adapter, fresh / LOKR_FILE)
        _put_in_place(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return folder


def lokr_config(adapter: Adapter) -> dict[str, Any]:
    """The settings from which LyCORIS builds the network of a LoKr.

    A layer of which nothing is factored says its ``linear_dim`` as alpha, so that its scale is 1.

    Raises:
        ValueError: a change that is no LoKr, has a factored left matrix, or a bias.
    """
    splits = []
    for layer, change in adapter.changes.items():
        if not isinstance(change.form, Kron) or len(change.form.left) > 1 or change.bias is not None:
            what = "a bias" if change.bias is not None else change.kind
            raise ValueError(
                f"{adapter.name} has {what} for {layer}. LyCORIS' file of a LoKr holds LoKr alone, with a whole "
                "lokr_w1 and no bias. Write a ComfyUI file instead."
            )
        left, right = change.form.left[0], change.form.right
        splits.append((*left.shape, right[0].shape[0], right[-1].shape[1]))
    factored = [change for change in adapter.changes.values() if change.rank is not None]
    rank = _usual(change.rank for change in factored) if factored else max(max(c, d) for _, _, c, d in splits)
    even = all(_closest(a * c) == a and _closest(b * d) == b for a, b, c, d in splits)
    return {
        "linear_dim": rank,
        "linear_alpha": _whole(_usual(change.alpha for change in factored)) if factored else rank,
        "factor": -1 if even else max(max(a, b) for a, b, _, _ in splits),
        "decompose_both": False,
        "use_tucker": False,
        "use_scalar": False,
        "weight_decompose": any(change.magnitude is not None for change in adapter.changes.values()),
        "full_matrix": False,
        "bypass_mode": False,
        "rs_lora": False,
        "unbalanced_factorization": False,
        "target_modules": sorted({layer.rsplit(".", 1)[-1] for layer in adapter.changes}),
    }


def _closest(size: int) -> int:
    """The largest divisor of ``size`` that is not above its square root."""
    return next(number for number in range(math.isqrt(size), 0, -1) if size % number == 0)


def with_sorted_header(raw: bytes) -> bytes:
    """A .safetensors file with the names of its header in order, so that equal contents are equal files."""
    end = 8 + int.from_bytes(raw[:8], "little")
    text = json.dumps(json.loads(raw[8:end]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw[end:]


def peft_config(adapter: Adapter) -> dict[str, Any]:
    """The ``adapter_config.json`` of an adapter: the most frequent rank and alpha, and patterns for the others.

    Raises:
        ValueError: PEFT's LoRA has no place for a change of this adapter.
    """
    for layer, change in adapter.changes.items():
        by_columns = change.magnitude is not None and change.magnitude.shape[1] != 1
        if not isinstance(change.form, LowRank) or change.bias is not None or by_columns:
            what = "a bias" if change.bias is not None else "magnitudes of columns" if by_columns else change.kind
            raise ValueError(
                f"{adapter.name} has {what} for {layer}, which a PEFT folder of a LoRA cannot hold. "
                "Write a ComfyUI file instead."
            )
    weighted = {change.magnitude is not None for change in adapter.changes.values()}
    if len(weighted) > 1:
        raise ValueError(
            f"{adapter.name} is DoRA for some layers only, which a PEFT folder cannot say. "
            "Write a ComfyUI file instead."
        )
    ranks = {layer: change.rank for layer, change in adapter.changes.items()}
    alphas = {layer: change.alpha for layer, change in adapter.changes.items()}
    rank, alpha = _usual(ranks.values()), _usual(alphas.values())
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": "",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "target_modules": sorted(adapter.changes),
        "r": rank,
        "lora_alpha": _whole(alpha),
        "rank_pattern": {layer: value for layer, value in ranks.items() if value != rank},
        "alpha_pattern": {layer: _whole(value) for layer, value in alphas.items() if value != alpha},
        "use_dora": weighted == {True},
        "use_rslora": False,
    }


def _parts(change: Change, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of one layer by the ends of their names."""
    form, scale = change.form, change.scale
    if isinstance(form, LowRank):
        parts = {"lora_A.weight": form.down, "lora_B.weight": form.up}
    elif isinstance(form, Hadamard):
        names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        parts = dict(zip(names, (*form.first, *form.second), strict=True))
    elif isinstance(form, Kron):
        parts = {}
        for name, chain in (("lokr_w1", form.left), ("lokr_w2", form.right)):
            names = (name,) if len(chain) == 1 else (f"{name}_a", f"{name}_b")
            parts |= dict(zip(names, chain, strict=True))
    else:
        parts = {"diff": form.weight}
    if change.kernel > 1:
        parts = {name: _unjoined(name, tensor, change.kernel) for name, tensor in parts.items()}
    if change.rank is None and scale != 1:
        first = next(iter(parts))
        parts[first] = (parts[first].float() * scale).to(parts[first].dtype)
    if change.magnitude is not None:
        parts["dora_scale"] = change.magnitude if change.kernel == 1 else change.magnitude[..., None]
    if change.bias is not None:
        parts["diff_b"] = change.bias
    stored = {name: _stored(tensor, torch.float32 if name == "dora_scale" else dtype) for name, tensor in parts.items()}
    return stored if change.alpha is None else {**stored, "alpha": torch.tensor(change.alpha, dtype=torch.float32)}


def _unjoined(name: str, tensor: Tensor, kernel: int) -> Tensor:
    """A part of a convolution's change in the shape PEFT and ComfyUI expect."""
    if name in ("lora_A.weight", "diff"):
        return tensor.unflatten(1, (-1, kernel))
    return tensor[..., None] if name == "lora_B.weight" else tensor


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy of its own: safetensors refuses tensors that share memory."""
    return tensor.detach().to("cpu", dtype or tensor.dtype, copy=True).contiguous()


def _usual(values: Any) -> Any:
    return Counter(values).most_common(1)[0][0]


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _require_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already. Choose another name, or allow overwriting it.")


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}"


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Move a finished folder to its name; what it replaces goes only then, and only if it is an adapter."""
    if not folder.exists():
        os.replace(fresh, folder)
        return
    if not any((folder / name).is_file() for name in (CONFIG, LOKR_FILE)):
        raise FileExistsError(f"{folder} is no folder of an adapter and is not overwritten. Choose another name.")
    old = _beside(folder)
    os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old)
