"""Damaged, wrong and hostile adapter files: a sentence, and nothing executed or allocated."""

import json
import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.lora.formats import read_adapter
from acestep_graph.acestep_core.lora.scales import fits
from acestep_graph.acestep_core.models.config import XL, ModelConfig
from tests import models

from . import making

Q = "base_model.model.layers.0.self_attn.q_proj"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
PAIR = {A: torch.ones(3, 32), B: torch.ones(32, 3)}


def refusal(path, config=None):
    with pytest.raises(CheckpointError) as caught:
        read_adapter(path, config or making.config())
    message = str(caught.value)
    assert str(path) in message and message.rstrip().endswith(".")
    return message


def refused(tmp_path, tensors, config=None):
    return refusal(making.save(tmp_path / "a.safetensors", tensors), config)


@pytest.mark.parametrize(
    "tensors, sentence",
    [
        ({A: torch.ones(3, 32)}, f"there is {A} but no lora_B"),
        ({B: torch.ones(32, 3)}, f"there is {B} but no lora_A"),
        ({A: torch.ones(3, 32), B: torch.ones(32, 4)}, "different ranks"),
        ({A: torch.ones(0, 32), B: torch.ones(32, 0)}, "rank is 0"),
        ({A: torch.ones(33, 32), B: torch.ones(32, 33)}, "rank 33.*at most 32"),
        ({A: torch.ones(100_000, 32), B: torch.ones(32, 100_000)}, "rank 100000.*no usable adapter"),
        ({A: torch.ones(3, 32, 1), B: torch.ones(32, 3)}, "3 dimensions"),
        ({A: torch.ones(3), B: torch.ones(32, 3)}, "1 dimensions"),
        ({**PAIR, A: torch.full((3, 32), float("nan"))}, "NaN or infinite"),
        ({**PAIR, B: torch.full((32, 3), float("-inf"))}, "NaN or infinite"),
        ({**PAIR, f"{Q}.alpha": torch.tensor(float("nan"))}, "NaN or infinite"),
        ({**PAIR, f"{Q}.alpha": torch.ones(3)}, "not a single number"),
        ({**PAIR, B: torch.full((32, 3), 1e300, dtype=torch.float64)}, "NaN or infinite"),
        ({**PAIR, A: torch.ones(3, 32, dtype=torch.int8)}, "is I8"),
        ({**PAIR, f"{Q}.lokr_w1": torch.ones(2, 2)}, "different formats"),
        ({**PAIR, f"{Q}.diff": torch.ones(32, 32)}, "different formats"),
        ({**PAIR, f"{Q}.lora_magnitude_vector": torch.ones(31)}, "magnitude is .31, 1."),
        ({**PAIR, f"{Q}.dora_scale": torch.ones(32, 1, 1)}, "magnitude"),
        ({**PAIR, f"{Q}.lora_B.bias": torch.ones(5)}, r"bias is \[5\]"),
        ({f"{Q}.lokr_w1": torch.ones(2, 2)}, "no lokr_w2"),
        ({f"{Q}.lokr_w1": torch.ones(2, 2), f"{Q}.lokr_w2_a": torch.ones(16, 2)}, "no lokr_w2_b"),
        (
            {f"{Q}.lokr_w1": torch.ones(2, 2), f"{Q}.lokr_w2": torch.ones(16, 16), f"{Q}.lokr_w2_a": torch.ones(16, 2)},
            "both whole and as a pair",
        ),
        (
            {
                f"{Q}.lokr_w1_a": torch.ones(2, 99),
                f"{Q}.lokr_w1_b": torch.ones(99, 2),
                f"{Q}.lokr_w2": torch.ones(16, 16),
            },
            "rank 99",
        ),
        ({f"{Q}.hada_w1_a": torch.ones(32, 2)}, "no hada_w1_b"),
        (
            {
                **{f"{Q}.hada_w{n}_a": torch.ones(32, 2) for n in (1, 2)},
                f"{Q}.hada_w1_b": torch.ones(2, 32),
                f"{Q}.hada_w2_b": torch.ones(2, 16),
            },
            "hada_w1 makes",
        ),
        (
            {**PAIR, f"diffusion_model.decoder.{Q.removeprefix('base_model.model.')}.lora_A.weight": torch.ones(3, 32)},
            "same tensor under two names",
        ),
        (
            {**PAIR, f"{Q}.lora_A.default.weight": torch.ones(3, 32)},
            "same tensor under two names",
        ),
        (
            {f"{Q}.lora_A.jazz.weight": torch.ones(3, 32), f"{Q}.lora_B.rock.weight": torch.ones(32, 3)},
            "several adapters .jazz, rock",
        ),
        ({"lora_te_text_model.lora_A.weight": torch.ones(3, 32)}, "no adapter for ACE-Step 1.5"),
        ({"weight": torch.ones(3)}, "no adapter for ACE-Step 1.5"),
        ({f"{Q}.alpha": torch.tensor(3.0)}, "no adapter for ACE-Step 1.5"),
        ({}, "no adapter for ACE-Step 1.5"),
    ],
)
def test_each_defect_has_its_sentence(tmp_path, tensors, sentence):
    assert re.search(sentence, refused(tmp_path, tensors))


