"""Preprocessing: what is learnt is what inference hears, nothing is made twice, nothing done is lost."""

import json
import math
import os
import weakref
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest
import torch

from acestep_graph.acestep_core import audio, codec
from acestep_graph.acestep_core.checkpoints.handles import Autoencoder
from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.memory.recovery import OutOfMemory
from acestep_graph.acestep_core.models.oobleck import OobleckVAE
from acestep_graph.acestep_core.song import edited, make_song
from acestep_graph.acestep_core.tasks import text2music
from acestep_graph.acestep_core.tasks.reference import encode_reference
from acestep_graph.acestep_core.training import preprocess as pre
from acestep_graph.acestep_core.training.items import ItemError, load_item
from acestep_graph.acestep_core.training.preprocess import PreprocessSettings, Recording
from tests import models, tiny

SONGS = {
    "tide.wav": make_song("hrbrtape, slow folk", "[Verse]\nGrey boats", "en", bpm=84, key="D major", time_signature=4),
    "live/Tide 🌊.wav": make_song("hrbrtape, live take", instrumental=True),
    "long.wav": make_song("hrbrtape, drone", "[Verse]\nLeave a light on\n\n[Chorus]\nOn", "de", duration=300),
}
SECONDS = {"tide.wav": 10.5, "live/Tide 🌊.wav": 6.0, "long.wav": 13.0}
SETTINGS = PreprocessSettings(max_seconds=11, tile=128)


@cache
def narrow_vae():
    """The published structure with next to no channels: every test encodes half a minute."""
    config = replace(tiny.VAE, encoder_base_channels=1, channel_multiples=(1, 1, 1, 1, 1), decoder_channels=1)
    return Autoencoder(tiny.randomize(OobleckVAE(config), 3), models.vae().report)


@pytest.fixture
def songs(tmp_path):
    return [Recording(name, tone(tmp_path / "songs" / name, SECONDS[name]), song) for name, song in SONGS.items()]


def tone(path, seconds, level=0.3, rate=48000):
    at = torch.arange(round(seconds * rate)) / rate
    pitch = 110 + 10 * len(path.name)
    audio.write(path, level * torch.sin(2 * math.pi * pitch * at * (1 + at / 40))[None], rate)
    return path


def run(songs, folder, settings=SETTINGS, host=None, model=None, **more):
    host = host or Host(device="cpu")
    return pre.preprocess(
        songs,
        folder,
        model or models.diffusion(),
        models.text_encoder(),
        narrow_vae(),
        settings,
        host=host,
        **more,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stamps(folder):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}


def replaced(songs, index, **changes):
    return [replace(song, **changes) if at == index else song for at, song in enumerate(songs)]


def inferred(song, seconds, reference=None):
    asked = edited(song, duration=seconds)
    batch = text2music.prepare(models.diffusion(), models.text_encoder(), asked, reference=reference)
    return batch.items[0]


# -- what inference hears


def test_the_conditions_are_those_of_inference(songs, tmp_path):
    items = pre.load_folder(run(songs, tmp_path / "out").folder)
    assert [item.name for item in items] == list(SONGS)
    for item in (items[0], items[2]):
        there = inferred(SONGS[item.name], int(item.seconds))
        torch.testing.assert_close(item.conditions, there.conditions.sequence[0], rtol=0, atol=1e-6)
        assert item.about["prompt"] == there.prompt.text
        assert item.about["lyric_prompt"] == there.prompt.lyrics
        assert item.context is None  # silence and ones, which is what inference starts from:
        silence = models.diffusion().silence[: item.latents.shape[0]]
        frames = there.conditions.context.shape[1]
        assert torch.equal(there.conditions.context[0, :, :64], silence[:frames])
        assert bool((there.conditions.context[..., 64:] == 1).all())


