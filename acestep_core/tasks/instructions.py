"""The instruction each task opens the text prompt with. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

TEXT2MUSIC = "Fill the audio semantic mask based on the given conditions:"
COVER = "Generate audio semantic tokens based on the given conditions:"
REPAINT = "Repaint the mask area based on the given conditions:"

TRACKS = (
    "woodwinds brass fx synth strings percussion keyboard guitar bass drums backing_vocals vocals".split()
)  # fmt: skip
MASKS = ("explicit", "auto")
"""Whether a model is told where the new track plays, or chooses."""
TASKS = ("text2music", "repaint", "cover", "extract", "lego", "complete")


def instruction_for(task: str, track: str | None = None, tracks: Sequence[str] = ()) -> str:
    """Instruction of a task; ``track`` is used by extract and lego, ``tracks`` by complete.

    >>> instruction_for("complete", tracks=["drums", "bass"])
    'Complete the input track with DRUMS | BASS:'
    """
    if task in ("cover", "cover-nofsq"):
        return COVER
    if task == "repaint":
        return REPAINT
    if task == "extract":
        return f"Extract the {track.upper()} track from the audio:" if track else "Extract the track from the audio:"
    if task == "lego":
        which = f"the {track.upper()} track" if track else "the track"
        return f"Generate {which} based on the audio context:"
    if task == "complete":
        with_what = f" with {' | '.join(t.upper() for t in tracks)}" if tracks else ""
        return f"Complete the input track{with_what}:"
    return TEXT2MUSIC


def stem_caption(caption: str, whole: str, mask: str) -> str:
    """What models tuned for stems (``is_lego_sft`` in their configuration) read as the caption of a new track.

    Args:
        caption: of the track. whole: of the song it joins. mask: one of :data:`MASKS`.
    """
    return f"Global: {whole}\nLocal: {caption}\nMask Control: {str(mask == 'explicit').lower()}"
