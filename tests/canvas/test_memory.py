"""A small card in a real ComfyUI: our models are evicted by another one, come back, and sound the same to the bit.

The card is played by the CPU (tests/simulated_card.py): a tensor on the wrong device is an error there, and so is what
does not fit. Skipped unless ``COMFYUI_PATH`` is set; README.md in this folder says how to run it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("COMFYUI_PATH"):
    pytest.skip("needs a ComfyUI checkout: see tests/canvas/README.md", allow_module_level=True)

import av
import numpy as np

from tests.canvas.server import ROOT, Client, ComfyServer
from tests.canvas.test_workflows import demo_inputs, demo_models, read, to_api, with_seconds

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
OURS = ("AceStepModel", "Qwen3", "OobleckVAE")
CARD, CROWD = 1200, 1085
"""Megabytes of the card, and of a model that fits it alone, with what ComfyUI keeps free."""


def started(folder: Path, megabytes: int) -> ComfyServer:
    models = folder / "all models"
    demo_models(models)
    (folder / "comfyui" / "input").mkdir(parents=True)
    demo_inputs(folder / "comfyui" / "input")
    packs = (ROOT / "tests" / "canvas" / "simulated_card",)
    more = {"SIMULATED_CARD_MB": str(megabytes)}
    return ComfyServer(folder / "comfyui", models, ("--disable-api-nodes",), packs, more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    with started(tmp_path_factory.mktemp("card"), megabytes=CARD) as running:
        yield running


def prompt(name: str, seed: int, crowd: int = 0) -> dict[str, Any]:
    """A workflow that makes ten seconds; then, with ``crowd``, another model of so many megabytes is loaded."""
    made = with_seconds(to_api(read(ROOT / "workflows" / f"{name}.json")), 10.0)
    for node in made.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "ACEStepSampler":
            inputs |= {"seed": seed, "steps": 2}
        if kind == "ACEStepLoadModels":
            inputs["precision"] = "fp32"
        if kind == "ACEStepSaveResult":
            inputs["format"] = "flac"
    if crowd:
        decode = next(key for key, node in made.items() if node["class_type"] == "ACEStepVAEDecode")
        inputs = {"audio": [decode, 0], "megabytes": crowd}
        made["other"] = {"class_type": "TestsOtherModel", "inputs": inputs, "_meta": {"title": "Other"}}
    return made


def sound(server: ComfyServer, run: Any) -> np.ndarray:
    file = next(file for file in run.files if file["filename"].endswith(".flac"))
    with av.open(str(server.folder / "output" / file["subfolder"] / file["filename"])) as opened:
        return np.concatenate([frame.to_ndarray() for frame in opened.decode(audio=0)], axis=1)


@pytest.mark.parametrize("name", ["custom", "repaint"])
def test_evicted_by_another_model_and_back_twice_over_it_is_the_same_to_the_bit(server, name):
    heard: dict[int, list[np.ndarray]] = {1: [], 2: []}
    with Client(server.url) as client:
        client.free()
        for seed in (1, 2, 1, 2):
            run = client.run(prompt(name, seed, crowd=CROWD), seconds=300)
            assert run.ended == "execution_success", run.error
            heard[seed].append(sound(server, run))
            (text,) = run.history["outputs"]["other"]["text"]
            seen = json.loads(text)
            assert seen["before"].keys() >= set(OURS) and all(len(d) == 1 for d in seen["before"].values())
            assert ["privateuseone"] in seen["before"].values(), "before, at least one of ours was on the card"
            assert {ours: seen["after"][ours] for ours in OURS} == dict.fromkeys(OURS, ["cpu"])
    for first, again in heard.values():
        assert np.array_equal(first, again)
    assert not np.array_equal(heard[1][0], heard[2][0])


def test_the_models_are_loaded_once(server):
    with Client(server.url) as client:
        client.free()
        first = client.run(prompt("custom", 1, crowd=CROWD), seconds=300)
        second = client.run(prompt("custom", 2, crowd=CROWD), seconds=300)
    loaders = {key for key, node in prompt("custom", 1).items() if node["class_type"] == "ACEStepLoadModels"}
    assert loaders <= set(first.executed) and not loaders & set(second.executed)


def test_two_workflows_queued_at_once_come_out_as_each_alone(server):
    with Client(server.url) as client:
        client.free()
        queued = [client.queue(prompt(name, 3)) for name in ("custom", "repaint")]
        together = [sound(server, client.wait(one, 300)) for one in queued]
        for name, heard in zip(("custom", "repaint"), together, strict=True):
            client.free()
            assert np.array_equal(sound(server, client.run(prompt(name, 3), seconds=300)), heard)


def test_a_card_that_is_too_small_is_said_and_the_song_is_made(server, tmp_path):
    with Client(server.url) as client:
        client.free()
        plain = sound(server, client.run(prompt("custom", 1), seconds=300))
    with started(tmp_path, megabytes=64) as small, Client(small.url) as client:
        run = client.run(prompt("custom", 1), seconds=300)
        assert run.ended == "execution_success", run.error
        texts = [event.data["text"] for event in run.of("progress_text")]
        assert any("ran out of memory" in text or "does not fit" in text for text in texts), texts
        tight = sound(small, run)
    assert tight.shape == plain.shape
    assert np.abs(tight.astype(np.float64) - plain).max() <= 2**-10 * np.abs(plain).max()
