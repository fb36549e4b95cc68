"""A card that is not there: tensors that say they are on it, computed by the CPU, counted byte by byte.

    with SimulatedCard(gigabytes=0.02) as card:
        host = Host(device=card.device)
        …                        # as on a card: what mixes devices is an error, and so is what does not fit

Nothing in the pack imports this; it needs what torch has from 2.9 on. It is active in the thread that entered it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

aten = torch.ops.aten


if not hasattr(torch, "privateuseone"):
    backend_registration._setup_privateuseone_for_python_backend()
    torch.privateuseone.default_generators = (torch.default_generator,)
DEVICE = torch.device("privateuseone:0")
CROSSING = ("aten::copy_", "aten::_to_copy", "aten::to")
"""What may take tensors of both."""
FUSED = getattr(aten, "_scaled_dot_product_fused_attention_overrideable", None)


class MixedDevices(RuntimeError):
    """What a real card answers where tensors of two devices meet."""


class CardTensor(torch.Tensor):
    """A tensor on the card; ``inside`` is the one of the CPU that holds its numbers."""

    inside: torch.Tensor
    card: SimulatedCard

    @staticmethod
    def __new__(cls, inside: torch.Tensor, card: SimulatedCard) -> CardTensor:
        about = {"strides": inside.stride(), "storage_offset": inside.storage_offset(), "dtype": inside.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, inside.size(), device=DEVICE, **about)
        made.inside, made.card = inside, card
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        return self.inside.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        card = next(part.card for part in tree_flatten((args, kwargs))[0] if isinstance(part, CardTensor))
        with card:  # outside of its block: a program that gives its models back
            return func(*args, **(kwargs or {}))

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"CardTensor({list(self.size())}, {self.dtype})"


class SimulatedCard(TorchDispatchMode):
    """Within the block ``DEVICE`` works, with ``gigabytes`` of memory; None for as much as is asked for."""

    device = DEVICE

    def __init__(self, gigabytes: float | None = None):
        super().__init__()
        self.size = None if gigabytes is None else int(gigabytes * 2**30)
        self.used = self.peak = 0
        self._holders: dict[int, int] = {}

    def __enter__(self) -> SimulatedCard:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=DEVICE) then comes by here too
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    @property
    def free(self) -> int:
        return (1 << 50 if self.size is None else self.size) - self.used

    # -- what lies on the card

    def put(self, inside: torch.Tensor) -> CardTensor:
        made, storage = CardTensor(inside, self), inside.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if size and not self._holders.get(place):
            if size > self.free:
                raise torch.OutOfMemoryError(f"CUDA out of memory (simulated): {size} wanted, {self.free} free")
            self.used += size
            self.peak = max(self.peak, self.used)
        self._holders[place] = self._holders.get(place, 0) + 1
        weakref.finalize(made, self._let_go, place, size, storage)
        return made

    def _put_any(self, value: Any) -> Any:
        return self.put(value) if isinstance(value, torch.Tensor) else value

    def _let_go(self, place: int, size: int, storage: Any) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place]
            self.used -= size

    # -- every operation

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._has_compatible_shallow_copy_type.default:
            return isinstance(args[0], CardTensor) == isinstance(args[1], CardTensor)
        flat, form = tree_flatten((args, kwargs or {}))
        on_card = any(isinstance(part, CardTensor) for part in flat)
        beside = [p for p in flat if isinstance(p, torch.Tensor) and not isinstance(p, CardTensor) and p.dim()]
        name = func._schema.name
        wanted = next((part for part in flat if isinstance(part, torch.device)), None)
        if name == "aten::to" and wanted is None and len(args) > 1 and isinstance(args[1], torch.Tensor):
            wanted = args[1].device
        by_index = name.startswith("aten::index")  # indices may lie on the CPU
        if on_card and beside and name not in CROSSING and not by_index:
            shapes = ", ".join(str(list(part.shape)) for part in beside)
            raise MixedDevices(f"{func}: tensors of the CPU ({shapes}) meet tensors of the card")
        plain = [part.inside if isinstance(part, CardTensor) else part for part in flat]
        plain = [torch.device("cpu") if isinstance(part, torch.device) else part for part in plain]
        inner_args, inner_kwargs = tree_unflatten(plain, form)
        if FUSED is not None and func is FUSED.default:
            made: Any = _attention(*inner_args, **inner_kwargs)
        else:
            made = func(*inner_args, **inner_kwargs)
        to_card = on_card if wanted is None else wanted == DEVICE
        if func is aten.copy_.default:
            return args[0]
        if not to_card:
            return made
        known = {id(part.inside): part for part in flat if isinstance(part, CardTensor)}
        results, shape = tree_flatten(made)
        results = [known[id(r)] if id(r) in known else self._put_any(r) for r in results]
        return tree_unflatten(results, shape)


def _attention(query: Any, key: Any, value: Any, bias: Any = None, *rest: Any, scale: Any = None, **_: Any) -> Any:
    dropout, causal = (*rest, 0.0, False)[:2]
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, bias, dropout, causal, scale=scale)
    empty = torch.empty(0)
    return out, empty, empty, empty, 0, 0, empty, empty, empty
