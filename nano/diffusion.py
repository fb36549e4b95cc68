"""Stages ``dit`` and ``turbo``: the diffusion model with its text encoder, then the same in eight steps.

The first learns every task by flow matching, as the engine's own training does it. The second is progressive
distillation (Salimans and Ho 2022) of the first with its guidance built in: one step of the student, along the
turbo schedules, is to lead where two guided steps of the teacher lead.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.attention import Rotary, Visible, attend
from acestep_graph.acestep_core.models.dit import Cross, DiTLayer
from acestep_graph.acestep_core.models.qwen3 import Qwen3
from acestep_graph.acestep_core.sampling.schedules import TURBO_SHIFTS, turbo_schedule
from acestep_graph.acestep_core.tokenizer import Tokenizer
from acestep_graph.acestep_core.training.losses import draw_continuous, noisy, row_losses, unconditional

from .conditions import OF_STEMS, PLAYED_FAST, SHARES, Batch, collate, make_row
from .run import Budget, Setup, autocast, draw, noise_of, train
from .songs import Cached, grouped

DIT, TURBO = "dit", "turbo"
ROWS = 16
RATE, WARMUP = 1.5e-3, 200
TURBO_RATE, TURBO_WARMUP = 2e-4, 50
DROPOUT = 0.12
"""Share of rows without conditions, for guidance."""
GUIDE = 0.05
"""Weight of the loss that teaches some heads to follow the lyrics."""
QUIET = 0.3
"""Power of a target below which its error counts no more than by its own size: stems are quieter than mixes, and would
hardly be learned beside them."""
TEACHER_GUIDANCE = 2.5


class Maker(nn.Module):
    """Diffusion model and text encoder, which learn together. Its tokenizer comes from its own stage."""

    def __init__(self, dit: AceStepModel, text: Qwen3):
        super().__init__()
        self.dit, self.text = dit, text


@dataclass(frozen=True, eq=False)
class Heard:
    """Conditions of a batch: sequence [B, L, E] and which of it is there, [B, L]. The lyrics come first."""

    sequence: Tensor
    mask: Tensor

    @property
    def bias(self) -> Tensor:
        """[B, 1, 1, L], lowest where there is nothing to hear."""
        hidden = torch.zeros(self.mask.shape, device=self.mask.device)
        return hidden.masked_fill_(self.mask == 0, float("-inf"))[:, None, None]


def heard(maker: Maker, batch: Batch) -> Heard:
    """What the decoder attends to: lyrics, timbre, text."""
    encoder = maker.dit.encoder
    text = encoder.text_projector(maker.text(batch.text))
    lyrics = encoder.lyric_encoder(maker.text.embed_tokens(batch.lyrics), batch.lyric_mask)
    timbre = encoder.timbre_encoder(batch.clips)[batch.clip][:, None]
    there = torch.ones_like(batch.text_mask[:, :1])
    mask = torch.cat((batch.lyric_mask, there, batch.text_mask), dim=1)
    return Heard(torch.cat((lyrics, timbre.to(lyrics.dtype), text.to(lyrics.dtype)), dim=1), mask)


class Watched:
    """Runs the decoder's layers on rows whose conditions differ in length, and keeps what some heads look at."""

    def __init__(self, decoder: nn.Module, bias: Tensor, heads: dict[int, Sequence[int]]):
        self.bias = bias
        self.heads = {id(decoder.layers[layer]): list(chosen) for layer, chosen in heads.items()}
        self.seen: list[Tensor] = []

    def __call__(self, layer: DiTLayer, x: Tensor, levels: Tensor, table: Rotary, who: Visible, cross: Cross) -> Tensor:
        """As ``layer``'s own forward; the padding of the conditions is not heard."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (layer.scale_shift_table + levels).chunk(6, dim=1)
        x = torch.addcmul(x, gate1, layer.self_attn(layer.self_attn_norm.modulated(x, scale1, shift1), table, who))
        attention, asked = layer.cross_attn, layer.cross_attn_norm(x)
        if id(layer) in self.heads:
            self.seen.append(self._looked_at(layer, asked, cross, self.heads[id(layer)]))
        queries = attention.queries(asked)
        bias = self.bias.to(queries.dtype)
        x = x + attention.o_proj(attend(queries, cross.keys.to(queries), cross.values.to(queries), bias))
        return torch.addcmul(x, gate2, layer.mlp(layer.mlp_norm.modulated(x, scale2, shift2)))

    def _looked_at(self, layer: DiTLayer, asked: Tensor, cross: Cross, heads: Sequence[int]) -> Tensor:
        """Attention [B, heads, S, L] in float32."""
        attention = layer.cross_attn
        group = attention.q_proj.out_features // attention.k_proj.out_features
        queries = attention.queries(asked)[:, :, heads].transpose(1, 2)
        keys = cross.keys[:, :, [head // group for head in heads]].permute(0, 2, 3, 1)
        scores = torch.matmul(queries, keys.to(queries)).float() * attention.head_dim**-0.5
        return (scores + self.bias).softmax(-1)


def velocity(dit: AceStepModel, x: Tensor, context: Tensor, sequence: Tensor, call: Watched, t: Tensor) -> Tensor:
    """Velocity [B, T, 64] at levels t [B]."""
    decoder = dit.decoder
    ready = decoder.begin(context, sequence)
    return decoder.velocity(x, decoder.levels(t, ready), ready, call=call)[0].float()


def through_codes(dit: AceStepModel, batch: Batch, silence: Tensor) -> Tensor:
    """The context of a batch, with the sources of the rows that ask for it led through the codes and back."""
    if not bool(batch.hints.any()):
        return batch.context
    rows = batch.hints.nonzero()[:, 0]
    with torch.no_grad():
        source = batch.context[rows, :, :64]
        hints = dit.hints(source, silence).float()
    changed = batch.context.clone()
    changed[rows, :, :64] = hints
    return changed


def losses_of(maker: Maker, batch: Batch, silence: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
    """Flow matching on a batch, and how well the heads of the lyrics follow them (log of the attention's share)."""
    config, device = maker.dit.config, batch.target.device
    drawn = draw_continuous(batch.target.shape, noise, config.timestep_mu, config.timestep_sigma, DROPOUT).to(device)
    with autocast(device):
        known = heard(maker, batch)
        call = Watched(maker.dit.decoder, known.bias, dict(config.lyric_alignment_layers_config or {}))
        sequence = unconditional(known.sequence, maker.dit.null_condition_emb, drawn.dropped)
        context = through_codes(maker.dit, batch, silence)
        made = velocity(maker.dit, noisy(batch.target, drawn), context, sequence, call, drawn.t)
    errors = row_losses(made, batch.target, drawn)
    weight = 1 / (batch.target.square().mean(dim=(1, 2)) + QUIET)
    flow = (errors * weight).sum() / weight.sum()
    guide = following(call.seen, batch.sung & ~drawn.dropped[:, None, None], 1 - drawn.t)
    return {"loss": flow + GUIDE * guide, "flow": flow, "guide": guide}


def following(seen: Sequence[Tensor], sung: Tensor, weight: Tensor) -> Tensor:
    """−log of the share of attention on what is being sung, mean over patches that sing, weighted by row."""
    if not seen or not bool(sung.any()):
        return sung.new_zeros((), dtype=torch.float32)
    looked = torch.cat(list(seen), dim=1)[..., : sung.shape[-1]]
    share = (looked * sung[:, None]).sum(-1)
    where = sung.any(-1)[:, None].float() * weight[:, None, None]
    where = where.expand_as(share)
    return -((share + 1e-4).log() * where).sum() / where.sum().clamp(min=1e-6)


@dataclass(frozen=True)
class Examples:
    """Batches by number of step: songs of one length, a task a row."""

    songs: Sequence[Cached]
    groups: Sequence[Sequence[int]]
    silence: Tensor
    tokenizer: Tokenizer
    clip_frames: int
    rows: int = ROWS

    @classmethod
    def of(
        cls, songs: Sequence[Cached], silence: Tensor, tokenizer: Tokenizer, clip_frames: int, rows: int = ROWS
    ) -> Examples:
        return cls(songs, grouped(songs), silence, tokenizer, clip_frames, rows)

    def batch(self, random: np.random.Generator, tasks: Sequence[str] = tuple(SHARES)) -> Batch:
        sizes = np.array([len(group) for group in self.groups], float)
        group = self.groups[random.choice(len(self.groups), p=sizes / sizes.sum())]
        shares = np.array([SHARES[task] for task in tasks])
        rows = []
        for _ in range(self.rows):
            task = tasks[random.choice(len(tasks), p=shares / shares.sum())]
            fit = [index for index in group if task not in OF_STEMS or self.songs[index].stems] or group
            song = self.songs[fit[random.integers(len(fit))]]
            rows.append(make_row(song, task, self.silence, self.tokenizer, random, self.clip_frames))
        return collate(rows, self.silence, self.clip_frames)


def train_dit(maker: Maker, examples: Examples, budget: Budget, setup: Setup) -> int:
    """The stage ``dit``; see :func:`nano.run.train`. Tokenizer and detokenizer stay as they are."""
    maker = maker.to(setup.device)
    maker.dit.tokenizer.requires_grad_(False)
    maker.dit.detokenizer.requires_grad_(False)
    silence = examples.silence.to(setup.device)

    def step_of(step: int, share: float) -> dict[str, Tensor]:
        random = draw(setup.seed, DIT, step)
        return losses_of(maker, examples.batch(random).to(setup.device), silence, noise_of(random))

    return train(DIT, maker, step_of, budget, setup, rate=RATE, warmup=WARMUP, muon=True)


def guided(maker: Maker, known: Heard, scale: float = TEACHER_GUIDANCE) -> Callable[..., Tensor]:
    """(x, context, t) → the velocity led away from the null condition by ``scale``."""
    null = maker.dit.null_condition_emb.to(known.sequence).expand_as(known.sequence)
    call = Watched(maker.dit.decoder, known.bias, {})

    def run(x: Tensor, context: Tensor, t: Tensor) -> Tensor:
        given = velocity(maker.dit, x, context, known.sequence, call, t)
        plain = velocity(maker.dit, x, context, null, call, t)
        return plain + scale * (given - plain)

    return run


def distil_losses(
    student: AceStepModel, teacher: Maker, batch: Batch, silence: Tensor, random: np.random.Generator
) -> dict[str, Tensor]:
    """The student's step from one level of a turbo schedule to the next against two guided ones of the teacher."""
    device, rows = batch.target.device, len(batch.target)
    pairs = []
    for _ in range(rows):
        levels = turbo_schedule(float(random.choice(TURBO_SHIFTS, p=(0.2, 0.2, 0.6))))
        index = int(random.integers(len(levels) - 1))
        pairs.append((levels[index], levels[index + 1]))
    t, after = torch.tensor(pairs, device=device).T
    noise = torch.randn(batch.target.shape, generator=noise_of(random)).to(device)
    x = t[:, None, None] * noise + (1 - t[:, None, None]) * batch.target
    half = (t + after) / 2
    with autocast(device):
        with torch.no_grad():
            known = heard(teacher, batch)
            context = through_codes(teacher.dit, batch, silence)
            run = guided(teacher, known)
            middle = x - (t - half)[:, None, None] * run(x, context, t)
            end = middle - (half - after)[:, None, None] * run(middle, context, half)
            wanted = (x - end) / (t - after)[:, None, None]
        own = heard(Maker(student, teacher.text), batch)
        heads = dict(student.config.lyric_alignment_layers_config or {})
        call = Watched(student.decoder, own.bias, heads)
        made = velocity(student, x, context, own.sequence, call, t)
    error = (made - wanted).square().mean()
    guide = following(call.seen, batch.sung, 1 - t)
    return {"loss": error + GUIDE * guide, "error": error, "guide": guide}


def train_turbo(teacher: Maker, examples: Examples, budget: Budget, setup: Setup) -> int:
    """The stage ``turbo``: the student begins as the teacher; the text encoder is the teacher's."""
    teacher = teacher.to(setup.device).requires_grad_(False)
    student = copy.deepcopy(teacher.dit).requires_grad_(True)
    student.tokenizer.requires_grad_(False)
    student.detokenizer.requires_grad_(False)
    silence = examples.silence.to(setup.device)

    def step_of(step: int, share: float) -> dict[str, Tensor]:
        random = draw(setup.seed, TURBO, step)
        batch = examples.batch(random, PLAYED_FAST).to(setup.device)
        return distil_losses(student, teacher, batch, silence, random)

    return train(TURBO, student, step_of, budget, setup, rate=TURBO_RATE, warmup=TURBO_WARMUP)
