"""Audio files in and out, sample rates, channels and loudness.

Two forms are used throughout. A *clip* is one waveform ``[channels, samples]``; a *batch* is
``[items, channels, samples]``. Both are float tensors in [-1, 1]. Ready for the model means stereo,
48 kHz, float32: :func:`for_model` makes that of anything ComfyUI calls ``AUDIO``.

>>> waveform, rate = read("song.mp3")
>>> write("song.flac", to_stereo(resample(waveform, rate, SAMPLE_RATE)), SAMPLE_RATE, tags={"title": "Song"})
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

SAMPLE_RATE = 48000
"""Rate of everything that enters or leaves the model, in Hz."""

QUALITIES = {
    "mp3": ("V0", "128k", "192k", "256k", "320k"),
    "opus": ("64k", "96k", "128k", "192k", "256k", "320k"),
}
"""Qualities of the lossy formats; the defaults are in :data:`DEFAULT_QUALITY`."""

DEFAULT_QUALITY = {"mp3": "V0", "opus": "128k"}
FORMATS = ("flac", "mp3", "opus", "wav")
SAMPLE_FORMATS = ("s16", "f32")
"""Sample formats of a WAV file: 16-bit integers or 32-bit floats."""

_CODECS = {"flac": "flac", "mp3": "libmp3lame", "opus": "libopus"}
_RATES = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}
_INTEGER_SCALE = {"u8": (128, 128), "s16": (0, 2**15), "s32": (0, 2**31), "s64": (0, 2**63)}
_INFO_TAGS = {"title", "artist", "album", "genre", "date", "comment", "copyright", "track", "language", "encoder"}
_LENGTH_IS_EXACT = {"wav", "flac"}


class AudioError(ValueError):
    """Audio that cannot be read, written or used, in the user's words."""


# -- files


def read(path: str | os.PathLike, *, start: float = 0.0, seconds: float | None = None) -> tuple[torch.Tensor, int]:
    """The first audio track of any audio or video file.

    Args:
        path: file in any container and codec that FFmpeg reads. Playlists that point to other files are refused.
        start, seconds: the part wanted, in seconds; ``seconds=None`` reads to the end.

    Returns:
        ``(waveform [channels, samples] float32, sample_rate)`` with the channels and rate of the file;
        integer samples are scaled to [-1, 1].

    Raises:
        AudioError: no such file, not an audio file, no audio track, nothing in it, damaged, or (where the
            header of a WAV or FLAC tells) cut off.
    """
    import av

    path = Path(path)
    if not (start >= 0 and math.isfinite(start)) or not (seconds is None or seconds > 0):
        raise AudioError(f"Cannot read {seconds} s from {start} s: give a start of 0 or more and a length above 0.")
    with _opened(path) as container:
        if not container.streams.audio:
            raise AudioError(f"{path.name} has no audio track.")
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        first = round(start * rate)
        last = None if seconds is None else first + max(1, round(seconds * rate))
        blocks, position = [], 0
        try:
            for frame in container.decode(stream):
                end = position + frame.samples
                if end > first:
                    until = None if last is None else last - position
                    blocks.append(_samples(frame)[:, max(0, first - position) : until])
                position = end
                if last is not None and position >= last:
                    break
        except av.error.FFmpegError as error:
            raise AudioError(f"{path.name} is damaged after {position / rate:.2f} s ({error.strerror}).") from error
        length = float(stream.duration * stream.time_base) if stream.duration else 0.0
        if last is None:
            length = max(length, position / rate / share_of_wav(path))
        if last is None and container.format.name in _LENGTH_IS_EXACT and position / rate < length - 0.1:
            raise AudioError(f"{path.name} is cut off: {position / rate:.2f} of {length:.2f} s are there.")
    if position and not blocks:
        raise AudioError(f"{path.name} lasts {position / rate:.2f} s, so nothing starts at {start:g} s.")
    if not blocks:
        raise AudioError(f"{path.name} holds no sound.")
    if len({block.shape[0] for block in blocks}) > 1:
        raise AudioError(f"{path.name} changes its number of channels on the way; convert it to a plain WAV first.")
    return torch.cat([torch.from_numpy(block) for block in blocks], dim=1), rate


