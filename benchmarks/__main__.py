"""``python -m benchmarks [dit] [vae] [techniques] [lm] [lyrics] [train] [load] [all]``: see README.md here."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from pathlib import Path

import torch

from acestep_graph.acestep_core.models.qwen3 import LM_SIZES

from . import dit, lm, load, lyrics, summary, techniques, train, vae
from .side_by_side import Row, Setting, table

SUBJECTS = ("dit", "vae", "techniques", "lm", "lyrics", "train", "load", "all")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "subjects",
        nargs="*",
        metavar="|".join(SUBJECTS),
        help="dit and vae by default; all: one table of everything but load",
    )
    parser.add_argument("--size", choices=("tiny", "middle", "real"), default="middle", help="load: real unless tiny")
    parser.add_argument("--seconds", type=float, nargs="+", help="of music; dit and lyrics 60 240, vae 20 40, train 60")
    parser.add_argument("--lm", choices=LM_SIZES, default="0.6B", help="size of the planner, unless --size is tiny")
    parser.add_argument("--tokens", type=int, default=32, help="codes the planner writes in a timed run")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=DTYPES, help="fp32 on the CPU and bf16 elsewhere by default")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each side")
    parser.add_argument(
        "--busy", action="store_true", help="on a CPU shared with other work: time computed, not the clock's"
    )
    parser.add_argument(
        "--folder", type=Path, help="where load writes its 4.8 GB; the system's temporary one by default"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    asked = parser.parse_args(arguments)
    for name in set(asked.subjects) - set(SUBJECTS):
        parser.error(f"unknown subject {name!r}; choose from {', '.join(SUBJECTS)}")
    if asked.runs < 1:
        parser.error("--runs must be 1 or more")
    device = torch.device(asked.device)
    dtype = DTYPES[asked.dtype or ("fp32" if device.type == "cpu" else "bf16")]
    setting = Setting(asked.size, device, dtype, asked.runs, asked.busy)
    lengths = {"seconds": asked.seconds} if asked.seconds else {}
    warnings.filterwarnings("ignore", category=FutureWarning)
    made: dict[str, list[Row]] = {}
    for subject in asked.subjects or ("dit", "vae"):
        if subject == "load":
            title = f"PyTorch {torch.__version__}, {platform.system()}"
            found = load.rows("tiny" if asked.size == "tiny" else "real", asked.folder)
        elif subject == "all":
            for where in summary.settings_of(setting):
                some = summary.rows(where, asked.tokens, asked.lm, asked.seconds or ())
                made["all"] = made.get("all", []) + some
            title, found = "; ".join(map(_where, summary.settings_of(setting))), made["all"]
        elif subject == "techniques":
            title = _where(setting)
            found = techniques.rows(setting, *(asked.seconds or ())[:1])
        elif subject == "lm":
            title = _where(setting, "tiny" if asked.size == "tiny" else asked.lm)
            found = lm.rows(setting, asked.tokens, asked.lm)
        else:
            title = _where(setting)
            found = {"dit": dit, "vae": vae, "lyrics": lyrics, "train": train}[subject].rows(setting, **lengths)
        made[subject] = found
        if not asked.json:
            print(f"\n{subject}: {title}\n{table(found)}", flush=True)
    if asked.json:
        print(json.dumps(made, indent=1))
    return 0


def _where(setting: Setting, size: str = "") -> str:
    place = torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else "CPU"
    threads = f", {torch.get_num_threads()} threads" if setting.device.type == "cpu" else ""
    kind = str(setting.dtype).removeprefix("torch.")
    what = " of computing time" if setting.busy else ""
    runs = f"medians{what} of {setting.runs} runs, PyTorch {torch.__version__}"
    return f"{size or setting.size} size, {place}{threads}, {kind}, {runs}"


if __name__ == "__main__":
    sys.exit(main())
