"""Tiers, estimates and guards against the original's values, for simulated cards of 0 to 96 GB."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.checkpoints.gguf_header import BLOCKS
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.memory import estimate
from acestep_graph.acestep_core.memory.tiers import (
    SIMULATE,
    TIERS,
    best_planner,
    lm_size_of,
    named,
    simulated,
    tier_of,
)
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.config import XL, ModelConfig
from acestep_graph.nodes.system import report
from tests.pack import ROOT

GIVEN = json.loads((ROOT / "tests" / "fixtures" / "prompts.json").read_text("utf-8"))
PREFIX = "acestep-5Hz-lm-"


def same_limits(ours, theirs):
    assert (ours.longest_with_lm, ours.longest) == (theirs["max_duration_with_lm"], theirs["max_duration_without_lm"])
    assert (ours.batch_with_lm, ours.batch) == (theirs["max_batch_size_with_lm"], theirs["max_batch_size_without_lm"])
    assert [PREFIX + size for size in ours.lm_sizes] == theirs["available_lm_models"]
    assert ours.lm == theirs["init_lm_default"]
    assert ours.lm_quota == pytest.approx(theirs["lm_memory_gb"])


@pytest.mark.parametrize("theirs", GIVEN["gpu_tiers"], ids=lambda case: f"{case['query_vram_gb']} GB")
def test_the_table_is_the_originals(theirs):
    ours = tier_of(theirs["query_vram_gb"])
    assert ours.name == theirs["tier"]
    same_limits(ours, theirs)
    assert (PREFIX + ours.lm_recommended if ours.lm_recommended else "") == theirs["recommended_lm_model"]
    switches = (ours.offload, ours.offload_dit, ours.int8, ours.compile)
    names = ("offload_to_cpu", "offload_dit_to_cpu", "quantization", "compile_model")
    assert switches == tuple(theirs[f"{name}_default"] for name in names)


@pytest.mark.parametrize("case", GIVEN["gpu_duration_batch_checks"], ids=str)
def test_what_is_too_long_or_too_many(case):
    tier = tier_of(case["vram"])
    if "dur" in case:
        value, note = estimate.clamp_duration(case["dur"], tier, case["vram"], case["lm"])
        assert (note == "") == case["ok"] and (value == case["dur"]) == case["ok"]
    else:
        assert (case["batch"] <= tier.batch_for(case["lm"])) == case["ok"]


@pytest.mark.parametrize("theirs", GIVEN["adaptive_config"], ids=lambda case: f"{case['vram']} GB {case['dit']}")
def test_limits_by_what_is_left_beside_the_models(theirs):
    same_limits(estimate.adaptive(theirs["vram"], theirs["dit"]), theirs)


@pytest.mark.parametrize("case", GIVEN["lm_gpu_memory_ratio"], ids=str)
def test_the_planners_share_of_a_card(case):
    size = lm_size_of(case["model"])
    share, weights = case["output"]
    assert estimate.lm_share(size, case["vram"]) == pytest.approx(share, abs=1e-5)
    assert estimate.LM_GB[size] == weights


@pytest.mark.parametrize("case", GIVEN["lm_model_size"], ids=lambda case: case["path"])
def test_sizes_by_name(case):
    assert lm_size_of(case["path"]) == case["size"]


def test_tiers_by_name():
    assert named("auto", 10).name == "tier4" and named("tier6", 4) is TIERS["tier6b"]
    with pytest.raises(ValueError, match="allowed is auto, tier1"):
        named("tier9", 4)


def test_a_smaller_card_can_be_simulated(monkeypatch, caplog):
    for name in SIMULATE:
        monkeypatch.delenv(name, raising=False)
    assert simulated() is None
    monkeypatch.setenv("MAX_MPS_VRAM", "16")
    monkeypatch.setenv("MAX_CUDA_VRAM", "8")
    assert simulated() == 8
    for wrong in ("eight", "nan", "-3", "inf", "0"):
        monkeypatch.setenv("MAX_CUDA_VRAM", wrong)
        assert simulated() == 16 and wrong in caplog.text


def test_the_planner_that_fits():
    names = ["qwen_0.6b_ace15.safetensors", "acestep-5Hz-lm-1.7B", "acestep-5Hz-lm-0.6B-v4-fix", "acestep-5Hz-lm-4B"]
    assert best_planner(names, TIERS["tier3"]) == "qwen_0.6b_ace15.safetensors"
    assert best_planner(names[1:], TIERS["tier3"]) == "acestep-5Hz-lm-0.6B-v4-fix"
    assert best_planner(names, TIERS["tier5"]) == "acestep-5Hz-lm-1.7B"
    assert best_planner(names[:1], TIERS["unlimited"]) == names[0]
    assert best_planner(names, TIERS["tier1"]) is None and best_planner(names[3:], TIERS["tier4"]) is None


@given(st.integers(1, 8), st.floats(0, 700), st.floats(0, 96), st.sampled_from(("turbo", "base", "XL turbo", "XL sft")))
def test_more_memory_never_means_fewer_pieces(batch, seconds, free, kind):
    rows = estimate.rows_that_fit(batch, seconds, free, kind=kind)
    assert 1 <= rows <= batch
    assert estimate.rows_that_fit(batch, seconds, free + 1, kind=kind) >= rows
    assert estimate.rows_that_fit(batch, seconds + 60, free, kind=kind) <= rows


def test_the_guard_by_numbers():
    fits = estimate.rows_that_fit
    assert fits(8, 60, 4.0) == 5 and fits(8, 60, 4.0, kind="base") == 2 and fits(8, 60, 4.0, kind="XL turbo") == 2
    assert fits(8, 240, 4.0) == 2 and fits(4, 60, 1.0) == 1 and fits(4, -1, 20.0) == 4
    assert fits(2, 600, 1.0, tier=TIERS["tier4"], offload=True) == 2
    assert fits(4, 600, 1.0, tier=TIERS["tier4"], offload=True) == 1


def test_a_total_names_everything():
    assert estimate.total_gb() == pytest.approx(4.7 + 0.33 + 1.2 + 0.5 + 0.3 + 0.5)
    assert estimate.total_gb("XL sft", 2, 120, "4B") == pytest.approx(9.0 + 2.03 + 1.0 * 2 * 2 + 9.6 + 0.5)


@pytest.mark.parametrize("size", ["2B", "XL"])
def test_what_a_diffusion_model_takes_in_each_precision(size):
    config = XL if size == "XL" else ModelConfig()
    module = loading.without_weights(AceStepModel, config)
    linear = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Linear) and "layers." in n]
    decoder = [m for n, m in linear if n.startswith("decoder.")]
    assert estimate.DIT_WEIGHTS[size] == (
        sum(p.numel() for p in module.parameters()),
        sum(m.weight.numel() for m in decoder),
        sum(m.weight.numel() for _, m in linear),
    )
    assert estimate.DIT_ROWS[size] == sum(m.out_features for m in decoder)
    for packed, bits in estimate.PACKED_BITS.items():
        kinds = {"Q5_K_M": ("Q5_K", "Q6_K"), "Q4_K_M": ("Q4_K", "Q6_K"), "fp8 file": ()}.get(packed, (packed,))
        widths = [BLOCKS[kind][1] * 8 / BLOCKS[kind][0] for kind in kinds] or [8.0]
        assert min(widths) <= bits <= max(widths)
    order = [estimate.dit_gb(size, p) for p in ("fp32", "bf16", "int8", "Q8_0", "fp8 file", "Q6_K", "Q5_K_M", "Q4_K_M")]
    assert order == sorted(order, reverse=True) and estimate.dit_gb(size, "fp8") == estimate.dit_gb(size, "int8")
    assert estimate.total_gb("turbo") - estimate.total_gb("turbo", precision="int8") == pytest.approx(
        estimate.DIT_GB["2B"] - estimate.dit_gb("2B", "int8")
    )


def test_sizes_by_number():
    sizes = {p: round(estimate.dit_gb("2B", p), 1) for p in ("bf16", "int8", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")}
    assert sizes == {"bf16": 4.5, "int8": 3.1, "Q8_0": 2.4, "Q6_K": 1.9, "Q5_K_M": 1.7, "Q4_K_M": 1.4}


@pytest.mark.parametrize(
    ("memory", "int8"), [(6, True), (12, True), (19.9, True), (20, False), (24, False), (80, False)]
)
def test_the_system_node_says_it(memory, int8):
    tier = tier_of(memory)
    text = report(Host(device="cpu"), tier, memory)
    assert ("precision auto: int8 on NVIDIA cards" in text) == int8
    assert "4.5 GB (2B), 9.3 GB (XL) in bf16, 3.1 GB (2B), 5.5 GB (XL) as int8 or fp8" in text
