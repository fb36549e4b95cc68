"""From the fields of a settings file back to values: song, codes, seed, settings of the sampler.

Understands this project's files and those of the original, old and new. A field that cannot be used is left at its
default and named in a note; nothing is refused for one bad field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from . import sidecar
from .sampling.settings import CORRECTIONS, SamplerSettings, parse_timesteps
from .song import INSTRUMENTAL, LANGUAGES, UNKNOWN_LANGUAGE, Song, make_song
from .tasks.codes import Codes, parse_codes

GUIDANCE_FIELDS = (
    *("guidance", "cfg_interval_start", "cfg_interval_end"),
    *("eta", "norm_threshold", "momentum", "angle_clip"),
)
"""Settings of the sampler that the node Guidance Settings has."""
WIDGET_FIELDS = ("steps", "guidance_scale", "shift")
"""Settings that the sampler's own widgets have."""
LONGEST_SHOWN = 2000


@dataclass(frozen=True)
class Restored:
    """What a settings file says.

    Attributes:
        song, codes, seed: None for a seed left to chance. seeds: of the whole batch.
        sampler: every setting as used. task: ``text2music`` and so on. options: the task's own fields.
        finish: what was done to the sound. planner: settings of the language model, where the file has them.
        prompt: the run as ComfyUI queued it, {} where it was not kept. notes: fields that could not be used.
    """

    song: Song
    codes: Codes
    seed: int | None
    seeds: tuple[int, ...]
    sampler: SamplerSettings
    task: str
    options: Mapping[str, Any]
    finish: Mapping[str, Any]
    planner: Mapping[str, Any]
    prompt: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def guidance(self) -> dict[str, Any]:
        return {name: getattr(self.sampler, name) for name in GUIDANCE_FIELDS}

    def text(self) -> str:
        """Everything, to read."""
        default = SamplerSettings()
        rows = [
            f"task: {self.task}",
            f"seed: {'not known' if self.seed is None else self.seed}",
            *(f"{name}: {_shown(value)}" for name, value in self.options.items()),
            self.song.text(),
            "",
            f"steps: {self.sampler.steps}, shift {self.sampler.shift:g}, guidance {self.sampler.guidance_scale:g}",
        ]
        for field in fields(SamplerSettings):
            value = getattr(self.sampler, field.name)
            if field.name not in WIDGET_FIELDS and value != getattr(default, field.name):
                rows.append(f"{field.name}: {_shown(value)}")
        rows += [f"{name}: {_shown(value)}" for name, value in self.finish.items()]
        rows += [f"{name}: {_shown(value)}" for name, value in self.planner.items()]
        if self.codes:
            rows.append(f"codes: {len(self.codes.for_item(0))}")
        return "\n".join([*rows, *self.notes])


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def restore(record: Mapping[str, Any]) -> Restored:
    """Make values of the fields of a settings file."""
    notes: list[str] = []
    seed = sidecar.seed_of(record)
    seeds = tuple(s for s in sidecar.list_of(record, "seeds", 64) if isinstance(s, int) and not isinstance(s, bool))
    text = sidecar.text_of(record, "audio_codes")
    codes = parse_codes(text) if "<|audio_code_" in text else Codes(())
    return Restored(
        song=song_of(record, notes),
        codes=codes,
        seed=seed,
        seeds=seeds or (() if seed is None else (seed,)),
        sampler=sampler_of(record, notes),
        task=sidecar.text_of(record, "task_type", 40) or "text2music",
        options=_present(record, TASK_FIELDS | (EDIT_FIELDS if record.get("flow_edit_morph") is True else {})),
        finish=_present(record, FINISH_FIELDS),
        planner=_present(record, PLANNER_FIELDS),
        prompt=sidecar.mapping_of(record, "prompt"),
        notes=tuple(notes),
    )


TASK_FIELDS = {
    "repainting_start": sidecar.number_of,
    "repainting_end": sidecar.number_of,
    "repaint_mode": sidecar.text_of,
    "repaint_strength": sidecar.number_of,
    "audio_cover_strength": sidecar.number_of,
    "cover_noise_strength": sidecar.number_of,
    "no_fsq": sidecar.flag_of,
    "track_name": sidecar.text_of,
    "chunk_mask_mode": sidecar.text_of,
    "global_caption": sidecar.text_of,
    "complete_track_classes": sidecar.list_of,
}
EDIT_FIELDS = {
    "flow_edit_morph": sidecar.flag_of,
    "flow_edit_source_caption": sidecar.text_of,
    "flow_edit_source_lyrics": sidecar.text_of,
    "flow_edit_source_language": sidecar.text_of,
    "flow_edit_n_min": sidecar.number_of,
    "flow_edit_n_max": sidecar.number_of,
    "flow_edit_n_avg": sidecar.whole_of,
    "flow_edit_hears": sidecar.text_of,
}
FINISH_FIELDS = {
    "audio_format": sidecar.text_of,
    "audio_quality": sidecar.text_of,
    "mp3_bitrate": sidecar.text_of,
    "enable_normalization": sidecar.flag_of,
    "normalization_db": sidecar.number_of,
    "latent_shift": sidecar.number_of,
    "latent_rescale": sidecar.number_of,
    "fade_in_duration": sidecar.number_of,
    "fade_out_duration": sidecar.number_of,
}
PLANNER_FIELDS = {
    "lm_temperature": sidecar.number_of,
    "lm_cfg_scale": sidecar.number_of,
    "lm_top_k": sidecar.whole_of,
    "lm_top_p": sidecar.number_of,
    "lm_negative_prompt": sidecar.text_of,
    "use_cot_metas": sidecar.flag_of,
    "use_cot_caption": sidecar.flag_of,
    "use_cot_language": sidecar.flag_of,
}


