"""How well the planner recognises a request in codes: a score from 0 to 1.

The planner is asked what the codes are, and each part of the request is put into its mouth: how likely is it to say
just that? Caption and lyrics are compared with what it says without hearing anything (pointwise mutual information).
Replies, formulas and weights are those of ACE-Step 1.5's own scoring.

>>> from acestep_core.lm.score import score
>>> print(score(lm, codes.for_item(0), song).report())
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from ..checkpoints.handles import LanguageModel
from ..host import Host, current
from ..memory.recovery import with_room
from ..models.qwen3 import Group, KeyValues, Qwen3
from ..song import UNKNOWN_LANGUAGE, Song
from . import engine, prompts
from .settings import NO_INPUT
from .vocabulary import vocabulary_of

SCALE_RANGE = (0.01, 1.0)
WEIGHTS = {"caption": 0.5, "lyrics": 0.3, "metadata": 0.2}
DEPTH = 10
"""A token of a meta counts by its rank among this many likeliest ones."""
HEAD_ROWS = 32
"""Positions whose scores over the whole vocabulary are in memory at once."""


@dataclass(frozen=True)
class PlannerScore:
    """Shares from 0 to 1; a part that was not asked for is None, or missing among ``metas``."""

    total: float
    caption: float | None
    lyrics: float | None
    metas: Mapping[str, float]

    def report(self) -> str:
        """Total and parts with four decimals, a line each."""
        parts = {"caption": self.caption, "lyrics": self.lyrics, **self.metas}
        rows = [f"planner, {name}: {value:.4f}" for name, value in parts.items() if value is not None]
        return "\n".join([f"planner: {self.total:.4f}", *rows])


@with_room("the planner's score")
@torch.inference_mode()
def score(
    lm: LanguageModel, codes: Sequence[int], song: Song, *, scale: float = 0.5, host: Host | None = None
) -> PlannerScore:
    """Score ``codes`` against ``song``.

    Args:
        codes: of one piece. song: what was asked for; what it leaves open does not count.
        scale: how gently caption and lyrics are judged, 0.01 to 1. They get 0.5 where hearing the codes changes
            nothing, and 0.73 where it raises the mean log probability of their tokens by ``scale``.

    Raises:
        ValueError: no codes, codes the planner has no token for, a scale out of range, or a song without anything
            to judge; before anything is computed.
        FloatingPointError: the planner's numbers overflowed.
    """
    _check(lm, codes, scale)
    metas, texts = targets(song)
    if not (metas or texts):
        raise ValueError("This song says nothing that could be judged: give it a caption, lyrics or a tempo.")
    host, words = host or current(), lm.tokenizer
    replies = {name: prompts.encode(words, target) for name, target in {**metas, **texts}.items()}
    asked = [prompts.understand_prompt(codes), *([prompts.understand_prompt([], NO_INPUT)] if texts else [])]
    ids = [prompts.encode(words, prompt) for prompt in asked]
    memory = _memory(lm, sum(map(len, ids)), max(map(len, ids)) + max(map(len, replies.values())))
    device = host.prepare(lm.module, "lm", memory)
    bar, done = host.progress(len(ids) + len(replies), "scoring by the planner", "part"), 0
    read = []
    for prompt_ids in ids:
        read.append(engine.read_prompt(lm.module, prompt_ids, device))
        bar.update(done := done + 1)
    found: dict[str, float] = {}
    for name, reply in replies.items():
        if name in metas:
            found[name] = recall(said(lm.module, read[0], reply).ranks)
        else:
            heard, unheard = (said(lm.module, side, reply).mean for side in read)
            found[name] = likelier(heard - unheard, scale)
        bar.update(done := done + 1)
    recalled = {name: found[name] for name in metas}
    return PlannerScore(weighed(found), found.get("caption"), found.get("lyrics"), recalled)


def _check(lm: LanguageModel, codes: Sequence[int], scale: float) -> None:
    if not SCALE_RANGE[0] <= scale <= SCALE_RANGE[1]:
        raise ValueError(f"scale is {scale!r}; allowed is {SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g}.")
    if not codes:
        raise ValueError(
            "The planner judges codes, and there are none. Make the music from codes, "
            "or turn it into codes first with Source to Codes."
        )
    known = len(vocabulary_of(lm.tokenizer).codes)
    if not 0 <= min(codes) <= max(codes) < known:
        wrong = next(code for code in codes if not 0 <= code < known)
        raise ValueError(f"{wrong} is no code this planner knows; allowed is 0 to {known - 1}.")


def targets(song: Song) -> tuple[dict[str, prompts.Prompt], dict[str, prompts.Prompt]]:
    """What the planner should say: one reply for each meta, and one each for caption and lyrics where there are some.

    A time signature stays text, so YAML puts it in quotes; so it does with the language ``no``.
    """
    given = prompts.metas_of(song)
    if song.language != UNKNOWN_LANGUAGE:
        given["language"] = song.language
    metas = {name: plan_reply(name, given[name]) for name in prompts.FIELDS if name in given}
    texts = {}
    if song.caption:
        texts["caption"] = plan_reply("caption", song.caption)
    if song.lyrics.strip() and not song.instrumental:
        texts["lyrics"] = lyrics_reply(song.lyrics)
    return metas, texts


def plan_reply(name: str, value: object) -> prompts.Prompt:
    """A plan of one field, as YAML that folds at 80 columns."""
    text = yaml.dump({name: value}, allow_unicode=True).strip()
    return prompts.THINK, f"\n{text}\n", prompts.END_THINK, "\n"


def lyrics_reply(lyrics: str) -> prompts.Prompt:
    """An empty plan, and lyrics."""
    return prompts.THINK, "\n", prompts.END_THINK, f"\n# Lyric\n{lyrics}\n"


@dataclass(frozen=True)
class Said:
    """The tokens of a reply: their natural ``log`` probability, float32 [tokens], and ``ranks`` from 0 [tokens]."""

    log: Tensor
    ranks: Tensor

    @property
    def mean(self) -> float:
        """Mean log probability of a token."""
        return float(self.log.double().mean())


def said(module: Qwen3, read: engine.Read, ids: Sequence[int]) -> Said:
    """How likely the model is to say ``ids`` behind a prompt, without temperature, over the whole vocabulary."""
    states, head = _states(module, read, ids[:-1]), module.embed_tokens.weight
    logs, ranks = [], []
    wanted = torch.tensor(list(ids), device=states.device)
    for rows, token in zip(states.split(HEAD_ROWS), wanted[:, None].split(HEAD_ROWS), strict=True):
        scores = F.linear(rows, head).float()
        own = scores.gather(1, token)
        logs.append(own - scores.logsumexp(-1, keepdim=True))
        ranks.append((scores > own).sum(-1))
    log = torch.cat(logs)[:, 0].cpu()
    engine.require_numbers(log)
    return Said(log, torch.cat(ranks).cpu())


def _states(module: Qwen3, read: engine.Read, ids: Sequence[int]) -> Tensor:
    """States behind a prompt and behind each of ``ids``, [1 + len(ids), H]. The prompt's own cache stays as it is."""
    stop, device = read.length + len(ids), read.state.device
    cache = read.cache.copied(1, max(stop, read.cache.capacity))
    tokens, places = torch.tensor([list(ids)], dtype=torch.long, device=device), torch.arange(stop, device=device)
    states = [read.state]
    for start in range(0, len(ids), engine.PREFILL_TOKENS):
        part = tokens[:, start : start + engine.PREFILL_TOKENS]
        first, last = read.length + start, read.length + start + part.shape[1]
        states.append(module.further(part, [Group(cache, places[first:last], last)])[0])
    return torch.cat(states)


