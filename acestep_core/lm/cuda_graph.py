"""Replaying one decoding turn as a CUDA graph: one launch in place of a thousand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..host import Host
from ..memory.recovery import is_out_of_memory


class Turn(Protocol):
    """A step that only reads and writes tensors which stay where they are."""

    count: int

    @property
    def state(self) -> tuple[Tensor, ...]: ...

    def turn(self, ahead: int, masked: bool = False) -> None: ...


class Graphed:
    """``loop.turn``, captured once for every ``bucket`` steps ahead, and replayed for all steps up to there.

    Where a capture fails for anything but memory, the rest is decoded step by step and the host is told.
    """

    def __init__(self, loop: Turn, bucket: int, host: Host):
        self.loop, self.bucket, self.host = loop, bucket, host
        self.graphs: dict[int, Callable[[], None]] = {}
        self.broken = False

    def __call__(self, ahead: int) -> None:
        reach = min(-(-ahead // self.bucket) * self.bucket, self.loop.count)
        if reach not in self.graphs and not self.broken:
            try:
                self.graphs[reach] = self._captured(reach)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.broken = True
                self.host.say(f"CUDA graphs do not work here ({error}); the planner decodes step by step.")
        if self.broken:
            self.loop.turn(ahead)
        else:
            self.graphs[reach]()

    def _captured(self, reach: int) -> Callable[[], None]:
        kept = [tensor.clone() for tensor in self.loop.state]
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.loop.turn(reach, masked=True)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.loop.turn(reach, masked=True)
        finally:
            for tensor, value in zip(self.loop.state, kept, strict=True):
                tensor.copy_(value)
        return graph.replay
