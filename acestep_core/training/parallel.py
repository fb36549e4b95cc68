"""Several processes that train one adapter, each on a card of its own.

The passes of a step are shared out among them and their gradients added up. Every process draws the same random
numbers in the same order, so a run is the same however many there are, and may go on with another number of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Alone:
    """The usual case: this process does everything."""

    rank, count = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes and speaks."""
        return self.rank == 0

    def mine(self, index: int) -> bool:
        """Whether pass ``index`` of a step is computed here."""
        return index % self.count == self.rank

    def wait(self) -> None:
        """Until every process has come as far."""

    def add_up(self, parameters: Sequence[Tensor], numbers: Sequence[float]) -> list[float]:
        """Replace the gradients of ``parameters`` by their sums over all processes; the sums of ``numbers``."""
        return list(numbers)


class Together(Alone):
    """One of several processes that accelerate, or anything that sets the same variables, has started."""

    def __init__(self, accelerator: Any):
        self.accelerator = accelerator
        self.rank, self.count = accelerator.process_index, accelerator.num_processes

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def add_up(self, parameters: Sequence[Tensor], numbers: Sequence[float]) -> list[float]:
        device = parameters[0].device
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = self._sum(torch.cat([parameter.grad.flatten() for parameter in parameters]))
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))
        return self._sum(torch.tensor(list(numbers), dtype=torch.float32, device=device)).tolist()

    def _sum(self, tensor: Tensor) -> Tensor:
        return self.accelerator.reduce(tensor, reduction="sum")


ALONE = Alone()


def started() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(*, cpu: bool = False) -> Alone:
    """The processes that this one was started with; itself alone where it was not.

    Raises:
        ValueError: accelerate is missing.
    """
    if not started():
        return ALONE
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ValueError(
            "Training on several cards needs the package accelerate (pip install accelerate). Install it, or train "
            "on one card."
        ) from error
    return Together(Accelerator(cpu=cpu))
