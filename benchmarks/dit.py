"""The sampler: our prepared loop with local attention, against diffusers' transformer and our naive form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from acestep_graph.acestep_core.checkpoints.layouts import DIFFUSERS_RENAMES
from acestep_graph.acestep_core.models.attention import Visible
from acestep_graph.acestep_core.models.config import ModelConfig
from acestep_graph.acestep_core.models.dit import DiT, Prepared
from acestep_graph.acestep_core.sampling import loop, schedules
from acestep_graph.acestep_core.sampling.conditioning import context, frames_of
from acestep_graph.acestep_core.sampling.guidance import cfg
from acestep_graph.acestep_core.sampling.noise import draw_noise
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from tests.tiny import DIT as TINY
from tests.tiny import randomize

from .side_by_side import Row, Setting, alternate, compare

SIZES = {
    "tiny": TINY,
    "middle": ModelConfig(
        hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2
    ),
    "real": ModelConfig(),
}
"""middle is the published 2B model with a quarter of its width and four of its 24 layers."""

CONDITION_TOKENS = 500
GUIDED_STEPS, GUIDANCE_SCALE = 4, 7.0

Velocity = Callable[[Tensor, float], Tensor]


def rows(setting: Setting, seconds: Sequence[float] = (60, 240)) -> list[Row]:
    """One item of each length by eight turbo steps, and the first also by four guided steps.

    The same random weights, conditions and noise everywhere. The guided rows double the batch.
    """
    config = SIZES[setting.size]
    dit = randomize(DiT(config), seed=0).to(setting.device, setting.dtype)
    peer = diffusers_copy(dit, setting)
    return [
        row for number, length in enumerate(seconds) for row in _one_length(dit, peer, length, setting, number == 0)
    ]


def diffusers_copy(dit: DiT, setting: Setting) -> torch.nn.Module:
    """diffusers' AceStepTransformer1DModel with the weights of ``dit``."""
    from diffusers import AceStepTransformer1DModel

    names = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
        *("head_dim", "in_channels", "audio_acoustic_hidden_dim", "patch_size", "rope_theta", "rms_norm_eps"),
        *("sliding_window", "encoder_hidden_size"),
    )
    with torch.device("meta"):
        peer = AceStepTransformer1DModel(**{name: getattr(dit.config, name) for name in names})
    state = {}
    for name, tensor in dit.state_dict().items():
        for theirs, ours in DIFFUSERS_RENAMES:
            name = name.replace(ours, theirs)
        state[name] = tensor
    peer.load_state_dict(state, strict=True, assign=True)
    return peer.eval().requires_grad_(False)


@torch.inference_mode()
def _one_length(dit: DiT, peer: torch.nn.Module, seconds: float, setting: Setting, guide: bool) -> list[Row]:
    config, place = dit.config, {"device": setting.device, "dtype": setting.dtype}
    frames, channels = frames_of(seconds), config.audio_acoustic_hidden_dim
    draw = torch.Generator().manual_seed(1)
    sequence = torch.randn(1, CONDITION_TOKENS, config.encoder_width, generator=draw).to(**place)
    null = torch.randn(1, 1, config.encoder_width, generator=draw).to(**place)
    surroundings = context(torch.randn(1, frames, channels, generator=draw).to(**place))
    noise = draw_noise([2], frames, channels, device=setting.device)
    task = loop.Run(noise, loop.Conditions(sequence, surroundings))

    turbo, base = schedules.turbo_schedule(), schedules.base_schedule(steps=GUIDED_STEPS)
    plain = SamplerSettings(guidance_scale=1.0)
    guided = SamplerSettings(guidance_scale=GUIDANCE_SCALE, guidance="cfg")

    def theirs(x: Tensor, t: float) -> Tensor:
        level = torch.full((1,), t, **place)
        return peer(x.to(setting.dtype), level, level, sequence, surroundings, return_dict=False)[0]

    def theirs_guided(x: Tensor, t: float) -> Tensor:
        level = torch.full((2,), t, **place)
        both = torch.cat((sequence, null.expand_as(sequence)))
        x, twice = x.to(setting.dtype).repeat(2, 1, 1), surroundings.repeat(2, 1, 1)
        pair = peer(x, level, level, both, twice, return_dict=False)[0]
        return cfg(*pair.float().chunk(2), GUIDANCE_SCALE)

    def recomputed(x: Tensor, t: float) -> Tensor:
        return dit(x, surroundings, sequence, torch.tensor([t], device=setting.device))

    def dense() -> Tensor:
        ready = with_dense_masks(dit, dit.begin(surroundings, sequence))
        levels = {t: dit.levels(torch.tensor([t], device=setting.device), ready) for t in turbo}
        return euler(lambda x, t: dit.velocity(x, levels[t], ready)[0], noise, turbo)

    found = alternate(
        {
            "ours": lambda: loop.run(dit, null, task, turbo, plain, closing_euler=True),
            "diffusers": lambda: euler(theirs, noise, turbo),
            "ours, dense mask": dense,
            "ours, nothing kept between steps": lambda: euler(recomputed, noise, turbo),
        },
        setting,
    )
    ours = found.pop("ours")
    what = f"{seconds:g} s, {len(turbo) - 1} turbo steps"
    made = [compare(what, ours, name, other) for name, other in found.items()]
    if not guide:
        return made

    def two_passes() -> Tensor:
        sides = [dit.begin(surroundings, side) for side in (sequence, null.expand_as(sequence))]
        levels = {t: dit.levels(torch.tensor([t], device=setting.device), sides[0]) for t in base}
        return euler(
            lambda x, t: cfg(*(dit.velocity(x, levels[t], s)[0].float() for s in sides), GUIDANCE_SCALE), noise, base
        )

    found = alternate(
        {
            "ours": lambda: loop.run(dit, null, task, base, guided),
            "diffusers": lambda: euler(theirs_guided, noise, base),
            "ours, guidance as two passes": two_passes,
        },
        setting,
    )
    ours, what = found.pop("ours"), f"{seconds:g} s, {GUIDED_STEPS} guided steps"
    return made + [compare(what, ours, name, other) for name, other in found.items()]


def euler(velocity: Velocity, x: Tensor, levels: Sequence[float]) -> Tensor:
    """x ← x − v·(t − t') down the levels, in float32."""
    for t, t_next in zip(levels, levels[1:], strict=False):
        x = x - velocity(x, t).float() * (t - t_next)
    return x


def with_dense_masks(dit: DiT, ready: Prepared) -> Prepared:
    """``ready`` with a T×T bias in the windowed layers, as an implementation without blocks has it."""
    tokens = ready.context.shape[1]
    position = torch.arange(tokens, device=ready.context.device)
    distance = (position[:, None] - position).abs()
    masks = {None: Visible(tokens, None, None, None)}
    windows = [dit.config.window(layer) for layer in range(dit.config.num_hidden_layers)]
    for window in {w for w in windows if w is not None}:
        bias = ready.context.new_zeros(1, 1, tokens, tokens).masked_fill_(distance > window, float("-inf"))
        masks[window] = Visible(tokens, None, bias, None)
    return replace(ready, who=[masks[window] for window in windows])
