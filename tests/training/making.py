"""Small runs on the tiny models, and a process that can be killed in the middle of one.

``python -m tests.training.making FOLDER N`` trains and kills itself, as ``kill -9`` does, at the N-th event;
``FOLDER together N`` is one of several processes of a run, which fails, cancels or stops (``N`` of ``fail:1:3``: in
process 1 at its third look up).
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from functools import cache
from pathlib import Path

import torch

if __name__ == "__main__":
    from tests import pack

    pack.load()

from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.training import checkpoint, trainer
from acestep_graph.acestep_core.training.items import TrainItem
from acestep_graph.acestep_core.training.settings import TrainSettings
from tests import models, tiny

SETTINGS = TrainSettings(
    rank=4,
    alpha=8,
    learning_rate=1e-3,
    epochs=5,
    accumulation=2,
    warmup_steps=3,
    save_every=1,
    save_minutes=0,
    gradient_checkpointing=False,
)
LENGTHS = ((22, 9, 1), (19, 12, 2), (22, 9, 1), (30, 7, 1))
"""Frames, tokens and repeats: five passes an epoch, so that the last step of each is of one pass."""


@cache
def wide():
    """A model of twice the width, for the same conditions."""
    base = models.diffusion()
    config = dataclasses.replace(base.config, hidden_size=2 * base.config.hidden_size)
    for name in ("intermediate_size", "num_attention_heads", "num_key_value_heads"):
        config = dataclasses.replace(config, **{f"encoder_{name}": getattr(config, name)})
    config = dataclasses.replace(config, encoder_hidden_size=base.config.encoder_width)
    return dataclasses.replace(base, module=tiny.randomize(type(base.module)(config), 3))


def items(lengths=LENGTHS, width=32, dtype=torch.float32, seed=0):
    draws = torch.Generator().manual_seed(seed)

    def some(*shape):
        return torch.randn(*shape, generator=draws).to(dtype)

    return tuple(
        TrainItem(f"song {index}", some(frames, 64), some(tokens, width), repeat=repeat, about={"bpm": 90 + index})
        for index, (frames, tokens, repeat) in enumerate(lengths)
    )


def tunes():
    """Four items whose latents, one pair of frames again and again, are such as the tiny decoder can answer with."""
    draws = torch.Generator().manual_seed(5)
    weight = models.diffusion().module.decoder.proj_out[1].weight.detach()

    def tune():
        return torch.einsum("h,hcp->pc", 2 * torch.randn(weight.shape[0], generator=draws), weight).repeat(8, 1)

    conditions = torch.randn(4, 6, 32, generator=draws)
    return tuple(TrainItem(f"tune {index}", tune(), some) for index, some in enumerate(conditions))


def run(folder, settings=SETTINGS, host=None, data=None, model=None, **more):
    host = host or Host(output=folder, device="cpu")
    given = items() if data is None else data
    return trainer.train(model or models.diffusion(), given, settings, folder, host=host, **more)


def outcome(folder: Path) -> dict[str, bytes]:
    """What two runs must agree on, byte for byte."""
    names = ("final/adapter_model.safetensors", "final/adapter_config.json", "loss.csv")
    return {name: (Path(folder) / name).read_bytes() for name in names}


class Events:
    """Counts what a run does: passes, and everything that makes a file durable or gives it its name."""

    def __init__(self, at, act):
        self.seen, self.at, self.act, self.before = 0, at, act, {}

    def happen(self):
        self.seen += 1
        if self.seen == self.at:
            self.act()

    def __enter__(self):
        for owner, name in ((os, "fsync"), (os, "replace"), (Host, "check_cancelled"), (checkpoint, "save_file")):
            self.before[owner, name] = original = getattr(owner, name)

            def counted(*args, _original=original, **kwargs):
                self.happen()
                return _original(*args, **kwargs)

            setattr(owner, name, counted)
        return self

    def __exit__(self, *_):
        for (owner, name), original in self.before.items():
            setattr(owner, name, original)


def die():
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def run_together(folder, how):
    """Train as one of the processes that the environment tells of; print what the leading one has seen."""
    from acestep_graph.acestep_core.training import parallel

    team = parallel.join(cpu=True)
    kind, rank, at = (how.split(":") + ["0", "0"])[:3]
    looks = []

    class Watched(Host):
        def check_cancelled(self):
            looks.append(1)
            if (int(rank), int(at)) == (team.rank, len(looks)) and kind != "stop":
                raise Cancelled("Stopped by the user.") if kind == "cancel" else RuntimeError("the card fell off")

    def stop():
        return kind == "stop" and team.rank == int(rank) and len(looks) >= int(at)

    try:
        done = run(folder, host=Watched(output=folder, device="cpu"), team=team, should_stop=stop)
        print(f"{team.rank}: steps {done.steps}, stopped {done.stopped}, points {len(done.points)}", flush=True)
    except Exception as error:
        print(f"{team.rank}: {type(error).__name__} {error}", flush=True)


if __name__ == "__main__" and sys.argv[2] == "together":
    run_together(Path(sys.argv[1]), sys.argv[3])
elif __name__ == "__main__":
    with Events(int(sys.argv[2]), die):
        run(Path(sys.argv[1]))
