"""How well the planner recognises a request in codes: a score from 0 to 1.

The planner is asked what the codes are, and each part of the request is put into its mouth: how likely is it to say
just that? Caption and lyrics are compared with what it says without hearing anything (pointwise mutual information).

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
from ..models.qwen3 import Group, KeyValues, Qwen3
from ..song import UNKNOWN_LANGUAGE, Song
from . import prompts
from .engine import Read, read_prompt, require_numbers
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
        rows = {"planner": self.total, "caption": self.caption, "lyrics": self.lyrics, **self.metas}
        return "\n".join(f"{name}: {value:.4f}" for name, value in rows.items() if value is not None)


@torch.inference_mode()
def score(
    lm: LanguageModel, codes: Sequence[int], song: Song, *, scale: float = 0.5, host: Host | None = None
) -> PlannerScore:
    """Score ``codes`` against ``song``.

    Args:
        codes: of one piece. song: what was asked for; what is open does not count.
        scale: how gently caption and lyrics are judged, 0.01 to 1: a difference of ``scale`` in the mean log
            probability of a token is worth about a quarter.

    Raises:
        ValueError: no codes, codes the planner has no token for, a scale out of range, or a song that says nothing.
    """
    host = host or current()
    if not SCALE_RANGE[0] <= scale <= SCALE_RANGE[1]:
        raise ValueError(f"scale is {scale!r}; allowed is {SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g}.")
    known = len(vocabulary_of(lm.tokenizer).codes)
    if not codes:
        raise ValueError(
            "The planner judges codes, and there are none: turn the music into codes with Source to Codes."
        )
    if not 0 <= min(codes) <= max(codes) < known:
        wrong = next(code for code in codes if not 0 <= code < known)
        raise ValueError(f"{wrong} is no code this planner knows; allowed is 0 to {known - 1}.")
    metas, texts = targets(song)
    if not (metas or texts):
        raise ValueError("The song says nothing that could be judged: write a caption, lyrics, or a tempo.")
    asked = [prompts.understand_prompt(codes), prompts.understand_prompt([], NO_INPUT)]
    ids = [prompts.encode(lm.tokenizer, prompt) for prompt in asked[: 2 if texts else 1]]
    longest = max(len(prompts.encode(lm.tokenizer, target)) for target in (*metas.values(), *texts.values()))
    device = host.prepare(lm.module, "lm", _memory(lm, max(map(len, ids)), longest))
    bar = host.progress(len(ids) + len(metas) + len(texts), "scoring by the planner", "part")
    read = []
    for done, prompt_ids in enumerate(ids, start=1):
        read.append(read_prompt(lm.module, prompt_ids, device))
        bar.update(done)
    done, found, parts = len(ids), {}, {}
    for name, target in metas.items():
        found[name] = ranked(said(lm, asked[0], read[0], target)[1])
        bar.update(done := done + 1)
    for name, target in texts.items():
        heard, unheard = (float(said(lm, *side, target)[0].mean()) for side in zip(asked, read, strict=True))
        parts[name] = likelier(heard - unheard, scale)
        bar.update(done := done + 1)
    return PlannerScore(weighed(found, parts), parts.get("caption"), parts.get("lyrics"), found)


def targets(song: Song) -> tuple[dict[str, prompts.Prompt], dict[str, prompts.Prompt]]:
    """What the planner should say: one reply a meta, and one for caption and lyrics each."""
    metas: dict[str, object] = prompts.metas_of(song)
    if song.language != UNKNOWN_LANGUAGE:
        metas["language"] = song.language
    texts = {"caption": _plan({"caption": song.caption})} if song.caption else {}
    if song.lyrics.strip() and not song.instrumental:
        texts["lyrics"] = (prompts.THINK, "\n", prompts.END_THINK, f"\n# Lyric\n{song.lyrics}\n")
    return {name: _plan({name: metas[name]}) for name in prompts.FIELDS if name in metas}, texts


def _plan(value: Mapping[str, object]) -> prompts.Prompt:
    text = yaml.dump(dict(value), allow_unicode=True, sort_keys=True).strip()
    return (prompts.THINK, f"\n{text}\n", prompts.END_THINK, "\n")


def said(lm: LanguageModel, prompt: prompts.Prompt, read: Read, target: prompts.Prompt) -> tuple[Tensor, Tensor]:
    """Log probability, and rank from 0, of every token of ``target`` behind ``prompt``, float32 [tokens]."""
    whole = prompts.encode(lm.tokenizer, (*prompt, *target))
    ids = whole[read.length :]
    states = _states(lm.module, read, ids[:-1])
    wanted = torch.tensor(ids, device=states.device)
    logs, ranks = [], []
    for rows, token in zip(states.split(HEAD_ROWS), wanted.split(HEAD_ROWS), strict=True):
        scores = F.linear(rows, lm.module.embed_tokens.weight).float()
        own = scores.gather(1, token[:, None])
        logs.append((own - scores.logsumexp(-1, keepdim=True))[:, 0])
        ranks.append((scores > own).sum(-1))
    return torch.cat(logs).cpu(), torch.cat(ranks).cpu()


def _states(module: Qwen3, read: Read, ids: Sequence[int]) -> Tensor:
    """States from which each token of a target is said, [tokens, H]: that behind the prompt, then one a token."""
    if not ids:
        return read.state
    device, stop = read.state.device, read.length + len(ids)
    cache = read.cache.copied(1, max(stop, read.cache.capacity))
    group = Group(cache, torch.arange(read.length, stop, device=device), stop)
    further = module.further(torch.tensor([list(ids)], device=device), [group])[0]
    require_numbers(further)
    return torch.cat((read.state, further))


def ranked(ranks: Tensor) -> float:
    """Mean over tokens of 1 − rank/10, 0 beyond the ten likeliest."""
    return float((1 - ranks.double() / DEPTH).clamp_min(0).mean())


def likelier(difference: float, scale: float) -> float:
    """sigmoid(difference / scale)."""
    x = difference / scale
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def weighed(metas: Mapping[str, float], texts: Mapping[str, float]) -> float:
    """Mean of what there is: caption 0.5, lyrics 0.3, the mean of the metas 0.2."""
    parts = dict(texts)
    if metas:
        parts["metadata"] = sum(metas.values()) / len(metas)
    total = sum(WEIGHTS[name] for name in parts)
    return sum(WEIGHTS[name] * value for name, value in parts.items()) / total if parts else 0.0


def _memory(lm: LanguageModel, length: int, target: int) -> int:
    """Bytes of two prompts, a copy of one with its target, and one chunk of scores."""
    config = lm.module.config
    kept = (3 * length + target) * KeyValues.bytes_a_token(config, lm.dtype)
    return kept + HEAD_ROWS * config.vocab_size * 8
