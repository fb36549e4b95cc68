"""Lego: one new track that plays along with a source."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host
from ..sampling.conditioning import SAMPLE_RATE, Conditioning
from ..song import UNKNOWN_LANGUAGE, Song
from .assemble import check_batch, maker
from .extract import check_track
from .instructions import instruction_for
from .permission import check_task
from .reference import Reference
from .region import make_region
from .source import Source, at_least, padded, source_latents


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    song: Song,
    source: Source,
    track: str,
    start: float = 0.0,
    end: float = -1.0,
    *,
    batch: int = 1,
    reference: Reference | None = None,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning for a new ``track`` within [start, end) seconds of the source.

    The whole source is heard, also where the track is made. The result is the track alone: mix it with the
    source. Of the song, caption and lyrics are used; tempo, key and language follow from the source.
    """
    check_batch(batch)
    check_track(track)
    note = check_task("lego", model.kind, model.config.is_lego_sft)
    region = make_region(start, end, source.seconds, SAMPLE_RATE)
    plain = replace(song, bpm=None, key="", time_signature="", language=UNKNOWN_LANGUAGE)
    make = maker(model, text, plain, reference, host)
    grown = padded(source, region.before, region.after, model, make.host)
    latents = source_latents(model, grown)
    frames = latents.shape[1]
    first, last = region.frames(frames, SAMPLE_RATE, source.vae.hop)
    latents = at_least(latents, model)
    mask = torch.zeros(1, latents.shape[1])
    mask[:, first:last] = 1
    instruction = instruction_for("lego", track)
    item = make.item(instruction, grown.seconds, latents, frames=frames, mask=mask)
    settings = {"track_name": track, "repainting_start": start, "repainting_end": end}
    return make.batch("lego", instruction, grown.seconds, (item,) * batch, settings, (note,) if note else ())
