"""Sound to try a workflow with, before one's own is at hand."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from .widgets import AUDIO, ROOT, choice

ASSETS = Path(__file__).resolve().parent.parent / "assets"


@functools.cache
def files() -> dict[str, str]:
    """Title → file name, in the order of ``assets/example-mix.json``."""
    listed = json.loads((ASSETS / "example-mix.json").read_text(encoding="utf-8"))["files"]
    return {entry["title"]: entry["file"] for entry in listed}


class ExampleAudio:
    CATEGORY = f"{ROOT}/Audio"
    DESCRIPTION = (
        "A short piece, its stems and a reference recording, composed and synthesised by this project so that every "
        "workflow runs at once. For your own sound, connect the audio output of Load Audio in its place."
    )
    SEARCH_ALIASES = ["ace step", "demo", "sample", "test audio", "load audio"]
    FUNCTION = "load"
    RETURN_TYPES = (AUDIO,)
    RETURN_NAMES = ("audio",)
    OUTPUT_TOOLTIPS = ("The recording chosen, stereo, 48 kHz",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        tip = "The full mix, one of its stems, or a solo to take a timbre from. The stems add up to the mix."
        return {"required": {"recording": choice(list(files()), tip)}}

    def load(self, recording: str) -> tuple:
        from ..acestep_core.audio import read

        waveform, rate = read(ASSETS / files()[recording])
        return ({"waveform": waveform[None], "sample_rate": rate},)
