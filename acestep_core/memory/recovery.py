"""Out of memory: recognised on every backend, answered once with a smaller plan, and explained where none is left."""

from __future__ import annotations

import gc

import torch

_WORDS = ("out of memory", "can't allocate memory", "insufficient memory", "failed to allocate", "alloc_failed")


class OutOfMemory(RuntimeError):
    """Even the smallest plan did not fit; the message says what to do."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is a device or the machine running out of memory, whatever backend says so."""
    kinds = (torch.cuda.OutOfMemoryError, MemoryError, getattr(torch, "OutOfMemoryError", MemoryError))
    if isinstance(error, OutOfMemory):
        return False
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)
    )


def empty_cache() -> None:
    """Give back what the allocators keep for later."""
    gc.collect()
    for backend in (torch.cuda, getattr(torch, "xpu", None), getattr(torch, "mps", None)):
        if backend is not None and getattr(backend, "is_available", lambda: False)():
            backend.empty_cache()


def advice(what: str) -> OutOfMemory:
    """The error for a stage that does not fit at all."""
    return OutOfMemory(
        f"There is not enough memory for {what}, even one piece at a time. Close other programs and other models, make "
        "the music shorter, or load the models with less precision; nothing that was made before is lost."
    )
