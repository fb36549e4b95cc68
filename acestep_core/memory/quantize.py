"""The decoder's matrices as 8-bit integers, one scale a row: half the memory of bfloat16, by torchao.

>>> from acestep_core.checkpoints import loading
>>> model = loading.load_diffusion_model("models/acestep/acestep-v15-turbo", dtype="int8")

A quantized layer stays the ``nn.Linear`` it was. Its weight alone becomes a tensor that ``F.linear`` takes as it
is: activations keep their precision, and the integers are turned into it at every call. That pays where many rows
share a matrix, as in the decoder's layers, and costs where there are few: everything else stays as it is.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "decoder.layers."
"""Where the layers are that see every frame. The time embedding sees one row a step, the rest runs once a song."""
PRECISIONS = (torch.float32, torch.bfloat16)
"""Of the activations. The sums of float16 activations and integers leave its range before the scale is applied."""

LEAST_SCALE = torch.finfo(torch.float32).eps
"""Of rows that are zero, or as good as."""
VALUES_AT_ONCE = 1 << 18
"""Few: allocators keep a gap for each large buffer that was there for a moment beside a weight that stays."""


def require() -> None:
    """Raise unless this machine can quantize.

    Raises:
        ValueError: torchao is missing, too old, or does not fit this PyTorch.
    """
    _kind()


def is_available() -> bool:
    """Whether this machine can quantize."""
    try:
        require()
    except ValueError:
        return False
    return True


def int8_weights(module: nn.Module) -> frozenset[str]:
    """Names of the weights of a diffusion checkpoint that gain by INT8: the matrices of the decoder's layers."""
    parts = module.named_modules()
    return frozenset(f"{n}.weight" for n, part in parts if n.startswith(PREFIX) and isinstance(part, nn.Linear))


def quantize_linear(module: nn.Linear) -> nn.Linear:
    """Replace the weight W [out, in] of ``module`` by its INT8 form; one that has it stays as it is.

    Symmetric, by rows: scale [out, 1] = max |W| / 127.5 in the precision of W, then values [out, in] = W / scale,
    rounded half to even and kept within −128 … 127. These are the numbers of torchao 0.18, in any version of it.

    Raises:
        ValueError: a weight of another precision than :data:`PRECISIONS`, or torchao is missing.
    """
    weight = module.weight
    if is_quantized(weight):
        return module
    if weight.dtype not in PRECISIONS:
        name = str(weight.dtype).removeprefix("torch.")
        raise ValueError(f"INT8 works with weights of float32 or bfloat16, not {name}: load the model in bf16 first.")
    kind = _kind()
    with torch.inference_mode(False), torch.no_grad():
        values, scale = integers(weight.detach())
        made = kind(qdata=values, scale=scale, block_size=[1, weight.shape[1]], dtype=weight.dtype)
        module.weight = nn.Parameter(made, requires_grad=False)
    return module


def integers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values [out, in] in int8 and scale [out, 1] in float32 of a weight [out, in], a few rows at a time."""
    values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), 1, dtype=torch.float32, device=weight.device)
    rows = max(1, VALUES_AT_ONCE // weight.shape[1])
    scratch = torch.empty(min(rows, len(weight)), weight.shape[1], dtype=torch.float32, device=weight.device)
    for some, whole, factor in zip(values.split(rows), weight.split(rows), scale.split(rows), strict=True):
        largest = torch.linalg.vector_norm(whole, torch.inf, dim=1, keepdim=True)
        factor.copy_((largest / 127.5).clamp_(min=LEAST_SCALE))
        exact = torch.mul(whole, 1 / factor, out=scratch[: len(whole)])
        some.copy_(exact.round_().clamp_(-128, 127))
    return values, scale


def is_quantized(weight: Tensor) -> bool:
    """Whether a weight is held as integers and scales."""
    return hasattr(weight, "qdata")


def int8_bytes(module: nn.Module) -> int:
    """Bytes that the parameters and buffers of ``module`` take: integers and scales where quantized, else as usual."""
    return sum(_bytes(tensor) for tensors in (module.parameters(), module.buffers()) for tensor in tensors)


def _bytes(tensor: Tensor) -> int:
    if not is_quantized(tensor):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    return sum(_bytes(getattr(tensor, name)) for name in names)


@functools.cache
def _kind() -> Any:
    """The class of quantized weights. torchao is imported when it is first wanted."""
    try:
        from torchao.quantization import Int8Tensor
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"int8 needs the package torchao, 0.15 or newer, which cannot be imported here ({error}). "
            "Install it (pip install torchao) or choose bf16."
        ) from error

    class Int8Weight(Int8Tensor):
        """torchao's tensor, which moves in inference mode too and knows its own size.

        In inference mode ``to`` arrives whole instead of as a copy, and the answer to the whole is tied to the storage
        of what was moved: it would say that it still is where it came from, and never move back.
        """

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func.overloadpacket is torch.ops.aten.to:
                told = (*args[1:], *kwargs.values())
                device = next((value for value in told if isinstance(value, torch.device)), args[0].device)
                if device == args[0].device:
                    return args[0]
                non_blocking = kwargs.get("non_blocking", False)
                func, args = torch.ops.aten._to_copy.default, args[:1]
                kwargs = {"device": device, "non_blocking": non_blocking}
            with torch.inference_mode(False):
                return super().__torch_dispatch__(func, types, args, kwargs)

        @property
        def nbytes(self) -> int:
            return _bytes(self)

    return Int8Weight
