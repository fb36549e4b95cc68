"""Keeping a result: the sound in its final form, its settings file, its lyrics and its latents, side by side."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import audio as sound
from . import sidecar
from .checkpoints.fingerprint import described
from .host import Host
from .result import EXTRA, Result
from .sampling.conditioning import SAMPLES_PER_FRAME
from .save_location import save_sounds
from .saved_files import LATENTS_SUFFIX, SETTINGS_SUFFIX

PEAKS = 400
"""Values of a waveform's picture."""


@dataclass(frozen=True)
class Finish:
    """How a sound is finished and written.

    Attributes:
        format: flac, mp3, wav (16 bit), wav32 (32-bit float) or opus. quality: bit rate of mp3 and opus.
        peak_db: level of the loudest moment; None lowers only what would clip.
        fade_in, fade_out: seconds.
    """

    format: str = "flac"
    quality: str = "320k"
    peak_db: float | None = None
    fade_in: float = 0.0
    fade_out: float = 0.0

    def applied(self, clip: Tensor, rate: int) -> Tensor:
        """``clip`` [channels, samples] at its level and with its fades."""
        levelled = sound.limit_peak(clip[None])
        if self.peak_db is not None:
            levelled = sound.normalize_peak(levelled, self.peak_db)
        return sound.fade(levelled, rate, self.fade_in, self.fade_out)[0]

    def record(self) -> dict[str, Any]:
        return {
            "audio_format": self.format,
            "audio_quality": self.quality if self.format in sound.QUALITIES else None,
            "mp3_bitrate": self.quality if self.format == "mp3" else None,
            "enable_normalization": self.peak_db is not None,
            "normalization_db": self.peak_db,
            "fade_in_duration": self.fade_in,
            "fade_out_duration": self.fade_out,
        }


