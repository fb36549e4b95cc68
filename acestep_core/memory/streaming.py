"""The diffusion model on a card that cannot hold it: layers wait in main memory and come when it is their turn.

Everything else, and as many layers as there is room for, stays on the card. The others are copied into one of two
places in turn, the next one while the present one computes. The numbers are the same, bit for bit.

>>> streaming.arrange(model.module, torch.device("cuda"), room=3 * 2**30)
>>> made = sample(model, conditioning)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.acestep import AceStepModel
from ..models.dit import DiTLayer
from .quantize import int8_bytes

PLACES = 2
EVERYTHING = 1 << 60
"""As working memory: more than any card has, so that every layer makes room."""
MARGIN_BYTES = 512 * 2**20
"""Left free beside weights and working memory, for what allocators and kernels take."""

Move = Callable[[nn.Module], Any]
Place = tuple[dict[str, Any], str]
"""Where a module keeps one of its tensors."""


def possible(device: torch.device) -> bool:
    """Whether layers can come and go: not where the device computes in main memory."""
    return device.type not in ("cpu", "mps")


def bytes_on(module: nn.Module, device: torch.device) -> int:
    """Bytes of ``module`` that lie on devices of the kind of ``device``."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(_bytes(tensor) for tensor in tensors if tensor.device.type == device.type)


def fits(module: nn.Module, room: int) -> bool:
    """Whether the weights of ``module`` take at most ``room`` bytes."""
    return int8_bytes(module) <= room


