"""Run a graph, node by node, with the semantics of ComfyUI's executor.

>>> graph = load("workflows/custom.json", node_table())
>>> result = execute(validate(graph, node_table()), node_table(), Host(models="models"))
>>> result.ui["9"]["audio"]
[{'filename': 'song_00001_.flac', 'subfolder': '', 'type': 'output'}]
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import hashlib
import inspect
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..acestep_core import host as hosts
from .declared import NodeTable, declared_inputs, hidden_inputs
from .graph import Graph, Link, Node
from .validate import needed_nodes, output_nodes

log = logging.getLogger("acestep")


class NodeFailed(Exception):
    """A node raised; ``__cause__`` is what it raised."""

    def __init__(self, node: Node, error: BaseException):
        self.node = node
        super().__init__(f"{node.title} ({node.id}): {str(error) or type(error).__name__}")


@dataclass(frozen=True)
class Done:
    """One node that finished: what it shows (``ui``), how long it took, whether a kept result served."""

    node: Node
    ui: Mapping[str, list]
    seconds: float
    cached: bool


@dataclass(frozen=True)
class Result:
    """What a run made. ``outputs`` holds, for each node and output, the list of its values."""

    outputs: Mapping[str, list[list]]
    done: tuple[Done, ...]

    @property
    def ui(self) -> dict[str, Mapping[str, list]]:
        return {done.node.id: done.ui for done in self.done if done.ui}


@dataclass
class Cache:
    """Results kept from run to run. Pass the same one again to redo only what changed.

    As in ComfyUI, what a run does not use is dropped at its end, and node objects live as long as their
    node stays in the workflow.
    """

    results: dict[str, tuple[list[list], Mapping[str, list]]] = field(default_factory=dict)
    objects: dict[tuple[str, type], Any] = field(default_factory=dict)


def execute(
    graph: Graph,
    table: NodeTable,
    host: hosts.Host,
    *,
    cache: Cache | None = None,
    on_start: Callable[[Node, int, int], None] = lambda node, position, total: None,
    on_done: Callable[[Done], None] = lambda done: None,
) -> Result:
    """Run every output node of a validated graph, and what they need, under torch's inference mode.

    Nodes of one class with equal inputs run once. A list output makes the nodes behind it run once an
    element. Whatever finished before a failure has been reported through ``on_done``.

    Args:
        graph: as :func:`validate.validate` returned it.
        table: the node classes.
        host: device, folders, progress and cancelling; the current one during the run.
        cache: results of earlier runs.
        on_start: called with (node, position, total) before a node runs.
        on_done: called after.

    Raises:
        NodeFailed: with the node and its message.
        host.Cancelled: the user asked to stop.
    """
    with hosts.use(host), _inference_mode():
        return _Run(graph, table, host, cache or Cache(), on_start, on_done).result()


class _Run:
    def __init__(self, graph: Graph, table: NodeTable, host: hosts.Host, cache: Cache, on_start, on_done):
        self.graph, self.table, self.host, self.cache = graph, table, host, cache
        self.on_start, self.on_done = on_start, on_done
        self.wanted = output_nodes(graph, table)
        self.total = len(needed_nodes(graph, self.wanted))
        self.prompt = graph.prompt()
        self.outputs: dict[str, list[list]] = {}
        self.demanded: dict[str, set[str]] = {}
        self.done: list[Done] = []
        self.signatures: dict[str, str] = {}

    def result(self) -> Result:
        for id in self.wanted:
            self._reach(id)
        present = {(node.id, self.table[node.type]) for node in self.graph.nodes.values()}
        used = set(self.signatures.values())
        self.cache.results = {key: kept for key, kept in self.cache.results.items() if key in used}
        self.cache.objects = {key: made for key, made in self.cache.objects.items() if key in present}
        return Result(self.outputs, tuple(self.done))

    def _reach(self, output: str) -> None:
        """Finish ``output``, its ancestors first; an input declared lazy only once the node asks for it."""
        waiting = [output]
        while waiting:
            node = self.graph.nodes[waiting[-1]]
            if node.id in self.outputs:
                waiting.pop()
                continue
            signature = self._signature(node.id)
            missing = [] if signature in self.cache.results else self._missing(node)
            if missing:
                waiting += reversed(missing)
                continue
            self.host.check_cancelled()
            if self._finish(node, signature):
                waiting.pop()

    def _missing(self, node: Node) -> list[str]:
        declared = declared_inputs(self.table[node.type])
        needed = []
        for name, link in node.links().items():
            lazy = name in declared and declared[name].options.get("lazy")
            known = name in declared and not declared[name].options.get("rawLink")
            if known and link.node not in self.outputs and (not lazy or name in self.demanded.get(node.id, ())):
                needed.append(link.node)
        return needed

    def _finish(self, node: Node, signature: str) -> bool:
        """Run ``node`` or take its kept result; False where it first asks for a lazy input."""
        started, cached = time.perf_counter(), signature in self.cache.results
        try:
            if not cached:
                inputs, unknown = self._inputs(node)
                cls = self.table[node.type]
                thing = self.cache.objects.get((node.id, cls))
                if thing is None:
                    thing = self.cache.objects[node.id, cls] = cls()
                if self._asks_for_more(node, thing, inputs, unknown):
                    return False
                self.on_start(node, len(self.done) + 1, self.total)
                self.cache.results[signature] = _merged(cls, _map_over_lists(thing, inputs, cls.FUNCTION, self.host))
        except (hosts.Cancelled, KeyboardInterrupt):
            raise
        except Exception as error:
            raise NodeFailed(node, error) from error
        self.outputs[node.id], ui = self.cache.results[signature]
        self.done.append(Done(node, ui, time.perf_counter() - started, cached))
        self.on_done(self.done[-1])
        return True

    def _asks_for_more(self, node: Node, thing: Any, inputs: dict[str, list], unknown: set[str]) -> bool:
        if not hasattr(thing, "check_lazy_status"):
            return False
        answers = _map_over_lists(thing, inputs, "check_lazy_status", self.host)
        asked = {name for answer in answers if isinstance(answer, list) for name in answer}
        fresh = (asked & unknown) - self.demanded.setdefault(node.id, set())
        self.demanded[node.id] |= fresh
        return bool(fresh)

    def _inputs(self, node: Node, constants_only: bool = False) -> tuple[dict[str, list], set[str]]:
        """Every argument as a list, and the names of those that are not known (yet): they are ``[None]``."""
        cls = self.table[node.type]
        declared = declared_inputs(cls)
        inputs, unknown = {}, set()
        for name, value in node.inputs.items():
            if name not in declared:
                continue
            if not isinstance(value, Link):
                inputs[name] = [value]
            elif declared[name].options.get("rawLink"):
                inputs[name] = [[value.node, value.slot]]
            elif constants_only or value.node not in self.outputs or value.slot >= len(self.outputs[value.node]):
                inputs[name] = [None]
                unknown.add(name)
            else:
                inputs[name] = self.outputs[value.node][value.slot]
        extra = None if self.graph.workflow is None else {"workflow": self.graph.workflow}
        hidden = {"PROMPT": self.prompt, "EXTRA_PNGINFO": extra, "UNIQUE_ID": node.id, "DYNPROMPT": None}
        inputs.update({name: [hidden.get(kind)] for name, kind in hidden_inputs(cls).items()})
        return inputs, unknown

    def _signature(self, node_id: str) -> str:
        """What a node's result depends on: its class, constants, fingerprint and, through links, its ancestors'."""
        waiting = [node_id]
        while waiting:
            node = self.graph.nodes[waiting[-1]]
            above = [link.node for link in node.links().values() if link.node not in self.signatures]
            if above and node.id not in self.signatures:
                waiting += above
                continue
            waiting.pop()
            if node.id not in self.signatures:
                cls = self.table[node.type]
                named = "UNIQUE_ID" in hidden_inputs(cls).values() or getattr(cls, "NOT_IDEMPOTENT", False)
                parts = [f"{cls.__module__}.{cls.__qualname__} {id(cls)}", node.id if named else ""]
                parts.append(self._fingerprint(node, cls))
                for name, value in sorted(node.inputs.items()):
                    linked = isinstance(value, Link)
                    parts.append(name + (f"<{self.signatures[value.node]}[{value.slot}]" if linked else _frozen(value)))
                self.signatures[node.id] = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return self.signatures[node_id]

    def _fingerprint(self, node: Node, cls: type) -> str:
        if not hasattr(cls, "IS_CHANGED"):
            return ""
        try:
            inputs, _ = self._inputs(node, constants_only=True)
            return _frozen(_map_over_lists(cls, inputs, "IS_CHANGED", self.host))
        except Exception as error:  # as ComfyUI: a fingerprint that fails means changed
            if self.host.is_cancel(error):
                raise
            log.warning("%s (%s): IS_CHANGED failed: %s", node.title, node.id, error)
            return _frozen(math.nan)


def _frozen(value: Any) -> str:
    """Text that is equal for equal plain values, and never equal for anything else (NaN included)."""
    if value is None or isinstance(value, bool | int | str | bytes) or (isinstance(value, float) and value == value):
        return f"{type(value).__name__}:{value!r}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_frozen, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(sorted(f'{_frozen(k)}:{_frozen(v)}' for k, v in value.items()))}}}"
    return uuid.uuid4().hex


def _map_over_lists(thing: Any, inputs: Mapping[str, list], name: str, host: hosts.Host) -> list:
    """Call ``thing.name`` once an element of the longest input; shorter inputs repeat their last element."""
    method = getattr(thing, name)
    if getattr(thing, "INPUT_IS_LIST", False):
        calls = [dict(inputs)]
    else:
        for argument, values in inputs.items():
            if not values:
                raise ValueError(f"input {argument!r} received an empty list.")
        length = max(map(len, inputs.values()), default=1)
        calls = [{k: values[min(i, len(values) - 1)] for k, values in inputs.items()} for i in range(length)]
    if inspect.iscoroutinefunction(method):
        return _gathered([method(**call) for call in calls])
    results = []
    for call in calls:
        host.check_cancelled()
        results.append(method(**call))
    return results


def _gathered(coroutines: list) -> list:
    """The results of coroutines, from within or outside of a running event loop."""

    async def gather():
        return await asyncio.gather(*coroutines)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(gather())

    def in_thread() -> list:
        with _inference_mode():
            return asyncio.run(gather())

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, in_thread).result()


def _merged(cls: type, returns: list) -> tuple[list[list], dict[str, list]]:
    """The outputs of all calls of one node, each a list, and what it shows."""
    results, shown = [], []
    for value in returns:
        if isinstance(value, dict):
            if "expand" in value:
                raise TypeError("it unfolds into a graph while running, which only ComfyUI can do.")
            if "ui" in value:
                shown.append(value["ui"])
            if "result" not in value:
                continue
            value = value["result"]
        results.append(value or ())
    outputs: list[list] = []
    flags = getattr(cls, "OUTPUT_IS_LIST", ())
    for slot in range(len(results[0]) if results else 0):
        values = [result[slot] for result in results]
        is_list = slot < len(flags) and flags[slot]
        outputs.append([one for value in values for one in value] if is_list else values)
    ui: dict[str, list] = {}
    for one in shown:
        for key, values in one.items():
            if not isinstance(values, list | tuple):
                raise TypeError(f"what it shows as {key!r} must be a list, not {type(values).__name__}.")
            ui.setdefault(key, []).extend(values)
    return outputs, ui


def _inference_mode() -> contextlib.AbstractContextManager:
    """ComfyUI runs every node so. A workflow without tensors also runs where torch is not installed."""
    try:
        import torch
    except ImportError:
        return contextlib.nullcontext()
    return torch.inference_mode()
