"""When each line and word of a finished piece is sung, and how clearly.

>>> from acestep_core.lyrics import subtitles, timing
>>> found = timing.time_lyrics(model, conditioning, made)
>>> print(subtitles.lrc(found[0].lines, words=True))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from torch import Tensor

from ..checkpoints.handles import DiffusionModel
from ..host import Host, current
from ..sampling.conditioning import FRAME_RATE, Conditioning
from ..sampling.sampler import Sampled
from . import alignment
from .attention import Heard, heard_lyrics, lyric_attention, require_heads
from .lines import Line, make_lines
from .sung import Measures, measure, sung_tokens


@dataclass(frozen=True)
class Timing:
    """The lyrics of one piece in time.

    Attributes:
        seconds: length of the piece. lines: in order, marks such as ``[Chorus]`` among them.
        attention: how strongly each token is heard, 0…1, [tokens, patches]. path: the way through it.
        lrc, vtt: as text, in the style that was asked for.
    """

    seconds: float
    lines: tuple[Line, ...]
    attention: Tensor = field(repr=False)
    path: alignment.Path = field(repr=False)
    lrc: str = ""
    vtt: str = ""


@dataclass(frozen=True)
class LyricScore:
    """How clearly the lyrics are heard: in pure noise (what the plan makes of them) and in the finished piece."""

    noise: Measures
    finished: Measures

    @property
    def total(self) -> float:
        return self.finished.score

    def report(self) -> str:
        rows = (("finished piece", self.finished), ("pure noise", self.noise))
        parts = "coverage {0.coverage:.4f}, order {0.monotonicity:.4f}, confidence {0.confidence:.4f}"
        return "\n".join(f"lyrics, {name}: {m.score:.4f} ({parts.format(m)})" for name, m in rows)


def time_lyrics(
    model: DiffusionModel, conditioning: Conditioning, made: Sampled, host: Host | None = None
) -> tuple[Timing | None, ...]:
    """Timing of each piece of a batch; None where nothing is sung, which is said.

    Raises:
        ValueError: another model than the batch was made with, or one whose lyric heads nobody knows.
    """
    host = host or current()

    def one(index: int, lyrics: Heard) -> Timing:
        item, frames = conditioning.items[index], made.frames[index]
        level = 1 / (len(made.levels) - 1)
        latents = made.latents[index, : made.lengths[index]]
        attention = lyric_attention(model, item, latents, level, lyrics, frames, host)
        return timed(conditioning, attention, lyrics, frames / FRAME_RATE)

    return _each(model, conditioning, "timing lyrics", one, host)


def timed(conditioning: Conditioning, attention: Tensor, lyrics: Heard, seconds: float) -> Timing:
    """Timing from ``attention`` [heads, tokens, patches] of a piece of ``seconds``."""
    path = alignment.align(attention)
    strength = alignment.energy(attention)
    along = strength[path.tokens, path.frames].numpy()
    count = len(lyrics.ids)
    sums, steps = np.bincount(path.tokens, along, count), np.bincount(path.tokens, minlength=count)
    first, last = path.spans(count)
    scale = seconds / attention.shape[-1]
    lines = make_lines(conditioning.tokenizer, lyrics.ids, first * scale, last * scale, sums / steps)
    return Timing(seconds, lines, strength, path)


def score_lyrics(
    model: DiffusionModel, conditioning: Conditioning, made: Sampled, host: Host | None = None
) -> tuple[LyricScore | None, ...]:
    """How clearly each piece of a batch sings its lyrics; None where nothing is sung. Raises as :func:`time_lyrics`."""
    host = host or current()

    def one(index: int, lyrics: Heard) -> LyricScore:
        item, frames = conditioning.items[index], made.frames[index]
        latents = made.latents[index, : made.lengths[index]]
        sung = sung_tokens(conditioning.tokenizer, lyrics.ids)
        found = []
        for level in (1.0, 1 / (len(made.levels) - 1)):
            attention = lyric_attention(model, item, latents, level, lyrics, frames, host)
            found.append(measure(attention, sung))
        return LyricScore(*found)

    return _each(model, conditioning, "scoring lyrics", one, host)


def require_model(model: DiffusionModel, conditioning: Conditioning) -> None:
    """Raise unless ``model`` made this batch, and its lyric heads are known."""
    if conditioning.origin != model.origin:
        raise ValueError(
            "This result was made with another diffusion model. Connect the model it was made with; "
            "after a restart, make it again: what the model listened to is not kept in files."
        )
    require_heads(model)


Found = TypeVar("Found")


def _each(
    model: DiffusionModel, conditioning: Conditioning, what: str, one: Callable[[int, Heard], Found], host: Host
) -> tuple[Found | None, ...]:
    """``one`` for each piece with something to sing."""
    require_model(model, conditioning)
    if not sings(conditioning):
        host.say("There are no words to sing here, so there is nothing to align.")
        return (None,) * len(conditioning.items)
    found: list[Found | None] = []
    bar = host.progress(len(conditioning.items), what, "piece")
    for index, item in enumerate(conditioning.items):
        found.append(one(index, heard_lyrics(item.prompt, conditioning.tokenizer)))
        bar.update(index + 1)
    return tuple(found)


def sings(conditioning: Conditioning) -> bool:
    """Whether there are words besides marks such as ``[Chorus]``."""
    if conditioning.song.instrumental:
        return False
    lyrics = heard_lyrics(conditioning.items[0].prompt, conditioning.tokenizer)
    return bool(lyrics.ids) and bool(
        conditioning.tokenizer.decode(
            [i for i, s in zip(lyrics.ids, sung_tokens(conditioning.tokenizer, lyrics.ids), strict=True) if s]
        ).strip()
    )
