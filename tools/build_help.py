"""Writes the help page of every node in every language, which ComfyUI shows beside the canvas.

Run ``python tools/build_help.py`` after tools/build_locales.py or a change of locales/<language>. A page is composed
of names and tooltips (nodeDefs.json), words and headings (help.json), names of wires (main.json), and the ranges and
defaults of the node itself. A language whose files do not hold all of that yet is left out, and is named.

In help.json braces stand for names, so that pages always say what the canvas says:
``{ACEStepSong}`` a node, ``{ACEStepSong.bpm}`` its input, ``{ACEStepSong:song}`` its output; ``{.bpm}`` and
``{:song}`` those of the page's own node.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.build_locales import NODES, OWN, inputs_of, no_files, read  # noqa: E402

LOCALES, PAGES = ROOT / "locales", ROOT / "web" / "docs"
LANGUAGES = ("en", "zh", "ja", "it", "ko")
HEADINGS = "_headings"
MOST_OPTIONS = 12
LONGEST_DEFAULT = 40
FILES = ("diffusion_model", "text_encoder", "vae", "language_model", "file")
"""Inputs whose options are what lies on the machine."""
NAME = re.compile(r"\{(ACEStep\w+)?(?:([.:])(\w+))?\}")


@dataclass(frozen=True)
class Language:
    """What pages are written with: names and tooltips, words, headings, names of wires."""

    nodes: dict[str, Any]
    words: dict[str, dict[str, str]]
    headings: dict[str, str]
    wires: dict[str, str]

    def node(self, name: str) -> str:
        return self.nodes[name]["display_name"]

    def input(self, node: str, name: str) -> str:
        return self.nodes[node]["inputs"][name]["name"]

    def output(self, node: str, name: str) -> str:
        place = NODES[node][0].RETURN_NAMES.index(name)
        return self.nodes[node]["outputs"][str(place)]["name"]

    def spelled(self, text: str, node: str) -> str:
        """``text`` of the page of ``node`` with names in place of braces.

        Raises:
            LookupError: there is no such node, input or output.
        """

        def name_of(hit: re.Match[str]) -> str:
            owner, kind, name = hit.groups()
            try:
                if kind is None:
                    return f"**{self.node(owner)}**"
                find = self.input if kind == "." else self.output
                return f"*{find(owner or node, name)}*"
            except (KeyError, ValueError, AttributeError):
                raise LookupError(f"{hit[0]} on the page of {node} is no node, input or output.") from None

        return NAME.sub(name_of, text)

    def wire(self, kind: str) -> str:
        """A type in plain words."""
        plain = {"STRING": "text", "INT": "whole", "FLOAT": "number", "BOOLEAN": "switch"}.get(kind, kind)
        return self.wires[kind] if kind.startswith(OWN) else self.headings[plain]


def language(code: str) -> Language:
    """The texts of locales/<code>.

    Raises:
        LookupError: a file, a node or a heading is missing; says which.
    """
    texts = {name: read(LOCALES / code / f"{name}.json") for name in ("nodeDefs", "help", "main")}
    english = read(LOCALES / "en" / "help.json")
    missing = [name for name, content in texts.items() if not content]
    missing += [f"{name} in nodeDefs" for name in NODES if name not in texts["nodeDefs"]]
    missing += [f"{name} in help" for name in english if name not in texts["help"]]
    missing += [f"heading {name}" for name in english[HEADINGS] if name not in texts["help"].get(HEADINGS, {})]
    if missing:
        raise LookupError(f"{code} lacks {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}.")
    words = {name: entry for name, entry in texts["help"].items() if name != HEADINGS}
    return Language(texts["nodeDefs"], words, texts["help"][HEADINGS], texts["main"]["dataTypes"])


def page(texts: Language, name: str) -> str:
    """The help page of node ``name`` as Markdown."""
    cls, heads, own, words = NODES[name][0], texts.headings, texts.nodes[name], texts.words[name]
    parts = [f"# {own['display_name']}", plain(own["description"])]
    parts += [f"## {heads['when']}", texts.spelled(words["when"], name)]
    rows = [
        (f"**{own['inputs'][key]['name']}**", own["inputs"][key]["tooltip"], values(texts, key, kind, options, cls))
        for key, (kind, options) in inputs_of(cls).items()
    ]
    parts += [f"## {heads['inputs']}", table((heads["name"], heads["meaning"], heads["values"]), rows)]
    if cls.RETURN_TYPES:
        each = zip(own["outputs"].values(), cls.RETURN_TYPES, strict=True)
        rows = [(f"**{output['name']}**", output["tooltip"], texts.wire(kind)) for output, kind in each]
        parts += [f"## {heads['outputs']}", table((heads["name"], heads["holds"], heads["type"]), rows)]
    for section in ("example", "more"):
        if section in words:
            parts += [f"## {heads[section]}", texts.spelled(words[section], name)]
    return "\n\n".join(parts) + "\n"


def values(texts: Language, name: str, kind: str, options: dict[str, Any], cls: type) -> str:
    """What an input takes: range or options, and its default."""
    heads, default = texts.headings, options.get("default")
    said: list[str] = []
    if kind == "COMBO":
        said.append(heads["files"] if name in FILES else choices(heads, options["options"]))
        shown = None if name in FILES else f"`{default}`"
    elif kind in ("INT", "FLOAT"):
        low, high, shown = (short(value) for value in (options["min"], options["max"], default))
        said.append(heads["range"].format(low=low, high=high))
    elif kind == "BOOLEAN":
        said.append(heads["switch"])
        shown = heads["on" if default else "off"]
    elif kind == "STRING":
        said.append(heads["text"])
        shown = f"`{default}`" if default and len(default) <= LONGEST_DEFAULT else None
    else:
        said.append(heads["link"].format(wire=texts.wire(kind)))
        shown = None
        if name in cls.INPUT_TYPES().get("optional", {}):
            said.append(heads["optional"])
    if shown is not None:
        said.append(heads["default"].format(value=shown))
    if options.get("advanced"):
        said.append(heads["advanced"])
    return heads["comma"].join(said)


def choices(heads: dict[str, str], options: list[str]) -> str:
    quoted = [f"`{option}`" for option in options]
    if len(quoted) <= MOST_OPTIONS:
        return heads["comma"].join(quoted)
    first = heads["comma"].join(quoted[:3])
    return heads["many"].format(first=first, last=quoted[-1], count=len(quoted))


def short(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(cell(text) for text in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    return plain(text).replace("|", r"\|").replace("\n", " ")


def plain(text: str) -> str:
    """A tooltip, in which nothing is meant as markup."""
    return text.replace("<", "&lt;")


def build(codes: tuple[str, ...] = LANGUAGES) -> tuple[dict[str, str], list[str]]:
    """File name below web/docs → page, and a sentence for each language that is left out."""
    pages: dict[str, str] = {}
    left_out = []
    with no_files():
        for code in codes:
            try:
                texts = language(code)
            except LookupError as error:
                left_out.append(str(error))
                continue
            for name in NODES:
                pages[f"{name}/{code}.md"] = page(texts, name)
                if code == "en":
                    pages[f"{name}.md"] = pages[f"{name}/{code}.md"]
    return pages, left_out


def write() -> list[str]:
    """Write all pages, remove those of nodes that are no more, and return who was left out."""
    pages, left_out = build()
    for name, content in pages.items():
        path = PAGES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for path in PAGES.rglob("*.md"):
        if path.relative_to(PAGES).as_posix() not in pages and path.name.removesuffix(".md") not in LANGUAGES:
            path.unlink()
    return left_out


if __name__ == "__main__":
    for sentence in write():
        print(sentence)
    print(f"{len(NODES)} nodes")
