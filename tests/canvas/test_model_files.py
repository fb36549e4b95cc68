"""Model files of every form in a real ComfyUI server: offered, loaded, played, and noticed when they change."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

if not os.environ.get("COMFYUI_PATH"):
    pytest.skip("needs a ComfyUI checkout: set COMFYUI_PATH (see tests/canvas/README.md)", allow_module_level=True)

from tests import tiny
from tests.canvas.server import ROOT, Client, ComfyServer, Refused
from tests.canvas.test_workflows import demo_models, to_api

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
PLAIN = "acestep_v1.5_turbo.safetensors"
FP8 = "acestep_v1.5_turbo_fp8_scaled.safetensors"
PACKED = "acestep_v1.5_turbo-Q8_0.gguf"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    demo_models(folder)
    tensors = load_file(folder / "diffusion_models" / PLAIN)
    config = {name: value for name, value in asdict(tiny.DIT).items() if value is not None}
    matrices = [name for name in tensors if name.endswith("_proj.weight") and ".layers." in name]
    packed = {name: tensors[name].to(torch.float8_e4m3fn) for name in matrices}
    scales = {name.removesuffix("weight") + "scale_weight": torch.ones(()) for name in matrices}
    mark = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    about = {"acestep_config": json.dumps(config)}
    save_file({**tensors, **packed, **scales, **mark}, folder / "diffusion_models" / FP8, about)
    if importlib.util.find_spec("gguf"):
        from tests.checkpoints import gguf_files

        (folder / "unet").mkdir()
        gguf_files.write(folder / "unet" / PACKED, tensors, "Q8_0", config)
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    with ComfyServer(tmp_path_factory.mktemp("comfyui"), models, ("--disable-api-nodes",)) as running:
        yield running


def prompt(name: str, precision: str) -> dict[str, Any]:
    """The shipped workflow with this file on the loader and few steps."""
    workflow = json.loads((ROOT / "workflows" / "custom.json").read_text("utf-8"))
    made = to_api(workflow)
    for node in made.values():
        if node["class_type"] == "ACEStepLoadModels":
            node["inputs"].update(diffusion_model=name, precision=precision)
        for widget, value in (("steps", 2), ("duration", 10.0)):
            if widget in node["inputs"] and not isinstance(node["inputs"][widget], list):
                node["inputs"][widget] = value
    return made


def loader(made: dict[str, Any]) -> str:
    return next(number for number, node in made.items() if node["class_type"] == "ACEStepLoadModels")


@pytest.mark.parametrize(("name", "precision"), [(PLAIN, "fp8"), (FP8, "auto"), (FP8, "fp32"), (PACKED, "auto")])
def test_files_and_precisions_play(server: ComfyServer, name: str, precision: str) -> None:
    if name == PACKED:
        pytest.importorskip("gguf")
    with Client(server.url) as client:
        options = client.object_info("ACEStepLoadModels")["ACEStepLoadModels"]["input"]["required"]
        assert name in options["diffusion_model"][1]["options"]
        run = client.run(prompt(name, precision))
        assert run.ended == "execution_success", run.error or server.tail()
    assert not server.pack_complaints()


def test_a_file_that_is_replaced_and_one_that_is_gone(server: ComfyServer, models: Path) -> None:
    file = models / "diffusion_models" / PLAIN
    before = file.stat()
    with Client(server.url) as client:
        made = prompt(PLAIN, "fp32")
        assert client.run(made).ended == "execution_success"
        assert loader(made) in client.run(made).cached
        new = file.with_suffix(".new")
        new.write_bytes(file.read_bytes())
        os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(new, file)
        again = client.run(made)
        assert again.ended == "execution_success" and loader(made) in again.executed
        file.unlink()
        (models / "unet" / PACKED).unlink(missing_ok=True)
        with pytest.raises(Refused, match="There is no diffusion model") as caught:
            client.run(made)
        assert PLAIN in str(caught.value) and FP8 in str(caught.value)
