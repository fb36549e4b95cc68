"""Training: steps of our loop against PEFT's adapters in diffusers' transformer, and the memory each takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from acestep_graph.acestep_core.checkpoints.layouts import DIFFUSERS_RENAMES
from acestep_graph.acestep_core.models.dit import DiT
from acestep_graph.acestep_core.sampling.conditioning import context, frames_of
from acestep_graph.acestep_core.training import losses
from acestep_graph.acestep_core.training.adapters import Trainable, keep_little, twin
from acestep_graph.acestep_core.training.optimizers import make_optimizer, take_step
from acestep_graph.acestep_core.training.settings import TrainSettings
from tests.tiny import randomize

from .dit import CONDITION_TOKENS, SIZES, diffusers_copy
from .side_by_side import Row, Setting, alternate, compare

STEPS = 2
"""In a run: the second tells whether the first has changed the same."""
CASES = {
    "LoRA": {"gradient_checkpointing": False},
    "LoRA, layers computed twice": {"gradient_checkpointing": True},
    "DoRA": {"method": "dora", "gradient_checkpointing": False},
}
LEAVES = ("to_q", "to_k", "to_v", "to_out.0")


def rows(setting: Setting, seconds: Sequence[float] = (60,)) -> list[Row]:
    """A row for each length and each of :data:`CASES`, by two steps of one item.

    Both sides have the same weights, rank, targets, optimizer and precision, start from the same adapter, and see the
    same noise and levels; dropout is off. The results are the losses of the steps. Each peak is that of a process of
    its own, because memory that one side gives back is there for the other.
    """
    return [_row(length, case, setting) for length in seconds for case in CASES]


def _row(seconds: float, case: str, setting: Setting) -> Row:
    found = alternate({name: _side(name, case, seconds, setting) for name in SIDES}, setting)
    found = {name: replace(one, peak_bytes=peak_of(name, case, seconds, setting)) for name, one in found.items()}
    return compare(f"{seconds:g} s, {STEPS} steps, {case}", found.pop("ours"), *found.popitem())


def _side(name: str, case: str, seconds: float, setting: Setting) -> Callable[[], Tensor]:
    """The steps of one of :data:`SIDES`; equal calls train equal networks."""
    dit = randomize(DiT(SIZES[setting.size]), seed=0).to(setting.device, setting.dtype).requires_grad_(False)
    item, settings = _item(dit, seconds, setting), TrainSettings(dropout=0.0, **CASES[case])
    return SIDES[name](dit, settings, item, setting)


def peak_of(name: str, case: str, seconds: float, setting: Setting) -> int | None:
    """What this module, run as a program, has found."""
    kind = str(setting.dtype).removeprefix("torch.")
    asked = json.dumps([name, case, seconds, setting.size, str(setting.device), kind])
    command, place = [sys.executable, "-m", "benchmarks.train", asked], Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Training with {name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


Item = tuple[Tensor, Tensor, Tensor]
"""Target [1, T, 64], context [1, T, 128] and conditions [1, L, E]."""
Decoder = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _item(dit: DiT, seconds: float, setting: Setting) -> Item:
    draw = torch.Generator().manual_seed(1)
    frames, channels = frames_of(seconds), dit.config.audio_acoustic_hidden_dim
    target = torch.randn(1, frames, channels, generator=draw)
    around = context(torch.randn(1, frames, channels, generator=draw))
    conditions = torch.randn(1, CONDITION_TOKENS, dit.config.encoder_width, generator=draw)
    return target.to(setting.device), around.to(setting.device), conditions.to(setting.device)


def _start(dit: DiT, settings: TrainSettings, setting: Setting) -> tuple[DiT, Trainable]:
    decoder = twin(dit, setting.device, setting.dtype)
    return decoder, Trainable(decoder, settings, torch.Generator().manual_seed(2))


def _ours(dit: DiT, settings: TrainSettings, item: Item, setting: Setting) -> Callable[[], Tensor]:
    decoder, trained = _start(dit, settings, setting)
    if settings.gradient_checkpointing:
        keep_little(decoder)
    return _steps(decoder, trained.parameters(), settings, item, setting)


def _theirs(dit: DiT, settings: TrainSettings, item: Item, setting: Setting) -> Callable[[], Tensor]:
    """The usual recipe: ``add_adapter`` on the transformer, adapters in float32 under autocast, its checkpointing."""
    import peft

    peer = diffusers_copy(dit, setting).train()
    adapter = {"r": settings.rank, "lora_alpha": settings.alpha, "use_dora": settings.method == "dora"}
    peer.add_adapter(peft.LoraConfig(target_modules=list(LEAVES), **adapter))
    for name, layer in _start(dit, settings, setting)[1].layers.items():
        for theirs, ours in DIFFUSERS_RENAMES:
            name = f"{name}.".replace(ours, theirs).removesuffix(".")
        with torch.no_grad():
            peer.get_submodule(name).lora_A["default"].weight.copy_(layer.down)
    if settings.gradient_checkpointing:
        peer.enable_gradient_checkpointing()
    parameters = [parameter for parameter in peer.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()

    def decoder(x: Tensor, around: Tensor, conditions: Tensor, t: Tensor) -> Tensor:
        level = t.to(x.dtype)
        with torch.autocast(setting.device.type, setting.dtype, enabled=setting.dtype != torch.float32):
            return peer(x, level, level, conditions, around, return_dict=False)[0]

    return _steps(decoder, parameters, settings, item, setting)


def _steps(
    decoder: Decoder, parameters: Sequence[Tensor], settings: TrainSettings, item: Item, setting: Setting
) -> Callable[[], Tensor]:
    """What both sides do with their decoder; the losses of :data:`STEPS` steps."""
    optimizer, draws = make_optimizer(parameters, settings), torch.Generator().manual_seed(3)
    target, around, conditions = item
    null = torch.zeros(1, 1, conditions.shape[-1], device=setting.device)

    def run() -> Tensor:
        found = []
        for _ in range(STEPS):
            draw = losses.draw_continuous(target.shape, draws).to(setting.device)
            loss = losses.batch_losses(decoder, target, around, conditions, null, draw, setting.dtype).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            take_step(optimizer, settings.learning_rate)
            optimizer.zero_grad(set_to_none=True)
            found.append(loss.detach())
        return torch.stack(found)

    return run


SIDES = {"ours": _ours, "PEFT in diffusers": _theirs}

if __name__ == "__main__":
    name, case, seconds, size, device, kind = json.loads(sys.argv[1])
    alone = Setting(size, torch.device(device), getattr(torch, kind), runs=1)
    print(json.dumps(alternate({name: _side(name, case, seconds, alone)}, alone)[name].peak_bytes))
