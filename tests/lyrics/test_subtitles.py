"""LRC and WebVTT."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep_graph.acestep_core.lyrics.lines import Line, Word
from acestep_graph.acestep_core.lyrics.subtitles import lrc, stamp, vtt


def line(text, start, end, tag=False):
    first, _, rest = text.partition(" ")
    words = (Word(first, start, end), *((Word(f" {rest}", end, end),) if rest else ()))
    return Line(text, start, end, words, tag=tag)


SONG = (line("[Verse]", 0.0, 1.0, tag=True), line("Walking home", 1.2, 4.9), line("again", 59.996, 61.0))


def test_the_three_styles():
    assert lrc(SONG) == "[00:00.00][Verse]\n[00:01.20]Walking home\n[01:00.00]again"
    assert lrc(SONG, tags=False, ends=True) == "[00:01.20][00:04.90]Walking home\n[01:00.00][01:01.00]again"
    assert lrc(SONG[1:2], words=True) == "[00:01.20]<00:01.20>Walking <00:04.90>home"


@given(st.floats(0, 100_000, allow_nan=False))
def test_a_stamp_never_shows_sixty_seconds(seconds):
    minutes, rest = stamp(seconds).split(":")
    assert float(rest) < 60 and abs(int(minutes) * 60 + float(rest) - seconds) < 0.0051
    assert re.fullmatch(r"\d{2,}:\d\d\.\d\d", stamp(seconds))


@pytest.mark.parametrize(
    "seconds, text", ((13.125, "00:13.12"), (5.938, "00:05.94"), (-1.0, "00:00.00"), (6000, "100:00.00"))
)
def test_rounding(seconds, text):
    assert stamp(seconds) == text


def test_subtitles_end_where_the_lrc_says_or_with_the_next_or_with_the_piece():
    text = "[00:01.00][00:02.50]one\n[00:10.00]two\n[00:20.000]three"
    assert vtt(text, 25.0).splitlines() == [
        *("WEBVTT", ""),
        *("1", "00:00:01.000 --> 00:00:02.500", "one", ""),
        *("2", "00:00:10.000 --> 00:00:20.000", "two", ""),
        *("3", "00:00:20.000 --> 00:00:25.000", "three"),
    ]
    assert "00:00:20.000 --> 00:00:25.000" in vtt("[00:20.00]late", 3.0)
    assert "00:00:05.000 --> 00:00:08.000" in vtt("[00:05.00][00:05.00]no length", 60.0)


def test_quick_lines_share_a_subtitle():
    merged = vtt("[00:03.00]c\n[00:00.00][00:01.00]a\n[00:01.99][00:04.00]b\nno stamp\n[00:09.00]\n", 9.0)
    assert "00:00:00.000 --> 00:00:04.000\na\nb\n" in merged and "00:00:03.000 --> 00:00:09.000\nc" in merged
    assert merged.count("-->") == 2


def test_words_cannot_become_markup():
    text = vtt("[00:01.00]<b>x</b> & <c.loud> -->\n", 9.0)
    assert "&lt;b>x&lt;/b> &amp; &lt;c.loud>" in text and text.count("-->") == 1


@pytest.mark.parametrize("mark", ("\u2028", "\x85", "\x0b", "\x0c"))
def test_marks_that_end_no_line_keep_its_rest(mark):
    assert f"here{mark}there" in vtt(f"[00:01.00]here{mark}there\n[00:09.00]end", 20.0)


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text):
    assert vtt(text, 10.0).startswith("WEBVTT\n")
