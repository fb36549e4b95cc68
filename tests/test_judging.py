"""Scores, times of the lyrics, and picking by them."""

from dataclasses import replace

import pytest
import torch

from acestep_graph.acestep_core import judging
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lm.score import PlannerScore
from acestep_graph.acestep_core.lyrics import timing
from acestep_graph.acestep_core.result import Score, codes_of
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.song import edited
from acestep_graph.acestep_core.tasks import text2music
from acestep_graph.acestep_core.tasks.codes import Codes
from tests import models, results
from tests.lm.planner import planner


def test_the_lyrics_of_every_piece_are_timed():
    found = judging.time_lyrics(results.made(), results.named_heads(), words=False)
    assert len(found.timings) == 2 and found.record["time_costs"]["auto_lrc_time"] >= 0
    for one in found.timings:
        assert [line.text for line in one.lines] == ["[Verse]", "We walk along", "星が歌う", "[Chorus]", "Oh river"]
        assert one.seconds == 10 and one.lines[0].start == 0 and 9 < one.lines[-1].end <= 10
        assert one.lrc.count("\n") == 2 and "[Verse]" not in one.lrc and one.vtt.startswith("WEBVTT")
        assert all(0 <= line.confidence <= 1 for line in one.lines)
    pictures = judging.pictures(found)
    assert pictures.shape[0] == 2 and pictures.shape[3] == 3 and 0 <= pictures.min() and pictures.max() <= 1


def test_words_and_marks_are_a_matter_of_style():
    found = judging.time_lyrics(results.made(), results.named_heads(), words=True, tags=True)
    assert found.timings[0].lrc.splitlines()[0].startswith("[00:00.00]<00:00.00>[Verse]")


def test_only_the_layers_and_heads_that_are_needed_run(monkeypatch):
    """Layer 3 of the model is behind the last one asked for; no other head is computed explicitly."""
    made, decoder, heads, ran = results.made(1), results.named_heads().module.decoder, [], []
    for index, layer in enumerate(decoder.layers):
        plain, weights = layer.forward, layer.cross_attn.weights
        monkeypatch.setattr(layer, "forward", lambda *a, run=plain, i=index, **k: ran.append(i) or run(*a, **k))
        monkeypatch.setattr(
            layer.cross_attn,
            "weights",
            lambda x, keys, chosen, run=weights: heads.append(tuple(chosen)) or run(x, keys, chosen),
        )
    judging.time_lyrics(made, results.named_heads())
    assert ran == [0, 1, 2] and heads == list(results.HEADS.values())


@pytest.mark.parametrize("changes", ({"instrumental": True}, {"lyrics": ""}, {"lyrics": "[Intro]\n[Verse 1]\n"}))
def test_where_nothing_is_sung_it_is_said(changes):
    host = Host()
    song = edited(results.SONG, **changes)
    found = judging.time_lyrics(results.made(1, 7, song), results.named_heads(), host=host)
    assert found.timings == (None,) and "nothing to align" in host.notes[-1]
    assert judging.pictures(found).shape[0] == 1
    assert timing.score_lyrics(results.named_heads(), found.conditioning, found.made, host) == (None,)


def test_lyrics_of_4096_characters_are_timed_as_far_as_they_are_heard():
    song = edited(results.SONG, lyrics="la la oh\n" * 455)
    found = judging.time_lyrics(results.made(1, 7, song), results.named_heads()).timings[0]
    assert len(found.lines) > 300 and found.lines[-1].end <= 10


def test_a_short_piece_is_not_aligned_with_the_silence_behind_it():
    conditioning = text2music.prepare(
        results.named_heads(), models.text_encoder(), replace(results.SONG, duration=3.0), batch=1
    )
    item = conditioning.items[0]
    assert item.conditions.context.shape[1] == 128 and item.frames == 75
    made = sample(results.named_heads(), conditioning, None, 1)
    (found,) = timing.time_lyrics(results.named_heads(), conditioning, made)
    assert found.attention.shape[1] == 38 and found.seconds == 3.0 and found.lines[-1].end <= 3.0


def test_another_model_or_one_without_known_heads_is_refused():
    made = results.made(1)
    with pytest.raises(ValueError, match="another diffusion model"):
        judging.time_lyrics(made, models.diffusion("base"))
    with pytest.raises(ValueError, match="lyric_alignment_layers_config"):
        plain = models.diffusion("base")
        conditioning = text2music.prepare(plain, models.text_encoder(), results.SONG)
        timing.time_lyrics(plain, conditioning, made.made)


