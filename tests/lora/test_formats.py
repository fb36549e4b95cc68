"""Every published spelling of one adapter reads as the same adapter."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.lora.formats import read_adapter
from acestep_graph.acestep_core.lora.layers import Layers
from acestep_graph.acestep_core.lora.names import parse
from acestep_graph.acestep_core.models.config import ModelConfig

from . import making

DIFFUSERS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "o_proj": "to_out.0"}


def diffusers(layer):
    stem, _, leaf = layer.rpartition(".")
    return f"{stem}.{DIFFUSERS.get(leaf, leaf)}".lstrip(".")


def under(layer):
    return layer.replace(".", "_")


SPELLINGS = {
    "PEFT": lambda layer: f"base_model.model.{layer}",
    "doubled prefix": lambda layer: f"base_model.model.base_model.model.{layer}",
    "whole model": lambda layer: f"base_model.model.decoder.{layer}",
    "ComfyUI": lambda layer: f"diffusion_model.decoder.{layer}",
    "ComfyUI, old": lambda layer: f"diffusion_model.{layer}",
    "checkpoint": lambda layer: f"model.diffusion_model.decoder.{layer}",
    "bare": lambda layer: layer,
    "diffusers": lambda layer: f"transformer.{diffusers(layer)}",
    "kohya": lambda layer: f"lora_unet_decoder_{under(layer)}",
    "kohya, old": lambda layer: f"lora_unet_{under(layer)}",
    "LyCORIS": lambda layer: f"lycoris_{under(layer)}",
    "LyCORIS, whole model": lambda layer: f"lycoris_decoder_{under(layer)}",
    "underscored diffusers": lambda layer: f"lora_transformer_{under(diffusers(layer))}",
}
ENDINGS = (
    ("lora_A.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("lora.down.weight", "lora.up.weight"),
    ("lora_A", "lora_B"),
)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("endings", ENDINGS, ids=lambda pair: pair[0])
def test_every_spelling_is_the_same_adapter(tmp_path, spelling, endings):
    made = making.adapter(scale=2.5)
    file = making.save(tmp_path / "a.safetensors", making.spelled(made, SPELLINGS[spelling], *endings))
    read = read_adapter(file, making.config())
    assert making.same(read, made)
    assert not read.report.unmatched and len(read.report.matched) == 3 * len(made.changes)
    assert read.ranks == (3,) and read.alphas == (7.5,) and read.width == making.config().hidden_size


@settings(max_examples=40, deadline=None)
@given(
    layers=st.sets(st.sampled_from(sorted(making.shapes())), min_size=1, max_size=6),
    spelling=st.sampled_from(sorted(SPELLINGS)),
    rank=st.integers(1, 12),
    scale=st.sampled_from((0.25, 1.0, 3.0)),
    seed=st.integers(0, 50),
)
def test_any_layers_any_rank(tmp_path_factory, layers, spelling, rank, scale, seed):
    made = making.adapter(layers=sorted(layers), rank=rank, scale=scale, seed=seed)
    folder = tmp_path_factory.mktemp("any")
    read = read_adapter(
        making.save(folder / "a.safetensors", making.spelled(made, SPELLINGS[spelling])), making.config()
    )
    assert making.same(read, made) and read.ranks == (rank,)


@given(st.text(max_size=40) | st.from_regex(r"[a-z_.]*(lora_A|alpha|lokr_w1)[a-z_.]*", fullmatch=True))
def test_any_name_is_answered(name):
    key = parse(name)
    layer, reason = Layers(making.config()).find(key.stem if key else name)
    assert (layer is None) == bool(reason)


def test_every_linear_layer_of_the_published_sizes_is_known_by_underscores_too():
    layers = Layers(ModelConfig())
    assert len(layers.shapes) == 24 * 11 + 7 + 1
    for layer in layers.shapes:
        for spelling in SPELLINGS.values():
            name = spelling(layer)
            assert layers.find(name.removeprefix("base_model.model."))[0] == layer


def lycoris(kind, made, alpha=None, **more):
    """Tensors of a LoKr, LoHa or full adapter as LyCORIS names them."""
    tensors = {}
    for layer, change in made.changes.items():
        stem = f"lycoris_{under(layer)}"
        chains = change.form.chains()
        if kind == "full":
            tensors[f"{stem}.diff"] = chains[0][0]
        for number, chain in enumerate(chains, start=1) if kind != "full" else ():
            name = f"{'hada' if kind == 'loha' else 'lokr'}_w{number}"
            ends = ("_a", "_b") if len(chain) == 2 else ("",)
            tensors |= {f"{stem}.{name}{end}": t for end, t in zip(ends, chain, strict=True)}
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
        tensors |= {f"{stem}.{name}": value for name, value in more.items()}
        if change.magnitude is not None:
            tensors[f"{stem}.dora_scale"] = change.magnitude
    return tensors


@pytest.mark.parametrize("kind", ["lokr", "lokr_pair", "lokr_pairs", "loha", "full"])
@pytest.mark.parametrize("magnitude", ["", "rows", "columns"])
def test_lycoris_forms(tmp_path, kind, magnitude):
    whole = kind in ("lokr", "full")
    layers = (*making.LAYERS, making.ENTRY)
    made = making.adapter(kind, layers=layers, scale=1.0 if whole else 2.0, magnitude=magnitude)
    tensors = lycoris(kind, made, alpha=6.0)
    for part in ("lokr_w2", "diff", "dora_scale"):
        name = f"lycoris_proj_in_1.{part}"
        if name in tensors:
            tensors[name] = tensors[name][..., None] if part == "dora_scale" else tensors[name].unflatten(1, (-1, 2))
    file = making.save(tmp_path / "a.safetensors", tensors)
    read = read_adapter(file, making.config())
    assert making.same(read, made)
    assert read.ranks == (() if whole else (3,)), "alpha of whole matrices is no scale"
    assert read.report.layout == "LyCORIS file"


def test_scalar_multiplies(tmp_path):
    made = making.adapter("lokr_pair", scale=0.5)
    file = making.save(tmp_path / "a.safetensors", lycoris("lokr_pair", made, alpha=3, scalar=torch.tensor(0.5)))
    assert making.same(read_adapter(file, making.config()), made)


@pytest.mark.parametrize("spelling", ["lora_magnitude_vector", "lora_magnitude_vector.weight", "dora_scale"])
def test_dora_magnitudes(tmp_path, spelling):
    made = making.adapter(magnitude="rows")
    tensors = making.spelled(made, SPELLINGS["PEFT"])
    for layer, change in made.changes.items():
        flat = change.magnitude if spelling == "dora_scale" else change.magnitude.flatten()
        tensors[f"base_model.model.{layer}.{spelling}"] = flat
    read = read_adapter(making.save(tmp_path / "a.safetensors", tensors), making.config())
    assert making.same(read, made) and read.kinds == ("DoRA",)


def test_biases_of_both_kinds(tmp_path):
    made = making.adapter(layers=("condition_embedder",), scale=2.0)
    tensors, bias = making.spelled(made, SPELLINGS["PEFT"]), making.draw(making.config().hidden_size)
    stem = "base_model.model.condition_embedder"
    by_pair = making.save(tmp_path / "a.safetensors", {**tensors, f"{stem}.lora_B.bias": bias})
    by_diff = making.save(tmp_path / "b.safetensors", {**tensors, f"{stem}.diff_b": 2 * bias})
    ours = [read_adapter(file, making.config()).changes["condition_embedder"].bias for file in (by_pair, by_diff)]
    torch.testing.assert_close(ours[0], 2 * bias)
    torch.testing.assert_close(ours[0], ours[1])


def peft_folder(folder, made, **config):
    folder.mkdir(parents=True)
    making.save(folder / "adapter_model.safetensors", making.spelled(made, SPELLINGS["PEFT"], alpha=False))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 3, **config}))
    return folder


@pytest.mark.parametrize(
    "config, scale",
    [
        ({"lora_alpha": 6}, 2.0),
        ({"lora_alpha": 6, "use_rslora": True}, 6 / 3**0.5),
        ({"lora_alpha": 6, "r": 99}, 2.0),
        ({"lora_alpha": 3, "alpha_pattern": {"q_proj": 9}}, {"q_proj": 3.0, "": 1.0}),
        ({"lora_alpha": 3, "alpha_pattern": {"^layers.0.self_attn.q_proj": 9}}, {"q_proj": 3.0, "": 1.0}),
        ({"lora_alpha": 3, "alpha_pattern": {"decoder.layers.*q_proj": 9}}, {"q_proj": 3.0, "": 1.0}),
        ({"lora_alpha": 3, "alpha_pattern": {r"layers\.0\..*": 9, "q_proj": 30}}, {"q_proj": 3.0, "": 1.0}),
        ({"lora_alpha": 3, "alpha_pattern": {"self_attn.q": 9, "proj": 9}}, 1.0),
    ],
)
def test_scales_of_a_peft_folder(tmp_path, config, scale):
    read = read_adapter(peft_folder(tmp_path / "jazz", making.adapter(), **config), making.config())
    for layer, change in read.changes.items():
        expected = scale if isinstance(scale, float) else scale["q_proj" if layer.endswith("q_proj") else ""]
        assert change.scale == pytest.approx(expected)
    assert (read.name, read.report.layout) == ("jazz", "PEFT folder")


def test_the_original_nests_its_folder(tmp_path):
    peft_folder(tmp_path / "final" / "adapter", making.adapter(), lora_alpha=6)
    read = read_adapter(tmp_path / "final", making.config())
    assert read.alphas == (6.0,) and read.name == "final"


def test_old_folders_hold_a_pickle_of_tensors(tmp_path):
    folder = peft_folder(tmp_path / "old", making.adapter(), lora_alpha=6)
    (folder / "adapter_model.safetensors").unlink()
    torch.save(making.spelled(making.adapter(), SPELLINGS["PEFT"], alpha=False), folder / "adapter_model.bin")
    assert making.same(read_adapter(folder, making.config()), making.adapter(scale=2.0))


def test_a_lone_file_without_alpha_plays_at_scale_one_and_says_so(tmp_path):
    file = making.save(tmp_path / "jazz.safetensors", making.spelled(making.adapter(), SPELLINGS["PEFT"], alpha=False))
    read = read_adapter(file, making.config())
    assert making.same(read, making.adapter())
    assert any("does not say its alpha" in note for note in read.report.notes) and read.report.layout == "PEFT file"
    louder = read_adapter(file, making.config(), alpha=6)
    assert making.same(louder, making.adapter(scale=2.0))
    assert "Alpha 6 was given" in louder.text()


def test_a_configuration_beside_counts_only_where_it_can_be_meant(tmp_path):
    folder = peft_folder(tmp_path / "jazz", making.adapter(), lora_alpha=6)
    assert read_adapter(folder / "adapter_model.safetensors", making.config()).alphas == (6.0,)
    tensors = making.spelled(making.adapter(), SPELLINGS["PEFT"], alpha=False)
    other = making.save(folder / "other.safetensors", tensors)
    assert read_adapter(other, making.config()).alphas == (3.0,), "two files: it may be the other's"
    (folder / "adapter_model.safetensors").unlink()
    alone = read_adapter(other, making.config())
    assert alone.alphas == (6.0,) and any("Alpha is taken from" in note for note in alone.report.notes)


def test_an_alpha_in_the_file_wins_over_the_configuration(tmp_path):
    folder = peft_folder(tmp_path / "jazz", making.adapter(), lora_alpha=600)
    making.save(folder / "adapter_model.safetensors", making.spelled(making.adapter(scale=2.0), SPELLINGS["PEFT"]))
    assert read_adapter(folder, making.config()).alphas == (6.0,)


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_diffusers_writes_its_configuration_into_the_header(tmp_path, prefix):
    config = {f"{prefix}{k}": v for k, v in {"r": 3, "lora_alpha": 3, "alpha_pattern": {"to_q": 12}}.items()}
    tensors = making.spelled(making.adapter(), SPELLINGS["diffusers"], alpha=False)
    file = making.save(tmp_path / "a.safetensors", tensors, {"lora_adapter_metadata": json.dumps(config)})
    read = read_adapter(file, making.config())
    assert {layer: change.scale for layer, change in read.changes.items()} == {
        layer: 4.0 if layer.endswith("q_proj") else 1.0 for layer in making.LAYERS
    }
    assert read.report.layout == "diffusers file"


def test_integer_alphas_and_half_precision(tmp_path):
    made = making.adapter(scale=2.0)
    tensors = {name: t.bfloat16() for name, t in making.spelled(made, SPELLINGS["kohya"]).items()}
    tensors |= {name: torch.tensor(6) for name in tensors if name.endswith("alpha")}
    read = read_adapter(making.save(tmp_path / "a.safetensors", tensors), making.config())
    assert making.same(read, made, tolerance=1e-2)
    assert {change.form.up.dtype for change in read.changes.values()} == {torch.bfloat16}


def test_what_is_not_used_is_listed_with_its_reason(tmp_path):
    pair = {"lora_A.weight": torch.ones(2, 4), "lora_B.weight": torch.ones(4, 2)}
    strangers = {
        "base_model.model.layers.99.mlp.up_proj": "numbered from 0",
        "base_model.model.proj_out.1": "transposed convolution",
        "base_model.model.norm_out": "norm",
        "base_model.model.encoder.text_projector": "condition encoder",
        "lora_te_text_model": "text encoder",
        "base_model.model.tokenizer.project": "tokenizer",
        "something": "no layer of this name",
    }
    tensors = making.spelled(making.adapter(), SPELLINGS["PEFT"])
    used = len(tensors)
    tensors |= {f"{stem}.{end}": value for stem in strangers for end, value in pair.items()}
    tensors["step"] = torch.ones(1)
    tensors["base_model.model.layers.0.mlp.up_proj.alpha"] = torch.tensor(4.0)
    tensors["base_model.model.layers.0.mlp.gate_proj.lokr_t2"] = torch.ones(2, 2, 3)
    read = read_adapter(making.save(tmp_path / "a.safetensors", tensors), making.config())
    reasons = dict(read.report.unmatched)
    for stem, part in strangers.items():
        assert part in reasons[f"{stem}.lora_A.weight"]
    assert "no part of an adapter" in reasons["step"]
    assert "pair" in reasons["base_model.model.layers.0.mlp.up_proj.alpha"]
    assert "convolution" in reasons["base_model.model.layers.0.mlp.gate_proj.lokr_t2"]
    assert len(read.report.matched) == used and len(reasons) + used == len(tensors)
    assert f"{used} tensors used, {len(reasons)} not used" in read.text()


@pytest.mark.parametrize("algorithm", ["lora", "lokr", "loha"])
def test_of_a_convolution_in_tucker_form_nothing_is_taken_and_the_rest_plays(tmp_path, algorithm):
    made = making.adapter()
    tensors = making.spelled(made, SPELLINGS["kohya"])
    used, (out, inside) = len(tensors), (32, 192)
    middle = torch.ones(4, 4, 2)
    change = {
        "lora": {"lora_down.weight": (4, inside, 1), "lora_up.weight": (out, 4, 1)},
        "lokr": {"lokr_w1": (8, 8), "lokr_w2_a": (4, out // 8), "lokr_w2_b": (4, inside // 8)},
        "loha": {f"hada_w{n}_{part}": (4, size) for n in (1, 2) for part, size in (("a", out), ("b", inside))},
    }[algorithm]
    names = {"lora": ("lora_mid.weight",), "lokr": ("lokr_t2",), "loha": ("hada_t1", "hada_t2")}[algorithm]
    parts = {name: torch.ones(shape) for name, shape in change.items()} | dict.fromkeys(names, middle)
    parts["alpha"] = torch.tensor(4.0)
    tensors |= {f"lora_unet_decoder_proj_in_1.{name}": value.clone() for name, value in parts.items()}
    read = read_adapter(making.save(tmp_path / "a.safetensors", tensors), making.config())
    assert making.same(read, made) and len(read.report.matched) == used
    assert len(read.report.unmatched) == len(parts)
    assert all("Tucker" in reason for _, reason in read.report.unmatched)
    assert any("proj_in.1 is left out" in note for note in read.report.notes)


def test_what_the_file_says_about_itself_is_shown(tmp_path):
    tensors = making.spelled(making.adapter(), SPELLINGS["PEFT"])
    file = making.save(tmp_path / "a.safetensors", tensors, {"tag": "jzz", "secret": "x" * 99})
    assert "tag: jzz" in read_adapter(file, making.config()).text()


def test_an_adapter_of_zeros_says_that_it_does_nothing(tmp_path):
    tensors = making.spelled(making.adapter(), SPELLINGS["PEFT"])
    tensors |= {name: 0 * t for name, t in tensors.items() if "lora_B" in name}
    read = read_adapter(making.save(tmp_path / "a.safetensors", tensors), making.config())
    assert any("changes nothing" in note for note in read.report.notes)


def test_a_file_overwritten_later_does_not_change_what_was_read(tmp_path):
    file = making.save(tmp_path / "a.safetensors", making.spelled(making.adapter(), SPELLINGS["PEFT"]))
    read = read_adapter(file, making.config())
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(size // 2)
        stream.write(b"\0" * (size - size // 2))
    assert making.same(read, making.adapter())
    assert read.sha256 != read_adapter(file, making.config()).sha256


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 1e12])
def test_a_given_alpha_is_a_number(alpha):
    with pytest.raises(ValueError, match="finite"):
        read_adapter("nowhere.safetensors", making.config(), alpha=alpha)


def test_a_given_alpha_leaves_whole_matrices_alone(tmp_path):
    made = making.adapter("lokr")
    file = making.save(tmp_path / "a.safetensors", lycoris("lokr", made, alpha=6.0))
    assert making.same(read_adapter(file, making.config(), alpha=50), made)


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_adapter(tmp_path / "a.safetensors", making.config())
    with pytest.raises(CheckpointError, match="holds no adapter"):
        read_adapter(tmp_path, making.config())
