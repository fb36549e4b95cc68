"""Which decoders are offered, and what is said where a wish cannot be met."""

import pytest
import torch

from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lm import backends
from tests.lm.planner import planner


class Cuda(Host):
    def device(self, component):
        return torch.device("cuda")


@pytest.mark.parametrize(
    "host, backend, chosen, notes",
    (
        (Host(device="cpu"), "auto", "torch", 0),
        (Host(device="cpu"), "torch", "torch", 0),
        (Host(device="cpu"), "torch + CUDA graph", "torch", 1),
        (Cuda(), "auto", "torch + CUDA graph", 0),
        (Cuda(), "torch", "torch", 0),
    ),
)
def test_a_backend_fits_the_device_or_says_so(host, backend, chosen, notes, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    host.notes.clear()
    lm = backends.with_backend(planner(), backend, host)
    assert lm.backend == chosen and len(host.notes) == notes
    assert f"decoding: {chosen}" in lm.report.text() and lm.module is planner().module


def test_rocm_has_no_graphs(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert backends.with_backend(planner(), "auto", Cuda()).backend == "torch"


def test_other_decoders_are_explained_where_they_are_installed(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: object() if name == "vllm" else None)
    (reason,) = backends.not_offered()
    assert "vLLM" in reason and reason in backends.with_backend(planner(), "auto", Host(device="cpu")).report.text()


def test_an_unknown_backend_is_answered():
    with pytest.raises(ValueError, match="allowed is auto, torch"):
        backends.with_backend(planner(), "vllm")
