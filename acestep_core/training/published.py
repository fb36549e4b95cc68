"""Tensors that the original trainer, or one that follows it, preprocessed: read safely, with what is wrong with them.

>>> found = load_published("datasets/jazz_tensors", width=model.config.encoder_width)
>>> print(found.text())
>>> items = found.items
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .items import CONTEXT_WIDTH, FRAMES_A_SECOND, LATENT_WIDTH, ItemError, TrainItem
from .limits import REPEAT_RANGE
from .preprocess import MANIFEST, load_folder

PARTS = ("target_latents", "encoder_hidden_states", "encoder_attention_mask", "context_latents")
PADDED_TOKENS = 512 + 1 + 256
"""Condition length of old tensors: lyrics and text filled up to their limits, with one timbre vector between."""

OLD = (
    "they were made by another program: their timbre reference is a row of zeros where this one uses the model's "
    "silence, and older ones have lyrics without their header. An adapter learns them as they are and sounds a little "
    "different in use"
)
PADDED = "their conditions were filled up to 769 tokens; the filling was cut off"
UNMARKED = "their conditions are filled up to 769 tokens without saying where the filling begins, and it is learnt too"
LEAK = (
    "they were made for LoKr, with the music itself as source and timbre reference: an adapter learns to copy it "
    "instead of making it"
)
MASKED = "their chunk mask is not made of ones, which is what music from text has"
CUT = "their music was cut, but the prompt says the length of the whole file"


@dataclass(frozen=True)
class Published:
    """Tensors of a folder.

    Attributes:
        items: what can be trained on. failed: file and reason of each that cannot.
        notes: what is wrong with the rest, and for how many.
    """

    items: tuple[TrainItem, ...]
    failed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        seconds = sum(item.seconds for item in self.items)
        lines = [f"{len(self.items)} songs, {seconds / 60:.1f} min."]
        lines += [f"Not used: {name}: {reason}" for name, reason in self.failed]
        return "\n".join([*lines, *self.notes])


def load_tensors(folder: str | Path, width: int | None = None) -> Published:
    """Items of a folder of either kind: made here, or published ``.pt`` files.

    Args:
        width: of the model's conditions, for telling files of another model; None accepts any.

    Raises:
        ItemError: nothing in it can be used; the message gives the reasons.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ItemError(f"There is no folder {folder}. Give one with preprocessed tensors.")
    if not any(folder.glob("*.safetensors")) and any(folder.rglob("*.pt")):
        return load_published(folder, width)
    items = load_folder(folder)
    for item in items:
        _check_width(item, width)
    return Published(items)


def load_published(folder: str | Path, width: int | None = None) -> Published:
    """Items of a folder with ``.pt`` files, in the order of its manifest, else of their names.

    Nothing in a file is ever run: only tensors and plain values are read.

    Raises:
        ItemError: as :func:`load_tensors`.
    """
    folder = Path(folder)
    items, failed, found = [], [], Counter()
    for name, path in _listed(folder):
        try:
            if path is None:
                raise ItemError("the manifest names it, but it is not there")
            item, faults = read_published(path)
            _check_width(item, width)
        except ItemError as error:
            failed.append((name, str(error)))
            continue
        items.append(item)
        found.update(faults)
    if not items:
        reasons = "".join(f"\n{name}: {reason}" for name, reason in failed)
        raise ItemError(f"{folder.name} holds no tensors that can be used.{reasons or ' There is no .pt file in it.'}")
    notes = [f"{count} of {len(items)} songs: {fault}." for fault, count in found.items()]
    notes.append("Preprocess the recordings here to get tensors that match what the model hears in use.")
    return Published(tuple(items), tuple(failed), tuple(notes))


