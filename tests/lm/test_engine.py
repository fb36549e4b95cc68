"""The decoding engine beside transformers, and alone: batches, caches, replays, cancelling."""

import copy
import itertools
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from acestep_graph.acestep_core.host import Cancelled, Host
from acestep_graph.acestep_core.lm import engine, grammar, prompts
from acestep_graph.acestep_core.lm.cuda_graph import Graphed
from acestep_graph.acestep_core.lm.settings import NO_INPUT, PlannerSettings
from acestep_graph.acestep_core.lm.vocabulary import vocabulary_of
from acestep_graph.acestep_core.memory.recovery import OutOfMemory
from acestep_graph.acestep_core.models.qwen3 import KeyValues
from tests.lm.planner import FOLDER, HOST, planner, words

CAPTION, LYRICS, PLAN = (
    "A slow blue river of piano and cello.",
    "[Verse]\nla la\n[Chorus]\nhey",
    "bpm: 90\nduration: 30",
)
GREEDY = PlannerSettings(temperature=0.0)
UNGUIDED = PlannerSettings(temperature=0.0, cfg_scale=1.0)


def asked(guided=True):
    made = [prompts.codes_prompt(CAPTION, LYRICS, PLAN)]
    if guided:
        made.append(prompts.codes_negative("", CAPTION, LYRICS, NO_INPUT))
    return [prompts.encode(planner().tokenizer, prompt) for prompt in made]


@pytest.fixture(scope="module")
def peer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def generate(peer, ids, count, allowed, **more):
    from transformers import LogitsProcessor, LogitsProcessorList

    class Only(LogitsProcessor):
        def __call__(self, input_ids, scores):
            masked = torch.full_like(scores, float("-inf"))
            masked[:, allowed] = scores[:, allowed]
            return masked

    prompt = torch.tensor([ids])
    made = peer.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        logits_processor=LogitsProcessorList([Only()]),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=words().end,
        pad_token_id=planner().tokenizer.end_of_text,
        **more,
    )
    return tuple(made[0, len(ids) :].tolist())


def test_greedy_codes_equal_transformers(peer):
    (ids,), span = asked(guided=False), words().codes
    (codes,) = engine.write_codes(planner(), [ids], 40, UNGUIDED, [0], HOST)
    assert tuple(code + span.start for code in codes) == generate(peer, ids, 40, list(span))


def test_guided_greedy_codes_equal_transformers(peer):
    (ids, negative), span = asked(), words().codes
    (codes,) = engine.write_codes(planner(), [ids, negative], 40, GREEDY, [0], HOST)
    without = torch.tensor([negative])
    theirs = generate(
        peer,
        ids,
        40,
        list(span),
        guidance_scale=GREEDY.cfg_scale,
        negative_prompt_ids=without,
        negative_prompt_attention_mask=torch.ones_like(without),
    )
    assert tuple(code + span.start for code in codes) == theirs


def test_greedy_text_equals_transformers(peer):
    ids = prompts.encode(planner().tokenizer, prompts.create_prompt("a sea song", False))
    written = engine.write(planner(), [ids], [grammar.Lyrics()], UNGUIDED, 0, HOST, budget=60)
    allowed = [*range(words().words), words().end]
    assert written.ids == generate(peer, ids, 60, allowed)


SAMPLED = PlannerSettings()


@pytest.mark.parametrize(
    "settings",
    (SAMPLED, PlannerSettings(chunk=2), PlannerSettings(chunk=0), PlannerSettings(parallel=False), UNGUIDED),
)
def test_a_song_has_its_codes_in_any_company(settings):
    prompt_ids = asked(settings.guided)
    seeds = [11, 5, 2**31, 7, 5]
    together = engine.write_codes(planner(), prompt_ids, 50, settings, seeds, HOST)
    for seed, codes in zip(seeds, together, strict=True):
        (alone,) = engine.write_codes(planner(), prompt_ids, 50, settings, [seed], HOST)
        assert codes == alone
    assert together[1] == together[4]
    if settings.temperature:
        assert len(set(together)) == 4


