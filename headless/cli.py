"""``acestep-graph``: run and check workflows, train adapters, list nodes and models, download models, try it all.

Exit status: 0 done, 1 failed, 2 bad request, 130 cancelled.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import inspect
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..acestep_core import host as hosts
from ..acestep_core.saved_files import SOUNDS
from . import training
from .assign import assign
from .declared import CANVAS_ONLY, declared_inputs, node_table, node_titles, output_names
from .execute import Done, NodeFailed, execute
from .graph import Graph, WorkflowError, load
from .recordings import with_recording
from .terminal import BadRequest, TerminalHost, stopping_on_ctrl_c
from .validate import needed_nodes, output_nodes, validate

DONE, FAILED, BAD_REQUEST, CANCELLED = 0, 1, 2, 130
WITHOUT_TORCH = (
    f"PyTorch is not in this Python ({sys.executable}). Use that of ComfyUI, or the .venv which `python3 bootstrap.py "
    "demo` makes: .venv/bin/acestep-graph, on Windows .venv\\Scripts\\acestep-graph."
)
WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and answer with its exit status. Results go to stdout, everything else to stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with contextlib.suppress(AttributeError):  # lyrics in a console of another code page
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
        if options.command == "train":
            if training.wants_more(options):
                return training.launch(options, arguments)
            options.device = training.device_of(options)
        _require_models(options, arguments)
        if options.command in ("run", "demo", "check", "preprocess", "train"):
            _require_device(options)
    except SystemExit as stop:  # --help
        return int(stop.code or DONE)
    except BadRequest as error:
        if "--json" in arguments:
            print(json.dumps({"ok": False, "error": str(error)}))
        print(error, file=sys.stderr)
        return BAD_REQUEST
    if options.command == "demo":
        _prepare_demo(options)
    if options.command in ("run", "demo"):
        return _run(options)
    host = _host(options)
    try:
        with hosts.use(host), stopping_on_ctrl_c(host.stop):
            return COMMANDS[options.command](options, host)
    except BrokenPipeError:  # whoever read the output has seen enough
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (Exception, KeyboardInterrupt) as error:
        host.status.close()
        code, lines = _explained(error, options.debug)
        print(*lines, sep="\n", file=sys.stderr)
        return code


def _require_models(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Raise where a model folder was named that is not there."""
    named = any(argument.split("=")[0] == "--models" for argument in arguments)
    if named and options.command != "download" and not options.models.is_dir():
        raise BadRequest(f"There is no folder {options.models} (--models).")


def _require_device(options: argparse.Namespace) -> None:
    """Raise where the device that was named is not in this machine."""
    kind, _, number = options.device.partition(":")
    if kind in ("auto", "cpu") or importlib.util.find_spec("torch") is None:
        return
    import torch

    backend = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    there = backend is not None and backend.is_available()
    if not there or (number and int(number) >= backend.device_count()):
        raise BadRequest(f"There is no device {options.device} here, or this PyTorch was not built for it. Try auto.")


# -- run


def _run(options: argparse.Namespace) -> int:
    host, started = _host(options), time.perf_counter()
    report: dict[str, Any] = {"ok": False, "workflow": options.workflow, "outputs": [], "notes": host.notes}
    report["timings"] = []

    def on_done(done: Done) -> None:
        node = {"node": done.node.id, "title": done.node.title}
        report["timings"].append({**node, "seconds": round(done.seconds, 3), "cached": done.cached})
        if done.ui:
            report["outputs"].append({**node, "type": done.node.type, **_shown(done, host)})

    code = DONE
    try:
        with contextlib.redirect_stdout(sys.stderr), hosts.use(host), stopping_on_ctrl_c(host.stop):
            table = node_table()
            graph = validate(_loaded(options), table)
            execute(graph, table, host, on_start=_announcer(host), on_done=on_done)
        report["ok"] = True
    except (Exception, KeyboardInterrupt) as error:
        code, lines = _explained(error, options.debug)
        report["error"] = str(error) or type(error).__name__
        if isinstance(error, WorkflowError):
            report["problems"] = [vars(problem) for problem in error.problems]
        if isinstance(error, NodeFailed):
            report["node"] = error.node.id
        if code == CANCELLED:
            report["cancelled"] = True
        for line in lines:
            host.status.say(line)
    host.status.close()
    report["seconds"] = round(time.perf_counter() - started, 3)
    if options.json:
        print(json.dumps(report, default=str))
    else:
        for output in report["outputs"]:
            for line in (*output["files"], *output["text"]):
                print(f"{output['title']} ({output['node']}): {line}")
    return code


