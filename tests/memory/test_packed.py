"""Packed layers: the numbers of the formats' own libraries, answers of the unpacked weights, moves and casts."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from acestep_graph.acestep_core.checkpoints.gguf_header import BLOCKS
from acestep_graph.acestep_core.lora.branch import plain_weight
from acestep_graph.acestep_core.memory import fp8, gguf_blocks
from acestep_graph.acestep_core.memory.packed import Packed, PackedLinear, pack_fp8
from acestep_graph.acestep_core.training.adapters import require_plain_weights
from tests.lora import making
from tests.memory.blocks import random_blocks

each_kind = pytest.mark.parametrize("kind", BLOCKS)
FORMS = (*BLOCKS, *fp8.FORMS)


def weight(form, out=24, inside=512, seed=0):
    if form in BLOCKS:
        return Packed(form, torch.from_numpy(random_blocks(form, out, inside, seed=seed)))
    numbers = making.draw(out, inside, seed=seed).to(fp8.FORMS[form])
    return Packed(form, numbers.view(torch.uint8), torch.rand(out, 1) + 0.5)


@each_kind
def test_blocks_are_as_the_library_reads_them(kind):
    gguf = pytest.importorskip("gguf")
    codes = random_blocks(kind, 6, 1024, seed=3)
    wanted = gguf.dequantize(codes, gguf.GGMLQuantizationType[kind])
    ours = gguf_blocks.unpack(kind, torch.from_numpy(codes), torch.float32)
    assert ours.shape == (6, 1024) and 0.01 < ours.abs().max() < 0.3
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-6, atol=1e-8)
    assert tuple(BLOCKS[kind]) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    for dtype, near in ((torch.bfloat16, 8e-3), (torch.float16, 1e-3)):
        less = gguf_blocks.unpack(kind, torch.from_numpy(codes), dtype)
        assert less.dtype == dtype
        torch.testing.assert_close(less.float(), ours, rtol=near, atol=near * float(ours.abs().max()))


@each_kind
@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=15, deadline=None)
def test_any_blocks(kind, seed):
    gguf = pytest.importorskip("gguf")
    codes = np.random.default_rng(seed).integers(0, 256, (2, BLOCKS[kind][1]), dtype=np.uint8)
    with np.errstate(all="ignore"):
        wanted = torch.from_numpy(gguf.dequantize(codes, gguf.GGMLQuantizationType[kind]))
    ours = gguf_blocks.unpack(kind, torch.from_numpy(codes), torch.float32)
    torch.testing.assert_close(
        ours, wanted, rtol=1e-5, atol=1e-6 * float(wanted.nan_to_num(0, 0, 0).abs().max()), equal_nan=True
    )


@each_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_graphics_cards_round_once_too(kind, dtype, monkeypatch):
    codes = torch.from_numpy(random_blocks(kind, 6, 1024, seed=5))
    exact = gguf_blocks.unpack(kind, codes, torch.float32)
    monkeypatch.setattr(fp8, "CONVERTING", ("cpu",))
    ours = gguf_blocks.unpack(kind, codes, dtype)
    half, last = torch.finfo(dtype).eps / 2, 1e-6 * float(exact.abs().max())
    torch.testing.assert_close(ours.float(), exact, rtol=half, atol=last)


def test_blocks_of_more_dimensions():
    codes = torch.from_numpy(random_blocks("Q4_K", 6, 512))
    flat = gguf_blocks.unpack("Q4_K", codes, torch.float32)
    assert torch.equal(gguf_blocks.unpack("Q4_K", codes.view(2, 3, -1), torch.float32), flat.view(2, 3, 512))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp8_keeps_every_number_to_a_sixteenth(dtype):
    whole = (making.draw(40, 300, seed=1) * torch.logspace(-12, 12, 40)[:, None]).to(dtype)
    packed = pack_fp8(whole)
    exponents = packed.scale.log2()
    assert torch.equal(exponents, exponents.round()) and packed.codes.dtype == torch.uint8
    numbers = packed.codes.view(torch.float8_e4m3fn).float()
    assert numbers.isfinite().all() and (numbers.abs().amax(1) > 208).all()
    ours, exact = packed.dense(torch.float32), whole.float()
    large = exact.abs() > exact.abs().amax(1, keepdim=True) / 2**12
    assert large.float().mean() > 0.9
    assert ((ours - exact).abs() <= exact.abs() / 16 + 1e-30)[large].all()
    assert torch.equal(packed.dense(torch.bfloat16).float(), ours)
    assert 0.01 < float((ours - exact)[5].norm() / exact[5].norm()) < 0.04


def test_fp8_at_its_edges(monkeypatch):
    whole = torch.zeros(6, 16)
    whole[1, 0], whole[2, 0], whole[3, 0], whole[4, 0], whole[5, 0] = 448, 449, 448 * 2.0**-30, 1e-38, -7
    packed = pack_fp8(whole)
    assert packed.scale.flatten()[:3].tolist() == [1, 1, 2] and packed.scale[3] == 2.0**-30
    dense = packed.dense(torch.float32)
    assert dense.isfinite().all() and dense[1, 0] == 448 and dense[5, 0] == -7 and not dense[0].any()
    wide = making.draw(50, 64)
    monkeypatch.setattr(fp8, "VALUES_AT_ONCE", 7 * 64)
    in_parts = pack_fp8(wide)
    monkeypatch.undo()
    assert torch.equal(in_parts.codes, pack_fp8(wide).codes) and torch.equal(in_parts.scale, pack_fp8(wide).scale)


@pytest.mark.parametrize("form", fp8.FORMS)
def test_a_device_without_fp8_looks_numbers_up(form):
    codes = torch.arange(256, dtype=torch.uint8)
    straight = codes.view(fp8.FORMS[form]).float()
    torch.testing.assert_close(fp8.looked_up(form, codes, torch.float32), straight, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_way_of_graphics_cards_gives_the_same(form, dtype, monkeypatch):
    packed = weight(form, seed=7)
    slowly = packed.dense(dtype)
    monkeypatch.setattr(fp8, "CONVERTING", ("cpu",))
    near = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(packed.dense(dtype), slowly, rtol=near, atol=near * float(slowly.abs().max()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_answers_as_the_unpacked_one(form, dtype, bias):
    packed = weight(form)
    layer = PackedLinear(packed, making.draw(24).to(dtype) if bias else None)
    assert (layer.in_features, layer.out_features) == (512, 24)
    x = making.draw(2, 5, 512, seed=4).to(dtype)
    y = layer(x)
    assert y.dtype == dtype and torch.equal(y, nn.functional.linear(x, packed.dense(dtype), layer.bias))
    torch.testing.assert_close(
        plain_weight(layer, x.device, dtype), packed.dense(dtype).float(), rtol=1e-2, atol=2e-3 if bias else 1e-6
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_layers_move_are_copied_and_survive_casts(form, mode):
    layer = PackedLinear(weight(form))
    x = making.draw(3, 512)
    y, codes = layer(x), layer.weight.clone()
    with mode():
        assert torch.equal(layer.to("cpu")(x), y)
        assert torch.equal(layer.to(torch.bfloat16).weight, codes) and layer.weight.dtype == torch.uint8
        other = copy.deepcopy(layer)
        away = layer.to("meta")
        assert {p.device.type for p in (*away.parameters(), *away.buffers())} == {"meta"}
        assert torch.equal(other.weight, codes)
    stored = sum(t.nbytes for t in other.state_dict().values())
    assert stored == codes.numel() + (0 if other.scale is None else 24 * other.scale.element_size())


@pytest.mark.parametrize("form", FORMS)
def test_training_is_refused(form):
    with pytest.raises(ValueError, match="loaded quantized, which cannot be trained. Load it as bf16 or fp32"):
        require_plain_weights(nn.ModuleDict({"layer": PackedLinear(weight(form))}), ("layer",))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("magnitude", ["", "rows", "columns"])
@pytest.mark.parametrize("kind", ["lora", "lokr_pair"])
def test_a_branch_beside_a_packed_layer(form, magnitude, kind):
    out, inside = making.shapes()["layers.0.self_attn.q_proj"]
    inside = max(inside, BLOCKS.get(form, (1, 0))[0])
    packed = weight(form, out, inside)
    layer, plain = PackedLinear(packed), nn.Linear(inside, out, bias=False).requires_grad_(False)
    plain.weight.copy_(packed.dense(torch.float32))
    norms = {"rows": (out, 1), "columns": (1, inside)}.get(magnitude)
    change = making.Change(
        making.form(kind, out, inside), 4.0, None if norms is None else 1 + making.draw(*norms).abs()
    )
    x = making.draw(4, inside, seed=9)
    ours, theirs = (making.through_branch(each, x, (change, 0.8)) for each in (layer, plain))
    assert (ours - layer(x)).norm() > 0.1 * layer(x).norm()
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


@pytest.mark.parametrize("form", ["Q4_K", "Q6_K", "Q8_0", fp8.E4M3])
def test_a_layer_is_compiled_whole(form):
    layer, x = PackedLinear(weight(form)), making.draw(3, 512)
    torch._dynamo.reset()
    with torch.no_grad():
        ours = torch.compile(layer, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(ours, layer(x))
