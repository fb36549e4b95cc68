"""Conditioning to latents: seeds, batches, the loop, and a record of what was done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.handles import DiffusionModel
from ..host import Host, current
from ..lora.apply import active, bytes_wanted
from ..memory import streaming
from ..memory.estimate import rows_that_fit
from ..memory.recovery import advice, is_out_of_memory
from ..memory.tiers import tier_of
from . import flow_edit, loop, noise, schedules
from .conditioning import FRAME_RATE, Conditioning, Item
from .pace import Pace
from .settings import SamplerSettings, resolve

BYTES_PER_TOKEN = 160_000
"""Working memory of one position of one row in bfloat16."""


@dataclass(frozen=True)
class Sampled:
    """One batch.

    Attributes:
        latents: [B, T, 64] float32 on the CPU, T of the longest item, the others followed by zeros.
        lengths: frames of each item that were made. frames: frames of each that are to be kept.
        seeds, settings, levels: as used. notes: sentences for the user. times: seconds taken.
    """

    latents: Tensor
    lengths: tuple[int, ...]
    frames: tuple[int, ...]
    seeds: tuple[int, ...]
    settings: SamplerSettings
    levels: tuple[float, ...]
    notes: tuple[str, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Settings as plain values, under the names of the original's result files where it has them."""
        s = asdict(self.settings)
        return {
            "seeds": list(self.seeds),
            "inference_steps": len(self.levels) - 1,
            "guidance_scale": s["guidance_scale"],
            "guidance_variant": s["guidance"],
            "use_adg": s["guidance"] == "adg",
            "cfg_interval_start": s["cfg_interval_start"],
            "cfg_interval_end": s["cfg_interval_end"],
            "shift": s["shift"],
            "infer_method": s["method"],
            "sampler_mode": s["solver"],
            "timesteps": list(s["timesteps"]) or None,
            "velocity_norm_threshold": s["velocity_norm_threshold"],
            "velocity_ema_factor": s["velocity_ema_factor"],
            "dcw_enabled": s["correction"] != "off",
            "dcw_mode": s["correction"],
            "dcw_scaler": s["scaler"],
            "dcw_high_scaler": s["high_scaler"],
            "retake_variance": s["retake_variance"],
            "retake_seed": s["retake_seed"],
            "noise_source": s["noise"],
            "guidance_eta": s["eta"],
            "guidance_norm_threshold": s["norm_threshold"],
            "guidance_momentum": s["momentum"],
            "guidance_angle_clip": s["angle_clip"],
        }


