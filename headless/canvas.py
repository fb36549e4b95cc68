"""From the canvas form of a workflow to the nodes that run.

What the canvas resolves before it queues is resolved here alike: reroutes and primitives vanish into the
inputs they feed, notes vanish, muted nodes give nothing, bypassed nodes hand through the first input of a
fitting type, and the nodes within a subgraph get ids ``outer:inner``. Values of seeds are taken as saved:
*control after generate* acts after a run, not before.

One difference: when several instances of a subgraph show the same inner widget, each keeps its own value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .declared import NodeTable, declared_inputs, saved_widgets
from .graph import Alias, Graph, Link, Node, WorkflowError

MUTED, BYPASSED = 2, 4
SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS = "-10", "-20"
COMMENTS = ("Note", "MarkdownNote")
PRIMITIVE, REROUTE = "PrimitiveNode", "Reroute"
DEEPEST = 32
MOST_INSTANCES = 2000
"""Limits for subgraphs: how deep they may lie in each other, and how many there may be once unfolded."""

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Value:
    """A constant that the canvas puts into an input (None: leaves as it is), and where in the file it stands."""

    value: Any
    place: Place
    primitive: str | None = None


@dataclass(frozen=True)
class Wire:
    """A link of one canvas; nodes by id."""

    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass(frozen=True)
class Sheet:
    """One canvas: the whole workflow, or the inside of a subgraph."""

    raw: Mapping[str, Any]
    place: Place

    @cached_property
    def nodes(self) -> dict[str, Mapping]:
        return {str(node["id"]): node for node in self.raw.get("nodes") or []}

    @cached_property
    def node_places(self) -> dict[str, Place]:
        return {str(node["id"]): (*self.place, "nodes", i) for i, node in enumerate(self.raw.get("nodes") or [])}

    @cached_property
    def wires(self) -> dict[str, Wire]:
        wires = {}
        for link in self.raw.get("links") or []:
            if isinstance(link, dict):
                keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
                link = [link[key] for key in keys]
            id, origin, origin_slot, target, target_slot = link[:5]
            wires[str(id)] = Wire(str(origin), int(origin_slot), str(target), int(target_slot))
        return wires

    def wire_into(self, node: Mapping, slot: int) -> Wire | None:
        """The link at an input of ``node``; None where nothing is connected."""
        input = node["inputs"][slot]
        if input.get("link") is None:
            return None
        if str(input["link"]) not in self.wires:
            name = node.get("title") or node["type"]
            raise WorkflowError(
                f"{name} ({node['id']}), input {input['name']!r}: refers to link {input['link']}, which the file does "
                "not list. Open the workflow in ComfyUI and save it again."
            )
        return self.wires[str(input["link"])]

    def wire_to_output(self, slot: int) -> Wire | None:
        """The link inside a subgraph that ends at its output ``slot``."""
        ends = (w for w in self.wires.values() if w.target == SUBGRAPH_OUTPUTS and w.target_slot == slot)
        return next(ends, None)


@dataclass(frozen=True)
class Scope:
    """A sheet at one place of the nesting: the instance it belongs to, and that instance's widget values."""

    sheet: Sheet
    path: tuple[str, ...] = ()
    parent: Scope | None = None
    by_input: Mapping[str, Value] = field(default_factory=dict)
    by_widget: Mapping[tuple[str, str], Value] = field(default_factory=dict)

    def id(self, node: str) -> str:
        return ":".join((*self.path, node))

    @property
    def instance(self) -> Mapping:
        return self.parent.sheet.nodes[self.path[-1]]


def parse(data: Mapping[str, Any], table: NodeTable, titles: Mapping[str, str]) -> Graph:
    """See :func:`graph.parse`."""
    return _Reader(data, table, titles).graph()


