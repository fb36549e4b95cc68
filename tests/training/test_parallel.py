"""Several processes train what one would have trained, and end together."""

import dataclasses
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from acestep_graph.acestep_core.training import checkpoint, parallel
from acestep_graph.acestep_core.training.loss_log import read_points
from tests.pack import ROOT

from .making import SETTINGS, run


def together(folder, how="none", count=2):
    """What ``count`` processes say in the end."""
    pytest.importorskip("accelerate")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.making", str(folder), "together", how]
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert not any(process.returncode for process in started), said
    return [out.strip().splitlines()[-1] for out, _ in said]


def same(one, other):
    first, second = (load_file(folder / "final" / "adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], atol=2e-5) for name in first)
    points = [read_points(folder / "loss.csv") for folder in (one, other)]
    assert [p.step for p in points[0]] == [p.step for p in points[1]]
    assert [p.loss for p in points[0]] == pytest.approx([p.loss for p in points[1]], rel=1e-4)
    assert [p.grad_norm for p in points[0]] == pytest.approx([p.grad_norm for p in points[1]], rel=1e-3)


class Half(parallel.Alone):
    """One of two threads that stand for processes; what they exchange lies in a list."""

    count = 2

    def __init__(self, rank, barrier, given):
        self.rank, self.barrier, self.given = rank, barrier, given

    def wait(self):
        self.barrier.wait(60)

    def add_up(self, parameters, numbers):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        self.given[self.rank] = gradients, list(numbers)
        self.wait()
        (first, one), (second, two) = self.given
        self.wait()
        for parameter, a, b in zip(parameters, first, second, strict=True):
            parameter.grad = a + b
        return [a + b for a, b in zip(one, two, strict=True)]


@pytest.mark.parametrize("accumulation", [2, 1])
def test_two_that_share_the_passes_learn_what_one_learns(tmp_path, accumulation):
    settings = dataclasses.replace(SETTINGS, dropout=0.0, epochs=2, accumulation=accumulation)
    run(tmp_path / "alone" / "jazz", settings)
    barrier, given, folder = threading.Barrier(2), [None, None], tmp_path / "jazz"
    halves = [Half(rank, barrier, given) for rank in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        leading, other = pool.map(lambda half: run(folder, settings, team=half), halves)
    steps = 6 if accumulation == 2 else 10
    assert (leading.steps, len(leading.points), other.steps, len(other.points)) == (steps, steps, steps, 0)
    assert any("Only 1 of 2 processes work" in note for note in leading.notes) == (accumulation == 1)
    same(folder, tmp_path / "alone" / "jazz")


@pytest.mark.release
def test_two_processes_go_on_with_the_run_of_one_and_end_as_it_does(tmp_path):
    """The first steps alone, then together, cancelled in the second process, then together to the end."""
    run(tmp_path / "alone" / "jazz")
    run(tmp_path / "jazz", should_stop=iter([False] * 7 + [True] * 99).__next__)
    assert together(tmp_path / "jazz", "cancel:1:8") == [f"{n}: Cancelled Stopped by the user." for n in (0, 1)]
    assert 2 < int(checkpoint.found(tmp_path / "jazz")[0].name[5:]) < 15
    said = together(tmp_path / "jazz")
    assert said == ["0: steps 15, stopped False, points 15", "1: steps 15, stopped False, points 0"]
    same(tmp_path / "jazz", tmp_path / "alone" / "jazz")


@pytest.mark.release
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("stop:0:6", ["0: steps 1, stopped True, points 1", "1: steps 1, stopped True, points 0"]),
        ("fail:1:6", ["0: TrainError Another process of this run failed", "1: RuntimeError the card fell off"]),
        ("fail:0:6", ["0: RuntimeError the card fell off", "1: TrainError Another process of this run failed"]),
    ],
)
def test_what_happens_to_one_happens_to_all(tmp_path, how, said):
    found = together(tmp_path / "jazz", how)
    assert all(line.startswith(beginning) for line, beginning in zip(found, said, strict=True)), found
    assert len(checkpoint.found(tmp_path / "jazz")) == 1
    run(tmp_path / "jazz")
    run(tmp_path / "alone" / "jazz")
    same(tmp_path / "jazz", tmp_path / "alone" / "jazz")


@pytest.mark.release
def test_more_processes_than_passes(tmp_path):
    assert together(tmp_path / "jazz", count=3)[2] == "2: steps 15, stopped False, points 0"
    run(tmp_path / "alone" / "jazz", SETTINGS)
    same(tmp_path / "jazz", tmp_path / "alone" / "jazz")


def test_alone_everything_is_mine(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = parallel.join(cpu=True)
    assert team is parallel.ALONE and team.leads and all(map(team.mine, range(5)))
    assert team.add_up([], [1.0, 2.0]) == [1.0, 2.0]


def test_accelerate_is_asked_for_in_a_sentence(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match=r"needs the package accelerate \(pip install accelerate\)"):
        parallel.join(cpu=True)
