"""Layers that come for their turn: the same music, on as little room as there is."""

import copy
import weakref
from dataclasses import replace

import pytest
import torch

from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lora.apply import with_adapter
from acestep_graph.acestep_core.memory import streaming
from acestep_graph.acestep_core.memory.quantize import int8_bytes, is_available, quantize_linear
from acestep_graph.acestep_core.memory.recovery import OutOfMemory
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.dit import DiT
from acestep_graph.acestep_core.sampling import loop
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.training.adapters import twin
from tests import results
from tests.lora import making
from tests.tiny import DIT, randomize

CPU, META = torch.device("cpu"), torch.device("meta")


class Here(Host):
    """Leaves the model where it is."""

    def prepare(self, module, component, activation_bytes=0):
        return CPU


@pytest.fixture
def model():
    model = results.named_heads()
    return replace(model, module=copy.deepcopy(model.module))


def conditioning_of(model, batch=2):
    made = results.made(batch)
    return replace(made.conditioning, origin=model.origin), made.made.latents


def small(layers=6):
    return randomize(AceStepModel(replace(DIT, num_hidden_layers=layers)), 4)


@pytest.mark.parametrize("away", ((0, 1, 2, 3), (1, 3), (3,), (0,)))
def test_the_music_is_the_same_bit_for_bit(model, away):
    conditioning, latents = conditioning_of(model)
    walk = model.module.decoder.walk = streaming.Streamed(model.module.decoder.layers, CPU, away)
    host = Here()
    made = sample(model, conditioning, None, 7, host=host)
    assert torch.equal(made.latents, latents)
    layer = int8_bytes(model.module.decoder.layers[0])
    walks, rest = divmod(walk.copied, layer * len(away))
    assert rest == 0 and walks == len(conditioning.items) * (1 + 8)
    assert f"{len(away)} of its 4 layers" in made.notes[-1] and made.notes[-1] in host.notes


def test_every_weight_is_back_in_its_place(model):
    decoder = model.module.decoder
    before = dict(decoder.named_parameters())
    walk = streaming.Streamed(decoder.layers, CPU, (0, 2))
    for stop in (1, 3, 4):
        layers = walk()
        turns = [next(layers) for _ in range(stop)]
        assert (turns[-1].mlp.up_proj.weight is not before[f"layers.{stop - 1}.mlp.up_proj.weight"]) == (stop in (1, 3))
        layers.close()
        assert all(parameter is before[name] for name, parameter in decoder.named_parameters())


def test_an_error_in_a_layer_leaves_no_copy_behind(model):
    decoder = model.module.decoder
    before = dict(decoder.named_parameters())
    decoder.walk = streaming.Streamed(decoder.layers, CPU, (0, 1, 2, 3))

    def fail(layer, *_):
        raise ArithmeticError

    ready = decoder.begin(torch.randn(1, 20, 128), torch.randn(1, 5, decoder.config.encoder_width))
    with pytest.raises(ArithmeticError):
        decoder.velocity(torch.randn(1, 20, 64), decoder.levels(torch.tensor([0.5]), ready), ready, call=fail)
    assert all(parameter is before[name] for name, parameter in decoder.named_parameters())


def test_adapters_play_on_layers_that_come_and_go(model):
    adapter = making.adapter(layers=("layers.0.self_attn.q_proj", "layers.3.mlp.down_proj"), magnitude="rows")
    tuned = with_adapter(model, adapter, 0.8)
    conditioning, latents = conditioning_of(model)
    wanted = sample(tuned, conditioning, None, 7, host=Here()).latents
    model.module.decoder.walk = streaming.Streamed(model.module.decoder.layers, CPU, (0, 1, 3))
    assert torch.equal(sample(tuned, conditioning, None, 7, host=Here()).latents, wanted)
    assert not torch.equal(wanted, latents)


@pytest.mark.skipif(not is_available(), reason="needs torchao")
def test_quantized_layers_come_and_go(model):
    for part in model.module.decoder.layers.modules():
        if isinstance(part, torch.nn.Linear):
            quantize_linear(part)
    conditioning, _ = conditioning_of(model)
    wanted = sample(model, conditioning, None, 7, host=Here()).latents
    walk = model.module.decoder.walk = streaming.Streamed(model.module.decoder.layers, CPU, (0, 1, 2, 3))
    assert torch.equal(sample(model, conditioning, None, 7, host=Here()).latents, wanted)
    assert walk.copied == 18 * sum(map(int8_bytes, model.module.decoder.layers))


def test_layers_of_unlike_sizes_come_and_go():
    dit = randomize(DiT(replace(DIT, num_hidden_layers=4)), 2)
    for layer in dit.layers[1:3]:
        layer.double()
    walk = streaming.Streamed(dit.layers, CPU, (0, 1, 2, 3))
    seen = [[(p.dtype, float(p.sum())) for p in layer.parameters()] for layer in walk()]
    assert seen == [[(p.dtype, float(p.sum())) for p in layer.parameters()] for layer in dit.layers]


