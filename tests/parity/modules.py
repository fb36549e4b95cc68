"""Single modules: encoders, tokenizer, transformer, autoencoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.models.audio_codes import FiniteScalarQuantizer
from acestep_graph.acestep_core.models.conditioner import unpack_clips
from acestep_graph.acestep_core.models.dit import sinusoid

from .golden import Difference, Fixtures, close, equal, golden


def condition_inputs(g: dict[str, Tensor], prefix: str, text: str = "text") -> tuple[Tensor, ...]:
    """Arguments of the condition encoder, in its order."""
    return (
        g[f"{prefix}{text}_hidden_states"],
        g[f"{prefix}{text}_attention_mask"],
        g[f"{prefix}lyric_hidden_states"],
        g[f"{prefix}lyric_attention_mask"],
        g[f"{prefix}refer_audio_acoustic_hidden_states_packed"],
        g[f"{prefix}refer_audio_order_mask"],
    )


def check_condition(encoder, g: dict[str, Tensor], case: str) -> Iterator[Difference]:
    inputs = condition_inputs(g, f"{case}.in.")
    packed, mask = encoder(*inputs)
    vectors, used = unpack_clips(encoder.timbre_encoder(inputs[4]), inputs[5])
    middle = {
        "text_projected": encoder.text_projector(inputs[0]),
        "lyric_encoder": encoder.lyric_encoder(inputs[2], inputs[3]),
        "timbre_unpacked": vectors,
    }
    for name, ours in middle.items():
        if f"{case}.mid.{name}" in g:
            yield close(f"{case}.{name}", ours, g[f"{case}.mid.{name}"])
    if f"{case}.mid.timbre_mask" in g:
        yield equal(f"{case}.timbre_mask", used, g[f"{case}.mid.timbre_mask"])
    yield close(f"{case}.packed", packed, g[f"{case}.out.encoder_hidden_states"])
    yield equal(f"{case}.mask", mask, g[f"{case}.out.encoder_attention_mask"])


@golden("condition_encoder")
def condition_encoder(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("condition_encoder.safetensors")
    for case in sorted({k.split(".")[0] for k in g if k.endswith("in.text_hidden_states")}):
        yield from check_condition(fixtures.model("turbo").module.encoder, g, case)


def check_tokens(model, silence: Tensor, g: dict[str, Tensor], case: str) -> Iterator[Difference]:
    if f"{case}.in.indices" in g:
        index = g[f"{case}.in.indices"][..., 0]
        yield close(f"{case}.quantized", model.tokenizer.quantizer.from_indices(index), g[f"{case}.out.quantized"])
        yield close(f"{case}.latents", model.decode_codes(index), g[f"{case}.out.latents_25hz"])
        return
    latents = g[f"{case}.in.latents"]
    pooled = model.tokenizer.pooled(latents, silence)
    quantized, index = model.tokenizer(latents, silence)
    if f"{case}.mid.pooled" in g:
        yield close(f"{case}.pooled", pooled, g[f"{case}.mid.pooled"])
        yield close(f"{case}.project_in", model.tokenizer.quantizer.project_in(pooled), g[f"{case}.mid.project_in"])
        rebuilt = model.tokenizer.quantizer.from_indices(index)
        yield close(f"{case}.from_indices", rebuilt, g[f"{case}.out.from_indices"])
    yield close(f"{case}.quantized", quantized, g[f"{case}.out.quantized"])
    yield equal(f"{case}.indices", index[..., None], g[f"{case}.out.indices"])
    yield close(f"{case}.detokenized", model.detokenizer(quantized), g[f"{case}.out.detokenized"])


@golden("audio_tokenizer", omitted=("out.mask_5hz (no mask exists here: nothing is padded)",))
def audio_tokenizer(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("audio_tokenizer.safetensors")
    for case in sorted({".".join(k.split(".")[:2]) for k in g}):
        model = fixtures.model(case.split(".")[0])
        yield from check_tokens(model.module, model.silence, g, case)


@golden("fsq_real_levels")
def fsq_real_levels(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("fsq_real_levels.safetensors")
    basis = g["basis"].tolist()
    width, count = g["proj.weights.project_out.weight"].shape
    codes = int(g["codes.in.indices"].max()) + 1
    levels = [b // a for a, b in zip(basis, [*basis[1:], codes], strict=True)]
    quantizer = FiniteScalarQuantizer(width, levels)
    yield equal("basis", list(quantizer.basis), basis)
    for layer in ("project_in", "project_out"):
        getattr(quantizer, layer).load_state_dict(
            {part: g[f"proj.weights.{layer}.{part}"] for part in ("weight", "bias")}
        )
    bounded = quantizer.bound(g["identity.in.x"])
    values, index = quantizer.quantize(bounded)
    yield close("identity.bounded", bounded, g["identity.out.bounded"])
    yield close("identity.quantized", values, g["identity.out.quantized"])
    yield equal("identity.indices", index[..., None], g["identity.out.indices"])
    yield close("codes", quantizer.values(g["codes.in.indices"][..., 0]), g["codes.out.values"])
    out, index = quantizer(g["proj.in.x"])
    yield close("proj.quantized", out, g["proj.out.quantized"])
    yield equal("proj.indices", index[..., None], g["proj.out.indices"])
    yield close("proj.from_indices", quantizer.from_indices(index), g["proj.out.from_indices"])


@golden("timestep_embedding")
def timestep_embedding(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("timestep_embedding.safetensors")
    yield close("sinusoid", sinusoid(g["in.t"]), g["sinusoid_256"])
    for kind in sorted({k.split(".")[0] for k in g if k.endswith(".temb")}):
        temb, proj = fixtures.model(kind).module.decoder.time_embed(g["in.t"])
        yield close(f"{kind}.temb", temb, g[f"{kind}.temb"])
        yield close(f"{kind}.proj", proj, g[f"{kind}.timestep_proj"])


def check_dit(dit, g: dict[str, Tensor], case: str) -> Iterator[Difference]:
    x, context = g[f"{case}.in.hidden_states"], g[f"{case}.in.context_latents"]
    sequence, t, r = g[f"{case}.in.encoder_hidden_states"], g[f"{case}.in.t"], g[f"{case}.in.r"]
    yield close(f"{case}.t_eq_r", dit(x, context, sequence, t), g[f"{case}.out.t_eq_r"])
    yield close(f"{case}.t_ne_r", dit(x, context, sequence, t, r), g[f"{case}.out.t_ne_r"])
    ready = dit.begin(context, sequence)
    maps = [g[key] for key in sorted(g) if key.startswith(f"{case}.cross_attn.layer")]
    if maps:
        heads = {layer: range(maps[0].shape[1]) for layer in range(len(maps))}
        heard = dit.listening(x, dit.levels(t, ready), ready, heads, slice(0, sequence.shape[1]))
        for layer, (ours, theirs) in enumerate(zip(heard, maps, strict=True)):
            yield close(f"{case}.cross_attn.layer{layer}", ours, theirs)
    if f"{case}.cache.call1" not in g:
        return
    yield close(f"{case}.call1", dit.velocity(x, dit.levels(t, ready), ready)[0], g[f"{case}.cache.call1"])
    x2, t2 = g[f"{case}.cache.in2.hidden_states"], g[f"{case}.cache.in2.t"]
    yield close(f"{case}.call2", dit.velocity(x2, dit.levels(t2, ready), ready)[0], g[f"{case}.cache.call2"])
    temb, proj = dit.time_embed(t)
    yield close(f"{case}.temb", temb, g[f"{case}.mid.temb_t"])
    yield close(f"{case}.proj", proj, g[f"{case}.mid.timestep_proj_t"])
    yield close(f"{case}.temb_r", ready.still[0].expand_as(temb), g[f"{case}.mid.temb_r_zero"])


@golden("dit_forward")
def dit_forward(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("dit_forward.safetensors")
    for case in sorted({".".join(k.split(".")[:2]) for k in g}):
        yield from check_dit(fixtures.model(case.split(".")[0]).module.decoder, g, case)


@golden("xl_modules")
def xl_modules(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("xl_modules.safetensors")
    model = fixtures.model("xl")
    yield from check_condition(model.module.encoder, g, "cond")
    for case in sorted({".".join(k.split(".")[:2]) for k in g if k.startswith("dit.")}):
        yield from check_dit(model.module.decoder, g, case)
    yield from check_tokens(model.module, model.silence, g, "tok")


@golden("text_encoder")
def text_encoder(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("text_encoder.safetensors")
    module, ids = fixtures.text.module, g["in.ids"]
    yield close("hidden", module(ids), g["out.hidden_no_mask"])
    yield close("embedding", module.embed_tokens(ids), g["out.embed_tokens"])
    alone = ids[1:2, : g["out.hidden_single_row1"].shape[1]]
    yield close("row 1 alone", module(alone), g["out.hidden_single_row1"])


@golden("vae")
def vae(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("vae.safetensors")
    module = fixtures.vae.module
    yield close("decode", module.decode(g["decode.in.latents"]), g["decode.out.audio"])
    mean, std = module.encode(g["encode.in.audio"].float())
    yield close("encode.mean", mean, g["encode.out.mean"])
    yield close("encode.std", std, g["encode.out.std"])
    yield close("encode.logvar", 2 * std.log(), g["encode.out.logvar"])
    yield close("encode.sample", mean + std * g["encode.sample.eps"], g["encode.sample.out"])
    mean, std = module.encode(g["encode_uneven.in.audio"].float())
    yield close("uneven.mean", mean, g["encode_uneven.out.mean"])
    yield close("uneven.std", std, g["encode_uneven.out.std"])
    scale = module.encoder(g["encode.in.audio"].float()).chunk(2, dim=1)[1]
    yield close("encode.scale", scale, g["encode.mid.scale"])


def noise_of_windows(like: Tensor, generator: torch.Generator, chunk: int, overlap: int) -> Tensor:
    """What the original draws: each window its own noise, of which the core is kept."""
    noise = torch.empty_like(like)
    for a, b, lo, hi in codec.windows(like.shape[-1], chunk, overlap):
        window = torch.randn(*like.shape[:-1], hi - lo, generator=generator)
        noise[..., a:b] = window[..., a - lo : b - lo]
    return noise


@golden("vae_tiled", "vae_tiled.safetensors", "vae_tiled.json")
def vae_tiled(fixtures: Fixtures) -> Iterator[Difference]:
    g, cases = fixtures.tensors("vae_tiled.safetensors"), fixtures.json("vae_tiled.json")
    handle, hop = fixtures.vae, fixtures.vae.hop
    latents, audio = g["decode.in.latents"].transpose(1, 2), g["encode.in.audio"].float()
    for name, case in cases.items():
        kind, label = name.split(".")
        if kind == "decode":
            ours = codec.decode(handle, latents, chunk=case["chunk_frames"], overlap=case["overlap_frames"])
            yield close(name, ours, g.get(f"decode.out.{label}", g["decode.out.whole"]))
            continue
        window = {"chunk": case["chunk_samples"] // hop, "overlap": case["overlap_samples"] // hop}
        mean = codec.encode(handle, audio, **window).transpose(1, 2)
        yield close(f"{name}.mean", mean, g[f"encode.out.{label}.mean"])
        noise = noise_of_windows(mean, torch.Generator().manual_seed(case["global_seed"]), **window)
        sampled = codec.encode(handle, audio, noise=noise, **window).transpose(1, 2)
        yield close(f"{name}.sampled", sampled, g[f"encode.out.{label}.sampled"])
    yield close("encode.whole", codec.encode(handle, audio, chunk=10**6).transpose(1, 2), g["encode.out.whole_mean"])
