"""Training an adapter: a loop that may be killed at any moment and goes on as if nothing had happened.

>>> from acestep_core.training.trainer import train
>>> result = train(model, items, TrainSettings(epochs=100), "output/acestep/runs/jazz")
>>> result.adapter, result.final

Everything that chance decides comes from one generator, whose state is in every checkpoint, and the order of the
data from seed and epoch alone: a run that goes on repeats bit for bit what an uninterrupted one does. The model
itself is never changed, nor what others hold of it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import host as hosts
from ..checkpoints.handles import DiffusionModel
from ..host import Host
from ..lora.adapter import Adapter
from ..lora.apply import playing
from ..lora.writing import write_folder
from ..memory.recovery import OutOfMemory, empty_cache, is_out_of_memory
from ..tasks.reference import silence_of
from . import checkpoint
from .adapters import Trainable, keep_everything, keep_little, require_plain_weights, twin
from .checkpoint import Checkpoint, Progress, Stored
from .identity import adapter_fingerprint, model_fingerprint
from .items import TrainItem, fingerprint
from .lock import RunInUse, locked
from .loss_log import LossLog, Point, smoothed
from .optimizers import OptimizerMissing, make_optimizer, optimizer_state, restore_optimizer, take_step
from .parallel import ALONE, Alone
from .passes import Passes
from .places import RUN
from .samples import Samples, Studio
from .settings import FREE_ON_RESUME, TrainSettings, most_rank

LOSSES, FINAL = "loss.csv", "final"
MOST_SKIPPED = 10
"""Steps in a row whose gradients are no numbers, after which training gives up."""
RETRY_SECONDS = 60.0
"""After a checkpoint could not be written."""


class TrainError(ValueError):
    """Training cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a run has come to.

    Attributes:
        adapter: what was learned. final: its folder, PEFT's or with LyCORIS' file of a LoKr.
        steps, epochs: done, of total_steps.
        points: the loss curve. stopped: the user wanted the adapter as it is. notes: sentences to read.
    """

    adapter: Adapter
    final: Path
    steps: int
    epochs: int
    total_steps: int
    points: tuple[Point, ...]
    stopped: bool
    notes: tuple[str, ...]


def train(
    model: DiffusionModel,
    items: Sequence[TrainItem],
    settings: TrainSettings,
    folder: str | Path,
    *,
    start: Adapter | None = None,
    host: Host | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_point: Callable[[Point], None] | None = None,
    on_epoch: Callable[[int, Callable[[], Adapter]], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    keep_stopped: bool = False,
    samples: Samples | None = None,
    team: Alone = ALONE,
) -> TrainResult:
    """Train until all epochs are done, or go on with the run that lies in ``folder``.

    Args:
        model: without adapters. items: what to learn from.
        folder: of the run: ``run.json``, ``loss.csv``, ``checkpoints/``, ``final/``; its name is the adapter's.
        start: an adapter to go on from in a new run; it must be of the same kind and size.
        should_stop: asked after every pass; true ends training and keeps what there is as the result.
            Cancelling the host keeps a checkpoint and raises; the same call goes on from there.
        on_point: told every step. on_epoch: told after every epoch, with a function that gives the adapter so far.
        on_note: told every sentence that the user should read.
        samples: a song to make with the adapter as it is, every so many epochs, in ``samples/``.
        team: the processes that train together; see :mod:`training.parallel`. One of them writes.
        keep_stopped: take a run that ``should_stop`` ended as it is, instead of going on with it.

    Raises:
        TrainError: nothing to train on, items of another model, a run in ``folder`` with other settings or at work
            in another process, a package that is missing, gradients that are no numbers, or a disk without room for
            the result.
        OutOfMemory: on the device; what was trained is kept.
        Cancelled: by the host.
    """
    items, folder, host = tuple(items), Path(folder), host or hosts.current()
    _check(model, items, settings)
    given = (model, items, settings, folder, start, host, on_note, keep_stopped, samples, team)
    with torch.inference_mode(False), torch.enable_grad(), _alone_in(folder, team), _giving_back(host):
        return _Run(*given).train(should_stop or (lambda: False), on_point, on_epoch)


@contextmanager
def _alone_in(folder: Path, team: Alone) -> Iterator[None]:
    """Within the block no other run works in ``folder``."""
    with ExitStack() as stack:
        if team.leads:
            try:
                stack.enter_context(locked(folder))
            except RunInUse as error:
                raise TrainError(str(error)) from error
            except OSError as error:
                raise TrainError(
                    f"{folder} cannot be written ({error.strerror or error}). Choose another folder, or free some "
                    "space."
                ) from error
        yield


@contextmanager
def _giving_back(host: Host) -> Iterator[None]:
    """What was on the card within the block, and is held by nobody at its end, is free after it."""
    try:
        yield
    finally:
        if host.device("dit").type != "cpu":
            empty_cache()


class _Stopped(Exception):
    """The user wants the result as it is."""


class _Run:
    def __init__(
        self,
        model: DiffusionModel,
        items: tuple[TrainItem, ...],
        settings: TrainSettings,
        folder: Path,
        start: Adapter | None,
        host: Host,
        on_note: Callable[[str], None] | None = None,
        keep_stopped: bool = False,
        samples: Samples | None = None,
        team: Alone = ALONE,
    ):
        self.on_note, self.team = on_note, team
        self.model, self.items, self.settings, self.folder, self.host = model, items, settings, folder, host
        self.notes: list[str] = []
        self.device = host.device("dit")
        self.dtype = self._dtype()
        self.an_epoch = settings.steps_an_epoch(sum(item.repeat for item in items))
        self.total = self.an_epoch * settings.epochs
        self.identity = {
            "settings": settings.values(),
            "data": fingerprint(items),
            "model": model_fingerprint(model),
            "precision": str(self.dtype).removeprefix("torch."),
            "start": None if start is None else adapter_fingerprint(start),
        }
        before = self._before()
        self.kept = keep_stopped and before is not None and before.why == "stop"

        self.generator = torch.Generator().manual_seed(settings.seed)
        self.studio = Studio(model, samples, folder, host) if samples is not None and team.leads else None
        if self.device.type != "cpu":
            host.make_room()
        self.decoder = twin(model.module.decoder, self.device, self.dtype)
        null = model.module.null_condition_emb.detach().to(self.device, self.dtype)
        self.null = null.clone() if null.is_inference() else null
        self.trained = Trainable(self.decoder, settings, self.generator)
        self.parameters = dict(self.trained.named_parameters())
        self.passes = Passes(model, self.decoder, self.null, items, settings, self.generator)
        try:
            self.optimizer = make_optimizer(self.trained.parameters(), settings)
        except OptimizerMissing as error:
            raise TrainError(str(error)) from error
        self.step, self.ema, self.skipped, self.spent = 0, None, 0, 0.0
        self.saved: tuple[int, bool, str] = (0, True, "")
        self.unlogged = False
        if before is not None:
            self._go_on(before)
        elif start is not None:
            self.trained.load(start)
        self.at_rest = self.generator.get_state()
        self.torn = False
        team.wait()

    def say(self, text: str) -> None:
        self.notes.append(text)
        if not self.team.leads:
            return
        self.host.say(text)
        if self.on_note is not None:
            self.on_note(text)

    def _dtype(self) -> torch.dtype:
        if self.device.type == "cpu":
            if self.settings.precision == "bf16":
                self.say("On the CPU training computes in fp32.")
            return torch.float32
        fixed = {"bf16": torch.bfloat16, "fp32": torch.float32}
        return fixed.get(self.settings.precision) or self.host.dtype("dit")

    # -- where the run stands

    def _before(self) -> Checkpoint | None:
        """Where the run in the folder stands; None where there is no run.

        Raises:
            TrainError: it is another run, or none of its checkpoints can be read.
        """
        name = self.folder.name
        advice = f"Nothing was changed in {self.folder}. "
        try:
            stored = checkpoint.newest(self.folder, self.say)
            if stored is None:
                return None
            self._require_same(stored)
            return stored.load(self.model.config)
        except TrainError:
            raise
        except checkpoint.Broken as error:
            raise TrainError(
                f"{name} holds a run of which no checkpoint can be used: {error}. {advice}Put the files back from a "
                "copy, or give this run another name to begin anew."
            ) from error
        except ValueError as error:
            raise TrainError(
                f"{name} holds a run that does not fit: {error} {advice}Go on with the model it was started with, or "
                "give this one another name."
            ) from error
        except Exception as error:  # of the disk, of memory, of the format's library; the run may be whole
            raise TrainError(
                f"The checkpoint of {name} cannot be read now ({str(error) or type(error).__name__}). {advice}Start "
                "the same run again when the disk answers and memory is free."
            ) from error

    def _require_same(self, before: Stored) -> None:
        """Raise where the run in the folder is another one, naming what differs."""
        where = f"{self.folder.name} holds a run"
        advice = "Go on with what it was started with, or give this one another name."
        then, now = dict(before.run["settings"]), self.identity["settings"]
        for name, value in now.items():
            before_it = then.get(name, getattr(TrainSettings, name))
            if name not in FREE_ON_RESUME and before_it != value:
                raise TrainError(f"{where} with {name} {before_it}, not {value}. {advice}")
        titles = {"data": "other training data", "model": "another model", "precision": "another precision"}
        for name, title in titles.items():
            if before.run[name] != self.identity[name]:
                raise TrainError(f"{where} with {title}. {advice}")
        if before.progress.step > self.total:
            epochs = math.ceil(before.progress.step / self.an_epoch)
            raise TrainError(f"{where} that has done {epochs} epochs already; set epochs to at least that.")
        self._settle_start(before.run["start"], where)

    def _settle_start(self, then: str | None, where: str) -> None:
        """What a run started from is in its checkpoint, so that the adapter itself is not needed to go on."""
        now, self.identity["start"] = self.identity["start"], then
        if now is None or now == then:
            return
        if then is None:
            raise TrainError(
                f"{where} that was begun without an adapter to start from. Disconnect start to go on with it, or give "
                "this one another name."
            )
        self.say(
            f"{self.folder.name} was begun from another adapter than start is now, and goes on from its own "
            "checkpoint. To begin from this one, give the run another name."
        )

    def _go_on(self, before: Checkpoint) -> None:
        self.trained.load(before.adapter)
        restore_optimizer(self.optimizer, self.parameters, before.optimizer, before.numbers)
        at = before.progress
        self.step, self.ema, self.skipped, self.spent = at.step, at.ema, at.skipped, at.seconds
        self.generator.set_state(torch.frombuffer(bytearray(at.random), dtype=torch.uint8))
        self.saved = (at.step, before.stays, before.why)
        if self.kept and at.step < self.total:
            self.say(f"The run was stopped after step {at.step} of {self.total} and is kept as it is.")
        elif at.step < self.total:
            self.say(f"Training goes on after step {at.step} of {self.total}.")

    def _progress(self) -> Progress:
        epoch, within = divmod(self.step, self.an_epoch)
        return Progress(
            step=self.step,
            epoch=epoch,
            position=within * self.settings.accumulation,
            random=self.at_rest.numpy().tobytes(),
            ema=self.ema,
            skipped=self.skipped,
            seconds=self.spent + time.monotonic() - self.started,
        )

    def save(self, why: str, stays: bool) -> None:
        """Write a checkpoint of the last complete step, unless there is one. Raises OSError."""
        step, stayed, reason = self.saved
        if not self.team.leads:
            self.saved = (self.step, stays, why)
            return
        if self.step == step:
            if step and stays and (not stayed or reason != why):
                checkpoint.keep(self.folder / checkpoint.FOLDER / checkpoint.name_of(step), why)
                self.saved = (step, True, why)
            return
        self._write_log(self.log.sync)
        tensors, numbers = optimizer_state(self.optimizer, self.parameters)
        adapter = self.trained.adapter(self.folder.name)
        made = Checkpoint(adapter, self._progress(), self.identity, tensors, numbers, why, stays)
        checkpoint.write(self.folder, made)
        self.saved = (self.step, stays, why)

    # -- the loop

    def train(
        self,
        should_stop: Callable[[], bool],
        on_point: Callable[[Point], None] | None,
        on_epoch: Callable[[int, Callable[[], Adapter]], None] | None,
    ) -> TrainResult:
        if self.team.leads:
            self._open()
        self.should_stop, self.began = should_stop, self.step
        self.started = self.guarded = time.monotonic()
        self.retry_at, self.full = 0.0, False
        self.trouble: Exception | None = None
        stopped = False
        if self.settings.gradient_checkpointing:
            keep_little(self.decoder)
        try:
            self._report()
            if self.team.count > self.settings.accumulation:
                self.say(
                    f"Only {self.settings.accumulation} of {self.team.count} processes work at a time, because a step "
                    f"has no more passes. In a new run set accumulation to a multiple of {self.team.count}."
                )
            if self.kept and self.step < self.total:
                raise _Stopped
            self._record(again=False)
            while self.step < self.total:
                point = self._take_step()
                try:
                    self._tell(point, on_point, on_epoch)
                except Exception as error:
                    if self.team.count == 1 or self.step == self.total:
                        raise
                    self.trouble = error  # the others wait for this process; it leaves together with them
        except _Stopped:
            stopped = True
        except BaseException as error:
            self._rescue(error)
            raise
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            keep_everything(self.decoder)
        return self._finish(stopped)

    def _open(self) -> None:
        """Everything that a run has in its folder from the start."""
        checkpoint.clean(self.folder, (RUN, LOSSES, FINAL))
        checkpoint.replace_text(self.folder / RUN, json.dumps(self._described(), indent=1, sort_keys=True) + "\n")
        self.log = LossLog(self.folder / LOSSES, self.step)
        self._write_log(self.log.begin)
        if self.step and not self.log.points:
            self.say(f"The loss curve before step {self.step} is gone; the run itself is whole.")

    def _take_step(self) -> Point:
        """One optimizer step: a window of passes, whose gradients are averaged."""
        epoch, within = divmod(self.step, self.an_epoch)
        passes = self.passes.of_epoch(epoch)
        first = within * self.settings.accumulation
        window = passes[first : first + self.settings.accumulation]
        found = self._passes(window)
        loss = sum(found) / len(found)
        norm = self._clipped()
        rate = self.settings.rate(self.step, self.total)
        self.torn = True
        if math.isfinite(norm):
            take_step(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped = 0 if math.isfinite(norm) else self.skipped + 1
        self.step += 1
        self.ema = smoothed(self.ema, loss)
        self.at_rest = self.generator.get_state()
        self.torn = False
        point = Point(self.step, epoch + 1, loss, self.ema, rate, norm)
        if self.team.leads:
            self._write_log(lambda: self.log.add(point))
        if self.skipped:
            self.say(f"The gradients of step {self.step} are no numbers; the step was left out.")
        if self.skipped >= MOST_SKIPPED:
            raise TrainError(
                f"The gradients were no numbers {MOST_SKIPPED} steps in a row, up to step {self.step}. Start a new run "
                "with a lower learning rate, or with precision fp32; the checkpoints before are kept."
            )
        return point

    def _passes(self, window: Sequence[Sequence[int]]) -> list[float]:
        """Gradients of a window; the loss of each of its passes. Where several processes share it, all end alike."""
        found, trouble = [0.0] * len(window), self.trouble
        try:
            for index, batch in enumerate(window):
                self._look_up()
                if self.team.mine(index):
                    found[index] = self.passes.learn(batch, len(window))
                else:
                    self.passes.skip(batch)
            self._look_up()
        except BaseException as error:
            if self.team.count == 1:
                raise
            trouble = trouble or error
        if self.team.count == 1:
            return found
        kinds = (isinstance(trouble, _Stopped), trouble is not None and self.host.is_cancel(trouble))
        state = [*map(float, kinds), float(trouble is not None and not any(kinds))]
        *found, stopped, cancelled, failed = self.team.add_up(self.trained.parameters(), [*found, *state])
        if trouble is not None:
            raise trouble
        if failed:
            raise TrainError("Another process of this run failed; its own message says why.")
        if cancelled:
            raise hosts.Cancelled("Stopped by the user.")
        if stopped:
            raise _Stopped
        return found

    def _tell(
        self,
        point: Point,
        on_point: Callable[[Point], None] | None,
        on_epoch: Callable[[int, Callable[[], Adapter]], None] | None,
    ) -> None:
        """What is done between two steps."""
        if not self.team.leads:
            return
        if on_point is not None:
            on_point(point)
        self._report()
        if self.step % self.an_epoch == 0:
            if on_epoch is not None:
                on_epoch(self.step // self.an_epoch, self._listen)
        self._guard()
        self._record()

    def _record(self, again: bool = True) -> None:
        """A sample, where one is due; one that cannot be made is no reason to end."""
        epoch, within = divmod(self.step, self.an_epoch)
        if self.studio is None or within or not epoch or not self.studio.due(epoch):
            return
        if not again and self.studio.path(epoch).is_file():
            return
        try:
            self.studio.record(self.decoder, self.trained, self.null, epoch)
        except Exception as error:
            if self.host.is_cancel(error):
                raise
            if is_out_of_memory(error):
                empty_cache()
            self.say(f"The sample of epoch {epoch} could not be made: {error}")

    def _look_up(self) -> None:
        self.host.check_cancelled()
        if self.should_stop():
            raise _Stopped

    def _clipped(self) -> float:
        """The norm of all gradients, which are cut to ``max_grad_norm``."""
        most = self.settings.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.trained.parameters(), most))

    # -- watching over it

    def _write_log(self, write: Callable[[], None]) -> None:
        """The curve is no reason to lose a checkpoint: what its file refuses is said once, and kept for later."""
        try:
            write()
        except OSError as error:
            if not self.unlogged:
                self.say(
                    f"The loss curve cannot be written to {LOSSES} ({error.strerror or error}). Training and its "
                    "checkpoints go on; close what has the file open, or free some space, and it is completed."
                )
            self.unlogged = True

    def _guard(self) -> None:
        """Checkpoints on epochs and on time. A disk that refuses is said, and tried again later."""
        due = self._due()
        now, minutes = time.monotonic(), self.settings.save_minutes
        late = minutes > 0 and now - self.guarded >= 60 * minutes
        if not (due or late or (self.full and now >= self.retry_at)):
            return
        try:
            self.save("epoch" if due else "time", stays=due)
            self.guarded, self.full = now, False
        except OSError as error:
            self._say_full(error)
            self.retry_at = now + RETRY_SECONDS

    def _due(self) -> bool:
        """Whether the checkpoint of this step is one that stays."""
        epoch, within = divmod(self.step, self.an_epoch)
        return within == 0 and epoch % self.settings.save_every == 0

    def _say_full(self, error: OSError) -> None:
        if not self.full:
            self.say(
                f"The run cannot be written to the disk ({error.strerror or error}). Training goes on and tries again; "
                f"free some space. The last checkpoint is of step {self.saved[0]}."
            )
        self.full = True

    def _rescue(self, error: BaseException) -> None:
        """Keep what has been trained while an error is on its way; say it where that fails."""
        self.optimizer.zero_grad(set_to_none=True)
        memory = is_out_of_memory(error)
        if memory:
            empty_cache()
        if not self.torn:
            try:
                why = "cancel" if self.host.is_cancel(error) else "error"
                self.save("epoch" if self._due() else why, stays=self._due())
            except OSError as refused:
                self._say_full(refused)
        kept = f"The checkpoint of step {self.saved[0]} is kept" if self.saved[0] else "Nothing was trained before"
        if memory:
            raise OutOfMemory(
                f"There is not enough memory for step {self.step + 1}. {kept}. Turn gradient checkpointing on, cut the "
                "songs shorter, or use adamw8bit or a smaller rank, and start again."
            ) from error
        self.say(f"Training was interrupted. {kept}; the same run goes on from there.")

    def _finish(self, stopped: bool) -> TrainResult:
        adapter = self.trained.adapter(self.folder.name)
        final = self.folder / FINAL
        try:
            self.save("stop" if stopped else "end", stays=True)
            if self.team.leads:
                write_folder(adapter, final, overwrite=True)
        except OSError as error:
            raise TrainError(
                f"Training is at step {self.step}, but the result cannot be written to {self.folder} "
                f"({error.strerror or error}). Free some space and start the same run again: it goes on from step "
                f"{self.saved[0]}."
            ) from error
        return TrainResult(
            adapter=adapter,
            final=final,
            steps=self.step,
            epochs=self.step // self.an_epoch,
            total_steps=self.total,
            points=tuple(self.log.points) if self.team.leads else (),
            stopped=stopped,
            notes=tuple(self.notes),
        )

    def _listen(self) -> Adapter:
        return self.trained.adapter(f"{self.folder.name} after epoch {self.step // self.an_epoch}")

    def _report(self) -> None:
        if not self.team.leads:
            return
        text = f"training: step {self.step}/{self.total}, epoch {self.step // self.an_epoch}/{self.settings.epochs}"
        if self.ema is not None:
            text += f", loss {self.ema:.4f}, lr {self.settings.rate(max(0, self.step - 1), self.total):.2g}"
        done = self.step - self.began
        if done and self.step < self.total:
            left = (time.monotonic() - self.started) / done * (self.total - self.step)
            text += f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"
        self.host.on_progress(self.step, self.total, text)

    def _described(self) -> dict[str, Any]:
        """What ``run.json`` tells a reader, and whoever goes on with the run; see :mod:`training.plan`."""
        items = [
            {
                **{"name": item.name, "file": item.path, "seconds": item.seconds, "repeat": item.repeat},
                **{"tag": str(item.about.get("tag", ""))},
            }
            for item in self.items
        ]
        return {
            **self.identity,
            "items": items,
            "steps": self.total,
            "model_files": list(self.model.report.files),
            "model_kind": self.model.kind,
            "samples": None if self.studio is None else self.studio.described(),
            **({} if self.studio is None else self.studio.models()),
            "torch": torch.__version__,
        }


def _check(model: DiffusionModel, items: Sequence[TrainItem], settings: TrainSettings) -> None:
    if not items:
        raise TrainError("There is nothing to train on. Preprocess a data set with at least one labelled song.")
    if playing(model):
        raise TrainError("The model plays an adapter. Train on the plain model, without a LoRA node before it.")
    width = model.config.encoder_width
    for item in items:
        if item.conditions.shape[1] != width:
            raise TrainError(
                f"{item.name} was preprocessed for a model whose conditions are {item.conditions.shape[1]} wide; this "
                f"one's are {width}. Preprocess the data set with this model."
            )
    require_plain_weights(model.module.decoder, settings.targets(model.config))
    most = most_rank(model.config, settings)
    if settings.method != "lokr" and settings.rank > most:
        raise TrainError(
            f"Rank {settings.rank} is more than the layers to train hold; at most {most} makes sense for this model. "
            f"Set a rank of {most} or less."
        )
    if any(item.context is None for item in items):
        silence_of(model, 1)
