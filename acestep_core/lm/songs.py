"""Whole songs from the planner: from a sentence, from a draft, from codes, or out of nothing.

>>> from acestep_core.lm import songs
>>> made = songs.create(lm, "a song about the first snow, for small children", seed=1)
>>> print(made.song.text())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..checkpoints.handles import LanguageModel
from ..host import Host, current
from ..memory.limits import within_plan
from ..song import INSTRUMENTAL, LANGUAGES, UNKNOWN_LANGUAGE, Song
from . import engine, grammar, parsing, prompts
from .settings import NO_INPUT, PlannerSettings
from .vocabulary import vocabulary_of

TEXT_BUDGET = 3500
"""Tokens of a reply with lyrics at most."""


@dataclass(frozen=True)
class Proposal:
    """A song the planner proposes, with its own words and what the user should know."""

    song: Song
    reply: engine.Written
    notes: tuple[str, ...] = ()

    def report(self) -> str:
        """The song to read, then notes and, where there is one, the trace."""
        lines = [self.song.text(), *([""] if self.notes else []), *self.notes]
        speed = len(self.reply.ids) / max(self.reply.seconds, 1e-6)
        lines += ["", f"{len(self.reply.ids)} tokens in {self.reply.seconds:.1f} s, {speed:.1f} tokens/s"]
        if self.reply.trace:
            lines += ["", *(step.line() for step in self.reply.trace)]
        return "\n".join(lines)


def create(
    lm: LanguageModel,
    description: str,
    *,
    instrumental: bool = False,
    language: str = UNKNOWN_LANGUAGE,
    seed: int = 0,
    settings: PlannerSettings | None = None,
    budget: int = TEXT_BUDGET,
    trace: bool = False,
    host: Host | None = None,
) -> Proposal:
    """A song from a sentence (Simple mode). An empty one leaves everything to the planner.

    Raises:
        ValueError: an unknown language.
    """
    _check_language(language)
    prompt = prompts.create_prompt(description.strip() or NO_INPUT, instrumental)
    given = {} if language == UNKNOWN_LANGUAGE or instrumental else {"language": language}
    made = _ask(lm, prompt, given, "creating", seed, settings, budget, trace, host)
    if instrumental:
        song = replace(made.song, instrumental=True, lyrics=INSTRUMENTAL, language=UNKNOWN_LANGUAGE)
        return replace(made, song=song)
    if made.song.instrumental or not made.song.sung:
        return _noted(made, "The planner wrote no lyrics. Another seed may.", host)
    return made


def rewrite(
    lm: LanguageModel,
    song: Song,
    *,
    lock_caption: bool = False,
    lock_lyrics: bool = False,
    seed: int = 0,
    settings: PlannerSettings | None = None,
    budget: int = TEXT_BUDGET,
    trace: bool = False,
    host: Host | None = None,
) -> Proposal:
    """Format: a fuller caption, well-formed lyrics and the open metas of a draft; what is given stays.

    Args:
        lock_caption, lock_lyrics: keep the draft's own.
    """
    given = prompts.metas_of(song)
    if song.language != UNKNOWN_LANGUAGE:
        given["language"] = song.language
    prompt = prompts.format_prompt(song.caption or NO_INPUT, song.sung.strip() or INSTRUMENTAL)
    made = _ask(lm, prompt, given, "formatting", seed, settings, budget, trace, host)
    written = made.song
    wordless = not written.sung or (written.instrumental and bool(song.lyrics.strip()))
    keeps_lyrics = lock_lyrics or song.instrumental or wordless
    open_fields = replace(written, caption="", lyrics="", instrumental=False)
    draft = replace(
        song,
        caption=song.caption if lock_caption else written.caption or song.caption,
        lyrics=song.lyrics if keeps_lyrics else written.lyrics,
        instrumental=song.instrumental if keeps_lyrics else written.instrumental,
    )
    made = replace(made, song=draft.filled_from(open_fields))
    if wordless and not (lock_lyrics or song.instrumental):
        return _noted(made, "The planner wrote no lyrics, so those of the draft are kept.", host)
    return made


def transcribe(
    lm: LanguageModel,
    codes: Sequence[int],
    *,
    seed: int = 0,
    settings: PlannerSettings | None = None,
    budget: int = TEXT_BUDGET,
    trace: bool = False,
    host: Host | None = None,
) -> Proposal:
    """What music ``codes`` are: caption, lyrics, metas and language. Without codes: any song at all.

    Raises:
        ValueError: codes the planner has no token for.
    """
    known = len(vocabulary_of(lm.tokenizer).codes)
    if codes and not 0 <= min(codes) <= max(codes) < known:
        wrong = next(code for code in codes if not 0 <= code < known)
        raise ValueError(f"{wrong} is no code this planner knows; allowed is 0 to {known - 1}.")
    prompt = prompts.understand_prompt(codes, NO_INPUT)
    return _ask(lm, prompt, {}, "transcribing" if codes else "imagining", seed, settings, budget, trace, host)


def _ask(
    lm: LanguageModel,
    prompt: prompts.Prompt,
    given: Mapping[str, object],
    what: str,
    seed: int,
    settings: PlannerSettings | None,
    budget: int,
    trace: bool,
    host: Host | None,
) -> Proposal:
    """One reply with lyrics, unguided."""
    if budget < grammar.BLOCK_TOKENS:
        raise ValueError(f"A budget of {budget} tokens is too small; a reply needs {grammar.BLOCK_TOKENS} or more.")
    host = host or current()
    settings = within_plan(host, settings or PlannerSettings())
    vocabulary = vocabulary_of(lm.tokenizer)
    script = grammar.block(vocabulary, given=given, longest=settings.longest, lyrics=True)
    ids = prompts.encode(lm.tokenizer, prompt)
    reply = engine.write(lm, [ids], script, settings, seed, host, budget=budget, trace=trace, what=what)
    song = parsing.song_of(reply.text)
    made = Proposal(song, reply)
    return made if reply.finished else _noted(made, f"The lyrics were cut after {budget} tokens.", host)


def _noted(made: Proposal, note: str, host: Host | None) -> Proposal:
    (host or current()).say(note)
    return replace(made, notes=(*made.notes, note))


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise ValueError(f"language is {language!r}; allowed is {', '.join(LANGUAGES)}.")
