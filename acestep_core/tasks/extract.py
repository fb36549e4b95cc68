"""Extract: one track out of a mix."""

from __future__ import annotations

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host
from ..sampling.conditioning import Conditioning
from ..song import Song
from .assemble import check_batch, maker
from .instructions import TRACKS, instruction_for
from .permission import check_task
from .source import Source, source_latents


def check_track(track: str) -> None:
    if track not in TRACKS:
        raise ValueError(f"track is {track!r}; allowed is {', '.join(TRACKS)}.")


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    source: Source,
    track: str,
    *,
    song: Song | None = None,
    batch: int = 1,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning that takes ``track`` out of the source.

    Without a ``song`` the caption is the track's name and nothing else is said, as the model expects it.
    """
    check_batch(batch)
    check_track(track)
    note = check_task("extract", model.kind, model.config.is_lego_sft)
    make = maker(model, text, song or Song(caption=track), None, host)
    instruction = instruction_for("extract", track)
    item = make.item(instruction, source.seconds, source_latents(model, source))
    settings = {"track_name": track}
    return make.batch("extract", instruction, source.seconds, (item,) * batch, settings, (note,) if note else ())