class _Reader:
    def __init__(self, data: Mapping[str, Any], table: NodeTable, titles: Mapping[str, str]):
        self.data, self.table, self.titles = data, table, titles
        definitions = (data.get("definitions") or {}).get("subgraphs") or []
        self.subgraphs = {
            str(raw["id"]): Sheet(raw, ("definitions", "subgraphs", i)) for i, raw in enumerate(definitions)
        }
        self.scopes: dict[tuple[str, ...], Scope] = {}
        self.nodes: dict[str, Node] = {}
        self.places: dict[tuple[str, str], Place] = {}
        self.aliases: dict[str, tuple[str, str, dict[str, list]]] = {}

    def graph(self) -> Graph:
        self._enter(Scope(Sheet(self.data, ())))
        for scope in self.scopes.values():
            for id, raw in scope.sheet.nodes.items():
                if self._runs(raw):
                    self._add(scope, id, raw)
        aliases = []
        for id, (kind, title, targets) in self.aliases.items():
            reached = {name: tuple(self._reached(inputs)) for name, inputs in targets.items()}
            aliases.append(Alias(id, kind, title, {name: inputs for name, inputs in reached.items() if inputs}))
        return Graph(self.nodes, self.data, tuple(aliases), self.places)

    def _reached(self, inputs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """The widgets of running nodes among ``inputs``, and those behind primitives."""
        for node, name in inputs:
            if node in self.aliases and self.aliases[node][0] == PRIMITIVE:
                yield from self.aliases[node][2].get(name, ())
            elif node in self.nodes and self.nodes[node].type in self.table:
                input = declared_inputs(self.table[self.nodes[node].type]).get(name)
                if input is not None and input.is_widget:
                    yield node, name

    # -- which nodes there are

    def _enter(self, scope: Scope) -> None:
        """Note ``scope`` and, in it, every subgraph instance that is active."""
        if len(scope.path) > DEEPEST:
            raise WorkflowError(f"Subgraphs lie more than {DEEPEST} deep, or one contains itself.")
        if len(self.scopes) >= MOST_INSTANCES:
            raise WorkflowError(f"The workflow holds more than {MOST_INSTANCES} subgraph instances.")
        self.scopes[scope.path] = scope
        for id, raw in scope.sheet.nodes.items():
            if raw["type"] in self.subgraphs and raw.get("mode") not in (MUTED, BYPASSED):
                by_input, by_widget = self._promoted(scope, id, raw)
                sheet = self.subgraphs[raw["type"]]
                self._enter(Scope(sheet, (*scope.path, id), scope, by_input, by_widget))

    def _runs(self, raw: Mapping) -> bool:
        if raw["type"] in self.subgraphs or raw["type"] in (*COMMENTS, PRIMITIVE, REROUTE):
            return False
        return raw.get("mode") not in (MUTED, BYPASSED)

    def _promoted(self, scope: Scope, id: str, raw: Mapping) -> tuple[dict, dict]:
        """The values that a subgraph instance shows, by subgraph input and by (inner node, widget)."""
        sheet = self.subgraphs[raw["type"]]
        shown = (raw.get("properties") or {}).get("proxyWidgets")
        if shown is None:
            shown = [["-1", input["name"]] for input in raw.get("inputs") or [] if input.get("widget")]
        saved = raw.get("widgets_values") or []
        by_input: dict[str, Value] = {}
        by_widget: dict[tuple[str, str], Value] = {}
        for position, (inner, name, *_) in enumerate(shown):
            inner, name = str(inner), str(name)
            key = position if isinstance(saved, list) else name
            value = saved[key] if (key in saved if isinstance(saved, dict) else key < len(saved)) else None
            place: Place = (*scope.sheet.node_places[id], "widgets_values", key)
            outer = scope.by_widget.get((id, name))
            if outer is not None:
                value, place = value if outer.value is None else outer.value, outer.place
            for node, widget in self._inner_widgets(sheet, inner, name):
                self._alias(scope, id, raw).setdefault(name, []).append((scope.id(f"{id}:{node}"), widget))
            if inner == "-1":
                by_input[name] = Value(value, place)
                continue
            by_widget[inner, name] = Value(value, place)
            for input in self._subgraph_inputs_of(sheet, inner, name):
                by_input[input] = Value(value, place)
        return by_input, by_widget

    def _inner_widgets(self, sheet: Sheet, inner: str, name: str) -> Iterator[tuple[str, str]]:
        """The (node, widget) pairs within ``sheet`` behind one promoted widget; node ids are relative."""
        if inner == "-1":
            names = [input["name"] for input in sheet.raw.get("inputs") or []]
            for wire in sheet.wires.values():
                if wire.origin == SUBGRAPH_INPUTS and names[wire.origin_slot] == name and wire.target in sheet.nodes:
                    target = sheet.nodes[wire.target]
                    yield from self._inner_widgets(sheet, wire.target, target["inputs"][wire.target_slot]["name"])
        elif inner in sheet.nodes:
            nested = self.subgraphs.get(sheet.nodes[inner]["type"])
            if nested is None:
                yield inner, name
                return
            shown = (sheet.nodes[inner].get("properties") or {}).get("proxyWidgets") or [["-1", name]]
            for node, widget, *_ in shown:
                if widget == name:
                    for deeper, last in self._inner_widgets(nested, str(node), widget):
                        yield f"{inner}:{deeper}", last

    def _subgraph_inputs_of(self, sheet: Sheet, inner: str, name: str) -> Iterator[str]:
        for input in sheet.nodes.get(inner, {}).get("inputs") or []:
            wire = sheet.wires.get(str(input.get("link")))
            if input["name"] == name and wire is not None and wire.origin == SUBGRAPH_INPUTS:
                yield sheet.raw["inputs"][wire.origin_slot]["name"]

    def _alias(self, scope: Scope, id: str, raw: Mapping) -> dict[str, list]:
        sheet = self.subgraphs.get(raw["type"])
        kind = (sheet.raw.get("name") or "Subgraph") if sheet else raw["type"]
        title = str(raw.get("title") or kind)
        return self.aliases.setdefault(scope.id(id), (kind, title, {}))[2]

    # -- one node

    def _add(self, scope: Scope, id: str, raw: Mapping) -> None:
        full, type_ = scope.id(id), str(raw["type"])
        inputs: dict[str, Any] = {}
        for name, value in self._widget_values(scope, id, raw):
            inputs[name] = value.value
            self.places[full, name] = value.place
        for slot, input in enumerate(raw.get("inputs") or []):
            found = self._source(scope, raw, slot)
            if isinstance(found, Value):
                if found.value is not None:
                    inputs[input["name"]] = found.value
                self.places[full, input["name"]] = found.place
                if found.primitive is not None:
                    self.aliases[found.primitive][2].setdefault("value", []).append((full, input["name"]))
            elif found is not None:
                inputs[input["name"]] = found
        title = str(raw.get("title") or self.titles.get(type_, type_))
        self.nodes[full] = Node(full, type_, title, inputs)

    def _widget_values(self, scope: Scope, id: str, raw: Mapping) -> Iterator[tuple[str, Value]]:
        if raw["type"] not in self.table:
            return
        cls = self.table[raw["type"]]
        saved = raw.get("widgets_values") or []
        place = (*scope.sheet.node_places[id], "widgets_values")
        entries = list(enumerate(saved_widgets(cls)))
        if isinstance(saved, dict):
            entries = [(input.name, input) for input in declared_inputs(cls).values() if input.is_widget]
        for key, input in entries:
            if input is None:
                continue
            given = key in saved if isinstance(saved, dict) else key < len(saved)
            value = saved[key] if given else input.default
            promoted = scope.by_widget.get((id, input.name), Value(None, (*place, key)))
            yield input.name, Value(value if promoted.value is None else promoted.value, promoted.place)

    # -- what feeds an input

    def _source(self, scope: Scope, node: Mapping, slot: int) -> Link | Value | None:
        """Follow the wire at an input back to a node that runs or to a constant; None where it ends in nothing."""
        type_, direct, seen = node["inputs"][slot].get("type"), True, set()
        while True:
            if (scope.path, str(node["id"]), slot) in seen:
                raise WorkflowError(f"Reroutes or bypassed nodes form a circle at node {scope.id(str(node['id']))}.")
            seen.add((scope.path, str(node["id"]), slot))
            wire = scope.sheet.wire_into(node, slot)
            if wire is None:
                return None
            if wire.origin == SUBGRAPH_INPUTS and scope.parent is not None:
                outer = self._outer_slot(scope, wire.origin_slot)
                if isinstance(outer, int):
                    scope, node, slot = scope.parent, scope.instance, outer
                    type_ = node["inputs"][slot].get("type")
                    continue
                return outer
            scope, id, output = self._descend(scope, wire)
            if id not in scope.sheet.nodes:
                raise WorkflowError(f"A link starts at node {scope.id(id)}, which the file does not hold.")
            raw = scope.sheet.nodes[id]
            if raw["type"] == PRIMITIVE:
                return self._primitive(scope, id, raw) if direct else None
            if raw.get("mode") == MUTED or raw["type"] in COMMENTS:
                return None
            if raw.get("mode") == BYPASSED:
                through = _bypass_slot(raw, output, type_)
                if through is None:
                    return None
                node, slot, type_, direct = raw, through, raw["inputs"][through].get("type"), False
            elif raw["type"] == REROUTE:
                node, slot = raw, 0
            elif raw["type"] in self.subgraphs:
                through = self._passes_through(scope, id, output)
                if through is None:
                    return None
                node, slot = raw, through
            else:
                return Link(scope.id(id), output)

    def _descend(self, scope: Scope, wire: Wire) -> tuple[Scope, str, int]:
        """Where a wire starts, looking into subgraph instances as far as their outputs lead."""
        id, output = wire.origin, wire.origin_slot
        while True:
            inner = self.scopes.get((*scope.path, id))
            end = inner.sheet.wire_to_output(output) if inner else None
            if end is None or end.origin == SUBGRAPH_INPUTS:
                return scope, id, output
            scope, id, output = inner, end.origin, end.origin_slot

    def _passes_through(self, scope: Scope, id: str, output: int) -> int | None:
        """The instance's input slot that its output hands through unchanged."""
        inner = self.scopes[(*scope.path, id)]
        end = inner.sheet.wire_to_output(output)
        slot = self._outer_slot(inner, end.origin_slot) if end is not None else None
        return slot if isinstance(slot, int) else None

    def _outer_slot(self, scope: Scope, slot: int) -> int | Value | None:
        """For a subgraph's input: the connected slot of the instance, or its promoted value, or None."""
        name = scope.sheet.raw["inputs"][slot]["name"]
        for position, input in enumerate(scope.instance.get("inputs") or []):
            if input["name"] == name and input.get("link") is not None:
                return position
        return scope.by_input.get(name)

    def _primitive(self, scope: Scope, id: str, raw: Mapping) -> Value | None:
        saved = raw.get("widgets_values") or []
        if not saved:
            return None
        key = 0 if isinstance(saved, list) else next(iter(saved))
        self._alias(scope, id, raw)
        place = (*scope.sheet.node_places[id], "widgets_values", key)
        promoted = scope.by_widget.get((id, "value"), Value(None, place))
        value = saved[key] if promoted.value is None else promoted.value
        return Value(value, promoted.place, scope.id(id))


def _bypass_slot(node: Mapping, output: int, type_: Any) -> int | None:
    """The input that a bypassed node hands through to ``output`` for a consumer of ``type_``."""
    inputs = node.get("inputs") or []
    if not inputs:
        return None
    if type_ in ("*", "", None, 0):
        return output if output < len(inputs) else 0
    outputs = node.get("outputs") or []
    own = outputs[output].get("type") if output < len(outputs) else "*"

    def fits(slot: int) -> bool:
        return _connects(inputs[slot].get("type"), own) and _connects(inputs[slot].get("type"), type_)

    if output < len(inputs) and fits(output):
        return output
    exact = [slot for slot, input in enumerate(inputs) if input.get("type") == type_]
    return next(iter(exact or [slot for slot in range(len(inputs)) if fits(slot)]), None)


def _connects(a: Any, b: Any) -> bool:
    if a in ("*", "", None, 0) or b in ("*", "", None, 0):
        return True
    return not {x.strip().upper() for x in str(a).split(",")}.isdisjoint(x.strip().upper() for x in str(b).split(","))
