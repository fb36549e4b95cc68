"""Regions in time: which part of a source is made anew, in seconds, samples and frames. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..sampling.settings import require_number

TO_THE_END = -1.0
MODES = ("balanced", "conservative", "aggressive")
LARGEST_CROSSFADE = 25
LARGEST_FADE = 0.05


@dataclass(frozen=True)
class Region:
    """A region within a source that may have grown at both ends.

    Attributes:
        before, after: samples of silence added to the source.
        start, end: seconds within the grown source.
    """

    before: int
    after: int
    start: float
    end: float

    def frames(self, total: int, rate: int, hop: int) -> tuple[int, int]:
        """First frame and the one after the last, within ``total`` frames."""
        first = min(max(int(self.start * rate // hop), 0), total - 1)
        return first, min(max(int(self.end * rate // hop), first + 1), total)

    def samples(self, rate: int) -> tuple[int, int]:
        return int(self.start * rate), int(self.end * rate)


def make_region(start: float, end: float | None, seconds: float, rate: int) -> Region:
    """Region of a source of ``seconds``: ``end`` −1 (or None) is its end; a start below 0 and an end beyond
    the source make it longer.

    Raises:
        ValueError: the region is empty or not a number.
    """
    start = require_number("start", start)
    end = seconds if end is None else require_number("end", end)
    end = seconds if end < 0 else end
    if end <= start:
        raise ValueError(
            f"The region ends at {end:g} s, which is not after its start at {start:g} s. "
            "Choose an end after the start; -1 means the end of the source."
        )
    before, after = max(0.0, -start), max(0.0, end - seconds)
    return Region(int(before * rate), int(after * rate), start + before, end + before)


def told(start: float, end: float | None, seconds: float) -> tuple[str, ...]:
    """What should be known of a region of a source of ``seconds``; see :func:`make_region`."""
    end = seconds if end is None or end < 0 else end
    if start > seconds:
        return (f"The recording ends at {seconds:g} s: up to {start:g} s there is silence.",)
    if start <= 0 and end >= seconds and (start < 0 or end > seconds):
        return (
            "The region covers the whole recording, so nothing of it is kept. To add music in front, let the region "
            "end a little after 0; to add it behind, let it start a little before the recording's end.",
        )
    return ()


@dataclass(frozen=True)
class Preservation:
    """How the rest of the source is kept: share of steps it is put back in, latent and waveform cross-fades."""

    injection: float
    crossfade: int
    fade_seconds: float
    splice: bool


def preservation(mode: str, strength: float) -> Preservation:
    """What a repaint mode means. ``strength`` (0 to 1, of balanced) is how freely the region is remade."""
    if mode == "aggressive":
        return Preservation(0.0, 0, 0.0, False)
    if mode == "conservative":
        return Preservation(1.0, LARGEST_CROSSFADE, LARGEST_FADE, True)
    if mode != "balanced":
        raise ValueError(f"repaint mode is {mode!r}; allowed is {', '.join(MODES)}.")
    keep = 1 - min(max(require_number("strength", strength), 0.0), 1.0)
    return Preservation(keep, round(LARGEST_CROSSFADE * keep), LARGEST_FADE * keep, True)
