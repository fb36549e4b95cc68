"""The diffusion transformer: velocity of latents at a noise level, given context and conditions.

What does not change over a generation is made once by :meth:`DiT.begin`; one step is then
:meth:`DiT.velocity`. :meth:`DiT.forward` does both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Rotary, Visible, rotary
from .config import ModelConfig
from .layers import MLP, Attention, RMSNorm, Seen

SINUSOID_WIDTH = 256


def sinusoid(t: Tensor) -> Tensor:
    """Timestep features [n, 256] of t [n]: cosines then sines of 1000·t·10000^(−k/128), in float32."""
    half = SINUSOID_WIDTH // 2
    rates = torch.exp(-math.log(10000.0) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = 1000.0 * t.float()[:, None] * rates
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepEmbedding(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(SINUSOID_WIDTH, width)
        self.linear_2 = nn.Linear(width, width)
        self.time_proj = nn.Linear(width, 6 * width)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t [n] → embedding [n, H] and the six modulation vectors [n, 6, H]."""
        features = sinusoid(t).to(self.linear_1.weight.dtype)
        embedding = self.linear_2(F.silu(self.linear_1(features)))
        return embedding, self.time_proj(F.silu(embedding)).unflatten(-1, (6, -1))


@dataclass(frozen=True)
class Cross:
    """What a layer's cross-attention needs of the conditions.

    Attributes:
        keys, values: [B, L, kv heads, D].
        null: what every position hears under the null condition, [1, 1, H]. Its tokens are all equal, so
            attention over them is their one value whatever the query.
    """

    keys: Tensor
    values: Tensor
    null: Tensor | None


@dataclass(frozen=True)
class Watch:
    """Which cross-attention of a layer to write down: query heads, columns of the condition sequence.

    ``seen`` receives [B, heads, S, tokens].
    """

    heads: Sequence[int]
    tokens: slice
    seen: list[Tensor]


