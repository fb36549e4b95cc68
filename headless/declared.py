"""What a node class declares: inputs, widgets, outputs. Reads ComfyUI's V1 protocol.

A *node table* maps node ids (``class_type``) to classes. :func:`node_table` is the one of this pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NodeTable = Mapping[str, type]

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
UPLOADS = ("image_upload", "audio_upload", "video_upload")
SEEDS = ("seed", "noise_seed")
CANVAS_ONLY = ("AUDIO_UI",)
"""Types of inputs that are only something to look at."""


@dataclass(frozen=True)
class Input:
    """One declared input of a node class; ``options`` are the class's own, ``choices`` those of a combo."""

    name: str
    type: str
    required: bool
    options: Mapping[str, Any]
    choices: tuple | None = None

    @property
    def widget_type(self) -> str:
        """The kind of its widget, where that differs from the types of link it takes."""
        return self.options.get("widgetType", self.type)

    @property
    def is_widget(self) -> bool:
        """Whether a value can be typed into it, as opposed to a socket that only takes a link."""
        return self.widget_type in WIDGET_TYPES and not self.options.get("forceInput")

    @property
    def default(self) -> Any:
        """What the canvas puts into a fresh widget."""
        if "default" in self.options:
            return self.options["default"]
        if self.choices is not None:
            return self.choices[0] if self.choices else ""
        kind = self.widget_type
        if kind in ("INT", "FLOAT"):
            zero = max(self.options.get("min", 0), 0)
            return float(zero) if kind == "FLOAT" else zero
        return {"STRING": "", "BOOLEAN": False}.get(kind)

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        if self.choices is not None:
            shown = ", ".join(str(choice) for choice in self.choices[:20])
            more = f" and {len(self.choices) - 20} more" if len(self.choices) > 20 else ""
            return f"one of {shown}{more}" if shown else "nothing: its list is empty"
        nouns = {"INT": "a whole number", "FLOAT": "a number", "STRING": "text", "BOOLEAN": "true or false"}
        words = nouns.get(self.widget_type, f"a link of type {self.type}")
        if self.widget_type in ("INT", "FLOAT"):
            words += f" from {self.options['min']}" if "min" in self.options else ""
            words += f" up to {self.options['max']}" if "max" in self.options else ""
        return words


def declared_inputs(cls: type) -> dict[str, Input]:
    """The required and optional inputs of ``cls`` in the order of the canvas."""
    found = {}
    declaration = cls.INPUT_TYPES()
    for group in ("required", "optional"):
        for name, entry in declaration.get(group, {}).items():
            kind, options = entry[0], (entry[1] if len(entry) > 1 else None) or {}
            choices = None
            if isinstance(kind, list | tuple):
                kind, choices = "COMBO", tuple(kind)
            elif kind == "COMBO":
                choices = tuple(options.get("options") or ())
            found[name] = Input(name, kind, group == "required", options, choices)
    return found


def hidden_inputs(cls: type) -> dict[str, str]:
    """``{argument: what to pass}``, such as ``{"prompt": "PROMPT"}``."""
    hidden = cls.INPUT_TYPES().get("hidden", {})
    return {name: kind[0] if isinstance(kind, list | tuple) else kind for name, kind in hidden.items()}


def saved_widgets(cls: type) -> list[Input | None]:
    """The entries of a node's positional ``widgets_values``; None stands for an entry that is no input.

    Such entries are *control after generate* behind seeds and behind combos that ask for it (there with a
    filter as a second entry), and the upload button behind the required inputs.
    """
    entries: list[Input | None] = []
    inputs = list(declared_inputs(cls).values())
    for input in [i for i in inputs if i.required]:
        entries += _entries(input)
    entries += [None] * sum(any(input.options.get(key) for key in UPLOADS) for input in inputs)
    for input in [i for i in inputs if not i.required]:
        entries += _entries(input)
    return entries


def _entries(input: Input) -> list[Input | None]:
    if not input.is_widget:
        return []
    control = input.options.get("control_after_generate", input.type == "INT" and input.name in SEEDS)
    extra = {"INT": 1, "COMBO": 2}.get(input.type, 0) if control else 0
    return [input, *[None] * extra]


def output_names(cls: type) -> list[str]:
    """One name an output: RETURN_NAMES, else the type."""
    names = list(getattr(cls, "RETURN_NAMES", None) or ())
    return [names[i] if i < len(names) else str(kind) for i, kind in enumerate(cls.RETURN_TYPES)]


def node_table() -> dict[str, type]:
    """ComfyUI's core nodes that have a stand-in here, and every node of this pack."""
    from ..nodes import NODE_CLASS_MAPPINGS
    from .core_nodes import CORE_NODES

    return {**CORE_NODES, **NODE_CLASS_MAPPINGS}


def node_titles() -> dict[str, str]:
    """Display names by node id."""
    from ..nodes import NODE_DISPLAY_NAME_MAPPINGS
    from .core_nodes import CORE_TITLES

    return {**CORE_TITLES, **NODE_DISPLAY_NAME_MAPPINGS}
