"""A workflow file being put together: nodes, links and groups, as ComfyUI saves them.

Needs the pack to be importable as ``acestep_graph`` and imports nothing heavy.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from acestep_graph.headless.declared import declared_inputs, node_table, output_names, saved_widgets

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
        values, control = [], "randomize"
        for entry in saved_widgets(cls):
            if entry is None:
                values.append(widgets.get("after_generate", control))
            else:
                values.append(widgets.get(entry.name, entry.default))
                asked = entry.options.get("control_after_generate")
                control = asked if isinstance(asked, str) else "randomize"
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

    def relink(self, source: dict[str, Any], output: str, target: dict[str, Any], input: str) -> None:
        """Feed ``input`` from ``source`` in place of what feeds it now."""
        slot = next(i for i, o in enumerate(target["inputs"]) if o["name"] == input)
        number = target["inputs"][slot]["link"]
        link = next(link for link in self.links if link[0] == number)
        before = next(node for node in self.nodes if node["id"] == link[1])
        before["outputs"][link[2]]["links"].remove(number)
        out = next(i for i, o in enumerate(source["outputs"]) if o["name"] == output)
        link[1], link[2] = source["id"], out
        source["outputs"][out]["links"].append(number)

    def link_widget(self, source: dict[str, Any], output: str, target: dict[str, Any], widget: str) -> None:
        """A link into a widget."""
        target["inputs"].append({"name": widget, "type": "STRING", "widget": {"name": widget}, "link": None})
        self.link(source, output, target, widget)

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
