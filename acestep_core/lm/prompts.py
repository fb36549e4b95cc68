"""Prompts of the 5 Hz language model, word for word as it was trained.

A prompt is a sequence of pieces. Control tokens are :class:`Control`; every other piece is plain text, in
which a control token that a user typed stays a few harmless words.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import yaml

from ..song import Song
from ..tokenizer import AUDIO_CODE, Tokenizer

GENERATE = "Generate audio semantic tokens based on the given conditions:"
UNDERSTAND = "Understand the given musical conditions and describe the audio semantics accordingly:"
CREATE = "Expand the user's input into a more detailed and specific musical description:"
FORMAT = "Format the user's input into a more detailed and specific musical description:"

FIELDS = ("bpm", "caption", "duration", "keyscale", "language", "timesignature")
"""What a plan may hold, in the order the model writes it."""


class Control(str):
    """One control token of the vocabulary."""


START, END = Control("<|im_start|>"), Control("<|im_end|>")
THINK, END_THINK = Control("<think>"), Control("</think>")

Prompt = tuple[str, ...]


def text_of(prompt: Prompt) -> str:
    return "".join(prompt)


def encode(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """Token ids. Neighbouring pieces of text are tokenized together, as the model saw them."""
    ids: list[int] = []
    for control, pieces in itertools.groupby(prompt, key=lambda piece: isinstance(piece, Control)):
        if control:
            ids += [tokenizer.token_id(piece) for piece in pieces]
        else:
            ids += tokenizer.encode_words("".join(pieces))
    return ids


def _chat(instruction: str, user: Sequence[str], answer: Sequence[str] = ()) -> Prompt:
    system = (START, f"system\n# Instruction\n{instruction}\n\n", END, "\n")
    return (*system, START, "user\n", *user, END, "\n", START, "assistant\n", *answer)


def _request(caption: str, lyrics: str) -> str:
    return f"# Caption\n{caption}\n\n# Lyric\n{lyrics}\n"


def plan_prompt(caption: str, lyrics: str) -> Prompt:
    """Asks for a plan (phase 1)."""
    return _chat(GENERATE, [_request(caption, lyrics)])


def plan_negative(negative: str, lyrics: str) -> Prompt:
    """The unconditional side where guidance is applied to the plan (legacy layout only)."""
    return _chat(GENERATE, [_request(negative, lyrics) if negative else f"# Lyric\n{lyrics}\n"])


def codes_prompt(caption: str, lyrics: str, plan: str, legacy: bool = False) -> Prompt:
    """Asks for the codes of a plan (phase 2); ``plan`` is what :func:`plan_text` gives."""
    return _chat(GENERATE, [_request(caption, lyrics)], _thought(plan, legacy))


def codes_negative(negative: str, caption: str, lyrics: str, no_input: str, legacy: bool = False) -> Prompt:
    """The unconditional side of the codes phase: the bare negative prompt, or ``no_input`` where it is empty.

    The legacy layout keeps caption and lyrics, of which only the caption gives way to a negative prompt.
    """
    user = _request(negative or caption, lyrics) if legacy else negative or no_input
    return _chat(GENERATE, [user], _thought("", legacy))


def _thought(plan: str, legacy: bool) -> tuple[str, ...]:
    closed = (END, "\n") if legacy else ()
    return (THINK, f"\n{plan}\n", END_THINK, "\n\n", *closed)


def understand_prompt(codes: Sequence[int], no_input: str = "") -> Prompt:
    """Asks what music ``codes`` are; without codes, ``no_input`` asks for any song at all."""
    return _chat(UNDERSTAND, [Control(AUDIO_CODE.format(code)) for code in codes] or [no_input])


def create_prompt(description: str, instrumental: bool) -> Prompt:
    """Asks for a whole song from a sentence."""
    return _chat(CREATE, [f"{description}\n\ninstrumental: {str(instrumental).lower()}"])


def format_prompt(caption: str, lyrics: str) -> Prompt:
    """Asks for a fuller caption and well-formed lyrics."""
    return _chat(FORMAT, [f"# Caption\n{caption}\n\n# Lyric\n{lyrics}"])


def plan_text(metas: Mapping[str, object]) -> str:
    """A plan as the model writes it: YAML with sorted keys, folded at 80 columns; "" for an empty one.

    Only :data:`FIELDS` count. Digits become numbers; a time signature in quarters loses its denominator.
    """
    kept: dict[str, object] = {}
    for name in FIELDS:
        value = metas.get(name)
        if value is None:
            continue
        if name == "timesignature":
            value = str(value).removesuffix("/4")
        kept[name] = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    return yaml.dump(kept, allow_unicode=True, sort_keys=True).strip() if kept else ""


def metas_of(song: Song) -> dict[str, object]:
    """The four metas of a song that are given, under the model's names. Seconds are cut to whole ones."""
    given: dict[str, object] = {}
    if song.bpm:
        given["bpm"] = song.bpm
    if song.duration > 0:
        given["duration"] = int(song.duration)
    if song.key:
        given["keyscale"] = song.key
    if song.time_signature:
        given["timesignature"] = song.time_signature
    return given
