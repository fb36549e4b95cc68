"""A flow edit's request: what each side of it says and hears, and what is answered before anything is made."""

from dataclasses import replace

import pytest
import torch

from acestep_graph.acestep_core.audio import for_model
from acestep_graph.acestep_core.result import make_result
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import Song
from acestep_graph.acestep_core.tasks import flow_edit, remix
from acestep_graph.acestep_core.tasks.reference import silence_of
from acestep_graph.acestep_core.tasks.source import encode_source
from tests import models

WAS = Song(caption="soft pop", lyrics="[Verse]\nrain on the window", language="en")
SONG = Song(caption="loud rock", lyrics="[Verse]\nsun on the water", language="fr", bpm=120, key="D major")


def source(seconds=6.0, level=0.5):
    time = torch.arange(int(seconds * 48000)) / 48000
    wave = level * torch.sin(2 * torch.pi * torch.tensor([[220.0], [330.0]]) * time)
    return encode_source(models.small_vae(), for_model({"waveform": wave[None], "sample_rate": 48000})[0])


def prepared(kind="turbo", song=SONG, was=WAS, recording=None, **given):
    recording = recording or source()
    return flow_edit.prepare(models.diffusion(kind), models.text_encoder(), song, recording, was, **given)


def made(conditioning, kind="turbo", seed=3, **options):
    return sample(models.diffusion(kind), conditioning, SamplerSettings(steps=4, **options), seed)


def test_both_sides_share_everything_but_caption_lyrics_and_language():
    ready = prepared()
    item, instruction = ready.items[0], "Fill the audio semantic mask based on the given conditions:"
    assert ready.instruction == instruction and ready.task == "text2music" and ready.seconds == 6.0
    assert "loud rock" in item.prompt.text and "- bpm: 120" in item.prompt.text
    described = replace(SONG, caption=WAS.caption, lyrics=WAS.lyrics, language=WAS.language)
    assert torch.equal(item.edit.conditions.sequence, prepared(song=described).items[0].conditions.sequence)
    assert torch.equal(item.edit.conditions.context, item.conditions.context)


def test_an_unknown_language_of_the_source_is_that_of_the_song():
    known = prepared(was=replace(WAS, language="fr")).items[0].edit.conditions.sequence
    unknown = prepared(was=replace(WAS, language="unknown")).items[0].edit.conditions.sequence
    assert torch.equal(known, unknown)


def test_what_is_heard_is_silence_codes_or_the_latents():
    recording, model = source(), models.diffusion("turbo")
    words, structure, sound = (
        prepared(hears=what, recording=recording).items[0].conditions.context[..., :64]
        for what in ("words", "structure", "sound")
    )
    covered = remix.prepare(model, models.text_encoder(), SONG, recording).items[0].conditions.context[..., :64]
    assert torch.equal(structure, covered) and torch.equal(sound, recording.latents)
    assert torch.equal(words[0], silence_of(model, 150))
    assert [prepared(hears=w).task for w in ("structure", "sound")] == ["cover", "cover-nofsq"]


@pytest.mark.parametrize("kind, guidance", (("turbo", 1.0), ("base", 4.0)))
def test_equal_words_give_the_recording_back(kind, guidance):
    recording = source()
    ready = prepared(kind, was=SONG, recording=recording)
    assert torch.equal(made(ready, kind, guidance_scale=guidance).latents, recording.latents)
    assert "stays as it is" in ready.notes[0]


def test_other_words_change_it_and_a_later_start_changes_it_less():
    recording = source()
    gone = [
        (made(prepared(recording=recording, start=start)).latents - recording.latents).norm() for start in (0.0, 0.75)
    ]
    assert gone[0] > gone[1] > 0


def test_short_recordings_keep_their_length():
    result = made(prepared(recording=source(2.0)))
    assert result.frames == (50,) and result.lengths == (128,)


def test_variations_run_together_and_do_not_depend_on_each_other():
    recording = source()
    one, two = prepared(recording=recording), prepared(recording=recording, batch=2)
    alone = made(one, seed=8).latents
    model, settings = models.diffusion("turbo"), SamplerSettings(steps=4)
    together = sample(model, two, settings, [7, 8], rows=2).latents
    assert torch.allclose(together[1], alone[0], atol=1e-5) and not torch.allclose(together[0], alone[0], atol=1e-2)


def test_the_record_is_the_originals():
    model = models.diffusion("turbo")
    ready = prepared(start=0.25, end=0.75, draws=2, hears="structure")
    record = make_result(model, ready, made(ready, solver="heun")).record
    assert record["task_type"] == "cover" and record["flow_edit_morph"] is True
    assert record["flow_edit_source_caption"] == "soft pop" and record["flow_edit_source_lyrics"] == WAS.lyrics
    assert [record[f"flow_edit_n_{name}"] for name in ("min", "max", "avg")] == [0.25, 0.75, 2]
    assert record["sampler_mode"] == "euler" and any("Euler" in note for note in record["notes"])


@pytest.mark.parametrize(
    "given, words",
    (
        ({"start": 0.6, "end": 0.4}, "above end"),
        ({"start": 1.0}, "left out"),
        ({"start": -0.1}, "0 to 1"),
        ({"end": float("nan")}, "must be a number"),
        ({"draws": 0}, "1 to 8"),
        ({"draws": 1.5}, "1 to 8"),
        ({"hears": "all"}, "words, structure, sound"),
        ({"batch": 9}, "1 to 8"),
        ({"song": Song()}, "caption or lyrics"),
    ),
)
def test_bad_requests_are_answered(given, words):
    with pytest.raises(ValueError, match=words):
        prepared(**given)


def test_silence_and_a_missing_description_are_answered():
    with pytest.raises(ValueError, match="silent"):
        prepared(recording=source(level=0.0))
    assert any("no direction" in note for note in prepared(was=Song()).notes)
