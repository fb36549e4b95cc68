"""The composer's tables fit together: every name is known, every groove fills its bar, every word can be sung."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep_graph.acestep_core import song as songs
from nano.arrangement import MOODS
from nano.form import STEPS
from nano.genres import CHORD_STYLES, GENRES
from nano.hits import BEDS, DRUMS, KITS, PERCUSSION, STROKES
from nano.instruments import PATCHES
from nano.parts import BASS_STEPS
from nano.theory import SCALES, TONICS, Key, chord_of, nearest, voiced
from nano.tone import LOUDNESS, RATE, Patch, hertz, loop_size, note
from nano.tune import Syllable
from nano.voice import SINGERS, check_sounds, voice
from nano.words import LANGUAGES, language_of, line_of, split

keys = st.builds(Key, st.integers(0, 11), st.sampled_from(sorted(SCALES)))
numerals = st.sampled_from(
    sorted({n for g in GENRES for loop in (*g.major_loops, *g.minor_loops) for n in loop.split()})
)


@pytest.mark.parametrize("genre", GENRES, ids=lambda genre: genre.name)
def test_a_genre_names_only_what_exists(genre):
    assert set(genre.moods) <= set(MOODS) and set(genre.kits) <= set(KITS)
    assert set(genre.fx) <= {*BEDS, *STROKES}
    assert {genre.major_mode, genre.minor_mode} <= set(SCALES)
    for track, names in genre.instruments.items():
        assert set(names) <= set(PATCHES[track])
    for styles in genre.chords.values():
        assert set(styles) <= {*CHORD_STYLES, "pad"}
    pitched = {track for track in (*genre.needed, *genre.likely, *genre.lead) if track in PATCHES}
    assert pitched <= set(genre.instruments)
    assert sum(genre.metres.values()) == pytest.approx(1) and set(genre.metres) <= set(songs.TIME_SIGNATURES)
    assert 60 <= genre.tempo[0] < genre.tempo[1] <= 180


@pytest.mark.parametrize("genre", GENRES, ids=lambda genre: genre.name)
def test_grooves_fill_their_bars_with_known_sounds(genre):
    for grooves, sounds in ((genre.drums, DRUMS), (genre.percussion, PERCUSSION)):
        for metre, choices in grooves.items():
            for name, pattern in (row for groove in choices for row in groove):
                assert name in sounds and len(pattern) == STEPS[metre] and set(pattern) <= set("Xxo.")
    for metre, patterns in genre.bass.items():
        assert all(len(p) == STEPS[metre] and set(p) <= {*BASS_STEPS, "-", "."} for p in patterns)
    if any("bass" in tracks for tracks in (genre.needed, genre.likely)):
        assert set(genre.metres) <= set(genre.bass)


def test_chord_styles_fill_their_bars():
    for style in CHORD_STYLES.values():
        assert set(style) == set(STEPS)
        for metre, patterns in style.items():
            assert all(len(pattern) == STEPS[metre] and pattern.strip(".") for pattern in patterns)


def test_all_24_keys_have_names_the_pack_knows():
    names = {Key(tonic, mode).name for tonic in range(12) for mode in SCALES}
    assert len(names) == 24 and names <= set(songs.KEYS)
    assert all(len(row) == 12 for row in TONICS.values())


@given(keys, numerals)
def test_a_chord_is_named_after_its_root_and_can_be_voiced(key, numeral):
    chord = chord_of(numeral, key)
    assert songs.parse_key(chord.name[: 2 if chord.name[1:2] in ("#", "b") else 1])
    for voices in (3, 4):
        pitches = voiced(chord, 60, voices)
        assert list(pitches) == sorted(set(pitches)) and {pitch % 12 for pitch in pitches} <= set(chord.tones)
        assert abs(np.mean(pitches) - 60) < 7


def test_chords_of_a_known_cadence():
    names = [chord_of(numeral, Key(9, "aeolian")).name for numeral in "i iv V7 bVI".split()]
    assert names == ["Am", "Dm", "E7", "F"]
    assert chord_of("vi", Key(10, "ionian")).name == "Gm"


@pytest.mark.parametrize("text", ["", "VIII", "Q", "I13"])
def test_what_is_no_chord_is_refused(text):
    with pytest.raises(ValueError, match="chord|quality"):
        chord_of(text, Key(0, "ionian"))


@given(st.sets(st.integers(0, 11), min_size=1), st.floats(30, 90))
def test_the_nearest_pitch_is_at_most_half_an_octave_away_for_its_class(classes, pitch):
    found = nearest(tuple(classes), pitch)
    assert found % 12 in classes and abs(found - pitch) <= 6


@pytest.mark.parametrize("language", [*LANGUAGES, language_of("unknown")], ids=lambda language: language.code)
def test_every_word_can_be_sung(language):
    assert language.code in songs.LANGUAGES
    rng = np.random.default_rng(1)
    for word in (*(w for words in language.words.values() for w in words), *line_of(language, 7, rng)):
        for syllable in word.syllables:
            check_sounds(syllable)
            assert "".join(split(syllable)) == syllable
    for line in language.lines:
        assert all(part in language.words or part.count(":") == 1 for part in line)
    for wanted in range(3, 10):
        assert 0 < sum(len(word.syllables) for word in line_of(language, wanted, rng)) <= wanted


@given(st.integers(21, 108), st.integers(12, 32))
def test_loops_are_in_tune_to_two_cents(pitch, least):
    hz = hertz(pitch)
    size, periods = loop_size(hz, least)
    assert abs(1200 * np.log2(periods * RATE / size / hz)) < 2


@pytest.mark.parametrize("patch", [p for row in PATCHES.values() for p in row.values()], ids=lambda patch: patch.name)
def test_an_instrument_plays_the_pitch_it_is_asked_for(patch: Patch):
    sound = note(patch, 60, 0.8, LOUDNESS[1])
    assert np.isfinite(sound).all() and 0.005 < np.sqrt((sound**2).mean()) < 1 and abs(sound[-1]) < 0.01
    heard = np.abs(np.fft.rfft(sound[2400:36000] * np.hanning(33600), 1 << 18))
    frequency = np.fft.rfftfreq(1 << 18, 1 / RATE)
    asked = 261.63 * 2.0**patch.octave
    near = (frequency > asked / 2**0.5) & (frequency < asked * 2**0.5)
    width = max(40, patch.spread * 1.5)
    assert abs(1200 * np.log2(frequency[near][np.argmax(heard[near])] / asked)) < width


def test_vowels_have_their_formants():
    def share(vowel, low, high):
        singer = SINGERS["male vocals"]
        sound = voice([[Syllable(vowel, 0.1, 1.9, 48)]], 2 * RATE, singer)
        power = np.abs(np.fft.rfft(sound)) ** 2
        frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
        return power[(frequency > low) & (frequency < high)].sum() / power.sum()

    assert share("a", 600, 1300) > 2 * share("i", 600, 1300)
    assert share("i", 1900, 3200) > 2 * share("u", 1900, 3200)
    assert share("u", 100, 500) > 2 * share("a", 100, 500)
