"""From a run to a models folder in the published layout, in float16: what every loader of the engine opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from acestep_graph.acestep_core.checkpoints.handles import Autoencoder, LoadReport
from acestep_graph.acestep_core.codec import SILENT_SECONDS, encode
from acestep_graph.acestep_core.models.oobleck import OobleckVAE

from .run import write_atomically
from .sizes import published

TURBO, BASE = "acestep-v15-turbo", "acestep-v15-base"
TEXT, LM, VAE = "Qwen3-Embedding-0.6B", "acestep-5Hz-lm-1.7B", "vae"
"""Folders, named as the models whose place they take, so that every workflow finds them."""
LARGEST_HALF = 65504.0


def silence_latent(vae: OobleckVAE, frames: int) -> Tensor:
    """What the autoencoder makes of silence, [frames, 64]: its first frames as they are, then its steady state."""
    config = vae.config
    report = LoadReport("vae", (), "original", "", "", "", 0)
    sound = torch.zeros(1, config.audio_channels, int(SILENT_SECONDS * config.sampling_rate))
    mean = encode(Autoencoder(vae, report), sound)[0]
    half = min(len(mean) // 2, frames)
    return torch.cat((mean[:half], mean[half].expand(frames - half, -1))).contiguous()


def write_model(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], name: str = "model.safetensors"
) -> Path:
    """One folder: weights in float16 and config.json.

    Raises:
        ValueError: a weight that float16 cannot hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()) or float(tensor.abs().max()) > LARGEST_HALF:
            raise ValueError(f"{key} of {folder.name} does not fit float16; train with a lower learning rate.")
    half = {key: tensor.detach().cpu().half().contiguous().clone() for key, tensor in tensors.items()}
    path = folder / name
    write_atomically(path, lambda fresh: save_file(half, fresh, {"format": "pt"}))
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
    return path


def write_vae(folder: Path, vae: OobleckVAE) -> Path:
    """The autoencoder, its weights plain: weight normalisation has nothing left to do."""
    config = published(vae.config, _class_name="AutoencoderOobleck")
    return write_model(folder / VAE, vae.state_dict(), config, "diffusion_pytorch_model.safetensors")


def write_diffusion(folder: Path, kind: str, tensors: Mapping[str, Tensor], config: Any, silence: Tensor) -> Path:
    """A diffusion model of ``kind`` turbo or base, with the silence latent [frames, 64] beside it."""
    place = folder / (TURBO if kind == "turbo" else BASE)
    more = {"model_type": "acestep", "architectures": ["AceStepConditionGenerationModel"]}
    path = write_model(place, tensors, published(config, **more, is_turbo=kind == "turbo", model_version=kind))
    latent = {"silence_latent": silence.T[None].contiguous().half()}
    write_atomically(place / "silence_latent.safetensors", lambda fresh: save_file(latent, fresh))
    return path


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
