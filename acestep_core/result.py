"""From latents to ComfyUI's values and back, with a record of every setting as used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import audio as sound
from . import codec
from .checkpoints import bundled
from .checkpoints.fingerprint import described
from .checkpoints.handles import Autoencoder, DiffusionModel
from .lm.score import PlannerScore
from .lora import apply as adapters
from .lyrics.timing import LyricScore, Timing
from .sampling.conditioning import Conditioning, Splice
from .sampling.sampler import Sampled
from .sampling.settings import LATENT_RESCALE_RANGE, LATENT_SHIFT_RANGE, check_chunk, require_between
from .tasks.codes import ITEM_BREAK, Codes, parse_item
from .tasks.source import Source, encode_source

VERSION = "0.1.0"


@dataclass(frozen=True)
class Score:
    """How good one piece is, from 0 to 1: by the planner, by its lyrics. None where it could not be judged."""

    planner: PlannerScore | None = None
    lyrics: LyricScore | None = None

    def by(self, what: str) -> float | None:
        """The score ``planner``, ``lyrics`` or ``both`` (the mean of those there are)."""
        parts = {"planner": self.planner, "lyrics": self.lyrics}
        found = [part.total for name, part in parts.items() if part is not None and what in (name, "both")]
        return sum(found) / len(found) if found else None

    def report(self) -> str:
        return "\n".join(part.report() for part in (self.planner, self.lyrics) if part is not None)


@dataclass(frozen=True)
class Result:
    """One batch: the latents, what they were made from, and every setting as plain values.

    ``scores`` and ``timings`` are empty, or have an entry (perhaps None) for each item.
    """

    made: Sampled
    conditioning: Conditioning
    record: Mapping[str, Any]
    scores: tuple[Score | None, ...] = ()
    timings: tuple[Timing | None, ...] = ()


def make_result(model: DiffusionModel, conditioning: Conditioning, made: Sampled) -> Result:
    """Join the request, the settings as used and the model into one record."""
    song = conditioning.song
    record = {
        "task_type": conditioning.task,
        "instruction": conditioning.instruction,
        "caption": song.caption,
        "lyrics": song.sung,
        "instrumental": song.instrumental,
        "vocal_language": song.language,
        "bpm": song.bpm,
        "keyscale": song.key,
        "timesignature": song.time_signature,
        "duration": conditioning.seconds,
        **conditioning.settings,
        **made.record(),
        **adapters.record(model),
        "model_kind": model.kind,
        "model_files": [bundled.called(Path(f)) for f in model.report.files],
        "models": [*_weights("dit", model.report.files), *_weights("text", conditioning.text_files)],
        "dtype": model.report.dtype,
        "notes": [*conditioning.notes, *made.notes],
        "time_costs": {name: round(seconds, 3) for name, seconds in made.times.items()},
        "acestep_graph_version": VERSION,
    }
    return Result(made, conditioning, record)


def _weights(component: str, files: Sequence[str]) -> list[dict[str, Any]]:
    return [described(component, file) for file in files]


def codes_of(result: Result) -> Codes:
    """Codes that a result was made from, one list an item, empty for an item without; none where there were none."""
    text = result.record.get("audio_codes")
    return Codes(tuple(map(parse_item, text.split(ITEM_BREAK)))) if text else Codes(())


def times_text(record: Mapping[str, Any]) -> str:
    """Where the time went, a line a stage."""
    return "\n".join(f"{name}: {seconds:.2f} s" for name, seconds in record["time_costs"].items())


def chosen(result: Result, indices: Sequence[int]) -> Result:
    """The items ``indices`` of a result, in this order, as a result of their own."""
    made, kept = result.made, list(indices)

    def of(values: tuple) -> tuple:
        return tuple(values[i] for i in kept) if values else ()

    seeds = of(made.seeds)
    codes = codes_of(result)
    record = {"batch_seeds": list(made.seeds), **result.record, "seeds": list(seeds)}
    if codes:
        record["audio_codes"] = Codes(tuple(codes.for_item(i) for i in kept)).text()
    smaller = replace(made, latents=made.latents[kept], lengths=of(made.lengths), frames=of(made.frames), seeds=seeds)
    conditioning = replace(result.conditioning, items=of(result.conditioning.items))
    return replace(
        result,
        made=smaller,
        conditioning=conditioning,
        record=record,
        scores=of(result.scores),
        timings=of(result.timings),
    )


def summary(result: Result) -> str:
    """The settings that matter, in a few lines."""
    r = result.record
    shown = {
        "model": f"{r['model_kind']} ({', '.join(r['model_files'])}, {r['dtype']})",
        "seeds": ", ".join(str(s) for s in r["seeds"]),
        "length": f"{r['duration']:g} s",
        "steps": f"{r['inference_steps']}, shift {r['shift']:g}, {r['infer_method']} {r['sampler_mode']}",
        "guidance": "none" if r["guidance_scale"] <= 1 else f"{r['guidance_scale']:g} ({r['guidance_variant']})",
        "time": f"{r['time_costs']['dit_diffusion_time_cost']:.1f} s",
    }
    return "\n".join([f"{name}: {value}" for name, value in shown.items()] + list(r["notes"]))


EXTRA = "acestep"
"""Key of ComfyUI's LATENT under which lengths and splices travel; nodes that drop it lose only these."""