def _prepare_demo(options: argparse.Namespace) -> None:
    """Point ``options`` at the first workflow that the models at hand can play; say so where they are the nano ones."""
    from ..acestep_core.checkpoints import bundled, catalog

    host = _host(options)
    own = catalog.has_weights(host)
    planners = [name for name in catalog.list_choices(host, "lm") if not (own and bundled.is_nano(name))]
    options.workflow = str(WORKFLOWS / ("simple.json" if planners else "custom.json"))
    models = [name for name in catalog.list_choices(host, "dit") if own and not bundled.is_nano(name)]
    named = catalog.BY_ID["acestep-v15-turbo"]
    if models and all(catalog.equivalents(name, "dit") is not named for name in models):
        options.set = [f"Load models.diffusion_model={models[0]}"]
    if not own:
        print(
            f"No ACE-Step weights were found in {options.models}, so {bundled.NANO} plays: a small model that comes "
            "with the project\nand was trained on music that the project composed itself. For real music get the "
            "published weights, see\n'acestep-graph models'.",
            file=sys.stderr,
        )


def _announcer(host: TerminalHost):
    def announce(node, position: int, total: int) -> None:
        host.status.say(f"[{position}/{total}] {node.title}")

    return announce


def _shown(done: Done, host: TerminalHost) -> dict[str, Any]:
    """What a node shows: ``files`` as paths, ``text``, and anything else as it is."""
    folders = {"output": host.output, "temp": host.temp, "input": host.input}
    shown: dict[str, Any] = {"files": [], "text": [str(text) for text in done.ui.get("text", ())]}
    for key, values in done.ui.items():
        files = [value for value in values if isinstance(value, dict) and "filename" in value]
        for file in files:
            folder = folders.get(file.get("type", "output"), host.output)
            shown["files"].append(str((folder / file.get("subfolder", "") / file["filename"]).absolute()))
        if len(files) < len(values) and key != "text":
            shown.setdefault("ui", {})[key] = values
    return shown


# -- the other commands


def _check(options: argparse.Namespace, host: TerminalHost) -> int:
    table = node_table()
    graph = validate(_loaded(options), table)
    outputs = output_nodes(graph, table)
    names = ", ".join(f"{graph.nodes[id].title} ({id})" for id in outputs)
    print(f"{options.workflow} can run: {len(needed_nodes(graph, outputs))} nodes for {names}.")
    return DONE


