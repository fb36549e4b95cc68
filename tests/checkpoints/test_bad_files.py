"""Damaged, wrong and hostile files: one clear error that names the file, and nothing is ever executed."""

import builtins
import json
import os
import pickle
import shutil
import struct
import zipfile
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.checkpoints.layouts import DIT_MARK
from tests.checkpoints import layouts

LOADERS = {
    "dit": partial(loading.load_diffusion_model, dtype="file"),
    "text": partial(loading.load_text_encoder, dtype="file"),
    "vae": partial(loading.load_vae, dtype="file"),
    "lm": partial(loading.load_language_model, dtype="file"),
}
Q_PROJ = "decoder.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The turbo and XL models of the fixtures in their original folders, to be copied."""
    root = tmp_path_factory.mktemp("models")
    layouts.original(root, layouts.fixture("turbo"))
    layouts.original(root / "xl", layouts.fixture("xl-turbo"), form="sharded")
    return root


@pytest.fixture
def folder(written, tmp_path):
    """A copy of the turbo folder to spoil."""
    return shutil.copytree(written / "acestep-v15-turbo", tmp_path / "acestep-v15-turbo")


def refused(component, path, *words):
    """The message of the one error that loading ``path`` gives; it names the path and ``words``."""
    with pytest.raises(CheckpointError) as caught:
        LOADERS[component](path)
    message = str(caught.value)
    assert all(word in message for word in (str(path), *words)), message
    return message


def change(folder, **changes):
    """Rewrite the weights with some tensors changed; None takes a tensor out."""
    file = folder / "model.safetensors"
    tensors = load_file(file) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)
    return folder


def test_missing_tensors_are_named(folder):
    change(folder, **{Q_PROJ: None, "null_condition_emb": None})
    refused("dit", folder, f"2 of 209 tensors are missing: {Q_PROJ}, null_condition_emb.")


def test_renamed_tensors_are_named(folder):
    tensors = load_file(folder / "model.safetensors")
    change(folder, **{Q_PROJ: None, "decoder.layers.1.attn.q.weight": tensors[Q_PROJ]})
    refused("dit", folder, f"1 of 209 tensors are missing: {Q_PROJ}.")


def test_misshapen_tensors_are_named(folder):
    change(folder, **{Q_PROJ: torch.zeros(32, 31), "null_condition_emb": torch.zeros(1, 1, 32, dtype=torch.int64)})
    refused("dit", folder, f"{Q_PROJ} is [32, 31], expected [32, 32]", "null_condition_emb is I64")


def test_two_spellings_of_one_tensor(folder, tmp_path):
    layouts.diffusers(tmp_path / "d", layouts.fixture("turbo"))
    file = tmp_path / "d/transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    old = tensors["layers.1.self_attn.to_q.weight"].clone()
    save_file(tensors | {"layers.1.self_attn.q_proj.weight": old}, file)
    refused("dit", tmp_path / "d", "same tensor", Q_PROJ)


@pytest.mark.parametrize("size", [0, 5, 2000, 400_000, 600_000])
def test_truncated_files(folder, size):
    os.truncate(folder / "model.safetensors", size)
    refused("dit", folder, "truncated")


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_truncated_torch_files(written, tmp_path, size):
    path = layouts.original(tmp_path, layouts.fixture("turbo"), form="bin").dit
    os.truncate(path / "pytorch_model.bin", size)
    refused("dit", path, "damaged or not a PyTorch file")


@pytest.mark.parametrize(
    ("component", "other", "words"),
    [
        ("dit", "vae", "not an ACE-Step 1.5 diffusion model: it is a VAE"),
        ("dit", "Qwen3-Embedding-0.6B", "it is a text encoder"),
        ("vae", "Qwen3-Embedding-0.6B", "not an ACE-Step 1.5 VAE: it is a text encoder"),
        ("text", "acestep-v15-turbo", "not an ACE-Step 1.5 text encoder: it is a diffusion model"),
        ("text", "acestep-5Hz-lm-0.6B", "it is a language model"),
        ("lm", "Qwen3-Embedding-0.6B", "not an ACE-Step 1.5 language model: it is a text encoder"),
    ],
)
def test_another_part_of_the_family(written, component, other, words):
    refused(component, written / other, words)


