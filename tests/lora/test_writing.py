"""What is written reads back as the same adapter."""

import json
import stat
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from acestep_graph.acestep_core.lora import writing
from acestep_graph.acestep_core.lora.adapter import Adapter, Change, Kron
from acestep_graph.acestep_core.lora.formats import read_adapter

from . import making


@pytest.mark.parametrize("kind", making.FORM_KINDS)
@pytest.mark.parametrize("magnitude", ["", "rows", "columns"])
def test_a_file_of_every_form(tmp_path, kind, magnitude):
    made = making.adapter(kind, layers=(*making.LAYERS, making.ENTRY), scale=1.7, magnitude=magnitude)
    file = writing.write_file(made, tmp_path / "new" / "jazz.safetensors", about={"tag": "jzz"})
    read = read_adapter(file, making.config())
    assert making.same(read, made) and read.kinds == made.kinds
    assert read.report.about["tag"] == "jzz" and not read.report.unmatched and not read.report.notes


@settings(max_examples=30, deadline=None)
@given(
    layers=st.sets(st.sampled_from(sorted(making.shapes())), min_size=1, max_size=8),
    ranks=st.lists(st.integers(1, 9), min_size=8, max_size=8),
    scales=st.lists(st.sampled_from((0.5, 1.0, 2.0, 3**0.5)), min_size=8, max_size=8),
    dora=st.booleans(),
)
def test_both_writers_round_trip(tmp_path_factory, layers, ranks, scales, dora):
    magnitude = "rows" if dora else ""
    rows = zip(sorted(layers), ranks, scales, strict=False)
    changes = {n: making.change(n, rank=r, scale=s, magnitude=magnitude) for n, r, s in rows}
    made = Adapter("any", changes, making.config().hidden_size)
    folder = tmp_path_factory.mktemp("written")
    for path in (writing.write_file(made, folder / "a.safetensors"), writing.write_peft(made, folder / "a")):
        assert making.same(read_adapter(path, making.config()), made)


def test_every_pair_has_its_alpha(tmp_path):
    tensors = load_file(writing.write_file(making.adapter(scale=2.0), tmp_path / "a.safetensors"))
    pairs = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith("lora_A.weight")]
    assert pairs == [name.removesuffix(".alpha") for name in tensors if name.endswith(".alpha")]
    assert all(tensors[f"{stem}.alpha"] == 6.0 for stem in pairs)


def test_biases_are_kept_in_a_file_and_refused_in_a_folder(tmp_path):
    made = Adapter("b", {"condition_embedder": making.change("condition_embedder", bias=True)}, 32)
    assert making.same(read_adapter(writing.write_file(made, tmp_path / "a.safetensors"), making.config()), made)
    with pytest.raises(ValueError, match="a bias for condition_embedder"):
        writing.write_peft(made, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "made, what",
    [
        (lambda: making.adapter("lokr"), "LoKr"),
        (lambda: making.adapter("loha"), "LoHa"),
        (lambda: making.adapter(magnitude="columns"), "magnitudes of columns"),
    ],
)
def test_a_folder_of_peft_holds_lora_and_dora_only(tmp_path, made, what):
    with pytest.raises(ValueError, match=f"{what}.*Write a ComfyUI file"):
        writing.write_peft(made(), tmp_path / "a")


def test_dora_for_some_layers_goes_into_a_file(tmp_path):
    plain, dora = making.adapter(layers=making.LAYERS[:2]), making.adapter(layers=making.LAYERS[2:], magnitude="rows")
    made = Adapter("mixed", {**plain.changes, **dora.changes}, plain.width)
    with pytest.raises(ValueError, match="some layers only"):
        writing.write_peft(made, tmp_path / "a")
    assert making.same(read_adapter(writing.write_file(made, tmp_path / "a.safetensors"), making.config()), made)