def _nodes(options: argparse.Namespace, host: TerminalHost) -> int:
    table, titles = node_table(), node_titles()
    if options.id is None:
        width = max(map(len, table))
        for id, cls in table.items():
            print(f"{id:{width}}  {titles.get(id, id)}  [{getattr(cls, 'CATEGORY', '')}]")
        return DONE
    if options.id not in table:
        near = difflib.get_close_matches(options.id, table, 3, 0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise BadRequest(f"There is no node {options.id!r}.{hint} `nodes` lists all.")
    cls = table[options.id]
    print(f"{options.id}: {titles.get(options.id, options.id)}")
    about = getattr(cls, "DESCRIPTION", "") or inspect.cleandoc(cls.__doc__ or "")
    if about:
        print(f"  {about}")
    print("inputs:")
    for input in declared_inputs(cls).values():
        if input.type in CANVAS_ONLY:
            continue
        default = f", default {input.default!r}" if input.is_widget else ""
        optional = "" if input.required else ", optional"
        allowed = ", ".join(map(str, input.choices)) if input.choices else input.allowed
        print(f"  {input.name} ({input.type}{optional}): {allowed}{default}")
        if input.options.get("tooltip"):
            print(f"      {input.options['tooltip']}")
    print("outputs:")
    for slot, (name, kind) in enumerate(zip(output_names(cls), cls.RETURN_TYPES, strict=True)):
        print(f"  {slot}: {name} ({kind})")
    return DONE


def _models(options: argparse.Namespace, host: TerminalHost) -> int:
    from ..acestep_core.checkpoints import catalog

    print(catalog.describe_models(host))
    return DONE


def _download(options: argparse.Namespace, host: TerminalHost) -> int:
    from ..acestep_core.checkpoints import download

    known = download.names()
    unknown = [name for name in options.name if name.lower() not in map(str.lower, known)]
    if unknown:
        raise BadRequest(f"There is no model {', '.join(map(repr, unknown))}. Choose from: {', '.join(known)}.")
    for name in options.name:
        path = download.download(name, host, revision=options.revision)
        host.status.close()
        print(path)
    return DONE


COMMANDS = {
    **{"check": _check, "nodes": _nodes, "models": _models, "download": _download},
    **{"preprocess": training.preprocess, "train": training.train},
}


# -- inside


def _host(options: argparse.Namespace) -> TerminalHost:
    return TerminalHost(models=options.models, input=options.input, output=options.output, device=options.device)


def _workflow_of(given: str) -> Path:
    """The file that is meant: one's own, or by its name one that comes with the project."""
    own = Path(given).expanduser()
    if own.suffix.lower() in SOUNDS and own.is_file():
        raise WorkflowError(
            f"{given} is a sound. Run the .json that was saved beside it, or open the sound in ComfyUI."
        )
    if own.exists():
        return own
    shipped = WORKFLOWS / f"{own.stem.lower()}.json"
    if own.parent in (Path(), Path(WORKFLOWS.name)) and shipped.is_file():
        return shipped
    names = ", ".join(sorted(path.stem for path in WORKFLOWS.glob("*.json")))
    raise WorkflowError(f"There is no workflow file {given}. By their names alone run: {names}.")


def _loaded(options: argparse.Namespace) -> Graph:
    table = node_table()
    graph = load(_workflow_of(options.workflow), table)
    for given in getattr(options, "audio", ()):
        graph = with_recording(graph, given, options.input)
    for assignment in options.set:
        graph = assign(graph, assignment, table)
    return graph


def _explained(error: BaseException, debug: bool) -> tuple[int, list[str]]:
    """The exit status for an error and the lines that tell it to the user."""
    if isinstance(error, hosts.Cancelled | KeyboardInterrupt):
        return CANCELLED, ["Stopped."]
    if isinstance(error, WorkflowError):
        return BAD_REQUEST, ["This workflow cannot run:", *(f"- {problem}" for problem in error.problems)]
    lines = [f"error: {error}" if str(error) else f"error: {type(error).__name__}"]
    missing = error.__cause__ if isinstance(error, NodeFailed) else error
    if isinstance(missing, ModuleNotFoundError) and missing.name == "torch":
        lines.append(WITHOUT_TORCH)
    if debug:
        lines += "".join(traceback.format_exception(error)).splitlines()
    return BAD_REQUEST if isinstance(error, BadRequest) else FAILED, lines


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{self.format_usage()}error: {message}")


def _folder(text: str) -> Path:
    """Not every shell knows what ~ means, and none behind a =."""
    return Path(text).expanduser()


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, mps, cuda, cuda:N, xpu, xpu:N")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="acestep-graph", description="ACE-Step 1.5 workflows and training without ComfyUI.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--models", type=_folder, default=Path("models"), metavar="DIR", help="model folder [models]")
    shared.add_argument("--input", type=_folder, default=Path("input"), metavar="DIR", help="audio to load [input]")
    shared.add_argument("--output", type=_folder, default=Path("output"), metavar="DIR", help="saved files [output]")
    shared.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda, cuda:N, mps, xpu [auto]")
    shared.add_argument("--debug", action="store_true", help="show tracebacks")
    workflow = argparse.ArgumentParser(add_help=False)
    workflow.add_argument(
        "workflow",
        metavar="WORKFLOW",
        help="a saved workflow, API format too; or the name of one that comes along, such as custom",
    )
    workflow.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help='set an input; the node by title, id or class; repeatable; "in quotes" \\n begins a line',
    )
    result = argparse.ArgumentParser(add_help=False)
    result.add_argument("--json", action="store_true", help="print the result as one JSON object")
    run = commands.add_parser("run", parents=[workflow, shared, result], help="run a workflow")
    run.add_argument(
        "--audio",
        action="append",
        default=[],
        metavar="FILE",
        help="your recording in place of the workflow's; NODE=FILE where it hears several; repeatable",
    )
    demo = commands.add_parser(
        "demo", parents=[shared, result], help="make a first song, with whatever models there are"
    )
    demo.set_defaults(set=[])
    commands.add_parser("check", parents=[workflow, shared], help="say whether a workflow can run")
    nodes = commands.add_parser("nodes", parents=[shared], help="list nodes, or describe one")
    nodes.add_argument("id", nargs="?", metavar="ID")
    commands.add_parser("models", parents=[shared], help="list the models found")
    download = commands.add_parser("download", parents=[shared], help="fetch published models")
    download.add_argument("name", nargs="+", metavar="NAME")
    download.add_argument("--revision", help="a branch, tag or commit of the model's repository")
    training.add_commands(commands, shared)
    return parser
