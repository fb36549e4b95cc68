"""The stand-ins for ComfyUI's core nodes."""

import json

import pytest
import torch

from acestep_graph import headless
from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.host import Host, use
from acestep_graph.headless.core_nodes import CORE_NODES, CORE_TITLES
from acestep_graph.headless.declared import declared_inputs, saved_widgets
from acestep_graph.headless.execute import NodeFailed
from acestep_graph.headless.graph import WorkflowError


@pytest.fixture
def host(tmp_path):
    (tmp_path / "input" / "more").mkdir(parents=True)
    (tmp_path / "secret.wav").write_bytes(b"")
    wave = torch.linspace(-0.5, 0.5, 22050).repeat(2, 1)
    audio.write(tmp_path / "input" / "song.wav", wave, 22050)
    audio.write(tmp_path / "input" / "more" / "deep.flac", wave[:1], 22050)
    (tmp_path / "input" / "notes.txt").write_text("hello")
    (tmp_path / "input" / "fake.mp3").write_text("hello")
    return Host(input=tmp_path / "input", output=tmp_path / "output")


def run(host, **nodes):
    data = {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()}
    return headless.run(data, host)


def saved(host, result, id="s"):
    folders = {"output": host.output, "temp": host.temp}
    return [folders[file["type"]] / file["subfolder"] / file["filename"] for file in result.ui[id]["audio"]]


def test_every_stand_in_is_declared_and_titled(host):
    assert set(CORE_NODES) == set(CORE_TITLES)
    with use(host):
        for cls in CORE_NODES.values():
            assert callable(getattr(cls, cls.FUNCTION)) and isinstance(cls.RETURN_TYPES, tuple)
            widgets = [input for input in declared_inputs(cls).values() if input.is_widget]
            assert [input for input in saved_widgets(cls) if input] == widgets


def test_load_offers_media_files_and_finds_others(host):
    with use(host):
        assert declared_inputs(CORE_NODES["LoadAudio"])["audio"].choices == ("fake.mp3", "song.wav")
    for name, channels in (("song.wav", 2), ("more/deep.flac", 1), ("song.wav [input]", 2)):
        value = run(host, l=("LoadAudio", {"audio": name}), p=("PreviewAudio", {"audio": ["l", 0]})).outputs["l"][0][0]
        assert value["waveform"].shape == (1, channels, 22050) and value["sample_rate"] == 22050


@pytest.mark.parametrize("name", ["none.wav", "../secret.wav", "/etc/passwd", "../secret.wav [output]", "", 3])
def test_load_stays_in_its_folder(host, name):
    with pytest.raises(WorkflowError, match=r"Load Audio \(l\), input 'audio': there is no file .*fake.mp3, song.wav"):
        run(host, l=("LoadAudio", {"audio": name}), p=("PreviewAudio", {"audio": ["l", 0]}))


def test_load_tells_of_files_that_are_no_audio(host):
    with pytest.raises(NodeFailed, match=r"Load Audio \(l\): fake.mp3 is not an audio file"):
        run(host, l=("LoadAudio", {"audio": "fake.mp3"}), p=("PreviewAudio", {"audio": ["l", 0]}))


LOAD = ("LoadAudio", {"audio": "song.wav"})


@pytest.mark.parametrize(
    ("kind", "suffix", "widgets", "rate"),
    [
        ("SaveAudio", "flac", {}, 22050),
        ("SaveAudioMP3", "mp3", {"quality": "320k"}, 22050),
        ("SaveAudioOpus", "opus", {"quality": "96k"}, 48000),
    ],
)
def test_saving_counts_on_and_embeds_the_workflow(host, kind, suffix, widgets, rate):
    canvas = {
        "nodes": [
            {"id": 1, "type": "LoadAudio", "outputs": [{"type": "AUDIO"}], "widgets_values": ["song.wav", None, None]},
            {"id": 2, "type": kind, "inputs": [{"name": "audio", "type": "AUDIO", "link": 1}]},
        ],
        "links": [[1, 1, 0, 2, 0, "AUDIO"]],
    }
    canvas["nodes"][1]["widgets_values"] = ["a/song", *widgets.values()]
    for number in (1, 2):
        (path,) = saved(host, headless.run(canvas, host), "2")
        assert path == host.output / "a" / f"song_{number:05}_.{suffix}"
        tags = audio.read_tags(path)
        assert json.loads(tags["workflow"]) == canvas
        assert json.loads(tags["prompt"])["1"]["inputs"] == {"audio": "song.wav"}
    assert audio.read(path)[1] == rate


