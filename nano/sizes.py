"""How large the nano models are: in all at most 30 MB in float16. Every number is a key of a published config.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from acestep_graph.acestep_core.models.config import ModelConfig
from acestep_graph.acestep_core.models.oobleck import OobleckConfig
from acestep_graph.acestep_core.models.qwen3 import Qwen3Config

GUIDED_HEADS = {3: (0, 1)}
"""Layer → cross-attention heads that are taught to follow the lyrics."""


@dataclass(frozen=True)
class Sizes:
    """The four models. ``words``: entries of the vocabulary without control tokens and codes.

    ``vae``: hop 1920 in two steps, most channels at 200 Hz, few at 48 kHz.
    ``dit``: the condition encoder, tokenizer and detokenizer are narrower than the decoder.
    ``text``, ``lm``: ``vocab_size`` is filled in when the vocabulary is known.
    """

    vae: OobleckConfig
    dit: ModelConfig
    text: Qwen3Config
    lm: Qwen3Config
    words: int


NANO = Sizes(
    vae=OobleckConfig(
        encoder_base_channels=3, decoder_channels=4, downsampling_ratios=(240, 8), channel_multiples=(60, 60)
    ),
    dit=ModelConfig(
        hidden_size=160,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=40,
        encoder_hidden_size=96,
        encoder_intermediate_size=256,
        encoder_num_attention_heads=2,
        encoder_num_key_value_heads=1,
        num_lyric_encoder_hidden_layers=2,
        num_timbre_encoder_hidden_layers=1,
        num_attention_pooler_hidden_layers=2,
        fsq_dim=96,
        fsq_input_levels=(8, 8, 8, 5, 5),
        text_hidden_dim=96,
        guidance_scale=3.0,
        timestep_mu=0.6,
        timestep_sigma=1.2,
        lyric_alignment_layers_config=GUIDED_HEADS,
    ),
    text=Qwen3Config(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
    ),
    lm=Qwen3Config(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    ),
    words=2048,
)

TINY = Sizes(
    vae=OobleckConfig(
        encoder_base_channels=3, decoder_channels=3, downsampling_ratios=(240, 8), channel_multiples=(12, 12)
    ),
    dit=ModelConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        encoder_hidden_size=24,
        encoder_intermediate_size=48,
        encoder_num_attention_heads=2,
        encoder_num_key_value_heads=1,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        num_attention_pooler_hidden_layers=1,
        fsq_dim=24,
        fsq_input_levels=(8, 5, 5),
        text_hidden_dim=24,
        lyric_alignment_layers_config=GUIDED_HEADS,
    ),
    text=Qwen3Config(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
    ),
    lm=Qwen3Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    ),
    words=512,
)
"""To try the machinery in seconds. Three channels in the encoder: with two, four or eight, bfloat16 convolutions with
strides come out wrong on processors with AMX (PyTorch 2.11 to 2.15, the larger models' are right)."""

SIZES = {"nano": NANO, "tiny": TINY}


def published(config: Any, **more: Any) -> dict[str, Any]:
    """A configuration as config.json holds it: what is None is left out, keys of mappings are text."""
    values = {name: value for name, value in asdict(config).items() if value is not None} | more
    heads = values.get("lyric_alignment_layers_config")
    if heads:
        values["lyric_alignment_layers_config"] = {str(layer): list(chosen) for layer, chosen in heads.items()}
    return values
