import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads stall tiny models when cores are shared

from tests import pack  # noqa: E402

pack.load()