def test_own_timbre_is_that_of_a_reference(songs, tmp_path):
    chosen = replace(SETTINGS, timbre="own")
    item = pre.load_folder(run(songs[:1], tmp_path / "out", chosen).folder)[0]
    clip = pre.read_audio(songs[0].path, chosen.max_seconds)
    reference = encode_reference(narrow_vae(), [clip], pre.song_seed(chosen.seed, "tide.wav"))
    there = inferred(SONGS["tide.wav"], 10, reference).conditions.sequence[0]
    torch.testing.assert_close(item.conditions, there, rtol=0, atol=1e-6)
    plain = inferred(SONGS["tide.wav"], 10).conditions.sequence[0]
    assert float((item.conditions - plain).abs().max()) > 1e-4


def test_the_prompt_says_the_length_of_what_is_stored(songs, tmp_path):
    items = pre.load_folder(run(songs, tmp_path / "out").folder)
    assert [item.latents.shape[0] for item in items] == [262, 150, 275]
    for item, seconds in zip(items, (10, 6, 11), strict=True):
        assert f"- duration: {seconds} seconds\n" in item.about["prompt"]
        assert item.about["seconds"] == seconds
    assert items[1].about["lyric_prompt"] == "# Languages\nunknown\n\n# Lyric\n[Instrumental]<|endoftext|>"


def test_latents_are_seeded_draws_around_the_mean(songs, tmp_path):
    first = pre.load_folder(run(songs[:1], tmp_path / "a").folder)[0].latents
    other = pre.load_folder(run(songs[:1], tmp_path / "b", replace(SETTINGS, seed=7)).folder)[0].latents
    mean = codec.encode(narrow_vae(), pre.read_audio(songs[0].path, 11)[None], chunk=128)[0]
    assert not torch.equal(first, other)
    assert first.shape == other.shape == mean.shape
    sound = pre.read_audio(songs[0].path, 11)[None]
    noise = codec.drawn(narrow_vae(), sound, torch.Generator().manual_seed(pre.song_seed(42, "tide.wav")))
    assert torch.equal(first, codec.encode(narrow_vae(), sound, noise=noise, chunk=SETTINGS.tile)[0])


# -- the same again, and only what changed


def test_the_same_seed_gives_the_same_bytes(songs, tmp_path):
    run(songs, tmp_path / "a")
    run(list(reversed(songs)), tmp_path / "b")
    left, right = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {k: v for k, v in left.items() if k != pre.MANIFEST} == {k: v for k, v in right.items() if k != pre.MANIFEST}
    assert len(left) == 4


def test_a_second_run_does_nothing(songs, tmp_path):
    first = run(songs, tmp_path / "out")
    before = stamps(tmp_path / "out")
    host = Host(device="cpu", on_progress=lambda *_: pytest.fail("there is nothing to do"))
    second = run(songs, tmp_path / "out", host=host)
    assert stamps(tmp_path / "out") == before
    assert (first.made, first.kept) == (tuple(SONGS), ())
    assert (second.made, second.kept, second.files) == ((), tuple(SONGS), first.files)


@pytest.mark.parametrize("given", [(11, 11.0), (11.0, 11)])
def test_whole_seconds_are_seconds(songs, tmp_path, given):
    """The terminal's 11 and the canvas's 11.0 make the same tensors, which those of the canvas always were."""
    one, other = (replace(SETTINGS, max_seconds=seconds) for seconds in given)
    run(songs[:1], tmp_path / "out", one)
    assert run(songs[:1], tmp_path / "out", other).made == ()
    assert json.dumps(asdict(one)) == '{"max_seconds": 11.0, "seed": 42, "timbre": "silence", "tile": 128}'
    assert json.dumps(asdict(PreprocessSettings())).startswith('{"max_seconds": 240.0, ')


