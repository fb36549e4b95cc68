"""Sound to latents and back through the autoencoder, in windows small enough for any memory.

Latents on this side are time-major, [B, T, 64] at 25 Hz. Windows overlap by more than the networks can
see (:data:`OVERLAP_FRAMES`), so the joined result is that of one single pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .checkpoints.handles import Autoencoder, DiffusionModel
from .host import Host, current, free_cuda_bytes
from .memory.recovery import advice, is_out_of_memory

OVERLAP_FRAMES = 12
"""Frames of context on each side of a window. The networks see 10; the rest is margin."""

CHUNK_FRAMES = {"cpu": 256, "mps": 32}
CHUNK_RANGE = (64, 1024)
ELEMENTS_PER_FRAME = 2_000_000
"""Working memory of one latent frame in a decode or encode: 100 MB a second in bfloat16."""

SILENCE_FRAMES = 15000
"""Frames of the published silence latent: 600 s, the longest music that can be made at once."""

SILENT_SECONDS = 4.0


def windows(total: int, chunk: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Core [a, b) and widened window [lo, hi) of each piece of ``total`` frames.

    Cores are chunk − 2·overlap long and follow one another; ``overlap`` is halved until that is positive.
    """
    if total <= chunk:
        yield 0, total, 0, total
        return
    while chunk <= 2 * overlap:
        overlap //= 2
    stride = chunk - 2 * overlap
    for a in range(0, total, stride):
        b = min(a + stride, total)
        yield a, b, max(0, a - overlap), min(total, b + overlap)


def chunk_frames(vae: Autoencoder, device: torch.device) -> int:
    """Window length that fits: a fixed one on CPU and MPS, a quarter of the free memory on a GPU."""
    if device.type in CHUNK_FRAMES:
        return CHUNK_FRAMES[device.type]
    if device.type != "cuda":
        return 256
    fitting = free_cuda_bytes(device) // 2 // (ELEMENTS_PER_FRAME * vae.dtype.itemsize)
    return int(min(max(fitting, CHUNK_RANGE[0]), CHUNK_RANGE[1])) // 32 * 32


@torch.inference_mode()
def decode(
    vae: Autoencoder,
    latents: Tensor,
    *,
    chunk: int | None = None,
    overlap: int = OVERLAP_FRAMES,
    host: Host | None = None,
) -> Tensor:
    """Latents [B, T, 64] → audio [B, 2, T·1920], float32 on the CPU, not limited to ±1.

    Args:
        chunk: frames in a window including its overlaps; None fits it to the memory.
        overlap: frames of context on each side.

    Where memory runs out, decoding goes on in shorter windows, and at last in main memory.

    Raises:
        ValueError: latents that are empty, all zero, NaN or infinite, with the likely cause.
        OutOfMemory: nothing helped.
    """
    check_latents(latents)
    work = _Windows(vae, "decoding", chunk, overlap, host or current())
    hop, channels = vae.hop, vae.module.config.audio_channels
    audio = torch.empty(latents.shape[0], channels, latents.shape[1] * hop)

    def one(item: int, a: int, b: int, lo: int, hi: int, whole: bool) -> None:
        piece = vae.module.decode(latents[item : item + 1, lo:hi].transpose(1, 2).to(work.device, vae.dtype))
        audio[item, :, a * hop : b * hop] = piece[0, :, (a - lo) * hop : (b - lo) * hop]

    work.run(len(latents), latents.shape[1], one)
    return audio


