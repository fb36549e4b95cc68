"""Workflows on a card that the CPU plays: no tensor on a wrong device, the same bits, and what a full card does."""

import shutil

import pytest
import torch

from acestep_graph import headless
from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.models import oobleck
from tests import tiny
from tests.pack import ROOT

backend = pytest.importorskip("torch.utils.backend_registration")
if not hasattr(backend, "_setup_privateuseone_for_python_backend"):
    pytest.skip("needs what torch has from 2.9 on", allow_module_level=True)

from tests.simulated_card import CardTensor, MixedDevices, SimulatedCard  # noqa: E402


class CardHost(Host):
    """A machine with a simulated card."""

    def __init__(self, card, **folders):
        super().__init__(device=str(card.device), **folders)
        self.card = card

    def _total_bytes(self):
        return self.card.size

    def _free_bytes(self):
        return self.card.free


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.build(folder)
    return folder


def sounds(name, host, *more):
    wanted = ["Load models.precision=fp32", *more]
    headless.run(ROOT / "workflows" / f"{name}.json", host, settings=wanted)
    found = {path.name: audio.read(path)[0] for path in host.output.rglob("*.flac")}
    shutil.rmtree(host.output)
    return found


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


SETTINGS = {
    "custom": ("Song.duration=10", "Sampler.steps=2", "Save and play.format=flac"),
    "repaint": ("Sampler.steps=2",),
    "best-of": ("Song.duration=10", "Sampler.steps=2", "Load planner.precision=fp32", "Save and play.format=flac"),
}


@pytest.mark.parametrize("name", ["custom", "repaint", pytest.param("best-of", marks=pytest.mark.release)])
def test_a_workflow_on_a_card_gives_the_bits_of_the_cpu(models, tmp_path, name, monkeypatch):
    """Where both compute the same pieces: bits depend on how long a convolution is, on some processors."""
    monkeypatch.setattr(oobleck, "PIECE", 2**40)
    plain = sounds(name, Host(models=models, output=tmp_path / "cpu", device="cpu"), *SETTINGS[name])
    card = SimulatedCard(8)
    with card:
        host = CardHost(card, models=models, output=tmp_path / "card", offload=True)
        made = sounds(name, host, *SETTINGS[name])
    assert plain and same(made, plain) and card.peak > 0


def test_offloading_needs_less_and_gives_everything_back(models, tmp_path):
    peaks, heard = {}, []
    for offload in (True, False):
        with SimulatedCard(8) as card:
            host = CardHost(card, models=models, output=tmp_path / "out", offload=offload)
            heard.append(sounds("custom", host, *SETTINGS["custom"]))
            host.make_room()
        peaks[offload] = card.peak
        assert card.used < 2**20, "what is left are a few small values"
    assert same(*heard) and peaks[True] < 0.8 * peaks[False]


def test_a_card_too_small_for_a_window_goes_on_in_main_memory_and_says_so(models, tmp_path):
    plain = sounds("custom", Host(models=models, output=tmp_path / "cpu", device="cpu"), *SETTINGS["custom"])
    with SimulatedCard(0.03) as card:
        host = CardHost(card, models=models, output=tmp_path / "card", offload=True)
        made = sounds("custom", host, *SETTINGS["custom"])
    assert any("main memory" in note for note in host.notes), host.notes
    for name, sound in plain.items():
        assert (made[name] - sound).abs().max() < 1e-3


def test_the_card_itself_refuses_what_a_real_one_refuses():
    with torch.inference_mode(), SimulatedCard(1e-6) as card:
        there = torch.ones(4, device=card.device)
        assert isinstance(there, CardTensor) and there.device == card.device and card.used == 16
        with pytest.raises(MixedDevices):
            there + torch.ones(4)
        with pytest.raises(torch.OutOfMemoryError):
            torch.ones(1000, device=card.device)
        assert torch.equal((there + 1).cpu(), torch.full((4,), 2.0))
        del there
        assert card.used == 0