def two_of(layer, out, inside, rank=4):
    return {
        f"base_model.model.{layer}.lora_A.weight": torch.ones(rank, inside),
        f"base_model.model.{layer}.lora_B.weight": torch.ones(out, rank),
    }


@pytest.mark.parametrize(
    "layer, shape",
    [
        ("layers.0.self_attn.q_proj", (4096, 2560)),
        ("layers.0.self_attn.o_proj", (2560, 4096)),
        ("layers.5.cross_attn.k_proj", (1024, 2560)),
        ("layers.31.mlp.gate_proj", (9728, 2560)),
        ("layers.0.mlp.down_proj", (2560, 9728)),
        ("time_embed.linear_1", (2560, 256)),
        ("condition_embedder", (2560, 2048)),
    ],
)
def test_an_xl_adapter_on_a_2b_model(tmp_path, layer, shape):
    tensors = two_of(layer, *shape) | two_of("layers.0.mlp.up_proj", 9728, 2560)
    message = refused(tmp_path, tensors, ModelConfig())
    assert "width 2560 (XL); the loaded model has 2048 (2B)" in message
    assert read_adapter(tmp_path / "a.safetensors", XL).width == 2560


def test_a_2b_adapter_on_an_xl_model_in_every_form(tmp_path):
    stem = "lycoris_layers_0_self_attn_q_proj"
    lokr = {f"{stem}.lokr_w1": torch.ones(32, 32), f"{stem}.lokr_w2": torch.ones(64, 64)}
    for tensors in (two_of("layers.3.self_attn.q_proj", 2048, 2048), lokr):
        assert "width 2048 (2B); the loaded model has 2560 (XL)" in refused(tmp_path, tensors, XL)


def test_the_tiny_models_refuse_each_other(tmp_path):
    file = making.save(tmp_path / "a.safetensors", making.spelled(making.adapter(), lambda n: f"base_model.model.{n}"))
    assert "width 32; the loaded model has 40" in refusal(file, models.diffusion("xl-turbo").config)


def test_the_same_width_with_other_heads(tmp_path):
    message = refused(tmp_path, two_of("layers.0.self_attn.k_proj", 32, 32))
    assert "k_proj is 32 × 32, the model's is 16 × 32" in message


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    "content", [Trap(), {A: Trap()}, {"optimizer": {A: torch.ones(3)}}, [torch.ones(2)], {1: torch.ones(2)}]
)
def test_pickles_hold_tensors_or_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    refusal(tmp_path / "a.pt")
    (tmp_path / "b.bin").write_bytes(pickle.dumps(content))
    refusal(tmp_path / "b.bin")


def test_a_tensor_that_only_claims_to_be_large_is_refused_from_its_shape(tmp_path):
    torch.save({A: torch.ones(1, 1).expand(10**9, 32), B: torch.ones(1, 1).expand(32, 10**9)}, tmp_path / "a.pt")
    assert "rank 1000000000" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["training_state.pt", "last_checkpoint.pt", "jazz_200steps_checkpoint.pt"])
