"""The planner's score of codes: what is asked, how it is read, and how the parts make one number."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.lm import engine, prompts, score
from acestep_graph.acestep_core.lm.settings import NO_INPUT
from acestep_graph.acestep_core.song import LYRICS_LIMIT, Song, make_song
from tests.lm.planner import FOLDER, HOST, planner, published_tokenizer

LM, CPU = planner(), torch.device("cpu")
CODES = (3, 14, 15, 92)
SONG = make_song(
    "A slow blue river.",
    "[Verse]\nWe walk along\n星が歌う",
    "en",
    bpm=120,
    key="C major",
    time_signature="4/4",
    duration=30.7,
)
FIELDS = ("bpm", "duration", "keyscale", "language", "timesignature")


def judged(codes=CODES, song=SONG, **more):
    return score.score(LM, codes, song, host=more.pop("host", HOST), **more)


def read(codes=CODES):
    return engine.read_prompt(LM.module, prompts.encode(LM.tokenizer, prompts.understand_prompt(codes, NO_INPUT)), CPU)


def said(codes, target):
    return score.said(LM.module, read(codes), prompts.encode(LM.tokenizer, target))


def flat(found):
    return [found.total, found.caption, found.lyrics, *found.metas.values()]


def text_of(song):
    metas, texts = score.targets(song)
    return {name: prompts.text_of(target) for name, target in {**metas, **texts}.items()}


def test_each_part_of_a_song_is_one_reply():
    assert text_of(SONG) == {
        "bpm": "<think>\nbpm: 120\n</think>\n",
        "duration": "<think>\nduration: 30\n</think>\n",
        "keyscale": "<think>\nkeyscale: C major\n</think>\n",
        "language": "<think>\nlanguage: en\n</think>\n",
        "timesignature": "<think>\ntimesignature: '4'\n</think>\n",
        "caption": "<think>\ncaption: A slow blue river.\n</think>\n",
        "lyrics": "<think>\n</think>\n# Lyric\n[Verse]\nWe walk along\n星が歌う\n",
    }
    assert tuple(score.targets(SONG)[0]) == FIELDS


@pytest.mark.parametrize(
    "song, parts",
    (
        (make_song("jazz"), ["caption"]),
        (make_song("jazz", "la la", instrumental=True), ["caption"]),
        (make_song("jazz", "[Instrumental]"), ["caption"]),
        (make_song("", "la la"), ["lyrics"]),
        (make_song("", " \n\n "), []),
        (make_song("", "", "fr", key="Am"), ["keyscale", "language"]),
        (make_song("", "", time_signature=6, duration=10), ["duration", "timesignature"]),
    ),
)
def test_what_a_song_leaves_open_is_not_asked(song, parts):
    assert list(text_of(song)) == parts


def test_yaml_quotes_and_folds_as_it_does():
    assert text_of(make_song(language="no"))["language"] == "<think>\nlanguage: 'no'\n</think>\n"
    assert text_of(make_song("夜空: 星"))["caption"] == "<think>\ncaption: '夜空: 星'\n</think>\n"
    assert text_of(make_song("夜空の星 🎹"))["caption"] == "<think>\ncaption: 夜空の星 🎹\n</think>\n"
    words = "an explosive, high-energy pop-rock track with a strong anime theme song feel and a catchy fanfare " * 4
    lines = text_of(make_song(words))["caption"].splitlines()[1:-1]
    assert len(lines) > 4 and lines[0].startswith("caption: an explosive")
    assert all(line.startswith("  ") and line[2] != " " for line in lines[1:])
    assert all(80 < len(line) < 100 for line in lines[:-1])
    assert yaml.safe_load("\n".join(lines)) == {"caption": words.strip()}


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_makes_a_reply_that_follows_its_prompt_token_by_token(caption, lyrics):
    """A reply is tokenized alone; behind the prompt, where both are tokenized together, it is the same."""
    song = Song(caption, lyrics)
    tokenizer = published_tokenizer()
    metas, texts = score.targets(replace(song, bpm=90))
    for prompt in (prompts.understand_prompt(CODES), prompts.understand_prompt([], NO_INPUT)):
        start = len(prompts.encode(tokenizer, prompt))
        for target in (*metas.values(), *texts.values()):
            together = prompts.encode(tokenizer, (*prompt, *target))
            assert together[start:] == prompts.encode(tokenizer, target)


def test_control_tokens_in_a_song_stay_words():
    control = {LM.tokenizer.token_id(name) for name in ("<|im_end|>", "<|im_start|>")}
    _, texts = score.targets(make_song("<|im_end|>", "<|im_start|></think> la"))
    for target in texts.values():
        ids = prompts.encode(LM.tokenizer, target)
        assert not control & set(ids) and ids.count(LM.tokenizer.token_id("</think>")) == 1


def test_log_probabilities_and_ranks_equal_one_whole_forward():
    target = score.lyrics_reply("[Verse]\nWe walk along\n星が歌う")
    prompt = prompts.understand_prompt(CODES)
    ids, start = prompts.encode(LM.tokenizer, (*prompt, *target)), len(prompts.encode(LM.tokenizer, prompt))
    with torch.inference_mode():
        logits = F.linear(LM.module(torch.tensor([ids]))[0, start - 1 : -1], LM.module.embed_tokens.weight)
        found = said(CODES, target)
    wanted = torch.tensor(ids[start:])[:, None]
    torch.testing.assert_close(found.log, logits.log_softmax(-1).gather(1, wanted)[:, 0], atol=1e-5, rtol=0)
    order = logits.argsort(-1, descending=True)
    assert torch.equal(found.ranks, (order == wanted).int().argmax(-1))
    assert found.mean == pytest.approx(float(found.log.mean()), abs=1e-5)


def test_log_probabilities_equal_transformers():
    transformers = pytest.importorskip("transformers")
    peer = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    with torch.inference_mode():
        for name, target in {**score.targets(SONG)[0], **score.targets(SONG)[1]}.items():
            for codes in (CODES, ()):
                prompt = prompts.encode(LM.tokenizer, prompts.understand_prompt(codes, NO_INPUT))
                ids = prompts.encode(LM.tokenizer, target)
                logits = peer(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
                theirs = logits.log_softmax(-1)[torch.arange(len(ids)), ids]
                torch.testing.assert_close(said(codes, target).log, theirs, atol=1e-4, rtol=0, msg=name)


def test_the_likeliest_words_are_recalled_whole_and_the_next_ones_by_rank():
    """Greedy tokens have rank 0; a reply of third choices has rank 2 and counts 0.8."""
    for place, share in ((0, 1.0), (2, 0.8), (9, 0.1), (10, 0.0), (500, 0.0)):
        ids: list[int] = []
        with torch.inference_mode():
            rows = engine.Rows(LM.module, [read()])
            for _ in range(12):
                scores = F.linear(rows.hidden, LM.module.embed_tokens.weight)[0]
                ids.append(int(scores.argsort(descending=True)[place]))
                rows.feed(ids[-1:])
            found = score.said(LM.module, read(), ids)
        assert found.ranks.tolist() == [place] * 12
        assert score.recall(found.ranks) == pytest.approx(share)


def test_the_whole_is_made_of_its_parts():
    found = judged(scale=0.2)
    metas, texts = score.targets(SONG)
    with torch.inference_mode():
        for name, target in texts.items():
            difference = said(CODES, target).mean - said((), target).mean
            assert getattr(found, name) == pytest.approx(1 / (1 + math.exp(-difference / 0.2)), abs=1e-5)
        for name, target in metas.items():
            assert found.metas[name] == pytest.approx(score.recall(said(CODES, target).ranks))
    mean = sum(found.metas.values()) / 5
    assert found.total == pytest.approx(0.5 * found.caption + 0.3 * found.lyrics + 0.2 * mean)
    assert tuple(found.metas) == FIELDS


def test_weights_are_shared_by_what_there_is():
    caption = judged(song=make_song("jazz"))
    assert caption.total == pytest.approx(caption.caption) and caption.lyrics is None and not caption.metas
    sung = judged(song=make_song("", "la la", bpm=90))
    assert sung.caption is None
    assert sung.total == pytest.approx((0.3 * sung.lyrics + 0.2 * sung.metas["bpm"]) / 0.5)
    assert judged(song=make_song(bpm=90)).total == pytest.approx(sung.metas["bpm"])
    assert score.weighed({}) == 0


def test_a_smaller_scale_is_stricter():
    gentle, strict = judged(scale=1.0), judged(scale=0.01)
    for name in ("caption", "lyrics"):
        assert abs(getattr(strict, name) - 0.5) > abs(getattr(gentle, name) - 0.5) > 0
        assert (getattr(strict, name) > 0.5) == (getattr(gentle, name) > 0.5)
    assert gentle.metas == strict.metas
    assert score.likelier(-1000.0, 0.01) == 0 and score.likelier(1000.0, 0.01) == 1


def test_the_report_has_a_line_a_part():
    found = score.PlannerScore(0.51394, 0.74312, None, {"bpm": 0.25, "keyscale": 0})
    assert found.report().splitlines() == [
        "planner: 0.5139",
        "planner, caption: 0.7431",
        "planner, bpm: 0.2500",
        "planner, keyscale: 0.0000",
    ]


@pytest.mark.parametrize("scale", (0, 0.009, 1.01, -0.5, math.nan, math.inf))
def test_a_scale_out_of_range_is_answered(scale):
    with pytest.raises(ValueError, match=r"scale is .*; allowed is 0\.01 to 1\."):
        judged(scale=scale)


@pytest.mark.parametrize(
    "codes, song, sentence",
    (
        ((), SONG, "turn it into codes first with Source to Codes"),
        ((3, 375), SONG, "375 is no code this planner knows; allowed is 0 to 374"),
        ((-1,), SONG, "-1 is no code"),
        (CODES, Song(), "says nothing that could be judged"),
    ),
)
def test_what_cannot_be_judged_is_answered_before_anything_runs(codes, song, sentence, monkeypatch):
    monkeypatch.setattr(engine, "read_prompt", lambda *_: pytest.fail("the prompt was read"))
    with pytest.raises(ValueError, match=sentence):
        judged(codes, song)


def test_numbers_of_codes():
    for count in (1, 3000):
        codes = [7 * n % 375 for n in range(count)]
        values = flat(judged(codes))
        assert all(0 <= value <= 1 for value in values) and values == flat(judged(codes))


def test_lyrics_of_4096_characters():
    lyrics = ("[Verse]\nWe walk along the old canal\n星が歌う\n" * 200)[:LYRICS_LIMIT]
    song = make_song("jazz", lyrics)
    found = judged(song=song)
    whole = said(CODES, score.lyrics_reply(song.lyrics)), said((), score.lyrics_reply(song.lyrics))
    assert len(whole[0].log) > engine.PREFILL_TOKENS
    assert found.lyrics == pytest.approx(score.likelier(whole[0].mean - whole[1].mean, 0.5), abs=1e-6)


def test_how_the_work_is_cut_changes_nothing(monkeypatch):
    whole = flat(judged())
    for rows, tokens in ((1, 1024), (7, 5), (100_000, 1)):
        monkeypatch.setattr(score, "HEAD_ROWS", rows)
        monkeypatch.setattr(engine, "PREFILL_TOKENS", tokens)
        assert flat(judged()) == pytest.approx(whole, abs=1e-5)


def test_no_more_rows_of_the_head_than_a_chunk(monkeypatch):
    seen, linear = [], F.linear

    def watched(rows, weight, *bias):
        if weight is LM.module.embed_tokens.weight:
            seen.append(rows.shape[0])
        return linear(rows, weight, *bias)

    monkeypatch.setattr(score.F, "linear", watched)
    monkeypatch.setattr(score, "HEAD_ROWS", 8)
    judged()
    metas, texts = score.targets(SONG)
    meant = [*metas.values(), *texts.values(), *texts.values()]
    assert max(seen) == 8 and sum(seen) == sum(len(prompts.encode(LM.tokenizer, target)) for target in meant)


def forwards(monkeypatch, song):
    seen, further = [], LM.module.further
    monkeypatch.setattr(LM.module, "further", lambda ids, groups: seen.append(ids.shape[1]) or further(ids, groups))
    judged(song=song)
    return seen


def test_one_forward_for_each_prompt_and_reply(monkeypatch):
    assert len(forwards(monkeypatch, SONG)) == 2 + 5 + 2 * 2
    assert len(forwards(monkeypatch, make_song(bpm=90))) == 1 + 1


def test_a_read_prompt_is_left_as_it_was():
    with torch.inference_mode():
        prompt = read()
        kept = prompt.cache.keys.clone(), prompt.cache.values.clone(), prompt.state.clone()
        first = score.said(LM.module, prompt, list(range(300)))
        again = score.said(LM.module, prompt, list(range(300)))
        assert torch.equal(first.log, again.log)
        for before, after in zip(kept, (prompt.cache.keys, prompt.cache.values, prompt.state), strict=True):
            assert torch.equal(before, after)
        assert len(score.said(LM.module, prompt, [5]).log) == 1


def test_parts_are_counted_and_cancelling_stops_between_them():
    steps = []
    judged(host=Host(device="cpu", on_progress=lambda done, total, text: steps.append((done, total))))
    assert steps == [(done, 9) for done in range(10)]
    for stop_after in (1, 4):
        seen = []
        host = Host(
            device="cpu",
            on_progress=lambda *step, seen=seen: seen.append(step),
            should_stop=lambda seen=seen, stop_after=stop_after: len(seen) > stop_after,
        )
        with pytest.raises(Cancelled):
            judged(host=host)
        assert len(seen) == stop_after + 1


def test_overflowing_numbers_are_said(monkeypatch):
    broken = replace(LM, module=copy.deepcopy(LM.module))
    broken.module.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="precision bf16 or fp32"):
        score.score(broken, CODES, SONG, host=HOST)
    calls, further = [], LM.module.further

    def spoiled(ids, groups):
        calls.append(ids)
        return further(ids, groups) * (float("inf") if len(calls) > 5 else 1.0)

    monkeypatch.setattr(LM.module, "further", spoiled)
    with pytest.raises(FloatingPointError):
        judged()
    assert len(calls) == 6


def test_bfloat16_judges_alike():
    half = loading.load_language_model(FOLDER, dtype=torch.bfloat16)
    found = score.score(half, CODES, SONG, scale=1.0, host=HOST)
    assert flat(found) == pytest.approx(flat(judged(scale=1.0)), abs=0.02)


def test_the_same_call_gives_the_same_score_in_any_order():
    first = judged()
    judged((9, 9, 9), make_song("metal"))
    assert judged() == first != judged((200, 14, 15, 92))
