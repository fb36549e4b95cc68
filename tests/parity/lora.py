"""Adapters: the decoder with two published-style folders, alone, at several strengths, and stacked."""

from __future__ import annotations

import re
from collections.abc import Iterator

from acestep_graph.acestep_core.lora.apply import active, with_adapter
from acestep_graph.acestep_core.lora.formats import read_adapter

from .golden import Difference, Fixtures, close, equal, golden


@golden("lora_forward")
def lora_forward(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("lora_forward.safetensors")
    base = fixtures.model("turbo")
    folders = {name: fixtures.root / "adapters" / f"adapter_{name}" for name in "ab"}
    adapters = {name: read_adapter(folder, base.config) for name, folder in folders.items()}
    inputs = [g[f"in.{name}"] for name in ("hidden_states", "context_latents", "encoder_hidden_states", "t")]
    plain = base.module.decoder(*inputs)
    yield close("base", plain, g["out.base"])
    for key in sorted(key for key in g if key.startswith("out.") and key != "out.base"):
        model = base
        for name, strength in re.findall(r"([ab])(?:_scale)?(-?[\d.]+)", key.removeprefix("out.")):
            model = with_adapter(model, adapters[name], float(strength))
        with active(model):
            made = model.module.decoder(*inputs)
        yield close(key, made, g[key])
        yield equal(f"after {key}", bool((base.module.decoder(*inputs) == plain).all()), True)
