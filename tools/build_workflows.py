"""Writes workflows/*.json. Run ``python tools/build_workflows.py`` after a node's widgets have changed.

Each workflow is described here once, by node titles and widget names; places, ids and the order of widget
values follow from the node classes, so the files are the same on every machine.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import pack  # noqa: E402

pack.load()

from acestep_graph.acestep_core.checkpoints import catalog  # noqa: E402
from acestep_graph.acestep_core.host import Host, use  # noqa: E402
from tools.workflow_canvas import Canvas  # noqa: E402

TURBO, BASE = "acestep-v15-turbo", "acestep-v15-base"


def published(identifier: str) -> dict[str, str]:
    """What ComfyUI needs to offer a missing model for download."""
    model = catalog.BY_ID[identifier]
    if model.comfy is not None:
        return {"name": model.comfy.name, "url": model.comfy.url, "directory": model.comfy.folder}
    url = f"{catalog.HUB}/{model.repo}/resolve/main/model.safetensors"
    return {"name": f"{model.id}/model.safetensors", "url": url, "directory": "acestep"}


@dataclass
class Page:
    """The parts that most workflows have, laid out in columns: models, inputs, task and sampler, result."""

    canvas: Canvas
    models: dict[str, Any]
    note: dict[str, Any]
    inputs: list[dict[str, Any]] = field(default_factory=list)
    middle: list[dict[str, Any]] = field(default_factory=list)
    result: list[dict[str, Any]] = field(default_factory=list)
    models_too: list[dict[str, Any]] = field(default_factory=list)

    def group(self, inputs: str = "2  What to make") -> Canvas:
        self.canvas.group("1  Models", self.models, *self.models_too, self.note)
        self.canvas.group(inputs, *self.inputs)
        self.canvas.group("3  Make it", *self.middle)
        self.canvas.group("4  Listen", *self.result)
        return self.canvas


COLUMNS = (0, 480, 1020, 1440)
PLANNER = "acestep-5Hz-lm-1.7B"


def page(name: str, model: str, note: str, **widgets: Any) -> Page:
    """A new workflow with its loader, which has ``widgets``, and its note."""
    canvas = Canvas(name)
    files = [published(i) for i in (model, "Qwen3-Embedding-0.6B", "vae")]
    names = dict(zip(("diffusion_model", "text_encoder", "vae"), (f["name"] for f in files), strict=True))
    models = canvas.node("ACEStepLoadModels", "Load models", (COLUMNS[0], 0), (400, 310), **names, **widgets)
    models["properties"]["models"] = files
    return Page(canvas, models, canvas.note("Read me", (COLUMNS[0], 420), (400, 290), note))


def add_song(page: Page, at: int, height: int = 690, title: str = "Song", **widgets: Any) -> dict[str, Any]:
    song = page.canvas.node("ACEStepSong", title, (COLUMNS[1], at), (460, height), **widgets)
    page.inputs.append(song)
    return song


def add_planner(page: Page, at: tuple[int, int]) -> dict[str, Any]:
    """The planner's loader, in the group of the models."""
    file = published(PLANNER)
    loader = page.canvas.node("ACEStepLoadLanguageModel", "Load planner", at, (400, 300), language_model=file["name"])
    loader["properties"]["models"] = [file]
    page.models_too.append(loader)
    return loader


def add_shown(page: Page, source: dict[str, Any], output: str, title: str, at: tuple[int, int], height: int) -> None:
    """Text of a node, shown on the canvas."""
    shown = page.canvas.node("PreviewAny", title, at, (460, height))
    page.canvas.link(source, output, shown, "source")
    page.inputs.append(shown)


def add_source(page: Page, at: int, recording: str = "Full mix", title: str = "Source") -> dict[str, Any]:
    """Example audio and its encoder; a user connects Load Audio in its place."""
    canvas = page.canvas
    example = canvas.node("ACEStepExampleAudio", "Your recording", (COLUMNS[1], at), (460, 100), recording=recording)
    encode = canvas.node("ACEStepEncodeSource", title, (COLUMNS[1], at + 210), (460, 210))
    canvas.link(example, "audio", encode, "audio")
    canvas.link(page.models, "vae", encode, "vae")
    page.inputs += [example, encode]
    return encode


