"""ComfyUI's core nodes that music workflows use, with the same ids, widgets and behaviour.

They exist so that a workflow made on the canvas runs without ComfyUI; inside ComfyUI its own are used.
"""

from __future__ import annotations

import json
import mimetypes
import os
import random
import string
import sys
from typing import Any

from ..acestep_core import host as hosts
from ..acestep_core.save_location import save_location, save_sounds
from ..acestep_core.saved_files import SOUNDS

HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


class LoadAudio:
    """Any audio or video file of the input folder, with its own rate and channels."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "load", ("AUDIO",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"audio": (_input_files(), {"audio_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, audio):
        if audio is not None and _find(audio) is None:
            host = hosts.current()
            there = ", ".join(_input_files()) or "no audio file"
            return f"there is no file {audio!r} in the input folder {host.input}; it holds {there}."
        return True

    @classmethod
    def IS_CHANGED(cls, audio):
        state = os.stat(_find(audio))
        return f"{state.st_size} {state.st_mtime_ns}"

    def load(self, audio):
        from ..acestep_core import audio as sound

        path = _find(audio)
        if path is None:
            raise FileNotFoundError(f"there is no file {audio!r} in the input folder.")
        waveform, rate = sound.read(path)
        return ({"waveform": waveform[None], "sample_rate": rate},)


class _Save:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "audio", "save", (), True
    format = "flac"

    @classmethod
    def INPUT_TYPES(cls):
        widgets = {"filename_prefix": ("STRING", {"default": "audio/ComfyUI"})}
        return {"required": {"audio": ("AUDIO",), **widgets, **cls.qualities()}, "hidden": HIDDEN}

    @classmethod
    def qualities(cls):
        return {}

    def save(self, audio, filename_prefix, quality=None, prompt=None, extra_pnginfo=None):
        return _save(audio, filename_prefix, self.format, quality, "output", prompt, extra_pnginfo)


class SaveAudio(_Save):
    """16-bit FLAC into the output folder."""


class SaveAudioMP3(_Save):
    """MP3 into the output folder."""

    format = "mp3"

    @classmethod
    def qualities(cls):
        return {"quality": (["V0", "128k", "320k"], {"default": "V0"})}


class SaveAudioOpus(_Save):
    """Opus into the output folder."""

    format = "opus"

    @classmethod
    def qualities(cls):
        return {"quality": (["64k", "96k", "128k", "192k", "320k"], {"default": "128k"})}


class PreviewAudio:
    """FLAC into the temp folder."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "audio", "preview", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"audio": ("AUDIO",)}, "hidden": HIDDEN}

    def preview(self, audio, prompt=None, extra_pnginfo=None):
        prefix = "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))
        return _save(audio, prefix, "flac", None, "temp", prompt, extra_pnginfo)


class PreviewAny:
    """Any value as text."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "utils", "show", ("STRING",), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"source": ("*", {})}}

    def show(self, source=None):
        text = source if isinstance(source, str) else str(source)
        if isinstance(source, list | tuple | dict):
            try:
                text = json.dumps(source, indent=4)
            except (TypeError, ValueError):
                text = str(source)
        return {"ui": {"text": (text,)}, "result": (text,)}


class SaveImage:
    """PNG into the output folder, with the workflow inside."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "image", "save_images", (), True

    @classmethod
    def INPUT_TYPES(cls):
        widgets = {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "ComfyUI"})}
        return {"required": widgets, "hidden": HIDDEN}

    def save_images(self, images, filename_prefix, prompt=None, extra_pnginfo=None):
        return _save_images(images, filename_prefix, "output", prompt, extra_pnginfo)


class PreviewImage:
    """PNG into the temp folder."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "image", "save_images", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",)}, "hidden": HIDDEN}

    def save_images(self, images, prompt=None, extra_pnginfo=None):
        prefix = "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))
        return _save_images(images, prefix, "temp", prompt, extra_pnginfo)


def _primitive(kind: str, **options: Any) -> type:
    class Primitive:
        CATEGORY, FUNCTION, RETURN_TYPES = "utils/primitive", "value", (kind,)

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"value": (kind, options)}}

        def value(self, value):
            return (value,)

    return Primitive


PrimitiveInt = _primitive("INT", min=-sys.maxsize, max=sys.maxsize, control_after_generate="fixed")
PrimitiveFloat = _primitive("FLOAT", min=-sys.maxsize, max=sys.maxsize, step=0.1)
PrimitiveString = _primitive("STRING")
PrimitiveStringMultiline = _primitive("STRING", multiline=True)
PrimitiveBoolean = _primitive("BOOLEAN")


class EmptyAudio:
    """Silence."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "create", ("AUDIO",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "duration": ("FLOAT", {"default": 60.0, "min": 0.0, "max": 0xFFFFFFFFFFFFFFFF, "step": 0.01}),
                "sample_rate": ("INT", {"default": 44100, "min": 1, "max": 192000}),
                "channels": ("INT", {"default": 2, "min": 1, "max": 2}),
            }
        }

    def create(self, duration, sample_rate, channels):
        import torch

        return ({"waveform": torch.zeros(1, channels, round(duration * sample_rate)), "sample_rate": sample_rate},)


