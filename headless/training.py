"""``acestep-graph preprocess`` and ``acestep-graph train``: data set → tensors → adapter, without a canvas."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..acestep_core import host as hosts
from .terminal import BadRequest, TerminalHost

if TYPE_CHECKING:
    from ..acestep_core.checkpoints.handles import Autoencoder, DiffusionModel, TextEncoder
    from ..acestep_core.training.plan import Plan
    from ..acestep_core.training.samples import Samples

MOST_PROCESSES = 64
PATIENCE = 60.0
"""Seconds that the other processes get to save when one has failed."""


def add_commands(commands: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    models = argparse.ArgumentParser(add_help=False)
    models.add_argument("--model", default="", metavar="NAME", help="diffusion model; a name of 'models', or a file")
    models.add_argument("--text-encoder", default="", metavar="NAME", help="text encoder [the first there is]")
    models.add_argument("--vae", default="", metavar="NAME", help="VAE [the first there is]")

    prepare = commands.add_parser("preprocess", parents=[models, shared], help="make training tensors of songs")
    prepare.add_argument("dataset", metavar="DATASET", help="a data set file, or a folder of songs with their captions")
    prepare.add_argument("--to", metavar="DIR", help="where tensors go [OUTPUT/acestep/tensors/NAME]")
    prepare.add_argument("--tag", default="", help="word that calls the adapter up, for a folder of songs")
    prepare.add_argument("--max-seconds", type=float, default=240.0, metavar="S", help="longer songs are cut [240]")
    prepare.add_argument("--timbre", default="silence", help="timbre reference: silence or own [silence]")
    prepare.add_argument("--seed", type=int, default=42, help="of the draws from the VAE's posterior [42]")
    prepare.add_argument("--overwrite", action="store_true", help="make everything again")

    train = commands.add_parser("train", parents=[models, shared], help="train an adapter, or go on with a run")
    train.add_argument("run", metavar="RUN", help="folder or name of a run, or a JSON or YAML file of settings")
    train.add_argument("--tensors", default="", metavar="DIR", help="folder of tensors, in place of the run's own")
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, such as epochs=700; repeatable"
    )
    train.add_argument("--processes", type=int, default=1, metavar="N", help="cards to train on together [1]")


# -- preprocess


def preprocess(options: argparse.Namespace, host: TerminalHost) -> int:
    """Songs → tensors. Prints their folder."""
    from ..acestep_core.training import dataset_file, places
    from ..acestep_core.training import preprocess as engine
    from ..acestep_core.training.scan import scan
    from ..acestep_core.training.wording import recordings

    try:
        source = _found(host, options.dataset, places.DATASETS)
        settings = engine.PreprocessSettings(options.max_seconds, options.seed, options.timbre)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if source.is_dir():
        name, read = source.resolve().name, partial(scan, source, tag=options.tag, host=host)
    else:
        name, read = source.stem, partial(dataset_file.load, source)
    try:
        folder = Path(options.to).expanduser() if options.to else places.place_of(host, places.TENSORS, name)
    except ValueError as error:
        raise BadRequest(f"{error} Or name a folder for the tensors with --to.") from error
    found = read()
    host.status.say(found.report())
    songs = recordings(found.dataset)
    model, text, vae = _model(options.model, "", host), _text(options.text_encoder, host), _vae(options.vae, host)
    done = engine.preprocess(songs, folder, model, text, vae, settings, overwrite=options.overwrite, host=host)
    host.status.say(done.text())
    host.status.close()
    print(done.folder)
    return 0


# -- train


def train(options: argparse.Namespace, host: TerminalHost) -> int:
    """Begin a run or go on with one. Prints the folder of what it has learned."""
    from ..acestep_core import codec
    from ..acestep_core.training import parallel, trainer
    from ..acestep_core.training.lock import require_free
    from ..acestep_core.training.places import RUNS, place_of
    from ..acestep_core.training.plan import PlanError

    team = parallel.join(cpu=host.device("dit").type == "cpu")
    if not team.leads:
        host.status.silence()
    try:
        plan = _plan(options, host)
        folder = plan.folder or place_of(host, RUNS, plan.name)
    except PlanError as error:
        raise BadRequest(str(error)) from error
    if team.leads:
        require_free(folder)
    kind = "" if options.model else plan.kind
    model = _model(options.model or plan.model, kind, host, plan.settings.precision)
    items = plan.items(model.config.encoder_width)
    wanted = bool(plan.samples) and team.leads
    unknown_silence = model.silence is None and any(item.context is None for item in items)
    if unknown_silence or wanted:
        vae = _vae(options.vae or plan.vae, host)
        model = codec.with_silence(model, vae, host)
    samples = _samples(plan, _text(options.text_encoder or plan.text_encoder, host), vae) if wanted else None
    seconds = sum(item.seconds for item in items)
    host.status.say(f"{folder.name}: {len(items)} songs, {seconds / 60:.1f} min, {plan.settings.method}, in {folder}")
    try:
        done = trainer.train(model, items, plan.settings, folder, host=host, samples=samples, team=team)
    except hosts.Cancelled:
        if team.leads:
            host.status.say(f"To go on: acestep-graph train {_quoted(str(folder))}{_given(options)}")
        raise
    if team.leads:
        loss = f", loss {done.points[-1].ema:.4f}" if done.points else ""
        host.status.say(f"{done.steps} of {done.total_steps} steps{loss}")
        host.status.close()
        print(done.final)
    return 0


def _plan(options: argparse.Namespace, host: TerminalHost) -> Plan:
    from dataclasses import replace

    from ..acestep_core.training import places
    from ..acestep_core.training.plan import PlanError, read_plan, with_settings

    path = Path(options.run).expanduser()
    if path.name == options.run and not (path.is_file() or (path / places.RUN).is_file()):
        try:
            path = places.place_of(host, places.RUNS, options.run)
        except ValueError as error:
            raise PlanError(str(error)) from error
    plan = read_plan(path)
    tensors = options.tensors or plan.tensors
    if tensors:
        try:
            tensors = str(_found(host, tensors, places.TENSORS))
        except ValueError as error:
            raise PlanError(str(error)) from error
    return replace(plan, tensors=tensors, settings=with_settings(plan.settings, options.set))


def _found(host: TerminalHost, text: str, kind: str) -> Path:
    """A path as a shell means it, else as the canvas does."""
    from ..acestep_core.training import places
    from ..acestep_core.training.plan import holds_tensors

    path = Path(text).expanduser()
    there = holds_tensors(path) if kind == places.TENSORS else path.exists()
    return path if there else places.find(host, text, kind)


def _samples(plan: Plan, text: TextEncoder, vae: Autoencoder) -> Samples:
    from ..acestep_core.training.plan import song_of
    from ..acestep_core.training.samples import Samples

    numbers = {name: plan.samples[name] for name in ("every", "seed") if name in plan.samples}
    return Samples(song_of(plan.samples), text, vae, **numbers)


# -- models


def _file(name: str, component: str, host: TerminalHost) -> Path:
    """The file of a name or path; of the first model of its kind where ``name`` is empty."""
    from ..acestep_core.checkpoints import bundled, catalog

    if name and Path(name).exists():
        return Path(name)
    choices = catalog.list_choices(host, component)
    wanted = name or (choices[0] if choices else "")
    if not wanted:
        raise BadRequest(
            f"There is no {catalog.COMPONENTS[component]} in {host.models}. Say where models are with --models, or "
            "fetch one: acestep-graph download turbo"
        )
    found = catalog.resolve(host, component, wanted)
    if name and found.stands_in:
        raise BadRequest(
            f"There is no {catalog.COMPONENTS[component]} {name} in {host.models.absolute()}. `acestep-graph models` "
            "lists what there is; --models names another folder."
        )
    if found.note or (not name and bundled.is_nano(wanted)):
        host.say(found.note or f"There are no weights in {host.models}: {wanted} is used.")
    return found.path


def _model(name: str, kind: str, host: TerminalHost, precision: str = "auto") -> DiffusionModel:
    """Never quantized, which ``auto`` may mean on small cards: there is no training beside such weights."""
    from ..acestep_core.checkpoints import loading

    dtype = "fp32" if precision == "fp32" else host.dtype("dit")
    return loading.load_diffusion_model(_file(name, "dit", host), kind=kind or "auto", dtype=dtype, host=host)


def _text(name: str, host: TerminalHost) -> TextEncoder:
    from ..acestep_core.checkpoints import loading

    return loading.load_text_encoder(_file(name, "text", host), host=host)


def _vae(name: str, host: TerminalHost) -> Autoencoder:
    from ..acestep_core.checkpoints import loading

    return loading.load_vae(_file(name, "vae", host), host=host)


# -- several processes


def device_of(options: argparse.Namespace) -> str:
    """The device of this process: where it is one of several, the card of its number."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and options.device in ("auto", "cuda"):
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return options.device


