"""Adapters on handles: nothing is written, nothing stays, handles do not disturb each other."""

import itertools
import threading

import pytest
import torch

from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.lora.apply import (
    active,
    bytes_wanted,
    record,
    shown,
    with_adapter,
    without_adapters,
)
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import Song
from acestep_graph.acestep_core.tasks import text2music
from tests import models

from . import making


def base():
    return models.diffusion()


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.module.modules())


def weights(model):
    """Names, addresses and bytes of all parameters."""
    named = model.module.named_parameters()
    return {name: (p.data_ptr(), p.detach().contiguous().view(torch.uint8).sum().item()) for name, p in named}


def music(model, **options):
    song = Song(caption="calm piano", lyrics="[Verse]\none", duration=5.2)
    conditioning = text2music.prepare(model, models.text_encoder(), song, batch=2)
    return sample(model, conditioning, SamplerSettings(steps=3), [1, 2], **options).latents


def test_on_then_off_is_bit_identical_to_never():
    model, before = base(), weights(base())
    never, plain = making.velocity(model), music(model)
    with_it = with_adapter(model, making.adapter(magnitude="rows"))
    assert (making.velocity(with_it) - never).abs().max() > 1e-2
    assert (music(with_it) - plain).abs().max() > 1e-3
    assert with_it.module is model.module and weights(model) == before and hooks(model) == 0
    for off in (model, without_adapters(with_it), with_adapter(model, making.adapter(), 0.0)):
        assert torch.equal(making.velocity(off), never) and torch.equal(music(off), plain)


def test_strength_zero_is_skipped_even_where_the_adapter_is_broken():
    broken = making.adapter()
    for change in broken.changes.values():
        change.form.up.fill_(float("nan"))
    assert torch.equal(making.velocity(with_adapter(base(), broken, 0)), making.velocity(base()))


def test_three_in_any_order():
    kinds = (("lora", ""), ("lokr_pair", "rows"), ("loha", "columns"))
    stack = [(making.adapter(k, magnitude=m, scale=0.2, seed=i), 0.3 + 0.2 * i) for i, (k, m) in enumerate(kinds)]
    answers = []
    for order in itertools.permutations(stack):
        model = base()
        for adapter, strength in order:
            model = with_adapter(model, adapter, strength)
        answers.append(making.velocity(model))
    assert all((answer - answers[0]).abs().max() <= 1e-5 for answer in answers)
    assert (answers[0] - making.velocity(base())).abs().max() > 1e-2


def test_the_same_adapter_twice_is_twice_as_strong():
    one = making.adapter()
    twice = with_adapter(with_adapter(base(), one, 0.25), one, 0.5)
    assert (making.velocity(twice) - making.velocity(with_adapter(base(), one, 0.75))).abs().max() <= 1e-5


def test_nested_handles_each_play_their_own():
    plain, a = base(), with_adapter(base(), making.adapter(seed=1))
    b = with_adapter(base(), making.adapter("lokr", layers=("layers.2.mlp.up_proj",)))
    alone = [making.velocity(model) for model in (plain, a, b)]
    with active(a):
        assert torch.equal(making.velocity(b), alone[2])
        assert torch.equal(making.velocity(plain), alone[0])
        assert shown(a) == sorted(making.LAYERS)
        with torch.no_grad():
            assert torch.equal(a.module.decoder(*making.inputs()), alone[1])
    assert hooks(plain) == 0 and shown(plain) == []


def test_blocks_that_end_in_another_order_leave_nothing():
    a, b = with_adapter(base(), making.adapter(seed=1)), with_adapter(base(), making.adapter(seed=2))
    alone = making.velocity(b)
    first, second = active(a), active(b)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with torch.no_grad():
        assert torch.equal(b.module.decoder(*making.inputs()), alone)
    second.__exit__(None, None, None)
    assert hooks(a) == 0


