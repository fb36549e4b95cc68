"""A tiny checkpoint with random weights, to test and to measure the machinery in seconds.

It has every part of the real one under the published file names, loads through the same code, and sounds like
noise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from acestep_graph.acestep_core.checkpoints.weights import CONFIG_KEY
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.config import ModelConfig
from acestep_graph.acestep_core.models.oobleck import OobleckConfig, OobleckVAE, Snake
from acestep_graph.acestep_core.models.qwen3 import LM_SIZES, Qwen3, Qwen3Config

DIT = ModelConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_lyric_encoder_hidden_layers=2,
    num_timbre_encoder_hidden_layers=2,
    fsq_dim=64,
    text_hidden_dim=32,
    lyric_alignment_layers_config={1: (0, 2), 2: (1,)},
)
TEXT = Qwen3Config(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
LM = replace(TEXT, vocab_size=LM_SIZES["1.7B"].vocab_size)
END_OF_TURN = 151_645
"""Id of ``<|im_end|>``."""
VAE = OobleckConfig(encoder_base_channels=8, channel_multiples=(1, 1, 2, 2, 2), decoder_channels=8)

FILES = {
    "diffusion_models/acestep_v1.5_turbo.safetensors": (AceStepModel, DIT, ""),
    "acestep/acestep-v15-base/model.safetensors": (AceStepModel, DIT, ""),
    "text_encoders/qwen_0.6b_ace15.safetensors": (Qwen3, TEXT, "model."),
    "text_encoders/qwen_1.7b_ace15.safetensors": (Qwen3, LM, "model."),
    "vae/ace_1.5_vae.safetensors": (OobleckVAE, VAE, ""),
}


def build(folder: Path, seed: int = 0) -> list[Path]:
    """Write the tiny models into ``folder`` (a models folder), where they are not there already."""
    written = []
    for number, (name, (kind, config, prefix)) in enumerate(FILES.items()):
        path = Path(folder) / name
        written.append(path)
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        module = randomize(kind(config), seed + number)
        if config is LM:
            let_replies_end(module)
        tensors = {prefix + key: value.to(torch.bfloat16) for key, value in published_vae(module).items()}
        about = {"about": "random weights for tests; sounds like noise"}
        if config is DIT:
            about[CONFIG_KEY] = json.dumps(asdict(config))
        save_file(tensors, path, metadata=about)
    return written


def randomize(module: nn.Module, seed: int) -> nn.Module:
    """Random weights that keep signals at their size: norms near 1, matrices scaled by their inputs, weak branches."""
    generator = torch.Generator().manual_seed(seed)
    logs = {id(p) for m in module.modules() if isinstance(m, Snake) for p in (m.alpha, m.beta)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if id(parameter) in logs:
                noise *= 0.1
            elif parameter.dim() == 1:
                noise = 1 + 0.1 * noise if "norm" in name else 0.02 * noise
            elif parameter.dim() == 2 or "conv" in name or "proj" in name:
                noise *= (0.2 if "res_unit" in name else 1.0) / max(1.0, parameter[0].numel()) ** 0.5
            else:
                noise *= 0.3
            parameter.copy_(noise)
    return module.requires_grad_(False)


def let_replies_end(planner: Qwen3) -> None:
    """Make the end of the turn come after some hundred words; random weights alone would go on for thousands."""
    with torch.no_grad():
        planner.embed_tokens.weight[:, 0] = 5.0
        planner.embed_tokens.weight[END_OF_TURN, 0] = 11.0


def published_vae(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors under published names: the autoencoder's weights split into norm and direction."""
    state = module.state_dict()
    if not isinstance(module, OobleckVAE):
        return state
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".weight"):
            stem = name.removesuffix("weight")
            dims = tuple(range(1, tensor.dim()))
            split[stem + "weight_g"] = torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
            split[stem + "weight_v"] = tensor
        else:
            split[name] = tensor
    return split
