"""Adapters: load them onto a diffusion model, several at once, and look into them."""

from __future__ import annotations

from typing import Any

from ..acestep_core import host
from ..acestep_core.lora import folders
from .widgets import MODEL, ROOT, choice, number, problem_of, socket, switch

CATEGORY = f"{ROOT}/LoRA"
NO_FILE = "no LoRA found"
NONE = "none"
NOTHING = "No LoRA is on this machine yet, so the model plays without one: put a LoRA file into models/loras."
UNCHOSEN = "No LoRA is chosen, so the model plays without one; there are: {}."
PLACES = "models/loras or models/acestep/loras"
FILE_TIP = f"Adapter file, or folder with adapter_config.json, in {PLACES}: PEFT, ComfyUI, kohya, LyCORIS, DoRA."
STRENGTH_TIP = "How strongly it acts. 1: as trained; 0: not at all, exactly as without it; above 1: exaggerated."
STACKED = 4


def adapter_choice(*first: str) -> tuple[str, dict[str, Any]]:
    """Combo of the adapters on this machine, ``first`` in front."""
    names = [*first, *folders.list_adapters(host.current())]
    return choice(names or [NO_FILE], FILE_TIP)


def strength_widget() -> tuple[str, dict[str, Any]]:
    return number(1.0, -4.0, 4.0, 0.05, STRENGTH_TIP)


def fingerprint(name: str | None) -> str:
    """Changes when the file behind ``name`` changes. None, which is what a linked widget is then, does not change."""
    if name is None:
        return ""
    try:
        path = folders.find_adapter(host.current(), name)
    except (LookupError, OSError, ValueError):
        return name
    files = [path] if path.is_file() else sorted(path.iterdir())
    return "|".join(f"{file}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def applied(model: Any, name: str, strength: float, alpha: float = 0.0) -> tuple[Any, str]:
    """The model with the adapter ``name`` in its stack, and the adapter's report."""
    from ..acestep_core.lora import apply, formats

    path = folders.find_adapter(host.current(), name)
    adapter = formats.read_adapter(path, model.config, name=name, alpha=alpha or None)
    return apply.with_adapter(model, adapter, strength), adapter.text()


class LoadLoRA:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Adds a LoRA to a diffusion model. Chain several for several at once. The weights of the model are never "
        "changed: switched off, everything is bit for bit as without it."
    )
    SEARCH_ALIASES = ["ace step", "lora", "dora", "lokr", "adapter", "style"]
    FUNCTION = "load"
    RETURN_TYPES = (MODEL, "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = ("The model with the LoRA, for the task and the sampler", "What was found in the file")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        alpha = "Alpha to use in place of the file's, for files that do not say it. 0: as the file says."
        return {
            "required": {
                "model": socket(MODEL, "Diffusion model, with or without other LoRAs."),
                "lora": adapter_choice(),
                "strength": strength_widget(),
                "enabled": switch(True, "Off: the model passes through as it is."),
                "alpha": number(0.0, 0.0, 1024.0, 1.0, alpha, advanced=True),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, lora: str | None = None, enabled: bool | None = True) -> bool | str:
        if lora in (None, NO_FILE) or enabled is False:
            return True
        return problem_of(folders.find_adapter, host.current(), lora)

    @classmethod
    def IS_CHANGED(cls, lora: str | None = None, **_: Any) -> str:
        return fingerprint(lora)

    def load(self, model: Any, lora: str, strength: float, enabled: bool, alpha: float) -> tuple:
        if not enabled:
            return model, f"{lora}: switched off"
        if lora == NO_FILE:
            there = folders.list_adapters(host.current())
            said = UNCHOSEN.format(", ".join(there)) if there else NOTHING
            host.current().say(said)
            return model, said
        return applied(model, lora, strength, alpha)


class LoRAStack:
    CATEGORY = CATEGORY
    DESCRIPTION = "Adds up to four LoRAs at once, each with its own strength. Their order makes no difference."
    SEARCH_ALIASES = ["ace step", "lora stack", "several loras", "adapters"]
    FUNCTION = "load"
    RETURN_TYPES = (MODEL, "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = ("The model with the LoRAs", "What was found in each file")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        widgets: dict[str, Any] = {"model": socket(MODEL, "Diffusion model, with or without other LoRAs.")}
        for index in range(1, STACKED + 1):
            widgets[f"lora_{index}"] = adapter_choice(NONE)
            widgets[f"strength_{index}"] = strength_widget()
        return {"required": widgets}

    @classmethod
    def VALIDATE_INPUTS(cls, lora_1: Any = None, lora_2: Any = None, lora_3: Any = None, lora_4: Any = None) -> Any:
        chosen = [name for name in (lora_1, lora_2, lora_3, lora_4) if name not in (None, NONE)]
        answers = (problem_of(folders.find_adapter, host.current(), name) for name in chosen)
        return next((answer for answer in answers if answer is not True), True)

    @classmethod
    def IS_CHANGED(cls, **widgets: Any) -> str:
        return " ".join(fingerprint(str(widgets.get(f"lora_{index}"))) for index in range(1, STACKED + 1))

    def load(self, model: Any, **widgets: Any) -> tuple:
        reports = []
        for index in range(1, STACKED + 1):
            name = widgets[f"lora_{index}"]
            if name != NONE:
                model, text = applied(model, name, widgets[f"strength_{index}"])
                reports.append(text)
        return model, "\n".join(reports) or "no LoRA chosen"


class LoRAInfo:
    CATEGORY = CATEGORY
    DESCRIPTION = "Looks into a LoRA file: kind, rank, alpha, which layers it changes, and what could not be used."
    SEARCH_ALIASES = ["ace step", "lora info", "inspect adapter"]
    FUNCTION = "show"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("report",)
    OUTPUT_TOOLTIPS = ("Everything that is known about it",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        model = socket(MODEL, "The model it is meant for: a LoRA of another width is refused.")
        return {"required": {"model": model, "lora": adapter_choice()}}

    @classmethod
    def VALIDATE_INPUTS(cls, lora: str | None = None) -> bool | str:
        return True if lora is None else problem_of(folders.find_adapter, host.current(), lora)

    @classmethod
    def IS_CHANGED(cls, lora: str | None = None, **_: Any) -> str:
        return fingerprint(lora)

    def show(self, model: Any, lora: str) -> dict[str, Any]:
        text = applied(model, lora, 1.0)[1]
        return {"ui": {"text": [text]}, "result": (text,)}