def arrange(module: nn.Module, device: torch.device, room: int, move: Move | None = None) -> bool:
    """Bring ``module`` to ``device`` where it fits into ``room`` bytes; else all but some layers. True for the latter.

    A module without layers that can wait is brought whole in any case.

    Args:
        move: brings what stays to the device; ``part.to(device)`` by default.
    """
    move = move or (lambda part: part.to(device))
    settle(module)
    if not isinstance(module, AceStepModel) or fits(module, room):
        move(module)
        return False
    layers = module.decoder.layers
    sizes, every = [int8_bytes(layer) for layer in layers], int8_bytes(module)
    kept = min(max(0, (room - (every - sum(sizes))) // max(sizes) - PLACES), len(layers) - 1)
    away = spread(len(layers), len(layers) - kept)
    for index in away:
        layers[index].to("cpu")
    staying = Staying(module, [layers[index] for index in away])
    move(staying)
    module.decoder.walk = Streamed(layers, device, away, staying)
    return True


def settle(module: nn.Module) -> None:
    """The layers of ``module`` no longer come and go; it is about to be moved as a whole."""
    if isinstance(module, AceStepModel):
        module.decoder.walk = None


def notes(module: nn.Module) -> tuple[str, ...]:
    """A sentence for the user where layers of ``module`` come and go."""
    walk = module.decoder.walk
    if not isinstance(walk, Streamed):
        return ()
    return (
        f"The diffusion model does not fit into the card's memory: {len(walk.away)} of its {len(walk.layers)} layers "
        "stay in main memory and are copied when it is their turn, which is slower.",
    )


def spread(count: int, chosen: int) -> list[int]:
    """``chosen`` of ``count`` indices, evenly, so that every copy has layers to hide behind."""
    return [i for i in range(count) if (i + 1) * chosen // count > i * chosen // count]


class Staying(nn.Module):
    """The parts of ``module`` outside ``away``, as one module that can be moved. The parameters are the same.

    Attributes:
        whole: weak reference to ``module``.
    """

    def __init__(self, module: nn.Module, away: Sequence[nn.Module]):
        super().__init__()
        self.whole = weakref.ref(module)
        self._owners: dict[str, Place] = {}
        self._add(module, "all", {id(part) for part in away})

    def _add(self, part: nn.Module, name: str, away: set[int]) -> None:
        if id(part) in away:
            return
        if not any(id(inner) in away for inner in part.modules()):
            self.add_module(name, part)
            return
        for own, parameter in part.named_parameters(recurse=False):
            self.register_parameter(f"{name}_{own}", parameter)
            self._owners[f"{name}_{own}"] = part._parameters, own
        for child, inner in part.named_children():
            self._add(inner, f"{name}_{child}", away)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Staying:
        super()._apply(fn, recurse)
        for name, (kept, own) in self._owners.items():  # moving to some devices makes a new parameter
            kept[own] = self._parameters[name]
        return self


class Streamed:
    """Walks through layers on ``device``, of which those ``away`` are copied there for their turn.

    One walk at a time.

    Attributes:
        copied: bytes copied until now. staying: what is on the device for good.
    """

    def __init__(
        self,
        layers: Sequence[DiTLayer],
        device: torch.device,
        away: Sequence[int],
        staying: Staying | None = None,
    ):
        self.layers, self.device, self.away, self.staying = layers, device, tuple(away), staying
        self.copied = 0
        self.places = {index: _places(layers[index]) for index in away}
        if device.type == "cuda":
            for index in away:
                _pin(layers[index])

    def __call__(self) -> Iterator[DiTLayer]:
        homes = {index: [kept[name] for kept, name in self.places[index]] for index in self.away}
        lane = Lane(self.device)
        turns = {index: turn for turn, index in enumerate(self.away)}
        try:
            if self.away:
                self._fetch(lane, homes[self.away[0]], 0)
            for index, layer in enumerate(self.layers):
                if index not in turns:
                    yield layer
                    continue
                turn = turns[index]
                arrived = lane.arrived(turn)
                if turn + 1 < len(self.away):
                    self._fetch(lane, homes[self.away[turn + 1]], turn + 1)
                _put(self.places[index], arrived)
                try:
                    yield layer
                finally:
                    _put(self.places[index], homes[index])
        finally:
            lane.close()

    def _fetch(self, lane: Lane, home: Sequence[Tensor], turn: int) -> None:
        self.copied += lane.fetch(home, turn)


class Lane:
    """Copies to a device beside its computing, into :data:`PLACES` places in turn.

    A copy begins when what was queued before it is done, so it never writes over a place in use.
    """

    def __init__(self, device: torch.device):
        self.device, self.backend, self.stream = device, None, None
        if device.type in ("cuda", "xpu"):
            self.backend = getattr(torch, device.type)
            self.stream = self.backend.Stream(device)
        self.places: list[list[Tensor] | None] = [None] * PLACES
        self.done: list[Any] = [None] * PLACES

    def fetch(self, home: Sequence[Tensor], turn: int) -> int:
        """Begin to copy; the bytes of it."""
        slot = turn % PLACES
        with torch.inference_mode(False), torch.no_grad():
            place = self.places[slot]
            if place is None or any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(place, home, strict=True)):
                self.places[slot] = None
                place = self.places[slot] = [_empty_like(tensor, self.device) for tensor in home]
            if self.stream is None:
                _copy(place, home)
            else:
                self.stream.wait_stream(self.backend.current_stream(self.device))
                with self.backend.stream(self.stream):
                    _copy(place, home)
                self.done[slot] = self.stream.record_event()
        return sum(map(_bytes, home))

    def arrived(self, turn: int) -> list[Tensor]:
        """The copy of this turn; computing waits for it."""
        slot = turn % PLACES
        if self.stream is not None:
            self.backend.current_stream(self.device).wait_event(self.done[slot])
        return self.places[slot]

    def close(self) -> None:
        """Computing waits for what is still being copied, so that the places can be given back."""
        if self.stream is not None:
            self.backend.current_stream(self.device).wait_stream(self.stream)
        self.places = [None] * PLACES


def _places(layer: nn.Module) -> list[Place]:
    kinds = [kept for part in layer.modules() for kept in (part._parameters, part._buffers)]
    return [(kept, name) for kept in kinds for name, tensor in kept.items() if tensor is not None]


def _put(places: Sequence[Place], tensors: Sequence[Tensor]) -> None:
    for (kept, name), tensor in zip(places, tensors, strict=True):
        kept[name] = tensor


def _parts(tensor: Tensor) -> list[str]:
    """Names of the plain tensors within a quantized one; none for a plain tensor."""
    return list(tensor.__tensor_flatten__()[0]) if hasattr(tensor, "qdata") else []


def _bytes(tensor: Tensor) -> int:
    return sum(_bytes(getattr(tensor, n)) for n in _parts(tensor)) or tensor.numel() * tensor.element_size()


def _empty_like(tensor: Tensor, device: torch.device) -> Tensor:
    if _parts(tensor):
        names, about = tensor.__tensor_flatten__()
        inner = {name: torch.empty_like(getattr(tensor, name), device=device) for name in names}
        made = type(tensor).__tensor_unflatten__(inner, about, tensor.shape, tensor.stride())
    else:
        made = torch.empty_like(tensor.detach(), device=device)
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def _copy(place: Sequence[Tensor], home: Sequence[Tensor]) -> None:
    for into, tensor in zip(place, home, strict=True):
        names = _parts(tensor)
        pairs = [(getattr(into, n), getattr(tensor, n)) for n in names] if names else [(into.data, tensor)]
        for target, source in pairs:
            target.copy_(source, non_blocking=True)


def _pin(layer: nn.Module) -> None:
    """Lay the weights where the card can fetch them by itself; where the system refuses, they stay where they are."""
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            try:
                names = _parts(tensor)
                for name in names:
                    setattr(tensor, name, getattr(tensor, name).pin_memory())
                if not names:
                    tensor.data = tensor.data.pin_memory()
            except RuntimeError:
                return
