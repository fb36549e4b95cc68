"""Playing adapters beside the weights: y = W x + Σ strength · ΔW x.

>>> from acestep_core.lora import apply, formats
>>> jazz = formats.read_adapter("models/loras/jazz.safetensors", model.config)
>>> with_jazz = apply.with_adapter(model, jazz, 0.8)

A handle says which adapters are wanted; the weights, shared with every other handle, are never written. Only
inside :func:`active` the layers add what the adapters of that handle add, so W may be of any precision,
quantized too. Every adapter is measured against the plain W: the order of a stack does not matter, and a strength
of 0 is the same as no adapter, bit for bit.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from ..checkpoints.handles import DiffusionModel
from .adapter import Adapter, Change
from .branch import Branch, stand_in
from .layers import Layers

STRENGTH_RANGE = (-4.0, 4.0)
"""1 is as trained; 0 to 1 is usual."""


def with_adapter(model: DiffusionModel, adapter: Adapter, strength: float = 1.0) -> DiffusionModel:
    """A handle of the same weights with one more adapter in its stack.

    Raises:
        ValueError: strength outside :data:`STRENGTH_RANGE`. CheckpointError: an adapter for another model.
    """
    low, high = STRENGTH_RANGE
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not math.isfinite(strength):
        raise ValueError(f"The strength of {adapter.name} is {strength!r}; allowed is a number, {low:g} to {high:g}.")
    if not low <= strength <= high:
        raise ValueError(f"The strength of {adapter.name} is {strength:g}; allowed is {low:g} to {high:g}.")
    shapes = {layer: change.form.shape for layer, change in adapter.changes.items()}
    Layers(model.config).require(adapter.name, shapes)
    return replace(model, adapters=(*model.adapters, (adapter, float(strength))))


def without_adapters(model: DiffusionModel) -> DiffusionModel:
    """A handle of the same weights with an empty stack."""
    return replace(model, adapters=())


def playing(model: DiffusionModel) -> tuple[tuple[Adapter, float], ...]:
    """The part of the stack that has an effect: strength other than 0."""
    return tuple((adapter, strength) for adapter, strength in model.adapters if strength != 0)


def bytes_wanted(model: DiffusionModel) -> int:
    """Memory that the adapters of a handle take on the device while they play."""
    width = model.dtype.itemsize
    parts = (change.tensors() for adapter, _ in playing(model) for change in adapter.changes.values())
    return sum(tensor.numel() * width for tensors in parts for tensor in tensors)


def record(model: DiffusionModel) -> dict[str, Any]:
    """The stack as plain values for saved settings; the flat names are those of the original's result files."""
    stack = model.adapters
    return {
        "lora_loaded": bool(stack),
        "use_lora": bool(playing(model)),
        "lora_scale": stack[0][1] if stack else 1.0,
        "lora_weights_hash": stack[0][0].sha256 if stack else "",
        "adapters": [{"name": a.name, "strength": strength, "sha256": a.sha256} for a, strength in stack],
    }


@contextmanager
def active(model: DiffusionModel) -> Iterator[None]:
    """Within the block the decoder of ``model`` computes with the adapters of this handle, and no others.

    Blocks of handles that share weights may be nested; the innermost counts, and the one around it again after it.
    Another thread that wants the same weights waits.
    """
    wanted: dict[str, list[tuple[Change, float]]] = {}
    for adapter, strength in playing(model):
        for layer, change in adapter.changes.items():
            wanted.setdefault(layer, []).append((change, strength))
    block = {layer: Branch(changes) for layer, changes in wanted.items()}
    stage = _stage(model.module.decoder)
    with stage.lock:
        stage.blocks.append(block)
        try:
            stage.show(block)
            yield
        finally:
            stage.blocks = [other for other in stage.blocks if other is not block]
            stage.show(stage.blocks[-1] if stage.blocks else {})


@dataclass(eq=False)
class _Stage:
    """Which branches the layers of one decoder have right now."""

    decoder: weakref.ref[nn.Module]
    lock: threading.RLock = field(default_factory=threading.RLock)
    blocks: list[Mapping[str, Branch]] = field(default_factory=list)
    hooks: list[RemovableHandle] = field(default_factory=list)
    replaced: list[tuple[nn.Module, str, nn.Module]] = field(default_factory=list)

    def show(self, block: Mapping[str, Branch]) -> None:
        """Take off what is there, put on ``block``."""
        for hook in self.hooks:
            hook.remove()
        for owner, name, own in self.replaced:
            setattr(owner, name, own)
        self.hooks, self.replaced = [], []
        decoder = self.decoder()
        for layer, branch in block.items():
            module = decoder.get_submodule(layer)
            if isinstance(module, nn.Conv1d):
                owner, _, name = layer.rpartition(".")
                self.replaced.append((decoder.get_submodule(owner), name, module))
                setattr(decoder.get_submodule(owner), name, stand_in(module, branch.changes))
            else:
                self.hooks.append(module.register_forward_hook(branch))


_stages: weakref.WeakKeyDictionary[nn.Module, _Stage] = weakref.WeakKeyDictionary()
_stages_lock = threading.Lock()


def _stage(decoder: nn.Module) -> _Stage:
    with _stages_lock:
        if decoder not in _stages:
            _stages[decoder] = _Stage(weakref.ref(decoder))
        return _stages[decoder]


def shown(model: DiffusionModel) -> Sequence[str]:
    """Names of the layers that carry a branch at this moment; empty outside :func:`active`."""
    stage = _stage(model.module.decoder)
    return sorted(stage.blocks[-1]) if stage.blocks else []
