import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from tests import pack  # noqa: E402

pack.load()
