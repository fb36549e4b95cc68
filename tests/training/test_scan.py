"""A real folder: all formats, broken files, odd names; what lies beside songs; tables."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.training import dataset_file, measure, sidecars
from acestep_graph.acestep_core.training.dataset import DatasetError
from acestep_graph.acestep_core.training.scan import natural, scan

HOST = Host(device="cpu")


def sound(path, seconds=6.0, rate=16000, channels=2, codec=None, form=None):
    """A recording in the format of its name, made by FFmpeg or libsndfile alone."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).uniform(-0.2, 0.2, (round(seconds * rate), channels)).astype("float32")
    if codec is None:
        soundfile.write(path, noise, rate, format=form)
        return path
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo" if channels == 2 else "mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(noise.T), format="fltp", layout=stream.layout.name)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path, share):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("songs")
    for name in ("01 intro.wav", "2.wav", "10.wav", "a/take.wav", "b/take.wav", "b/take.flac", "SHOUT.WAV"):
        sound(root / name)
    sound(root / "a" / "deep" / "er" / "übung.flac")
    sound(root / "🎵 song 日本語.flac", channels=1, rate=44100)
    sound(root / "eight.wav", channels=8)
    sound(root / "long.wav", seconds=720, rate=8000, channels=1)
    sound(root / "ten.ogg", seconds=10)
    for name in ("one.mp3", "broken tags.mp3"):
        sound(root / name, codec="libmp3lame", form="mp3")
    tags = root / "broken tags.mp3"
    tags.write_bytes(
        b"ID3\x04\x00\x00\x00\x00\x00\x14TIT2\x7f\xff\xff\xff\x00\x00\xff\xfe\xff\xff\xff\xff" + tags.read_bytes()
    )
    sound(root / "two.opus", codec="libopus", rate=48000, form="opus")
    sound(root / "three.m4a", codec="aac", form="ipod")
    sound(root / "four.aac", codec="aac", form="adts")
    cut(sound(root / "half.mp3", codec="libmp3lame", form="mp3", seconds=20), 0.5)

    (root / "empty.mp3").write_bytes(b"")
    (root / "text.wav").write_text("this is no sound\n" * 20)
    cut(sound(root / "cut.wav"), 0.5)
    cut(sound(root / "cut.flac"), 0.5)
    (root / "noise.ogg").write_bytes(random.Random(1).randbytes(5000))
    sound(root / "short.flac", seconds=1)
    sound(root / "none.wav", seconds=0)
    (root / "picture.mp3").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (root / "gone.wav").symlink_to(root / "nowhere.wav")
    (root / "loop").symlink_to(root / "a")
    (root / "old.wma").write_bytes(b"x" * 100)
    (root / ".hidden.wav").write_bytes(b"x")
    (root / "._2.wav").write_bytes(b"x")
    (root / ".git").mkdir()
    (root / ".git" / "c.wav").write_bytes(b"x")
    (root / "cover.jpg").write_bytes(b"x")
    (root / "misspelt.txt").write_text("la la")
    return root


REFUSED = {
    "empty.mp3": "is empty",
    "text.wav": "not an audio file",
    "cut.wav": "is cut off: 3.00 of 6.00 s",
    "cut.flac": "cut off|damaged",
    "noise.ogg": "not an audio file",
    "short.flac": "lasts 1.00 s; at least 5.12 s",
    "none.wav": "no sound|not an audio file",
    "picture.mp3": "not an audio file|no audio track|damaged|no sound",
    "gone.wav": "no file",
    "loop": "read already",
    "old.wma": "convert it",
}
USED = (
    *("01 intro.wav", "2.wav", "10.wav", "a/deep/er/übung.flac", "a/take.wav", "b/take.flac", "b/take.wav"),
    *("broken tags.mp3", "eight.wav", "four.aac", "half.mp3", "long.wav", "one.mp3", "SHOUT.WAV", "ten.ogg"),
    *("three.m4a", "two.opus", "🎵 song 日本語.flac"),
)


def test_every_file_of_a_real_folder_is_used_or_named(folder):
    found = scan(folder, tag="x", host=HOST)
    assert tuple(sample.name for sample in found.dataset.samples) == USED
    refused = dict(found.refused)
    assert refused.keys() == REFUSED.keys() and len(found.refused) == len(REFUSED)
    for name, words in REFUSED.items():
        assert any(word in refused[name] for word in words.split("|")), (name, refused[name])
    said = found.report()
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        shown = "/".join(parts)
        if not path.is_dir() and not any(part.startswith(".") for part in parts):
            assert shown in USED or shown in said, shown
    assert "of its 8 channels the first two are heard" in said and "misspelt.txt" in said
    assert ".hidden" not in said and ".git" not in said


