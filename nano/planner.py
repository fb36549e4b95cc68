"""Stage ``lm``: the planner learns to plan, write codes, understand, format and create, in the engine's own prompts.

The embedding of an audio code is the sum of one vector for each level of its quantizer dimensions, so that codes that
sound alike are alike, and a vector of its own. Without the latter every dimension would be drawn by itself, though all
of them follow from where in the 200 ms of a code a beat falls. On export they are written out as ordinary rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_graph.acestep_core.lm import prompts
from acestep_graph.acestep_core.lm.prompts import END, END_THINK, THINK, Control, Prompt
from acestep_graph.acestep_core.lm.settings import NO_INPUT
from acestep_graph.acestep_core.models.qwen3 import Qwen3, Qwen3Config
from acestep_graph.acestep_core.song import INSTRUMENTAL, UNKNOWN_LANGUAGE
from acestep_graph.acestep_core.tokenizer import AUDIO_CODE, Tokenizer

from .coded import Coded
from .run import Budget, Setup, autocast, draw, train
from .weights import begin

STAGE = "lm"
ROWS = 12
RATE, WARMUP = 2e-3, 200
SHARES = {"plan": 0.5, "understand": 0.2, "format": 0.12, "create": 0.18}
"""``plan`` is followed by its codes."""
UNCONDITIONAL = 0.1
"""Share of plans whose request is left out, as guidance asks for."""
LONGEST = 1024


class CodeEmbedding(nn.Module):
    """Rows of words, then of codes: sums over ``levels`` and what is a code's own; in place of an ``nn.Embedding``."""

    def __init__(self, words: int, levels: Sequence[int], width: int):
        super().__init__()
        self.levels = tuple(levels)
        self.words = nn.Embedding(words, width)
        self.parts = nn.ParameterList(nn.Parameter(torch.empty(count, width)) for count in levels)
        self.common = nn.Parameter(torch.empty(width))
        self.own = nn.Parameter(torch.empty(math.prod(levels), width))

    @property
    def codes(self) -> Tensor:
        """The rows of all codes [codes, width]; the first dimension counts fastest, as in the quantizer."""
        summed = self.common[None]
        for part in self.parts:
            summed = (part[:, None] + summed).flatten(0, 1)
        return summed + self.own

    @property
    def rows(self) -> Tensor:
        """The table of an ordinary embedding, [words + codes, width]."""
        return torch.cat((self.words.weight, self.codes))

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [...] → [..., width]; codes follow the words."""
        return F.embedding(ids, self.rows)

    def log_probability(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """log softmax over words and codes together, at ``ids`` [n], of states [n, width]; in float32."""
        return -F.cross_entropy(F.linear(hidden, self.rows).float(), ids, reduction="none")

    @torch.no_grad()
    def take(self, rows: Tensor) -> None:
        """Become the embedding whose table is ``rows``; what codes of a level have in common becomes its part."""
        first = self.words.num_embeddings
        self.words.weight.copy_(rows[:first])
        table = rows[first:].unflatten(0, self.levels[::-1])
        places = range(len(self.levels))
        self.common.copy_(table.mean(tuple(places)))
        for part, place in zip(self.parts, reversed(places), strict=True):
            part.copy_(table.mean([other for other in places if other != place]) - self.common)
        self.own.zero_()
        self.own.copy_(rows[first:] - self.codes)


def make_planner(config: Qwen3Config, words: int, levels: Sequence[int], seed: int) -> Qwen3:
    """A planner before training, with ``words`` tokens that are no codes."""
    model = Qwen3(replace(config, vocab_size=1))
    begin(model, seed)
    model.embed_tokens = CodeEmbedding(words, levels, config.hidden_size)
    with torch.no_grad():
        model.embed_tokens.words.weight.normal_(0, 0.1)
        model.embed_tokens.common.zero_()
        model.embed_tokens.own.zero_()
        for part in model.embed_tokens.parts:
            part.normal_(0, 0.1 / len(levels) ** 0.5)
    return model


@dataclass(frozen=True)
class Example:
    """Token ids, and how many of them are the prompt, which is not learned."""

    ids: tuple[int, ...]
    prompt: int


def make_example(coded: Coded, task: str, tokenizer: Tokenizer, random: np.random.Generator) -> Example:
    """What the planner reads and answers for ``task``, one of :data:`SHARES`."""
    song, codes = coded.song, coded.codes
    caption = str(coded.captions[random.integers(len(coded.captions))])
    fullest = str(coded.captions[random.integers(3)])
    metas = {**prompts.metas_of(song), "caption": fullest, "language": song.language}
    plan = prompts.plan_text(metas)
    lyrics = (f"\n\n# Lyric\n{song.sung}\n", END)
    thought = (THINK, f"\n{plan}\n", END_THINK)
    spelled = tuple(Control(AUDIO_CODE.format(code)) for code in codes)
    if task == "plan":
        kept = [name for name in ("caption", "language") if random.random() < 0.85]
        plan = prompts.plan_text({**prompts.metas_of(song), **{name: metas[name] for name in kept}})
        if random.random() < UNCONDITIONAL:
            asked: Prompt = prompts.codes_negative("", caption, song.sung, NO_INPUT)
            return _example(tokenizer, asked, (*spelled, END))
        return _example(
            tokenizer, prompts.plan_prompt(caption, song.sung), (THINK, f"\n{plan}\n", END_THINK, "\n\n", *spelled, END)
        )
    if task == "understand":
        given = codes if random.random() > 0.08 else ()
        return _example(tokenizer, prompts.understand_prompt(given, NO_INPUT), (*thought, *lyrics))
    if task == "format":
        draft = "\n".join(line for line in song.sung.split("\n") if not line.startswith("["))
        words = song.sung if song.instrumental or random.random() < 0.5 else draft.strip()
        return _example(tokenizer, prompts.format_prompt(caption, words or INSTRUMENTAL), (*thought, *lyrics))
    asked = prompts.create_prompt(described(coded, caption, random), song.instrumental)
    return _example(tokenizer, asked, (*thought, *lyrics))


def described(coded: Coded, caption: str, random: np.random.Generator) -> str:
    """The song in a sentence, as one types it."""
    song = coded.song
    kind = "instrumental piece" if song.instrumental else "song"
    genre, mood = (part.strip() for part in coded.captions[0].split(",")[:2])
    forms = (
        caption,
        f"a {mood} {genre} {kind}",
        f"{genre} {kind}, {mood}",
        f"{kind} in {song.key}, {genre}",
        f"a {mood} {kind} at {song.bpm} bpm",
        NO_INPUT,
    )
    text = forms[random.choice(len(forms), p=(0.3, 0.25, 0.2, 0.1, 0.1, 0.05))]
    known = song.language != UNKNOWN_LANGUAGE and not song.instrumental and random.random() < 0.3
    return f"{text}, sung in {song.language}" if known else text


def _example(tokenizer: Tokenizer, asked: Prompt, answer: Prompt) -> Example:
    prompt = prompts.encode(tokenizer, asked)
    return Example(tuple(prompt + prompts.encode(tokenizer, answer)), len(prompt))


def losses_of(model: Qwen3, examples: Sequence[Example], device: torch.device) -> dict[str, Tensor]:
    """Cross-entropy of the answers, and apart from it that of words and of codes."""
    rows = [torch.tensor(example.ids[:LONGEST]) for example in examples]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
    places = torch.arange(ids.shape[1] - 1, device=device)
    begins = torch.tensor([example.prompt - 1 for example in examples], device=device)[:, None]
    ends = torch.tensor([len(row) - 1 for row in rows], device=device)[:, None]
    asked = (places >= begins) & (places < ends)
    with autocast(device):
        hidden = model(ids[:, :-1])[asked]
        wanted = ids[:, 1:][asked]
        error = -model.embed_tokens.log_probability(hidden, wanted)
    code = wanted >= model.embed_tokens.words.num_embeddings
    parts = {name: error[chosen].mean() if bool(chosen.any()) else error.new_zeros(()) for name, chosen in
             (("words", ~code), ("codes", code))}  # fmt: skip
    return {"loss": error.mean(), **parts}


def train_planner(
    model: Qwen3, songs: Sequence[Coded], tokenizer: Tokenizer, budget: Budget, setup: Setup, rows: int | None = None
) -> int:
    """The stage; see :func:`nano.run.train`."""
    model, rows = model.to(setup.device), rows or setup.rows(ROWS)
    tasks = list(SHARES)

    def step_of(step: int, share: float) -> dict[str, Tensor]:
        random = draw(setup.seed, STAGE, step)
        examples = []
        for _ in range(rows):
            song = songs[random.integers(len(songs))]
            task = str(random.choice(tasks, p=list(SHARES.values())))
            examples.append(make_example(song, task, tokenizer, random))
        return losses_of(model, examples, setup.device)

    return train(STAGE, model, step_of, budget, setup, rate=RATE, warmup=WARMUP)


def written_out(model: Qwen3) -> dict[str, Tensor]:
    """Published names → tensors, the embedding as one table."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("embed_tokens.")}
    return {"embed_tokens.weight": model.embed_tokens.rows.detach(), **state}
