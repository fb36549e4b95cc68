"""The shipped workflows: as the builder makes them, complete, and running on tiny models without ComfyUI."""

import json
import runpy

import pytest
import torch

from acestep_graph import headless
from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.checkpoints import demo
from acestep_graph.acestep_core.host import Host
from acestep_graph.headless.declared import node_table, saved_widgets
from tests.pack import ROOT

FILES = sorted((ROOT / "workflows").glob("*.json"))
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    demo.build(folder)
    return folder


def test_the_files_are_what_the_builder_makes():
    built = runpy.run_path(str(ROOT / "tools" / "build_workflows.py"), run_name="builder")["build"]()
    assert {name: (ROOT / "workflows" / name).read_text("utf-8") for name in built} == built
    assert {file.name for file in FILES} == set(built)


@each_file
def test_every_widget_value_and_link_is_there(file):
    workflow = json.loads(file.read_text("utf-8"))
    table = node_table()
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        assert len(node["widgets_values"]) == len(saved_widgets(table[node["type"]])), node["title"]
    ids = {node["id"] for node in workflow["nodes"]}
    assert all(link[1] in ids and link[3] in ids for link in workflow["links"])
    assert len({node["title"] for node in workflow["nodes"]}) == len(workflow["nodes"])


@each_file
def test_it_has_a_note_groups_and_models_to_download(file):
    workflow = json.loads(file.read_text("utf-8"))
    kinds = [node["type"] for node in workflow["nodes"]]
    assert "MarkdownNote" in kinds and workflow["groups"]
    models = [m for node in workflow["nodes"] for m in node["properties"].get("models", ())]
    assert models and all(m["url"].startswith("https://huggingface.co/") and m["directory"] for m in models)


@each_file
def test_it_runs_without_comfyui(file, model_folder, tmp_path):
    host = Host(models=model_folder, output=tmp_path, device="cpu")
    headless.run(file, host, settings=["Song.duration=10"])
    made = sorted(tmp_path.rglob("*.mp3"))
    assert len(made) == 2
    sound, rate = audio.read(made[0])
    assert rate == 48000 and sound.shape[0] == 2 and abs(sound.shape[1] - 480000) < 5000
    assert sound.abs().max() > 0.5 and torch.isfinite(sound).all()
    tags = audio.read_tags(made[0])
    assert json.loads(tags["workflow"])["nodes"] and json.loads(tags["prompt"])
    assert json.loads(tags["acestep"])["seeds"][0] == 42


def test_the_same_file_gives_the_same_sound_twice(model_folder, tmp_path):
    sounds = []
    for run in ("a", "b"):
        host = Host(models=model_folder, output=tmp_path / run, device="cpu")
        headless.run(FILES[0], host, settings=["Song.duration=10", "Save and play.format=flac"])
        sounds.append(audio.read(next((tmp_path / run).rglob("*.flac")))[0])
    assert torch.equal(*sounds)