def test_the_configuration_gives_nothing_away(tmp_path):
    folder = writing.write_peft(making.adapter(), tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "" and sorted(config["target_modules"]) == sorted(making.LAYERS)
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_another_precision(tmp_path):
    file = writing.write_file(making.adapter(), tmp_path / "a.safetensors", dtype=torch.bfloat16)
    dtypes = {name.rpartition(".")[2]: tensor.dtype for name, tensor in load_file(file).items()}
    assert dtypes == {"weight": torch.bfloat16, "alpha": torch.float32}
    assert making.same(read_adapter(file, making.config()), making.adapter(), tolerance=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
@pytest.mark.parametrize("kind", ["file", "folder", "lycoris"])
def test_magnitudes_keep_what_little_they_have_learned(tmp_path, kind, dtype):
    """After few steps a magnitude differs from the norm it began with by less than bfloat16 can tell."""
    made = making.adapter("lokr" if kind == "lycoris" else "lora", magnitude="rows")
    write = {"file": writing.write_file, "folder": writing.write_peft, "lycoris": writing.write_lycoris}[kind]
    place = write(made, tmp_path / ("a" if kind == "folder" else "a.safetensors"), dtype=dtype)
    file = place / "adapter_model.safetensors" if kind == "folder" else place
    found = {name: tensor.dtype for name, tensor in load_file(file).items()}
    scales = [name for name in found if name.endswith(("dora_scale", "lora_magnitude_vector"))]
    assert len(scales) == len(making.LAYERS) and {found[name] for name in scales} == {torch.float32}
    others = {found[name] for name in found if name not in scales and not name.endswith("alpha")}
    assert others == {dtype or torch.float32}
    for layer, change in read_adapter(place, making.config()).changes.items():
        assert torch.equal(change.magnitude, made.changes[layer].magnitude)


def test_magnitudes_of_few_bits_are_widened_as_they_are(tmp_path):
    made = making.adapter(magnitude="rows")
    halves = {n: replace(c, magnitude=c.magnitude.bfloat16()) for n, c in made.changes.items()}
    file = writing.write_file(Adapter("b", halves, made.width), tmp_path / "a.safetensors")
    for layer, change in read_adapter(file, making.config()).changes.items():
        assert torch.equal(change.magnitude, halves[layer].magnitude.float())


@pytest.mark.parametrize("write, name", [(writing.write_file, "a.safetensors"), (writing.write_peft, "a")])
def test_nothing_is_overwritten_unasked_and_nothing_is_left_beside(tmp_path, write, name):
    first, second = making.adapter(seed=1), making.adapter(seed=2)
    path = write(first, tmp_path / name)
    with pytest.raises(FileExistsError, match="there already"):
        write(second, path)
    assert making.same(read_adapter(path, making.config()), first)
    write(second, path, overwrite=True)
    assert making.same(read_adapter(path, making.config()), second)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    readable = stat.S_IMODE(path.stat().st_mode) & 0o444
    (tmp_path / "plain").touch()
    assert readable == stat.S_IMODE((tmp_path / "plain").stat().st_mode) & 0o444


def test_a_folder_that_is_something_else_is_never_replaced(tmp_path):
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="no folder of an adapter"):
        writing.write_peft(making.adapter(), tmp_path / "songs", overwrite=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["songs", "mine.txt"]


def test_a_broken_write_leaves_the_old_one(tmp_path, monkeypatch):
    paths = (
        writing.write_file(making.adapter(), tmp_path / "a.safetensors"),
        writing.write_peft(making.adapter(), tmp_path / "a"),
    )

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(writing, "save", full)
    for path, write in zip(paths, (writing.write_file, writing.write_peft), strict=True):
        with pytest.raises(OSError, match="no space"):
            write(making.adapter(seed=9), path, overwrite=True)
        assert making.same(read_adapter(path, making.config()), making.adapter())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.safetensors"]


def test_the_ending_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="must end with .safetensors"):
        writing.write_file(making.adapter(), tmp_path / "a.bin")


@pytest.mark.parametrize("kind", ["lokr", "lokr_pair"])
@pytest.mark.parametrize("magnitude", ["", "rows"])
def test_a_lokr_is_written_as_lycoris_writes_it(tmp_path, kind, magnitude):
    scale = 1.0 if kind == "lokr" else 1.5
    made = making.adapter(kind, scale=scale, magnitude=magnitude)
    for path in (writing.write_lycoris(made, tmp_path / "a.safetensors"), writing.write_folder(made, tmp_path / "a")):
        read = read_adapter(path, making.config())
        assert making.same(read, made) and read.report.layout == "LyCORIS file" and not read.report.notes
    file = tmp_path / "a" / "lokr_weights.safetensors"
    tensors, stem = load_file(file), f"lycoris_{making.LAYERS[0].replace('.', '_')}"
    wanted = {"lokr_w1", "alpha", *(["lokr_w2"] if kind == "lokr" else ["lokr_w2_a", "lokr_w2_b"])}
    assert {name.rpartition(".")[2] for name in tensors if name.startswith(stem)} - {"dora_scale"} == wanted
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    config = json.loads(header["lokr_config"])
    assert (header["algo"], header["format"], config["weight_decompose"]) == ("lokr", "lycoris", bool(magnitude))
    assert config["linear_dim"] == (
        3 if kind == "lokr_pair" else max(max(making.shapes()[layer]) // 2 for layer in making.LAYERS)
    )
    assert tensors[f"{stem}.alpha"] / config["linear_dim"] == scale
    assert file.read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_lycoris_is_told_how_a_lokr_is_split(tmp_path):
    def split(a, b, c, d):
        form = Kron((making.draw(a, b),), (making.draw(c, d),))
        return writing.lokr_config(Adapter("x", {"layers.0.self_attn.q_proj": Change(form)}, 32))["factor"]

    assert split(4, 4, 8, 8) == -1 and split(2, 2, 16, 16) == 2 and split(1, 4, 32, 8) == 4


def test_what_is_no_lokr_is_refused(tmp_path):
    for kind in ("lora", "lokr_pairs"):
        with pytest.raises(ValueError, match="with a whole lokr_w1 and no bias. Write a ComfyUI file"):
            writing.write_lycoris(making.adapter(kind), tmp_path / "a.safetensors")
    made = making.adapter("lokr")
    writing.write_folder(made, tmp_path / "a")
    with pytest.raises(FileExistsError):
        writing.write_folder(made, tmp_path / "a")
    writing.write_folder(made, tmp_path / "a", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
