"""Memory and time of loading: a checkpoint of the published size, read by a process of its own."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from math import prod
from pathlib import Path

import torch

from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.config import ModelConfig
from tests.tiny import DIT as TINY

from .side_by_side import GB, Row

DTYPES = ("file", "fp32", "int8", "fp8")
BLOCK = 2**24
"""Random numbers that the file repeats: what is in them does not matter, drawing billions takes minutes."""


def rows(size: str = "real", folder: Path | None = None) -> list[Row]:
    """Write a bfloat16 checkpoint into ``folder``, load it once in each precision, and remove it.

    Raises:
        OSError: not enough room in ``folder``.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="acestep-v15-turbo-") as place:
        path = Path(place) / "model.safetensors"
        write(path, TINY if size == "tiny" else ModelConfig())
        return [_loaded(path, dtype) for dtype in DTYPES]


def write(path: Path, config: ModelConfig) -> None:
    """A diffusion checkpoint with random bfloat16 weights, one tensor after another."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in AceStepModel(config).named_parameters()}
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (begin, end)}
    free, needed = shutil.disk_usage(path.parent).free / GB, 1.05 * end / GB
    if free < needed:
        raise OSError(f"{path.parent} has {free:.1f} GB free; {needed:.1f} GB are needed. Choose another folder.")
    block = (0.02 * torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))).bfloat16().view(torch.uint8)
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            left = 2 * prod(shape)
            while left:
                file.write(block[:left].numpy().data)
                left -= min(left, block.numel())


def _loaded(path: Path, dtype: str) -> Row:
    """One row, measured by this module run as a program."""
    command = [sys.executable, "-m", "benchmarks.load", str(path), dtype]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Loading as {dtype} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    size = path.stat().st_size
    return {
        "dtype": dtype,
        "file (GB)": size / GB,
        "load (s)": found["seconds"],
        "peak loading (GB)": found["loading"] / GB,
        "peak after use (GB)": found["touched"] / GB,
        "not backed by the file (GB)": found["anonymous"] / GB,
        "before (GB)": found["before"] / GB,
        "peak / file": found["touched"] / size,
    }


def measure(path: Path, dtype: str) -> dict[str, float]:
    """Load, then touch every weight; bytes resident in this process.

    ``before``: at the start, Python and PyTorch. ``loading``, ``touched``: the most until then, pages of the
    mapped file included (the kernel can drop those at any time). ``anonymous``: the most without them.
    """
    before, most, stop = _status("VmRSS"), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            most[0] = max(most[0], _status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        model = loading.load_diffusion_model(path, dtype=dtype)
        seconds, after_load, loaded = time.perf_counter() - started, _peak(), _status("RssAnon")
        total = sum(_sum(tensor) for tensor in (*model.module.parameters(), *model.module.buffers()))
    finally:
        stop.set()
        watcher.join()
    most_touched = max(after_load, _peak())  # the kernel counts pages roughly
    found = {"before": before, "loading": after_load, "touched": most_touched, "anonymous": most[0]}
    return {**found, "seconds": seconds, "sum": total, "loaded": loaded}


def _sum(tensor: torch.Tensor) -> float:
    """Of every number, so that each was read once; a quantized tensor's parts one by one."""
    if hasattr(tensor, "qdata"):
        return sum(_sum(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return float(tensor.view(torch.uint8).sum(dtype=torch.int64) if tensor.element_size() == 1 else tensor.sum())


def _peak() -> int:
    """Most bytes ever resident in this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return max(_status("VmHWM"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _status(field: str) -> int:
    """A line of /proc/self/status in bytes; 0 where the system has no such file."""
    path = Path("/proc/self/status")
    if not path.is_file():
        return 0
    return next(int(x.split()[1]) * 1024 for x in path.read_text().splitlines() if x.startswith(field + ":"))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
