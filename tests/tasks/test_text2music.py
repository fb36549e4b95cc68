"""Text to music on tiny models: repeatable, independent of neighbours, answered where it cannot work."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import Song, make_song
from acestep_graph.acestep_core.tasks import reference, text2music
from acestep_graph.acestep_core.tasks.codes import Codes
from tests import models, pack

LYRICS = ("[Verse]\none", "[Chorus]\nsome other words, many more of them", "", "la la la la\nla la")


def prepare(lyrics="[Verse]\none", kind="turbo", batch=1, seconds=5.2, **rest):
    song = Song(caption="calm piano", lyrics=lyrics, duration=seconds)
    return text2music.prepare(models.diffusion(kind), models.text_encoder(), song, batch=batch, **rest)


def many(kind="turbo"):
    """Four items with lyrics of different lengths in one batch."""
    parts = [prepare(words, kind) for words in LYRICS]
    return replace(parts[0], items=tuple(part.items[0] for part in parts))


def make(conditioning, seeds, kind="turbo", **settings):
    return sample(models.diffusion(kind), conditioning, SamplerSettings(**settings), seeds).latents


@pytest.mark.parametrize("kind, settings", (("turbo", {}), ("base", {"steps": 4}), ("turbo", {"method": "sde"})))
def test_an_item_is_the_same_alone_and_among_others(kind, settings):
    seeds = [11, 22, 33, 44]
    together = make(many(kind), seeds, kind, **settings)
    for index, words in enumerate(LYRICS):
        alone = make(prepare(words, kind), [seeds[index]], kind, **settings)
        assert (alone[0] - together[index]).abs().max() <= 1e-5


@pytest.mark.parametrize("kind, more", (("turbo", {}), ("base", {}), ("turbo", {"retake_variance": 0.5})))
def test_rows_of_one_batch_equal_single_runs(kind, more):
    batch = prepare(kind=kind, batch=4)
    settings = SamplerSettings(steps=4, **more)
    one = sample(models.diffusion(kind), batch, settings, [1, 2, 3, 4], rows=1).latents
    four = sample(models.diffusion(kind), batch, settings, [1, 2, 3, 4], rows=4).latents
    assert (one - four).abs().max() <= 1e-5 * max(1.0, one.abs().max())


def test_the_same_seed_gives_the_same_bits_before_and_after_other_work():
    first = codec.decode(models.small_vae(), make(prepare(), 7))
    make(prepare(LYRICS[1], batch=2), [1, 2], method="sde")
    torch.rand(5)
    assert torch.equal(first, codec.decode(models.small_vae(), make(prepare(), 7)))


def test_a_new_process_gives_the_same_bits():
    script = (
        "from tests import pack; pack.load()\n"
        "import hashlib\n"
        "from tests.tasks.test_text2music import make, prepare\n"
        "print(hashlib.sha256(make(prepare(), 7).numpy().tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=pack.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == hashlib.sha256(make(prepare(), 7).numpy().tobytes()).hexdigest()


def test_only_the_seed_changes_an_item_and_every_seed_changes_it():
    batch = prepare(batch=3)
    latents = make(batch, "5,6,5")
    assert torch.equal(latents[0], latents[2]) and not torch.equal(latents[0], latents[1])


def test_every_variation_of_a_retake_has_noise_of_its_own():
    latents = make(prepare(batch=2), [1, 2], retake_variance=1.0, retake_seed=3)
    assert not torch.allclose(latents[0], latents[1], atol=0.1)


def test_timesteps_that_turbo_moves_are_said():
    moved = sample(models.diffusion(), prepare(), SamplerSettings(timesteps=(0.96, 0.5, 0.45, 0.0)), 1)
    assert "moved to 0.9545, 0.5, 0.5, 0" in moved.notes[-1]
    assert not sample(models.diffusion(), prepare(), SamplerSettings(timesteps=(1.0, 0.5, 0.0)), 1).notes


def test_seeds_are_settled_once_and_shown():
    made = sample(models.diffusion(), prepare(batch=3), None, 5)
    again = sample(models.diffusion(), prepare(batch=3), None, list(made.seeds))
    assert made.seeds[0] == 5 and len(set(made.seeds)) == 3
    assert torch.equal(made.latents, again.latents)


def test_lyrics_caption_and_reference_all_matter():
    plain = make(prepare(), 1)
    clip = torch.sin(torch.arange(48000 * 2) / 20)[None].repeat(2, 1)
    heard = reference.encode_reference(models.small_vae(), [clip[:, :48000]])
    assert not torch.equal(plain, make(prepare(LYRICS[1]), 1))
    assert not torch.equal(plain, make(prepare(reference=heard), 1))


def test_a_silent_reference_is_answered():
    with pytest.raises(ValueError, match="silent"):
        reference.encode_reference(models.small_vae(), [torch.zeros(2, 48000)])


def test_reference_windows_are_three_thirds_and_repeat_with_their_seed():
    ramp = torch.arange(48000 * 100, dtype=torch.float32)[None].repeat(2, 1)
    fixed = reference.excerpt(ramp)
    assert fixed.shape == (2, 48000 * 30)
    assert fixed[0, 0] == 0 and fixed[0, 480000] == 1600000 and fixed[0, -1] == ramp[0, -1]
    assert torch.equal(reference.excerpt(ramp, seed=4), reference.excerpt(ramp, seed=4))
    assert not torch.equal(reference.excerpt(ramp, seed=4), reference.excerpt(ramp, seed=5))
    assert reference.excerpt(ramp[:, :1000]).shape == (2, 48000 * 30)


def test_short_pieces_run_on_a_full_sequence_and_are_cut():
    conditioning = prepare(seconds=1.0)
    assert conditioning.items[0].conditions.context.shape[1] == 128
    made = sample(models.diffusion(), conditioning, None, 1)
    assert made.frames == (25,) and made.lengths == (128,)


def test_another_models_conditioning_is_refused():
    with pytest.raises(ValueError, match="another diffusion model"):
        sample(models.diffusion("base"), prepare(), None, 1)


def test_a_model_that_was_loaded_again_takes_the_conditioning_and_a_changed_file_does_not(tmp_path):
    place = tmp_path / "acestep-v15-turbo"
    shutil.copytree(models.CHECKPOINTS / "acestep-v15-turbo", place)
    first, second = (loading.load_diffusion_model(place, dtype=torch.float32) for _ in range(2))
    batch = text2music.prepare(first, models.text_encoder(), Song(caption="calm piano", duration=5.2))
    assert torch.equal(sample(second, batch, None, 1).latents, sample(first, batch, None, 1).latents)
    file = place / "model.safetensors"
    shutil.copy(file, tmp_path / "copy")
    os.replace(tmp_path / "copy", file)
    for other in (place, models.CHECKPOINTS / "acestep-v15-turbo"):
        with pytest.raises(ValueError, match="another diffusion model"):
            sample(loading.load_diffusion_model(other, dtype=torch.float32), batch, None, 1)
    with pytest.raises(ValueError, match="another diffusion model"):
        sample(loading.load_diffusion_model(place, dtype=torch.bfloat16), batch, None, 1)


@pytest.mark.parametrize("bad", ({"batch": 0}, {"batch": 9}))
def test_batch_sizes_are_checked(bad):
    with pytest.raises(ValueError, match="batch size"):
        prepare(**bad)


def test_a_text_encoder_of_another_model_is_answered(monkeypatch):
    module = models.text_encoder().module
    monkeypatch.setattr(module, "config", replace(module.config, hidden_size=96))
    with pytest.raises(ValueError, match="answers 96 wide, and the diffusion model hears"):
        prepare()


def test_nothing_to_say_is_answered():
    with pytest.raises(ValueError, match="caption or lyrics"):
        text2music.prepare(models.diffusion(), models.text_encoder(), Song(duration=10))


def test_a_checkpoint_without_silence_says_what_to_connect():
    with pytest.raises(ValueError, match="Connect the VAE"):
        text2music.prepare(replace(models.diffusion(), silence=None), models.text_encoder(), Song("x", duration=10))


def test_sampling_stops_within_a_step():
    seen = []
    host = Host(on_progress=lambda done, total, text: seen.append(done), should_stop=lambda: max(seen, default=0) >= 3)
    with pytest.raises(Cancelled):
        sample(models.diffusion(), prepare(), None, 1, host=host)
    assert max(seen) == 3


def test_nan_is_caught_with_its_likely_cause():
    conditioning = prepare()
    item = conditioning.items[0]
    broken = replace(item, conditions=replace(item.conditions, sequence=item.conditions.sequence * float("nan")))
    with pytest.raises(FloatingPointError, match="float16"):
        sample(models.diffusion(), replace(conditioning, items=(broken,)), None, 1)


def test_auto_length_is_stated():
    song = Song(caption="calm")
    host = Host()
    conditioning = text2music.prepare(models.diffusion(), models.text_encoder(), song, host=host)
    assert f"{conditioning.seconds:g} s" in host.notes[0]
    assert f"duration: {int(conditioning.seconds)} seconds" in conditioning.items[0].prompt.text


def test_no_encoder_runs_twice_for_equal_items():
    calls = []
    encoder = models.diffusion().module.encoder
    hook = encoder.lyric_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        prepare(batch=8)
    finally:
        hook.remove()
    assert len(calls) == 1


def test_variations_without_codes_are_said():
    two = Codes(((1, 2, 3) * 20, (4, 5, 6) * 20))
    batch = text2music.prepare(models.diffusion(), models.text_encoder(), make_song("jazz"), batch=3, codes=two)
    assert any("1 of 3 variations have no codes" in note for note in batch.notes)
    one = Codes(((1, 2, 3) * 20,))
    batch = text2music.prepare(models.diffusion(), models.text_encoder(), make_song("jazz"), batch=3, codes=one)
    assert not any("no codes" in note for note in batch.notes)


def test_a_prompt_is_read_once_however_many_items_it_has():
    prepared = []

    class Counting(Host):
        def prepare(self, module, component, memory=0):
            prepared.append(component)
            return super().prepare(module, component, memory)

    model, number = models.diffusion(), models.diffusion().module.tokenizer.quantizer.codebook_size
    codes = Codes(tuple(tuple((7 * item + code) % number for code in range(20)) for item in range(4)))
    batch = text2music.prepare(
        model, models.text_encoder(), make_song("jazz"), batch=4, codes=codes, host=Counting(device="cpu")
    )
    assert prepared.count("text") == 1
    first, *others = (item.conditions for item in batch.items)
    assert all(torch.equal(other.sequence, first.sequence) for other in others)
    assert not any(torch.equal(other.context, first.context) for other in others)


def test_a_planner_that_wrote_no_codes_leaves_text_to_music():
    song = make_song("jazz", duration=10)
    plain = text2music.prepare(models.diffusion(), models.text_encoder(), song)
    empty = text2music.prepare(models.diffusion(), models.text_encoder(), song, codes=Codes(()))
    assert (empty.instruction, empty.seconds, empty.settings) == (plain.instruction, plain.seconds, plain.settings)
