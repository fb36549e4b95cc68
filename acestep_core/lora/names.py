"""Names in adapter files, taken apart: which layer, which part of its change."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..checkpoints.layouts import DIFFUSERS_RENAMES

DOTTED_PREFIXES = (
    *("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "decoder."),
    *("model.", "module.", "_orig_mod."),
)
UNDERSCORE_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")

PARTS = {
    "lora_A": "down", "lora_down": "down", "lora.down": "down",
    "lora_B": "up", "lora_up": "up", "lora.up": "up",
    "lora_magnitude_vector": "magnitude", "dora_scale": "magnitude",
    "alpha": "alpha", "scalar": "scalar", "diff": "diff", "diff_b": "bias",
    **{name: name for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")},
    **{name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    **{name: "tucker" for name in ("lora_mid", "lokr_t2", "hada_t1", "hada_t2")},
}  # fmt: skip
"""Endings of tensor names → what the tensor is."""

_KEY = re.compile(
    rf"(?P<stem>.+?)\.(?P<part>{'|'.join(sorted(map(re.escape, PARTS), key=len, reverse=True))})"
    r"(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?(?:\.(?P<leaf>weight|bias))?"
)


@dataclass(frozen=True)
class Key:
    """A tensor name of an adapter file taken apart.

    Attributes:
        stem: the layer as the file spells it. part: a value of :data:`PARTS`, or ``up_bias``.
        adapter: the adapter's own name, where it is written.
    """

    stem: str
    part: str
    adapter: str


def parse(name: str) -> Key | None:
    """None for a name that is no part of any adapter format."""
    match = _KEY.fullmatch(name)
    if not match:
        return None
    part = PARTS[match["part"]]
    if match["leaf"] == "bias":
        part = "up_bias" if part == "up" else ""
    return Key(match["stem"], part, match["adapter"] or "") if part else None


def without_prefixes(stem: str) -> str:
    """``base_model.model.layers.0.x`` → ``layers.0.x``, however many prefixes there are."""
    start = 0
    while found := next((p for p in DOTTED_PREFIXES if stem.startswith(p, start)), ""):
        start += len(found)
    return stem[start:]


def spellings(layer: str) -> tuple[str, ...]:
    """The names of one layer, dotted: ours and diffusers'."""
    theirs = f"{layer}."
    for diffusers, ours in DIFFUSERS_RENAMES:
        theirs = theirs.replace(ours, diffusers)
    return tuple(dict.fromkeys((layer, theirs[:-1])))
