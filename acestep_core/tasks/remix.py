"""Remix (cover): the song of a source in another dress.

The source passes through the 5 Hz codes, which keep its melody, rhythm and structure and lose its sound;
without the quantizer the latents themselves are followed and the result stays close.
"""

from __future__ import annotations

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host
from ..sampling.conditioning import Conditioning
from ..song import Song
from .assemble import check_batch, check_share, maker
from .codes import Codes, decode_codes, quantize, seconds_of
from .instructions import COVER
from .reference import Reference
from .source import Source, at_least, source_latents


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    song: Song,
    source: Source | Codes,
    *,
    strength: float = 1.0,
    noise_strength: float = 0.0,
    quantizer: bool = True,
    batch: int = 1,
    reference: Reference | None = None,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning for a remix; the length is the source's.

    Args:
        source: a recording, or codes (of the first item) in its place.
        strength: share of the steps that hear the source. 1 stays with it, 0 leaves it at once.
        noise_strength: above 0, sampling starts from the source itself instead of noise: 0.1 to 0.25 keep
            more of it, 1 nearly all.
        quantizer: False follows the latents themselves.
    """
    check_batch(batch)
    check_share("remix strength", strength)
    check_share("noise strength", noise_strength)
    make = maker(model, text, song, reference, host)
    settings = {"audio_cover_strength": strength, "cover_noise_strength": noise_strength, "no_fsq": not quantizer}
    if isinstance(source, Codes):
        codes = source.for_item(0)
        seconds = seconds_of(codes)
        plain = heard = decode_codes(model, codes, make.host)
        settings["audio_codes"] = Codes((codes,)).text()
    else:
        seconds = source.seconds
        plain = source_latents(model, source)
        heard = plain
    frames, complete = plain.shape[1], at_least(plain, model)
    if quantizer and not isinstance(source, Codes) and not source.silent:
        heard = quantize(model, complete, make.host)
    item = make.item(
        COVER,
        seconds,
        heard,
        frames=frames,
        strength=strength,
        start=complete,
        noise_strength=noise_strength,
    )
    task = "cover" if quantizer else "cover-nofsq"
    return make.batch(task, COVER, seconds, (item,) * batch, settings)
