"""``--audio FILE``: one's own recording in place of the one a workflow opens with."""

from __future__ import annotations

import filecmp
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from .graph import Graph, Node, WorkflowError

RECORDINGS = ("ACEStepExampleAudio", "LoadAudio")
LOAD = "LoadAudio"


def with_recording(graph: Graph, given: str, folder: Path) -> Graph:
    """``graph`` with a recording that is read from ``folder``, the input folder; the workflow it carries alike.

    Args:
        given: a file, which is copied into the folder unless it lies there, as an upload on the canvas is; or
            ``node=file`` where the workflow hears several recordings, the node named by title or id.

    Raises:
        WorkflowError: no such file, or no node or several that it could be meant for.
    """
    heard = [node for node in graph.nodes.values() if node.type in RECORDINGS]
    name, _, file = given.partition("=")
    named = [node for node in heard if file and name in (node.id, node.title)]
    path = Path(file if named else given).expanduser()
    meant = named or heard
    if not meant:
        raise WorkflowError("This workflow hears no recording, so there is no place for --audio.")
    if len(meant) > 1:
        titles = ", ".join(f"{node.title} ({node.id})" for node in meant)
        raise WorkflowError(f"This workflow hears several recordings; write --audio NODE=FILE with one of: {titles}.")
    if not path.is_file():
        raise WorkflowError(f"There is no file {path}.")
    node = replace(meant[0], type=LOAD, inputs={"audio": put(path, folder)})
    return replace(graph, nodes={**graph.nodes, node.id: node}, workflow=_changed(graph.workflow, node))


def put(path: Path, folder: Path) -> str:
    """The name of a file in ``folder``: its own where it lies there, else that of a copy, which replaces no other."""
    if path.resolve().is_relative_to(folder.resolve()):
        return path.resolve().relative_to(folder.resolve()).as_posix()
    folder.mkdir(parents=True, exist_ok=True)
    copy, number = folder / path.name, 0
    while copy.exists() and not filecmp.cmp(path, copy, shallow=False):
        number += 1
        copy = folder / f"{path.stem} ({number}){path.suffix}"
    if not copy.exists():
        shutil.copyfile(path, copy)
    return copy.name


def _changed(workflow: dict[str, Any] | None, node: Node) -> dict[str, Any] | None:
    if workflow is None:
        return None
    own = {"type": LOAD, "properties": {"Node name for S&R": LOAD}, "widgets_values": [node.inputs["audio"]]}
    around, _, id = node.id.rpartition(":")
    if not around:
        return {**workflow, "nodes": _with_node(workflow, id, own)}
    inside = _definition(workflow, around)
    defined = workflow.get("definitions", {})
    graphs = [
        {**graph, "nodes": _with_node(graph, id, own)} if graph.get("id") == inside else graph
        for graph in defined.get("subgraphs", ())
    ]
    return {**workflow, "definitions": {**defined, "subgraphs": graphs}}


def _with_node(graph: dict[str, Any], id: str, own: dict[str, Any]) -> list[Any]:
    return [{**entry, **own} if str(entry.get("id")) == id else entry for entry in graph.get("nodes", ())]


def _definition(workflow: dict[str, Any], path: str) -> str:
    """The id of the subgraph that the nodes ``path``, such as ``50:12``, lead to."""
    graphs = {graph.get("id"): graph for graph in workflow.get("definitions", {}).get("subgraphs", ())}
    graph, kind = workflow, ""
    for step in path.split(":"):
        kind = next((str(entry.get("type")) for entry in graph.get("nodes", ()) if str(entry.get("id")) == step), "")
        graph = graphs.get(kind, {})
    return kind
