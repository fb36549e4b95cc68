"""The sampler and its optional settings."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ..acestep_core.sampling import settings as s
from .widgets import (
    CONDITIONING,
    GUIDANCE_SETTINGS,
    LATENT,
    MODEL,
    RESULT,
    ROOT,
    SAMPLER_SETTINGS,
    choice,
    number,
    problem_of,
    socket,
    text,
    whole,
)

CATEGORY = f"{ROOT}/Sample"
AUTO_STEPS = ", ".join(f"{kind} {int(values['steps'])}" for kind, values in s.AUTO.items())
AUTO_SHIFT = ", ".join(f"{kind} {values['shift']:g}" for kind, values in s.AUTO.items())
AUTO_GUIDANCE = ", ".join(f"{kind} {values['guidance_scale']:g}" for kind, values in s.AUTO.items())


class Sampler:
    CATEGORY = CATEGORY
    DESCRIPTION = "Makes the music, as latents. Decode them with the VAE to hear it."
    SEARCH_ALIASES = ["ace step", "ksampler", "generate"]
    FUNCTION = "sample"
    RETURN_TYPES = (LATENT, RESULT, "STRING", "STRING")
    RETURN_NAMES = ("latent", "result", "settings", "seeds")
    OUTPUT_TOOLTIPS = (
        "Latents of every variation (25 a second)",
        "Everything needed to make this again, for saving",
        "The settings as used, with auto resolved",
        "The seed of each variation, separated by commas",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        seed = "Start of the randomness: the same seed gives the same music. The first variation uses it as it is."
        more = (
            "Seeds of the other variations, separated by commas. Left empty, they follow from the seed. "
            "-1 draws a new one each time."
        )
        return {
            "required": {
                "model": socket(MODEL, "The model the conditioning was made with."),
                "conditioning": socket(CONDITIONING, "From a task node."),
                "seed": whole(0, 0, s.SEED_MAX, seed, control_after_generate=True),
                "steps": whole(
                    0,
                    0,
                    s.STEPS_RANGE[1],
                    f"More steps, more detail, more time. 0: auto ({AUTO_STEPS}). Turbo: up to 20.",
                ),
                "guidance_scale": number(
                    0.0,
                    0.0,
                    s.GUIDANCE_RANGE[1],
                    0.1,
                    f"How closely caption and lyrics are followed. 0: auto ({AUTO_GUIDANCE}). Turbo has it built in.",
                ),
                "shift": number(
                    0.0,
                    0.0,
                    s.SHIFT_RANGE[1],
                    0.1,
                    f"Higher spends more steps on the coarse structure. 0: auto ({AUTO_SHIFT}).",
                ),
            },
            "optional": {
                "more_seeds": text(more),
                "sampler_settings": socket(SAMPLER_SETTINGS, "Method, solver, own timesteps and more."),
                "guidance_settings": socket(GUIDANCE_SETTINGS, "Kind of guidance and where it applies."),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls, steps: Any = None, guidance_scale: Any = None, shift: Any = None, more_seeds: str | None = None
    ) -> bool | str:
        given = {"steps": steps, "guidance_scale": guidance_scale, "shift": shift}
        answer = problem_of(s.SamplerSettings, **{k: v for k, v in given.items() if v is not None})
        return problem_of(s.check_seeds, more_seeds or "") if answer is True else answer

    @classmethod
    def IS_CHANGED(cls, seed: int, more_seeds: str = "", **_: Any) -> str:
        listed = more_seeds.split(",") if more_seeds and more_seeds.strip() else []
        unsettled = any(found is None for found in s.parse_seeds(listed, len(listed)))
        return str(time.time_ns()) if unsettled else ""

    def sample(
        self,
        model: Any,
        conditioning: Any,
        seed: int,
        steps: int,
        guidance_scale: float,
        shift: float,
        more_seeds: str = "",
        sampler_settings: s.SamplerSettings | None = None,
        guidance_settings: dict[str, Any] | None = None,
    ) -> tuple:
        from ..acestep_core import result
        from ..acestep_core.sampling.sampler import sample

        chosen = replace(
            sampler_settings or s.SamplerSettings(),
            steps=steps,
            guidance_scale=guidance_scale,
            shift=shift,
            **(guidance_settings or {}),
        )
        seeds = f"{seed},{more_seeds}" if more_seeds.strip() else seed
        made = sample(model, conditioning, chosen, seeds)
        kept = result.make_result(model, conditioning, made)
        seeds_used = ", ".join(map(str, made.seeds))
        return result.as_latent(made, conditioning), kept, result.summary(kept), seeds_used


class SamplerSettings:
    CATEGORY = CATEGORY
    DESCRIPTION = "Optional settings of the sampler. The defaults are those of the model; change them only to explore."
    SEARCH_ALIASES = ["ace step", "heun", "sde", "timesteps", "dcw", "retake"]
    FUNCTION = "make"
    RETURN_TYPES = (SAMPLER_SETTINGS,)
    RETURN_NAMES = ("sampler_settings",)
    OUTPUT_TOOLTIPS = ("For the sampler",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        levels = (
            "Own noise levels from 1 down to 0, separated by commas; they replace steps and shift. "
            "Turbo moves each to the nearest level it was trained on. Example: 0.97, 0.76, 0.615, 0.5, 0.28, 0"
        )
        return {
            "required": {
                "method": choice(
                    s.METHODS, "ode: straight to the music. sde: adds fresh, seeded noise after each step."
                ),
                "solver": choice(
                    s.SOLVERS, "heun looks ahead once more in each step: twice the time, smoother. ode only."
                ),
                "timesteps": text(levels),
                "velocity_norm_threshold": number(
                    0.0, *s.NORM_THRESHOLD_RANGE, 0.05, "Limits sudden jumps of a step, relative to the signal. 0: off."
                ),
                "velocity_ema_factor": number(0.0, *s.EMA_RANGE, 0.01, "Blends each step with the one before. 0: off."),
                "correction": choice(
                    s.CORRECTIONS, "Wavelet correction (DCW) of slow (low) and fast (high) changes. off: as trained."
                ),
                "scaler": number(0.05, 0.0, 1.0, 0.01, "Strength of the correction; of its low part in double."),
                "high_scaler": number(0.02, 0.0, 1.0, 0.01, "Strength of the high part in double."),
                "retake_variance": number(
                    0.0, 0.0, 1.0, 0.01, "Mixes in other noise: 0 is the same piece, 1 another; small values vary it."
                ),
                "retake_seed": whole(0, 0, s.SEED_MAX, "Seed of the other noise."),
                "noise": choice(
                    s.NOISE_SOURCES, "cpu: the same noise on every machine. device: drawn as the original does."
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, timesteps: str | None = None) -> bool | str:
        return problem_of(lambda: s.SamplerSettings(timesteps=s.parse_timesteps(timesteps or "")))

    def make(self, timesteps: str, **chosen: Any) -> tuple:
        return (s.SamplerSettings(timesteps=s.parse_timesteps(timesteps), **chosen),)


class GuidanceSettings:
    CATEGORY = CATEGORY
    DESCRIPTION = "Optional guidance settings for sft and base models. Turbo models have guidance built in."
    SEARCH_ALIASES = ["ace step", "cfg", "apg", "adg"]
    FUNCTION = "make"
    RETURN_TYPES = (GUIDANCE_SETTINGS,)
    RETURN_NAMES = ("guidance_settings",)
    OUTPUT_TOOLTIPS = ("For the sampler",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "guidance": choice(
                    s.GUIDANCES,
                    "apg: the model's own, keeps colours natural. cfg: classic. adg: turns by angle, in three forms.",
                ),
                "cfg_interval_start": number(
                    0.0, 0.0, 1.0, 0.01, "Guide only above this noise level (1 is the start)."
                ),
                "cfg_interval_end": number(1.0, 0.0, 1.0, 0.01, "Guide only below this noise level (1 is the start)."),
                "eta": number(0.0, 0.0, 1.0, 0.05, "apg: how much of the parallel part is kept."),
                "norm_threshold": number(2.5, 0.0, 100.0, 0.1, "apg: largest push; 0: unlimited."),
                "momentum": number(-0.75, -1.0, 1.0, 0.05, "apg: how much of the last push is carried on."),
                "angle_clip": number(0.0, 0.0, 3.14, 0.01, "adg: largest turn in radians; 0: its own default."),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, cfg_interval_start: Any = None, cfg_interval_end: Any = None) -> bool | str:
        if cfg_interval_start is None or cfg_interval_end is None:
            return True
        bounds = {"cfg_interval_start": float(cfg_interval_start), "cfg_interval_end": float(cfg_interval_end)}
        return problem_of(s.SamplerSettings, **bounds)

    def make(self, **chosen: Any) -> tuple:
        return (chosen,)
