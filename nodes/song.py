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


KEEP = "keep"
KEEP_BPM, KEEP_DURATION = -1, 0.0
SUNG, INSTRUMENTAL = "sung", "instrumental"


class EditSong:
    CATEGORY = ROOT
    DESCRIPTION = (
        "Changes single fields of a song, such as one the planner proposed, before it is used. "
        "What is left on keep stays as it is."
    )
    SEARCH_ALIASES = ["ace step", "change song", "correct", "override"]
    FUNCTION = "edit"
    RETURN_TYPES = (SONG, "STRING")
    RETURN_NAMES = ("song", "text")
    OUTPUT_TOOLTIPS = ("The changed song", "The changed song to read")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        low, high = words.DURATION_RANGE
        lyrics = "New lyrics, all of them. Empty: keep. For an instrumental song, set vocals to sung as well."
        return {
            "required": {
                "song": socket(SONG, "The song to change."),
                "caption": text("New caption. Empty: keep.", multiline=True),
                "lyrics": text(lyrics, multiline=True),
                "vocals": choice((KEEP, SUNG, INSTRUMENTAL), "Whether it is sung. instrumental: lyrics are not used."),
                "language": choice((KEEP, *words.LANGUAGES), "Language of the lyrics."),
                "bpm": whole(
                    KEEP_BPM,
                    KEEP_BPM,
                    words.BPM_RANGE[1],
                    f"Tempo, {words.BPM_RANGE[0]} to {words.BPM_RANGE[1]}. -1: keep. 0: auto.",
                ),
                "key": choice((KEEP, words.AUTO, *words.KEYS), "Musical key."),
                "time_signature": choice((KEEP, words.AUTO, *words.TIME_SIGNATURES), "Beats in a bar."),
                "duration": number(
                    KEEP_DURATION,
                    words.AUTO_DURATION,
                    high,
                    1.0,
                    f"Length in seconds, {low:g} to {high:g}. 0: keep. -1: auto.",
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, bpm: Any = None, duration: Any = None) -> bool | str:
        return problem_of(words.make_song, bpm=None if bpm == KEEP_BPM else bpm, duration=duration)

    def edit(
        self,
        song: Any,
        caption: str,
        lyrics: str,
        vocals: str,
        language: str,
        bpm: int,
        key: str,
        time_signature: str,
        duration: float,
    ) -> tuple:
        wanted = {
            "caption": (caption, caption.strip()),
            "lyrics": (lyrics, lyrics.strip()),
            "instrumental": (vocals == INSTRUMENTAL, vocals != KEEP),
            "language": (language, language != KEEP),
            "bpm": (bpm, bpm != KEEP_BPM),
            "key": (key, key != KEEP),
            "time_signature": (time_signature, time_signature != KEEP),
            "duration": (duration, duration != KEEP_DURATION),
        }
        changed = words.edited(song, **{name: value for name, (value, given) in wanted.items() if given})
        return changed, changed.text()


MINE, THEIRS = "mine first", "proposal first"


class MergeSongs:
    CATEGORY = ROOT
    DESCRIPTION = (
        "Completes your song with a proposal, such as one of Transcribe or Random Song. "
        "For each part you choose whose comes first; what the first leaves open is taken from the other."
    )
    SEARCH_ALIASES = ["ace step", "combine songs", "fill in"]
    FUNCTION = "merge"
    RETURN_TYPES = (SONG, "STRING")
    RETURN_NAMES = ("song", "text")
    OUTPUT_TOOLTIPS = ("The completed song", "The completed song to read")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        names = {"metas": "Tempo, key, time signature and length"}
        parts = {part: choice((MINE, THEIRS), f"{names.get(part, part.capitalize())}.") for part in words.PARTS}
        songs = {"song": socket(SONG, "Your song."), "proposal": socket(SONG, "The other song.")}
        return {"required": {**songs, **parts}}

    def merge(self, song: Any, proposal: Any, caption: str, lyrics: str, language: str, metas: str) -> tuple:
        chosen = {"caption": caption, "lyrics": lyrics, "language": language, "metas": metas}
        whole_song = words.merged(song, proposal, [part for part, first in chosen.items() if first == THEIRS])
        return whole_song, whole_song.text()


class SongInfo:
    CATEGORY = ROOT
    DESCRIPTION = "The fields of a song, to show or to use elsewhere. Connect the text to Preview as Text."
    SEARCH_ALIASES = ["ace step", "song to text", "show song", "lyrics out"]
    FUNCTION = "show"
    RETURN_TYPES = ("STRING", "STRING", "STRING", "STRING", "INT", "STRING", "STRING", "FLOAT", "BOOLEAN")
    RETURN_NAMES = (
        "text",
        "caption",
        "lyrics",
        "language",
        "bpm",
        "key",
        "time_signature",
        "duration",
        "instrumental",
    )
    OUTPUT_TOOLTIPS = (
        "Everything, to read",
        "Caption",
        "Lyrics",
        "Language code",
        "Tempo; 0: auto",
        "Key; empty: auto",
        "Beats in a bar; empty: auto",
        "Length in seconds; -1: auto",
        "Whether nothing is sung",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"song": socket(SONG, "The song to look at.")}}

    def show(self, song: Any) -> tuple:
        return (
            song.text(),
            song.caption,
            song.sung,
            song.language,
            song.bpm or 0,
            song.key,
            song.time_signature,
            song.duration,
            song.instrumental,
        )


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
