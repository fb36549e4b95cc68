"""Finding models: what files are, told from headers, and which published model a name stands for."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from acestep_graph.acestep_core.checkpoints import catalog, contents, layouts
from acestep_graph.acestep_core.checkpoints.header import safetensors_header
from acestep_graph.acestep_core.host import Host

pytestmark = pytest.mark.usefixtures("without_nano")

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "checkpoints"
LYRIC = layouts.DIT_MARK


def weights(path, tensors):
    """A safetensors file with these names and shapes whose data is a hole in the file."""
    table, position = {}, 0
    for name, shape in tensors.items():
        end = position
        size = 1
        for dimension in shape:
            size *= dimension
        end += size
        table[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(table).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + position)
    return path


DIT = {LYRIC: (8,), "decoder.layers.0.self_attn_norm.weight": (8,), "encoder.lyric_encoder.embed_tokens.weight": (8, 8)}


def qwen(prefix="", rows=151_669, width=1024):
    return {f"{prefix}embed_tokens.weight": (rows, width), f"{prefix}layers.0.self_attn.q_norm.weight": (128,)}


def vae(prefix="", form="weight_v", strides=(10, 6, 4, 4, 2), latents=64, stable_audio=False):
    first, up = (
        ("decoder.layers.0", "decoder.layers.{}.layers.1")
        if stable_audio
        else ("decoder.conv1", "decoder.block.{}.conv_t1")
    )
    shapes = {f"{prefix}{first}.{form}": (16, latents, 7)}
    for number, stride in enumerate(strides):
        shapes[f"{prefix}{up.format(number + stable_audio)}.{form}"] = (8, 8, 2 * stride)
    return shapes


def prefixed(prefix, tensors):
    return {prefix + name: shape for name, shape in tensors.items()}


@pytest.fixture
def host(tmp_path):
    return Host(models=tmp_path / "models")


@pytest.fixture
def published(tmp_path):
    """The fixtures' model tree as a user would have it in the ``acestep`` folder."""
    shutil.copytree(FIXTURES, tmp_path / "models" / "acestep")
    return Host(models=tmp_path / "models")


def test_the_published_folders_are_offered_each_for_what_it_is(published):
    assert catalog.list_choices(published, "dit") == [
        "acestep-v15-turbo/model.safetensors",
        "acestep-v15-base/model.safetensors",
        "acestep-v15-xl-turbo/model.safetensors.index.json",
    ]
    assert catalog.list_choices(published, "text") == ["Qwen3-Embedding-0.6B/model.safetensors"]
    assert catalog.list_choices(published, "lm") == ["acestep-5Hz-lm-0.6B/model.safetensors"]
    assert catalog.list_choices(published, "vae") == ["vae/diffusion_pytorch_model.safetensors"]


def test_a_published_tree_lying_directly_in_the_models_folder():
    host = Host(models=FIXTURES)
    assert len(catalog.list_choices(host, "dit")) == 3
    assert (
        catalog.resolve(host, "vae", "ace_1.5_vae.safetensors").path
        == FIXTURES / "vae/diffusion_pytorch_model.safetensors"
    )


def test_no_models_at_all(host):
    for component in catalog.COMPONENTS:
        assert catalog.list_choices(host, component) == []
    assert "acestep-graph download" in catalog.describe_models(host)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (DIT, "dit"),
        (prefixed("model.", DIT), "dit"),
        (prefixed("diffusion_model.", DIT), "dit"),
        (prefixed("model.diffusion_model.", DIT), "dit"),
        ({"layers.0.scale_shift_table": (1, 6, 8), "proj_in_conv.weight": (8, 192, 2)}, "dit"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (8, 4, 3, 3)}, ""),
        ({f"base_model.model.{LYRIC}.lora_A.weight": (4, 8)}, ""),
        (qwen(), "text"),
        (qwen("model."), "text"),
        (qwen(rows=217_204, width=2048), "lm"),
        (qwen("model.", rows=217_344, width=2560), "lm"),
        (qwen(rows=151_936), ""),
        (qwen(rows=151_936, width=2560), ""),
        (qwen("model.", rows=262_208, width=3840), ""),
        ({"model.embed_tokens.weight": (128_256, 64)}, ""),
        (vae(), "vae"),
        (vae(form="weight"), "vae"),
        (vae(form="parametrizations.weight.original1", stable_audio=True), "vae"),
        (vae(stable_audio=True), "vae"),
        (vae("vae.", stable_audio=True), "vae"),
        (vae(strides=(8, 8, 4, 4, 2), stable_audio=True), ""),
        (vae(latents=128), ""),
        ({"decoder.conv1.weight": (384, 16, 3, 3, 3)}, ""),
        ({"silence_latent": (1, 64, 900)}, ""),
    ],
)
def test_what_a_file_is(tmp_path, tensors, expected):
    path = weights(tmp_path / "x.safetensors", tensors)
    assert contents.components_in(path) == ({expected} if expected else set())


