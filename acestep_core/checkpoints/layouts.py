"""Published layouts and the names they use for the same tensors.

A *plan* says, for each parameter of one of our modules, which tensors of a file it is made from. Our
names are the original ones; ComfyUI files add a prefix, diffusers folders rename, and the autoencoder
comes in two spellings, both with weight normalisation that is folded into one weight.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .header import CheckpointError

COMPONENTS = {"dit": "diffusion model", "text": "text encoder", "vae": "VAE", "lm": "language model"}
"""Component ids, with what they are called in messages."""

ORIGINAL, COMFY, ALL_IN_ONE, DIFFUSERS = "original", "ComfyUI", "ComfyUI all-in-one", "diffusers"
GGUF_FILE = "GGUF"

DIT_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "")
DIT_MARK = "encoder.lyric_encoder.layers.0.input_layernorm.weight"
DIFFUSERS_MARKS = ("layers.0.scale_shift_table", "proj_in_conv.weight")
"""Names in the transformer file of a diffusers folder."""
DIFFUSERS_PARTS = {
    "transformer/": "decoder.",
    "condition_encoder/": "encoder.",
    "audio_tokenizer/": "tokenizer.",
    "audio_token_detokenizer/": "detokenizer.",
}
DIFFUSERS_RENAMES = (
    (".to_q.", ".q_proj."),
    (".to_k.", ".k_proj."),
    (".to_v.", ".v_proj."),
    (".to_out.0.", ".o_proj."),
    (".norm_q.", ".q_norm."),
    (".norm_k.", ".k_norm."),
    ("proj_in_conv.", "proj_in.1."),
    ("proj_out_conv.", "proj_out.1."),
)
SILENCE = "silence_latent"

QWEN_PREFIXES = {
    "text_encoders.qwen3_06b.transformer.model.": "text",
    "text_encoders.qwen3_2b.transformer.model.": "lm",
    "text_encoders.qwen3_4b.transformer.model.": "lm",
    "model.": "",
    "": "",
}
"""Prefix of a Qwen3 model's names → the component it is; empty where the prefix does not tell."""
QWEN_MARK = "layers.0.self_attn.q_norm.weight"
TIED_HEAD = "lm_head.weight"
"""Equal to the embedding in every published file, where it is stored at all."""

VAE_PREFIXES = ("vae.", "")
VAE_MARK = "decoder.conv1"
WEIGHT_NORM = {
    "weight_g": "g",
    "weight_v": "v",
    "parametrizations.weight.original0": "g",
    "parametrizations.weight.original1": "v",
}

QUANTIZED = re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale|input_scale|comfy_quant)$")
QUANTIZED_DTYPES = ("I8", "U8", "F8_", "F6_", "F4", "torch.q")
READ_QUANTIZED = ("F8_E4M3", "F8_E5M2")
"""Of those, what is read; the scales and marks of ComfyUI that go with it have been taken off by then."""


def _stable_audio() -> dict[str, str]:
    """Modules of the autoencoder: our name → that of stable-audio-tools, which ComfyUI's files use."""
    table: dict[str, str] = {}
    sides = (("encoder", {"snake1": 3, "conv1": 4}, 0), ("decoder", {"snake1": 0, "conv_t1": 1}, 2))
    for side, ends, first_unit in sides:
        table |= {f"{side}.{end}": f"{side}.layers.{n}" for end, n in (("conv1", 0), ("snake1", 6), ("conv2", 7))}
        for block in range(5):
            ours, theirs = f"{side}.block.{block}", f"{side}.layers.{block + 1}.layers"
            table |= {f"{ours}.{end}": f"{theirs}.{n}" for end, n in ends.items()}
            for unit in range(3):
                for n, name in enumerate(("snake1", "conv1", "snake2", "conv2")):
                    table[f"{ours}.res_unit{unit + 1}.{name}"] = f"{theirs}.{first_unit + unit}.layers.{n}"
    return table


STABLE_AUDIO = _stable_audio()


@dataclass(frozen=True)
class Plan:
    """How a file's tensors become a module's parameters.

    Attributes:
        layout: one of the five above, for the report.
        sources: our name → names in the file (two for a weight-normalised weight: g, v). Names that no
            parameter has stand for what the file holds beyond the model.
    """

    layout: str
    sources: dict[str, tuple[str, ...]]


def plan_dit(names: Collection[str]) -> Plan:
    """Plan for the diffusion checkpoint: original, ComfyUI (prefixed) or diffusers (``folder/name``) names."""
    if any(name.startswith("transformer/") for name in names):
        return Plan(DIFFUSERS, _once((_from_diffusers(name), name) for name in names))
    prefix = _prefix(names, DIT_PREFIXES, DIT_MARK, "dit")
    bundled = any(name.startswith(("vae.", "text_encoders.")) for name in names)
    layout = ALL_IN_ONE if bundled else COMFY if prefix else ORIGINAL
    return Plan(layout, _stripped(names, prefix, bundled))


def _from_diffusers(name: str) -> str:
    part, _, rest = name.partition("/")
    if rest in ("null_condition_emb", SILENCE):
        return rest
    for theirs, ours in DIFFUSERS_RENAMES:
        rest = rest.replace(theirs, ours)
    return DIFFUSERS_PARTS.get(f"{part}/", f"{part}/") + rest


