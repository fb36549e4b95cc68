"""The planner: songs from a sentence, a draft or codes, and the plan and codes of a song."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..acestep_core import song as words
from ..acestep_core.lm import settings as s
from ..acestep_core.sampling.settings import BATCH_RANGE, SEED_MAX
from .widgets import CODES, LM, PLANNER_SETTINGS, ROOT, SONG, choice, number, problem_of, socket, switch, text, whole

CATEGORY = f"{ROOT}/Planner"
DEFAULT = s.PlannerSettings()
LM_INPUT = socket(LM, "From Load ACE-Step Language Model.")
SETTINGS_INPUT = socket(PLANNER_SETTINGS, "From Planner Settings, for what is rarely changed.")
REPORT_TIP = "The result to read, with time taken and, with debug on, every token"
EXAMPLE_DESCRIPTION = "A gentle indie folk song about coming home by night train, female voice, acoustic guitar"


def seed_widget(what: str) -> tuple:
    tip = f"The same seed gives the same {what}. It stays as it is, so that the planner is not asked at every queue."
    return whole(0, 0, SEED_MAX, tip, control_after_generate="fixed")


def choosing() -> dict[str, tuple]:
    """Widgets that every node of the planner has."""
    return {
        "temperature": number(
            DEFAULT.temperature, *s.TEMPERATURE_RANGE, 0.05, "Higher is freer, lower is safer; 0 takes the likeliest."
        ),
        "top_k": whole(DEFAULT.top_k, *s.TOP_K_RANGE, "Choose among this many likeliest tokens. 0: no limit."),
        "top_p": number(
            DEFAULT.top_p, *s.SHARE_RANGE, 0.01, "Choose among the likeliest tokens of this total probability. 1: all."
        ),
    }


DEBUG = switch(False, "Add every token to the report: what was allowed, and how likely the choice was.", advanced=True)


def check_settings(**given: Any) -> bool | str:
    """Whether the widgets that are known before the queue hold allowed values."""
    return problem_of(s.PlannerSettings, **{name: value for name, value in given.items() if value is not None})


def chosen(base: s.PlannerSettings | None, **widgets: Any) -> s.PlannerSettings:
    return replace(base or DEFAULT, **widgets)


class _Planner:
    CATEGORY = CATEGORY

    @classmethod
    def VALIDATE_INPUTS(cls, temperature: Any = None, top_k: Any = None, top_p: Any = None) -> bool | str:
        return check_settings(temperature=temperature, top_k=top_k, top_p=top_p)


class CreateSample(_Planner):
    DESCRIPTION = (
        "Simple mode: writes a whole song, with caption, lyrics, tempo, key and length, from one sentence. "
        "Look at it, change it with Edit Song if you like, and give it to Think or to a task."
    )
    SEARCH_ALIASES = ["ace step", "simple mode", "inspiration", "song description", "lyrics writer"]
    FUNCTION = "create"
    RETURN_TYPES = (SONG, "STRING", "STRING")
    RETURN_NAMES = ("song", "report", "description")
    OUTPUT_TOOLTIPS = ("The song the planner proposes", REPORT_TIP, "The description used")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        description = "What you want to hear, in any language. Empty: the planner decides everything."
        example = "Use a random description of the collection, chosen by the seed, in place of the three above."
        return {
            "required": {
                "lm": LM_INPUT,
                "description": text(description, EXAMPLE_DESCRIPTION, multiline=True),
                "instrumental": switch(False, "Music without singing."),
                "language": choice(words.LANGUAGES, "Language of the lyrics. unknown: left to the planner.", "unknown"),
                "random_example": switch(False, example),
                "seed": seed_widget("song"),
                **choosing(),
            },
            "optional": {"planner_settings": SETTINGS_INPUT, "debug": DEBUG},
        }

    def create(
        self,
        lm: Any,
        description: str,
        instrumental: bool,
        language: str,
        random_example: bool,
        seed: int,
        planner_settings: s.PlannerSettings | None = None,
        debug: bool = False,
        **widgets: Any,
    ) -> tuple:
        from ..acestep_core.lm import examples, songs

        if random_example:
            wanted = examples.random_description(seed)
            description, instrumental, language = wanted.description, wanted.instrumental, wanted.language
        given = {"instrumental": instrumental, "language": language, "seed": seed, "trace": debug}
        made = songs.create(lm, description, settings=chosen(planner_settings, **widgets), **given)
        return made.song, made.report(), description


class FormatSong(_Planner):
    DESCRIPTION = (
        "Rewrites a draft: a fuller caption, lyrics with section tags, and the values left on auto. "
        "What you gave stays; caption and lyrics can be locked."
    )
    SEARCH_ALIASES = ["ace step", "enhance", "rewrite", "improve prompt"]
    FUNCTION = "format"
    RETURN_TYPES = (SONG, "STRING")
    RETURN_NAMES = ("song", "report")
    OUTPUT_TOOLTIPS = ("The rewritten song", REPORT_TIP)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "lm": LM_INPUT,
                "song": socket(SONG, "The draft."),
                "lock_caption": switch(False, "Keep the caption as it is."),
                "lock_lyrics": switch(False, "Keep the lyrics as they are."),
                "seed": seed_widget("rewriting"),
                **choosing(),
            },
            "optional": {"planner_settings": SETTINGS_INPUT, "debug": DEBUG},
        }

    def format(
        self,
        lm: Any,
        song: Any,
        lock_caption: bool,
        lock_lyrics: bool,
        seed: int,
        planner_settings: s.PlannerSettings | None = None,
        debug: bool = False,
        **widgets: Any,
    ) -> tuple:
        from ..acestep_core.lm import songs

        given = {"lock_caption": lock_caption, "lock_lyrics": lock_lyrics, "seed": seed, "trace": debug}
        made = songs.rewrite(lm, song, settings=chosen(planner_settings, **widgets), **given)
        return made.song, made.report()


class Think(_Planner):
    DESCRIPTION = (
        "Plans a song: fills in what is on auto, can rewrite the caption, and writes the codes the music follows. "
        "Give song and codes to Text to Music. A new sampler seed does not ask the planner again."
    )
    SEARCH_ALIASES = ["ace step", "thinking", "chain of thought", "cot", "lm codes", "semantic codes"]
    FUNCTION = "think"
    RETURN_TYPES = (SONG, CODES, "STRING")
    RETURN_NAMES = ("song", "codes", "report")
    OUTPUT_TOOLTIPS = (
        "The song with the plan in it",
        "Codes for each variation; none where they are off",
        REPORT_TIP,
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        metas = (
            "Let the planner choose tempo, key, time signature and length where they are on auto. "
            "Where all four are given, it is not asked, and the next two do nothing."
        )
        negative = (
            f"What guidance moves away from, in words. {s.NO_INPUT} or empty: from music made without any request."
        )
        cfg = "How strongly the codes follow caption and lyrics. 1: no guidance, and twice as light."
        return {
            "required": {
                "lm": LM_INPUT,
                "song": socket(SONG, "What to make."),
                "batch_size": whole(2, *BATCH_RANGE, "Variations, each with codes of its own; as in Text to Music."),
                "seed": seed_widget("plan and codes"),
                "metas": switch(True, metas),
                "rewrite_caption": switch(True, "Replace the caption by the planner's fuller one."),
                "detect_language": switch(True, "Let the planner name the language where it is unknown."),
                "write_codes": switch(True, "Write codes. Off: only the plan."),
                **choosing(),
                "cfg_scale": number(DEFAULT.cfg_scale, *s.CFG_RANGE, 0.1, cfg),
                "negative_prompt": text(negative, DEFAULT.negative_prompt),
            },
            "optional": {"planner_settings": SETTINGS_INPUT, "debug": DEBUG},
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls, temperature: Any = None, top_k: Any = None, top_p: Any = None, cfg_scale: Any = None
    ) -> bool | str:
        return check_settings(temperature=temperature, top_k=top_k, top_p=top_p, cfg_scale=cfg_scale)

    def think(
        self,
        lm: Any,
        song: Any,
        batch_size: int,
        seed: int,
        metas: bool,
        rewrite_caption: bool,
        detect_language: bool,
        write_codes: bool,
        planner_settings: s.PlannerSettings | None = None,
        debug: bool = False,
        **widgets: Any,
    ) -> tuple:
        from ..acestep_core.lm import think
        from ..acestep_core.sampling.noise import seeds_of

        parts = think.Parts(metas, rewrite_caption, detect_language, write_codes)
        made = think.think(
            lm,
            song,
            seeds=seeds_of(seed, batch_size),
            parts=parts,
            settings=chosen(planner_settings, **widgets),
            trace=debug,
        )
        return made.song, made.codes, made.report()


class Transcribe(_Planner):
    DESCRIPTION = (
        "Describes the music that codes stand for: caption, lyrics, tempo, key, length and language. "
        "With Source to Codes in front of it, it analyses a recording."
    )
    SEARCH_ALIASES = ["ace step", "understand", "analyze", "describe audio", "codes to song"]
    FUNCTION = "transcribe"
    RETURN_TYPES = (SONG, "STRING")
    RETURN_NAMES = ("song", "report")
    OUTPUT_TOOLTIPS = ("The song the planner heard", REPORT_TIP)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "lm": LM_INPUT,
                "codes": socket(CODES, "Codes of a recording, of text, or of Think."),
                "item": whole(1, *BATCH_RANGE, "Which item of a batch."),
                "seed": seed_widget("description"),
                **choosing(),
            },
            "optional": {"planner_settings": SETTINGS_INPUT, "debug": DEBUG},
        }

    def transcribe(
        self,
        lm: Any,
        codes: Any,
        item: int,
        seed: int,
        planner_settings: s.PlannerSettings | None = None,
        debug: bool = False,
        **widgets: Any,
    ) -> tuple:
        from ..acestep_core.lm import songs

        found = codes.for_item(item - 1)
        if not found:
            raise ValueError(f"There are no codes for item {item}; there are {len(codes.items)} items.")
        made = songs.transcribe(lm, found, seed=seed, settings=chosen(planner_settings, **widgets), trace=debug)
        return made.song, made.report()


class RandomSong:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "A song to begin with, chosen by the seed: one of the collection, or, with the planner connected, "
        "one that it makes up."
    )
    SEARCH_ALIASES = ["ace step", "dice", "example", "inspiration", "random"]
    FUNCTION = "draw"
    RETURN_TYPES = (SONG, "STRING")
    RETURN_NAMES = ("song", "report")
    OUTPUT_TOOLTIPS = ("The song", "The song to read")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        language = f"Only examples in this language. {words.AUTO}: any. The planner chooses its own."
        return {
            "required": {
                "seed": seed_widget("song"),
                "language": choice((words.AUTO, *words.LANGUAGES), language),
            },
            "optional": {"lm": LM_INPUT, "planner_settings": SETTINGS_INPUT},
        }

    def draw(
        self, seed: int, language: str, lm: Any = None, planner_settings: s.PlannerSettings | None = None
    ) -> tuple:
        from ..acestep_core.lm import examples

        if lm is None:
            song = examples.random_song(seed, None if language == words.AUTO else language)
            return song, song.text()
        from ..acestep_core.lm import songs

        made = songs.transcribe(lm, (), seed=seed, settings=planner_settings)
        return made.song, made.report()


class PlannerSettings:
    CATEGORY = CATEGORY
    DESCRIPTION = "Optional settings of the planner. The defaults are those of the model; change them only to explore."
    SEARCH_ALIASES = ["ace step", "lm settings", "min p", "repetition penalty", "parallel thinking", "chunk size"]
    FUNCTION = "make"
    RETURN_TYPES = (PLANNER_SETTINGS,)
    RETURN_NAMES = ("planner_settings",)
    OUTPUT_TOOLTIPS = ("For the planner's nodes",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        layout = (
            "Form of the prompts. current: as the model was trained; guidance follows caption and lyrics. "
            "legacy: as other programs wrote them until early 2026, to repeat their songs."
        )
        parallel = "Write the codes of all variations together (ParallelThinking). Off: one by one, with less memory."
        low, high = s.LONGEST_RANGE
        longest = f"Longest song in seconds that the planner may choose by itself, {low} to {high}."
        return {
            "required": {
                "min_p": number(DEFAULT.min_p, *s.SHARE_RANGE, 0.01, "Drop tokens below this share of the likeliest."),
                "repetition_penalty": number(
                    DEFAULT.repetition_penalty, *s.PENALTY_RANGE, 0.01, "Above 1, repeats become rarer. 1 suits codes."
                ),
                "layout": choice(s.LAYOUTS, layout),
                "parallel": switch(DEFAULT.parallel, parallel),
                "chunk": whole(DEFAULT.chunk, *s.CHUNK_RANGE, "Variations written together at most. 0: all."),
                "longest": whole(DEFAULT.longest, low, high, longest),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls, min_p: Any = None, repetition_penalty: Any = None, chunk: Any = None, longest: Any = None
    ) -> bool | str:
        return check_settings(min_p=min_p, repetition_penalty=repetition_penalty, chunk=chunk, longest=longest)

    def make(self, **widgets: Any) -> tuple:
        return (s.PlannerSettings(**widgets),)