def test_replayed_turns_give_the_same_codes():
    """What a CUDA graph does, without one: turns of one shape, that look further than there is."""

    class Replayed(Graphed):
        def _captured(self, reach):
            kept = [tensor.clone() for tensor in self.loop.state]
            self.loop.turn(reach, masked=True)
            for tensor, value in zip(self.loop.state, kept, strict=True):
                tensor.copy_(value)
            return lambda: self.loop.turn(reach, masked=True)

    lm, count, seeds = planner(), 45, [3, 4]
    settings = PlannerSettings(repetition_penalty=1.1)
    plain = engine.write_codes(lm, asked(), count, settings, seeds, HOST)
    with torch.inference_mode():
        read = [engine.read_prompt(lm.module, ids, torch.device("cpu")) for ids in asked()]
        loop = engine.CodeLoop(lm, read, count, settings, seeds)
        turn = Replayed(loop, 16, HOST)
        for step in range(count):
            turn(step + 1)
    assert sorted(turn.graphs) == [16, 32, 45]
    assert tuple(tuple(item) for item in loop.codes.T.tolist()) == plain


def test_a_capture_that_fails_is_said_and_decoding_goes_on():
    class Broken(Graphed):
        def _captured(self, reach):
            raise RuntimeError("operation not permitted when stream is capturing")

    lm, host = planner(), Host(device="cpu")
    with torch.inference_mode():
        read = [engine.read_prompt(lm.module, ids, torch.device("cpu")) for ids in asked()]
        loop = engine.CodeLoop(lm, read, 20, SAMPLED, [3])
        turn = Broken(loop, 16, host)
        for step in range(20):
            turn(step + 1)
    assert tuple(loop.codes[:, 0].tolist()) == engine.write_codes(lm, asked(), 20, SAMPLED, [3], HOST)[0]
    assert len(host.notes) == 1 and "step by step" in host.notes[0]


def test_prompts_read_in_parts_and_growing_caches_change_nothing(monkeypatch):
    ids = asked(guided=False)[0]
    script = grammar.block(words(), lyrics=True)

    def run():
        text = engine.write(planner(), [ids], script, SAMPLED, 4, HOST, budget=700).ids
        return text, engine.write_codes(planner(), [ids], 30, UNGUIDED, [1], HOST)

    whole = run()
    monkeypatch.setattr(engine, "PREFILL_TOKENS", 7)
    monkeypatch.setattr(engine, "CACHE_STEP", 8)
    assert run() == whole


def narrow(monkeypatch, songs):
    """A machine whose memory holds the caches of so many songs. How many were still held whenever more were wanted."""
    copied, caches, held = KeyValues.copied, weakref.WeakSet(), []

    def limited(cache, rows, capacity):
        held.append(sum(other.keys.shape[1] for other in caches))
        if rows + held[-1] > songs:
            raise torch.OutOfMemoryError("out of memory")
        caches.add(made := copied(cache, rows, capacity))
        return made

    monkeypatch.setattr(KeyValues, "copied", limited)
    return held


@pytest.mark.parametrize("room", [2, 1])
def test_songs_that_do_not_fit_side_by_side_are_written_in_parts(monkeypatch, room):
    seen = []
    host = Host(device="cpu", on_progress=lambda *step: seen.append(step))
    whole = engine.write_codes(planner(), asked(False), 20, UNGUIDED, [1, 2, 3, 4, 5], HOST)
    held = narrow(monkeypatch, room)
    assert engine.write_codes(planner(), asked(False), 20, UNGUIDED, [1, 2, 3, 4, 5], host) == whole
    assert [note.split(": ")[1] for note in host.notes] == [f"{n} at a time are written." for n in (2, 1)[: 3 - room]]
    assert set(held) == {0}
    assert seen[-1][:2] == (100, 100) and all(a[0] <= b[0] for a, b in itertools.pairwise(seen))


