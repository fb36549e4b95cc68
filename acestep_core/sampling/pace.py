"""How a run evaluates the model: plainly, through compiled layers, from a CUDA graph, or both.

>>> from dataclasses import replace
>>> from acestep_core.sampling import pace
>>> quick = pace.compiled(model)                # a handle of the same weights; ``model`` stays as it is
>>> made = sample(quick, conditioning)
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..checkpoints.handles import DiffusionModel
from ..host import Host
from ..models.dit import DiT, Velocity
from . import cuda_graph

if TYPE_CHECKING:
    from .compiled import CompiledLayers

INDUCTOR = "inductor"


def compiled(model: DiffusionModel, layers: bool = True, graph: bool = False) -> DiffusionModel:
    """A handle of the same weights that the sampler compiles the layers of, replays the steps of, or both."""
    return replace(model, compile=INDUCTOR if layers else "", cuda_graph=graph)


def plan(layers: bool, graph: bool) -> str:
    """What the sampler will do, to read; what came of it is in the notes of what it makes."""
    ways = (["compile the layers of the diffusion model once"] if layers else []) + (
        ["replay the steps of short pieces as a CUDA graph"] if graph else []
    )
    return f"The sampler will {' and '.join(ways)}. What came of it stands in its settings."


class Pace:
    """The ways of one call of the sampler, and what came of them."""

    def __init__(self, model: DiffusionModel, host: Host):
        self.model, self.host = model, host
        self.layers: CompiledLayers | None = None
        self._said: list[str] = []
        if not model.compile:
            return
        if host.device("dit").type == "mps":
            self._say("Compiling is of no use on Apple's GPUs; the layers run as they are.")
            return
        from .compiled import CompiledLayers

        self.layers = CompiledLayers(host, model.compile)
        if not self.layers.graphs.count:
            host.say("The first piece of its kind compiles the layers, which takes a minute or more.")

    def velocity(self, device: torch.device, tokens: int) -> Velocity:
        """For one run of ``tokens`` positions of all rows together."""
        dit: DiT = self.model.module.decoder
        velocity: Velocity = dit.velocity if self.layers is None else partial(dit.velocity, call=self.layers)
        if not self.model.cuda_graph:
            return velocity
        problem = cuda_graph.obstacle(device, tokens, streamed=dit.walk is not None)
        if problem:
            self._say(problem)
            return velocity
        return cuda_graph.GraphedVelocity(velocity, self.host)

    def finish(self, velocity: Velocity) -> None:
        """A run is over; its graphs are let go."""
        if isinstance(velocity, cuda_graph.GraphedVelocity):
            self._say(velocity.note(), aloud=not velocity.problem)

    def _say(self, text: str, aloud: bool = True) -> None:
        if text not in self._said:
            self._said.append(text)
            if aloud:
                self.host.say(text)

    def notes(self) -> tuple[str, ...]:
        """Sentences for the saved settings. What was compiled is counted, and said, here."""
        if self.layers is not None:
            self._say(self.layers.note(), aloud=not self.layers.problem)
        return tuple(self._said)
