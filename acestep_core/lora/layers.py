"""The layers of the decoder that adapters change: which one a file means, and whether its change fits.

Writers agree on the layer but not on its spelling: they put prefixes before it, write diffusers' names, or
underscores for dots. The last cannot be undone by replacing (``self_attn`` has an underscore of its own), so
every spelling of every layer is looked up in a table made from the decoder itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import nn

from ..checkpoints.header import CheckpointError
from ..checkpoints.loading import without_weights
from ..models.config import XL, ModelConfig
from ..models.dit import DiT
from .names import UNDERSCORE_PREFIXES, spellings, without_prefixes

WIDTH_NAMES = {ModelConfig().hidden_size: "2B", XL.hidden_size: "XL"}
"""What models of a published width are called."""

_LAYER = re.compile(r"(?:^|_)layers[._](\d+)[._]")


class Layers:
    """The layers of the decoder of one size that adapters change: all linear ones and the convolution at the entry.

    Attributes:
        shapes: name → (out, in), for the convolution (out, in · kernel): its weight with the last two dimensions
            joined. kernels: name → kernel, of the convolution alone.
    """

    def __init__(self, config: ModelConfig):
        self.config, self._others = config, {}
        self.shapes: dict[str, tuple[int, int]] = {}
        self.kernels: dict[str, int] = {}
        self._table: dict[str, str] = {}
        for name, module in without_weights(DiT, config).named_modules():
            if isinstance(module, nn.Linear):
                self.shapes[name] = (module.out_features, module.in_features)
            elif isinstance(module, nn.Conv1d):
                self.kernels[name] = module.kernel_size[0]
                self.shapes[name] = (module.out_channels, module.in_channels * self.kernels[name])
            elif name:
                self._others[name] = module
            for spelling in spellings(name) if name else ():
                self._table[spelling] = self._table[spelling.replace(".", "_")] = name

    def find(self, stem: str) -> tuple[str | None, str]:
        """(layer, "") of a stem, or (None, why there is none)."""
        plain = next(filter(self._table.__contains__, self._candidates(stem)), None)
        layer = None if plain is None else self._table[plain]
        if layer in self.shapes:
            return layer, ""
        return None, self._why_not(stem, layer)

    def _candidates(self, stem: str) -> Iterator[str]:
        yield without_prefixes(stem)
        for prefix in UNDERSCORE_PREFIXES:
            if stem.startswith(prefix):
                yield stem[len(prefix) :]
                yield stem[len(prefix) :].removeprefix("decoder_")

    def _why_not(self, stem: str, other: str | None) -> str:
        plain = without_prefixes(stem)
        for prefix in UNDERSCORE_PREFIXES:
            plain = plain.removeprefix(prefix)
        if other is not None:
            kind = type(self._others[other]).__name__
            kinds = {"ConvTranspose1d": "a transposed convolution", "RMSNorm": "a norm"}
            return f"{other} is {kinds.get(kind, f'a group of layers ({kind})')}; adapters change linear layers"
        if plain.startswith("encoder"):
            return "it belongs to the condition encoder, which no adapter changes"
        if plain.startswith(("tokenizer", "detokenizer")):
            return "it belongs to the audio tokenizer, which no adapter changes"
        if stem.startswith(("lora_te", "text_encoder")):
            return "it belongs to a text encoder, which no adapter changes"
        number = _LAYER.search(plain)
        if number and int(number[1]) >= self.config.num_hidden_layers:
            return f"the model has {self.config.num_hidden_layers} layers, numbered from 0"
        return "the decoder has no layer of this name"

    def require(self, what: str, made: Mapping[str, tuple[int, int]]) -> None:
        """Raise unless changes of the shapes ``made``, layer → (out, in), fit; ``what`` names their adapter.

        Raises:
            CheckpointError: naming both widths, where they are the reason.
        """
        wrong = {layer: shape for layer, shape in made.items() if self.shapes.get(layer) != shape}
        if not wrong:
            return
        layer, shape = next(iter(wrong.items()))
        width, other = self.config.hidden_size, width_of(layer, shape)
        if other != width:
            raise CheckpointError(
                f"{what} was made for models of width {named_width(other)}; the loaded model has "
                f"{named_width(width)}. Load the model it was trained on, or an adapter of this width."
            )
        wanted = self.shapes.get(layer)
        fits = f"the model's is {wanted[0]} × {wanted[1]}" if wanted else "the model has no such layer"
        raise CheckpointError(
            f"{what} does not fit the loaded model: its {layer} is {shape[0]} × {shape[1]}, {fits} "
            f"({len(wrong)} of {len(made)} layers do not fit). Load the model it was trained on."
        )


def width_of(layer: str, shape: tuple[int, int]) -> int:
    """Hidden size of a model whose ``layer`` is [out, in]: every layer writes it or reads it."""
    writes = ("o_proj", "down_proj", "condition_embedder", "linear_1", "proj_in.1")
    return shape[0] if layer.endswith(writes) else shape[1]


def named_width(width: int) -> str:
    """``2048 (2B)`` for published widths, else the number."""
    return f"{width} ({WIDTH_NAMES[width]})" if width in WIDTH_NAMES else str(width)
