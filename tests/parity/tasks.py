"""Tasks with a source or codes: regions, masks, contexts, and whole requests up to the latents.

Where ours departs from the original on purpose, the comparison is named by one of the sentences below.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from acestep_graph.acestep_core import codec, text
from acestep_graph.acestep_core.checkpoints.handles import Autoencoder, DiffusionModel, LoadReport
from acestep_graph.acestep_core.models.oobleck import OobleckConfig
from acestep_graph.acestep_core.sampling.conditioning import SAMPLE_RATE, frames_of
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings, parse_seeds
from acestep_graph.acestep_core.song import Song
from acestep_graph.acestep_core.tasks import codes as semantic
from acestep_graph.acestep_core.tasks import complete, extract, lego, remix, repaint, text2music
from acestep_graph.acestep_core.tasks.instructions import instruction_for
from acestep_graph.acestep_core.tasks.region import make_region, preservation
from acestep_graph.acestep_core.tasks.source import Source, encode_source

from .golden import Difference, Fixtures, close, equal, golden

HOP = 1920
EMPTY_REGION = "an empty region: ours is an error, the original repaints everything"
NO_SOURCE = "no source: ours is an error, the original works on silence"
NO_START = "no start: ours has a number, the original takes the whole piece"
LENGTH_MADE = "length in the text: ours is that of the result, the original's that of the request"
CODES_IN_REPAINT = "codes in a repaint: ours repaints recordings only"
LEGO_HEARS = "lego: ours hears the source everywhere (later rule), the original of 2026-02 silenced the region"
STEM_WORDS = "stems: ours says nothing but the track, the original leaves the fields to its interface"


class StandIn(nn.Module):
    """The encoder the masks were made with: channel c of a frame is its stored level times c + 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.config = OobleckConfig(decoder_input_channels=channels)
        self.weight = nn.Parameter(torch.arange(channels) + 1.0, requires_grad=False)

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        frames = audio.shape[-1] // HOP
        level = audio[..., : frames * HOP].abs().mean(dim=1).unflatten(-1, (frames, HOP)).mean(dim=-1)
        latents = level[:, None] * self.weight[None, :, None]
        return latents, torch.zeros_like(latents)


def stand_in(channels: int) -> Autoencoder:
    return Autoencoder(StandIn(channels), LoadReport("vae", (), "", "", "", "", 0))


def runs(values: Tensor) -> list[list[float]]:
    """Run lengths of a row of numbers."""
    return [[value, len(list(group))] for value, group in groupby(values.tolist())]


def recording(levels: Tensor, samples: int) -> Tensor:
    """Sound [2, samples] whose frames have the given mean levels."""
    wave = levels.repeat_interleave(HOP)
    return torch.nn.functional.pad(wave, (0, samples - len(wave)))[None].repeat(2, 1)


