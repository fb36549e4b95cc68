"""Where adapters lie: ComfyUI's ``loras`` folders, and ``loras`` inside our own model folders.

An adapter is a file, or a folder of PEFT, named by its path below the folder it was found in.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..checkpoints.header import SAFETENSORS, CheckpointError
from ..host import Host, find_inside

CONFIG = "adapter_config.json"
FOLDER_FILES = (
    *("adapter_model.safetensors", "adapter_model.bin"),
    *("lokr_weights.safetensors", "loha_weights.safetensors"),
)
"""What the weights are called in a folder of one adapter."""
OWN_FOLDER = "loras"
DEEPEST = 5
"""Folders below a root that are searched: enough for run/checkpoints/step/adapter."""


def adapter_roots(host: Host) -> list[Path]:
    """Folders that are searched, in this order; of two adapters of one name the first counts."""
    own = [root / OWN_FOLDER for root in host.model_roots("acestep")]
    return list(dict.fromkeys([*host.model_roots("loras"), *own]))


def list_adapters(host: Host) -> list[str]:
    """Names (relative, with ``/``) of all adapter files and folders, sorted. Files are not opened."""
    found: set[str] = set()
    for root in adapter_roots(host):
        for folder, folders, files in os.walk(root, followlinks=True):
            relative = Path(folder).relative_to(root)
            if relative.parts and CONFIG in files and any(name in files for name in FOLDER_FILES):
                found.add(relative.as_posix())
                folders[:] = []
                continue
            folders[:] = [f for f in folders if not f.startswith(".")] if len(relative.parts) < DEEPEST else []
            found.update((relative / f).as_posix() for f in files if f.endswith(SAFETENSORS) and not f.startswith("."))
    return sorted(found)


def find_adapter(host: Host, name: str) -> Path:
    """The file or folder ``name`` of :func:`list_adapters`. Never a path outside the folders.

    Raises:
        CheckpointError: there is none.
    """
    for root in adapter_roots(host):
        file = find_inside([root], name)
        if file is not None and file.name.endswith(SAFETENSORS):
            return file
        config = find_inside([root], f"{name}/{CONFIG}") if name.strip("/.\\") else None
        if config is not None:
            return config.parent
    roots = ", ".join(map(str, adapter_roots(host)))
    known = list_adapters(host)
    have = (
        f"There are {', '.join(known[:5])}{' and more' if len(known) > 5 else ''}." if known else "There are none yet."
    )
    raise CheckpointError(
        f"There is no adapter {name!r}. Looked in {roots} for .safetensors files and folders with {CONFIG}. {have}"
    )
