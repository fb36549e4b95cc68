"""Model files that are replaced, changed or gone between two runs: noticed, loaded anew, or said in words."""

import gc
import os
import shutil
import weakref
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from acestep_graph.acestep_core.checkpoints import catalog, loading
from acestep_graph.acestep_core.checkpoints.contents import components_in
from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.host import Host, use
from acestep_graph.nodes import NODES, comfy_host
from tests import models
from tests.checkpoints import layouts

DIT, TEXT, VAE, LM = (
    NODES[f"ACEStepLoad{name}"][0] for name in ("DiffusionModel", "TextEncoder", "VAE", "LanguageModel")
)
ALL = NODES["ACEStepLoadModels"][0]
TURBO, SHARDED = "acestep-v15-turbo/model.safetensors", "acestep-v15-xl-turbo/model.safetensors.index.json"
NULL = "null_condition_emb"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(models.CHECKPOINTS, tmp_path / "acestep")
    with use(Host(models=tmp_path, device="cpu")):
        yield tmp_path / "acestep"


def changed(name=TURBO):
    return DIT.IS_CHANGED(diffusion_model=name, precision="fp32", kind="auto", download_missing=False)


def load(name=TURBO):
    return DIT().load(name, "fp32", False, "auto")[0]


def other_weights(file):
    """A file of the same names, shapes and size, with other numbers."""
    tensors = load_file(file)
    made = file.with_name("new.safetensors")
    save_file(
        {name: tensor * 2 if name == NULL else tensor for name, tensor in tensors.items()}, made, {"format": "pt"}
    )
    return made


@pytest.mark.parametrize("same_date", [False, True])
def test_a_file_of_the_same_name_and_size_is_noticed_and_loaded(folder, same_date):
    before, old = changed(), load()
    assert changed() == before
    file = folder / TURBO
    date = file.stat().st_mtime_ns
    made = other_weights(file)
    assert made.stat().st_size == file.stat().st_size
    if same_date:
        os.utime(made, ns=(date, date))
    os.replace(made, file)
    assert changed() != before
    new = load()
    assert torch.equal(new.module.null_condition_emb, 2 * old.module.null_condition_emb)


def test_written_over_in_place_with_its_date_kept(folder):
    file, before = folder / TURBO, changed()
    date = file.stat().st_mtime_ns
    content = other_weights(file).read_bytes()
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(date, date))
    assert changed() != before


def test_a_part_of_a_sharded_model_and_the_configuration_count(folder):
    for name, file in (
        (SHARDED, folder / "acestep-v15-xl-turbo" / "model-00002-of-00002.safetensors"),
        (TURBO, folder / "acestep-v15-turbo" / "config.json"),
    ):
        before = changed(name)
        copy = file.with_suffix(".copy")
        shutil.copy(file, copy)
        os.replace(copy, file)
        assert changed(name) != before


def test_every_loader_notices(folder):
    names = {
        (TEXT, "text_encoder"): "Qwen3-Embedding-0.6B/model.safetensors",
        (VAE, "vae"): "vae/diffusion_pytorch_model.safetensors",
        (LM, "language_model"): "acestep-5Hz-lm-0.6B/model.safetensors",
    }
    for (node, widget), name in names.items():
        before = node.IS_CHANGED(**{widget: name})
        together = all_of_them(names)
        shutil.copy(folder / name, folder / "copy")
        os.replace(folder / "copy", folder / name)
        assert node.IS_CHANGED(**{widget: name}) != before
        assert (all_of_them(names) != together) == (node is not LM)


def all_of_them(names):
    return ALL.IS_CHANGED(TURBO, names[TEXT, "text_encoder"], names[VAE, "vae"], precision="auto")


def test_a_file_that_is_gone(folder):
    before = changed()
    (folder / TURBO).unlink()
    assert changed() != before
    answer = DIT.VALIDATE_INPUTS(diffusion_model=TURBO, download_missing=False)
    for words in (
        "There is no diffusion model",
        TURBO,
        str(folder),
        "On this machine there is: acestep-v15-base",
        "download",
    ):
        assert words in answer
    with pytest.raises(catalog.ModelNotFound, match="There is no diffusion model"):
        load()
    part = folder / "acestep-v15-xl-turbo" / "model-00002-of-00002.safetensors"
    before = changed(SHARDED)
    part.unlink()
    assert changed(SHARDED) != before
    assert part.name in DIT.VALIDATE_INPUTS(diffusion_model=SHARDED)