def test_lengths_are_those_of_the_sound(folder):
    lengths = {sample.name: sample.duration for sample in scan(folder, host=HOST).dataset.samples}
    assert lengths["long.wav"] == 720 and lengths["a/take.wav"] == lengths["b/take.flac"] == 6
    assert abs(lengths["ten.ogg"] - 10) < 0.1 and 9 < lengths["half.mp3"] < 11
    for name in ("one.mp3", "two.opus", "three.m4a", "four.aac", "broken tags.mp3"):
        assert abs(lengths[name] - 6) < 0.2, name


def test_scanning_again_gives_the_same_and_the_file_keeps_it(folder, tmp_path):
    first, second = scan(folder, host=HOST).dataset, scan(folder, host=HOST).dataset
    assert first == second and len({sample.id for sample in first.samples}) == len(USED)
    back = dataset_file.load(dataset_file.save(first, tmp_path / "d.json"))
    assert back.dataset.samples == first.samples and not back.remarks


def test_nothing_usable_is_an_error_with_reasons(tmp_path):
    with pytest.raises(DatasetError, match="There are no songs"):
        scan(tmp_path, host=HOST)
    (tmp_path / "empty.mp3").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(DatasetError, match="None of the 2 files") as caught:
        scan(tmp_path, host=HOST)
    assert "empty.mp3: empty.mp3 is empty" in str(caught.value) and "text.wav" in str(caught.value)
    for wrong in (tmp_path / "none", tmp_path / "text.wav"):
        with pytest.raises(DatasetError, match="no folder"):
            scan(wrong)


def test_wrong_settings_are_answered_before_reading(folder):
    with pytest.raises(DatasetError, match="prepend, append, replace"):
        scan(folder, tag_position="middle")


def test_it_stops_when_asked(folder):
    with pytest.raises(Cancelled):
        scan(folder, host=Host(device="cpu", should_stop=lambda: True))


def test_a_name_that_is_no_text_is_named(tmp_path):
    sound(tmp_path / "a.wav")
    try:
        Path(bytes(tmp_path).decode() + "/\udcff.wav").write_bytes(b"x")
    except OSError:
        pytest.skip("this file system keeps only valid names")
    found = scan(tmp_path, host=HOST)
    assert found.refused == (("?.wav", "its name is not valid text on this system; rename it."),)
    found.report().encode()


def test_what_is_longer_than_any_song_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "LONGEST", 5.5)
    sound(tmp_path / "a.wav")
    with pytest.raises(DatasetError, match="cut it into songs"):
        scan(tmp_path, host=HOST)


@settings(deadline=None)
@given(st.lists(st.text("abAB019٣²é/. ", min_size=1, max_size=8), max_size=8))
def test_the_order_is_natural_and_whole(names):
    assert sorted(names, key=natural) == sorted(reversed(names), key=natural)
    assert sorted(["b/1", "a10", "a9", "a/2", "B", "a"], key=natural) == ["a", "a/2", "a9", "a10", "B", "b/1"]


# -- beside songs


def told(tmp_path, files, name="song.wav", **options):
    sound(tmp_path / name)
    for file, content in files.items():
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = scan(tmp_path, host=HOST, **options)
    return found.dataset.samples[0], dict(found.remarks)


def test_lyrics_make_a_song_sung(tmp_path):
    sample, remarks = told(tmp_path, {"song.lyrics.txt": "[Verse]\r\nla la\r\n", "song.txt": "other"})
    assert sample.lyrics == sample.raw_lyrics == "[Verse]\nla la\n" and not sample.instrumental and not sample.labelled
    assert remarks == {}


def test_a_plain_text_is_lyrics(tmp_path):
    sample, _ = told(tmp_path, {"song.txt": "\ufeffGrey boats\n\nbpm: 90 is what I sing"})
    assert sample.lyrics == "Grey boats\n\nbpm: 90 is what I sing" and sample.bpm is None


def test_a_text_of_fields_is_fields(tmp_path):
    text = "# mine\ncaption: slow folk\ntempo: 84\nscale: d minor\nsig: 3/4\nlang: EN\ntrigger: tape\nrepeat: 2\n"
    sample, remarks = told(tmp_path, {"song.txt": text + "colour: red\nlyrics:\n[Verse]\nla: la\n\nla\n"})
    assert (sample.caption, sample.bpm, sample.key, sample.time_signature) == ("slow folk", 84, "D minor", "3")
    assert (sample.language, sample.tag, sample.repeat, sample.lyrics) == ("en", "tape", 2, "[Verse]\nla: la\n\nla")
    assert sample.labelled and not sample.instrumental and remarks == {}


