"""One linear layer with changes of every form equals a layer whose weight was changed."""

import itertools

import pytest
import torch
from torch import nn

from acestep_graph.acestep_core.lora.adapter import low_rank
from acestep_graph.acestep_core.lora.branch import Branch, kron_linear, plain_weight, stand_in

from . import making

LAYER = "time_embed.time_proj"
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def linear(dtype=torch.float32):
    out, inside = making.shapes()[LAYER]
    layer = nn.Linear(inside, out)
    with torch.no_grad():
        layer.weight.copy_(making.draw(out, inside, seed=5))
        layer.bias.copy_(making.draw(out, seed=6))
    return layer.to(dtype).requires_grad_(False)


def changed(layer, *weighted):
    """W and b with the changes worked in, straight from the definition."""
    weight, bias = layer.weight.double(), layer.bias.double()
    for change, strength in weighted:
        full = layer.weight.double() + making.delta(change).double()
        if change.magnitude is not None:
            m = change.magnitude.double()
            full = m * full / full.norm(dim=1 if m.shape[1] == 1 else 0, keepdim=True)
        weight = weight + strength * (full - layer.weight.double())
        bias = bias if change.bias is None else bias + strength * change.bias.double()
    return weight, bias


def expected(layer, x, *weighted):
    weight, bias = changed(layer, *weighted)
    return (x.double() @ weight.T + bias).float()


@pytest.mark.parametrize("kind", making.FORM_KINDS)
@pytest.mark.parametrize("magnitude", ["", "rows", "columns"])
@pytest.mark.parametrize("strength", [1.0, -0.7, 2.5])
def test_every_form_at_every_strength(kind, magnitude, strength):
    layer, x = linear(), making.draw(2, 5, 32, seed=9, scale=1.0)
    change = making.change(LAYER, kind, scale=0.7, magnitude=magnitude, bias=True)
    ours = making.through_branch(layer, x, (change, strength))
    assert (ours - layer(x)).abs().max() > 1e-2
    torch.testing.assert_close(ours, expected(layer, x, (change, strength)), **CLOSE)


def test_a_stack_of_all_forms_in_any_order():
    layer, x = linear(), making.draw(3, 32, seed=9, scale=1.0)
    kinds = itertools.product(making.FORM_KINDS[::2], ["", "rows", "columns"])
    stack = [(making.change(LAYER, k, scale=0.3, magnitude=m, seed=i), 0.5) for i, (k, m) in enumerate(kinds)]
    wanted = expected(layer, x, *stack)
    for order in (stack, stack[::-1], stack[4:] + stack[:4]):
        torch.testing.assert_close(making.through_branch(layer, x, *order), wanted, **CLOSE)


@pytest.mark.parametrize("kind", making.FORM_KINDS)
def test_the_convolution_has_a_stand_in(kind):
    conv = nn.Conv1d(192, 32, 2, stride=2).requires_grad_(False)
    before, x = conv.weight.clone(), making.draw(2, 192, 10, seed=9)
    names = ("", "rows", "columns")
    stack = [(making.change(making.ENTRY, kind, magnitude=m, seed=i, bias=True), 0.4 + i) for i, m in enumerate(names)]
    weight, bias = before.double(), conv.bias.double()
    for change, strength in stack:
        full = before.double() + making.delta(change).double().view(32, 192, 2)
        if change.magnitude is not None:
            m, by_rows = change.magnitude.double(), change.magnitude.shape[1] == 1
            norm = full.norm(dim=(1, 2) if by_rows else (0, 2), keepdim=True)
            full = full * m[..., None] / norm
        weight, bias = weight + strength * (full - before.double()), bias + strength * change.bias.double()
    made = stand_in(conv, stack)
    torch.testing.assert_close(made(x), nn.functional.conv1d(x.double(), weight, bias, stride=2).float(), **CLOSE)
    assert torch.equal(conv.weight, before)


