"""Whole requests and the strings and small decisions on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from acestep_graph.acestep_core import codec, text
from acestep_graph.acestep_core.audio import limit_peak
from acestep_graph.acestep_core.sampling import schedules
from acestep_graph.acestep_core.sampling.conditioning import SAMPLES_PER_FRAME, frames_of
from acestep_graph.acestep_core.sampling.sampler import sample
from acestep_graph.acestep_core.sampling.settings import SamplerSettings, parse_seeds
from acestep_graph.acestep_core.song import BPM_RANGE, DURATION_RANGE, KEYS, LANGUAGES, TIME_SIGNATURES, Song
from acestep_graph.acestep_core.tasks import text2music
from acestep_graph.acestep_core.tasks.codes import parse_item
from acestep_graph.acestep_core.tasks.instructions import TASKS, TRACKS, instruction_for
from acestep_graph.acestep_core.tasks.reference import Reference, timbre_clips

from .golden import Difference, Fixtures, close, equal, golden


def request_song(request: dict[str, Any]) -> Song:
    return Song(
        caption=request["caption"],
        lyrics=request["lyrics"],
        language=request["vocal_language"],
        bpm=request["bpm"],
        key=request["keyscale"],
        time_signature=request["timesignature"],
        duration=request["dur"],
    )


@golden("pipeline", "pipeline.safetensors", "pipeline.json")
def pipeline(fixtures: Fixtures) -> Iterator[Difference]:
    g, cases = fixtures.tensors("pipeline.safetensors"), fixtures.json("pipeline.json")
    for name, case in cases.items():
        request = case.get("request", {})
        if request.get("task") == "text2music" and "codes" not in request:
            yield from check_text2music(fixtures, g, name, case)
    turbo = fixtures.model("turbo")
    yield close("silence mean", turbo.silence[: turbo.config.timbre_fix_frame].mean(), g["pipeline.silence750_mean"])
    raw = codec.decode(fixtures.vae, g["peaknorm.in.latents"])
    yield close("peak limit", limit_peak(raw), g["peaknorm.out.audio"])
    yield close("peak", raw.abs().max(), g["peaknorm.raw_peak"])


def check_text2music(fixtures: Fixtures, g: dict[str, Tensor], name: str, case: dict[str, Any]) -> Iterator[Difference]:
    request, model = case["request"], fixtures.model(case["model"])
    reference = None
    if request.get("ref"):
        mean, std = (g[f"{name}.vae_encode0.{part}"] for part in ("mean", "std"))
        ours = codec.encode(fixtures.vae, g["in.ref_audio"].float()[None])
        yield close(f"{name}.reference mean", ours.transpose(1, 2), mean)
        reference = Reference((mean + std * g[f"{name}.vae_encode0.eps"]).transpose(1, 2))
    batch = text2music.prepare(model, fixtures.text, request_song(request), batch=request["batch"], reference=reference)
    item, rows = batch.items[0], request["batch"]
    yield equal(f"{name}.instruction", batch.instruction, case["instruction"])
    yield equal(f"{name}.text", f"{item.prompt.text}\n\n{item.prompt.lyrics}", case["text_input"][0])
    yield equal(f"{name}.frames", item.conditions.context.shape[1], case["frames"])
    yield equal(f"{name}.lyric ids", torch.tensor([item.prompt.lyric_ids] * rows), g[f"{name}.lyric_token_ids"])
    hidden, lyrics = text.embed(fixtures.text, item.prompt)
    yield close(f"{name}.text states", hidden.expand(rows, -1, -1), g[f"{name}.text_hidden_states"])
    yield close(f"{name}.lyric states", lyrics.expand(rows, -1, -1), g[f"{name}.lyric_hidden_states"])
    clips = timbre_clips(model, reference)
    shown = g[f"{name}.refer_latents_first_frames"]
    yield close(f"{name}.reference", clips[:, : shown.shape[1]].expand(shown.shape[0], -1, -1), shown)
    sequence = item.conditions.sequence.expand(rows, -1, -1)
    yield close(f"{name}.sequence", sequence, g[f"{name}.encoder_hidden_states"])
    context = item.conditions.context.expand(rows, -1, -1)
    part = torch.cat((context[..., :16], context[..., -1:]), dim=-1)
    yield close(f"{name}.context", part, g[f"{name}.context_latents_first16ch_and_mask"])
    yield close(f"{name}.source", context[..., : context.shape[-1] // 2], g[f"{name}.src_latents"])
    settings = SamplerSettings(
        shift=request["shift"],
        steps=request.get("infer_steps", 0),
        guidance_scale=request.get("guidance", 0.0),
    )
    sampled = sample(model, batch, settings, request["seeds"])
    yield close(f"{name}.latents", sampled.latents, g[f"{name}.out.latents"])
    if f"{name}.decode_first24.audio" in g:
        audio = g[f"{name}.decode_first24.audio"]
        frames = audio.shape[-1] // SAMPLES_PER_FRAME
        decoded = limit_peak(codec.decode(fixtures.vae, sampled.latents[:1, :frames]))
        yield close(f"{name}.audio", decoded, audio)


BASE_CUSTOM_TIMESTEPS = "base with own timesteps: ours uses them, as the original does since later_base_generate"
NONE_AS_TEXT = "a meta of None: ours writes N/A, the original the word None"
SEED_LIST = "a list of seeds: ours uses it, the original drew new ones"


@golden(
    "prompts",
    "prompts.json",
    omitted=("keys of prompts.json that belong to the memory tiers: tests/memory/test_tiers.py reads them",),
)
def prompts(fixtures: Fixtures) -> Iterator[Difference]:
    p = fixtures.json("prompts.json")
    constants = p["constants"]
    yield equal("track names", list(TRACKS), constants["track_names"])
    yield equal("task names", set(TASKS), set(constants["task_types"]))
    yield equal("languages", LANGUAGES, constants["valid_languages"])
    yield equal("keys", sorted(KEYS), sorted(constants["valid_keyscales_sorted"]))
    yield equal("time signatures", [int(t) for t in TIME_SIGNATURES], constants["valid_time_signatures"])
    yield equal("ranges", [*BPM_RANGE, *DURATION_RANGE], constants["bpm_range"] + constants["duration_range"])
    for case in p["instructions"]:
        ours = instruction_for(case["task_type"], case["track_name"], case["classes"] or ())
        yield equal(f"instruction {case['task_type']}", ours, case["instruction"])
    for case in p["format_instruction"]:
        yield equal("closed instruction", text.close_instruction(case["input"]), case["output"])
    for case in p["metadata_from_fields"]:
        args = case["args"]
        metas = {
            "bpm": args["bpm"],
            "keyscale": args["key_scale"],
            "timesignature": args["time_signature"],
            "duration": args.get("duration"),
        }
        yield equal("metas of fields", text.metas_text(metas), case["meta_string"])
    for case in p["metas_parse"]:
        theirs = case["output"]
        if "None" in theirs:
            yield equal(NONE_AS_TEXT, text.metas_text(case["input"]), theirs.replace("None", "N/A"))
        else:
            yield equal("metas", text.metas_text(case["input"]), theirs)
    yield equal("no metas", text.metas_text(None), p["default_meta"])
    for case in p["sft_caption_extract"]:
        yield equal("inner caption", text.inner_caption(case["input"]), case["output"])
    yield from check_prompts(fixtures, p)
    for case in p["seeds"]:
        theirs = [None if s == "RANDOM" else s for s in case["seeds"]]
        ours = parse_seeds(case["seed"], case["batch_size"], case["use_random_seed"])
        if isinstance(case["seed"], list):
            yield equal(SEED_LIST, ours, (case["seed"] + [None] * case["batch_size"])[: case["batch_size"]])
        else:
            yield equal(f"seeds {case['seed']!r}", ours, theirs)
    for case in p["create_target_wavs_samples"]:
        ours = frames_of(case["seconds"])
        yield equal(f"frames of {case['seconds']} s", ours, case["samples"] // SAMPLES_PER_FRAME)
    yield from check_schedules(p["schedules"])
    for case in p["audio_code_parse"]:
        yield equal(f"codes in {case['input'][:30]!r}", list(parse_item(case["input"])), case["output"])


def check_prompts(fixtures: Fixtures, p: dict[str, Any]) -> Iterator[Difference]:
    tokenizer = fixtures.text.tokenizer
    for case in p["dit_prompts"]:
        prompt = text.text_prompt(case["instruction"], case["caption"], case["metas"])
        lyrics = text.lyric_prompt(case["lyrics"], case["vocal_language"])
        yield equal("text prompt", prompt, case["text_prompt_batch_path"])
        yield equal("both prompts", f"{prompt}\n\n{lyrics}", case["text_and_lyric_joined"])
        yield equal("text ids", text.tokenize(tokenizer, prompt, text.TEXT_TOKENS)[0], tuple(case["text_ids"]))
        yield equal("lyric ids", text.tokenize(tokenizer, lyrics, text.LYRIC_TOKENS)[0], tuple(case["lyric_ids"]))
    case = p["dit_prompts_batch_truncation"]
    inputs, tasks = case["inputs"], p["constants"]["task_instructions"]
    captions = ["many words " * 300, inputs["captions"][1]]
    lyrics = ["\n".join(f"line number {i} of a long song about rivers" for i in range(400)), inputs["lyrics"][1]]
    for row in range(2):
        for task, theirs in ((inputs["instructions"][row], case["text_ids"]), ("text2music", case["noncover_ids"])):
            prompt = text.text_prompt(tasks[task], captions[row], inputs["metas"])
            ids, lost = text.tokenize(tokenizer, prompt, text.TEXT_TOKENS)
            yield equal(f"row {row} {task} ids", list(ids), theirs[row][: len(ids)])
            yield equal(f"row {row} {task} cut", lost > 0, row == 0)
        ids, _ = text.tokenize(tokenizer, text.lyric_prompt(lyrics[row], inputs["languages"][row]), text.LYRIC_TOKENS)
        yield equal(f"row {row} lyric length", len(ids), case["lyric_mask_sums"][row])
        theirs = case["lyric_ids_row0_last10"] if row == 0 else case["lyric_ids_row1"]
        yield equal(f"row {row} lyric ids", list(ids[-len(theirs) :]), theirs)


def check_schedules(cases: list[dict[str, Any]]) -> Iterator[Difference]:
    for case in cases:
        kind, args = case["model_kind"], case["args"]
        own = args.get("timesteps", ())
        levels = schedules.schedule(kind, args["shift"], args.get("infer_steps"), own)
        if kind == "base" and own:
            yield close(BASE_CUSTOM_TIMESTEPS, torch.tensor(levels), torch.tensor(own), 1e-6)
            continue
        levels = schedules.start_from(levels, args.get("cover_noise_strength", 0.0))
        steps = len(levels) - 1
        label = f"{kind} {args}"
        yield close(label, torch.tensor(levels[:-1]), torch.tensor(case["timesteps"]), 1e-6)
        switch = int(steps * args.get("audio_cover_strength", 1.0))
        yield equal(f"{label} switch", switch if switch < steps else None, case["first_non_cover_step"])
        doubled = args.get("diffusion_guidance_sale", 1.0) > 1
        yield equal(f"{label} rows", 2 if doubled else 1, case["batch_in_forward"])
