"""Out of memory: recognised on every backend, answered once with a smaller plan, and explained where none is left."""

from __future__ import annotations

import functools
import gc
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from ..host import current

Given, Made = ParamSpec("Given"), TypeVar("Made")

_WORDS = (
    *("out of memory", "can't allocate memory", "not enough memory", "insufficient memory", "failed to allocate"),
    *("alloc_failed", "allocation_failed", "invalid buffer size", "out_of_device_memory", "out_of_host_memory"),
)


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


def with_room(what: str) -> Callable[[Callable[Given, Made]], Callable[Given, Made]]:
    """For work that cannot be cut into parts: where memory ends, everything else leaves the card and it begins again.

    The host is the argument ``host`` of the function, or that of its object.

    Raises:
        OutOfMemory: it does not fit on an empty card either.
    """

    def decorate(work: Callable[Given, Made]) -> Callable[Given, Made]:
        signature = inspect.signature(work)

        @functools.wraps(work)
        def run(*args: Given.args, **kwargs: Given.kwargs) -> Made:
            try:
                return work(*args, **kwargs)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            given = signature.bind(*args, **kwargs).arguments
            host = given.get("host") or getattr(given.get("self"), "host", None) or current()
            host.say(f"There was not enough memory for {what}; other models made room, and it began again.")
            host.make_room()
            try:
                return work(*args, **kwargs)
            except Exception as error:
                if is_out_of_memory(error):
                    raise advice(what) from error
                raise

        return run

    return decorate