def test_another_layout_stands_in_and_is_another_file(folder, tmp_path):
    before = changed()
    layouts.comfy(tmp_path, layouts.fixture("turbo"))
    (tmp_path / "diffusion_models" / "acestep-v15-turbo.safetensors").rename(
        tmp_path / "diffusion_models" / "acestep_v1.5_turbo.safetensors"
    )
    (folder / TURBO).unlink()
    assert "acestep_v1.5_turbo" in changed() != before


def test_a_file_that_cannot_be_read_holds_nothing_of_who_asked(tmp_path):
    class Big:
        pass

    def ask(big):
        (tmp_path / "model.safetensors").write_bytes(b"half a download")
        with pytest.raises(CheckpointError):
            components_in(tmp_path / "model.safetensors")
        return weakref.ref(big)

    held = ask(Big())
    gc.collect()
    assert held() is None
    with pytest.raises(CheckpointError):
        components_in(tmp_path / "model.safetensors")


def test_the_model_that_is_left_is_gone_before_the_next_is_read(folder, monkeypatch):
    """A module and what ComfyUI wraps it in hold each other."""
    monkeypatch.setattr(Host, "let_go", comfy_host.ComfyHost.let_go)
    alive, build = [], loading._build

    def spied(*given, **more):
        alive.append(sum(ref() is not None for ref in modules))
        return build(*given, **more)

    monkeypatch.setattr(loading, "_build", spied)
    modules = []
    for _ in range(2):
        module = load().module
        module.comfy_patcher = SimpleNamespace(model=module)
        modules.append(weakref.ref(module))
        del module
    assert alive[0] == 0 and set(alive) == {0}


def test_a_name_that_comes_through_a_link_is_no_error():
    for name, (cls, _) in ((name, NODES[name]) for name in NODES if hasattr(NODES[name][0], "IS_CHANGED")):
        inputs = cls.INPUT_TYPES()
        widgets = {key: None for group in ("required", "optional") for key in inputs.get(group, ())}
        first, second = cls.IS_CHANGED(**widgets), cls.IS_CHANGED(**widgets)
        weights = "Load" in name and "ACESTEP_MODEL" in cls.RETURN_TYPES
        assert not weights or first == second, name


class FolderPaths:
    """As much of ComfyUI's module as listing needs."""

    def __init__(self, models):
        self.models_dir = str(models)
        known = {".safetensors", ".ckpt", ".pt", ".bin"}
        self.folder_names_and_paths = {
            "diffusion_models": ([str(models / "unet"), str(models / "diffusion_models")], known),
            "text_encoders": ([str(models / "text_encoders")], known),
            "vae": ([str(models / "vae")], known),
        }

    def get_filename_list(self, kind):
        roots, endings = self.folder_names_and_paths[kind]
        found = (name for root in roots if os.path.isdir(root) for name in os.listdir(root))
        return sorted(name for name in found if os.path.splitext(name)[1] in endings)

    def _folder(self):
        return self.models_dir

    get_input_directory = get_output_directory = get_temp_directory = _folder


def test_gguf_files_are_listed_in_comfyui_s_own_folders(tmp_path, monkeypatch):
    for name in (
        "unet/a.gguf",
        "diffusion_models/b.gguf",
        "diffusion_models/c.safetensors",
        "vae/d.gguf",
        "acestep/e.gguf",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    paths = FolderPaths(tmp_path)
    own = set(paths.folder_names_and_paths["diffusion_models"][1])
    monkeypatch.setitem(__import__("sys").modules, "folder_paths", paths)
    comfy_host.register_model_folder(paths)
    host = comfy_host.ComfyHost()
    assert sorted(host.list_models("diffusion_models")) == ["a.gguf", "b.gguf", "c.safetensors"]
    assert host.list_models("vae") == ["d.gguf"] and host.list_models("acestep") == ["e.gguf"]
    assert host.list_models("loras") == [] and host.list_models("text_encoders") == []
    assert host.find_model("diffusion_models", "a.gguf") == tmp_path / "unet" / "a.gguf"
    assert paths.folder_names_and_paths["diffusion_models"][1] == own