def test_both_scores_with_their_parts():
    judged = judging.judge(results.made(), model=results.named_heads(), lm=planner(), encode=True)
    assert len(judged.scores) == 2
    for score in judged.scores:
        both = (score.planner.total + score.lyrics.total) / 2
        assert 0 <= both <= 1 and score.by("both") == pytest.approx(both)
        assert set(score.planner.metas) == {"bpm", "duration", "keyscale", "language"}
    report = judging.score_report(judged)
    for word in ("variation 2 (seed", "caption", "bpm", "coverage", "pure noise"):
        assert word in report
    assert judging.score_report(results.made()) == "" and not results.made().scores


def test_codes_of_the_piece_are_judged_where_there_are_some(monkeypatch):
    seen = []
    monkeypatch.setattr(
        judging, "planner_score", lambda lm, codes, song, **_: seen.append(codes) or PlannerScore(0.5, 0.5, None, {})
    )
    judging.judge(results.made(), lm=planner(), codes=Codes(((1, 2), (3, 4))))
    assert seen == [(1, 2), (3, 4)]
    seen.clear()
    record = {**results.made().record, "audio_codes": Codes(((5, 6),)).text()}
    judged = judging.judge(replace(results.made(), record=record), lm=planner())
    assert seen == [(5, 6)] and len(judged.scores) == 2  # equal codes are judged once


@pytest.mark.parametrize(
    "given, sentence",
    (
        ({}, "Connect the planner"),
        ({"lm": True}, "Switch encode_to_codes on"),
        ({"lm": True, "encode": True}, "connect the model as well"),
    ),
)
def test_what_is_missing_is_said_before_anything_runs(given, sentence):
    if "lm" in given:
        given = {**given, "lm": planner()}
    with pytest.raises(ValueError, match=sentence):
        judging.judge(results.made(), **given)


def test_the_planner_does_not_work_for_a_model_that_is_refused(monkeypatch):
    monkeypatch.setattr(judging, "planner_score", lambda *_, **__: pytest.fail("the planner worked"))
    with pytest.raises(ValueError, match="another diffusion model"):
        judging.judge(results.made(), model=models.diffusion("base"), lm=planner(), codes=Codes(((1, 2), (3, 4))))


def judged_with(*values):
    scores = tuple(None if v is None else Score(planner=PlannerScore(v, v, None, {})) for v in values)
    return replace(results.made(len(values), 3), scores=scores)


def test_the_best_come_first_and_bring_everything_of_theirs():
    whole = judged_with(0.2, 0.9, None, 0.5)
    record = {**whole.record, "audio_codes": Codes(((0,), (1,), (2,), (3,))).text()}
    kept, report = judging.pick_best(replace(whole, record=record), keep=2)
    assert kept.made.seeds == (whole.made.seeds[1], whole.made.seeds[3])
    assert torch.equal(kept.made.latents, whole.made.latents[[1, 3]])
    assert codes_of(kept).items == ((1,), (3,)) and [s.by("both") for s in kept.scores] == [0.9, 0.5]
    assert kept.record["batch_seeds"] == list(whole.made.seeds) and len(kept.conditioning.items) == 2
    assert report.splitlines()[0].startswith("kept: variation 2") and "not judged" in report
    assert judging.pick_best(whole, keep=8)[0].made.seeds[0] == whole.made.seeds[1]


def test_pieces_without_codes_stay_in_their_place():
    whole = judged_with(0.2, 0.9, 0.5)
    record = {**whole.record, "audio_codes": Codes(((1, 2), (), (3,))).text()}
    kept, _ = judging.pick_best(replace(whole, record=record), keep=3)
    assert codes_of(kept).items == ((), (3,), (1, 2))


def test_equal_scores_keep_their_order():
    assert judging.pick_best(judged_with(0.5, 0.5, 0.5), 2)[0].made.seeds == results.made(3, 3).made.seeds[:2]


def test_picking_without_scores_says_what_to_do():
    with pytest.raises(ValueError, match="Put Score in front"):
        judging.pick_best(results.made())
    with pytest.raises(ValueError, match="no lyrics score"):
        judging.pick_best(judged_with(0.5, 0.4), by="lyrics")
    with pytest.raises(ValueError, match="allowed is both"):
        judging.pick_best(judged_with(0.5, 0.4), by="luck")