def test_a_text_with_marks_is_fields(tmp_path):
    text = "<CAPTION>slow\nfolk</CAPTION>\n<LYRICS>\nla\n</LYRICS>\n<BPM>84</BPM>"
    sample, _ = told(tmp_path, {"song.txt": text})
    assert (sample.caption, sample.lyrics, sample.bpm) == ("slow\nfolk", "la", 84)


def test_later_sources_win(tmp_path):
    files = {
        "song.txt": "caption: one\nbpm: 81\nkey: C major\ngenre: folk",
        "song.caption.txt": "two",
        "song.json": '{"caption": "three", "bpm": 83, "keyscale": "Dm", "language": "fr"}',
        "list.csv": "File;BPM;Key;Artist\nsong.wav;84,5;F#m;somebody",
    }
    sample, remarks = told(tmp_path, files)
    assert (sample.caption, sample.bpm, sample.key, sample.genre) == ("three", 84, "F# minor", "folk")
    assert sample.language == "fr" and not sample.instrumental and sample.labelled and remarks == {}


def test_timed_lyrics_lose_their_stamps(tmp_path):
    text = "[ar:me]\n[00:01.00][Verse]\n[00:02.50]<00:02.50>Grey <00:03.00>boats\n"
    assert told(tmp_path, {"song.lrc": text})[0].lyrics == "[Verse]\nGrey boats"


def test_an_instrumental_says_so(tmp_path):
    assert told(tmp_path, {"song.json": '{"language": "instrumental"}'}, all_instrumental=False)[0].instrumental


@pytest.mark.parametrize(
    ("files", "named", "words"),
    [
        ({"song.json": "{"}, "song.wav, song.json", "no valid JSON"),
        ({"song.json": "[" * 100_000}, "song.wav, song.json", "no valid JSON"),
        ({"song.json": "[]"}, "song.wav, song.json", "no JSON object"),
        ({"song.json": '{"bpm": "fast"}'}, "song.wav, song.json", "bpm is 'fast'"),
        ({"song.json": '{"caption": 4}'}, "song.wav, song.json", "must be text"),
        ({"song.txt": b"caf\xe9"}, "song.wav, song.txt", "not UTF-8"),
        ({"song.txt": b"x" * 4_000_001}, "song.wav, song.txt", "4 MB"),
        ({"list.csv": "Name,BPM\nx,1"}, "list.csv", "no column File"),
        ({"list.csv": ""}, "list.csv", "no column File"),
        ({"list.csv": "File,BPM\nother.wav,90"}, "list.csv", "no song for other.wav"),
        ({"list.csv": "File,BPM\nsong.wav,fast"}, "song.wav, list.csv", "bpm is 'fast'"),
    ],
)
def test_what_cannot_be_used_is_named_and_the_song_stays(tmp_path, files, named, words):
    sample, remarks = told(tmp_path, files)
    assert sample.name == "song.wav" and sample.bpm is None and sample.caption == ""
    assert words in remarks[named]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_any_spreadsheet(tmp_path, encoding, delimiter):
    rows = [["file", "Key", "BPM", "Caption", "Camelot"], ["SONG 🎵.WAV", "8A", "93.7", f"a{delimiter} b", "8A"]]
    text = "\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    sample, remarks = told(tmp_path, {"list.csv": text.encode(encoding)}, name="song 🎵.wav")
    assert (sample.bpm, sample.caption, sample.labelled, sample.key) == (93, f"a{delimiter} b", True, "")
    assert "key is '8A'" in remarks["song 🎵.wav, list.csv"]


def test_equal_names_in_a_table_are_told_apart_by_their_path(tmp_path):
    sound(tmp_path / "a" / "t.wav")
    sound(tmp_path / "b" / "t.wav")
    (tmp_path / "l.csv").write_text("File,BPM\nb/t.wav,90\nt.wav,120\n")
    found = scan(tmp_path, host=HOST)
    assert [sample.bpm for sample in found.dataset.samples] == [None, 90]
    assert "could be a/t.wav and b/t.wav" in found.remarks[0][1]


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_fields_or_lyrics(text):
    for values in (sidecars.labels_or_lyrics(text), {"lyrics": sidecars.lyrics_of_lrc(text)}):
        assert all(isinstance(value, str) for value in values.values())
        assert set(values) <= set(sidecars.SYNONYMS.values())
