"""From files to handles: build on ``meta``, then put each tensor in place in the wanted precision.

>>> from acestep_core.checkpoints import loading
>>> model = loading.load_diffusion_model("models/acestep/acestep-v15-turbo")
>>> print(model.report.text())

Peak memory is the size of the loaded weights: where the precision of the file is kept, the weights are
the mapped file itself.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import tokenizer as tokenizers
from ..host import Host, current
from ..models.acestep import AceStepModel
from ..models.config import REAL_FSQ_LEVELS, ModelConfig
from ..models.oobleck import OobleckConfig, OobleckVAE
from ..models.qwen3 import LM_SIZES, Qwen3, Qwen3Config
from .handles import KINDS, Autoencoder, DiffusionModel, LanguageModel, LoadReport, TextEncoder
from .header import HeaderError as CheckpointError
from .layouts import DIFFUSERS_PARTS, SILENCE, Plan, plan_dit, plan_qwen3, plan_vae, refuse_quantized
from .weights import PLAIN_DTYPES, Weights, find_weight_file, load_pickle, open_weights

OPTIONAL_PARTS = ("tokenizer.", "detokenizer.")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_dtype(wanted: str | torch.dtype | None, component: str, host: Host) -> torch.dtype | None:
    """``auto`` → what suits the device; ``file`` or None → keep the file's; a name or dtype → itself."""
    if isinstance(wanted, torch.dtype) or wanted in (None, "file"):
        return wanted if isinstance(wanted, torch.dtype) else None
    if wanted == "auto":
        return host.dtype(component)
    if wanted not in DTYPES:
        raise ValueError(f"Unknown precision {wanted!r}: choose auto, file, {', '.join(DTYPES)}.")
    return DTYPES[wanted]


def load_diffusion_model(
    path: str | Path,
    *,
    kind: str = "auto",
    dtype: str | torch.dtype | None = "auto",
    host: Host | None = None,
) -> DiffusionModel:
    """Load a diffusion checkpoint in any published layout.

    Args:
        path: weight file, shard index, original folder, or diffusers folder (its root or its transformer file).
        kind: turbo, sft, base, or auto: told from config.json, else from the file or folder name.
        dtype: auto, file, fp32, bf16, fp16 or a torch dtype.

    The handle's ``silence`` is None where the layout carries none (ComfyUI files): see
    :func:`codec.with_silence`.

    Raises:
        CheckpointError: what is wrong with the file, and which keys.
    """
    host = host or current()
    if kind not in ("auto", *KINDS):
        raise ValueError(f"Unknown kind {kind!r}: choose auto, {', '.join(KINDS)}.")
    path = Path(path)
    root = _diffusers_root(path)
    with open_weights(path) if root is None else _open_diffusers(root) as weights:
        plan = plan_dit(weights.shapes)
        config_path = _config_beside(path) if root is None else None
        config = _read_config(config_path) if config_path else _diffusers_config(root) if root else None
        shapes = {ours: weights.shapes[names[0]] for ours, names in plan.sources.items()}
        try:
            sizes = ModelConfig.from_json(config) if config else ModelConfig.from_shapes(shapes)
        except KeyError as error:
            raise CheckpointError(f"{path} is incomplete: tensor {error} is missing. Download it again.") from error
        notes: list[str] = []
        kind, note = (kind, "") if kind != "auto" else _guess_kind(config or {}, path if root is None else root)
        notes += [note] if note else []
        with torch.device("meta"):
            module = AceStepModel(sizes)
        absent = [p for p in OPTIONAL_PARTS if root and not any(k.startswith(p) for k in plan.sources)]
        for part in absent:
            setattr(module, part[:-1], None)
        if absent:
            notes.append("No audio tokenizer in this folder: codes and quantized covers are not available.")
        silence = _silence_in(weights, plan, sizes.audio_acoustic_hidden_dim)
        target = resolve_dtype(dtype, "dit", host)
        report = _fill(module, weights, plan, target, "dit", kind, path, host, notes)
    if silence is None:
        silence = _silence_beside(path if path.is_dir() else path.parent, sizes.audio_acoustic_hidden_dim)
    return DiffusionModel(module, kind, silence, report)


