"""What to make, and whose sound it should have."""

from __future__ import annotations

from typing import Any

from ..acestep_core import song as words
from ..acestep_core.sampling.settings import SEED_MAX
from .widgets import AUDIO, REFERENCE, ROOT, SONG, VAE, choice, number, problem_of, socket, switch, text, whole

EXAMPLE_CAPTION = "Warm acoustic folk pop, fingerpicked guitar, soft female voice, hopeful, morning light"
EXAMPLE_LYRICS = """[Verse]
The kettle hums, the window clears
A road of gold between the years

[Chorus]
Stay a while, the day is new
I wrote this little song for you
"""


class Song:
    CATEGORY = ROOT
    DESCRIPTION = "Describes one piece of music. What is left on auto is decided by the model."
    SEARCH_ALIASES = ["ace step", "prompt", "lyrics", "caption", "bpm", "key"]
    FUNCTION = "make"
    RETURN_TYPES = (SONG,)
    RETURN_NAMES = ("song",)
    OUTPUT_TOOLTIPS = ("The song, checked and normalised",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        caption = f"Style, instruments, voice, mood. About {words.CAPTION_LIMIT} characters are heard."
        lyrics = (
            "What is sung, with section tags in square brackets such as [Verse], [Chorus], [Bridge]. "
            f"About {words.LYRICS_LIMIT} characters are heard. Empty is allowed."
        )
        low, high = words.DURATION_RANGE
        duration = f"Length in seconds, {low:g} to {high:g}. -1: auto ({words.AUTO_DURATION_RANGE[0]} to " + (
            f"{words.AUTO_DURATION_RANGE[1]} s, chosen from the song's text)."
        )
        return {
            "required": {
                "caption": text(caption, EXAMPLE_CAPTION, multiline=True),
                "lyrics": text(lyrics, EXAMPLE_LYRICS, multiline=True),
                "instrumental": switch(False, "No singing: the lyrics are not used."),
                "language": choice(words.LANGUAGES, "Language of the lyrics. unknown: left to the model.", "unknown"),
                "bpm": whole(
                    0, 0, words.BPM_RANGE[1], f"Tempo, {words.BPM_RANGE[0]} to {words.BPM_RANGE[1]}. 0: auto."
                ),
                "key": choice((words.AUTO, *words.KEYS), "Musical key. auto: left to the model."),
                "time_signature": choice(
                    (words.AUTO, *words.TIME_SIGNATURES), "Beats in a bar: 2 (2/4), 3 (3/4), 4 (4/4), 6 (6/8)."
                ),
                "duration": number(words.AUTO_DURATION, words.AUTO_DURATION, high, 1.0, duration),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls, bpm: Any = None, duration: Any = None, key: Any = None, time_signature: Any = None
    ) -> bool | str:
        fields = {"bpm": bpm, "duration": duration, "key": key, "time_signature": time_signature}
        return problem_of(words.make_song, **fields)

    def make(self, **fields: Any) -> tuple:
        return (words.make_song(**fields),)


class ReferenceAudio:
    CATEGORY = ROOT
    DESCRIPTION = (
        "Takes the timbre (voice, instruments, recording sound) of a recording. "
        "Three ten-second windows of it are heard; melody and words are not copied."
    )
    SEARCH_ALIASES = ["ace step", "timbre", "voice", "style reference"]
    FUNCTION = "encode"
    RETURN_TYPES = (REFERENCE,)
    RETURN_NAMES = ("reference",)
    OUTPUT_TOOLTIPS = ("Timbre reference for a conditioning node",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        windows = (
            "fixed: the start of the first two thirds and the end of the last. "
            "seeded: windows drawn by the seed, to hear other parts of the recording."
        )
        return {
            "required": {
                "vae": socket(VAE, "VAE that encodes the recording."),
                "audio": socket(
                    AUDIO, "The recording. A batch counts as several references. Any rate, mono or stereo."
                ),
                "windows": choice(("fixed", "seeded"), windows),
                "window_seed": whole(0, 0, SEED_MAX, "Draws the windows where they are seeded."),
            },
            "optional": {"more": socket(REFERENCE, "Other references that count as well.")},
        }

    def encode(self, vae: Any, audio: dict, windows: str, window_seed: int, more: Any = None) -> tuple:
        from ..acestep_core.audio import for_model
        from ..acestep_core.tasks.reference import encode_reference

        return (encode_reference(vae, list(for_model(audio)), window_seed if windows == "seeded" else None, more),)