def test_overwrite_makes_everything_again(songs, tmp_path):
    run(songs, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert run(songs, tmp_path / "out", overwrite=True).made == tuple(SONGS)
    assert contents(tmp_path / "out") == before


def test_another_caption_redoes_the_words_of_one_song(songs, tmp_path, monkeypatch):
    first = run(songs, tmp_path / "out")
    before, old = stamps(tmp_path / "out"), load_item(first.files[0])
    monkeypatch.setattr(pre, "read_audio", lambda *_: pytest.fail("the sound did not change"))
    changed = replaced(songs, 0, song=edited(songs[0].song, caption="hrbrtape, fast polka"))
    second = run(changed, tmp_path / "out")
    assert (second.made, second.kept) == (("tide.wav",), tuple(SONGS)[1:])
    after = stamps(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} == {first.files[0].name, pre.MANIFEST}
    fresh = load_item(second.files[0])
    assert torch.equal(fresh.latents, old.latents)
    assert not torch.equal(fresh.conditions[-40:], old.conditions[-40:])
    assert "fast polka" in fresh.about["prompt"]


def test_changed_audio_settings_and_models_redo(songs, tmp_path):
    run(songs, tmp_path / "out")
    tone(songs[1].path, 7.0)
    assert run(songs, tmp_path / "out").made == ("live/Tide 🌊.wav",)
    assert run(songs, tmp_path / "out", replace(SETTINGS, seed=1)).made == tuple(SONGS)
    chosen = replace(SETTINGS, seed=1)
    assert run(songs, tmp_path / "out", chosen, model=models.diffusion("base")).made == tuple(SONGS)
    assert run(songs, tmp_path / "out", chosen, model=models.diffusion("base")).made == ()
    assert run(replaced(songs, 2, repeat=3), tmp_path / "out", chosen, model=models.diffusion("base")).made == (
        "long.wav",
    )
    assert load_item(tmp_path / "out" / pre.file_name("long.wav")).repeat == 3


def test_a_touched_file_is_made_again_with_the_same_tensors(songs, tmp_path):
    first = run(songs[:1], tmp_path / "out").files[0]
    before = load_item(first)
    os.utime(songs[0].path, (1, 1))
    assert run(songs[:1], tmp_path / "out").made == ("tide.wav",)
    assert torch.equal(load_item(first).latents, before.latents)


def test_a_damaged_item_is_made_again(songs, tmp_path):
    done = run(songs, tmp_path / "out")
    whole = done.files[1].read_bytes()
    done.files[1].write_bytes(whole[:-7])
    assert run(songs, tmp_path / "out").made == ("live/Tide 🌊.wav",)
    assert done.files[1].read_bytes() == whole


# -- stopping


class Stops(Host):
    """Asks to stop as soon as ``text`` shows up in the progress."""

    def __init__(self, text):
        super().__init__(device="cpu", on_progress=self.look, should_stop=lambda: self.stop)
        self.text, self.stop = text, False

    def look(self, done, total, text):
        self.stop = self.stop or self.text in text


@pytest.mark.parametrize("where", ["encoding songs: 2/3", "encoding words: 1/3", "encoding words: 2/3"])
def test_stopping_keeps_what_is_done(songs, tmp_path, where, monkeypatch):
    with pytest.raises(Cancelled):
        run(songs, tmp_path / "out", host=Stops(where))
    finished = len(json.loads((tmp_path / "out" / pre.MANIFEST).read_text("utf-8"))["items"])
    assert finished == {"encoding songs: 2/3": 0, "encoding words: 1/3": 1, "encoding words: 2/3": 2}[where]
    heard, original = [], pre.read_audio
    monkeypatch.setattr(pre, "read_audio", lambda path, seconds: heard.append(path) or original(path, seconds))
    second = run(songs, tmp_path / "out")
    assert len(heard) == (1 if "songs: 2/3" in where else 0)
    assert len(second.kept) == finished
    run(songs, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / "out" / pre.PARTS).exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="asks Linux what is mapped")
def test_no_file_is_deleted_or_replaced_while_it_is_mapped(songs, tmp_path, monkeypatch):
    """Windows refuses to."""
    seen = []

    def watched(owner, name):
        real = getattr(owner, name)

        def act(path, *more, **options):
            with open("/proc/self/maps") as mapped:
                seen.append(str(more[0] if more else path) in mapped.read())
            return real(path, *more, **options)

        monkeypatch.setattr(owner, name, act)

    watched(Path, "unlink")
    watched(os, "replace")
    run(songs[:2], tmp_path / "out")
    run([replace(songs[0], song=edited(songs[0].song, caption="hrbrtape, fast folk")), songs[1]], tmp_path / "out")
    assert len(seen) > 4 and not any(seen)


