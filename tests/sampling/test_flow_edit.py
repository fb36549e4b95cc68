"""Flow edit against its definition written out, and what must hold whatever the model answers."""

import pytest
import torch

from acestep_graph.acestep_core.sampling import flow_edit, noise
from acestep_graph.acestep_core.sampling.loop import Conditions, Edit, Run
from acestep_graph.acestep_core.sampling.schedules import schedule
from acestep_graph.acestep_core.sampling.settings import SamplerSettings

SHAPE = (2, 12, 4)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Stub:
    """A model whose velocity depends on everything it is given, and which counts how often it is asked."""

    def __init__(self):
        self.scale_shift_table = torch.zeros(1)
        self.mixing = drawn(5, 4, 4) / 2
        self.asked = 0

    def begin(self, context, sequence, null=None):
        return sequence.mean(), context.mean(), None if null is None else null.mean()

    def levels(self, every, ready):
        return every, every

    def answer(self, x, t, words, context):
        return torch.tanh(x @ self.mixing + words) + context - t * x.roll(1, dims=1)

    def velocity(self, x, levels, ready, guided):
        self.asked += 1
        words, context, null = ready
        t = float(levels[0])
        return self.answer(x, t, words, context), self.answer(x, t, null, context) if guided else None


NULL = torch.full((1, 1, 4), 0.25)
WAS = Conditions(torch.full((2, 3, 4), -0.5), torch.full((*SHAPE[:2], 8), 0.1))
NEW = Conditions(torch.full((2, 5, 4), 0.75), torch.full((*SHAPE[:2], 8), 0.1))
SOURCE = drawn(1, *SHAPE)


def edited(settings, *, start=0.0, end=1.0, draws=1, was=WAS, steps=10, seeds=(3, 4), source=SOURCE, model=None):
    give = noise.draws(seeds, *SHAPE[1:])
    task = Run(torch.zeros(SHAPE), NEW, source=source, edit=Edit(was, start, end, draws), draws=give)
    levels = schedule("base", settings.shift or 1.0, steps)
    return flow_edit.run(model or Stub(), NULL, task, levels, settings)


def settings_of(**given):
    return SamplerSettings(**{"steps": 10, "shift": 1.0, "guidance_scale": 1.0, **given})


class Reference:
    """FlowEdit as its authors write it, with the project's rule for momentum: one step, by the mean of the draws."""

    def __init__(self, settings, conditions):
        self.s, self.model = settings, Stub()
        self.words, self.context, self.null = conditions.sequence.mean(), conditions.context.mean(), NULL.mean()
        self.momentum = self.before = None

    def one(self, x, t):
        v = self.model.answer(x, t, self.words, self.context)
        self.gap = None
        if self.s.guidance_scale > 1 and self.s.cfg_interval_start <= t <= self.s.cfg_interval_end:
            gap = v - self.model.answer(x, t, self.null, self.context)
            self.gap = gap
            if self.s.guidance == "cfg":
                return v + (self.s.guidance_scale - 1) * gap
            if self.momentum is not None:
                gap = gap + self.s.momentum * self.momentum
            gap = gap * (self.s.norm_threshold / gap.norm(dim=1, keepdim=True)).clamp(max=1)
            along = v / v.norm(dim=1, keepdim=True)
            v = v + (self.s.guidance_scale - 1) * (gap - (gap * along).sum(1, keepdim=True) * along)
        return v

    def __call__(self, points, t):
        velocities, gaps = [], []
        for x in points:
            v = self.one(x, t)
            limit = self.s.velocity_norm_threshold
            if limit > 0:
                v = v * (limit * x.flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1)).clamp(max=1)[:, None, None]
            velocities.append(v)
            gaps.append(self.gap)
        if gaps[0] is not None:
            mean = sum(gaps) / len(gaps)
            self.momentum = mean if self.momentum is None else mean + self.s.momentum * self.momentum
        v, factor = sum(velocities) / len(velocities), self.s.velocity_ema_factor
        v = v if self.before is None else (1 - factor) * v + factor * self.before
        self.before = v
        return v


