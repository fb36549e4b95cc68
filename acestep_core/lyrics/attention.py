"""What the diffusion model listens to: cross-attention from the music to the words of its lyrics.

Only the heads that follow the lyrics are computed explicitly, and no layer behind the last of them runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoints.handles import DiffusionModel
from ..host import Host
from ..lora.apply import active, bytes_wanted
from ..memory.recovery import with_room
from ..sampling.conditioning import Item
from ..text import Prompt
from ..tokenizer import Tokenizer

SEED = 42
"""Of the noise that a finished piece is looked at through."""
BYTES_PER_SCORE = 12
HEADER_END = "# Lyric\n"


@dataclass(frozen=True)
class Heard:
    """The lyrics of a prompt as the model reads them: ids, and the place of the first in the condition sequence."""

    ids: tuple[int, ...]
    first: int


def heard_lyrics(prompt: Prompt, tokenizer: Tokenizer) -> Heard:
    """The body of the lyrics: behind the header, up to the first end token."""
    header = prompt.lyrics[: prompt.lyrics.index(HEADER_END) + len(HEADER_END)]
    first = len(tokenizer.encode(header))
    body = prompt.lyric_ids[first:]
    return Heard(body[: body.index(tokenizer.end_of_text)], first)


def require_heads(model: DiffusionModel) -> Mapping[int, Sequence[int]]:
    """Layer → heads that follow the lyrics.

    Raises:
        ValueError: the checkpoint names none and has the size of no published model.
    """
    heads, config = model.config.alignment_heads(), model.config
    layers, count = config.num_hidden_layers, config.num_attention_heads
    usable = {layer: [h for h in chosen if h < count] for layer, chosen in (heads or {}).items() if layer < layers}
    usable = {layer: chosen for layer, chosen in sorted(usable.items()) if chosen}
    if not usable:
        raise ValueError(
            f"Nobody knows which attention heads of this model follow the lyrics ({layers} layers, {count} heads); "
            "a published checkpoint names them in its config.json as lyric_alignment_layers_config. "
            "Keep config.json beside the weights, or use a 2B or XL model."
        )
    return usable


@with_room("lyric timing")
@torch.inference_mode()
def lyric_attention(
    model: DiffusionModel,
    item: Item,
    latents: Tensor,
    level: float,
    lyrics: Heard,
    frames: int,
    host: Host,
    seed: int = SEED,
) -> Tensor:
    """Attention to every token of the lyrics in every patch (two latent frames, 12.5 a second).

    Args:
        latents: [T, 64], what was made of ``item``. level: share of noise it is looked at through, 1 for noise alone.
        frames: latent frames to keep, at most T. seed: of the noise.

    Returns: float32 [heads, tokens, ceil(frames / 2)] on the CPU, heads in the order of layers; shares of the
    attention over the whole condition sequence (softmax in float32, rounded to the model's precision).
    """
    heads = require_heads(model)
    conditions, length = item.conditions, len(latents)
    widest = max(len(chosen) for chosen in heads.values())
    scores = widest * conditions.sequence.shape[1] * length // 2 * BYTES_PER_SCORE
    device = host.prepare(model.module, "dit", scores + 200_000 * length + bytes_wanted(model))
    generator = torch.Generator().manual_seed(seed)
    made = latents[None].to(model.dtype)
    noise = torch.randn(made.shape, generator=generator, dtype=torch.float32).to(model.dtype)
    x = (level * noise + (1 - level) * made).to(device)
    decoder = model.module.decoder
    tokens = slice(lyrics.first, lyrics.first + len(lyrics.ids))
    patches = -(-frames // model.config.patch_size)
    with active(model):
        ready = decoder.begin(conditions.context.to(device), conditions.sequence.to(device), last=max(heads))
        levels = decoder.levels(torch.tensor([level], device=device), ready)
        maps = decoder.listening(x, levels, ready, heads, tokens)
    return torch.cat([part[0, :, :patches].transpose(1, 2).float().cpu() for part in maps])
