"""Everything about a workflow that can be known to be wrong before it runs.

The rules are those of ComfyUI's server: constants are cast to the declared type, numbers must lie in their
range, combo values in their list (unless the class's ``VALIDATE_INPUTS`` names that input), links must fit.
Unlike there, one bad output is enough to refuse the whole workflow.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from .declared import Input, NodeTable, declared_inputs, hidden_inputs
from .graph import Graph, Link, Node, Problem, WorkflowError

CASTS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def validate(graph: Graph, table: NodeTable) -> Graph:
    """``graph`` with its constants cast to the declared types.

    Nodes that no output node needs are not looked at, except that their class must exist.

    Raises:
        WorkflowError: with every problem found.
    """
    problems = [
        node.problem(f"there is no node type {node.type!r} here; `nodes` lists what there is.")
        for node in graph.nodes.values()
        if node.type not in table
    ]
    if problems:
        raise WorkflowError(problems)
    outputs = output_nodes(graph, table)
    if not outputs:
        raise WorkflowError("The workflow does nothing: it has no output node such as Save Audio or Preview as Text.")
    circle = _circle(graph, outputs)
    if circle:
        names = " → ".join(f"{graph.nodes[id].title} ({id})" for id in circle)
        raise WorkflowError(f"The workflow goes in a circle: {names}.")
    for id in needed_nodes(graph, outputs):
        inputs, found = _checked_inputs(graph, graph.nodes[id], table)
        problems += found
        graph = graph.with_inputs(id, inputs)
        if not found:
            problems += _own_verdict(graph, graph.nodes[id], table)
    if problems:
        raise WorkflowError(problems)
    return graph


def output_nodes(graph: Graph, table: NodeTable) -> list[str]:
    """Ids of the nodes for whose sake a workflow runs."""
    return [node.id for node in graph.nodes.values() if getattr(table[node.type], "OUTPUT_NODE", False) is True]


def needed_nodes(graph: Graph, outputs: list[str]) -> list[str]:
    """Ids of ``outputs`` and all their ancestors, in file order."""
    needed, waiting = set(), list(outputs)
    while waiting:
        id = waiting.pop()
        if id in graph.nodes and id not in needed:
            needed.add(id)
            waiting += [link.node for link in graph.nodes[id].links().values()]
    return [id for id in graph.nodes if id in needed]


def types_fit(given: Any, wanted: Any) -> bool:
    """Whether an output of type ``given`` may go into an input of type ``wanted``; ``*`` fits all, commas are *or*."""
    if isinstance(given, list | tuple):
        return wanted in ("COMBO", "*")
    ours, theirs = ({part.strip() for part in str(kind).split(",")} for kind in (given, wanted))
    return bool(ours & theirs) or "*" in ours | theirs


def _circle(graph: Graph, outputs: list[str]) -> list[str] | None:
    finished: set[str] = set()
    for output in outputs:
        path: list[str] = []
        open_: dict[str, Iterator[Link]] = {}
        stack = [output]
        while stack:
            id = stack[-1]
            if id not in open_ and id not in finished:
                path.append(id)
                open_[id] = iter(graph.nodes[id].links().values())
            following = next(open_[id], None) if id in open_ else None
            if following is None:
                stack.pop()
                if id in open_:
                    finished.add(id)
                    del open_[id]
                    path.pop()
            elif following.node in open_:
                return [*path[path.index(following.node) :], following.node]
            elif following.node in graph.nodes and following.node not in finished:
                stack.append(following.node)
    return None


def _checked_inputs(graph: Graph, node: Node, table: NodeTable) -> tuple[dict[str, Any], list[Problem]]:
    cls = table[node.type]
    inputs, problems = dict(node.inputs), []
    own_checks = checked_inputs(cls)
    for name, input in declared_inputs(cls).items():
        if name not in inputs:
            if input.required:
                problems.append(node.problem(f"is missing; connect or give {input.allowed}.", name))
            continue
        value = inputs[name]
        if isinstance(value, Link):
            message = _link_trouble(graph, value, input, table, "input_types" in own_checks)
        else:
            inputs[name], message = _cast(input, value)
            if message is None and name not in own_checks and "**" not in own_checks:
                message = _range_trouble(input, inputs[name])
        if message:
            problems.append(node.problem(message, name))
    return inputs, problems


def _link_trouble(graph: Graph, link: Link, input: Input, table: NodeTable, any_type: bool) -> str | None:
    if link.node not in graph.nodes:
        return f"is linked to node {link.node}, which is not in the workflow."
    origin = graph.nodes[link.node]
    types = table[origin.type].RETURN_TYPES
    if not 0 <= link.slot < len(types):
        return f"is linked to output {link.slot} of {origin.title} ({origin.id}), which has only {len(types)}."
    if not any_type and not types_fit(types[link.slot], input.type):
        return f"takes {input.type}, but {origin.title} ({origin.id}) gives {types[link.slot]} there."
    return None


def _cast(input: Input, value: Any) -> tuple[Any, str | None]:
    if input.type not in CASTS:
        return value, None
    try:
        return CASTS[input.type](value), None
    except (TypeError, ValueError, OverflowError):
        return value, f"{value!r} is not {input.allowed}."


def _range_trouble(input: Input, value: Any) -> str | None:
    if input.choices is not None:
        several = isinstance(value, list) and (input.options.get("multi_select") or input.options.get("multiselect"))
        wrong = [one for one in (value if several else [value]) if one not in input.choices]
        return f"{', '.join(map(repr, wrong))} is not in its list; allowed: {input.allowed}." if wrong else None
    low, high = input.options.get("min"), input.options.get("max")
    try:
        inside = (low is None or low <= value) and (high is None or value <= high)
    except TypeError:
        inside = False
    return None if inside else f"{value!r} is out of range; allowed: {input.allowed}."


def checked_inputs(cls: type) -> set[str]:
    """Inputs that the class's own VALIDATE_INPUTS looks at; ``**`` stands for all."""
    checker = getattr(cls, "VALIDATE_INPUTS", None)
    if checker is None:
        return set()
    spec = inspect.getfullargspec(checker)
    return {*spec.args, *spec.kwonlyargs, *(["**"] if spec.varkw else [])} - {"cls", "self"}


def _own_verdict(graph: Graph, node: Node, table: NodeTable) -> list[Problem]:
    cls = table[node.type]
    wanted = checked_inputs(cls)
    if not wanted:
        return []
    declared = declared_inputs(cls)
    given = {k: None if isinstance(v, Link) else v for k, v in node.inputs.items() if k in declared}
    given.update({name: node.id for name, kind in hidden_inputs(cls).items() if kind == "UNIQUE_ID"})
    arguments = {name: value for name, value in given.items() if name in wanted or "**" in wanted}
    if getattr(cls, "INPUT_IS_LIST", False):
        arguments = {name: [value] for name, value in arguments.items()}
    if "input_types" in wanted:
        arguments["input_types"] = {
            name: table[graph.nodes[link.node].type].RETURN_TYPES[link.slot] for name, link in node.links().items()
        }
    try:
        verdict = cls.VALIDATE_INPUTS(**arguments)
    except Exception as error:  # a class of any author; its failure is a problem of its node
        verdict = f"{type(error).__name__}: {error}"
    if verdict is True:
        return []
    named = next(iter(arguments)) if len(arguments) == 1 else None
    return [node.problem(str(verdict) if verdict is not False else "is not allowed here.", named)]