def test_saving_a_batch(host):
    class Batch:
        RETURN_TYPES, FUNCTION = ("AUDIO",), "run"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        def run(self):
            return ({"waveform": torch.rand(2, 6, 4800) - 0.5, "sample_rate": 48000},)

    data = {
        "b": {"class_type": "Batch", "inputs": {}},
        "s": {"class_type": "SaveAudio", "inputs": {"audio": ["b", 0], "filename_prefix": "take%batch_num%"}},
    }
    result = headless.run(data, host, table={**CORE_NODES, "Batch": Batch})
    assert [path.name for path in saved(host, result)] == ["take0_00001_.flac", "take1_00002_.flac"]
    assert audio.read(saved(host, result)[0])[0].shape[0] == 2
    assert any("6 channels" in note for note in host.notes)


def test_prefixes_cannot_leave_the_output_folder(host):
    with pytest.raises(NodeFailed, match="outside the output folder"):
        run(host, l=LOAD, s=("SaveAudio", {"audio": ["l", 0], "filename_prefix": "../x"}))


def test_previews_go_to_the_temp_folder(host):
    (path,) = saved(host, run(host, l=LOAD, s=("PreviewAudio", {"audio": ["l", 0]})))
    assert path.parent == host.temp and path.name.startswith("ComfyUI_temp_") and path.name.endswith("_00001_.flac")


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("PrimitiveInt", 3, "3"),
        ("PrimitiveFloat", 3, "3.0"),
        ("PrimitiveBoolean", True, "True"),
        ("PrimitiveString", "a", "a"),
        ("PrimitiveStringMultiline", "a\nb", "a\nb"),
    ],
)
def test_primitives_and_text(host, kind, value, text):
    result = run(host, p=(kind, {"value": value}), x=("PreviewAny", {"source": ["p", 0]}))
    assert result.ui["x"]["text"] == [text] and result.outputs["x"] == [[text]]


def test_any_value_shows_as_text(host):
    show = CORE_NODES["PreviewAny"]().show
    assert show({"a": [1]})["result"] == ('{\n    "a": [\n        1\n    ]\n}',)
    assert show(None)["result"] == ("None",) and "tensor" in show({"a": torch.zeros(1)})["result"][0]


@pytest.mark.parametrize(("start", "duration", "samples"), [(0.25, 0.5, 22050), (-0.5, 9, 22050), (9, 1, 1)])
def test_trim(host, start, duration, samples):
    result = run(
        host,
        e=("EmptyAudio", {"duration": 2.0, "sample_rate": 44100, "channels": 1}),
        t=("TrimAudioDuration", {"audio": ["e", 0], "start_index": start, "duration": duration}),
        s=("PreviewAudio", {"audio": ["t", 0]}),
    )
    assert result.outputs["t"][0][0]["waveform"].shape == (1, 1, samples)


def test_trim_to_nothing_is_told(host):
    with pytest.raises(NodeFailed, match="nothing there"):
        run(
            host,
            l=LOAD,
            t=("TrimAudioDuration", {"audio": ["l", 0], "start_index": 0, "duration": 0}),
            s=("PreviewAudio", {"audio": ["t", 0]}),
        )


@pytest.mark.parametrize("direction", ["after", "before"])
def test_concat(host, direction):
    result = run(
        host,
        l=LOAD,
        e=("EmptyAudio", {"duration": 0.5, "sample_rate": 44100, "channels": 1}),
        c=("AudioConcat", {"audio1": ["l", 0], "audio2": ["e", 0], "direction": direction}),
        s=("PreviewAudio", {"audio": ["c", 0]}),
    )
    joined = result.outputs["c"][0][0]
    assert joined["waveform"].shape == (1, 2, 44100 + 22050) and joined["sample_rate"] == 44100
    silent = joined["waveform"][..., -22050:] if direction == "after" else joined["waveform"][..., :22050]
    assert silent.abs().max() == 0


def test_recordings_are_listed_where_the_system_knows_no_file_types(host, monkeypatch):
    monkeypatch.setattr("mimetypes.guess_type", lambda name: (None, None))
    audio.write(host.input / "song.flac", torch.zeros(2, 4800), 48000)
    with use(host):
        (names, _) = CORE_NODES["LoadAudio"].INPUT_TYPES()["required"]["audio"]
    assert names == ["fake.mp3", "song.flac", "song.wav"]
