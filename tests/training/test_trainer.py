"""Runs: what they learn, what they leave alone, and that an interrupted one ends as an uninterrupted one."""

import dataclasses
import errno
import gc
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import weakref
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.lora import writing
from acestep_graph.acestep_core.lora.apply import active, with_adapter
from acestep_graph.acestep_core.lora.formats import read_adapter
from acestep_graph.acestep_core.memory.recovery import OutOfMemory
from acestep_graph.acestep_core.training import checkpoint, losses, trainer
from acestep_graph.acestep_core.training.loss_log import LossLog, read_points
from acestep_graph.acestep_core.training.settings import TrainSettings
from acestep_graph.acestep_core.training.trainer import TrainError
from tests import models
from tests.pack import ROOT

from .making import SETTINGS, Events, items, outcome, run, tunes, wide

STEPS = 15


def changed(settings=SETTINGS, **values):
    return dataclasses.replace(settings, **values)


def weights_hash(model):
    digest = hashlib.sha256()
    for name, weight in model.module.state_dict().items():
        digest.update(name.encode() + weight.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Counter(Host):
    """Cancels at the n-th look, or does whatever it is given there."""

    def __init__(self, folder, at, act=None):
        super().__init__(output=folder, device="cpu")
        self.left, self.act = at, act

    def check_cancelled(self):
        self.left -= 1
        if self.left == 0:
            if self.act is None:
                raise Cancelled("Stopped by the user.")
            self.act()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts: its outcome, and how many events it takes."""
    folder = tmp_path_factory.mktemp("whole") / "jazz"
    with Events(0, lambda: None) as events:
        result = run(folder)
    assert (result.steps, result.total_steps, result.epochs, result.stopped) == (STEPS, STEPS, 5, False)
    return outcome(folder), events.seen


# -- what a run makes


def test_a_run_leaves_an_adapter_that_plays(tmp_path):
    result = run(tmp_path / "jazz")
    model = models.diffusion()
    stored = read_adapter(result.final, model.config)
    assert stored.kinds == ("LoRA",) and stored.alphas == (8.0,) and len(stored.changes) == 32
    x = [torch.randn(1, 20, 64), torch.randn(1, 20, 128), torch.randn(1, 6, 32), torch.tensor([0.5])]
    answers = []
    for adapter in (stored, result.adapter):
        with torch.no_grad(), active(with_adapter(model, adapter)):
            answers.append(model.module.decoder(*x))
    with torch.no_grad():
        plain = model.module.decoder(*x)
    assert torch.equal(*answers) and not torch.allclose(answers[0], plain)


def test_the_folder_tells_what_was_done(tmp_path):
    result = run(tmp_path / "jazz")
    described = json.loads((tmp_path / "jazz" / "run.json").read_text())
    assert TrainSettings.from_values(described["settings"]) == SETTINGS
    assert [item["name"] for item in described["items"]] == [f"song {index}" for index in range(4)]
    points = read_points(tmp_path / "jazz" / "loss.csv")
    assert tuple(points) == result.points and [point.step for point in points] == list(range(1, STEPS + 1))
    assert [point.epoch for point in points] == sorted(list(range(1, 6)) * 3)
    assert (tmp_path / "jazz" / "last").read_text() == "checkpoints/step_0000015\n"


def test_every_item_comes_as_often_as_it_repeats(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(trainer.Passes, "learn", lambda self, batch, passes: seen.append((list(batch), passes)) or 1.0)
    run(tmp_path / "jazz", changed(batch_size=2, epochs=2))
    epochs = [seen[:3], seen[3:]]
    for passes in epochs:
        assert sorted(index for batch, _ in passes for index in batch) == [0, 1, 1, 2, 3]
        assert [count for _, count in passes] == [2, 2, 1]
    assert epochs[0] != epochs[1]


def test_a_batch_of_different_shapes_learns_what_its_items_learn_alone(tmp_path, monkeypatch):
    """No dropout, given draws: gradients of a batch are the mean of those of its items."""

    def gradients(batches):
        settings = changed(batch_size=4, dropout=0.0, condition_dropout=0.0)
        made = trainer._Run(models.diffusion(), items(), settings, tmp_path / "none", None, Host(device="cpu"))
        for batch in batches:
            made.passes.learn(batch, len(batches))
        return [parameter.grad for parameter in made.trained.parameters()]

    def still(self, shape):
        noise = torch.linspace(-1, 1, shape[1] * 64).view(1, -1, 64).expand(shape)
        return losses.Draw(noise, torch.full((shape[0],), 0.4), torch.zeros(shape[0], dtype=torch.bool))

    monkeypatch.setattr(trainer.Passes, "_draw", still)
    with torch.enable_grad():
        together, alone = gradients([[0, 1, 2, 3]]), gradients([[0], [1], [2], [3]])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(together, alone, strict=True))
    assert any(bool(gradient.any()) for gradient in together)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_four_items_are_learned_by_heart(tmp_path, method):
    settings = changed(method=method, rank=16, alpha=32, dropout=0.0, condition_dropout=0.0, learning_rate=5e-3)
    settings = dataclasses.replace(settings, mlp=True, accumulation=1, epochs=40, save_every=1000, weight_decay=0.0)
    points = run(tmp_path / "jazz", settings, data=tunes()).points
    first, last = (sum(point.loss for point in part) / 12 for part in (points[:12], points[-12:]))
    assert last < 0.55 * first, "0.8 is the noise that 32 channels cannot answer"


@pytest.mark.parametrize("timesteps", ["discrete", "continuous"])
@pytest.mark.parametrize("more", [{}, {"min_snr": 5.0, "max_grad_norm": 0.0, "batch_size": 2}])
def test_every_kind_of_step_runs(tmp_path, timesteps, more):
    result = run(tmp_path / "jazz", changed(timesteps=timesteps, epochs=1, **more))
    assert all(point.loss > 0 and point.grad_norm > 0 for point in result.points)


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path):
    made = [run(tmp_path / str(on), changed(gradient_checkpointing=on, epochs=2)) for on in (True, False)]
    for one, other in zip(*(result.points for result in made), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize("format", ["file", "folder"])
def test_an_early_dora_is_exported_as_it_was_learned(tmp_path, format):
    """A few steps move magnitudes by less than bfloat16 can tell."""
    model = models.diffusion()
    adapter = run(tmp_path / "jazz", changed(method="dora", epochs=20, learning_rate=1e-4, save_every=1000)).adapter
    write = {"file": writing.write_file, "folder": writing.write_peft}[format]
    stored = read_adapter(write(adapter, tmp_path / "jazz.safetensors", dtype=torch.bfloat16), model.config)
    lost, learned = [], []
    for name, change in adapter.changes.items():
        weight = model.module.decoder.get_submodule(name).weight
        whole, exported = (one.magnitude * _directions(weight, one) for one in (change, stored.changes[name]))
        lost.append((whole - exported).norm())
        learned.append((whole - weight).norm())
    assert torch.stack(lost).norm() < 0.01 * torch.stack(learned).norm()


def _directions(weight, change):
    return torch.nn.functional.normalize(weight.detach() + change.scale * change.form.dense(), dim=1)


# -- what it leaves alone


def test_base_weights_and_other_holders_stay_as_they_are(tmp_path):
    model = models.diffusion()
    before, mode, state = weights_hash(model), model.module.training, torch.get_rng_state()
    run(tmp_path / "jazz", changed(method="dora", mlp=True, epochs=1))
    assert weights_hash(model) == before
    assert model.module.training == mode and torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.module.modules())
    assert not any("forward" in vars(module) for module in model.module.modules())


@pytest.mark.parametrize("ends", ["whole", "cancelled", "refused"])
@pytest.mark.parametrize("method", ["lora", "lokr"])
def test_nothing_of_a_run_stays_in_memory(tmp_path, monkeypatch, method, ends):
    """Without the collector of cycles, which may not come for hours."""
    made, plain = [], trainer.twin

    def seen(*args):
        decoder = plain(*args)
        made.extend(weakref.ref(module) for module in decoder.modules())
        return decoder

    if ends == "refused":
        monkeypatch.setitem(sys.modules, "torchao.optim", None)
    monkeypatch.setattr(trainer, "twin", seen)
    settings = changed(method=method, epochs=2, gradient_checkpointing=True)
    settings = changed(settings, optimizer="adamw8bit" if ends == "refused" else "adamw")
    gc.collect()
    gc.disable()
    try:
        try:
            run(tmp_path / "jazz", settings, host=Counter(tmp_path, 7 if ends == "cancelled" else 0))
        except (Cancelled, TrainError) as error:
            assert (ends == "cancelled") == isinstance(error, Cancelled)
        assert made and not [ref for ref in made if ref() is not None]
    finally:
        gc.enable()


def test_it_trains_inside_inference_mode(tmp_path, whole):
    with torch.inference_mode():
        from acestep_graph.acestep_core.checkpoints import loading

        model = loading.load_diffusion_model(models.CHECKPOINTS / "acestep-v15-turbo", dtype=torch.float32)
        data = items()
        assert data[0].latents.is_inference()
        run(tmp_path / "jazz", model=model, data=data)
    assert outcome(tmp_path / "jazz") == whole[0]


def test_weights_made_in_inference_mode_are_copied(tmp_path, whole):
    import copy

    with torch.inference_mode():
        model = dataclasses.replace(models.diffusion(), module=copy.deepcopy(models.diffusion().module))
        for parameter in model.module.parameters():
            parameter.data = parameter.data.clone()
        for module in model.module.decoder.modules():
            for name, value in list(module._parameters.items()):
                if value is not None:
                    module._parameters[name] = torch.nn.Parameter(value.clone(), requires_grad=False)
    assert model.module.decoder.layers[0].self_attn.q_proj.weight.is_inference()
    run(tmp_path / "jazz", model=model)
    assert outcome(tmp_path / "jazz") == whole[0]


def test_the_random_numbers_of_the_program_do_not_matter(tmp_path, whole):
    torch.manual_seed(7)
    run(tmp_path / "jazz")
    assert outcome(tmp_path / "jazz") == whole[0]


# -- interrupted


def killed_and_resumed(folder, at, whole):
    """Kill a process at event ``at``, look at what it left, and go on."""
    command = [sys.executable, "-m", "tests.training.making", str(folder), str(at)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode not in (0, 1), ended.stderr
    logged = len(read_points(folder / "loss.csv")) if folder.exists() else 0
    host = Host(output=folder, device="cpu")
    result = run(folder, host=host)
    goes_on = [
        int(found[1]) for note in result.notes if (found := re.match(r"Training goes on after step (\d+)", note))
    ]
    begun = goes_on[0] if goes_on else STEPS if logged == STEPS else 0
    assert logged - begun <= 3, "more than one save interval was repeated"
    assert outcome(folder) == whole[0]
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_killed_at_a_random_moment(tmp_path, whole, share):
    at = round(share * whole[1]) + random.Random(f"moment {share}").randrange(-3, 4)
    killed_and_resumed(tmp_path / "jazz", at, whole)


@pytest.mark.release
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_twenty_random_moments(tmp_path, whole, moment):
    killed_and_resumed(tmp_path / "jazz", random.Random(moment).randrange(1, whole[1] + 1), whole)


@pytest.mark.parametrize("at", [1, 2, 8, 14, 31])
def test_cancelled_and_queued_again(tmp_path, whole, at):
    with pytest.raises(Cancelled):
        run(tmp_path / "jazz", changed(save_every=1000), host=Counter(tmp_path, at))
    done = len(read_points(tmp_path / "jazz" / "loss.csv"))
    result = run(tmp_path / "jazz", changed(save_every=1000))
    if done:
        assert f"Training goes on after step {done} of {STEPS}." in result.notes
    assert outcome(tmp_path / "jazz") == whole[0]


def test_cancelled_again_and_again(tmp_path, whole):
    """Each time a step or two; guards replace each other."""
    for _ in range(STEPS):
        try:
            run(tmp_path / "jazz", changed(save_every=1000), host=Counter(tmp_path, 5))
        except Cancelled:
            assert len(checkpoint.found(tmp_path / "jazz")) == 1
        else:
            break
    assert outcome(tmp_path / "jazz") == whole[0]


@pytest.mark.parametrize("at", [1, 9, 20])
def test_stopped_keeps_the_result_and_can_go_on(tmp_path, whole, at):
    asked = []
    first = run(tmp_path / "jazz", should_stop=lambda: asked.append(1) or len(asked) >= at)
    assert first.stopped and first.steps == len(first.points) < STEPS
    stored = read_adapter(first.final, models.diffusion().config)
    assert all(
        torch.equal(change.form.up, stored.changes[name].form.up) for name, change in first.adapter.changes.items()
    )
    run(tmp_path / "jazz")
    assert outcome(tmp_path / "jazz") == whole[0]


@pytest.mark.parametrize("at", [3, 17])
def test_an_error_keeps_what_was_trained(tmp_path, whole, at):
    def fail():
        raise RuntimeError("the card fell off the bus")

    with pytest.raises(RuntimeError, match="fell off"):
        run(tmp_path / "jazz", host=Counter(tmp_path, at, fail))
    run(tmp_path / "jazz")
    assert outcome(tmp_path / "jazz") == whole[0]


def test_an_error_at_the_end_of_an_epoch_costs_no_checkpoint_that_is_due(tmp_path, whole):
    def fail(epoch, _take):
        if epoch == 2:
            raise RuntimeError("nobody listens")

    with pytest.raises(RuntimeError, match="nobody listens"):
        run(tmp_path / "jazz", changed(save_every=2), on_epoch=fail)
    run(tmp_path / "jazz", changed(save_every=2))
    assert [path.name[-2:] for path in checkpoint.found(tmp_path / "jazz")] == ["15", "12", "06"]
    assert outcome(tmp_path / "jazz") == whole[0]


def test_out_of_memory_keeps_what_was_trained_and_says_what_to_do(tmp_path):
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(
        OutOfMemory, match=r"step 6\. The checkpoint of step 5 is kept\. Turn gradient checkpointing on"
    ):
        run(tmp_path / "jazz", host=Counter(tmp_path, 15, fail))
    result = run(tmp_path / "jazz", changed(gradient_checkpointing=True))
    assert f"Training goes on after step 5 of {STEPS}." in result.notes and len(result.points) == STEPS


def test_an_error_inside_the_optimizer_leaves_no_checkpoint_of_half_a_step(tmp_path, whole, monkeypatch):
    step, calls = torch.optim.AdamW.step, []

    def half(self, *args):
        calls.append(1)
        if len(calls) == 5:
            self.param_groups[0]["params"][0].data.add_(1)
            raise RuntimeError("half way")
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    with pytest.raises(RuntimeError, match="half way"):
        run(tmp_path / "jazz")
    assert [path.name for path in checkpoint.found(tmp_path / "jazz")] == ["step_0000003"]
    run(tmp_path / "jazz")
    assert outcome(tmp_path / "jazz") == whole[0]


@pytest.mark.parametrize("more", [{"method": "lokr"}, {"method": "lokr", "rank": 1}, {"optimizer": "adamw8bit"}])
@pytest.mark.parametrize("at", [8, 31])
def test_other_adapters_and_optimizers_go_on_as_exactly(tmp_path, more, at):
    """The rank is such that moments of whole blocks of 256 are of 8 bits."""
    if "optimizer" in more:
        pytest.importorskip("torchao")
        more = {**more, "rank": 64, "alpha": 64, "epochs": 3, "attention": "self"}
    model = wide() if "optimizer" in more else models.diffusion()
    run(tmp_path / "whole" / "jazz", changed(**more), model=model)
    with pytest.raises(Cancelled):
        host = Counter(tmp_path, at if "optimizer" not in more else at // 2)
        run(tmp_path / "jazz", changed(**more), host=host, model=model)
    result = run(tmp_path / "jazz", changed(**more), model=model)
    assert any(note.startswith("Training goes on after step") for note in result.notes)
    files = [path.relative_to(tmp_path) for path in (tmp_path / "jazz" / "final").iterdir()]
    for file in (*files, Path("jazz/loss.csv")):
        assert (tmp_path / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert len(files) == (1 if more.get("method") == "lokr" else 2)


def test_moments_of_eight_bits_are_small(tmp_path, monkeypatch):
    pytest.importorskip("torchao")
    monkeypatch.setattr(trainer, "most_rank", lambda *_: 128)  # as large tensors as small layers can be given
    sizes = {}
    for optimizer in ("adamw", "adamw8bit"):
        settings = changed(optimizer=optimizer, rank=128, alpha=128, epochs=1, attention="self")
        run(tmp_path / optimizer, settings)
        state = load_file(checkpoint.found(tmp_path / optimizer)[0] / "state.safetensors")
        sizes[optimizer] = sum(tensor.nbytes for tensor in state.values())
        assert any(tensor.dtype == torch.uint8 for tensor in state.values()) == (optimizer == "adamw8bit")
    assert sizes["adamw8bit"] < 0.4 * sizes["adamw"], "small tensors stay as they are"


def test_a_lokr_plays_as_it_was_trained(tmp_path):
    result = run(tmp_path / "jazz", changed(method="lokr", rank=2, learning_rate=1e-2))
    stored = read_adapter(result.final, models.diffusion().config)
    assert stored.kinds == ("LoKr",) and stored.report.layout == "LyCORIS file" and len(stored.changes) == 32
    for name, change in result.adapter.changes.items():
        assert change.form.dense().any() and torch.equal(stored.changes[name].form.dense(), change.form.dense())


# -- a full disk


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_for_a_while_is_waited_for(tmp_path, whole, monkeypatch):
    save, calls = checkpoint.save_file, []

    def sometimes(*args):
        calls.append(1)
        return full() if len(calls) in (2, 3) else save(*args)

    monkeypatch.setattr(checkpoint, "save_file", sometimes)
    result = run(tmp_path / "jazz")
    assert outcome(tmp_path / "jazz") == whole[0]
    said = [note for note in result.notes if "No space left" in note]
    assert len(said) == 1 and "The last checkpoint is of step 3." in said[0]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files, which Windows cannot")
@pytest.mark.parametrize(("method", "share"), [("lora", 0.5), ("lora", 1.3), ("lokr", 1.3)])
def test_files_that_the_system_refuses(tmp_path, method, share):
    """What really comes when writing fails: at the adapter from Python, at the larger optimizer from safetensors."""
    import resource

    before, settings = resource.getrlimit(resource.RLIMIT_FSIZE), changed(method=method)
    size = max(path.stat().st_size for path in run(tmp_path / "whole" / "jazz", settings).final.iterdir())

    def limit(epoch, _take):
        if epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (round(share * size), before[1]))

    try:
        with pytest.raises(TrainError, match=r"is at step 15, but .*File too large.* goes on from step 3\."):
            run(tmp_path / "jazz", settings, on_epoch=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "jazz" / "checkpoints").iterdir()] == ["step_0000003"]
    result = run(tmp_path / "jazz", settings)
    assert "Training goes on after step 3 of 15." in result.notes
    assert (tmp_path / "jazz" / "loss.csv").read_bytes() == (tmp_path / "whole" / "jazz" / "loss.csv").read_bytes()


def test_lines_that_did_not_fit_are_written_later(tmp_path, whole, monkeypatch):
    write, calls = LossLog._write, []

    def sometimes(self, sync):
        calls.append(1)
        if len(calls) in (1, 2, 6):
            with open(self.path, "ab") as file:
                file.write(self._waiting[:7])
            full()
        write(self, sync)

    monkeypatch.setattr(LossLog, "_write", sometimes)
    run(tmp_path / "jazz")
    assert outcome(tmp_path / "jazz") == whole[0]


def test_a_disk_that_stays_full_ends_in_a_sentence_and_goes_on_later(tmp_path, whole, monkeypatch):
    save, calls = checkpoint.save_file, []

    def later(*args):
        calls.append(1)
        return full() if len(calls) > 2 else save(*args)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", later)
        with pytest.raises(TrainError, match=r"is at step 15, but .* Free some space .* goes on from step 6\."):
            run(tmp_path / "jazz")
    assert not [path for path in (tmp_path / "jazz" / "checkpoints").iterdir() if path.name.startswith(".")]
    run(tmp_path / "jazz")
    assert outcome(tmp_path / "jazz") == whole[0]


def test_cancel_on_a_full_disk_still_cancels(tmp_path, whole, monkeypatch):
    host = Counter(tmp_path, 14)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(Cancelled):
            run(tmp_path / "jazz", host=host)
    assert any("Nothing was trained before" in note for note in host.notes)
    run(tmp_path / "jazz")
    assert outcome(tmp_path / "jazz") == whole[0]


@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_curve_that_is_taken_away_is_written_again(tmp_path, whole, how):
    path = tmp_path / "jazz" / "loss.csv"

    def take(point):
        if point.step == 4:
            path.unlink() if how == "deleted" else path.write_bytes(path.read_bytes()[:30])

    assert run(tmp_path / "jazz", on_point=take).notes == ()
    assert outcome(tmp_path / "jazz") == whole[0]


def test_a_curve_that_cannot_be_written_costs_no_checkpoint(tmp_path, whole):
    """A folder of its name, which refuses as a file does that another program has open."""
    path, seen = tmp_path / "jazz" / "loss.csv", []

    def block(point):
        if point.step == 4:
            path.unlink()
            path.mkdir()
        seen.append(checkpoint.found(tmp_path / "jazz")[:1])

    result = run(tmp_path / "jazz", on_point=block)
    assert [len(places) for places in seen] == [0] * 3 + [1] * 12 and seen[-1][0].name == "step_0000012"
    assert len(result.notes) == 1 and "The loss curve cannot be written to loss.csv" in result.notes[0]
    assert len(result.points) == STEPS and len(checkpoint.found(tmp_path / "jazz")) == 5
    again = run(tmp_path / "jazz")
    assert again.steps == STEPS and "The loss curve cannot be written" in again.notes[0]
    path.rmdir()
    adapter = (tmp_path / "jazz" / "final" / "adapter_model.safetensors").read_bytes()
    assert adapter == whole[0]["final/adapter_model.safetensors"]


def test_a_curve_that_can_be_written_again_is_completed(tmp_path, whole, monkeypatch):
    write = LossLog._write

    def refused(self, sync):
        if 4 <= self.points[-1].step <= 9:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        write(self, sync)

    monkeypatch.setattr(LossLog, "_write", refused)
    result = run(tmp_path / "jazz")
    assert len(result.notes) == 1 and "Permission denied" in result.notes[0]
    assert outcome(tmp_path / "jazz") == whole[0]


# -- going on


@pytest.mark.parametrize(
    "file", ["state.json", "state.safetensors", "adapter_model.safetensors", "adapter_config.json"]
)
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_broken_checkpoint_is_skipped_with_a_note(tmp_path, whole, file, how):
    run(tmp_path / "jazz", should_stop=iter([False] * 22 + [True] * 9).__next__)
    newest, before = checkpoint.found(tmp_path / "jazz")[:2]
    path = newest / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    {"cut": lambda: path.write_bytes(content[:40]), "changed": lambda: path.write_bytes(content), "gone": path.unlink}[
        how
    ]()
    if (file, how) == ("state.json", "changed"):
        path.write_text(path.read_text(errors="replace").replace('"format"', '"fromat"'))
    result = run(tmp_path / "jazz")
    assert any(note.startswith(f"The checkpoint {newest.name} is not used") for note in result.notes)
    assert f"Training goes on after step {int(before.name[5:])} of {STEPS}." in result.notes
    assert outcome(tmp_path / "jazz") == whole[0]


def test_a_finished_run_is_answered_at_once(tmp_path, monkeypatch):
    first = run(tmp_path / "jazz")
    monkeypatch.setattr(trainer._Run, "_take_step", full)
    again = run(tmp_path / "jazz")
    assert again.points == first.points and again.steps == STEPS


def test_more_epochs_continue_a_finished_run(tmp_path):
    run(tmp_path / "jazz")
    result = run(tmp_path / "jazz", changed(epochs=7))
    assert [point.step for point in result.points] == list(range(1, 22))
    with pytest.raises(TrainError, match="has done 7 epochs already"):
        run(tmp_path / "jazz", changed(epochs=6))


@pytest.mark.parametrize("more", [{"rank": 8}, {"mlp": True}, {"learning_rate": 2e-3}, {"seed": 1}, {"method": "dora"}])
def test_another_run_in_the_folder_is_refused_by_name(tmp_path, more):
    run(tmp_path / "jazz", changed(epochs=1))
    before = outcome(tmp_path / "jazz")
    with pytest.raises(TrainError, match=f"holds a run with {next(iter(more))} "):
        run(tmp_path / "jazz", changed(epochs=1, **more))
    assert outcome(tmp_path / "jazz") == before


def test_other_data_and_models_are_refused(tmp_path):
    run(tmp_path / "jazz", changed(epochs=1))
    with pytest.raises(TrainError, match="other training data"):
        run(tmp_path / "jazz", changed(epochs=1), data=items(seed=1))
    with pytest.raises(TrainError, match="another model"):
        run(tmp_path / "jazz", changed(epochs=1), model=models.diffusion("base"))


def test_guards_go_and_wanted_checkpoints_stay(tmp_path, monkeypatch):
    clock = iter(range(0, 100000, 60))
    monkeypatch.setattr(trainer.time, "monotonic", lambda: float(next(clock)))
    seen = []
    settings = changed(save_every=2, save_minutes=2)

    def look(_point):
        seen.append([path.name for path in checkpoint.found(tmp_path / "jazz")])

    run(tmp_path / "jazz", settings, on_point=look)
    kept = [path.name for path in checkpoint.found(tmp_path / "jazz")]
    assert kept == ["step_0000015", "step_0000012", "step_0000006"]
    guards = {name for names in seen for name in names} - set(kept)
    assert guards and all(len(set(names) & guards) <= 1 for names in seen)


def test_it_goes_on_from_an_adapter(tmp_path):
    model = models.diffusion()
    start = read_adapter(ROOT / "tests" / "fixtures" / "adapters" / "adapter_a", model.config)
    result = run(tmp_path / "jazz", changed(epochs=1, learning_rate=1e-7), start=start)
    for name, change in start.changes.items():
        assert torch.allclose(result.adapter.changes[name].form.up, change.form.up, atol=1e-5)
    run(tmp_path / "plain", changed(epochs=1))
    with pytest.raises(TrainError, match="begun without an adapter to start from"):
        run(tmp_path / "plain", changed(epochs=1), start=start)
    with pytest.raises(ValueError, match="has rank 4, but the settings say 8"):
        run(tmp_path / "other", changed(rank=8), start=start)


@pytest.mark.parametrize("then", ["the same", "none", "another"])
def test_what_a_run_started_from_is_not_needed_to_go_on(tmp_path, then):
    config = models.diffusion().config
    first = read_adapter(ROOT / "tests" / "fixtures" / "adapters" / "adapter_a", config)
    run(tmp_path / "whole" / "jazz", start=first)
    with pytest.raises(Cancelled):
        run(tmp_path / "jazz", host=Counter(tmp_path, 20), start=first)
    other = run(tmp_path / "other", changed(epochs=1)).adapter
    result = run(tmp_path / "jazz", start={"the same": first, "none": None, "another": other}[then])
    assert outcome(tmp_path / "jazz") == outcome(tmp_path / "whole" / "jazz")
    described = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("jazz", "whole/jazz")]
    assert described[0]["start"] == described[1]["start"]
    assert any("goes on from its own checkpoint" in note for note in result.notes) == (then == "another")


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_rank_that_no_layer_holds_is_refused_before_anything_is_written(tmp_path, method):
    most = max(models.diffusion().module.decoder.layers[0].self_attn.k_proj.weight.shape)
    with pytest.raises(TrainError, match=f"Rank {most + 1} .* Set a rank of {most} or less"):
        run(tmp_path / "jazz", changed(rank=most + 1, method=method))
    assert not (tmp_path / "jazz").exists() or not contents(tmp_path / "jazz")
    run(tmp_path / "jazz", changed(rank=most, method=method, epochs=1))
    assert read_adapter(tmp_path / "jazz" / "final", models.diffusion().config).ranks == (most,)


# -- a run that cannot be gone on with is never begun anew


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cut(tmp_path):
    """A run that was cancelled, with two checkpoints that stay and one that guards."""
    with pytest.raises(Cancelled):
        run(tmp_path / "jazz", changed(save_every=2), host=Counter(tmp_path, 40))
    assert [path.name[-2:] for path in checkpoint.found(tmp_path / "jazz")] == ["14", "12", "06"]
    return tmp_path / "jazz"


def refused(folder, sentence, **more):
    before = contents(folder)
    with pytest.raises(TrainError, match=sentence):
        run(folder, changed(save_every=2), **more)
    assert contents(folder) == before


def goes_on(folder, whole):
    result = run(folder, changed(save_every=2))
    assert result.notes == (f"Training goes on after step 14 of {STEPS}.",) and outcome(folder) == whole[0]


def test_a_model_of_another_width_is_refused(cut, whole, monkeypatch):
    refused(cut, "holds a run with another model", model=wide())
    refused(cut, "holds a run with another model", model=models.diffusion("xl-turbo"))
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "model_fingerprint", lambda _: trainer.checkpoint.newest(cut, print).run["model"])
        refused(cut, "a run that does not fit: .* Nothing was changed in .* Go on with the model", model=wide())
    goes_on(cut, whole)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, os.strerror(errno.EIO))])
@pytest.mark.parametrize("place", ["load_file", "read_adapter", "_sha256"])
def test_what_cannot_be_read_for_a_moment_is_no_reason_to_begin_anew(cut, whole, monkeypatch, error, place):
    def fail(*_args, **_kwargs):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, place, fail)
        refused(cut, r"cannot be read now \(.+\)\. Nothing was changed in .* Start the same run again when")
    goes_on(cut, whole)


def test_folders_that_cannot_be_listed_are_not_taken_for_empty(cut, whole, monkeypatch):
    def fail(*_args):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "listdir", fail)
        with pytest.raises(TrainError, match=r"cannot be read now \(.*Permission denied"):
            run(cut, changed(save_every=2))
    goes_on(cut, whole)


def test_a_run_whose_checkpoints_are_all_broken_is_left_alone(cut):
    for path in checkpoint.found(cut):
        (path / "adapter_model.safetensors").write_bytes(b"")
    refused(cut, r"no checkpoint can be used: step_0000014 .* step_0000006 .* Put the files back .* another name")


# -- refused before any work


def test_what_cannot_be_trained_is_said_at_once(tmp_path, monkeypatch):
    model = models.diffusion()
    with pytest.raises(TrainError, match="nothing to train on"):
        run(tmp_path / "jazz", data=())
    with pytest.raises(TrainError, match="song 0 was preprocessed for a model whose conditions are 40 wide"):
        run(tmp_path / "jazz", data=items(width=40))
    adapter = run(tmp_path / "first", changed(epochs=1)).adapter
    with pytest.raises(TrainError, match="plays an adapter"):
        run(tmp_path / "jazz", model=with_adapter(model, adapter))

    class DoesNotFit(ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("built for another PyTorch")

    for found, why in ((None, "halted"), (DoesNotFit("torchao.optim"), "another PyTorch")):
        monkeypatch.setitem(sys.modules, "torchao.optim", found)
        with pytest.raises(
            TrainError, match=rf"torchao in a version that fits PyTorch .*{why}.*Install it .*choose adamw"
        ):
            run(tmp_path / "jazz", changed(optimizer="adamw8bit"))
    assert not (tmp_path / "jazz").exists()


def test_gradients_that_are_no_numbers_are_left_out_and_then_given_up_on(tmp_path, monkeypatch):
    plain, calls = trainer._Run._clipped, []

    def sometimes(self):
        calls.append(1)
        return float("nan") if len(calls) == 2 or len(calls) > 5 else plain(self)

    monkeypatch.setattr(trainer._Run, "_clipped", sometimes)
    host = Host(output=tmp_path, device="cpu")
    with pytest.raises(TrainError, match="10 steps in a row, up to step 15"):
        run(tmp_path / "jazz", host=host)
    assert sum("the step was left out" in note for note in host.notes) == 11


def test_progress_is_told_in_steps(tmp_path):
    said, epochs, points = [], [], []
    host = Host(output=tmp_path, device="cpu", on_progress=lambda done, total, text: said.append((done, total, text)))
    run(
        tmp_path / "jazz",
        host=host,
        on_point=points.append,
        on_epoch=lambda epoch, take: epochs.append((epoch, take())),
    )
    assert [done for done, _, _ in said] == list(range(STEPS + 1)) and {total for _, total, _ in said} == {STEPS}
    assert said[4][2].startswith("training: step 4/15, epoch 1/5, loss ") and "left" in said[4][2]
    assert [epoch for epoch, _ in epochs] == [1, 2, 3, 4, 5] and len(points) == STEPS
    assert epochs[0][1].changes.keys() == epochs[4][1].changes.keys()
