"""Recordings of every kind through every workflow in a real ComfyUI server: music, or a sentence that says why not."""

from __future__ import annotations

import json
import math
import os
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("COMFYUI_PATH"):
    pytest.skip("needs a ComfyUI checkout: set COMFYUI_PATH (see tests/canvas/README.md)", allow_module_level=True)

from tests.canvas.server import ROOT, Client, ComfyServer
from tests.canvas.test_workflows import demo_models, to_api

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
WITH_SOURCE = ("remix", "flow-edit", "repaint", "extend", "extract", "lego", "complete")
KINDS: dict[str, dict[str, Any]] = {
    "mono": {"channels": 1},
    "eight-channels": {"channels": 8},
    "22050": {"rate": 22050},
    "96000": {"rate": 96000},
    "three-seconds": {"seconds": 3},
    "eleven-minutes": {"seconds": 660, "rate": 8000, "channels": 1},
    "silence": {"level": 0},
    "clipped": {"level": 200000},
}


def write_wave(path: Path, seconds: float = 9, rate: int = 48000, channels: int = 2, level: int = 8000) -> None:
    with wave.open(str(path), "wb") as out:
        out.setparams((channels, 2, rate, 0, "NONE", ""))
        one = [max(-32768, min(32767, int(level * math.sin(2 * math.pi * 220 * i / rate)))) for i in range(rate)]
        second = b"".join(struct.pack("<h", v) * channels for v in one)
        out.writeframes((second * math.ceil(seconds))[: int(seconds * rate) * 2 * channels])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    folder, models = tmp_path_factory.mktemp("comfyui"), tmp_path_factory.mktemp("models")
    demo_models(models)
    (folder / "input").mkdir()
    for name, kind in KINDS.items():
        write_wave(folder / "input" / f"{name}.wav", **kind)
    (folder / "input" / "words.wav").write_text("these are words")
    with ComfyServer(folder, models, ("--disable-api-nodes",)) as running:
        yield running


def prompt_for(name: str, file: str) -> dict[str, Any]:
    """A shipped workflow that loads ``file`` in place of the example, with as few steps as possible."""
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text("utf-8"))
    example = next(node for node in workflow["nodes"] if node["type"] == "ACEStepExampleAudio")
    example.update(type="LoadAudio", widgets_values=[file, None, ""])
    prompt = to_api(workflow)
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 1
        if node["class_type"] == "ACEStepRepaint" and name == "repaint":
            node["inputs"].update(start=0.5, end=1.5)
    return prompt


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WITH_SOURCE)
def test_a_recording_gives_music(server: ComfyServer, name: str, kind: str) -> None:
    if kind == "eleven-minutes" and name != "extract":
        pytest.skip("the long recording goes through one workflow")
    with Client(server.url) as client:
        run = client.run(prompt_for(name, f"{kind}.wav"), seconds=300)
    if (name, kind) == ("flow-edit", "silence"):
        assert run.ended == "execution_error" and "nothing to edit" in str(run.error)
        return
    assert run.ended == "execution_success", run.error
    assert run.files


@pytest.mark.parametrize("name", ("remix", "extract"))
def test_a_text_file_is_answered(server: ComfyServer, name: str) -> None:
    with Client(server.url) as client:
        run = client.run(prompt_for(name, "words.wav"), seconds=100)
    assert run.ended == "execution_error" and run.error