@torch.inference_mode()
def sample(
    model: DiffusionModel,
    conditioning: Conditioning,
    settings: SamplerSettings | None = None,
    seed: object = 0,
    *,
    rows: int | None = None,
    host: Host | None = None,
) -> Sampled:
    """Sample every item of ``conditioning``.

    Each item has its own noise and runs without padding, so its result does not depend on its neighbours.

    Args:
        settings: auto values are resolved for the model's kind.
        seed: a number, a list, or text with commas; missing seeds follow from the given ones, −1 draws.
        rows: items in one batch; None is one at a time on a CPU (nothing is gained there) and elsewhere as many as
            fit. Where memory runs out all the same, the batch is halved and sampling goes on; the music does not
            depend on it.

    Raises:
        ValueError: the conditioning was made with another model. FloatingPointError: NaN.
        OutOfMemory: not even one item fits.
    """
    host = host or current()
    if conditioning.origin != model.origin:
        raise ValueError(
            "The conditioning was made with another diffusion model. "
            "Connect the same model to the conditioning node and to the sampler."
        )
    chosen, notes = resolve(settings or SamplerSettings(), model.kind, model.config.guidance_scale)
    editing = conditioning.items[0].edit is not None
    if editing:
        chosen, more = flow_edit.fitting(chosen)
        notes = (*notes, *more)
    for note in notes:
        host.say(note)
    levels = schedules.schedule(model.kind, chosen.shift, chosen.steps, chosen.timesteps)
    if moved := schedules.moved(levels, chosen.timesteps):
        host.say(moved)
        notes = (*notes, moved)
    seeds = noise.seeds_of(seed, len(conditioning.items))
    used = conditioning.settings.get("source_seed")
    if used in seeds:
        note = f"Seed {used} made the source and would make the same passage again: another one was taken."
        host.say(note)
        seeds, notes = noise.without_seed(seeds, used), (*notes, note)
    others = noise.seeds_of(chosen.retake_seed, len(seeds))
    device = host.device("dit")
    if rows is None:
        rows, note = _rows_that_fit(model, conditioning, chosen, host)
        notes = (*notes, *([note] if note else []))
    groups = _groups(conditioning.items, rows)
    activations = max(item.conditions.context.shape[1] for item in conditioning.items) * rows * BYTES_PER_TOKEN // 2
    activations *= 2 if chosen.guidance_scale > 1 else 1
    device = host.prepare(model.module, "dit", activations + bytes_wanted(model))
    for note in streaming.notes(model.module):
        host.say(note)
    pace, tight = Pace(model, host), False
    steps = len(schedules.start_from(levels, conditioning.items[0].noise_strength)) - 1
    turns = len(groups)
    bar, started = host.progress(steps * turns, "sampling"), time.perf_counter()
    made: dict[int, Tensor] = {}
    done = 0
    while groups:
        group = groups.pop(0)
        items = [conditioning.items[i] for i in group]
        try:
            task = _run_of(items, [seeds[i] for i in group], [others[i] for i in group], chosen, model, device)
            counter, network = _Offset(bar, done * steps), (model.module.decoder, model.module.null_condition_emb)
            ways = [pace.velocity(device, _tokens(items, chosen, model)) for _ in range(2 if editing else 1)]
            with active(model):
                if editing:
                    result = flow_edit.run(*network, task, levels, chosen, bar=counter, velocities=ways)
                else:
                    closing = {"closing_euler": model.is_turbo}
                    result = loop.run(*network, task, levels, chosen, **closing, bar=counter, velocity=ways[0])
                result = result.cpu()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(group) == 1:
                if tight or not streaming.possible(device):
                    raise advice(f"{items[0].conditions.context.shape[1] / FRAME_RATE:g} s of music") from error
                note, tight, groups = "Memory ran out: the layers of the model make room.", True, [group, *groups]
            else:
                half = len(group) // 2
                note = f"{len(group)} variations at once do not fit into memory: {half} at a time are made."
                groups = [group[:half], group[half:], *groups]
            notes = (*notes, note)
        else:
            for way in ways:
                pace.finish(way)
            made.update(zip(group, result, strict=True))
            done += 1
            continue
        task = ways = None
        host.say(note)
        host.make_room()
        device, done = host.prepare(model.module, "dit", streaming.EVERYTHING if tight else activations // 2), 0
        bar = host.progress(steps * len(groups), "sampling")
    taken = time.perf_counter() - started
    notes = (*notes, *pace.notes(), *streaming.notes(model.module))
    times = {"dit_diffusion_time_cost": taken, "dit_diffusion_per_step_time_cost": taken / (steps * turns)}
    rows_made = [made[i] for i in range(len(seeds))]
    latents = torch.nn.utils.rnn.pad_sequence(rows_made, batch_first=True)
    lengths, frames = (len(row) for row in rows_made), (item.frames for item in conditioning.items)
    return Sampled(latents, tuple(lengths), tuple(frames), tuple(seeds), chosen, tuple(levels), notes, times)


def _rows_that_fit(
    model: DiffusionModel, conditioning: Conditioning, settings: SamplerSettings, host: Host
) -> tuple[int, str]:
    """How many items run side by side, and a sentence where that is fewer than there are."""
    count = len(conditioning.items)
    if host.device("dit").type == "cpu":
        return 1, ""
    host.prepare(model.module, "dit", bytes_wanted(model))
    free = host.free_gb(model.module)
    kind = ("XL " if model.config.separate_encoder else "") + ("base" if settings.guidance_scale > 1 else "turbo")
    tier = tier_of(host.memory_gb())
    rows = rows_that_fit(count, conditioning.seconds, free, kind=kind, tier=tier, offload=tier.offload)
    if rows == count:
        return rows, ""
    note = f"{count} variations do not fit side by side into {free:.1f} GB: {rows} at a time are made."
    host.say(note)
    return rows, note


def _tokens(items: Sequence[Item], settings: SamplerSettings, model: DiffusionModel) -> int:
    """Positions of all rows together, those of the null condition included."""
    rows = len(items) * (2 if settings.guidance_scale > 1 else 1)
    return rows * -(-items[0].conditions.context.shape[1] // model.config.patch_size)


def _groups(items: Sequence[Item], rows: int) -> list[list[int]]:
    """Indices of items that run together: of equal shape, at most ``rows``."""
    by_shape: dict[tuple, list[int]] = {}
    for index, item in enumerate(items):
        by_shape.setdefault(item.shape, []).append(index)
    return [group[i : i + rows] for group in by_shape.values() for i in range(0, len(group), rows)]


def _run_of(
    items: Sequence[Item],
    seeds: Sequence[int],
    others: Sequence[int],
    settings: SamplerSettings,
    model: DiffusionModel,
    device: torch.device,
) -> loop.Run:
    """One batch of equal shape, on the device; ``others`` are the seeds of a retake."""

    def together(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts)).to(device)

    def sides(parts: Sequence[loop.Conditions]) -> loop.Conditions:
        return loop.Conditions(together([p.sequence for p in parts]), together([p.context for p in parts]))

    first = items[0]
    frames, channels = first.conditions.context.shape[1], model.config.audio_acoustic_hidden_dim
    draw = (frames, channels, settings.noise, device, model.dtype)
    start = noise.draw_noise(seeds, *draw)
    if settings.retake_variance > 0:
        start = noise.retake(start, noise.draw_noise(others, *draw), settings.retake_variance)
    keep = first.keep
    if keep is not None:
        masks, clean = [i.keep.mask for i in items if i.keep], [i.keep.clean for i in items if i.keep]
        keep = replace(keep, mask=together(masks), clean=together(clean))
    edit = first.edit
    if edit is not None:
        edit = replace(edit, conditions=sides([i.edit.conditions for i in items if i.edit]))
    return loop.Run(
        noise=start,
        conditions=sides([i.conditions for i in items]),
        later=None if first.later is None else sides([i.later for i in items if i.later]),
        strength=first.strength,
        source=None if first.source is None else together([i.source for i in items if i.source is not None]),
        noise_strength=first.noise_strength,
        keep=keep,
        fresh=noise.fresh_noise(seeds, start),
        edit=edit,
        draws=noise.draws(seeds, *draw) if edit is not None else None,
    )


class _Offset:
    """A progress bar that one group fills a part of."""

    def __init__(self, bar: Any, before: int):
        self.bar, self.before = bar, before

    def update(self, done: int, note: str = "") -> None:
        self.bar.update(self.before + done, note)