def test_stopping_within_a_song_leaves_no_debris(songs, tmp_path):
    with pytest.raises(Cancelled):
        run(songs, tmp_path / "out", host=Stops("encoding: 1/3 windows"))
    assert set(contents(tmp_path / "out")) == {pre.MANIFEST}


def test_a_full_disk_stops_and_keeps_what_is_done(songs, tmp_path, monkeypatch):
    original, calls = pre.save_item, []

    def full(item, path):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return original(item, path)

    monkeypatch.setattr(pre, "save_item", full)
    with pytest.raises(OSError, match="No space"):
        run(songs, tmp_path / "out")
    monkeypatch.setattr(pre, "save_item", original)
    second = run(songs, tmp_path / "out")
    assert (second.kept, second.failed) == (("tide.wav",), ())


def test_out_of_memory_says_what_to_do(songs, tmp_path, monkeypatch):
    def none_left(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pre.codec, "encode", none_left)
    with pytest.raises(OutOfMemory, match="memory for preprocessing"):
        run(songs, tmp_path / "out")


# -- memory


def test_the_autoencoder_leaves_before_the_encoders_come_and_the_decoder_never_comes(songs, tmp_path):
    events, known, alive = [], [], []

    class Watching(Host):
        def prepare(self, module, component, activation_bytes=0):
            events.append((component, sum(p.numel() for p in module.parameters())))
            known.append(weakref.ref(module))
            return super().prepare(module, component, activation_bytes)

        def make_room(self):
            events.append(("room", 0))
            alive.append(all(module() is not None for module in known))
            super().make_room()

    run(songs, tmp_path / "out", host=Watching(device="cpu"))
    kinds = [kind for kind, _ in events]
    between = kinds.index("room")
    assert set(kinds[:between]) == {"vae"}
    assert set(kinds[between + 1 : -1]) == {"text", "dit"}
    assert kinds[-1] == "room"
    assert alive == [True, True]  # a host can only send home what is still there
    module = models.diffusion().module
    alone = sum(p.numel() for p in module.encoder.parameters()) + module.null_condition_emb.numel()
    assert {size for kind, size in events if kind == "dit"} == {alone}


def test_weights_stay_as_they_are(songs, tmp_path):
    before = {name: tensor.clone() for name, tensor in models.diffusion().module.state_dict().items()}
    run(songs[:1], tmp_path / "out")
    after = models.diffusion().module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# -- what cannot be used


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(songs, tmp_path):
    folder = tmp_path / "songs"
    (folder / "empty.mp3").write_bytes(b"")
    (folder / "text.flac").write_text("no music")
    audio.write(folder / "whole.wav", torch.full((1, 480_000), 0.1), 48000, sample_format="f32")
    (folder / "cut.wav").write_bytes((folder / "whole.wav").read_bytes()[:1_500_000])
    half = tone(folder / "whole16.wav", 10.0).read_bytes()[:600_000]
    (folder / "cut16.wav").write_bytes(half)
    tone(folder / "short.wav", 2.0)
    tone(folder / "silent.wav", 8.0, level=0.0)
    reasons = {
        "empty.mp3": "is empty",
        "text.flac": "text.flac ",
        "cut.wav": "is cut off",
        "cut16.wav": "cut16.wav is cut off: 6.25 of 10.00 s are there.",
        "short.wav": "it lasts 2.00 s; the model needs at least 5.12 s",
        "silent.wav": "silent from end to end",
        "gone.wav": "cannot be opened",
    }
    bad = [Recording(name, folder / name, make_song("x")) for name in reasons]
    host = Host(device="cpu")
    done = run([*bad[:3], *songs, *bad[3:]], tmp_path / "out", host=host)
    assert done.made == tuple(SONGS)
    assert [name for name, _ in done.failed] == list(reasons)
    for name, reason in done.failed:
        assert reasons[name] in reason
        assert any(name in note and reasons[name] in note for note in host.notes)
        assert f"Not used: {name}: " in done.text()
    listed = json.loads((tmp_path / "out" / pre.MANIFEST).read_text("utf-8"))
    assert [entry["name"] for entry in listed["failed"]] == list(reasons)


