"""Prompts: what is cut, and what is said about it. Their exact text is checked by tests/parity."""

from hypothesis import given
from hypothesis import strategies as st

from acestep_graph.acestep_core import text
from acestep_graph.acestep_core.song import make_song
from tests import models

TOKENIZER = models.text_encoder().tokenizer


def test_a_short_prompt_loses_nothing():
    prompt = text.make_prompt(TOKENIZER, "Do it:", make_song("calm", "la"), 30)
    assert prompt.lost == (0, 0) and not prompt.notes()
    assert prompt.text_ids[-1] == prompt.lyric_ids[-1] == TOKENIZER.end_of_text


def test_long_prompts_say_how_much_is_lost():
    prompt = text.make_prompt(TOKENIZER, "Do it:", make_song("many words " * 200, "line\n" * 3000), 30)
    assert len(prompt.text_ids) == text.TEXT_TOKENS and len(prompt.lyric_ids) == text.LYRIC_TOKENS
    assert all(count > 0 for count in prompt.lost)
    assert str(prompt.lost[0]) in prompt.notes()[0] and "lyrics" in prompt.notes()[1]


@given(st.text(max_size=200))
def test_leading_newlines_never_reach_the_header(lyrics):
    assert text.lyric_prompt(lyrics).startswith("# Languages\nunknown\n\n# Lyric\n" + lyrics.lstrip("\n")[:1])


@given(st.text(max_size=80), st.integers(1, 40))
def test_ids_never_exceed_the_limit_and_always_close(words, limit):
    ids, lost = text.tokenize(TOKENIZER, words, limit)
    assert len(ids) <= limit and ids[-1] == TOKENIZER.end_of_text
    assert lost == max(0, len(TOKENIZER.encode(words)) - (limit - 1))
