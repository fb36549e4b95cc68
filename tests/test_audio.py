import json
import math

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.audio import AudioError

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tone(channels=2, seconds=0.5, rate=48000, frequency=440.0):
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    rows = [0.5 * torch.sin(2 * math.pi * frequency * (i + 1) * time) for i in range(channels)]
    return torch.stack(rows).float()


def ffmpeg_tags(path):
    import av

    with av.open(str(path)) as container:
        return {**container.metadata, **container.streams.audio[0].metadata}


# -- files


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_files_come_back_to_16_bit(tmp_path, name, channels):
    wave = tone(channels, rate=44100)
    assert audio.write(tmp_path / name, wave, 44100) == 44100
    back, rate = audio.read(tmp_path / name)
    assert (rate, back.dtype, back.shape) == (44100, torch.float32, wave.shape)
    assert (back - wave).abs().max() <= 1 / 2**15
    assert soundfile.info(tmp_path / name).subtype == "PCM_16"


def test_float_wav_is_exact_and_not_clamped(tmp_path):
    wave = tone() * 3
    audio.write(tmp_path / "a.wav", wave, 48000, sample_format="f32")
    assert torch.equal(audio.read(tmp_path / "a.wav")[0], wave)


def test_16_bit_clamps(tmp_path):
    audio.write(tmp_path / "a.wav", tone() * 3, 48000)
    assert audio.read(tmp_path / "a.wav")[0].abs().max() <= 1


@pytest.mark.parametrize(
    ("name", "quality"),
    [("a.mp3", q) for q in audio.QUALITIES["mp3"]] + [("a.opus", q) for q in ("64k", "192k", "320k")],
)
def test_lossy_files_sound_alike(tmp_path, name, quality):
    wave = tone(seconds=1.0)
    audio.write(tmp_path / name, wave, 48000, quality=quality)
    back, rate = audio.read(tmp_path / name)
    assert rate == 48000 and back.shape[0] == 2 and abs(back.shape[1] - 48000) < 2500
    spectrum = torch.fft.rfft(back[0, 8000:40000]).abs()
    assert abs(int(spectrum.argmax()) * 1.5 - 440) < 4


def test_bit_rate_follows_quality(tmp_path):
    wave = torch.rand(2, 96000) - 0.5
    sizes = []
    for quality in ("128k", "192k", "256k", "320k"):
        audio.write(tmp_path / "a.mp3", wave, 48000, quality=quality)
        sizes.append((tmp_path / "a.mp3").stat().st_size)
    assert sizes == sorted(sizes) and sizes[-1] > 2 * sizes[0]


@pytest.mark.parametrize(
    ("name", "rate", "expected"), [("a.opus", 44100, 48000), ("a.opus", 24000, 24000), ("a.mp3", 96000, 48000)]
)
def test_rates_a_format_does_not_take_become_48k(tmp_path, name, rate, expected):
    assert audio.write(tmp_path / name, tone(rate=rate), rate) == expected
    assert abs(audio.read(tmp_path / name)[0].shape[1] / audio.read(tmp_path / name)[1] - 0.5) < 0.06


def test_mono_opus_at_the_highest_quality(tmp_path):
    audio.write(tmp_path / "a.opus", tone(1), 48000, quality="320k")
    assert audio.read(tmp_path / "a.opus")[0].shape[0] == 1


@pytest.mark.parametrize(
    ("subtype", "step"), [("PCM_U8", 2**-7), ("PCM_24", 2**-23), ("PCM_32", 2**-23), ("DOUBLE", 2**-24)]
)
def test_reads_any_sample_format(tmp_path, subtype, step):
    wave = tone(3, rate=22050)
    soundfile.write(tmp_path / "a.wav", wave.T.numpy(), 22050, subtype=subtype)
    back, rate = audio.read(tmp_path / "a.wav")
    assert rate == 22050 and back.shape == wave.shape
    assert (back - wave).abs().max() <= step


