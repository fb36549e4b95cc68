"""What precision ``auto`` means: INT8 on small NVIDIA cards, said in the report, and nowhere else."""

import pytest
import torch

from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.host import Host, use
from acestep_graph.acestep_core.memory import precision, quantize
from acestep_graph.acestep_core.memory.tiers import GIB, tier_of
from acestep_graph.nodes import NODES
from tests import models
from tests.checkpoints.test_fp8 import family as published_family
from tests.checkpoints.test_fp8 import file, plain

needs_torchao = pytest.mark.skipif(not quantize.is_available(), reason="needs torchao")
TURBO = models.CHECKPOINTS / "acestep-v15-turbo"
family = published_family


class Card(Host):
    """A card of a given size; loading does not touch it."""

    def __init__(self, memory, kind="cuda", **more):
        super().__init__(**more)
        self.memory, self.kind = memory, kind

    def device(self, component):
        return torch.device(self.kind)

    def dtype(self, component):
        return torch.bfloat16 if self.kind == "cuda" else torch.float32

    def _total_bytes(self):
        return int(self.memory * GIB)


@pytest.fixture(autouse=True)
def unsimulated(monkeypatch):
    for name in ("MAX_CUDA_VRAM", "MAX_MPS_VRAM", "MAX_XPU_VRAM"):
        monkeypatch.delenv(name, raising=False)


@needs_torchao
@pytest.mark.parametrize("memory", [3.9, 5.8, 7.7, 11.6, 15.6, 19.9, 20.0, 23.6, 24.5, 79])
def test_the_tiers_of_int8(memory):
    host = Card(memory)
    model = loading.load_diffusion_model(TURBO, host=host)
    wanted = tier_of(memory).int8
    assert wanted == (memory < 20)
    assert model.report.dtype == ("int8 (bfloat16)" if wanted else "bfloat16")
    said = f"auto is int8 on a card of {memory:.1f} GB"
    assert (said in model.report.text()) == (said in " ".join(host.notes)) == wanted


@needs_torchao
def test_a_simulated_card_counts(monkeypatch):
    monkeypatch.setenv("MAX_CUDA_VRAM", "8")
    assert precision.automatic(Card(80))[0] == "int8"
    monkeypatch.setenv("MAX_CUDA_VRAM", "48")
    assert precision.automatic(Card(8)) == ("auto", "")


@pytest.mark.parametrize(("kind", "memory"), [("cpu", 0), ("cpu", 8), ("mps", 8), ("xpu", 8)])
def test_never_anywhere_else(kind, memory, monkeypatch):
    assert precision.automatic(Card(memory, kind)) == ("auto", "")
    monkeypatch.setenv("MAX_CUDA_VRAM", "8")
    assert precision.automatic(Card(memory, kind)) == ("auto", "")
    assert loading.load_diffusion_model(TURBO, host=Card(memory, kind)).report.dtype == "float32"


def test_never_on_amd(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert precision.automatic(Card(8)) == ("auto", "")


def test_without_torchao_it_goes_on_and_says_what_to_install(monkeypatch):
    monkeypatch.setattr(quantize, "is_available", lambda: False)
    model = loading.load_diffusion_model(TURBO, host=Card(8))
    assert model.report.dtype == "bfloat16" and "pip install torchao" in model.report.text()


@pytest.mark.parametrize("wanted", ["bf16", "fp32", "fp16", "file", "fp8"])
def test_a_choice_of_the_user_stands(wanted):
    model = loading.load_diffusion_model(TURBO, dtype=wanted, host=Card(8))
    assert "int8" not in model.report.text()


def test_files_that_are_quantized_stay_as_they_are(family, tmp_path):
    path = file(tmp_path, plain(family)[0])
    model = loading.load_diffusion_model(path, kind="turbo", host=Card(8))
    assert model.report.dtype == "float8_e4m3fn (bfloat16)" and not model.report.notes


@needs_torchao
def test_the_node_says_it(tmp_path):
    folder = tmp_path / "acestep"
    folder.mkdir()
    (folder / TURBO.name).symlink_to(TURBO)
    with use(Card(8, models=tmp_path)):
        model, report = NODES["ACEStepLoadDiffusionModel"][0]().load(
            f"{TURBO.name}/model.safetensors", "auto", False, "auto"
        )
    assert model.report.dtype == "int8 (bfloat16)" and "auto is int8 on a card of 8.0 GB" in report
