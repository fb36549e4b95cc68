"""Compiled layers and replayed steps: what really ran is counted, and the music does not depend on it."""

from dataclasses import replace

import pytest
import torch
import torch._dynamo

from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lora.apply import active, with_adapter
from acestep_graph.acestep_core.memory import streaming
from acestep_graph.acestep_core.models.dit import DiT
from acestep_graph.acestep_core.sampling import compiled, cuda_graph, loop, pace, schedules
from acestep_graph.acestep_core.sampling.conditioning import context
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.nodes.speed import CompileModel
from tests import results
from tests.lora import making
from tests.tiny import DIT, randomize

WINDOWED_AND_FULL = 2


@pytest.fixture(autouse=True)
def fresh():
    """No graph of another test."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled.graphs_of.cache_clear()
    yield
    torch._dynamo.reset()
    compiled.graphs_of.cache_clear()


def frames_compiled():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def velocity_of(dit, frames, call=None, guided=False, rows=1, tokens=40):
    draw = torch.Generator().manual_seed(frames + rows)
    config = dit.config
    conditions, null = (torch.randn(n, m, config.encoder_width, generator=draw) for n, m in ((rows, tokens), (1, 1)))
    surroundings = context(torch.randn(rows, frames, 64, generator=draw))
    x = torch.randn(rows, frames, 64, generator=draw)
    with torch.inference_mode():
        ready = dit.begin(surroundings, conditions, null)
        levels = dit.levels(torch.tensor([0.5]), ready)
        given = {} if call is None else {"call": call}
        v, v_null = dit.velocity(x, levels, ready, guided, **given)
    return v if v_null is None else torch.cat((v, v_null))


@pytest.fixture(scope="module")
def dit():
    """Six layers, so that a graph for each would be noticed."""
    return randomize(DiT(replace(DIT, num_hidden_layers=6)), 0)


def test_one_graph_serves_all_layers_and_every_length(dit):
    call = compiled.CompiledLayers(Host(device="cpu"), "eager")
    for frames, tokens in ((600, 40), (601, 40), (900, 33), (1300, 70)):
        assert torch.equal(velocity_of(dit, frames, call, tokens=tokens), velocity_of(dit, frames, tokens=tokens))
    assert call.graphs.count == frames_compiled() == WINDOWED_AND_FULL
    assert not torch._dynamo.utils.counters["graph_break"]
    assert call.calls == 4 * 6 and "24 runs; 2 graphs were made for them, 2 in this session" in call.note()


@pytest.mark.slow
def test_guidance_and_several_pieces_have_graphs_of_their_own_once(dit):
    call = compiled.CompiledLayers(Host(device="cpu"), "eager")
    for _ in range(2):
        for guided in (False, True):
            for rows in (1, 3):
                made = velocity_of(dit, 500 + 40 * rows, call, guided, rows)
                assert torch.equal(made, velocity_of(dit, 500 + 40 * rows, None, guided, rows))
    assert not call.problem and call.graphs.count == frames_compiled() <= 4 * WINDOWED_AND_FULL


@pytest.mark.parametrize("backend", ("eager", "aot_eager"))
def test_the_sampler_makes_the_same_music_and_says_what_was_compiled(backend):
    made, host = results.made(2), Host(device="cpu")
    quick = replace(results.named_heads(), compile=backend)
    first = sample(quick, made.conditioning, None, 7, host=host)
    assert torch.allclose(first.latents, made.made.latents, atol=1e-5)
    assert "64 runs; 2 graphs were made" in first.notes[-1] and first.notes[-1] in host.notes
    again = sample(quick, made.conditioning, None, 7, host=host)
    assert "64 runs; no graph had to be made" in again.notes[-1] and frames_compiled() == 2


@pytest.mark.slow
def test_adapters_play_through_compiled_layers_and_stop_when_they_are_off():
    made, plain = results.made(1), results.named_heads()
    layers = tuple(f"layers.{n}.{part}" for n in range(4) for part in ("self_attn.q_proj", "mlp.down_proj"))
    first = with_adapter(plain, making.adapter(layers=layers, rank=3), 0.8)
    second = with_adapter(first, making.adapter(layers=layers[:1], kind="lokr", magnitude="rows", seed=5), 0.5)
    wanted = [sample(model, made.conditioning, None, 7).latents for model in (plain, first, second)]
    assert not torch.equal(wanted[0], wanted[1]) and not torch.equal(wanted[1], wanted[2])
    for turn in (0, 1, 0, 2, 1, 0):
        quick = replace((plain, first, second)[turn], compile="eager")
        again = sample(quick, made.conditioning, None, 7)
        assert torch.allclose(again.latents, wanted[turn], atol=1e-5), turn
        assert "Compiled layers: 32 runs" in again.notes[-1]


def test_strengths_and_weights_of_adapters_need_no_new_graph():
    made, plain = results.made(1), replace(results.named_heads(), compile="eager")
    layers = tuple(f"layers.{n}.self_attn.v_proj" for n in range(4))
    for strength, seed in ((0.5, 0), (1.5, 0), (-1.0, 30)):
        tuned = with_adapter(plain, making.adapter(layers=layers, seed=seed), strength)
        wanted = sample(replace(tuned, compile=""), made.conditioning, None, 7).latents
        assert torch.allclose(sample(tuned, made.conditioning, None, 7).latents, wanted, atol=1e-5)
    assert frames_compiled() == WINDOWED_AND_FULL


def test_graphs_of_many_kinds_of_adapters_make_room_for_further_ones(monkeypatch):
    monkeypatch.setattr(compiled, "MOST_GRAPHS", 4)
    made, plain, host = results.made(1), replace(results.named_heads(), compile="eager"), Host(device="cpu")
    layers = tuple(f"layers.{n}.self_attn.v_proj" for n in range(4))
    tuned = [with_adapter(plain, making.adapter(layers=layers, rank=rank), 1.0) for rank in (2, 3, 4)]
    for model in (*tuned, plain, tuned[0]):
        wanted = sample(replace(model, compile=""), made.conditioning, None, 7).latents
        again = sample(model, made.conditioning, None, 7, host=host)
        assert torch.allclose(again.latents, wanted, atol=1e-5)
        assert "Compiled layers: 32 runs" in again.notes[-1]
    assert [note for note in host.notes if "compiled anew" in note] and not [n for n in host.notes if "not work" in n]


def test_layers_that_come_and_go_share_the_graph(dit):
    wanted = {frames: velocity_of(dit, frames) for frames in (600, 700)}
    call = compiled.CompiledLayers(Host(device="cpu"), "eager")
    dit.walk = streaming.Streamed(dit.layers, torch.device("cpu"), (0, 1, 2, 5))
    try:
        for frames, velocity in wanted.items():
            assert torch.equal(velocity_of(dit, frames, call), velocity)
    finally:
        dit.walk = None
    assert not call.problem and call.graphs.count == WINDOWED_AND_FULL


def test_where_nothing_compiles_it_is_said_once_and_the_music_is_made(monkeypatch):
    def refuse(graph, inputs):
        raise RuntimeError("Compiler: c++ is not found.")

    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: refuse)
    made, host = results.made(2), Host(device="cpu")
    again = sample(replace(results.named_heads(), compile="inductor"), made.conditioning, None, 7, host=host)
    assert torch.equal(again.latents, made.made.latents) and frames_compiled() <= 1
    said = [note for note in host.notes if "does not work here" in note]
    assert len(said) == 1 and "c++ is not found" in said[0] and "g++" in said[0] and said[0] in again.notes


def test_out_of_memory_in_a_compiled_layer_is_no_failure_to_compile(dit, monkeypatch):
    call = compiled.CompiledLayers(Host(device="cpu"), "eager")

    def full(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(call.graphs, "call", full)
    with pytest.raises(torch.OutOfMemoryError):
        velocity_of(dit, 300, call)
    assert not call.problem


def test_an_error_of_the_layer_itself_is_not_taken_for_one_of_compiling(dit):
    host = Host(device="cpu")
    call = compiled.CompiledLayers(host, "eager")

    def wrong(layer, x, levels, *given):
        return call(layer, x[..., :5], levels, *given)

    with pytest.raises(RuntimeError):
        velocity_of(dit, 300, wrong)
    assert not call.problem and not host.notes


@pytest.mark.slow
def test_inductor_makes_the_same_music():
    made = results.made(1)
    again = sample(pace.compiled(results.named_heads()), made.conditioning, None, 7)
    if "does not work here" in again.notes[-1]:
        pytest.skip(again.notes[-1])
    assert torch.allclose(again.latents, made.made.latents, atol=1e-4) and "32 runs; 2 graphs" in again.notes[-1]


class Replayed(cuda_graph.GraphedVelocity):
    """A graph of plain calls: what is replayed computes from, and into, the tensors of the capture."""

    def _capture(self, step):
        step.compute()
        kept = step.answer

        def replay():
            step.compute()
            for into, made in zip(kept, step.answer, strict=True):
                if into is not None:
                    into.copy_(made)
            step.answer = kept

        return replay


@pytest.mark.parametrize("scale, end", ((1.0, 1.0), (5.0, 1.0), (5.0, 0.6)))
@pytest.mark.parametrize("solver", ("euler", "heun"))
def test_replayed_steps_make_the_same_music(dit, scale, end, solver):
    draw = torch.Generator().manual_seed(3)
    sides = [
        loop.Conditions(
            torch.randn(2, 30, dit.config.encoder_width, generator=draw),
            context(torch.randn(2, 90, 64, generator=draw)),
        )
        for _ in range(2)
    ]
    null = torch.randn(1, 1, dit.config.encoder_width, generator=draw)
    task = loop.Run(torch.randn(2, 90, 64, generator=draw), sides[0], later=sides[1], strength=0.5)
    settings = SamplerSettings(guidance_scale=scale, guidance="apg", solver=solver, cfg_interval_end=end)
    levels = schedules.base_schedule(steps=10)
    with torch.inference_mode():
        wanted = loop.run(dit, null, task, levels, settings)
        replayed = Replayed(dit.velocity, Host(device="cpu"))
        made = loop.run(dit, null, task, levels, settings, velocity=replayed)
    assert torch.equal(made, wanted)
    assert replayed.captured >= 2 and replayed.replayed > replayed.captured
    assert f"{replayed.captured} captured, {replayed.replayed} steps replayed" in replayed.note()


def test_conditions_that_are_done_with_are_let_go(dit):
    replayed = Replayed(dit.velocity, Host(device="cpu"))
    with torch.inference_mode():
        for frames in (60, 80):
            ready = dit.begin(torch.randn(1, frames, 128), torch.randn(1, 5, dit.config.encoder_width))
            levels = dit.levels(torch.tensor([0.5]), ready)
            for _ in range(3):
                replayed(torch.randn(1, frames, 64), levels, ready)
    assert len(replayed.steps) == 1 and replayed.ready is ready and replayed.captured == 2


def test_where_no_graph_can_be_captured_it_is_said_once(dit):
    class Broken(cuda_graph.GraphedVelocity):
        def _capture(self, step):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    host = Host(device="cpu")
    broken = Broken(dit.velocity, host)
    with torch.inference_mode():
        ready = dit.begin(torch.randn(1, 60, 128), torch.randn(1, 5, dit.config.encoder_width))
        levels, x = dit.levels(torch.tensor([0.5]), ready), torch.randn(1, 60, 64)
        answers = [broken(x, levels, ready)[0] for _ in range(4)]
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    assert host.notes == [broken.note()] and "not permitted when stream is capturing);" in host.notes[0]


@pytest.mark.parametrize(
    "device, tokens, streamed, words",
    (
        ("cpu", 100, False, "NVIDIA"),
        ("cuda", 100, True, "come and go"),
        ("cuda", 1501, False, "this long"),
        ("cuda", 1500, False, ""),
    ),
)
def test_when_a_graph_is_made(device, tokens, streamed, words, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    problem = cuda_graph.obstacle(torch.device(device), tokens, streamed)
    assert words in problem and bool(problem) == bool(words)


def test_a_graph_that_cannot_be_is_said_in_the_result():
    made, host = results.made(1), Host(device="cpu")
    again = sample(replace(results.named_heads(), cuda_graph=True), made.conditioning, None, 7, host=host)
    assert torch.equal(again.latents, made.made.latents)
    assert again.notes[-1] == host.notes[-1] and "NVIDIA" in host.notes[-1]


def test_the_node_gives_a_handle_of_its_own():
    model = results.named_heads()
    quick, report = CompileModel().compile(model, True, True)
    assert (quick.compile, quick.cuda_graph) == ("inductor", True) and quick.module is model.module
    assert (model.compile, model.cuda_graph) == ("", False) and "compile" in report and "CUDA graph" in report
    back, report = CompileModel().compile(quick, False, False)
    assert back == model and "off" in report
    with active(quick):
        assert quick.module.decoder.walk is None
