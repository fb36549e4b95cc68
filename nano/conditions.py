"""A song and a task → one example for the diffusion model, worded and masked as the tasks of the engine do it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from acestep_graph.acestep_core.sampling.conditioning import FRAME_RATE, context
from acestep_graph.acestep_core.song import UNKNOWN_LANGUAGE, Song
from acestep_graph.acestep_core.tasks.instructions import instruction_for
from acestep_graph.acestep_core.text import make_prompt
from acestep_graph.acestep_core.tokenizer import Tokenizer

from .songs import Cached

SHARES = {
    "text2music": 0.36,
    "cover": 0.22,
    "cover-nofsq": 0.02,
    "repaint": 0.11,
    "extract": 0.15,
    "lego": 0.07,
    "complete": 0.07,
}
"""How often each task comes. ``cover`` is also text2music with codes: both hear latents that went through codes."""
OF_STEMS = ("extract", "lego", "complete")
"""What needs a song whose stems are known."""
PLAYED_FAST = ("text2music", "cover", "cover-nofsq", "repaint")
"""What turbo models do."""
REFERENCE = 0.15
"""Share of examples with reference sound."""
OPEN = 0.25
"""Share of examples in which a meta is not given, for each on its own."""
SUNG_TASKS = ("text2music", "cover", "repaint", "complete")


@dataclass(frozen=True, eq=False)
class Row:
    """One example.

    Attributes:
        target: latents [T, 64] to be made. context: [T, 128]. hints: whether the source still has to go through codes.
        text, lyrics: token ids. clip: reference latents [frames, 64], None for silence.
        first, last: for each patch of two frames the lyric tokens that are sung in it, [first, last); 0, 0 for none.
    """

    task: str
    target: Tensor
    context: Tensor
    hints: bool
    text: tuple[int, ...]
    lyrics: tuple[int, ...]
    clip: Tensor | None
    first: np.ndarray
    last: np.ndarray


def make_row(
    cached: Cached,
    task: str,
    silence: Tensor,
    tokenizer: Tokenizer,
    random: np.random.Generator,
    clip_frames: int,
) -> Row:
    """An example of ``task`` from one song; what the song has no stems for becomes text2music.

    Args:
        silence: latents [frames, 64], at least as many as the song has. clip_frames: of reference clips.
    """
    if task in OF_STEMS and not cached.stems:
        task = "text2music"
    mix = cached.mix.float()
    frames = len(mix)
    silent, mask = silence[:frames], torch.ones(frames)
    track = str(random.choice(list(cached.stems))) if cached.stems else ""
    tracks: Sequence[str] = ()
    song = worded(cached, random)
    target, source = mix, silent
    if task in ("cover", "cover-nofsq"):
        source = mix
    elif task == "repaint":
        first, last = region(frames, random)
        source = mix.clone()
        source[first:last] = silent[first:last]
        mask = torch.zeros(frames)
        mask[first:last] = 1
    elif task == "extract":
        target, source = cached.stems[track].float(), mix
        song = Song(caption=track) if random.random() < 0.7 else song
    elif task == "lego":
        target, source = cached.stems[track].float(), cached.rests[track].float()
        song = replace(song, bpm=None, key="", time_signature="", language=UNKNOWN_LANGUAGE)
        if random.random() < 0.6:
            song = replace(song, caption=cached.stem_captions[track])
        if random.random() < 0.2:
            first, last = region(frames, random)
            mask = torch.zeros(frames)
            mask[first:last] = 1
            target = torch.where(mask[:, None] > 0, target, silent)
    elif task == "complete":
        alone = random.random() < 0.7
        others = [name for name in cached.tracks if name != track] if alone else [track]
        source = (cached.stems if alone else cached.rests)[track].float()
        tracks = others if random.random() < 0.7 else ()
    prompt = make_prompt(tokenizer, instruction_for(task, track, tracks), song, frames / FRAME_RATE)
    sings = task in SUNG_TASKS or track in ("vocals",)
    first_token, last_token = sung_tokens(prompt.lyrics, cached, tokenizer, sings and bool(song.sung))
    clip = None
    if task not in ("extract",) and random.random() < REFERENCE:
        start = int(random.integers(frames))
        clip = torch.roll(mix, -start, 0).repeat(-(-clip_frames // frames), 1)[:clip_frames]
    return Row(
        task=task,
        target=target,
        context=context(source[None], mask[None])[0],
        hints=task == "cover",
        text=prompt.text_ids,
        lyrics=prompt.lyric_ids,
        clip=clip,
        first=first_token,
        last=last_token,
    )


def worded(cached: Cached, random: np.random.Generator) -> Song:
    """The song under one of its captions, with some metas left open."""
    given = cached.song
    open_ = random.random(3) < OPEN
    return replace(
        given,
        caption=str(cached.captions[random.integers(len(cached.captions))]),
        bpm=None if open_[0] else given.bpm,
        key="" if open_[1] else given.key,
        time_signature="" if open_[2] else given.time_signature,
        language=UNKNOWN_LANGUAGE if random.random() < 0.1 else given.language,
    )


def region(frames: int, random: np.random.Generator) -> tuple[int, int]:
    """A part of at least a fifth; one time in four up to the end or from the beginning, as in extending."""
    length = int(frames * random.uniform(0.2, 0.7))
    start = int(random.integers(frames - length + 1))
    edge = random.random()
    start = 0 if edge < 0.12 else frames - length if edge < 0.25 else start
    return start, start + length


def sung_tokens(prompt: str, cached: Cached, tokenizer: Tokenizer, sings: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of a lyric prompt are sung in each patch; see :class:`Row`."""
    first, last = (np.zeros(-(-cached.frames // 2), np.int64) for _ in range(2))
    if not sings or not cached.words:
        return first, last
    offsets = np.array(tokenizer.backend.encode(prompt, add_special_tokens=False).offsets)
    place = prompt.index("# Lyric\n") + len("# Lyric\n")
    for text, start, end in cached.words:
        found = re.compile(re.escape(text), re.IGNORECASE).search(prompt, place)
        if found is None:
            continue
        place = found.end()
        tokens = np.flatnonzero((offsets[:, 0] < place) & (offsets[:, 1] > found.start()))
        if len(tokens):
            patches = slice(int(start * FRAME_RATE / 2), math.ceil(end * FRAME_RATE / 2))
            first[patches], last[patches] = tokens[0], tokens[-1] + 1
    return first, last


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of equal length, padded.

    Attributes:
        target: [B, T, 64]. context: [B, T, 128]. hints: [B] rows whose source is to go through codes.
        text, lyrics: ids [B, L]; text_mask, lyric_mask: 1 where there is one.
        clips: [N, frames, 64], the first of silence; clip: [B] which of them each row hears.
        sung: [B, S, Ll] true where a token is sung in a patch.
    """

    target: Tensor
    context: Tensor
    hints: Tensor
    text: Tensor
    text_mask: Tensor
    lyrics: Tensor
    lyric_mask: Tensor
    clips: Tensor
    clip: Tensor
    sung: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def collate(rows: Sequence[Row], silence: Tensor, clip_frames: int) -> Batch:
    """Rows → batch; ``silence`` [frames, 64] is what rows without a reference hear."""
    text, text_mask = _padded([row.text for row in rows])
    lyrics, lyric_mask = _padded([row.lyrics for row in rows])
    clips, which = [silence[:clip_frames]], []
    for row in rows:
        which.append(0 if row.clip is None else len(clips))
        clips += [] if row.clip is None else [row.clip]
    columns = torch.arange(lyrics.shape[1])
    first, last = (
        torch.from_numpy(np.stack([getattr(row, end) for row in rows]))[..., None] for end in ("first", "last")
    )
    return Batch(
        target=torch.stack([row.target for row in rows]),
        context=torch.stack([row.context for row in rows]),
        hints=torch.tensor([row.hints for row in rows]),
        text=text,
        text_mask=text_mask,
        lyrics=lyrics,
        lyric_mask=lyric_mask,
        clips=torch.stack(clips),
        clip=torch.tensor(which),
        sung=(columns >= first) & (columns < last),
    )


def _padded(ids: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    rows = [torch.tensor(row) for row in ids]
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return values, mask