def wants_more(options: argparse.Namespace) -> bool:
    """Whether this process is to start others instead of working itself."""
    if not 1 <= options.processes <= MOST_PROCESSES:
        raise BadRequest(f"--processes is {options.processes}; allowed is 1 to {MOST_PROCESSES}.")
    return options.processes > 1 and "WORLD_SIZE" not in os.environ


def launch(options: argparse.Namespace, arguments: list[str]) -> int:
    """Run the command that is running ``--processes`` times, together. Their first failure is the exit status.

    Ctrl-C reaches each of them, and each stops after its step. When one fails, the others get a while to save.
    """
    command = [*sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1], *arguments]
    command[0] = sys.executable
    count, port = options.processes, _free_port()
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if options.device == "cpu":
        common["ACCELERATE_USE_CPU"] = "true"
    before = signal.signal(signal.SIGINT, lambda *_: None)  # the workers hear it too, and end by themselves
    workers: list[subprocess.Popen] = []
    try:
        for rank in range(count):
            own = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            workers.append(subprocess.Popen(command, env=own))
        return _watched(workers)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
        signal.signal(signal.SIGINT, before)


def _watched(workers: list[subprocess.Popen]) -> int:
    """Wait for all; after a first failure not longer than :data:`PATIENCE`. The status of that failure, or 0."""
    failed, until = 0, float("inf")
    while True:
        states = [worker.poll() for worker in workers]
        bad = [abs(state) for state in states if state]
        if bad and not failed:
            failed, until = bad[0], time.monotonic() + PATIENCE
        if None not in states or time.monotonic() >= until:
            return failed
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _given(options: argparse.Namespace) -> str:
    """The folders and the device of a command, as they were given."""
    usual = {"models": Path("models"), "output": Path("output"), "device": "auto"}
    chosen = {name: getattr(options, name) for name, value in usual.items() if getattr(options, name) != value}
    return "".join(f" --{name} {_quoted(str(value))}" for name, value in chosen.items())


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text
