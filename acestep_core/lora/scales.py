"""Alpha over rank: where each writer of adapters puts the number that says how loud its pairs are."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..checkpoints.header import CheckpointError
from .names import spellings, without_prefixes

DIFFUSERS_KEY = "lora_adapter_metadata"
"""Metadata of a safetensors file under which diffusers keeps the adapter's configuration."""

PEFT_TYPES = ("LORA", "LOKR", "LOHA")
ALTERED = ("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "use_bdlora", "use_qalora")
"""Options of PEFT that make another layer of the same tensors."""
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations of PEFT that move a part of the base weights into the adapter."""

_PLAIN = re.compile(r"[A-Za-z0-9_.*^$\\]*")


@dataclass(frozen=True)
class Recipe:
    """What an ``adapter_config.json`` says of scales.

    Attributes:
        alpha: of all layers but those whose name a pattern of ``alphas`` fits. rslora: divide by √rank.
        divides_whole: alpha / ``rank`` also where nothing is factored, as PEFT's LoKr does.
    """

    alpha: float
    rank: int
    rslora: bool = False
    divides_whole: bool = False
    alphas: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def scale(self, layer: str, rank: int | None) -> float:
        """Scale of a layer whose pair has ``rank``, None where nothing is factored."""
        alpha = _fitting(self.alphas, layer, self.alpha)
        if rank is None:
            return alpha / _fitting(self.ranks, layer, self.rank) if self.divides_whole else 1.0
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def recipe(config: Mapping[str, Any], source: str) -> Recipe:
    """The recipe in a configuration of PEFT, ``source`` being what to call it in messages.

    Raises:
        CheckpointError: a kind of adapter that is not played, or numbers that are none.
    """
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind not in PEFT_TYPES:
        raise CheckpointError(
            f"{source} describes an adapter of type {kind[:40]}. Played are {', '.join(PEFT_TYPES)}; convert it or "
            "train it as one of them."
        )
    altered = [name for name in ALTERED if config.get(name)]
    if altered:
        raise CheckpointError(f"{source} asks for {altered[0]}, which is not played. Train or save it as a plain LoRA.")
    alpha = config.get("lora_alpha" if kind == "LORA" else "alpha", 8)
    first = config.get("init_lora_weights")
    notes = ()
    if isinstance(first, str) and first.lower().startswith(BASE_CHANGING):
        notes = (
            f"It was started by {first[:40]}, which changes the base weights too. It sounds as trained only if it was "
            "converted to a plain LoRA when it was saved.",
        )
    return Recipe(
        alpha=_number(alpha, "alpha", source),
        rank=int(_number(config.get("r", 8), "r", source, least=1)),
        rslora=bool(config.get("use_rslora")),
        divides_whole=kind == "LOKR",
        alphas=_patterns(config.get("alpha_pattern"), "alpha_pattern", source),
        ranks=_patterns(config.get("rank_pattern"), "rank_pattern", source, least=1),
        notes=notes,
    )


def diffusers_recipe(metadata: Mapping[str, str], source: str) -> Recipe | None:
    """The recipe that diffusers writes into the header; None where there is none."""
    if DIFFUSERS_KEY not in metadata:
        return None
    try:
        config = json.loads(metadata[DIFFUSERS_KEY])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: its {DIFFUSERS_KEY} is not JSON.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{source}: its {DIFFUSERS_KEY} is not a JSON object.")
    own = {key.removeprefix("transformer."): value for key, value in config.items()}
    return recipe(own, f"The header of {source}")


def _fitting(patterns: Mapping[str, float], layer: str, otherwise: float) -> float:
    """The value of the first pattern that fits one of the layer's spellings."""
    for pattern, value in patterns.items():
        if any(fits(pattern, spelling) for spelling in spellings(layer)):
            return value
    return otherwise


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern of PEFT means a layer: it is the end of its name, at a dot, or its whole with ``^``.

    Of regular expressions ``\\.`` and ``.*`` are known; a stranger's file gets no chance to keep the machine busy.
    """
    plain = pattern.removesuffix("$").replace("\\.", ".")
    whole = plain.startswith("^")
    plain = without_prefixes(plain.removeprefix("^")).replace(".*", "*")
    return fnmatch.fnmatchcase(name, plain) or (not whole and fnmatch.fnmatchcase(name, f"*.{plain}"))


def _patterns(value: Any, name: str, source: str, least: float = -math.inf) -> dict[str, float]:
    if not value:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise CheckpointError(f"{source}: {name} is not a table of layer names.")
    for key in value:
        # A star only behind a dot, a backslash only before one: what fits() can translate.
        if not _PLAIN.fullmatch(key) or re.search(r"(?<!\.)\*|\\(?!\.)|(?!^)\^|\$(?!$)", key):
            raise CheckpointError(
                f"{source}: {name} has {key[:60]!r}. Only names of layers, with .* for any part, are read here; "
                "write them out."
            )
    return {key: _number(number, f"{name} of {key[:60]!r}", source, least) for key, number in value.items()}


def _number(value: Any, name: str, source: str, least: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckpointError(f"{source}: {name} is {str(value)[:40]!r}, not a number.")
    if not abs(value) < 1e9 or value < least:
        raise CheckpointError(f"{source}: {name} is {value:g}, which makes no scale.")
    return float(value)
