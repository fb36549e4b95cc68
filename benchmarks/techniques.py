"""Compiled layers, adapters beside the weights, INT8, and on a GPU replayed steps and layers that come and go."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lora.adapter import Change, LowRank
from acestep_graph.acestep_core.lora.branch import Branch
from acestep_graph.acestep_core.memory import quantize
from acestep_graph.acestep_core.memory.streaming import Streamed
from acestep_graph.acestep_core.models.dit import DiT, Velocity
from acestep_graph.acestep_core.sampling import loop, schedules
from acestep_graph.acestep_core.sampling.compiled import CompiledLayers
from acestep_graph.acestep_core.sampling.conditioning import context, frames_of
from acestep_graph.acestep_core.sampling.cuda_graph import GraphedVelocity
from acestep_graph.acestep_core.sampling.noise import draw_noise
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from tests.tiny import randomize

from .dit import CONDITION_TOKENS, SIZES
from .side_by_side import GB, Row, Setting, alternate, compare

RANK = 16
TARGETS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
GRAPH_SECONDS = 20.0

Run = Callable[..., Tensor]


@torch.inference_mode()
def rows(setting: Setting, seconds: float = 60.0) -> list[Row]:
    """Eight turbo steps of one piece, with and without each technique, on the same random weights."""
    dit = randomize(DiT(SIZES[setting.size]), seed=0).to(setting.device, setting.dtype)
    run, what = _run_of(seconds, setting), f"{seconds:g} s, 8 turbo steps"
    made = [*_adapters(dit, run, what, setting), *_compiled(dit, run, what, setting), *_int8(dit, run, what, setting)]
    if setting.device.type == "cuda":
        made += _replayed(dit, setting) + _streamed(dit, run, what, setting)
    return made


def _run_of(seconds: float, setting: Setting) -> Run:
    """A run of any decoder over the same noise and conditions."""
    config, place = SIZES[setting.size], {"device": setting.device, "dtype": setting.dtype}
    frames, channels = frames_of(seconds), config.audio_acoustic_hidden_dim
    draw = torch.Generator().manual_seed(1)
    sequence = torch.randn(1, CONDITION_TOKENS, config.encoder_width, generator=draw).to(**place)
    null = torch.randn(1, 1, config.encoder_width, generator=draw).to(**place)
    surroundings = context(torch.randn(1, frames, channels, generator=draw).to(**place))
    task = loop.Run(draw_noise([2], frames, channels, device=setting.device), loop.Conditions(sequence, surroundings))

    def run(dit: DiT, velocity: Velocity | None = None) -> Tensor:
        levels, settings = schedules.turbo_schedule(), SamplerSettings(guidance_scale=1.0)
        return loop.run(dit, null, task, levels, settings, closing_euler=True, velocity=velocity)

    return run


def _adapters(dit: DiT, run: Run, what: str, setting: Setting) -> list[Row]:
    draw = torch.Generator().manual_seed(3)
    changes, merged = {}, copy.deepcopy(dit)
    for number in range(len(dit.layers)):
        for target in TARGETS:
            name = f"layers.{number}.{target}"
            layer = merged.get_submodule(name)
            up, down = (
                0.02 * torch.randn(*n, generator=draw) for n in ((layer.out_features, RANK), (RANK, layer.in_features))
            )
            changes[name] = Change(LowRank(up, down))
            layer.weight += (up @ down).to(layer.weight)

    def beside() -> Tensor:
        with _playing(dit, changes):
            return run(dit)

    sides = {"ours": beside, "merged into the weights": lambda: run(merged), "no LoRA": lambda: run(dit)}
    found = alternate(sides, setting)
    ours = found.pop("ours")
    return [compare(f"{what}, LoRA of rank {RANK} beside the weights", ours, name, o) for name, o in found.items()]


@contextmanager
def _playing(dit: DiT, changes: dict[str, Change]) -> Iterator[None]:
    hooks = [dit.get_submodule(n).register_forward_hook(Branch([(c, 1.0)])) for n, c in changes.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _compiled(dit: DiT, run: Run, what: str, setting: Setting) -> list[Row]:
    """The first run, which compiles, is not counted but named; no row where nothing compiles."""
    layers = CompiledLayers(Host(device=str(setting.device)))
    quick = partial(dit.velocity, call=layers)
    started = time.perf_counter()
    run(dit, quick)
    first = time.perf_counter() - started
    if layers.problem:
        print(layers.note(), file=sys.stderr)
        return []
    found = alternate({"ours": lambda: run(dit, quick), "other": lambda: run(dit)}, setting)
    return [compare(f"{what}, compiled (first run {first:.0f} s)", found["ours"], "not compiled", found["other"])]


def _int8(dit: DiT, run: Run, what: str, setting: Setting) -> list[Row]:
    if not quantize.is_available():
        print("No row of INT8: torchao is missing.", file=sys.stderr)
        return []
    small = copy.deepcopy(dit)
    for part in small.layers.modules():
        if isinstance(part, torch.nn.Linear):
            quantize.quantize_linear(part)
    found = alternate({"ours": lambda: run(small), "other": lambda: run(dit)}, setting)
    sizes = [quantize.int8_bytes(module) / GB for module in (small, dit)]
    what = f"{what}, INT8 weights ({sizes[0]:.2f} GB)"
    return [compare(what, found["ours"], f"{setting.dtype} weights ({sizes[1]:.2f} GB)"[6:], found["other"])]


def _replayed(dit: DiT, setting: Setting) -> list[Row]:
    run, host = _run_of(GRAPH_SECONDS, setting), Host(device=str(setting.device))
    sides = {"ours": lambda: run(dit, GraphedVelocity(dit.velocity, host)), "other": lambda: run(dit)}
    found = alternate(sides, setting)
    what = f"{GRAPH_SECONDS:g} s, 8 turbo steps, CUDA graph"
    return [compare(what, found["ours"], "kernel by kernel", found["other"])]


def _streamed(dit: DiT, run: Run, what: str, setting: Setting) -> list[Row]:
    """Every layer in main memory, against the whole model on the card."""
    waiting = copy.deepcopy(dit)
    waiting.layers.to("cpu")
    waiting.walk = Streamed(waiting.layers, setting.device, range(len(waiting.layers)))
    found = alternate({"ours": lambda: run(waiting), "other": lambda: run(dit)}, setting)
    return [compare(f"{what}, every layer from main memory", found["ours"], "all on the card", found["other"])]
