"""The decoding engine: prompts in, text by a grammar or semantic codes out.

Keys and values of a prompt are computed once and kept, for all songs of a batch; then every step feeds one token
a row. A guided step runs conditional and unconditional rows as one batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.handles import LanguageModel
from ..host import Host
from ..models.qwen3 import KeyValues, Qwen3
from ..tasks.codes import CODE_RATE
from .backends import uses_graphs
from .cuda_graph import Graphed
from .grammar import BLOCK_TOKENS, Lyrics, Step, Walk
from .settings import PlannerSettings
from .token_sampling import choose, guide, penalise
from .vocabulary import vocabulary_of

PREFILL_TOKENS = 1024
"""Tokens of a prompt that are read at once."""
CACHE_STEP = 256
"""A cache holds a multiple of this many tokens."""
FEW = 4096
"""Up to this many options, their rows of the head are gathered; beyond, the head is computed whole."""


@dataclass(frozen=True)
class Traced:
    """One token of a reply: the part it belongs to, its text, how many were allowed, and the chosen one's share."""

    part: str
    text: str
    options: int
    probability: float

    def line(self) -> str:
        share = "" if self.options == 1 else f"  {self.options} allowed, {self.probability:.1%}"
        return f"{self.part:<24}{self.text!r}{share}"


@dataclass(frozen=True)
class Written:
    """A reply.

    Attributes:
        ids, text: with control tokens. finished: False where the budget cut it. seconds: time taken.
        trace: one entry a token, where it was asked for.
    """

    ids: tuple[int, ...]
    text: str
    finished: bool
    seconds: float
    trace: tuple[Traced, ...] = ()


@torch.inference_mode()
def write(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    script: Sequence[Step],
    settings: PlannerSettings,
    seed: int,
    host: Host,
    *,
    budget: int = BLOCK_TOKENS,
    trace: bool = False,
    what: str = "planning",
) -> Written:
    """Write one reply along ``script``.

    Tokens without a choice are not asked for: they are read together with what follows. A free text that has
    not ended after ``budget`` tokens is cut; everything else ends by itself.

    Args:
        prompts: ids of the prompt, and of the unconditional one where the reply is guided.
        seed: of the draws, one for each token with a choice.
    """
    walk = Walk(vocabulary_of(lm.tokenizer), script)
    expected = max(map(len, prompts)) + CACHE_STEP
    device = host.prepare(lm.module, "lm", _memory(lm, len(prompts), expected + budget))
    generator = torch.Generator().manual_seed(seed)
    bar, started = host.progress(budget, what, "token", open_ended=True), time.perf_counter()
    rows = _Rows(lm.module, prompts, 1, _rounded(expected), device)
    head, weight = _Head(lm.module), lm.module.embed_tokens.weight
    used = torch.zeros(weight.shape[0], dtype=torch.bool, device=device)
    used[torch.tensor([*prompts[0]], device=device)] = True

    written: list[int] = []
    waiting: list[int] = []
    traced: list[Traced] = []
    while not walk.done:
        if len(written) >= budget and isinstance(script[walk.index], Lyrics):
            break
        options, part, share = walk.options(), walk.label, 1.0
        token = options.only
        if token is None:
            if waiting:
                rows.feed(torch.tensor([waiting], device=device).expand(len(prompts), -1))
                used[torch.tensor(waiting, device=device)] = True
                waiting = []
            ids = head.place(options.ids)
            scores = head.scores(rows.hidden, ids)
            scores = guide(scores, settings.cfg_scale) if len(prompts) == 2 else scores
            if settings.repetition_penalty != 1:
                scores = penalise(scores, used[ids][None], settings.repetition_penalty)
            draw = torch.rand(1, generator=generator).to(device)
            pick = scores.argmax(-1) if options.certain else choose(scores, draw, settings)
            token = int(ids[pick])
            share = float(scores.softmax(-1)[0, pick]) if trace else 0.0
            rate = (len(written) + 1) / max(time.perf_counter() - started, 1e-6)
            bar.update(min(len(written) + 1, budget), f"{part}, {rate:.1f} tokens/s")
        if trace:
            traced.append(Traced(part, lm.tokenizer.decode([token]), len(options.ids), share))
        walk.take(token)
        written.append(token)
        waiting.append(token)
    taken = time.perf_counter() - started
    return Written(tuple(written), lm.tokenizer.decode(written), walk.done, taken, tuple(traced))


