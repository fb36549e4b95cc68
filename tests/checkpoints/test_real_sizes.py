"""Names, shapes and counts of the published models, from the tables of the specification, built without memory."""

from math import prod

import pytest
import torch

from acestep_graph.acestep_core.checkpoints.layouts import plan_vae
from acestep_graph.acestep_core.checkpoints.loading import without_weights
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.config import XL, ModelConfig
from acestep_graph.acestep_core.models.oobleck import OobleckConfig, OobleckVAE
from acestep_graph.acestep_core.models.qwen3 import LM_SIZES, Qwen3, Qwen3Config


def linear(name, rows, columns):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def attention(name, width, q, kv):
    return {
        f"{name}.q_proj.weight": (q * 128, width),
        f"{name}.k_proj.weight": (kv * 128, width),
        f"{name}.v_proj.weight": (kv * 128, width),
        f"{name}.o_proj.weight": (width, q * 128),
        f"{name}.q_norm.weight": (128,),
        f"{name}.k_norm.weight": (128,),
    }


def mlp(name, width, inner):
    return {
        f"{name}.gate_proj.weight": (inner, width),
        f"{name}.up_proj.weight": (inner, width),
        f"{name}.down_proj.weight": (width, inner),
    }


def stack(name, depth, width=2048, q=16, inner=6144):
    """Encoder layers with the final norm."""
    shapes = {f"{name}norm.weight": (width,)}
    for i in range(depth):
        layer = f"{name}layers.{i}"
        shapes |= attention(f"{layer}.self_attn", width, q, 8) | mlp(f"{layer}.mlp", width, inner)
        shapes |= {f"{layer}.{norm}.weight": (width,) for norm in ("input_layernorm", "post_attention_layernorm")}
    return shapes


def diffusion_model(h, heads, inner, depth):
    """The table of state-dict keys; h is the decoder's width, the encoder side is 2048 wide."""
    shapes = {"null_condition_emb": (1, 1, 2048)}
    shapes |= {"decoder.proj_in.1.weight": (h, 192, 2), "decoder.proj_in.1.bias": (h,)}
    shapes |= {"decoder.proj_out.1.weight": (h, 64, 2), "decoder.proj_out.1.bias": (64,)}
    for embedder in ("decoder.time_embed", "decoder.time_embed_r"):
        shapes |= linear(f"{embedder}.linear_1", h, 256) | linear(f"{embedder}.linear_2", h, h)
        shapes |= linear(f"{embedder}.time_proj", 6 * h, h)
    shapes |= linear("decoder.condition_embedder", h, 2048)
    shapes |= {"decoder.norm_out.weight": (h,), "decoder.scale_shift_table": (1, 2, h)}
    for i in range(depth):
        layer = f"decoder.layers.{i}"
        shapes |= attention(f"{layer}.self_attn", h, heads, 8) | attention(f"{layer}.cross_attn", h, heads, 8)
        shapes |= mlp(f"{layer}.mlp", h, inner) | {f"{layer}.scale_shift_table": (1, 6, h)}
        shapes |= {f"{layer}.{norm}.weight": (h,) for norm in ("self_attn_norm", "cross_attn_norm", "mlp_norm")}

    shapes |= {"encoder.text_projector.weight": (2048, 1024)}
    shapes |= linear("encoder.lyric_encoder.embed_tokens", 2048, 1024) | stack("encoder.lyric_encoder.", 8)
    shapes |= linear("encoder.timbre_encoder.embed_tokens", 2048, 64) | stack("encoder.timbre_encoder.", 4)
    shapes |= {"encoder.timbre_encoder.special_token": (1, 1, 2048)}

    pooler = "tokenizer.attention_pooler."
    shapes |= linear("tokenizer.audio_acoustic_proj", 2048, 64) | {f"{pooler}special_token": (1, 1, 2048)}
    shapes |= linear(f"{pooler}embed_tokens", 2048, 2048) | stack(pooler, 2)
    shapes |= linear("tokenizer.quantizer.project_in", 6, 2048) | linear("tokenizer.quantizer.project_out", 2048, 6)
    shapes |= {"detokenizer.special_tokens": (1, 5, 2048)} | linear("detokenizer.embed_tokens", 2048, 2048)
    return shapes | stack("detokenizer.", 2) | linear("detokenizer.proj_out", 64, 2048)


