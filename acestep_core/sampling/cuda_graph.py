"""Replaying a step of the diffusion transformer as a CUDA graph: one launch in place of a thousand.

It pays where a step is so short that the processor cannot launch its kernels fast enough.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..host import Host
from ..memory.recovery import is_out_of_memory
from ..models.dit import Prepared, Velocity

Levels = tuple[Tensor, Tensor]
Answer = tuple[Tensor, Tensor | None]

MOST_TOKENS = 1500
"""Positions of all rows together up to which a graph is made; above, the card is busy enough without."""


class Step:
    """One velocity whose inputs and outputs stay where they are."""

    def __init__(self, velocity: Velocity, x: Tensor, levels: Levels, ready: Prepared, guided: bool):
        self.velocity, self.ready, self.guided = velocity, ready, guided
        self.x, self.levels = x.clone(), tuple(part.clone() for part in levels)
        self.answer: Answer = (x, None)

    def feed(self, x: Tensor, levels: Levels) -> None:
        self.x.copy_(x)
        for kept, part in zip(self.levels, levels, strict=True):
            kept.copy_(part)

    def compute(self) -> None:
        self.answer = self.velocity(self.x, self.levels, self.ready, self.guided)


class GraphedVelocity:
    """``velocity``, captured at the second call for the same conditions and replayed from then on.

    The first call runs as it is, which settles kernels, adapters and compiled code. Weights must not move while this
    lives: make one for one run. Where a capture fails, the run goes on step by step and the host is told.
    """

    def __init__(self, velocity: Velocity, host: Host):
        self.velocity, self.host = velocity, host
        self.ready: Prepared | None = None
        self.steps: dict[bool, tuple[Step, Callable[[], None]] | None] = {}
        self.captured, self.replayed, self.problem = 0, 0, ""

    def __call__(self, x: Tensor, levels: Levels, ready: Prepared, guided: bool = False) -> Answer:
        if self.problem:
            return self.velocity(x, levels, ready, guided)
        if ready is not self.ready:
            self.ready, self.steps = ready, {}
        if guided not in self.steps:
            self.steps[guided] = None
            return self.velocity(x, levels, ready, guided)
        if self.steps[guided] is None:
            try:
                step = Step(self.velocity, x, levels, ready, guided)
                self.steps[guided] = step, self._capture(step)
                self.captured += 1
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.problem, self.steps = (str(error).strip() or type(error).__name__).splitlines()[0], {}
                self.host.say(self.note())
                return self.velocity(x, levels, ready, guided)
        step, replay = self.steps[guided]
        step.feed(x, levels)
        replay()
        self.replayed += 1
        v, v_null = step.answer
        return v.clone(), None if v_null is None else v_null.clone()

    def _capture(self, step: Step) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step.compute()
        return graph.replay

    def note(self) -> str:
        """What was captured and replayed, or why nothing was."""
        if self.problem:
            return f"CUDA graphs do not work here ({self.problem}); sampling goes on step by step."
        return f"CUDA graphs: {self.captured} captured, {self.replayed} steps replayed."


def obstacle(device: torch.device, tokens: int, streamed: bool) -> str:
    """Why no graph is made here, "" where one is.

    Args:
        tokens: positions of all rows together. streamed: whether layers come and go.
    """
    if device.type != "cuda" or torch.version.hip:
        return "CUDA graphs need an NVIDIA card; sampling runs step by step."
    if streamed:
        return "No CUDA graph is made, as layers of the model come and go."
    if tokens > MOST_TOKENS:
        return "No CUDA graph is made for music this long: it would gain nothing."
    return ""
