"""What the planner may say: a short script of steps, walked token by token.

    <think>\\n bpm: … \\n caption: … \\n duration: … \\n keyscale: … \\n language: … \\n timesignature: … \\n</think>

Every step ends, so every walk does, and leaves a block that can be read. Fields the user gave are forced;
only one token is allowed then, and the decoder need not be asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .prompts import FIELDS
from .settings import LONGEST_RANGE
from .vocabulary import Node, Vocabulary

CAPTION_TOKENS = 512
"""Longest caption; a newline is forced behind it."""
BLOCK_TOKENS = CAPTION_TOKENS + 64
"""No block without lyrics is longer."""


@dataclass(frozen=True)
class Literal:
    """Exactly these tokens. ``label`` says in a trace what they are."""

    label: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """One of a tree of values, up to its newline. ``certain`` takes the likeliest first token, unsampled."""

    label: str
    tree: Node
    certain: bool = False


@dataclass(frozen=True)
class Caption:
    """Free text. A newline goes on with an indented line, or leads to the next step, whose first token is ``exit``."""

    label: str
    limit: int
    exit: int


@dataclass(frozen=True)
class Lyrics:
    """Free text up to the end of the turn."""

    label: str = "lyrics"


Step = Literal | Value | Caption | Lyrics


@dataclass(frozen=True, eq=False)
class Options:
    """The tokens allowed next, ascending, on the CPU. ``certain``: take the likeliest, do not sample."""

    ids: Tensor
    certain: bool = False

    @property
    def only(self) -> int | None:
        """The token, where there is no choice."""
        return int(self.ids[0]) if len(self.ids) == 1 else None


def block(
    vocabulary: Vocabulary,
    *,
    given: Mapping[str, object] | None = None,
    skip: Collection[str] = (),
    longest: int = LONGEST_RANGE[1],
    lyrics: bool = False,
    caption_limit: int = CAPTION_TOKENS,
) -> tuple[Step, ...]:
    """The script of one reply.

    Args:
        given: fields whose value is forced, under the model's names.
        skip: fields that are left out; ``caption`` and ``language`` can be.
        longest: seconds, the largest duration the model may choose.
        lyrics: close the block and go on with lyrics; else the end of the turn stands for its closing tag.
    """
    given = given or {}
    fields = [name for name in FIELDS if name not in skip]
    steps: list[Step] = [Literal("think", (vocabulary.think, vocabulary.newline))]
    for name, following in zip(fields, [*fields[1:], None], strict=True):
        label = vocabulary.name(name)
        if name in given:
            steps.append(Literal(f"{name} (given)", (*label, *vocabulary.value(name, str(given[name])))))
            continue
        steps.append(Literal(name, label))
        if name == "caption":
            assert following is not None  # duration is never skipped
            steps.append(Caption(name, caption_limit, vocabulary.name(following)[0]))
        else:
            steps.append(Value(name, _values(vocabulary, name, longest), certain=name == "language"))
    steps.append(Literal("end", (vocabulary.end_think,) if lyrics else (vocabulary.end,)))
    return (*steps, Lyrics()) if lyrics else tuple(steps)


@lru_cache(maxsize=64)
def _values(vocabulary: Vocabulary, field: str, longest: int) -> Node:
    return vocabulary.values(field, longest)


class Walk:
    """One sequence on its way through a script."""

    def __init__(self, vocabulary: Vocabulary, steps: Sequence[Step]):
        self.vocabulary, self.steps = vocabulary, steps
        self._enter(0)

    def _enter(self, index: int, behind: int = 0) -> None:
        """Begin step ``index``, of which ``behind`` tokens are already taken."""
        self.index, self.taken, self.broken, self.done = index, behind, False, index >= len(self.steps)
        step = None if self.done else self.steps[index]
        self.node = step.tree if isinstance(step, Value) else None
        if isinstance(step, Literal) and behind == len(step.ids):
            self._enter(index + 1)

    @property
    def label(self) -> str:
        """Which part of the reply is being written."""
        return "" if self.done else self.steps[self.index].label

    def options(self) -> Options:
        """What may come next. Not to be asked when done."""
        step, words = self.steps[self.index], self.vocabulary
        if isinstance(step, Literal):
            return Options(torch.tensor([step.ids[self.taken]]))
        if isinstance(step, Value):
            return Options(torch.tensor(sorted(self.node or {})), certain=step.certain and self.taken == 0)
        if isinstance(step, Lyrics):
            return Options(words.lyrics)
        if self.taken >= step.limit:
            return Options(torch.tensor([step.exit if self.broken else words.newline]))
        return Options(words.indents_or(step.exit) if self.broken else words.text)

    def take(self, token: int) -> None:
        """Go on with ``token``, which must be one of the options."""
        step, words = self.steps[self.index], self.vocabulary
        if isinstance(step, Value):
            self.node, self.taken = (self.node or {})[token], self.taken + 1
            if self.node is None:
                self._enter(self.index + 1)
        elif isinstance(step, Literal):
            self._enter(self.index, self.taken + 1)
        elif isinstance(step, Lyrics):
            self.done = token == words.end
        elif self.broken and token == step.exit:
            self._enter(self.index + 1, behind=1)
        elif self.taken >= step.limit:
            self._enter(self.index + 1)
        else:
            self.taken, self.broken = self.taken + 1, token in words.breaks