def read_published(path: str | Path) -> tuple[TrainItem, tuple[str, ...]]:
    """One ``.pt`` file and what is wrong with it; conditions are cut to the tokens that count.

    Raises:
        ItemError: it is damaged, unsafe, or something else.
    """
    path = Path(path)
    values = _load(path)
    missing = [part for part in PARTS if not isinstance(values.get(part), Tensor)]
    if missing:
        raise ItemError(f"it lacks {', '.join(missing)}; these are no preprocessed tensors of a song")
    latents, conditions, mask, context = (_row(values[part], part) for part in PARTS)
    about = {key: value for key, value in _mapping(values.get("metadata")).items() if _plain(value)}
    if mask.dim() != 1 or mask.shape[0] != conditions.shape[0]:
        raise ItemError(f"its mask {list(mask.shape)} does not fit its conditions {list(conditions.shape)}")
    faults = [OLD]
    real = mask.bool()
    if bool(real.all()):
        faults += [UNMARKED] * (len(real) == PADDED_TOKENS)
    else:
        faults.append(PADDED if len(real) == PADDED_TOKENS else "the filling of their conditions was cut off")
        conditions = conditions[real]
    latents, context = _heard(values, latents, context)
    if latents.shape[-1] != LATENT_WIDTH or context.shape[-1] != CONTEXT_WIDTH:
        sizes = f"{list(latents.shape)} and {list(context.shape)}"
        raise ItemError(f"its latents and context are {sizes}; expected [T, {LATENT_WIDTH}] and [T, {CONTEXT_WIDTH}]")
    if len(latents) != len(context):
        raise ItemError(f"its latents have {len(latents)} frames, its context {len(context)}")
    if about.get("preprocess_mode") == "lokr" or torch.equal(context[:, :LATENT_WIDTH], latents):
        faults.append(LEAK)
    if not bool((context[:, LATENT_WIDTH:] == 1).all()):
        faults.append(MASKED)
    said = about.get("duration")
    if isinstance(said, (int, float)) and said >= len(latents) / FRAMES_A_SECOND + 1:
        faults.append(CUT)
    repeat = about.get("repeat", 1)
    usable = isinstance(repeat, int) and not isinstance(repeat, bool) and REPEAT_RANGE[0] <= repeat <= REPEAT_RANGE[1]
    name = Path(str(about.get("filename") or path.name).replace("\\", "/")).name
    repeat = repeat if usable else 1
    return TrainItem(name, latents, conditions, context, repeat, about, str(path.absolute())), tuple(faults)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ItemError("it is damaged, or holds more than tensors and plain values and is not opened") from error
    except Exception as error:  # a broken archive shows as any of several kinds of error
        raise ItemError(
            f"it cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from (error)
    return _mapping(values)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _row(tensor: Tensor, part: str) -> Tensor:
    """``tensor`` without a leading batch axis of one."""
    wanted = 1 if part.endswith("mask") else 2
    tensor = tensor[0] if tensor.dim() == wanted + 1 and tensor.shape[0] == 1 else tensor
    if tensor.dim() != wanted:
        raise ItemError(f"its {part} is {list(tensor.shape)}; expected {wanted} dimension{'s' * (wanted > 1)}")
    return tensor


def _heard(values: Mapping[str, Any], latents: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and context without frames that the mask calls filling."""
    mask = values.get("attention_mask")
    if not isinstance(mask, Tensor):
        return latents, context
    real = _row(mask, "attention_mask").bool()
    if len(real) != len(latents) or len(latents) != len(context) or bool(real.all()):
        return latents, context
    return latents[real], context[real]


def _check_width(item: TrainItem, width: int | None) -> None:
    if width is not None and item.conditions.shape[1] != width:
        raise ItemError(
            f"{item.name} was made for a model whose conditions are {item.conditions.shape[1]} wide; this one's are "
            f"{width}"
        )


def _listed(folder: Path) -> list[tuple[str, Path | None]]:
    """Files of a folder: those of its manifest, in whichever of its three forms, else every finished one."""
    try:
        samples = _mapping(json.loads((folder / MANIFEST).read_text("utf-8-sig"))).get("samples")
    except (OSError, ValueError):
        samples = None
    names = [_name(sample) for sample in samples] if isinstance(samples, list) else []
    if any(names):
        return [(Path(name).name, _inside(folder, name)) for name in names if name]
    files = sorted(path for path in folder.rglob("*.pt") if not path.name.endswith(".tmp.pt"))
    return [(path.relative_to(folder).as_posix(), path) for path in files if not path.name.startswith(".")]


def _name(sample: Any) -> str:
    """The file that an entry names: itself, or its ``filename``."""
    name = sample.get("filename") if isinstance(sample, dict) else sample
    return name.replace("\\", "/") if isinstance(name, str) else ""


def _inside(folder: Path, name: str) -> Path | None:
    """The file within ``folder``: paths of old manifests start where the original was run, so their name decides."""
    home = folder.resolve()
    direct = (home / name).resolve()
    for path in (direct, home / Path(name).name):
        if path.is_file() and path.is_relative_to(home):
            return path
    return None
