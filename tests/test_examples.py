"""The example recordings: complete, in agreement with what is said of them, and what the tool makes."""

import json
import runpy

import numpy as np
import pytest
import torch

from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.mixing import mix
from acestep_graph.acestep_core.song import make_song
from acestep_graph.acestep_core.tasks.instructions import TRACKS
from acestep_graph.acestep_core.training.scan import scan
from acestep_graph.nodes.examples import ASSETS, ExampleAudio
from tests.pack import ROOT

ABOUT = json.loads((ASSETS / "example-mix.json").read_text("utf-8"))
FILES = {entry["file"]: entry for entry in ABOUT["files"]}
STEMS = [entry["title"] for entry in ABOUT["files"] if entry["track"]]


@pytest.fixture(scope="module")
def recordings():
    return {title: ExampleAudio().load(title)[0] for title in (entry["title"] for entry in ABOUT["files"])}


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(ROOT / "tools" / "compose_example.py"), run_name="tool")


def levels(sound):
    return sound["waveform"].square().mean().sqrt().item()


def test_the_list_and_the_folder_agree():
    assert {path.name for path in ASSETS.glob("example*.flac")} == set(FILES)
    assert len({entry["title"] for entry in FILES.values()}) == len(FILES)
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 5_000_000


def test_as_songs_to_learn_from_every_file_is_used():
    found = scan(ASSETS)
    assert len(found.dataset.samples) == len(FILES) and not found.refused and not found.remarks
    assert all(sample.labelled for sample in found.dataset.samples)


def test_the_description_is_a_song(tool):
    fields = {name: ABOUT[name] for name in ("caption", "lyrics", "language", "bpm", "key", "time_signature")}
    song = make_song(**fields, instrumental=False, duration=-1)
    assert (song.bpm, song.key, song.time_signature) == (120, "D major", "4")
    assert {entry["track"] for entry in FILES.values() if entry["track"]} <= set(TRACKS)
    silence = {
        file.removeprefix("example-").removesuffix(".flac"): np.zeros((2, round(entry["seconds"] * 48000)))
        for file, entry in FILES.items()
    }
    assert tool["description"](silence) == ABOUT


def test_every_recording_is_48_khz_stereo_of_the_length_stated(recordings):
    for entry in FILES.values():
        sound = recordings[entry["title"]]
        assert sound["sample_rate"] == ABOUT["sample_rate"] == 48000
        assert sound["waveform"].shape == (1, 2, entry["seconds"] * 48000) and sound["waveform"].dtype == torch.float32


def test_the_stems_add_up_to_the_mix_without_clipping(recordings):
    mixed, _ = mix([(recordings[title]["waveform"], 48000, 0.0) for title in STEMS])
    assert torch.equal(mixed, recordings["Full mix"]["waveform"])
    assert all(sound["waveform"].abs().max() < 0.99 for sound in recordings.values())


def test_every_stem_is_heard(recordings):
    loudness = [levels(recordings[title]) for title in STEMS]
    assert len(loudness) == 6 and max(loudness) < 10 * min(loudness)


@pytest.mark.parametrize("name", ["drums", "reference"])
def test_the_tool_makes_the_same_samples(tool, name):
    made = (tool["STEMS"].get(name) or tool[name])()
    kept, _ = audio.read(ASSETS / f"example-{name}.flac")
    assert np.array_equal(made, (kept * 32768).numpy())


def test_tempo_and_key_are_as_stated(recordings):
    """Onsets repeat with the beat (autocorrelation of the spectral flux); the notes fit D major (Krumhansl)."""
    sound = recordings["Full mix"]["waveform"][0].mean(dim=0)
    hop = 240
    spectrum = torch.stft(sound, 2048, hop, window=torch.hann_window(2048), return_complex=True).abs().sqrt()
    onsets = spectrum.diff(dim=1).clamp_min(0).sum(dim=0)
    onsets = onsets - onsets.mean()
    repeats = torch.fft.irfft(torch.fft.rfft(onsets, 8192).abs() ** 2)
    slow, fast = round(60 / 75 * 48000 / hop), round(60 / 180 * 48000 / hop)
    lag = fast + repeats[fast:slow].argmax().item()
    before, at, after = repeats[lag - 1 : lag + 2].tolist()
    lag += 0.5 * (before - after) / (before - 2 * at + after)
    assert abs(60 * 48000 / hop / lag / ABOUT["bpm"] - 1) < 0.01

    power = torch.stft(sound, 16384, 4800, window=torch.hann_window(16384), return_complex=True).abs().square()
    hertz = torch.arange(power.shape[0]) * 48000 / 16384
    heard = (hertz > 100) & (hertz < 2000)
    notes = (12 * (hertz[heard] / 440).log2() + 69).round().long() % 12
    chroma = torch.zeros(12).index_add(0, notes, power[heard].sum(dim=1)).sqrt().numpy()
    major = [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88]
    minor = [6.33, 2.68, 3.52, 5.38, 2.6, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17]
    names = "C C# D D# E F F# G G# A A# B".split()
    fits = {
        f"{name} {mode}": np.corrcoef(np.roll(profile, i), chroma)[0, 1]
        for i, name in enumerate(names)
        for mode, profile in (("major", major), ("minor", minor))
    }
    assert max(fits, key=fits.get) == ABOUT["key"]


# -- the node


def test_the_node_offers_every_title_and_says_where_ones_own_sound_goes():
    (kind, options) = ExampleAudio.INPUT_TYPES()["required"]["recording"]
    assert kind == "COMBO" and options["options"] == [entry["title"] for entry in FILES.values()]
    assert "Load Audio" in ExampleAudio.DESCRIPTION and "this project" in ExampleAudio.DESCRIPTION
