"""Runs as others see them: watched, stopped, found again, exported."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open

from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.lora.formats import read_adapter
from acestep_graph.acestep_core.training import curve, limits, live, runs
from acestep_graph.acestep_core.training.items import ItemError, save_item
from acestep_graph.acestep_core.training.tensors import open_tensors
from acestep_graph.acestep_core.training.trainer import TrainError
from tests import models
from tests.training.making import SETTINGS, items

STEPS = 15


class Watched(Host):
    """A host that remembers what pages are told, and is cancelled after so many steps."""

    def __init__(self, folder, cancel_at=None):
        super().__init__(models=folder / "models", output=folder / "out", device="cpu")
        self.told, self.cancel_at, self.done = [], cancel_at, 0

    def send(self, event, values):
        assert event == live.EVENT
        json.dumps(values, allow_nan=False)
        self.told.append(values)

    def on_progress(self, done, total, text):
        self.done = done

    def check_cancelled(self):
        if self.cancel_at is not None and self.done >= self.cancel_at:
            raise Cancelled("Stopped by the user.")


@pytest.fixture
def tensors(tmp_path):
    for index, item in enumerate(items()):
        save_item(item, tmp_path / "tensors" / f"{index}.safetensors")
    return open_tensors(tmp_path / "tensors")[0]


def train(host, tensors, name="jazz", settings=SETTINGS, **more):
    return live.train_run(models.diffusion(), tensors, settings, name, host=host, **more)


def test_every_point_is_told_once_and_the_end_is(tmp_path, tensors):
    host = Watched(tmp_path)
    run, result = train(host, tensors)
    told = [point[0] for values in host.told for point in values["points"]]
    assert told == list(range(1, STEPS + 1)) == [point.step for point in result.points]
    assert [values["state"] for values in (host.told[0], host.told[-1])] == ["preparing", "done"]
    assert host.told[-1]["total"] == STEPS and host.told[-1]["epochs"] == SETTINGS.epochs
    assert run.folder == host.output / "acestep" / "runs" / "jazz"
    assert "step 15 of 15" in run.report() and str(run.csv) == str(run.folder / "loss.csv")


def test_a_page_that_comes_later_sees_the_whole_curve(tmp_path, tensors):
    host = Watched(tmp_path)
    train(host, tensors)
    seen = live.watch(host, "jazz")
    assert [point[0] for point in seen["points"]] == list(range(1, STEPS + 1)) and seen["state"] == "done"
    assert [point[0] for point in live.watch(host, "jazz", after=12)["points"]] == [13, 14, 15]
    live._live.clear()  # as in a process that knows nothing
    again = live.watch(host, "jazz")
    assert again["state"] == "idle" and again["points"] == seen["points"]
    assert (again["step"], again["total"], again["epochs"]) == (STEPS, STEPS, SETTINGS.epochs)
    assert live.watch(host, "blues")["state"] == "unknown"
    with pytest.raises(ValueError):
        live.watch(host, "../jazz")


def test_cancelled_and_called_again_it_goes_on_to_the_same_end(tmp_path, tensors):
    cut, whole = Watched(tmp_path / "cut", cancel_at=7), Watched(tmp_path / "whole")
    with pytest.raises(Cancelled):
        train(cut, tensors)
    assert cut.told[-1]["state"] == "cancelled" and live.watch(cut, "jazz")["step"] == 7
    cut.cancel_at, cut.told = None, []
    run, _ = train(cut, tensors)
    told = [point[0] for values in cut.told for point in values["points"]]
    assert told == list(range(8, STEPS + 1))
    assert any("goes on after step 7" in line for values in cut.told for line in values["log"])
    expected, _ = train(whole, tensors)
    for name in ("loss.csv", "final/adapter_model.safetensors"):
        assert (run.folder / name).read_bytes() == (expected.folder / name).read_bytes()


@pytest.mark.parametrize("step", [3, 4], ids=["where a checkpoint was just written", "between checkpoints"])
def test_stopping_keeps_what_was_learned_until_going_on_is_asked_for(tmp_path, tensors, monkeypatch, step):
    monkeypatch.setattr(live, "INTERVAL", 0.0)
    host, long = Watched(tmp_path, cancel_at=200), dataclasses.replace(SETTINGS, epochs=9000)

    def stop(event, values):
        if values["state"] == "running" and values["step"] == step:
            assert live.stop(host, "jazz") == {"state": "stopping"}

    host.send = stop
    run, result = train(host, tensors, settings=long)
    host.send = lambda event, values: None
    assert result.steps == step
    assert result.stopped and (run.folder / "final").is_dir() and live.watch(host, "jazz")["state"] == "stopped"
    with pytest.raises(FileNotFoundError, match="not at work"):
        live.stop(host, "jazz")
    kept, again = train(host, tensors, settings=long)
    assert again.stopped and again.steps == result.steps
    assert any("kept as it is" in note for note in again.notes)
    host.cancel_at = result.steps + 3
    with pytest.raises(Cancelled):
        train(host, tensors, settings=long, go_on_after_stop=True)
    assert live.watch(host, "jazz")["step"] == result.steps + 3


def test_one_run_is_not_trained_twice_at_once(tmp_path, tensors, monkeypatch):
    monkeypatch.setattr(live, "INTERVAL", 0.0)
    host, refused = Watched(tmp_path), []

    def meddle(event, values):
        if values["state"] == "running" and not refused:
            with pytest.raises(ValueError, match="at work"):
                train(Watched(tmp_path), tensors)
            refused.append(True)

    host.send = meddle
    train(host, tensors)
    assert refused


def test_an_error_is_told_and_the_run_may_be_tried_again(tmp_path, tensors):
    host = Watched(tmp_path)
    train(host, tensors)
    with pytest.raises(TrainError, match="rank"):
        train(host, tensors, settings=dataclasses.replace(SETTINGS, rank=8))
    assert host.told[-1]["state"] == "failed" and "rank" in host.told[-1]["log"][-1]
    assert train(host, tensors)[1].steps == STEPS


def test_tensors_that_have_changed_are_not_trained_on(tmp_path, tensors):
    (tensors.folder / "0.safetensors").unlink()
    with pytest.raises(ItemError, match="Queue again"):
        train(Watched(tmp_path), tensors)


@pytest.fixture
def run(tmp_path, tensors):
    host = Watched(tmp_path)
    return host, train(host, tensors)[0]


def same(one, other):
    assert set(one.changes) == set(other.changes)
    for name, change in one.changes.items():
        assert torch.equal(change.form.dense(), other.changes[name].form.dense())
        assert change.scale == other.changes[name].scale


def test_checkpoints_are_taken_by_name_by_step_and_by_loss(run):
    host, run = run
    latest, final, third = (runs.adapter_of(run, which) for which in ("latest", "final", "best"))
    same(latest, final)
    means = {point.step: point.ema for point in run.points}
    best = min(range(3, STEPS + 1, 3), key=means.get)
    same(third, runs.adapter_of(run, step=best))
    with pytest.raises(runs.RunError, match="there are 3, 6, 9, 12, 15"):
        runs.adapter_of(run, step=5)
    with pytest.raises(runs.RunError, match=", ".join(limits.WHICH)):
        runs.adapter_of(run, "newest")
    found = runs.open_run(host, "jazz", run.config)
    assert found == run
    with pytest.raises(runs.RunError, match="no run 'blues'"):
        runs.open_run(host, "blues", run.config)


@pytest.mark.parametrize("format", limits.FORMATS)
def test_an_export_is_what_was_learned_with_its_alpha(run, format):
    host, run = run
    done = runs.export(run, host, "", format=format, dtype="as trained")
    assert done.path.parent == host.models / "loras" and done.path.name == done.name
    same(read_adapter(done.path, run.config), runs.adapter_of(run))
    with pytest.raises(FileExistsError, match="Choose another name"):
        runs.export(run, host, "", format=format)
    half = runs.export(run, host, "", format=format, dtype="bf16", overwrite=True)
    for name, change in read_adapter(half.path, run.config).changes.items():
        expected = runs.adapter_of(run).changes[name]
        assert torch.allclose(change.form.dense(), expected.form.dense(), rtol=2e-2, atol=1e-4)
    if half.name.endswith(".safetensors"):
        with safe_open(half.path, "pt") as file:
            about = file.metadata()
            assert {name.rsplit(".", 1)[-1] for name in file.keys()} == {"weight", "alpha"}  # noqa: SIM118
        assert about["run"] == "jazz" and about["steps"] == str(STEPS) and about["songs"] == "4"
        assert json.loads(about["settings"])["rank"] == SETTINGS.rank
    with pytest.raises(ValueError, match="leave out"):
        runs.export(run, host, "../jazz", format=format)


def test_a_run_that_has_not_ended_says_so(tmp_path, tensors):
    host = Watched(tmp_path, cancel_at=2)
    with pytest.raises(Cancelled):
        train(host, tensors)
    run = runs.open_run(host, "jazz", models.diffusion().config)
    with pytest.raises(runs.RunError, match="has not ended"):
        runs.adapter_of(run)
    assert runs.adapter_of(run, "latest").changes
    assert curve.picture(run.points).shape[-1] == 3
