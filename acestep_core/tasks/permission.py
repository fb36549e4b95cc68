"""Which checkpoint may run which task. Imports no torch."""

from __future__ import annotations

STEM_TASKS = ("extract", "lego", "complete")


def check_task(task: str, kind: str, stem_tuned: bool = False) -> str:
    """Raise where a model of ``kind`` cannot run ``task``; else a note that should be shown, or "".

    Args:
        kind: turbo, sft or base. stem_tuned: the checkpoint's configuration says it was tuned for stems.
    """
    if task not in STEM_TASKS or kind == "base" or stem_tuned:
        return ""
    if kind == "turbo":
        raise ValueError(
            f"Turbo models were not trained for {task}. Load a base model: acestep-v15-base, or acestep-v15-xl-base."
        )
    return f"{task.capitalize()} works best with a base model; this sft model was not trained for it."
