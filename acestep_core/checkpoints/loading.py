"""From files to handles: build on ``meta``, then put each tensor in place in the wanted precision.

>>> from acestep_core.checkpoints import loading
>>> model = loading.load_diffusion_model("models/acestep/acestep-v15-turbo")
>>> print(model.report.text())

Peak memory is the size of the loaded weights: where the precision of the file is kept, the weights are
the mapped file itself, and where the decoder is wanted in INT8 or fp8 each matrix is quantized before the next is
read. Matrices that a file holds packed (fp8, GGUF) stay so, unless another precision is asked for by name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import tokenizer as tokenizers
from ..host import Host, current
from ..memory import precision, quantize
from ..memory.packed import pack_fp8, place_packed
from ..memory.precision import FP8, INT8
from ..models.acestep import AceStepModel
from ..models.config import ModelConfig
from ..models.oobleck import OobleckConfig, OobleckVAE
from ..models.qwen3 import LM_SIZES, Qwen3, Qwen3Config
from . import folder
from .catalog import state_of
from .contents import identify
from .handles import KINDS, Autoencoder, DiffusionModel, LanguageModel, LoadReport, TextEncoder
from .header import GGUF, CheckpointError
from .layouts import (
    ALL_IN_ONE,
    COMFY,
    DIFFUSERS_PARTS,
    GGUF_FILE,
    ORIGINAL,
    SILENCE,
    Plan,
    plan_dit,
    plan_qwen3,
    plan_vae,
    refuse_quantized,
    wrong_model,
)
from .weights import DTYPES, PACKED, Weights, open_weights
from .weights import FP8 as IN_FP8

OPTIONAL_PARTS = ("tokenizer", "detokenizer")
"""Parts that early diffusers folders lack."""
PADDED_TOKENS = 512
"""How many more tokens than its tokenizer knows a language model may embed; Qwen3 has 267."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZED = (INT8, FP8)
AS_STORED = ("auto", "file", None)
"""With these, packed matrices stay packed. What computes with them is as with ``auto``."""
_LAYER = re.compile(r"(.*\blayers\.)\d+\.")


