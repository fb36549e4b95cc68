"""Think: complete a song's plan, then write the semantic codes that the diffusion model follows.

>>> from acestep_core.lm import think
>>> thought = think.think(lm, make_song("calm piano", duration=30), seeds=[1, 2])
>>> batch = text2music.prepare(model, text, thought.song, batch=2, codes=thought.codes)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..checkpoints.handles import LanguageModel
from ..host import Host, current
from ..memory.limits import within_card, within_plan
from ..sampling.settings import BATCH_RANGE
from ..song import UNKNOWN_LANGUAGE, Song, resolve_duration
from ..tasks.codes import CODE_RATE, Codes
from . import engine, grammar, parsing, prompts
from .settings import NO_INPUT, PlannerSettings
from .vocabulary import vocabulary_of


@dataclass(frozen=True)
class Parts:
    """What the planner decides.

    Attributes:
        metas: tempo, key, time signature and length where they are open. It also opens the way to the next two,
            which are written in the same reply; where all four metas are given, nothing is asked.
        caption: replace the caption by a fuller one. language: name the language where it is unknown.
        codes: write semantic codes.
    """

    metas: bool = True
    caption: bool = True
    language: bool = True
    codes: bool = True


@dataclass(frozen=True)
class Thought:
    """What came out.

    Attributes:
        song: the request with the planner's proposals in it. codes: one list a seed; empty where not asked for.
        plan: what the codes were written from. reply: the planner's words, None where it was not asked.
        notes: sentences for the user. seconds: time taken for plan and codes.
    """

    song: Song
    codes: Codes
    plan: str
    reply: engine.Written | None
    notes: tuple[str, ...] = ()
    seconds: tuple[float, float] = (0.0, 0.0)

    def report(self) -> str:
        """What was decided and how long it took, to read; with the trace where there is one."""
        asked = "The planner was asked." if self.reply else "Nothing was open, so the planner was not asked for a plan."
        lines = [f"{asked} ({self.seconds[0]:.1f} s)" if self.reply else asked, "", self.plan or "(no plan)"]
        if self.codes:
            count, length = len(self.codes.items), len(self.codes.for_item(0))
            speed = count * length / max(self.seconds[1], 1e-6)
            lines += [
                "",
                f"{count} x {length} codes ({length / CODE_RATE:g} s of music) "
                f"in {self.seconds[1]:.1f} s, {speed:.1f} codes/s",
            ]
        lines += [*([""] if self.notes else []), *self.notes]
        if self.reply and self.reply.trace:
            lines += ["", *(step.line() for step in self.reply.trace)]
        return "\n".join(lines)


def think(
    lm: LanguageModel,
    song: Song,
    *,
    seeds: Sequence[int] = (0,),
    parts: Parts | None = None,
    settings: PlannerSettings | None = None,
    trace: bool = False,
    host: Host | None = None,
) -> Thought:
    """Plan ``song`` and write codes for as many variations as there are ``seeds``.

    The plan is written once, with the first seed, and all variations share it. What the user gave is kept.

    Raises:
        ValueError: neither caption nor lyrics, or a wrong number of seeds; before anything is decoded.
    """
    host, parts, settings = host or current(), parts or Parts(), settings or PlannerSettings()
    if not (song.caption or song.sung.strip()):
        raise ValueError("Write a caption or lyrics: the planner needs at least one of them.")
    if not BATCH_RANGE[0] <= len(seeds) <= BATCH_RANGE[1]:
        raise ValueError(f"There are {len(seeds)} seeds; allowed is {BATCH_RANGE[0]} to {BATCH_RANGE[1]}.")
    settings = within_plan(host, settings)
    reply, notes, metas, planned = None, [], prompts.metas_of(song), song
    started = time.perf_counter()
    if parts.metas and not song.complete:
        reply = write_plan(lm, song, parts, settings, seeds[0], host, trace=trace)
        proposal = parsing.song_of(reply.text)
        metas = parsing.read(reply.text).metas | ({"caption": proposal.caption} if proposal.caption else {})
        planned = merge(song, proposal, parts)
    between = time.perf_counter()
    codes = Codes(())
    if parts.codes:
        seconds, origin = resolve_duration(planned)
        seconds, clamped = within_card(host, seconds, lm=True)
        if clamped:
            notes.append(clamped)
        if planned.duration <= 0:
            notes.append(f"Length {seconds:g} s ({origin}).")
        if planned.duration != seconds:
            metas = {**metas, "duration": int(seconds)}
            planned = replace(planned, duration=seconds)
        codes = Codes(codes_of(lm, song, metas, int(seconds * CODE_RATE), settings, seeds, host))
    for note in notes:
        host.say(note)
    times = (between - started, time.perf_counter() - between)
    return Thought(planned, codes, prompts.plan_text(metas), reply, tuple(notes), times)


def write_plan(
    lm: LanguageModel,
    song: Song,
    parts: Parts,
    settings: PlannerSettings,
    seed: int,
    host: Host,
    *,
    trace: bool = False,
) -> engine.Written:
    """The plan of a song (phase 1): its given metas word for word, the rest by the planner."""
    skip = [name for name, wanted in (("caption", parts.caption), ("language", parts.language)) if not wanted]
    vocabulary = vocabulary_of(lm.tokenizer)
    script = grammar.block(vocabulary, given=prompts.metas_of(song), skip=skip, longest=settings.longest)
    asked = [prompts.plan_prompt(song.caption, song.sung)]
    if settings.layout == "legacy" and settings.guided:
        asked.append(prompts.plan_negative(settings.negative, song.sung))
    ids = [prompts.encode(lm.tokenizer, prompt) for prompt in asked]
    return engine.write(lm, ids, script, settings, seed, host, trace=trace)


def codes_of(
    lm: LanguageModel,
    song: Song,
    metas: dict[str, Any],
    count: int,
    settings: PlannerSettings,
    seeds: Sequence[int],
    host: Host,
) -> tuple[tuple[int, ...], ...]:
    """Codes along a plan (phase 2). The song is the user's own; the plan may hold a rewritten caption."""
    legacy, plan = settings.layout == "legacy", prompts.plan_text(metas)
    asked = [prompts.codes_prompt(song.caption, song.sung, plan, legacy)]
    if settings.guided:
        asked.append(prompts.codes_negative(settings.negative, song.caption, song.sung, NO_INPUT, legacy))
    ids = [prompts.encode(lm.tokenizer, prompt) for prompt in asked]
    return engine.write_codes(lm, ids, count, settings, seeds, host)


def merge(song: Song, proposal: Song, parts: Parts) -> Song:
    """The user's song with the open fields of a plan filled in; the caption is replaced where that was wanted."""
    caption = proposal.caption if parts.caption and proposal.caption else song.caption
    language = proposal.language if parts.language else UNKNOWN_LANGUAGE
    return replace(song, caption=caption).filled_from(replace(proposal, caption="", lyrics="", language=language))
