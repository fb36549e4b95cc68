"""Several recordings into one: levels in dB, all starting together.

>>> song, stem = read("song.flac"), read("strings.flac")
>>> waveform, rate = mix([(song[0][None], song[1], 0.0), (stem[0][None], stem[1], -3.0)], limit="peak")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nodes read GAIN_RANGE at start-up, where torch must not be loaded
    import torch

GAIN_RANGE = (-60.0, 12.0)
"""Levels of a part in dB; 0 leaves it as it is. The lowest, and minus infinity, mean silent."""

ALIGNMENTS = ("start",)
LENGTHS = ("longest", "first")
LIMITS = ("none", "peak")


def mix(
    parts: Sequence[tuple[torch.Tensor, int, float]],
    *,
    align: str = "start",
    length: str = "longest",
    limit: str = "none",
    names: Sequence[str] | None = None,
) -> tuple[torch.Tensor, int]:
    """Add recordings up.

    The sum is taken in float32 in the order given: parts of 48 kHz stereo at 0 dB come out as ``a + b + c``
    to the last bit, and one part at 0 dB among silent ones comes out as it went in. A silent part still
    counts for the length, so that turning a level down never shortens the mix.

    Args:
        parts: ``(waveform [B, C, N] floating point, rate in Hz, gain in dB)`` each. Mono is put on both sides, of
            more than two channels the first two are taken. Gains lie in :data:`GAIN_RANGE` or are −inf.
            A batch of one joins every item of the others.
        align: ``start``: sample 0 of every part is sample 0 of the mix.
        length: ``longest``: shorter parts end in silence. ``first``: the first part decides; longer ones are cut.
        limit: ``none``: the plain sum, which may exceed ±1. ``peak``: each item that does is divided by its peak.
        names: what to call the parts in messages; "part 1", "part 2", … by default.

    Returns:
        ``(waveform [B, 2, N'] float32 on the device of the first part, 48000)``; shares no memory with the parts.

    Raises:
        AudioError: no parts; a part of wrong shape or rate, empty or not finite; a gain out of range; batches
            that do not fit together; an unknown option.
    """
    import torch

    from .audio import SAMPLE_RATE, AudioError, limit_peak, resample, to_stereo

    for what, value, allowed in (("align", align, ALIGNMENTS), ("length", length, LENGTHS), ("limit", limit, LIMITS)):
        if value not in allowed:
            raise AudioError(f"{what} must be {' or '.join(allowed)}, not {value!r}.")
    if not parts:
        raise AudioError("There is nothing to mix; give at least one part.")
    names = names or [f"part {number}" for number in range(1, len(parts) + 1)]
    if len(names) != len(parts):
        raise AudioError(f"There are {len(parts)} parts but {len(names)} names.")
    factors = [_factor(gain, name) for (_, _, gain), name in zip(parts, names, strict=True)]
    for (waveform, rate, _), name in zip(parts, names, strict=True):
        _check(waveform, rate, name)

    items = {name: waveform.shape[0] for (waveform, _, _), name in zip(parts, names, strict=True)}
    batch = max(items.values())
    unfit = [name for name, count in items.items() if count not in (1, batch)]
    if unfit:
        counts = ", ".join(f"{name}: {count}" for name, count in items.items())
        raise AudioError(f"The batches do not fit together ({counts}). Each must hold {batch} items or one.")

    lengths = [-(-waveform.shape[-1] * SAMPLE_RATE // rate) for waveform, rate, _ in parts]
    samples = lengths[0] if length == "first" else max(lengths)
    result = torch.zeros(batch, 2, samples, device=parts[0][0].device)
    for (waveform, rate, _), factor in zip(parts, factors, strict=True):
        if factor == 0:
            continue
        stereo = to_stereo(resample(waveform[:, :2].to(result), rate, SAMPLE_RATE))[..., :samples]
        result[..., : stereo.shape[-1]] += stereo if factor == 1 else stereo * factor
    return (limit_peak(result) if limit == "peak" else result), SAMPLE_RATE


def _factor(gain: Any, name: str) -> float:
    from .audio import AudioError

    low, high = GAIN_RANGE
    known = isinstance(gain, int | float) and not isinstance(gain, bool)
    if known and gain in (low, -math.inf):
        return 0.0
    if not known or not low < gain <= high:
        raise AudioError(f"The level of {name} is {gain!r}; allowed are {low:g} (silent) to {high:g} dB.")
    return 10 ** (gain / 20)


def _check(waveform: Any, rate: Any, name: str) -> None:
    import torch

    from .audio import AudioError, check_rate, check_samples

    try:
        check_rate(rate)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 3:
        shape = list(getattr(waveform, "shape", [])) or type(waveform).__name__
        raise AudioError(f"The waveform of {name} must have the shape [batch, channels, samples], not {shape}.")
    check_samples(waveform, name)