def resolve_dtype(wanted: str | torch.dtype | None, component: str, host: Host) -> torch.dtype | None:
    """``auto`` → what suits the device; ``file`` or None → None; a name or dtype → itself."""
    if isinstance(wanted, torch.dtype) or wanted in (None, "file"):
        return wanted if isinstance(wanted, torch.dtype) else None
    if wanted == "auto" or (wanted in QUANTIZED and component == "dit"):
        return host.dtype(component)
    if wanted not in PRECISIONS:
        allowed = ", ".join(("auto", "file", *PRECISIONS, *(QUANTIZED if component == "dit" else ())))
        problem = (
            f"Only the diffusion model can be loaded as {wanted}"
            if wanted in QUANTIZED
            else f"Unknown precision {wanted!r}"
        )
        raise ValueError(f"{problem}: choose {allowed}.")
    return PRECISIONS[wanted]


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
        dtype: auto, fp32, bf16, fp16, a torch dtype, file (None) for what most of the file is stored as,
            ``int8``, which needs torchao, or ``fp8``. With auto and file the matrices of a quantized file stay as
            they are; of any other, auto is ``int8`` where the card is small (see :func:`precision.automatic`).

    The handle's ``silence`` is None where the layout carries none (ComfyUI files): see
    :func:`codec.with_silence`.

    Raises:
        CheckpointError: what is wrong with the file, and which keys.
        ValueError: an unknown kind or precision, or INT8 without torchao.
    """
    host = host or current()
    if dtype == INT8:
        quantize.require()
    if kind not in ("auto", *KINDS):
        raise ValueError(f"Unknown kind {kind!r}: choose auto, {', '.join(KINDS)}.")
    path, notes = Path(path), []
    resolve_dtype(dtype, "dit", host)
    root = folder.diffusers_root(path)
    with _opened(root or path, "dit", DIFFUSERS_PARTS if root else ()) as weights:
        plan = plan_dit(weights.shapes)
        config = folder.diffusers_config(root) if root else _config_of(path, plan)
        plan = _placed(plan, config, weights)
        if plan.layout == GGUF_FILE:
            config = config or weights.config()
        module = _build(AceStepModel, ModelConfig, weights, plan, config)
        packed = _packed_kinds(weights, plan)
        if dtype == "auto" and not packed:
            dtype, why = precision.automatic(host)
            if why:
                host.say(why)
                notes.append(why)
        if dtype == FP8 and packed and packed <= set(IN_FP8):
            dtype = "auto"
        absent = _drop_absent_parts(module, plan) if root else ()
        channels = module.config.audio_acoustic_hidden_dim
        inside = plan.sources.get(SILENCE)
        silence = (
            folder.orient_silence(weights.read(*inside), channels, weights.path)
            if inside
            else folder.silence_beside(root or path, channels)
        )
        told, note = folder.kind_of(config, root or path)
        notes += [note] if note and kind == "auto" else []
        if absent:
            notes.append("No audio tokenizer in this folder: codes and quantized covers are not available.")
        report = _fill(module, weights, plan, _wish(dtype, "dit", host, module), host)
        kind = told if kind == "auto" else kind
        report = replace(report, kind=kind, missing=absent, notes=(*notes, *report.notes))
    return DiffusionModel(module, kind, silence, report)


def load_text_encoder(
    path: str | Path, *, dtype: str | torch.dtype | None = "auto", host: Host | None = None
) -> TextEncoder:
    """Load Qwen3-Embedding-0.6B from its folder, a diffusers folder, a ComfyUI file, or the all-in-one checkpoint."""
    path = Path(path)
    path = path / "text_encoder" if (path / "text_encoder").is_dir() else path
    module, report = _load_qwen3(path, "text", dtype, host or current())
    return TextEncoder(module, _tokenizer_for(module, path), report)


def load_language_model(
    path: str | Path, *, dtype: str | torch.dtype | None = "auto", host: Host | None = None
) -> LanguageModel:
    """Load a 5 Hz language model from its folder, a ComfyUI file, or the all-in-one checkpoint."""
    path = Path(path)
    module, report = _load_qwen3(path, "lm", dtype, host or current())
    widths = {sizes.hidden_size: name for name, sizes in LM_SIZES.items()}
    tokenizer = _tokenizer_for(module, path, audio_codes=tokenizers.LM_AUDIO_CODES)
    return LanguageModel(module, tokenizer, report, widths.get(module.config.hidden_size, ""))


def load_vae(path: str | Path, *, dtype: str | torch.dtype | None = "auto", host: Host | None = None) -> Autoencoder:
    """Load the autoencoder from its folder, a diffusers folder, a ComfyUI file, or the all-in-one checkpoint."""
    host, path = host or current(), Path(path)
    resolve_dtype(dtype, "vae", host)
    path = path / "vae" if (path / "vae").is_dir() else path
    with _opened(path, "vae") as weights:
        plan = plan_vae(weights.shapes)
        config = _config_of(path, plan)
        module = _build(OobleckVAE, OobleckConfig, weights, plan, config)
        wish = _wish(dtype, "vae", host)
        return Autoencoder(module, _fill(module, weights, _placed(plan, config, weights), wish, host))


def _load_qwen3(path: Path, component: str, dtype: str | torch.dtype | None, host: Host) -> tuple[Qwen3, LoadReport]:
    resolve_dtype(dtype, component, host)
    with _opened(path, component) as weights:
        plan = plan_qwen3(weights.shapes, component)
        config = _config_of(path, plan)
        module = _build(Qwen3, Qwen3Config, weights, plan, config)
        wish = _wish(dtype, component, host)
        return module, _fill(module, weights, _placed(plan, config, weights), wish, host)


def _tokenizer_for(module: Qwen3, path: Path, audio_codes: int = 0) -> tokenizers.Tokenizer:
    """The tokenizer beside the weights, else the bundled one with ``audio_codes`` more tokens."""
    found = folder.tokenizer_folder(path)
    try:
        tokenizer = tokenizers.load(found, audio_codes=0 if found else audio_codes)
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    known, embedded = tokenizer.vocab_size, module.config.vocab_size
    if not embedded - PADDED_TOKENS <= known <= embedded:
        source = f"files in {found} know" if found else "of Qwen3 knows"
        number = f"only {embedded}" if known > embedded else embedded
        raise CheckpointError(
            f"{path}: the tokenizer {source} {known} tokens but the model {number}. Tokenizer and weights belong to "
            "different models. Put the model's own tokenizer files beside it, in a folder of its own."
        )
    return tokenizer


@contextmanager
def _opened(path: Path, component: str, parts: Iterable[str] = ()) -> Iterator[Weights]:
    """The weights at ``path``, which hold ``component``. Whatever is wrong with them is said with their path."""
    try:
        with open_weights(path, parts) as weights:
            held = {component} if parts else identify(weights.shapes, weights.path, component)
            if component not in held:
                raise wrong_model(component, weights.shapes, held)
            yield weights
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}.") from error


def _config_of(path: Path, plan: Plan) -> dict[str, Any]:
    return {} if plan.layout == ALL_IN_ONE else folder.read_config(path)


def _placed(plan: Plan, config: Mapping[str, Any], weights: Weights) -> Plan:
    """The plan with its layout told by the file or the folder where the names are those of several."""
    if weights.path.suffix == GGUF:
        return replace(plan, layout=GGUF_FILE)
    return replace(plan, layout=COMFY) if plan.layout == ORIGINAL and not config else plan


def _build(network: type, sizes: type, weights: Weights, plan: Plan, config: Mapping[str, Any]) -> Any:
    """The module without weights: sizes from the configuration beside the file or in it, else from the shapes."""
    refuse_quantized(plan, weights.dtypes)
    config = config or weights.config()
    try:
        shapes = {ours: weights.shapes[names[-1]] for ours, names in plan.sources.items()}
        found = sizes.from_json(config) if config else sizes.from_shapes(shapes)
        if any(count > len(shapes) for name, count in vars(found).items() if name.endswith("hidden_layers")):
            raise ValueError("it would have more layers than the file has tensors")
        return without_weights(network, found)
    except KeyError as error:
        raise CheckpointError(f"tensor {error} is missing. Download the file again") from error
    except (ValueError, TypeError, AttributeError, RuntimeError, LookupError, ArithmeticError) as error:
        source = "config.json" if config else "the shapes of its tensors"
        raise CheckpointError(f"no model can be built from {source} ({error})") from error


class _Unfilled(TorchFunctionMode):
    """Leaves out the random initialisation, which on ``meta`` does nothing but import PyTorch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def without_weights(network: type[nn.Module], config: Any) -> Any:
    """``network(config)`` on ``meta``: names and shapes, no memory."""
    with torch.device("meta"), _Unfilled():
        return network(config)


