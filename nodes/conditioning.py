"""One conditioning node a task, each with only its own parameters."""

from __future__ import annotations

from typing import Any

from ..acestep_core.sampling.settings import BATCH_RANGE, DRAWS_RANGE, HEARS, check_window
from ..acestep_core.tasks.instructions import MASKS, TRACKS
from ..acestep_core.tasks.region import MODES, make_region
from .widgets import (
    CODES,
    CONDITIONING,
    MODEL,
    REFERENCE,
    ROOT,
    SONG,
    SOURCE,
    TEXT,
    choice,
    number,
    problem_of,
    socket,
    switch,
    text,
    whole,
)

CATEGORY = f"{ROOT}/Tasks"
LONGEST = 600.0
MODELS = {
    "model": socket(MODEL, "Diffusion model; the sampler must use the same one."),
    "text_encoder": socket(TEXT, "Text encoder."),
}
BASE_MODELS = {
    "model": socket(MODEL, "A base model. Turbo models were not trained for stems; the sampler must use the same one."),
    "text_encoder": socket(TEXT, "Text encoder."),
}
HEARD = {"source": socket(SOURCE, "The recording, from Encode Source.")}
WANTED = {"song": socket(SONG, "What to make; its length is not used, the source has one.")}
TIMBRE = {"reference": socket(REFERENCE, "Recording whose timbre is taken. Without it: no preference.")}
REGION = {
    "start": number(
        0.0, -LONGEST, LONGEST, 0.01, "Seconds from the source's beginning. Below 0: music is added in front."
    ),
    "end": number(
        -1.0, -1.0, LONGEST, 0.01, "Seconds from the source's beginning; -1: its end. Beyond it, music is added behind."
    ),
}


def variations(default: int = 1) -> tuple:
    return whole(default, *BATCH_RANGE, "How many variations are made at once; they differ by their seeds.")


def check_region(start: Any, end: Any) -> bool | str:
    """Whether a region can hold anything, as far as that is known before the source is."""
    if start is None or end is None or not isinstance(end, (int, float)) or end < 0:
        return True
    return problem_of(make_region, start, end, LONGEST, 48000)


class _Task:
    CATEGORY = CATEGORY
    FUNCTION = "prepare"
    RETURN_TYPES = (CONDITIONING, "FLOAT")
    RETURN_NAMES = ("conditioning", "seconds")
    OUTPUT_TOOLTIPS = ("For the sampler", "Length that will be made")


class Text2Music(_Task):
    DESCRIPTION = "Prepares a song made from its description alone, or along codes."
    SEARCH_ALIASES = ["ace step", "custom", "text to music", "t2m"]

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        codes = "Plan to follow: of the planner, of a recording, or pasted. Their length is the length of the music."
        return {
            "required": {
                **MODELS,
                "song": socket(SONG, "What to make."),
                "batch_size": variations(2),
                "codes_strength": number(
                    1.0,
                    0.0,
                    1.0,
                    0.01,
                    "Share of the steps that follow the codes: 1 all, 0 none. Without codes: unused.",
                ),
            },
            "optional": {**TIMBRE, "codes": socket(CODES, codes)},
        }

    def prepare(
        self,
        model: Any,
        text_encoder: Any,
        song: Any,
        batch_size: int,
        codes_strength: float,
        reference: Any = None,
        codes: Any = None,
    ) -> tuple:
        from ..acestep_core.tasks import text2music

        given = {"reference": reference, "codes": codes, "codes_strength": codes_strength}
        ready = text2music.prepare(model, text_encoder, song, batch=batch_size, **given)
        return ready, ready.seconds


