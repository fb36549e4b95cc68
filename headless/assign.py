"""``--set "Node title.input=value"``: change one input of a graph before it runs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from .declared import Input, NodeTable, declared_inputs
from .graph import Graph, Link, Problem, WorkflowError
from .validate import checked_inputs


@dataclass(frozen=True)
class Target:
    """Something that can be set: a widget of a node, primitive or subgraph, and the inputs behind it."""

    id: str
    title: str
    type: str
    input: str
    inputs: tuple[tuple[str, str], ...]

    @property
    def keys(self) -> list[str]:
        return [f"{name}.{self.input}" for name in {self.id, self.title, self.type}]


def assign(graph: Graph, assignment: str, table: NodeTable) -> Graph:
    """``graph`` with one input set; the workflow it carries is changed alike.

    Args:
        graph: stays as it is.
        assignment: ``node.input=value``. The node is named by title, id or class; the value is plain text or
            JSON. A link into the input is cut.
        table: the node classes.

    Raises:
        WorkflowError: no such input, several, or a value of the wrong kind; says what is allowed.
    """
    targets = settable(graph, table)
    hits = [(len(key), target) for target in targets for key in target.keys if assignment.startswith(f"{key}=")]
    if not hits:
        raise WorkflowError(_nothing_hit(assignment, targets))
    length = max(size for size, _ in hits)
    meant = {target.inputs: target for size, target in hits if size == length}
    if len(meant) > 1:
        ids = ", ".join(target.id for target in meant.values())
        raise WorkflowError(f"{assignment[:length]!r} means several nodes; name one by its id: {ids}.")
    for node, input in next(iter(meant)):
        graph = _with_value(graph, node, input, assignment[length + 1 :], table)
    return graph


def settable(graph: Graph, table: NodeTable) -> list[Target]:
    """Every widget of the graph, nodes in file order."""
    found = []
    for node in graph.nodes.values():
        for name, input in declared_inputs(table[node.type]).items() if node.type in table else ():
            if input.is_widget:
                found.append(Target(node.id, node.title, node.type, name, ((node.id, name),)))
    for alias in graph.aliases:
        found += [Target(alias.id, alias.title, alias.type, name, inputs) for name, inputs in alias.targets.items()]
    return found


def parse_value(input: Input, text: str) -> Any:
    """``text`` from a command line as a value for ``input``; ValueError where it is of another kind."""
    if input.choices is not None and text in input.choices:
        return text
    kind = input.widget_type
    if kind == "STRING":
        return _unquoted(text)
    if kind == "BOOLEAN":
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[text.strip().lower()]
    value = json.loads(text)
    if kind in ("INT", "FLOAT"):
        if isinstance(value, bool) or not isinstance(value, int if kind == "INT" else int | float):
            raise ValueError(text)
    return value


def _unquoted(text: str) -> str:
    """Text within quotes as JSON reads it, unless it is none, or the path of a drive, whose backslashes are its own."""
    if len(text) < 2 or not text[0] == text[-1] == '"' or re.match(r'"[A-Za-z]:\\', text):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _with_value(graph: Graph, id: str, name: str, text: str, table: NodeTable) -> Graph:
    node = graph.nodes[id]
    input = declared_inputs(table[node.type])[name]
    try:
        value = parse_value(input, text)
    except (KeyError, ValueError, RecursionError):
        # the class itself may allow what is not in its list, such as a model in another layout
        if input.choices is None or not {name, "**"} & checked_inputs(table[node.type]):
            problem = node.problem(f"{text!r} does not fit; allowed: {input.allowed}.", name)
            raise WorkflowError(problem) from None
        value = text
    changed = graph.with_inputs(id, {**node.inputs, name: value})
    if graph.workflow is None or (id, name) not in graph.places or isinstance(node.inputs.get(name), Link):
        return changed
    return replace(changed, workflow=_put(graph.workflow, graph.places[id, name], value))


def _put(data: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of nested lists and mappings with ``value`` at ``path``."""
    if not path:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data or [])
    if isinstance(copied, list):
        copied += [None] * (path[0] + 1 - len(copied))
        copied[path[0]] = _put(copied[path[0]], path[1:], value)
    else:
        copied[path[0]] = _put(copied.get(path[0]), path[1:], value)
    return copied


def _nothing_hit(assignment: str, targets: list[Target]) -> Problem:
    asked = assignment.split("=")[0]
    if "=" not in assignment or "." not in asked:
        return Problem(f"--set takes 'Node title.input=value', not {assignment!r}.")
    same = [t for t in targets if any(asked.startswith(f"{name}.") for name in (t.id, t.title, t.type))]
    inputs: dict[str, list[str]] = {}
    for target in same or targets:
        inputs.setdefault(f"  {target.title} ({target.id}, {target.type}): ", []).append(target.input)
    lines = [label + ", ".join(names) for label, names in inputs.items()]
    return Problem("\n".join([f"There is no {asked!r} to set in this workflow. What can be set:", *lines]))
