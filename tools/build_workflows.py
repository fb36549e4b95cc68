"""Writes workflows/*.json. Run ``python tools/build_workflows.py`` after a node's widgets have changed.

Each workflow is described here once, by node titles and widget names; places, ids and the order of widget
values follow from the node classes, so the files are the same on every machine.
"""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import pack  # noqa: E402

pack.load()

from acestep_graph.acestep_core.checkpoints import catalog  # noqa: E402
from acestep_graph.acestep_core.host import Host, use  # noqa: E402
from acestep_graph.headless.declared import declared_inputs, node_table, output_names, saved_widgets  # noqa: E402

VERSION = "0.1.0"
PACK = "acestep-graph"
NOTE_COLORS = {"color": "#432", "bgcolor": "#653"}
GROUP_COLOR = "#3f789e"
MARGIN, TITLE = 20, 50


@dataclass
class Canvas:
    """A workflow being put together."""

    name: str
    nodes: list[dict[str, Any]] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)

    def node(
        self, kind: str, title: str, at: tuple[int, int], size: tuple[int, int], /, **widgets: Any
    ) -> dict[str, Any]:
        """Add a node; ``widgets`` are those that differ from the defaults."""
        cls = node_table()[kind]
        declared = declared_inputs(cls)
        unknown = set(widgets) - set(declared) - {"after_generate"}
        if unknown:
            raise ValueError(f"{kind} has no widget {', '.join(sorted(unknown))}; it has {', '.join(declared)}")
        values = []
        for entry in saved_widgets(cls):
            if entry is None:
                values.append(widgets.get("after_generate", "randomize"))
            else:
                values.append(widgets.get(entry.name, entry.default))
        properties = {"Node name for S&R": kind}
        properties |= {"cnr_id": PACK, "ver": VERSION} if kind.startswith("ACEStep") else {"cnr_id": "comfy-core"}
        return self._add(
            kind,
            title,
            at,
            size,
            inputs=[
                {"name": name, "type": input.type, "link": None}
                for name, input in declared.items()
                if not input.is_widget and input.type != "AUDIO_UI"
            ],
            outputs=[
                {"name": name, "type": type_, "links": []}
                for name, type_ in zip(output_names(cls), cls.RETURN_TYPES, strict=True)
            ],
            properties=properties,
            widgets_values=values,
        )

    def note(self, title: str, at: tuple[int, int], size: tuple[int, int], text: str) -> dict[str, Any]:
        return self._add("MarkdownNote", title, at, size, properties={}, widgets_values=[text], **NOTE_COLORS)

    def _add(self, kind: str, title: str, at: tuple[int, int], size: tuple[int, int], **rest: Any) -> dict[str, Any]:
        number = len(self.nodes) + 1
        node = {
            "id": number,
            "type": kind,
            "pos": list(at),
            "size": list(size),
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "title": title,
            **rest,
        }
        self.nodes.append(node)
        return node

    def link(self, source: dict[str, Any], output: str, target: dict[str, Any], input: str) -> None:
        out = next(i for i, o in enumerate(source["outputs"]) if o["name"] == output)
        slot = next(i for i, o in enumerate(target["inputs"]) if o["name"] == input)
        number = len(self.links) + 1
        kind = source["outputs"][out]["type"]
        self.links.append([number, source["id"], out, target["id"], slot, kind])
        source["outputs"][out]["links"].append(number)
        target["inputs"][slot]["link"] = number

    def group(self, title: str, *members: dict[str, Any]) -> None:
        """A frame around ``members``."""
        left = min(n["pos"][0] for n in members) - MARGIN
        top = min(n["pos"][1] for n in members) - TITLE - MARGIN - 10
        right = max(n["pos"][0] + n["size"][0] for n in members) + MARGIN
        bottom = max(n["pos"][1] + n["size"][1] for n in members) + MARGIN
        bounding = [left, top, right - left, bottom - top]
        number = len(self.groups) + 1
        frame = {"id": number, "title": title, "bounding": bounding, "color": GROUP_COLOR, "font_size": 24, "flags": {}}
        self.groups.append(frame)

    def json(self) -> str:
        data = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK}/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [80, 140]}},
            "version": 0.4,
        }
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def published(identifier: str) -> dict[str, str]:
    """What ComfyUI needs to offer a missing model for download."""
    comfy = next(m.comfy for m in catalog.MODELS if m.id == identifier)
    return {"name": comfy.name, "url": comfy.url, "directory": comfy.folder}


def models_node(canvas: Canvas, at: tuple[int, int]) -> dict[str, Any]:
    """The combined loader, with the files ComfyUI users have."""
    files = [published(i) for i in ("acestep-v15-turbo", "Qwen3-Embedding-0.6B", "vae")]
    names = dict(zip(("diffusion_model", "text_encoder", "vae"), (f["name"] for f in files), strict=True))
    node = canvas.node("ACEStepLoadModels", "Load models", at, (400, 310), **names)
    node["properties"]["models"] = files
    return node


def custom() -> Canvas:
    canvas = Canvas("custom")
    models = models_node(canvas, (0, 0))
    note = canvas.note(
        "Read me",
        (0, 420),
        (400, 270),
        "## Custom: a song from your own words\n"
        "Writes and plays a song from a **caption** (style) and **lyrics**.\n\n"
        "Change the caption first, then the lyrics; what stays on *auto* is left to the model.\n\n"
        "Needs the 2B turbo model, its text encoder and its VAE; with an sft or base model, steps and guidance "
        "adapt by themselves.",
    )
    song = canvas.node("ACEStepSong", "Song", (480, 0), (460, 690), duration=-1.0)
    task = canvas.node("ACEStepText2Music", "Text to music", (1020, 0), (340, 210), batch_size=2)
    sampler = canvas.node("ACEStepSampler", "Sampler", (1020, 320), (340, 370), seed=42)
    decode = canvas.node("ACEStepVAEDecode", "Decode", (1440, 0), (360, 210))
    save = canvas.node("ACEStepSaveAudio", "Save and play", (1440, 320), (360, 280), format="mp3")
    used = canvas.node("PreviewAny", "Settings as used", (1440, 710), (360, 240))
    for output in ("model", "text_encoder"):
        canvas.link(models, output, task, output)
    canvas.link(models, "model", sampler, "model")
    canvas.link(models, "vae", decode, "vae")
    canvas.link(song, "song", task, "song")
    canvas.link(task, "conditioning", sampler, "conditioning")
    canvas.link(sampler, "latent", decode, "latent")
    canvas.link(decode, "audio", save, "audio")
    canvas.link(sampler, "result", save, "result")
    canvas.link(sampler, "settings", used, "source")
    canvas.group("1  Models", models, note)
    canvas.group("2  What to make", song)
    canvas.group("3  Make it", task, sampler)
    canvas.group("4  Listen", decode, save, used)
    return canvas


WORKFLOWS = (custom,)


def build() -> dict[str, str]:
    """File name → content, as on a machine without models."""
    with use(Host(models=ROOT / "tests" / "no-models")):
        return {f"{make.__name__.replace('_', '-')}.json": make().json() for make in WORKFLOWS}


if __name__ == "__main__":
    for name, content in build().items():
        (ROOT / "workflows" / name).write_text(content, encoding="utf-8")
        print(name)
