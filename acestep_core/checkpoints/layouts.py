"""Published layouts and the names they use for the same tensors.

A *plan* says, for each parameter of one of our modules, which tensors of a file it is made from. Our
names are the original ones; ComfyUI files add a prefix, diffusers folders rename, and the autoencoder
comes in two spellings, both with weight normalisation that is folded into one weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .header import HeaderError as CheckpointError

DIT_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "")
DIT_MARK = "encoder.lyric_encoder.layers.0.input_layernorm.weight"
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
QWEN_MARK = "layers.0.self_attn.q_norm.weight"
ALL_IN_ONE_TEXT = ("text_encoders.qwen3_06b.transformer.model.",)
ALL_IN_ONE_LM = ("text_encoders.qwen3_2b.transformer.model.", "text_encoders.qwen3_4b.transformer.model.")
QUANTIZED = re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale|input_scale|comfy_quant)$")
SILENCE = "silence_latent"


@dataclass(frozen=True)
class Plan:
    """How a file's tensors become a module's parameters.

    Attributes:
        layout: name of the layout, for the report.
        sources: our parameter name → names in the file (two for a weight-normalised weight: g, v).
        unexpected: names of this component in the file that no parameter takes.
    """

    layout: str
    sources: dict[str, tuple[str, ...]]
    unexpected: tuple[str, ...] = ()


def refuse_quantized(names: Iterable[str], dtypes: Mapping[str, str], plain: Iterable[str]) -> None:
    """Raise for files whose tensors are stored in a quantized form."""
    marked = [n for n in names if QUANTIZED.search(n)]
    odd = sorted({dtypes[n] for n in names if dtypes[n] not in plain})
    if marked or odd:
        what = f"dtype {', '.join(odd)}" if odd else f"{len(marked)} scale tensors such as {marked[0]}"
        raise CheckpointError(
            f"The file is quantized ({what}). Take the bf16, fp16 or fp32 file of the same model; "
            "it is loaded in the precision you choose."
        )


def plan_dit(names: Iterable[str]) -> Plan:
    """Plan for the diffusion checkpoint: original, ComfyUI (prefixed) or diffusers (``folder/name``) names."""
    names = list(names)
    if any(n.startswith("transformer/") for n in names):
        return Plan("diffusers", {ours: (n,) for n in names if (ours := _from_diffusers(n))})
    for prefix in DIT_PREFIXES:
        if prefix + DIT_MARK in names:
            layout = "ComfyUI all-in-one" if prefix == "model.diffusion_model." else "original" if not prefix else "ComfyUI"
            return Plan(layout, {n[len(prefix) :]: (n,) for n in names if n.startswith(prefix)})
    raise CheckpointError(f"This is not an ACE-Step 1.5 diffusion model: {describe(names)}.")


def _from_diffusers(name: str) -> str:
    for part, prefix in DIFFUSERS_PARTS.items():
        if name.startswith(part):
            rest = name[len(part) :]
            if rest in ("null_condition_emb", SILENCE):
                return rest
            for theirs, ours in DIFFUSERS_RENAMES:
                rest = rest.replace(theirs, ours)
            return prefix + rest
    return ""


def plan_qwen3(names: Iterable[str], component: str) -> Plan:
    """Plan for a Qwen3 model; ``component`` (``text`` or ``lm``) chooses within an all-in-one file."""
    names = list(names)
    inside = ALL_IN_ONE_TEXT if component == "text" else ALL_IN_ONE_LM
    for prefix in (*inside, "model.", ""):
        if prefix + QWEN_MARK in names:
            layout = "ComfyUI all-in-one" if prefix in inside else "with model. prefix" if prefix else "without prefix"
            sources = {n[len(prefix) :]: (n,) for n in names if n.startswith(prefix)}
            sources.pop("lm_head.weight", None)  # tied: equal to the embedding in every published file
            return Plan(layout, sources)
    what = "text encoder" if component == "text" else "language model"
    raise CheckpointError(f"This is not a Qwen3 {what}: {describe(names)}.")


def plan_vae(names: Iterable[str]) -> Plan:
    """Plan for the Oobleck autoencoder in diffusers or stable-audio spelling."""
    names = list(names)
    prefix = "vae." if any(n.startswith("vae.decoder.") for n in names) else ""
    own = [n for n in names if n.startswith((prefix + "encoder.", prefix + "decoder."))]
    stable = prefix + "decoder.layers.0.bias" in names
    if not stable and prefix + "decoder.conv1.bias" not in names:
        raise CheckpointError(f"This is not the ACE-Step 1.5 autoencoder: {describe(names)}.")
    sources: dict[str, tuple[str, ...]] = {}
    for name in own:
        module, kind = _split_weight_norm(name[len(prefix) :])
        module = _stable_to_diffusers(module) if stable else module
        if kind in ("g", "v"):
            pair = sources.get(f"{module}.weight", ("", ""))
            sources[f"{module}.weight"] = (name, pair[1]) if kind == "g" else (pair[0], name)
        else:
            sources[f"{module}.{kind}"] = (name,)
    broken = [key for key, pair in sources.items() if "" in pair]
    if broken:
        raise CheckpointError(f"Weight normalisation is incomplete for {', '.join(sorted(broken)[:4])}.")
    return Plan("ComfyUI" if stable else "diffusers", sources)


def _split_weight_norm(name: str) -> tuple[str, str]:
    for suffix, kind in (
        (".weight_g", "g"),
        (".weight_v", "v"),
        (".parametrizations.weight.original0", "g"),
        (".parametrizations.weight.original1", "v"),
    ):
        if name.endswith(suffix):
            return name[: -len(suffix)], kind
    module, _, kind = name.rpartition(".")
    return module, kind


_UNIT = ("snake1", "conv1", "snake2", "conv2")


def _stable_to_diffusers(module: str) -> str:
    """``encoder.layers.2.layers.0.layers.1`` → ``encoder.block.1.res_unit1.conv1`` and so on."""
    side, _, *path = module.split(".")
    try:
        numbers = [int(p) for p in path if p != "layers"]
    except ValueError as error:
        raise CheckpointError(f"Unknown autoencoder tensor {module}.") from error
    first, last = 0, 6
    if len(numbers) == 1:
        ends = {first: "conv1", last: "snake1", last + 1: "conv2"}
        return f"{side}.{ends.get(numbers[0], f'unknown{numbers[0]}')}"
    block, inner = f"{side}.block.{numbers[0] - 1}", numbers[1]
    if len(numbers) == 2:
        own = {3: "snake1", 4: "conv1"} if side == "encoder" else {0: "snake1", 1: "conv_t1"}
        return f"{block}.{own.get(inner, f'unknown{inner}')}"
    unit = inner + 1 if side == "encoder" else inner - 1
    return f"{block}.res_unit{unit}.{_UNIT[numbers[2]]}"


def describe(names: Iterable[str]) -> str:
    """What a list of tensor names looks like, for an error message."""
    names = set(names)
    known = (
        ("an ACE-Step 1.5 diffusion model", any(p + DIT_MARK in names for p in DIT_PREFIXES)),
        ("an Oobleck autoencoder", any("decoder.conv1.bias" in n or "decoder.layers.0.bias" in n for n in names)),
        ("a Qwen3 model", any(n.endswith(QWEN_MARK) for n in names)),
        ("a LoRA", any(".lora_" in n or "lora_A" in n for n in names)),
    )
    for title, found in known:
        if found:
            return f"it looks like {title}"
    examples = ", ".join(sorted(names)[:3])
    return f"its tensors are unknown ({examples}, …)" if names else "it holds no tensors"
