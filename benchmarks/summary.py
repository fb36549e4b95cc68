"""One table of everything: every subject in the same columns, on the CPU and, where there is one, on the GPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from . import dit, lm, lyrics, techniques, vae
from .side_by_side import Row, Setting

COLUMNS = ("what", "ours (s)", "against", "theirs (s)", "ratio", "max difference", "our peak (GB)", "their peak (GB)")
SECONDS = {"dit": (60.0,), "vae": (20.0,), "lyrics": (60.0,)}


def settings_of(asked: Setting) -> list[Setting]:
    """The setting that was asked for; where that is the CPU and there is a GPU, also the real size on it."""
    here = [asked]
    if asked.device.type == "cpu" and torch.cuda.is_available():
        here.append(Setting("real", torch.device("cuda"), torch.bfloat16, asked.runs))
    return here


def rows(setting: Setting, tokens: int = 32, lm_size: str = "0.6B", seconds: Sequence[float] = ()) -> list[Row]:
    """All subjects but loading, each at one length.

    Args:
        tokens, lm_size: as of :func:`lm.rows`. seconds: the length for all, in place of :data:`SECONDS`.
    """
    lengths = {subject: list(seconds) or list(usual) for subject, usual in SECONDS.items()}
    place = "GPU" if setting.device.type == "cuda" else "CPU"
    subjects = {
        "dit": lambda: dit.rows(setting, lengths["dit"]),
        "technique": lambda: techniques.rows(setting, lengths["dit"][0]),
        "vae": lambda: vae.rows(setting, lengths["vae"]),
        "lm": lambda: [_in_seconds(row) for row in lm.rows(setting, tokens, lm_size, songs=(1,))],
        "lyrics": lambda: lyrics.rows(setting, lengths["lyrics"]),
    }
    made = []
    for subject, measure in subjects.items():
        print(f"{place} {subject} …", file=sys.stderr, flush=True)
        made += [_uniform(f"{place} {subject}", row) for row in measure()]
    return made


def _uniform(subject: str, row: Row) -> Row:
    return {"on": subject, **{column: row.get(column, "-") for column in COLUMNS}}


def _in_seconds(row: Row) -> Row:
    """A row of the planner, whose times are in milliseconds and whose difference is a share of tokens."""
    times = {f"{side} (s)": float(row[f"{side} (ms)"]) / 1000 for side in ("ours", "theirs")}
    return {**row, **times, "max difference": 1 - float(row["same tokens"])}
