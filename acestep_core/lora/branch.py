"""What the adapters at play add to one layer y = W x + b.

For a change ΔW of scale s at strength k: k·s·ΔW x. With DoRA M = W + s·ΔW is rescaled to the norms m, and what is
added is k·(rescaled M − W) x. By rows, with g = m / ‖M‖, that is k·(g − 1)·W x + k·s·g·ΔW x; by columns, with
h = m / ‖M‖, k·W((h − 1)·x) + k·s·ΔW(h·x). So W is applied, never written, and read only once, for the norms.

The convolution at the decoder's entry is small, and the decoder reads its weight instead of calling it: for the
time of playing another one stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapter import Chain, Change, Full, Hadamard, Kron, LowRank, product

UNITS_AT_ONCE = 1024
"""Columns of W that a layer is asked for at a time."""
UNIT = 256.0
"""What it is asked with: large, so that rounding y to the layer's precision spares W where b is larger."""


@dataclass
class Added:
    """What a layer's input and output are put through, on one device and in one precision.

    Attributes:
        pairs: (up [out, R], down [R, in]), all low-rank changes side by side, scales and strengths within.
        terms: functions of x for changes of other forms.
        rows: [out], Σ k·(g − 1). columns: [in], Σ k·(h − 1). bias: [out].
    """

    pairs: tuple[Tensor, Tensor] | None = None
    terms: list[Callable[[Tensor], Tensor]] = field(default_factory=list)
    rows: Tensor | None = None
    columns: Tensor | None = None
    bias: Tensor | None = None


class Branch:
    """A forward hook of a linear layer. It moves to where its layer computes at the first call there."""

    def __init__(self, changes: Sequence[tuple[Change, float]]):
        """``changes``: with the strength of each."""
        self.changes = tuple(changes)
        self._place: tuple[torch.device, torch.dtype] | None = None
        self._added = Added()

    def settle(self, layer: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        """Work out what is added there, unless that is done."""
        if self._place != (device, dtype):
            self._added = work_out(self.changes, layer, device, dtype)
            self._place = (device, dtype)

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        x = args[0]
        if self._place != (x.device, x.dtype):
            self.settle(layer, x.device, x.dtype)
        added, out = self._added, y
        if added.rows is not None:
            out = torch.addcmul(out, added.rows, _without_bias(y, layer))
        if added.columns is not None:
            out = out + _without_bias(layer.forward(x * added.columns), layer)
        for term in added.terms:
            out = out + term(x)
        if added.bias is not None:
            out = out + added.bias
        if added.pairs is None:
            return out
        up, down = added.pairs
        return torch.addmm(out.flatten(0, -2), F.linear(x, down).flatten(0, -2), up.T).view_as(out)


def work_out(
    changes: Sequence[tuple[Change, float]], layer: nn.Module, device: torch.device, dtype: torch.dtype
) -> Added:
    """Everything that does not depend on x, in float32 and then rounded to ``dtype`` once."""
    added, ups, downs = Added(), [], []
    rows, columns, bias = 0.0, 0.0, 0.0
    for change, strength in changes:
        form, gain = change.form.map(lambda tensor: tensor.to(device, torch.float32)), strength * change.scale
        row = column = None
        if change.magnitude is not None:
            factors = rescaling(plain_weight(layer, device, dtype).add_(form.dense(), alpha=change.scale), change)
            if change.by_rows:
                row, rows = factors, rows + strength * (factors - 1)
            else:
                column, columns = factors, columns + strength * (factors - 1)
        if change.bias is not None:
            bias = bias + strength * change.bias.to(device, torch.float32)
        if isinstance(form, LowRank):
            ups.append(gain * form.up if row is None else gain * row[:, None] * form.up)
            downs.append(form.down if column is None else form.down * column)
        else:
            added.terms.append(_term(form, gain, row, column, dtype))
    if ups:
        added.pairs = torch.cat(ups, dim=1).to(dtype), torch.cat(downs).to(dtype)
    for name, value in (("rows", rows), ("columns", columns), ("bias", bias)):
        setattr(added, name, value.to(dtype) if isinstance(value, Tensor) else None)
    return added


def rescaling(whole: Tensor, change: Change) -> Tensor:
    """Magnitude over norm of the rows or columns of W + s·ΔW [out, in]: [out] or [in]."""
    m = change.magnitude.to(whole.device, torch.float32).flatten()
    if change.by_rows:
        norm = torch.linalg.vector_norm(whole, dim=1)
    else:
        norm = torch.linalg.vector_norm(whole.unflatten(1, (-1, change.kernel)), dim=(0, 2))
    factors = torch.where(norm > 0, m / norm, 0.0)
    return factors if change.by_rows else factors.repeat_interleave(change.kernel)


def stand_in(conv: nn.Conv1d, changes: Sequence[tuple[Change, float]]) -> nn.Conv1d:
    """A convolution with the changes worked into a copy of the weight, in float32 and then rounded once."""
    device, dtype = conv.weight.device, conv.weight.dtype
    plain = conv.weight.detach().to(device, torch.float32).flatten(1)
    weight, bias = plain.clone(), conv.bias.detach().to(device, torch.float32)
    for change, strength in changes:
        form = change.form.map(lambda tensor: tensor.to(device, torch.float32))
        whole = plain + change.scale * form.dense()
        if change.magnitude is not None:
            factors = rescaling(whole, change)
            whole = whole * (factors[:, None] if change.by_rows else factors)
        weight += strength * (whole - plain)
        if change.bias is not None:
            bias = bias + strength * change.bias.to(device, torch.float32)
    made = nn.Conv1d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, device="meta")
    made.weight = nn.Parameter(weight.view(conv.weight.shape).to(dtype), requires_grad=False)
    made.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return made


