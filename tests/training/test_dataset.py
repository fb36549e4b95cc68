"""Data sets as values: edits, tags and genres, prompts; the published file there and back."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import host as hosts
from acestep_graph.acestep_core.song import KEYS, LANGUAGES, TIME_SIGNATURES, make_song
from acestep_graph.acestep_core.tasks import text2music
from acestep_graph.acestep_core.training import dataset_file, wording
from acestep_graph.acestep_core.training.dataset import (
    PROMPTS,
    TAG_POSITIONS,
    Dataset,
    DatasetError,
    configured,
    edited,
    make_sample,
    parse_edits,
    with_edits,
)
from acestep_graph.nodes.dataset import LoadDataset
from tests import models

QUICK = settings(deadline=None, max_examples=60)
words = st.text(max_size=20) | st.sampled_from(["rain 🌧", "[Instrumental]", "ça va", "a\r\nb", "N/A", "  "])
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
extras = st.dictionaries(st.sampled_from(["x_artist", "colour", "日本"]), plain_json, max_size=2)


@st.composite
def samples(draw, number):
    return make_sample(
        f"ordner {draw(st.integers(0, 2))}/{number} 🎵.flac",
        Path("/music") / f"{number}.flac",
        id=draw(st.sampled_from(["", f"{number:08x}"])),
        caption=draw(words),
        genre=draw(words),
        lyrics=draw(words),
        raw_lyrics=draw(words),
        formatted_lyrics=draw(words),
        language=draw(st.sampled_from(LANGUAGES)),
        instrumental=draw(st.booleans()),
        bpm=draw(st.none() | st.integers(30, 300)),
        key=draw(st.sampled_from(["", *KEYS])),
        time_signature=draw(st.sampled_from(["", *TIME_SIGNATURES])),
        duration=draw(st.integers(0, 700) | st.floats(0, 700)),
        tag=draw(st.sampled_from(["", "own tag"])),
        prompt=draw(st.sampled_from(PROMPTS)),
        labelled=draw(st.booleans()),
        repeat=draw(st.integers(1, 9)),
        extra=draw(extras),
    )


@st.composite
def datasets(draw, least=1):
    count = draw(st.integers(least, 5))
    return Dataset(
        name=draw(st.text(max_size=8)),
        samples=tuple(draw(samples(number)) for number in range(count)),
        tag=draw(st.sampled_from(["", "hrbrtape", "タグ"])),
        tag_position=draw(st.sampled_from(TAG_POSITIONS)),
        all_instrumental=draw(st.booleans()),
        genre_ratio=draw(st.integers(0, 100)),
        created="2026-05-02T10:15:00",
        extra=draw(extras),
    )


def one(**values):
    return Dataset(samples=(make_sample("a.flac", "/music/a.flac", labelled=True, duration=12.5, **values),))


# -- words


@QUICK
@given(words, words, st.sampled_from(TAG_POSITIONS))
def test_tags_take_their_place(text, tag, position):
    made = wording.tagged(text, tag, position)
    text, tag = text.strip(), tag.strip()
    if not tag:
        assert made == text
    elif not text or position == "replace":
        assert made == tag
    else:
        assert made == {"prepend": f"{tag}, {text}", "append": f"{text}, {tag}"}[position]


@QUICK
@given(datasets(), st.integers(0, 99))
def test_the_genre_set_has_its_share_and_follows_from_the_seed(dataset, seed):
    chosen = wording.genre_names(dataset, seed)
    assert chosen == wording.genre_names(dataset, seed) <= {sample.name for sample in dataset.labelled}
    assert len(chosen) == len(dataset.labelled) * dataset.genre_ratio // 100


def test_the_genre_set_is_the_originals():
    """Python's own generator with seed 42 over ten samples gives this order: 7 3 2 8 5 6 9 4 0 1."""
    several = tuple(make_sample(f"{n}", f"/{n}", labelled=True) for n in range(10))
    assert wording.genre_names(Dataset(samples=several, genre_ratio=30)) == {"7", "3", "2"}
    assert wording.genre_names(Dataset(samples=several, genre_ratio=39)) == {"7", "3", "2"}


