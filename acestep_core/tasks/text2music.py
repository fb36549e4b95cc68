"""Text to music: a song from its description alone, or following codes.

>>> from acestep_core import codec
>>> from acestep_core.sampling import sampler
>>> from acestep_core.tasks import text2music
>>> batch = text2music.prepare(model, text, make_song("calm piano", duration=30))
>>> audio = codec.decode(vae, sampler.sample(model, batch, seed=1).latents)
"""

from __future__ import annotations

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host
from ..memory.limits import within_card
from ..sampling.conditioning import MIN_FRAMES, Conditioning, Item, frames_of
from ..song import Song, resolve_duration
from .assemble import check_batch, check_share, maker
from .codes import Codes, decode_codes, seconds_of
from .instructions import COVER, TEXT2MUSIC
from .reference import Reference, silence_of


def check(song: Song, batch: int) -> None:
    """Raise where text2music cannot work with the request."""
    if not (song.caption or song.sung.strip()):
        raise ValueError("Write a caption or lyrics: text2music needs at least one of them.")
    check_batch(batch)


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    song: Song,
    *,
    batch: int = 1,
    reference: Reference | None = None,
    codes: Codes | None = None,
    codes_strength: float = 1.0,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning for ``batch`` pieces of one song.

    Without codes the source is silence and the pieces differ by their seeds alone. With codes, each piece
    follows its own: their length is the length of the piece, and ``codes_strength`` is the share of the
    steps that hear them (1: all).
    """
    check(song, batch)
    check_share("codes strength", codes_strength)
    make = maker(model, text, song, reference, host)
    seconds, origin = resolve_duration(song)
    seconds, clamped = within_card(make.host, seconds, lm=False)
    made: dict[tuple[int, ...], Item] = {}
    for index in range(batch):
        own = codes.for_item(index) if codes else ()
        if own in made:
            continue
        if own:
            latents = decode_codes(model, own, make.host)
            made[own] = make.item(COVER, seconds_of(own), latents, strength=codes_strength)
        else:
            frames = frames_of(seconds)
            silence = silence_of(model, max(frames, MIN_FRAMES))[None]
            made[own] = make.item(TEXT2MUSIC, seconds, silence, frames=frames)
    items = tuple(made[codes.for_item(index) if codes else ()] for index in range(batch))
    if codes and codes.for_item(0):
        seconds, origin = seconds_of(codes.for_item(0)), "of the codes"
    notes = () if origin == "as given" else (f"Length {seconds:g} s ({origin}).",)
    if clamped and not codes:
        notes += (clamped,)
    without = sum(not codes.for_item(index) for index in range(batch)) if codes else 0
    if without:
        notes += (f"{without} of {batch} variations have no codes and are made from the text alone.",)
    settings = {"duration_origin": origin}
    if codes:
        settings |= {"audio_codes": codes.text(), "audio_cover_strength": codes_strength}
    return make.batch("text2music", COVER if codes else TEXT2MUSIC, seconds, items, settings, notes)
