"""Every training setting: its default, its range, and the memory it will take. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..models.config import ModelConfig

METHODS = ("lora", "dora", "lokr")
ATTENTIONS = ("both", "self", "cross")
TIMESTEPS = ("auto", "continuous", "discrete")
SCHEDULES = ("cosine", "linear", "constant")
OPTIMIZERS = ("adamw", "adamw8bit")
PRECISIONS = ("auto", "bf16", "fp32")

RANGES: dict[str, tuple[float, float]] = {
    "rank": (1, 256),
    "alpha": (1, 512),
    "factor": (0, 64),
    "dropout": (0.0, 0.5),
    "learning_rate": (1e-7, 1e-2),
    "epochs": (1, 10000),
    "batch_size": (1, 8),
    "accumulation": (1, 64),
    "save_every": (1, 1000),
    "save_minutes": (0.0, 1440.0),
    "shift": (1.0, 5.0),
    "seed": (0, 2**32 - 1),
    "condition_dropout": (0.0, 1.0),
    "min_snr": (0.0, 100.0),
    "warmup_steps": (0, 100000),
    "weight_decay": (0.0, 1.0),
    "max_grad_norm": (0.0, 100.0),
}
"""Both ends are allowed."""
CHOICES = {
    "method": METHODS,
    "attention": ATTENTIONS,
    "timesteps": TIMESTEPS,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "precision": PRECISIONS,
}
SWITCHES = ("mlp", "gradient_checkpointing")
FREE_ON_RESUME = ("epochs", "save_every", "save_minutes", "gradient_checkpointing")
"""What may differ when a run goes on; anything else would make it another run."""

BETAS, EPS = (0.9, 0.999), 1e-8
FLOOR = 0.01
"""Where cosine and linear end, as a share of the learning rate."""
WARMUP_FROM = 0.1


@dataclass(frozen=True)
class TrainSettings:
    """How an adapter is trained; the defaults are those of the guides.

    Attributes:
        method: lora; dora (adds a trained norm for every row of a weight); or lokr (a Kronecker product of two small
            matrices: far fewer numbers, usually trained at 1e-3).
        rank, alpha: size of the adapter; its changes are scaled by alpha / rank. The larger matrix of lokr is whole
            where the rank is at least half its longer side; that layer then has neither rank nor alpha.
        factor: of lokr: the most rows and columns of the smaller matrix; 0 splits both sides of a weight as evenly as
            they can be split.
        dropout: share of an adapter's inputs that a step leaves out.
        attention: both, self or cross: whose q, k, v and o are adapted. mlp: gate, up and down as well.
        learning_rate: at its highest. schedule: cosine or linear to 1 % of it, or constant.
        warmup_steps: rising from a tenth; at most a tenth of all steps is used.
        epochs: passes over the data. batch_size: items of a pass through the model. accumulation: passes of a step.
        timesteps: continuous (as the model was trained), or discrete (the eight levels turbo models play at);
            auto is continuous.
        shift: warps the discrete levels towards noise; continuous timesteps do not know it.
        condition_dropout: how often an item is trained without its prompt and lyrics.
        min_snr: γ of min-SNR weighting (Hang et al. 2023, arXiv 2303.09556); 0 is off, 5 is usual.
        weight_decay, max_grad_norm: of AdamW, and where gradients are clipped; 0 is off.
        optimizer: adamw, or adamw8bit (its moments take a quarter of the memory; needs torchao).
        precision: of the frozen model: auto is bf16 where the device computes it, else fp32. Adapters are fp32.
        gradient_checkpointing: computes layers twice to keep little of them in memory.
        save_every: epochs between checkpoints that stay. save_minutes: between those that only guard the run;
            0 is off.
        seed: of everything drawn.
    """

    method: str = "lora"
    rank: int = 64
    alpha: float = 128.0
    factor: int = 0
    dropout: float = 0.1
    attention: str = "both"
    mlp: bool = False
    learning_rate: float = 1e-4
    schedule: str = "cosine"
    warmup_steps: int = 100
    epochs: int = 500
    batch_size: int = 1
    accumulation: int = 1
    timesteps: str = "auto"
    shift: float = 3.0
    condition_dropout: float = 0.15
    min_snr: float = 0.0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    optimizer: str = "adamw"
    precision: str = "auto"
    gradient_checkpointing: bool = True
    save_every: int = 200
    save_minutes: float = 10.0
    seed: int = 42

    def __post_init__(self) -> None:
        problem = self.problem()
        if problem:
            raise ValueError(problem)

    def problem(self) -> str | None:
        """The first value that is not allowed, in a sentence; None when all are fine."""
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                return f"{name} is {value!r}; allowed is one of {', '.join(allowed)}."
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                return f"{name} is {getattr(self, name)!r}; allowed is on or off."
        for name, (low, high) in RANGES.items():
            value, default = getattr(self, name), getattr(type(self), name)
            whole = isinstance(default, int)
            number = isinstance(value, (int,) if whole else (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                return f"{name} is {value!r}; allowed is {kind} from {low:g} to {high:g}."
        return None

    @property
    def discrete(self) -> bool:
        return self.timesteps == "discrete"

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def targets(self, config: ModelConfig) -> tuple[str, ...]:
        """Names of the decoder's linear layers that are trained, in the order of the model."""
        blocks = {"both": ("self_attn", "cross_attn"), "self": ("self_attn",), "cross": ("cross_attn",)}
        ends = [f"{block}.{part}_proj" for block in blocks[self.attention] for part in "qkvo"]
        ends += [f"mlp.{part}_proj" for part in ("gate", "up", "down")] if self.mlp else []
        return tuple(f"layers.{index}.{end}" for index in range(config.num_hidden_layers) for end in ends)

    def steps_an_epoch(self, items: int) -> int:
        """Optimizer steps that ``items``, repeats counted, make; the last one may be of fewer passes."""
        return math.ceil(math.ceil(items / self.batch_size) / self.accumulation)

    def steps(self, items: int) -> int:
        return self.steps_an_epoch(items) * self.epochs

    def rate(self, step: int, total: int) -> float:
        """Learning rate of optimizer step ``step``, 0 to total − 1."""
        warmup = min(self.warmup_steps, max(1, total // 10))
        if step < warmup:
            return self.learning_rate * (WARMUP_FROM + (1 - WARMUP_FROM) * step / warmup)
        if self.schedule == "constant":
            return self.learning_rate
        done = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
        left = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (FLOOR + (1 - FLOOR) * left)

    def values(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> TrainSettings:
        """From what :meth:`values` gave.

        Raises:
            ValueError: a name that is no setting, or a value that is not allowed.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no training setting.")
        return cls(**values)


# -- memory

GIB = 2**30
ACTIVATION_GIB = 11.2 / 6000
"""A latent frame through the 2B decoder, kept for the way back, bf16 (measured at 60 and 240 s, with conditions)."""
KEPT_GIB = 0.37 / 6000
"""The same where only the inputs of layers are kept."""
MLP_SHARE = 1.25
CONTEXT_GIB = 1.0


@dataclass(frozen=True)
class MemoryEstimate:
    """What training takes on the device, in GiB."""

    weights: float
    adapter: float
    activations: float
    reserve: float = CONTEXT_GIB

    @property
    def total(self) -> float:
        return self.weights + self.adapter + self.activations + self.reserve

    def text(self) -> str:
        return (
            f"About {self.total:.1f} GiB: model {self.weights:.1f}, adapter and optimizer {self.adapter:.1f}, "
            f"activations {self.activations:.1f}, reserve {self.reserve:.1f}."
        )


def linear_shape(config: ModelConfig, layer: str) -> tuple[int, int]:
    """(out, in) of a target of :meth:`TrainSettings.targets`."""
    width, inner, part = config.hidden_size, config.intermediate_size, layer.rsplit(".", 1)[-1]
    heads, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    return {
        "q_proj": (heads, width),
        "k_proj": (kv, width),
        "v_proj": (kv, width),
        "o_proj": (width, heads),
        "gate_proj": (inner, width),
        "up_proj": (inner, width),
        "down_proj": (width, inner),
    }[part]


@dataclass(frozen=True)
class KronShape:
    """How a layer [a·c, b·d] is split for LoKr: left [a, b], right [c, d], the latter whole or of ``rank``."""

    a: int
    b: int
    c: int
    d: int
    rank: int | None

    @property
    def numbers(self) -> int:
        right = self.c * self.d if self.rank is None else self.rank * (self.c + self.d)
        return self.a * self.b + right


def kron_shape(out: int, inside: int, settings: TrainSettings) -> KronShape:
    """As LyCORIS splits a layer [out, in]: each side into two factors, the smaller first and at most ``factor``."""

    def smaller(size: int) -> int:
        most = math.isqrt(size)
        most = min(most, settings.factor) if settings.factor else most
        return next(number for number in range(most, 0, -1) if size % number == 0)

    a, b = smaller(out), smaller(inside)
    c, d = out // a, inside // b
    return KronShape(a, b, c, d, None if settings.rank >= max(c, d) / 2 else settings.rank)


def most_rank(config: ModelConfig, settings: TrainSettings) -> int:
    """The longest side of the smallest layer to train: a higher rank cannot be meant, and no file of it is read."""
    return min(max(linear_shape(config, layer)) for layer in settings.targets(config))


def adapter_parameters(config: ModelConfig, settings: TrainSettings) -> int:
    """Numbers that are trained."""
    shapes = [linear_shape(config, layer) for layer in settings.targets(config)]
    if settings.method == "lokr":
        return sum(kron_shape(*shape, settings).numbers for shape in shapes)
    magnitudes = sum(out for out, _ in shapes) if settings.method == "dora" else 0
    return settings.rank * sum(out + inside for out, inside in shapes) + magnitudes


def decoder_parameters(config: ModelConfig) -> int:
    """Numbers in the frozen decoder."""
    width, patch = config.hidden_size, config.patch_size
    heads, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    attention = 2 * width * (heads + kv) + 2 * config.head_dim
    layer = 2 * attention + 3 * width * config.intermediate_size + 3 * width + 6 * width
    time = 256 * width + width + width * width + width + 6 * width * width + 6 * width
    ends = patch * width * (config.in_channels + config.audio_acoustic_hidden_dim)
    ends += width + config.audio_acoustic_hidden_dim + 3 * width
    return layer * config.num_hidden_layers + 2 * time + config.encoder_width * width + width + ends


def _between(config: ModelConfig, settings: TrainSettings) -> int:
    """Numbers that LoKr keeps for each token between its two products, over all layers."""
    if settings.method != "lokr":
        return 0
    shapes = (linear_shape(config, layer) for layer in settings.targets(config))
    return sum(split.b * split.c for split in (kron_shape(*shape, settings) for shape in shapes))


def memory_estimate(
    config: ModelConfig, settings: TrainSettings, seconds: float, *, bf16: bool = True
) -> MemoryEstimate:
    """What training on pieces of ``seconds`` takes.

    The activations are those of the 2B decoder, scaled by layers and width.
    """
    frames, width = 25 * seconds * settings.batch_size, 1 if bf16 else 2
    size = config.num_hidden_layers * config.hidden_size / (24 * 2048)
    whole = ACTIVATION_GIB * frames * size * width * (MLP_SHARE if settings.mlp else 1)
    whole += _between(config, settings) * 2 * width * frames / config.patch_size / GIB
    kept = KEPT_GIB * frames * size * width + whole / config.num_hidden_layers
    moments = 2 if settings.optimizer == "adamw8bit" else 8
    return MemoryEstimate(
        weights=decoder_parameters(config) * 2 * width / GIB,
        adapter=adapter_parameters(config, settings) * (4 + 4 + moments) / GIB,
        activations=kept if settings.gradient_checkpointing else whole,
    )


class Songs(Protocol):
    """What the estimate needs of tensors: songs with repeats, and seconds of the longest."""

    repeats: int
    longest: float


def estimate_text(settings: TrainSettings, config: ModelConfig | None = None, songs: Songs | None = None) -> str:
    """Steps, trained numbers and memory, as far as model and songs are known."""
    lines = []
    if songs is not None:
        an_epoch = settings.steps_an_epoch(songs.repeats)
        lines.append(f"{an_epoch * settings.epochs} steps: {settings.epochs} epochs of {an_epoch}.")
    if config is not None:
        lines.append(f"{adapter_parameters(config, settings) / 1e6:.1f} million numbers are trained.")
    if config is not None and songs is not None:
        lines.append(memory_estimate(config, settings, songs.longest).text())
    return "\n".join(lines) or "Connect model and tensors to see steps, size and memory."