def recall(ranks: Tensor) -> float:
    """Mean of 1 − rank / 10 over the tokens, for ranks from 0; beyond the ten likeliest a token counts nothing."""
    return float((1 - ranks.double() / DEPTH).clamp_min(0).mean())


def likelier(difference: float, scale: float) -> float:
    """sigmoid(difference / scale), for a difference of two mean log probabilities."""
    x = difference / scale
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def weighed(found: Mapping[str, float], weights: Mapping[str, float] = WEIGHTS) -> float:
    """Weighted mean of what there is: caption, lyrics, and the plain mean of all others as metadata; 0 for nothing."""
    parts = {name: value for name, value in found.items() if name in ("caption", "lyrics")}
    metas = [value for name, value in found.items() if name not in parts]
    if metas:
        parts["metadata"] = sum(metas) / len(metas)
    total = sum(weights[name] for name in parts)
    return sum(weights[name] * value for name, value in parts.items()) / total if parts else 0.0


def _memory(lm: LanguageModel, kept: int, longest: int) -> int:
    """Bytes of the prompts' ``kept`` tokens, a copy of the longest prompt with a reply, and one chunk of scores."""
    config = lm.module.config
    rounded = kept + longest + 2 * engine.CACHE_STEP
    return rounded * KeyValues.bytes_a_token(config, lm.dtype) + HEAD_ROWS * config.vocab_size * 12