def _term(
    form: Kron | Hadamard | Full, gain: float, row: Tensor | None, column: Tensor | None, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """x → row · gain · ΔW(column · x), without ever holding the ΔW of a factored form for longer than a call."""
    row, column = (None if part is None else part.to(dtype) for part in (row, column))
    if isinstance(form, Kron):
        left = (gain * product(form.left)).to(dtype)
        right = tuple(matrix.to(dtype) for matrix in form.right)

        def plain(x: Tensor) -> Tensor:
            return kron_linear(x, left, right)

    elif isinstance(form, Hadamard):
        first = ((gain * form.first[0]).to(dtype), form.first[1].to(dtype))
        second = tuple(matrix.to(dtype) for matrix in form.second)

        def plain(x: Tensor) -> Tensor:
            return F.linear(x, torch.mul(first[0] @ first[1], second[0] @ second[1]))

    else:
        whole = (gain * form.weight).to(dtype)

        def plain(x: Tensor) -> Tensor:
            return F.linear(x, whole)

    def scaled(x: Tensor) -> Tensor:
        made = plain(x if column is None else x * column)
        return made if row is None else made * row

    return scaled


def kron_linear(x: Tensor, left: Tensor, right: Chain) -> Tensor:
    """(left ⊗ right) x over the last dimension, x [..., b·d] → [..., a·c].

    With x as a matrix X [b, d], left [a, b] and right [c, d] that is left · X · rightᵀ.
    """
    x = x.unflatten(-1, (left.shape[1], -1))
    for matrix in reversed(right):
        x = F.linear(x, matrix)
    return F.linear(x.transpose(-1, -2), left).transpose(-1, -2).flatten(-2)


def plain_weight(layer: nn.Module, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy of W [out, in] in float32.

    A layer that holds anything but float weights is asked for them, in ``dtype``: it is applied to the identity.
    """
    weight = getattr(layer, "weight", None)
    if type(weight) in (Tensor, nn.Parameter) and weight.dtype.is_floating_point and weight.itemsize > 1:
        return weight.detach().to(device, torch.float32, copy=True)
    made, width = [], layer.in_features
    for start in range(0, width, UNITS_AT_ONCE):
        which = torch.arange(start, min(start + UNITS_AT_ONCE, width), device=device)
        units = UNIT * F.one_hot(which, width).to(dtype)
        made.append(_without_bias(layer.forward(units), layer).float())
    return torch.cat(made).T.contiguous() / UNIT


def _without_bias(y: Tensor, layer: nn.Module) -> Tensor:
    bias = getattr(layer, "bias", None)
    return y if bias is None else y - bias
