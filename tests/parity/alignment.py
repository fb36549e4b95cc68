"""Lyric timing and the lyric score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acestep_graph.acestep_core import tokenizer as tokenizers
from acestep_graph.acestep_core.checkpoints.handles import DiffusionModel
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lyrics import alignment, subtitles, sung, timing
from acestep_graph.acestep_core.lyrics.attention import heard_lyrics, lyric_attention
from acestep_graph.acestep_core.lyrics.lines import make_lines
from acestep_graph.acestep_core.sampling.conditioning import Item
from acestep_graph.acestep_core.sampling.loop import Conditions
from acestep_graph.acestep_core.text import Prompt
from acestep_graph.acestep_core.tokenizer import Tokenizer

from .golden import Difference, Fixtures, close, equal, golden

HOST = Host(device="cpu")


def picked(attention: Tensor, config: Mapping[str, Sequence[int]]) -> Tensor:
    """The heads of ``config`` that are there, [heads, tokens, frames]."""
    layers, heads = attention.shape[:2]
    chosen = [(int(layer), head) for layer, listed in config.items() for head in listed]
    return torch.stack([attention[layer][head] for layer, head in chosen if layer < layers and head < heads])


def same_path(case: str, ours: alignment.Path, theirs: Tensor) -> Difference:
    return equal(case, torch.from_numpy(np.stack([ours.tokens, ours.frames])), theirs)


def check_lines(
    case: str, tokenizer: Tokenizer, ids: Sequence[int], path: alignment.Path, scale: float, wanted: Mapping[str, Any]
) -> Iterator[Difference]:
    first, last = path.spans(len(ids))
    for name, ours in (("start", first * scale), ("end", last * scale)):
        theirs = [token[name] for token in wanted["token_timestamps"]]
        yield close(f"{case}.{name}", torch.from_numpy(ours), torch.tensor(theirs, dtype=torch.float64), 1e-6)
    lines = make_lines(tokenizer, ids, first * scale, last * scale)
    said = [(line.text, line.start, line.end) for line in lines]
    yield equal(f"{case}.lines", said, [(s["text"], s["start"], s["end"]) for s in wanted["sentences"]])
    yield equal(f"{case}.lrc", subtitles.lrc(lines), wanted["lrc"])
    yield equal(f"{case}.lrc with ends", subtitles.lrc(lines, ends=True), wanted["lrc_with_end"])


def check_score(case: str, ours: sung.Measures, wanted: Mapping[str, Any]) -> Iterator[Difference]:
    for name in ("coverage", "monotonicity", "confidence"):
        yield close(f"{case}.{name}", torch.tensor(getattr(ours, name)), torch.tensor(wanted[name]), 1e-6)
    yield equal(f"{case}.score", ours.score, wanted["lyrics_score"])


@golden(
    "alignment",
    "alignment.json",
    "alignment.safetensors",
    omitted=(
        "align.*.energy: an intermediate that nothing reads",
        "score.mw7: the score is computed without a median filter",
        "token texts of incomplete characters",
    ),
)
def alignments(fixtures: Fixtures) -> Iterator[Difference]:
    g, described = fixtures.tensors("alignment.safetensors"), fixtures.json("alignment.json")
    tokenizer = fixtures.text.tokenizer
    for case in described["cases"]:
        name, ids = case["name"], case["token_ids"]
        attention = picked(g[f"{name}.attention"], case["config"])
        scale = case["duration"] / attention.shape[-1]
        for width in (1, 7):
            wanted = f"{name}.align.mw{width}"
            matrix = alignment.consensus(attention, width)
            path = alignment.warp(-matrix.double().numpy())
            yield close(f"{wanted}.calc", matrix, g[f"{wanted}.calc"])
            yield same_path(f"{wanted}.path", path, g[f"{wanted}.path"])
            yield from check_lines(wanted, tokenizer, ids, path, scale, case[f"mw{width}"])
        mask = sung.sung_tokens(tokenizer, ids)
        yield equal(f"{name}.type_mask", torch.from_numpy(mask), g[f"{name}.score.mw1.type_mask"])
        yield close(f"{name}.energy", alignment.energy(attention), g[f"{name}.score.mw1.energy"])
        path = alignment.warp(-alignment.energy(attention).square().numpy())
        yield same_path(f"{name}.score.path", path, g[f"{name}.score.mw1.path"].T)
        yield from check_score(f"{name}.score", sung.measure(attention, mask), case["mw1"]["score"])
    for number in sorted({key.split(".")[1] for key in g if key.startswith("dtw.")}):
        yield same_path(
            f"dtw.{number}", alignment.warp(g[f"dtw.{number}.cost"].double().numpy()), g[f"dtw.{number}.path"]
        )
    for width in (1, 3, 7):
        yield close(f"median.w{width}", alignment.median_filter(g["median.in"], width), g[f"median.w{width}"])
    yield from check_segment(fixtures, described["lyric_segment"])
    for case in described["model"]:
        yield from check_model(fixtures, g, case)


def check_segment(fixtures: Fixtures, segment: Mapping[str, Any]) -> Iterator[Difference]:
    prompt = Prompt("", segment["full_text"], (), tuple(segment["ids"]))
    lyrics = heard_lyrics(prompt, fixtures.text.tokenizer)
    yield equal("lyric segment", list(lyrics.ids), segment["pure_ids"])
    yield equal("lyric segment start", lyrics.first, segment["start"])


def check_model(fixtures: Fixtures, g: Mapping[str, Tensor], case: Mapping[str, Any]) -> Iterator[Difference]:
    """LRC and both scores of a piece, from the tiny decoder."""
    heads = {int(layer): tuple(listed) for layer, listed in case["config"].items()}
    model, tokenizer = with_heads(fixtures.model("turbo"), heads), fixtures.text.tokenizer
    ids = tuple(g["model.lyric_token_ids"][0].tolist())
    prompt = Prompt("", f"# Languages\n{case['language']}\n\n# Lyric\n{case['lyrics']}<|endoftext|>", (), ids)
    lyrics, latents = heard_lyrics(prompt, tokenizer), g["model.pred_latents"][0]
    item = Item(Conditions(g["model.encoder_hidden_states"], g["model.context_latents"]), len(latents), prompt)
    name, last = f"model seed {case['seed']}", 1 / case["inference_steps"]
    noise = torch.randn(g["model.pred_latents"].shape, generator=torch.Generator().manual_seed(case["seed"]))
    yield close(f"{name} noise", noise, g[f"model.noise.seed{case['seed']}"])
    given = (lyrics, len(latents), HOST, case["seed"])
    noisy, finished = (lyric_attention(model, item, latents, level, *given) for level in (1.0, last))
    mask = sung.sung_tokens(tokenizer, lyrics.ids)
    yield equal(f"{name} score of noise", sung.measure(noisy, mask).score, case["lm_score"])
    yield equal(f"{name} score", sung.measure(finished, mask).score, case["dit_score"])
    conditioning: Any = SimpleNamespace(tokenizer=tokenizer)
    found = timing.timed(conditioning, finished, lyrics, case["duration"])
    yield equal(f"{name} lrc", subtitles.lrc(found.lines), case["lrc"])


def with_heads(model: DiffusionModel, heads: Mapping[int, tuple[int, ...]]) -> DiffusionModel:
    """The same weights under a configuration that names ``heads``."""
    config = replace(model.config, lyric_alignment_layers_config=heads)
    return replace(model, module=SimpleNamespace(config=config, decoder=model.module.decoder, **_own(model)))


def _own(model: DiffusionModel) -> dict[str, Any]:
    return {"null_condition_emb": model.module.null_condition_emb, "to": lambda device: None}


@golden(
    "lyric_alignment",
    "lyric_alignment.json",
    "lyric_alignment.npz",
    omitted=("energy_matrix: an intermediate that nothing reads",),
)
def lyric_alignment(fixtures: Fixtures) -> Iterator[Difference]:
    """With the real vocabulary, which is bundled."""
    described = fixtures.json("lyric_alignment.json")
    with np.load(fixtures.root / "goldens" / "lyric_alignment.npz") as arrays:
        attention = torch.from_numpy(arrays["attention"]).float()
        theirs = torch.from_numpy(arrays["calc_matrix"])
    tokenizer, ids = tokenizers.load(None), described["token_ids"]
    yield close("consensus", alignment.consensus(attention), theirs)
    path = alignment.align(attention)
    scale = described["total_duration_seconds"] / attention.shape[-1]
    first, last = path.spans(len(ids))
    spans = torch.from_numpy(np.stack([first, last], axis=1) * scale)
    yield close("token times", spans, torch.tensor(described["token_start_end"], dtype=torch.float64), 1e-6)
    lines = make_lines(tokenizer, ids, first * scale, last * scale)
    said = [(line.text, line.start, line.end) for line in lines]
    yield equal("lines", said, [(s["text"], s["start"], s["end"]) for s in described["sentences"]])
    yield equal("lrc", subtitles.lrc(lines), described["lrc_text"])
    mask, wanted = sung.sung_tokens(tokenizer, ids), described["score"]
    yield equal("sung", mask.astype(int).tolist(), wanted["type_mask"])
    scored = alignment.warp(-alignment.energy(attention).square().numpy())
    yield equal("score path", np.stack([scored.tokens, scored.frames], axis=1).tolist(), wanted["path"])
    yield from check_score("score", sung.measure(attention, mask), wanted)
