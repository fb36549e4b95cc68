"""How the planner decodes: step by step, or by replaying CUDA graphs. Imports no torch."""

from __future__ import annotations

from importlib.util import find_spec

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


def check_backend(backend: str) -> str:
    """``backend`` itself; ValueError where it is none of :data:`BACKENDS`."""
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; allowed is {', '.join(BACKENDS)}.")
    return backend


def not_offered() -> tuple[str, ...]:
    """Why decoders that are installed here are not among :data:`BACKENDS`."""
    return tuple(reason for package, reason in _NOT_OFFERED.items() if find_spec(package) is not None)


def uses_graphs(backend: str, device: str, hip: bool) -> tuple[bool, str]:
    """Whether CUDA graphs are replayed on a device of type ``device``, and a note where the wish is not met."""
    possible = device == "cuda" and not hip
    if backend == CUDA_GRAPH and not possible:
        kind = "ROCm" if hip else f"the device {device}"
        return False, f"CUDA graphs need an NVIDIA GPU; on {kind} the planner decodes step by step: the same codes."
    return possible and backend != TORCH, ""
