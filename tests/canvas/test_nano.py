"""A ComfyUI without any model files: every workflow opens, plays with the nano models, and says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if not os.environ.get("COMFYUI_PATH"):
    pytest.skip("needs a ComfyUI checkout: set COMFYUI_PATH (see tests/canvas/README.md)", allow_module_level=True)

from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.checkpoints import bundled
from tests.canvas.server import Client, ComfyServer
from tests.canvas.test_workflows import WORKFLOWS, Visit, browse, demo_inputs, needs_browser, read, to_api

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.slow,
    pytest.mark.skipif(not bundled.names("lm"), reason="the nano weights were left out"),
]
PLAYED = [file for file in WORKFLOWS if file.stem not in ("train-lora", "use-lora")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    folder = tmp_path_factory.mktemp("comfyui")
    (folder / "input").mkdir()
    demo_inputs(folder / "input")
    with ComfyServer(folder, tmp_path_factory.mktemp("models"), ("--disable-api-nodes",)) as running:
        yield running


@pytest.mark.parametrize("file", PLAYED, ids=lambda file: file.stem)
def test_it_plays_with_its_own_settings(server: ComfyServer, file: Path) -> None:
    with Client(server.url) as client:
        run = client.run(to_api(read(file)), read(file), 300)
        assert run.ended == "execution_success", run.error or server.tail()
        names = client.object_info("ACEStepLoadModels")["ACEStepLoadModels"]["input"]["required"]["diffusion_model"]
        assert names[1]["options"] == ["nano (demo) turbo", "nano (demo) base"]
    saved = [server.folder / "output" / f["subfolder"] / f["filename"] for f in run.files if f["type"] == "output"]
    for path in saved:
        if path.suffix in (".mp3", ".flac"):
            sound, _ = audio.read(path)
            assert sound.abs().max() > 0.05
    assert not server.pack_complaints()


@needs_browser
@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_simple_opens_and_plays_on_the_canvas(server: ComfyServer, renderer: str, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("CANVAS_PICTURES") or tmp_path)
    file = next(file for file in WORKFLOWS if file.stem == "simple")
    steps = [f"load={file}", f"shot={pictures / f'nano-{renderer}.png'}", "run=300"]
    steps.append(f"shot={pictures / f'nano-{renderer}-done.png'}")
    visit = Visit(browse(server, *steps, renderer=renderer))
    assert visit.step(file, "run")["ended"] == "execution_success"