@golden(
    "masks",
    "masks.json",
    "masks_later.json",
    "masks.safetensors",
    omitted=(NO_SOURCE, NO_START, CODES_IN_REPAINT, LENGTH_MADE, "chunk mask mode auto: offered for lego alone"),
)
def masks(fixtures: Fixtures) -> Iterator[Difference]:
    g, given = fixtures.tensors("masks.safetensors"), fixtures.json("masks.json")
    later = {c["name"]: c for c in fixtures.json("masks_later.json")["cases"] if c["chunk_mask_mode"] == "explicit"}
    model = fixtures.model("turbo")
    yield close("silence", model.silence[:256], g["silence_latent_first_256"])
    vae = stand_in(model.config.audio_acoustic_hidden_dim)
    sources = {}
    for name, audio in given["audio"].items():
        levels = g.get(f"audio.{name}_frame_abs_mean", torch.zeros(audio["samples"] // HOP))
        sources[name] = encode_source(vae, recording(levels, audio["samples"]))
    requests = {case["name"]: case["request"] for case in given["cases"]}
    for case in given["cases"]:
        yield from check_mask(fixtures, sources, case, later.get(case["name"]), g)
    for case in fixtures.json("masks_later.json")["cases"]:
        request = requests[case["name"]]
        if case["task"] == "lego" and case["chunk_mask_mode"] == "auto" and request.get("start") is not None:
            source, region = sources[request["audio"]], (request["start"], request["end"])
            base = tuned_for_stems(fixtures.model("base"))
            made = lego.prepare(base, fixtures.text, Song(caption="x"), source, "guitar", *region, mask_mode="auto")
            chunk = made.items[0].conditions.context[0, :, model.config.audio_acoustic_hidden_dim]
            yield equal(f"{case['name']}.auto mask", runs(chunk), case["items"][0]["chunk_mask_rle"])


def tuned_for_stems(model: DiffusionModel) -> DiffusionModel:
    """The same model with what its configuration would say."""
    module = copy.copy(model.module)
    module.config = replace(module.config, is_lego_sft=True)
    return replace(model, module=module)


def check_mask(
    fixtures: Fixtures, sources: dict[str, Source], case: dict[str, Any], later: dict[str, Any] | None, g: dict
) -> Iterator[Difference]:
    name, request, model = case["name"], case["request"], fixtures.model("turbo")
    base, encoder = fixtures.model("base"), fixtures.text
    task, source = request["task"], sources.get(request["audio"])
    song, batch = Song(caption="x", duration=request.get("dur") or -1.0), request["batch"]
    start, end = request.get("start"), request.get("end")
    own = request["codes"]
    codes = (
        None
        if own is None
        else semantic.Codes(tuple(map(semantic.parse_item, own if isinstance(own, list) else [own])))
    )
    if task == "text2music":
        if case["uses_random_duration"]:
            made = text2music.prepare(model, encoder, song, batch=batch)
            yield equal(f"{name}: a length in range", 10 <= made.seconds <= 120, True)
            return
        made = text2music.prepare(model, encoder, song, batch=batch, codes=codes)
    elif task == "cover":
        if source is None and codes is None:
            return  # NO_SOURCE
        made = remix.prepare(model, encoder, song, codes or source, quantizer=False, batch=batch)
    elif task in ("repaint", "lego"):
        if source is None or start is None or codes is not None:
            return  # NO_SOURCE, NO_START, CODES_IN_REPAINT
        try:
            if task == "repaint":
                made = repaint.prepare(model, encoder, song, source, start, end, batch=batch)
            else:
                made = on_turbo_silence(
                    model, base, lambda m: lego.prepare(m, encoder, song, source, "guitar", start, end)
                )
        except ValueError:
            yield equal(f"{name}: {EMPTY_REGION}", case["items"][0]["span"][0], "full")
            return
    elif task == "extract":
        made = on_turbo_silence(model, base, lambda m: extract.prepare(m, encoder, source, request["track"] or "drums"))
    else:
        tracks = request["classes"] or ()
        made = on_turbo_silence(model, base, lambda m: complete.prepare(m, encoder, song, source, tracks))
    if task == case["resolved_task"] and not request.get("instr"):
        yield equal(f"{name}.instruction", made.instruction, case["resolved_instruction"])
    items = (later or case).get("items")
    for row, expected in enumerate(items or ()):
        yield from check_item(name, made.items[row], expected, model, g if row == 0 else {}, task, codes)


def on_turbo_silence(model, base, make):
    """A stem task runs on the base model; the masks were made with the turbo model's silence."""
    return make(replace(base, silence=model.silence))


def check_item(name, item, expected, model, g, task, codes) -> Iterator[Difference]:
    channels = model.config.audio_acoustic_hidden_dim
    context = item.conditions.context[0]
    source, chunk = context[:, :channels], context[:, channels]
    span = expected["span"]
    frames = sum(length for _, length in expected["chunk_mask_rle"])
    alone = codes is not None and len(codes.items) > 1
    if not alone:  # in a batch, the original completes shorter items to the longest; ours run alone
        yield equal(f"{name}.frames", len(context), frames)
    frames = min(frames, len(context))
    mask = [[float(v), n] for v, n in expected["chunk_mask_rle"]]
    if not alone:
        yield equal(f"{name}.mask", runs(chunk), mask)
    if span[0] == "repainting" and item.keep is not None:
        kept = [[bool(v), n] for v, n in expected["repaint_mask_rle"]]
        yield equal(f"{name}.repaint mask", runs(item.keep.mask[0]), kept)
    silence, at = model.silence[: len(source)], 0
    for what, length in expected["src_source_rle"]:
        part = source[at : min(at + length, len(source))]
        if what in ("silence", "both"):
            yield close(f"{name}.silence at {at}", part, silence[at : at + len(part)])
        at += length
    stored = f"{name}.src_latents"
    if stored in g and task != "lego" and not alone:
        yield close(f"{name}.source", source[None, : g[stored].shape[1]], g[stored][:1])


@golden("task_requests", "task_requests.json")
def task_requests(fixtures: Fixtures) -> Iterator[Difference]:
    given = fixtures.json("task_requests.json")
    for case in given["prompts"]:
        metas = {key: case[key] for key in ("bpm", "keyscale", "timesignature", "duration")}
        instruction = case["instruction"] or instruction_for("text2music")
        yield equal("text", text.text_prompt(instruction, case["caption"], metas), case["text"])
        yield equal("lyrics", text.lyric_prompt(case["lyrics"], case["language"]), case["lyric_text"])
    for case in given["instructions"]:
        ours = instruction_for(case["task"], case["track"], case["tracks"] or ())
        yield equal(f"instruction {case['task']}", ours, case["instruction"])
    for case in given["seeds"]:
        yield equal(f"seeds {case['seed']!r}", parse_seeds(case["seed"], case["batch"]), case["expected"])
    for case in given["repaint"]:
        seconds = float(case["source_seconds"])
        region = make_region(case["start"], case["end"], seconds, SAMPLE_RATE)
        samples = int(seconds * SAMPLE_RATE) + region.before + region.after
        label = f"region {case['start']} to {case['end']}"
        yield equal(f"{label} samples", samples, case["padded_samples"])
        yield equal(f"{label} frames", samples // HOP, case["frames"])
        yield equal(label, list(region.frames(samples // HOP, SAMPLE_RATE, HOP)), case["span"])
    for case in given["target_lengths"]:
        yield equal(f"frames of {case['seconds']} s", frames_of(case["seconds"]), case["frames_before_minimum"])


@golden("repaint_mode_table", "later_generate_cases.json")
def repaint_mode_table(fixtures: Fixtures) -> Iterator[Difference]:
    for case in fixtures.json("later_generate_cases.json")["repaint_mode_table"]:
        ours = preservation(case["mode"], case["strength"])
        theirs = case["injection_ratio_crossfadeframes_wavcrossfadesec"]
        label = f"{case['mode']} {case['strength']}"
        yield close(
            label, torch.tensor([ours.injection, ours.crossfade, ours.fade_seconds]), torch.tensor(theirs), 1e-9
        )


@golden("pipeline with sources", "pipeline.safetensors", "pipeline.json", omitted=(STEM_WORDS,))
def pipeline_with_sources(fixtures: Fixtures) -> Iterator[Difference]:
    g, cases = fixtures.tensors("pipeline.safetensors"), fixtures.json("pipeline.json")
    audio = g["in.src_audio"].float()
    encoded = codec.encode(fixtures.vae, audio[None])
    for name, case in cases.items():
        request = case.get("request", {})
        if request.get("src"):
            yield close(f"{name}.encoded mean", encoded.transpose(1, 2), g[f"{name}.vae_encode0.mean"])
        if request.get("src") or request.get("codes"):
            yield from check_pipeline(fixtures, g, name, case, audio)
    ours = semantic.encode_codes(fixtures.model("turbo"), encoded)
    yield equal("codes of the source", semantic.Codes((ours,)).text(), cases["convert_src_audio_to_codes"]["codes"])


def check_pipeline(
    fixtures: Fixtures, g: dict[str, Tensor], name: str, case: dict[str, Any], audio: Tensor
) -> Iterator[Difference]:
    request, model, encoder = case["request"], fixtures.model(case["model"]), fixtures.text
    song = Song(
        request["caption"],
        request["lyrics"],
        request["vocal_language"],
        bpm=request["bpm"],
        key=request["keyscale"],
        time_signature=request["timesignature"],
        duration=request.get("dur", -1.0),
    )
    source = None
    if request.get("src"):
        mean, std = (g[f"{name}.vae_encode0.{part}"] for part in ("mean", "std"))
        latents = (mean + std * g[f"{name}.vae_encode0.eps"]).transpose(1, 2)
        source = Source(audio, latents, fixtures.vae, made_here=True)
    task = request["task"]
    if task == "text2music":
        made = text2music.prepare(model, encoder, song, codes=semantic.parse_codes(request["codes"]))
    elif task == "cover":
        strengths = {"strength": request["audio_cover_strength"], "noise_strength": request["cover_noise_strength"]}
        made = remix.prepare(model, encoder, song, source, **strengths)
    elif task == "repaint":
        made = repaint.prepare(model, encoder, song, source, request["start"], request["end"], mode="aggressive")
    elif task == "lego":
        made = lego.prepare(model, encoder, song, source, request["track"], request["start"], request["end"])
    elif task == "extract":
        made = extract.prepare(model, encoder, source, request["track"], song=song)
    else:
        made = complete.prepare(model, encoder, song, source, request["classes"])
    item = made.items[0]
    yield equal(f"{name}.instruction", made.instruction, case["instruction"])
    yield equal(f"{name}.frames", item.conditions.context.shape[1], case["frames"])
    context, channels = item.conditions.context, model.config.audio_acoustic_hidden_dim
    yield close(f"{name}.mask", context[..., -1], g[f"{name}.chunk_masks_bt"].float())
    if "lm_hints_25hz" in str(list(g)) and f"{name}.lm_hints_25hz" in g:
        yield close(f"{name}.hints", context[..., :channels], g[f"{name}.lm_hints_25hz"])
    if task == "lego":
        yield close(f"{name}: {LEGO_HEARS}", context[..., :channels], g[f"{name}.target_latents_input"])
        return
    part = torch.cat((context[..., :16], context[..., -1:]), dim=-1)
    yield close(f"{name}.context", part, g[f"{name}.context_latents_first16ch_and_mask"])
    yield equal(f"{name}.text", f"{item.prompt.text}\n\n{item.prompt.lyrics}", case["text_input"][0])
    yield close(f"{name}.sequence", item.conditions.sequence, g[f"{name}.encoder_hidden_states"])
    if f"{name}.non_cover_text_hidden_states" in g:
        hidden = g[f"{name}.non_cover_text_hidden_states"]
        plain = text.make_prompt(encoder.tokenizer, instruction_for("text2music"), song, made.seconds)
        yield close(f"{name}.plain text", text.embed(encoder, plain)[0], hidden)
    settings = SamplerSettings(
        shift=request["shift"], steps=request.get("infer_steps", 0), guidance_scale=request.get("guidance", 0.0)
    )
    yield close(f"{name}.latents", sample(model, made, settings, request["seeds"]).latents, g[f"{name}.out.latents"])
