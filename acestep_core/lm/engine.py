"""The decoding engine: prompts in, text by a grammar or semantic codes out.

Keys and values of a prompt are computed once and kept, for all songs of a batch; then every step feeds one token
a row. A guided step runs conditional and unconditional rows as one batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.handles import LanguageModel
from ..host import Host
from ..memory.recovery import empty_cache, is_out_of_memory, with_room
from ..models.qwen3 import Group, KeyValues, Qwen3
from ..tasks.codes import CODE_RATE
from .backends import TORCH, graphs_work
from .cuda_graph import Graphed
from .grammar import BLOCK_TOKENS, Lyrics, Step, Walk
from .settings import PlannerSettings
from .token_sampling import choose, guide, penalise
from .vocabulary import vocabulary_of

PREFILL_TOKENS = 1024
"""Tokens of a prompt that are read at once."""
CACHE_STEP = 256
"""A cache holds a multiple of this many tokens."""
GRAPH_STEP = 512
"""Codes a CUDA graph is captured for at once: between two multiples of it, graphs are alike."""
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
        ids, text: with control tokens; text without words that only look like one.
        finished: False where the budget cut it. seconds: time taken.
        trace: one entry a token, where it was asked for.
    """

    ids: tuple[int, ...]
    text: str
    finished: bool
    seconds: float
    trace: tuple[Traced, ...] = ()


@with_room("the planner")
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
    rows = Rows(lm.module, [read_prompt(lm.module, ids, device) for ids in prompts])
    head = _Head(lm.module)
    penalty, used = settings.repetition_penalty, torch.zeros(lm.module.config.vocab_size, dtype=torch.bool)
    used[list(prompts[0])] = True

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
                rows.feed(waiting)
                require_numbers(rows.hidden)
                used[waiting] = True
                waiting = []
            ids = head.place(options.ids)
            scores = head.scores(rows.hidden, ids)
            scores = guide(scores, settings.cfg_scale) if len(prompts) == 2 else scores
            if penalty != 1:
                scores = penalise(scores, used[options.ids][None].to(device), penalty)
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
    bar.finish(len(written))
    taken = time.perf_counter() - started
    return Written(tuple(written), walk.vocabulary.text_of(written), walk.done, taken, tuple(traced))


@with_room("the planner's codes")
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
    size = min(size, len(seeds)) if settings.parallel else 1
    device = host.prepare(lm.module, "lm", _memory(lm, len(prompts) * size, max(map(len, prompts)) + count))
    graphs = lm.backend != TORCH and graphs_work(host)
    bar, started = host.progress(count * len(seeds), "writing codes", "code"), time.perf_counter()
    read = [read_prompt(lm.module, ids, device) for ids in prompts]
    found: list[tuple[int, ...]] = []

    def tell(step: int, songs: int) -> None:
        done = count * len(found) + step * songs
        rate = done / max(time.perf_counter() - started, 1e-6)
        bar.update(done, f"{step / CODE_RATE:.1f} s of music, {rate:.1f} codes/s")

    while len(found) < len(seeds):
        chunk, made = seeds[len(found) : len(found) + size], None
        try:
            made = _songs(CodeLoop(lm, read, count, settings, chunk), graphs, host, tell)
        except Exception as error:
            if len(chunk) == 1 or not is_out_of_memory(error):
                raise
        if made is None:
            size = len(chunk) // 2
            host.say(f"Codes of {len(chunk)} songs at once do not fit into memory: {size} at a time are written.")
            empty_cache()
        else:
            found += made
    return tuple(found)


def _songs(loop: CodeLoop, graphs: bool, host: Host, tell: Callable[[int, int], None]) -> list[tuple[int, ...]]:
    """All codes of the songs of a loop; ``tell`` hears how many each has, and of how many songs."""
    turn, pace = Graphed(loop, GRAPH_STEP, host) if graphs else loop.turn, _Pace(loop.hidden.device)
    for step in range(1, loop.count + 1):
        turn(step)
        if loop.hidden.device.type == "cpu" or step == loop.count:
            require_numbers(loop.hidden)
        pace.keep()
        tell(step, loop.codes.shape[1])
    return [tuple(item) for item in loop.codes.T.tolist()]


