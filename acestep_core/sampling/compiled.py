"""One compiled graph for all layers of the diffusion transformer, whatever the length of the music.

The layers are equal but for their weights, so their code is compiled once with the weights as inputs and with sizes
left open. A windowed and a full layer differ, and so do runs with and without guidance, and one piece and several at
once: two graphs each, at most eight, and as many more for each structure of adapters.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from ..host import Host
from ..lora.branch import Branch
from ..memory.recovery import is_out_of_memory
from ..models.attention import Rotary, Visible
from ..models.dit import Cross, DiTLayer, LayerCall

log = logging.getLogger("acestep")

BACKEND = "inductor"
MOST_GRAPHS = 64
"""PyTorch gives up after eight by itself. Where so many kinds of adapters came that these are full, all are let go."""
_FULL = re.compile(r"(recompile|cache.?size).?limit", re.IGNORECASE)
_numbers = itertools.count()


def run_layer(layer: DiTLayer, x: Tensor, levels: Tensor, table: Rotary, who: Visible, cross: Cross) -> Tensor:
    """What is compiled; see :meth:`DiTLayer.forward`."""
    return layer(x, levels, table, who, cross)


class Graphs:
    """The compiled form of :func:`run_layer` under one backend, kept until it is full.

    Attributes:
        count: graphs that were really compiled until now.
        call: the compiled function; a graph that would break raises instead.
    """

    def __init__(self, backend: str):
        self.backend, self.count = backend, 0
        self._compile: Callable[..., Any] | None = None
        # PyTorch keeps graphs with the code of a function: a code of its own has room of its own, and goes with it
        code = run_layer.__code__.replace(co_name=f"{run_layer.__name__}_{next(_numbers)}")
        own = FunctionType(code, run_layer.__globals__)
        self.call: LayerCall = torch.compile(own, backend=self._counted, fullgraph=True, dynamic=True)

    def _counted(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        if self._compile is None:
            self._compile = torch._dynamo.lookup_backend(self.backend)
        made = self._compile(graph, inputs)
        self.count += 1
        return made


@functools.cache
def graphs_of(backend: str) -> Graphs:
    return Graphs(backend)


class CompiledLayers:
    """Runs layers through their compiled graph during one run; the first failure switches to plain PyTorch and says so.

    >>> call = CompiledLayers(host)
    >>> v, _ = dit.velocity(x, levels, ready, call=call)
    """

    def __init__(self, host: Host, backend: str = BACKEND):
        self.host, self.graphs, self.before = host, graphs_of(backend), graphs_of(backend).count
        self.calls, self.problem, self.renewed = 0, "", False

    def __call__(self, layer: DiTLayer, x: Tensor, levels: Tensor, table: Rotary, who: Visible, cross: Cross) -> Tensor:
        if not self.problem:
            try:
                return self._compiled(layer, x, levels, table, who, cross)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                problem = error
            if _FULL.search(_in_short(problem)) and not self.renewed:
                self._renew()
                return self(layer, x, levels, table, who, cross)
            made = layer(x, levels, table, who, cross)  # an error of the layer itself is raised here
            self.problem = _in_short(problem)
            log.info("Compiling failed.", exc_info=problem)
            self.host.say(self.note())
            return made
        return layer(x, levels, table, who, cross)

    def _renew(self) -> None:
        self.renewed = True
        graphs_of.cache_clear()
        self.graphs, self.before = graphs_of(self.graphs.backend), 0
        self.host.say(f"{MOST_GRAPHS} graphs were compiled in this session; they are let go, and layers compiled anew.")

    def _compiled(self, layer: DiTLayer, x: Tensor, *given: Any) -> Tensor:
        _settle(layer, x)
        # Without guards on hooks a graph made with adapters would go on playing them, or never play them.
        with torch._dynamo.config.patch(_dynamo_settings()):
            made = self.graphs.call(layer, x, *given)
        self.calls += 1
        return made

    def note(self) -> str:
        """What was compiled, counted and not assumed; or why nothing was."""
        if self.problem:
            return f"Compiling does not work here ({self.problem}); the layers ran as they are. {_hint(self.problem)}"
        new = self.graphs.count - self.before
        work = f"{new} graphs were made for them" if new else "no graph had to be made for them"
        return f"Compiled layers: {self.calls} runs; {work}, {self.graphs.count} in this session."


def _settle(layer: DiTLayer, x: Tensor) -> None:
    """Adapters get ready outside the graph, which then only reads what they add."""
    for part in layer.modules():
        for hook in part._forward_hooks.values():
            if isinstance(hook, Branch):
                hook.settle(part, x.device, x.dtype)


def _dynamo_settings() -> dict[str, Any]:
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    return {"skip_nnmodule_hook_guards": False, limit: MOST_GRAPHS}


def _in_short(error: BaseException) -> str:
    """The innermost cause, in one line."""
    inner: BaseException | None = error
    while inner is not None:
        error, inner = inner, getattr(inner, "inner_exception", None) or inner.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


def _hint(problem: str) -> str:
    words = problem.lower()
    if "triton" in words:
        return "On a GPU the package triton is needed (on Windows: triton-windows)."
    if any(name in words for name in ("compiler", "c++", "g++", "cl is not found", "gcc")):
        return "On the CPU a C++ compiler is needed (Linux: g++, macOS: the Xcode tools, Windows: MSVC)."
    return "Take the Compile Model node out to leave it."