@torch.inference_mode()
def write_codes(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    count: int,
    settings: PlannerSettings,
    seeds: Sequence[int],
    host: Host,
) -> tuple[tuple[int, ...], ...]:
    """``count`` semantic codes for each of ``seeds``.

    Only codes can come, so only their rows of the head are computed, and nothing ends before its time. A song's
    codes follow from its own seed; the other songs of the batch do not touch them.

    Args:
        prompts: ids of the conditional prompt, and of the unconditional one where codes are guided.
    """
    size = len(seeds) if settings.chunk == 0 else settings.chunk
    size = size if settings.parallel else 1
    chunks = [seeds[i : i + size] for i in range(0, len(seeds), size)]
    capacity = _rounded(max(map(len, prompts)) + count)
    widest = len(prompts) * max(map(len, chunks))
    device = host.prepare(lm.module, "lm", _memory(lm, widest, capacity))
    graphs, note = uses_graphs(lm.backend, device.type, torch.version.hip is not None)
    if note:
        host.say(note)
    bar, started = host.progress(count * len(chunks), "writing codes", "code"), time.perf_counter()
    found: list[tuple[int, ...]] = []
    for number, chunk in enumerate(chunks):
        rows = _Rows(lm.module, prompts, len(chunk), capacity, device)
        loop = CodeLoop(lm, rows, count, settings, chunk)
        turn = Graphed(loop, CACHE_STEP * 2, host) if graphs else loop.turn
        pace = _Pace(device)
        for step in range(count):
            turn(rows.longest + 1)
            rows.longest += 1
            pace.keep()
            done = number * count + step + 1
            rate = len(chunk) * done / max(time.perf_counter() - started, 1e-6)
            bar.update(done, f"{(step + 1) / CODE_RATE:.1f} s of music, {rate:.1f} codes/s")
        found += [tuple(item) for item in loop.codes.T.tolist()]
    return tuple(found)


