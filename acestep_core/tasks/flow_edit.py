"""Flow edit: other words or another style for a recording, whose arrangement stays.

>>> was = make_song("soft pop, female voice", "[Verse]\nRain on the window")
>>> song = make_song("soft pop, female voice", "[Verse]\nSun on the water")
>>> batch = flow_edit.prepare(model, text, song, source, was, start=0.6)
"""

from __future__ import annotations

from dataclasses import replace

from ..checkpoints.handles import DiffusionModel, TextEncoder
from ..host import Host
from ..sampling.conditioning import Conditioning
from ..sampling.loop import Edit
from ..sampling.settings import DRAWS_RANGE, HEARS, check_window
from ..song import UNKNOWN_LANGUAGE, Song
from .assemble import maker
from .codes import quantize
from .instructions import COVER, TEXT2MUSIC
from .reference import Reference, silence_of
from .source import Source, at_least, source_latents
from .text2music import check

TASKS = {"words": "text2music", "structure": "cover", "sound": "cover-nofsq"}
"""The task whose conditions are used, by what is heard."""


def prepare(
    model: DiffusionModel,
    text: TextEncoder,
    song: Song,
    source: Source,
    was: Song,
    *,
    start: float = 0.0,
    end: float = 1.0,
    draws: int = 1,
    hears: str = "words",
    batch: int = 1,
    reference: Reference | None = None,
    host: Host | None = None,
) -> Conditioning:
    """Conditioning for a flow edit; the length is the source's.

    Args:
        song: what it is to become. was: caption, lyrics and language of the source as it is; all else is read from
            ``song`` for both, as an edit does not change it.
        start, end: the window of the edit in shares of the steps. A later start keeps more of the source; behind
            an end below 1 sampling goes on under the new words alone and moves further away.
        draws: noises that each step averages: steadier and slower.
        hears: one of :data:`HEARS`.

    Raises:
        ValueError: a value is out of range, the window is empty, or the source is silent.
    """
    check(song, batch)
    check_window(start, end)
    low, high = DRAWS_RANGE
    if isinstance(draws, bool) or not isinstance(draws, int) or not low <= draws <= high:
        raise ValueError(f"draws is {draws!r}; allowed is {low} to {high}.")
    if hears not in HEARS:
        raise ValueError(f"hears is {hears!r}; allowed is {', '.join(HEARS)}.")
    if source.silent:
        raise ValueError("The source is silent from end to end: there is nothing to edit.")
    make = maker(model, text, song, reference, host)
    language = song.language if was.language == UNKNOWN_LANGUAGE else was.language
    described = replace(song, caption=was.caption, lyrics=was.lyrics, instrumental=was.instrumental, language=language)
    plain = source_latents(model, source)
    frames, complete = plain.shape[1], at_least(plain, model)
    heard = complete
    if hears == "words":
        heard = silence_of(model, complete.shape[1])[None]
    elif hears == "structure":
        heard = quantize(model, complete, make.host)
    instruction = TEXT2MUSIC if hears == "words" else COVER
    before = replace(make, song=described).item(instruction, source.seconds, heard, frames=frames)
    edit = Edit(before.conditions, start, end, draws)
    item = make.item(instruction, source.seconds, heard, frames=frames, start=complete, edit=edit)
    settings = {
        "flow_edit_morph": True,
        "flow_edit_source_caption": was.caption,
        "flow_edit_source_lyrics": described.sung,
        "flow_edit_source_language": language,
        "flow_edit_n_min": start,
        "flow_edit_n_max": end,
        "flow_edit_n_avg": draws,
        "flow_edit_hears": hears,
    }
    notes = _notes(before.prompt == item.prompt, bool(was.caption or was.sung.strip()))
    return make.batch(TASKS[hears], instruction, source.seconds, (item,) * batch, settings, notes)


def _notes(same: bool, known: bool) -> tuple[str, ...]:
    if same:
        return ("Both descriptions are the same: the source stays as it is.",)
    if not known:
        return ("Nothing says what the source is: write its caption and its words, or the edit has no direction.",)
    return ()
