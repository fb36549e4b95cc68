"""Players and results panel on the real canvas: every button does its work, in both renderers and several languages.

Skipped unless ``COMFYUI_PATH`` is set; README.md in this folder says how to run it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("COMFYUI_PATH"):
    pytest.skip("needs a ComfyUI checkout (see tests/canvas/README.md)", allow_module_level=True)

import torch

from tests.canvas.server import ROOT, Client, ComfyServer
from tests.canvas.test_workflows import (  # noqa: F401
    RENDERERS,
    SHORT,
    browse,
    demo_models,
    essence,
    needs_browser,
    pictures,
    read,
    to_api,
    with_seconds,
)

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
each_renderer = pytest.mark.parametrize("renderer", RENDERERS)
LANGUAGES = ("en", "zh", "ja")

WIDGETS = "app.rootGraph.nodes.flatMap(n => (n.widgets ?? []).map(w => [n, w]))"
QUICK = (
    f"{WIDGETS}.forEach(([n, w]) => {{ const quick = {{duration: 10, steps: 2, format: 'flac'}};"
    " if (w.name in quick) { w.value = quick[w.name]; w.callback?.(w.value) } })"
)
JUDGED = "app.rootGraph.nodes.forEach(n => { if (/Score|LyricTiming/.test(n.comfyClass)) n.mode = 0 })"
OPEN = "app.extensionManager.command.execute('Workspace.ToggleSidebarTab.acestep.results')"
READY = "document.querySelector('.acestep-panel .acestep-actions[data-ready]')"
WHERE = "document.querySelector('.acestep-where').textContent"
PLAYER = "document.querySelector('.acestep-panel .acestep-player')"
AUDIO = f"{PLAYER}.querySelector('audio')"
SAMPLER = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepSampler')"
SONG = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepSong')"


def press(action: str) -> str:
    return f"document.querySelector('.acestep-panel [data-action=\"{action}\"]').click()"


def value(node: str, name: str) -> str:
    return f"{node}.widgets.find(w => w.name === '{name}').value"


def roll(node: str) -> str:
    return (
        f"(async () => {{ const w = {node}.widgets.find(w => w.type === 'button'); await w.callback?.call({node}) }})()"
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    demo_models(folder)
    return folder


@pytest.fixture
def server(tmp_path: Path, models: Path) -> Iterator[ComfyServer]:
    (tmp_path / "input").mkdir()
    with ComfyServer(tmp_path, models, ("--disable-api-nodes",)) as running:
        yield running


class Script:
    """Named steps of one visit, and what each gave."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []

    def do(self, step: str, name: str = "") -> None:
        self.steps.append((name, step))

    def run(self, server: ComfyServer, **how: str) -> dict[str, Any]:
        seen = browse(server, *(step for _, step in self.steps), **how)
        found = {}
        for (name, step), result in zip(self.steps, seen["steps"], strict=True):
            assert "error" not in result, f"{step}: {result['error']}\n{server.tail()}"
            if name:
                found[name] = result.get("value", result)
        bad = [p for p in seen["problems"] if p["kind"] in ("page error", "console error", "toast error")]
        assert not bad, json.dumps(bad, indent=1)
        return found


def workflow(name: str) -> str:
    return f"load={ROOT / 'workflows' / name}.json"


def saved(server: ComfyServer, ending: str) -> list[Path]:
    return sorted((server.folder / "output").rglob(f"*{ending}"))


