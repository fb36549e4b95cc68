"""An adapter as a value, whatever file it came from: for each of some layers of the decoder a change ΔW.

Names of layers are those inside the decoder, ``layers.0.self_attn.q_proj``. Tensors keep the precision of their
file and stay on the CPU; nobody writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from .layers import named_width

Chain = tuple[Tensor, ...]
"""Matrices whose product is meant, leftmost first; one or two of them."""


def product(chain: Chain) -> Tensor:
    """The matrix a chain stands for, in float32."""
    return reduce(torch.matmul, (matrix.float() for matrix in chain))


def _shape(chain: Chain, what: str) -> tuple[int, int]:
    """Rows and columns of the product, each link checked."""
    for matrix in chain:
        if matrix.dim() != 2:
            raise ValueError(f"{what} has a tensor of {matrix.dim()} dimensions instead of 2")
        if 0 in matrix.shape:
            raise ValueError(f"{what} is empty: its rank is 0 ({' · '.join(str(list(m.shape)) for m in chain)})")
    for left, right in zip(chain, chain[1:], strict=False):
        if left.shape[1] != right.shape[0]:
            shapes = f"{list(right.shape)} and {list(left.shape)}"
            raise ValueError(f"the two halves of {what}, {shapes}, have different ranks")
    return chain[0].shape[0], chain[-1].shape[1]


def _inner(*chains: Chain) -> int | None:
    """The rank of the last of ``chains`` that is factored; None where all are whole."""
    ranks = [chain[1].shape[0] for chain in chains if len(chain) > 1]
    return ranks[-1] if ranks else None


@dataclass(frozen=True, eq=False)
class LowRank:
    """ΔW = up · down, with up [out, rank] and down [rank, in]."""

    up: Tensor
    down: Tensor

    def __post_init__(self) -> None:
        _shape((self.up, self.down), "the low-rank pair")

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def chains(self) -> tuple[Chain, ...]:
        return ((self.up, self.down),)

    def map(self, change: Callable[[Tensor], Tensor]) -> LowRank:
        """The same with every tensor changed."""
        return LowRank(change(self.up), change(self.down))

    def dense(self) -> Tensor:
        """ΔW [out, in] in float32."""
        return product((self.up, self.down))


@dataclass(frozen=True, eq=False)
class Kron:
    """LoKr: ΔW = left ⊗ right, with left [a, b] and right [c, d] for a layer of [a·c, b·d]."""

    left: Chain
    right: Chain

    def __post_init__(self) -> None:
        _shape(self.left, "lokr_w1")
        _shape(self.right, "lokr_w2")

    @property
    def shape(self) -> tuple[int, int]:
        (a, b), (c, d) = _shape(self.left, "lokr_w1"), _shape(self.right, "lokr_w2")
        return a * c, b * d

    @property
    def rank(self) -> int | None:
        return _inner(self.left, self.right)

    def chains(self) -> tuple[Chain, ...]:
        return self.left, self.right

    def map(self, change: Callable[[Tensor], Tensor]) -> Kron:
        return Kron(tuple(map(change, self.left)), tuple(map(change, self.right)))

    def dense(self) -> Tensor:
        """ΔW [out, in] in float32."""
        return torch.kron(product(self.left), product(self.right))


@dataclass(frozen=True, eq=False)
class Hadamard:
    """LoHa: ΔW = first ⊙ second, each the product of a low-rank pair."""

    first: Chain
    second: Chain

    def __post_init__(self) -> None:
        one, two = _shape(self.first, "hada_w1"), _shape(self.second, "hada_w2")
        if one != two:
            raise ValueError(f"hada_w1 makes {list(one)} but hada_w2 {list(two)}")

    @property
    def shape(self) -> tuple[int, int]:
        return self.first[0].shape[0], self.first[-1].shape[1]

    @property
    def rank(self) -> int | None:
        return _inner(self.second, self.first)

    def chains(self) -> tuple[Chain, ...]:
        return self.first, self.second

    def map(self, change: Callable[[Tensor], Tensor]) -> Hadamard:
        return Hadamard(tuple(map(change, self.first)), tuple(map(change, self.second)))

    def dense(self) -> Tensor:
        """ΔW [out, in] in float32."""
        return product(self.first) * product(self.second)


@dataclass(frozen=True, eq=False)
class Full:
    """ΔW itself, [out, in]."""

    weight: Tensor

    def __post_init__(self) -> None:
        _shape((self.weight,), "diff")

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    rank = None

    def chains(self) -> tuple[Chain, ...]:
        return ((self.weight,),)

    def map(self, change: Callable[[Tensor], Tensor]) -> Full:
        return Full(change(self.weight))

    def dense(self) -> Tensor:
        """ΔW [out, in] in float32."""
        return self.weight.float()


Form = LowRank | Kron | Hadamard | Full
KINDS = {LowRank: "LoRA", Kron: "LoKr", Hadamard: "LoHa", Full: "full difference"}


@dataclass(frozen=True, eq=False)
class Change:
    """What an adapter does to one layer W at strength 1.

    Without magnitude W + scale · ΔW. With one (DoRA) that matrix is rescaled to the norms m: its rows where
    ``magnitude`` is [out, 1], its columns where it is [1, in] (Liu et al. 2024, arXiv 2402.09353, eq. 5).
    ``bias`` [out] is added to the layer's. For a convolution W is [out, in · ``kernel``], and columns are those of
    one input channel together: the magnitude is [1, in].
    """

    form: Form
    scale: float = 1.0
    magnitude: Tensor | None = None
    bias: Tensor | None = None
    kernel: int = 1

    def __post_init__(self) -> None:
        rows, columns = self.form.shape[0], self.form.shape[1] // self.kernel
        if self.magnitude is not None and tuple(self.magnitude.shape) not in ((rows, 1), (1, columns)):
            found = list(self.magnitude.shape)
            raise ValueError(f"the DoRA magnitude is {found}, expected [{rows}, 1] or [1, {columns}]")
        if self.bias is not None and tuple(self.bias.shape) != (rows,):
            raise ValueError(f"the bias is {list(self.bias.shape)}, expected [{rows}]")

    @property
    def rank(self) -> int | None:
        return self.form.rank

    @property
    def alpha(self) -> float | None:
        """What the scale means as alpha over rank; None where nothing is factored."""
        return None if self.rank is None else self.scale * self.rank

    @property
    def kind(self) -> str:
        kind = KINDS[type(self.form)]
        if self.magnitude is None:
            return kind
        return "DoRA" if isinstance(self.form, LowRank) else f"{kind} with magnitudes"

    @property
    def by_rows(self) -> bool:
        """Whether the magnitudes, where there are any, are those of rows."""
        return self.magnitude is not None and tuple(self.magnitude.shape) == (self.form.shape[0], 1)

    def tensors(self) -> list[Tensor]:
        own = [tensor for chain in self.form.chains() for tensor in chain]
        return own + [tensor for tensor in (self.magnitude, self.bias) if tensor is not None]

    def is_zero(self) -> bool:
        """Whether it changes nothing. A magnitude is taken to change something."""
        if self.magnitude is not None or (self.bias is not None and bool(self.bias.any())):
            return False
        return self.scale == 0 or any(not bool(matrix.any()) for chain in self.form.chains() for matrix in chain)


@dataclass(frozen=True)
class AdapterReport:
    """Where an adapter came from and what was made of it.

    Attributes:
        files: what was read. layout: PEFT folder, PEFT file, ComfyUI file, kohya file, LyCORIS file, diffusers file.
        matched: names in the file that are used. unmatched: (name, reason) of those that are not.
        about: what the file says about itself.
        notes: sentences the user should read.
    """

    files: tuple[str, ...] = ()
    layout: str = "in memory"
    matched: tuple[str, ...] = ()
    unmatched: tuple[tuple[str, str], ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Adapter:
    """A change for each of some layers of the decoder.

    Attributes:
        name: what the user calls it. changes: layer name → :class:`Change`.
        width: hidden size of the models it fits. sha256: of the weight file, "" where there is none.
    """

    name: str
    changes: Mapping[str, Change]
    width: int
    report: AdapterReport = AdapterReport()
    sha256: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(change.kind for change in self.changes.values()))

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted({change.rank for change in self.changes.values() if change.rank is not None}))

    @property
    def alphas(self) -> tuple[float, ...]:
        return tuple(sorted({change.alpha for change in self.changes.values() if change.alpha is not None}))

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for change in self.changes.values() for tensor in change.tensors())

    def text(self) -> str:
        """The report as lines for the user."""
        report = self.report
        dtypes = {str(t.dtype).removeprefix("torch.") for change in self.changes.values() for t in change.tensors()}
        spans = (("rank", self.ranks), ("alpha", self.alphas))
        facts = [f"{len(self.changes)} layers", *(f"{title} {_span(values)}" for title, values in spans if values)]
        facts += [f"for width {named_width(self.width)}", f"{self.bytes / 1e6:.1f} MB {', '.join(sorted(dtypes))}"]
        lines = [f"{self.name}: {', '.join(self.kinds)} ({report.layout})", f"  {', '.join(facts)}"]
        if report.matched:
            lines.append(f"  {len(report.matched)} tensors used, {len(report.unmatched)} not used")
        lines += [f"    {name}: {reason}" for name, reason in report.unmatched[:20]]
        if len(report.unmatched) > 20:
            lines.append(f"    and {len(report.unmatched) - 20} more")
        lines += [f"  {key}: {value}" for key, value in report.about.items()]
        return "\n".join(lines + [f"  {note}" for note in report.notes])


def low_rank(
    name: str, pairs: Mapping[str, tuple[Tensor, Tensor]], width: int, *, alpha: float, rslora: bool = False
) -> Adapter:
    """An adapter from trained pairs: layer → (up [out, rank], down [rank, in]).

    Its scale is alpha / rank, with ``rslora`` alpha / √rank (Kalajdzievski 2023, arXiv 2312.03732).
    """
    forms = {layer: LowRank(up, down) for layer, (up, down) in pairs.items()}
    changes = {n: Change(form, alpha / (form.rank**0.5 if rslora else form.rank)) for n, form in forms.items()}
    return Adapter(name, changes, width)


def _span(values: Iterable[float]) -> str:
    low, *rest = values
    return f"{low:g} to {rest[-1]:g}" if rest else f"{low:g}"