class Remix(_Task):
    DESCRIPTION = "Prepares a cover: the melody, rhythm and structure of a source in the style of a song."
    SEARCH_ALIASES = ["ace step", "cover", "style transfer", "audio to audio"]

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        strength = (
            "Share of the steps that hear the source. 1: all, closest to it; 0: none. "
            "With sft models, 0 together with a noise strength of 0.1 to 0.25 is another good recipe."
        )
        noise = "Start from the source instead of noise: higher stays nearer to it. 0: off."
        quantizer = (
            "On: only melody, rhythm and structure are heard (a cover). "
            "Off: the sound itself is heard and the result stays close; then try a strength of 0.2 to 0.5."
        )
        return {
            "required": {
                **MODELS,
                **WANTED,
                "strength": number(1.0, 0.0, 1.0, 0.01, strength),
                "noise_strength": number(0.0, 0.0, 1.0, 0.01, noise),
                "quantizer": switch(True, quantizer),
                "batch_size": variations(2),
            },
            "optional": {**HEARD, "codes": socket(CODES, "Codes in place of a recording."), **TIMBRE},
        }

    def prepare(
        self,
        model: Any,
        text_encoder: Any,
        song: Any,
        strength: float,
        noise_strength: float,
        quantizer: bool,
        batch_size: int,
        source: Any = None,
        codes: Any = None,
        reference: Any = None,
    ) -> tuple:
        from ..acestep_core.tasks import remix

        if (source is None) == (codes is None):
            raise ValueError("Remix needs one thing to remix: connect either a source or codes.")
        ready = remix.prepare(
            model,
            text_encoder,
            song,
            source if codes is None else codes,
            strength=strength,
            noise_strength=noise_strength,
            quantizer=quantizer,
            batch=batch_size,
            reference=reference,
        )
        return ready, ready.seconds


class FlowEdit(_Task):
    DESCRIPTION = (
        "Prepares an edit of a recording: other words or another style, while its arrangement stays. "
        "It is led from the description of what is there to that of what is wanted."
    )
    SEARCH_ALIASES = ["ace step", "flowedit", "morph", "change lyrics", "edit"]

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        was = "The recording as it is: its caption and its words, for example from Transcribe."
        start = (
            "Share of the steps left out at first: higher keeps more of the recording. With sft and base models begin "
            "with 0.6 for new words, and with 0.2 and an end of 0.4 for a new style; with turbo, with 0.3."
        )
        end = "Below 1, the last steps follow the new words alone: lower it where they are not sung."
        hears = (
            "What the model hears of the recording besides. words: nothing, both descriptions alone. "
            "structure: melody and rhythm, as in a remix. sound: all of it."
        )
        return {
            "required": {
                **MODELS,
                "song": socket(SONG, "What the recording is to become; tempo and key hold for both."),
                "source_song": socket(SONG, was),
                **HEARD,
                "start": number(0.0, 0.0, 1.0, 0.01, start),
                "end": number(1.0, 0.0, 1.0, 0.01, end),
                "draws": whole(1, *DRAWS_RANGE, "Noises that each step averages: steadier, and as many times slower."),
                "hears": choice(HEARS, hears),
                "batch_size": variations(),
            },
            "optional": TIMBRE,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, start: Any = None, end: Any = None) -> bool | str:
        if start is None or end is None:
            return True
        return problem_of(check_window, start, end)

    def prepare(
        self,
        model: Any,
        text_encoder: Any,
        song: Any,
        source_song: Any,
        source: Any,
        start: float,
        end: float,
        draws: int,
        hears: str,
        batch_size: int,
        reference: Any = None,
    ) -> tuple:
        from ..acestep_core.tasks import flow_edit

        given = {"start": start, "end": end, "draws": draws, "hears": hears, "batch": batch_size}
        ready = flow_edit.prepare(model, text_encoder, song, source, source_song, reference=reference, **given)
        return ready, ready.seconds


class Repaint(_Task):
    DESCRIPTION = (
        "Prepares a new take of a region; the rest of the source stays. "
        "A region that begins before the source or ends after it makes the piece longer."
    )
    SEARCH_ALIASES = ["ace step", "inpaint", "extend", "outpaint", "retake"]

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        mode = (
            "How the rest is kept. balanced: as set by strength. conservative: put back at every step and cross-faded. "
            "aggressive: nothing is put back; the rest is only heard and comes out similar."
        )
        strength = "For balanced: how freely the seams are remade. 0: as conservative, 1: freest."
        return {
            "required": {
                **MODELS,
                **WANTED,
                **HEARD,
                **REGION,
                "mode": choice(MODES, mode),
                "strength": number(0.5, 0.0, 1.0, 0.01, strength),
                "batch_size": variations(),
            },
            "optional": TIMBRE,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, start: Any = None, end: Any = None) -> bool | str:
        return check_region(start, end)

    def prepare(
        self,
        model: Any,
        text_encoder: Any,
        song: Any,
        source: Any,
        start: float,
        end: float,
        mode: str,
        strength: float,
        batch_size: int,
        reference: Any = None,
    ) -> tuple:
        from ..acestep_core.tasks import repaint

        given = {"mode": mode, "strength": strength, "batch": batch_size, "reference": reference}
        ready = repaint.prepare(model, text_encoder, song, source, start, end, **given)
        return ready, ready.seconds