def load_text_encoder(
    path: str | Path, *, dtype: str | torch.dtype | None = "auto", host: Host | None = None
) -> TextEncoder:
    """Load Qwen3-Embedding-0.6B from its folder, a ComfyUI file, or the all-in-one checkpoint."""
    host, path = host or current(), Path(path)
    module, report = _load_qwen3(path, "text", dtype, host)
    tokenizer = tokenizers.load(_tokenizer_folder(path))
    _check_vocabulary(tokenizer, module, path)
    return TextEncoder(module, tokenizer, report)


def load_language_model(
    path: str | Path, *, dtype: str | torch.dtype | None = "auto", host: Host | None = None
) -> LanguageModel:
    """Load a 5 Hz language model from its folder, a ComfyUI file, or the all-in-one checkpoint."""
    host, path = host or current(), Path(path)
    module, report = _load_qwen3(path, "lm", dtype, host)
    folder = _tokenizer_folder(path)
    codes = 0 if folder else module.config.vocab_size - tokenizers.load(None).vocab_size
    tokenizer = tokenizers.load(folder, audio_codes=codes) if codes else tokenizers.load(folder)
    _check_vocabulary(tokenizer, module, path)
    widths = {sizes.hidden_size: name for name, sizes in LM_SIZES.items()}
    return LanguageModel(module, tokenizer, report, widths.get(module.config.hidden_size, ""))


def load_vae(path: str | Path, *, dtype: str | torch.dtype | None = "auto", host: Host | None = None) -> Autoencoder:
    """Load the autoencoder from its folder, a ComfyUI file, or the all-in-one checkpoint."""
    host, path = host or current(), Path(path)
    path = path / "vae" if (path / "vae").is_dir() else path
    with open_weights(path) as weights:
        plan = plan_vae(weights.shapes)
        config_path = _config_beside(path)
        shapes = {ours: weights.shapes[names[-1]] for ours, names in plan.sources.items()}
        try:
            config = _read_config(config_path) if config_path and plan.layout == "diffusers" else None
            sizes = OobleckConfig.from_json(config) if config else OobleckConfig.from_shapes(shapes)
        except KeyError as error:
            raise CheckpointError(f"{path} is incomplete: tensor {error} is missing. Download it again.") from error
        with torch.device("meta"):
            module = OobleckVAE(sizes)
        target = resolve_dtype(dtype, "vae", host)
        report = _fill(module, weights, plan, target, "vae", "", path, host, [])
    return Autoencoder(module, report)


def _fill(
    module: nn.Module,
    weights: Weights,
    plan: Plan,
    dtype: torch.dtype | None,
    component: str,
    kind: str,
    path: Path,
    host: Host,
    notes: Iterable[str],
) -> LoadReport:
    """Check names and shapes of everything, then put the tensors in place one by one."""
    parameters = dict(module.named_parameters())
    missing = sorted(set(parameters) - set(plan.sources))
    unexpected = sorted(set(plan.sources) - set(parameters) - {SILENCE})
    used = [name for ours in parameters if ours in plan.sources for name in plan.sources[ours]]
    refuse_quantized([*used, *(n for u in unexpected for n in plan.sources[u])], weights.dtypes, PLAIN_DTYPES)
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of {len(parameters)} tensors: {', '.join(missing[:5])}"
            f"{', …' if len(missing) > 5 else ''}. The download is incomplete or this is another model."
        )
    misshapen = [
        f"{ours} is {list(weights.shapes[plan.sources[ours][-1]])}, expected {list(parameter.shape)}"
        for ours, parameter in parameters.items()
        if not _fits(weights.shapes[plan.sources[ours][-1]], parameter)
    ]
    if misshapen:
        raise CheckpointError(
            f"{path} does not fit its configuration: {'; '.join(misshapen[:4])}"
            f"{f' and {len(misshapen) - 4} more' if len(misshapen) > 4 else ''}."
        )
    bar = host.progress(len(parameters), f"loading {path.name}", "tensor")
    for done, (ours, parameter) in enumerate(parameters.items(), start=1):
        place(module, ours, _make(weights, plan.sources[ours], parameter.shape, dtype))
        if done % 32 == 0 or done == len(parameters):
            bar.update(done)
    module.eval().requires_grad_(False)
    stored = Counter(weights.dtypes[name] for name in used).most_common(1)[0][0]
    held = next(iter(module.parameters())).dtype
    return LoadReport(
        component,
        tuple(str(f) for f in weights.files),
        plan.layout,
        kind,
        stored,
        str(held).removeprefix("torch."),
        len(parameters),
        (),
        tuple(unexpected),
        tuple(notes),
    )


