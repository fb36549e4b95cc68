"""INT8 matrices: right values, half the memory, loaded one by one, moved anywhere, with adapters beside them."""

import contextlib
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.host import Host, use
from acestep_graph.acestep_core.lora.apply import with_adapter
from acestep_graph.acestep_core.memory import quantize
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import Song
from acestep_graph.acestep_core.tasks import text2music
from acestep_graph.nodes import NODES
from tests import models
from tests.lora import making
from tests.pack import ROOT

TURBO = models.CHECKPOINTS / "acestep-v15-turbo"
needs_torchao = pytest.mark.skipif(not quantize.is_available(), reason="needs torchao")
each_dtype = pytest.mark.parametrize("dtype", quantize.PRECISIONS)
MODES = (contextlib.nullcontext, torch.no_grad, torch.inference_mode)


class In(Host):
    """The CPU, in a precision of its own choice."""

    def __init__(self, dtype=torch.float32, **more):
        super().__init__(device="cpu", **more)
        self.chosen = dtype

    def dtype(self, component):
        return self.chosen


def load(dtype="int8", auto=torch.float32, kind="turbo"):
    return loading.load_diffusion_model(models.CHECKPOINTS / f"acestep-v15-{kind}", dtype=dtype, host=In(auto))


def linear(dtype=torch.float32, out=48, inside=160):
    layer = nn.Linear(inside, out).requires_grad_(False)
    layer.weight.copy_(making.draw(out, inside, seed=1))
    layer.bias.copy_(making.draw(out, seed=2))
    return layer.to(dtype)


def off_by(ours, exact):
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


def dequantized(model):
    """A model of plain weights that has the values which the integers and scales of ``model`` stand for."""
    plain = load(model.dtype)
    for name in quantize.int8_weights(model.module):
        weight = model.module.get_parameter(name)
        loading.place(plain.module, name, (weight.qdata.double() * weight.scale.double()).to(model.dtype))
    return plain


@needs_torchao
@each_dtype
def test_values_and_scales(dtype):
    plain, layer = linear(dtype), linear(dtype)
    assert quantize.quantize_linear(layer) is layer and type(layer) is nn.Linear
    scale = plain.weight.abs().amax(1, keepdim=True) / 127.5
    values = (plain.weight.float() * (1 / scale.float())).round().clamp(-128, 127)
    assert torch.equal(layer.weight.scale, scale.float()) and layer.weight.qdata.dtype == torch.int8
    assert torch.equal(layer.weight.qdata.float(), values)
    assert layer.weight.dtype == dtype and layer.weight.shape == plain.weight.shape and not layer.weight.requires_grad
    assert torch.equal(layer.bias, plain.bias)


@needs_torchao
@each_dtype
def test_they_are_torchao_s_own(dtype, monkeypatch):
    quantization = pytest.importorskip("torchao", minversion="0.18").quantization
    monkeypatch.setattr(quantize, "VALUES_AT_ONCE", 5 * 160)
    plain = linear(dtype)
    plain.weight[3] = 0
    theirs = quantization.Int8Tensor.from_hp(plain.weight, granularity=quantization.PerRow())
    values, scale = quantize.integers(plain.weight)
    assert torch.equal(values, theirs.qdata) and torch.equal(scale, theirs.scale)
    assert torch.equal(quantize.quantize_linear(plain).weight.dequantize(), theirs.dequantize())


@needs_torchao
@each_dtype
@pytest.mark.parametrize("shape", [(160,), (1, 160), (30, 160), (2, 3, 30, 160)])
def test_the_layer_answers_as_its_values_would(dtype, shape):
    plain, layer = linear(dtype), quantize.quantize_linear(linear(dtype))
    x = making.draw(*shape, seed=3, scale=1.0).to(dtype)
    y = layer(x)
    assert y.dtype == dtype and torch.equal(y, nn.functional.linear(x, layer.weight, layer.bias))
    exact = x.double() @ (layer.weight.qdata.double() * layer.weight.scale.double()).T + layer.bias.double()
    assert off_by(y, exact) < (1e-6 if dtype == torch.float32 else 5e-3)
    assert 0 < off_by(y, plain(x)) < 0.012


@needs_torchao
def test_rows_of_zeros_and_layers_that_are_done():
    layer = linear()
    layer.weight[5:7] = 0
    layer.bias.zero_()
    quantize.quantize_linear(layer)
    y, weight = layer(making.draw(4, 160)), layer.weight
    assert y.isfinite().all() and not y[:, 5:7].any() and y[:, 4].all()
    assert quantize.quantize_linear(layer).weight is weight


@needs_torchao
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_precisions_that_do_not_go_with_it_are_refused(dtype):
    layer = linear(dtype)
    with pytest.raises(ValueError, match=f"not {str(dtype)[6:]}.*bf16"):
        quantize.quantize_linear(layer)
    assert layer.weight.dtype == dtype and not quantize.is_quantized(layer.weight)


