"""The decoder with our adapters answers as PEFT's own wrapped decoder does."""

import copy

import pytest
import torch

from acestep_graph.acestep_core.lora.apply import with_adapter
from acestep_graph.acestep_core.lora.formats import read_adapter
from acestep_graph.acestep_core.lora.writing import write_peft
from tests import models

from . import making

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::peft.utils.PeftWarning")

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EVERYTHING = [
    *ATTENTION,
    "gate_proj",
    "up_proj",
    "down_proj",
    "linear_1",
    "linear_2",
    "time_proj",
    "condition_embedder",
]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}

LORA = {
    "rank and alpha": {"r": 5, "lora_alpha": 15},
    "rank 1": {"r": 1, "lora_alpha": 2},
    "rslora": {"r": 8, "lora_alpha": 4, "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 6, "use_dora": True},
    "dora with rslora": {"r": 4, "lora_alpha": 2, "use_dora": True, "use_rslora": True, "target_modules": EVERYTHING},
    "everything": {"r": 3, "lora_alpha": 6, "target_modules": EVERYTHING},
    "one layer": {"r": 3, "lora_alpha": 6, "target_modules": ["layers.2.cross_attn.v_proj"]},
    "some layers": {"r": 3, "lora_alpha": 6, "layers_to_transform": [1, 3], "layers_pattern": "layers"},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"k_proj": 2, "layers.1.self_attn.v_proj": 6},
        "alpha_pattern": {r"layers\.0\..*": 3, "o_proj": 20},
    },
    "bias": {"r": 3, "lora_alpha": 6, "lora_bias": True, "target_modules": ["linear_1", "condition_embedder"]},
}
OTHERS = {
    "lokr": ("LoKrConfig", {"r": 2, "alpha": 3}),
    "lokr, both factored": ("LoKrConfig", {"r": 1, "alpha": 3, "decompose_both": True}),
    "lokr, whole": ("LoKrConfig", {"r": 64, "alpha": 32}),
    "loha": ("LoHaConfig", {"r": 3, "alpha": 2}),
}


def wrapped(config, seed=0):
    """A copy of the tiny decoder in PEFT's hands, its adapter filled at random."""
    model = peft.PeftModel(copy.deepcopy(models.diffusion().module.decoder).eval(), config)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "lokr_", "hada_")):
                noise = 0.2 * torch.randn(parameter.shape, generator=draws)
                parameter.copy_(parameter * (1 + noise.abs()) if "magnitude" in name else noise)
    return model.eval()


def ours(model, folder, strength=1.0):
    model.save_pretrained(folder)
    base = models.diffusion()
    return with_adapter(base, read_adapter(folder, base.config), strength)


def scaled(model, strength):
    """PEFT's model with another strength."""
    for module in model.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", strength)
    return model


@torch.no_grad()
def theirs(model):
    return model.base_model.model(*making.inputs())


@pytest.mark.parametrize("case", LORA)
def test_lora(tmp_path, case):
    model = wrapped(peft.LoraConfig(**{"target_modules": ATTENTION, **LORA[case]}))
    handle = ours(model, tmp_path)
    expected = theirs(model)
    assert (expected - making.velocity(models.diffusion())).abs().max() > 1e-3
    torch.testing.assert_close(making.velocity(handle), expected, **TOLERANCE)
    assert not handle.adapters[0][0].report.unmatched


@pytest.mark.parametrize("case", OTHERS)
def test_lokr_and_loha(tmp_path, case):
    name, options = OTHERS[case]
    model = wrapped(getattr(peft, name)(target_modules=[*ATTENTION, "down_proj"], **options))
    handle = ours(model, tmp_path)
    expected = theirs(model)
    assert (expected - making.velocity(models.diffusion())).abs().max() > 1e-3
    torch.testing.assert_close(making.velocity(handle), expected, **TOLERANCE)


@pytest.mark.parametrize("dora", [False, True])
def test_the_convolution_at_the_entry(tmp_path, dora):
    """PEFT wraps it, but our decoder reads its weight: compared with PEFT's merged weights."""
    model = wrapped(peft.LoraConfig(target_modules=["proj_in.1", "q_proj"], r=3, lora_alpha=6, use_dora=dora))
    handle = ours(model, tmp_path)
    assert not handle.adapters[0][0].report.unmatched
    merged = model.merge_and_unload()
    with torch.no_grad():
        expected = merged(*making.inputs())
    torch.testing.assert_close(making.velocity(handle), expected, **TOLERANCE)


@pytest.mark.parametrize("strength", [-1.5, 0.3, 2.0])
@pytest.mark.parametrize("case", ["rank and alpha", "rslora", "patterns"])
def test_strength_is_peft_s_scale(tmp_path, case, strength):
    model = wrapped(peft.LoraConfig(**{"target_modules": ATTENTION, **LORA[case]}))
    handle = ours(model, tmp_path, strength)
    torch.testing.assert_close(making.velocity(handle), theirs(scaled(model, strength)), **TOLERANCE)


def test_a_stack_is_peft_s_sum(tmp_path):
    configs = {"a": LORA["rank and alpha"], "b": LORA["patterns"], "c": LORA["rslora"]}
    handle, base = models.diffusion(), models.diffusion().module.decoder
    model = None
    for seed, (name, options) in enumerate(configs.items()):
        config = peft.LoraConfig(target_modules=ATTENTION, **options)
        alone = wrapped(config, seed)
        alone.save_pretrained(tmp_path / name)
        handle = with_adapter(handle, read_adapter(tmp_path / name, handle.config))
        if model is None:
            model = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / name, adapter_name=name)
        else:
            model.load_adapter(tmp_path / name, name)
    model.base_model.set_adapter(list(configs))
    torch.testing.assert_close(making.velocity(handle), theirs(model.eval()), **TOLERANCE)


@pytest.mark.parametrize("magnitude", ["", "rows"])
def test_peft_reads_what_we_write(tmp_path, magnitude):
    base = models.diffusion()
    made = making.adapter(layers=sorted(making.shapes())[::3], rank=4, scale=0.4, magnitude=magnitude)
    assert making.ENTRY in made.changes
    made.changes["layers.3.mlp.up_proj"] = making.change("layers.3.mlp.up_proj", rank=2, magnitude=magnitude)
    write_peft(made, tmp_path / "ours")
    model = peft.PeftModel.from_pretrained(copy.deepcopy(base.module.decoder), tmp_path / "ours").eval()
    with torch.no_grad():
        expected = model.merge_and_unload()(*making.inputs())
    torch.testing.assert_close(making.velocity(with_adapter(base, made)), expected, **TOLERANCE)


def test_every_initialisation_that_moves_base_weights_is_named(tmp_path):
    model = wrapped(peft.LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights="pissa"))
    model.save_pretrained(tmp_path)
    notes = read_adapter(tmp_path, making.config()).report.notes
    assert any("pissa" in note for note in notes)
