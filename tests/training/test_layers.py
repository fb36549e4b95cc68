"""Trained layers: where they start, what they compute, and PEFT's answer to the same."""

import copy
import dataclasses

import pytest
import torch

from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.lora.apply import active, with_adapter
from acestep_graph.acestep_core.lora.formats import read_adapter
from acestep_graph.acestep_core.lora.writing import write_folder
from acestep_graph.acestep_core.training import losses
from acestep_graph.acestep_core.training.adapters import Trainable, keep_little, require_plain_weights, twin
from acestep_graph.acestep_core.training.settings import TrainSettings, adapter_parameters
from tests import models
from tests.pack import ROOT

CPU = torch.device("cpu")
METHODS = pytest.mark.parametrize("method", ["lora", "dora"])
ALL = pytest.mark.parametrize("method", ["lora", "dora", "lokr"])


def made(method="lora", kind="turbo", **more):
    settings = TrainSettings(method=method, **{"rank": 4, "alpha": 8, "dropout": 0.0, "mlp": True} | more)
    decoder = twin(models.diffusion(kind).module.decoder, CPU, torch.float32)
    return decoder, Trainable(decoder, settings, torch.Generator().manual_seed(1))


def inputs(width=32):
    draws = torch.Generator().manual_seed(2)
    sizes = ((2, 21, 64), (2, 21, 128), (2, 9, width))
    return *(torch.randn(*size, generator=draws) for size in sizes), torch.tensor([0.3, 0.8])


def filled(trained, seed=3):
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in trained.layers.values():
            change = layer.change()
            for tensor in change.tensors():
                if not tensor.any():
                    tensor.copy_(0.2 * torch.randn(tensor.shape, generator=draws))
            if change.magnitude is not None:
                change.magnitude.mul_(1 + 0.1 * torch.rand(change.magnitude.shape, generator=draws))


@ALL
@pytest.mark.parametrize("kind", ["turbo", "base", "xl-turbo"])
def test_a_fresh_adapter_changes_nothing(method, kind):
    decoder, trained = made(method, kind, dropout=0.5)
    with torch.no_grad():
        assert torch.equal(decoder(*inputs()), models.diffusion(kind).module.decoder(*inputs()))
    for layer in trained.layers.values():
        assert layer.change().magnitude is not None or layer.change().is_zero()
        assert sum(not tensor.any() for tensor in layer.change().tensors()) == 1


@ALL
def test_what_is_trained_is_what_plays(method):
    model = models.diffusion()
    decoder, trained = made(method)
    filled(trained)
    with torch.no_grad(), active(with_adapter(model, trained.adapter("jazz"))):
        played = model.module.decoder(*inputs())
    with torch.no_grad():
        assert torch.allclose(decoder(*inputs()), played, atol=1e-5)
        assert not torch.allclose(played, model.module.decoder(*inputs()), atol=1e-2)


@ALL
def test_gradients_reach_every_parameter_and_no_weight(method):
    decoder, trained = made(method)
    filled(trained)
    decoder(*inputs()).square().mean().backward()
    assert all(bool(parameter.grad.any()) for parameter in trained.parameters())
    assert not any(parameter.requires_grad for parameter in decoder.parameters())


@ALL
def test_gradient_checkpointing_gives_the_same_gradients_with_dropout(method):
    found = []
    for little in (False, True):
        decoder, trained = made(method, dropout=0.3)
        filled(trained)
        if little:
            keep_little(decoder)
        torch.manual_seed(4)
        decoder(*inputs()).square().mean().backward()
        found.append([parameter.grad for parameter in trained.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


def test_dropout_is_for_training_only():
    decoder, trained = made(dropout=0.5)
    filled(trained)
    with torch.no_grad():
        assert not torch.equal(decoder(*inputs()), decoder(*inputs()))
        trained.train(False)
        assert torch.equal(decoder(*inputs()), decoder(*inputs()))


@pytest.mark.parametrize("rank", [2, 64])
@pytest.mark.parametrize("factor", [0, 2])
def test_lokr_is_split_as_lycoris_splits(rank, factor):
    """Whole where the rank is at least half the longer side of the larger matrix; the scale is 1 then."""
    _, trained = made("lokr", rank=rank, factor=factor)
    for name, layer in trained.layers.items():
        change, weight = layer.change(), models.diffusion().module.decoder.get_submodule(name).weight
        (a, b), right = change.form.left[0].shape, change.form.right
        c, d = right[0].shape[0], right[-1].shape[1]
        assert (a * c, b * d) == tuple(weight.shape)
        assert a <= c and b <= d and (factor == 0 or max(a, b) <= factor)
        whole = rank >= max(c, d) / 2
        assert (len(right), change.rank) == ((1, None) if whole else (2, rank))
        assert change.scale == (1 if whole else 8 / rank)
    settings = trained.settings
    numbers = sum(parameter.numel() for parameter in trained.parameters())
    assert adapter_parameters(models.diffusion().config, settings) == numbers


@pytest.mark.parametrize("rank", [2, 64])
def test_lokr_goes_on_from_a_file_of_its_own_size_alone(tmp_path, rank):
    _, trained = made("lokr", rank=rank)
    filled(trained)
    stored = read_adapter(write_folder(trained.adapter("jazz"), tmp_path / "jazz"), models.diffusion().config)
    _, again = made("lokr", rank=rank)
    again.load(stored)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))
    if rank == 64:
        with pytest.raises(ValueError, match="is scaled by 2, from which training cannot go on"):
            changes = {name: dataclasses.replace(change, scale=2.0) for name, change in stored.changes.items()}
            again.load(dataclasses.replace(stored, changes=changes))
    _, other = made("lokr", rank=rank, factor=2)
    with pytest.raises(ValueError, match="the factor it was trained with"):
        other.load(stored)
    _, lora = made("lora")
    with pytest.raises(ValueError, match="is LoKr, but the method is lora"):
        lora.load(stored)