def test_buffers_come_along():
    dit = randomize(DiT(replace(DIT, num_hidden_layers=2)), 2)
    for number, layer in enumerate(dit.layers):
        layer.mlp.register_buffer("scale", torch.full((3,), float(number)))
    homes = [layer.mlp.scale for layer in dit.layers]
    for number, layer in enumerate(streaming.Streamed(dit.layers, CPU, (0, 1))()):
        assert layer.mlp.scale is not homes[number] and torch.equal(layer.mlp.scale, homes[number])


@pytest.mark.parametrize("count, chosen", ((24, 0), (24, 1), (24, 7), (24, 12), (24, 24), (4, 3)))
def test_layers_that_wait_are_spread_evenly(count, chosen):
    away = streaming.spread(count, chosen)
    assert len(away) == chosen and all(0 <= index < count for index in away)
    gaps = {b - a for a, b in zip(away, away[1:], strict=False)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("spare, kept", ((0, 6), (-1, 3), (-3.5, 0), (-100, 0)))
def test_as_many_layers_stay_as_there_is_room_for(spare, kept):
    module = small()
    each, every = int8_bytes(module.decoder.layers[0]), int8_bytes(module)
    split = streaming.arrange(module, META, int(every + spare * each))
    on = [all(p.is_meta for p in layer.parameters()) for layer in module.decoder.layers]
    assert sum(on) == kept and split == (kept < 6)
    others = [p for name, p in module.named_parameters() if not name.startswith("decoder.layers.")]
    assert others and all(p.is_meta for p in others)
    assert int8_bytes(module) == every and bool(streaming.notes(module)) == split


def test_arranging_again_follows_the_room():
    module = small()
    every = int8_bytes(module)
    streaming.arrange(module, CPU, every - int8_bytes(module.decoder.layers[0]))
    few = len(module.decoder.walk.away)
    streaming.arrange(module, CPU, 0)
    assert len(module.decoder.walk.away) == 6 > few > 0
    streaming.arrange(module, CPU, every)
    assert module.decoder.walk is None and streaming.notes(module) == ()


class Card(Host):
    """A card of the ``meta`` device with so many free bytes."""

    def __init__(self, free, gb=8, **given):
        super().__init__(device="meta", **given)
        self.free, self.gb = free, gb

    def _total_bytes(self):
        return self.gb * 2**30

    def _free_bytes(self):
        return self.free


@pytest.mark.parametrize("stream, waits", ((None, True), (True, True), (False, False)))
def test_a_host_brings_what_fits_unless_told_otherwise(stream, waits):
    tight = streaming.MARGIN_BYTES + int8_bytes(small()) - 1
    for free, working, expected in ((tight, 0, waits), (tight + 1, 0, bool(stream)), (tight + 1, 1, waits)):
        module = small()
        assert Card(free, stream=stream).prepare(module, "dit", working) == META
        assert bool(streaming.notes(module)) == expected


def test_idle_models_leave_before_layers_do():
    idle, module = torch.nn.Linear(1000, 1000), small()

    class Shared(Card):
        def _free_bytes(self):
            return self.free - (0 if idle.sent_home else int8_bytes(idle))

    idle.sent_home = False
    idle.to = lambda device: setattr(idle, "sent_home", str(device) == "cpu")
    host = Shared(streaming.MARGIN_BYTES + int8_bytes(module), gb=80)
    host.prepare(idle, "lm")
    assert host.prepare(module, "dit") == META
    assert idle.sent_home and streaming.notes(module) == ()


def test_a_model_that_leaves_the_card_is_whole_again():
    module = small()
    module.decoder.walk = streaming.Streamed(module.decoder.layers, CPU, (0, 1))
    host = Card(0)
    host._resident.append(weakref.ref(module))
    host.make_room()
    assert module.decoder.walk is None


def test_what_is_trained_has_layers_of_its_own_after_the_model_was_streamed():
    decoder = small().decoder
    decoder.walk = streaming.Streamed(decoder.layers, CPU, (0, 1))
    copied = twin(decoder, CPU, torch.float32)
    assert list(copied.stack()) == list(copied.layers) and copied.layers[0] is not decoder.layers[0]


def test_where_memory_runs_out_the_layers_make_room(monkeypatch, model):
    conditioning, latents = conditioning_of(model, 1)
    asked, real = [], loop.run

    class Full(Here):
        def prepare(self, module, component, activation_bytes=0):
            asked.append(activation_bytes)
            return CPU

    def run(decoder, *args, **given):
        if len(asked) < 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(decoder, *args, **given)

    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(streaming, "possible", lambda device: True)
    made = sample(model, conditioning, None, 7, host=Full())
    assert torch.equal(made.latents, results.made(1).made.latents)
    assert asked[-1] == streaming.EVERYTHING and any("make room" in note for note in made.notes)
    monkeypatch.setattr(loop, "run", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(OutOfMemory, match="make the music shorter"):
        sample(model, conditioning, None, 7, host=Full())
