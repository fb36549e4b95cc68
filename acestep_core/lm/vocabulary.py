"""The token ids the planner works with, found by name and by arithmetic."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ..song import BPM_RANGE, DURATION_RANGE, KEYS, LANGUAGES, TIME_SIGNATURES
from ..tasks.codes import LARGEST_CODE
from ..tokenizer import AUDIO_CODE, Tokenizer
from .prompts import END, END_THINK, THINK

Node = dict[int, "Node | None"]
"""One place in a tree of values: next token → what follows; the newline that ends a value leads to None."""

CONTROL = re.compile(r"<\|[a-z0-9_]+\|>|</?think>|</?tool_(?:call|response)>")
"""How control tokens look as text."""
_SPACE, _TAB, _NEWLINE = "Ġ", "ĉ", "Ċ"
"""How a byte-level vocabulary spells these bytes."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Ids of one language model. Make it with :func:`vocabulary_of`.

    Attributes:
        think, end_think, end: control tokens; ``end`` closes the turn. newline, backtick: single characters.
        words: ids below are ordinary text. codes: ids of the semantic codes, in their order.
    """

    tokenizer: Tokenizer
    think: int
    end_think: int
    end: int
    newline: int
    backtick: int
    words: int
    codes: range

    def text_of(self, ids: Sequence[int]) -> str:
        """Text of a reply with its control tokens. Ordinary words that only look like one are left out."""
        runs = itertools.groupby(ids, key=lambda token: token < self.words)
        pieces = ((ordinary, self.tokenizer.decode(list(run))) for ordinary, run in runs)
        return "".join(CONTROL.sub("", text) if ordinary else text for ordinary, text in pieces)

    def name(self, field: str) -> tuple[int, ...]:
        """Ids of ``field:``, split as in the training text."""
        return tuple(self.tokenizer.encode_words(f"{field}:"))

    def value(self, field: str, value: str) -> tuple[int, ...]:
        """Ids of `` value`` and the newline, as they follow ``field:``."""
        whole = self.tokenizer.encode_words(f"{field}: {value}\n")
        return tuple(whole[len(self.name(field)) :])

    def values(self, field: str, longest: int) -> Node:
        """The tree of everything ``field`` may say; ``longest`` bounds the duration."""
        numbers = {"bpm": BPM_RANGE, "duration": (int(DURATION_RANGE[0]), longest)}
        if field in numbers:
            low, high = numbers[field]
            return self._tree(field, range(low, high + 1), open_ended=True)
        return self._tree(field, {"keyscale": KEYS, "language": LANGUAGES, "timesignature": TIME_SIGNATURES}[field])

    def _tree(self, field: str, values: Iterable[object], open_ended: bool = False) -> Node:
        """A complete value must end, unless ``open_ended``, where a longer one may go on."""
        root: Node = {}
        for value in values:
            node = root
            *ids, newline = self.value(field, str(value))
            for token in ids:
                node = node.setdefault(token, {})  # type: ignore[assignment]
            if not open_ended:
                node.clear()
            node[newline] = None
        return root

    @cached_property
    def text(self) -> Tensor:
        """Ids that may stand in a caption: all words but a lone backtick."""
        ids = torch.arange(self.words)
        return ids[ids != self.backtick]

    @cached_property
    def lyrics(self) -> Tensor:
        """Ids that may stand in lyrics: all words, and the end of the turn."""
        return torch.cat((torch.arange(self.words), torch.tensor([self.end])))

    @cached_property
    def _spelled(self) -> dict[str, int]:
        return self.tokenizer.backend.get_vocab(with_added_tokens=False)

    @cached_property
    def indents(self) -> Tensor:
        """Words that begin with a space or tab: how a folded line goes on."""
        return torch.tensor(sorted(i for text, i in self._spelled.items() if text[0] in (_SPACE, _TAB)))

    @cached_property
    def _resumed(self) -> dict[int, Tensor]:
        return {}

    def indents_or(self, token: int) -> Tensor:
        """:attr:`indents` and one more token, ascending."""
        if token not in self._resumed:
            self._resumed[token] = torch.cat((self.indents, torch.tensor([token]))).sort().values
        return self._resumed[token]

    @cached_property
    def breaks(self) -> frozenset[int]:
        """Words that end with a newline. No word has one anywhere else: the pre-tokenizer cuts behind newlines."""
        return frozenset(i for text, i in self._spelled.items() if text.endswith(_NEWLINE))


@lru_cache(maxsize=8)
def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The ids of a planner's tokenizer.

    Raises:
        ValueError: it has no audio codes, or they do not lie in a row.
    """
    try:
        first = tokenizer.token_id(AUDIO_CODE.format(0))
        count = min(tokenizer.vocab_size - first, LARGEST_CODE + 1)
        last = tokenizer.token_id(AUDIO_CODE.format(count - 1))
    except KeyError as error:
        raise ValueError(f"This model cannot write semantic codes. {error.args[0]}") from error
    if last != first + count - 1:
        raise ValueError(
            "The audio codes of this tokenizer do not lie in a row, so its files are damaged. Download them again."
        )
    newline, backtick = (tokenizer.encode_words(character)[0] for character in "\n`")
    think, end_think, end = (tokenizer.token_id(name) for name in (THINK, END_THINK, END))
    return Vocabulary(tokenizer, think, end_think, end, newline, backtick, tokenizer.words, range(first, first + count))