@QUICK
@given(datasets())
def test_the_caption_is_made_of_what_was_chosen(dataset):
    genres = wording.genre_names(dataset)
    for index, sample in enumerate(dataset.samples):
        by_genre = sample.prompt == "genre" or (sample.prompt == "" and sample.name in genres)
        text = sample.genre if by_genre and sample.genre.strip() else sample.caption
        expected = wording.tagged(text, sample.tag or dataset.tag, dataset.tag_position)
        assert wording.caption_of(dataset, index) == wording.song_of(dataset, index).caption == expected


@QUICK
@given(datasets())
def test_songs_of_samples_are_songs_as_anyone_makes_them(dataset):
    for index in range(len(dataset)):
        song = wording.song_of(dataset, index)
        fields = {**vars(song)}
        assert make_song(**fields) == song
        prompts = wording.prompts_of(dataset, index)
        assert prompts.text.endswith(" seconds\n<|endoftext|>\n") and prompts.lyrics.endswith("<|endoftext|>")
        if dataset.samples[index].silent:
            assert prompts.lyrics == "# Languages\nunknown\n\n# Lyric\n[Instrumental]<|endoftext|>"


def test_the_prompts_letter_for_letter():
    dataset = configured(
        one(caption="slow folk", lyrics="[Verse]\nGrey boats", instrumental=False, language="en", bpm=84, key="Dm"),
        tag="hrbrtape",
    )
    prompts = wording.prompts_of(dataset, 0)
    assert prompts.text == (
        "# Instruction\nFill the audio semantic mask based on the given conditions:\n\n"
        "# Caption\nhrbrtape, slow folk\n\n"
        "# Metas\n- bpm: 84\n- timesignature: N/A\n- keyscale: D minor\n- duration: 12 seconds\n<|endoftext|>\n"
    )
    assert prompts.lyrics == "# Languages\nen\n\n# Lyric\n[Verse]\nGrey boats<|endoftext|>"
    assert "duration: 10 seconds" in wording.prompts_of(dataset, 0, max_seconds=10).text


@pytest.mark.parametrize("lyrics", ["", "[Verse]\nla la"])
def test_the_prompts_are_those_of_inference(lyrics):
    dataset = one(caption="calm piano", lyrics=lyrics, instrumental=not lyrics, language="fr", bpm=90)
    song = replace(wording.song_of(dataset, 0), duration=dataset.samples[0].duration)
    made = text2music.prepare(models.diffusion(), models.text_encoder(), song).items[0].prompt
    prompts = wording.prompts_of(dataset, 0)
    assert (made.text, made.lyrics) == (prompts.text, prompts.lyrics)


def test_only_labelled_samples_are_learned_from():
    ready = one(caption="jazz", repeat=3)
    dataset = replace(ready, samples=(*ready.samples, make_sample("b.flac", "/music/b.flac", caption="no")), tag="x")
    (recording,) = wording.recordings(dataset)
    assert (recording.name, recording.song.caption, recording.repeat) == ("a.flac", "x, jazz", 3)
    assert recording.song.sung == "[Instrumental]" and recording.path == Path("/music/a.flac")
    with pytest.raises(DatasetError, match="None of the 1 samples is labelled"):
        wording.recordings(replace(dataset, samples=dataset.samples[1:]))


# -- edits