def keep(
    host: Host,
    result: Result,
    audio: Mapping[str, Any],
    prefix: str,
    finish: Finish,
    *,
    lyrics: bool = True,
    latents: bool = False,
    more: Mapping[str, Any] | None = None,
    prompt: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Write every item of a result to the output folder, each cut to its own length.

    Args:
        audio: ComfyUI's AUDIO decoded from ``result``. lyrics: also write .lrc and .vtt where the words are timed.
        latents: also keep the latents. more: further fields of the settings file.
        prompt, extra: the workflow as ComfyUI gives it to a node; kept only where the host shares workflows.

    Returns: a card an item: file, settings file, title, peaks, seed, scores, lines.

    Raises:
        ValueError: the sound is not this result's, or the prefix leads outside the folder.
    """
    open_ = host.shares_workflows
    prompt, extra = (prompt, extra) if open_ else (None, None)
    clips = _clips_of(result, audio)
    rate = audio["sample_rate"]
    batch = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    finished = [finish.applied(clip, rate) for clip in clips]
    vae = [described("vae", file) for file in _about(audio).get("vae_files", ())]
    about = {**(more or {}), **finish.record(), "models": vae}
    records = [sidecar.item_record(result, index, about) for index in range(len(clips))]
    tags = [tags_of(record if open_ else None, prompt, extra) for record in records]
    saved = []
    for index, clip in enumerate(finished):
        one = {"waveform": clip[None], "sample_rate": rate}
        saved += save_sounds(host, "output", prefix, one, *_form(finish), tags=tags[index], first=index)
    cards = []
    for index, (file, record, clip) in enumerate(zip(saved, records, finished, strict=True)):
        path = host.output / file["subfolder"] / file["filename"]
        record |= {"batch": batch, "created": round(time.time(), 3), "file": file["filename"]}
        record |= {"seconds": round(clip.shape[-1] / rate, 3), "peaks": peaks_of(clip)}
        if prompt is not None:
            record["prompt"] = plain_prompt(prompt)
        workflow = (extra or {}).get("workflow")
        if workflow is not None:
            record["workflow"] = workflow
        if lyrics:
            for ending in ("lrc", "vtt"):
                if record[ending]:
                    path.with_suffix(f".{ending}").write_text(record[ending] + "\n", encoding="utf-8")
        if latents:
            save_latents(path, result, index, record, open_)
        sidecar.write(path.with_suffix(SETTINGS_SUFFIX), record)
        beside = f"{file['subfolder']}/" if file["subfolder"] else ""
        cards.append({**card_of(record), "file": file, "sidecar": beside + path.with_suffix(SETTINGS_SUFFIX).name})
    return cards


def _about(audio: Mapping[str, Any]) -> Mapping[str, Any]:
    found = audio.get(EXTRA)
    return found if isinstance(found, Mapping) else {}


def _clips_of(result: Result, audio: Mapping[str, Any]) -> list[Tensor]:
    """The sound of each item, without the silence that evens out a batch."""
    waveform, rate, items = audio["waveform"], audio["sample_rate"], result.conditioning.items
    if waveform.shape[0] != len(items):
        raise ValueError(
            f"The sound has {waveform.shape[0]} items, the result has {len(items)}. "
            "Connect the sound that was decoded from this result; after Pick Best, decode its latent."
        )
    if waveform.shape[1] > 2:
        raise ValueError(f"The sound has {waveform.shape[1]} channels; a result is stereo.")
    clips = []
    for clip, item, frames in zip(waveform, items, result.made.frames, strict=True):
        samples = frames * SAMPLES_PER_FRAME if item.splice is None else item.splice.audio.shape[-1]
        own = round(samples * rate / sound.SAMPLE_RATE)
        clips.append(clip[:, :own])
    return clips


def _form(finish: Finish) -> tuple[str, str | None, str]:
    suffix, sample_format = ("wav", "f32") if finish.format == "wav32" else (finish.format, "s16")
    return suffix, finish.quality if suffix in sound.QUALITIES else None, sample_format


def tags_of(record: Mapping[str, Any] | None, prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags of a file: the workflow where ComfyUI's readers look, and the song for players and people."""
    found: dict[str, str] = {}
    if prompt is not None:
        found["prompt"] = json.dumps(prompt)
    found.update({name: json.dumps(value) for name, value in (extra or {}).items()})
    if record is not None:
        found["acestep"] = json.dumps(sidecar.tag_of(record))
        found["title"] = record["caption"][:80]
        found["lyrics"] = record["lyrics"]
        if record["bpm"]:
            found["bpm"] = str(record["bpm"])
    return found


def plain_prompt(prompt: Any) -> dict[str, Any]:
    """A prompt of ComfyUI less the marks that the server adds to it."""
    kept = ("class_type", "inputs", "_meta")
    return {str(number): {name: node[name] for name in kept if name in node} for number, node in prompt.items()}


def peaks_of(clip: Tensor, count: int = PEAKS) -> list[int]:
    """The loudest moments of ``count`` equal parts of a clip [channels, samples], in percent of full scale."""
    loudest = clip.abs().amax(0)
    if not len(loudest):
        return []
    parts = torch.nn.functional.adaptive_max_pool1d(loudest[None, None].float(), min(count, len(loudest)))
    return [min(100, round(value * 100)) for value in parts[0, 0].tolist()]


def card_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a player shows of an item."""
    return {
        "title": record["caption"].split("\n")[0][:80],
        "seconds": record["seconds"],
        "peaks": record["peaks"],
        "seed": record["seed"],
        "scores": record["scores"],
        "lines": record["lines"],
        "batch": record["batch"],
        "item": record["item"],
    }


def save_sound(
    host: Host,
    audio: Mapping[str, Any],
    prefix: str,
    finish: Finish,
    prompt: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Write every item of any sound to the output folder, with the workflow inside; returns a card an item."""
    tags = tags_of(None, prompt, extra) if host.shares_workflows else {}
    files = save_sounds(host, "output", prefix, audio, *_form(finish), tags=tags)
    return plain_cards(files, audio)


def preview(
    host: Host, audio: Mapping[str, Any], prompt: Any = None, extra: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Write every item as flac to the temporary folder; returns a card an item."""
    name = f"acestep_{os.urandom(3).hex()}"
    tags = tags_of(None, prompt, extra) if host.shares_workflows else {}
    return plain_cards(save_sounds(host, "temp", name, audio, "flac", tags=tags), audio)


def plain_cards(files: Sequence[dict[str, str]], audio: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cards of sounds nothing else is known about."""
    nothing = {"title": "", "seed": None, "scores": sidecar.score_values(None), "lines": [], "batch": "", "sidecar": ""}
    return [
        {
            **nothing,
            "file": file,
            "item": index,
            "seconds": round(clip.shape[-1] / audio["sample_rate"], 3),
            "peaks": peaks_of(clip),
        }
        for index, (file, clip) in enumerate(zip(files, audio["waveform"], strict=True))
    ]


def save_latents(path: Path, result: Result, index: int, record: Mapping[str, Any], shared: bool = True) -> Path:
    """Write the latents of one item beside its sound, so that it can be a source without encoding again.

    ``shared``: with its settings inside.
    """
    beside = path.with_name(path.stem + LATENTS_SUFFIX)
    row = result.made.latents[index, : result.made.lengths[index]].contiguous()
    save_file({"latents": row}, beside, metadata={"acestep": json.dumps(sidecar.tag_of(record))} if shared else None)
    return beside


def load_latents(path: Path) -> dict[str, Any]:
    """A LATENT from a file of :func:`save_latents`.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        latents = load_file(path)["latents"]
    except Exception as error:
        raise ValueError(f"{path.name} holds no latents saved here: {error}") from error
    if latents.dim() != 2:
        raise ValueError(f"{path.name} holds a tensor of {list(latents.shape)}, not [frames, channels].")
    return {"samples": latents.T[None].float().contiguous(), "type": "audio"}