@pytest.mark.parametrize(
    ("component", "names", "words"),
    [
        ("dit", {"base_model.model.layers.0.self_attn.q_proj.lora_A.weight": (4, 8)}, "it looks like a LoRA"),
        ("dit", {f"base_model.model.{DIT_MARK}.lora_A.weight": (4, 8)}, "it looks like a LoRA"),
        ("dit", {"input_blocks.0.0.weight": (4, 4)}, "unknown (input_blocks.0.0.weight"),
        ("dit", {}, "it holds no tensors"),
        (
            "dit",
            {"layers.0.scale_shift_table": (1, 6, 8), "proj_in_conv.weight": (8, 192, 2)},
            "diffusers folder without",
        ),
        ("text", {"embed_tokens.weight": (151936, 8), "layers.0.self_attn.q_norm.weight": (8,)}, "another vocabulary"),
        (
            "vae",
            {"decoder.layers.0.bias": (8,), "decoder.layers.0.weight_v": (8, 64, 7)},
            "autoencoder of another model",
        ),
    ],
)
def test_models_of_others(tmp_path, component, names, words):
    save_file(
        {name: torch.zeros(shape, dtype=torch.float16) for name, shape in names.items()}, tmp_path / "x.safetensors"
    )
    refused(component, tmp_path / "x.safetensors", words)


def test_the_autoencoder_of_stable_audio(tmp_path):
    family = layouts.fixture("turbo")
    strided = {
        n: torch.zeros(8, 8, 16) if n.endswith("block.1.conv_t1.weight_v") else t for n, t in family.vae.tensors.items()
    }
    save_file(layouts.stable_audio(strided), tmp_path / "vae.safetensors")
    refused("vae", tmp_path / "vae.safetensors", "an autoencoder of another model")


@pytest.mark.parametrize(
    ("config", "weights"),
    [("acestep-v15-turbo", "xl/acestep-v15-xl-turbo"), ("acestep-v15-xl-turbo", "acestep-v15-turbo")],
)
def test_the_configuration_of_another_size(written, tmp_path, config, weights):
    folder = shutil.copytree(written / weights, tmp_path / "mixed")
    shutil.copyfile(layouts.FIXTURES / config / "config.json", folder / "config.json")
    refused("dit", folder, "tensors do not fit the model", "expected")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 3}, "fewer layers than the file, which has decoder.layers.3."),
        ({"num_hidden_layers": 5}, "tensors are missing: decoder.layers.4."),
        ({"num_hidden_layers": 10**9}, "more layers than the file has tensors"),
        ({"hidden_size": "32"}, "no model can be built from config.json"),
        ({"hidden_size": -1}, "no model can be built from config.json"),
        ({"hidden_size": 10**18}, "no model can be built from config.json"),
        ({"fsq_input_levels": 8}, "no model can be built from config.json"),
        ({"layer_types": 3}, "no model can be built from config.json"),
        ({"lyric_alignment_layers_config": [1]}, "no model can be built from config.json"),
    ],
)
def test_spoilt_configurations(folder, changes, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    refused("dit", folder, words)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_configurations_that_are_none(folder, content):
    (folder / "config.json").write_bytes(content)
    refused("dit", folder, "config.json")


@pytest.mark.parametrize("shape", ["[NaN, 2]", "[1e99]", "[Infinity]", "[-1]", "null"])
def test_headers_with_numbers_that_are_none(tmp_path, shape):
    raw = f'{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 8]}}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))
    refused("dit", tmp_path / "x.safetensors", "'a'")


def test_quantized_files_are_refused_in_words(folder):
    tensors = load_file(folder / "model.safetensors")
    stem = Q_PROJ.removesuffix("weight")
    for changes in (
        {f"{stem}scale_weight": torch.ones(1)},
        {Q_PROJ: tensors[Q_PROJ].to(torch.float8_e4m3fn), f"{stem}weight_scale": torch.ones(512, 3)},
        {Q_PROJ: tensors[Q_PROJ].to(torch.int8)},
        {Q_PROJ: torch.zeros(512, 1, dtype=torch.uint8), f"{Q_PROJ}.absmax": torch.zeros(16)},
        {f"{stem}comfy_quant": torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)},
    ):
        change(folder, **(tensors | changes))
        refused("dit", folder, "it is quantized", "bf16, fp16 or fp32")
        change(folder, **{name: None for name in changes})


