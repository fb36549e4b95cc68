"""One conditioning node a task, each with only its own parameters."""

from __future__ import annotations

from typing import Any

from ..acestep_core.sampling.settings import BATCH_RANGE
from .widgets import CONDITIONING, MODEL, REFERENCE, ROOT, SONG, TEXT, socket, whole


class Text2Music:
    CATEGORY = f"{ROOT}/Tasks"
    DESCRIPTION = "Prepares a song made from its description alone."
    SEARCH_ALIASES = ["ace step", "custom", "text to music", "t2m"]
    FUNCTION = "prepare"
    RETURN_TYPES = (CONDITIONING, "FLOAT")
    RETURN_NAMES = ("conditioning", "seconds")
    OUTPUT_TOOLTIPS = ("For the sampler", "Length that will be made")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        low, high = BATCH_RANGE
        return {
            "required": {
                "model": socket(MODEL, "Diffusion model; the sampler must use the same one."),
                "text_encoder": socket(TEXT, "Text encoder."),
                "song": socket(SONG, "What to make."),
                "batch_size": whole(2, low, high, "How many variations are made at once; they differ by their seeds."),
            },
            "optional": {"reference": socket(REFERENCE, "Recording whose timbre is taken. Without it: no preference.")},
        }

    def prepare(self, model: Any, text_encoder: Any, song: Any, batch_size: int, reference: Any = None) -> tuple:
        from ..acestep_core.tasks import text2music

        ready = text2music.prepare(model, text_encoder, song, batch=batch_size, reference=reference)
        return ready, ready.seconds