class CodeLoop:
    """The songs of one chunk. Every value that changes stays in its place, so that a turn can be replayed.

    Rows are [conditional of every song…, unconditional of every song…].
    """

    def __init__(
        self, lm: LanguageModel, read: Sequence[Read], count: int, settings: PlannerSettings, seeds: Sequence[int]
    ) -> None:
        span, songs = vocabulary_of(lm.tokenizer).codes, len(seeds)
        self.module, self.settings, self.count, self.sides = lm.module, settings, count, len(read)
        self.first, self.head = span.start, lm.module.embed_tokens.weight[span.start : span.stop]
        device = self.head.device
        draws = [torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.draws = torch.stack(draws, dim=1).to(device)
        self.lengths = [prompt.length for prompt in read]
        self.caches = [prompt.cache.copied(songs, _rounded(prompt.length + count)) for prompt in read]
        self.hidden = torch.cat([prompt.state.repeat(songs, 1) for prompt in read])
        self.positions = [torch.tensor([length], device=device) for length in self.lengths]
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.codes = torch.zeros(count, songs, dtype=torch.long, device=device)
        self.used = torch.zeros(songs, len(span), dtype=torch.bool, device=device)

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What a turn changes, but for keys and values, which a repeated turn writes alike."""
        return self.hidden, self.step, self.codes, self.used, *self.positions

    def turn(self, ahead: int, masked: bool = False) -> None:
        """Choose one code a song and read it.

        Args:
            ahead: codes looked at, this one among them. masked: there may be fewer of them than that.
        """
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
        self.read((chosen + self.first).repeat(self.sides)[:, None], ahead, masked)

    def read(self, ids: Tensor, ahead: int, masked: bool = False) -> None:
        """Read one token a row, ids [rows, 1]."""
        groups = [
            Group(cache, position, length + ahead, masked)
            for cache, position, length in zip(self.caches, self.positions, self.lengths, strict=True)
        ]
        self.hidden.copy_(self.module.further(ids, groups)[:, -1])
        for counter in (self.step, *self.positions):
            counter.add_(1)


@dataclass(frozen=True)
class Read:
    """A prompt that has been read: its cache of one row, its ``length``, and the state behind it [1, H]."""

    cache: KeyValues
    length: int
    state: Tensor


def read_prompt(module: Qwen3, ids: Sequence[int], device: torch.device) -> Read:
    """Read a prompt once, in parts that keep memory low."""
    length, tokens = len(ids), torch.tensor([list(ids)], device=device)
    cache = KeyValues(module.config, 1, _rounded(length), device, module.embed_tokens.weight.dtype)
    for start in range(0, length, PREFILL_TOKENS):
        stop = min(start + PREFILL_TOKENS, length)
        group = Group(cache, torch.arange(start, stop, device=device), stop)
        state = module.further(tokens[:, start:stop], [group])[:, -1]
    require_numbers(state)
    return Read(cache, length, state)


def require_numbers(state: Tensor) -> None:
    """Raise where a state overflowed; what is kept of it would spoil all that follows."""
    if not bool(torch.isfinite(state).all()):
        kind = str(state.dtype).removeprefix("torch.")
        raise FloatingPointError(
            f"The planner's numbers overflowed in {kind}. Load it with precision bf16 or fp32; "
            "if it was, its file is damaged: download it again."
        )


class Rows:
    """Sequences that grow by the same tokens, one behind each prompt. ``hidden`` [rows, H] is where they stand."""

    def __init__(self, module: Qwen3, read: Sequence[Read]) -> None:
        self.module, self.caches = module, [prompt.cache for prompt in read]
        self.lengths = [prompt.length for prompt in read]
        self.hidden = torch.cat([prompt.state for prompt in read])

    def feed(self, tokens: Sequence[int]) -> None:
        """Read ``tokens`` in every row. Caches grow where they are full."""
        device, groups = self.hidden.device, []
        for number, length in enumerate(self.lengths):
            stop = length + len(tokens)
            if stop > self.caches[number].capacity:
                self.caches[number] = self.caches[number].copied(1, _rounded(2 * stop))
            places = torch.arange(length, stop, device=device)
            groups.append(Group(self.caches[number], places, stop, masked=len(tokens) > 1))
            self.lengths[number] = stop
        ids = torch.tensor([list(tokens)], device=device).expand(len(groups), -1)
        self.hidden = self.module.further(ids, groups)[:, -1]


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
