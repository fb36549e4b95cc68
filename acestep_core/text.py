"""Prompts of the diffusion model, word for word as it was trained, and their embeddings.

The exact text matters: every newline below is one the model saw in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .checkpoints.handles import TextEncoder
from .host import Host, current
from .memory.recovery import with_room
from .song import UNKNOWN_LANGUAGE, Song
from .tokenizer import Tokenizer

TEXT_TOKENS = 256
LYRIC_TOKENS = 2048
NOT_GIVEN = "N/A"
DEFAULT_SECONDS = 30
_NAMES = {
    "bpm": ("bpm", "tempo"),
    "timesignature": ("timesignature", "time_signature"),
    "keyscale": ("keyscale", "key", "scale"),
    "duration": ("duration", "length"),
}


def metas_text(metas: object) -> str:
    """The four metadata lines. Missing values become N/A, a missing duration 30 seconds.

    ``metas`` is a mapping (older spellings such as ``tempo`` are understood), ready-made text, or anything
    else for "nothing known". Numbers of seconds are cut to whole ones.
    """
    if isinstance(metas, str):
        return metas
    values = metas if isinstance(metas, Mapping) else {}
    found = {name: next((values[n] for n in names if n in values), None) for name, names in _NAMES.items()}
    lines = [f"- {name}: {_given(found[name])}" for name in ("bpm", "timesignature", "keyscale")]
    seconds = found["duration"]
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
        seconds = f"{int(seconds)} seconds"
    elif not isinstance(seconds, str) or not seconds.strip():
        seconds = f"{DEFAULT_SECONDS} seconds"
    return "\n".join((*lines, f"- duration: {seconds}\n"))


def _given(value: object) -> str:
    text = "" if value is None or value == 0 else str(value)
    return text if text.strip() else NOT_GIVEN


def song_metas(song: Song, seconds: float) -> dict[str, object]:
    """Metadata of a song whose length is known."""
    return {
        "bpm": song.bpm,
        "timesignature": song.time_signature,
        "keyscale": song.key,
        "duration": seconds,
    }


def close_instruction(instruction: str) -> str:
    """The instruction with the colon it must end with."""
    return instruction if instruction.endswith(":") else instruction + ":"


def inner_caption(caption: str) -> str:
    """The caption within a pasted whole prompt; any other caption unchanged."""
    if "# Instruction" not in caption or "# Caption" not in caption:
        return caption
    return caption.split("# Caption", 1)[1].split("# Metas", 1)[0].strip()


def text_prompt(instruction: str, caption: str, metas: object) -> str:
    """What the text encoder reads."""
    return (
        f"# Instruction\n{close_instruction(instruction)}\n\n"
        f"# Caption\n{inner_caption(caption)}\n\n"
        f"# Metas\n{metas_text(metas)}<|endoftext|>\n"
    )


def lyric_header(language: str) -> str:
    return f"# Languages\n{language}\n\n# Lyric\n"


def lyric_prompt(lyrics: str, language: str = UNKNOWN_LANGUAGE) -> str:
    """What the lyric encoder reads. Leading newlines would merge with the header and are dropped."""
    return f"{lyric_header(language)}{lyrics.lstrip(chr(10))}<|endoftext|>"


@dataclass(frozen=True)
class Prompt:
    """Both prompts of one item with their token ids; ``lost`` counts the tokens cut from each."""

    text: str
    lyrics: str
    text_ids: tuple[int, ...]
    lyric_ids: tuple[int, ...]
    lost: tuple[int, int] = (0, 0)

    def notes(self) -> tuple[str, ...]:
        text, lyrics = self.lost
        found = []
        if text:
            found.append(
                f"The caption is {text} tokens too long: what follows it, length, key and tempo, is cut off first."
            )
        if lyrics:
            found.append(f"The lyrics are too long: the last {lyrics} of {lyrics + LYRIC_TOKENS} tokens are not heard.")
        return tuple(found)


def tokenize(tokenizer: Tokenizer, text: str, limit: int) -> tuple[tuple[int, ...], int]:
    """Ids of ``text`` closed by an end token, at most ``limit`` in all, and how many were cut."""
    ids = tokenizer.encode(text)
    kept = ids[: limit - 1]
    return (*kept, tokenizer.end_of_text), len(ids) - len(kept)


def make_prompt(tokenizer: Tokenizer, instruction: str, song: Song, seconds: float) -> Prompt:
    """Prompt of ``song`` for a task's ``instruction``, with its resolved length."""
    text = text_prompt(instruction, song.caption, song_metas(song, seconds))
    lyrics = lyric_prompt(song.sung, song.language)
    text_ids, text_lost = tokenize(tokenizer, text, TEXT_TOKENS)
    lyric_ids, lyric_lost = tokenize(tokenizer, lyrics, LYRIC_TOKENS)
    return Prompt(text, lyrics, text_ids, lyric_ids, (text_lost, lyric_lost))


@with_room("reading the words")
@torch.inference_mode()
def embed(encoder: TextEncoder, prompt: Prompt, host: Host | None = None) -> tuple[Tensor, Tensor]:
    """Hidden states of the text [1, Lt, width] and embeddings of the lyrics [1, Ll, width], on the CPU."""
    host = host or current()
    device = host.prepare(encoder.module, "text", 300_000_000)
    text = torch.tensor([prompt.text_ids], device=device)
    lyrics = torch.tensor([prompt.lyric_ids], device=device)
    return encoder.module(text).cpu(), encoder.module.embed_tokens(lyrics).cpu()
