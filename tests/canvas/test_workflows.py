"""The shipped workflows in a real ComfyUI server and on its real canvas, with tiny random models.

Skipped unless ``COMFYUI_PATH`` is set; README.md in this folder says how to run it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import shutil
import struct
import subprocess
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("COMFYUI_PATH"):
    pytest.skip(
        "needs a ComfyUI checkout: COMFYUI_PATH=~/ComfyUI CANVAS_NODE_MODULES=~/canvas/node_modules "
        "~/comfy/bin/python -m pytest tests/canvas (see tests/canvas/README.md)",
        allow_module_level=True,
    )

import av

from tests.canvas.server import PACK, ROOT, Client, ComfyServer, Run

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
RENDERERS = ("classic", "nodes 2.0")
DROPPABLE = (".flac", ".mp3", ".opus")
AUDIO = (".wav", ".flac", ".mp3", ".opus", ".ogg", ".m4a")
SHORT, LONG = 10.0, 240.0  # seconds of music in a run to the end, and in one that is to be interrupted


def saves(file: Path) -> bool:
    """Whether a workflow writes sound."""
    return any(node["type"] == "ACEStepSaveResult" for node in json.loads(file.read_text("utf-8"))["nodes"])


pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda f: f.stem)
each_with_sound = pytest.mark.parametrize("file", [f for f in WORKFLOWS if saves(f)], ids=lambda f: f.stem)
each_renderer = pytest.mark.parametrize("renderer", RENDERERS)


def needs_browser(test: Any) -> Any:
    """Marks a test of the canvas; skips it where there is none."""
    missing = not os.environ.get("CANVAS_NODE_MODULES") or not shutil.which("node")
    reason = "needs Node, Chromium and playwright-core: set CANVAS_NODE_MODULES (see tests/canvas/README.md)"
    return pytest.mark.canvas(pytest.mark.skipif(missing, reason=reason)(test))


# -- what the workflows need: models, audio to load


def demo_models(folder: Path) -> None:
    """Tiny random checkpoints under the file names that the workflows ask for."""
    from tests.tiny import build

    build(folder)


def demo_inputs(folder: Path) -> None:
    """A tone under each name of an audio file that a workflow loads. All are WAV inside; readers go by content."""
    for file in WORKFLOWS:
        for value in strings(read(file)):
            name = value.removesuffix(" [input]")
            if name.endswith(AUDIO) and "/" not in name and "://" not in name:
                with wave.open(str(folder / name), "wb") as out:
                    out.setparams((2, 2, 48000, 0, "NONE", ""))
                    tone = [int(8000 * math.sin(2 * math.pi * 220 * i / 48000)) for i in range(48000)]
                    out.writeframes(b"".join(struct.pack("<hh", v, v) for v in tone) * int(SHORT))


def strings(value: Any) -> Iterator[str]:
    """All texts in the widget values of a workflow, those of its subgraphs included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "widgets_values":
                found = inner.values() if isinstance(inner, dict) else inner or []
                yield from (v for v in found if isinstance(v, str))
            else:
                yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


@functools.cache
def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8"))


# -- prompts


def to_api(workflow: dict[str, Any]) -> dict[str, Any]:
    """The pack's own conversion from the canvas's form to the API's."""
    from acestep_graph.headless.declared import node_table
    from acestep_graph.headless.graph import parse

    return parse(workflow, node_table()).prompt()


def essence(prompt: dict[str, Any]) -> dict[str, Any]:
    """An API prompt less the values of players and the marks that the server adds (``is_changed``)."""
    return {
        node_id: {
            "class_type": node["class_type"],
            "inputs": {k: v for k, v in node["inputs"].items() if k != "audioUI"},
            "title": node["_meta"]["title"],
        }
        for node_id, node in prompt.items()
    }


FEW: dict[str, Any] = {"epochs": 3, "rank": 4, "samples_every": 2}
"""Settings of training for a run that is not waited for long."""