def share_of_wav(path: Path) -> float:
    """How much of the sound that the header of a WAV promises is in the file; 1 for other files and open ends.

    FFmpeg takes the length of uncompressed sound from the size of the file and does not notice what is missing.
    """
    with open(path, "rb") as file:
        whole = os.fstat(file.fileno()).st_size
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return 1.0
        while len(head := file.read(8)) == 8:
            size = struct.unpack("<I", head[4:])[0]
            if head[:4] == b"data":
                there = whole - file.tell()
                return there / size if 0 < there < size < 0xFFFFFF00 else 1.0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 1.0


def read_tags(path: str | os.PathLike) -> dict[str, str]:
    """The text tags of a file as :func:`write` stored them, keys in lower case.

    Raises:
        AudioError: as :func:`read`.
    """
    with _opened(Path(path)) as container:
        found = dict(container.metadata)
        for stream in container.streams.audio[:1]:
            found.update(stream.metadata)
    tags = {key.lower(): value for key, value in found.items()}
    if "comment" in tags and tags["comment"].startswith('{"'):
        with contextlib.suppress(ValueError):
            tags.update({k: v for k, v in json.loads(tags["comment"]).items() if isinstance(v, str)})
    return tags


def write(
    path: str | os.PathLike,
    waveform: torch.Tensor,
    sample_rate: int,
    *,
    quality: str | None = None,
    sample_format: str = "s16",
    tags: Mapping[str, str] | None = None,
) -> int:
    """Write a clip; the suffix of ``path`` (.wav, .flac, .mp3, .opus) chooses the format.

    The file appears complete or not at all. FLAC is 16 bit. Samples beyond ±1 are clamped, except in a
    32-bit float WAV. MP3 and Opus take only certain rates; any other is resampled to 48 kHz. Opus cannot
    spend more than 256 kbit/s on one channel.

    Args:
        waveform: ``[channels, samples]`` with one or two channels; see :func:`to_stereo` for more.
        sample_rate: in Hz.
        quality: one of :data:`QUALITIES` for mp3 and opus.
        sample_format: for wav, one of :data:`SAMPLE_FORMATS`.
        tags: text to embed. JSON (``workflow``, ``prompt``) is stored as ASCII, which ComfyUI's reader of
            MP3 needs. WAV knows only the common tags; the others go as one JSON object into ``comment``.

    Returns:
        The sample rate of the file.

    Raises:
        AudioError: unknown format or quality, wrong shape, NaN, more than two channels, no samples.
    """
    path = Path(path)
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise AudioError(f"Cannot write {path.name}: the name must end in .{', .'.join(FORMATS)}.")
    if quality is not None and quality not in QUALITIES.get(suffix, (quality,)):
        raise AudioError(f"No {suffix} quality {quality!r}; choose one of {', '.join(QUALITIES[suffix])}.")
    if sample_format not in SAMPLE_FORMATS:
        raise AudioError(f"No sample format {sample_format!r}; choose one of {', '.join(SAMPLE_FORMATS)}.")
    if waveform.ndim != 2:
        raise AudioError(f"A clip has the shape [channels, samples], not {list(waveform.shape)}.")
    if waveform.shape[0] not in (1, 2):
        raise AudioError(f"Cannot write {waveform.shape[0]} channels to {path.name}; make it stereo first.")
    check_samples(waveform, path.name)
    sample_rate = check_rate(sample_rate)
    waveform = waveform.detach().to("cpu", torch.float32)
    if suffix in _RATES and sample_rate not in _RATES[suffix]:
        waveform, sample_rate = resample(waveform, sample_rate, SAMPLE_RATE), SAMPLE_RATE
    if not (suffix == "wav" and sample_format == "f32"):
        waveform = waveform.clamp(-1, 1)

    part = path.with_name(f".{path.stem[:80]}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(part, suffix, waveform, sample_rate, quality or DEFAULT_QUALITY.get(suffix), sample_format, tags or {})
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error}). Make room, then run it again.") from error
    finally:
        part.unlink(missing_ok=True)
    return sample_rate


# -- sample rate and channels


