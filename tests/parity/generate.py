"""Whole sampling runs, from prepared inputs to latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from acestep_graph.acestep_core.checkpoints.handles import DiffusionModel
from acestep_graph.acestep_core.sampling import loop, noise, schedules
from acestep_graph.acestep_core.sampling.correction import Keep, ramp
from acestep_graph.acestep_core.sampling.settings import SamplerSettings

from .golden import Difference, Fixtures, close, golden
from .modules import condition_inputs

VARIANTS = {"apg_classic": "apg"}
LARGE_VALUES = {"later_base_generate": {"cfg"}}
"""Cases compared relative to their largest value."""


def conditions(model: DiffusionModel, g: dict[str, Tensor], args: dict[str, Any], cover: bool = True):
    """Packed sequence, its mask and context of one case; ``cover`` False gives the side after the switch."""
    module, source = model.module, g["in.src_latents"]
    frames = source.shape[1]
    sequence, mask = module.encoder(*condition_inputs(g, "in.", "text" if cover else "non_cover_text"))
    if cover:
        hints = g["in.precomputed_lm_hints_25Hz"][:, :frames] if args.get("hints") else None
        flags = torch.tensor(args["is_covers"])[:, None, None]
        if hints is None:
            hints = module.hints(source, model.silence)
        source = torch.where(flags, hints, source)
    else:
        source = model.silence[:frames].expand_as(source)
    chunk = g["in.repaint_chunk_masks" if args.get("repaint") and "in.repaint_chunk_masks" in g else "in.chunk_masks"]
    return loop.Conditions(sequence, torch.cat((source, chunk.float()), dim=-1)), mask


def fresh_from(seed: int, shape: torch.Size):
    """Draws of the global generator, one a call, as the original makes them."""
    generator = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(shape, generator=generator)


def generate(model: DiffusionModel, kind: str, g: dict[str, Tensor], case: str, args: dict[str, Any]) -> Tensor:
    source = g["in.src_latents"]
    batch, frames, channels = source.shape
    turbo = kind == "turbo"
    variant = "adg" if args.get("use_adg") else args.get("guidance_variant", "apg")
    settings = SamplerSettings(
        shift=args.get("shift", 3.0 if turbo else 1.0),
        steps=args.get("infer_steps", 0),
        guidance_scale=1.0 if turbo else args.get("diffusion_guidance_sale", args.get("guidance_scale", 7.0)),
        guidance=VARIANTS.get(variant, variant),
        cfg_interval_start=args.get("cfg_interval_start", 0.0),
        cfg_interval_end=args.get("cfg_interval_end", 1.0),
        method=args.get("infer_method", "ode"),
        solver=args.get("sampler_mode", "euler"),
        velocity_norm_threshold=args.get("velocity_norm_threshold", 0.0),
        velocity_ema_factor=args.get("velocity_ema_factor", 0.0),
        **args.get("guidance_params", {}),
    )
    levels = schedules.schedule(kind, settings.shift, args.get("infer_steps"), args.get("timesteps", ()))
    seeds = args["seed"] if isinstance(args["seed"], list) else None
    if seeds is None:
        start = torch.randn(source.shape, generator=torch.Generator().manual_seed(args["seed"]))
    else:
        start = noise.draw_noise(seeds[:batch], frames, channels)
    if args.get("retake_variance"):
        start = noise.retake(start, noise.draw_noise(args["retake_seed"], frames, channels), args["retake_variance"])
    first, _ = conditions(model, g, args)
    strength = args.get("audio_cover_strength", 1.0)
    keep = None
    if args.get("repaint") and "in.repaint_mask" in g:
        keep = Keep(
            g["in.repaint_mask"],
            g["in.clean_src_latents"],
            args.get("repaint_injection_ratio", 0.5),
            args.get("repaint_crossfade_frames", 10),
        )
    fresh = renoise = None
    if settings.method == "sde":
        draws = g.get(f"draws.{case}")
        fresh = fresh_from(args["global_seed"], source.shape) if draws is None else lambda step: draws[step]
        if not turbo:  # the original returns to evenly spaced levels whatever the schedule
            renoise = [1 - (i + 1) / (len(levels) - 1) for i in range(len(levels) - 1)]
    task = loop.Run(
        noise=start,
        conditions=first,
        later=conditions(model, g, args, cover=False)[0] if strength < 1 else None,
        strength=strength,
        source=source,
        noise_strength=args.get("cover_noise_strength", 0.0),
        keep=keep,
        fresh=fresh,
        renoise=renoise,
    )
    module = model.module
    settings = replace(settings, steps=settings.steps or 8)
    return loop.run(module.decoder, module.null_condition_emb, task, levels, settings, closing_euler=turbo)


def check_runs(fixtures: Fixtures, name: str, cases: dict[str, Any]) -> Iterator[Difference]:
    g = fixtures.tensors(f"{name}.safetensors")
    parts = name.removeprefix("later_").split("_")
    kind = "turbo" if "turbo" in parts else parts[0]
    model = fixtures.model("xl" if parts[0] == "xl" else "turbo" if kind == "turbo" else "base")
    for case, args in cases.items():
        relative = case in LARGE_VALUES.get(name, ())
        yield close(case, generate(model, kind, g, case, args), g[f"out.{case}"], relative=relative)
        if f"cond.{case}.encoder_hidden_states" in g:
            side, mask = conditions(model, g, args)
            yield close(f"{case}.sequence", side.sequence, g[f"cond.{case}.encoder_hidden_states"])
            yield close(f"{case}.context", side.context, g[f"cond.{case}.context_latents"])
            yield close(f"{case}.mask", mask, g[f"cond.{case}.encoder_attention_mask"])
    if "noise.list" in g:
        batch, frames, channels = g["noise.list"].shape
        seeds = next(a["seed"] for a in cases.values() if isinstance(a["seed"], list) and len(a["seed"]) >= batch)
        yield close("noise.list", noise.draw_noise(seeds[:batch], frames, channels), g["noise.list"])


def register(name: str, file: str) -> None:
    @golden(name, f"{name}.safetensors", file)
    def check(fixtures: Fixtures) -> Iterator[Difference]:
        yield from check_runs(fixtures, name, fixtures.json(file)[name])


for _name in ("turbo_generate", "turbo_generate_oddlen", "base_generate", "base_generate_adg", "sft_generate"):
    register(_name, "generate_cases.json")
for _name in ("later_turbo_generate", "later_base_generate", "later_xl_turbo_generate"):
    register(_name, "later_generate_cases.json")


@golden("soft_repaint_mask", "later_generate_cases.json")
def soft_repaint_mask(fixtures: Fixtures) -> Iterator[Difference]:
    for case in fixtures.json("later_generate_cases.json")["soft_repaint_mask"]:
        mask = torch.zeros(1, case["frames"], dtype=torch.bool)
        for a, b in case["ranges"]:
            mask[0, a:b] = True
        ours = ramp(mask, case["crossfade"])[0]
        yield close(f"{case['ranges']} over {case['crossfade']}", ours, torch.tensor(case["soft"]), 1e-6)
