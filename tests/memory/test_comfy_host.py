"""What ComfyUI is asked for where the diffusion model does not fit, with a card of the ``meta`` device in its place."""

import gc
import sys
import weakref
from types import ModuleType

import pytest
import torch

from acestep_graph.acestep_core.memory import streaming
from acestep_graph.acestep_core.memory.quantize import int8_bytes
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.nodes.comfy_host import ComfyHost
from tests.tiny import DIT, randomize

META = torch.device("meta")
SHARED = torch.device("cpu:1")
"""Where ComfyUI keeps idle diffusion models."""


class Patcher:
    def __init__(self, model, load_device, offload_device):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device

    def loaded_size(self):
        return streaming.bytes_on(self.model, META)

    def model_size(self):
        return int8_bytes(self.model)

    def partially_load(self, device, extra_memory):
        assert extra_memory >= self.model_size()
        self.model.to(device)


class Loaded:
    """Like ComfyUI's own it holds no patcher."""

    def __init__(self, patcher):
        self._patcher = weakref.ref(patcher)

    @property
    def model(self):
        return self._patcher()


class Comfy:
    """Counts the bytes of a card and what is loaded there.

    Args:
        frugal: as with --novram, layers that are not ComfyUI's own stay where they are.
    """

    def __init__(self, total, frugal=False):
        self.total, self.frugal, self.current_loaded_models, self.evictions = total, frugal, [], 0

    def used(self):
        return sum(loaded.model.loaded_size() for loaded in self.current_loaded_models if loaded.model is not None)

    def management(self):
        return {
            "get_torch_device": lambda: META,
            "is_device_cpu": lambda device: False,
            "get_total_memory": lambda device: self.total,
            "get_free_memory": lambda device: self.total - self.used(),
            "unet_offload_device": lambda: SHARED,
            "text_encoder_offload_device": lambda: torch.device("cpu:2"),
            "vae_offload_device": lambda: torch.device("cpu:3"),
            "load_models_gpu": self.load,
            "free_memory": self.free,
            "unload_all_models": lambda: self.free(1e30, META),
            "soft_empty_cache": lambda: None,
            "current_loaded_models": self.current_loaded_models,
        }

    def load(self, patchers, memory_required, force_full_load):
        assert force_full_load
        for patcher in patchers:
            if not self.frugal:
                patcher.model.to(META)
            if all(loaded.model is not patcher for loaded in self.current_loaded_models):
                self.current_loaded_models.append(Loaded(patcher))
        assert memory_required <= self.total

    def free(self, wanted, device):
        self.evictions += 1
        for loaded in self.current_loaded_models:
            loaded.model.model.to_empty(device="cpu")
        self.current_loaded_models.clear()


@pytest.fixture
def comfy(monkeypatch):
    monkeypatch.delenv("MAX_CUDA_VRAM", raising=False)

    def of(total, frugal=False):
        made = Comfy(total, frugal)
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
    here._load(other, "vae", META, 0)
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


@pytest.mark.parametrize("room", (1, -1))
def test_with_novram_plain_layers_are_loaded_all_the_same(comfy, room):
    module = model()
    card = comfy(int8_bytes(module) + streaming.MARGIN_BYTES + room, frugal=True)
    assert host().prepare(module, "dit", 0) == META and card.used() > 0
    away = module.decoder.walk.away if room < 0 else ()
    for index, layer in enumerate(module.decoder.layers):
        assert layer.mlp.up_proj.weight.is_meta == (index not in away)


@pytest.mark.parametrize("evicted", (False, True))
def test_what_made_room_is_whole_again(comfy, evicted):
    """So that training, which takes the layers as they are, finds them."""
    module, here = model(), host()
    card = comfy(int8_bytes(module) + streaming.MARGIN_BYTES - 1)
    here.prepare(module, "dit", 0)
    assert streaming.notes(module)
    if evicted:
        card.free(1e30, META)
    here.make_room()
    assert module.decoder.walk is None and card.used() == 0


@pytest.mark.parametrize(
    ("component", "waits"), [("text", "cpu:2"), ("lm", "cpu:2"), ("vae", "cpu:3"), ("dit", str(SHARED))]
)
def test_each_part_waits_where_comfyui_keeps_its_kind(comfy, component, waits):
    comfy(1 << 40)
    here, module = host(), model()
    here.device = lambda component: META
    here.prepare(module, component)
    assert str(module.comfy_patcher.offload_device) == waits


def test_what_stays_of_a_model_too_large_for_the_card_waits_in_main_memory(comfy):
    module = model()
    comfy(int8_bytes(module) + streaming.MARGIN_BYTES - 1)
    host().prepare(module, "dit", 0)
    assert str(module.decoder.walk.staying.comfy_patcher.offload_device) == "cpu"


@pytest.mark.parametrize("room", (1, -1))
def test_what_nobody_uses_leaves_before_anything_else_is_loaded(comfy, room):
    module, other, here = model(), torch.nn.Linear(10, 10), host()
    card = comfy(int8_bytes(module) + streaming.MARGIN_BYTES + room)
    here.prepare(module, "dit", 0)
    gc.disable()
    try:
        del module
        here._load(other, "vae", META, 0)
        assert card.used() == int8_bytes(other)
    finally:
        gc.enable()
