"""Runs the pack's workflows without ComfyUI: the same JSON, from a terminal or from Python.

>>> from acestep_graph import headless
>>> result = headless.run("workflows/custom.json", settings=["Song.caption=slow jazz, upright bass"])

The steps, one module each: :mod:`declared` (what a node class declares), :mod:`graph` and :mod:`canvas`
(file to graph), :mod:`assign` (change an input), :mod:`validate`, :mod:`execute`. :mod:`core_nodes` stands in
for ComfyUI's own nodes, :mod:`cli` and :mod:`terminal` are the command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..acestep_core.host import Host
    from .declared import NodeTable
    from .execute import Cache, Result


def run(
    workflow: str | os.PathLike | Mapping[str, Any],
    host: Host | None = None,
    *,
    settings: Iterable[str] = (),
    table: NodeTable | None = None,
    cache: Cache | None = None,
) -> Result:
    """Run a workflow and wait for it.

    Args:
        workflow: a file, or the contents of one, in either of ComfyUI's formats.
        host: folders, device, progress; the current host by default.
        settings: ``"Node title.input=value"`` each, see :func:`assign.assign`.
        table: node classes; ComfyUI's core stand-ins and this pack's nodes by default.
        cache: keep one :class:`execute.Cache` from run to run to redo only what changed.

    Raises:
        WorkflowError: the workflow cannot run; nothing has run.
        NodeFailed: a node raised.
        host.Cancelled: the host was told to stop.
    """
    from ..acestep_core import host as hosts
    from . import assign, declared, execute, graph, validate

    table = declared.node_table() if table is None else table
    host = hosts.current() if host is None else host
    with hosts.use(host):
        wanted = graph.parse(workflow, table) if isinstance(workflow, Mapping) else graph.load(workflow, table)
        for setting in settings:
            wanted = assign.assign(wanted, setting, table)
        return execute.execute(validate.validate(wanted, table), table, host, cache=cache)
