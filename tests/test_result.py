"""What is kept: records, tags, latents beside the sound, levels."""

import json

import pytest
import torch

from acestep_graph.acestep_core import result
from acestep_graph.acestep_core.checkpoints.header import safetensors_header
from acestep_graph.acestep_core.host import Host
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
    assert record["model_kind"] == "turbo" and record["model_files"] == ["model.safetensors"]
    assert "seeds: 7" in result.summary(kept) and "8, shift 3" in result.summary(kept)


def test_tags_carry_the_workflow_and_the_song(kept):
    tags = result.tags(kept, {"1": {"class_type": "X"}}, {"workflow": {"nodes": []}})
    assert json.loads(tags["workflow"]) == {"nodes": []} and json.loads(tags["prompt"])["1"]["class_type"] == "X"
    assert tags["title"] == "calm piano" and tags["lyrics"] == "la" and tags["bpm"] == "90"
    assert set(result.tags(None, None, None)) == set()


def test_latents_beside_a_file_come_back_bit_for_bit(kept, tmp_path):
    host = Host(output=tmp_path)
    audio = {"waveform": torch.zeros(2, 2, 4800) + 0.1, "sample_rate": 48000}
    saved = result.save(host, audio, "x/song", "flac", "320k", {})
    paths = result.save_latents(host, kept, saved)
    assert [p.name for p in paths] == ["song_00001_.latents.safetensors", "song_00002_.latents.safetensors"]
    again = result.load_latents(paths[1])["samples"]
    assert safetensors_header(paths[1])[1]["acestep_item"] == "1"
    assert torch.equal(again[0].T, kept.made.latents[1])
    own = result.source_of(models.small_vae(), {**audio, "waveform": torch.rand(1, 2, 130 * 1920)}, {"samples": again})
    assert torch.equal(own.latents[0], kept.made.latents[1])


def test_a_file_with_something_else_is_answered(tmp_path):
    (tmp_path / "a.latents.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="no latents"):
        result.load_latents(tmp_path / "a.latents.safetensors")


@pytest.mark.parametrize(
    "format, suffix", (("flac", "flac"), ("mp3", "mp3"), ("wav", "wav"), ("wav32", "wav"), ("opus", "opus"))
)
def test_every_format_is_written(format, suffix, tmp_path):
    audio = {"waveform": torch.rand(1, 2, 9600) - 0.5, "sample_rate": 48000}
    saved = result.save(Host(output=tmp_path), audio, "song", format, "192k", {"title": "t"})
    assert saved == [{"filename": f"song_00001_.{suffix}", "subfolder": "", "type": "output"}]
    assert (tmp_path / saved[0]["filename"]).stat().st_size > 100


@pytest.mark.parametrize("wrong", (torch.zeros(1, 8, 10), torch.zeros(64, 10), None, "x"))
def test_foreign_latents_are_answered(wrong):
    with pytest.raises(ValueError, match="ACE-Step"):
        result.to_audio(models.small_vae(), {"samples": wrong}, None, None)
    audio = {"waveform": torch.rand(1, 2, 9600), "sample_rate": 48000}
    with pytest.raises(ValueError, match="ACE-Step"):
        result.source_of(models.small_vae(), audio, {"samples": wrong})


def test_levels(kept):
    latent = result.as_latent(kept.made, kept.conditioning)
    plain = result.to_audio(models.small_vae(), latent, None, None)["waveform"]
    level = result.to_audio(models.small_vae(), latent, -6.0, None)["waveform"]
    assert plain.abs().amax() <= 1
    assert torch.allclose(level.abs().amax(dim=(1, 2)), torch.full((2,), 10 ** (-6 / 20)), atol=1e-5)
    assert plain.shape == (2, 2, 130 * 1920)
