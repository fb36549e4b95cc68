"""Lets tests import this checkout as ``acestep_graph`` without installing it."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load() -> None:
    if "acestep_graph" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "acestep_graph", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        sys.modules["acestep_graph"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