@pytest.mark.parametrize("shape", [(32,), (7, 32), (2, 3, 5, 32)])
@pytest.mark.parametrize("kind", ["lora", "lokr_pair"])
def test_any_leading_dimensions(shape, kind):
    if len(shape) == 1 and kind == "lora":
        shape = (1, 32)
    layer, x = linear(), making.draw(*shape, seed=9)
    change = making.change(LAYER, kind)
    torch.testing.assert_close(
        making.through_branch(layer, x, (change, 1.0)), expected(layer, x, (change, 1.0)), **CLOSE
    )


def test_kron_linear_is_the_kronecker_product():
    left, right, x = (
        making.draw(3, 2, seed=1),
        (making.draw(5, 2, seed=2), making.draw(2, 4, seed=3)),
        making.draw(6, 8),
    )
    torch.testing.assert_close(kron_linear(x, left, right), x @ torch.kron(left, right[0] @ right[1]).T)


def test_a_row_that_a_change_cancels_stays_zero():
    layer, x = linear(), making.draw(4, 32, seed=9)
    layer.weight[3] = 0
    change = making.change(LAYER, magnitude="rows")
    change.form.up[3] = 0
    ours = making.through_branch(layer, x, (change, 1.0))
    torch.testing.assert_close(ours[:, 3], layer.bias[3].expand(4))


class Eighths(nn.Module):
    """A layer whose weights are kept as whole numbers, such as a quantized one."""

    def __init__(self, layer):
        super().__init__()
        self.out_features, self.in_features = layer.weight.shape
        self.weight = nn.Parameter((layer.weight * 8).round().to(torch.int8), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) / 8, self.bias)


@pytest.mark.parametrize("magnitude", ["", "rows", "columns"])
def test_a_quantized_layer_equals_its_dequantized_one(magnitude):
    small = Eighths(linear())
    same = linear()
    same.weight.copy_(small.weight / 8)
    x, change = making.draw(4, 32, seed=9), making.change(LAYER, magnitude=magnitude)
    torch.testing.assert_close(
        making.through_branch(small, x, (change, 0.8)), making.through_branch(same, x, (change, 0.8)), **CLOSE
    )
    torch.testing.assert_close(plain_weight(small, x.device, x.dtype), same.weight.data, atol=1e-6, rtol=1e-6)


def test_asking_a_wide_layer_for_its_weights_goes_in_parts():
    wide = nn.Linear(2500, 3)
    small = Eighths(wide)
    asked = plain_weight(small, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(asked, small.weight / 8, atol=1e-6, rtol=1e-6)


def test_the_weight_that_is_rescaled_is_a_copy():
    layer = linear()
    before = layer.weight.clone()
    making.through_branch(layer, making.draw(4, 32), (making.change(LAYER, magnitude="rows"), 1.0))
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("kind", making.FORM_KINDS)
def test_half_precision_stays_half_and_close(kind):
    layer, x = linear(torch.bfloat16), making.draw(4, 32, seed=9).bfloat16()
    change = making.change(LAYER, kind, scale=0.5, magnitude="rows")
    ours = making.through_branch(layer, x, (change, 1.0))
    assert ours.dtype == torch.bfloat16
    wide = expected(layer, x.float(), (change, 1.0))
    assert (ours.float() - wide).abs().max() <= 0.03 * wide.abs().max()


def test_the_same_branch_moves_between_precisions():
    change, x = making.change(LAYER), making.draw(4, 32, seed=9)
    branch = Branch([(change, 1.0)])
    with torch.no_grad():
        first = branch(linear(), (x,), linear()(x))
        half = linear(torch.bfloat16)
        branch(half, (x.bfloat16(),), half(x.bfloat16()))
        assert torch.equal(branch(linear(), (x,), linear()(x)), first)


def test_trained_pairs_become_an_adapter():
    up, down = making.draw(32, 4), making.draw(4, 32)
    for rslora, scale in ((False, 2.0), (True, 4.0)):
        change = low_rank("x", {"layers.0.self_attn.q_proj": (up, down)}, 32, alpha=8, rslora=rslora).changes.popitem()[
            1
        ]
        assert change.scale == scale and change.form.up is up
