"""A pack for tests: gives ComfyUI a card of SIMULATED_CARD_MB that the CPU plays, and another model to crowd it.

ComfyUI's own memory management decides what is loaded and evicted; only what it asks the driver is answered here.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import comfy.model_management as management
import execution
import torch
from comfy.model_patcher import ModelPatcher

sys.path.append(str(Path(__file__).resolve().parents[2]))
from simulated_card import DEVICE, SimulatedCard  # noqa: E402

MB = 2**20
CARD = SimulatedCard(float(os.environ["SIMULATED_CARD_MB"]) / 1024)
CPU = torch.device("cpu")


def free(device=None, torch_free_too=False):
    on_card = device is None or torch.device(device) == DEVICE
    amount = CARD.free if on_card else 8 << 30
    return (amount, amount) if torch_free_too else amount


def total(device=None, torch_total_too=False):
    on_card = device is None or torch.device(device) == DEVICE
    amount = CARD.size if on_card else 8 << 30
    return (amount, amount) if torch_total_too else amount


for name in ("get_torch_device", "text_encoder_device", "vae_device"):
    setattr(management, name, lambda: DEVICE)
for name in ("unet_offload_device", "text_encoder_offload_device", "vae_offload_device"):
    setattr(management, name, lambda: CPU)
management.get_free_memory, management.get_total_memory = free, total
management.vram_state = management.VRAMState.NORMAL_VRAM
management.EXTRA_RESERVED_VRAM = 0
management.minimum_inference_memory = lambda: 8 * MB
management.vae_dtype = lambda *_: torch.float32
management.should_use_bf16 = management.should_use_fp16 = lambda *_, **__: False

execute = execution.PromptExecutor.execute


def on_the_card(*args, **kwargs):
    with CARD:
        return execute(*args, **kwargs)


execution.PromptExecutor.execute = on_the_card


class Weights(torch.nn.Module):
    def __init__(self, megabytes: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(megabytes, MB // 4), requires_grad=False)


class OtherModel:
    """Loads a model of another pack after ``audio`` was made, and tells what lies where."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "tests", "load", (), True
    held: dict[int, ModelPatcher] = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"audio": ("AUDIO",), "megabytes": ("INT", {"max": 100000})}}

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")

    def load(self, audio, megabytes):
        before = places()
        if megabytes not in self.held:
            self.held[megabytes] = ModelPatcher(Weights(megabytes), DEVICE, CPU)
        management.load_models_gpu([self.held[megabytes]])
        seen = {"before": before, "after": places(), "used": CARD.used, "peak": CARD.peak}
        return {"ui": {"text": [json.dumps(seen)]}}


def places() -> dict[str, list[str]]:
    """Every module that has a patcher of its own: the devices of its tensors."""
    found: dict[str, set[str]] = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.nn.Module) and "comfy_patcher" in vars(thing):
            tensors = [*thing.parameters(), *thing.buffers()]
            found.setdefault(type(thing).__name__, set()).update(tensor.device.type for tensor in tensors)
    return {name: sorted(devices) for name, devices in found.items()}


NODE_CLASS_MAPPINGS = {"TestsOtherModel": OtherModel}
