"""What goes wrong in the middle: memory that ends at any stage, a cancel at any moment. The next run is right."""

import functools
import importlib

import pytest
import torch

from acestep_graph import headless
from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.memory.recovery import OutOfMemory
from acestep_graph.headless.execute import Cache, NodeFailed
from tests import tiny
from tests.pack import ROOT

STAGES = {
    "simple": ("Change what you like.duration=10", "Sampler.steps=2", "Save and play.format=flac"),
    "remix": ("Sampler.steps=2", "Save and play.format=flac"),
}


class Machine(Host):
    """Counts the moments at which it may be stopped, and stops at one of them."""

    def __init__(self, at=None, **folders):
        super().__init__(device="cpu", **folders)
        self.at, self.stages, self.stage = at, [], "loading"

    def on_progress(self, done, total, text):
        self.stage = text.partition(":")[0]

    def check_cancelled(self):
        self.stages.append(self.stage)
        if self.at and len(self.stages) >= self.at:
            raise Cancelled("Stopped by the user.")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.build(folder)
    return folder


def play(name, host, cache=None):
    before = set(host.output.rglob("*.flac"))
    headless.run(ROOT / "workflows" / f"{name}.json", host, settings=STAGES[name], cache=cache)
    made = sorted(set(host.output.rglob("*.flac")) - before)
    assert made
    return torch.stack([audio.read(path)[0] for path in made])


@pytest.fixture(scope="module")
def expected(models, tmp_path_factory):
    """What a fresh start makes of a workflow, and the stage of each moment at which it may be stopped."""

    @functools.cache
    def fresh(name):
        host = Machine(models=models, output=tmp_path_factory.mktemp("fresh"))
        return play(name, host), host.stages

    return fresh


@pytest.mark.parametrize("name", ["remix", pytest.param("simple", marks=pytest.mark.release)])
def test_cancelled_at_any_stage_the_next_run_is_that_of_a_fresh_start(models, expected, tmp_path, name):
    sound, stages = expected(name)
    assert len(set(stages)) >= 4, set(stages)
    for stage in dict.fromkeys(stages):
        moments = [index for index, found in enumerate(stages, start=1) if found == stage]
        cache, host = Cache(), Machine(moments[len(moments) // 2], models=models, output=tmp_path / "cut")
        with pytest.raises((Cancelled, NodeFailed)) as stopped:
            play(name, host, cache)
        error = stopped.value
        assert isinstance(error, Cancelled) or isinstance(error.__cause__, Cancelled)
        assert all(audio.read(path)[0].shape == sound[0].shape for path in host.output.rglob("*.flac"))
    assert torch.equal(play(name, Machine(models=models, output=tmp_path / "again"), cache), sound)


def full(stage):
    raise torch.OutOfMemoryError(f"CUDA out of memory (at {stage})")


PLACES = {
    "encoder of the words": ("acestep_core.models.conditioner", "LyricEncoder.forward"),
    "text encoder": ("acestep_core.models.qwen3", "Qwen3.forward"),
    "decoder": ("acestep_core.models.dit", "DiTLayer.forward"),
    "encoding sound": ("acestep_core.models.oobleck", "OobleckVAE.encode"),
    "decoding sound": ("acestep_core.models.oobleck", "OobleckVAE.decode"),
}


@pytest.mark.parametrize("place", PLACES)
def test_where_memory_never_suffices_it_is_said_and_the_next_is_right(models, expected, tmp_path, monkeypatch, place):
    module, path = PLACES[place]
    owner, method = path.split(".")
    host, cache = Machine(models=models, output=tmp_path / "tight"), Cache()
    with monkeypatch.context() as patched:
        target = getattr(importlib.import_module(f"acestep_graph.{module}"), owner)
        patched.setattr(target, method, lambda *_, **__: full(place))
        with pytest.raises(NodeFailed) as failed:
            play("remix", host, cache)
    assert isinstance(failed.value.__cause__, OutOfMemory), failed.value.__cause__
    assert "memory" in str(failed.value) and len(str(failed.value)) > 80, "it says what to do"
    assert torch.equal(play("remix", host, cache), expected("remix")[0])
