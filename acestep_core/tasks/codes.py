"""5 Hz semantic codes: the plan of a piece, from the language model, from audio, or pasted as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoints.handles import DiffusionModel
from ..host import Host, current
from ..memory.recovery import with_room
from .reference import silence_of

CODE_RATE = 5
LARGEST_CODE = 63999
ITEM_BREAK = "\n\n"
CODE_TOKEN = re.compile(r"<\|audio_code_(\d+)\|>")
_ITEM = re.compile(r"\n\s*\n|\n-{3,}\n")


@dataclass(frozen=True)
class Codes:
    """One tuple of codes an item of a batch; an empty tuple means the item has none."""

    items: tuple[tuple[int, ...], ...]

    def __bool__(self) -> bool:
        """Whether there is any code at all."""
        return any(self.items)

    def for_item(self, index: int) -> tuple[int, ...]:
        """Codes of item ``index``; a single list serves every item, missing ones are empty."""
        if len(self.items) == 1:
            return self.items[0]
        return self.items[index] if index < len(self.items) else ()

    def text(self) -> str:
        """As ``<|audio_code_N|>`` tokens, items separated by an empty line."""
        return ITEM_BREAK.join("".join(f"<|audio_code_{code}|>" for code in item) for item in self.items)


def seconds_of(codes: Sequence[int]) -> float:
    """Length of the music that ``codes`` describe."""
    return len(codes) / CODE_RATE


def parse_item(text: str) -> tuple[int, ...]:
    """Codes in a text: every ``<|audio_code_N|>``, cut to 63999; anything else is ignored."""
    return tuple(
        min(int(digits), LARGEST_CODE) if len(digits) < 9 else LARGEST_CODE for digits in CODE_TOKEN.findall(text)
    )


def parse_codes(text: str) -> Codes:
    """Codes of one or several items, which are separated by empty lines or lines of dashes.

    Raises:
        ValueError: there is no code in the text.
    """
    items = tuple(found for part in _ITEM.split(text) if (found := parse_item(part)))
    if not items:
        raise ValueError("There are no codes in this text; they look like <|audio_code_123|>.")
    return Codes(items)


def require_tokenizer(model: DiffusionModel) -> None:
    """Raise where the checkpoint came without its audio tokenizer."""
    if model.module.tokenizer is None or model.module.detokenizer is None:
        raise ValueError(
            "This checkpoint came without its audio tokenizer, which codes and quantized remixes need. "
            "Load the original or the ComfyUI file of the model."
        )


@with_room("codes")
@torch.inference_mode()
def encode_codes(model: DiffusionModel, latents: Tensor, host: Host | None = None) -> tuple[int, ...]:
    """Codes of latents [1, T, 64], one for each five frames begun."""
    require_tokenizer(model)
    host = host or current()
    device = host.prepare(model.module, "dit", 300_000_000)
    silence = silence_of(model, model.module.tokenizer.pool).to(device, model.dtype)
    _, index = model.module.tokenizer(latents.to(device, model.dtype), silence)
    return tuple(index[0].tolist())


@with_room("codes")
@torch.inference_mode()
def decode_codes(model: DiffusionModel, codes: Sequence[int], host: Host | None = None) -> Tensor:
    """Latents [1, 5·n, 64] that codes stand for, float32 on the CPU.

    Raises:
        ValueError: no codes, or a model without a tokenizer.
    """
    require_tokenizer(model)
    if not codes:
        raise ValueError(
            "There are no codes here: what they come from was made without any. "
            "Source to Codes makes those of a recording, the planner writes new ones."
        )
    host = host or current()
    device = host.prepare(model.module, "dit", 300_000_000)
    return model.module.decode_codes(torch.tensor([list(codes)], device=device)).float().cpu()


@with_room("codes")
@torch.inference_mode()
def quantize(model: DiffusionModel, latents: Tensor, host: Host | None = None) -> Tensor:
    """Latents [1, T, 64] through codes and back: what a remix keeps of its source."""
    require_tokenizer(model)
    host = host or current()
    device = host.prepare(model.module, "dit", 300_000_000)
    silence = silence_of(model, model.module.tokenizer.pool).to(device, model.dtype)
    return model.module.hints(latents.to(device, model.dtype), silence).float().cpu()
