"""Random numbers of a device, lent and given back: what others draw later is as if nothing had been drawn here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Within the block dropout on ``device`` follows ``seed``; the random numbers of others are as if it never was."""
    if device.type == "mps":
        state = torch.mps.get_rng_state()
        torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            torch.mps.set_rng_state(state)
        return
    if device.type == "cpu":
        generator = torch.default_generator
    else:
        backend = getattr(torch, device.type)
        generator = backend.default_generators[backend.current_device() if device.index is None else device.index]
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Within the block the program's random numbers may be used; after it they are as if they had not been."""
    with ExitStack() as stack:
        cards = {"devices": [device], "device_type": device.type} if device.type in ("cuda", "xpu") else {"devices": []}
        stack.enter_context(torch.random.fork_rng(**cards))
        if device.type == "mps":
            state = torch.mps.get_rng_state()
            stack.callback(torch.mps.set_rng_state, state)
        yield
