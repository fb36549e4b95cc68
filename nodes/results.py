"""Results: judge them, time their lyrics, keep the best, save them with everything they were made from."""

from __future__ import annotations

import json
from typing import Any

from ..acestep_core import host, saved_files
from .restoring import planner_fields
from .sound import HIDDEN, check_file, file_widgets
from .widgets import (
    AUDIO,
    CODES,
    GUIDANCE_SETTINGS,
    LATENT,
    LINKED,
    LM,
    MODEL,
    RESULT,
    ROOT,
    SAMPLER_SETTINGS,
    SONG,
    choice,
    number,
    socket,
    switch,
    whole,
)

CATEGORY = f"{ROOT}/Results"
FROM_SAMPLER = "From the sampler, or from another node of this kind."
NO_RESULT_FILE = "no results saved yet"


class Score:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Scores every variation from 0 to 1: how well the planner recognises the request in the music (needs the "
        "planner and codes), and how clearly the lyrics are sung (needs the model it was made with)."
    )
    SEARCH_ALIASES = ["ace step", "quality score", "auto score", "rate", "judge"]
    FUNCTION = "score"
    RETURN_TYPES = (RESULT, "STRING")
    RETURN_NAMES = ("result", "report")
    OUTPUT_TOOLTIPS = ("The result with its scores, for Pick Best and Save Result", "The scores and their parts")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        encode = "Where there are no codes (a remix, or no planner): turn the music into codes first. Needs model."
        scale = "How gently caption and lyrics are judged by the planner: smaller is stricter, towards 0 or 1."
        codes = "Codes to judge, one list a variation. Not connected: those the music was made from."
        return {
            "required": {
                "result": socket(RESULT, FROM_SAMPLER),
                "encode_to_codes": switch(False, encode),
                "scale": number(0.5, 0.01, 1.0, 0.01, scale, advanced=True),
            },
            "optional": {
                "model": socket(MODEL, "The model the music was made with, for the lyrics."),
                "lm": socket(LM, "The planner, for caption, lyrics and tempo, key and so on."),
                "codes": socket(CODES, codes),
            },
        }

    def score(
        self,
        result: Any,
        encode_to_codes: bool,
        scale: float,
        model: Any = None,
        lm: Any = None,
        codes: Any = None,
    ) -> tuple:
        from ..acestep_core import judging

        judged = judging.judge(result, model=model, lm=lm, codes=codes, encode=encode_to_codes, scale=scale)
        return judged, judging.score_report(judged)


class LyricTiming:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Finds when each line and word is sung, from what the model itself listens to: synced lyrics (LRC), "
        "subtitles (VTT) and a picture of the alignment."
    )
    SEARCH_ALIASES = ["ace step", "lrc", "lyric timestamps", "auto lrc", "karaoke", "subtitles", "vtt"]
    FUNCTION = "time"
    RETURN_TYPES = (RESULT, "STRING", "STRING", "IMAGE")
    RETURN_NAMES = ("result", "lrc", "vtt", "picture")
    OUTPUT_IS_LIST = (False, True, True, False)
    OUTPUT_TOOLTIPS = (
        "The result with its timing, for the player and Save Result",
        "LRC text of each variation; empty where nothing is sung",
        "WebVTT subtitles of each variation",
        "Words from top to bottom, time from left to right; the line is the path through both",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "result": socket(RESULT, FROM_SAMPLER),
                "model": socket(MODEL, "The model the music was made with."),
                "words": switch(True, "Also stamp every word (enhanced LRC). Off: one stamp a line."),
                "section_marks": switch(False, "Keep marks such as [Chorus] as lines of their own."),
            }
        }

    def time(self, result: Any, model: Any, words: bool, section_marks: bool) -> tuple:
        from ..acestep_core import judging

        timed = judging.time_lyrics(result, model, words=words, tags=section_marks)
        texts = [("", "") if found is None else (found.lrc, found.vtt) for found in timed.timings]
        return timed, [lrc for lrc, _ in texts], [vtt for _, vtt in texts], judging.pictures(timed)


class PickBest:
    CATEGORY = CATEGORY
    DESCRIPTION = "Keeps the best variations of a batch by their scores, best first, before they are decoded and saved."
    SEARCH_ALIASES = ["ace step", "best of", "select", "filter batch"]
    FUNCTION = "pick"
    RETURN_TYPES = (RESULT, LATENT, "STRING")
    RETURN_NAMES = ("result", "latent", "report")
    OUTPUT_TOOLTIPS = ("The result with the kept variations", "Their latents, for the VAE", "Which were kept, and why")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        by = "both: the mean of the two scores. planner: how well the request is met. lyrics: how clearly it is sung."
        return {
            "required": {
                "result": socket(RESULT, "From Score."),
                "keep": whole(1, 1, 8, "How many variations to keep."),
                "by": choice(("both", "planner", "lyrics"), by),
            }
        }

    def pick(self, result: Any, keep: int, by: str) -> tuple:
        from ..acestep_core import judging
        from ..acestep_core.result import as_latent

        kept, report = judging.pick_best(result, keep, by)
        return kept, as_latent(kept.made, kept.conditioning), report


