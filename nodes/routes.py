"""What pages ask the server for, inside the output folder: saved results, and runs of training, which can be ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from ..acestep_core import host

PREFIX = "/acestep_graph"
MOST_BATCHES = 200
LONGEST_NAME = 1000


class BadRequest(ValueError):
    """A request that cannot be answered; the message says why."""


def results(query: Any) -> dict[str, Any]:
    """``limit`` batches of the output folder behind batch ``before``."""
    from ..acestep_core import library

    try:
        limit = int(query.get("limit", "30"))
    except ValueError:
        limit = 0
    if not 1 <= limit <= MOST_BATCHES:
        raise BadRequest(f"limit must be a whole number from 1 to {MOST_BATCHES}.")
    return library.batches(host.current(), limit, query.get("before", "")[:LONGEST_NAME])


def result(query: Any) -> dict[str, Any]:
    """Everything about the result ``file``."""
    from ..acestep_core import library
    from .restoring import widgets_of

    found = library.detail(host.current(), _file(query))
    return {**found, "nodes": widgets_of(found.pop("restored"))}


def workflow(query: Any) -> dict[str, Any]:
    """The workflow that made the result ``file``."""
    from ..acestep_core import library

    return library.workflow_of(host.current(), _file(query))


def examples(query: Any) -> dict[str, Any]:
    """The examples that the dice buttons draw from."""
    from ..acestep_core.lm.examples import collection

    return collection()


def training(query: Any) -> dict[str, Any]:
    """Everything about the run ``run``, with its points behind step ``after``."""
    from ..acestep_core.training import live

    try:
        after = int(query.get("after", "0"))
    except ValueError as error:
        raise BadRequest("after must be the number of a step.") from error
    return live.watch(host.current(), str(query.get("run", "")), after)


def stop_training(query: Any) -> dict[str, Any]:
    """End the run ``run`` and keep what it has learned."""
    from ..acestep_core.training import live

    return live.stop(host.current(), str(query.get("run", "")))


def _file(query: Any) -> str:
    name = query.get("file", "")
    if not name or len(name) > LONGEST_NAME or "\0" in name:
        raise BadRequest("file must name a settings file of the output folder.")
    return name


ROUTES: dict[str, Callable[[Any], dict[str, Any]]] = {
    f"{PREFIX}/results": results,
    f"{PREFIX}/result": result,
    f"{PREFIX}/workflow": workflow,
    f"{PREFIX}/examples": examples,
    f"{PREFIX}/training": training,
}
ORDERS: dict[str, Callable[[Any], dict[str, Any]]] = {f"{PREFIX}/training/stop": stop_training}
"""Routes that change something; their query is a JSON object in the body."""


def answer(make: Callable[[Any], dict[str, Any]], query: Any) -> tuple[int, str]:
    """Status and JSON text of a request."""
    try:
        return 200, json.dumps(make(query), allow_nan=False, default=str)
    except FileNotFoundError as error:
        return 404, json.dumps({"error": str(error)})
    except (ValueError, OSError) as error:
        return 400, json.dumps({"error": str(error)})
    except Exception as error:
        host.log.exception("A request of the page failed.")
        return 500, json.dumps({"error": f"{type(error).__name__}: {error}"})


def register(server: Any) -> None:
    """Add the routes to ComfyUI's server."""
    from aiohttp import web

    def handler(make: Callable[[Any], dict[str, Any]]) -> Callable:
        async def handle(request: Any) -> Any:
            status, text = await asyncio.to_thread(answer, make, request.query)
            return web.Response(status=status, text=text, content_type="application/json")

        return handle

    def order(make: Callable[[Any], dict[str, Any]]) -> Callable:
        async def handle(request: Any) -> Any:
            try:
                query = await request.json()
            except ValueError:
                query = None
            status, text = 400, json.dumps({"error": "The body must be a JSON object."})
            if isinstance(query, dict):
                status, text = await asyncio.to_thread(answer, make, query)
            return web.Response(status=status, text=text, content_type="application/json")

        return handle

    for path, make in ROUTES.items():
        server.routes.get(path)(handler(make))
    for path, make in ORDERS.items():
        server.routes.post(path)(order(make))
