"""One small finished result, made once, for tests of what comes after sampling."""

from functools import cache

import torch

from acestep_graph.acestep_core import result
from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.models.config import ModelConfig
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.song import make_song
from acestep_graph.acestep_core.tasks import text2music
from tests import models

LYRICS = "[Verse]\nWe walk along\n星が歌う\n[Chorus]\nOh river\n"
SONG = make_song("calm piano", LYRICS, "en", bpm=90, key="C major", duration=10)
HEADS = {0: (1,), 1: (0, 2), 2: (3,)}


@cache
def named_heads():
    """The tiny model under a configuration that names its lyric heads, as newer checkpoints do."""
    model = loading.load_diffusion_model(models.CHECKPOINTS / "acestep-v15-turbo", dtype=torch.float32)
    model.module.config = ModelConfig(**{**vars(model.config), "lyric_alignment_layers_config": HEADS})
    return model


@cache
def made(batch: int = 2, seed: int = 7, song=SONG):
    model = named_heads()
    conditioning = text2music.prepare(model, models.text_encoder(), song, batch=batch)
    return result.make_result(model, conditioning, sample(model, conditioning, None, seed))


def sound_of(found, rate: int = 48000):
    """A tone a piece, as ComfyUI's AUDIO, in place of decoding."""
    count, samples = len(found.conditioning.items), int(max(found.made.frames) * 1920 * rate / 48000)
    time = torch.arange(samples) / rate
    tones = [torch.sin(2 * torch.pi * (220 + 110 * item) * time).repeat(2, 1) * 0.5 for item in range(count)]
    return {"waveform": torch.stack(tones), "sample_rate": rate}
