"""Lines and words from tokens with times."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import tokenizer as tokenizers
from acestep_graph.acestep_core.lyrics import subtitles
from acestep_graph.acestep_core.lyrics.lines import make_lines

TOKENIZER = tokenizers.load(None)


def lines_of(text, seconds=60.0):
    """Lines of a text whose tokens are spread evenly over ``seconds``."""
    ids = TOKENIZER.encode(text)
    edges = np.linspace(0, seconds, len(ids) + 1)
    return make_lines(TOKENIZER, ids, edges[:-1], edges[1:])


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=120), st.floats(0.1, 600))
def test_any_text_has_times_that_never_fall_and_stay_in_the_piece(text, seconds):
    lines = lines_of(text, seconds)
    latest = 0.0
    for line in lines:
        assert latest <= line.start <= line.end <= seconds + 0.001
        latest = line.start
        assert "".join(word.text for word in line.words) == line.text == line.text.strip()
        spoken = 0.0
        for word in line.words:
            assert spoken <= word.start <= word.end <= seconds + 0.001
            spoken = word.start
    written = [line.text for line in lines]
    wanted = [part.strip() for part in unicodedata.normalize("NFC", text).split("\n")]
    assert "".join(written).split() == "".join(filter(None, wanted)).split()


@pytest.mark.parametrize("mark", ("[Chorus][x2]", "[Verse 1] [Female vocal]", "[Bridge]"))
def test_a_line_of_marks_alone_is_not_sung(mark):
    marked, sung = lines_of(f"{mark}\nla la\n")
    assert marked.tag and not sung.tag
    assert mark not in subtitles.lrc((marked, sung), tags=False)
    assert not lines_of("[Chorus] la\n")[0].tag


def test_words_behind_a_character_that_stands_for_lost_ones_keep_their_times():
    text = "hi \ufffd\ufffd\ufffd one two three four"
    ids, (line,) = TOKENIZER.encode(text), lines_of(text)
    edges = np.linspace(0, 60, len(ids) + 1)
    tokens = {TOKENIZER.decode([number]): span for number, *span in zip(ids, edges, edges[1:], strict=False)}
    for word in line.words[-4:]:
        first, last = tokens[word.text]
        assert first <= word.start < last


def test_lines_words_and_marks():
    verse, first, second = lines_of("[Verse 1]\n  Walking  home,  it's late \n\nLa\n")
    assert verse.tag and not first.tag
    assert (first.text, second.text) == ("Walking  home,  it's late", "La")
    assert [word.text for word in first.words] == ["Walking", "  home,", "  it's", " late"]


@pytest.mark.parametrize(
    "text, words",
    (
        ("星が歌う", ["星", "が", "歌", "う"]),
        ("きょう、は行くよ。", ["きょ", "う、", "は", "行", "く", "よ。"]),
        ("ストーリー go 夢", ["ス", "トー", "リー", " go", " 夢"]),
        ("夜のcity lights", ["夜", "の", "city", " lights"]),
        ("나는 걷는다", ["나는", " 걷는다"]),
        ("¿Dónde estás?", ["¿Dónde", " estás?"]),
        ("🎵 oh 👩‍🚀", ["🎵", " oh", " 👩‍🚀"]),
    ),
)
def test_words_of_many_languages(text, words):
    (line,) = lines_of(text)
    assert [word.text for word in line.words] == words


def test_a_token_of_several_characters_shares_its_time():
    """こんにちは is one token of the real vocabulary."""
    ids = TOKENIZER.encode("こんにちは")
    assert len(ids) == 1
    (line,) = make_lines(TOKENIZER, ids, [2.0], [3.0])
    assert [word.start for word in line.words] == [2.0, 2.2, 2.4, 2.6, 2.8]
    assert line.words[-1].end == 3.0


def test_characters_spread_over_tokens_are_whole():
    ids = TOKENIZER.encode("𓀀𓀁")
    assert len(ids) > 2
    (line,) = make_lines(TOKENIZER, ids, list(range(len(ids))), list(range(1, len(ids) + 1)))
    assert line.text == "𓀀𓀁" and line.words[0].start == 0 and line.words[-1].end == len(ids)


def test_confidence_is_the_mean_of_a_lines_tokens():
    ids = TOKENIZER.encode("one two\nthree\n")
    lines = make_lines(TOKENIZER, ids, range(len(ids)), range(1, len(ids) + 1), [1.0] * (len(ids) - 2) + [0.0, 0.0])
    assert lines[0].confidence == 1.0 and lines[1].confidence == 0.0


@pytest.mark.parametrize("text", ("", "\n\n\n", "   \n \t"))
def test_nothing_to_sing_gives_no_lines(text):
    assert lines_of(text) == ()


def test_four_thousand_characters_on_one_line():
    (line,) = lines_of("la " * 1365)
    assert len(line.words) == 1365
    assert subtitles.lrc([line]).count("\n") == 0