class DiTLayer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim, eps)
        self.self_attn_norm = RMSNorm(width, eps)
        self.self_attn = Attention(width, *heads)
        self.cross_attn_norm = RMSNorm(width, eps)
        self.cross_attn = Attention(width, *heads)
        self.mlp_norm = RMSNorm(width, eps)
        self.mlp = MLP(width, config.intermediate_size)
        self.scale_shift_table = nn.Parameter(torch.empty(1, 6, width))

    def hear(self, conditions: Tensor, null: Tensor | None) -> Cross:
        """Keys and values of embedded ``conditions`` [B, L, H], and the answer to ``null`` [1, 1, H]."""
        keys, values = self.cross_attn.keys_values(conditions)
        if null is None:
            return Cross(keys, values, None)
        _, value = self.cross_attn.keys_values(null)
        group = self.cross_attn.q_proj.out_features // self.cross_attn.k_proj.out_features
        return Cross(keys, values, self.cross_attn.o_proj(value.repeat_interleave(group, dim=2).flatten(2)))

    def forward(
        self, x: Tensor, levels: Tensor, table: Rotary, who: Visible, cross: Cross, watch: Watch | None = None
    ) -> Tensor:
        """x [B, S, H], or [2B, S, H] with the rows of the null condition behind; levels [B or 1, 6, H]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + levels).chunk(6, dim=1)
        x = torch.addcmul(x, gate1, self.self_attn(self.self_attn_norm.modulated(x, scale1, shift1), table, who))
        given = x[: cross.keys.shape[0]]
        if watch is not None:
            weights = self.cross_attn.weights(self.cross_attn_norm(given), cross.keys, watch.heads)
            watch.seen.append(weights[..., watch.tokens])
        heard = given + self.cross_attn.cross(self.cross_attn_norm(given), cross.keys, cross.values)
        x = heard if len(given) == len(x) else torch.cat((heard, x[len(given) :] + cross.null))
        return torch.addcmul(x, gate2, self.mlp(self.mlp_norm.modulated(x, scale2, shift2)))


LayerCall = Callable[[DiTLayer, Tensor, Tensor, Rotary, Visible, Cross], Tensor]
"""A way to run one layer: its ``forward``, or the same compiled."""


@dataclass(frozen=True)
class Prepared:
    """What stays the same over a generation. Made by :meth:`DiT.begin`, valid for these weights and conditions.

    Attributes:
        frames: T, true length in latent frames.
        context: the context's share of the patch embedding, bias included, [B, S, H].
        patch_in, patch_out: patch weights as plain matrices.
        cross: the conditions for each layer.
        table: rotary positions. who: the :class:`Visible` of each layer, without and with null rows.
        still: time embedding and modulation of t − r = 0.
    """

    frames: int
    context: Tensor
    patch_in: Tensor
    patch_out: Tensor
    cross: list[Cross]
    table: Rotary
    who: list[Visible]
    who_guided: list[Visible]
    still: tuple[Tensor, Tensor]


Velocity = Callable[[Tensor, tuple[Tensor, Tensor], Prepared, bool], tuple[Tensor, Tensor | None]]
"""See :meth:`DiT.velocity`."""


class DiT(nn.Module):
    """Decoder of the published checkpoints (``decoder.*``)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        width, patch = config.hidden_size, config.patch_size
        self.proj_in = nn.Sequential(nn.Identity(), nn.Conv1d(config.in_channels, width, patch, stride=patch))
        self.time_embed = TimestepEmbedding(width)
        self.time_embed_r = TimestepEmbedding(width)
        self.condition_embedder = nn.Linear(config.encoder_width, width)
        self.layers = nn.ModuleList(DiTLayer(config) for _ in range(config.num_hidden_layers))
        self.norm_out = RMSNorm(width, config.rms_norm_eps)
        self.scale_shift_table = nn.Parameter(torch.empty(1, 2, width))
        out = nn.ConvTranspose1d(width, config.audio_acoustic_hidden_dim, patch, stride=patch)
        self.proj_out = nn.Sequential(nn.Identity(), out)
        self.walk: Callable[[], Iterator[DiTLayer]] | None = None

    def stack(self) -> Iterator[DiTLayer]:
        """The layers in order, each in place while it is its turn; close the iterator where it is left early.

        ``walk``, if set, brings layers that are kept elsewhere (:mod:`..memory.streaming`).
        """
        yield from self.layers if self.walk is None else self.walk()

    def _patches(self, x: Tensor) -> Tensor:
        """[B, T, C] → [B, S, patch·C]; an odd tail is completed with zeros."""
        missing = -x.shape[1] % self.config.patch_size
        if missing:
            x = F.pad(x, (0, 0, 0, missing))
        return x.reshape(x.shape[0], -1, self.config.patch_size * x.shape[2])

    def begin(
        self, context: Tensor, conditions: Tensor, null: Tensor | None = None, last: int | None = None
    ) -> Prepared:
        """Work out everything that does not depend on x or t.

        Args:
            context: source latents and chunk mask [B, T, 128].
            conditions: packed sequence [B, L, E] of the condition encoder.
            null: null condition [1, 1, E], where guidance will be wanted.
            last: the last layer that will be run; None for all of them.
        """
        c, conv = self.config, self.proj_in[1]
        dtype, device = conv.weight.dtype, context.device
        context = context.to(dtype)
        weight = conv.weight.permute(0, 2, 1)
        given = context.shape[-1]
        patches = self._patches(context)
        embedded = F.linear(patches, weight[..., :given].reshape(c.hidden_size, -1), conv.bias)
        sequence = self.condition_embedder(conditions.to(dtype))
        silent = None if null is None else self.condition_embedder(null.to(dtype))
        group, windows = c.num_attention_heads // c.num_key_value_heads, range(c.num_hidden_layers)
        seen, both = Seen(embedded, group), Seen(embedded, group, copies=2)
        with closing(self.stack()) as layers:
            cross = [layer.hear(sequence, silent) for layer in islice(layers, None if last is None else last + 1)]
        return Prepared(
            frames=context.shape[1],
            context=embedded,
            patch_in=weight[..., given:].reshape(c.hidden_size, -1),
            patch_out=self.proj_out[1].weight.permute(2, 1, 0).reshape(-1, c.hidden_size),
            cross=cross,
            table=rotary(patches.shape[1], c.head_dim, c.rope_theta, device, dtype),
            who=[seen(c.window(index)) for index in windows],
            who_guided=[] if null is None else [both(c.window(index)) for index in windows],
            still=self.time_embed_r(torch.zeros(1, device=device)),
        )

    def levels(self, t: Tensor, ready: Prepared, gap: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embedding [n, H] and modulation [n, 6, H] of noise levels t [n]; ``gap`` is t − r, None for 0."""
        embedding, modulation = self.time_embed(t)
        still, still_modulation = ready.still if gap is None else self.time_embed_r(gap)
        return embedding + still, modulation + still_modulation

    def velocity(
        self,
        x: Tensor,
        levels: tuple[Tensor, Tensor],
        ready: Prepared,
        guided: bool = False,
        call: LayerCall = DiTLayer.__call__,
    ) -> tuple[Tensor, Tensor | None]:
        """Velocity [B, T, 64] of latents x [B, T, 64] at ``levels`` (rows: 1 or B).

        With ``guided`` also that under the null condition, both from one batch; else None. ``call`` runs each layer.
        """
        embedding, modulation = levels
        h = ready.context + F.linear(self._patches(x.to(ready.context.dtype)), ready.patch_in)
        who = ready.who
        if guided:
            h, who = torch.cat((h, h)), ready.who_guided
            if embedding.shape[0] > 1:
                embedding, modulation = embedding.repeat(2, 1), modulation.repeat(2, 1, 1)
        with closing(self.stack()) as layers:
            for layer, seen, cross in zip(layers, who, ready.cross, strict=True):
                h = call(layer, h, modulation, ready.table, seen, cross)
        shift, scale = (self.scale_shift_table + embedding[:, None]).chunk(2, dim=1)
        h = self.norm_out.modulated(h, scale, shift)
        bias = self.proj_out[1].bias
        out = F.linear(h, ready.patch_out, bias.repeat(self.config.patch_size))
        out = out.view(h.shape[0], -1, bias.shape[0])[:, : ready.frames]
        return (out[: x.shape[0]], out[x.shape[0] :]) if guided else (out, None)

    def listening(
        self,
        x: Tensor,
        levels: tuple[Tensor, Tensor],
        ready: Prepared,
        heads: Mapping[int, Sequence[int]],
        tokens: slice,
    ) -> list[Tensor]:
        """How much each patch attends to ``tokens`` of the condition sequence, for some ``heads`` of some layers.

        Layers behind the last one asked for are not run.

        Returns: for each layer of ``heads``, ascending, [B, heads, S, tokens] in float32.
        """
        seen: list[Tensor] = []
        h = ready.context + F.linear(self._patches(x.to(ready.context.dtype)), ready.patch_in)
        with closing(self.stack()) as layers:
            for index, layer in enumerate(islice(layers, max(heads) + 1)):
                watch = Watch(heads[index], tokens, seen) if index in heads else None
                h = layer(h, levels[1], ready.table, ready.who[index], ready.cross[index], watch)
        return seen

    def forward(self, x: Tensor, context: Tensor, conditions: Tensor, t: Tensor, r: Tensor | None = None) -> Tensor:
        """One call without preparation: x [B, T, 64], context [B, T, 128], conditions [B, L, E], t and r [B]."""
        ready = self.begin(context, conditions)
        return self.velocity(x, self.levels(t, ready, None if r is None else t - r), ready)[0]