def test_other_formats(tmp_path):
    for name in ("model.onnx", "model.safetensors.part"):
        (tmp_path / name).write_bytes(b"GGUF" + bytes(100))
        refused("dit", tmp_path / name, "this format is not read")
    refused("dit", tmp_path, "holds no weight file")
    refused("vae", tmp_path / "none.safetensors", "does not exist")


def test_tokenizer_files_of_another_model(written, tmp_path):
    folder = shutil.copytree(written / "Qwen3-Embedding-0.6B", tmp_path / "text")
    table = json.loads((folder / "tokenizer.json").read_text())
    table["added_tokens"] += [{**table["added_tokens"][0], "id": 700 + n, "content": f"<{n}>"} for n in range(5)]
    (folder / "tokenizer.json").write_text(json.dumps(table))
    refused("text", folder, "671 tokens but the model only 666")
    (folder / "tokenizer.json").write_text("{")
    refused("text", folder, "tokenizer.json cannot be read as a tokenizer")


def test_tokenizer_files_of_a_smaller_model_beside_the_only_file(tmp_path):
    path = layouts.comfy(tmp_path, layouts.published_like()).text
    for other in path.parent.glob("*.safetensors"):
        if other != path:
            other.unlink()
    shutil.copyfile(layouts.FIXTURES / "Qwen3-Embedding-0.6B/tokenizer.json", path.parent / "tokenizer.json")
    refused("text", path, "666 tokens but the model 151", "in a folder of its own")


