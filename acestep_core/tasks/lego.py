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
from .instructions import MASKS, instruction_for, stem_caption
from .permission import check_task
from .reference import Reference
from .region import make_region
from .source import Source, at_least, padded, source_latents

UNTOLD = 2.0
"""Mask of a region that is not told, as the original has it since August 2026. Models that were not tuned for stems
saw 0 and 1 alone, and hear ones."""
UNREAD = "The caption of the whole song is not read: this model was not tuned for stems."


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    song: Song,
    source: Source,
    track: str,
    start: float = 0.0,
    end: float = -1.0,
    *,
    mask_mode: str = "explicit",
    global_caption: str = "",
    batch: int = 1,
    reference: Reference | None = None,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning for a new ``track`` within [start, end) seconds of the source.

    The whole source is heard, also where the track is made. The result is the track alone: mix it with the
    source. Of the song, caption and lyrics are used; tempo, key and language follow from the source.

    Args:
        mask_mode: explicit, or auto: the model is not told of the region and chooses where the track plays.
        global_caption: of the whole song, for models tuned for stems; others do not read it.

    Raises:
        ValueError: a value out of range; a model that was not trained for stems.
    """
    check_batch(batch)
    check_track(track)
    if mask_mode not in MASKS:
        raise ValueError(f"mask_mode is {mask_mode!r}; allowed is {', '.join(MASKS)}.")
    tuned = model.config.is_lego_sft
    note = check_task("lego", model.kind, tuned)
    region = make_region(start, end, source.seconds, SAMPLE_RATE)
    plain = replace(song, bpm=None, key="", time_signature="", language=UNKNOWN_LANGUAGE)
    make = maker(model, text, plain, reference, host)
    grown = padded(source, region.before, region.after, model, make.host)
    latents = source_latents(model, grown)
    frames = latents.shape[1]
    first, last = region.frames(frames, SAMPLE_RATE, source.vae.hop)
    latents = at_least(latents, model)
    if mask_mode == "auto":
        mask = torch.full((1, latents.shape[1]), UNTOLD if tuned else 1.0)
    else:
        mask = torch.zeros(1, latents.shape[1])
        mask[:, first:last] = 1
    instruction = instruction_for("lego", track)
    caption = stem_caption(song.caption, global_caption, mask_mode) if tuned else None
    item = make.item(instruction, grown.seconds, latents, caption=caption, frames=frames, mask=mask)
    settings = {"track_name": track, "repainting_start": start, "repainting_end": end, "chunk_mask_mode": mask_mode}
    if global_caption:
        settings["global_caption"] = global_caption
    unread = UNREAD if global_caption and not tuned else None
    notes = tuple(filter(None, (note, unread)))
    return make.batch("lego", instruction, grown.seconds, (item,) * batch, settings, notes)
