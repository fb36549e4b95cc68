"""How networks begin: branches that end in zero, so that each block at first passes on what it is given."""

from __future__ import annotations

import torch
from torch import nn

from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.layers import RMSNorm
from acestep_graph.acestep_core.models.qwen3 import Qwen3


@torch.no_grad()
def begin(module: nn.Module, seed: int) -> nn.Module:
    """Fill every parameter: norms 1, matrices N(0, 1/inputs), the last matrix of a branch zero, embeddings small.

    Modulation of the decoder's layers starts at zero, gates included (adaLN-Zero, Peebles and Xie 2023).
    """
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, RMSNorm):
            part.weight.fill_(1.0)
        elif isinstance(part, nn.Embedding):
            part.weight.normal_(0, 0.02 if isinstance(module, Qwen3) else 1.0)
        elif isinstance(part, (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)):
            inputs = part.weight[0].numel() if not isinstance(part, nn.ConvTranspose1d) else part.in_channels
            part.weight.normal_(0, inputs**-0.5)
            if part.bias is not None:
                part.bias.zero_()
    for name, parameter in module.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.mul_(0.1)
        elif name.endswith(("special_token", "special_tokens", "null_condition_emb")):
            parameter.normal_(0, 0.5)
        elif name.endswith("scale_shift_table") or "time_proj" in name:
            parameter.zero_()
    if isinstance(module, AceStepModel):
        last = module.decoder.proj_out[1]
        last.weight.zero_()
        last.bias.zero_()
    return module
