"""A real ComfyUI server that lives as long as a ``with`` block, and a client that speaks to it.

    with ComfyServer(folder, models) as server, Client(server.url) as client:
        run = client.run(prompt, workflow)
        assert run.ended == "execution_success", run.error

Tests only: nothing in the pack imports this.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

ROOT = Path(__file__).resolve().parents[2]
PACK = "acestep-graph"
ENDS = ("execution_success", "execution_error", "execution_interrupted")

# ComfyUI prints bare messages. This puts the level and the place in front of all that are warnings or worse.
LAUNCH = """
import logging, os, runpy, sys
make = logging.getLogRecordFactory()
def marked(*args, **kwargs):
    record = make(*args, **kwargs)
    if record.levelno >= logging.WARNING:
        record.msg = f"[{record.levelname} {record.pathname}] {record.msg}"
    return record
logging.setLogRecordFactory(marked)
logging.captureWarnings(True)
main = os.path.abspath("main.py")
sys.argv = [main, *sys.argv[1:]]
sys.path[0] = os.path.dirname(main)
runpy.run_path(main, run_name="__main__")
"""


class ComfyServer:
    """ComfyUI on a free loopback port, on the CPU, with this checkout as its only custom node.

    Args:
        folder: an empty folder for everything the server writes (input, output, temp, user, log).
        models: folder of model folders, seen by the server as its ``models``; an empty one where None.
        arguments: further words for ComfyUI's command line.
        packs: folders of further packs. environment: further variables.

    ``COMFYUI_PATH`` names the ComfyUI checkout, ``COMFYUI_PYTHON`` the Python that runs it (default: this one).
    """

    def __init__(
        self,
        folder: Path,
        models: Path | None = None,
        arguments: tuple[str, ...] = (),
        packs: tuple[Path, ...] = (),
        environment: dict[str, str] | None = None,
    ):
        self.folder, self.models, self.arguments = Path(folder), models, arguments
        self.packs, self.environment = packs, {**os.environ, **(environment or {})}
        self.comfyui = Path(os.environ["COMFYUI_PATH"]).resolve()
        self.log_file = self.folder / "server.log"
        self.url = ""
        self.start_seconds = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyServer:
        for name in ("custom_nodes", "input", "output", "user/default"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "custom_nodes" / PACK).symlink_to(ROOT, target_is_directory=True)
        for pack in self.packs:
            (self.folder / "custom_nodes" / pack.name).symlink_to(pack, target_is_directory=True)
        if self.models:
            (self.folder / "models").symlink_to(Path(self.models).resolve(), target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        python = os.environ.get("COMFYUI_PYTHON") or sys.executable
        command = [python, "-c", LAUNCH, "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
        command += ["--database-url", "sqlite:///:memory:", "--base-directory", str(self.folder)]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK]
        command += [*(pack.name for pack in self.packs), *self.arguments]
        started = time.monotonic()
        with self.log_file.open("wb") as log:
            where = {"cwd": self.comfyui, "env": self.environment}
            self.process = subprocess.Popen(command, **where, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self._wait_until_ready(180)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _wait_until_ready(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI stopped with status {self.process.returncode}:\n{self.tail()}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url + "/system_stats", timeout=5).close()
                return
            if time.monotonic() > end:
                raise TimeoutError(f"ComfyUI was not ready after {seconds:.0f} s:\n{self.tail()}")
            time.sleep(0.2)

    # -- the log

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.splitlines()[-lines:])

    def pack_complaints(self) -> list[str]:
        """Warnings and errors in the log that come from the pack or name it."""
        names = (PACK, str(ROOT), "acestep", "ACEStep", "IMPORT FAILED")
        bad = ("[WARNING ", "[ERROR ", "[CRITICAL ", 'File "', "Warning:", "IMPORT FAILED")
        return [line for line in self.log.splitlines() if any(b in line for b in bad) and any(n in line for n in names)]

    def import_seconds(self) -> float:
        """Import time of the pack as ComfyUI prints it (one decimal). Raises LookupError where it is not printed."""
        found = re.search(rf"^ *(\d+\.\d) seconds: .*{PACK}$", self.log, re.MULTILINE)
        if not found:
            raise LookupError(f"No import time of {PACK} in the log:\n{self.tail()}")
        return float(found[1])


class Refused(Exception):
    """ComfyUI did not accept a prompt. ``answer`` is what it said, with ``error`` and ``node_errors``."""

    def __init__(self, answer: dict[str, Any]):
        super().__init__(json.dumps(answer, indent=1))
        self.answer = answer


@dataclass
class Event:
    """One message of the websocket; ``at`` is ``time.monotonic()`` on arrival."""

    at: float
    type: str
    data: dict[str, Any]


@dataclass
class Run:
    """One prompt that came to its end."""

    id: str
    events: list[Event]
    history: dict[str, Any] = field(default_factory=dict)

    def of(self, *types: str) -> list[Event]:
        return [event for event in self.events if event.type in types]

    @property
    def ended(self) -> str:
        """``execution_success``, ``execution_error`` or ``execution_interrupted``."""
        return self.of(*ENDS)[-1].type

    @property
    def error(self) -> str:
        errors = self.of("execution_error")
        return "\n".join(
            f"{e.data['node_type']}: {e.data['exception_message']}\n{''.join(e.data['traceback'])}" for e in errors
        )

    @property
    def cached(self) -> set[str]:
        return {node for event in self.of("execution_cached") for node in event.data["nodes"]}

    @property
    def executed(self) -> list[str]:
        """Ids of the nodes that ran, in order. Cached ones do not count."""
        return [event.data["node"] for event in self.of("executing") if event.data["node"] is not None]

    @property
    def files(self) -> list[dict[str, str]]:
        """Files that nodes reported (``filename``, ``subfolder``, ``type``), sorted by node id."""
        found = []
        for _, output in sorted(self.history.get("outputs", {}).items()):
            for values in output.values():
                found += [v for v in values if isinstance(v, dict) and "filename" in v]
        return found


class Client:
    """HTTP and websocket of one ComfyUI server. The websocket is open within the ``with`` block."""

    def __init__(self, url: str):
        self.url, self.id = url, uuid.uuid4().hex
        self.events: collections.deque[Event] = collections.deque(maxlen=100_000)
        self._news = threading.Condition()

    def __enter__(self) -> Client:
        address = self.url.replace("http", "ws", 1) + f"/ws?clientId={self.id}"
        self._socket = websocket.create_connection(address, timeout=30)
        self._socket.settimeout(None)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(timeout=1)
        self._reader.join(5)

    def _read(self) -> None:
        while True:
            try:
                message = self._socket.recv()
            except (OSError, websocket.WebSocketException):
                message = ""
            event = _decode(message) if message else Event(time.monotonic(), "closed", {})
            with self._news:
                self.events.append(event)
                self._news.notify_all()
            if event.type == "closed":
                return

    # -- requests

    def request(
        self, path: str, body: object = None, data: bytes | None = None, kind: str = "application/json"
    ) -> bytes:
        """GET ``path``, or POST where there is a ``body`` (sent as JSON) or raw ``data``."""
        if body is not None:
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind} if data is not None else {})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self.request(path))

    def object_info(self, node: str = "") -> dict[str, Any]:
        return self.get(f"/object_info/{node}" if node else "/object_info")

    def history(self, prompt_id: str) -> dict[str, Any]:
        return self.get(f"/history/{prompt_id}").get(prompt_id, {})

    def interrupt(self) -> None:
        self.request("/interrupt", {})

    def free(self) -> None:
        """Unload the models and forget the cached results, as the canvas's button does."""
        self.request("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.5)  # the worker does it when it next wakes; a prompt that comes sooner would go first

    def upload(self, path: Path, name: str = "") -> str:
        """Copy a file into the input folder; returns the name that a node's combo then offers."""
        mark, name = uuid.uuid4().hex, name or path.name
        head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        tail = f'\r\n--{mark}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n--{mark}--\r\n'
        data = head.encode() + path.read_bytes() + tail.encode()
        answer = json.loads(self.request("/upload/image", data=data, kind=f"multipart/form-data; boundary={mark}"))
        return "/".join(filter(None, (answer["subfolder"], answer["name"])))

    def view(self, file: dict[str, str]) -> bytes:
        """The bytes of a file of :attr:`Run.files`, as the canvas's players get them."""
        keys = {k: file.get(k, "") for k in ("filename", "subfolder", "type")}
        return self.request("/view?" + urllib.parse.urlencode(keys))

    # -- running

    def queue(self, prompt: dict[str, Any], workflow: dict[str, Any] | None = None) -> str:
        """Queue an API prompt, with its canvas form for the saved files. Returns its id; raises :class:`Refused`."""
        body: dict[str, Any] = {"prompt": prompt, "client_id": self.id}
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            return json.loads(self.request("/prompt", body))["prompt_id"]
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read())) from None

    def wait_for(self, wanted: Callable[[Event], bool], seconds: float, prompt_id: str = "") -> Event:
        """The first event, past or to come, of this prompt that is ``wanted``."""
        end = time.monotonic() + seconds
        with self._news:
            while True:
                seen = list(self.events)
                for event in seen:
                    if wanted(event) and (not prompt_id or event.data.get("prompt_id") == prompt_id):
                        return event
                left = end - time.monotonic()
                if left <= 0 or (seen and seen[-1].type == "closed"):
                    last = [f"{e.type} {str(e.data)[:200]}" for e in seen[-5:]]
                    raise TimeoutError("The event did not come. Last ones:\n" + "\n".join(last))
                self._news.wait(left)

    def wait(self, prompt_id: str, seconds: float = 120) -> Run:
        """Wait until a queued prompt has ended, well or not."""
        self.wait_for(lambda e: e.type in ENDS, seconds, prompt_id)
        end = time.monotonic() + 10
        while not (history := self.history(prompt_id)) and time.monotonic() < end:
            time.sleep(0.05)  # the history is written just after the last event
        with self._news:
            events = [e for e in self.events if e.data.get("prompt_id", prompt_id) == prompt_id]
        first = next(i for i, e in enumerate(events) if e.data.get("prompt_id") == prompt_id)
        return Run(prompt_id, events[first:], history)

    def run(self, prompt: dict[str, Any], workflow: dict[str, Any] | None = None, seconds: float = 120) -> Run:
        return self.wait(self.queue(prompt, workflow), seconds)


def _decode(message: str | bytes) -> Event:
    now = time.monotonic()
    if isinstance(message, str):
        decoded = json.loads(message)
        return Event(now, decoded["type"], decoded.get("data") or {})
    (kind,) = struct.unpack(">I", message[:4])
    if kind == 3:  # progress text of one node
        (length,) = struct.unpack(">I", message[4:8])
        node, text = message[8 : 8 + length].decode(), message[8 + length :].decode("utf-8", "replace")
        return Event(now, "progress_text", {"node": node, "text": text})
    return Event(now, f"binary {kind}", {"bytes": len(message)})
