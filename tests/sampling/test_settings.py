"""Sampler settings: ranges, auto, seeds. Whatever comes in is a valid value or a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep_graph.acestep_core.sampling.noise import seeds_of
from acestep_graph.acestep_core.sampling.settings import (
    AUTO,
    SEED_MAX,
    SamplerSettings,
    parse_seeds,
    parse_timesteps,
    resolve,
)

VALUES = st.one_of(st.integers(-10, 400), st.floats(), st.text(max_size=5), st.none(), st.booleans())
NAMES = [f for f in SamplerSettings.__dataclass_fields__ if f != "timesteps"]


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_any_values_are_settings_or_a_sentence_that_names_the_field(values):
    try:
        settings = SamplerSettings(**values)
    except ValueError as error:
        assert any(name in str(error) for name in values)
        return
    for kind in AUTO:
        chosen, _ = resolve(settings, kind)
        assert chosen.steps >= 1 and chosen.shift >= 1 and chosen.guidance_scale >= 1


@given(st.text(max_size=30))
def test_timesteps_parse_or_explain(text):
    try:
        levels = parse_timesteps(text)
        SamplerSettings(timesteps=levels)
    except ValueError as error:
        assert "timesteps" in str(error)
        return
    assert levels == () or levels[-1] == 0


@pytest.mark.parametrize("levels", ((0.5, 0.5, 0), (0.2, 0.9, 0), (0.0,), (1.2, 0), (float("nan"), 0)))
def test_timesteps_must_fall_within_one_and_zero(levels):
    with pytest.raises(ValueError, match="timesteps"):
        SamplerSettings(timesteps=levels)


def test_turbo_says_what_it_changes():
    chosen, notes = resolve(SamplerSettings(steps=50, guidance_scale=7.0), "turbo")
    assert (chosen.steps, chosen.guidance_scale, chosen.shift) == (20, 1.0, 3.0) and len(notes) == 2
    assert resolve(SamplerSettings(), "turbo")[1] == ()


@pytest.mark.parametrize(("kind", "expected"), [("turbo", (8, 3, 1)), ("sft", (50, 3, 7)), ("base", (32, 3, 7))])
def test_auto_is_what_the_page_of_the_original_sets(kind, expected):
    chosen, notes = resolve(SamplerSettings(), kind)
    assert (chosen.steps, chosen.shift, chosen.guidance_scale) == expected and not notes


def test_auto_follows_the_model():
    assert resolve(SamplerSettings(), "base")[0].guidance_scale == 7.0
    assert resolve(SamplerSettings(shift=2.0), "sft")[0].shift == 2.0
    assert resolve(SamplerSettings(), "base", 3.0)[0].guidance_scale == 3.0
    assert resolve(SamplerSettings(guidance_scale=5.0), "base", 3.0)[0].guidance_scale == 5.0
    assert resolve(SamplerSettings(), "turbo", 3.0) == resolve(SamplerSettings(), "turbo")


def test_heun_with_sde_falls_back_and_says_so():
    chosen, notes = resolve(SamplerSettings(method="sde", solver="heun"), "sft")
    assert chosen.solver == "euler" and "Heun" in notes[0]


@given(
    st.integers(1, 8), st.one_of(st.integers(-5, 10**12), st.text(max_size=18), st.lists(st.integers(-1, 9)), st.none())
)
def test_seeds_are_always_one_an_item(count, seed):
    parsed, settled = parse_seeds(seed, count), seeds_of(seed, count)
    assert len(parsed) == len(settled) == count
    for asked, found in zip(parsed, settled, strict=True):
        assert found == asked if asked is not None else 0 <= found <= SEED_MAX


def test_missing_seeds_follow_from_the_given_ones_and_minus_one_draws():
    assert seeds_of(7, 3) == seeds_of("7", 3) != seeds_of(8, 3)
    assert seeds_of(7, 2) == seeds_of(7, 3)[:2]
    for drawn in (None, -1, "-1", "", "7, -1", [7, -1], "7, x"):
        assert seeds_of(drawn, 3) != seeds_of(drawn, 3)
    assert seeds_of("7, -1", 2)[0] == 7


@pytest.mark.parametrize("seed", (2**64, "1e30", -(2**63) - 1))
def test_a_seed_that_no_generator_takes_is_answered(seed):
    with pytest.raises(ValueError, match="allowed is 0 to 4294967295"):
        parse_seeds(seed, 1)
