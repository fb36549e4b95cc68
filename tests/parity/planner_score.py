"""The planner's score of codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lm import engine, prompts, score
from acestep_graph.acestep_core.lm.settings import NO_INPUT
from acestep_graph.acestep_core.song import make_song
from acestep_graph.acestep_core.tasks.codes import parse_item

from .golden import Difference, Fixtures, close, equal, golden

HOST, SCALE = Host(device="cpu"), 0.1


def near(case: str, ours: float, theirs: float) -> Difference:
    return close(case, torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64))


@golden(
    "alignment_lm",
    "alignment.json",
    omitted=("lm.per_condition no_codes: music without codes is refused; the original gives it 0",),
)
def planner_score(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.json("alignment.json")["lm"]
    for case in g["pmi_normalised"]:
        yield near(f"pmi {case['pmi']} / {case['scale']}", score.likelier(case["pmi"], case["scale"]), case["value"])
    for case in g["pmi"]:
        both = score.likelier(case["cond"] - case["uncond"], 1.0), score.likelier(case["value"], 1.0)
        yield near(f"pmi of {case['cond']} and {case['uncond']}", *both)
    for number, case in enumerate(g["reward"]):
        weights = case["weights"] or score.WEIGHTS
        yield near(f"reward {number}", score.weighed(case["scores"], weights), case["value"])
    for number, case in enumerate(g["log_prob"]):
        yield from check_target(fixtures, f"target {number}", case)
    for case in g["per_condition"]:
        if case["audio_codes"]:
            yield from check_case(fixtures, case)


def check_target(fixtures: Fixtures, name: str, case: Mapping[str, Any]) -> Iterator[Difference]:
    """One target behind a prompt. These hold control tokens as text, which ``encode`` reads as such."""
    lm = fixtures.lm
    prompt = lm.tokenizer.encode(case["prompt"])
    ids = lm.tokenizer.encode(case["prompt"] + case["target"])[len(prompt) :]
    yield equal(f"{name} prompt", prompts.encode(lm.tokenizer, prompts.understand_prompt([3, 14])), prompt)
    yield equal(f"{name} ids", ids, case["target_ids"])
    said = score.said(lm.module, engine.read_prompt(lm.module, prompt, torch.device("cpu")), ids)
    yield near(f"{name} log probability", said.mean, case["mean_log_prob"])
    yield near(f"{name} recall", score.recall(said.ranks), case["topk_recall_weighted"])
    for depth, share in case["recall_per_k"].items():
        yield near(f"{name} among {depth}", float((said.ranks < int(depth)).double().mean()), share)


def check_case(fixtures: Fixtures, case: Mapping[str, Any]) -> Iterator[Difference]:
    """A whole score. Genres, which a song of ours has not, are asked for beside it."""
    lm, name, metas, codes = fixtures.lm, case["name"], case["metadata"], parse_item(case["audio_codes"])
    song = make_song(
        caption=metas.get("caption") or case["caption"],
        lyrics=case["lyrics"],
        language=metas.get("language", "unknown"),
        bpm=metas.get("bpm"),
        key=metas.get("keyscale", ""),
        time_signature=metas.get("timesignature", ""),
        duration=metas.get("duration"),
    )
    ours = score.score(lm, codes, song, scale=SCALE, host=HOST)
    found = {"caption": ours.caption, "lyrics": ours.lyrics, **ours.metas}
    found = {part: value for part, value in found.items() if value is not None}
    if "genres" in metas:
        read = engine.read_prompt(
            lm.module, prompts.encode(lm.tokenizer, prompts.understand_prompt(codes, NO_INPUT)), torch.device("cpu")
        )
        reply = prompts.encode(lm.tokenizer, score.plan_reply("genres", metas["genres"]))
        found["genres"] = score.recall(score.said(lm.module, read, reply).ranks)
        yield near(f"{name} total with genres", score.weighed(found), case["global_score"])
    else:
        yield near(f"{name} total", ours.total, case["global_score"])
    yield equal(f"{name} parts", sorted(found), sorted(case["scores"]))
    for part, value in case["scores"].items():
        yield near(f"{name} {part}", found[part], value)
