"""Runs every parity check on a fixture directory and prints the result."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

from . import alignment, generate, lora, modules, planner, planner_score, requests, tasks, training  # noqa: F401  (register their checks)
from .golden import GOLDENS, Fixtures


def main(root: Path) -> int:
    """Check the goldens under ``root``; returns the exit status."""
    if not (root / "goldens").is_dir():
        print(f"{root} has no folder goldens/.")
        return 2
    fixtures, passed, failed, covered = Fixtures(root), 0, 0, set()
    present = fixtures.files()
    for golden in GOLDENS:
        covered.update(golden.files)
        absent = [file for file in golden.files if file not in present]
        if absent:
            print(f"not here: {golden.name} ({', '.join(absent)})")
            continue
        try:
            with torch.no_grad():
                results = list(golden.check(fixtures))
        except Exception as error:
            traceback.print_exc()
            print(f"FAIL {golden.name}: {type(error).__name__}: {error}")
            failed += 1
            continue
        wrong = [r for r in results if not r.passed]
        worst = max((r.error for r in results if r.tolerance > 0), default=0.0)
        tolerance = max((r.tolerance for r in results), default=0.0)
        head = "FAIL" if wrong else "ok  "
        print(f"{head} {golden.name}: {len(results)} comparisons, max abs error {worst:.2e}, tolerance {tolerance:.0e}")
        for r in wrong[:10]:
            print(f"       {r.case}: {r.error:.3e} > {r.tolerance:.0e}")
        passed, failed = passed + (not wrong), failed + bool(wrong)
    for golden in GOLDENS:
        for part in golden.omitted:
            print(f"not covered: {golden.name}: {part}")
    for file in present:
        if file not in covered and file != "README.md":
            print(f"not covered: {file}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
