"""Samples while training: heard as they would be played, and without a trace in the run."""

import dataclasses

import pytest
import torch

from acestep_graph.acestep_core import audio, codec
from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.lora.apply import with_adapter
from acestep_graph.acestep_core.sampling import sampler
from acestep_graph.acestep_core.song import make_song
from acestep_graph.acestep_core.tasks import text2music
from acestep_graph.acestep_core.training import checkpoint
from acestep_graph.acestep_core.training import samples as module
from acestep_graph.acestep_core.training.samples import Samples
from tests import models

from .making import SETTINGS, outcome, run

SONG = make_song("tape-worn folk", duration=10, instrumental=True)


def wanted(**more):
    return Samples(SONG, models.text_encoder(), models.small_vae(), **{"every": 2, "seed": 7} | more)


@pytest.mark.parametrize("method", ["lora", "dora", "lokr"])
def test_training_with_samples_is_training_without(tmp_path, method):
    settings = dataclasses.replace(SETTINGS, method=method, gradient_checkpointing=True)
    run(tmp_path / "without" / "jazz", settings)
    samples = wanted()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    run(tmp_path / "jazz", settings, samples=samples)
    assert torch.equal(torch.get_rng_state(), state)
    made = sorted(path.name for path in (tmp_path / "jazz" / "samples").iterdir())
    assert made == ["epoch_2.flac", "epoch_4.flac"]
    for file in (tmp_path / "jazz" / "final").iterdir():
        assert file.read_bytes() == (tmp_path / "without" / "jazz" / "final" / file.name).read_bytes()
    assert (tmp_path / "jazz" / "loss.csv").read_bytes() == (tmp_path / "without" / "jazz" / "loss.csv").read_bytes()


def test_a_sample_is_what_the_adapter_plays(tmp_path):
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-2, dropout=0.5)
    adapter = run(tmp_path / "jazz", settings, samples=wanted(every=5)).adapter
    model, host = with_adapter(models.diffusion(), adapter), Host(device="cpu")
    batch = text2music.prepare(model, models.text_encoder(), SONG, host=host)
    latents = sampler.sample(model, batch, seed=7, host=host).latents
    sound = audio.limit_peak(codec.decode(models.small_vae(), latents, host=host))[0]
    heard, rate = audio.read(tmp_path / "jazz" / "samples" / "epoch_5.flac")
    assert rate == 48000 and heard.shape == sound.shape
    assert (heard - sound).abs().max() < 2e-3 < sound.abs().max()


def test_a_sample_that_cannot_be_made_is_said_and_training_goes_on(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise FloatingPointError("it came out as noise")

    monkeypatch.setattr(module.loop, "run", fail)
    result = run(tmp_path / "jazz", samples=wanted())
    assert result.steps == result.total_steps
    said = [note for note in result.notes if note.startswith("The sample of epoch")]
    assert said == [f"The sample of epoch {epoch} could not be made: it came out as noise" for epoch in (2, 4)]


def test_a_sample_that_was_cancelled_is_made_when_the_run_goes_on(tmp_path, monkeypatch):
    run(tmp_path / "whole" / "jazz", samples=wanted())
    plain = module.loop.run

    def cancel(*_args, **_kwargs):
        raise Cancelled("Stopped by the user.")

    monkeypatch.setattr(module.loop, "run", cancel)
    with pytest.raises(Cancelled):
        run(tmp_path / "jazz", samples=wanted())
    monkeypatch.setattr(module.loop, "run", plain)
    run(tmp_path / "jazz", samples=wanted())
    for epoch in (2, 4):
        name = f"samples/epoch_{epoch}.flac"
        assert torch.equal(audio.read(tmp_path / "jazz" / name)[0], audio.read(tmp_path / "whole" / "jazz" / name)[0])
    assert outcome(tmp_path / "jazz") == outcome(tmp_path / "whole" / "jazz")


def test_a_checkpoint_that_is_due_is_kept_though_its_sample_is_cancelled(tmp_path, monkeypatch):
    settings = dataclasses.replace(SETTINGS, save_every=2)
    run(tmp_path / "whole" / "jazz", settings, samples=wanted())
    with monkeypatch.context() as patched, pytest.raises(Cancelled):
        patched.setattr(module.loop, "run", lambda *_args, **_kwargs: (_ for _ in ()).throw(Cancelled("Stopped.")))
        run(tmp_path / "jazz", settings, samples=wanted())
    run(tmp_path / "jazz", settings, samples=wanted())
    kept = [[path.name for path in checkpoint.found(tmp_path / name)] for name in ("jazz", "whole/jazz")]
    assert kept[0] == kept[1] == ["step_0000015", "step_0000012", "step_0000006"]


@pytest.mark.parametrize("more", [{"every": 0}, {"every": 1.5}, {"seed": -1}, {"seed": True}])
def test_what_cannot_be_is_said(more):
    with pytest.raises(ValueError, match=f"{next(iter(more))} is .*; allowed is a whole number from"):
        wanted(**more)
    with pytest.raises(ValueError, match="Write a caption or lyrics"):
        Samples(make_song(), models.text_encoder(), models.small_vae())