def test_edits_give_new_values():
    dataset = one()
    changed = with_edits(dataset, parse_edits('{"#1": {"bpm": "90", "key": "am", "lyrics": "la"}}'))
    assert dataset == one() and changed.samples[0].bpm == 90 and changed.samples[0].key == "A minor"
    assert not changed.samples[0].instrumental and changed.samples[0].raw_lyrics == ""
    assert edited(changed.samples[0], instrumental=True).lyrics == "la"
    assert with_edits(dataset, {}) == dataset and parse_edits("  ") == {}
    new = make_sample("b", "/b")
    assert edited(new, caption="jazz").labelled and not edited(new, caption="jazz", labelled=False).labelled


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"#2": {"bpm": 90}}, "no sample '#2'"),
        ({"b.flac": {"bpm": 90}}, "no sample 'b.flac'"),
        ({"#1": {"bpm": 9000}}, "a.flac: bpm is 9000; allowed is 30 to 300"),
        ({"#1": {"bpm": True}}, "bpm is True"),
        ({"#1": {"key": "H major"}}, "key is 'H major'"),
        ({"#1": {"language": "klingon"}}, "language is 'klingon'"),
        ({"#1": {"time_signature": "9/8"}}, "time signature is"),
        ({"#1": {"caption": 3}}, "caption is 3; it must be text"),
        ({"#1": {"instrumental": "maybe"}}, "instrumental is 'maybe'"),
        ({"#1": {"prompt": "both"}}, "prompt is 'both'"),
        ({"#1": {"prompt": []}}, "prompt is"),
        ({"#1": {"repeat": 0}}, "1 to 1000"),
        ({"#1": {"duration": 10}}, "'duration' cannot be edited"),
        ({"#1": {"raw_lyrics": "x"}}, "cannot be edited"),
        ({"#1": 90}, "must be fields and values"),
    ],
)
def test_wrong_edits_are_answered(edits, said):
    with pytest.raises(DatasetError, match=said.replace("(", r"\(")):
        with_edits(one(), edits)


@pytest.mark.parametrize("text", ["{", "[]", '{"#1": 3}', "[" * 100_000])
def test_edits_that_are_none_are_answered(text):
    with pytest.raises(DatasetError, match="edits"):
        parse_edits(text)


def test_a_sample_is_found_by_number_id_name_or_file():
    two = (make_sample("x/a.flac", "/x/a.flac", id="11111111"), make_sample("y/a.flac", "/y/a.flac"))
    dataset = Dataset(samples=two)
    assert [dataset.index_of(which) for which in (1, "#2", "y/a.flac", "11111111")] == [1, 1, 1, 0]
    with pytest.raises(DatasetError, match="Several samples"):
        dataset.index_of("a.flac")


def test_settings_of_the_data_set_reach_the_samples():
    found = make_sample("a", "/a", lyrics="la", raw_lyrics="la", instrumental=False, tag="old")
    dataset = Dataset(samples=(found, make_sample("b", "/b", instrumental=False)), all_instrumental=False)
    changed = configured(dataset, all_instrumental=True, tag=" new ", tag_position="append", genre_ratio=20)
    assert [sample.instrumental for sample in changed.samples] == [False, True]
    assert changed.tag == "new" and changed.samples[0].tag == "" and changed.genre_ratio == 20
    assert not configured(changed, all_instrumental=False).samples[1].instrumental


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tag_position": "middle"}, "prepend, append, replace"),
        ({"genre_ratio": 101}, "0 to 100"),
        ({"genre_ratio": 0.5}, "whole number"),
        ({"all_instrumental": "yes"}, "true or false"),
        ({"name": 3}, "text"),
        ({"samples": (make_sample("a", "/a"), make_sample("a", "/b"))}, "name 'a'"),
        ({"samples": (make_sample("a", "/a", id="1"), make_sample("b", "/b", id="1"))}, "id '1'"),
    ],
)
def test_wrong_data_sets_are_answered(values, said):
    with pytest.raises(DatasetError, match=said):
        Dataset(**values)


def test_the_table_tells_every_sample():
    dataset = with_edits(one(), {"#1": {"bpm": 90, "key": "Am", "caption": "slow\nfolk"}})
    head, row = dataset.table().split("\n")
    assert head.split() == ["#", "file", "length", "lyrics", "labelled", "bpm", "key", "caption"]
    assert row.split() == ["1", "a.flac", "0:12", "instrumental", "yes", "90", "A", "minor", "slow", "folk"]


# -- the file


@QUICK
@given(datasets())
def test_the_file_comes_back_as_it_was(tmp_path_factory, dataset):
    path = tmp_path_factory.mktemp("file") / "d.json"
    dataset_file.save(dataset, path)
    back = dataset_file.load(path).dataset
    assert back == dataset
    assert dataset_file.as_json(back) == json.loads(path.read_text("utf-8"))