@pytest.mark.parametrize("target", ["../outside.safetensors", "/etc/passwd", "..\\outside.safetensors", "", ".."])
def test_an_index_that_points_elsewhere(written, tmp_path, target):
    folder = shutil.copytree(written / "xl/acestep-v15-xl-turbo", tmp_path / "xl")
    shutil.copyfile(folder / "model-00001-of-00003.safetensors", tmp_path / "outside.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = {n: target if "00001" in f else f for n, f in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused("dit", folder, "points to")


def test_missing_shards_are_named(written, tmp_path):
    folder = shutil.copytree(written / "xl/acestep-v15-xl-turbo", tmp_path / "xl")
    (folder / "model-00002-of-00003.safetensors").unlink()
    refused("dit", folder, "lacks 1 of 3 parts: model-00002-of-00003.safetensors")


class Reduced:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def hostile(mark):
    """Objects whose unpickling would create the file ``mark``."""
    make = f"open({str(mark)!r}, 'w').close()"
    evaluated = Reduced(builtins.eval, make)
    return {
        "os.system": Reduced(os.system, f"touch {mark}"),
        "eval": evaluated,
        "exec in a list in a dict": {"a": [{"b": Reduced(builtins.exec, make)}]},
        "reduce in a reduce": Reduced(torch._utils._rebuild_tensor_v2, evaluated, 0, (1,), (1,), False, {}),
        "getattr": Reduced(getattr, Reduced(__import__, "os"), "system"),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", hostile("x"))
@pytest.mark.parametrize("name", ["pytorch_model.bin", "silence_latent.pt"])
def test_hostile_pickles_run_nothing(folder, tmp_path, name, case, zipped):
    thing = hostile(tmp_path / "executed")[case]
    if name == "pytorch_model.bin":
        thing = load_file(folder / "model.safetensors") | {"decoder.extra": thing}
        (folder / "model.safetensors").unlink()
    if zipped:
        torch.save(thing, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(thing, protocol=2))
    refused("dit", folder, name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("case", ["os.system", "eval", "exec in a list in a dict"])
def test_the_hostile_samples_would_do_harm(tmp_path, case):
    pickle.loads(pickle.dumps(hostile(tmp_path / "executed")[case]))
    assert (tmp_path / "executed").exists()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_state_dicts_that_hold_more_than_tensors(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "aside")
    tensor = torch.zeros(2)
    for state in ([tensor], {"a": [tensor]}, {1: tensor}, {"a": tensor.to_sparse()}, {"a": tensor.to("meta")}, tensor):
        torch.save(state, folder / "pytorch_model.bin")
        refused("dit", folder, "is not a state dict of tensors")
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}q\x00." * 3 + b"R")
    refused("dit", folder, "pytorch_model.bin")


@pytest.mark.parametrize(
    "silence",
    [
        *(torch.zeros(1, 63, 900), torch.zeros(2, 64, 900), torch.zeros(64), torch.zeros(1, 64, 0)),
        *(torch.zeros(1, 64, 9, dtype=torch.int64), torch.full((1, 64, 9), float("nan")), {"silence": 1}),
    ],
)
def test_a_silence_latent_that_is_none(folder, silence):
    torch.save(silence, folder / "silence_latent.pt")
    refused("dit", folder, "silence_latent.pt", "the silence latent is not a tensor [1, 64, frames]")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Small files that load with and without a configuration, and the tensors they load to."""
    families = {"dit": layouts.published_like(), "text": layouts.fixture("turbo")}
    made = {}
    for component, family in families.items():
        path = getattr(layouts.original(tmp_path_factory.mktemp(component), family), component)
        module = LOADERS[component](path).module
        made[component] = (path / "model.safetensors", {n: p.clone() for n, p in module.named_parameters()})
    return made


place = st.floats(0, 1)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), place, st.none()),
        st.tuples(st.just("byte"), place, st.integers(0, 255)),
        st.tuples(st.just("rename"), place, st.sampled_from(["x", "decoder.layers.77777777.a", "layers.7.a", ".v"])),
        st.tuples(st.just("prefix"), place, st.sampled_from(["model.", "diffusion_model.", "other."])),
        st.tuples(st.just("note"), place, st.text(max_size=5)),
    ),
    min_size=1,
    max_size=3,
)


def mutate(content, steps):
    """A safetensors file with its end cut, a byte of its header changed, or its tensors renamed."""
    for what, where, value in steps:
        (length,) = struct.unpack("<Q", content[:8].ljust(8, b"\0"))
        if what == "cut":
            content = content[: int(where * len(content))]
        elif what == "byte" and content:
            at = int(where * (min(8 + length, len(content)) - 1))
            content = content[:at] + bytes([value]) + content[at + 1 :]
        else:
            try:
                header = json.loads(content[8 : 8 + length])
            except ValueError:
                continue
            name = list(header)[int(where * (len(header) - 1))]
            if what == "rename":
                header[value] = header.pop(name)
            elif what == "prefix":
                header = {name if name == "__metadata__" else value + name: header[name] for name in header}
            elif what == "note":
                header["__metadata__"] = {"note": value}
            raw = json.dumps(header).encode()
            content = struct.pack("<Q", len(raw)) + raw + content[8 + length :]
    return content


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(component=st.sampled_from(["dit", "text"]), steps=changes, with_config=st.booleans())
def test_a_changed_file_loads_to_the_same_tensors_or_is_refused(small, tmp_path, component, steps, with_config):
    valid, tensors = small[component]
    file = tmp_path / "model.safetensors"
    file.write_bytes(mutate(valid.read_bytes(), steps))
    (tmp_path / "config.json").unlink(missing_ok=True)
    for beside in ("config.json", "tokenizer.json") if with_config else ("tokenizer.json",):
        if (valid.parent / beside).is_file():
            shutil.copyfile(valid.parent / beside, tmp_path / beside)
    try:
        module = LOADERS[component](file).module
    except CheckpointError as error:
        assert str(file) in str(error) or str(tmp_path) in str(error)
        return
    ours = dict(module.named_parameters())
    assert set(ours) == set(tensors) and all(torch.equal(ours[name], tensors[name]) for name in ours)
