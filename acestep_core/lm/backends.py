"""How the planner decodes: step by step, or by replaying CUDA graphs. Imports no torch by itself."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..host import Host, current

if TYPE_CHECKING:
    from ..checkpoints.handles import LanguageModel

AUTO, TORCH, CUDA_GRAPH = BACKENDS = ("auto", "torch", "torch + CUDA graph")

_NOT_OFFERED = {
    "vllm": (
        "vLLM is installed but not offered: it decodes every row for itself, while guided codes need one token "
        "chosen from two rows and given to both, and the grammar of a plan changes with every token."
    ),
    "mlx": (
        "MLX is installed but not offered: the planner's weights, its grammar and its guidance run on PyTorch, "
        "whose MPS device is used on this machine."
    ),
}


def not_offered() -> tuple[str, ...]:
    """Why decoders that are installed here are not among :data:`BACKENDS`."""
    return tuple(reason for package, reason in _NOT_OFFERED.items() if find_spec(package) is not None)


def graphs_work(host: Host) -> bool:
    """Whether CUDA graphs can be captured where the planner computes: on NVIDIA GPUs."""
    import torch

    return host.device("lm").type == "cuda" and torch.version.hip is None


def with_backend(lm: LanguageModel, backend: str, host: Host | None = None) -> LanguageModel:
    """The same planner decoding by ``backend``; where that is impossible here, it says so and goes step by step.

    Raises:
        ValueError: none of :data:`BACKENDS`.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; allowed is {', '.join(BACKENDS)}.")
    host, notes = host or current(), list(not_offered())
    possible = graphs_work(host)
    if backend == CUDA_GRAPH and not possible:
        notes.append("CUDA graphs need an NVIDIA GPU; here the planner decodes step by step, to the same codes.")
        host.say(notes[-1])
    chosen = CUDA_GRAPH if possible and backend != TORCH else TORCH
    report = replace(lm.report, notes=(*lm.report.notes, f"decoding: {chosen}", *notes))
    return replace(lm, report=report, backend=chosen)
