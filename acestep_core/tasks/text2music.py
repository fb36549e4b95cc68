"""Text to music: a song from its description alone.

>>> from acestep_core import codec
>>> from acestep_core.sampling import sampler
>>> from acestep_core.tasks import text2music
>>> batch = text2music.prepare(model, text, make_song("calm piano", duration=30))
>>> audio = codec.decode(vae, sampler.sample(model, batch, seed=1).latents)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host, current
from ..sampling.conditioning import MIN_FRAMES, Conditioning, Item, context, frames_of
from ..sampling.loop import Conditions
from ..sampling.settings import BATCH_RANGE
from ..song import Song, resolve_duration
from ..text import Prompt, embed, make_prompt
from .instructions import instruction_for
from .reference import Reference, silence_of, timbre_clips


def check(song: Song, batch: int) -> None:
    """Raise where text2music cannot work with the request."""
    if not (song.caption or song.sung.strip()):
        raise ValueError("Write a caption or lyrics: text2music needs at least one of them.")
    low, high = BATCH_RANGE
    if not low <= batch <= high:
        raise ValueError(f"batch size is {batch}; allowed is {low} to {high}.")


@torch.inference_mode()
def encode_conditions(
    model: DiffusionModel, text: TextEncoder, prompt: Prompt, clips: Tensor, host: Host | None = None
) -> Tensor:
    """Packed sequence [1, L, E] of one item: lyrics, timbre of ``clips`` [N, 750, 64], text. On the CPU."""
    host = host or current()
    hidden, lyrics = embed(text, prompt, host)
    device = host.prepare(model.module, "dit", 300_000_000)
    parts = (x.to(device, model.dtype) for x in (hidden, lyrics, clips))
    return model.module.encoder.encode_one(*parts).cpu()


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    song: Song,
    *,
    batch: int = 1,
    reference: Reference | None = None,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning for ``batch`` pieces of one song, which differ by their seeds alone.

    The source is silence, the chunk mask is 1 everywhere, the timbre is the reference's or silence.
    """
    host = host or current()
    check(song, batch)
    seconds, origin = resolve_duration(song)
    instruction = instruction_for("text2music")
    prompt = make_prompt(text.tokenizer, instruction, song, seconds)
    frames = frames_of(seconds)
    silence = silence_of(model, max(frames, MIN_FRAMES))[None]
    sequence = encode_conditions(model, text, prompt, timbre_clips(model, reference), host)
    item = Item(Conditions(sequence, context(silence)), frames, prompt)
    notes = (*song.notes(), *prompt.notes())
    if song.duration <= 0:
        notes = (f"Length {seconds:g} s ({origin}).", *notes)
    for note in notes:
        host.say(note)
    settings = {"duration_origin": origin, "reference_clips": 0 if reference is None else len(reference.clips)}
    return Conditioning(
        "text2music", instruction, song, seconds, (item,) * batch, model.module.encoder, settings, notes
    )