def test_no_usable_song_is_an_error_with_the_reasons(tmp_path):
    (tmp_path / "text.wav").write_text("no music")
    bad = [Recording(name, tmp_path / name, make_song("x")) for name in ("text.wav", "gone.wav")]
    with pytest.raises(pre.PreprocessError, match=r"None of the 2.*\ntext.wav: .*\ngone.wav: .*opened"):
        run(bad, tmp_path / "out")
    with pytest.raises(pre.PreprocessError, match="no recordings"):
        run([], tmp_path / "out")
    with pytest.raises(ItemError, match="no training items"):
        pre.load_folder(tmp_path / "out")


def test_a_song_that_broke_is_no_longer_learnt(songs, tmp_path):
    run(songs, tmp_path / "out")
    songs[0].path.write_text("no music")
    done = run(songs, tmp_path / "out")
    assert [name for name, _ in done.failed] == ["tide.wav"]
    assert [item.name for item in pre.load_folder(done.folder)] == list(SONGS)[1:]


def test_a_song_that_left_the_data_set_is_no_longer_learnt(songs, tmp_path):
    run(songs, tmp_path / "out")
    done = run(songs[1:], tmp_path / "out")
    assert [item.name for item in pre.load_folder(done.folder)] == list(SONGS)[1:]
    assert any("1 items in the folder" in note for note in done.notes)


def test_numbers_that_are_none_are_named(songs, tmp_path, monkeypatch):
    monkeypatch.setattr(pre.codec, "encode", lambda *_, **__: torch.full((1, 262, 64), math.nan))
    with pytest.raises(pre.PreprocessError, match="no numbers"):
        run(songs[:1], tmp_path / "out")


def test_names_make_files(songs, tmp_path):
    names = ["a/x.wav", "b/x.wav", "x.wav", "x.mp3", "🌊.wav", "海.wav", "../x.wav", "C:\\x.wav", "n" * 300 + ".wav"]
    files = [pre.file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(len(file) < 70 and file.isascii() and "/" not in file and "\\" not in file for file in files)
    with pytest.raises(pre.PreprocessError, match="share a file"):
        run([songs[0], songs[0]], tmp_path / "out")


@pytest.mark.parametrize(
    "changes",
    [{"max_seconds": 5}, {"max_seconds": 601}, {"max_seconds": math.nan}, {"seed": -1}, {"seed": 1.5}, {"tile": 10},
     {"tile": True}, {"timbre": "zeros"}],
)  # fmt: skip
def test_settings_say_what_is_allowed(changes):
    with pytest.raises(pre.PreprocessError, match=f"{next(iter(changes))} is .*allowed is"):
        PreprocessSettings(**changes)


@pytest.mark.parametrize("repeat", [0, 1001, True, 1.5])
def test_repeat_is_checked_before_work(songs, tmp_path, repeat):
    with pytest.raises(pre.PreprocessError, match="repeat is"):
        run(replaced(songs, 0, repeat=repeat), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_its_list_is_read_by_name(songs, tmp_path):
    done = run(songs, tmp_path / "out")
    (tmp_path / "out" / pre.MANIFEST).write_text("[]")
    assert {item.name for item in pre.load_folder(done.folder)} == set(SONGS)
    run(songs, tmp_path / "out")
    done.files[0].unlink()
    with pytest.raises(ItemError, match="is missing in out"):
        pre.load_folder(done.folder)


def test_lyrics_that_are_too_long_are_said(songs, tmp_path):
    wordy = edited(songs[0].song, lyrics="la li lu " * 1200)
    done = run(replaced(songs[:1], 0, song=wordy), tmp_path / "out")
    assert any("tide.wav: The lyrics are too long" in note for note in done.notes)