@dataclass(frozen=True)
class Trim:
    """What decoding one item of a LATENT needs besides its samples: frames made, frames kept, splice; and its seed."""

    length: int
    frames: int
    splice: Splice | None = None
    seed: int | None = None


def as_latent(made: Sampled, conditioning: Conditioning) -> dict[str, Any]:
    """ComfyUI's LATENT: samples [B, 64, T]."""
    each = zip(made.lengths, made.frames, conditioning.items, made.seeds, strict=True)
    trims = tuple(Trim(length, frames, item.splice, seed) for length, frames, item, seed in each)
    return {"samples": made.latents.transpose(1, 2).contiguous(), "type": "audio", EXTRA: trims}


def to_audio(
    vae: Autoencoder,
    latent: Mapping[str, Any],
    peak_db: float | None,
    chunk: int | None,
    shift: float = 0.0,
    rescale: float = 1.0,
) -> dict[str, Any]:
    """Decode a LATENT to ComfyUI's AUDIO: cut to its length, put into its source, levelled.

    Each item that would clip is scaled to a peak of 1; with ``peak_db`` every item is scaled to that peak.
    Items shorter than the longest are followed by silence. What is decoded is latent·rescale + shift.
    """
    require_between("latent shift", shift, LATENT_SHIFT_RANGE)
    require_between("latent rescale", rescale, LATENT_RESCALE_RANGE)
    check_chunk(chunk)
    samples = _samples(vae, latent)
    if (shift, rescale) != (0, 1):
        samples = samples * rescale + shift
    trims = _trims(latent) or (Trim(samples.shape[2], samples.shape[2]),) * samples.shape[0]
    decoded = []
    for row, trim in zip(samples.transpose(1, 2).float(), trims, strict=True):
        sound_of_row = codec.decode(vae, row[None, : trim.length], chunk=chunk)[..., : trim.frames * vae.hop]
        decoded.append(sound_of_row[0] if trim.splice is None else splice(sound_of_row[0], trim.splice))
    longest = max(part.shape[-1] for part in decoded)
    audio = torch.stack([torch.nn.functional.pad(part, (0, longest - part.shape[-1])) for part in decoded])
    audio = sound.limit_peak(audio)
    if peak_db is not None:
        audio = sound.normalize_peak(audio, peak_db)
    about = {"seed": trims[0].seed, "vae_files": vae.report.files}
    return {"waveform": audio, "sample_rate": vae.module.config.sampling_rate, EXTRA: about}


