"""The nano checkpoint that comes with the project: small models, trained on music that the project composes itself.

It plays where no other weights are on the machine, so that every workflow makes sound at once, and it can be chosen by
name. See nano/README.md for how it is made and what it can do.
"""

from __future__ import annotations

from pathlib import Path

from .header import WEIGHT_NAMES

NANO = "nano (demo)"
FOLDER = Path(__file__).resolve().parent.parent.parent / "models" / "nano"
FILES = {
    "dit": {
        f"{NANO} turbo": "acestep-v15-turbo/model.safetensors",
        f"{NANO} base": "acestep-v15-base/model.safetensors",
    },
    "text": {NANO: "Qwen3-Embedding-0.6B/model.safetensors"},
    "vae": {NANO: "vae/diffusion_pytorch_model.safetensors"},
    "lm": {NANO: "acestep-5Hz-lm-1.7B/model.safetensors"},
}
"""Component → names that loaders offer → files."""


def names(component: str) -> list[str]:
    """What loaders offer; nothing where the files were left out of an installation."""
    return [name for name in FILES[component] if path_of(component, name)]


def path_of(component: str, name: str) -> Path | None:
    """The file behind a name; None for any other name."""
    file = FILES[component].get(name)
    path = FOLDER / file if file else None
    return path if path is not None and path.is_file() else None


def holds(path: Path) -> bool:
    """Whether a file is one of these, found on another way: a clone's own models folder has them in it."""
    return path.resolve().is_relative_to(FOLDER)


def called(path: Path) -> str:
    """What a file is called in settings and reports: one of these by its name, one with a name that says nothing, such
    as model.safetensors, together with that of its folder."""
    for component in FILES.values():
        for name, file in component.items():
            if path.resolve() == FOLDER / file:
                return name
    return f"{path.parent.name}/{path.name}" if path.stem in WEIGHT_NAMES else path.name


def is_nano(name: str) -> bool:
    return name.startswith(NANO)


def stand_in(component: str, kind: str | None) -> str | None:
    """The name that plays in place of a published model of ``kind``: turbo for turbo, base for the others."""
    found = names(component)
    wanted = f"{NANO} base" if component == "dit" and kind in ("base", "sft") else (found or [""])[0]
    return wanted if wanted in found else None


def note(name: str, wanted: str, place: Path, command: str) -> str:
    """What the user is told when ``name`` plays in place of ``wanted``, which is not in ``place``; ``command`` fetches
    it."""
    return (
        f"{wanted} is not in {place}, nor are any other weights: {name} plays instead, a small model that comes "
        f"with the project and makes small music. For the real one run `{command}`."
    )