def test_reads_a_part(tmp_path):
    wave = torch.linspace(-1, 1, 48000)[None]
    audio.write(tmp_path / "a.wav", wave, 48000, sample_format="f32")
    part, _ = audio.read(tmp_path / "a.wav", start=0.25, seconds=0.5)
    assert torch.equal(part, wave[:, 12000:36000])
    rest, _ = audio.read(tmp_path / "a.wav", start=0.9, seconds=5)
    assert torch.equal(rest, wave[:, 43200:])
    with pytest.raises(AudioError, match=r"lasts 1\.00 s"):
        audio.read(tmp_path / "a.wav", start=2)


def test_a_wav_is_whole_where_its_header_promises_no_more(tmp_path):
    """Sizes of 0 and of all ones are those of programs that do not know the end when they begin."""
    audio.write(tmp_path / "a.wav", torch.rand(2, 4800) - 0.5, 48000)
    content = (tmp_path / "a.wav").read_bytes()
    at = content.index(b"data") + 4
    size = int.from_bytes(content[at : at + 4], "little")
    for promised, share in ((size, 1.0), (0, 1.0), (2**32 - 1, 1.0), (size // 2, 1.0), (size * 4, 0.25)):
        (tmp_path / "a.wav").write_bytes(content[:at] + promised.to_bytes(4, "little") + content[at + 4 :])
        assert audio.share_of_wav(tmp_path / "a.wav") == share
        if share == 1:
            assert audio.read(tmp_path / "a.wav")[0].shape[1] > 0
    with pytest.raises(AudioError, match=r"cut off: 0\.10 of 0\.40 s"):
        audio.read(tmp_path / "a.wav")
    assert audio.read(tmp_path / "a.wav", seconds=0.05)[0].shape == (2, 2400)
    for other in (b"", b"RIFF", b"RIFF1234WAVE", b"OggS" + bytes(60)):
        (tmp_path / "b.wav").write_bytes(other)
        assert audio.share_of_wav(tmp_path / "b.wav") == 1.0


def test_bad_files_are_answered_in_words(tmp_path):
    audio.write(tmp_path / "whole.wav", tone(), 48000, sample_format="f32")
    audio.write(tmp_path / "whole.flac", torch.rand(2, 48000), 48000)
    (tmp_path / "text.wav").write_text("not music at all\n" * 50)
    (tmp_path / "empty.mp3").write_bytes(b"")
    (tmp_path / "header.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:44])
    (tmp_path / "half.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:30000])
    audio.write(tmp_path / "whole16.wav", torch.rand(2, 48000) - 0.5, 48000)
    (tmp_path / "half16.wav").write_bytes((tmp_path / "whole16.wav").read_bytes()[:100_000])
    (tmp_path / "half.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:60000])
    (tmp_path / "list.wav").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'whole.wav'}\n")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{tmp_path / 'whole.wav'}\n")
    expected = {
        "text.wav": "not an audio file",
        "empty.mp3": "is empty",
        "header.wav": "not an audio file|no sound",
        "half.wav": "cut off",
        "half16.wav": r"half16\.wav is cut off: 0\.\d\d of 1\.00 s are there",
        "half.flac": "damaged",
        "list.wav": "not an audio file",
        "list.m3u8": "not an audio file",
        "nowhere.wav": "no file",
        ".": "not a file",
    }
    for name, words in expected.items():
        with pytest.raises(AudioError, match=words):
            audio.read(tmp_path / name)


def test_a_video_without_sound_has_no_audio_track(tmp_path):
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no audio track"):
        audio.read(tmp_path / "a.mkv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.ogg", tone(), 48000), r"\.flac"),
        (("a.wav", tone()[None], 48000), "shape"),
        (("a.wav", tone(6), 48000), "6 channels"),
        (("a.wav", torch.zeros(2, 0), 48000), "no samples"),
        (("a.wav", tone() * math.nan, 48000), "NaN"),
        (("a.wav", tone().int(), 48000), "floating"),
        (("a.wav", tone(), 0), "sample rate"),
        (("a.wav", tone(), 44100.5), "sample rate"),
    ],
)
def test_write_refuses(tmp_path, arguments, words):
    with pytest.raises(AudioError, match=words):
        audio.write(tmp_path / arguments[0], *arguments[1:])
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_unknown_qualities(tmp_path):
    with pytest.raises(AudioError, match="V0, 128k"):
        audio.write(tmp_path / "a.mp3", tone(), 48000, quality="64k")
    with pytest.raises(AudioError, match="s16, f32"):
        audio.write(tmp_path / "a.wav", tone(), 48000, sample_format="s24")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    audio.write(tmp_path / "a.flac", tone(), 48000)
    before = (tmp_path / "a.flac").read_bytes()
    monkeypatch.setattr(audio.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        audio.write(tmp_path / "a.flac", tone(1), 48000)
    assert [p.name for p in tmp_path.iterdir()] == ["a.flac"] and (tmp_path / "a.flac").read_bytes() == before


# -- tags

WORKFLOW = {"nodes": [{"id": 1, "widgets_values": ['日本語 \u0000 "quoted"\n', 1.5]}]}


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.opus"])
def test_tags_are_where_comfyui_looks(tmp_path, name):
    tags = {"workflow": json.dumps(WORKFLOW, ensure_ascii=False), "prompt": json.dumps({"1": {}}), "title": "夜"}
    audio.write(tmp_path / name, tone(), 48000, tags=tags)
    found = ffmpeg_tags(tmp_path / name)
    assert json.loads(found["workflow"]) == WORKFLOW and found["workflow"].isascii()
    assert json.loads(found["prompt"]) == {"1": {}} and found["title"] == "夜"
    assert audio.read_tags(tmp_path / name)["title"] == "夜"
    if name == "a.mp3":
        head = (tmp_path / name).read_bytes()
        at = head.index(b"workflow\0") + len(b"workflow\0")
        assert json.loads(head[at : head.index(b"\0", at)].decode("ascii")) == WORKFLOW
        assert at < head.index(b"\xff\xfb")


def test_wav_keeps_all_tags(tmp_path):
    tags = {"workflow": json.dumps(WORKFLOW), "title": "Song", "comment": "hello"}
    audio.write(tmp_path / "a.wav", tone(), 48000, tags=tags)
    back = audio.read_tags(tmp_path / "a.wav")
    assert {key: back[key] for key in tags} == tags


@QUICK
@given(st.dictionaries(st.sampled_from(["workflow", "prompt", "title", "lyrics"]), st.text(max_size=40), max_size=4))
def test_any_text_can_be_a_tag(tmp_path, tags):
    audio.write(tmp_path / "a.flac", tone(1, 0.02), 48000, tags=tags)
    back = audio.read_tags(tmp_path / "a.flac")
    for key, text in tags.items():
        stored = text.replace("\0", "").encode("utf-8", "replace").decode()
        assert back.get(key, "") == stored


# -- resampling

RATES = [(22050, 48000), (44100, 48000), (96000, 48000), (48000, 44100), (8000, 48000), (48000, 8000), (32000, 44100)]


@pytest.mark.parametrize(("rate", "to"), RATES)
@pytest.mark.parametrize("length", [1, 5001])
def test_resampling_equals_torchaudio(rate, to, length):
    reference = pytest.importorskip("torchaudio").functional.resample
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        wave = torch.rand(2, 3, length, dtype=dtype) * 2 - 1
        ours, theirs = audio.resample(wave, rate, to), reference(wave, rate, to)
        assert ours.shape == theirs.shape and ours.dtype == dtype
        assert (ours - theirs).abs().max() <= tolerance


def test_resampling_between_coprime_rates_keeps_a_tone():
    wave = tone(1, 0.5, 44101)
    ours = audio.resample(wave, 44101, 48000)
    assert (ours - tone(1, 0.5, 48000))[0, 100:-100].abs().max() < 2e-3


@QUICK
@given(st.integers(1, 4000), st.sampled_from([8000, 11025, 44100, 48000]), st.sampled_from([8000, 22050, 44100, 48000]))
def test_resampled_length_is_rounded_up(length, rate, to):
    assert audio.resample(torch.zeros(length), rate, to).shape[-1] == -(-length * to // rate)


def test_up_and_down_again_is_the_same_sound():
    wave = tone(2, 0.5, 24000)
    back = audio.resample(audio.resample(wave, 24000, 48000), 48000, 24000)
    assert (back - wave)[:, 200:-200].abs().max() < 1e-3


@QUICK
@given(st.integers(1, 3), st.integers(1, 3000), st.sampled_from(["wav", "flac"]), st.integers(0, 2**31))
def test_write_then_read_round_trip(tmp_path, channels, length, suffix, seed):
    wave = torch.rand(min(channels, 2), length, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    audio.write(tmp_path / f"a.{suffix}", wave, 48000)
    back, _ = audio.read(tmp_path / f"a.{suffix}")
    assert back.shape == wave.shape and (back - wave).abs().max() <= 1.01 / 2**15


# -- channels, loudness, the model's form


def test_stereo():
    mono, eight = torch.rand(1, 1, 5), torch.rand(8, 5)
    assert torch.equal(audio.to_stereo(mono), mono.repeat(1, 2, 1))
    assert torch.equal(audio.to_stereo(eight), eight[:2])


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("rate", [22050, 48000, 96000])
def test_for_model(channels, rate):
    wave = torch.rand(3, channels, rate // 10) * 4 - 2
    before = wave.clone()
    ready = audio.for_model({"waveform": wave, "sample_rate": rate})
    assert ready.shape == (3, 2, 4800) and ready.dtype == torch.float32 and ready.abs().max() <= 1
    ready.zero_()
    assert torch.equal(wave, before)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {},
        {"waveform": torch.zeros(1, 2, 9)},
        {"waveform": torch.zeros(2, 9), "sample_rate": 48000},
        {"waveform": [0.0], "sample_rate": 48000},
        {"waveform": torch.zeros(1, 2, 0), "sample_rate": 48000},
        {"waveform": torch.zeros(1, 0, 9), "sample_rate": 48000},
        {"waveform": torch.zeros(1, 2, 9), "sample_rate": 0},
        {"waveform": torch.zeros(1, 2, 9), "sample_rate": "fast"},
        {"waveform": torch.zeros(1, 2, 9), "sample_rate": True},
        {"waveform": torch.full((1, 2, 9), math.inf), "sample_rate": 48000},
        {"waveform": torch.zeros(1, 2, 9, dtype=torch.int16), "sample_rate": 48000},
    ],
)
def test_for_model_refuses(bad):
    with pytest.raises(AudioError):
        audio.for_model(bad)


def test_peaks_are_per_item():
    wave = torch.stack([tone() * 4, tone() * 0.5, tone() * 0])
    limited = audio.limit_peak(wave)
    assert limited[0].abs().max() == pytest.approx(1) and torch.equal(limited[1:], wave[1:])
    normal = audio.normalize_peak(wave, -6.0)
    assert [round(float(item.abs().max()), 4) for item in normal] == [0.5012, 0.5012, 0.0]


def test_fades_are_linear():
    faded = audio.fade(torch.ones(1, 2, 100), 100, 0.11, 0.2)
    assert np.allclose(faded[0, 0, :11], np.linspace(0, 1, 11)) and np.allclose(faded[0, 1, 80:], np.linspace(1, 0, 20))
    assert torch.equal(faded[..., 11:80], torch.ones(1, 2, 69))
    assert audio.fade(torch.ones(2, 10), 100, 5, 5).max() < 1
    assert torch.equal(audio.fade(torch.ones(2, 10), 100), torch.ones(2, 10))