def by_the_book(settings, start, end, draws, steps=10, seeds=(3, 4)):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    levels = [1 - i / steps for i in range(steps + 1)]
    was, new = Reference(settings, WAS), Reference(settings, NEW)
    z, x = SOURCE, None
    for i in range(steps):
        t, down = levels[i], levels[i + 1] - levels[i]
        if i < int(steps * start):
            continue
        count = draws if i < int(steps * end) else (1 if x is None else 0)
        noises = [torch.stack([torch.randn(SHAPE[1:], generator=g) for g in generators]) for _ in range(count)]
        if i < int(steps * end):
            sources = [(1 - t) * SOURCE + t * e for e in noises]
            v_was = was(sources, t)
            z = z + down * (new([z + s - SOURCE for s in sources], t) - v_was)
        else:
            if x is None:
                x = z + (1 - t) * SOURCE + t * noises[0] - SOURCE
            x = x + down * new([x], t)
    return z if x is None else x


CASES = (
    {},
    {"guidance_scale": 4.0},
    {"guidance_scale": 4.0, "guidance": "cfg"},
    {"guidance_scale": 7.0, "cfg_interval_start": 0.25, "cfg_interval_end": 0.85, "norm_threshold": 1.0},
    {"guidance_scale": 3.0, "velocity_norm_threshold": 0.5, "velocity_ema_factor": 0.3},
)


@pytest.mark.parametrize("given", CASES)
@pytest.mark.parametrize("start, end, draws", ((0.0, 1.0, 1), (0.2, 0.65, 3), (0.5, 0.5, 1), (0.0, 0.0, 2)))
def test_it_is_the_papers_algorithm(given, start, end, draws):
    settings = settings_of(**given)
    ours = edited(settings, start=start, end=end, draws=draws)
    assert torch.allclose(ours, by_the_book(settings, start, end, draws), atol=2e-4)


@pytest.mark.parametrize("scale", (1.0, 6.0))
def test_equal_descriptions_leave_the_source_as_it_is(scale):
    assert torch.equal(edited(settings_of(guidance_scale=scale), was=NEW, draws=2), SOURCE)


def test_a_later_start_keeps_more_of_the_source():
    away = [(edited(settings_of(), start=start) - SOURCE).norm() for start in (0.0, 0.5, 0.9)]
    assert away[0] > away[1] > away[2] > 0


def test_each_item_has_its_own_noise():
    alone, other = edited(settings_of()), edited(settings_of(), seeds=(3, 99))
    assert torch.equal(alone[0], other[0]) and not torch.equal(alone[1], other[1])
    assert torch.equal(alone, edited(settings_of()))


def test_only_what_is_needed_is_asked():
    model = Stub()
    edited(settings_of(), start=0.3, end=0.8, draws=2, model=model)
    assert model.asked == 2 * 2 * 5 + 2


def test_each_description_is_asked_in_its_own_way():
    """A CUDA graph belongs to one description; two that share one would capture it anew at every step."""
    model, asked = Stub(), {"was": set(), "new": set()}

    def way(name):
        def velocity(x, levels, ready, guided):
            asked[name].add(id(ready))
            return model.velocity(x, levels, ready, guided)

        return velocity

    give = noise.draws((3, 4), *SHAPE[1:])
    task = Run(torch.zeros(SHAPE), NEW, source=SOURCE, edit=Edit(WAS, 0.2, 0.7, 2), draws=give)
    ways = way("was"), way("new")
    made = flow_edit.run(model, NULL, task, schedule("base", 1.0, 10), settings_of(), velocities=ways)
    assert [len(ids) for ids in asked.values()] == [1, 1] and not asked["was"] & asked["new"]
    assert torch.equal(made, edited(settings_of(), start=0.2, end=0.7, draws=2))


def test_what_it_cannot_use_is_said_and_left_out():
    asked = settings_of(
        guidance_scale=3.0, guidance="adg", method="sde", solver="heun", correction="low", retake_variance=0.5
    )
    chosen, notes = flow_edit.fitting(asked)
    assert (chosen.guidance, chosen.method, chosen.solver, chosen.correction) == ("apg", "ode", "euler", "off")
    assert chosen.retake_variance == 0 and len(notes) == 5
    assert flow_edit.fitting(settings_of(guidance_scale=5.0, guidance="cfg")) == (
        settings_of(guidance_scale=5.0, guidance="cfg"),
        (),
    )


def test_nan_is_answered():
    with pytest.raises(FloatingPointError, match="NaN"):
        edited(settings_of(), source=SOURCE * float("nan"))