PUBLISHED = {
    "metadata": {
        **{"name": "harbour_tapes", "custom_tag": "hrbrtape", "tag_position": "append"},
        **{"created_at": "2026-05-02T10:15:00", "num_samples": 1, "all_instrumental": False, "genre_ratio": 0},
    },
    "samples": [
        {
            **{"id": "3fa1c09b", "audio_path": "audio/tide_01.flac", "filename": "tide_01.flac"},
            **{"caption": "slow tape-worn folk", "genre": "folk, lo-fi", "lyrics": "[Verse]\nGrey boats"},
            **{"raw_lyrics": "Grey boats", "formatted_lyrics": "", "bpm": 84, "keyscale": "D major"},
            **{"timesignature": "4", "duration": 172, "language": "en", "is_instrumental": False},
            **{"custom_tag": "hrbrtape", "labeled": True, "prompt_override": None},
        }
    ],
}


def load_json(folder, data, name="d.json"):
    (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return dataset_file.load(folder / name)


def test_the_published_file_is_read_and_written(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "tide_01.flac").write_bytes(b"x")
    found = load_json(tmp_path, PUBLISHED)
    assert not found.refused and not found.remarks
    (sample,) = found.dataset.samples
    assert sample.path == tmp_path / "audio" / "tide_01.flac" and sample.tag == "" and sample.key == "D major"
    assert wording.caption_of(found.dataset, 0) == "slow tape-worn folk, hrbrtape"
    dataset_file.save(found.dataset, tmp_path / "e.json", relative=True)
    back = json.loads((tmp_path / "e.json").read_text("utf-8"))
    assert back == {**PUBLISHED, "samples": [{**PUBLISHED["samples"][0], "name": "tide_01.flac"}]}


def test_other_forms_are_read(tmp_path):
    entry = {"path": "a.wav", "tempo": 90, "key": "Am", "vocal_language": "de", "labelled": True, "caption": "x"}
    (tmp_path / "a.wav").write_bytes(b"x")
    bare = load_json(tmp_path, [entry]).dataset
    lone = load_json(tmp_path, {"samples": [entry], "version": 7}).dataset
    assert bare.samples == lone.samples and bare.name == "d"
    assert (bare.samples[0].bpm, bare.samples[0].key, bare.samples[0].language) == (90, "A minor", "de")
    assert dataset_file.as_json(lone)["version"] == 7


@pytest.mark.parametrize(
    ("more", "labelled"),
    [
        ({"caption": "slow folk"}, True),
        ({"caption": "slow folk", "labeled": None}, True),
        ({"caption": "slow folk", "labeled": False}, False),
        ({"caption": "  "}, False),
        ({}, False),
        ({"labeled": True}, True),
    ],
)
def test_a_caption_labels_a_sample_unless_the_file_says_otherwise(tmp_path, more, labelled):
    (tmp_path / "a.wav").write_bytes(b"x")
    (sample,) = load_json(tmp_path, [{"audio_path": "a.wav", "lyrics": "la", **more}]).dataset.samples
    assert sample.labelled == labelled


def test_load_dataset_notices_what_becomes_of_recordings(tmp_path):
    """Put back, replaced by one of another length or of another time, moved beside the file, taken away."""
    entries = [{"audio_path": "songs/a.wav"}, {"audio_path": "C:\\songs\\b.wav"}, {"bpm": 3}, 7]
    (tmp_path / "d.json").write_text(json.dumps({"samples": entries}))
    (tmp_path / "songs").mkdir()
    song = tmp_path / "songs" / "a.wav"
    marks = []

    def look():
        with hosts.use(hosts.Host(input=tmp_path, output=tmp_path, device="cpu")):
            marks.append(LoadDataset.IS_CHANGED(file=str(tmp_path / "d.json")))
            assert marks[-1] == LoadDataset.IS_CHANGED(file=str(tmp_path / "d.json"))

    look()
    song.write_bytes(b"one")
    look()
    song.write_bytes(b"another")
    os.utime(song, (5, 5))
    look()
    os.utime(song, (6, 6))
    look()
    (tmp_path / "b.wav").write_bytes(b"b")
    look()
    (tmp_path / "d.json").write_text(json.dumps({"samples": entries[:1]}))
    look()
    song.unlink()
    look()
    (tmp_path / "d.json").write_text("{")
    look()
    assert len(set(marks)) == len(marks) == 8


def test_windows_files_with_marks_and_moved_songs_are_read(tmp_path):
    (tmp_path / "tide 🌊.wav").write_bytes(b"x")
    text = json.dumps([{"audio_path": "C:\\Music\\tide 🌊.wav"}, {"audio_path": "D:\\gone.wav"}])
    (tmp_path / "d.json").write_text(text, encoding="utf-8-sig")
    found = dataset_file.load(tmp_path / "d.json")
    assert found.dataset.samples[0].path == tmp_path / "tide 🌊.wav" and len(found.dataset) == 2
    assert "beside the data set" in found.remarks[0][1] and "put it back" in found.remarks[1][1]


@pytest.mark.parametrize("stored", ["sub/a.wav", "sub\\a.wav", "sub/../sub/a.wav"])
def test_paths_start_from_the_file_whatever_their_separators(tmp_path, stored):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.wav").write_bytes(b"x")
    found = load_json(tmp_path, [{"audio_path": stored}])
    assert found.dataset.samples[0].path == tmp_path / "sub" / "a.wav" and not found.remarks


def test_equal_names_and_ids_do_not_collide(tmp_path):
    entries = [{"id": "1", "audio_path": f"{folder}/a.wav"} for folder in ("x", "y", "z")]
    dataset = load_json(tmp_path, entries).dataset
    assert [sample.name for sample in dataset.samples] == ["a.wav", "a.wav (2)", "a.wav (3)"]
    assert [sample.id for sample in dataset.samples] == ["1", "", ""]


def test_wrong_types_are_answered_sample_by_sample(tmp_path):
    bad = {
        **{"audio_path": "a.wav", "bpm": "fast", "keyscale": 5, "timesignature": "9", "duration": "long"},
        **{"language": ["en"], "is_instrumental": "maybe", "caption": {}, "labeled": 2, "prompt_override": "both"},
        **{"repeat": -1, "id": "../../x", "lyrics": 4},
    }
    metadata = {"name": 4, "tag_position": "middle", "genre_ratio": 400, "all_instrumental": [], "custom_tag": None}
    found = load_json(tmp_path, {"metadata": metadata, "samples": [bad, 3, {"bpm": 90}, {"audio_path": 7}, None]})
    assert len(found.dataset) == 1 and found.dataset.samples[0].id == ""
    said = [text for name, text in found.remarks if name == "a.wav"]
    assert len(said) == len(bad)
    assert [name for name, _ in found.refused] == ["sample 2", "sample 3", "sample 4", "sample 5"]
    assert len([name for name, _ in found.remarks if name == "d.json"]) == 4
    assert "sample 2" in found.report() and "bpm is 'fast'" in found.report()


@QUICK
@given(st.lists(plain_json | st.dictionaries(st.sampled_from(list(PUBLISHED["samples"][0])), plain_json), max_size=4))
def test_any_json_is_read_or_answered(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("any")
    try:
        found = load_json(folder, {"metadata": entries[0] if entries else None, "samples": entries})
    except DatasetError:
        return
    assert len(found.dataset) + len(found.refused) == len(entries)
    dataset_file.save(found.dataset, folder / "again.json")
    assert dataset_file.load(folder / "again.json").dataset.samples == found.dataset.samples


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"samples": 4}', b"\xff\xfe", b"[" * 100_000, b"7"])
def test_files_that_are_no_data_set_are_answered(tmp_path, content):
    (tmp_path / "d.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"d\.json"):
        dataset_file.load(tmp_path / "d.json")
    with pytest.raises(DatasetError, match="cannot be opened"):
        dataset_file.load(tmp_path / "none.json")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = dataset_file.save(one(caption="old"), tmp_path / "d.json")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_file.os, "fsync", full)
    with pytest.raises(DatasetError, match="No space left"):
        dataset_file.save(one(caption="new"), path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["d.json"]
