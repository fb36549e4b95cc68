"""Adapters while they are trained: small layers beside a frozen twin of the decoder.

>>> from acestep_core.training.adapters import Trainable, twin
>>> decoder = twin(model.module.decoder, device, torch.float32)
>>> trained = Trainable(decoder, settings, torch.Generator().manual_seed(42))

The twin shares the weights where device and precision allow it, and nothing else: hooks, modes and gradients of the
model that others hold stay as they are.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..lora.adapter import Adapter, Change, Kron, LowRank
from ..lora.branch import kron_linear
from ..lora.layers import Layers
from ..models.dit import DiT
from .settings import TrainSettings, kron_shape


def twin(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The same network on ``device`` in ``dtype``, frozen, without the hooks of the original.

    Weights that are there already are shared; those made in inference mode, which cannot take part in training,
    are copied. To be called outside inference mode.
    """

    def placed(tensor: Tensor) -> Tensor:
        moved = tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        return moved.clone() if moved.is_inference() else moved

    def filled(values: dict[str, Tensor | None], parameters: bool) -> dict[str, Tensor | None]:
        moved = {name: value if value is None else placed(value) for name, value in values.items()}
        if not parameters:
            return moved
        return {name: v if v is None else nn.Parameter(v, requires_grad=False) for name, v in moved.items()}

    made = copy.copy(module)
    fresh = nn.Module()
    for name in vars(fresh):
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")):
            made.__dict__[name] = vars(fresh)[name]
    made.__dict__["_parameters"] = filled(module._parameters, True)
    made.__dict__["_buffers"] = filled(module._buffers, False)
    made.__dict__["_modules"] = {
        name: child if child is None else twin(child, device, dtype) for name, child in module._modules.items()
    }
    made.__dict__["training"] = True
    if isinstance(made, DiT):
        made.walk = None  # brings the layers of the original
    return made


def keep_little(decoder: DiT) -> None:
    """Gradient checkpointing: of each layer of a twin only the input is kept, the rest is computed again."""
    for layer in decoder.layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def keep_everything(decoder: DiT) -> None:
    """Undo :func:`keep_little`, through which layers hold themselves: memory that nobody else would give back."""
    for layer in decoder.layers:
        vars(layer).pop("forward", None)


def require_plain_weights(decoder: nn.Module, targets: tuple[str, ...]) -> None:
    """Raise unless the layers to train beside hold weights that gradients can pass.

    Raises:
        ValueError: they are quantized.
    """
    for name in targets:
        weight = decoder.get_submodule(name).weight
        plain = type(weight) in (Tensor, nn.Parameter) and weight.dtype.is_floating_point and weight.itemsize > 1
        if not plain:
            raise ValueError("The model is loaded quantized, which cannot be trained. Load it as bf16 or fp32.")


