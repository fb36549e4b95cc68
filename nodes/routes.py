"""What the results panel asks the server for: read only, inside the output folder, nothing kept between requests."""

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
}


def answer(make: Callable[[Any], dict[str, Any]], query: Any) -> tuple[int, str]:
    """Status and JSON text of a request."""
    try:
        return 200, json.dumps(make(query), allow_nan=False, default=str)
    except FileNotFoundError as error:
        return 404, json.dumps({"error": str(error)})
    except (ValueError, OSError) as error:
        return 400, json.dumps({"error": str(error)})


def register(server: Any) -> None:
    """Add the routes to ComfyUI's server."""
    from aiohttp import web

    def handler(make: Callable[[Any], dict[str, Any]]) -> Callable:
        async def handle(request: Any) -> Any:
            status, text = await asyncio.to_thread(answer, make, request.query)
            return web.Response(status=status, text=text, content_type="application/json")

        return handle

    for path, make in ROUTES.items():
        server.routes.get(path)(handler(make))
