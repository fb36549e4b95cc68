"""A workflow as a graph of nodes, read from either of ComfyUI's file formats.

>>> graph = load("workflows/custom.json", node_table())
>>> [node.title for node in graph.nodes.values()]
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .declared import NodeTable, node_titles


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a workflow: where, what, and what would be right."""

    message: str
    node: str | None = None
    title: str | None = None
    input: str | None = None

    def __str__(self) -> str:
        where = "" if self.node is None else f"{self.title} ({self.node})"
        if self.input is not None:
            where += f", input {self.input!r}"
        return f"{where}: {self.message}" if where else self.message


class WorkflowError(ValueError):
    """A workflow that cannot run as it is. ``problems`` lists every one found."""

    def __init__(self, problems: str | Problem | Iterable[Problem]):
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Link:
    """The output ``slot`` of node ``node``."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """A node that runs. ``inputs`` holds constants and :class:`Link` by input name."""

    id: str
    type: str
    title: str
    inputs: Mapping[str, Any]

    def links(self) -> dict[str, Link]:
        return {name: value for name, value in self.inputs.items() if isinstance(value, Link)}

    def problem(self, message: str, input: str | None = None) -> Problem:
        return Problem(message, self.id, self.title, input)


@dataclass(frozen=True)
class Alias:
    """A node that exists only on the canvas (a primitive, a subgraph).

    ``targets`` names, for each of its widgets, the (node, input) pairs that take the value.
    """

    id: str
    type: str
    title: str
    targets: Mapping[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Graph:
    """Nodes by id, in file order.

    ``workflow`` is the canvas form, if the file was one; it travels into saved files. ``places`` says at
    which path in it the value of a (node, input) stands.
    """

    nodes: Mapping[str, Node]
    workflow: dict | None = None
    aliases: tuple[Alias, ...] = ()
    places: Mapping[tuple[str, str], tuple[str | int, ...]] = field(default_factory=dict, repr=False)

    def prompt(self) -> dict[str, dict]:
        """The API form, as ComfyUI's server would have received it."""
        return {
            node.id: {
                "class_type": node.type,
                "inputs": {name: _to_api(value) for name, value in node.inputs.items()},
                "_meta": {"title": node.title},
            }
            for node in self.nodes.values()
        }

    def with_inputs(self, node: str, inputs: Mapping[str, Any]) -> Graph:
        """This graph with other inputs at one node."""
        return replace(self, nodes={**self.nodes, node: replace(self.nodes[node], inputs=dict(inputs))})


def load(path: str | os.PathLike, table: NodeTable, titles: Mapping[str, str] | None = None) -> Graph:
    """Read a workflow file in either format.

    Raises:
        WorkflowError: no such file, not JSON, or not a workflow.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise WorkflowError(f"There is no workflow file {path}.") from None
    except OSError as error:
        raise WorkflowError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise WorkflowError(f"{path} is not a JSON file ({error}).") from None
    return parse(data, table, titles)


def parse(data: Any, table: NodeTable, titles: Mapping[str, str] | None = None) -> Graph:
    """A graph from the contents of a workflow file, which are left as they are.

    Args:
        data: canvas workflow (a list ``nodes``) or API prompt, bare or under the key ``prompt``.
        table: tells which widget a saved value belongs to.
        titles: display names of untitled nodes; those of the pack by default.

    Raises:
        WorkflowError: ``data`` is neither, or is damaged.
    """
    from . import canvas

    titles = node_titles() if titles is None else titles
    try:
        if isinstance(data, dict) and isinstance(data.get("nodes"), list):
            return canvas.parse(data, table, titles)
        if isinstance(data, dict) and isinstance(data.get("prompt"), dict):
            data = data["prompt"]
        if isinstance(data, dict) and data and all(isinstance(v, dict) and "class_type" in v for v in data.values()):
            return _parse_api(data, titles)
    except WorkflowError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise WorkflowError(f"The workflow file is damaged ({type(error).__name__}: {error}).") from error
    raise WorkflowError(
        "This is not a ComfyUI workflow: it has neither a list 'nodes' (a saved workflow) nor nodes with a "
        "'class_type' (API format). Save it again from ComfyUI."
    )


def _parse_api(data: Mapping[str, dict], titles: Mapping[str, str]) -> Graph:
    nodes = {}
    for id, entry in data.items():
        type_ = entry["class_type"]
        meta, inputs = entry.get("_meta") or {}, entry.get("inputs") or {}
        if not isinstance(type_, str) or not isinstance(inputs, dict):
            raise WorkflowError(f"Node {id} is damaged: it needs a text 'class_type' and a mapping 'inputs'.")
        title = str(meta.get("title") or titles.get(type_, type_))
        nodes[id] = Node(id, type_, title, {name: _from_api(value) for name, value in inputs.items()})
    return Graph(nodes)


def _from_api(value: Any) -> Any:
    if isinstance(value, dict) and "__value__" in value:
        return value["__value__"]
    if not isinstance(value, list):
        return value
    if len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int | float):
        return Link(str(value[0]), int(value[1]))
    raise WorkflowError(f'{value} is no link ["node id", output]; a list as a value is {{"__value__": [...]}}.')


def _to_api(value: Any) -> Any:
    if isinstance(value, Link):
        return [value.node, value.slot]
    return {"__value__": value} if isinstance(value, list) else value
