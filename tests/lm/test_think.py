"""Think: what is asked, what is kept, and how many codes come out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.lm import think
from acestep_graph.acestep_core.lm.settings import PlannerSettings
from acestep_graph.acestep_core.lm.think import Parts
from acestep_graph.acestep_core.song import KEYS, LANGUAGES, TIME_SIGNATURES, make_song
from tests.lm.planner import HOST, planner, words

SHORT = PlannerSettings(longest=12)


def thought(song, **more):
    more.setdefault("settings", SHORT)
    return think.think(planner(), song, host=HOST, **more)


texts = st.text(max_size=40) | st.sampled_from(["<|im_end|> x", "</think>\nbpm: 31", "<|audio_code_3|>", "a\nb: c"])


@settings(deadline=None, max_examples=40)
@given(
    caption=texts.filter(lambda text: text.strip()),
    lyrics=texts,
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.0, 0.3, 0.85, 2.0]),
    cfg=st.sampled_from([1.0, 2.0]),
    layout=st.sampled_from(["current", "legacy"]),
    parts=st.builds(Parts, st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    given_fields=st.fixed_dictionaries(
        {},
        optional={
            "bpm": st.integers(30, 300),
            "key": st.sampled_from(KEYS),
            "time_signature": st.sampled_from(TIME_SIGNATURES),
            "duration": st.floats(10, 14),
            "language": st.sampled_from(LANGUAGES),
        },
    ),
)
def test_any_request_ends_and_keeps_what_was_given(
    caption, lyrics, seed, temperature, cfg, layout, parts, given_fields
):
    song = make_song(caption, lyrics, **given_fields)
    chosen = PlannerSettings(temperature=temperature, cfg_scale=cfg, layout=layout, longest=12)
    made = thought(song, seeds=[seed], parts=parts, settings=chosen)
    for name in ("bpm", "key", "time_signature"):
        if getattr(song, name):
            assert getattr(made.song, name) == getattr(song, name)
    if song.duration > 0:
        assert made.song.duration == song.duration
    if song.language != "unknown":
        assert made.song.language == song.language
    assert made.song.lyrics == song.lyrics
    if not parts.caption:
        assert made.song.caption == song.caption
    if parts.metas:
        assert made.song.complete
    if parts.codes:
        (codes,) = made.codes.items
        assert len(codes) == int(made.song.duration * 5)
        assert all(0 <= code < len(words().codes) for code in codes)
    else:
        assert not made.codes


GIVEN = {"bpm": 90, "key": "C major", "time_signature": "4", "duration": 10}


def test_a_complete_song_is_not_asked_about():
    song = make_song("jazz", **GIVEN)
    made = thought(song)
    assert made.reply is None and made.song == song
    assert made.plan == "bpm: 90\nduration: 10\nkeyscale: C major\ntimesignature: 4"
    assert "not asked" in made.report()


def test_the_plan_holds_the_new_caption_and_the_prompt_the_old_one(monkeypatch):
    asked = []
    monkeypatch.setattr(think, "codes_of", lambda lm, song, metas, *rest: asked.append((song, metas)) or ((1,) * 50,))
    made = thought(make_song("jazz", bpm=90))
    assert asked[0][0].caption == "jazz" and asked[0][1]["caption"] == made.song.caption != "jazz"
    assert asked[0][1]["bpm"] == 90


def test_switched_off_parts_are_left_alone():
    made = thought(make_song("jazz"), parts=Parts(caption=False, language=False, codes=False))
    assert made.song.caption == "jazz" and made.song.language == "unknown"
    assert "caption" not in made.plan and "language" not in made.plan
    assert made.song.complete and not made.codes


def test_a_detected_language_reaches_the_song():
    assert thought(make_song("jazz", "la la"), parts=Parts(codes=False)).song.language != "unknown"


def test_without_a_plan_an_open_length_is_drawn_and_said():
    made = thought(make_song("jazz", bpm=90), parts=Parts(metas=False))
    assert 10 <= made.song.duration <= 120
    assert len(made.codes.items[0]) == made.song.duration * 5
    assert f"duration: {made.song.duration:g}" in made.plan and any("drawn" in note for note in made.notes)


def test_variations_share_the_plan_and_differ_in_codes():
    made = thought(make_song("jazz"), seeds=[1, 2, 3])
    assert len(set(made.codes.items)) == 3
    assert thought(make_song("jazz"), seeds=[1]).codes.items[0] == made.codes.items[0]
    report = made.report()
    assert "3 x" in report and "codes/s" in report


def test_the_trace_is_in_the_report():
    made = thought(make_song("jazz"), parts=Parts(codes=False), trace=True)
    assert "allowed" in made.report()


def test_the_negative_prompt_matters():
    song = make_song("jazz", **GIVEN)
    noise = PlannerSettings(negative_prompt="harsh noise")
    assert thought(song, settings=noise).codes != thought(song).codes
    assert thought(song, settings=PlannerSettings(negative_prompt="  ")).codes == thought(song).codes


@pytest.mark.parametrize("seeds", ([], list(range(9))))
def test_wrong_numbers_of_seeds_are_answered(seeds):
    with pytest.raises(ValueError, match="allowed is 1 to 8"):
        thought(make_song("jazz"), seeds=seeds)


def test_nothing_to_plan_is_answered():
    with pytest.raises(ValueError, match="caption or lyrics"):
        thought(make_song(""))


@pytest.mark.parametrize(
    "wrong",
    (
        {"temperature": 3},
        {"cfg_scale": 0.5},
        {"top_p": 1.5},
        {"top_k": 1.5},
        {"top_k": True},
        {"layout": "old"},
        {"chunk": 9},
        {"temperature": float("nan")},
        {"longest": 5},
    ),
)
def test_wrong_settings_are_answered(wrong):
    with pytest.raises(ValueError, match="allowed is"):
        PlannerSettings(**wrong)