def resample(waveform: torch.Tensor, from_rate: int, to_rate: int) -> torch.Tensor:
    """Change the sample rate with a band-limited interpolation.

    The kernel is a sinc of 6 zero crossings under a squared-cosine (Hann) window, cut at 0.99 of the lower
    Nyquist frequency (J. O. Smith, *Digital Audio Resampling*), as in ``torchaudio.functional.resample``.
    With from/to reduced to ``p/q``, output ``q·n + k`` lies at input ``p·n + k·p/q``: each phase ``k`` is a
    convolution of stride ``p``. Neighbouring phases share one product, and both phases and time are cut
    into blocks, so that odd rates and long files need little memory beyond the result.

    Args:
        waveform: ``[..., samples]`` float32 or float64; the kernel is computed in the same precision.
        from_rate, to_rate: in Hz.

    Returns:
        ``[..., ceil(samples · to_rate / from_rate)]``; ``waveform`` itself where the rates are equal.
    """
    from_rate, to_rate = check_rate(from_rate), check_rate(to_rate)
    if from_rate == to_rate:
        return waveform
    common = math.gcd(from_rate, to_rate)
    step, phases = from_rate // common, to_rate // common
    crossings, cutoff = 6, 0.99 * min(step, phases)
    reach = math.ceil(crossings * step / cutoff)

    length = waveform.shape[-1]
    flat = waveform.reshape(-1, length)
    exact = {"dtype": waveform.dtype, "device": waveform.device}
    frames = length // step + 1
    result = flat.new_empty(flat.shape[0], frames, phases)
    padded = functional.pad(flat, (reach, reach + step + 1))
    group = max(64, phases // 64)
    for low in range(0, phases, group):
        high = min(phases, low + group)
        begin, end = low * step // phases, (high - 1) * step // phases + 2 * reach + 2
        taps = torch.arange(begin - reach, end - reach, **exact)[:, None] / step
        at = (taps - torch.arange(low, high, **exact) / phases) * cutoff
        at = at.clamp(-crossings, crossings)
        kernel = torch.sinc(at) * torch.cos(at * (math.pi / crossings / 2)) ** 2 * (cutoff / step)
        windows = padded[:, begin:].unfold(-1, end - begin, step)
        for block in range(0, frames, 1 << 14):
            part = windows[:, block : min(frames, block + (1 << 14))]
            result[:, block : block + part.shape[1], low:high] = part @ kernel
    result = result.reshape(*waveform.shape[:-1], frames * phases)
    return result[..., : -(-length * phases // step)]


def to_stereo(waveform: torch.Tensor) -> torch.Tensor:
    """``[B, C, N]`` or ``[C, N]`` with two channels: mono is doubled, of more than two the first two stay."""
    channels = waveform.shape[-2]
    if channels == 0:
        raise AudioError("The audio has no channels.")
    if channels == 1:
        return waveform.expand(*waveform.shape[:-2], 2, waveform.shape[-1])
    return waveform[..., :2, :]


def for_model(audio: Mapping[str, Any]) -> torch.Tensor:
    """ComfyUI's ``AUDIO`` as the model takes it.

    Args:
        audio: ``{"waveform": [B, C, N], "sample_rate": int}``; it is left as it is.

    Returns:
        ``[B, 2, N']`` float32 at 48 kHz, clamped to ±1, on the device of the input.

    Raises:
        AudioError: not such a mapping, wrong shape or rate, empty, or not finite.
    """
    if not isinstance(audio, Mapping) or "waveform" not in audio or "sample_rate" not in audio:
        raise AudioError("Audio must hold 'waveform' and 'sample_rate'; connect a node that gives AUDIO.")
    waveform, rate = audio["waveform"], check_rate(audio["sample_rate"])
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 3:
        shape = list(getattr(waveform, "shape", [])) or type(waveform).__name__
        raise AudioError(f"The waveform must have the shape [batch, channels, samples], not {shape}.")
    check_samples(waveform, "The audio")
    return resample(to_stereo(waveform).to(torch.float32), rate, SAMPLE_RATE).clamp(-1, 1)


# -- loudness


def limit_peak(waveform: torch.Tensor) -> torch.Tensor:
    """``[B, C, N]`` with every item whose peak exceeds 1 divided by that peak; the others unchanged."""
    return waveform / _peaks(waveform).clamp_min(1.0)


def normalize_peak(waveform: torch.Tensor, db: float) -> torch.Tensor:
    """``[B, C, N]`` with the peak of every item at ``db`` dBFS (0 = full scale); silence stays silence."""
    peaks = _peaks(waveform)
    return waveform * torch.where(peaks < 1e-6, 1.0, 10 ** (db / 20) / peaks.clamp_min(1e-6)).to(waveform.dtype)


def fade(waveform: torch.Tensor, rate: int, fade_in_s: float = 0.0, fade_out_s: float = 0.0) -> torch.Tensor:
    """``[..., N]`` with linear fades of the given seconds, each at most the whole length."""
    length = waveform.shape[-1]
    into, out = (min(length, max(0, round(seconds * rate))) for seconds in (fade_in_s, fade_out_s))
    if not into and not out:
        return waveform
    gain = torch.ones(length, dtype=waveform.dtype, device=waveform.device)
    gain[:into] *= torch.linspace(0, 1, into, dtype=gain.dtype, device=gain.device)
    gain[length - out :] *= torch.linspace(1, 0, out, dtype=gain.dtype, device=gain.device)
    return waveform * gain


# -- checks


def check_rate(rate: Any) -> int:
    """``rate`` as a whole number of Hz from 1 to 1 000 000, or :class:`AudioError`."""
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if isinstance(rate, bool) or whole != rate or not 1 <= whole <= 1_000_000:
        raise AudioError(f"A sample rate is a whole number of Hz from 1 to 1000000, not {rate!r}.")
    return whole


def check_samples(waveform: torch.Tensor, what: str) -> None:
    """Raise :class:`AudioError` where ``waveform`` is empty, not floating point, or not finite."""
    if not waveform.is_floating_point():
        raise AudioError(f"{what}: samples must be floating point numbers in [-1, 1], not {waveform.dtype}.")
    if waveform.numel() == 0:
        raise AudioError(f"{what} holds no samples (shape {list(waveform.shape)}).")
    if not torch.isfinite(waveform.sum()) and not torch.isfinite(waveform).all():
        raise AudioError(f"{what} holds NaN or infinite samples; the step that made it went wrong.")


# -- inside


def _peaks(waveform: torch.Tensor) -> torch.Tensor:
    return waveform.abs().amax(dim=(-2, -1), keepdim=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import av

    if not path.is_file():
        raise AudioError(f"There is no file {path}." if not path.exists() else f"{path} is not a file.")
    if path.stat().st_size == 0:
        raise AudioError(f"{path.name} is empty.")
    try:
        # The whitelist keeps a playlist under an audio name from opening other files or addresses.
        with open(path, "rb") as file, av.open(file, options={"protocol_whitelist": "none"}) as container:
            yield container
    except av.error.FFmpegError as error:
        raise AudioError(f"{path.name} is not an audio file that can be read ({error.strerror}).") from error
    except OSError as error:
        raise AudioError(f"{path.name} cannot be opened ({error.strerror}).") from error


def _samples(frame: Any):
    """A decoded frame as a float32 array [channels, samples]."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.packed.name
    if kind not in _INTEGER_SCALE:
        return values.astype("float32")
    zero, scale = _INTEGER_SCALE[kind]
    return ((values.astype("float64") - zero) / scale).astype("float32")


def _encode(
    path: Path,
    suffix: str,
    waveform: torch.Tensor,
    rate: int,
    quality: str | None,
    sample_format: str,
    tags: Mapping[str, str],
) -> None:
    import av

    codec = _CODECS.get(suffix) or {"s16": "pcm_s16le", "f32": "pcm_f32le"}[sample_format]
    layout = "mono" if waveform.shape[0] == 1 else "stereo"
    with av.open(str(path), "w", format=suffix) as container:
        container.metadata.update(_stored_tags(tags, suffix))
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if quality == "V0":
            stream.codec_context.qscale = True
        elif quality:
            limit = 256_000 * waveform.shape[0] if suffix == "opus" else 320_000
            stream.bit_rate = min(limit, int(quality.removesuffix("k")) * 1000)
        for position in range(0, waveform.shape[1], rate):
            block = waveform[:, position : position + rate].contiguous().numpy()
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, position
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _stored_tags(tags: Mapping[str, str], suffix: str) -> dict[str, str]:
    stored = {}
    for key, text in tags.items():
        text = text.replace("\0", "").encode("utf-8", "replace").decode()
        if text[:1] in "{[" and not text.isascii():
            with contextlib.suppress(ValueError):
                text = json.dumps(json.loads(text))
        stored[key] = text
    if suffix == "wav":
        extra = {key: stored.pop(key) for key in list(stored) if key.lower() not in _INFO_TAGS}
        if extra:
            stored["comment"] = json.dumps({**({"comment": stored["comment"]} if "comment" in stored else {}), **extra})
    return stored