def _fits(shape: tuple[int, ...], parameter: Tensor) -> bool:
    return shape == tuple(parameter.shape) or (len(shape) == 1 and shape == (parameter.numel(),))


def _make(weights: Weights, names: tuple[str, ...], shape: torch.Size, dtype: torch.dtype | None) -> Tensor:
    if len(names) == 1:
        tensor = weights.read(names[0]).view(shape)
        return tensor if dtype is None else tensor.to(dtype)
    g, v = (weights.read(name) for name in names)
    return fold_weight_norm(g, v).to(v.dtype if dtype is None else dtype)


def fold_weight_norm(g: Tensor, v: Tensor) -> Tensor:
    """g·v/‖v‖ with the norm over all dimensions but the first, in float32."""
    v = v.float()
    norm = torch.linalg.vector_norm(v, dim=tuple(range(1, v.dim())), keepdim=True)
    return v * (g.float().view_as(norm) / norm)


def place(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Make ``tensor`` the parameter ``name`` of ``module`` without copying it."""
    owner_name, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner_name), leaf, nn.Parameter(tensor, requires_grad=False))


def _load_qwen3(path: Path, component: str, dtype: str | torch.dtype | None, host: Host) -> tuple[Qwen3, LoadReport]:
    path = path / "text_encoder" if (path / "text_encoder").is_dir() else path
    with open_weights(path) as weights:
        plan = plan_qwen3(weights.shapes, component)
        shapes = {ours: weights.shapes[names[0]] for ours, names in plan.sources.items()}
        config_path = _config_beside(path) if "all-in-one" not in plan.layout else None
        try:
            sizes = Qwen3Config.from_json(_read_config(config_path)) if config_path else Qwen3Config.from_shapes(shapes)
        except KeyError as error:
            raise CheckpointError(f"{path} is incomplete: tensor {error} is missing. Download it again.") from error
        with torch.device("meta"):
            module = Qwen3(sizes)
        target = resolve_dtype(dtype, component, host)
        report = _fill(module, weights, plan, target, component, "", path, host, [])
    return module, report


def _tokenizer_folder(path: Path) -> Path | None:
    folder = path if path.is_dir() else path.parent
    for candidate in (folder, folder / "tokenizer", folder.parent / "tokenizer"):
        if (candidate / "tokenizer.json").is_file() or (candidate / "merges.txt").is_file():
            return candidate
    return None


def _check_vocabulary(tokenizer: tokenizers.Tokenizer, module: Qwen3, path: Path) -> None:
    if tokenizer.vocab_size > module.config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer knows {tokenizer.vocab_size} tokens but the model only {module.config.vocab_size}. "
            "The tokenizer files beside the model belong to another model."
        )


def _config_beside(path: Path) -> Path | None:
    """config.json of a model folder. A lone file in a shared folder has none."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    weight = find_weight_file(config.parent)
    return config if config.is_file() and weight is not None and (path.is_dir() or weight == path) else None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return config


def _diffusers_root(path: Path) -> Path | None:
    for folder in (path, path.parent.parent if path.parent.name == "transformer" else path):
        if (folder / "transformer").is_dir() and (folder / "condition_encoder").is_dir():
            return folder
    return None


class _open_diffusers:
    """The parts of a diffusers folder as one set of weights named ``part/name``."""

    def __init__(self, root: Path):
        self.root, self._open = root, []

    def __enter__(self) -> Weights:
        together = Weights()
        for part in DIFFUSERS_PARTS:
            if (self.root / part).is_dir():
                manager = open_weights(self.root / part)
                together.add(manager.__enter__(), part)
                self._open.append(manager)
        return together

    def __exit__(self, *error: object) -> None:
        for manager in reversed(self._open):
            manager.__exit__(None, None, None)


def _diffusers_config(root: Path) -> dict[str, Any]:
    """One original-style configuration from the parts' own."""

    def part(name: str) -> dict[str, Any]:
        file = root / name / "config.json"
        return _read_config(file) if file.is_file() else {}

    decoder, encoder, tokens = part("transformer"), part("condition_encoder"), part("audio_tokenizer")
    config = {**encoder, **tokens, **decoder}
    config["fsq_dim"] = encoder.get("hidden_size", decoder.get("hidden_size"))
    config["fsq_input_levels"] = tokens.get("fsq_input_levels", tokens.get("levels", list(REAL_FSQ_LEVELS)))
    config["text_hidden_dim"] = encoder.get("text_hidden_dim", 1024)
    if decoder.get("encoder_hidden_size") not in (None, decoder.get("hidden_size")):
        for name in ("intermediate_size", "num_attention_heads", "num_key_value_heads"):
            config[f"encoder_{name}"] = encoder.get(name)
    else:
        config["encoder_hidden_size"] = None
    return config


def _guess_kind(config: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """Kind of a checkpoint and, where it had to be guessed, a note that says so."""
    name = path.name if path.is_dir() else f"{path.parent.name}/{path.name}"
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    named = next((kind for kind in KINDS if kind in words), None)
    turbo = config.get("is_turbo")
    if turbo or (turbo is None and named):
        return "turbo" if turbo else str(named), ""
    if turbo is False:
        candidates = (named, config.get("model_version"), "base")
        return next(str(c) for c in candidates if c in ("sft", "base")), ""
    if config.get("model_version") in KINDS:
        return config["model_version"], ""
    return "turbo", (
        "Neither the configuration nor the name tells turbo, sft or base; turbo was assumed. "
        "If the music is noise, choose the kind on the loader."
    )


def _silence_in(weights: Weights, plan: Plan, channels: int) -> Tensor | None:
    names = plan.sources.get(SILENCE)
    return _orient_silence(weights.read(names[0]), channels) if names else None


def _silence_beside(folder: Path, channels: int) -> Tensor | None:
    """The silence latent in the model's own folder, as tensors or as a PyTorch file."""
    file = folder / f"{SILENCE}.safetensors"
    if file.is_file():
        with open_weights(file) as weights:
            return _orient_silence(weights.read(next(iter(weights.shapes))), channels)
    file = folder / f"{SILENCE}.pt"
    return _orient_silence(load_pickle(file), channels) if file.is_file() else None


def _orient_silence(tensor: object, channels: int) -> Tensor:
    """[1, C, T] (original), [1, T, C] (diffusers) or [T, C] → [T, C] float32."""
    if not isinstance(tensor, Tensor) or tensor.dim() not in (2, 3) or channels not in tensor.shape[-2:]:
        raise CheckpointError(
            f"The silence latent is not a tensor of [1, {channels}, frames]. Download silence_latent.pt again."
        )
    tensor = tensor.reshape(tensor.shape[-2:])
    return (tensor if tensor.shape[1] == channels else tensor.T).float().contiguous()