def all_in_one(rows=151_669, lm_rows=217_204):
    return {
        **prefixed("model.diffusion_model.", DIT),
        **vae("vae.", stable_audio=True),
        **qwen("text_encoders.qwen3_06b.transformer.model.", rows, 1024 if rows > 1e5 else 32),
        **qwen("text_encoders.qwen3_2b.transformer.model.", lm_rows, 64),
    }


@pytest.mark.parametrize("rows", [(151_669, 217_204), (666, 1041)])
def test_the_all_in_one_checkpoint_offers_everything(host, rows):
    weights(host.models / "checkpoints" / catalog.AIO_FILE, all_in_one(*rows))
    for component in catalog.COMPONENTS:
        assert catalog.list_choices(host, component) == [catalog.AIO_FILE]
    found = catalog.resolve(host, "lm", "qwen_1.7b_ace15.safetensors")
    assert (found.kind_of_folder, found.name) == ("checkpoints", catalog.AIO_FILE)
    assert found.substituted_for == "qwen_1.7b_ace15.safetensors"


def test_a_planner_of_another_size_plans_where_the_one_that_was_named_is_not_here(host):
    asked = "qwen_1.7b_ace15.safetensors"
    with pytest.raises(catalog.ModelNotFound, match="acestep-graph download acestep-5Hz-lm-1.7B"):
        catalog.resolve(host, "lm", asked)
    for present, taken in (("4B", "4B"), ("0.6B", "0.6B")):  # the smaller one, once both are there
        folder = f"acestep-5Hz-lm-{present}"
        path = weights(host.models / "acestep" / folder / "model.safetensors", qwen(rows=217_204, width=64))
        found = catalog.resolve(host, "lm", asked)
        assert (found.name, found.substituted_for) == (f"acestep-5Hz-lm-{taken}/{path.name}", asked)
        assert found.stands_in and "acestep-graph download acestep-5Hz-lm-1.7B" in found.note
    weights(host.models / "text_encoders" / asked, qwen(rows=217_204, width=64))
    assert not catalog.resolve(host, "lm", asked).stands_in
    other = catalog.resolve(host, "lm", "acestep-5Hz-lm-1.7B/model.safetensors")
    assert other.name == asked and not other.stands_in
    with pytest.raises(catalog.ModelNotFound):
        catalog.resolve(host, "lm", "mine.safetensors")


def test_small_test_models_are_told_apart_by_tokenizer_then_by_name(tmp_path):
    small = qwen(rows=700, width=32)
    for folder, tokenizer, expected in [
        ("a", '{"<|audio_code_0|>": 666}', "lm"),
        ("b", '{"<think>": 664}', "text"),
        ("acestep-5Hz-lm-0.6B", '{"<think>": 664}', "text"),
        ("acestep-5Hz-lm-0.6B-v4-fix", None, "lm"),
        ("other", None, "text"),
    ]:
        path = weights(tmp_path / folder / "model.safetensors", small)
        if tokenizer:
            (path.parent / "added_tokens.json").write_text(tokenizer)
        hint = catalog._name_hint(f"{folder}/model.safetensors")
        assert contents.components_in(path, hint) == {expected}, folder
    assert catalog._name_hint("qwen_1.7b_ace15.safetensors") == "lm"


def test_files_that_cannot_be_read_are_left_out_and_explained(published):
    folder = published.models / "acestep"
    for damaged in ("acestep-v15-turbo/model.safetensors", "acestep-v15-xl-turbo/model-00002-of-00002.safetensors"):
        os.truncate(folder / damaged, 5000)
    assert catalog.list_choices(published, "dit") == ["acestep-v15-base/model.safetensors"]
    with pytest.raises(catalog.ModelNotFound, match="truncated.*there is: acestep-v15-base"):
        catalog.resolve(published, "dit", "acestep-v15-turbo/model.safetensors")
    assert "Left out, because they cannot be read" in catalog.describe_models(published)


def test_a_shard_that_arrives_later_is_noticed(published):
    part = published.models / "acestep/acestep-v15-xl-turbo/model-00002-of-00002.safetensors"
    part.rename(part.with_suffix(".away"))
    assert len(catalog.list_choices(published, "dit")) == 2
    part.with_suffix(".away").rename(part)
    assert len(catalog.list_choices(published, "dit")) == 3


def test_headers_are_read_once(published, monkeypatch):
    catalog.list_choices(published, "vae")
    monkeypatch.setattr(contents, "shapes_in", lambda path: pytest.fail(f"read {path} again"))
    published.list_models = lambda kind: ["acestep-v15-turbo/model.safetensors"] if kind == "acestep" else []
    assert len(catalog.list_choices(published, "dit")) == 1


