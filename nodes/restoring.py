"""Saved settings and widgets: what a run's widgets were, and which widgets a setting belongs to.

Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..acestep_core.song import AUTO, INSTRUMENTAL

if TYPE_CHECKING:
    from ..acestep_core.restoring import Restored

PLANNER = {
    "lm_temperature": "temperature",
    "lm_cfg_scale": "cfg_scale",
    "lm_top_k": "top_k",
    "lm_top_p": "top_p",
    "lm_negative_prompt": "negative_prompt",
    "use_cot_metas": "metas",
    "use_cot_caption": "rewrite_caption",
    "use_cot_language": "detect_language",
}
"""Field of a settings file → widget of Think."""

TASKS = {
    "text2music": ("ACEStepText2Music", {"audio_cover_strength": "codes_strength"}),
    "cover": ("ACEStepRemix", {"audio_cover_strength": "strength", "cover_noise_strength": "noise_strength"}),
    "cover-nofsq": ("ACEStepRemix", {"audio_cover_strength": "strength", "cover_noise_strength": "noise_strength"}),
    "flow-edit": (
        "ACEStepFlowEdit",
        {
            "flow_edit_n_min": "start",
            "flow_edit_n_max": "end",
            "flow_edit_n_avg": "draws",
            "flow_edit_hears": "hears",
        },
    ),
    "repaint": (
        "ACEStepRepaint",
        {
            "repainting_start": "start",
            "repainting_end": "end",
            "repaint_mode": "mode",
            "repaint_strength": "strength",
        },
    ),
    "extract": ("ACEStepExtract", {"track_name": "track"}),
    "lego": (
        "ACEStepLego",
        {
            "track_name": "track",
            "repainting_start": "start",
            "repainting_end": "end",
            "chunk_mask_mode": "mask_mode",
            "global_caption": "global_caption",
        },
    ),
    "complete": ("ACEStepComplete", {}),
}
"""Task → node and its widgets by field."""

HEARD_IN = {"cover": "structure", "cover-nofsq": "sound"}
"""What a flow edit heard, where only its task is known."""

FINISH = {
    "audio_format": "format",
    "audio_quality": "quality",
    "enable_normalization": "normalize",
    "normalization_db": "peak_db",
    "fade_in_duration": "fade_in",
    "fade_out_duration": "fade_out",
}

DECODING = ("latent_shift", "latent_rescale")
"""Fields of a settings file that are widgets of the decoder."""


def planner_fields(prompt: Any) -> dict[str, Any]:
    """Settings of the planner in a run, under the names of a settings file; {} where none took part."""
    for node in prompt.values() if isinstance(prompt, Mapping) else ():
        inputs = node.get("inputs", {})
        if node.get("class_type") == "ACEStepThink":
            return {field: inputs[name] for field, name in PLANNER.items() if not isinstance(inputs.get(name), list)}
    return {}


def widgets_of(saved: Restored) -> list[dict[str, Any]]:
    """The nodes of a saved run with their widget values as used: id, type, title, values.

    From the run itself where the file keeps it, with drawn seeds in place of "draw one"; else one node of each
    kind that the settings speak of, without an id.
    """
    return _of_prompt(saved) if saved.prompt else _of_settings(saved)


def _of_prompt(saved: Restored) -> list[dict[str, Any]]:
    found = []
    for number, node in saved.prompt.items():
        if not isinstance(node, Mapping) or not isinstance(node.get("inputs"), Mapping):
            continue
        values = {
            str(name): value
            for name, value in node["inputs"].items()
            if isinstance(value, (str, int, float, bool)) and len(str(value)) < 1_000_000
        }
        meta = node.get("_meta")
        title = meta.get("title") if isinstance(meta, Mapping) else ""
        kind = str(node.get("class_type", ""))[:200]
        found.append({"id": str(number)[:40], "type": kind, "title": str(title or "")[:200], "values": values})
    samplers = [node for node in found if node["type"] == "ACEStepSampler"]
    if len(samplers) == 1 and "-1" in str(samplers[0]["values"].get("more_seeds", "")):
        samplers[0]["values"]["more_seeds"] = ", ".join(map(str, saved.seeds[1:]))
    return found


def _of_settings(saved: Restored) -> list[dict[str, Any]]:
    song, sampler = saved.song, saved.sampler
    guided, given = saved.guidance, {}
    given["ACEStepSong"] = {
        "caption": song.caption,
        "lyrics": song.lyrics,
        "instrumental": song.instrumental,
        "language": song.language,
        "bpm": song.bpm or 0,
        "key": song.key or AUTO,
        "time_signature": song.time_signature or AUTO,
        "duration": song.duration,
    }
    given["ACEStepSampler"] = {"steps": sampler.steps, "guidance_scale": sampler.guidance_scale, "shift": sampler.shift}
    if saved.seed is not None:
        given["ACEStepSampler"] |= {"seed": saved.seed, "more_seeds": ", ".join(map(str, saved.seeds[1:]))}
    own = {name: getattr(sampler, name) for name in sampler.__dataclass_fields__}
    apart = {*given["ACEStepSampler"], *guided, "timesteps"}
    given["ACEStepSamplerSettings"] = {name: value for name, value in own.items() if name not in apart}
    given["ACEStepSamplerSettings"]["timesteps"] = ", ".join(
        repr(float(level)).removesuffix(".0") for level in sampler.timesteps
    )
    given["ACEStepGuidanceSettings"] = guided
    task = "flow-edit" if saved.options.get("flow_edit_morph") else saved.task
    if task in TASKS:
        kind, names = TASKS[task]
        given[kind] = {name: saved.options[field] for field, name in names.items() if field in saved.options}
        if kind == "ACEStepRemix":
            given[kind]["quantizer"] = saved.task == "cover" and not saved.options.get("no_fsq")
        if kind == "ACEStepFlowEdit":
            given[kind].setdefault("hears", HEARD_IN.get(saved.task, "words"))
        if kind == "ACEStepComplete":
            given[kind] = {str(track): True for track in saved.options.get("complete_track_classes", ())}
    if saved.planner:
        given["ACEStepThink"] = {
            name: saved.planner[field] for field, name in PLANNER.items() if field in saved.planner
        }
    finish = {name: saved.finish[field] for field, name in FINISH.items() if field in saved.finish}
    if "mp3_bitrate" in saved.finish:  # the original's own field
        finish.setdefault("quality", saved.finish["mp3_bitrate"])
    if finish:
        given["ACEStepSaveResult"] = finish
    decoding = {name: saved.finish[name] for name in DECODING if name in saved.finish}
    if decoding:
        given["ACEStepVAEDecode"] = decoding
    codes = saved.codes.text()
    if codes:
        given["ACEStepTextToCodes"] = {"text": codes}
    nodes = [*([("ACEStepSong", _edited_from(saved))] if task == "flow-edit" else []), *given.items()]
    return [{"id": "", "type": kind, "title": "", "values": values} for kind, values in nodes if values]


def _edited_from(saved: Restored) -> dict[str, Any]:
    """Widgets of the Song that says what the source of a flow edit is; it comes first, as in the workflow."""
    caption, lyrics = (saved.options.get(f"flow_edit_source_{name}", "") for name in ("caption", "lyrics"))
    silent = lyrics.strip().lower() == INSTRUMENTAL.lower()
    language = saved.options.get("flow_edit_source_language", saved.song.language)
    return {"caption": caption, "lyrics": "" if silent else lyrics, "instrumental": silent, "language": language}