def test_a_song_that_does_not_fit_alone_makes_room_and_then_says_what_helps(monkeypatch):
    narrow(monkeypatch, 0)
    with pytest.raises(OutOfMemory, match="the planner's codes, even one piece at a time"):
        engine.write_codes(planner(), asked(False), 20, UNGUIDED, [1, 2], HOST)


def test_a_capture_that_memory_ends_is_no_reason_to_decode_step_by_step():
    class Full(Graphed):
        def _captured(self, reach):
            raise torch.OutOfMemoryError("out of memory")

    turn = Full(SimpleNamespace(count=20), 16, HOST)
    with pytest.raises(torch.OutOfMemoryError):
        turn(1)
    assert not turn.broken


def test_cancelling_stops_within_a_token():
    for stop_after in (1, 5):
        seen = []
        host = Host(
            device="cpu",
            on_progress=lambda done, total, text, seen=seen: seen.append((done, total, text)),
            should_stop=lambda seen=seen, stop_after=stop_after: len(seen) > stop_after,
        )
        with pytest.raises(Cancelled):
            engine.write_codes(planner(), asked(), 500, SAMPLED, [1, 2], host)
        assert len(seen) <= stop_after + 1
    assert seen[-1][1] == 1000 and "s of music" in seen[-1][2] and "codes/s" in seen[-1][2]


def test_cancelling_text_stops_within_a_token():
    seen = []
    host = Host(device="cpu", on_progress=lambda *step: seen.append(step), should_stop=lambda: len(seen) > 4)
    with pytest.raises(Cancelled):
        engine.write(planner(), asked(False), grammar.block(words()), SAMPLED, 1, host)
    assert len(seen) == 5 and "tokens/s" in seen[-1][2] and "left" not in seen[-1][2]


def test_a_trace_names_every_token():
    written = engine.write(planner(), asked(False), grammar.block(words()), SAMPLED, 1, HOST, trace=True)
    assert len(written.trace) == len(written.ids) and written.finished
    assert "".join(step.text for step in written.trace if step.part == "bpm").startswith("bpm:")
    assert all(0 < step.probability <= 1 for step in written.trace)
    assert any(step.options > 100 and step.probability < 1 for step in written.trace)
    assert any("allowed" in step.line() for step in written.trace)


def test_repetition_penalty_makes_repeats_rarer():
    plain, wary = (
        engine.write_codes(planner(), asked(), 80, PlannerSettings(temperature=0.0, repetition_penalty=p), [0], HOST)[0]
        for p in (1.0, 1.5)
    )
    assert len(set(wary)) > len(set(plain))


def test_overflowing_numbers_are_said_at_once():
    lm = planner()
    broken = replace(lm, module=copy.deepcopy(lm.module))
    broken.module.norm.weight.fill_(float("nan"))
    for ask in (
        lambda: engine.write_codes(broken, asked(), 20, SAMPLED, [1], HOST),
        lambda: engine.write(broken, asked(False), grammar.block(words()), SAMPLED, 1, HOST),
    ):
        with pytest.raises(FloatingPointError, match="precision bf16 or fp32"):
            ask()


def test_numbers_that_overflow_later_are_said_too(monkeypatch):
    module, calls = planner().module, []
    further = module.further

    def spoiled(ids, groups):
        calls.append(ids.shape)
        return further(ids, groups) * (float("inf") if len(calls) > 9 else 1.0)

    monkeypatch.setattr(module, "further", spoiled)
    with pytest.raises(FloatingPointError):
        engine.write_codes(planner(), asked(), 20, SAMPLED, [1], HOST)
    assert len(calls) == 10
    calls.clear()
    with pytest.raises(FloatingPointError):
        engine.write(planner(), asked(False), grammar.block(words()), SAMPLED, 1, HOST)


def test_codes_of_real_numbers_lie_in_a_row():
    from tests.lm.planner import published_tokenizer

    span = vocabulary_of(published_tokenizer()).codes
    assert (span.start, len(span)) == (151_669, 64_000)