class SaveResult:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Saves every variation with all it was made from: the sound, with the workflow inside; beside it a file with "
        "settings, seeds, codes and scores; synced lyrics. Plays them, and the results panel lists them."
    )
    SEARCH_ALIASES = ["ace step", "save audio", "export", "write file", "keep"]
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        latents = "Also keep the latents, so that it can be repainted or extended without passing the VAE again."
        return {
            "required": {
                "audio": socket(AUDIO, "The decoded sound, one variation after the other."),
                "result": socket(RESULT, "The result the sound was decoded from."),
                **file_widgets("mp3"),
                "normalize": switch(
                    True, "Bring the loudest moment to peak_db. Off: only lowered where it would clip."
                ),
                "peak_db": number(-1.0, -10.0, 0.0, 0.1, "Level of the loudest moment in dB; 0 is full scale."),
                "fade_in": number(0.0, 0.0, 10.0, 0.1, "Seconds over which the sound comes in."),
                "fade_out": number(0.0, 0.0, 10.0, 0.1, "Seconds over which the sound goes out."),
                "save_lyrics": switch(True, "Write synced lyrics (.lrc, .vtt) where Lyric Timing has found them."),
                "save_latents": switch(False, latents),
            },
            "hidden": HIDDEN,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: Any = None) -> bool | str:
        return check_file(filename_prefix)

    def save(
        self,
        audio: dict,
        result: Any,
        filename_prefix: str,
        format: str,
        quality: str,
        normalize: bool,
        peak_db: float,
        fade_in: float,
        fade_out: float,
        save_lyrics: bool,
        save_latents: bool,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict:
        from ..acestep_core import keeping

        finish = keeping.Finish(format, quality, peak_db if normalize else None, fade_in, fade_out)
        also = {"lyrics": save_lyrics, "latents": save_latents, "more": planner_fields(prompt)}
        cards = keeping.keep(
            host.current(), result, audio, filename_prefix, finish, prompt=prompt, extra=extra_pnginfo, **also
        )
        return {"ui": {"audio": [card["file"] for card in cards], "acestep": cards}}


class LoadResult:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Opens a saved result again: its sound, latents, song, codes and settings, to go on from there. Reads files of "
        "Save Result and the settings files of the original ACE-Step."
    )
    SEARCH_ALIASES = ["ace step", "load metadata", "send to source", "import", "reuse settings"]
    FUNCTION = "load"
    RETURN_TYPES = (
        *(AUDIO, LATENT, SONG, CODES, "INT", "INT", "FLOAT", "FLOAT"),
        *(SAMPLER_SETTINGS, GUIDANCE_SETTINGS, "STRING"),
    )
    RETURN_NAMES = (
        *("audio", "latent", "song", "codes", "seed", "steps", "guidance_scale", "shift"),
        *("sampler_settings", "guidance_settings", "record"),
    )
    OUTPUT_TOOLTIPS = (
        "The sound",
        "Its latents, for Encode Source; none where they were not kept, and then the sound is encoded",
        "The song it was made from",
        "The codes it was made from; none where there were none",
        "Its seed",
        "Steps as used, for the sampler",
        "Guidance scale as used",
        "Shift as used",
        "Method, solver, timesteps and the rest as used",
        "Kind of guidance as used",
        "Everything that is known about it",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        tip = "A saved result of the output folder, or one that you put into the input folder."
        found = saved_files.names(host.current())
        return {"required": {"file": choice(found or [NO_RESULT_FILE], tip)}}

    @classmethod
    def VALIDATE_INPUTS(cls, file: str | None = None) -> bool | str:
        if file is None or saved_files.find(host.current(), file):
            return True
        return f"There is no result {file!r}. Save one with Save Result, or put its files into {host.current().input}."

    @classmethod
    def IS_CHANGED(cls, file: str | None = None) -> str | float:
        return LINKED if file is None else saved_files.fingerprint(host.current(), file)

    def load(self, file: str) -> tuple:
        from ..acestep_core import library

        kept = library.load(host.current(), file)
        sampler, guidance, steps, scale, shift = kept.sampler()
        return (
            *(kept.audio(), kept.latent(), kept.song, kept.codes, kept.seed or 0, steps, scale, shift),
            *(sampler, guidance, kept.text()),
        )


class ResultInfo:
    CATEGORY = CATEGORY
    DESCRIPTION = "Shows what a result is made of: settings, scores, synced lyrics, codes, and where its time went."
    SEARCH_ALIASES = ["ace step", "generation details", "metadata", "inspect"]
    FUNCTION = "show"
    RETURN_TYPES = ("STRING", "STRING", "STRING", "STRING", SONG, CODES, "STRING")
    RETURN_NAMES = ("summary", "scores", "lrc", "times", "song", "codes", "record")
    OUTPUT_TOOLTIPS = (
        "The settings that matter, to read",
        "Scores and their parts; empty without Score",
        "Synced lyrics of the first variation; empty without Lyric Timing",
        "Seconds each stage took",
        "The song",
        "The codes it was made from; none where there were none",
        "Every setting as used, as JSON",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"result": socket(RESULT, FROM_SAMPLER)}}

    def show(self, result: Any) -> tuple:
        from ..acestep_core import judging
        from ..acestep_core.result import codes_of, summary, times_text

        first = next((found for found in result.timings if found is not None), None)
        return (
            summary(result),
            judging.score_report(result),
            first.lrc if first else "",
            times_text(result.record),
            result.conditioning.song,
            codes_of(result),
            json.dumps(dict(result.record), indent=2, ensure_ascii=False),
        )