def autoencoder(stable_audio=False, g="weight_g", v="weight_v"):
    """Both columns of the key table, weight norm included."""
    shapes = {}

    def conv(name, first, second, kernel, bias):
        shapes.update({f"{name}.{g}": (first, 1, 1), f"{name}.{v}": (first, second, kernel)})
        shapes.update({f"{name}.bias": (bias,)} if bias else {})

    def snake(name, channels):
        shape = (channels,) if stable_audio else (1, channels, 1)
        shapes.update({f"{name}.alpha": shape, f"{name}.beta": shape})

    def unit(name, names, channels):
        snake(f"{name}.{names[0]}", channels)
        conv(f"{name}.{names[1]}", channels, channels, 7, channels)
        snake(f"{name}.{names[2]}", channels)
        conv(f"{name}.{names[3]}", channels, channels, 1, channels)

    names = [f"layers.{n}" for n in range(4)] if stable_audio else ["snake1", "conv1", "snake2", "conv2"]
    ends = [f"layers.{n}" for n in (0, 6, 7)] if stable_audio else ["conv1", "snake1", "conv2"]
    blocks = [f"layers.{b + 1}" if stable_audio else f"block.{b}" for b in range(5)]
    widths, strides = (128, 128, 256, 512, 1024, 2048), (2, 4, 4, 6, 10)

    conv(f"encoder.{ends[0]}", 128, 2, 7, 128)
    for b, stride in enumerate(strides):
        for u in range(3):
            unit(f"encoder.{blocks[b]}.{f'layers.{u}' if stable_audio else f'res_unit{u + 1}'}", names, widths[b])
        own = ("layers.3", "layers.4") if stable_audio else ("snake1", "conv1")
        snake(f"encoder.{blocks[b]}.{own[0]}", widths[b])
        conv(f"encoder.{blocks[b]}.{own[1]}", widths[b + 1], widths[b], 2 * stride, widths[b + 1])
    snake(f"encoder.{ends[1]}", 2048)
    conv(f"encoder.{ends[2]}", 128, 2048, 3, 128)

    conv(f"decoder.{ends[0]}", 2048, 64, 7, 2048)
    for b, stride in enumerate(reversed(strides)):
        wide, narrow = widths[5 - b], widths[4 - b]
        own = ("layers.0", "layers.1") if stable_audio else ("snake1", "conv_t1")
        snake(f"decoder.{blocks[b]}.{own[0]}", wide)
        conv(f"decoder.{blocks[b]}.{own[1]}", wide, narrow, 2 * stride, narrow)
        for u in range(3):
            unit(f"decoder.{blocks[b]}.{f'layers.{u + 2}' if stable_audio else f'res_unit{u + 1}'}", names, narrow)
    snake(f"decoder.{ends[1]}", 128)
    conv(f"decoder.{ends[2]}", 2, 128, 7, None)
    return shapes


def qwen3(width, inner, depth, heads, rows):
    return {"embed_tokens.weight": (rows, width)} | stack("", depth, width, heads, inner)


DIFFUSION = {
    "2B": (ModelConfig(), diffusion_model(2048, 16, 6144, 24), 677, 2_393_872_518),
    "XL": (XL, diffusion_model(2560, 32, 9728, 32), 829, 4_987_310_726),
}
QWEN = {
    "embedding": (Qwen3Config(), qwen3(1024, 3072, 28, 16, 151669), 310, 595_776_512),
    "0.6B": (LM_SIZES["0.6B"], qwen3(1024, 3072, 28, 16, 217204), 310, 662_884_352),
    "1.7B": (LM_SIZES["1.7B"], qwen3(2048, 6144, 28, 16, 217204), 310, 1_854_243_840),
    "4B": (LM_SIZES["4B"], qwen3(2560, 9728, 36, 32, 217204), 398, 4_189_554_176),
}
OLD = ("weight_g", "weight_v")
NEW = ("parametrizations.weight.original0", "parametrizations.weight.original1")
SPELLINGS = {
    "diffusers, weight_g": (False, *OLD),
    "diffusers, parametrizations": (False, *NEW),
    "stable audio, weight_g": (True, *OLD),
    "stable audio, parametrizations": (True, *NEW),
}


def shapes_of(network, config):
    module = without_weights(network, config)
    assert all(p.is_meta for p in module.parameters()) and not dict(module.named_buffers())
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def count(shapes):
    return sum(map(prod, shapes.values()))


def test_nothing_is_initialised_on_the_way(monkeypatch):
    """Random initialisation on ``meta`` would import PyTorch's compiler, several seconds for nothing."""
    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, name, lambda *a, **k: pytest.fail("weights were initialised"))
    without_weights(Qwen3, LM_SIZES["0.6B"])
    without_weights(OobleckVAE, OobleckConfig())


@pytest.mark.parametrize("size", DIFFUSION)
def test_the_diffusion_models(size):
    config, expected, tensors, parameters = DIFFUSION[size]
    assert shapes_of(AceStepModel, config) == expected
    assert (len(expected), count(expected)) == (tensors, parameters)
    assert ModelConfig.from_shapes(expected) == config


def test_the_parts_of_the_diffusion_models():
    def parts(size):
        return [
            sum(n.startswith(part) for n in DIFFUSION[size][1]) for part in ("decoder", "encoder", "token", "detok")
        ]

    assert parts("2B") == [476, 140, 32, 28] and parts("XL") == [628, 140, 32, 28]
    for size, parameters in (("2B", 1_575_458_880), ("XL", 4_168_897_088)):
        assert count({n: s for n, s in DIFFUSION[size][1].items() if n.startswith("decoder.")}) == parameters


@pytest.mark.parametrize("size", QWEN)
def test_the_qwen3_models(size):
    config, expected, tensors, parameters = QWEN[size]
    assert shapes_of(Qwen3, config) == expected
    assert (len(expected), count(expected)) == (tensors, parameters)
    assert Qwen3Config.from_shapes(expected) == config


def test_the_autoencoder():
    published, folded = autoencoder(), shapes_of(OobleckVAE, OobleckConfig())
    assert (len(published), count(published)) == (365, 168_695_426)
    expected = {n.replace("weight_v", "weight"): s for n, s in published.items() if not n.endswith("weight_g")}
    assert folded == expected
    assert OobleckConfig.from_shapes(folded) == OobleckConfig()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_autoencoder_maps_to_every_parameter(spelling):
    theirs, folded = autoencoder(*SPELLINGS[spelling]), shapes_of(OobleckVAE, OobleckConfig())
    assert (len(theirs), count(theirs)) == (365, 168_695_426)
    sources = plan_vae(theirs).sources
    assert set(sources) == set(folded) and sum(map(len, sources.values())) == len(theirs)
    for ours, names in sources.items():
        assert prod(theirs[names[-1]]) == prod(folded[ours])
        assert [prod(theirs[g]) for g in names[:-1]] == [folded[ours][0]] * (len(names) - 1)
