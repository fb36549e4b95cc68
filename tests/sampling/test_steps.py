"""Guidance, corrections and noise against their definitions written out."""

import math

import pytest
import torch

from acestep_graph.acestep_core.sampling import correction, guidance, loop, noise, schedules
from acestep_graph.acestep_core.sampling.settings import SamplerSettings, resolve


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_guidance_of_equal_velocities_is_that_velocity():
    v, x = draws(2, 10, 8), draws(2, 10, 8, seed=1)
    for name in ("apg", "cfg", "adg", "adg_wo_clip"):
        guide = guidance.make_guide(SamplerSettings(guidance=name, guidance_scale=5.0))
        assert torch.allclose(guide(v, v.clone(), x, 0.5, False), v, atol=2e-3), name


def test_scale_one_means_no_guidance():
    assert guidance.make_guide(SamplerSettings(guidance_scale=1.0)) is None


def test_projected_guidance_adds_nothing_along_the_conditional_velocity():
    v, u, x = draws(2, 50, 8), draws(2, 50, 8, seed=1), draws(2, 50, 8, seed=2)
    out = guidance.AdaptiveProjection(7.0, eta=0.0, threshold=0.0, momentum=0.0)(v, u, x, 0.5, False)
    assert ((out - v) * v).sum(dim=1).abs().max() < 1e-3


def test_projection_limits_the_push():
    v, u = draws(1, 50, 8), 100 * draws(1, 50, 8, seed=1)
    out = guidance.AdaptiveProjection(2.0, eta=0.0, threshold=2.5, momentum=0.0)(v, u, v, 0.5, False)
    assert torch.linalg.vector_norm(out - v, dim=1).max() <= 2.5 + 1e-4


def test_angle_guidance_turns_by_at_most_the_clip():
    x, v, u = draws(1, 30, 64), draws(1, 30, 64, seed=1), draws(1, 30, 64, seed=2)
    out = guidance.AngleGuidance(15.0, clip=0.2, keep_norm=False)(v, u, x, 0.7, False)
    clean, turned = x - 0.7 * v, x - 0.7 * out
    angle = torch.acos(torch.cosine_similarity(clean, turned, dim=-1).clamp(-1, 1))
    assert angle.max() < 0.2 + 1e-3


def haar(x):
    pairs = x.unflatten(1, (-1, 2))
    return (pairs[:, :, 0] + pairs[:, :, 1]) / math.sqrt(2), (pairs[:, :, 0] - pairs[:, :, 1]) / math.sqrt(2)


@pytest.mark.parametrize("mode", ("low", "high", "double"))
def test_wavelet_correction_is_a_haar_transform_with_scaled_bands(mode):
    x, clean, t = draws(2, 12, 4), draws(2, 12, 4, seed=1), 0.6
    settings = SamplerSettings(correction=mode, scaler=0.3, high_scaler=0.2)
    low = t * 0.3 if mode != "high" else 0.0
    high = {"low": 0.0, "high": 0.4 * 0.3, "double": 0.4 * 0.2}[mode]
    bands = [band + k * (band - other) for band, other, k in zip(haar(x), haar(clean), (low, high), strict=True)]
    rebuilt = torch.stack(((bands[0] + bands[1]), (bands[0] - bands[1])), dim=2).flatten(1, 2) / math.sqrt(2)
    assert torch.allclose(correction.wavelet_correction(x, clean, t, settings), rebuilt, atol=1e-6)


def test_wavelet_correction_keeps_odd_lengths_and_does_nothing_when_off():
    x, clean = draws(1, 7, 4), draws(1, 7, 4, seed=1)
    assert correction.wavelet_correction(x, clean, 0.5, SamplerSettings(correction="double")).shape == x.shape
    assert correction.wavelet_correction(x, clean, 0.5, SamplerSettings()) is x


def test_velocity_is_limited_relative_to_the_latents():
    x, v = draws(3, 10, 8), 50 * draws(3, 10, 8, seed=1)
    out = correction.clamp_velocity(v, x, 0.7)
    assert torch.allclose(out.flatten(1).norm(dim=1), 0.7 * x.flatten(1).norm(dim=1), rtol=1e-4)
    assert correction.clamp_velocity(v, x, 0.0) is v


def test_noise_of_an_item_does_not_depend_on_its_neighbours():
    alone, together = noise.draw_noise([5], 20, 64), noise.draw_noise([9, 5, 7], 20, 64)
    assert torch.equal(alone[0], together[1])


def test_fresh_noise_differs_by_step_and_repeats():
    like = torch.zeros(2, 5, 64)
    a, b = noise.fresh_noise([1, 2], like), noise.fresh_noise([1, 3], like)
    assert torch.equal(a(0)[0], b(0)[0]) and not torch.equal(a(0), a(1)) and not torch.equal(a(0)[1], b(0)[1])


def test_retake_goes_from_one_noise_to_the_other():
    a, b = draws(1, 9, 4), draws(1, 9, 4, seed=1)
    assert torch.allclose(noise.retake(a, b, 0.0), a) and torch.allclose(noise.retake(a, b, 1.0), b, atol=1e-6)


def test_turbo_levels_are_twenty():
    assert len(schedules.turbo_levels()) == 20


@pytest.mark.parametrize("kind", ("turbo", "sft", "base"))
@pytest.mark.parametrize("steps", (1, 2, 8, 20))
@pytest.mark.parametrize("shift", (1.0, 2.5, 5.0))
def test_schedules_fall_from_one_to_zero(kind, steps, shift):
    levels = schedules.schedule(kind, shift, steps)
    assert levels[0] == 1 and levels[-1] == 0 and len(levels) == steps + 1
    assert all(a > b for a, b in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("timesteps", ((0.9,), (0.9, 0.5), (0.9, 0.5, 0.0)))
def test_own_levels_end_at_zero(timesteps):
    chosen, _ = resolve(SamplerSettings(timesteps=timesteps), "base")
    levels = schedules.schedule("base", 1.0, None, chosen.timesteps)
    assert levels[-1] == 0 and levels.count(0) == 1 and levels[0] == 0.9


@pytest.mark.parametrize("end", [n / 10 for n in range(11)])
def test_guidance_applies_at_both_ends_of_its_interval(end):
    """Levels are float32, what the user writes is not."""
    asked = []

    class Network:
        def begin(self, *_):
            return None

        def levels(self, every, ready):
            return every[:, None], every[:, None]

    def velocity(x, level, ready, guided):
        asked.append((round(float(level[0]), 4), guided))
        return x, x if guided else None

    for interval in ({"cfg_interval_end": end}, {"cfg_interval_start": end}):
        asked.clear()
        levels = schedules.base_schedule(1.0, 10)[:-1]
        settings = SamplerSettings(guidance_scale=3.0, guidance="cfg", **interval)
        run = loop.Guided(
            Network(), draws(1), lambda _: loop.Conditions(draws(1), draws(1)), levels, settings, velocity
        )
        for step, t in enumerate(levels):
            run(draws(1, 4, 8), t, step)
        wanted = [n / 10 for n in range(10, 0, -1)]
        inside = (lambda t: t <= end) if "cfg_interval_end" in interval else (lambda t: t >= end)
        assert asked == [(t, inside(t)) for t in wanted]


def test_a_noise_strength_starts_later():
    levels = schedules.turbo_schedule(1.0)
    assert schedules.start_from(levels, 0.0) == levels
    assert schedules.start_from(levels, 0.4)[0] == 0.625
    assert schedules.start_from(levels, 1.0) == [0.125, 0.0]