def plan_qwen3(names: Collection[str], component: str) -> Plan:
    """Plan for a Qwen3 model; ``component`` (``text`` or ``lm``) chooses within an all-in-one file."""
    fitting = [prefix for prefix, owner in QWEN_PREFIXES.items() if owner in (component, "")]
    prefix = _prefix(names, fitting, QWEN_MARK, component)
    bundled = bool(QWEN_PREFIXES[prefix])
    sources = _stripped(names, prefix, bundled)
    sources.pop(TIED_HEAD, None)
    return Plan(ALL_IN_ONE if bundled else ORIGINAL, sources)


def plan_vae(names: Collection[str]) -> Plan:
    """Plan for the Oobleck autoencoder in diffusers or stable-audio spelling."""
    marks = {False: f"{VAE_MARK}.bias", True: f"{STABLE_AUDIO[VAE_MARK]}.bias"}
    stable = not any(prefix + marks[False] in names for prefix in VAE_PREFIXES)
    prefix = _prefix(names, VAE_PREFIXES, marks[stable], "vae")
    ours = {theirs: name for name, theirs in STABLE_AUDIO.items()} if stable else {}
    found: list[tuple[str, str]] = []
    for name in _stripped(names, prefix, bool(prefix)):
        module, kind = split_weight_norm(name)
        found.append((f"{ours.get(module, module)}.{kind}", prefix + name))
    sources = _once(found)
    for v in [name for name in sources if name.endswith(".v")]:
        stem = v.removesuffix(".v")
        if f"{stem}.g" not in sources or f"{stem}.weight" in sources:
            raise CheckpointError(f"weight normalisation of {stem} is incomplete or stands twice. Download it again")
        sources[f"{stem}.weight"] = sources.pop(f"{stem}.g") + sources.pop(v)
    return Plan(ALL_IN_ONE if prefix else COMFY if stable else ORIGINAL, sources)


def split_weight_norm(name: str) -> tuple[str, str]:
    """``decoder.conv1.weight_v`` → ``decoder.conv1`` and ``v``; other names → module and parameter."""
    for suffix, kind in WEIGHT_NORM.items():
        if name.endswith(f".{suffix}"):
            return name.removesuffix(f".{suffix}"), kind
    module, _, kind = name.rpartition(".")
    return module, kind


def refuse_quantized(plan: Plan, dtypes: Mapping[str, str]) -> None:
    """Raise for a model whose weights are stored in a quantized form that is not read."""
    names = [name for group in plan.sources.values() for name in group]
    weights = [n for n in names if n.endswith("weight") and dtypes[n] not in READ_QUANTIZED]
    marked = [n for n in weights if dtypes[n].startswith(QUANTIZED_DTYPES)]
    marked += [n for n in names if QUANTIZED.search(n)]
    if marked:
        raise CheckpointError(
            f"it is quantized in a form that is not read ({marked[0]} is {dtypes[marked[0]]}); read are fp8 (e4m3 and "
            "e5m2, with or without one scale a matrix or a row) and GGUF. Take the bf16, fp16 or fp32 file of the same "
            "model; it is loaded in the precision you choose"
        )


def wrong_model(component: str, names: Collection[str], held: Collection[str] = ()) -> CheckpointError:
    """The error for a file that lacks ``component``; ``held`` are the components it has."""
    known = " and ".join(f"a {COMPONENTS[other]}" for other in COMPONENTS if other in held)
    what = f"it is {known}" if known else describe(names)
    return CheckpointError(f"this is not an ACE-Step 1.5 {COMPONENTS[component]}: {what}")


def describe(names: Collection[str]) -> str:
    """What a list of tensor names looks like, for an error message."""
    names = set(names)
    vae_marks = (f"{VAE_MARK}.bias", f"{STABLE_AUDIO[VAE_MARK]}.bias")
    known = (
        ("a LoRA", any(".lora_" in n or ".lokr_" in n or ".hada_" in n for n in names)),
        ("the transformer of a diffusers folder without the folders beside it", names.issuperset(DIFFUSERS_MARKS)),
        ("an autoencoder of another model", any(n.endswith(vae_marks) for n in names)),
        ("a Qwen3 model of another vocabulary", any(n.endswith(QWEN_MARK) for n in names)),
    )
    for title, found in known:
        if found:
            return f"it looks like {title}"
    return f"its tensors are unknown ({', '.join(sorted(names)[:3])}, …)" if names else "it holds no tensors"


def _prefix(names: Collection[str], prefixes: Iterable[str], mark: str, component: str) -> str:
    for prefix in prefixes:
        if prefix + mark in names:
            return prefix
    raise wrong_model(component, names)


def _stripped(names: Iterable[str], prefix: str, bundled: bool) -> dict[str, tuple[str, ...]]:
    """Names without ``prefix``. Those without it belong to other components if ``bundled``, else stay as they are."""
    own = (name for name in names if name.startswith(prefix) or not bundled)
    return _once((name.removeprefix(prefix), name) for name in own)


def _once(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Our name → its one source. Two spellings of the same tensor in one file are an error."""
    table: dict[str, tuple[str, ...]] = {}
    for ours, theirs in pairs:
        if ours in table:
            raise CheckpointError(f"{table[ours][0]} and {theirs} are the same tensor ({ours}) under two names")
        table[ours] = (theirs,)
    return table
