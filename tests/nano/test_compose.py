"""Composed songs are what they say they are, by measures that know only the sound."""

import dataclasses
import itertools
import wave

import numpy as np
import pytest

from acestep_graph.acestep_core import song as songs
from acestep_graph.acestep_core.tasks.instructions import TRACKS
from nano import measures
from nano.compose import Piece, compose, main
from nano.evaluate import key_of

RATE = 48000
SECONDS = 14.0


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return [compose(seed, SECONDS) for seed in range(1000, 1022)]


@pytest.fixture(scope="module")
def sung(pieces) -> list[Piece]:
    return [piece for piece in pieces if piece.words]


def level(sound: np.ndarray) -> float:
    """RMS in dB."""
    return 20 * float(np.log10(np.sqrt((sound**2).mean()) + 1e-9))


def test_the_same_seed_gives_the_same_song_to_the_last_bit():
    first = compose(3, 8.0)
    compose(4, 6.0)
    again = compose(3, 8.0)
    assert np.array_equal(first.mix, again.mix)
    for field in dataclasses.fields(Piece):
        if field.name not in ("mix", "stems"):
            assert getattr(first, field.name) == getattr(again, field.name)


def test_seeds_differ(pieces):
    assert len({piece.song.digest for piece in pieces}) == len(pieces)
    assert len({piece.genre for piece in pieces}) >= 8
    assert len({piece.song.key for piece in pieces}) >= 12
    assert len({piece.song.time_signature for piece in pieces}) >= 3


def test_every_track_class_comes_up_and_no_other(pieces):
    found = set().union(*(piece.stems for piece in pieces))
    assert found == set(TRACKS)


def test_sound_is_stereo_finite_and_below_full_scale(pieces):
    for piece in pieces:
        assert piece.mix.shape == (2, round(SECONDS * RATE)) and piece.mix.dtype == np.float32
        assert np.isfinite(piece.mix).all() and np.abs(piece.mix).max() <= 0.951
        assert level(piece.mix) > -24
        assert abs(float(piece.mix.mean())) < 3e-3
        assert not np.array_equal(piece.mix[0], piece.mix[1])


def test_stems_add_up_to_the_mix_in_any_order(pieces):
    for piece in pieces:
        assert np.array_equal(sum(piece.stems.values()), piece.mix)
        assert np.array_equal(sum(reversed(piece.stems.values())), piece.mix)


def test_the_tempo_is_heard(pieces):
    heard = [measures.same_pulse(measures.tempo(piece.mix.mean(axis=0)), piece.song.bpm) for piece in pieces]
    assert np.mean(heard) >= 0.85


def test_the_key_is_heard(pieces):
    heard = [(measures.key(piece.mix.mean(axis=0)), key_of(piece.song)) for piece in pieces]
    assert np.mean([found == named for found, named in heard]) >= 0.6
    assert np.mean([measures.key_score(*pair) for pair in heard]) >= 0.75


def test_a_stem_sounds_in_its_sections_and_rests_elsewhere(pieces):
    for piece in pieces:
        for name, stem in piece.stems.items():
            loud = [
                level(stem[:, round(section.start * RATE) : round(section.end * RATE)])
                for section in piece.sections
                if name in section.tracks
            ]
            assert max(loud) > level(stem) - 3
            assert min(loud) > level(stem) - 20
            before = np.array([False, *(name in section.tracks for section in piece.sections)])
            for at, section in enumerate(piece.sections):
                rung_out = section.start + (2.5 if before[at] else 0.1)
                riser = name == "fx" and at + 1 < len(piece.sections)
                if name not in section.tracks and section.end - rung_out > 0.5 and not riser:
                    rest = stem[:, round(rung_out * RATE) : round((section.end - 0.1) * RATE)]
                    assert level(rest) < level(stem) - 25


def test_the_song_is_one_the_pack_accepts(pieces):
    for piece in pieces:
        assert songs.edited(piece.song) == piece.song
        assert piece.song.complete and not piece.song.notes()
        assert piece.song.instrumental == (not piece.words)
        assert piece.song.instrumental == ("vocals" not in piece.stems)
        assert piece.song.duration == SECONDS


def test_captions_name_only_what_plays(pieces):
    voices = ("vocals", "sung by", "voice")
    for piece in pieces:
        assert set(piece.stem_captions) == set(piece.stems)
        assert piece.song.caption == piece.captions[0] and len(set(piece.captions)) == len(piece.captions)
        for caption in piece.captions:
            assert piece.genre in caption
            assert piece.words or not any(word in caption for word in voices)
            assert ("drums" in piece.stems) or "drums" not in caption


def test_words_come_in_order_inside_the_song_and_the_lyrics(sung):
    for piece in sung:
        assert all(word.start < word.end for word in piece.words)
        assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(piece.words))
        assert piece.words[0].start >= 0 and piece.words[-1].end <= SECONDS
        written = [line for line in piece.song.lyrics.splitlines() if line and not line.startswith("[")]
        assert written == [line.text for line in piece.lines]
        spoken = "".join(word.text for word in piece.words).lower()
        assert spoken == "".join(line.text for line in piece.lines).replace(" ", "").lower()


def test_the_voice_is_heard_while_words_are_sung_and_not_between(sung):
    for piece in sung:
        stem = piece.stems["vocals"]
        singing = np.zeros(stem.shape[1], bool)
        for word in piece.words:
            singing[round((word.start - 0.05) * RATE) if word.start > 0.05 else 0 : round(word.end * RATE)] = True
        power = (stem**2).sum(axis=0)
        assert power[singing].sum() > 0.9 * power.sum()
        for word in piece.words:
            assert level(stem[:, round(word.start * RATE) : round(word.end * RATE)]) > level(stem) - 15


def test_tags_and_sections_agree_and_cover_the_song(pieces):
    for piece in pieces:
        bar = 60 / piece.song.bpm * {"2": 2, "3": 3, "4": 4, "6": 2}[piece.song.time_signature]
        assert piece.sections[0].start == 0 and SECONDS - piece.sections[-1].end < bar
        for first, second in itertools.pairwise(piece.sections):
            assert first.end == second.start
        if not piece.song.instrumental:
            tags = [line[1:-1] for line in piece.song.lyrics.splitlines() if line.startswith("[")]
            assert tags == [section.tag for section in piece.sections]
        assert piece.chords[0].start == 0 and piece.chords[-1].end == pytest.approx(piece.sections[-1].end)


@pytest.mark.parametrize("seconds", [5.0, 7.3, 60.0])
def test_lengths_are_exact(seconds):
    piece = compose(11, seconds)
    assert piece.mix.shape[1] == round(seconds * RATE) and piece.song.duration == seconds


def test_a_length_follows_from_the_seed_when_none_is_given():
    piece = compose(12)
    assert 10 <= piece.song.duration <= 40 and piece.mix.shape[1] == piece.song.duration * RATE


@pytest.mark.parametrize("seed, seconds", [(-1, 10.0), (1, 4.9), (1, 61.0), (1, float("nan"))])
def test_what_cannot_be_composed_is_refused(seed, seconds):
    with pytest.raises(ValueError, match="allowed is"):
        compose(seed, seconds)


def test_the_command_writes_the_mix_and_its_stems(tmp_path, capsys):
    main(["5", str(tmp_path / "song.wav"), "--seconds", "6", "--stems", str(tmp_path / "stems")])
    with wave.open(str(tmp_path / "song.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, RATE, 6 * RATE)
    piece = compose(5, 6.0)
    assert {path.stem for path in (tmp_path / "stems").iterdir()} == set(piece.stems)
    assert piece.song.key in capsys.readouterr().out