def _trims(latent: Mapping[str, Any]) -> tuple[Trim, ...]:
    """What a LATENT says of its items; nothing where other nodes have joined, cut or picked what it speaks of."""
    samples, trims = latent["samples"], latent.get(EXTRA) or ()
    whole = len(trims) == samples.shape[0] and max(trim.length for trim in trims) == samples.shape[2]
    return trims if whole else ()


def _samples(vae: Autoencoder, latent: Mapping[str, Any]) -> Tensor:
    """Samples [B, 64, T] of a LATENT, or an error where they are another model's."""
    samples = latent.get("samples")
    channels = vae.module.config.decoder_input_channels
    if not isinstance(samples, Tensor) or samples.dim() != 3 or samples.shape[1] != channels:
        shape = list(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise ValueError(
            f"These are not latents of ACE-Step 1.5 ({shape}); expected [batch, {channels}, frames]. "
            "Connect the ACE-Step sampler or ACE-Step VAE Encode."
        )
    return samples


RAMP_SECONDS = 0.05
"""Over how long the level of a region is lowered at its edges where the region would clip."""


def splice(made: Tensor, into: Splice) -> Tensor:
    """Sound [2, n] made within [start, end), the source everywhere else, linear fades outside the region.

    The result is as long as the source: what the codec drops of an unfinished last frame comes from it.
    Where the region would clip, the region alone is lowered, so the source stays as it is.
    """
    source, total = into.audio, into.audio.shape[-1]
    made = torch.nn.functional.pad(made, (0, max(0, total - made.shape[-1])))[..., :total]
    start, end = min(into.start, total), min(into.end, total)
    before, after = min(into.fade, start), min(into.fade, total - end)
    weight = torch.zeros(total)
    weight[start:end] = 1
    weight[start - before : start] = torch.linspace(0, 1, before + 2)[1:-1]
    weight[end : end + after] = torch.linspace(1, 0, after + 2)[1:-1]
    lowered = _lower(made, weight > 0)
    return torch.where(weight == 0, source, weight * lowered + (1 - weight) * source)


def _lower(made: Tensor, where: Tensor) -> Tensor:
    """``made`` with a gain that keeps it within ±1 inside ``where``, reached over a short ramp at its ends."""
    inside = where.nonzero().flatten()
    peak = float(made[:, inside].abs().max()) if len(inside) else 0.0
    if peak <= 1:
        return made
    first, last = int(inside[0]), int(inside[-1]) + 1
    ramp = min(int(RAMP_SECONDS * sound.SAMPLE_RATE), (last - first) // 2)
    gain = torch.full((made.shape[-1],), 1 / peak)
    gain[first : first + ramp] = torch.linspace(1, 1 / peak, ramp)
    gain[last - ramp : last] = torch.linspace(1 / peak, 1, ramp)
    return (made * gain).clamp(-1, 1)


def from_audio(vae: Autoencoder, audio: Mapping[str, Any], chunk: int | None) -> dict[str, Any]:
    """Encode ComfyUI's AUDIO to a LATENT with the posterior's mean."""
    check_chunk(chunk)
    latents = codec.encode(vae, sound.for_model(audio), chunk=chunk)
    return {"samples": latents.transpose(1, 2).contiguous(), "type": "audio"}


def source_of(
    vae: Autoencoder, audio: Mapping[str, Any], latent: Mapping[str, Any] | None = None, seed: int | None = None
) -> Source:
    """A source from ComfyUI's AUDIO (first item of a batch), with the LATENT it was made from, if any."""
    own = None if latent is None else _samples(vae, latent)[:1].transpose(1, 2).float().cpu()
    source = encode_source(vae, sound.for_model(audio)[0].cpu(), latents=own, seed=seed)
    return replace(source, sampled_with=_seed_of(audio, latent))


def _seed_of(audio: Mapping[str, Any], latent: Mapping[str, Any] | None) -> int | None:
    """The sampler's seed that a sound made here came from; None where it is unknown."""
    trims = _trims(latent) if latent else ()
    if trims and trims[0].seed is not None:
        return trims[0].seed
    about = audio.get(EXTRA)
    return about.get("seed") if isinstance(about, Mapping) else None