def _drop_absent_parts(module: AceStepModel, plan: Plan) -> tuple[str, ...]:
    """Take out the parts that the folder lacks; the names that are missing for them."""
    absent = [part for part in OPTIONAL_PARTS if not any(name.startswith(f"{part}.") for name in plan.sources)]
    missing = [name for name, _ in module.named_parameters() if name.partition(".")[0] in absent]
    for part in absent:
        setattr(module, part, None)
    return tuple(missing)


@dataclass(frozen=True)
class _Wish:
    """In which form the weights are wanted.

    Attributes:
        dtype: None for that of most of the file. computing: what goes with packed matrices where that is None.
        keep: whether packed matrices stay so. quantize: names of matrices to quantize to ``form``, the others stay.
    """

    component: str
    dtype: torch.dtype | None
    computing: torch.dtype
    keep: bool
    form: str = ""
    quantize: frozenset[str] = frozenset()


def _wish(wanted: str | torch.dtype | None, component: str, host: Host, module: AceStepModel | None = None) -> _Wish:
    """What the user wants. The planner keeps packed matrices only on demand: it unpacks them for every token."""
    keep = wanted in (AS_STORED if component != "lm" else ("file", None))
    form = wanted if wanted in QUANTIZED else ""
    chosen = quantize.int8_weights(module) if form else frozenset()
    return _Wish(component, resolve_dtype(wanted, component, host), host.dtype(component), keep, str(form), chosen)


def _packed_kinds(weights: Weights, plan: Plan) -> set[str]:
    """The packed forms in which a file holds this model; empty where it holds numbers."""
    return {weights.dtypes[name] for names in plan.sources.values() for name in names} & set(PACKED)


def _packable(module: nn.Module, weights: Weights, plan: Plan) -> Iterator[str]:
    """Names of the matrices of layers that a file holds packed. What is outside of layers is small, or read often."""
    for name, part in module.named_modules():
        weight = f"{name}.weight"
        if isinstance(part, nn.Linear) and _LAYER.match(weight) and weights.dtypes[plan.sources[weight][-1]] in PACKED:
            yield weight


