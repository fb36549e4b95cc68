"""Labels from the tiny planner: what is filled, what stays, and what an interrupted run keeps."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.lm import songs
from acestep_graph.acestep_core.lm.grammar import BLOCK_TOKENS
from acestep_graph.acestep_core.song import UNKNOWN_LANGUAGE, make_song
from acestep_graph.acestep_core.training import labels
from acestep_graph.acestep_core.training.dataset import Dataset, DatasetError, make_sample
from acestep_graph.acestep_core.training.labels import Label, LabelSettings, auto_label, merged
from tests import models
from tests.lm.planner import planner

QUICK = LabelSettings(budget=BLOCK_TOKENS + 20)
HOST = Host(device="cpu")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three recordings: one with lyrics, an instrumental, and one whose file is broken."""
    folder = tmp_path_factory.mktemp("songs")
    for number, name in enumerate(("sung.wav", "plain 🎵.wav")):
        draws = torch.Generator().manual_seed(number)
        audio.write(folder / name, torch.rand(2, 3 * 16000, generator=draws) - 0.5, 16000)
    (folder / "broken.wav").write_text("no sound")
    sung = {"lyrics": "la la", "raw_lyrics": "la la", "instrumental": False}
    return Dataset(
        samples=(
            make_sample("sung.wav", folder / "sung.wav", bpm=84, **sung),
            make_sample("plain 🎵.wav", folder / "plain 🎵.wav"),
            make_sample("broken.wav", folder / "broken.wav"),
        )
    )


def label(dataset, settings=QUICK, **more):
    return auto_label(dataset, models.diffusion(), models.small_vae(), planner(), settings, **{"host": HOST, **more})