def with_seconds(prompt: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The same prompt for another length of music, and with little training."""
    prompt = json.loads(json.dumps(prompt))
    for node in prompt.values():
        if isinstance(node["inputs"].get("duration"), (int, float)):
            node["inputs"]["duration"] = seconds
        node["inputs"] |= {name: value for name, value in FEW.items() if name in node["inputs"]}
    return prompt


def with_all_steps(prompt: dict[str, Any], client: Client) -> dict[str, Any]:
    """The same prompt with as many steps as its nodes allow, and eight variations."""
    prompt = json.loads(json.dumps(prompt))
    for node in prompt.values():
        node["inputs"] |= {"batch_size": 8} if isinstance(node["inputs"].get("batch_size"), int) else {}
        if isinstance(node["inputs"].get("steps"), int):
            groups = client.object_info(node["class_type"])[node["class_type"]]["input"]
            options = next(group["steps"] for group in groups.values() if "steps" in group)
            node["inputs"]["steps"] = options[1]["max"]
    return prompt


# -- the server, the browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    folder, models = tmp_path_factory.mktemp("comfyui"), tmp_path_factory.mktemp("models")
    demo_models(models)
    (folder / "input").mkdir()
    demo_inputs(folder / "input")
    # No API nodes: a faster start, and a page that may load nothing from outside.
    with ComfyServer(folder, models, ("--disable-api-nodes",)) as running:
        print("server log:", running.log_file)
        yield running


@pytest.fixture
def client(server: ComfyServer) -> Iterator[Client]:
    with Client(server.url) as opened:
        yield opened


def browse(server: ComfyServer, *steps: str, renderer: str = "classic", locale: str = "en") -> dict[str, Any]:
    """One visit of browser.mjs. Raises where the page did not open; failed steps have an ``error``."""
    command = ["node", str(Path(__file__).with_name("browser.mjs")), "--url", server.url, "--locale", locale]
    command += ["--vue"] if renderer != "classic" else []
    done = subprocess.run([*command, *steps], capture_output=True, text=True, timeout=120 + 60 * len(steps))
    result = json.loads(done.stdout or "{}")
    if not result.get("ready"):
        raise RuntimeError(f"{result.get('error')}\n{done.stderr}\n{server.tail()}")
    return result


class Visit:
    """What one visit of the browser saw, by step and workflow."""

    def __init__(self, result: dict[str, Any]):
        self.result = result
        self.workflow_of: dict[int, str] = {}
        for step in result["steps"]:
            file = step["with"] if step["do"] in ("load", "drop") else self.workflow_of.get(step["step"] - 1, "")
            self.workflow_of[step["step"]] = file

    def all(self, file: Path, do: str) -> list[dict[str, Any]]:
        """The steps ``do`` that belong to ``file``."""
        mine = [s for s in self.result["steps"] if s["do"] == do and self.workflow_of[s["step"]] == str(file)]
        assert mine, f"the browser did not get so far: {self.result.get('error')}"
        for step in mine:
            assert "error" not in step, step["error"]
        return mine

    def step(self, file: Path, do: str) -> dict[str, Any]:
        """The first of them."""
        return self.all(file, do)[0]

    def problems(self, file: Path | None = None) -> list[dict[str, Any]]:
        """Problems while ``file`` was open; of the page's opening where None."""
        wanted = str(file) if file else ""
        return [p for p in self.result["problems"] if self.workflow_of.get(p["step"], "") == wanted]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("CANVAS_PICTURES") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def visit(server: ComfyServer, pictures: Path) -> Any:
    """``visit(renderer)``: every workflow opened, photographed, queued from the canvas, photographed again."""
    shorten = (
        "app.rootGraph.nodes.forEach(n => n.widgets?.forEach(w => {"
        f" if (w.name === 'duration' && (w.value > {SHORT} || w.value <= 0))"
        f" {{ w.value = {SHORT}; w.callback?.(w.value) }}"
        f" if (w.name in {json.dumps(FEW)}) {{ w.value = {json.dumps(FEW)}[w.name]; w.callback?.(w.value) }} }}))"
    )

    @functools.cache
    def open_all(renderer: str) -> Visit:
        steps = []
        for file in WORKFLOWS:
            name = f"{file.stem} {renderer}".replace(" ", "-").replace(".", "")
            steps += [f"load={file}", "prompt", f"shot={pictures / name}.png"]
            steps += [f"eval={shorten}", "run=300", f"shot={pictures / name}-done.png"]
        return Visit(browse(server, *steps, renderer=renderer))

    return open_all


class Ran:
    """A workflow that ran over the API: its prompt, the run, and the run that followed with the same prompt."""

    def __init__(self, server: ComfyServer, file: Path):
        self.workflow = read(file)
        self.prompt = with_seconds(to_api(self.workflow), SHORT)
        self.output = server.folder / "output"
        with Client(server.url) as client:
            client.free()
            self.run: Run = client.run(self.prompt, self.workflow, 300)
            self.paths = [self.output / f["subfolder"] / f["filename"] for f in self.run.files if f["type"] == "output"]
            files = [path for path in self.output.rglob("*") if path.is_file()]
            written = {path: path.stat().st_mtime_ns for path in files}
            self.again: Run = client.run(self.prompt, self.workflow, 300)
            self.rewritten = [path for path, time in written.items() if path.stat().st_mtime_ns != time]


@pytest.fixture(scope="module")
def ran(server: ComfyServer) -> Any:
    return functools.cache(functools.partial(Ran, server))


@pytest.fixture(scope="module")
def drops(server: ComfyServer, ran: Any) -> Any:
    """One visit of the browser in which every saved file is dropped on an empty canvas."""

    @functools.cache
    def drop_all() -> Visit:
        paths = []
        for file in WORKFLOWS:
            with contextlib.suppress(Exception):  # a workflow that does not run fails in its own tests
                paths += [path for path in ran(file).paths if path.suffix in DROPPABLE]
        return Visit(browse(server, *(step for path in paths for step in ("clear", f"drop={path}"))))

    return drop_all


# -- start


def test_there_are_workflows() -> None:
    assert WORKFLOWS


def test_pack_loads_with_no_warning(server: ComfyServer) -> None:
    complaints = server.pack_complaints()
    assert not complaints, "\n".join(complaints)


def test_pack_loads_fast(server: ComfyServer) -> None:
    assert server.import_seconds() < 0.2


def test_server_knows_the_nodes(client: Client) -> None:
    from acestep_graph import NODE_CLASS_MAPPINGS

    assert set(NODE_CLASS_MAPPINGS) <= set(client.object_info())
    assert any(PACK in path for path in client.get("/extensions")) == any((ROOT / "web/js").glob("**/*.js"))


# -- canvas


@needs_browser
@each_renderer
def test_page_opens_cleanly(visit: Any, renderer: str) -> None:
    assert_none(visit(renderer).problems())


@needs_browser
@each_renderer
@each_workflow
def test_opens_and_runs_with_no_warning(visit: Any, file: Path, renderer: str) -> None:
    seen = visit(renderer)
    assert seen.step(file, "load")["nodes"] == len(read(file)["nodes"])
    assert_none(seen.problems(file))
    assert Path(seen.step(file, "shot")["file"]).stat().st_size > 5000
    assert seen.step(file, "run")["ended"] == "execution_success"


@needs_browser
@each_renderer
@each_workflow
def test_no_node_lies_on_another(visit: Any, file: Path, renderer: str) -> None:
    """Before the run and after it, when Nodes 2.0 makes room for players."""
    assert [shot["overlaps"] for shot in visit(renderer).all(file, "shot")] == [[], []]


@needs_browser
@each_renderer
@each_workflow
def test_canvas_makes_the_prompt_that_the_pack_makes(visit: Any, file: Path, renderer: str) -> None:
    assert essence(visit(renderer).step(file, "prompt")["output"]) == essence(to_api(read(file)))


@needs_browser
@each_with_sound
def test_saved_files_bring_the_workflow_back(ran: Any, drops: Any, file: Path) -> None:
    paths = [path for path in ran(file).paths if path.suffix in DROPPABLE]
    assert paths, "nothing was saved in a form that the canvas reads"
    for path in paths:
        dropped = drops().step(path, "drop")
        assert essence(dropped["output"]) == essence(to_api(read(file)))
        assert outline(dropped["workflow"]) == outline(read(file))
        assert_none(drops().problems(path))


def assert_none(problems: list[dict[str, Any]]) -> None:
    assert not problems, "\n" + "\n".join(f"{p['kind']}: {p['text']} {p.get('where', '')}" for p in problems)


def outline(workflow: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Ids, types, titles, modes and places. The canvas leaves out a title that is the node's own name."""
    from acestep_graph.nodes import NODE_DISPLAY_NAME_MAPPINGS as names

    nodes = [
        (
            n["id"],
            n["type"],
            n.get("title") or names.get(n["type"]),
            n["mode"],
            tuple(round(x) for x in n["pos"]),
        )
        for n in workflow["nodes"]
    ]
    return sorted(nodes) + sorted((g["title"],) for g in workflow.get("groups", []))


# -- server


@each_workflow
def test_runs_with_progress(ran: Any, file: Path) -> None:
    run = ran(file).run
    assert run.ended == "execution_success", run.error
    steps: dict[str, list[tuple[float, float]]] = {}
    for event in run.of("progress"):
        steps.setdefault(event.data["node"], []).append((event.data["value"], event.data["max"]))
    assert steps, "no node reported progress"
    for node, seen in steps.items():
        assert all(value <= most for value, most in seen), node
        assert seen[-1][0] == seen[-1][1], f"the bar of node {node} stopped at {seen[-1]}"
    assert run.of("progress_state")


@each_with_sound
def test_saves_audio_with_workflow_and_prompt_inside(ran: Any, file: Path) -> None:
    done = ran(file)
    assert done.paths, "nothing was saved"
    for path in done.paths:
        with av.open(str(path)) as audio:
            stream = audio.streams.audio[0]
            tags = {k.lower(): v for k, v in {**audio.metadata, **stream.metadata}.items()}
            frames = sum(frame.samples for frame in audio.decode(stream))
            assert frames > 0.5 * stream.rate, path.name
        assert strict_json(tags["workflow"]) == done.workflow
        assert essence(strict_json(tags["prompt"])) == essence(done.prompt)


def strict_json(text: str) -> Any:
    """As a browser reads it: no NaN (``IS_CHANGED`` values travel in the prompt), and ASCII for the mp3 reader."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    assert text.isascii()
    return json.loads(text, parse_constant=refuse)


@each_workflow
def test_queued_twice_all_is_cached(ran: Any, file: Path) -> None:
    done = ran(file)
    assert done.again.ended == "execution_success", done.again.error
    assert done.again.executed == []
    assert done.again.cached == set(done.prompt)
    assert done.again.files == done.run.files
    assert not done.rewritten, "a file was written again"


@pytest.mark.parametrize("file", [f for f in WORKFLOWS if f.stem != "train-lora"], ids=lambda f: f.stem)
def test_stops_within_a_step(server: ComfyServer, client: Client, file: Path) -> None:
    short = with_seconds(to_api(read(file)), SHORT)
    samplers = {node_id for node_id, node in short.items() if "ampler" in node["class_type"]} or set(short)
    prompt_id = client.queue(with_all_steps(with_seconds(short, LONG), client), read(file))
    under_way = client.wait_for(
        lambda e: e.type == "progress" and e.data["node"] in samplers and 3 <= e.data["value"] < e.data["max"],
        300,
        prompt_id,
    ).data
    asked = time.monotonic()
    client.interrupt()
    run = client.wait(prompt_id, 120)
    assert run.ended == "execution_interrupted", f"{run.ended} {run.error}"
    took = run.of("execution_interrupted")[0].at - asked

    bar = [e for e in run.of("progress") if (e.data["node"], e.data["max"]) == (under_way["node"], under_way["max"])]
    one_step = (bar[-1].at - bar[0].at) / max(1, bar[-1].data["value"] - bar[0].data["value"])
    assert took <= 2 * one_step + 1.5, f"stopped after {took:.1f} s, a step takes {one_step:.2f} s"
    before = [e for e in bar if e.at <= asked]
    assert bar[-1].data["value"] - before[-1].data["value"] <= max(2, 0.3 / one_step), "it went on after the stop"
    assert not any("audio" in e.data["output"] for e in run.of("executed") if e.data.get("output"))
    assert run.history["status"]["status_str"] == "error"

    after = client.run(short, read(file), 300)  # nothing of the stop is left
    assert after.ended == "execution_success", after.error
