"""Every golden in the test suite; ``python -m tests.parity`` prints the same as a table."""

import pytest
import torch

from tests.pack import ROOT
from tests.parity import report  # noqa: F401  (registers every check)
from tests.parity.golden import GOLDENS, Fixtures

FIXTURES = Fixtures(ROOT / "tests" / "fixtures")


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
def test_golden(golden):
    with torch.no_grad():
        results = list(golden.check(FIXTURES))
    assert results
    wrong = [f"{r.case}: {r.error:.3e} > {r.tolerance:.0e}" for r in results if not r.passed]
    assert not wrong, "\n".join(wrong[:20])
