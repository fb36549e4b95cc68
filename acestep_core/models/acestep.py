"""The whole diffusion checkpoint: decoder, condition encoder, tokenizer, detokenizer, null condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .audio_codes import AudioDetokenizer, AudioTokenizer
from .conditioner import ConditionEncoder
from .config import ModelConfig
from .dit import DiT


class AceStepModel(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.decoder = DiT(config)
        self.encoder = ConditionEncoder(config)
        self.tokenizer = AudioTokenizer(config)
        self.detokenizer = AudioDetokenizer(config)
        self.null_condition_emb = nn.Parameter(torch.empty(1, 1, config.encoder_width))

    def hints(self, latents: Tensor, silence: Tensor) -> Tensor:
        """Latents through tokenizer, quantizer and detokenizer, cut to their length: [B, T, 64] → the same."""
        quantized, _ = self.tokenizer(latents, silence)
        return self.detokenizer(quantized)[:, : latents.shape[1]]

    def decode_codes(self, codes: Tensor) -> Tensor:
        """5 Hz codes [B, n] → latents [B, 5·n, 64]. Codes beyond the codebook are clamped into it."""
        codes = codes.clamp(0, self.tokenizer.quantizer.codebook_size - 1)
        return self.detokenizer(self.tokenizer.quantizer.from_indices(codes))
