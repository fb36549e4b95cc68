"""What all tasks share: prompt and conditions of one item, put together once for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host, current
from ..memory.recovery import with_room
from ..sampling.conditioning import Conditioning, Item, Splice, context
from ..sampling.correction import Keep
from ..sampling.loop import Conditions, Edit
from ..sampling.settings import BATCH_RANGE, require_between
from ..song import Song
from ..text import Prompt, embed, make_prompt
from .instructions import TEXT2MUSIC
from .reference import Reference, silence_of, timbre_clips
from .source import at_least


def check_batch(batch: int) -> None:
    low, high = BATCH_RANGE
    if not low <= batch <= high:
        raise ValueError(f"batch size is {batch}; allowed is {low} to {high}.")


def check_share(name: str, value: float) -> None:
    """Raise unless ``value`` lies in 0 to 1."""
    require_between(name, value, (0, 1))


@dataclass(frozen=True)
class Maker:
    """The models and the request that the items of a batch have in common."""

    model: DiffusionModel
    text: TextEncoder
    song: Song
    reference: Reference | None
    host: Host
    encoded: dict[object, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @with_room("reading the words")
    @torch.inference_mode()
    def sequence(self, prompt: Prompt) -> Tensor:
        """Packed sequence [1, L, E] of a prompt: lyrics, timbre, text. On the CPU.

        A prompt is encoded once, however many items it has, and so are lyrics and timbre of several texts.
        """
        asked = (prompt.text_ids, prompt.lyric_ids)
        if asked not in self.encoded:
            self.encoded[asked] = self._packed(prompt)
        return self.encoded[asked]

    def _packed(self, prompt: Prompt) -> Tensor:
        hidden, lyrics = embed(self.text, prompt, self.host)
        device = self.host.prepare(self.model.module, "dit", 300_000_000)
        encoder, dtype = self.model.module.encoder, self.model.dtype
        if prompt.lyric_ids not in self.encoded:
            self.encoded[prompt.lyric_ids] = encoder.lyric_encoder(lyrics.to(device, dtype))
        if "timbre" not in self.encoded:
            clips = timbre_clips(self.model, self.reference)
            self.encoded["timbre"] = encoder.timbre_encoder(clips.to(device, dtype))[None]
        text = encoder.text_projector(hidden.to(device, dtype))
        return torch.cat((self.encoded[prompt.lyric_ids], self.encoded["timbre"], text), dim=1).cpu()

    def item(
        self,
        instruction: str,
        seconds: float,
        source: Tensor,
        *,
        caption: str | None = None,
        frames: int | None = None,
        mask: Tensor | float = 1.0,
        strength: float = 1.0,
        start: Tensor | None = None,
        noise_strength: float = 0.0,
        edit: Edit | None = None,
        keep: Keep | None = None,
        splice: Splice | None = None,
    ) -> Item:
        """One item.

        Args:
            seconds: what the text says. source: context latents [1, T, 64], completed where they are too short.
            caption: what the text says in place of the song's; None for that.
            frames: length to keep; None keeps the source's.
            mask: 1 where music is made, [1, T] or a number.
            strength: share of the steps that hear the source; below 1 the rest hears text and silence alone.
            start: latents to start from where noise_strength is above 0, and those that ``edit`` changes.
        """
        frames = source.shape[1] if frames is None else frames
        source = at_least(source, self.model)
        song = self.song if caption is None else replace(self.song, caption=caption)
        prompt = make_prompt(self.text.tokenizer, instruction, song, seconds)
        later = None
        if strength < 1:
            plain = make_prompt(self.text.tokenizer, TEXT2MUSIC, song, seconds)
            silence = silence_of(self.model, source.shape[1])[None]
            later = Conditions(self.sequence(plain), context(silence, mask))
        return Item(
            conditions=Conditions(self.sequence(prompt), context(source, mask)),
            frames=frames,
            prompt=prompt,
            later=later,
            strength=strength,
            source=start if noise_strength > 0 or edit is not None else None,
            noise_strength=noise_strength,
            edit=edit,
            keep=keep,
            splice=splice,
        )

    def batch(
        self,
        task: str,
        instruction: str,
        seconds: float,
        items: tuple[Item, ...],
        settings: Mapping[str, Any],
        notes: tuple[str, ...] = (),
    ) -> Conditioning:
        """Close the batch; everything the user should know is said here."""
        said = (*notes, *self.song.notes(), *items[0].prompt.notes())
        for note in said:
            self.host.say(note)
        clips = 0 if self.reference is None else len(self.reference.clips)
        everything = {**settings, "reference_clips": clips}
        own, files = (self.model.origin, self.text.tokenizer), self.text.report.files
        return Conditioning(task, instruction, self.song, seconds, items, *own, everything, said, files)


def maker(
    model: DiffusionModel, text: TextEncoder, song: Song, reference: Reference | None, host: Host | None
) -> Maker:
    heard, said = model.config.text_hidden_dim, text.module.config.hidden_size
    if heard != said:
        raise ValueError(
            f"This text encoder answers {said} wide, and the diffusion model hears {heard} wide. Load the text encoder "
            "that belongs to the model; all published ones share Qwen3-Embedding-0.6B."
        )
    return Maker(model, text, song, reference, host or current())
