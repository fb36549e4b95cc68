"""Windows of the autoencoder join to what one pass gives."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.host import Cancelled, Host
from tests import models


def near(ours, whole):
    """Equal to 1e-5 of full scale."""
    return (ours - whole).abs().max() <= 1e-5 * max(1.0, whole.abs().max())


@pytest.fixture(scope="module")
def small():
    return models.small_vae()


@pytest.mark.parametrize("chunk", (32, 48, 128))
@pytest.mark.parametrize("frames", (1, 47, 130))
def test_tiled_decode_equals_one_pass(small, chunk, frames):
    latents = torch.randn(2, frames, 64, generator=torch.Generator().manual_seed(frames))
    whole = small.module.decode(latents.transpose(1, 2))
    assert near(codec.decode(small, latents, chunk=chunk), whole)


@pytest.mark.parametrize("samples", (1920, 5000, 60 * 1920, 60 * 1920 + 1919, 131 * 1920 - 5))
def test_tiled_encode_equals_one_pass(small, samples):
    audio = torch.rand(1, 2, samples, generator=torch.Generator().manual_seed(samples)) * 2 - 1
    whole = small.module.encode(audio)[0].transpose(1, 2)
    tiled = codec.encode(small, audio, chunk=40)
    assert tiled.shape == (1, samples // 1920, 64)
    assert near(tiled, whole)


@settings(deadline=None)
@given(total=st.integers(1, 400), chunk=st.integers(1, 100), overlap=st.integers(0, 40))
def test_window_cores_cover_everything_once(total, chunk, overlap):
    pieces = list(codec.windows(total, chunk, overlap))
    assert [a for a, *_ in pieces] == [0] + [b for _, b, *_ in pieces][:-1] and pieces[-1][1] == total
    assert all(0 <= lo <= a < b <= hi <= total and (total <= chunk or hi - lo <= chunk) for a, b, lo, hi in pieces)


def test_the_mean_repeats_and_a_draw_repeats_with_its_generator():
    audio = torch.rand(1, 2, 20 * 1920, generator=torch.Generator().manual_seed(1)) * 2 - 1
    vae = models.small_vae()
    draws = [
        codec.encode(vae, audio, noise=codec.drawn(vae, audio, torch.Generator().manual_seed(s))) for s in (5, 5, 6)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(codec.encode(vae, audio), codec.encode(vae, audio))


def test_a_draw_does_not_depend_on_the_windows():
    audio = torch.rand(2, 2, 150 * 1920 + 700, generator=torch.Generator().manual_seed(1)) * 2 - 1
    noise = codec.drawn(models.small_vae(), audio, torch.Generator().manual_seed(5))
    whole, *others = (codec.encode(models.small_vae(), audio, noise=noise, chunk=chunk) for chunk in (512, 64, 96))
    assert all(near(other, whole) for other in others)


@pytest.mark.parametrize("bad, words", ((float("nan"), "NaN"), (float("inf"), "NaN or infinity"), (0.0, "all zero")))
def test_latents_that_cannot_sound_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        codec.decode(models.vae(), torch.full((1, 8, 64), bad))


def test_too_short_audio_is_refused():
    with pytest.raises(ValueError, match="40 ms"):
        codec.encode(models.vae(), torch.zeros(1, 2, 1919))


def test_decoding_stops_within_a_window():
    seen = []
    host = Host(on_progress=lambda done, total, text: seen.append(done), should_stop=lambda: len(seen) > 2)
    with pytest.raises(Cancelled):
        codec.decode(models.small_vae(), torch.randn(1, 400, 64), chunk=64, host=host)
    assert max(seen) < 5


def test_silence_is_made_where_a_file_has_none():
    model = models.diffusion()
    made = codec.with_silence(replace(model, silence=None), models.small_vae())
    assert made.silence.shape == (codec.SILENCE_FRAMES, 64)
    assert torch.equal(made.silence[200], made.silence[9000]), "constant away from the start"
    assert any("silence" in note for note in made.report.notes)
    assert codec.with_silence(model, models.small_vae()) is model
