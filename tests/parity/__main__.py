"""``python -m tests.parity DIR``: one line a golden, then what is not covered, then the count."""

from __future__ import annotations

import sys
from pathlib import Path

from tests import pack

pack.load()

from tests.parity.report import main  # noqa: E402

if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "fixtures"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
