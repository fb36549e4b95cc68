"""Replaying one decoding turn as a CUDA graph: one launch in place of a thousand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..host import Host


class Turn(Protocol):
    """A step that only reads and writes tensors which stay where they are."""

    @property
    def state(self) -> tuple[Tensor, ...]: ...

    @property
    def cache(self) -> object: ...

    def turn(self, seen: int) -> None: ...


class Graphed:
    """``loop.turn``, captured once for each number of cached tokens that is looked at.

    That number is rounded up to ``bucket``, so a song of a minute needs a graph or two. Where a capture fails,
    the rest is decoded step by step and the host is told.
    """

    def __init__(self, loop: Turn, bucket: int, host: Host):
        self.loop, self.bucket, self.host = loop, bucket, host
        self.graphs: dict[int, Callable[[], None]] = {}
        self.broken = False

    def __call__(self, seen: int) -> None:
        if self.broken:
            return self.loop.turn(seen)
        rounded = min(-(-seen // self.bucket) * self.bucket, self.loop.cache.capacity)  # type: ignore[attr-defined]
        if rounded not in self.graphs:
            try:
                self.graphs[rounded] = self._captured(rounded)
            except RuntimeError as error:
                self.broken = True
                self.host.say(f"CUDA graphs do not work here ({error}); the planner decodes step by step.")
                return self.loop.turn(seen)
        self.graphs[rounded]()

    def _captured(self, seen: int) -> Callable[[], None]:
        kept = [tensor.clone() for tensor in self.loop.state]
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.loop.turn(seen)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.loop.turn(seen)
        finally:
            for tensor, value in zip(self.loop.state, kept, strict=True):
                tensor.copy_(value)
        return graph.replay