def test_the_twin_shares_weights_and_nothing_else():
    original = models.diffusion().module.decoder
    decoder, _ = made()
    for name, weight in original.named_parameters():
        assert decoder.get_parameter(name).data_ptr() == weight.data_ptr()
    keep_little(decoder)
    assert not any(module._forward_hooks or "forward" in vars(module) for module in original.modules())
    half = twin(original, CPU, torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in original.parameters()} == {torch.float32}


def test_adapters_of_another_kind_are_refused_whole():
    model = models.diffusion()
    stored = read_adapter(ROOT / "tests" / "fixtures" / "adapters" / "adapter_a", model.config)
    for more, sentence in (
        ({"mlp": True}, "adapts 32 layers, but the settings ask for 44"),
        ({"mlp": False, "rank": 8, "alpha": 16}, "has rank 4, but the settings say 8"),
        ({"mlp": False, "alpha": 16}, "has alpha 8; set alpha to that"),
        ({"mlp": False, "method": "dora"}, "is LoRA, but the method is dora"),
    ):
        _, trained = made(**more)
        before = [parameter.clone() for parameter in trained.parameters()]
        with pytest.raises(ValueError, match=sentence):
            trained.load(stored)
        assert all(torch.equal(a, b) for a, b in zip(before, trained.parameters(), strict=True))
    _, other = made(kind="xl-turbo", mlp=False)
    with pytest.raises(CheckpointError, match="width 32"):
        other.load(stored)


def test_quantized_weights_are_refused():
    decoder = copy.deepcopy(models.diffusion().module.decoder)
    layer = decoder.layers[1].cross_attn.k_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="loaded quantized, which cannot be trained. Load it as bf16 or fp32"):
        require_plain_weights(decoder, ("layers.1.cross_attn.k_proj",))


@METHODS
@pytest.mark.filterwarnings("ignore::peft.utils.PeftWarning")
def test_gradients_equal_those_of_peft(method):
    peft = pytest.importorskip("peft")
    decoder, trained = made(method)
    filled(trained)
    targets = list(trained.layers)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_dora=method == "dora")
    theirs = peft.PeftModel(copy.deepcopy(models.diffusion().module.decoder), config)
    for name, layer in trained.layers.items():
        other = theirs.base_model.model.get_submodule(name)
        with torch.no_grad():
            other.lora_A["default"].weight.copy_(layer.down)
            other.lora_B["default"].weight.copy_(layer.up)
            if method == "dora":
                other.lora_magnitude_vector["default"].weight.copy_(layer.magnitude.flatten())
    for network in (decoder, theirs):
        network(*inputs()).square().mean().backward()
    for name, layer in trained.layers.items():
        other = theirs.base_model.model.get_submodule(name)
        assert torch.allclose(layer.down.grad, other.lora_A["default"].weight.grad, atol=1e-5)
        assert torch.allclose(layer.up.grad, other.lora_B["default"].weight.grad, atol=1e-5)
        if method == "dora":
            theirs_grad = other.lora_magnitude_vector["default"].weight.grad
            assert torch.allclose(layer.magnitude.grad.flatten(), theirs_grad, atol=1e-5)


# -- losses


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_discrete_levels_follow_the_shift(shift):
    levels = losses.discrete_levels(shift)
    assert len(levels) == 8 and levels[0] == 1.0
    assert levels == pytest.approx([shift * u / (1 + (shift - 1) * u) for u in (1 - i / 8 for i in range(8))])
    drawn = losses.draw_discrete((4000, 1, 1), torch.Generator().manual_seed(0), shift)
    values, counts = drawn.t.unique(return_counts=True)
    assert values.tolist() == pytest.approx(levels[::-1]) and 400 < counts.min() <= counts.max() < 600


def test_continuous_levels_are_the_larger_of_two():
    drawn = losses.draw_continuous((20000, 1, 1), torch.Generator().manual_seed(0), dropout=0.15)
    quartiles = torch.quantile(drawn.t, torch.tensor([0.25, 0.5, 0.75]))
    assert quartiles.tolist() == pytest.approx([0.40, 0.54, 0.67], abs=0.01)
    assert drawn.t.mean().item() == pytest.approx(0.535, abs=0.01)
    assert drawn.dropped.float().mean().item() == pytest.approx(0.15, abs=0.01)


def test_a_perfect_answer_loses_nothing():
    drawn = losses.draw_continuous((3, 5, 64), torch.Generator().manual_seed(0))
    target = torch.randn(3, 5, 64)
    assert losses.row_losses(drawn.noise - target, target, drawn).tolist() == [0, 0, 0]
    assert losses.row_losses(drawn.noise - target + 2, target, drawn).tolist() == pytest.approx([4, 4, 4], rel=1e-4)


def test_snr_weights_cap_the_easy_levels():
    weights = losses.snr_weights(torch.tensor([0.0, 0.1, 0.5, 1.0]), 5.0)
    assert weights[1].item() == pytest.approx(5 / 81) and weights[2:].tolist() == [1.0, 1.0]
    assert 0 < weights[0] < 1e-6
