"""How long a recording is, and whether it can be used, without decoding more than its first second."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..audio import AudioError, read, share_of_wav
from ..sampling.conditioning import MIN_FRAMES, SAMPLE_RATE, SAMPLES_PER_FRAME

SHORTEST = MIN_FRAMES * SAMPLES_PER_FRAME / SAMPLE_RATE
"""Seconds: the shortest sequence that the model is run on."""
LONGEST = 4 * 3600.0
"""Seconds: what is longer is no song."""
SLACK = 0.1
_EXACT = ("wav", "flac")


@dataclass(frozen=True)
class Length:
    """Seconds of sound that are there, the channels, and what the user should know."""

    seconds: float
    channels: int
    remarks: tuple[str, ...] = ()


def measure(path: str | os.PathLike) -> Length:
    """The length of a recording: of the packets in the file, not what its header promises.

    Raises:
        AudioError: it cannot be read, is cut off (where the header of a WAV or FLAC tells), is damaged, or is shorter
            than :data:`SHORTEST` or longer than :data:`LONGEST`.
    """
    import av

    path = Path(path)
    waveform, _ = read(path, seconds=1.0)
    promised, end = 0.0, 0.0
    try:
        with open(path, "rb") as file, av.open(file, options={"protocol_whitelist": "none"}) as container:
            stream = container.streams.audio[0]
            exact = container.format.name in _EXACT
            promised = float(stream.duration * stream.time_base) if stream.duration else 0.0
            begin = None
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None:
                    begin = packet.pts if begin is None else begin
                    last = packet.pts + (packet.duration or 0) - begin
                    end = max(end, float(last * stream.time_base))
    except av.error.FFmpegError as error:
        raise AudioError(f"{path.name} is damaged after {end:.1f} s ({error.strerror}).") from error
    except OSError as error:
        raise AudioError(f"{path.name} cannot be opened ({error.strerror}).") from error
    remarks = []
    promised = max(promised, end / share_of_wav(path))
    if promised and end < promised - SLACK:
        if exact:
            raise AudioError(f"{path.name} is cut off: {end:.2f} of {promised:.2f} s are there.")
        if end < promised * 0.98 - 1:
            remarks.append(f"its header promises {promised:.1f} s, but {end:.1f} s are there; it may be cut off")
    if end < SHORTEST:
        raise AudioError(f"{path.name} lasts {end:.2f} s; at least {SHORTEST:g} s are needed.")
    if end > LONGEST:
        raise AudioError(f"{path.name} lasts {end / 3600:.1f} hours; cut it into songs of at most 10 minutes.")
    if waveform.shape[0] > 2:
        remarks.append(f"of its {waveform.shape[0]} channels the first two are heard")
    return Length(round(end, 3), waveform.shape[0], tuple(remarks))
