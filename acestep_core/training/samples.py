"""A song made again and again while an adapter is trained, to hear what it has learned.

>>> samples = Samples(make_song("slow tape-worn folk", duration=30), text, vae, every=10)
>>> train(model, items, settings, "output/acestep/runs/tide", samples=samples)

Training does not notice: the random numbers are left as they were, and nothing is drawn from those of the run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import audio, codec
from ..checkpoints.handles import Autoencoder, DiffusionModel, TextEncoder
from ..host import Host
from ..models.dit import DiT
from ..sampling import loop, noise, schedules
from ..sampling.settings import SamplerSettings, resolve
from ..song import Song
from ..tasks import text2music
from .adapters import Trainable
from .chance import undisturbed
from .limits import EVERY_RANGE, SEED_RANGE

FOLDER = "samples"


@dataclass(frozen=True)
class Samples:
    """What is made.

    Attributes:
        song: with the activation tag in its caption, where there is one. every: epochs between samples.
        seed: the same for all, so that they differ by the adapter alone.
        settings: of the sampler; None for those of the model's kind.
    """

    song: Song
    text: TextEncoder
    vae: Autoencoder
    every: int = 10
    seed: int = 42
    settings: SamplerSettings | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in (("every", EVERY_RANGE), ("seed", SEED_RANGE)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; allowed is a whole number from {low} to {high}.")
        text2music.check(self.song, 1)


class Studio:
    """Everything a sample needs beside the adapter. The words are encoded once, before training takes the card."""

    def __init__(self, model: DiffusionModel, samples: Samples, folder: Path, host: Host):
        """``folder``: of the run; sound goes into ``samples`` within.

        Raises:
            ValueError: the song cannot be made. OutOfMemory: by the text encoder.
        """
        self.samples, self.folder, self.host, self.kind = samples, folder / FOLDER, host, model.kind
        own = codec.with_silence(model, samples.vae, host)
        self.item = text2music.prepare(own, samples.text, samples.song, host=host).items[0]
        self.settings, _ = resolve(samples.settings or SamplerSettings(), model.kind, model.config.guidance_scale)

    def described(self) -> dict[str, Any]:
        """Plain values from which the same samples can be made again."""
        return {**asdict(self.samples.song), "every": self.samples.every, "seed": self.samples.seed}

    def models(self) -> dict[str, list[str]]:
        """Files of the models that samples need beside the one that is trained."""
        return {"text_files": list(self.samples.text.report.files), "vae_files": list(self.samples.vae.report.files)}

    def due(self, epoch: int) -> bool:
        return epoch % self.samples.every == 0

    def path(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch}.flac"

    def record(self, decoder: DiT, trained: Trainable, null: Tensor, epoch: int) -> Path:
        """Make ``samples/epoch_N.flac`` with the adapter in its present state.

        Args:
            decoder: the network that is trained, with ``trained`` beside it. null: the null condition [1, 1, E].

        Raises:
            OutOfMemory, FloatingPointError, OSError: it could not be made or written.
        """
        with undisturbed(null.device), torch.no_grad():
            trained.train(False)
            try:
                latents = self._sampled(decoder, null)
            finally:
                trained.train()
            sound = codec.decode(self.samples.vae, latents[:, : self.item.frames].cpu(), host=self.host)
            if null.device.type != "cpu":
                self.host.make_room()
        path = self.path(epoch)
        tags = {"title": f"{self.folder.parent.name}, epoch {epoch}"}
        audio.write(path, audio.limit_peak(sound)[0], audio.SAMPLE_RATE, tags=tags)
        return path

    def _sampled(self, decoder: DiT, null: Tensor) -> Tensor:
        """Latents [1, T, 64]."""
        chosen, conditions = self.settings, self.item.conditions
        place = {"device": null.device, "dtype": null.dtype}
        levels = schedules.schedule(self.kind, chosen.shift, chosen.steps, chosen.timesteps)
        frames, channels = conditions.context.shape[1], decoder.config.audio_acoustic_hidden_dim
        seeds = [self.samples.seed]
        start = noise.draw_noise(seeds, frames, channels, chosen.noise, null.device, null.dtype)
        heard = loop.Conditions(conditions.sequence.to(**place), conditions.context.to(**place))
        task = loop.Run(start, heard, fresh=noise.fresh_noise(seeds, start))
        bar = self.host.progress(len(levels) - 1, "sample")
        return loop.run(decoder, null, task, levels, chosen, closing_euler=self.kind == "turbo", bar=bar)