def test_a_file_replaced_under_the_same_name_is_read_again(host):
    path = weights(host.models / "vae" / "x.safetensors", vae())
    assert catalog.list_choices(host, "vae") == ["x.safetensors"]
    weights(path, DIT)
    assert catalog.list_choices(host, "vae") == []


def test_torch_files_are_known_by_their_names(host):
    torch = pytest.importorskip("torch")
    path = host.models / "acestep/acestep-v15-sft/pytorch_model.bin"
    path.parent.mkdir(parents=True)
    torch.save({name: torch.zeros(shape) for name, shape in DIT.items()}, path)
    torch.save(torch.zeros(1, 64, 9), path.parent / "silence_latent.pt")
    assert catalog.list_choices(host, "dit") == ["acestep-v15-sft/pytorch_model.bin"]


NAMES = {
    "acestep_v1.5_turbo.safetensors": "acestep-v15-turbo",
    "sub/acestep_v1.5_turbo.safetensors": "acestep-v15-turbo",
    "sub\\ACEStep_v1.5_turbo.safetensors": "acestep-v15-turbo",
    "acestep_v1.5_turbo_bf16.safetensors": "acestep-v15-turbo",
    "acestep_v1.5_base.safetensors": "acestep-v15-base",
    "acestep_v1.5_xl_sft_bf16.safetensors": "acestep-v15-xl-sft",
    "acestep-v15-turbo/model.safetensors": "acestep-v15-turbo",
    "ace/acestep-v15-turbo/pytorch_model.bin": "acestep-v15-turbo",
    "acestep-v15-turbo.safetensors": "acestep-v15-turbo",
    "acestep-v15-turbo-shift3/model.safetensors": "acestep-v15-turbo-shift3",
    "acestep-v15-xl-turbo/model.safetensors.index.json": "acestep-v15-xl-turbo",
    "acestep-v15-xl-turbo-diffusers/transformer/diffusion_pytorch_model.safetensors": "acestep-v15-xl-turbo",
    "acestep-v15-xl-turbo-diffusers/vae/diffusion_pytorch_model.safetensors": "vae",
    "acestep-v15-xl-turbo-diffusers/text_encoder/model.safetensors": "Qwen3-Embedding-0.6B",
    "Qwen3-Embedding-0.6B/model.safetensors": "Qwen3-Embedding-0.6B",
    "qwen_0.6b_ace15.safetensors": "Qwen3-Embedding-0.6B",
    "qwen_4b_ace15.safetensors": "acestep-5Hz-lm-4B",
    "acestep-5Hz-lm-0.6B/model.safetensors": "acestep-5Hz-lm-0.6B",
    "ace_1.5_vae.safetensors": "vae",
    "vae/diffusion_pytorch_model.safetensors": "vae",
    "ace_step_1.5_turbo_aio.safetensors": "acestep-v15-turbo",
    "acestep-v15-turbo-mine/model.safetensors": None,
    "acestep-v15-turbo/adapter_model.safetensors": None,
    "acestep-5Hz-lm-0.6B-v4-fix/model.safetensors": None,
    "vae.safetensors": None,
    "model.safetensors": None,
    "": None,
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_names_of_published_models(name, expected):
    found = catalog.equivalents(name)
    assert (found.id if found else None) == expected


def test_the_component_decides_for_the_all_in_one_checkpoint():
    assert catalog.equivalents(catalog.AIO_FILE, "vae").id == "vae"
    assert catalog.equivalents(catalog.AIO_FILE, "lm").id == "acestep-5Hz-lm-1.7B"
    assert catalog.equivalents("ace_1.5_vae.safetensors", "dit") is None


def test_a_workflow_made_with_another_layout_runs(published):
    exact = catalog.resolve(published, "dit", "acestep-v15-turbo/model.safetensors")
    assert exact.substituted_for is None and exact.kind_of_folder == "acestep"
    for component, asked, used in [
        ("dit", "acestep_v1.5_turbo.safetensors", "acestep-v15-turbo/model.safetensors"),
        ("dit", catalog.AIO_FILE, "acestep-v15-turbo/model.safetensors"),
        ("dit", "acestep_v1.5_xl_turbo_bf16.safetensors", "acestep-v15-xl-turbo/model.safetensors.index.json"),
        ("dit", "my/acestep-v15-base/model.safetensors", "acestep-v15-base/model.safetensors"),
        ("text", "qwen_0.6b_ace15.safetensors", "Qwen3-Embedding-0.6B/model.safetensors"),
        ("vae", "ace_1.5_vae.safetensors", "vae/diffusion_pytorch_model.safetensors"),
    ]:
        found = catalog.resolve(published, component, asked)
        assert (found.name, found.substituted_for) == (used, asked)
        assert found.path == published.models / "acestep" / used


def test_and_the_other_way_round(host):
    weights(host.models / "diffusion_models/ace/acestep_v1.5_turbo.safetensors", DIT)
    found = catalog.resolve(host, "dit", "acestep-v15-turbo/model.safetensors")
    assert (found.kind_of_folder, found.name) == ("diffusion_models", "ace/acestep_v1.5_turbo.safetensors")


def test_a_split_file_is_preferred_to_the_all_in_one_checkpoint(host):
    weights(host.models / "checkpoints" / catalog.AIO_FILE, all_in_one())
    weights(host.models / "vae/ace_1.5_vae.safetensors", vae(stable_audio=True))
    assert catalog.resolve(host, "vae", "vae/diffusion_pytorch_model.safetensors").name == "ace_1.5_vae.safetensors"


def test_a_part_is_answered_with_its_index(published):
    part = catalog.resolve(published, "dit", "acestep-v15-xl-turbo/model-00001-of-00002.safetensors")
    assert part.name == "acestep-v15-xl-turbo/model.safetensors.index.json"


def test_a_missing_model_is_answered_with_all_that_helps(published):
    with pytest.raises(catalog.ModelNotFound) as caught:
        catalog.resolve(published, "dit", "acestep_v1.5_xl_sft_bf16.safetensors")
    text = str(caught.value)
    for words in (
        "no diffusion model 'acestep_v1.5_xl_sft_bf16.safetensors'",
        str(published.models / "diffusion_models"),
        "acestep-v15-base/model.safetensors",
        "acestep-graph download acestep-v15-xl-sft",
        f"https://huggingface.co/{catalog.COMFY_REPO}/resolve/main/split_files/diffusion_models/acestep_v1.5_xl_sft_bf16",
    ):
        assert words in text
    with pytest.raises(catalog.ModelNotFound, match="no VAE 'mine.safetensors'"):
        catalog.resolve(published, "vae", "mine.safetensors")


def test_a_file_of_another_kind_is_named_for_what_it_is(published):
    with pytest.raises(catalog.ModelNotFound, match="is not an ACE-Step 1.5 diffusion model; it is a VAE"):
        catalog.resolve(published, "dit", "vae/diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a\0b", "..", "x/../../../secret.safetensors"]
)
def test_names_cannot_leave_the_model_folders(host, name):
    weights(host.models.parent / "secret.safetensors", DIT)
    with pytest.raises(catalog.ModelNotFound):
        catalog.resolve(host, "dit", name)


