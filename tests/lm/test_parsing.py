"""Replies: anything can be read, and what a plan says comes back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.lm import parsing, prompts
from acestep_graph.acestep_core.song import BPM_RANGE, DURATION_RANGE, KEYS, LANGUAGES, TIME_SIGNATURES
from tests.lm import planner

pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<reasoning>",
        "bpm: ",
        "caption: ",
        "duration: 99",
        "keyscale: C\n",
        ":",
        "'",
        '"',
        "|-",
        "\n",
    ]
    + ["  ", "\t", "# Lyric\n", "# Lyrics", "<|im_end|>", "<|audio_code_7|>", "language: no", "9" * 400, "nan", "inf"]
)
replies = st.lists(pieces | st.text(max_size=6), max_size=14).map("".join)


@settings(deadline=None, max_examples=300)
@given(replies)
def test_anything_can_be_read(raw):
    parsing.read(raw)
    song = parsing.song_of(raw)
    assert song.bpm is None or BPM_RANGE[0] <= song.bpm <= BPM_RANGE[1]
    assert song.duration == -1 or DURATION_RANGE[0] <= song.duration <= DURATION_RANGE[1]
    assert song.key in ("", *KEYS) and song.time_signature in ("", *TIME_SIGNATURES) and song.language in LANGUAGES
    for text in (song.caption, song.lyrics):
        assert "<|im_end|>" not in text and "<|audio_code_7|>" not in text and "</think>" not in text


one_line = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=300).map(
    lambda text: " ".join(text.split())
)


@settings(deadline=None, max_examples=300)
@given(
    caption=one_line.filter(lambda text: text and text.upper() != "N/A" and "<" not in text),
    bpm=st.integers(*BPM_RANGE),
    duration=st.integers(10, 600),
    key=st.sampled_from(KEYS),
    language=st.sampled_from(LANGUAGES),
    time=st.sampled_from(TIME_SIGNATURES),
)
def test_a_plan_comes_back(caption, bpm, duration, key, language, time):
    metas = {"bpm": bpm, "caption": caption, "duration": duration, "keyscale": key, "language": language}
    block = prompts.plan_text({**metas, "timesignature": time})
    song = parsing.song_of(f"<think>\n{block}\n</think>\n\n# Lyric\n[Verse]\nla\n<|im_end|>")
    assert (song.bpm, song.duration, song.key, song.language, song.time_signature) == (
        bpm,
        duration,
        key,
        language,
        time,
    )
    assert song.lyrics == "[Verse]\nla"
    assert song.caption == caption


def test_words_that_look_like_control_tokens_cut_nothing():
    words = planner.words()
    caption = words.tokenizer.encode_words("caption: soft rock </think> and <|audio_code_5|> piano\nbpm: 90\n")
    text = words.text_of([words.think, words.newline, *caption, words.end_think, words.codes[7]])
    assert parsing.read(text).metas == {"caption": "soft rock  and  piano", "bpm": 90}
    assert parsing.read(text).codes == (7,)


@pytest.mark.parametrize(
    "raw, field, value",
    (
        ("<think>\nkey: Am\ntime_signature: 3/4\nvocal_language: ja\ntempo: 88.4\n</think>", "key", "A minor"),
        ("<think>\ntime_signature: 3/4\n</think>", "time_signature", "3"),
        ("<think>\nvocal_language: ja\n</think>", "language", "ja"),
        ("<think>\ntempo: 88.4\n</think>", "bpm", 88),
        ("<think>\nbpm: 999\n</think>", "bpm", 300),
        ("<think>\nduration: 12.5\n</think>", "duration", 12.5),
        ("<think>\nbpm: N/A\nkeyscale: N/A\n</think>", "bpm", None),
        ("<think>\ncaption: 'it''s: quoted'\n</think>", "caption", "it's: quoted"),
        ('<think>\ncaption: "a \\"b\\"\\tc"\n</think>', "caption", 'a "b" c'),
        ("<think>\ncaption: |-\n  block\n  text\n</think>", "caption", "block text"),
        ("<think>\nbpm: 64\n</think>\n\n# Lyrics\n[Chorus]\nhey", "lyrics", "[Chorus]\nhey"),
        ("<think>\nbpm: 64\n</think>\n# Languages\nen\n\n# Lyric\n[Chorus]\nhey", "lyrics", "[Chorus]\nhey"),
        ("<think>\nbpm: 64\n</think>\n\n# Lyric\n[Instrumental]", "instrumental", True),
        ("<think>\nbpm: 64\n</think>\nla <|audio_code_3|>la", "lyrics", "la la"),
    ),
)
def test_what_models_get_wrong_is_forgiven(raw, field, value):
    assert getattr(parsing.song_of(raw), field) == value
