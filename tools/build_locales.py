"""Writes the English names and tooltips of all nodes, which the translations start from.

Run ``python tools/build_locales.py`` after a node has changed. It writes locales/en/nodeDefs.json, and in
locales/en/main.json the names of categories and wires; whatever else main.json holds stays.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import pack  # noqa: E402

pack.load()

from acestep_graph.acestep_core.host import Host, use  # noqa: E402
from acestep_graph.nodes import NODES  # noqa: E402

ENGLISH = ROOT / "locales" / "en"
WIRES = {
    "ACESTEP_MODEL": "diffusion model",
    "ACESTEP_TEXT": "text encoder",
    "ACESTEP_VAE": "VAE",
    "ACESTEP_LM": "planner",
    "ACESTEP_SONG": "song",
    "ACESTEP_REFERENCE": "timbre reference",
    "ACESTEP_SOURCE": "source",
    "ACESTEP_CODES": "codes",
    "ACESTEP_CONDITIONING": "prepared task",
    "ACESTEP_RESULT": "result",
    "ACESTEP_SAMPLER_SETTINGS": "sampler settings",
    "ACESTEP_GUIDANCE_SETTINGS": "guidance settings",
    "ACESTEP_PLANNER_SETTINGS": "planner settings",
    "ACESTEP_DATASET": "data set",
    "ACESTEP_TENSORS": "training tensors",
    "ACESTEP_TRAIN_SETTINGS": "training settings",
    "ACESTEP_RUN": "training run",
}
SPELLING = {word.lower(): word for word in "BPM CFG EMA FX GB LM LRC LoRA VAE VTT dB".split()}
OWN = "ACESTEP_"


@contextmanager
def no_files() -> Iterator[None]:
    """A host on which no model and no saved file lies, so that nothing depends on the machine."""
    with tempfile.TemporaryDirectory() as empty:
        here = Path(empty)
        with use(Host(models=here / "models", output=here / "output", input=here / "input", temp=here / "temp")):
            yield


def readable(name: str) -> str:
    """An input's or output's name as it is shown.

    >>> readable("peak_db")
    'peak dB'
    """
    return " ".join(SPELLING.get(word, word) for word in name.split("_"))


def inputs_of(node: type) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name → (type, options), without what ComfyUI fills in by itself."""
    kinds = node.INPUT_TYPES()
    return {**kinds.get("required", {}), **kinds.get("optional", {})}


def node_defs() -> dict[str, Any]:
    """The content of nodeDefs.json."""
    return {name: _described(node, title) for name, (node, title) in NODES.items()}


def _described(node: type, title: str) -> dict[str, Any]:
    inputs = {
        name: {"name": readable(name), "tooltip": options["tooltip"]} for name, (_, options) in inputs_of(node).items()
    }
    found: dict[str, Any] = {"display_name": title, "description": node.DESCRIPTION, "inputs": inputs}
    if node.RETURN_TYPES:
        each = zip(node.RETURN_NAMES, node.OUTPUT_TOOLTIPS, strict=True)
        found["outputs"] = {str(i): {"name": readable(name), "tooltip": tip} for i, (name, tip) in enumerate(each)}
    return found


def categories() -> dict[str, str]:
    """Every part of every category path."""
    parts = [part for node, _ in NODES.values() for part in node.CATEGORY.split("/")]
    return {part: part for part in dict.fromkeys(parts)}


def wires() -> dict[str, str]:
    """Every type of wire that only this pack has.

    Raises:
        LookupError: one of them has no name in :data:`WIRES`.
    """
    used: set[str] = set()
    for node, _ in NODES.values():
        used |= {kind for kind, _ in inputs_of(node).values()} | set(node.RETURN_TYPES)
    own = {kind for kind in used if kind.startswith(OWN)}
    if own != set(WIRES):
        raise LookupError(f"WIRES and the nodes differ in {', '.join(sorted(own ^ set(WIRES)))}; change WIRES.")
    return WIRES


def main_texts() -> dict[str, Any]:
    """The part of main.json that follows from the nodes."""
    return {"nodeCategories": categories(), "dataTypes": wires()}


def as_text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write() -> None:
    ENGLISH.mkdir(parents=True, exist_ok=True)
    with no_files():
        nodes, texts = node_defs(), main_texts()
    (ENGLISH / "nodeDefs.json").write_text(as_text(nodes), encoding="utf-8")
    shared = ENGLISH / "main.json"
    shared.write_text(as_text({**read(shared), **texts}), encoding="utf-8")


if __name__ == "__main__":
    write()
    print(f"{len(NODES)} nodes")
