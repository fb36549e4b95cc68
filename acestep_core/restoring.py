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
    return Restored(
        song=song_of(record, notes),
        codes=_codes(record, notes),
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


def _codes(record: Mapping[str, Any], notes: list[str]) -> Codes:
    text = sidecar.text_of(record, "audio_codes")
    if not text.strip():
        return Codes(())
    try:
        return parse_codes(text)
    except ValueError as error:
        notes.append(f"{str(error)[:300]} The codes were left out.")
        return Codes(())


SAMPLER_FIELDS: dict[str, tuple[str, Callable]] = {
    "steps": ("inference_steps", sidecar.whole_of),
    "guidance_scale": ("guidance_scale", sidecar.number_of),
    "shift": ("shift", sidecar.number_of),
    "guidance": ("guidance_variant", sidecar.text_of),
    "cfg_interval_start": ("cfg_interval_start", sidecar.number_of),
    "cfg_interval_end": ("cfg_interval_end", sidecar.number_of),
    "eta": ("guidance_eta", sidecar.number_of),
    "norm_threshold": ("guidance_norm_threshold", sidecar.number_of),
    "momentum": ("guidance_momentum", sidecar.number_of),
    "angle_clip": ("guidance_angle_clip", sidecar.number_of),
    "method": ("infer_method", sidecar.text_of),
    "solver": ("sampler_mode", sidecar.text_of),
    "velocity_norm_threshold": ("velocity_norm_threshold", sidecar.number_of),
    "velocity_ema_factor": ("velocity_ema_factor", sidecar.number_of),
    "scaler": ("dcw_scaler", sidecar.number_of),
    "high_scaler": ("dcw_high_scaler", sidecar.number_of),
    "retake_variance": ("retake_variance", sidecar.number_of),
    "retake_seed": ("retake_seed", sidecar.whole_of),
    "noise": ("noise_source", sidecar.text_of),
}
"""Setting → field of the file, and how it is read."""
WAVELETS = ("", "haar")
"""What the correction works with."""


def sampler_of(record: Mapping[str, Any], notes: list[str]) -> SamplerSettings:
    """Settings of the sampler; each that is no valid value keeps its default and is noted."""
    wanted: dict[str, Any] = {}
    for name, (field, read) in SAMPLER_FIELDS.items():
        given, value = record.get(field), read(record, field)
        if given in (None, ""):
            continue
        if value in (None, "") or (read is sidecar.whole_of and sidecar.number_of(record, field) != value):
            notes.append(f"{field} is {str(given)[:40]!r}, which makes no sense here. It was left at its default.")
        else:
            wanted[name] = value
    if "guidance" not in wanted and _switched(record, "use_adg", notes):
        wanted["guidance"] = "adg"
    wanted["correction"] = _correction(record, notes)
    wanted["timesteps"] = _timesteps(record, notes)
    settings = SamplerSettings()
    start, end = wanted.get("cfg_interval_start"), wanted.get("cfg_interval_end")
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


def _switched(record: Mapping[str, Any], field: str, notes: list[str]) -> bool:
    """Whether a switch is on; one that is neither on nor off is noted, and off."""
    value = record.get(field)
    if value is not None and not isinstance(value, bool):
        notes.append(f"{field} is {str(value)[:40]!r}, neither true nor false. It was left off.")
    return value is True


def _correction(record: Mapping[str, Any], notes: list[str]) -> str | None:
    if not _switched(record, "dcw_enabled", notes):
        return None
    mode, wavelet = sidecar.text_of(record, "dcw_mode", 40), sidecar.text_of(record, "dcw_wavelet", 40)
    if wavelet not in WAVELETS:
        notes.append(f"The correction works with the wavelet haar; the file asks for {wavelet!r}.")
    if mode and mode not in CORRECTIONS:
        notes.append(f"The correction {mode!r} is unknown here; double was taken.")
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