@needs_torchao
@pytest.mark.parametrize("made", MODES)
@pytest.mark.parametrize("moved", MODES)
def test_layers_move_in_every_mode(made, moved):
    with made():
        layer = nn.Sequential(quantize.quantize_linear(linear(torch.bfloat16)))
    x = making.draw(3, 160).bfloat16()
    y, values = layer(x), layer[0].weight.qdata.clone()
    with moved():
        layer.to("cpu")
        assert torch.equal(layer(x), y)
        layer.to(torch.float32)
        assert torch.equal(layer[0].weight.qdata, values)
        assert torch.equal(layer[0].weight.to(torch.bfloat16).qdata, values)
        layer.to(torch.bfloat16).cpu()
        assert torch.equal(layer(x), y)
        away = layer.to("meta")[0].weight
        assert {away.device.type, away.qdata.device.type, away.scale.device.type} == {"meta"}
        assert layer.state_dict()["0.weight"].device.type == "meta" and isinstance(away, nn.Parameter)


@needs_torchao
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("made", MODES)
@pytest.mark.parametrize("moved", MODES)
def test_to_the_card_and_back(made, moved):
    with made():
        layer = quantize.quantize_linear(linear(torch.bfloat16, 512, 512))
    x = making.draw(64, 512).bfloat16()
    y, before = layer(x), torch.cuda.memory_allocated()
    with moved():
        layer.to("cuda")
        assert layer.weight.device.type == layer.weight.qdata.device.type == "cuda"
        assert off_by(layer(x.cuda()).cpu(), y) < 5e-3
        layer.to("cpu")
        assert layer.weight.device.type == layer.weight.qdata.device.type == "cpu"
        assert torch.equal(layer(x), y)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < 512 * 512


@needs_torchao
@each_dtype
@pytest.mark.parametrize("kind", ["turbo", "base", "xl-turbo"])
def test_what_is_quantized_and_what_it_takes(dtype, kind):
    model, plain = load(auto=dtype, kind=kind), load(dtype, kind=kind)
    names = {n for n, p in model.module.named_parameters() if quantize.is_quantized(p)}
    assert len(names) == 11 * model.config.num_hidden_layers
    assert all(name.startswith("decoder.layers.") and "_proj." in name for name in names)
    assert all(
        torch.equal(p, plain.module.get_parameter(n)) for n, p in model.module.named_parameters() if n not in names
    )
    matrices = [plain.module.get_parameter(name) for name in names]
    saved = sum(m.numel() * (dtype.itemsize - 1) for m in matrices)
    added = quantize.int8_bytes(model.module) - quantize.int8_bytes(plain.module) + saved
    assert added == 4 * sum(m.shape[0] for m in matrices)
    assert sum(t.nbytes for t in model.module.state_dict().values()) == quantize.int8_bytes(model.module)
    assert quantize.int8_bytes(plain.module) == sum(p.nbytes for p in plain.module.parameters())
    assert model.dtype == dtype and model.report.dtype == f"int8 ({str(dtype)[6:]})"
    assert "int8" in model.report.text() and model.report.loaded == plain.report.loaded


@needs_torchao
def test_wide_layers_take_half():
    layer = linear(torch.bfloat16, 256, 2048)
    before = quantize.int8_bytes(layer)
    assert quantize.int8_bytes(quantize.quantize_linear(layer)) / before < 0.503


@needs_torchao
@pytest.mark.parametrize("kind", ["turbo", "base", "xl-turbo"])
def test_the_decoder_is_as_near_as_measured(kind):
    *parts, t = making.inputs()
    for dtype, most in ((torch.float32, 0.012), (torch.bfloat16, 0.018)):
        given = (*(part.to(dtype) for part in parts), t)
        ours, exact = (making.velocity(model, given) for model in (load(auto=dtype, kind=kind), load(dtype, kind=kind)))
        assert ours.dtype == dtype and 1e-3 < off_by(ours, exact) < most


def music(model, host):
    task = text2music.prepare(model, models.text_encoder(), Song("calm piano", "la la", duration=2.0), batch=2)
    return sample(model, task, SamplerSettings(steps=3), 7, rows=2, host=host).latents


@needs_torchao
@each_dtype
@pytest.mark.parametrize("mode", MODES[1:])
def test_music(dtype, mode):
    with mode():
        model, again, plain = load(auto=dtype), load(auto=dtype), load(dtype)
        made, same, wanted = (music(each, In(dtype)) for each in (model, again, plain))
        sound = codec.decode(models.small_vae(), made.float())
    assert torch.equal(made, same) and sound.isfinite().all()
    assert 1e-3 < off_by(made, wanted) < 0.05


