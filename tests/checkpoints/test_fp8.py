"""ComfyUI's files in fp8, plain and scaled, old marks and new: kept or unpacked, equal to the numbers they hold."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.multiprocessing.reductions import StorageWeakRef

from acestep_graph.acestep_core.checkpoints import contents, loading
from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.host import Host, use
from acestep_graph.acestep_core.lora.apply import with_adapter
from acestep_graph.acestep_core.memory import streaming
from acestep_graph.acestep_core.memory.packed import PackedLinear
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import Song
from acestep_graph.acestep_core.tasks import text2music
from acestep_graph.nodes import NODES
from tests import models
from tests.checkpoints import layouts
from tests.lora import making

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
PREFIX = "model.diffusion_model."


class In(Host):
    def __init__(self, dtype=torch.float32, **more):
        super().__init__(device="cpu", **more)
        self.chosen = dtype

    def dtype(self, component):
        return self.chosen


@pytest.fixture(scope="module")
def family():
    return layouts.published_like()


def is_matrix(name):
    return name.endswith("_proj.weight") and "layers." in name


def told(format):
    return torch.tensor(list(json.dumps({"format": format}).encode()), dtype=torch.uint8)


def scaled(tensors, form=E4M3, scale="scale_weight", rows=False, marks=True, prefix=PREFIX):
    """The tensors of a file whose matrices are in fp8, and the numbers that it holds."""
    stored, held = {}, {}
    for name, tensor in tensors.items():
        if not is_matrix(name):
            stored[prefix + name] = held[name] = tensor
            continue
        stem = prefix + name.removesuffix("weight")
        largest = tensor.float().abs().amax(1, keepdim=True) if rows else tensor.float().abs().max()
        factor = largest / torch.finfo(form).max
        codes = (tensor.float() / factor).to(form)
        stored[prefix + name], stored[stem + scale] = codes, factor.reshape(-1) if rows else factor.clone()
        held[name] = codes.float() * factor
        if marks and scale == "scale_weight":
            stored[stem + "scale_input"] = torch.tensor(0.7)
        elif marks:
            stored[stem + "input_scale"] = torch.tensor(0.7)
            stored[stem + "comfy_quant"] = told(str(form)[6:])
    if marks and scale == "scale_weight":
        stored[f"{prefix}scaled_fp8"] = torch.zeros(2, dtype=form)
    return stored, held


def plain(family, form=E4M3):
    """A file in which everything is in fp8, as ``.to(float8)`` leaves it."""
    stored = {PREFIX + name: tensor.to(form) for name, tensor in family.dit.tensors.items()}
    return stored, {name.removeprefix(PREFIX): tensor.float() for name, tensor in stored.items()}


def load(path, dtype="auto", computing=torch.float32):
    return loading.load_diffusion_model(path, kind="turbo", dtype=dtype, host=In(computing))


def file(tmp_path, tensors, metadata=None):
    path = tmp_path / "acestep_fp8.safetensors"
    save_file(tensors, path, metadata)
    return path


def exact(family, tmp_path, held):
    path = tmp_path / "plain.safetensors"
    save_file({PREFIX + name: tensor.float() for name, tensor in held.items()}, path)
    return load(path, "fp32")


def given():
    x, context, conditions, t = making.inputs()
    return x, context, making.draw(2, 7, 64, seed=3), t


def off_by(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


CASES = {
    "old marks": {},
    "old marks, e5m2": {"form": E5M2},
    "new marks": {"scale": "weight_scale"},
    "new marks, e5m2": {"scale": "weight_scale", "form": E5M2},
    "a scale a row": {"scale": "weight_scale", "rows": True},
    "no marks": {"scale": "weight_scale", "marks": False},
    "no prefix": {"prefix": ""},
}


@pytest.mark.parametrize("case", CASES)
def test_scaled_files(case, family, tmp_path):
    stored, held = scaled(family.dit.tensors, **CASES[case])
    path = file(tmp_path, stored)
    assert contents.components_in(path) == {"dit"}
    model, wanted = load(path), exact(family, tmp_path, held)
    packed = {name for name, part in model.module.named_modules() if isinstance(part, PackedLinear)}
    assert packed == {name.removesuffix(".weight") for name in held if is_matrix(name)}
    assert off_by(making.velocity(model, given()), making.velocity(wanted, given())) < 1e-5
    form = str(CASES[case].get("form", E4M3))[6:]
    assert model.report.dtype == f"{form} (float32)" and not model.report.unexpected and not model.report.notes
    unpacked = load(path, "bf16")
    for name, parameter in unpacked.module.named_parameters():
        assert torch.equal(parameter.data, held[name].bfloat16()), name
    assert "auto keeps them" in unpacked.report.text()
    assert off_by(making.velocity(load(path, "fp8"), given()), making.velocity(model, given())) == 0


@pytest.mark.parametrize("form", [E4M3, E5M2])
def test_plain_files(form, family, tmp_path):
    stored, held = plain(family, form)
    path = file(tmp_path, stored)
    for dtype in ("auto", "file"):
        model = load(path, dtype)
        assert off_by(making.velocity(model, given()), making.velocity(exact(family, tmp_path, held), given())) < 1e-5
        assert model.dtype == torch.float32 and isinstance(
            model.module.encoder.lyric_encoder.layers[0].mlp.up_proj, PackedLinear
        )
    less = load(path, computing=torch.bfloat16)
    assert less.report.dtype == f"{str(form)[6:]} (bfloat16)" and less.dtype == torch.bfloat16
    sizes = [sum(p.nbytes for p in model.module.parameters()) for model in (less, load(path, "bf16"))]
    assert sizes[0] < 0.7 * sizes[1]


def test_metadata_instead_of_marks(family, tmp_path):
    stored, held = scaled(family.dit.tensors, scale="weight_scale", marks=False)
    layers = {name.removesuffix(".weight"): {"format": "float8_e4m3fn"} for name in stored if is_matrix(name)}
    path = file(tmp_path, stored, {"_quantization_metadata": json.dumps({"layers": layers})})
    assert off_by(making.velocity(load(path), given()), making.velocity(exact(family, tmp_path, held), given())) < 1e-5
    next(iter(layers.values()))["format"] = "mxfp8"
    with pytest.raises(CheckpointError, match="not read"):
        load(file(tmp_path, stored, {"_quantization_metadata": json.dumps({"layers": layers})}))
    with pytest.raises(CheckpointError, match="quantization is no JSON"):
        load(file(tmp_path, stored, {"_quantization_metadata": "{"}))


def test_other_formats_are_refused_in_words(family, tmp_path):
    stored, _ = scaled(family.dit.tensors, scale="weight_scale")
    stem = f"{PREFIX}decoder.layers.1.self_attn.q_proj."
    for changes, words in (
        ({f"{stem}comfy_quant": told("mxfp8")}, "not read"),
        ({f"{stem}weight_scale": torch.ones(64, 2)}, "not read"),
        ({f"{stem}weight_scale": torch.ones(64, dtype=torch.uint8)}, "not read"),
        ({f"{stem}weight": torch.zeros(64, 32, dtype=torch.uint8)}, "U8"),
        ({f"{stem}comfy_quant": torch.zeros(4, dtype=torch.uint8)}, "no JSON"),
        ({f"{stem}comfy_quant": torch.tensor(list(b"[]"), dtype=torch.uint8)}, "no JSON"),
    ):
        with pytest.raises(CheckpointError, match=words) as caught:
            load(file(tmp_path, stored | changes))
        assert "acestep_fp8.safetensors" in str(caught.value)


def test_scales_of_what_is_no_matrix(family, tmp_path):
    stored, held = scaled(family.dit.tensors)
    for name in ("decoder.norm_out.weight", "decoder.proj_in.1.weight"):
        numbers = family.dit.tensors[name].float()
        stored[PREFIX + name] = (numbers * 100).to(E4M3)
        stored[PREFIX + name.removesuffix("weight") + "scale_weight"] = torch.tensor(0.01)
        held[name] = stored[PREFIX + name].float() * 0.01
    model = load(file(tmp_path, stored))
    for name in ("decoder.norm_out.weight", "decoder.proj_in.1.weight"):
        torch.testing.assert_close(model.module.get_parameter(name).data, held[name])


def test_what_else_a_file_holds_in_fp8_does_not_matter(family, tmp_path):
    prefix = "text_encoders.qwen3_06b.transformer.model."
    text, _ = scaled(family.text.tensors, prefix=prefix)
    path = file(tmp_path, {**{PREFIX + name: tensor for name, tensor in family.dit.tensors.items()}, **text})
    as_stored, made = load(path, "file"), load(path, "fp8")
    assert as_stored.report.dtype == "bfloat16" and made.report.dtype == "fp8 (float32)" and not made.report.notes
    encoder = loading.load_text_encoder(path, host=In())
    assert encoder.report.dtype == "float8_e4m3fn (float32)"


def test_a_pickle_in_fp8(family, tmp_path):
    stored, held = scaled(family.dit.tensors, prefix="")
    torch.save(stored, tmp_path / "model.pt")
    model = load(tmp_path / "model.pt")
    assert off_by(making.velocity(model, given()), making.velocity(exact(family, tmp_path, held), given())) < 1e-5


@pytest.mark.parametrize("component", ["text", "lm"])
def test_text_models(component, family, tmp_path):
    part = getattr(family, component)
    loader = {"text": loading.load_text_encoder, "lm": loading.load_language_model}[component]
    stored, held = scaled(part.tensors, prefix="model.")
    path = file(tmp_path, stored)
    as_stored, auto, unpacked = (loader(path, dtype=dtype, host=In()) for dtype in ("file", "auto", "fp32"))
    for model, packs in ((as_stored, True), (auto, component == "text"), (unpacked, False)):
        assert any(isinstance(p, PackedLinear) for p in model.module.modules()) == packs
    assert all(torch.equal(p.data, held[n].float()) for n, p in unpacked.module.named_parameters())
    ids = torch.tensor([[5, 8, 13, 2]])
    with torch.no_grad():
        for model in (as_stored, auto):
            assert off_by(model.module(ids), unpacked.module(ids)) < 1e-5


@pytest.mark.parametrize("kind", ["turbo", "base", "xl-turbo"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp8_made_on_load(kind, dtype):
    path = models.CHECKPOINTS / f"acestep-v15-{kind}"
    model, whole = (loading.load_diffusion_model(path, dtype=wanted, host=In(dtype)) for wanted in ("fp8", dtype))
    packed = {name for name, part in model.module.named_modules() if isinstance(part, PackedLinear)}
    assert len(packed) == 11 * model.config.num_hidden_layers and all(n.startswith("decoder.layers.") for n in packed)
    *parts, t = making.inputs()
    asked = (*(part.to(dtype) for part in parts), t)
    ours, theirs = (making.velocity(each, asked) for each in (model, whole))
    assert ours.dtype == dtype and 1e-3 < off_by(ours, theirs) < 0.05
    assert model.report.dtype == f"fp8 ({str(dtype)[6:]})" and model.report.loaded == whole.report.loaded
    again = loading.load_diffusion_model(path, dtype="fp8", host=In(dtype))
    assert torch.equal(making.velocity(again, asked), ours)


@pytest.mark.parametrize("magnitude", ["", "rows", "columns"])
@pytest.mark.parametrize("kind", ["lora", "lokr_pair"])
def test_adapters_play_as_on_the_unpacked_weights(kind, magnitude):
    path = models.CHECKPOINTS / "acestep-v15-turbo"
    model = loading.load_diffusion_model(path, dtype="fp8", host=In())
    whole = loading.load_diffusion_model(path, dtype="fp32", host=In())
    for name, part in model.module.named_modules():
        if isinstance(part, PackedLinear):
            loading.place(whole.module, f"{name}.weight", part.dense(torch.float32))
    jazz = making.adapter(kind, magnitude=magnitude)
    ours, theirs = (making.velocity(with_adapter(handle, jazz, 0.8)) for handle in (model, whole))
    assert off_by(ours, making.velocity(model)) > 1e-2 and off_by(ours, theirs) < 1e-3


def test_at_most_one_matrix_is_there_in_full(monkeypatch):
    real, whole, counts = loading._make, [], []

    def make(weights, sources, shape, dtype):
        counts.append(sum(not storage.expired() for storage in whole))
        tensor = real(weights, sources, shape, dtype)
        if "decoder.layers." in sources[-1] and "_proj." in sources[-1]:
            whole.append(StorageWeakRef(tensor.untyped_storage()))
        return tensor

    monkeypatch.setattr(loading, "_make", make)
    loading.load_diffusion_model(models.CHECKPOINTS / "acestep-v15-turbo", dtype="fp8", host=In(torch.bfloat16))
    assert len(whole) == 44 and max(counts) == 0 and all(storage.expired() for storage in whole)


def test_the_nodes_offer_it(tmp_path):
    folder = tmp_path / "acestep"
    folder.mkdir()
    for name in ("acestep-v15-turbo", "Qwen3-Embedding-0.6B", "vae"):
        (folder / name).symlink_to(models.CHECKPOINTS / name)
    with use(In(models=tmp_path)):
        node = NODES["ACEStepLoadModels"][0]
        choices = {k: v[1]["options"] for k, v in node.INPUT_TYPES()["required"].items() if v[0] == "COMBO"}
        assert "fp8" in choices["precision"]
        names = (choices["diffusion_model"][0], choices["text_encoder"][0], choices["vae"][0])
        model, text, vae, report = node().load(*names, "fp8", "auto", False)
        single, _ = NODES["ACEStepLoadDiffusionModel"][0]().load(names[0], "fp8", False, "auto")
    assert model.report.dtype == single.report.dtype == "fp8 (float32)" and "fp8 (float32) in memory" in report
    assert (text.report.dtype, vae.report.dtype) == ("float32", "float32")


def test_only_the_diffusion_model():
    with pytest.raises(ValueError, match="Only the diffusion model can be loaded as fp8"):
        loading.load_vae(models.CHECKPOINTS / "vae", dtype="fp8")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_music(dtype):
    host, path = In(dtype), models.CHECKPOINTS / "acestep-v15-turbo"

    def made(wanted):
        model = loading.load_diffusion_model(path, dtype=wanted, host=host)
        task = text2music.prepare(model, models.text_encoder(), Song("calm piano", "la la", duration=2.0), batch=2)
        return sample(model, task, SamplerSettings(steps=3), 7, rows=2, host=host).latents

    with torch.inference_mode():
        ours, again, whole = made("fp8"), made("fp8"), made(dtype)
    assert torch.equal(ours, again) and 1e-3 < off_by(ours, whole) < 0.15


@pytest.mark.parametrize("form", ["fp8", "file"])
def test_layers_that_come_for_their_turn(form, family, tmp_path):
    path = file(tmp_path, scaled(family.dit.tensors)[0])
    model = load(path, form)
    before = making.velocity(model, given())
    decoder = model.module.decoder
    decoder.walk = streaming.Streamed(decoder.layers, torch.device("cpu"), (0, 2, 3))
    assert torch.equal(making.velocity(model, given()), before) and decoder.walk.copied > 0
