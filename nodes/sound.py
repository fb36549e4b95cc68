"""Latents to sound, sound to latents, and to files."""

from __future__ import annotations

from typing import Any

from ..acestep_core import host
from ..acestep_core.sampling.settings import LATENT_RESCALE_RANGE, LATENT_SHIFT_RANGE, WINDOW_RANGE, check_chunk
from ..acestep_core.save_location import check_prefix
from .widgets import AUDIO, LATENT, ROOT, VAE, choice, number, problem_of, socket, switch, text, whole

CATEGORY = f"{ROOT}/Audio"
FORMATS = ("flac", "mp3", "wav", "wav32", "opus")
QUALITIES = ("320k", "256k", "192k", "128k")
SHIFT_TIP = "Added to the latents before they are decoded, as the original offers it. 0: off."
RESCALE_TIP = "The latents are multiplied by it before they are decoded, as the original offers it. 1: off."
CHUNK_TIP = "Frames at once (25 a second), 64 or more. 0: fits the memory. The result is the same for every size."


class VAEDecode:
    CATEGORY = CATEGORY
    DESCRIPTION = "Turns latents into stereo sound at 48 kHz, in windows that join exactly."
    SEARCH_ALIASES = ["ace step", "decode audio"]
    FUNCTION = "decode"
    RETURN_TYPES = (AUDIO,)
    RETURN_NAMES = ("audio",)
    OUTPUT_TOOLTIPS = ("Stereo, 48 kHz",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "vae": socket(VAE, "VAE."),
                "latent": socket(LATENT, "Latents of a sampler or of VAE Encode."),
                "normalize": switch(
                    True, "Bring the loudest moment to peak_db. Off: only lowered where it would clip."
                ),
                "peak_db": number(-1.0, -10.0, 0.0, 0.1, "Level of the loudest moment in dB; 0 is full scale."),
                "chunk": whole(0, 0, WINDOW_RANGE[1], CHUNK_TIP, advanced=True),
            },
            "optional": {
                "latent_shift": number(0.0, *LATENT_SHIFT_RANGE, 0.01, SHIFT_TIP, advanced=True),
                "latent_rescale": number(1.0, *LATENT_RESCALE_RANGE, 0.01, RESCALE_TIP, advanced=True),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, chunk: Any = None) -> bool | str:
        return problem_of(check_chunk, chunk)

    def decode(
        self,
        vae: Any,
        latent: dict,
        normalize: bool,
        peak_db: float,
        chunk: int,
        latent_shift: float = 0.0,
        latent_rescale: float = 1.0,
    ) -> tuple:
        from ..acestep_core import result

        peak = peak_db if normalize else None
        return (result.to_audio(vae, latent, peak, chunk or None, latent_shift, latent_rescale),)


class VAEEncode:
    CATEGORY = CATEGORY
    DESCRIPTION = "Turns sound into latents. Any sample rate and channel count is brought to 48 kHz stereo first."
    SEARCH_ALIASES = ["ace step", "encode audio"]
    FUNCTION = "encode"
    RETURN_TYPES = (LATENT,)
    RETURN_NAMES = ("latent",)
    OUTPUT_TOOLTIPS = ("Latents, 25 a second",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "vae": socket(VAE, "VAE."),
                "audio": socket(AUDIO, "Sound to encode, at least 40 ms."),
                "chunk": whole(0, 0, WINDOW_RANGE[1], CHUNK_TIP, advanced=True),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, chunk: Any = None) -> bool | str:
        return problem_of(check_chunk, chunk)

    def encode(self, vae: Any, audio: dict, chunk: int) -> tuple:
        from ..acestep_core import result

        return (result.from_audio(vae, audio, chunk or None),)


HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


def file_widgets(format: str = FORMATS[0]) -> dict[str, Any]:
    """Where a sound is written, and how."""
    prefix = "Folder and beginning of the file name. %date tokens% work as in ComfyUI's own save nodes."
    formats = "flac: lossless. mp3, opus: small. wav: 16 bit, wav32: 32-bit float; both plain."
    return {
        "filename_prefix": text(prefix, "audio/ACE-Step"),
        "format": choice(FORMATS, formats, format),
        "quality": choice(QUALITIES, "Bit rate of mp3 and opus; the other formats ignore it."),
    }


def check_file(prefix: Any) -> bool | str:
    """Whether files of this prefix can be written (for VALIDATE_INPUTS)."""
    return True if prefix is None else problem_of(check_prefix, host.current().output, prefix)


class SaveAudio:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Saves any sound to the output folder, with the workflow inside (flac, mp3, opus): drop the file on the canvas "
        "to get it back. For music of the sampler, Save Result keeps the settings as well."
    )
    SEARCH_ALIASES = ["ace step", "export", "write file"]
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {"audio": socket(AUDIO, "Sound to save."), **file_widgets()},
            "hidden": HIDDEN,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: Any = None) -> bool | str:
        return check_file(filename_prefix)

    def save(
        self,
        audio: dict,
        filename_prefix: str,
        format: str,
        quality: str,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict:
        from ..acestep_core import keeping

        finish = keeping.Finish(format, quality)
        cards = keeping.save_sound(host.current(), audio, filename_prefix, finish, prompt, extra_pnginfo)
        return {"ui": {"audio": [card["file"] for card in cards], "acestep": cards}}


class PreviewAudio:
    CATEGORY = CATEGORY
    DESCRIPTION = "Plays every item of a batch. The files go to the temporary folder."
    SEARCH_ALIASES = ["ace step", "play", "listen"]
    FUNCTION = "preview"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"audio": socket(AUDIO, "Sound to play.")}, "hidden": HIDDEN}

    def preview(self, audio: dict, prompt: Any = None, extra_pnginfo: Any = None) -> dict:
        from ..acestep_core import keeping

        cards = keeping.preview(host.current(), audio, prompt, extra_pnginfo)
        return {"ui": {"audio": [card["file"] for card in cards], "acestep": cards}}
