"""Judging a result: scores, times of the lyrics, and the best of a batch. Each gives a new result.

>>> from acestep_core import judging
>>> judged = judging.judge(result, model=model, lm=lm)
>>> best, why = judging.pick_best(judged, keep=1)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .checkpoints.handles import DiffusionModel, LanguageModel
from .host import Host, current
from .lm.score import PlannerScore
from .lm.score import score as planner_score
from .lyrics import subtitles, timing
from .lyrics.picture import picture
from .result import Result, Score, chosen, codes_of
from .song import Song
from .tasks.codes import Codes, encode_codes

KINDS = ("both", "planner", "lyrics")


def judge(
    result: Result,
    *,
    model: DiffusionModel | None = None,
    lm: LanguageModel | None = None,
    codes: Codes | None = None,
    encode: bool = False,
    scale: float = 0.5,
    host: Host | None = None,
) -> Result:
    """Score every item.

    Args:
        model: the one the result was made with; scores how clearly the lyrics are sung.
        lm: the planner; scores how well it recognises the request, from codes.
        codes: to judge in place of those the result was made from.
        encode: where there are none, turn the made latents into codes (needs ``model``).
        scale: of the planner's score, 0.01 to 1; see :func:`lm.score.score`.

    Raises:
        ValueError: nothing to judge with, or a planner without codes; before anything is computed.
    """
    host, started = host or current(), time.perf_counter()
    if model is None and lm is None:
        raise ValueError("Connect the planner (lm), the model the music was made with, or both: a score needs one.")
    given = codes if codes is not None else codes_of(result)
    count = len(result.conditioning.items)
    scores_lyrics = model is not None and (lm is None or timing.sings(result.conditioning))
    if scores_lyrics:
        timing.require_model(model, result.conditioning)
    lists = [given.for_item(index) for index in range(count)] if given else [()] * count
    if lm is not None and not all(lists):
        if not encode:
            raise ValueError(
                "The planner judges codes, and this music was made without. Switch encode_to_codes on, "
                "connect codes, or leave lm unconnected to judge the lyrics alone."
            )
        if model is None:
            raise ValueError("To turn the music into codes, connect the model as well.")
        lists = [found or _encoded(result, index, model, host) for index, found in enumerate(lists)]
    planner: Sequence[PlannerScore | None] = [None] * count
    if lm is not None:
        song = _described(result)
        known: dict[tuple[int, ...], PlannerScore] = {}
        for found in lists:
            if found not in known:
                known[found] = planner_score(lm, found, song, scale=scale, host=host)
        planner = [known[found] for found in lists]
    lyrics: Sequence[timing.LyricScore | None] = [None] * count
    if scores_lyrics:
        lyrics = timing.score_lyrics(model, result.conditioning, result.made, host)
    scores = tuple(Score(*pair) for pair in zip(planner, lyrics, strict=True))
    return replace(_timed(result, "auto_score_time", started), scores=scores)


def _encoded(result: Result, index: int, model: DiffusionModel, host: Host) -> tuple[int, ...]:
    return encode_codes(model, result.made.latents[index, None, : result.made.frames[index]], host)


def _described(result: Result) -> Song:
    """The song with its length as made."""
    return replace(result.conditioning.song, duration=result.conditioning.seconds)


def _timed(result: Result, what: str, started: float) -> Result:
    """The result with the time that something took added to its record."""
    costs = {**result.record["time_costs"], what: round(time.perf_counter() - started, 3)}
    return replace(result, record={**result.record, "time_costs": costs})


def score_report(result: Result) -> str:
    """Scores of every item with their parts, to read; empty where nothing was judged."""
    blocks = []
    for index, (score, seed) in enumerate(zip(result.scores, result.made.seeds, strict=False)):
        total = None if score is None else score.by("both")
        if total is None:
            blocks.append(f"variation {index + 1} (seed {seed}): not judged")
        else:
            blocks.append(f"variation {index + 1} (seed {seed}): {total:.4f}\n{score.report()}")
    return "\n\n".join(blocks)


def time_lyrics(
    result: Result, model: DiffusionModel, *, words: bool = True, tags: bool = False, host: Host | None = None
) -> Result:
    """Find when the lyrics of every item are sung; see :func:`lyrics.timing.time_lyrics`.

    Args:
        words: stamp every word in the LRC text. tags: keep marks such as ``[Chorus]`` in it.
    """
    started = time.perf_counter()
    found = timing.time_lyrics(model, result.conditioning, result.made, host)
    timings = tuple(None if item is None else _styled(item, words, tags) for item in found)
    return replace(_timed(result, "auto_lrc_time", started), timings=timings)


def _styled(found: timing.Timing, words: bool, tags: bool) -> timing.Timing:
    plain = subtitles.lrc(found.lines, ends=True, tags=tags)
    lrc = subtitles.lrc(found.lines, words=words, tags=tags)
    return replace(found, lrc=lrc, vtt=subtitles.vtt(plain, found.seconds))


def pictures(result: Result) -> Tensor:
    """The alignment of every item, [B, H, W, 3] in 0…1; a dark picture where nothing is sung."""
    return torch.stack([picture(found) for found in result.timings])


def pick_best(result: Result, keep: int = 1, by: str = "both") -> tuple[Result, str]:
    """The ``keep`` items with the highest score, best first, and why.

    Raises:
        ValueError: the result has no such scores.
    """
    if by not in KINDS:
        raise ValueError(f"by is {by!r}; allowed is {', '.join(KINDS)}.")
    values = [None if score is None else score.by(by) for score in result.scores]
    if not any(value is not None for value in values):
        missing = "Put Score in front of Pick Best" if not result.scores else f"Score found no {by} score here"
        wanted = {"planner": " and connect the planner to it", "lyrics": " and connect the model to it"}.get(by, "")
        raise ValueError(f"{missing}{wanted}: there is nothing to pick by.")
    order = sorted(range(len(values)), key=lambda i: (values[i] is None, -(values[i] or 0.0), i))
    kept = order[: max(1, keep)]
    lines = [
        f"{'kept' if index in kept else 'left'}: variation {index + 1}, seed {result.made.seeds[index]}, "
        + ("not judged" if values[index] is None else f"{values[index]:.4f}")
        for index in order
    ]
    return chosen(result, kept), "\n".join(lines)
