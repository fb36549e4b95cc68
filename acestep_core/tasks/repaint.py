"""Repaint: make a region anew and keep the rest; a region beyond the source extends it."""

from __future__ import annotations

import torch

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host
from ..sampling.conditioning import SAMPLE_RATE, Conditioning, Splice
from ..sampling.correction import Keep
from ..song import Song
from .assemble import check_batch, maker
from .instructions import REPAINT
from .reference import Reference, silence_of
from .region import make_region, preservation, told
from .source import Source, at_least, padded, source_latents


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    song: Song,
    source: Source,
    start: float = 0.0,
    end: float = -1.0,
    *,
    mode: str = "balanced",
    strength: float = 0.5,
    batch: int = 1,
    reference: Reference | None = None,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning for a repaint of [start, end) seconds.

    Args:
        start, end: relative to the source's beginning; end −1 is its end. A negative start puts music in
            front, an end beyond the source puts music behind.
        mode: balanced, conservative (keeps most) or aggressive (the region is remade from the context
            alone, nothing is put back).
        strength: for balanced, 0 (as conservative) to 1 (as aggressive).

    The text says the length of the whole result; the original writes the source's here, although the piece
    is longer.
    """
    check_batch(batch)
    region = make_region(start, end, source.seconds, SAMPLE_RATE)
    keep = preservation(mode, strength)
    make = maker(model, text, song, reference, host)
    grown = padded(source, region.before, region.after, model, make.host)
    latents = source_latents(model, grown)
    frames = latents.shape[1]
    first, last = region.frames(frames, SAMPLE_RATE, source.vae.hop)
    heard = latents.clone()
    heard[:, first:last] = silence_of(model, frames)[first:last]
    clean, heard = at_least(latents, model), at_least(heard, model)
    mask = torch.zeros(1, clean.shape[1])
    mask[:, first:last] = 1
    whole = first == 0 and last >= frames
    begin, finish = region.samples(SAMPLE_RATE)
    splice = Splice(grown.audio, begin, finish, int(keep.fade_seconds * SAMPLE_RATE))
    item = make.item(
        REPAINT,
        grown.seconds,
        heard,
        frames=frames,
        mask=mask,
        keep=None if mode == "aggressive" else Keep(mask.bool(), clean, keep.injection, keep.crossfade),
        splice=splice if keep.splice and not whole else None,
    )
    settings = {
        "repainting_start": start,
        "repainting_end": end,
        "repaint_mode": mode,
        "repaint_strength": strength,
        "chunk_mask_mode": "explicit",
        "region_frames": [first, last],
    }
    if source.sampled_with is not None:
        settings["source_seed"] = source.sampled_with
    notes = told(start, end, source.seconds)
    return make.batch("repaint", REPAINT, grown.seconds, (item,) * batch, settings, notes)
