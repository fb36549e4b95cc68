"""Reading adapters: any published file or folder becomes one :class:`Adapter`.

>>> from acestep_core.lora import formats
>>> adapter = formats.read_adapter("models/loras/jazz.safetensors", model.config)
>>> print(adapter.text())

Names and shapes are checked against the model from the header alone; only then tensors are read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.header import PICKLES, SAFETENSORS, CheckpointError, read_json
from ..checkpoints.weights import DTYPES, Weights, open_weights
from ..models.config import ModelConfig
from .adapter import Adapter, AdapterReport, Change, Form, Full, Hadamard, Kron, LowRank
from .folders import CONFIG, FOLDER_FILES
from .layers import Layers
from .names import parse
from .scales import Recipe, diffusers_recipe, recipe

ABOUT = ("base_model", "ss_base_model_version", "tag", "tag_position", "trigger_word", "steps", "date")
"""Metadata that is shown to the user where a file has it."""

FORMS = (
    ("down", "up"),
    ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("diff",),
)
"""Parts that belong together. A layer has parts of one of these."""
TUCKER = "it is part of a convolution's change in Tucker form, which is not read"


def read_adapter(path: str | Path, config: ModelConfig, *, name: str = "", alpha: float | None = None) -> Adapter:
    """Read the adapter at ``path`` for a model of the sizes ``config``.

    Args:
        path: a file (.safetensors; .bin and .pt if they hold tensors alone), or a folder of PEFT.
        name: what to call it; "" for the file's own name.
        alpha: use this alpha for every layer instead of what the file says.

    Raises:
        CheckpointError: damaged, no adapter, of another model, or of another width; says which.
    """
    path = Path(path)
    if alpha is not None and not (math.isfinite(alpha) and abs(alpha) < 1e9):
        raise ValueError(f"alpha is {alpha}; allowed is any finite number, usually the rank or twice the rank.")
    file = weight_file(path)
    with open_weights(file) as weights:
        found = _sorted(weights, Layers(config), path)
        forms = {layer: _checked(layer, parts, found, weights) for layer, parts in found.parts.items()}
        _check_fit(path, forms, found.layers)
        known, source = _recipe(path, file, weights)
        changes = {
            layer: _change(layer, parts, weights, found.layers.kernels.get(layer, 1), known, alpha)
            for layer, parts in found.parts.items()
            if forms[layer]
        }
        notes = _notes(changes, found, known, source, alpha)
        about = {key: weights.metadata[key][:200] for key in ABOUT if weights.metadata.get(key)}
        layout = _layout(path, found, weights)
    matched = tuple(key for parts in found.parts.values() for key in parts.values())
    report = AdapterReport((str(file),), layout, matched, tuple(found.unmatched), about, notes)
    name = name or (path.name if path.is_dir() else path.stem)
    return Adapter(name, changes, config.hidden_size, report, _sha256(file))


def weight_file(path: Path) -> Path:
    """The file that holds the tensors of the adapter at ``path``.

    Raises:
        CheckpointError: nothing there, or the state of a training run.
    """
    if path.is_dir():
        inner = [folder / name for folder in (path, path / "adapter") for name in FOLDER_FILES]
        file = next((f for f in inner if f.is_file()), None)
        if file is None:
            raise CheckpointError(f"{path} holds no adapter (looked for {', '.join(FOLDER_FILES)}).")
        return file
    if path.suffix in PICKLES and (path.stem == "training_state" or path.stem.endswith("_checkpoint")):
        raise CheckpointError(
            f"{path} is the state of a training run, not an adapter. Take the .safetensors file saved beside it."
        )
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    if path.suffix not in (*SAFETENSORS, *PICKLES):
        raise CheckpointError(f"{path}: adapters of this format are not read. Take its .safetensors file.")
    return path


@dataclass
class _Sorted:
    """The names of a file, sorted: ``parts`` is layer → part → name, ``tucker`` the layers with a middle part."""

    layers: Layers
    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    tucker: list[str] = field(default_factory=list)
    unmatched: list[tuple[str, str]] = field(default_factory=list)


def _sorted(weights: Weights, layers: Layers, path: Path) -> _Sorted:
    found = _Sorted(layers)
    adapters: dict[str, str] = {}
    for name in weights.shapes:
        key = parse(name)
        layer, reason = (None, "it is no part of an adapter") if key is None else layers.find(key.stem)
        if layer is None or key is None:
            found.unmatched.append((name, reason))
            continue
        if key.part == "tucker":
            found.tucker.append(layer)
            found.unmatched.append((name, TUCKER))
            continue
        if key.adapter and adapters.setdefault(key.adapter, name) and len(adapters) > 1:
            raise CheckpointError(f"{path} holds several adapters ({', '.join(adapters)}). Save them as one file each.")
        parts = found.parts.setdefault(layer, {})
        if key.part in parts:
            raise CheckpointError(f"{path}: {parts[key.part]} and {name} are the same tensor under two names.")
        parts[key.part] = name
    for layer in found.tucker:
        found.unmatched += [(name, TUCKER) for name in found.parts.pop(layer, {}).values()]
    return found


def _checked(layer: str, parts: dict[str, str], found: _Sorted, weights: Weights) -> Form | None:
    """The form of a layer's tensors by their shapes alone (on ``meta``).

    None for a layer that has parts beside a change but no change, which then count as unmatched.
    """
    for part, name in parts.items():
        if part in ("alpha", "scalar"):
            if prod(weights.shapes[name]) != 1:
                raise CheckpointError(f"{weights.path}: {name} is {list(weights.shapes[name])}, not a single number.")
        elif weights.dtypes[name] not in DTYPES:
            raise CheckpointError(f"{weights.path}: {name} is {weights.dtypes[name]}; read are {', '.join(DTYPES)}.")
    kernel = found.layers.kernels.get(layer, 1)
    kinds = [form for form in FORMS if any(part in parts for part in form)]
    if len(kinds) > 1:
        raise CheckpointError(f"{weights.path}: {layer} has {' and '.join(parts)}, which are of different formats.")
    if not kinds:
        reason = "there is no low-rank pair that it belongs to"
        found.unmatched += [(name, reason) for name in parts.values()]
        parts.clear()
        return None
    empty = {part: torch.empty(weights.shapes[name], device="meta") for part, name in parts.items()}
    try:
        meta = {part: _flat(part, tensor, kernel) for part, tensor in empty.items()}
        form = _form(meta, parts)
        if form.shape == found.layers.shapes[layer]:
            Change(form, 1.0, _magnitude(meta, form, kernel), _bias(meta, 1.0), kernel)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{weights.path}: {layer} is damaged: {error}. Get or save the file again.") from error
    rank, most = max(len(chain[-1]) for chain in form.chains()), max(form.shape)
    if rank > most:
        raise CheckpointError(
            f"{weights.path}: {layer} has rank {rank}; in a layer of {form.shape[0]} × {form.shape[1]} at most {most} "
            "makes sense. This is no usable adapter."
        )
    return form


def _form(parts: Mapping[str, Tensor], names: Mapping[str, str]) -> Form:
    """Tensors of one layer → the form they make. Raises ValueError where some are missing or do not fit."""

    def need(part: str) -> Tensor:
        if part not in parts:
            have = next(name for key, name in names.items() if any(key in form for form in FORMS))
            partner = {"down": "lora_A (lora_down)", "up": "lora_B (lora_up)"}.get(part, part)
            raise ValueError(f"there is {have} but no {partner}")
        return parts[part]

    def whole_or_pair(stem: str) -> tuple[Tensor, ...]:
        if stem in parts:
            if f"{stem}_a" in parts or f"{stem}_b" in parts:
                raise ValueError(f"there is {stem} both whole and as a pair")
            return (parts[stem],)
        if f"{stem}_a" not in parts and f"{stem}_b" not in parts:
            raise ValueError(f"there is no {stem}")
        return need(f"{stem}_a"), need(f"{stem}_b")

    if "down" in parts or "up" in parts:
        return LowRank(need("up"), need("down"))
    if "diff" in parts:
        return Full(parts["diff"])
    if any(part.startswith("lokr") for part in parts):
        return Kron(whole_or_pair("lokr_w1"), whole_or_pair("lokr_w2"))
    return Hadamard((need("hada_w1_a"), need("hada_w1_b")), (need("hada_w2_a"), need("hada_w2_b")))


def _check_fit(path: Path, forms: Mapping[str, Form | None], layers: Layers) -> None:
    """Raise where nothing matched, or where shapes are those of another model."""
    made = {layer: form.shape for layer, form in forms.items() if form}
    if not made:
        raise CheckpointError(
            f"{path} is no adapter for ACE-Step 1.5: none of its tensors changes a layer of the decoder. "
            "Choose an adapter that was trained on ACE-Step 1.5."
        )
    layers.require(str(path), made)


def _recipe(path: Path, file: Path, weights: Weights) -> tuple[Recipe | None, str]:
    """What is known of scales beside the tensors, and where that stands.

    A configuration beside a lone file counts where the file has PEFT's own name or no other weight file is there.
    """
    config = file.parent / CONFIG
    own = path.is_dir() or file.name in FOLDER_FILES
    if config.is_file() and (own or not any(f != file and f.suffix == file.suffix for f in file.parent.iterdir())):
        return recipe(read_json(config), str(config)), str(config)
    return diffusers_recipe(weights.metadata, str(file)), "the header"


def _change(
    layer: str, parts: Mapping[str, str], weights: Weights, kernel: int, known: Recipe | None, alpha: float | None
) -> Change:
    """Read the tensors of one layer."""
    tensors = {part: _flat(part, _read(weights, name), kernel) for part, name in parts.items()}
    form = _form(tensors, parts)
    rank = form.rank
    if alpha is not None and rank is not None:
        scale = alpha / rank
    elif "alpha" in tensors:
        scale = 1.0 if rank is None else float(tensors["alpha"]) / rank
    elif known is not None and not isinstance(form, Full):
        scale = known.scale(layer, rank)
    else:
        scale = 1.0
    if "scalar" in tensors:
        scale *= float(tensors["scalar"])
    return Change(form, scale, _magnitude(tensors, form, kernel), _bias(tensors, scale), kernel)


def _flat(part: str, tensor: Tensor, kernel: int) -> Tensor:
    """A part of a convolution's change as the matrix it stands for; parts of linear layers as they are."""
    joined = part in ("down", "diff", "lokr_w2") or (part == "up" and tensor.shape[-1:] == (1,))
    return tensor.flatten(1) if kernel > 1 and joined and tensor.dim() == 3 else tensor


