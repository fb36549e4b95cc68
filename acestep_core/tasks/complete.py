"""Complete: an arrangement around a source, for example a band for a voice."""

from __future__ import annotations

from collections.abc import Sequence

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host
from ..sampling.conditioning import Conditioning
from ..song import Song
from .assemble import check_batch, maker
from .extract import check_track
from .instructions import instruction_for
from .permission import check_task
from .reference import Reference
from .source import Source, source_latents


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    song: Song,
    source: Source,
    tracks: Sequence[str] = (),
    *,
    batch: int = 1,
    reference: Reference | None = None,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning that adds ``tracks`` (any number, in this order; none leaves the choice to the model)."""
    check_batch(batch)
    for track in tracks:
        check_track(track)
    note = check_task("complete", model.kind, model.config.is_lego_sft)
    make = maker(model, text, song, reference, host)
    instruction = instruction_for("complete", tracks=tracks)
    item = make.item(instruction, source.seconds, source_latents(model, source))
    settings = {"complete_track_classes": list(tracks)}
    return make.batch("complete", instruction, source.seconds, (item,) * batch, settings, (note,) if note else ())
