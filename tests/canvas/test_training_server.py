"""Training in a real ComfyUI server: cancelled, queued again, stopped and kept, exported, and read by ComfyUI's loader.

Skipped unless ``COMFYUI_PATH`` is set; README.md in this folder says how to run it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("COMFYUI_PATH"):
    pytest.skip("needs a ComfyUI checkout: see tests/canvas/README.md", allow_module_level=True)

from tests.canvas.server import ROOT, Client, ComfyServer, Refused
from tests.canvas.test_workflows import demo_models, read, to_api

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
LONG = 10_000
"""Epochs that no test waits for."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    folder, models = tmp_path_factory.mktemp("comfyui"), tmp_path_factory.mktemp("models")
    demo_models(models)
    with ComfyServer(folder, models, ("--disable-api-nodes",)) as running:
        yield running


@pytest.fixture
def client(server: ComfyServer) -> Iterator[Client]:
    with Client(server.url) as opened:
        yield opened


def prompt(name: str, epochs: int, **more: Any) -> dict[str, Any]:
    """train-lora with a small adapter; ``more`` goes to Train LoRA."""
    made = to_api(read(ROOT / "workflows" / "train-lora.json"))
    for node in made.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "ACEStepTrainingSettings":
            inputs |= {"epochs": epochs, "rank": 4, "alpha": 8.0, "learning_rate": 1e-3, "save_minutes": 0.0}
        if kind == "ACEStepTrainLoRA":
            inputs |= {"name": name, "samples_every": 0, **more}
    return made


def node_of(made: dict[str, Any], kind: str) -> str:
    return next(key for key, node in made.items() if node["class_type"] == kind)


def watch(client: Client, name: str, after: int = 0) -> dict[str, Any]:
    return client.get(f"/acestep_graph/training?run={name}&after={after}")


def wait_for_step(client: Client, name: str, step: int, prompt_id: str = "") -> dict[str, Any]:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        seen = watch(client, name)
        if seen.get("state") == "running" and seen["step"] >= step:
            return seen
        history = client.history(prompt_id) if prompt_id else {}
        assert not history, history.get("status")
        time.sleep(0.1)
    raise TimeoutError(f"{name} did not come to step {step}: {watch(client, name)}")


def texts(run: Any, node: str) -> list[str]:
    return [e.data["text"] for e in run.events if e.type == "progress_text" and e.data["node"] == node]


def test_it_trains_exports_and_is_cached(server, client):
    made = prompt("whole", epochs=2)
    run = client.run(made, seconds=120)
    assert run.ended == "execution_success", run.error
    events = [event.data for event in run.of("acestep.train")]
    assert {event["node"] for event in events} == {node_of(made, "ACEStepTrainLoRA")}
    assert events[-1]["state"] == "done" and events[-1]["step"] == events[-1]["total"] == 16
    steps = [point[0] for event in events for point in event["points"]]
    assert steps == list(range(1, 17)), "every point is sent once"
    assert (Path(server.models) / "loras" / "whole.safetensors").is_file()
    assert [file for file in run.files if file["filename"].endswith(".png")]
    again = client.run(made, seconds=60)
    assert not again.executed


def test_a_cancelled_run_goes_on_and_ends_as_if_it_had_not_been_cancelled(server, client):
    made = prompt("cut", epochs=30)
    first = client.queue(made)
    at = wait_for_step(client, "cut", 40, first)
    client.interrupt()
    cut = client.wait(first, 60)
    assert cut.ended == "execution_interrupted"
    seen = watch(client, "cut")
    assert seen["state"] == "cancelled" and seen["step"] >= at["step"]
    assert [point[0] for point in seen["points"]] == list(range(1, seen["step"] + 1))
    rest = client.run(made, seconds=180)
    assert rest.ended == "execution_success", rest.error
    train = node_of(made, "ACEStepTrainLoRA")
    assert any(f"goes on after step {seen['step']} of 240" in text for text in texts(rest, train))
    points = [point[0] for event in rest.of("acestep.train") for point in event.data["points"]]
    assert points == list(range(seen["step"] + 1, 241))
    whole = client.run(prompt("uncut", epochs=30), seconds=180)
    assert whole.ended == "execution_success", whole.error
    runs = server.folder / "output" / "acestep" / "runs"
    for name in ("loss.csv", "final/adapter_model.safetensors"):
        assert (runs / "cut" / name).read_bytes() == (runs / "uncut" / name).read_bytes(), name


def test_stop_and_keep_ends_the_run_and_exports_in_the_same_queue_item(server, client):
    made = prompt("kept", epochs=LONG)
    queued = client.queue(made)
    wait_for_step(client, "kept", 30, queued)
    assert json.loads(client.request("/acestep_graph/training/stop", {"run": "kept"})) == {"state": "stopping"}
    run = client.wait(queued, 60)
    assert run.ended == "execution_success", run.error
    assert (Path(server.models) / "loras" / "kept.safetensors").is_file()
    assert watch(client, "kept")["state"] == "stopped"
    assert not client.run(made, seconds=60).executed, "queued again, it is kept"
    client.free()
    kept = client.run(made, seconds=60)
    assert kept.ended == "execution_success", kept.error
    assert not any(event.data["points"] for event in kept.of("acestep.train")), "also in a process that knows nothing"
    on = client.queue(prompt("kept", epochs=LONG, go_on_after_stop=True))
    before = watch(client, "kept")["step"]
    wait_for_step(client, "kept", before + 10, on)
    client.interrupt()
    assert client.wait(on, 60).ended == "execution_interrupted"