class LowRankLayer(nn.Module):
    """What is added to one linear layer W: s·up·down·x, or with ``magnitude`` what makes that DoRA.

    As in Liu et al. 2024 (arXiv 2402.09353, §4.3) no gradient passes through the norms of DoRA.
    """

    def __init__(self, layer: nn.Linear, settings: TrainSettings, generator: torch.Generator):
        super().__init__()
        weight, rank = layer.weight, settings.rank
        out, inside = weight.shape
        self.down = nn.Parameter(_drawn(rank, inside, generator).to(weight.device))
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))
        self.magnitude = nn.Parameter(_norms(weight.float())) if settings.method == "dora" else None
        self.scale, self.dropout = settings.scale, settings.dropout

    def forward(self, layer: nn.Linear, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        """A forward hook of the layer."""
        x = args[0]
        given = F.dropout(x, self.dropout, self.training)
        low, up = F.linear(given, self.down.to(x.dtype)) * self.scale, self.up.to(x.dtype)
        whole = torch.addmm(y.flatten(0, -2), low.flatten(0, -2), up.T).view_as(y)
        if self.magnitude is None:
            return whole
        with torch.no_grad():
            norms = _norms(torch.addmm(layer.weight.float(), self.up, self.down, alpha=self.scale))
        gain = torch.where(norms > 0, self.magnitude / norms, 0.0).flatten()
        return torch.addcmul(whole, (gain - 1).to(x.dtype), whole if layer.bias is None else whole - layer.bias)

    def change(self) -> Change:
        """What it has learned, sharing its tensors."""
        return Change(LowRank(self.up, self.down), self.scale, self.magnitude)


class KronLayer(nn.Module):
    """What is added to one linear layer with LoKr: s·(left ⊗ right)·x, right whole or right_a·right_b.

    It starts as LyCORIS does: the last matrix of the chain is zero. Its scale is 1 where nothing is factored.
    """

    def __init__(self, layer: nn.Linear, settings: TrainSettings, generator: torch.Generator):
        super().__init__()
        device, split = layer.weight.device, kron_shape(*layer.weight.shape, settings)
        self.left = nn.Parameter(_drawn(split.a, split.b, generator).to(device))
        if split.rank is None:
            self.right = nn.Parameter(torch.zeros(split.c, split.d, device=device))
        else:
            self.right_a = nn.Parameter(_drawn(split.c, split.rank, generator).to(device))
            self.right_b = nn.Parameter(torch.zeros(split.rank, split.d, device=device))
        self.factored, self.dropout = split.rank is not None, settings.dropout
        self.scale = settings.scale if self.factored else 1.0

    def _right(self) -> tuple[Tensor, ...]:
        return (self.right_a, self.right_b) if self.factored else (self.right,)

    def forward(self, layer: nn.Linear, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        """A forward hook of the layer."""
        x = args[0]
        given = F.dropout(x, self.dropout, self.training)
        left = (self.left * self.scale).to(x.dtype)
        return y + kron_linear(given, left, tuple(part.to(x.dtype) for part in self._right()))

    def change(self) -> Change:
        """What it has learned, sharing its tensors."""
        return Change(Kron((self.left,), self._right()), self.scale)


def _drawn(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Kaiming with a = √5, as PEFT and LyCORIS start."""
    bound = 1 / math.sqrt(columns)
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)


def _norms(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=1, keepdim=True)


class Trainable:
    """The adapter of a run: a small layer for each target, hooked to a twin of the decoder."""

    def __init__(self, decoder: DiT, settings: TrainSettings, generator: torch.Generator):
        """``generator`` draws the start, on the CPU."""
        self.config, self.settings = decoder.config, settings
        kind = KronLayer if settings.method == "lokr" else LowRankLayer
        self.layers: dict[str, LowRankLayer | KronLayer] = {}
        for name in settings.targets(decoder.config):
            layer = decoder.get_submodule(name)
            self.layers[name] = kind(layer, settings, generator)
            layer.register_forward_hook(self.layers[name])

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, layer in self.layers.items():
            for part, parameter in layer.named_parameters():
                yield f"{name}.{part}", parameter

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def train(self, mode: bool = True) -> None:
        """``mode`` false: no dropout, for listening in between."""
        for layer in self.layers.values():
            layer.train(mode)

    def adapter(self, name: str) -> Adapter:
        """What has been learned so far, as a value of its own."""

        def taken(tensor: Tensor) -> Tensor:
            return tensor.detach().to("cpu", torch.float32, copy=True)

        changes = {}
        for key, layer in self.layers.items():
            own = layer.change()
            magnitude = None if own.magnitude is None else taken(own.magnitude)
            changes[key] = replace(own, form=own.form.map(taken), magnitude=magnitude)
        return Adapter(name, changes, self.config.hidden_size)

    def load(self, adapter: Adapter) -> None:
        """Go on from an adapter of the same layers, rank, alpha and method.

        Raises:
            ValueError: it is of another kind; nothing has been changed then. CheckpointError: of another model.
        """
        shapes = {name: change.form.shape for name, change in adapter.changes.items()}
        Layers(self.config).require(adapter.name, shapes)
        missing, further = set(self.layers) - set(shapes), set(shapes) - set(self.layers)
        if missing or further:
            raise ValueError(
                f"{adapter.name} adapts {len(shapes)} layers, but the settings ask for {len(self.layers)} "
                f"({next(iter(sorted(missing or further)))} is in one of them only). "
                "Choose the attention and mlp settings it was trained with."
            )
        for name, change in adapter.changes.items():
            self._check(adapter.name, self.layers[name].change(), change)
        with torch.no_grad():
            for name, change in adapter.changes.items():
                for own, given in zip(self.layers[name].change().tensors(), change.tensors(), strict=True):
                    own.copy_(given)

    def _check(self, name: str, own: Change, change: Change) -> None:
        """Raise unless ``change`` of the adapter ``name`` is of the kind and size of ``own``."""
        by_rows = change.magnitude is None or change.magnitude.shape[1] == 1
        if not isinstance(change.form, LowRank | Kron) or change.bias is not None or not by_rows:
            raise ValueError(f"{name} is {change.kind}; training can go on from LoRA, DoRA and LoKr without biases.")
        if change.kind != own.kind:
            method = self.settings.method
            raise ValueError(f"{name} is {change.kind}, but the method is {method}. Choose the other method.")
        if change.rank != own.rank:
            raise ValueError(
                f"{name} has rank {change.rank}, but the settings say {self.settings.rank}. Set rank {change.rank}."
                if change.rank and isinstance(own.form, LowRank)
                else f"{name} has factors of another size. Set the rank and the factor it was trained with."
            )
        if [tensor.shape for tensor in change.tensors()] != [tensor.shape for tensor in own.tensors()]:
            raise ValueError(f"{name} is split into other sizes. Set the factor it was trained with.")
        if not math.isclose(change.scale, own.scale, rel_tol=1e-6):
            if change.alpha is None:
                raise ValueError(f"{name} is scaled by {change.scale:g}, from which training cannot go on.")
            raise ValueError(f"{name} has alpha {change.alpha:g}; set alpha to that.")