def test_the_convolution_is_replaced_and_comes_back():
    decoder, plain = base().module.decoder, making.velocity(base())
    own, names = decoder.proj_in[1], list(base().module.state_dict())
    a = with_adapter(base(), making.adapter(layers=(making.ENTRY,)))
    b = with_adapter(base(), making.adapter("lokr", layers=(making.ENTRY, *making.LAYERS), seed=3))
    alone = [making.velocity(model) for model in (a, b)]
    assert min((answer - plain).abs().max() for answer in alone) > 1e-3
    with active(a):
        assert decoder.proj_in[1] is not own
        assert torch.equal(making.velocity(b), alone[1]) and torch.equal(making.velocity(base()), plain)
        with torch.no_grad():
            assert torch.equal(decoder(*making.inputs()), alone[0])
    assert decoder.proj_in[1] is own and list(base().module.state_dict()) == names
    assert torch.equal(making.velocity(base()), plain)


def test_two_graph_branches_in_one_run():
    plain, a = base(), with_adapter(base(), making.adapter(seed=1))
    expected = music(plain), music(a)
    for _ in range(2):
        assert torch.equal(music(a), expected[1]) and torch.equal(music(plain), expected[0])


def test_two_threads_take_turns():
    handles = [base(), *(with_adapter(base(), making.adapter(seed=seed)) for seed in (1, 2))]
    alone, answers = [making.velocity(handle) for handle in handles], {}

    def work(index):
        answers[index] = [making.velocity(handles[index]) for _ in range(4)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, made in answers.items():
        assert all(torch.equal(answer, alone[index]) for answer in made)


def test_an_error_or_a_cancel_in_the_middle_leaves_the_model_plain():
    model = with_adapter(base(), making.adapter())
    with pytest.raises(RuntimeError, match="inside"), active(model):
        assert hooks(model) == len(making.LAYERS)
        raise RuntimeError("inside")
    assert hooks(model) == 0
    stop = iter([False] * 3)
    with pytest.raises(Cancelled):
        music(model, host=Host(device="cpu", should_stop=lambda: next(stop, True)))
    assert hooks(model) == 0


def test_a_failure_while_entering_leaves_the_model_plain(monkeypatch):
    model, decoder = with_adapter(base(), making.adapter()), base().module.decoder
    last, find = making.LAYERS[-1], type(decoder).get_submodule

    def failing(self, name):
        if name == last:
            raise MemoryError("no room")
        return find(self, name)

    monkeypatch.setattr(type(decoder), "get_submodule", failing)
    with pytest.raises(MemoryError), active(model):
        pass
    monkeypatch.undo()
    assert hooks(model) == 0 and shown(model) == []


def test_adding_an_adapter_copies_nothing():
    model = base()
    made = making.adapter()
    handle = with_adapter(model, made)
    assert handle.module is model.module and handle.adapters == ((made, 1.0),) and model.adapters == ()
    assert bytes_wanted(model) == 0 and bytes_wanted(handle) == made.bytes
    assert bytes_wanted(with_adapter(model, made, 0)) == 0


def test_covers_and_codes_hear_the_adapter_too():
    model = base()
    song = Song(caption="calm piano", lyrics="[Verse]\none", duration=5.2)
    conditioning = text2music.prepare(model, models.text_encoder(), song)
    louder = with_adapter(model, making.adapter(layers=("layers.2.cross_attn.k_proj",)))
    made = [sample(m, conditioning, SamplerSettings(steps=2), 1).latents for m in (model, louder)]
    assert (made[0] - made[1]).abs().max() > 1e-4, "one conditioning serves handles with and without adapters"


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), "1", None, True, 4.5, -5])
def test_strengths_that_are_none(strength):
    with pytest.raises(ValueError, match=r"strength of random .* allowed is"):
        with_adapter(base(), making.adapter(), strength)


def test_an_adapter_of_another_width_names_both():
    xl = models.diffusion("xl-turbo")
    with pytest.raises(CheckpointError, match=r"random was made for models of width 32; .* has 40"):
        with_adapter(xl, making.adapter())
    assert hooks(xl) == 0


def test_the_record_says_what_played():
    made = making.adapter(name="jazz")
    assert record(base())["lora_loaded"] is False and record(base())["adapters"] == []
    stack = record(with_adapter(with_adapter(base(), made, 0.5), made, 0))
    assert (stack["lora_loaded"], stack["use_lora"], stack["lora_scale"]) == (True, True, 0.5)
    assert [entry["strength"] for entry in stack["adapters"]] == [0.5, 0.0]
