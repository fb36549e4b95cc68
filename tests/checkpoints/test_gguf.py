"""GGUF files: offered, loaded with the matrices packed, equal to the numbers they hold, refused in words."""

import json
import struct
import sys
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef

from acestep_graph.acestep_core.checkpoints import catalog, contents, loading
from acestep_graph.acestep_core.checkpoints.gguf_header import gguf_header
from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lora.apply import with_adapter
from acestep_graph.acestep_core.memory import quantize
from acestep_graph.acestep_core.memory.packed import PackedLinear
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.qwen3 import Qwen3
from tests import tiny
from tests.checkpoints import gguf_files, layouts
from tests.lora import making

gguf = pytest.importorskip("gguf")
WIDE = replace(
    tiny.DIT, **{"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"head_dim": 64, "text_hidden_dim": 256, "fsq_dim": 256, "is_turbo": True},
)  # fmt: skip
EXTRA_SILENCE = 40


class In(Host):
    def __init__(self, dtype=torch.float32, **more):
        super().__init__(device="cpu", **more)
        self.chosen = dtype

    def dtype(self, component):
        return self.chosen


@pytest.fixture(scope="module")
def wide():
    module = tiny.randomize(AceStepModel(WIDE), 5)
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    return {**tensors, "silence_latent": making.draw(EXTRA_SILENCE, 64)}


def config_json():
    return {name: value for name, value in asdict(WIDE).items() if value is not None}


def plain(held):
    """A model that holds the numbers of a file in full."""
    module = AceStepModel(WIDE)
    module.load_state_dict({name: tensor for name, tensor in held.items() if name != "silence_latent"})
    return module.requires_grad_(False).eval()


def given(dtype=torch.float32):
    parts = (making.draw(2, 12, 64, seed=1), making.draw(2, 12, 128, seed=2), making.draw(2, 7, 256, seed=3))
    return (*(part.to(dtype) for part in parts), torch.tensor([0.8, 0.35]))


def off_by(ours, exact):
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


def load(path, dtype="auto", computing=torch.float32):
    return loading.load_diffusion_model(path, dtype=dtype, host=In(computing))


@pytest.mark.parametrize("mixture", gguf_files.MIXTURES)
def test_every_published_type(tmp_path, wide, mixture):
    path = tmp_path / f"acestep-v15-turbo-{mixture}.gguf"
    held = gguf_files.write(path, wide, mixture, config_json())
    model, exact = load(path), plain(held)
    with torch.no_grad():
        wanted = exact.decoder(*given())
    assert off_by(making.velocity(model, given()), wanted) < 1e-5
    less = load(path, computing=torch.bfloat16)
    assert less.dtype == torch.bfloat16 and off_by(making.velocity(less, given(torch.bfloat16)), wanted) < 0.03
    packed = {name: part for name, part in model.module.named_modules() if isinstance(part, PackedLinear)}
    layered = [n for n in held if ".layers." in n and held[n].dim() == 2 and "_proj." in n]
    assert len(packed) == len(layered) > 60 and {part.form for part in packed.values()} == set(
        gguf_files.MIXTURES[mixture]
    )
    for name, part in model.module.named_parameters():
        if part.dtype != torch.uint8:
            torch.testing.assert_close(part.data, held[name].view(part.shape), rtol=1e-6, atol=1e-8)
    assert model.kind == "turbo" and torch.equal(model.silence, held["silence_latent"])
    kinds = gguf_files.MIXTURES[mixture]
    assert model.report.layout == "GGUF" and model.report.dtype == f"{', '.join(dict.fromkeys(kinds))} (float32)"
    assert model.report.loaded == len(wide) - 1 and not model.report.unexpected and not model.report.notes


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_precision_by_name_unpacks(tmp_path, wide, dtype):
    path = tmp_path / "turbo.gguf"
    held = gguf_files.write(path, wide, "Q5_K_M", config_json())
    model = load(path, dtype)
    assert not any(isinstance(part, PackedLinear) for part in model.module.modules())
    for name, part in model.module.named_parameters():
        assert torch.equal(part.data, held[name].view(part.shape).to(loading.PRECISIONS[dtype]))
    assert model.report.dtype == loading.name_of(loading.PRECISIONS[dtype]) and "auto keeps them" in model.report.text()


def test_fp8_and_int8_of_a_gguf_file_are_made_anew_and_said(tmp_path, wide):
    path = tmp_path / "turbo.gguf"
    held = gguf_files.write(path, wide, "Q8_0", config_json())
    with torch.no_grad():
        wanted = plain(held).decoder(*given())
    for form in ("fp8", *(("int8",) if quantize.is_available() else ())):
        model = load(path, form)
        assert form[:2] in model.report.dtype and "quantizing again" in model.report.text()
        assert 1e-3 < off_by(making.velocity(model, given()), wanted) < 0.1


def test_names_of_comfyui_and_shapes_of_their_own(tmp_path, wide):
    tensors = {f"model.diffusion_model.{name}": t for name, t in wide.items() if name != "silence_latent"}
    odd = "model.diffusion_model.decoder.proj_in.1.weight"
    path = tmp_path / "turbo.gguf"
    held = gguf_files.write(path, tensors, types={odd: "Q8_0"}, own_shapes=(odd,), trimmed=False, arch="acestep")
    model = load(path)
    assert model.silence is None and model.config.hidden_size == 256
    assert torch.equal(model.module.decoder.proj_in[1].weight, held[odd])


@pytest.mark.parametrize("mixture", ["Q8_0", "Q4_K_M"])
@pytest.mark.parametrize("magnitude", ["", "rows"])
def test_a_lora_plays_as_on_the_unpacked_weights(tmp_path, wide, mixture, magnitude):
    path = tmp_path / "turbo.gguf"
    gguf_files.write(path, wide, mixture, config_json())
    packed, unpacked = load(path), load(path, "fp32")
    names = ("layers.0.self_attn.q_proj", "layers.1.cross_attn.v_proj", "layers.3.mlp.down_proj")
    form = {n: making.form("lora", *making.Layers(WIDE).shapes[n]) for n in names}
    norms = {n: 1 + making.draw(256 if "v_proj" not in n else 128, 1).abs() if magnitude else None for n in names}
    jazz = making.Adapter("jazz", {n: making.Change(form[n], 0.5, norms[n]) for n in names}, 256)
    ours, theirs = (making.velocity(with_adapter(model, jazz, 0.8), given()) for model in (packed, unpacked))
    assert off_by(ours, making.velocity(packed, given())) > 1e-2 and off_by(ours, theirs) < 1e-3


def test_no_matrix_of_a_layer_is_ever_there_in_full(tmp_path, wide, monkeypatch):
    path = tmp_path / "turbo.gguf"
    gguf_files.write(path, wide, "Q4_K_M", config_json())
    made, real = [], loading._make

    def make(weights, sources, shape, dtype):
        made.append(sources[-1])
        return real(weights, sources, shape, dtype)

    monkeypatch.setattr(loading, "_make", make)
    model = load(path)
    assert not any(".layers." in name and name.endswith("_proj.weight") for name in made)
    whole = []
    for part in model.module.modules():
        if isinstance(part, PackedLinear):
            dense = part.dense
            part.dense = lambda dtype, dense=dense: _noted(dense(dtype), whole)
    making.velocity(model, given())
    assert len(whole) > 40 and all(storage.expired() for storage, _ in whole) and max(n for _, n in whole) <= 1
    stored = sum(t.numel() * t.element_size() for t in model.module.parameters())
    full = sum(t.numel() * 4 for name, t in wide.items() if name != "silence_latent")
    assert stored < 0.45 * full


def _noted(tensor, whole):
    whole.append((StorageWeakRef(tensor.untyped_storage()), sum(not storage.expired() for storage, _ in whole)))
    return tensor


def test_packed_weights_are_the_mapped_file(tmp_path, wide):
    path = tmp_path / "turbo.gguf"
    gguf_files.write(path, wide, "Q4_K_M", config_json())
    model = load(path)
    part = model.module.decoder.layers[0].mlp.down_proj
    with path.open("r+b") as file:
        at = path.read_bytes().find(part.weight.numpy().tobytes())
        file.seek(at)
        file.write(bytes(4))
    assert at > 0 and not part.weight[0, :4].any()


def test_text_encoder_and_planner(tmp_path):
    family = layouts.fixture("turbo")
    for name, part, loader, keeps in (
        ("Qwen3-Embedding-0.6B-Q8_0", family.text, loading.load_text_encoder, True),
        ("acestep-5Hz-lm-0.6B-Q8_0", family.lm, loading.load_language_model, False),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for file in part.tokenizer.glob("*token*"):
            (folder / file.name).write_bytes(file.read_bytes())
        for extra in ("vocab.json", "merges.txt"):
            if (part.tokenizer / extra).is_file():
                (folder / extra).write_bytes((part.tokenizer / extra).read_bytes())
        path = folder / f"{name}.gguf"
        tensors = {f"model.{n}": t for n, t in part.tensors.items()}
        held = gguf_files.write(path, tensors, "Q8_0", part.config, arch="acestep-lm")
        auto, as_stored = (loader(path, dtype=dtype, host=In()) for dtype in ("auto", "file"))
        assert _packs(auto.module) == keeps and _packs(as_stored.module)
        full = Qwen3(auto.module.config).requires_grad_(False)
        full.load_state_dict({n.removeprefix("model."): t for n, t in held.items()}, strict=False)
        ids = torch.tensor([[5, 8, 13, 2]])
        with torch.no_grad():
            wanted = full(ids)
            for model in (auto, as_stored):
                assert off_by(model.module(ids), wanted) < 1e-5
        assert ("makes writing fast" in auto.report.text()) != keeps


def _packs(module):
    return any(isinstance(part, PackedLinear) for part in module.modules())


@pytest.mark.usefixtures("without_nano")
def test_they_are_offered_and_found(tmp_path, wide):
    host = In(models=tmp_path)
    for folder in ("diffusion_models", "unet", "acestep"):
        (tmp_path / folder).mkdir()
        gguf_files.write(tmp_path / folder / f"acestep-v15-turbo-{folder}.gguf", wide, "Q4_K_M", config_json())
    names = [f"acestep-v15-turbo-{folder}.gguf" for folder in ("acestep", "diffusion_models", "unet")]
    assert catalog.list_choices(host, "dit") == names
    for name in names:
        assert catalog.resolve(host, "dit", name).path.name == name
    assert not catalog.list_choices(host, "lm") and "acestep-v15-turbo-unet.gguf" in catalog.describe_models(host)


@pytest.mark.usefixtures("without_nano")
def test_without_the_package_they_are_offered_and_loading_says_what_to_install(tmp_path, wide, monkeypatch):
    (tmp_path / "acestep").mkdir()
    path = tmp_path / "acestep" / "turbo.gguf"
    gguf_files.write(path, wide, "Q4_K_M", config_json())
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert catalog.list_choices(In(models=tmp_path), "dit") == ["turbo.gguf"]
    with pytest.raises(CheckpointError, match="pip install gguf.*ComfyUI") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_type_that_is_not_read_is_named_with_its_tensor(tmp_path):
    path = raw_file(tmp_path / "x.gguf", [("decoder.a.weight", (4, 256), 10), ("b.weight", (4, 256), 10)])
    with pytest.raises(CheckpointError, match="decoder.a.weight as Q2_K .2 tensors.*Q8_0.*Q4_K") as caught:
        load(path)
    assert str(path) in str(caught.value)


def raw_file(path, tensors, values=b"", count=0, version=3, data=b""):
    """A file of (name, shape, number of the type) and of metadata as it stands."""
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), count), values]
    for name, shape, kind in tensors:
        parts += [struct.pack("<Q", len(name)), name.encode(), struct.pack("<I", len(shape))]
        parts += [struct.pack("<Q", size) for size in reversed(shape)] + [struct.pack("<IQ", kind, 0)]
    path.write_bytes(b"".join(parts) + data)
    return path