class TrimAudioDuration:
    """A part of the audio; a negative start counts from the end."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "trim", ("AUDIO",)

    @classmethod
    def INPUT_TYPES(cls):
        most = 0xFFFFFFFFFFFFFFFF
        return {
            "required": {
                "audio": ("AUDIO",),
                "start_index": ("FLOAT", {"default": 0.0, "min": -most, "max": most, "step": 0.01}),
                "duration": ("FLOAT", {"default": 60.0, "min": 0.0, "step": 0.01}),
            }
        }

    def trim(self, audio, start_index, duration):
        waveform, rate = audio["waveform"], audio["sample_rate"]
        length = waveform.shape[-1]
        start = round(start_index * rate) + (length if start_index < 0 else 0)
        start = max(0, min(start, length - 1))
        end = min(start + round(duration * rate), length)
        if start >= end:
            raise ValueError(f"{duration} s from {start_index} s on: nothing there; it lasts {length / rate:.2f} s.")
        return ({"waveform": waveform[..., start:end], "sample_rate": rate},)


class AudioConcat:
    """Two pieces in a row, stereo, at the higher of the two rates."""

    CATEGORY, FUNCTION, RETURN_TYPES = "audio", "concat", ("AUDIO",)

    @classmethod
    def INPUT_TYPES(cls):
        direction = (["after", "before"], {"default": "after"})
        return {"required": {"audio1": ("AUDIO",), "audio2": ("AUDIO",), "direction": direction}}

    def concat(self, audio1, audio2, direction):
        import torch

        from ..acestep_core import audio as sound

        rate = max(audio1["sample_rate"], audio2["sample_rate"])
        pieces = [
            sound.resample(sound.to_stereo(piece["waveform"]), piece["sample_rate"], rate)
            for piece in ((audio1, audio2) if direction == "after" else (audio2, audio1))
        ]
        return ({"waveform": torch.cat(pieces, dim=-1), "sample_rate": rate},)


def _input_files() -> list[str]:
    folder = hosts.current().input
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(name for name in names if _is_media(name) and (folder / name).is_file())


def _is_media(name: str) -> bool:
    """By the system's table of file types, which may not know the usual endings."""
    known = os.path.splitext(name)[1].lower() in SOUNDS
    return known or (mimetypes.guess_type(name)[0] or "").startswith(("audio/", "video/"))


def _find(name: Any):
    """The file behind ``name``, which may end in `` [input]``, `` [output]`` or `` [temp]``; never outside these."""
    host, name = hosts.current(), str(name)
    for kind, root in (("input", host.input), ("output", host.output), ("temp", host.temp)):
        if name.endswith(f" [{kind}]"):
            return hosts.find_inside([root], name.removesuffix(f" [{kind}]"))
    return hosts.find_inside([host.input], name)


def _save_images(images, prefix, kind, prompt, extra_pnginfo) -> dict:
    from PIL import Image, PngImagePlugin

    host, about = hosts.current(), PngImagePlugin.PngInfo()
    for key, value in {"prompt": prompt, **(extra_pnginfo or {})}.items():
        if value:
            about.add_text(key, json.dumps(value))
    place, saved = save_location(getattr(host, kind), prefix), []
    for index, image in enumerate(images):
        name = place.name.replace("%batch_num%", str(index))
        path = place.folder / f"{name}_{place.counter + index:05}_.png"
        pixels = (image.cpu().float().clamp(0, 1) * 255).byte().numpy()
        Image.fromarray(pixels).save(path, pnginfo=about, compress_level=4)
        saved.append({"filename": path.name, "subfolder": place.subfolder, "type": kind})
    return {"ui": {"images": saved}}


def _save(audio, prefix, suffix, quality, kind, prompt, extra_pnginfo) -> dict:
    tags = {key: json.dumps(value) for key, value in {"prompt": prompt, **(extra_pnginfo or {})}.items() if value}
    return {"ui": {"audio": save_sounds(hosts.current(), kind, prefix, audio, suffix, quality=quality, tags=tags)}}


CORE_NODES: dict[str, type] = {
    "LoadAudio": LoadAudio,
    "SaveAudio": SaveAudio,
    "SaveAudioMP3": SaveAudioMP3,
    "SaveAudioOpus": SaveAudioOpus,
    "PreviewAudio": PreviewAudio,
    "PreviewAny": PreviewAny,
    "SaveImage": SaveImage,
    "PreviewImage": PreviewImage,
    "PrimitiveInt": PrimitiveInt,
    "PrimitiveFloat": PrimitiveFloat,
    "PrimitiveString": PrimitiveString,
    "PrimitiveStringMultiline": PrimitiveStringMultiline,
    "PrimitiveBoolean": PrimitiveBoolean,
    "EmptyAudio": EmptyAudio,
    "TrimAudioDuration": TrimAudioDuration,
    "AudioConcat": AudioConcat,
}

CORE_TITLES = {
    "LoadAudio": "Load Audio",
    "SaveAudio": "Save Audio (FLAC)",
    "SaveAudioMP3": "Save Audio (MP3)",
    "SaveAudioOpus": "Save Audio (Opus)",
    "PreviewAudio": "Preview Audio",
    "PreviewAny": "Preview as Text",
    "SaveImage": "Save Image",
    "PreviewImage": "Preview Image",
    "PrimitiveInt": "Int",
    "PrimitiveFloat": "Float",
    "PrimitiveString": "Text String",
    "PrimitiveStringMultiline": "Text String (Multiline)",
    "PrimitiveBoolean": "Boolean",
    "EmptyAudio": "Empty Audio",
    "TrimAudioDuration": "Trim Audio Duration",
    "AudioConcat": "Audio Concat",
}