class CodeLoop:
    """The songs of one chunk. Every value that changes stays in its place, so that a turn can be replayed.

    Rows are [conditional of every song…, unconditional of every song…].
    """

    def __init__(
        self, lm: LanguageModel, rows: _Rows, count: int, settings: PlannerSettings, seeds: Sequence[int]
    ) -> None:
        span, device = vocabulary_of(lm.tokenizer).codes, rows.hidden.device
        self.module, self.settings, self.cache = lm.module, settings, rows.cache
        self.first, self.sides = span.start, rows.hidden.shape[0] // len(seeds)
        self.head = lm.module.embed_tokens.weight[span.start : span.stop]
        draws = [torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.draws = torch.stack(draws, dim=1).to(device)
        self.hidden, self.positions = rows.hidden.clone(), rows.positions.clone()
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.codes = torch.zeros(count, len(seeds), dtype=torch.long, device=device)
        self.used = torch.zeros(len(seeds), len(span), dtype=torch.bool, device=device)

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What a turn changes, but for keys and values, which a repeated turn writes alike."""
        return self.hidden, self.positions, self.step, self.codes, self.used

    def turn(self, seen: int) -> None:
        """Choose one code a song and read it; ``seen`` cached tokens are looked at."""
        scores = F.linear(self.hidden, self.head).float()
        if self.sides == 2:
            scores = guide(scores, self.settings.cfg_scale)
        penalty = self.settings.repetition_penalty
        if penalty != 1:
            scores = penalise(scores, self.used, penalty)
        chosen = choose(scores, self.draws.index_select(0, self.step)[0], self.settings)
        self.codes.index_copy_(0, self.step, chosen[None])
        if penalty != 1:
            self.used.scatter_(1, chosen[:, None], True)
        ids = (chosen + self.first).repeat(self.sides)[:, None]
        self.hidden.copy_(self.module.further(ids, self.positions[:, None], self.cache, seen)[:, -1])
        self.positions.add_(1)
        self.step.add_(1)


class _Rows:
    """Prompts that have been read, ``copies`` of each, and room for what follows.

    Attributes:
        hidden: [rows, H], the state behind the last token of each row.
        positions: [rows], where the next token of each row goes. longest: tokens of the longest row.
    """

    def __init__(
        self, module: Qwen3, prompts: Sequence[Sequence[int]], copies: int, capacity: int, device: torch.device
    ) -> None:
        self.module = module
        dtype = module.embed_tokens.weight.dtype
        self.cache = KeyValues(module.config, len(prompts) * copies, capacity, device, dtype)
        last = []
        for number, ids in enumerate(prompts):
            first, length = number * copies, len(ids)
            row, tokens = self.cache.row(first), torch.tensor([list(ids)], device=device)
            positions = torch.arange(length, device=device)[None]
            for start in range(0, length, PREFILL_TOKENS):
                part = slice(start, min(start + PREFILL_TOKENS, length))
                state = module.further(tokens[:, part], positions[:, part], row, part.stop)[:, -1]
            for copy in range(first + 1, first + copies):
                self.cache.copy_row(first, copy, length)
            last.append(state.expand(copies, -1))
        self.hidden = torch.cat(last)
        lengths = torch.tensor([len(ids) for ids in prompts], device=device)
        self.positions, self.longest = lengths.repeat_interleave(copies), max(map(len, prompts))

    def feed(self, ids: Tensor) -> None:
        """Read ``ids`` [rows, T] behind what is there; the cache grows where it is full."""
        more = ids.shape[1]
        self.longest += more
        if self.longest > self.cache.capacity:
            self.cache = self.cache.grown(_rounded(self.longest + self.cache.capacity))
        places = self.positions[:, None] + torch.arange(more, device=ids.device)
        self.hidden = self.module.further(ids, places, self.cache, self.longest)[:, -1]
        self.positions = self.positions + more


class _Head:
    """The output head, which is the embedding: scores of some ids."""

    def __init__(self, module: Qwen3) -> None:
        self.weight = module.embed_tokens.weight
        self._placed: dict[int, tuple[Tensor, Tensor]] = {}

    def place(self, ids: Tensor) -> Tensor:
        """``ids`` on the device; long lists are brought there once."""
        if len(ids) <= FEW:
            return ids.to(self.weight.device)
        if id(ids) not in self._placed:
            self._placed[id(ids)] = (ids, ids.to(self.weight.device))
        return self._placed[id(ids)][1]

    def scores(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """[rows, H] → float32 [rows, len(ids)], for ascending ids."""
        if len(ids) <= FEW:
            return F.linear(hidden, self.weight[ids]).float()
        return F.linear(hidden, self.weight[: int(ids[-1]) + 1]).float()[:, ids]


class _Pace:
    """Lets the host run at most two steps ahead of a GPU, so that cancelling and progress are true."""

    def __init__(self, device: torch.device) -> None:
        self.events: list[torch.cuda.Event] | None = [] if device.type == "cuda" else None

    def keep(self) -> None:
        if self.events is None:
            return
        event = torch.cuda.Event()
        event.record()
        self.events.append(event)
        if len(self.events) > 2:
            self.events.pop(0).synchronize()


def _rounded(tokens: int) -> int:
    return -(-tokens // CACHE_STEP) * CACHE_STEP


def _memory(lm: LanguageModel, rows: int, tokens: int) -> int:
    """Bytes of cache and scores."""
    scores = rows * lm.module.config.vocab_size * 16
    return rows * tokens * KeyValues.bytes_a_token(lm.module.config, lm.dtype) + scores
