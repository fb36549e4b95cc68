"""Mixing: exact where it can be, and clear where it cannot."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.audio import SAMPLE_RATE, AudioError, resample, to_stereo
from acestep_graph.acestep_core.mixing import GAIN_RANGE, mix
from acestep_graph.nodes.mixing import STEMS, MixStems

QUICK = settings(max_examples=30, deadline=None)


def noise(seed, samples=500, channels=2, batch=1, level=0.2):
    generator = torch.Generator().manual_seed(seed)
    return level * (2 * torch.rand(batch, channels, samples, generator=generator) - 1)


LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=5)


@QUICK
@given(lengths=LENGTHS, channels=st.integers(1, 3), data=st.data())
def test_one_part_at_0_db_among_silent_ones_comes_out_bit_for_bit(lengths, channels, data):
    heard = data.draw(st.integers(0, len(lengths) - 1))
    silent = data.draw(st.sampled_from([GAIN_RANGE[0], -math.inf]))
    parts = [(noise(i, n, channels), 48000, 0.0 if i == heard else silent) for i, n in enumerate(lengths)]
    kept = [part[0].clone() for part in parts]
    mixed, rate = mix(parts)
    assert rate == SAMPLE_RATE and mixed.shape == (1, 2, max(lengths)) and mixed.dtype == torch.float32
    assert torch.equal(mixed[..., : lengths[heard]], to_stereo(kept[heard]))
    assert not mixed[..., lengths[heard] :].any()
    assert all(torch.equal(part[0], before) for part, before in zip(parts, kept, strict=True))


@QUICK
@given(count=st.integers(1, 8), samples=st.integers(1, 600), batch=st.integers(1, 3))
def test_parts_at_0_db_give_the_plain_sum(count, samples, batch):
    parts = [noise(i, samples, batch=batch) for i in range(count)]
    plain = parts[0]
    for part in parts[1:]:
        plain = plain + part
    assert torch.equal(mix([(part, 48000, 0.0) for part in parts])[0], plain)


@QUICK
@given(gains=st.lists(st.floats(-59.9, 12), min_size=1, max_size=4))
def test_levels_are_decibels(gains):
    mixed, _ = mix([(noise(i), 48000, gain) for i, gain in enumerate(gains)])
    wanted = sum(noise(i) * 10 ** (gain / 20) for i, gain in enumerate(gains))
    assert torch.allclose(mixed, wanted, atol=1e-6)


@QUICK
@given(rate=st.sampled_from([8000, 22050, 44100, 96000]), samples=st.integers(1, 2000), channels=st.integers(1, 8))
def test_any_rate_and_channel_count_becomes_48_khz_stereo(rate, samples, channels):
    part = noise(1, samples, channels)
    mixed, _ = mix([(part, rate, 0.0)])
    assert mixed.shape[-1] == math.ceil(samples * 48000 / rate)
    assert torch.allclose(mixed, resample(to_stereo(part), rate, 48000), atol=1e-6)


def test_a_single_item_joins_every_item_of_a_batch():
    song, stem = noise(1, batch=3), noise(2, batch=1)
    assert torch.equal(mix([(stem, 48000, 0.0), (song, 48000, 0.0)])[0], stem + song)
    with pytest.raises(AudioError, match=r"part 1: 3, part 2: 2\). Each must hold 3 items or one"):
        mix([(song, 48000, 0.0), (noise(2, batch=2), 48000, 0.0)])


def test_the_longest_or_the_first_part_decides_the_length():
    parts = [(noise(1, 300), 48000, 0.0), (noise(2, 500), 48000, 0.0)]
    longest, first = mix(parts)[0], mix(parts, length="first")[0]
    assert (longest.shape[-1], first.shape[-1]) == (500, 300)
    assert torch.equal(longest[..., :300], first) and torch.equal(longest[..., 300:], parts[1][0][..., 300:])


@QUICK
@given(levels=st.lists(st.floats(0.01, 3), min_size=1, max_size=3))
def test_the_limit_lowers_only_items_that_clip(levels):
    loud = torch.cat([noise(i, level=level) for i, level in enumerate(levels)])
    plain, limited = mix([(loud, 48000, 0.0)])[0], mix([(loud, 48000, 0.0)], limit="peak")[0]
    assert torch.equal(plain, loud)
    for before, after in zip(plain, limited, strict=True):
        peak = before.abs().max()
        assert torch.equal(after, before if peak <= 1 else before / peak) and after.abs().max() <= 1


def test_the_mix_shares_no_memory_with_its_parts():
    part = noise(1)
    mix([(part, 48000, 0.0)])[0].zero_()
    assert part.any()


GOOD = noise(1)


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ([], {}, "nothing to mix"),
        ([(GOOD, 48000, 13.0)], {}, r"level of part 1 is 13.0; allowed are -60 \(silent\) to 12 dB"),
        ([(GOOD, 48000, -61.0)], {}, "level of part 1"),
        ([(GOOD, 48000, math.nan)], {}, "level of part 1"),
        ([(GOOD, 48000, 0.0), (GOOD, 0, 0.0)], {}, "part 2: A sample rate"),
        ([(GOOD[0], 48000, 0.0)], {}, r"part 1 must have the shape \[batch, channels, samples\]"),
        ([(None, 48000, 0.0)], {}, "not NoneType"),
        ([(GOOD[..., :0], 48000, 0.0)], {}, "part 1 holds no samples"),
        ([(GOOD * math.nan, 48000, 0.0)], {}, "part 1 holds NaN"),
        ([(GOOD, 48000, 0.0)], {"align": "end"}, "align must be start"),
        ([(GOOD, 48000, 0.0)], {"length": "shortest"}, "length must be longest or first"),
        ([(GOOD, 48000, 0.0)], {"limit": "soft"}, "limit must be none or peak"),
        ([(GOOD, 48000, 0.0)], {"names": ["a", "b"]}, "1 parts but 2 names"),
    ],
)
def test_bad_parts_are_named(parts, options, message):
    with pytest.raises(AudioError, match=message):
        mix(parts, **options)


# -- the node


def sound(waveform, rate=48000):
    return {"waveform": waveform, "sample_rate": rate}


def test_the_node_adds_the_stems_that_are_connected():
    song, stem = noise(1), noise(2)
    (mixed,) = MixStems().mix(sound(song), 0.0, False, stem_1_db=3.0, stem_4=sound(stem), stem_4_db=-6.0, stem_5=None)
    assert mixed["sample_rate"] == 48000
    assert torch.equal(mixed["waveform"], mix([(song, 48000, 0.0), (stem, 48000, -6.0)])[0])
    with pytest.raises(AudioError, match="stem_2"):
        MixStems().mix(sound(song), 0.0, True, stem_2=sound(stem * math.nan))


def test_the_node_limits_where_asked():
    loud = sound(noise(1, level=0.9))
    assert MixStems().mix(loud, 6.0, True)[0]["waveform"].abs().max() <= 1
    assert MixStems().mix(loud, 6.0, False)[0]["waveform"].abs().max() > 1


def test_every_stem_has_a_level():
    optional = MixStems.INPUT_TYPES()["optional"]
    assert list(optional) == [name for i in range(1, STEMS + 1) for name in (f"stem_{i}", f"stem_{i}_db")]
    assert all((optional[f"stem_{i}_db"][1]["min"], optional[f"stem_{i}_db"][1]["max"]) == GAIN_RANGE for i in (1, 7))