@needs_browser
@each_renderer
def test_every_button_does_its_work(server: ComfyServer, pictures: Path, renderer: str) -> None:  # noqa: F811
    script, tag = Script(), renderer.replace(" ", "-").replace(".", "")
    do = script.do
    do(workflow("custom"))
    do(f"eval={QUICK}")
    do(f"eval={JUDGED}")
    do(f"eval={value(SONG, 'caption')}", "first caption")
    do("run=120")
    do(f"eval={value(SAMPLER, 'seed')}", "seed after the run")
    do(f"shot={pictures / f'player-{tag}.png'}")
    node_player = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepSaveResult').acestepPlayer"
    do(f"eval={node_player}.cards.map(c => [c.file.filename, c.lines.length, c.peaks.length])", "on the node")
    do(f"eval={OPEN}")
    do(f"wait={READY}")

    do(f"eval={press('play')}")
    do(f"wait={AUDIO}.currentTime > 0.2")
    do(f"eval={node_player}.play()")
    do(f"wait={AUDIO}.paused && !{node_player}.audio.paused")
    do(f"eval={node_player}.stop()")
    key = "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true})"
    do(f"eval={PLAYER}.querySelector('.acestep-seek').dispatchEvent({key})")
    do(f"wait={AUDIO}.currentTime > 4.9")
    do(f"eval={PLAYER}.querySelectorAll('.acestep-line').length", "lyric lines")
    do(f"eval={PLAYER}.querySelectorAll('.acestep-line span').length", "lyric words")
    do(f"eval={PLAYER}.querySelectorAll('.acestep-row')[1].click()")
    do(f"wait={PLAYER}.querySelectorAll('.acestep-row')[1].classList.contains('acestep-chosen')")
    do(f"wait={READY}")
    do("eval=[...document.querySelectorAll('.acestep-panel details')].map(d => d.dataset.about)", "sections")
    do("eval=[...document.querySelectorAll('.acestep-panel details')].forEach(d => d.open = true)")
    do(f"page={pictures / f'panel-{tag}.png'}")

    do("eval=(window.copied = [], navigator.clipboard.writeText = async (text) => { window.copied.push(text) })")
    do(f"eval={press('copy lrc')}")
    do("eval=Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as over http from another machine
    do("eval=addEventListener('copy', () => window.copied.push(document.activeElement.value), true)")
    do('click=.acestep-panel [data-action="copy vtt"]')
    do("eval=[document.querySelectorAll('.acestep-copied').length, document.activeElement.dataset.action]", "let go")
    do("eval=window.copied", "copied")
    do("eval=(window.saved = [], HTMLAnchorElement.prototype.click = function () { window.saved.push(this.download) })")
    do(f"eval={press('save')}")
    do("eval=window.saved", "downloads")

    do(f"eval={press('next')}")
    do(f"wait={WHERE}.includes('2 / 2')")
    do(f"eval={value(SAMPLER, 'seed')}", "seed of the next")
    do(f"wait={READY}")
    do(f"eval={press('previous')}")
    do(f"wait={WHERE}.includes('1 / 2')")
    do(f"wait={READY}")
    do(f"eval={press('compare')}")
    do(f"eval={press('next')}")
    do(f"wait={WHERE}.includes('2 / 2')")
    do(f"wait={READY}")
    do(f"eval={press('switch')}")
    do(f"wait={WHERE}.includes('1 / 2')")
    do(f"eval={press('unpin')}")
    do(f"wait={READY}")

    do(f"eval={SONG}.widgets.find(w => w.name === 'caption').value = 'something else'")
    do(f"eval={SAMPLER}.widgets.find(w => w.name === 'steps').value = 1")
    do(f"eval={press('use')}")
    do(f"eval={value(SONG, 'caption')}", "restored caption")
    do(f"eval=[{value(SAMPLER, 'seed')}, {value(SAMPLER, 'steps')}]", "restored seed and steps")
    do(f"eval={value(SAMPLER, 'control_after_generate')}", "control")
    do("run=120")

    do(f"wait={WHERE}.includes('/ 3')")
    do(f"eval={press('autogen')}")
    do(f"wait={WHERE}.includes('/ 4')")
    do("eval=new Promise(done => setTimeout(done, 3000))")
    do(f"eval={WHERE}", "with one ahead")
    do(f"eval={press('autogen')}")

    do("eval=[...document.querySelectorAll('.acestep-panel .acestep-batch')].length", "all batches")
    do("eval=[...document.querySelectorAll('.acestep-panel .acestep-all a')].length", "all files")
    do(f"wait={READY}")
    do("clear")
    do(f"eval={press('workflow')}")
    do("wait=document.querySelector('[role=dialog] button')")
    do("eval=[...document.querySelectorAll('[role=dialog] button')].at(-1).click()")
    do("wait=app.rootGraph.nodes.length === 10")

    do(workflow("remix"))
    do(f"eval={QUICK}")
    do(f"eval={press('send')}")
    do("wait=app.rootGraph.nodes.some(n => n.comfyClass === 'ACEStepLoadResult')")
    source = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepEncodeSource')"
    do(f"eval={source}.inputs.filter(i => i.link != null).map(i => i.name)", "linked")
    do("run=120", "remixed")
    do(f"eval={press('refresh')}")
    do(f"wait={WHERE}.includes('/ 5')")

    do(workflow("custom"))
    for name, node in (("song", SONG), ("sampler", SAMPLER)):
        before = value(node, "caption" if name == "song" else "seed")
        do(f"eval={before}", f"{name} before")
        do(f"eval={roll(node)}")
        do("eval=new Promise(done => setTimeout(done, 500))")
        do(f"eval={before}", f"{name} after")
    found = script.run(server, renderer=renderer)

    assert found["on the node"] == [["ACE-Step_00001_.flac", 6, 400], ["ACE-Step_00002_.flac", 6, 400]]
    assert found["lyric lines"] == 6 and found["lyric words"] > 20
    assert {"settings", "scores", "lrc", "vtt", "times", "models", "files", "all"} <= set(found["sections"])
    assert found["copied"][0].startswith("[00:00.") and found["copied"][1].startswith("WEBVTT")
    assert len(found["copied"]) == 2 and found["let go"] == [0, "copy vtt"]
    assert found["downloads"] == ["ACE-Step_00002_.flac", "ACE-Step_00002_.json"]
    assert found["seed of the next"] != found["seed after the run"]
    assert found["restored caption"] == found["first caption"] and found["control"] == "fixed"
    assert found["restored seed and steps"] == [42, 2]
    assert found["with one ahead"].startswith("Batch 3 / 4"), "AutoGen makes one batch ahead and no more"
    assert found["all batches"] == 4 and found["all files"] == 8
    assert set(found["linked"]) == {"vae", "audio", "latent"} and found["remixed"]["ended"] == "execution_success"
    assert found["song before"] != found["song after"] and found["sampler before"] != found["sampler after"]

    sounds = [path.read_bytes() for path in saved(server, ".flac")[:6]]
    assert same_music(server, 1, 5) and same_music(server, 2, 6), "use settings, then a run: the same sound"
    assert sounds[0] != sounds[2]


@needs_browser
@each_renderer
def test_players_come_back_with_their_workflow(server: ComfyServer, renderer: str) -> None:
    """Another tab and back; ComfyUI's own players beside ours still get their sound."""
    script = Script()
    do = script.do
    do(workflow("custom"))
    do(f"eval={QUICK}")
    do("eval=app.rootGraph.nodes.forEach(n => { if (n.comfyClass === 'PreviewAny') n.mode = 4 })")
    made = "LiteGraph.createNode('PreviewAudio')"
    decode = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepVAEDecode')"
    do(f"eval=(() => {{ const n = {made}; app.rootGraph.add(n); {decode}.connect(0, n, 0) }})()")
    do("run=120")
    do("eval=app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    do("wait=app.rootGraph.nodes.length === 0")
    do("eval=app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    do("wait=app.rootGraph.nodes.length > 5")
    ours = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepSaveResult')"
    do(f"wait={ours}.acestepPlayer.cards.length === 2")
    theirs = "app.rootGraph.nodes.find(n => n.comfyClass === 'PreviewAudio')"
    do(f"eval={theirs}.widgets.find(w => w.name === 'audioUI').value", "core")
    do("prompt", "prompt")
    found = script.run(server, renderer=renderer)
    assert "filename=" in found["core"]
    saves = [n for n in found["prompt"]["output"].values() if n["class_type"] == "ACEStepSaveResult"]
    assert "audioUI" not in saves[0]["inputs"], "the player is no input"


@needs_browser
def test_what_does_not_fit_is_said(server: ComfyServer) -> None:
    """Idle nodes get nothing, foreign values are named, several targets are asked for, a refused run ends AutoGen."""
    script = Script()
    do = script.do
    own = server.folder / "input" / "ACE-Step_00001_.flac"
    own.write_bytes(b"a recording of the user's own")
    do(workflow("custom"))
    do(f"eval={QUICK}")
    do("run=120")
    do(f"eval={OPEN}")
    do(f"wait={READY}")
    model = "app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepLoadModels')"
    do(f"eval={SONG}.mode = 4")
    do(f"eval={SONG}.widgets.find(w => w.name === 'caption').value = 'mine'")
    do(f"eval={model}.widgets[0].options.values.splice(0)")
    do(f"eval={press('use')}")
    do("wait=document.querySelector('.p-toast-message')")
    do("eval=document.querySelector('.p-toast-message').innerText", "said")
    do(f"eval={value(SONG, 'caption')}", "caption")

    kinds = "'LoadAudio', 'ACEStepLoadResult', 'ACEStepReferenceAudio'"
    do(f"eval=[{kinds}].forEach(kind => app.rootGraph.add(LiteGraph.createNode(kind)))")
    for kind in ("LoadAudio", "ACEStepLoadResult", "ACEStepReferenceAudio"):
        do(f"eval={press('send')}")
        do("wait=document.querySelectorAll('.acestep-choice button').length >= 3")
        node = f"app.rootGraph.nodes.find(n => n.comfyClass === '{kind}')"
        do(f'eval=document.querySelector(`.acestep-choice [data-action="target ${{{node}.id}}"]`).click()')
        do("eval=new Promise(done => setTimeout(done, 800))")
    for kind, name in (("LoadAudio", "audio"), ("ACEStepLoadResult", "file")):
        do(f"eval={value(f'app.rootGraph.nodes.find(n => n.comfyClass === {kind!r})', name)}", kind)
    do(
        "eval=app.rootGraph.nodes.find(n => n.comfyClass === 'ACEStepReferenceAudio').getInputNode(1)?.comfyClass",
        "feeds",
    )

    do("clear")
    do("eval=void app.rootGraph.add(LiteGraph.createNode('ACEStepSampler'))")
    do(f"eval={press('autogen')}")
    do("eval=new Promise(done => setTimeout(done, 1500))")
    do("eval=document.querySelector('.acestep-panel [data-action=autogen]').checked", "autogen")
    seen = browse(server, *(step for _, step in script.steps))
    found = {name: s.get("value", s) for (name, _), s in zip(script.steps, seen["steps"], strict=True) if name}
    assert not [s for s in seen["steps"] if "error" in s]
    assert "Song" in found["said"] and "acestep_v1.5_turbo.safetensors" in found["said"]
    assert found["caption"] == "mine"
    assert found["LoadAudio"] == "ACE-Step_00001_ (1).flac"
    assert found["ACEStepLoadResult"] == "audio/ACE-Step_00001_.json"
    assert found["feeds"] == "ACEStepLoadResult" and found["autogen"] is False
    assert own.read_bytes() == b"a recording of the user's own"
    sent = server.folder / "input" / found["LoadAudio"]
    assert sent.read_bytes() == saved(server, "ACE-Step_00001_.flac")[0].read_bytes()


CONTRAST = """(element, behind) => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const layers = [getComputedStyle(element).color];
  for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
  const light = (colors) => {
    for (const color of colors) { paint.fillStyle = color; paint.fillRect(0, 0, 1, 1) }
    const parts = [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
    const [red, green, blue] = parts.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const [one, other] = [light(layers), light(layers.slice(0, -1))].sort((a, b) => b - a);
  return Math.round((one + 0.05) / (other + 0.05) * 100) / 100;
}"""
POINTER = """(name, share) => {
  const box = player.slider.getBoundingClientRect();
  const how = { clientX: box.x + box.width * share, bubbles: true };
  player.slider.dispatchEvent(new PointerEvent(name, how));
  return player.at / player.seconds;
}"""
RIGHT = """(element) => {
  const range = document.createRange();
  range.selectNodeContents(element);
  const [text, box] = [range.getBoundingClientRect(), element.getBoundingClientRect()];
  return box.right - text.right < text.left - box.left;
}"""
PIECES = """[["example-mix.flac", 10], ["example-bass.flac", 99]].map(([filename, seconds], item) => ({
  file: { filename, subfolder: "", type: "output" }, sidecar: "", title: "שיר ארוך", seconds, seed: null, peaks: [50],
  scores: { total: 0.5 }, timed: true, batch: "one", item, lines: [
    { text: "[Verse]", start: 0, end: 1, tag: true, words: [] },
    { text: "أغنية, slow", start: 1, end: 90, words: [
      { text: "أغنية,", start: 1, end: 1 }, { text: " slow", start: 80, end: 90 }] }] }))"""


@needs_browser
def test_a_player_follows_the_pointer_while_it_is_held_and_can_be_read(server: ComfyServer, pictures: Path) -> None:  # noqa: F811
    for name in ("example-mix.flac", "example-bass.flac"):
        (server.folder / "output" / name).write_bytes((ROOT / "assets" / name).read_bytes())
    script = Script()
    do = script.do
    do("clear")
    do("eval=void app.rootGraph.add(LiteGraph.createNode('ACEStepSaveResult'))")
    do("eval=void (window.player = app.rootGraph.nodes[0].acestepPlayer)")
    do(f"eval=player.show({PIECES})")
    do("wait=player.element.isConnected && player.slider.getBoundingClientRect().width > 50")
    do(f"eval=void (window.at = {POINTER})")
    do("eval=(at('pointerdown', 0.2), at('pointermove', 0.5))", "held")
    do("eval=(at('pointerup', 0.5), at('pointermove', 0.9))", "let go")
    do("eval=(at('pointerdown', 0.3), at('pointercancel', 0.3), at('pointermove', 0.9))", "lost")
    do("eval=player.play()")
    do("wait=player.audio.duration > 1")
    do("eval=player.stop()")
    do("eval=[player.seconds < 90, (player.choose(1, true), player.seconds), player.time.textContent]", "lengths")
    do("eval=player.seek(2)")
    do("eval=player.error.textContent = 'wrong'")
    for theme in ("light", "dark"):
        do(f"eval=app.extensionManager.setting.set('Comfy.ColorPalette', '{theme}')")
        do(f"wait=document.body.classList.contains('dark-theme') === {str(theme == 'dark').lower()}")
        do("eval=new Promise(done => setTimeout(done, 500))")
        parts = ".acestep-score, .acestep-error, .acestep-sung, .acestep-tag, .acestep-length, .acestep-seed"
        all_parts = f"[...player.element.querySelectorAll('{parts}')]"
        do(f"eval={all_parts}.map(one => [one.className, ({CONTRAST})(one)])", theme)
        do(f"page={pictures / f'player-{theme}.png'}")
    do(f"eval=[...player.element.querySelectorAll('.acestep-line, .acestep-seed')].map({RIGHT})", "on the right")
    found = script.run(server)
    assert found["held"] == pytest.approx(0.5, abs=0.01)
    assert found["let go"] == found["held"] and found["lost"] == pytest.approx(0.3, abs=0.01)
    assert found["lengths"][:2] == [True, 99] and found["lengths"][2].endswith("/ 1:39")
    for theme in ("light", "dark"):
        assert len(found[theme]) >= 8 and not [part for part in found[theme] if part[1] < 4.5], found[theme]
    assert found["on the right"] == [True, True, False, True], "two titles, a tag, a line"


@needs_browser
def test_autogen_stays_with_its_workflow_and_goes_on_without_a_lost_run(server: ComfyServer) -> None:
    (server.folder / "output" / "one.flac").write_bytes((ROOT / "assets" / "example-mix.flac").read_bytes())
    (server.folder / "output" / "one.json").write_text(json.dumps({"caption": "one"}))
    texts = json.loads((ROOT / "locales" / "en" / "main.json").read_text("utf-8"))["acestepGraph"]
    script = Script()
    do = script.do
    do(workflow("custom"))
    do(f"eval={OPEN}")
    do(f"wait={READY}")
    accepted = "window.asked += 1; app.api.dispatchCustomEvent('promptQueued', {}); return true"
    do(f"eval=(window.asked = 0, app.queuePrompt = async () => {{ {accepted} }}, 0)")
    emptied = "eval=app.api.dispatchCustomEvent('status', { exec_info: { queue_remaining: 0 } })"
    pause = "eval=new Promise(done => setTimeout(done, 1500))"
    status = "document.querySelector('.acestep-panel .acestep-status').textContent"
    do(f"eval={press('autogen')}")
    do("wait=asked === 1")
    do(emptied)
    do("wait=asked === 2")
    do("eval=app.api.dispatchCustomEvent('execution_start', { prompt_id: 'x', timestamp: 0 })")
    do(emptied)
    do(pause)
    do("eval=asked", "while it runs")
    do("eval=app.api.dispatchCustomEvent('reconnected')")
    do("wait=asked === 3")
    do("clear")
    do(emptied)
    do(pause)
    do(f"eval=[asked, {status}]", "elsewhere")
    do("eval=app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    do("wait=asked === 4")
    do(f"eval={SAMPLER}.mode = 4")
    do(emptied)
    do(pause)
    do(f"eval=[asked, {status}]", "no sampler")
    do(f"eval={SAMPLER}.mode = 0")
    do("wait=asked === 5")
    do(f"eval={status}", "at last")
    found = script.run(server)
    assert found["while it runs"] == 2
    assert found["elsewhere"] == [3, texts["panel.autogen.elsewhere"]]
    assert found["no sampler"] == [4, texts["panel.autogen.no sampler"]]
    assert found["at last"] == texts["panel.queued"]


@needs_browser
@each_renderer
def test_a_seed_that_a_subgraph_shows_is_written(server: ComfyServer, renderer: str) -> None:
    script = Script()
    do = script.do
    do(workflow("custom"))
    do(f"eval={QUICK}")
    do("run=120")
    do(f"eval={OPEN}")
    do(f"wait={READY}")
    do(f"eval=void (window.box = app.rootGraph.convertToSubgraph(new Set([{SAMPLER}])).node)")
    do("eval=void (window.inner = box.subgraph.nodes.find(n => n.comfyClass === 'ACEStepSampler'))")
    slot = "inner.inputs.find(i => i.widget?.name === '{0}')"
    for name in ("seed", "steps"):
        do(f"eval=void box.subgraph.addInput('{name}', 'INT').connect({slot.format(name)}, inner)")
    sent = "app.graphToPrompt().then(p => Object.values(p.output).find(n => n.class_type === 'ACEStepSampler').inputs)"
    do(f"eval={press('use')}")
    do(f"eval={sent}", "used")
    do("eval=(app.queuePrompt = async () => { app.api.dispatchCustomEvent('promptQueued', {}); return true }, 0)")
    do(f"eval={press('next')}")
    do(f"eval={sent}", "next")
    do("eval=box.widgets.find(w => w.name === 'seed').value", "shown")
    number = "LiteGraph.createNode('PrimitiveInt')"
    steps = "box.inputs.findIndex(i => i.name === 'steps')"
    do(f"eval=(() => {{ const n = {number}; app.rootGraph.add(n); n.connect(0, box, {steps}) }})()")
    do("eval=document.querySelectorAll('.p-toast-message').forEach(one => one.remove())")
    do(f"eval={press('use')}")
    do("wait=document.querySelector('.p-toast-message')")
    do("eval=document.querySelector('.p-toast-message').innerText", "said")
    found = script.run(server, renderer=renderer)
    assert found["used"]["seed"] == 42 and found["used"]["steps"] == 2
    assert found["next"]["seed"] not in (42, 43) and found["shown"] == found["next"]["seed"]
    assert "steps = 2" in found["said"] and "over a link" in found["said"] and "repeats" not in found["said"]


def same_music(server: ComfyServer, one: int, other: int) -> bool:
    from acestep_graph.acestep_core import audio

    paths = [server.folder / "output" / "audio" / f"ACE-Step_{number:05}_.flac" for number in (one, other)]
    return torch.equal(*(audio.read(path)[0] for path in paths))


HOSTILE = {
    "<img src=x onerror=window.hacked=1>": {
        "caption": "<script>window.hacked=1</script>",
        "lines": [{"text": "<b>", "start": 0}],
    },
    "types": {"caption": 3, "peaks": {"a": 1}, "lines": "x", "scores": [1], "seed": {}, "batch": 9, "item": "x"},
    "nothing": {"caption": ""},
    "upward": {"caption": "up", "file": "../../secret.flac", "batch": "../.."},
}


@needs_browser
def test_hostile_files_are_shown_as_text(server: ComfyServer) -> None:
    output = server.folder / "output"
    for name, record in HOSTILE.items():
        (output / f"{name}.flac").write_bytes((ROOT / "assets" / "example-mix.flac").read_bytes())
        (output / f"{name}.json").write_text(json.dumps(record))
    (output / "huge.flac").write_bytes(b"x")
    (output / "huge.json").write_bytes(b'{"caption": "' + b"x" * 100_000_000 + b'"}')
    script = Script()
    script.do(f"eval={OPEN}")
    script.do("wait=document.querySelector('.acestep-panel .acestep-batch')")
    script.do("eval=document.querySelectorAll('.acestep-panel .acestep-batch').length", "batches")
    rows = "[...document.querySelectorAll('.acestep-panel .acestep-batch')]"
    each = "row.click(); await new Promise(done => setTimeout(done, 400))"
    script.do(f"eval=(async () => {{ for (const row of {rows}) {{ {each} }} }})()")
    script.do("eval=document.querySelector('.acestep-panel').textContent", "text")
    script.do(
        "eval=[...document.querySelectorAll('.acestep-panel img, .acestep-panel script, .acestep-panel b')].length",
        "markup",
    )
    script.do("eval=window.hacked ?? null", "hacked")
    found = script.run(server)
    assert found["batches"] == len(HOSTILE) and found["markup"] == 0 and found["hacked"] is None
    assert "<script>window.hacked=1</script>" in found["text"] and "huge.json" in found["text"]


@needs_browser
@each_renderer
@pytest.mark.parametrize("language", LANGUAGES)
def test_it_speaks_the_language(server: ComfyServer, pictures: Path, renderer: str, language: str) -> None:  # noqa: F811
    if not (ROOT / "locales" / language).is_dir():
        pytest.fail(f"there is no folder locales/{language}")
    texts = json.loads((ROOT / "locales" / language / "main.json").read_text("utf-8"))["acestepGraph"]
    names = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    script = Script()
    script.do(workflow("custom"))
    script.do(f"eval={QUICK}")
    script.do(f"eval={JUDGED}")
    script.do("run=120")
    script.do(f"eval={OPEN}")
    script.do(f"wait={READY}")
    script.do("eval=document.querySelector('.acestep-panel [data-action=use]').textContent", "use")
    script.do("eval=LiteGraph.registered_node_types['ACEStepSaveResult'].title", "node")
    tag = f"{language}-{renderer.replace(' ', '-').replace('.', '')}"
    script.do(f"page={pictures / f'results-{tag}.png'}")
    found = script.run(server, renderer=renderer, locale=language)
    assert found["use"] == texts["panel.use"]
    assert found["node"] == names["ACEStepSaveResult"]["display_name"]


@needs_browser
def test_every_format_with_room_for_it_brings_the_workflow_back(server: ComfyServer) -> None:
    """Dropped on an empty canvas, a saved file opens the workflow that made it."""
    workflow_file = read(ROOT / "workflows" / "custom.json")
    prompts, steps = {}, []
    with Client(server.url) as client:
        for format in ("flac", "mp3", "opus"):
            prompt = with_seconds(to_api(workflow_file), SHORT)
            save = next(node for node in prompt.values() if node["class_type"] == "ACEStepSaveResult")
            save["inputs"] |= {"format": format, "filename_prefix": f"dropped/{format}"}
            run = client.run(prompt, workflow_file, 300)
            assert run.ended == "execution_success", run.error
            prompts[format] = prompt
            steps += ["clear", f"drop={saved(server, f'.{format}')[0]}"]
    seen = browse(server, *steps)
    dropped = [step for step in seen["steps"] if step["do"] == "drop"]
    assert [step.get("error") for step in dropped] == [None] * 3
    for step in dropped:
        assert essence(step["output"]) == essence(to_api(workflow_file))