def _fill(module: nn.Module, weights: Weights, plan: Plan, wish: _Wish, host: Host) -> LoadReport:
    """Check names, shapes and dtypes of everything, then put the tensors in place one by one.

    What is to be quantized is so as soon as it is in place.
    """
    parameters = dict(module.named_parameters())
    unexpected = sorted(set(plan.sources) - set(parameters) - {SILENCE})
    _check(parameters, unexpected, weights, plan)
    stored: Counter[str] = Counter()
    for ours in parameters:
        name = plan.sources[ours][-1]
        stored[weights.dtypes[name]] += prod(weights.shapes[name])
    order = [kind for kind, _ in stored.most_common()]
    file_dtype = ", ".join([kind for kind in order if kind in PACKED] or order[:1])
    notes = []
    if wish.dtype is None and len(stored) > 1 and not stored.keys() & set(PACKED):
        notes.append(f"The file mixes {', '.join(sorted(stored))}; all of it is kept as {file_dtype}.")
    dtype = wish.dtype or DTYPES.get(file_dtype, wish.computing)
    packable = frozenset(_packable(module, weights, plan))
    if packable and not wish.keep:
        notes.append(_unpacked(wish, file_dtype))
    forms: Counter[str] = Counter()
    bar = host.progress(len(parameters), f"loading {weights.path.name}", "tensor")
    for done, (ours, parameter) in enumerate(parameters.items(), start=1):
        packed = weights.packed(plan.sources[ours][-1]) if wish.keep and ours in packable else None
        if packed is None:
            place(module, ours, _make(weights, plan.sources[ours], parameter.shape, dtype))
        else:
            place_packed(module, ours, packed)
            forms[packed.form] += parameter.numel()
        if ours in wish.quantize:
            _quantizers[wish.form](module, ours)
            forms[wish.form] += parameter.numel()
        if done % 32 == 0 or done == len(parameters):
            bar.update(done)
    module.eval().requires_grad_(False)
    return LoadReport(
        component=wish.component,
        files=tuple(map(str, weights.files)),
        layout=plan.layout,
        kind="",
        file_dtype=file_dtype,
        dtype=f"{', '.join(form for form, _ in forms.most_common())} ({name_of(dtype)})" if forms else name_of(dtype),
        loaded=len(parameters),
        unexpected=tuple(unexpected),
        notes=tuple(notes),
        state="|".join(map(state_of, weights.files)),
    )


def _unpacked(wish: _Wish, form: str) -> str:
    if wish.form:
        return f"The file is quantized already ({form}); quantizing again adds to its error. Choose auto to keep it."
    if wish.component == "lm":
        return f"The {form} of the file are unpacked, which makes writing fast; precision file keeps them and is slow."
    return f"The {form} of the file are unpacked; precision auto keeps them, which takes less memory."


def _to_int8(module: nn.Module, name: str) -> None:
    quantize.quantize_linear(module.get_submodule(name.removesuffix(".weight")))


def _to_fp8(module: nn.Module, name: str) -> None:
    place_packed(module, name, pack_fp8(module.get_parameter(name)))


_quantizers: dict[str, Callable[[nn.Module, str], None]] = {INT8: _to_int8, FP8: _to_fp8}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check(parameters: Mapping[str, Tensor], unexpected: Iterable[str], weights: Weights, plan: Plan) -> None:
    """Raise where tensors are missing, misshapen, of no floating dtype, or of layers the configuration lacks."""
    missing = sorted(set(parameters) - set(plan.sources))
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(parameters)} tensors are missing: {_first(missing, ', ')}. "
            "The download is incomplete, or this is another model"
        )
    misfits = []
    for ours, parameter in parameters.items():
        *norm, name = plan.sources[ours]
        shape, wanted = weights.shapes[name], tuple(parameter.shape)
        if _bare(shape) != _bare(wanted) and shape != (parameter.numel(),):
            misfits.append(f"{name} is {list(shape)}, expected {list(wanted)}")
        misfits += [
            f"{g} is {list(weights.shapes[g])}, expected {wanted[0]} numbers"
            for g in norm
            if prod(weights.shapes[g]) != wanted[0]
        ]
        misfits += [f"{n} is {weights.dtypes[n]}" for n in (*norm, name) if weights.dtypes[n] not in (*DTYPES, *PACKED)]
    if misfits:
        raise CheckpointError(f"tensors do not fit the model: {_first(misfits, '; ')}")
    layers = {match[0] for name in parameters if (match := _LAYER.match(name))}
    stacks = {match[1] for name in parameters if (match := _LAYER.match(name))}
    surplus = {m[0] for name in unexpected if (m := _LAYER.match(name)) and m[1] in stacks and m[0] not in layers}
    if surplus:
        raise CheckpointError(
            f"the configuration has fewer layers than the file, which has {_first(sorted(surplus), ', ')}"
        )


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the ones in front, which GGUF files leave away."""
    start = next((at for at, size in enumerate(shape) if size != 1), len(shape))
    return shape[start:]


def _first(items: list[str], joint: str, count: int = 4) -> str:
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return joint.join(items[:count]) + more


def _make(weights: Weights, names: tuple[str, ...], shape: torch.Size, dtype: torch.dtype) -> Tensor:
    if len(names) == 1:
        return weights.read(names[0]).view(shape).to(dtype)
    return fold_weight_norm(*map(weights.read, names)).to(dtype)


def fold_weight_norm(g: Tensor, v: Tensor) -> Tensor:
    """g·v/‖v‖ with the norm over all dimensions but the first, in float32."""
    v = v.float()
    norm = torch.linalg.vector_norm(v, dim=tuple(range(1, v.dim())), keepdim=True)
    return v * (g.float().view_as(norm) / norm)


def place(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Make ``tensor`` the parameter ``name`` of ``module`` without copying it."""
    owner_name, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner_name), leaf, nn.Parameter(tensor, requires_grad=False))