def test_the_description_lists_what_is_here_and_what_can_be_had(published):
    text = catalog.describe_models(published)
    assert "acestep-v15-xl-turbo/model.safetensors.index.json  (Turbo, XL; 935 kB;" in text
    assert "turbo                         acestep-v15-turbo, Qwen3-Embedding-0.6B, vae (all here)" in text
    assert "acestep-5Hz-lm-4B             Language model, 4B (8.4 GB)" in text


def test_the_catalog_is_consistent():
    assert len({model.id.lower() for model in catalog.MODELS}) == len(catalog.MODELS)
    for model in catalog.MODELS:
        assert model.component in catalog.COMPONENTS and (model.kind is None) == (model.component != "dit")
        assert model.subfolder in ("", model.folder) and (model.repo == catalog.MAIN_REPO) == bool(model.subfolder)
        weight = "diffusion_pytorch_model" if model.component == "vae" else "model"
        assert catalog.equivalents(f"{model.folder}/{weight}.safetensors") is model
        if model.comfy:
            assert model.comfy.folder in catalog.FOLDER_KINDS[model.component]
            assert catalog.equivalents(model.comfy.name, model.component) is model
    for members in catalog.GROUPS.values():
        assert [catalog.BY_ID[member].component for member in members] == ["dit", "text", "vae"]


def test_sizes_follow_from_the_published_shapes():
    parameters = {"acestep-v15-turbo": 2_393_872_518, "acestep-v15-xl-base": 4_987_310_726, "vae": 168_695_426}
    for name, count in parameters.items():
        assert catalog.BY_ID[name].bytes == pytest.approx(2 * count, rel=2e-3)


def test_the_catalog_needs_no_torch():
    code = (
        "import sys; sys.path.insert(0, '.'); from tests import pack; pack.load()\n"
        "from acestep_graph.acestep_core.checkpoints import catalog, download\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'transformers', 'huggingface_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_fixture_helper_writes_real_safetensors(tmp_path):
    names, _ = safetensors_header(weights(tmp_path / "x.safetensors", DIT))
    assert names[LYRIC] == ("U8", (8,))