class Extract(_Task):
    DESCRIPTION = "Prepares the extraction of one track from a mix. Needs a base model."
    SEARCH_ALIASES = ["ace step", "stem", "separate", "vocals", "isolate"]

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        track = choice(TRACKS, "The track to take out.", "vocals")
        return {"required": {**BASE_MODELS, **HEARD, "track": track, "batch_size": variations()}}

    def prepare(self, model: Any, text_encoder: Any, source: Any, track: str, batch_size: int) -> tuple:
        from ..acestep_core.tasks import extract

        ready = extract.prepare(model, text_encoder, source, track, batch=batch_size)
        return ready, ready.seconds


class ExtractTracks:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Prepares the extraction of several tracks in one go: the nodes behind it run once for each track. "
        "Needs a base model."
    )
    SEARCH_ALIASES = ["ace step", "all stems", "separate", "multitrack"]
    FUNCTION = "prepare"
    RETURN_TYPES = (CONDITIONING, "STRING", "STRING")
    RETURN_NAMES = ("conditioning", "track", "filename_prefix")
    OUTPUT_TOOLTIPS = ("One for each track", "Name of each track", "File name for each track, for the save node")
    OUTPUT_IS_LIST = (True, True, True)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                **BASE_MODELS,
                **HEARD,
                **{track: switch(True, f"Take out {track.replace('_', ' ')}.") for track in TRACKS},
                "prefix": text("Folder and beginning of the file names; the track's name follows.", "audio/stems/"),
            }
        }

    def prepare(self, model: Any, text_encoder: Any, source: Any, prefix: str, **chosen: bool) -> tuple:
        from ..acestep_core.tasks import extract

        tracks = [track for track in TRACKS if chosen.get(track)]
        if not tracks:
            raise ValueError("No track is chosen: switch on at least one.")
        ready = [extract.prepare(model, text_encoder, source, track) for track in tracks]
        return ready, tracks, [f"{prefix}{track}" for track in tracks]


class Lego(_Task):
    DESCRIPTION = (
        "Prepares one new track that plays along with the source. The result is that track alone. Needs a base model."
    )
    SEARCH_ALIASES = ["ace step", "add track", "accompany", "layer"]

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        song = socket(SONG, "Caption and lyrics of the new track; tempo, key and language follow from the source.")
        mask = "explicit: the track is made from start to end. auto: the model is not told and chooses where it plays."
        whole = "What the whole song is like. Only models tuned for stems read it; the song describes the track."
        return {
            "required": {
                **BASE_MODELS,
                "song": song,
                **HEARD,
                "track": choice(TRACKS, "The track to add.", "drums"),
                **REGION,
                "batch_size": variations(),
            },
            "optional": {
                **TIMBRE,
                "mask_mode": choice(MASKS, mask, advanced=True),
                "global_caption": text(whole, advanced=True),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, start: Any = None, end: Any = None) -> bool | str:
        return check_region(start, end)

    def prepare(
        self,
        model: Any,
        text_encoder: Any,
        song: Any,
        source: Any,
        track: str,
        start: float,
        end: float,
        batch_size: int,
        reference: Any = None,
        mask_mode: str = "explicit",
        global_caption: str = "",
    ) -> tuple:
        from ..acestep_core.tasks import lego

        given = {"batch": batch_size, "reference": reference}
        given |= {"mask_mode": mask_mode, "global_caption": global_caption}
        ready = lego.prepare(model, text_encoder, song, source, track, start, end, **given)
        return ready, ready.seconds


class Complete(_Task):
    DESCRIPTION = (
        "Prepares a full arrangement around a source, for example a band for a voice. "
        "Without a chosen track the model decides. Needs a base model."
    )
    SEARCH_ALIASES = ["ace step", "accompaniment", "arrange", "vocal to song"]

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                **BASE_MODELS,
                **WANTED,
                **HEARD,
                **{track: switch(track in ("drums", "bass"), f"Add {track.replace('_', ' ')}.") for track in TRACKS},
                "batch_size": variations(),
            },
            "optional": TIMBRE,
        }

    def prepare(
        self,
        model: Any,
        text_encoder: Any,
        song: Any,
        source: Any,
        batch_size: int,
        reference: Any = None,
        **chosen: bool,
    ) -> tuple:
        from ..acestep_core.tasks import complete

        tracks = [track for track in TRACKS if chosen.get(track)]
        ready = complete.prepare(model, text_encoder, song, source, tracks, batch=batch_size, reference=reference)
        return ready, ready.seconds