def test_two_trainings_in_the_queue_come_one_after_the_other(server, client):
    first, second = client.queue(prompt("one", epochs=3)), client.queue(prompt("two", epochs=3))
    for queued, name in ((first, "one"), (second, "two")):
        assert client.wait(queued, 120).ended == "execution_success"
        assert watch(client, name)["step"] == 24


def test_bad_requests_are_answered(server, client):
    for path, body in (("stop", {"run": "nobody"}), ("stop", [])):
        with pytest.raises(urllib.error.HTTPError) as refused:
            client.request(f"/acestep_graph/training/{path}", body)
        assert json.loads(refused.value.read())["error"]
    with pytest.raises(urllib.error.HTTPError):
        watch(client, "..")
    assert watch(client, "nobody")["state"] == "unknown"
    made = prompt("a/b", epochs=2)
    answer = json.loads(client.request("/prompt", {"prompt": made, "client_id": client.id}))
    assert "leave out" in json.dumps(answer["node_errors"][node_of(made, "ACEStepTrainLoRA")])
    client.wait(answer["prompt_id"], 60)
    made = prompt("fine", epochs=2)
    made[node_of(made, "ACEStepScanSongs")]["inputs"]["folder"] = "no such folder"
    with pytest.raises(Refused, match="no such folder"):
        client.queue(made)


LOADER = """
import json, os, sys
checkpoint, lora, ours, comfyui = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, comfyui); os.chdir(comfyui)
import comfy.options; comfy.options.enable_args_parsing()
import torch, comfy.lora, comfy.model_base, comfy.ops, comfy.sd, comfy.supported_models, comfy.utils
import comfy.model_patcher
from safetensors import safe_open
with safe_open(checkpoint, "pt") as file:
    config = json.loads(file.metadata()["acestep_config"])
same = ("hidden_size", "text_hidden_dim", "intermediate_size", "head_dim", "fsq_dim")
sizes = {name: config[name] for name in same} | {
    "num_dit_layers": config["num_hidden_layers"],
    "num_lyric_layers": config["num_lyric_encoder_hidden_layers"],
    "num_timbre_layers": config["num_timbre_encoder_hidden_layers"],
    "num_heads": config["num_attention_heads"], "num_kv_heads": config["num_key_value_heads"],
    "encoder_hidden_size": config["hidden_size"], "encoder_intermediate_size": config["intermediate_size"],
    "encoder_num_heads": config["num_attention_heads"],
}
known = comfy.supported_models.ACEStep15({"audio_model": "ace1.5", **sizes})
known.set_inference_dtype(torch.float32, None)
base = comfy.model_base.ACEStep15(known)
stored = comfy.utils.load_torch_file(checkpoint)
weights = {name: value.float() for name, value in stored.items() if "tokenizer." not in name}
missing, unexpected = base.diffusion_model.load_state_dict(weights, strict=False)
model = comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))
patched, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(lora), 1.0, 0)
changes = {}
for key, patch in patched.patches.items():
    weight = comfy.utils.get_attr(base, key).detach().clone()
    name = key.removeprefix("diffusion_model.decoder.").removesuffix(".weight")
    changes[name] = (comfy.lora.calculate_weight(patch, weight.clone(), key) - weight).contiguous()
from safetensors.torch import save_file
save_file(changes, ours)
"""


@pytest.mark.parametrize("method", ["lora", "dora", "lokr"])
def test_comfyuis_own_loader_makes_the_same_of_an_exported_file(server, client, tmp_path, method):
    made = prompt(f"as-{method}", epochs=4)
    settings = made[node_of(made, "ACEStepTrainingSettings")]["inputs"]
    settings |= {"method": method, "learning_rate": 1e-2}
    made[node_of(made, "ACEStepExportLoRA")]["inputs"] |= {"dtype": "fp32"}
    run = client.run(made, seconds=180)
    assert run.ended == "execution_success", run.error
    lora, theirs = Path(server.models) / "loras" / f"as-{method}.safetensors", tmp_path / "theirs.safetensors"
    checkpoint = Path(server.models) / "diffusion_models" / "acestep_v1.5_turbo.safetensors"
    python = os.environ.get("COMFYUI_PYTHON") or sys.executable
    arguments = [str(checkpoint.resolve()), str(lora.resolve()), str(theirs), os.environ["COMFYUI_PATH"]]
    subprocess.run([python, "-c", LOADER, *arguments], check=True, cwd=tmp_path)

    from safetensors.torch import load_file

    from acestep_graph.acestep_core.checkpoints.loading import load_diffusion_model
    from acestep_graph.acestep_core.host import Host
    from acestep_graph.acestep_core.lora.formats import read_adapter

    model = load_diffusion_model(checkpoint, dtype="fp32", host=Host(device="cpu"))
    adapter, found = read_adapter(lora, model.config), load_file(theirs)
    assert set(found) == set(adapter.changes) and len(found) == 4 * 8
    for name, change in adapter.changes.items():
        weight = model.module.decoder.get_submodule(name).weight.float()
        whole = weight + change.scale * change.form.dense().float()
        if change.magnitude is not None:  # ComfyUI's formula: by the norms of W, not by those of W + ΔW
            whole = whole * change.magnitude.float() / weight.norm(dim=1, keepdim=True)
        expected = whole - weight
        assert expected.abs().max() > 1e-4
        assert (found[name] - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max())), name