def test_states_of_training_runs_are_no_adapters(tmp_path, name):
    torch.save({}, tmp_path / name)
    assert "state of a training run" in refusal(tmp_path / name)


@pytest.mark.parametrize("suffix", ["gguf", "txt", "npz"])
def test_other_endings(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"x" * 64)
    assert "not read" in refusal(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    "config, sentence",
    [
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ({"peft_type": "OFT"}, "type OFT"),
        ({"peft_type": ["x"]}, "type"),
        ({"lora_alpha": "loud"}, "'loud', not a number"),
        ({"lora_alpha": float("nan")}, "makes no scale"),
        ({"lora_alpha": 1e99}, "makes no scale"),
        ({"lora_alpha": True}, "not a number"),
        ({"r": 0}, "r is 0"),
        ({"alpha_pattern": ["q_proj"]}, "not a table"),
        ({"alpha_pattern": {"q_proj": None}}, "not a number"),
        ({"alpha_pattern": {"(a*)*$": 1}}, "write them out"),
        ({"alpha_pattern": {"a**b": 1}}, "write them out"),
        ({"alpha_pattern": {"[q]_proj": 1}}, "write them out"),
        ({"use_qalora": True}, "use_qalora"),
        ({"layer_replication": [[0, 3]]}, "layer_replication"),
        ({"arrow_config": {"top_k": 1}}, "arrow_config"),
    ],
)
def test_configurations(tmp_path, config, sentence):
    making.save(tmp_path / "adapter_model.safetensors", PAIR)
    (tmp_path / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        read_adapter(tmp_path, making.config())
    assert sentence in str(caught.value) and "adapter_config.json" in str(caught.value)


@pytest.mark.parametrize("content", ["{", "3", '{"lora_alpha": "x"}'])
def test_headers_of_diffusers(tmp_path, content):
    file = making.save(tmp_path / "a.safetensors", PAIR, {"lora_adapter_metadata": content})
    refusal(file)


def test_patterns_are_ends_of_names():
    name = "layers.1.self_attn.q_proj"
    assert all(fits(p, name) for p in ("q_proj", "self_attn.q_proj", r"layers\.1\..*", ".*q_proj", f"^{name}$", name))
    assert not any(fits(p, name) for p in ("proj", "^q_proj", "ayers.1.self_attn.q_proj", "layers.1", "k_proj", ""))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_file_gives_an_adapter_or_a_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    file = making.save(folder / "a.safetensors", making.spelled(making.adapter(layers=making.LAYERS[:2]), str))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content))) or None])
    try:
        read = read_adapter(file, making.config())
    except CheckpointError as error:
        assert str(file) in str(error)
    else:
        assert all(torch.isfinite(t).all() for change in read.changes.values() for t in change.tensors())


@settings(max_examples=60, deadline=None)
@given(
    parts=st.dictionaries(
        st.sampled_from(
            ["lora_A.weight", "lora_B.weight", "lora_B.bias", "alpha", "scalar", "dora_scale", "diff", "diff_b"]
            + [f"lokr_w{n}{end}" for n in (1, 2) for end in ("", "_a", "_b")]
            + [f"hada_w{n}{end}" for n in (1, 2) for end in ("_a", "_b")]
        ),
        st.lists(st.sampled_from((0, 1, 2, 3, 16, 32)), max_size=3),
        max_size=6,
    )
)
def test_any_parts_of_any_shape_give_an_adapter_or_a_sentence(tmp_path_factory, parts):
    tensors = {f"{Q}.{part}": torch.ones(shape) for part, shape in parts.items()}
    file = making.save(tmp_path_factory.mktemp("parts") / "a.safetensors", tensors)
    try:
        read = read_adapter(file, making.config())
    except CheckpointError as error:
        assert str(file) in str(error)
    else:
        assert read.changes["layers.0.self_attn.q_proj"].form.shape == (32, 32)
