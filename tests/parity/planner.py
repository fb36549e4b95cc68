"""The language model: logits and filters, prompts, plans, grammar, and whole replies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from acestep_graph.acestep_core import song as songs
from acestep_graph.acestep_core import tokenizer as tokenizers
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lm import engine, grammar, parsing, prompts, think
from acestep_graph.acestep_core.lm.settings import NO_INPUT, PlannerSettings
from acestep_graph.acestep_core.lm.token_sampling import guide, penalise, top_k_floor, top_p_floor
from acestep_graph.acestep_core.lm.vocabulary import Vocabulary, vocabulary_of
from acestep_graph.acestep_core.models.qwen3 import Group, KeyValues
from acestep_graph.acestep_core.tasks.codes import parse_item

from .golden import Difference, Fixtures, close, equal, golden

HOST = Host(device="cpu")


@golden("lm_forward", omitted=("sample.temp* (draws of torch.multinomial; ours draws by inverse transform)",))
def lm_forward(fixtures: Fixtures) -> Iterator[Difference]:
    g, module = fixtures.tensors("lm_forward.safetensors"), fixtures.lm.module
    weight, last = module.embed_tokens.weight, {}
    for side in ("cond", "uncond"):
        ids = g[f"{side}.ids"]
        logits = F.linear(module(ids)[0], weight)
        last[side] = logits[-1:]
        yield close(f"{side}.logits", logits[-8:], g[f"{side}.logits_last8"])
        cache = KeyValues(module.config, 1, ids.shape[1] + 5, ids.device, weight.dtype)
        for start, stop in ((0, 3), (3, ids.shape[1] - 1), (ids.shape[1] - 1, ids.shape[1])):
            group = Group(cache, torch.arange(start, stop), cache.capacity)
            state = module.further(ids[:, start:stop], [group])
        yield close(f"{side}.cached", F.linear(state[0, -1:], weight), g[f"{side}.logits_last8"][-1:])
    end = fixtures.lm.tokenizer.end_of_text
    read = [engine.read_prompt(module, row[row != end].tolist(), weight.device) for row in g["leftpad.ids"]]
    yield close("two lengths", F.linear(engine.Rows(module, read).hidden, weight), g["leftpad.logits_last"])
    pair = torch.cat((last["cond"], last["uncond"]))
    for name in (n for n in g if n.startswith("cfg_")):
        yield close(name, guide(pair, float(name[4:]))[0], g[name])
    scores = g["filter.in"]
    for name in (n.removeprefix("filter.") for n in g if n.startswith("filter.top")):
        kept = scores
        for part in name.split("_"):
            if part.startswith("topk"):
                kept = kept.masked_fill(kept < top_k_floor(kept, int(part[4:])), float("-inf"))
            else:
                shares = kept.softmax(-1)
                kept = kept.masked_fill(shares < top_p_floor(shares, float(part[4:])), float("-inf"))
        yield equal(name, kept > float("-inf"), g[f"filter.{name}"])
    seen = torch.zeros(1, weight.shape[0], dtype=torch.bool)
    seen[0, g["cond.ids"][0]] = True
    yield close("repetition", penalise(scores, seen, 1.3), g["repetition_1.3"])


def ids_digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()


def prompt_of(case: dict[str, Any]) -> prompts.Prompt:
    """The prompt of a case of ``lm_prompts``, in the layout of its time."""
    kind, negative = case["kind"], case.get("negative_prompt", "")
    caption, lyrics = case.get("caption", ""), case.get("lyrics", "")
    plan = case.get("cot_text", "").removeprefix("<think>\n").removesuffix("\n</think>")
    meant = PlannerSettings(negative_prompt=negative).negative
    in_codes = kind == "codes_negative" or case.get("generation_phase") == "codes" or case.get("is_batch")
    if kind == "cot":
        return prompts.plan_prompt(caption, lyrics)
    if kind == "codes":
        return prompts.codes_prompt(caption, lyrics, plan, legacy=True)
    if kind in ("cot_negative", "codes_negative", "unconditional_for_cfg"):
        if in_codes:
            return prompts.codes_negative(meant, caption, lyrics, NO_INPUT, legacy=True)
        return prompts.plan_negative(meant, lyrics)
    if kind == "understand":
        return prompts.understand_prompt(parse_item(case["audio_codes"]), case["audio_codes"])
    if kind == "create_sample":
        return prompts.create_prompt(case["query"], case["instrumental"])
    return prompts.format_prompt(caption, lyrics)


UNGUIDED = ("understand_negative", "create_sample_negative", "format_negative")


def never_sent(case: dict[str, Any]) -> bool:
    return case["kind"] in UNGUIDED or (case["kind"] == "cot_negative" and case["generation_phase"] == "codes")


NONE_COUNTS_AS_OPEN = "all metas None: ours are open, the original took them for given"
DETECTED_LANGUAGE = "language of the plan: ours reaches the song"


@golden(
    "lm_prompts",
    "prompts.json",
    omitted=(
        f"{', '.join(UNGUIDED)}: replies with lyrics are never guided",
        "cot_negative of the codes phase: no request sends it, see unconditional_for_cfg",
        "max_new_tokens: the cache is sized by prompt and target, and every reply by its grammar",
        "a time signature that is a number, where the original fails: ours writes it",
    ),
)
def lm_prompts(fixtures: Fixtures) -> Iterator[Difference]:
    p, tokenizer = fixtures.json("prompts.json"), fixtures.lm.tokenizer
    constants = p["constants"]
    instructions = {"generate": prompts.GENERATE, "understand": prompts.UNDERSTAND, "inspire": prompts.CREATE}
    for name, ours in {**instructions, "format": prompts.FORMAT}.items():
        yield equal(f"instruction {name}", ours, constants[f"lm_instruction_{name}"])
    for case in p["lm_prompts"]:
        if never_sent(case):
            continue
        prompt = prompt_of(case)
        yield equal(case["kind"], prompts.text_of(prompt), case["prompt"])
        yield equal(f"{case['kind']} ids", ids_digest(prompts.encode(tokenizer, prompt)), case["token_ids_sha256"])
    for case in p["cot_format"]:
        if isinstance(case["cot"], str):
            yield equal("plan", f"<think>\n{prompts.plan_text(case['metadata'])}\n</think>", case["cot"])
    for case in p["lm_parse"]:
        reply = parsing.read(case["raw"])
        yield equal(f"metas of {case['raw']!r}", reply.metas, case["metadata"])
        yield equal(f"lyrics of {case['raw']!r}", reply.lyrics, case["lyrics"])
        yield equal(f"codes of {case['raw']!r}", reply.codes, parse_item(case["audio_codes"]))
    for case in p["caption_postprocess"]:
        block = "\n".join(f" {line}" for line in case["input"].split("\n"))
        ours = parsing.read(f"<think>\ncaption:{block}\n</think>").metas.get("caption", "")
        yield equal(f"caption {case['input']!r}", ours, case["output"])
    for case in p["has_all_metas"]:
        given = case["input"] or {}
        song = songs.Song(
            bpm=given.get("bpm"),
            key=given.get("keyscale") or "",
            time_signature=given.get("timesignature") or "",
            duration=given.get("duration") or songs.AUTO_DURATION,
        )
        label = NONE_COUNTS_AS_OPEN if given and not any(given.values()) else "complete"
        yield equal(label, song.complete, case["output"] and any(given.values()))
    for case in p["negative_prompt_meaningful"]:
        yield equal("negative", bool(PlannerSettings(negative_prompt=case["input"]).negative), case["output"])
    for case in p["merge_lm_metadata"]:
        yield from check_merge(case)


def check_merge(case: dict[str, Any]) -> Iterator[Difference]:
    user, said, theirs = case["user"], case["lm_metadata"], case["output"]
    lyrics = said.get("lyrics", "")
    block = "\n".join(f"{name}: {value}" for name, value in said.items() if name != "lyrics")
    proposal = parsing.song_of(f"<think>\n{block}\n</think>\n{lyrics}")
    song = songs.Song(
        caption=user["caption"],
        lyrics=user["lyrics"],
        language=user["vocal_language"] or songs.UNKNOWN_LANGUAGE,
        bpm=user["bpm"],
        key=user["key_scale"],
        time_signature=user["time_signature"],
        duration=user["audio_duration"] or songs.AUTO_DURATION,
    ).filled_from(proposal)
    for ours, name in ((song.caption, "caption"), (song.lyrics, "lyrics"), (song.bpm, "bpm"), (song.key, "key_scale")):
        yield equal(f"merged {name}", ours, theirs[name])
    yield equal("merged time signature", song.time_signature, theirs["time_signature"])
    yield equal("merged length", max(song.duration, 0), max(theirs["audio_duration"] or 0, 0))
    wanted = theirs["vocal_language"] or said.get("language") or songs.UNKNOWN_LANGUAGE
    yield equal(DETECTED_LANGUAGE, song.language, wanted)


@golden("lm_vectors", "lm_vectors.json", omitted=("upstream_forced_bpm_name: the name is forced as it is tokenized",))
def lm_vectors(fixtures: Fixtures) -> Iterator[Difference]:
    """Against the real vocabulary, which is bundled."""
    v = fixtures.json("lm_vectors.json")
    tokenizer = tokenizers.load(None, audio_codes=tokenizers.LM_AUDIO_CODES)
    words, tokens = vocabulary_of(tokenizer), v["tokens"]
    caption, lyrics, plan = "chill lofi beats", "[Verse]\nla la la", "bpm: 90\nduration: 30"
    made = {
        "cot_prompt": prompts.plan_prompt(caption, lyrics),
        "codes_prompt": prompts.codes_prompt(caption, lyrics, plan),
        "codes_uncond_default": prompts.codes_negative("", caption, lyrics, NO_INPUT),
        "codes_uncond_negative": prompts.codes_negative("low quality, distorted", caption, lyrics, NO_INPUT),
        "codes_legacy_cond": prompts.codes_prompt(caption, lyrics, plan, legacy=True),
        "cot_uncond_default": prompts.plan_negative("", lyrics),
        "understand_prompt": prompts.understand_prompt([0, 42, 63999]),
        "understand_random_sample": prompts.understand_prompt([], NO_INPUT),
        "inspiration_prompt": prompts.create_prompt("a soft love song", False),
        "format_prompt": prompts.format_prompt(caption, lyrics),
    }
    for name, case in v["prompts"].items():
        yield equal(f"{name} text", prompts.text_of(made[name]), case["text"])
        yield equal(f"{name} ids", prompts.encode(tokenizer, made[name]), case["ids"])
    for field in prompts.FIELDS:
        yield equal(f"name {field}", list(words.name(field)), tokens["names"][field])
    for text, ids in tokens["values"].items():
        field, _, value = text.partition(" ")
        yield equal(text, list(words.value(field, value)), ids)
    trees = {name: words.values(name, 600) for name in prompts.FIELDS if name != "caption"}
    for name, count in tokens["tree_nodes"].items():
        yield equal(f"nodes of {name}", nodes(trees[name.removesuffix("_max600")]), count)
    roots = {"bpm": "numeric", "duration": "numeric", "timesignature": "numeric"}
    for name, tree in trees.items():
        yield equal(f"root of {name}", sorted(tree), tokens["roots"][roots.get(name, name)])
    controls = (words.end, words.think, words.end_think, words.codes.start, words.codes[-1])
    names = ("<|im_end|>", "<think>", "</think>", "<|audio_code_0|>", "<|audio_code_63999|>")
    yield equal("ids", list(controls), [tokens["ids"][name] for name in names])
    yield equal("characters", [words.newline, words.backtick], [tokens["punct"]["\n"], tokens["punct"]["`"]])
    natural = dict(zip(tokens["upstream_forced_bpm_name"], tokens["names"]["bpm"], strict=True))
    for name, trace in v["traces"].items():
        yield from check_counts(words, name, trace, natural)


def nodes(tree: Any) -> int:
    return 1 + sum(nodes(child) for child in tree.values() if child is not None)


def check_counts(words: Vocabulary, name: str, trace: dict[str, Any], natural: dict[int, int]) -> Iterator[Difference]:
    settings = trace["settings"]
    if settings.get("ph") == "codes":
        counts = [len(words.codes)] * int(settings["dur"] * 5) + [1]
        yield equal(f"{name} counts", counts, [count for _, _, count in trace["steps"]])
        yield equal(f"{name} range", all(token in words.codes for _, token, _ in trace["steps"][:-1]), True)
        return
    script = grammar.block(words, given=settings.get("um"), skip=["caption"] if settings["sc"] else [])
    walk = grammar.Walk(words, script)
    for state, token, count in trace["steps"]:
        options = walk.options()
        token = natural.get(token, token) if state == "BPM_NAME" else token
        yield equal(f"{name} {state}", 1 if options.certain else len(options.ids), count)
        yield equal(f"{name} {state} allowed", token in options.ids.tolist(), True)
        walk.take(token)
    yield equal(f"{name} end", walk.done, True)


DEPARTURES = {
    "cot_continue_into_codes": "codes are asked for with a prompt of their own, never behind a plan",
    "cot_target_duration": "a target length is no field; the original forces it without its space",
    "codes_phase_without_think_in_prompt": "as cot_target_duration",
    "cot_caption_then_wrong_field": "behind a caption always comes its successor",
    "cot_caption_then_unknown_field": "behind a caption always comes its successor",
    "cot_caption_512_limit": "behind the longest caption one newline is forced; the original loops",
    "understand_with_genres": "the genres field is left out: without its word list the original loses the key",
    "create_sample_user_language": "as understand_with_genres",
    "codes_no_duration": "codes always have a number",
}
CONTROL_TOKENS = "ours allows the same without control tokens"
NEXT_FIELD = "the name of the field behind a caption is forced; the original allows anything up to its colon"
FOLDED_LINE = "behind a newline ours allows an indented word or the next field"


@golden(
    "constrained",
    "constrained.json",
    omitted=tuple(f"{name}, from where it departs: {why}" for name, why in DEPARTURES.items()),
)
def constrained(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.json("constrained.json")
    words = vocabulary_of(fixtures.lm.tokenizer)
    yield equal("end", words.end, g["eos"])
    yield equal("newline", words.newline, g["newline"])
    for trace in g["traces"]:
        in_codes = trace["settings"]["phase"] == "codes" and "</think>" in trace["prompt"]
        yield from (check_code_trace if in_codes else check_trace)(words, trace)


def same_set(label: str, ours: Sequence[int], step: dict[str, Any]) -> Difference:
    digest = hashlib.sha256(",".join(map(str, sorted(ours))).encode()).hexdigest()
    return equal(label, (len(ours), digest), (step["n"], step["sha256"]))


def check_code_trace(words: Vocabulary, trace: dict[str, Any]) -> Iterator[Difference]:
    seconds = trace["settings"]["target_duration"]
    count = int(seconds * 5) if seconds else None
    for number, step in enumerate(trace["steps"]):
        if count is None:
            yield same_set(trace["name"], [*words.codes, words.end], step)
        else:
            yield same_set(trace["name"], list(words.codes) if number < count else [words.end], step)


def check_trace(words: Vocabulary, trace: dict[str, Any]) -> Iterator[Difference]:
    s, name = trace["settings"], trace["name"]
    skip = [field for field in ("caption", "language") if s[f"skip_{field}"]]
    script = grammar.block(
        words,
        given=s["user_metadata"],
        skip=skip,
        longest=s["max_duration"],
        lyrics=not s["stop_at_reasoning"],
    )
    walk = grammar.Walk(words, script)
    controls = list(range(words.words, words.codes.start))
    for step in trace["steps"]:
        if walk.done:
            break
        options, current = walk.options(), script[walk.index]
        ids, chosen = options.ids.tolist(), step["chosen"]
        label = f"{name} step {step['i']}"
        if chosen not in ids:
            yield equal(f"{label}: a departure that is named", name in DEPARTURES or chosen in controls, True)
            return
        if isinstance(current, grammar.Caption) and walk.broken:
            spaces = [token for token in range(words.words) if words.tokenizer.decode([token])[:1] in (" ", "\t")]
            yield equal(f"{label}: {FOLDED_LINE}", ids, sorted([*spaces, current.exit]))
        elif isinstance(current, grammar.Caption | grammar.Lyrics) and walk.taken < grammar.CAPTION_TOKENS:
            yield same_set(f"{label}: {CONTROL_TOKENS}", sorted({*ids, *controls}), step)
        elif options.certain:
            best = step["preferred"] if step["preferred"] in ids else ids[0]
            yield same_set(label, [best], step)
        elif step["n"] == len(words.codes) + words.codes.start and options.only is not None:
            yield equal(f"{label}: {NEXT_FIELD}", options.only, chosen)
        else:
            yield same_set(label, ids, step)
        walk.take(chosen)
    if name not in DEPARTURES:
        yield equal(f"{name}: whole", walk.done or s["phase"] == "understand", True)


CAPTION_OF = "A slow blue river of piano and cello."


@golden(
    "lm_generate",
    "lm_generate.json",
    omitted=(
        "entries with a seed: they draw with torch.multinomial",
        "cot_with_caption_truncated and understand_truncated, from their first control token on: none is allowed",
    ),
)
def lm_generate(fixtures: Fixtures) -> Iterator[Difference]:
    for case in fixtures.json("lm_generate.json")["cases"]:
        args = case["args"]
        if case.get("seed") is not None or args.get("temperature"):
            continue
        settings = PlannerSettings(
            temperature=0.0,
            top_p=1.0,
            cfg_scale=args["cfg_scale"],
            negative_prompt=args.get("negative_prompt") or NO_INPUT,
            repetition_penalty=args.get("repetition_penalty") or 1.0,
            layout="legacy",
        )
        if "infer_type" in args:
            yield from check_two_phases(fixtures, case, settings)
        else:
            yield from check_reply(fixtures, case, settings)


def check_reply(fixtures: Fixtures, case: dict[str, Any], settings: PlannerSettings) -> Iterator[Difference]:
    lm, args, name = fixtures.lm, case["args"], case["name"]
    words, theirs = vocabulary_of(lm.tokenizer), case["output_text"]
    meant = settings.negative
    phase, caption, lyrics = args["generation_phase"], args.get("caption", ""), args.get("lyrics", "")
    if phase == "codes":
        plan = args["cot_text"].removeprefix("<think>\n").removesuffix("\n</think>")
        asked = [prompts.codes_prompt(caption, lyrics, plan, legacy=True)]
        negative = prompts.codes_negative(meant, caption, lyrics, NO_INPUT, legacy=True)
    elif phase == "cot":
        asked, negative = [prompts.plan_prompt(caption, lyrics)], prompts.plan_negative(meant, lyrics)
    else:
        asked = [prompts.understand_prompt(parse_item(case["prompt"]))]
    yield equal(f"{name} prompt", prompts.text_of(asked[0]), case["prompt"])
    if settings.guided:
        asked.append(negative)
    ids = [prompts.encode(lm.tokenizer, prompt) for prompt in asked]
    if phase == "codes":
        count = int(args["target_duration"] * 5)
        (codes,) = engine.write_codes(lm, ids, count, settings, [0], HOST)
        yield equal(name, codes, parse_item(theirs))
        return
    skip = [field for field in ("caption", "language") if args.get(f"skip_{field}")]
    given, free = args.get("user_metadata") or {}, phase == "understand"
    script = grammar.block(words, given=given, skip=skip, lyrics=free)
    ours = engine.write(lm, ids, script, settings, 0, HOST).text
    if name.endswith("_truncated"):
        shared = theirs.split("<|")[0]
        if "\n" in shared.removeprefix("<think>\nbpm: 77\n"):
            shared = shared.rpartition("]\n")[0]
        yield equal(f"{name}, the beginning", ours[: len(shared)], shared)
    else:
        yield equal(name, ours, theirs)


def check_two_phases(fixtures: Fixtures, case: dict[str, Any], settings: PlannerSettings) -> Iterator[Difference]:
    lm, args, name, theirs = fixtures.lm, case["args"], case["name"], case["metadata"]
    given = args.get("user_metadata") or {}
    song = songs.Song(
        caption=args.get("caption", CAPTION_OF),
        lyrics=args.get("lyrics", ""),
        bpm=given.get("bpm"),
        key=given.get("keyscale", ""),
        time_signature=given.get("timesignature", ""),
        duration=float(given.get("duration", songs.AUTO_DURATION)),
    )
    metas: dict[str, Any] = prompts.metas_of(song)
    if not song.complete:
        parts = think.Parts(caption="caption" in theirs, language="language" in theirs)
        metas = parsing.read(think.write_plan(lm, song, parts, settings, 0, HOST).text).metas
    yield equal(f"{name} plan", metas, theirs)
    if args["infer_type"] == "llm_dit":
        count = int(args["target_duration"] * 5)
        (codes,) = think.codes_of(lm, song, metas, count, settings, [0], HOST)
        yield equal(f"{name} codes", codes, parse_item(case["audio_codes"]))
