"""AdamW, plain or with moments of 8 bits, and what it remembers as plain tensors and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .settings import BETAS, EPS, TrainSettings

CODES, SCALE = "#codes", "#scale"
"""Behind the names of the two halves of a moment of 8 bits: codes [shape] and a scale for each block of 256."""


class OptimizerMissing(ValueError):
    """The optimizer asked for needs a package that is not here."""


def make_optimizer(parameters: Sequence[Tensor], settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW as the settings ask; ``adamw8bit`` is torchao's (Dettmers et al. 2021, arXiv 2110.02861).

    Raises:
        OptimizerMissing: adamw8bit without torchao, or with one that does not fit PyTorch.
    """
    how = {"lr": settings.learning_rate, "betas": BETAS, "eps": EPS, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **how)
    try:
        from torchao.optim import AdamW8bit
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise OptimizerMissing(
            f"adamw8bit needs the package torchao in a version that fits PyTorch {torch.__version__}, and it cannot be "
            f"imported here ({error}). Install it (pip install torchao), or choose adamw."
        ) from error
    return AdamW8bit(parameters, **how)


def take_step(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One step at the learning rate ``rate``.

    torchao would compile its step, which needs a C++ compiler or Triton; it is run as it stands instead.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    if isinstance(optimizer, torch.optim.AdamW):
        optimizer.step()
    else:
        with torch.compiler.set_stance("force_eager"):
            optimizer.step()


def optimizer_state(
    optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors and numbers that the optimizer keeps for parameters, by ``parameter/name``."""
    tensors, numbers = {}, {}
    for name, parameter in names.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if _is_small(value):
                tensors[f"{name}/{key}{CODES}"], tensors[f"{name}/{key}{SCALE}"] = value.codes, value.scale
            else:
                (tensors if isinstance(value, Tensor) else numbers)[f"{name}/{key}"] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, float],
) -> None:
    """Give an unused optimizer what :func:`optimizer_state` took from another.

    Raises:
        ValueError: it belongs to other parameters.
    """
    states: dict[str, dict[str, Any]] = {}
    for full, value in [*tensors.items(), *numbers.items()]:
        name, _, key = full.rpartition("/")
        if name not in names:
            raise ValueError(f"The optimizer of the checkpoint knows {name}, which is not trained.")
        if key.endswith(SCALE):
            continue
        if key.endswith(CODES):
            key = key.removesuffix(CODES)
            value = _small(value, tensors[f"{name}/{key}{SCALE}"], signed=key == "exp_avg")
        if isinstance(value, Tensor):
            value = value.clone() if key == "step" else value.to(names[name].device, copy=True)
        states.setdefault(name, {})[key] = value
    for name, state in states.items():
        optimizer.state[names[name]] = state


def _is_small(value: Any) -> bool:
    return isinstance(value, Tensor) and hasattr(value, "codes") and hasattr(value, "scale")


def _small(codes: Tensor, scale: Tensor, signed: bool) -> Tensor:
    """A moment of 8 bits from its halves."""
    from torchao.optim.subclass_8bit import OptimState8bit

    made = OptimState8bit.zeros(codes.shape, signed, codes.numel() // scale.numel(), dtype=torch.float32)
    made.codes.copy_(codes)
    made.scale.copy_(scale)
    return made
