"""Settings of training: defaults of the guides, sentences, the learning rate, and what it takes."""

import dataclasses

import pytest
import torch

from acestep_graph.acestep_core.checkpoints.loading import without_weights
from acestep_graph.acestep_core.lora.layers import Layers
from acestep_graph.acestep_core.models.config import XL, ModelConfig
from acestep_graph.acestep_core.models.dit import DiT
from acestep_graph.acestep_core.training import settings as module
from acestep_graph.acestep_core.training.settings import RANGES, TrainSettings
from tests import models

BIG = ModelConfig()


def test_defaults_are_those_of_the_guides():
    made = TrainSettings()
    wanted = {"rank": 64, "alpha": 128, "dropout": 0.1, "learning_rate": 1e-4, "epochs": 500, "batch_size": 1}
    wanted |= {"accumulation": 1, "save_every": 200, "shift": 3.0, "seed": 42}
    assert {name: getattr(made, name) for name in wanted} == wanted
    assert TrainSettings.from_values(made.values()) == made


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_are_allowed_and_nothing_beyond(name):
    low, high = RANGES[name]
    for value in (low, high):
        assert getattr(TrainSettings(**{name: value}), name) == value
    for value in (low - 1, high + 1, "3", True, None, float("nan")):
        with pytest.raises(ValueError, match=f"{name} is .*; allowed is a (whole )?number from {low:g} to"):
            TrainSettings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("method", "qlora"), ("timesteps", ""), ("optimizer", 3)])
def test_choices_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed is one of {module.CHOICES[name][0]}, "):
        TrainSettings(**{name: value})
    with pytest.raises(ValueError, match="mlp is 1; allowed is on or off"):
        TrainSettings(mlp=1)
    with pytest.raises(ValueError, match="colour is no training setting"):
        TrainSettings.from_values({"colour": "red"})


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.01), ("linear", 0.01), ("constant", 1.0)])
def test_the_rate_rises_then_falls(schedule, end):
    made = TrainSettings(schedule=schedule, learning_rate=1e-3, warmup_steps=10)
    rates = [made.rate(step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(1e-4) and rates[10] == max(rates) == pytest.approx(1e-3)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == made.rate(500, 200) == pytest.approx(end * 1e-3)
    assert made.rate(4, 40) == pytest.approx(1e-3), "no more than a tenth of all steps is warm-up"
    assert TrainSettings(warmup_steps=0).rate(0, 1) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("items", "batch", "accumulation", "steps"), [(5, 1, 1, 5), (5, 2, 1, 3), (5, 1, 2, 3), (5, 2, 2, 2), (1, 8, 64, 1)]
)
def test_steps_of_an_epoch(items, batch, accumulation, steps):
    made = TrainSettings(batch_size=batch, accumulation=accumulation, epochs=7)
    assert made.steps_an_epoch(items) == steps and made.steps(items) == 7 * steps


@pytest.mark.parametrize(
    ("more", "count"), [({}, 32), ({"mlp": True}, 44), ({"attention": "self"}, 16), ({"attention": "cross"}, 16)]
)
@pytest.mark.parametrize("kind", ["turbo", "xl-turbo"])
def test_targets_are_layers_of_the_decoder(more, count, kind):
    config = models.diffusion(kind).config
    targets, shapes = TrainSettings(**more).targets(config), Layers(config).shapes
    assert len(set(targets)) == count
    assert {layer: module.linear_shape(config, layer) for layer in targets} == {n: shapes[n] for n in targets}


def test_parameters_of_the_published_size():
    assert module.adapter_parameters(BIG, TrainSettings()) == 44_040_192
    assert module.adapter_parameters(BIG, TrainSettings(mlp=True)) == 81_788_928
    assert module.adapter_parameters(BIG, TrainSettings(method="lokr")) == 786_432


@pytest.mark.parametrize("config", [BIG, XL, *(models.diffusion(kind).config for kind in ("turbo", "xl-turbo"))])
def test_the_decoder_is_counted_right(config):
    network = without_weights(DiT, config)
    assert module.decoder_parameters(config) == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("seconds", "more", "low", "high"),
    [
        (240, {}, 5.0, 6.0),
        (240, {"gradient_checkpointing": False}, 15.0, 17.0),
        (60, {"gradient_checkpointing": False}, 7.0, 7.7),
        (60, {}, 4.5, 5.2),
    ],
)
def test_the_memory_of_published_models_is_as_measured(seconds, more, low, high):
    made = module.memory_estimate(BIG, TrainSettings(**more), seconds)
    assert low < made.total < high
    assert made.text().startswith(f"About {made.total:.1f} GiB: model 2.9, adapter and optimizer 0.7, ")


def test_more_work_takes_more_memory():
    plain = TrainSettings()
    total = module.memory_estimate(BIG, plain, 120).total
    for more in ({"rank": 128}, {"mlp": True}, {"batch_size": 2}, {"method": "dora"}):
        assert module.memory_estimate(BIG, dataclasses.replace(plain, **more), 120).total > total
    assert module.memory_estimate(XL, plain, 120).total > total
    assert module.memory_estimate(BIG, plain, 120, bf16=False).total > total
    assert module.memory_estimate(BIG, TrainSettings(optimizer="adamw8bit"), 120).total < total
    lokr = module.memory_estimate(BIG, TrainSettings(method="lokr"), 120)
    assert lokr.adapter < 0.02 and lokr.activations > module.memory_estimate(BIG, plain, 120).activations


def test_settings_import_no_torch():
    assert not any(value is torch for value in vars(module).values())