def test_the_header_is_as_the_library_reads_it(tmp_path, wide):
    path = tmp_path / "x.gguf"
    gguf_files.write(path, wide, "Q4_K_M", config_json())
    ours, theirs = gguf_header(path), gguf.GGUFReader(path)
    assert json.loads(ours.config)["hidden_size"] == 256
    assert {n: s.type for n, s in ours.tensors.items()} == {t.name: t.tensor_type.name for t in theirs.tensors}
    assert {n: s.shape for n, s in ours.tensors.items()} == {
        t.name: tuple(reversed(t.shape.tolist())) for t in theirs.tensors
    }
    assert contents.components_in(path) == {"dit"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read|does not begin"),
        (b"GGML" + bytes(60), "does not begin as a GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "truncated"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", 77),
            "unknown kind 77",
        ),
        (b"GGUF" + struct.pack("<IQQQIQ", 3, 0, 1, 0, 8, 1 << 62), "truncated"),
    ],
)
def test_files_that_are_none(tmp_path, content, words):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load(path)


def test_files_cut_short_or_inconsistent(tmp_path, wide):
    with pytest.raises(CheckpointError, match="truncated: tensor 'a'"):
        load(raw_file(tmp_path / "a.gguf", [("a", (4, 4), 0)], data=bytes(40)))
    with pytest.raises(CheckpointError, match="'a' stands twice"):
        load(raw_file(tmp_path / "b.gguf", [("a", (1,), 0), ("a", (1,), 0)], data=bytes(90)))
    with pytest.raises(CheckpointError, match=r"rows of tensor 'a' \[4, 100\] are no whole blocks of Q4_K"):
        load(raw_file(tmp_path / "c.gguf", [("a", (4, 100), 12)], data=bytes(4000)))
    path = tmp_path / "d.gguf"
    gguf_files.write(path, wide, "Q4_K_M", config_json())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="truncated.*fetch the file again"):
        load(path)
    gguf_files.write(path, {n: t for n, t in wide.items() if "layers.2.mlp" not in n}, "Q4_K_M", config_json())
    with pytest.raises(CheckpointError, match="tensors are missing"):
        load(path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@hypothesis_given(
    st.dictionaries(st.integers(4, 420), st.integers(0, 255), min_size=1, max_size=4), st.none() | st.integers(0, 700)
)
def test_damage_anywhere_in_the_header_is_answered_in_words(tmp_path, changes, length):
    path = tmp_path / "x.gguf"
    gguf_files.write(path, {"a": making.draw(4, 256), "b.weight": making.draw(8)}, "Q4_K_M", {"is": "small"})
    raw = bytearray(path.read_bytes())
    for place, byte in changes.items():
        raw[place] = byte
    path.write_bytes(raw[:length])
    try:
        assert isinstance(gguf_header(path).tensors, dict)
    except CheckpointError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("acestep-v15-turbo-Q8_0.gguf", "acestep-v15-turbo"),
        ("acestep-v15-xl-sft-Q5_K_M.gguf", "acestep-v15-xl-sft"),
        ("sub/acestep-v15-turbo-shift3-BF16.gguf", "acestep-v15-turbo-shift3"),
        ("acestep_v1.5_turbo-Q4_K_M.gguf", "acestep-v15-turbo"),
        ("acestep-v15-base.gguf", "acestep-v15-base"),
        ("acestep-5Hz-lm-4B-Q6_K.gguf", "acestep-5Hz-lm-4B"),
        ("Qwen3-Embedding-0.6B-Q8_0.gguf", "Qwen3-Embedding-0.6B"),
        ("my-turbo-Q8_0.gguf", None),
        ("acestep-v15-turbo-Q8_0-better.gguf", None),
    ],
)
def test_what_a_published_name_stands_for(name, wanted):
    found = catalog.equivalents(name)
    assert (found and found.id) == wanted


def test_a_gguf_file_stands_in_where_there_is_nothing_else(tmp_path, wide):
    host = In(models=tmp_path)
    (tmp_path / "unet").mkdir()
    for mixture in ("Q8_0", "Q4_K_M"):
        gguf_files.write(tmp_path / "unet" / f"acestep-v15-turbo-{mixture}.gguf", wide, mixture, config_json())
    name = "acestep_v1.5_turbo.safetensors"
    found = catalog.resolve(host, "dit", name)
    assert (found.name, found.substituted_for) == ("acestep-v15-turbo-Q4_K_M.gguf", name)
    tiny.build(tmp_path)
    assert catalog.list_choices(host, "dit")[:3] == [
        name,
        "acestep-v15-turbo-Q4_K_M.gguf",
        "acestep-v15-turbo-Q8_0.gguf",
    ]
    assert catalog.resolve(host, "dit", name).substituted_for is None
