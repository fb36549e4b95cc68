"""Songs are checked and normalised before anything heavy starts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep_graph.acestep_core import song as words
from acestep_graph.acestep_core.song import make_song, parse_key, parse_time_signature, resolve_duration

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.lists(st.integers(), max_size=2)
)


@pytest.mark.parametrize(
    "given_key, key",
    (
        ("Am", "A minor"),
        ("C Major", "C major"),
        ("f# min", "F# minor"),
        ("Bb", "Bb major"),
        ("bb minor", "Bb minor"),
        ("B", "B major"),
        ("D♭ maj", "D♭ major"),
        ("g sharp minor", "G# minor"),
        ("CM", "C major"),
        ("Cm", "C minor"),
        ("auto", ""),
        ("", ""),
        (None, ""),
    ),
)
def test_keys_become_the_models_spelling(given_key, key):
    assert parse_key(given_key) == key


@pytest.mark.parametrize("key", words.KEYS)
def test_published_keys_stay_as_they_are(key):
    assert parse_key(key) == key


@pytest.mark.parametrize("wrong", ("H major", "C dorian", "major", 3, "C# #", ["C"], "Cmm"))
def test_wrong_keys_are_answered(wrong):
    with pytest.raises(ValueError, match="F# minor"):
        parse_key(wrong)


def test_time_signatures():
    assert [parse_time_signature(t) for t in ("4/4", 4, "3", "6/8", " 2 ", "auto", 0)] == [
        "4",
        "4",
        "3",
        "6",
        "2",
        "",
        "",
    ]
    for wrong in ("5", "4/", "7/8", 4.5, "x"):
        with pytest.raises(ValueError, match="time signature"):
            parse_time_signature(wrong)


@given(
    caption=ANYTHING, lyrics=ANYTHING, language=ANYTHING, bpm=ANYTHING, key=ANYTHING, time=ANYTHING, duration=ANYTHING
)
def test_whatever_is_given_is_a_valid_song_or_a_sentence(caption, lyrics, language, bpm, key, time, duration):
    try:
        song = make_song(caption, lyrics, language, False, bpm, key, time, duration)
    except ValueError as error:
        assert len(str(error)) > 20
        return
    assert song.bpm is None or 30 <= song.bpm <= 300
    assert song.key in ("", *words.KEYS) and song.time_signature in ("", *words.TIME_SIGNATURES)
    assert song.duration == -1 or 10 <= song.duration <= 600
    assert song.language in words.LANGUAGES and not song.lyrics.startswith("\n")


@pytest.mark.parametrize("lyrics", ("[Instrumental]", " [instrumental] ", "[inst]", "[INST]"))
def test_lyrics_can_say_instrumental(lyrics):
    song = make_song("piano", lyrics, "ja")
    assert song.instrumental and song.sung == "[Instrumental]" and song.language == "unknown"


def test_the_instrumental_switch_keeps_the_lyrics_but_does_not_sing_them():
    song = make_song("piano", "la la", "en", instrumental=True)
    assert song.lyrics == "la la" and song.sung == "[Instrumental]"


def test_auto_duration_is_one_draw_that_repeats():
    a, b = make_song("a"), make_song("b")
    assert resolve_duration(a) == resolve_duration(make_song("a")) != resolve_duration(b)
    assert all(10 <= resolve_duration(make_song(str(i)))[0] <= 120 for i in range(50))
    assert resolve_duration(make_song("a", duration=33.3)) == (33.3, "as given")
    assert not math.isnan(resolve_duration(a)[0])


def test_long_texts_are_allowed_and_noted():
    assert not make_song("x" * 511, "y" * 4095).notes()
    assert len(make_song("x" * 600, "y" * 5000).notes()) == 2


MINE = make_song("jazz", bpm=90, language="fr", lyrics="[Verse]\nmine")
THEIRS = make_song("rock", "[Verse]\ntheirs", "de", bpm=120, key="Am", time_signature=3, duration=50)


def test_a_song_is_filled_only_where_it_is_open():
    made = MINE.filled_from(THEIRS)
    assert (made.caption, made.lyrics, made.language, made.bpm) == ("jazz", "[Verse]\nmine", "fr", 90)
    assert (made.key, made.time_signature, made.duration) == ("A minor", "3", 50)
    assert made.complete and not MINE.complete
    assert make_song("x").filled_from(make_song(instrumental=True)).instrumental
    assert make_song("x", instrumental=True).filled_from(THEIRS).sung == "[Instrumental]"


def test_merging_prefers_what_is_preferred_and_completes_it():
    assert words.merged(MINE, THEIRS) == MINE.filled_from(THEIRS)
    made = words.merged(MINE, THEIRS, ["caption", "metas"])
    assert (made.caption, made.bpm, made.lyrics, made.language) == ("rock", 120, "[Verse]\nmine", "fr")
    assert words.merged(MINE, make_song(), list(words.PARTS)) == MINE


def test_edited_songs_are_checked():
    assert words.edited(MINE, key="f#m", duration=20).key == "F# minor"
    assert words.edited(MINE) == MINE
    with pytest.raises(ValueError, match="bpm"):
        words.edited(MINE, bpm=5)
    silent = words.edited(MINE, instrumental=True)
    assert silent.sung == "[Instrumental]" and words.edited(silent, instrumental=False).sung == MINE.lyrics
    assert words.edited(make_song("x", "[Instrumental]"), instrumental=False).sung == ""


def test_a_song_reads_well():
    text = THEIRS.text()
    assert "bpm: 120" in text and "duration: 50 s" in text and text.endswith("theirs")
    assert "key: auto" in MINE.text()