def _present(record: Mapping[str, Any], readers: Mapping[str, Callable]) -> dict[str, Any]:
    found = {name: read(record, name) for name, read in readers.items() if record.get(name) is not None}
    return {name: value for name, value in found.items() if value not in (None, "", ())}


def song_of(record: Mapping[str, Any], notes: list[str]) -> Song:
    """The song; each field that is no valid value is left open and noted."""
    lyrics = sidecar.text_of(record, "lyrics")
    instrumental = record.get("instrumental") is True or lyrics.strip().lower() == INSTRUMENTAL.lower()
    song = make_song(sidecar.text_of(record, "caption"), "" if instrumental else lyrics, instrumental=instrumental)
    language = sidecar.text_of(record, "vocal_language", 40)
    names = {"bpm": "bpm", "keyscale": "key", "timesignature": "time_signature", "duration": "duration"}
    if language and language not in LANGUAGES:
        notes.append(f"The language {language[:20]!r} is unknown here and was left open.")
    elif language and not instrumental:
        song = replace(song, language=language or UNKNOWN_LANGUAGE)
    for stored, name in names.items():
        value = record.get(stored)
        if isinstance(value, (dict, list)):
            value = str(type(value).__name__)
        try:
            song = replace(song, **{name: getattr(make_song("x", **{name: value}), name)})
        except ValueError as error:
            notes.append(f"{str(error)[:300]} It was left on auto.")
    return song


def sampler_of(record: Mapping[str, Any], notes: list[str]) -> SamplerSettings:
    """Settings of the sampler; each that is no valid value keeps its default and is noted."""
    adg = record.get("use_adg") is True
    wanted: dict[str, Any] = {
        "steps": sidecar.whole_of(record, "inference_steps"),
        "guidance_scale": sidecar.number_of(record, "guidance_scale"),
        "shift": sidecar.number_of(record, "shift"),
        "guidance": sidecar.text_of(record, "guidance_variant", 40) or ("adg" if adg else None),
        "cfg_interval_start": sidecar.number_of(record, "cfg_interval_start"),
        "cfg_interval_end": sidecar.number_of(record, "cfg_interval_end"),
        "eta": sidecar.number_of(record, "guidance_eta"),
        "norm_threshold": sidecar.number_of(record, "guidance_norm_threshold"),
        "momentum": sidecar.number_of(record, "guidance_momentum"),
        "angle_clip": sidecar.number_of(record, "guidance_angle_clip"),
        "method": sidecar.text_of(record, "infer_method", 40) or None,
        "solver": sidecar.text_of(record, "sampler_mode", 40) or None,
        "velocity_norm_threshold": sidecar.number_of(record, "velocity_norm_threshold"),
        "velocity_ema_factor": sidecar.number_of(record, "velocity_ema_factor"),
        "correction": _correction(record),
        "scaler": sidecar.number_of(record, "dcw_scaler"),
        "high_scaler": sidecar.number_of(record, "dcw_high_scaler"),
        "retake_variance": sidecar.number_of(record, "retake_variance"),
        "retake_seed": sidecar.whole_of(record, "retake_seed"),
        "noise": sidecar.text_of(record, "noise_source", 40) or None,
        "timesteps": _timesteps(record, notes),
    }
    settings = SamplerSettings()
    start, end = wanted["cfg_interval_start"], wanted["cfg_interval_end"]
    if start is not None and end is not None and start > end:
        notes.append(f"The guidance interval {start:g} to {end:g} is empty and was left out.")
        wanted["cfg_interval_start"] = wanted["cfg_interval_end"] = None
    for name, value in wanted.items():
        if value is None:
            continue
        try:
            settings = replace(settings, **{name: value})
        except ValueError as error:
            notes.append(f"{str(error)[:300]} It was left at its default.")
    return settings


def _correction(record: Mapping[str, Any]) -> str | None:
    mode = sidecar.text_of(record, "dcw_mode", 40)
    if record.get("dcw_enabled") is not True:
        return None
    return mode if mode in CORRECTIONS else "double"


def _timesteps(record: Mapping[str, Any], notes: list[str]) -> tuple[float, ...] | None:
    value = record.get("timesteps")
    if isinstance(value, list):
        value = ",".join(str(part) for part in value[:400])
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        return parse_timesteps(value)
    except ValueError as error:
        notes.append(f"{str(error)[:300]} They were left out.")
        return None
