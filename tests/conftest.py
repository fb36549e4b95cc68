import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # bits do not depend on where in memory a matrix lies
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads stall tiny models when cores are shared

from tests import pack  # noqa: E402

pack.load()

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture
def without_nano(tmp_path, monkeypatch):
    """An installation that came without the nano weights."""
    from acestep_graph.acestep_core.checkpoints import bundled

    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "no nano")
