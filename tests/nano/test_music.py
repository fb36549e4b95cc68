"""What the shipped nano checkpoint plays is music that does what it is asked: a few pieces of each measure of
nano/evaluate.py, on songs it was never trained on."""

import itertools

import numpy as np
import pytest

from acestep_graph.acestep_core.checkpoints import bundled
from acestep_graph.acestep_core.tasks import codes as code_tasks
from acestep_graph.acestep_core.tasks import extract, text2music
from nano import evaluate, measures, show
from nano.evaluate import Player, mono
from nano.hearing import taught

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not bundled.names("lm"), reason="the nano weights were left out")]


@pytest.fixture(scope="module")
def player() -> Player:
    return Player(bundled.FOLDER, 10, 10.0)


@pytest.fixture(scope="module")
def songs(player) -> list[np.ndarray]:
    """What turbo makes of ten requests."""
    return [player.song(player.piece(seed).song, seed) for seed in player.seeds]


def test_codes_bring_the_tempo_of_their_song(player):
    right, others = [], []
    for seed in player.seeds:
        piece, other = player.piece(seed), player.other(seed)
        codes = code_tasks.Codes((code_tasks.encode_codes(player.turbo, player.source(piece.mix).latents),))
        heard = measures.tempo(mono(player.song(piece.song, seed, codes=codes)))
        right.append(measures.same_pulse(heard, piece.song.bpm))
        others.append(measures.same_pulse(heard, other.song.bpm))
    assert np.mean(right) >= 0.4 and np.mean(right) >= np.mean(others) + 0.2


def test_the_key_is_the_one_that_was_asked_for(player, songs):
    heard = [measures.key(mono(wave)) for wave in songs]
    asked = [evaluate.key_of(player.piece(seed).song) for seed in player.seeds]
    score = np.mean([measures.key_score(a, b) for a, b in zip(heard, asked, strict=True)])
    others = np.mean([measures.key_score(a, b) for a, b in itertools.product(heard, asked)])
    assert score > others + 0.4


def test_a_stem_comes_out_of_a_mix(player):
    gained = []
    for seed in list(player.seeds)[:4]:
        piece = player.piece(seed)
        source = player.source(piece.mix)
        for track in [name for name in ("drums", "bass", "vocals", "keyboard") if name in piece.stems][:2]:
            wave = player.play(player.base, extract.prepare(player.base, player.text, source, track), seed)
            gained.append(measures.si_sdr(wave, piece.stems[track]) - measures.si_sdr(piece.mix, piece.stems[track]))
    assert np.mean(gained) > 3


def test_an_arrangement_has_the_tracks_that_were_asked_for(player):
    asked, others = evaluate.arranged(player, taught(range(5000, 5024)))
    assert asked.with_it >= others.with_it + 0.2


def test_a_repaint_keeps_the_rest_and_joins_without_a_seam(player):
    rest, inside, seam = (row.with_it for row in evaluate.kept_outside(player))
    assert rest == 1.0 and inside > -6
    assert seam < 3


def test_lyrics_are_found_where_they_are_sung(player):
    error, within = evaluate.timed(player)[:2]
    assert error.with_it < 0.3 and within.with_it >= 0.6


def test_a_remix_follows_its_source(player):
    for row in evaluate.followed_source(Player(player.models, 4, 10.0)):
        assert row.with_it > row.without + 0.1


def test_plans_parse_and_their_codes_play(player):
    rows = evaluate.planned(Player(player.models, 3, 10.0))
    assert rows[0].with_it == 1.0


def test_a_lora_of_one_song_plays_that_song(player):
    (row,) = evaluate.learned(player, 1)
    assert row.with_it > row.without + 0.1


def test_the_same_seed_gives_the_same_music(player):
    song = player.piece(player.seeds[0]).song
    batch = text2music.prepare(player.turbo, player.text, song)
    assert np.array_equal(player.play(player.turbo, batch, 5), player.play(player.turbo, batch, 5))
    assert not np.array_equal(player.play(player.turbo, batch, 5), player.play(player.turbo, batch, 6))


def test_what_is_shown_is_what_plays_without_models_of_ones_own(tmp_path):
    sound = show.played("repaint", None, tmp_path, ["Sampler.steps=1"])
    assert sound.is_file() and sound.is_relative_to(tmp_path)
