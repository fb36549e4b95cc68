"""What ComfyUI is asked for where the diffusion model does not fit, with a card of the ``meta`` device in its place."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from acestep_graph.acestep_core.memory import streaming
from acestep_graph.acestep_core.memory.quantize import int8_bytes
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.nodes.comfy_host import ComfyHost
from tests.tiny import DIT, randomize

META = torch.device("meta")


class Patcher:
    def __init__(self, model, load_device, offload_device):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device

    def loaded_size(self):
        return streaming.bytes_on(self.model, META)


class Comfy:
    """Counts the bytes of a card and what is loaded there."""

    def __init__(self, total):
        self.total, self.current_loaded_models, self.evictions = total, [], 0

    def used(self):
        return sum(loaded.model.loaded_size() for loaded in self.current_loaded_models)

    def management(self):
        return {
            "get_torch_device": lambda: META,
            "is_device_cpu": lambda device: False,
            "get_total_memory": lambda device: self.total,
            "get_free_memory": lambda device: self.total - self.used(),
            "unet_offload_device": lambda: torch.device("cpu"),
            "load_models_gpu": self.load,
            "free_memory": self.free,
            "current_loaded_models": self.current_loaded_models,
        }

    def load(self, patchers, memory_required, force_full_load):
        assert force_full_load
        for patcher in patchers:
            patcher.model.to(META)
            if all(loaded.model is not patcher for loaded in self.current_loaded_models):
                self.current_loaded_models.append(SimpleNamespace(model=patcher))
        assert memory_required <= self.total

    def free(self, wanted, device):
        self.evictions += 1
        for loaded in self.current_loaded_models:
            loaded.model.model.to_empty(device="cpu")
        self.current_loaded_models.clear()


@pytest.fixture
def comfy(monkeypatch):
    monkeypatch.delenv("MAX_CUDA_VRAM", raising=False)

    def of(total):
        made = Comfy(total)
        package, management, patching = (
            ModuleType(f"comfy{name}") for name in ("", ".model_management", ".model_patcher")
        )
        vars(management).update(made.management())
        patching.ModelPatcher = Patcher
        package.model_management, package.model_patcher = management, patching
        for module in (package, management, patching):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return made

    return of


def host():
    made = ComfyHost.__new__(ComfyHost)
    made.stream = None
    return made


def model():
    return randomize(AceStepModel(DIT), 1)


def test_a_model_that_fits_is_loaded_whole_by_comfyui(comfy):
    module = model()
    card = comfy(int8_bytes(module) + streaming.MARGIN_BYTES + 1000)
    assert host().prepare(module, "dit", 1000) == META
    assert [loaded.model.model for loaded in card.current_loaded_models] == [module]
    assert streaming.notes(module) == () and card.evictions == 0


def test_of_a_model_that_does_not_fit_comfyui_manages_what_stays(comfy):
    module, here = model(), host()
    other = torch.nn.Linear(100, 100)
    card = comfy(int8_bytes(module) + streaming.MARGIN_BYTES - 1)
    here._load(other, META, 0)
    for _ in range(2):
        assert here.prepare(module, "dit", 0) == META
        (loaded,) = card.current_loaded_models
        assert isinstance(loaded.model.model, streaming.Staying) and loaded.model.model.whole() is module
        assert module.decoder.scale_shift_table.is_meta and module.null_condition_emb.is_meta
        away = [layer for layer in module.decoder.layers if not layer.mlp.up_proj.weight.is_meta]
        assert len(away) == len(module.decoder.walk.away) == 3


def test_where_memory_ran_out_every_layer_makes_room(comfy):
    module = model()
    comfy(10 * int8_bytes(module) + streaming.MARGIN_BYTES)
    host().prepare(module, "dit", streaming.EVERYTHING)
    assert len(module.decoder.walk.away) == len(module.decoder.layers)


def test_what_can_be_evicted_does_not_count_what_stays_of_the_model_itself(comfy):
    module, here = model(), host()
    card = comfy(int8_bytes(module) + streaming.MARGIN_BYTES - 1)
    here.prepare(module, "dit", 0)
    assert here._evictable_bytes(module) == 0 and here._evictable_bytes(None) == card.used() > 0


def test_other_parts_never_wait(comfy):
    linear = torch.nn.Linear(100, 100)
    comfy(100_000)
    here = host()
    here.device = lambda component: META
    assert here.prepare(linear, "text") == META and linear.weight.is_meta
