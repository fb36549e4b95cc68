"""Sizes of the diffusion model, read from ``config.json`` or, where there is none, from tensor shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

REAL_FSQ_LEVELS = (8, 8, 8, 5, 5, 5)

ALIGNMENT_HEADS_2B = {2: (6,), 3: (10, 11), 4: (3,), 5: (8, 9), 6: (8,)}
ALIGNMENT_HEADS_XL = {3: (18, 27), 4: (22,), 5: (5, 6, 7), 6: (2, 12, 13), 7: (20, 21)}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one diffusion checkpoint; the defaults are those of the published 2B models.

    ``encoder_*`` are the widths of the condition encoder, tokenizer and detokenizer; None means "as the
    decoder". ``guidance_scale``: what auto means for this checkpoint where it is not what its kind takes; no published
    model says it. ``separate_encoder`` (the XL family) also switches on the learned timbre token.
    """

    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    encoder_hidden_size: int | None = None
    encoder_intermediate_size: int | None = None
    encoder_num_attention_heads: int | None = None
    encoder_num_key_value_heads: int | None = None
    num_lyric_encoder_hidden_layers: int = 8
    num_timbre_encoder_hidden_layers: int = 4
    num_attention_pooler_hidden_layers: int = 2
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    use_sliding_window: bool = True
    sliding_window: int = 128
    layer_types: tuple[str, ...] = ()
    in_channels: int = 192
    audio_acoustic_hidden_dim: int = 64
    patch_size: int = 2
    pool_window_size: int = 5
    fsq_dim: int = 2048
    fsq_input_levels: tuple[int, ...] = REAL_FSQ_LEVELS
    text_hidden_dim: int = 1024
    timbre_hidden_dim: int = 64
    timbre_fix_frame: int = 750
    timestep_mu: float = -0.4
    timestep_sigma: float = 1.0
    data_proportion: float = 0.5
    is_turbo: bool | None = None
    model_version: str | None = None
    is_lego_sft: bool = False
    lyric_alignment_layers_config: Mapping[int, tuple[int, ...]] | None = None
    guidance_scale: float | None = None

    @property
    def separate_encoder(self) -> bool:
        return self.encoder_hidden_size not in (None, self.hidden_size)

    @property
    def encoder_width(self) -> int:
        return self.encoder_hidden_size or self.hidden_size

    def encoder_side(self) -> ModelConfig:
        """The same configuration with the encoder's widths in place of the decoder's."""
        return replace_sizes(
            self,
            hidden_size=self.encoder_width,
            intermediate_size=self.encoder_intermediate_size or self.intermediate_size,
            num_attention_heads=self.encoder_num_attention_heads or self.num_attention_heads,
            num_key_value_heads=self.encoder_num_key_value_heads or self.num_key_value_heads,
        )

    def window(self, layer: int) -> int | None:
        """Reach of layer ``layer`` of any stack to each side, or None where it sees everything."""
        if not self.use_sliding_window:
            return None
        if layer < len(self.layer_types):
            sliding = self.layer_types[layer] == "sliding_attention"
        else:
            sliding = layer % 2 == 0
        return self.sliding_window if sliding else None

    def alignment_heads(self) -> Mapping[int, tuple[int, ...]] | None:
        """Layer → cross-attention heads that follow the lyrics, or None where nobody knows them."""
        if self.lyric_alignment_layers_config:
            return self.lyric_alignment_layers_config
        known = {(24, 16): ALIGNMENT_HEADS_2B, (32, 32): ALIGNMENT_HEADS_XL}
        return known.get((self.num_hidden_layers, self.num_attention_heads))

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> ModelConfig:
        """From the content of a published ``config.json``; keys without meaning here are ignored."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in config.items() if k in known and v is not None}
        for name in ("layer_types", "fsq_input_levels"):
            if name in values:
                values[name] = tuple(values[name])
        heads = values.get("lyric_alignment_layers_config")
        if heads:
            values["lyric_alignment_layers_config"] = {int(k): tuple(v) for k, v in heads.items()}
        return cls(**values)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> ModelConfig:
        """From the shapes of a state dict with the published names.

        Window, rope base and quantizer levels leave no trace in shapes: they are taken as published.
        """

        def rows(name: str) -> int:
            return shapes[name][0]

        def depth(prefix: str) -> int:
            return 1 + max(int(k[len(prefix) :].split(".")[0]) for k in shapes if k.startswith(prefix))

        def heads(block: str) -> tuple[int, int, int]:
            head_dim = rows(f"{block}.self_attn.q_norm.weight")
            return (
                rows(f"{block}.self_attn.q_proj.weight") // head_dim,
                rows(f"{block}.self_attn.k_proj.weight") // head_dim,
                head_dim,
            )

        decoder, lyric = "decoder.layers.0", "encoder.lyric_encoder.layers.0"
        hidden, width = rows(f"{decoder}.self_attn_norm.weight"), rows(f"{lyric}.input_layernorm.weight")
        q_heads, kv_heads, head_dim = heads(decoder)
        encoder_q_heads, encoder_kv_heads, _ = heads(lyric)
        xl = hidden != width
        fsq_width, fsq_count = shapes["tokenizer.quantizer.project_out.weight"]
        if fsq_count != len(REAL_FSQ_LEVELS):
            raise ValueError(
                f"The quantizer has {fsq_count} dimensions, the published one has {len(REAL_FSQ_LEVELS)}; "
                "its levels cannot be told from the weights. Put the checkpoint's config.json beside the file."
            )
        _, in_channels, patch = shapes["decoder.proj_in.1.weight"]
        return cls(
            hidden_size=hidden,
            intermediate_size=rows(f"{decoder}.mlp.gate_proj.weight"),
            num_hidden_layers=depth("decoder.layers."),
            num_attention_heads=q_heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            encoder_hidden_size=width if xl else None,
            encoder_intermediate_size=rows(f"{lyric}.mlp.gate_proj.weight") if xl else None,
            encoder_num_attention_heads=encoder_q_heads if xl else None,
            encoder_num_key_value_heads=encoder_kv_heads if xl else None,
            num_lyric_encoder_hidden_layers=depth("encoder.lyric_encoder.layers."),
            num_timbre_encoder_hidden_layers=depth("encoder.timbre_encoder.layers."),
            num_attention_pooler_hidden_layers=depth("detokenizer.layers."),
            in_channels=in_channels,
            audio_acoustic_hidden_dim=rows("detokenizer.proj_out.weight"),
            patch_size=patch,
            pool_window_size=shapes["detokenizer.special_tokens"][1],
            fsq_dim=fsq_width,
            text_hidden_dim=shapes["encoder.text_projector.weight"][1],
            timbre_hidden_dim=shapes["encoder.timbre_encoder.embed_tokens.weight"][1],
        )


def replace_sizes(config: ModelConfig, **changes: Any) -> ModelConfig:
    """``dataclasses.replace`` that also forgets the encoder's own widths."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    values.update({k: None for k in values if k.startswith("encoder_")}, **changes)
    return ModelConfig(**values)


XL = ModelConfig(
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=32,
    num_attention_heads=32,
    encoder_hidden_size=2048,
    encoder_intermediate_size=6144,
    encoder_num_attention_heads=16,
    encoder_num_key_value_heads=8,
)
"""Sizes of the published XL models."""
