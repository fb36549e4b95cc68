"""Writes models as GGUF files, with the names and the mixture of types of the published ones."""

import json

import numpy as np
import torch

from acestep_graph.acestep_core.checkpoints.gguf_header import BLOCKS
from tests.memory.blocks import random_blocks

MIXTURES = {
    "Q8_0": ("Q8_0", "Q8_0"),
    "Q6_K": ("Q6_K", "Q6_K"),
    "Q5_K_M": ("Q5_K", "Q6_K"),
    "Q4_K_M": ("Q4_K", "Q6_K"),
}
"""Type of most matrices, and of values and of what leads out of an MLP in every third layer."""
UNTOUCHED = ("scale_shift_table", "null_condition_emb", "silence_latent")


def type_of(name, tensor, mixture, layered=True):
    """As the published files are packed: vectors in F32, matrices of whole blocks packed, the rest in BF16."""
    most, some = MIXTURES[mixture]
    if tensor.squeeze().dim() < 2 or name.endswith("silence_latent"):
        return "F32"
    number = name.split("layers.")[-1].split(".")[0]
    wanted = some if number in "0369" and name.endswith(("v_proj.weight", "down_proj.weight")) else most
    fits = tensor.shape[-1] % BLOCKS[wanted][0] == 0 and not name.endswith(UNTOUCHED)
    return wanted if fits else "BF16"


def write(path, tensors, mixture="Q4_K_M", config=None, arch="acestep-dit", types=None, own_shapes=(), trimmed=True):
    """A file of ``tensors``. Answer: the numbers that it holds, in float32, by name.

    K types cannot be made by the library: their blocks are random ones. ``trimmed``: dimensions of 1 in front go.
    """
    import gguf

    writer = gguf.GGUFWriter(path, arch)
    if config is not None:
        writer.add_string("acestep.config_json", json.dumps(config))
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ü"])
    writer.add_array("acestep.fsq_input_levels", [8, 8, 8, 5, 5, 5])
    held = {}
    for seed, (name, tensor) in enumerate(tensors.items()):
        kind = gguf.GGMLQuantizationType[(types or {}).get(name) or type_of(name, tensor, mixture)]
        shape = list(tensor.shape)
        while trimmed and len(shape) > 1 and shape[0] == 1:
            shape.pop(0)
        numbers = tensor.float().numpy().reshape(shape)
        if name in own_shapes:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(n) for n in tensor.shape])
            numbers = numbers.reshape(-1, 256)
        if kind.name in ("Q6_K", "Q5_K", "Q4_K"):
            flat = numbers.reshape(-1, numbers.shape[-1])
            packed = random_blocks(kind.name, *flat.shape, size=2 * float(flat.std()), seed=seed)
            packed = packed.reshape(*numbers.shape[:-1], -1)
        else:
            packed = gguf.quantize(numbers, kind)
        held[name] = torch.from_numpy(np.array(gguf.dequantize(packed, kind))).reshape(tensor.shape)
        writer.add_tensor(name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held