def counted(monkeypatch, name="transcribe"):
    calls, original = [], getattr(songs, name)

    def asked(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(songs, name, asked)
    return calls


@pytest.fixture
def fast(monkeypatch):
    """A planner that answers at once, with what follows from codes and seed."""

    def transcribe(lm, codes, *, seed, **_):
        caption = f"{seed} {sum(codes)}"
        song = make_song(caption, "oh", "en", bpm=60 + seed % 100, key="C major", time_signature="4")
        return songs.Proposal(song, SimpleNamespace(text="<think>\ngenres: folk\n</think>"))

    monkeypatch.setattr(songs, "transcribe", transcribe)


def test_samples_get_labels_and_a_broken_one_is_named(three):
    seen = []
    done = label(three, on_label=lambda index, sample: seen.append((index, sample)))
    assert done.made == ("sung.wav", "plain 🎵.wav") and done.kept == done.passed == ()
    assert [name for name, _ in done.failed] == ["broken.wav"] and "not an audio file" in done.report()
    first, second, broken = done.dataset.samples
    assert seen == [(0, first), (1, second)] and broken == three.samples[2]
    assert first.labelled and first.caption and first.bpm == 84 and first.key and first.time_signature
    assert first.lyrics == "la la" and not first.instrumental
    assert second.labelled and second.caption and second.bpm and second.instrumental
    assert second.language == UNKNOWN_LANGUAGE and second.lyrics == ""


def test_asked_again_nothing_is_made_again(three, tmp_path, monkeypatch):
    kept = tmp_path / "deep" / "d.labels.jsonl"
    calls = counted(monkeypatch)
    first = label(three, kept=kept)
    assert len(calls) == 2
    monkeypatch.setattr(labels, "_listen", lambda sample, *_: labels.read(sample.path))  # only the broken one is heard
    again = label(three, kept=kept)
    assert len(calls) == 2 and again.dataset == first.dataset
    assert again.kept == first.made and again.made == () and again.failed == first.failed
    other = label(three, replace(QUICK, skip_metas=True, overwrite=True), kept=kept)
    assert len(calls) == 2 and other.dataset.samples[1].bpm is None and other.dataset.samples[1].caption


def test_another_seed_asks_again_but_listens_once(three, tmp_path, monkeypatch, fast):
    kept = tmp_path / "d.labels.jsonl"
    first = label(three, kept=kept)
    monkeypatch.setattr(labels, "_listen", lambda sample, *_: labels.read(sample.path))
    other = label(three, replace(QUICK, seed=7), kept=kept)
    assert other.made == first.made and other.dataset.samples[0].caption != first.dataset.samples[0].caption


def test_labelled_samples_are_passed_over(three, monkeypatch, fast):
    done = label(replace(three, samples=three.samples[:2]))
    assert [sample.genre for sample in done.dataset.samples] == ["folk", "folk"]
    calls = counted(monkeypatch)
    again = label(done.dataset)
    assert again.passed == ("sung.wav", "plain 🎵.wav") and again.dataset == done.dataset and not calls
    everything = label(done.dataset, replace(QUICK, only_unlabelled=False, seed=9))
    assert len(calls) == 2 and everything.dataset == done.dataset
    fresh = label(done.dataset, replace(QUICK, only_unlabelled=False, overwrite=True, seed=9)).dataset
    assert fresh.samples[0].caption != done.dataset.samples[0].caption and fresh.samples[0].lyrics == "la la"


@pytest.mark.parametrize("stop", range(1, 6))
def test_stopped_anywhere_it_goes_on_to_the_same_labels(three, tmp_path, monkeypatch, stop, fast):
    two = replace(three, samples=three.samples[:2])
    whole = label(two)
    calls, done = counted(monkeypatch), []
    answered = []

    def progress(step, total, text):
        if text.startswith(("listening", "labelling")) and step:
            done.append(text)

    host = Host(device="cpu", on_progress=progress, should_stop=lambda: len(done) >= stop)
    kept = tmp_path / "d.labels.jsonl"
    if stop > 4:
        assert label(two, kept=kept, host=host).dataset == whole.dataset
    else:
        with pytest.raises(Cancelled):
            label(two, kept=kept, host=host, on_label=lambda index, sample: answered.append(index))
    before = len(calls)
    assert before == max(0, min(stop, 4) - 2) and len(answered) == (before if stop <= 4 else 0)
    again = label(two, kept=kept)
    assert again.dataset == whole.dataset and len(calls) == 2 and len(again.kept) == before


def test_a_torn_or_strange_file_of_labels_does_no_harm(three, tmp_path, monkeypatch, fast):
    two = replace(three, samples=three.samples[:2])
    kept = tmp_path / "d.labels.jsonl"
    whole = label(two, kept=kept)
    raw = kept.read_bytes()
    kept.write_bytes(b'\xff\xfe\n[]\n{"key": 3}\n{"key": "x", "song": 3}\n' + raw[:-40])
    calls = counted(monkeypatch)
    assert label(two, kept=kept).dataset == whole.dataset and len(calls) == 1
    assert label(two, kept=kept).dataset == whole.dataset and len(calls) == 1
    lines = raw.split(b"\n")
    kept.write_bytes(
        b"\n".join(lines).replace(b'"codes": [', b'"codes": ["x", ').replace(b'"song": {', b'"song": {"x": 1, ')
    )
    assert label(two, kept=kept).dataset == whole.dataset and len(calls) == 3


def test_a_full_disk_is_said(three, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="cannot be written"):
        label(three, kept=tmp_path / "file" / "d.labels.jsonl")


def test_without_metas_a_caption_needs_no_planner(three, monkeypatch):
    with_caption = replace(three.samples[2], caption="jazz")
    calls = [counted(monkeypatch, name) for name in ("transcribe", "rewrite")]
    done = label(replace(three, samples=(with_caption,)), replace(QUICK, skip_metas=True))
    assert done.kept == ("broken.wav",) and done.dataset.samples[0] == replace(with_caption, labelled=True)
    assert calls == [[], []]


def test_lyrics_are_formatted_without_listening(three, monkeypatch):
    calls = counted(monkeypatch, "rewrite")
    sung = replace(three.samples[2], lyrics="la la", raw_lyrics="la la", instrumental=False, key="A minor")
    (made,) = label(replace(three, samples=(sung,)), replace(QUICK, format_lyrics=True)).dataset.samples
    assert len(calls) == 1 and made.labelled and made.caption and made.key == "A minor"
    assert made.raw_lyrics == "la la" and made.lyrics == made.formatted_lyrics != ""


def test_none_labelled_is_an_error(three):
    with pytest.raises(DatasetError, match="None of the 1 samples could be labelled:\nbroken.wav"):
        label(replace(three, samples=three.samples[2:]))
    assert label(Dataset()).report().startswith("0 labelled")


texts = st.sampled_from(["", "old", "new"])
flags = st.booleans()


@settings(deadline=None, max_examples=200)
@given(texts, texts, st.none() | st.just(90), st.none() | st.just(120), texts, texts, flags, flags, flags, flags)
def test_what_is_known_stays(caption, heard, bpm, heard_bpm, lyrics, sung, instrumental, overwrite, skip, transcribe):
    sample = make_sample(
        "a", "/a", caption=caption, bpm=bpm, lyrics=lyrics, raw_lyrics=lyrics, instrumental=instrumental, key="A minor"
    )
    answer = Label(make_song(heard, sung, "en", bpm=heard_bpm, key="C major"), "folk")
    chosen = LabelSettings(overwrite=overwrite, skip_metas=skip, transcribe_lyrics=transcribe)
    made = merged(sample, answer, chosen)
    assert made.labelled and made.genre == "folk" and made.raw_lyrics == lyrics
    assert made.caption == ((heard or caption) if overwrite else (caption or heard))
    assert made.bpm == (bpm if skip else (heard_bpm or bpm) if overwrite else (bpm or heard_bpm))
    assert made.key == ("C major" if overwrite and not skip else "A minor")
    if instrumental:
        assert made.silent and made.lyrics == lyrics and made.language == UNKNOWN_LANGUAGE
    else:
        assert made.lyrics == ((sung or lyrics) if transcribe else (lyrics or sung))
        assert made.silent == (not made.lyrics)
