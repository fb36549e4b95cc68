"""What is kept: records, tags, latents beside the sound, levels."""

import json

import pytest
import torch

from acestep_graph.acestep_core import result
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.song import Song
from acestep_graph.acestep_core.tasks import text2music
from tests import models


@pytest.fixture(scope="module")
def kept():
    song = Song(caption="calm piano", lyrics="la", bpm=90, duration=5.2)
    conditioning = text2music.prepare(models.diffusion(), models.text_encoder(), song, batch=2)
    made = sample(models.diffusion(), conditioning, None, 7)
    return result.make_result(models.diffusion(), conditioning, made)


def test_the_record_holds_everything_as_used(kept):
    record = json.loads(json.dumps(dict(kept.record)))
    assert record["task_type"] == "text2music" and record["caption"] == "calm piano" and record["bpm"] == 90
    assert record["seeds"][0] == 7 and record["inference_steps"] == 8 and record["shift"] == 3.0
    assert record["model_kind"] == "turbo" and record["model_files"][0].endswith("/model.safetensors")
    assert record["models"][0]["component"] == "dit" and len(record["models"][0]["fingerprint"]) == 64
    assert "seeds: 7" in result.summary(kept) and "8, shift 3" in result.summary(kept)


@pytest.mark.parametrize("wrong", (torch.zeros(1, 8, 10), torch.zeros(64, 10), None, "x"))
def test_foreign_latents_are_answered(wrong):
    with pytest.raises(ValueError, match="ACE-Step"):
        result.to_audio(models.small_vae(), {"samples": wrong}, None, None)
    audio = {"waveform": torch.rand(1, 2, 9600), "sample_rate": 48000}
    with pytest.raises(ValueError, match="ACE-Step"):
        result.source_of(models.small_vae(), audio, {"samples": wrong})


def test_latents_are_scaled_and_shifted_before_decoding(kept):
    vae, latent = models.small_vae(), result.as_latent(kept.made, kept.conditioning)
    changed = {**latent, "samples": latent["samples"] * 0.8 + 0.1}
    asked = result.to_audio(vae, latent, -3.0, None, shift=0.1, rescale=0.8)["waveform"]
    assert torch.equal(asked, result.to_audio(vae, changed, -3.0, None)["waveform"])
    for wrong in ({"shift": 0.3}, {"rescale": 2.0}, {"rescale": float("nan")}):
        with pytest.raises(ValueError, match="latent"):
            result.to_audio(vae, latent, None, None, **wrong)


def test_latents_that_other_nodes_changed_are_decoded_as_they_are(kept):
    vae, latent = models.small_vae(), result.as_latent(kept.made, kept.conditioning)
    audio = {"waveform": torch.rand(1, 2, 260 * 1920), "sample_rate": 48000, result.EXTRA: {"seed": 5}}
    joined = {**latent, "samples": torch.cat((latent["samples"],) * 2, dim=2)}
    picked = {**latent, "samples": latent["samples"][1:]}
    cut = {**latent, "samples": latent["samples"][..., 20:]}
    for changed in (joined, picked, cut):
        items, _, frames = changed["samples"].shape
        assert result.to_audio(vae, changed, None, None)["waveform"].shape == (items, 2, frames * 1920)
        assert result.source_of(vae, audio, changed).sampled_with == 5
    assert result.source_of(vae, audio, latent).sampled_with == 7


@pytest.mark.parametrize("chunk", (1, 63, 5000))
def test_windows_that_would_be_heard_are_refused(kept, chunk):
    latent = result.as_latent(kept.made, kept.conditioning)
    with pytest.raises(ValueError, match="64 to 4096"):
        result.to_audio(models.small_vae(), latent, None, chunk)
    with pytest.raises(ValueError, match="64 to 4096"):
        result.from_audio(models.small_vae(), {"waveform": torch.rand(1, 2, 9600), "sample_rate": 48000}, chunk)


def test_levels(kept):
    latent = result.as_latent(kept.made, kept.conditioning)
    plain = result.to_audio(models.small_vae(), latent, None, None)["waveform"]
    level = result.to_audio(models.small_vae(), latent, -6.0, None)["waveform"]
    assert plain.abs().amax() <= 1
    assert torch.allclose(level.abs().amax(dim=(1, 2)), torch.full((2,), 10 ** (-6 / 20)), atol=1e-5)
    assert plain.shape == (2, 2, 130 * 1920)
