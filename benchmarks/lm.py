"""The planner: a step of the codes phase, against transformers' generate and against sorting the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from acestep_graph.acestep_core import tokenizer as tokenizers
from acestep_graph.acestep_core.checkpoints.handles import LanguageModel, LoadReport
from acestep_graph.acestep_core.checkpoints.loading import place, without_weights
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lm import engine, prompts
from acestep_graph.acestep_core.lm.settings import NO_INPUT, PlannerSettings
from acestep_graph.acestep_core.lm.token_sampling import guide
from acestep_graph.acestep_core.lm.vocabulary import vocabulary_of
from acestep_graph.acestep_core.models.qwen3 import LM_SIZES, Qwen3, Qwen3Config
from tests.tiny import LM as TINY

from .side_by_side import Row, Setting, alternate

CAPTION = "Warm acoustic folk pop, fingerpicked guitar, soft female voice, hopeful, morning light"
LYRICS = "\n".join(["[Verse]", *["The kettle hums, the window clears, a road of gold between the years"] * 24])
PLAN = "bpm: 96\nduration: 120\nkeyscale: D major\ntimesignature: 4"
SAMPLED = PlannerSettings()
GREEDY = PlannerSettings(temperature=0.0)
GREEDY_TOKENS = 8
FEWEST = 4
"""Codes of a short run, which is taken off a long one: what remains are steps, without reading the prompt."""

Side = Callable[[PlannerSettings, int], Tensor]


def rows(setting: Setting, tokens: int = 32, lm_size: str = "0.6B", songs: Sequence[int] = (1, 4)) -> list[Row]:
    """Guided codes after a prompt with a song's lyrics, for one song and for several at once.

    The same random weights everywhere; ``same tokens`` is the share of equal ones of a short greedy run.
    """
    config = TINY if setting.size == "tiny" else LM_SIZES[lm_size]
    lm = random_planner(config, setting)
    asked = [
        prompts.codes_prompt(CAPTION, LYRICS, PLAN),
        prompts.codes_negative("", CAPTION, LYRICS, NO_INPUT),
    ]
    ids = [prompts.encode(lm.tokenizer, prompt) for prompt in asked]
    return [row for batch in songs for row in _one_batch(lm, ids, batch, tokens, setting)]


def random_planner(config: Qwen3Config, setting: Setting) -> LanguageModel:
    """A planner of random weights, made in their precision."""
    module = without_weights(Qwen3, config)
    draw = torch.Generator().manual_seed(0)
    for name, parameter in list(module.named_parameters()):
        scale = 1.0 if parameter.dim() == 1 else parameter.shape[1] ** -0.5
        value = torch.empty(parameter.shape, dtype=setting.dtype)
        value = value.fill_(1.0) if parameter.dim() == 1 else value.normal_(generator=draw).mul_(scale)
        place(module, name, value.to(setting.device))
    kept = tokenizers.load(None, audio_codes=tokenizers.LM_AUDIO_CODES)
    report = LoadReport("lm", (), "none", "", "", "", 0)
    return LanguageModel(module.eval(), kept, report)


def _one_batch(lm: LanguageModel, ids: list[list[int]], batch: int, tokens: int, setting: Setting) -> list[Row]:
    host, seeds = Host(device=str(setting.device)), list(range(batch))

    def ours(settings: PlannerSettings, count: int) -> Tensor:
        return torch.tensor(engine.write_codes(lm, ids, count, settings, seeds, host))

    sides: dict[str, Side] = {
        "ours": ours,
        "transformers generate": transformers_side(lm, ids, batch),
        "ours, whole vocabulary sorted": lambda settings, count: sorted_side(lm, ids, batch, settings, count),
    }
    greedy = {name: side(GREEDY, GREEDY_TOKENS) for name, side in sides.items()}
    runs = {
        (name, count): lambda side=side, count=count: side(SAMPLED, count)
        for name, side in sides.items()
        for count in (FEWEST, FEWEST + tokens)
    }
    timed = alternate(runs, setting)
    step = {n: (timed[n, FEWEST + tokens].seconds - timed[n, FEWEST].seconds) / tokens for n in sides}
    return [
        {
            "what": f"{batch} song{'s' * (batch > 1)}, a guided code of each",
            "ours (ms)": 1000 * step["ours"],
            "against": name,
            "theirs (ms)": 1000 * step[name],
            "ratio": step[name] / step["ours"],
            "same tokens": float((greedy[name] == greedy["ours"]).float().mean()),
        }
        for name in sides
        if name != "ours"
    ]


def transformers_side(lm: LanguageModel, ids: list[list[int]], batch: int) -> Side:
    """transformers' Qwen3ForCausalLM with the same weights, its own guidance, and a mask of all but codes."""
    from transformers import LogitsProcessor, LogitsProcessorList, Qwen3ForCausalLM
    from transformers import Qwen3Config as Theirs

    sizes = lm.module.config
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "head_dim", "rms_norm_eps"),
    )
    config = Theirs(
        **{name: getattr(sizes, name) for name in names},
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
        max_position_embeddings=8192,
    )
    with torch.device("meta"):
        peer = Qwen3ForCausalLM(config)
    state = {f"model.{name}": tensor for name, tensor in lm.module.state_dict().items()}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    peer.load_state_dict(state, strict=True, assign=True)
    peer.model.rotary_emb = type(peer.model.rotary_emb)(config)
    peer = peer.to(lm.module.embed_tokens.weight.device).eval().requires_grad_(False)
    words = vocabulary_of(lm.tokenizer)
    device = lm.module.embed_tokens.weight.device
    masked = torch.full((sizes.vocab_size,), float("-inf"), device=device)
    masked[words.codes.start : words.codes.stop] = 0

    class OnlyCodes(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            return scores + masked

    prompt, negative = (torch.tensor([row] * batch, device=device) for row in ids)

    @torch.inference_mode()
    def run(settings: PlannerSettings, count: int) -> Tensor:
        torch.manual_seed(0)
        drawn = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
        made = peer.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            negative_prompt_ids=negative,
            negative_prompt_attention_mask=torch.ones_like(negative),
            guidance_scale=settings.cfg_scale,
            logits_processor=LogitsProcessorList([OnlyCodes()]),
            max_new_tokens=count,
            min_new_tokens=count,
            eos_token_id=words.end,
            pad_token_id=lm.tokenizer.end_of_text,
            **(drawn if settings.temperature else {"do_sample": False}),
        )
        return made[:, prompt.shape[1] :].cpu() - words.codes.start

    return run


@torch.inference_mode()
def sorted_side(lm: LanguageModel, ids: list[list[int]], batch: int, settings: PlannerSettings, count: int) -> Tensor:
    """Our cached steps with the head of the whole vocabulary, a mask, and top-p by a sort of it."""
    words, weight = vocabulary_of(lm.tokenizer), lm.module.embed_tokens.weight
    loop = engine.CodeLoop(
        lm, [engine.read_prompt(lm.module, row, weight.device) for row in ids], count, settings, range(batch)
    )
    masked = torch.full((weight.shape[0],), float("-inf"), device=weight.device)
    masked[words.codes.start : words.codes.stop] = 0
    found = []
    for step in range(count):
        scores = guide(F.linear(loop.hidden, weight).float(), settings.cfg_scale) + masked
        if settings.temperature:
            values, order = (scores / settings.temperature).softmax(-1).sort(descending=True)
            values[values.cumsum(-1) - values > settings.top_p] = 0
            chosen = order.gather(-1, values.multinomial(1)).squeeze(-1)
        else:
            chosen = scores.argmax(-1)
        found.append(chosen)
        loop.read(chosen.repeat(2)[:, None], step + 1)
    return torch.stack(found, dim=1).cpu() - words.codes.start
