"""Training on the real canvas, in both renderers: the curve that moves, the reload, the buttons, the table of songs.

Skipped unless ``COMFYUI_PATH`` is set; README.md in this folder says how to run it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

if not os.environ.get("COMFYUI_PATH"):
    pytest.skip("needs a ComfyUI checkout (see tests/canvas/README.md)", allow_module_level=True)

from tests.canvas.server import ComfyServer
from tests.canvas.test_results import Script, each_renderer, models, needs_browser, pictures, server  # noqa: F401

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

PUT = """(kind, pos, values, links) => {
  const node = LiteGraph.createNode(kind);
  app.rootGraph.add(node);
  node.pos = pos;
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets.find((one) => one.name === name);
    widget.value = value;
    widget.callback?.(value);
  }
  for (const [input, [from, output]] of Object.entries(links)) {
    const end = node.inputs.findIndex((one) => one.name === input);
    from.connect(from.outputs.findIndex((one) => one.name === output), node, end);
  }
  return node;
}"""
SONGS = """
  const songs = put("ACEStepScanSongs", [0, 460], { folder: "examples" }, {});
  const edit = put("ACEStepEditDataset", [330, 460], {}, { dataset: [songs, "dataset"] });"""
LEARN = """
  const models = put("ACEStepLoadModels", [0, 0], {}, {});
  const wires = { model: [models, "model"], text_encoder: [models, "text_encoder"], vae: [models, "vae"] };
  const tensors = put("ACEStepPreprocess", [330, 0], { max_seconds: 10 }, { dataset: [edit, "dataset"], ...wires });
  const quick = { rank: 4, alpha: 8, epochs: 400, learning_rate: 0.001, save_every: 20 };
  const settings = put("ACEStepTrainingSettings", [1530, 0], quick, {});
  const song = put("ACEStepSong", [1890, 300], { instrumental: true, duration: 10 }, {});
  const run = { tensors: [tensors, "tensors"], settings: [settings, "settings"], song: [song, "song"] };
  const train = put("ACEStepTrainLoRA", [1100, 0], { name: "RUN", samples_every: 3 }, { ...wires, ...run });
  put("ACEStepExportLoRA", [1890, 0], {}, { run: [train, "run"] });"""
TRAINING = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepTrainLoRA').acestepTraining"
TABLE = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepEditDataset').acestepTable"
EDITS = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepEditDataset').widgets.find(w => w.name === 'edits')"
STEPS = f"{TRAINING}.points.map(p => p.step)"
STATE = f"{TRAINING}.told.state"
QUEUE = "app.queuePrompt(0)"
KEEP = "sessionStorage.setItem('graph', JSON.stringify(app.rootGraph.serialize()))"
BACK = "app.loadGraphData(JSON.parse(sessionStorage.getItem('graph')))"
SHOWN = "document.querySelectorAll('.acestep-changed').length"
ROWS = "document.querySelectorAll('.acestep-table tbody tr:not(.acestep-open)')"
HISTORY = "fetch('/history').then(answer => answer.json())"
PAUSE = "new Promise(done => setTimeout(done, {}))"


def graph(*parts: str) -> str:
    return f"eval=(() => {{ const put = {PUT};{''.join(parts)} }})()"


def at(path: str) -> str:
    return f"document.querySelector('.acestep-training {path}')"


@needs_browser
@each_renderer
def test_a_run_is_watched_cancelled_continued_and_kept(
    server: ComfyServer,  # noqa: F811
    pictures: Path,  # noqa: F811
    renderer: str,
) -> None:
    script, tag = Script(), renderer.replace(" ", "-").replace(".", "")
    do = script.do
    do("clear")
    do(graph(SONGS, LEARN.replace("RUN", tag)))
    do(f"eval={QUEUE}")
    do(f"wait={TRAINING}.points.length > 10")
    do(f"eval={STEPS}.length", "soon")
    do(f"wait={TRAINING}.pieces.length > 0")
    do(f"wait={at('.acestep-mean')}.getAttribute('d').length > 200")
    do(f"eval={STEPS}.length", "later")
    do("eval=document.querySelector('.acestep-training').textContent", "text")
    box = f"{at('.acestep-chart')}.getBoundingClientRect()"
    move = f"new PointerEvent('pointermove', {{clientX: {box}.x + {box}.width / 2, bubbles: true}})"
    do(f"eval={at('.acestep-chart')}.dispatchEvent({move})")
    do(f"wait=!{at('.acestep-hint')}.hidden")
    do(f"eval={at('.acestep-hint')}.textContent", "hint")
    do(f"shot={pictures / f'training-{tag}.png'}")
    do(f"eval={at('[data-action=sample]')}.click()")
    do(f"wait={TRAINING}.audio.currentTime > 0.1")
    do(f"eval={TRAINING}.stop()")

    do(f"eval={KEEP}")
    do("reload")
    do(f"eval={BACK}")
    do(f"wait={TRAINING}.points.length > 30")
    do(f"eval={PAUSE.format(2000)}")
    do(f"eval={STEPS}", "after the reload")
    do(f"eval={STATE}", "state after the reload")

    do(f"eval={at('[data-action=cancel]')}.click()")
    do(f"wait={STATE} === 'cancelled'")
    do(f"eval={STEPS}.at(-1)", "cancelled at")
    do(f"eval=[{at('[data-action=stop]')}.disabled, {at('[data-action=cancel]')}.disabled]", "buttons at rest")
    do(f"eval={QUEUE}")
    do(f"wait={STATE} === 'running' && {STEPS}.length > 5")
    do(f"eval={PAUSE.format(1500)}")
    do(f"eval={STEPS}", "continued")
    do(f"eval={TRAINING}.lines", "log")
    do(f"eval={at('[data-action=stop]')}.click()")
    do(f"wait={STATE} === 'stopped'")
    do(f"eval={STEPS}", "kept")
    do(f"eval=(async () => {{ while (Object.keys(await {HISTORY}).length < 2) await {PAUSE.format(200)} }})()")
    do(
        "eval=fetch('/history').then(a => a.json()).then(all => Object.values(all).map(o => o.status.status_str))",
        "ends",
    )
    do(f"shot={pictures / f'trained-{tag}.png'}")

    name = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepTrainLoRA').widgets.find(w => w.name === 'name')"
    do(f"eval=({name}.value = 'nothing', {name}.callback?.('nothing'))")
    do(f"wait={STATE} === 'unknown' && {STEPS}.length === 0")
    do(f"eval=({name}.value = '{tag}', {name}.callback?.('{tag}'))")
    do(f"wait={STEPS}.length > 0")
    do(f"eval={STATE}", "found again")
    do("prompt", "prompt")
    do(f"eval=({TRAINING}.node.graph.remove({TRAINING}.node), {PAUSE.format(500)})")
    do("eval=document.querySelectorAll('.acestep-training').length", "left behind")
    found = script.run(server, renderer=renderer)

    assert found["later"] > found["soon"] > 10
    assert "of 3200" in found["text"] and "Learning rate" in found["text"]
    assert found["hint"].startswith("step ") and "learning rate" in found["hint"]
    seen = found["after the reload"]
    assert seen == list(range(1, len(seen) + 1)), "the whole curve, from the first step on"
    assert found["state after the reload"] == "running"
    assert found["cancelled at"] >= seen[-1] and found["buttons at rest"] == [True, True]
    assert found["continued"][-1] > found["cancelled at"], "it went on, not from the start"
    assert any("goes on" in line for line in found["log"]), found["log"]
    assert found["kept"] == list(range(1, len(found["kept"]) + 1))
    assert found["ends"] == ["error", "success"], "cancelled, then stopped and kept"
    assert found["found again"] == "stopped"
    exported = server.folder / "models" / "loras" / f"{tag}.safetensors"
    assert exported.is_file(), "the nodes behind it ran in the same queue item"
    inputs = next(n["inputs"] for n in found["prompt"]["output"].values() if n["class_type"] == "ACEStepTrainLoRA")
    assert "training" not in inputs
    assert found["left behind"] == 0


def cell(row: int, field: str) -> str:
    return f"{ROWS}[{row}].querySelector('[data-field={field}] > *')"


def typed(control: str, value: str) -> str:
    """Type a value and leave the control, as a user does."""
    fire = "['input', 'change'].forEach(name => c.dispatchEvent(new Event(name, {bubbles: true})))"
    return f"eval=(c => {{ c.focus(); c.value = {json.dumps(value)}; {fire} }})({control})"


@needs_browser
@each_renderer
def test_songs_are_edited_in_the_table(
    server: ComfyServer,  # noqa: F811
    pictures: Path,  # noqa: F811
    renderer: str,
) -> None:
    script, tag = Script(), renderer.replace(" ", "-").replace(".", "")
    do = script.do
    do("clear")
    do(graph(SONGS))
    do("eval=document.querySelector('.acestep-dataset .acestep-empty').textContent", "empty")
    do("run=60")
    do(f"wait={TABLE}.table.rows.length === 8")
    do(f"eval={EDITS}.value", "untouched")
    area = "document.querySelector('.acestep-dataset textarea')"
    do(f"eval={cell(0, 'caption')}.click()")
    do(f"wait={area}")
    do(typed(area, "a warm bass, é"))
    do(f"eval={PAUSE.format(100)}")
    do(typed(cell(0, "bpm"), "84"))
    do(f"eval={PAUSE.format(100)}")
    do(typed(cell(0, "bpm"), "9"))
    do(f"eval={cell(0, 'bpm')}.classList.contains('acestep-wrong')", "wrong")
    do(typed(cell(1, "key"), "A minor"))
    do(f"eval={PAUSE.format(100)}")
    do(f"eval={cell(2, 'labelled')}.click()")
    do(f"eval={cell(3, 'lyrics')}.click()")
    do(f"wait={area}")
    do(typed(area, "[Verse]\nGrey boats come in"))
    do(f"eval={PAUSE.format(100)}")
    do(f"eval={cell(3, 'instrumental')}.checked", "sung")
    do(f"shot={pictures / f'table-{tag}.png'}")
    do(f"eval={EDITS}.value", "edited")
    do("run=60", "ran")
    do(f"eval={KEEP}")
    do("reload")
    do(f"eval={BACK}")
    do("eval=document.querySelector('.acestep-dataset .acestep-status').textContent", "kept")
    do("run=60")
    do(f"wait={TABLE}.table.rows.length === 8")
    do(f"eval={SHOWN}", "marked")
    do(typed(cell(0, "bpm"), "120"))
    do(f"eval={PAUSE.format(100)}")
    for row in (1, 2, 3):
        do(f"eval={ROWS}[{row}].querySelector('[data-action=undo]').click()")
        do(f"eval={PAUSE.format(100)}")
    do(f"eval={EDITS}.value", "put back")
    for command in ("Undo", "Redo"):
        do(f"eval=app.extensionManager.command.execute('Comfy.{command}')")
        do(f"eval={PAUSE.format(1500)}")
        do(f"eval=[{EDITS}.value, {SHOWN}, {TABLE}.element.isConnected]", command)

    broken = '{"example-bass.flac": {"bpm": 84}'
    do(f"eval=({EDITS}.value = {json.dumps(broken)}, {EDITS}.callback?.({EDITS}.value))")
    do("eval=document.querySelector('.acestep-dataset .acestep-error').textContent", "broken")
    do(f"eval={cell(1, 'bpm')}.disabled", "locked")
    do(typed(cell(1, "bpm"), "60"))
    do(f"eval={EDITS}.value", "left alone")
    do(f"shot={pictures / f'table-broken-{tag}.png'}")
    mended = '{"#2": {"bpm": 61}}'
    do(f"eval=({EDITS}.value = {json.dumps(mended)}, {EDITS}.callback?.({EDITS}.value))")
    do(f"eval={cell(1, 'bpm')}.value", "by hand")
    do("eval=document.querySelector('.acestep-dataset [data-action=text]').click()")
    do(f"eval={PAUSE.format(500)}")
    do(f"eval={EDITS}.hidden", "hidden")
    areas = "[...document.querySelectorAll('textarea')].filter(area => area.checkVisibility())"
    do(f"eval={areas}.some(area => area.value === {EDITS}.value)", "seen")
    do(f"shot={pictures / f'table-text-{tag}.png'}")
    do("prompt", "prompt")
    found = script.run(server, renderer=renderer)

    assert found["empty"] == "Queue once to see the songs." and found["untouched"] == ""
    assert found["wrong"] is True and found["sung"] is False
    edits = json.loads(found["edited"])
    assert edits == {
        "example-bass.flac": {"bpm": 84, "caption": "a warm bass, é"},
        "example-drums.flac": {"key": "A minor"},
        "example-guitar.flac": {"labelled": False},
        "example-keyboard.flac": {"lyrics": "[Verse]\nGrey boats come in"},
    }
    assert found["edited"] == json.dumps(edits, indent=1, ensure_ascii=False, sort_keys=True)
    (shown,) = next(iter(found["ran"]["outputs"].values()))["acestep_dataset"]
    assert [row["bpm"] for row in shown["rows"]][:2] == [84, 120] and shown["rows"][1]["key"] == "A minor"
    assert shown["rows"][3]["instrumental"] is False and shown["original"][3]["instrumental"] is True
    assert found["kept"] == "Songs with edits: 4." and found["marked"] == 6
    assert json.loads(found["put back"]) == {"example-bass.flac": {"caption": "a warm bass, é"}}
    assert json.loads(found["Undo"][0])["example-keyboard.flac"] and found["Undo"][1:] == [3, True]
    assert found["Redo"] == [found["put back"], 1, True]
    assert "cannot be read" in found["broken"] and found["locked"] is True and found["left alone"] == broken
    assert found["by hand"] == "61" and (found["hidden"], found["seen"]) == (False, True)
    (inputs,) = [n["inputs"] for n in found["prompt"]["output"].values() if n["class_type"] == "ACEStepEditDataset"]
    assert set(inputs) == {"dataset", "edits"} and inputs["edits"] == mended


MANY = """(() => {
  const song = (_, n) => ({ name: `songs/${n}.flac`, caption: "x", key: "k3", language: "l7" });
  const original = Array.from({ length: 500 }, song);
  const all = (letter, count) => Array.from({ length: count }, (_, n) => letter + n);
  const choices = { languages: all("l", 50), keys: all("k", 70), time_signatures: ["2", "3", "4", "6"] };
  const edits = Object.fromEntries(original.map(({ name }) => [name, { bpm: 100 }]));
  EDITS.value = JSON.stringify(edits);
  const since = performance.now();
  TABLE.show([{ original, more: 0, ...choices }]);
  TABLE.element.offsetHeight;
  return performance.now() - since;
})()""".replace("TABLE", TABLE).replace("EDITS", EDITS)


@needs_browser
def test_a_large_data_set_stays_quick(server: ComfyServer) -> None:  # noqa: F811
    script = Script()
    do = script.do
    do("clear")
    do(graph(SONGS))
    do(f"eval={PAUSE.format(500)}")
    do(f"eval={MANY}", "milliseconds to show")
    do("eval=document.querySelectorAll('.acestep-table option').length", "options")
    key = f"{TABLE}.set(0, 'caption', 'y', false)"
    do(f"eval=(since => ({key}, performance.now() - since))(performance.now())", "a key")
    do(f"eval=void (window.drawn = 0, window.table = {TABLE}, window.refresh = table.refresh)")
    do("eval=void (table.refresh = function () { drawn += 1; return refresh.call(this) })")
    node = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepEditDataset')"
    do(f"eval=void (window.node = {node}, node.disconnectInput(0))")
    do("eval=drawn", "drawn for another link")
    text = "LiteGraph.createNode('PrimitiveString')"
    do(f"eval=void (window.text = {text}, app.rootGraph.add(text))")
    do("eval=void text.connect(0, node, node.inputs.findIndex(i => i.name === 'edits'))")
    do(f"eval=[drawn, {cell(1, 'key')}.disabled]", "drawn for its own")
    do("eval=void node.disconnectInput(node.inputs.findIndex(i => i.name === 'edits'))")
    wide = f"{cell(1, 'key')}.offsetWidth"
    do(f"eval=[{wide}, {cell(1, 'key')}.focus(), {wide}].filter(Boolean)", "width")
    do(f"eval=[{cell(1, 'key')}.value, [...{cell(1, 'key')}.options].map(one => one.value)]", "choices")
    found = script.run(server)
    assert found["options"] == 500 * 4
    assert found["drawn for another link"] == 0 and found["drawn for its own"][1] is True
    assert found["choices"][0] == "k3" and found["choices"][1] == ["", *(f"k{n}" for n in range(70))]
    assert found["width"][0] == found["width"][1]
    assert found["milliseconds to show"] < 3000 and found["a key"] < 300, found