class _Windows:
    """Work on the autoencoder window by window; where memory runs out, in shorter ones, at last in main memory."""

    def __init__(self, vae: Autoencoder, what: str, chunk: int | None, overlap: int, host: Host):
        self.vae, self.what, self.overlap, self.host = vae, what, overlap, host
        self.device = self._prepared(chunk or CHUNK_RANGE[0])
        self.size = chunk or chunk_frames(vae, self.device)

    def run(self, items: int, frames: int, one: Callable[[int, int, int, int, int, bool], None]) -> None:
        """``one(item, a, b, lo, hi, whole)`` for each window of each item, ``whole`` where it is the only one.

        After a failure the item begins anew.
        """
        item = 0
        while item < items:
            pieces = list(windows(frames, self.size, self.overlap))
            bar, done = self.host.progress(len(pieces) * (items - item), self.what, "window"), 0
            try:
                while item < items:
                    for piece in pieces:
                        one(item, *piece, len(pieces) == 1)
                        done += 1
                        bar.update(done)
                    item += 1
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.device.type == "cpu" and self.size <= CHUNK_RANGE[0]:
                    raise advice(self.what) from error
            else:
                return
            self.host.make_room()  # only here, when the error no longer holds what was being computed
            self._shrink()

    def _prepared(self, size: int) -> torch.device:
        """Where the autoencoder is now: where memory runs out everything else leaves the card, at last itself too."""
        for made_room in (False, True):
            try:
                return self.host.prepare(self.vae.module, "vae", size * ELEMENTS_PER_FRAME * self.vae.dtype.itemsize)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self.host.make_room()
            if not made_room:
                self.host.say(f"There was not enough memory for {self.what}; other models made room.")
        return self._in_main_memory()

    def _in_main_memory(self) -> torch.device:
        title = self.what.capitalize()
        self.host.say(f"{title} does not fit into the card's memory and goes on in main memory, which is slower.")
        self.vae.module.to("cpu")
        return torch.device("cpu")

    def _shrink(self) -> None:
        """Windows half as long; after the shortest, the CPU."""
        if self.size > CHUNK_RANGE[0]:
            self.size = max(CHUNK_RANGE[0], self.size // 2 // 32 * 32)
            self.host.say(f"{self.what.capitalize()} ran out of memory and goes on in windows of {self.size} frames.")
            self.device = self._prepared(self.size)
            return
        self.device, self.size = self._in_main_memory(), CHUNK_FRAMES["cpu"]


def drawn(vae: Autoencoder, audio: Tensor, generator: torch.Generator) -> Tensor:
    """Noise for one draw from the posterior of each item of ``audio`` [B, 2, n]; see :func:`encode`."""
    channels, frames = vae.module.config.decoder_input_channels, audio.shape[-1] // vae.hop
    return torch.randn(len(audio), channels, frames, generator=generator, device=generator.device)


@torch.inference_mode()
def encode(
    vae: Autoencoder,
    audio: Tensor,
    *,
    noise: Tensor | None = None,
    chunk: int | None = None,
    overlap: int = OVERLAP_FRAMES,
    host: Host | None = None,
) -> Tensor:
    """Audio [B, 2, n] in ±1 at 48 kHz → latents [B, n // 1920, 64], float32 on the CPU.

    Args:
        noise: None takes the posterior's mean, which repeats; normal noise [B, 64, n // 1920], as :func:`drawn` makes
            it, draws from the posterior, as the original does. The original draws window by window; here the
            latents do not depend on the windows.
        chunk, overlap: as in :func:`decode`, in frames.

    Where memory runs out, encoding goes on in shorter windows, and at last in main memory.

    Raises:
        ValueError: less audio than one frame. OutOfMemory: nothing helped.
    """
    hop, samples = vae.hop, audio.shape[-1]
    frames = samples // hop
    if frames < 1:
        raise ValueError(f"The audio is {samples} samples long; at least {hop} (40 ms at 48 kHz) are needed.")
    work = _Windows(vae, "encoding", chunk, overlap, host or current())
    latents = torch.empty(audio.shape[0], frames, vae.module.config.decoder_input_channels)

    def one(item: int, a: int, b: int, lo: int, hi: int, whole: bool) -> None:
        end = samples if whole else min((b + overlap) * hop, samples) if hi == frames else hi * hop
        mean, std = vae.module.encode(audio[item : item + 1, :, lo * hop : end].to(work.device, vae.dtype))
        core = slice(a - lo, b - lo)
        made = mean[0, :, core]
        if noise is not None:
            made = made + std[0, :, core] * noise[item, :, a:b].to(made)
        latents[item, a:b] = made.T

    work.run(len(audio), frames, one)
    return latents


def check_latents(latents: Tensor) -> None:
    """Refuse latents that cannot become sound, saying what probably made them so."""
    if latents.numel() == 0:
        raise ValueError("There are no latents to decode.")
    if not bool(torch.isfinite(latents).all()):
        raise ValueError(
            f"The latents hold NaN or infinity ({latents.dtype}, {latents.device}). Usual causes: float16 weights "
            "(choose bf16 or fp32 on the loader), or an adapter or checkpoint of another model."
        )
    if not bool(latents.any()):
        raise ValueError("The latents are all zero: nothing was generated. Check that a sampler made them.")


def with_silence(model: DiffusionModel, vae: Autoencoder, host: Host | None = None) -> DiffusionModel:
    """The same model with a silence latent made by encoding digital silence; unchanged if it has one.

    Away from the ends the encoder's answer is constant, so its first half is followed by its middle frame.
    """
    if model.silence is not None:
        return model
    config = vae.module.config
    mean = encode(vae, torch.zeros(1, config.audio_channels, int(SILENT_SECONDS * config.sampling_rate)), host=host)[0]
    middle = mean.shape[0] // 2
    silence = torch.cat((mean[:middle], mean[middle].expand(SILENCE_FRAMES - middle, -1)))
    note = "The file carries no silence latent; it was made by encoding silence with the autoencoder."
    return replace(model, silence=silence, report=replace(model.report, notes=(*model.report.notes, note)))
