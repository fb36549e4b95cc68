"""Loaded models as values: what flows on the wires between loading and use.

A handle is immutable. Whoever changes a model (an adapter, another precision) makes a new handle; the
weights themselves are shared and never written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..models.acestep import AceStepModel
from ..models.config import ModelConfig
from ..models.oobleck import OobleckVAE
from ..models.qwen3 import Qwen3
from ..tokenizer import Tokenizer
from .layouts import COMPONENTS

if TYPE_CHECKING:
    from ..lora.adapter import Adapter

KINDS = ("turbo", "sft", "base")


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from where.

    Attributes:
        component: ``dit``, ``text``, ``vae`` or ``lm``.
        files: what was read. layout: original, ComfyUI, ComfyUI all-in-one, diffusers or GGUF.
        kind: turbo, sft or base for the diffusion model, else "".
        file_dtype, dtype: precision in the file and in memory; packed forms, most used first, where there are any.
        loaded: parameters filled. missing: names of optional parts the files lack. unexpected: names not used.
        notes: sentences the user should read.
        state: sizes, times and numbers of the files when they were read; "" where there were none.
    """

    component: str
    files: tuple[str, ...]
    layout: str
    kind: str
    file_dtype: str
    dtype: str
    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    state: str = ""

    def text(self) -> str:
        title = COMPONENTS[self.component]
        lines = [
            f"{title[0].upper()}{title[1:]}{f' ({self.kind})' if self.kind else ''}: {', '.join(self.files)}",
            f"  layout {self.layout}, {self.loaded} tensors, {self.file_dtype} in the file, {self.dtype} in memory",
        ]
        if self.unexpected:
            lines.append(f"  {len(self.unexpected)} tensors not used: {', '.join(self.unexpected[:3])}")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


@dataclass(frozen=True)
class DiffusionModel:
    """The diffusion checkpoint: weights, sizes, kind, and its silence latent [frames, 64] in float32.

    ``adapters`` are those wanted, with their strengths; they play inside :func:`lora.apply.active` alone.
    ``compile`` names the backend of ``torch.compile`` that the sampler runs the layers through, "" for none;
    ``cuda_graph`` has it replay the steps of short pieces as a CUDA graph. The music does not depend on either.
    """

    module: AceStepModel
    kind: str
    silence: Tensor | None
    report: LoadReport
    adapters: tuple[tuple[Adapter, float], ...] = ()
    compile: str = ""
    cuda_graph: bool = False

    @property
    def config(self) -> ModelConfig:
        return self.module.config

    @property
    def dtype(self) -> torch.dtype:
        return self.module.null_condition_emb.dtype

    @property
    def origin(self) -> object:
        """Tells the checkpoint from others, also after it was loaded again: its files as they were, and the precision.
        Weights of no file are only themselves."""
        told = self.report
        return (told.files, told.state, told.dtype) if told.state else self.module.encoder

    @property
    def is_turbo(self) -> bool:
        return self.kind == "turbo"


@dataclass(frozen=True)
class TextEncoder:
    module: Qwen3
    tokenizer: Tokenizer
    report: LoadReport


@dataclass(frozen=True)
class Autoencoder:
    module: OobleckVAE
    report: LoadReport

    @property
    def hop(self) -> int:
        return self.module.config.hop

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype


@dataclass(frozen=True)
class LanguageModel:
    """A planner: ``size`` is its usual label, "" where it is none of the published; ``backend`` is how it decodes."""

    module: Qwen3
    tokenizer: Tokenizer
    report: LoadReport
    size: str = ""
    backend: str = "auto"

    @property
    def dtype(self) -> torch.dtype:
        return self.module.embed_tokens.weight.dtype
