"""Speed as a choice on the canvas: a compiled diffusion model beside the plain one."""

from __future__ import annotations

from typing import Any

from .widgets import MODEL, ROOT, socket, switch

CATEGORY = f"{ROOT}/Load"
OFF = "Switched off: the model passes through as it is."


class CompileModel:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Makes sampling faster by compiling the layers of the diffusion model. The first song takes a minute or more "
        "longer; it pays when many follow, and songs of other lengths need no new compiling. The music stays the same "
        "but for rounding. What was compiled stands in the sampler's settings."
    )
    SEARCH_ALIASES = ["ace step", "torch compile", "speed", "faster", "cuda graph", "inductor"]
    FUNCTION = "compile"
    RETURN_TYPES = (MODEL, "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = ("The model to sample with; the one that came in stays as it is", "What the sampler will do")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        layers = (
            "Compile the layers. On the processor this needs a C++ compiler, on an NVIDIA card Triton; where that is "
            "missing, the sampler says so and goes on without."
        )
        graph = (
            "Replay each step as a CUDA graph: fewer pauses between the steps of songs up to about two minutes. NVIDIA "
            "cards only; takes some more memory."
        )
        return {
            "required": {
                "model": socket(MODEL, "Diffusion model, with or without LoRAs."),
                "compile_layers": switch(True, layers),
                "cuda_graph": switch(False, graph),
            }
        }

    def compile(self, model: Any, compile_layers: bool, cuda_graph: bool) -> tuple:
        from ..acestep_core.sampling import pace

        if not (compile_layers or cuda_graph):
            return pace.compiled(model, False, False), OFF
        return pace.compiled(model, compile_layers, cuda_graph), pace.plan(compile_layers, cuda_graph)