def _magnitude(tensors: Mapping[str, Tensor], form: Form, kernel: int) -> Tensor | None:
    found = tensors.get("magnitude")
    if found is not None and (kernel > 1 or found.dim() == 1):
        found = found.flatten()
        return found[:, None] if kernel == 1 or len(found) == form.shape[0] else found[None]
    return found


def _bias(tensors: Mapping[str, Tensor], scale: float) -> Tensor | None:
    """``diff_b`` as it stands; the bias of lora_B at the pair's scale."""
    scaled = tensors.get("up_bias")
    return tensors.get("bias") if scaled is None else scaled * scale


def _read(weights: Weights, name: str) -> Tensor:
    """A copy in memory: a file that is overwritten later must not change what was loaded."""
    tensor = weights.read(name).clone()
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(
            f"{weights.path}: {name} has NaN or infinite numbers. Training went wrong; take an earlier checkpoint."
        )
    return tensor


def _notes(
    changes: Mapping[str, Change], found: _Sorted, known: Recipe | None, source: str, alpha: float | None
) -> tuple[str, ...]:
    factored = [layer for layer, change in changes.items() if change.rank is not None]
    silent = [layer for layer in factored if "alpha" not in found.parts[layer]]
    notes = list(known.notes if known else ())
    if alpha is not None and factored:
        notes.append(f"Alpha {alpha:g} was given and replaces the file's own.")
    elif silent and known is None:
        notes.append(
            "The file does not say its alpha, so alpha = rank is taken (scale 1). If it was trained with another "
            f"alpha, put its {CONFIG} beside it or give the alpha; alpha = 2 · rank is twice as strong."
        )
    elif silent and source.endswith(CONFIG):
        notes.append(f"Alpha is taken from {source}.")
    if found.tucker:
        layers = ", ".join(dict.fromkeys(found.tucker))
        notes.append(
            f"What it changes in {layers} is left out: it is in Tucker form (a middle part), which is not read."
        )
    if all(change.is_zero() for change in changes.values()):
        notes.append("It changes nothing: every difference in it is zero.")
    return tuple(notes)


def _layout(path: Path, found: _Sorted, weights: Weights) -> str:
    if path.is_dir() and (weights.path.parent / CONFIG).is_file():
        return "PEFT folder"
    first = next(name for parts in found.parts.values() for name in parts.values())
    alphas = any("alpha" in parts for parts in found.parts.values())
    if first.startswith("lycoris_"):
        return "LyCORIS file"
    if first.startswith(("lora_unet_", "lora_transformer_")):
        return "kohya file"
    if first.startswith("transformer."):
        return "diffusers file"
    return "PEFT file" if first.startswith("base_model.") and not alphas else "ComfyUI file"


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