def add_task(page: Page, kind: str, title: str, height: int, /, **widgets: Any) -> dict[str, Any]:
    canvas = page.canvas
    task = canvas.node(kind, title, (COLUMNS[2], 0), (340, height), **widgets)
    for output in ("model", "text_encoder"):
        canvas.link(page.models, output, task, output)
    page.middle.append(task)
    return task


def add_sampler(page: Page, task: dict[str, Any], at: int, **widgets: Any) -> dict[str, Any]:
    sampler = page.canvas.node("ACEStepSampler", "Sampler", (COLUMNS[2], at), (340, 410), seed=42, **widgets)
    page.canvas.link(page.models, "model", sampler, "model")
    page.canvas.link(task, "conditioning", sampler, "conditioning")
    page.middle.append(sampler)
    return sampler


def add_result(
    page: Page,
    sampler: dict[str, Any],
    prefix: str = "audio/ACE-Step",
    format: str = "mp3",
    normalize: bool = True,
    planner: dict[str, Any] | None = None,
    sung: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Decoder, player and settings; returns decoder and player. With ``sung`` also Score and Lyric Timing, bypassed."""
    canvas, x = page.canvas, COLUMNS[3]
    decode = canvas.node("ACEStepVAEDecode", "Decode", (x, 0), (360, 210), normalize=False)
    result = sampler
    if sung:
        score, timing = add_judges(page, sampler, planner, (x, 320))
        score["mode"] = timing["mode"] = 4
        result, x = timing, x + 440
    at = 0 if sung else 320
    save = add_save(page, "Save and play", (x, at), filename_prefix=prefix, format=format, normalize=normalize)
    used = canvas.node("PreviewAny", "Settings as used", (x, at + SAVE_HEIGHT + 110), (400, 240))
    canvas.link(page.models, "vae", decode, "vae")
    canvas.link(sampler, "latent", decode, "latent")
    canvas.link(decode, "audio", save, "audio")
    canvas.link(result, "result", save, "result")
    canvas.link(sampler, "settings", used, "source")
    page.result += [decode, save, used]
    return decode, save


SAVE_HEIGHT = 640
"""Of a Save Result with its player."""


def add_save(page: Page, title: str, at: tuple[int, int], **widgets: Any) -> dict[str, Any]:
    return page.canvas.node("ACEStepSaveResult", title, at, (400, SAVE_HEIGHT), **widgets)


def add_judges(
    page: Page, source: dict[str, Any], planner: dict[str, Any] | None, at: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score and, behind it, Lyric Timing."""
    canvas, (x, y) = page.canvas, at
    score = canvas.node("ACEStepScore", "Score", (x, y), (360, 190), encode_to_codes=True)
    timing = canvas.node("ACEStepLyricTiming", "Lyric timing", (x, y + 300), (360, 170))
    canvas.link(source, "result", score, "result")
    canvas.link(score, "result", timing, "result")
    for node in (score, timing):
        canvas.link(page.models, "model", node, "model")
    if planner is not None:
        canvas.link(planner, "lm", score, "lm")
    page.result += [score, timing]
    return score, timing


COVER_STYLE = {
    "caption": "Jazz trio version, brushed drums, upright bass, warm piano, late evening",
    "lyrics": "",
    "instrumental": True,
}
SOURCE_WORDS = {
    "caption": (
        "Mellow pop groove, electric piano, plucked guitar, warm strings, soft wordless female voice, bright and calm"
    ),
    "lyrics": "[Verse]\nLa la la, oh\nLa la la, ah\nLa la la, ooh",
    "bpm": 120,
    "key": "D major",
    "time_signature": "4",
}
NEW_WORDS = "[Verse]\nHello, my love\nHello again\nHere comes the sun"
YOUR_OWN = "To use your own recording, put a *Load Audio* node in place of *Your recording*."


def custom() -> Canvas:
    p = page(
        "custom",
        TURBO,
        "## Custom: a song from your own words\n"
        "Writes and plays a song from a **caption** (style) and **lyrics**.\n\n"
        "Change the caption first, then the lyrics; what stays on *auto* is left to the model. **Score** and **Lyric "
        "timing** (synced lyrics) are bypassed; switch them on with Ctrl+B. A *Timbre Reference* node on **reference** "
        "gives the song a timbre.\n\n"
        "Needs the 2B turbo model, its text encoder and its VAE; with an sft or base model, steps and guidance "
        "adapt by themselves.",
    )
    song = add_song(p, 0)
    task = add_task(p, "ACEStepText2Music", "Text to music", 230)
    p.canvas.link(song, "song", task, "song")
    add_result(p, add_sampler(p, task, 340), sung=True)
    return p.group()


def remix() -> Canvas:
    p = page(
        "remix",
        TURBO,
        "## Remix: the same song in another dress\n"
        f"Keeps melody, rhythm and structure of a recording and plays them in a new style. {YOUR_OWN}\n\n"
        "Change the caption first; a lower **strength** leaves the recording earlier.\n\n"
        "Needs the 2B turbo model; sft and base work as well.",
    )
    source = add_source(p, 0)
    song = add_song(p, 530, 620, **COVER_STYLE)
    task = add_task(p, "ACEStepRemix", "Remix", 310)
    p.canvas.link(song, "song", task, "song")
    p.canvas.link(source, "source", task, "source")
    add_result(p, add_sampler(p, task, 420), "audio/remix")
    return p.group("2  What to remix, and how")


def flow_edit() -> Canvas:
    p = page(
        "flow-edit",
        TURBO,
        "## Flow edit: other words for a recording\n"
        f"Leads a recording from the words it has to new ones; its arrangement stays. {YOUR_OWN}\n\n"
        "Write what is there into *As it is* (**Transcribe** can help) and what you want into *As it is to be*: "
        "lyrics, caption, or both. A higher **start** keeps more, more **draws** are steadier.\n\n"
        "Needs the 2B turbo model; with sft and base, try 60 steps, a start of 0.6 for new words, or 0.2 to 0.4 for a "
        "new style.",
    )
    p.note["size"] = [400, 400]
    source = add_source(p, 0)
    was = add_song(p, 530, 620, "As it is", **SOURCE_WORDS)
    song = add_song(p, 1260, 620, "As it is to be", **{**SOURCE_WORDS, "lyrics": NEW_WORDS})
    task = add_task(p, "ACEStepFlowEdit", "Flow edit", 330, start=0.3, draws=2)
    p.canvas.link(song, "song", task, "song")
    p.canvas.link(was, "song", task, "source_song")
    p.canvas.link(source, "source", task, "source")
    add_result(p, add_sampler(p, task, 440, steps=16), "audio/flow-edit")
    return p.group("2  The recording, its words, and the new ones")


def repaint() -> Canvas:
    p = page(
        "repaint",
        TURBO,
        "## Repaint: a new take of one part\n"
        f"Makes the seconds from **start** to **end** anew and keeps the rest, sample for sample. {YOUR_OWN}\n\n"
        "Set start and end first, and write the caption and the whole lyrics of the recording into *Song*.\n\n"
        "Needs the 2B turbo model; sft and base work as well.",
    )
    source = add_source(p, 0)
    song = add_song(p, 530, 620, **SOURCE_WORDS)
    task = add_task(p, "ACEStepRepaint", "Repaint", 330, start=4.0, end=8.0)
    p.canvas.link(song, "song", task, "song")
    p.canvas.link(source, "source", task, "source")
    add_result(p, add_sampler(p, task, 440), "audio/repaint", "flac", normalize=False)
    return p.group("2  The recording and its words")


def extend() -> Canvas:
    p = page(
        "extend",
        TURBO,
        "## Extend: let a piece go on\n"
        f"Adds music behind a recording: a repaint whose **end** lies beyond it. {YOUR_OWN}\n\n"
        "Set **start** a little before the recording's end, so that the seam is played anew, and **end** to the "
        "length you want. To put music in front, set **start** below 0 and **end** a little after 0: -8 and 1.\n\n"
        "Needs the 2B turbo model; sft and base work as well.",
    )
    source = add_source(p, 0)
    song = add_song(p, 530, 620, **SOURCE_WORDS)
    task = add_task(p, "ACEStepRepaint", "Extend", 330, start=11.0, end=24.0)
    p.canvas.link(song, "song", task, "song")
    p.canvas.link(source, "source", task, "source")
    add_result(p, add_sampler(p, task, 440), "audio/extend", "flac", normalize=False)
    return p.group("2  The recording and its words")


def extract() -> Canvas:
    p = page(
        "extract",
        BASE,
        "## Extract: one track out of a mix\n"
        f"Takes a single track, such as the vocals, out of a recording. {YOUR_OWN}\n\n"
        "Choose the **track** first.\n\n"
        "Needs a base model: turbo models were not trained for this.",
    )
    source = add_source(p, 0)
    task = add_task(p, "ACEStepExtract", "Extract", 210, track="vocals")
    p.canvas.link(source, "source", task, "source")
    add_result(p, add_sampler(p, task, 320), "audio/extract", "flac")
    return p.group("2  The mix")


def all_stems() -> Canvas:
    p = page(
        "all-stems",
        BASE,
        "## All stems: every track from one queue\n"
        f"Takes up to twelve tracks out of a recording, one file each, all of equal length. {YOUR_OWN}\n\n"
        "Switch off the tracks you do not need first: each takes as long as one song.\n\n"
        "Needs a base model: turbo models were not trained for this.",
    )
    source = add_source(p, 0)
    task = add_task(p, "ACEStepExtractTracks", "Extract tracks", 480)
    p.canvas.link(source, "source", task, "source")
    sampler = add_sampler(p, task, 590)
    _, save = add_result(p, sampler, "audio/stems/track", "flac", normalize=False)
    p.canvas.link_widget(task, "filename_prefix", save, "filename_prefix")
    return p.group("2  The mix")


def lego() -> Canvas:
    p = page(
        "lego",
        BASE,
        "## Lego: add one track\n"
        f"Plays a new track along with a recording and mixes both. {YOUR_OWN}\n\n"
        "Choose the **track** and describe it in the caption; levels are set in *Mix*.\n\n"
        "Needs a base model: turbo models were not trained for this.",
    )
    source = add_source(p, 0, "Vocals")
    example = p.inputs[0]
    song = add_song(p, 530, 620, caption="Tight pop drums, dry snare, soft hi-hat", lyrics="")
    task = add_task(p, "ACEStepLego", "Lego", 310, track="drums")
    p.canvas.link(song, "song", task, "song")
    p.canvas.link(source, "source", task, "source")
    decode, save = add_result(p, add_sampler(p, task, 420), "audio/lego", "flac")
    x = COLUMNS[3] + 480
    mix = p.canvas.node("ACEStepMixStems", "Mix", (x, 0), (400, 500), song_db=0.0, stem_1_db=-3.0)
    both = p.canvas.node(
        "ACEStepSaveAudio", "Save the mix", (x, 610), (400, 460), format="flac", filename_prefix="audio/lego-mix"
    )
    p.canvas.link(example, "audio", mix, "audio")
    p.canvas.link(decode, "audio", mix, "stem_1")
    p.canvas.link(mix, "audio", both, "audio")
    p.result += [mix, both]
    save["title"] = "Save the track"
    return p.group("2  What to play along with")


def lora() -> Canvas:
    p = page(
        "lora",
        TURBO,
        "## LoRA: a style of your own\n"
        "Like *custom*, with a LoRA on the diffusion model: put its file into `models/loras` and choose it in **Load "
        "LoRA**.\n\n"
        "Start at a strength of 1; the model's own sound is back, bit for bit, with *enabled* off. Chain several *Load "
        "LoRA* nodes, or take *LoRA Stack*.\n\n"
        "Needs the 2B turbo model; a LoRA fits models of the width it was trained for.",
    )
    canvas = p.canvas
    song = add_song(p, 0)
    adapter = canvas.node("ACEStepLoadLoRA", "Load LoRA", (COLUMNS[2], 0), (340, 210))
    canvas.link(p.models, "model", adapter, "model")
    task = add_task(p, "ACEStepText2Music", "Text to music", 230)
    task["pos"] = [COLUMNS[2], 320]
    canvas.link(song, "song", task, "song")
    sampler = add_sampler(p, task, 660)
    canvas.relink(adapter, "model", sampler, "model")
    p.middle.insert(0, adapter)
    add_result(p, sampler, "audio/lora")
    report = canvas.node("PreviewAny", "The LoRA", (COLUMNS[3], 320 + SAVE_HEIGHT + 460), (400, 200))
    canvas.link(adapter, "report", report, "source")
    p.result.append(report)
    return p.group()


def best_of() -> Canvas:
    p = page(
        "best-of",
        TURBO,
        "## Best of: make several, keep the best\n"
        "Makes four variations, scores each (does the planner recognise the request, are the words sung clearly?), and "
        "decodes, times and saves the best one.\n\n"
        "Set how many are made in *Text to music* and how many stay in *Pick best*; the scores stand in *Scores*, the "
        "choice in *What was kept*.\n\n"
        "Needs the 2B turbo model and a language model (1.7B; 0.6B for small cards).",
    )
    canvas, planner = p.canvas, add_planner(p, (COLUMNS[0], 420))
    p.note["pos"], p.note["size"] = [COLUMNS[0], 830], [400, 330]
    song = add_song(p, 0)
    task = add_task(p, "ACEStepText2Music", "Text to music", 230, batch_size=4)
    canvas.link(song, "song", task, "song")
    sampler = add_sampler(p, task, 340)
    x = COLUMNS[3]
    score = canvas.node("ACEStepScore", "Score", (x, 0), (360, 190), encode_to_codes=True)
    pick = canvas.node("ACEStepPickBest", "Pick best", (x, 300), (360, 150))
    timing = canvas.node("ACEStepLyricTiming", "Lyric timing", (x, 560), (360, 170))
    decode = canvas.node("ACEStepVAEDecode", "Decode", (x, 900), (360, 210), normalize=False)
    save = add_save(p, "Save and play", (x + 440, 0))
    shown = canvas.node("PreviewAny", "Scores", (x + 440, SAVE_HEIGHT + 110), (400, 300))
    kept = canvas.node("PreviewAny", "What was kept", (x + 440, SAVE_HEIGHT + 460), (400, 160))
    canvas.link(pick, "report", kept, "source")
    canvas.link(sampler, "result", score, "result")
    canvas.link(planner, "lm", score, "lm")
    canvas.link(score, "result", pick, "result")
    canvas.link(pick, "result", timing, "result")
    for node in (score, timing):
        canvas.link(p.models, "model", node, "model")
    canvas.link(p.models, "vae", decode, "vae")
    canvas.link(pick, "latent", decode, "latent")
    canvas.link(decode, "audio", save, "audio")
    canvas.link(timing, "result", save, "result")
    canvas.link(score, "report", shown, "source")
    p.result += [score, pick, timing, decode, save, shown, kept]
    return p.group()


def complete() -> Canvas:
    p = page(
        "complete",
        BASE,
        "## Complete: a band for a voice\n"
        f"Builds an arrangement around a single track. {YOUR_OWN}\n\n"
        "Switch on the **tracks** to add and write the style into the caption.\n\n"
        "Needs a base model: turbo models were not trained for this.",
    )
    source = add_source(p, 0, "Vocals")
    song = add_song(p, 530, 620, **SOURCE_WORDS)
    task = add_task(p, "ACEStepComplete", "Complete", 520)
    p.canvas.link(song, "song", task, "song")
    p.canvas.link(source, "source", task, "source")
    add_result(p, add_sampler(p, task, 630), "audio/complete")
    return p.group("2  The track and the style")


def simple() -> Canvas:
    p = page(
        "simple",
        TURBO,
        "## Simple: a song from one sentence\n"
        "The planner writes caption, lyrics, tempo, key and length from your **description**, then the codes the "
        "music follows.\n\n"
        "Read its proposal in *The song* and correct it in *Change what you like*: only what comes behind is made "
        "again. Another seed in *Create Sample* gives another song, another seed in the sampler another take.\n\n"
        "Needs the 2B turbo model and a language model (1.7B; 0.6B for small cards).",
    )
    planner = add_planner(p, (COLUMNS[0], 420))
    p.note["pos"], p.note["size"] = [COLUMNS[0], 830], [400, 400]
    create = p.canvas.node("ACEStepCreateSample", "Create Sample", (COLUMNS[1], 0), (460, 470), seed=7)
    edit = p.canvas.node("ACEStepEditSong", "Change what you like", (COLUMNS[1], 580), (460, 470))
    p.canvas.link(planner, "lm", create, "lm")
    p.canvas.link(create, "song", edit, "song")
    p.inputs += [create, edit]
    add_shown(p, edit, "text", "The song", (COLUMNS[1], 1160), 420)
    return planned(p, planner, edit, "song")


def planned(p: Page, planner: dict[str, Any], source: dict[str, Any], output: str) -> Canvas:
    """From a song through Think to music."""
    think = p.canvas.node("ACEStepThink", "Think", (COLUMNS[2], 0), (340, 520), seed=7)
    p.canvas.link(planner, "lm", think, "lm")
    p.canvas.link(source, output, think, "song")
    task = add_task(p, "ACEStepText2Music", "Text to music", 230)
    task["pos"] = [COLUMNS[2], 630]
    p.canvas.link(think, "song", task, "song")
    p.canvas.link(think, "codes", task, "codes")
    p.middle.insert(0, think)
    add_result(p, add_sampler(p, task, 970), planner=planner, sung=True)
    report = p.canvas.node("PreviewAny", "The plan", (COLUMNS[3] + 440, SAVE_HEIGHT + 460), (400, 280))
    p.canvas.link(think, "report", report, "source")
    p.result.append(report)
    return p.group("2  What to make")


def think() -> Canvas:
    p = page(
        "think",
        TURBO,
        "## Think: your own words, planned\n"
        "Like *custom*, but the planner first fills in what is on *auto*, writes a fuller caption and the codes the "
        "music follows.\n\n"
        "To have caption and lyrics rewritten, switch **Format Song** on (Ctrl+B): it is bypassed here.\n\n"
        "Needs the 2B turbo model and a language model (1.7B; 0.6B for small cards).",
    )
    planner = add_planner(p, (COLUMNS[0], 420))
    p.note["pos"], p.note["size"] = [COLUMNS[0], 830], [400, 330]
    song = add_song(p, 0, 620)
    rewrite = p.canvas.node("ACEStepFormat", "Format Song", (COLUMNS[1], 730), (460, 330), seed=7)
    rewrite["mode"] = 4
    p.canvas.link(planner, "lm", rewrite, "lm")
    p.canvas.link(song, "song", rewrite, "song")
    p.inputs.append(rewrite)
    return planned(p, planner, rewrite, "song")


def transcribe() -> Canvas:
    p = page(
        "transcribe",
        TURBO,
        "## Transcribe: what is this music?\n"
        f"Listens to a recording and writes down caption, lyrics, tempo, key and length. {YOUR_OWN}\n\n"
        "The song can go straight into another workflow, for example as the words of a remix.\n\n"
        "Needs the 2B turbo model for its audio codes, and a language model (1.7B; 0.6B for small cards).",
    )
    canvas, planner = p.canvas, add_planner(p, (COLUMNS[0], 420))
    p.note["pos"], p.note["size"] = [COLUMNS[0], 830], [400, 290]
    source = add_source(p, 0)
    codes = canvas.node("ACEStepSourceToCodes", "Source to codes", (COLUMNS[2], 0), (340, 110))
    heard = canvas.node("ACEStepTranscribe", "Transcribe", (COLUMNS[2], 220), (340, 270), seed=7)
    canvas.link(p.models, "model", codes, "model")
    canvas.link(source, "source", codes, "source")
    canvas.link(planner, "lm", heard, "lm")
    canvas.link(codes, "codes", heard, "codes")
    shown = canvas.node("PreviewAny", "The song", (COLUMNS[3], 0), (460, 490))
    canvas.link(heard, "report", shown, "source")
    p.middle += [codes, heard]
    p.result.append(shown)
    canvas.group("1  Models", p.models, *p.models_too, p.note)
    canvas.group("2  The recording", *p.inputs)
    canvas.group("3  Listen to it", *p.middle)
    canvas.group("4  Read", *p.result)
    return canvas


TAG = "mysound"
RUN_NAME = "my-lora"


def train_lora() -> Canvas:
    p = page(
        "train-lora",
        TURBO,
        "## Train a LoRA on your own songs\n"
        "1. Put the folder of your songs into **Your songs**; *examples* are short recordings of this pack, to see it "
        "work. Captions and lyrics beside the songs are found; what is missing the planner writes in **Auto Label**.\n"
        "2. To look at the labels first, right-click the groups 3 and 4 and choose *Bypass Group Nodes*. Queue, change "
        "what you like in **Look and correct**, and switch the groups on again.\n"
        "3. Queue. **Train LoRA** shows the curve. *Cancel* as you like: queued again, it goes on. *Stop and keep* "
        "ends it; **Export LoRA** then writes it into models/loras.\n\n"
        f"The tag *{TAG}* calls the LoRA up in captions. Listen with the workflow *use-lora*.\n\n"
        "10 to 20 songs and 500 epochs are usual. Training Settings tells the memory; the help page (?) of Train LoRA "
        "tells more.",
        precision="bf16",  # auto may quantize, and what is quantized cannot be trained
    )
    canvas, planner = p.canvas, add_planner(p, (COLUMNS[0], 420))
    p.note["pos"], p.note["size"] = [COLUMNS[0], 830], [400, 640]
    x = COLUMNS[1]
    scan = canvas.node("ACEStepScanSongs", "Your songs", (x, 0), (460, 210), tag=TAG)
    label = canvas.node("ACEStepAutoLabel", "Auto label", (x, 400), (460, 330))
    edit = canvas.node("ACEStepEditDataset", "Look and correct", (x, 850), (460, 560))
    save = canvas.node("ACEStepSaveDataset", "Save the data set", (x, 1520), (460, 110))
    for output in ("model", "vae"):
        canvas.link(p.models, output, label, output)
    canvas.link(planner, "lm", label, "lm")
    for before, after in ((scan, label), (label, edit), (edit, save)):
        canvas.link(before, "dataset", after, "dataset")
    found = canvas.node("PreviewAny", "What was found", (x, 1740), (460, 240))
    canvas.link(scan, "report", found, "source")
    p.inputs += [scan, label, edit, save, found]

    x = COLUMNS[2]
    tensors = canvas.node("ACEStepPreprocess", "Preprocess", (x, 0), (340, 260))
    settings = canvas.node("ACEStepTrainingSettings", "Training settings", (x, 370), (340, 680))
    song = canvas.node(
        "ACEStepSong",
        "What samples play",
        (x, 1160),
        (340, 460),
        caption=f"{TAG}, mellow pop groove, electric piano, plucked guitar, soft female voice",
        lyrics="[Verse]\nMorning comes in slowly\nOver roofs and wires",
        duration=30,
    )
    for output in ("model", "text_encoder", "vae"):
        canvas.link(p.models, output, tensors, output)
    canvas.link(edit, "dataset", tensors, "dataset")
    prepared = canvas.node("PreviewAny", "What was prepared", (x, 1740), (340, 240))
    canvas.link(tensors, "report", prepared, "source")
    canvas.link(p.models, "model", settings, "model")
    canvas.link(tensors, "tensors", settings, "tensors")

    x = COLUMNS[3]
    train = canvas.node("ACEStepTrainLoRA", "Train LoRA", (x, 0), (460, 700), name=RUN_NAME, samples_every=100)
    export = canvas.node("ACEStepExportLoRA", "Export LoRA", (x, 810), (460, 210), overwrite=True)
    shown = canvas.node("PreviewImage", "Loss curve", (x, 1130), (460, 320))
    estimate = canvas.node("PreviewAny", "Memory and steps", (x + 500, 0), (400, 200))
    report = canvas.node("PreviewAny", "Report", (x + 500, 310), (400, 240))
    for output in ("model", "text_encoder", "vae"):
        canvas.link(p.models, output, train, output)
    canvas.link(tensors, "tensors", train, "tensors")
    canvas.link(settings, "settings", train, "settings")
    canvas.link(song, "song", train, "song")
    canvas.link(train, "run", export, "run")
    canvas.link(train, "curve", shown, "images")
    canvas.link(settings, "estimate", estimate, "source")
    canvas.link(train, "report", report, "source")
    canvas.group("1  Models", p.models, *p.models_too, p.note)
    canvas.group("2  Songs", *p.inputs)
    canvas.group("3  Prepare", tensors, settings, song, prepared)
    canvas.group("4  Train and export", train, export, shown, estimate, report)
    return canvas


def use_lora() -> Canvas:
    p = page(
        "use-lora",
        TURBO,
        "## Use the LoRA you trained\n"
        "The same song twice, from the same seed: with what the run of *train-lora* has learned, and without.\n\n"
        f"Choose the run in **Load run**. Write its tag (*{TAG}*) into the caption. **which** and **step** take other "
        "checkpoints: where the last sounds overdone, an earlier one is often better. Strength 0.6 to 1 is usual.\n\n"
        "For an exported file, or one from elsewhere, use the workflow *lora*.",
    )
    canvas = p.canvas
    run = canvas.node("ACEStepLoadRun", "Load run", (COLUMNS[0], 820), (400, 110), run=RUN_NAME)
    trained = canvas.node("ACEStepUseTrainedLoRA", "Use trained LoRA", (COLUMNS[0], 1040), (400, 170))
    canvas.link(p.models, "model", run, "model")
    canvas.link(p.models, "model", trained, "model")
    canvas.link(run, "run", trained, "run")
    p.models_too += [run, trained]
    song = add_song(
        p,
        0,
        caption=f"{TAG}, mellow pop groove, electric piano, plucked guitar, soft female voice",
        lyrics="[Verse]\nMorning comes in slowly\nOver roofs and wires\n\n[Chorus]\nStay a little longer\nStay a while",
        duration=30,
    )
    add_shown(p, run, "report", "The run", (COLUMNS[1], 800), 200)
    for row, (title, source) in enumerate((("with", trained), ("without", p.models))):
        y = row * 900
        task = canvas.node("ACEStepText2Music", f"Text to music ({title})", (COLUMNS[2], y), (340, 230))
        sampler = canvas.node(
            "ACEStepSampler", f"Sampler ({title})", (COLUMNS[2], y + 340), (340, 410), seed=42, after_generate="fixed"
        )
        decode = canvas.node("ACEStepVAEDecode", f"Decode ({title})", (COLUMNS[3], y), (360, 130), normalize=False)
        save = add_save(
            p,
            f"Save and play ({title})",
            (COLUMNS[3] + 400, y),
            filename_prefix=f"audio/ACE-Step-{title}",
            format="mp3",
        )
        canvas.link(source, "model", task, "model")
        canvas.link(p.models, "text_encoder", task, "text_encoder")
        canvas.link(song, "song", task, "song")
        canvas.link(source, "model", sampler, "model")
        canvas.link(task, "conditioning", sampler, "conditioning")
        canvas.link(p.models, "vae", decode, "vae")
        canvas.link(sampler, "latent", decode, "latent")
        canvas.link(decode, "audio", save, "audio")
        canvas.link(sampler, "result", save, "result")
        p.middle += [task, sampler]
        p.result += [decode, save]
    return p.group()


PLANNED = (simple, think, best_of, transcribe, train_lora)
WORKFLOWS = (*PLANNED, custom, lora, use_lora, remix, flow_edit, repaint, extend, extract, all_stems, lego, complete)


def build() -> dict[str, str]:
    """File name → content, as on a machine without models."""
    with use(Host(models=ROOT / "tests" / "no-models")):
        return {f"{make.__name__.replace('_', '-')}.json": make().json() for make in WORKFLOWS}


if __name__ == "__main__":
    for name, content in build().items():
        (ROOT / "workflows" / name).write_text(content, encoding="utf-8")
        print(name)
