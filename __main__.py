"""``python PATH/TO/THIS/FOLDER run WORKFLOW.json``: the command line without installing anything."""

import importlib.util
import sys
from pathlib import Path


def load_pack(name: str = "acestep_graph"):
    """Import this folder as package ``name``, whatever the folder is called."""
    if name not in sys.modules:
        root = Path(__file__).resolve().parent
        spec = importlib.util.spec_from_file_location(
            name, root / "__init__.py", submodule_search_locations=[str(root)]
        )
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


if __name__ == "__main__":
    load_pack()
    from acestep_graph.headless.cli import main

    sys.exit(main())
