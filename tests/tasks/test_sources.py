"""Tasks that hear a source: what is kept stays, lengths follow the rule, strengths have their limits."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import result
from acestep_graph.acestep_core.audio import for_model
from acestep_graph.acestep_core.sampling.sampler import Sampled, sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import Song
from acestep_graph.acestep_core.tasks import complete, extract, lego, remix, repaint, text2music
from acestep_graph.acestep_core.tasks.codes import Codes, decode_codes, encode_codes, parse_codes
from acestep_graph.acestep_core.tasks.permission import check_task
from acestep_graph.acestep_core.tasks.source import encode_source, source_latents
from tests import models

SONG = Song(caption="calm piano", lyrics="la la", duration=10.0)
HOP = 1920


def tone(seconds=6.0, rate=48000, channels=2, seed=0):
    """Sound as ComfyUI gives it, with something in every channel."""
    time = torch.arange(int(seconds * rate)) / rate
    draw = torch.rand(channels, 1, generator=torch.Generator().manual_seed(seed))
    wave = 0.5 * torch.sin(2 * torch.pi * (200 + 300 * draw) * time) * (0.3 + 0.7 * draw)
    return {"waveform": wave[None], "sample_rate": rate}


def source(**kind):
    return encode_source(models.small_vae(), for_model(tone(**kind))[0])


def base():
    return models.diffusion("base")


def turbo():
    return models.diffusion("turbo")


def made(conditioning, seed=3, **options):
    model = turbo() if conditioning.origin == turbo().origin else base()
    return sample(model, conditioning, SamplerSettings(steps=4, **options), seed)


def pretend(conditioning):
    """Latents as a sampler would give them, without sampling."""
    frames = [item.conditions.context.shape[1] for item in conditioning.items]
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(len(frames), max(frames), 64, generator=draw)
    kept = tuple(item.frames for item in conditioning.items)
    return Sampled(latents, tuple(frames), kept, (1,) * len(frames), SamplerSettings(), (1.0, 0.0))


@settings(deadline=None, max_examples=12)
@given(
    seconds=st.floats(0.5, 2.5),
    rate=st.sampled_from([22050, 44100, 48000]),
    channels=st.sampled_from([1, 2, 8]),
    start=st.floats(-1.0, 3.5),
    length=st.floats(0.02, 3.0),
    mode=st.sampled_from(["balanced", "conservative"]),
    strength=st.floats(0, 1),
)
def test_outside_the_region_the_sound_is_the_sources(seconds, rate, channels, start, length, mode, strength):
    recording = source(seconds=seconds, rate=rate, channels=channels)
    end = start + length
    if end < 0:
        return
    conditioning = repaint.prepare(
        turbo(), models.text_encoder(), SONG, recording, start, end, mode=mode, strength=strength
    )
    latent = result.as_latent(pretend(conditioning), conditioning)
    sound = result.to_audio(models.small_vae(), latent, None, None)["waveform"][0]
    before = int(max(0.0, -start) * 48000)
    after = int(max(0.0, end - recording.seconds) * 48000)
    total = before + recording.audio.shape[-1] + after
    splice = conditioning.items[0].splice
    if splice is None:  # the whole piece is new
        assert sound.shape[-1] == total // HOP * HOP
        return
    assert sound.shape[-1] == total
    original = torch.nn.functional.pad(recording.audio, (before, after))
    kept = torch.ones(total, dtype=torch.bool)
    kept[max(0, splice.start - splice.fade) : splice.end + splice.fade] = False
    assert torch.equal(sound[:, kept], original[:, kept])
    assert sound.abs().max() <= 1
    inside = slice(splice.start, min(splice.end, total))
    assert not torch.equal(sound[:, inside], original[:, inside])


def test_a_repaint_keeps_its_surroundings_in_the_latents_too():
    recording = source(seconds=6.0)
    conditioning = repaint.prepare(turbo(), models.text_encoder(), SONG, recording, 2.0, 4.0, mode="conservative")
    latents = made(conditioning).latents[0]
    assert torch.allclose(latents[:20], recording.latents[0, :20], atol=1e-5)
    assert not torch.allclose(latents[60:90], recording.latents[0, 60:90], atol=1e-2)


@pytest.mark.parametrize(
    "start, end, frames", ((0, -1, 150), (1, 3, 150), (-2, 1, 200), (5, 10, 250), (-1, 8, 225), (-3, 0, 225))
)
def test_length_follows_the_region(start, end, frames):
    conditioning = repaint.prepare(turbo(), models.text_encoder(), SONG, source(), start, end)
    assert conditioning.items[0].frames == frames and conditioning.seconds == frames / 25
    assert f"duration: {int(frames / 25)} seconds" in conditioning.items[0].prompt.text


@pytest.mark.parametrize("start, end", ((3, 3), (5, 2), (0, 0), (float("nan"), 2), (1, float("inf"))))
def test_empty_regions_are_answered(start, end):
    with pytest.raises(ValueError, match="region|must be a number"):
        repaint.prepare(turbo(), models.text_encoder(), SONG, source(), start, end)


def test_own_latents_are_used_instead_of_encoding_again():
    own = torch.randn(1, 150, 64, generator=torch.Generator().manual_seed(2))
    wave = for_model(tone())[0]
    recording = encode_source(models.small_vae(), wave, latents=own)
    assert torch.equal(source_latents(turbo(), recording), own)
    grown = repaint.prepare(turbo(), models.text_encoder(), SONG, recording, -1.0, 2.0).items[0]
    assert torch.equal(grown.keep.clean[:, 25:175], own)


@pytest.mark.parametrize("start", (-1.0, -0.5, -0.01))
def test_own_latents_and_sound_stay_together_where_music_is_put_in_front(start):
    vae, recording = models.small_vae(), source()
    ours = encode_source(vae, recording.audio, latents=recording.latents)
    item = repaint.prepare(turbo(), models.text_encoder(), SONG, ours, start, 0.0).items[0]
    again = encode_source(vae, item.splice.audio).latents
    lead = -(-int(-start * 48000) // HOP) + 12
    assert torch.allclose(item.keep.clean[0, lead:130], again[0, lead:130], atol=1e-3)


@pytest.mark.parametrize(
    "start, end, said",
    ((-8, -1, "whole recording"), (-8, 6, "whole recording"), (0, 24, "whole recording"), (-8, 1, ""), (5, 24, ""))
    + ((0, -1, ""), (1, 3, ""), (9, 12, "up to 9 s there is silence"), (6, 12, "")),
)
def test_regions_that_keep_nothing_or_leave_a_gap_are_said(start, end, said):
    notes = repaint.prepare(turbo(), models.text_encoder(), SONG, source(), start, end).notes
    assert any(said in note for note in notes) if said else not notes


def test_empty_codes_are_answered_before_anything_is_made():
    for codes in (Codes(()), Codes(((), (1, 2)))):
        with pytest.raises(ValueError, match="no codes here"):
            remix.prepare(turbo(), models.text_encoder(), SONG, codes)
    with pytest.raises(ValueError, match="no codes here"):
        decode_codes(turbo(), ())


def test_remix_strength_one_hears_the_source_to_the_end_and_zero_never():
    recording, encoder = source(), models.text_encoder()
    full = remix.prepare(turbo(), encoder, SONG, recording, strength=1.0)
    none = remix.prepare(turbo(), encoder, SONG, recording, strength=0.0)
    half = remix.prepare(turbo(), encoder, SONG, recording, strength=0.5)
    plain = text2music.prepare(turbo(), encoder, replace(SONG, duration=recording.seconds))
    outs = [made(c).latents for c in (full, none, half, plain)]
    assert full.items[0].later is None
    assert torch.allclose(outs[1], outs[3], atol=1e-5), "strength 0 is text to music of the same length"
    assert not torch.allclose(outs[0], outs[1], atol=1e-2) and not torch.allclose(outs[2], outs[0], atol=1e-3)


def test_noise_strength_one_stays_nearest_to_the_source():
    recording, encoder = source(), models.text_encoder()
    gaps = []
    for strength in (0.0, 0.25, 1.0):
        conditioning = remix.prepare(turbo(), encoder, SONG, recording, noise_strength=strength)
        gaps.append((made(conditioning).latents - recording.latents).abs().mean())
    assert gaps[2] < gaps[1] < gaps[0]


def test_without_the_quantizer_the_latents_themselves_are_heard():
    recording, encoder = source(), models.text_encoder()
    raw = remix.prepare(turbo(), encoder, SONG, recording, quantizer=False).items[0].conditions.context
    coded = remix.prepare(turbo(), encoder, SONG, recording).items[0].conditions.context
    assert torch.equal(raw[..., :64], recording.latents) and not torch.equal(raw, coded)


def test_a_silent_source_is_silence():
    quiet = encode_source(models.small_vae(), torch.zeros(2, 48000 * 6))
    item = remix.prepare(turbo(), models.text_encoder(), SONG, quiet).items[0]
    assert torch.equal(item.conditions.context[0, :, :64], turbo().silence[:150])


def test_codes_survive_text_and_make_the_same_latents():
    recording = source()
    codes = Codes((encode_codes(turbo(), recording.latents),))
    again = parse_codes(codes.text())
    assert again == codes and len(codes.items[0]) == 30
    ours = remix.prepare(turbo(), models.text_encoder(), SONG, again).items[0].conditions.context[..., :64]
    heard = remix.prepare(turbo(), models.text_encoder(), SONG, recording).items[0].conditions.context[..., :64]
    assert torch.allclose(ours, heard, atol=1e-5)


@given(st.lists(st.lists(st.integers(0, 63999), min_size=1, max_size=20), min_size=1, max_size=4))
def test_any_codes_survive_text(items):
    codes = Codes(tuple(map(tuple, items)))
    assert parse_codes("noise\n" + codes.text()) == codes


def test_items_with_unequal_codes_do_not_depend_on_each_other():
    draw = torch.Generator().manual_seed(4)
    lists = [tuple(torch.randint(0, 375, (n,), generator=draw).tolist()) for n in (30, 40, 27)]
    encoder = models.text_encoder()
    together = text2music.prepare(turbo(), encoder, SONG, batch=3, codes=Codes(tuple(lists)))
    batch = sample(turbo(), together, SamplerSettings(steps=3), [5, 6, 7])
    for index, own in enumerate(lists):
        alone = text2music.prepare(turbo(), encoder, SONG, codes=Codes((own,)))
        single = sample(turbo(), alone, SamplerSettings(steps=3), [5 + index])
        length = batch.lengths[index]
        assert length == 5 * len(own)
        assert torch.allclose(batch.latents[index, :length], single.latents[0], atol=1e-5)
    sound = result.to_audio(models.small_vae(), result.as_latent(batch, together), None, None)["waveform"]
    assert sound.shape[-1] == 200 * HOP and not sound[2, :, 135 * HOP :].any()


def test_codes_decode_independently_of_their_neighbours():
    codes = (3, 99, 200, 14)
    whole = decode_codes(turbo(), codes)
    assert torch.allclose(whole[:, 5:10], decode_codes(turbo(), codes[1:2]), atol=1e-6)


@pytest.mark.parametrize("task", ("extract", "lego", "complete"))
def test_turbo_models_refuse_stems_and_name_the_model_to_take(task):
    with pytest.raises(ValueError, match="acestep-v15-base"):
        check_task(task, "turbo")
    assert check_task(task, "base") == "" and check_task(task, "turbo", stem_tuned=True) == ""
    assert "base model" in check_task(task, "sft")


def test_stem_tasks_hear_the_whole_source_and_say_what_they_are():
    recording, encoder = source(), models.text_encoder()
    one = extract.prepare(base(), encoder, recording, "backing_vocals")
    new = lego.prepare(base(), encoder, replace(SONG, bpm=100, key="C major"), recording, "drums", 1.0, 3.0)
    band = complete.prepare(base(), encoder, SONG, recording, ("drums", "bass"))
    for conditioning in (one, new, band):
        assert torch.equal(conditioning.items[0].conditions.context[..., :64], recording.latents)
        assert conditioning.items[0].frames == 150
    assert "BACKING_VOCALS" in one.items[0].prompt.text and "# Caption\nbacking_vocals\n" in one.items[0].prompt.text
    assert "bpm: N/A" in new.items[0].prompt.text and new.items[0].conditions.context[0, :, 64].sum() == 50
    assert "DRUMS | BASS" in band.items[0].prompt.text


@pytest.mark.parametrize("mask", ("explicit", "auto"))
@pytest.mark.parametrize("tuned", (False, True))
def test_models_tuned_for_stems_read_of_the_song_the_track_and_the_mask(monkeypatch, tuned, mask):
    module = base().module
    monkeypatch.setattr(module, "config", replace(module.config, is_lego_sft=tuned))
    given = {"mask_mode": mask, "global_caption": "a pop song"}
    made = lego.prepare(base(), models.text_encoder(), SONG, source(), "drums", 1.0, 3.0, **given)
    block = f"Global: a pop song\nLocal: {SONG.caption}\nMask Control: {'true' if mask == 'explicit' else 'false'}"
    assert f"# Caption\n{block if tuned else SONG.caption}\n\n# Metas" in made.items[0].prompt.text
    heard = made.items[0].conditions.context[0, :, 64]
    assert heard.sum() == (50 if mask == "explicit" else 300 if tuned else 150)
    assert made.song.caption == SONG.caption and made.settings["chunk_mask_mode"] == mask
    assert any("not tuned for stems" in note for note in made.notes) == (not tuned)
    with pytest.raises(ValueError, match="explicit, auto"):
        lego.prepare(base(), models.text_encoder(), SONG, source(), "drums", mask_mode="2.0")


@pytest.mark.parametrize("wrong", ("Drums", "kazoo", ""))
def test_unknown_tracks_are_answered(wrong):
    with pytest.raises(ValueError, match="backing_vocals"):
        extract.prepare(base(), models.text_encoder(), source(), wrong)


def test_nothing_is_encoded_twice_for_a_batch():
    counts = dict.fromkeys(("vae", "lyrics", "text", "tokenizer"), 0)
    vae, encoder = models.small_vae(), models.text_encoder()

    def count(name):
        return lambda *_: counts.__setitem__(name, counts[name] + 1)

    hooks = [
        vae.module.encoder.register_forward_hook(count("vae")),
        turbo().module.encoder.lyric_encoder.register_forward_hook(count("lyrics")),
        encoder.module.register_forward_hook(count("text")),
        turbo().module.tokenizer.register_forward_hook(count("tokenizer")),
    ]
    try:
        recording = encode_source(vae, for_model(tone(seconds=4))[0])
        conditioning = remix.prepare(turbo(), encoder, SONG, recording, strength=0.5, noise_strength=0.2, batch=4)
        made(conditioning)
    finally:
        for hook in hooks:
            hook.remove()
    assert counts == {"vae": 1, "lyrics": 1, "text": 2, "tokenizer": 1}, (
        "the two sides have two texts, and one of all else"
    )


def test_the_seed_changes_only_the_noise():
    conditioning = remix.prepare(turbo(), models.text_encoder(), SONG, source(), batch=2)
    first, second = made(conditioning, [1, 2]).latents, made(conditioning, [1, 9]).latents
    assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])


def test_a_drawn_source_stays_drawn_when_it_grows():
    wave = for_model(tone(seconds=3))[0]
    grown = {}
    for seed in (None, 5, 6):
        recording = encode_source(models.small_vae(), wave, seed=seed)
        item = repaint.prepare(turbo(), models.text_encoder(), SONG, recording, 2.0, 6.0).items[0]
        grown[seed] = item.keep.clean[:, :40]
    assert not torch.equal(grown[5], grown[6]) and not torch.equal(grown[5], grown[None])