@needs_torchao
def test_at_most_one_matrix_is_there_in_full(monkeypatch):
    real, order = loading._make, tuple(dict(load("bf16").module.named_parameters()))
    matrices = quantize.int8_weights(load("bf16").module)
    whole, counts = [], []

    def make(weights, sources, shape, dtype):
        counts.append(sum(not storage.expired() for storage in whole))
        tensor = real(weights, sources, shape, dtype)
        if order[len(counts) - 1] in matrices:
            whole.append(StorageWeakRef(tensor.untyped_storage()))
        return tensor

    monkeypatch.setattr(loading, "_make", make)
    quantized = load(auto=torch.bfloat16)
    assert len(whole) == len(matrices) == 44 and max(counts) == 0
    assert all(storage.expired() for storage in whole)
    whole.clear()
    counts.clear()
    plain = load("bf16")
    assert max(counts) == sum(not storage.expired() for storage in whole) == 44
    assert plain.report.loaded == quantized.report.loaded == len(order)


@needs_torchao
def test_handles_of_one_file_do_not_disturb_each_other():
    alone = making.velocity(load("fp32"))
    first, quantized, second = load("fp32"), load(), load("fp32")
    once = making.velocity(quantized)
    for plain in (first, second):
        assert torch.equal(making.velocity(plain), alone)
    quantized.module.to("meta")
    assert torch.equal(making.velocity(first), alone) and torch.equal(making.velocity(load()), once)


@needs_torchao
@pytest.mark.parametrize("kind", ["lora", "lokr_pair"])
@pytest.mark.parametrize("magnitude", ["", "rows", "columns"])
def test_adapters_play_as_on_the_dequantized_weights(kind, magnitude):
    model = load()
    plain = dequantized(model)
    jazz = making.adapter(kind, magnitude=magnitude)
    ours, theirs = (making.velocity(with_adapter(handle, jazz, 0.8)) for handle in (model, plain))
    assert off_by(ours, making.velocity(model)) > 1e-2
    assert off_by(ours, theirs) < 1e-3
    assert torch.equal(making.velocity(model), making.velocity(load()))


@pytest.fixture
def without_torchao(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    quantize._kind.cache_clear()
    yield
    quantize._kind.cache_clear()


def test_without_torchao_it_is_said_before_anything_is_read(without_torchao, monkeypatch):
    assert not quantize.is_available()
    with pytest.raises(ValueError, match="pip install torchao.*bf16"):
        loading.load_diffusion_model("nowhere", dtype="int8")
    with pytest.raises(ValueError, match="pip install torchao"):
        quantize.quantize_linear(linear())
    node = NODES["ACEStepLoadModels"][0]()
    with pytest.raises(ValueError, match="pip install torchao"):
        node.load("none", "none", "none", "int8", "auto", False)
    assert load("fp32").report.dtype == "float32"


def test_only_the_diffusion_model_can_be_int8():
    for name, reader in (("Qwen3-Embedding-0.6B", loading.load_text_encoder), ("vae", loading.load_vae)):
        with pytest.raises(ValueError, match="Only the diffusion model can be loaded as int8"):
            reader(models.CHECKPOINTS / name, dtype="int8")
    offering = {n for n, (node, _) in NODES.items() if "int8" in options(node)}
    assert offering == {"ACEStepLoadModels", "ACEStepLoadDiffusionModel"}
    assert options(NODES["ACEStepLoadVAE"][0]) == ["auto", "bf16", "fp32", "fp16", "file"]


def options(node):
    return node.INPUT_TYPES()["required"].get("precision", (None, {"options": []}))[1]["options"]


@needs_torchao
def test_the_nodes(tmp_path):
    folder = tmp_path / "acestep"
    folder.mkdir()
    for name in (TURBO.name, "Qwen3-Embedding-0.6B", "vae"):
        (folder / name).symlink_to(models.CHECKPOINTS / name)
    with use(In(models=tmp_path)):
        node = NODES["ACEStepLoadModels"][0]
        choices = {k: v[1]["options"] for k, v in node.INPUT_TYPES()["required"].items() if v[0] == "COMBO"}
        names = (choices["diffusion_model"][0], choices["text_encoder"][0], choices["vae"][0])
        model, text, vae, report = node().load(*names, "int8", "auto", False)
        single, _ = NODES["ACEStepLoadDiffusionModel"][0]().load(names[0], "int8", False, "auto")
    assert model.report.dtype == single.report.dtype == "int8 (float32)" and "int8 (float32) in memory" in report
    assert (text.report.dtype, vae.report.dtype) == ("float32", "float32")
    assert torch.equal(making.velocity(model), making.velocity(single))


def test_start_up_imports_nothing_of_it():
    code = (
        "import sys; sys.path.insert(0, '.'); from tests.pack import load; load(); import acestep_graph.nodes;"
        "import acestep_graph.acestep_core.checkpoints.loading; assert 'torchao' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
