"""A song and its stems, put together again."""

from __future__ import annotations

from typing import Any

from ..acestep_core.mixing import GAIN_RANGE
from .widgets import AUDIO, ROOT, number, socket, switch

STEMS = 7


class MixStems:
    CATEGORY = f"{ROOT}/Audio"
    DESCRIPTION = (
        "Adds up to seven stems to a song, all starting together, each at its own level; returns 48 kHz stereo "
        "as long as the longest. At 0 dB it is the plain sum, sample for sample."
    )
    SEARCH_ALIASES = ["ace step", "mix", "merge", "combine", "gain", "volume", "lego"]
    FUNCTION = "mix"
    RETURN_TYPES = (AUDIO,)
    RETURN_NAMES = ("audio",)
    OUTPUT_TOOLTIPS = ("The mix, stereo, 48 kHz",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        stems: dict[str, Any] = {}
        for stem in range(1, STEMS + 1):
            tip = "Sound to add, any rate, mono or stereo. A single item joins every item of a batch."
            stems[f"stem_{stem}"] = socket(AUDIO, tip)
            stems[f"stem_{stem}_db"] = _level(f"stem_{stem}")
        return {
            "required": {
                "audio": socket(AUDIO, "The song that the stems join, or the first of the stems."),
                "song_db": _level("the song"),
                "limit": switch(True, "Lower the whole mix where it would clip. Off: the plain sum, even above ±1."),
            },
            "optional": stems,
        }

    def mix(self, audio: dict, song_db: float, limit: bool, **stems: Any) -> tuple:
        from ..acestep_core.mixing import mix

        given: dict[str, tuple[dict, float]] = {"song": (audio, song_db)}
        for name in (f"stem_{stem}" for stem in range(1, STEMS + 1)):
            if stems.get(name) is not None:
                given[name] = stems[name], stems.get(f"{name}_db", 0.0)
        parts = [(sound["waveform"], sound["sample_rate"], level) for sound, level in given.values()]
        waveform, rate = mix(parts, limit="peak" if limit else "none", names=list(given))
        return ({"waveform": waveform, "sample_rate": rate},)


def _level(what: str) -> tuple[str, dict[str, Any]]:
    low, high = GAIN_RANGE
    return number(0.0, low, high, 0.5, f"Level of {what} in dB. 0: as it is, -6: half the amplitude, {low:g}: silent.")
