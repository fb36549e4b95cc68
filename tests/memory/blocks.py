"""Random blocks of every packed type of GGUF, with scales that make weights of a wanted size."""

import numpy as np

from acestep_graph.acestep_core.checkpoints.gguf_header import BLOCKS

# byte at which the scale d lies, and the offset m where there is one; and the range of what d multiplies
_PLACES = {
    "Q8_0": (0, None, 127),
    "Q6_K": (208, None, 31 * 127),
    "Q5_K": (0, 2, 31 * 63),
    "Q4_K": (0, 2, 15 * 63),
    "Q5_0": (0, None, 16),
    "Q5_1": (0, 2, 31),
    "Q4_0": (0, None, 8),
    "Q4_1": (0, 2, 15),
}


def random_blocks(kind, out, inside, size=0.1, seed=0):
    """Codes [out, bytes of a row], uint8, of weights up to about ``size``."""
    weights, width = BLOCKS[kind]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (out * inside // weights, width), dtype=np.uint8)
    scale, offset, largest = _PLACES[kind]
    numbers = rng.uniform(0.5, 1.0, (2, len(blocks), 1)) * size
    blocks[:, scale : scale + 2] = (numbers[0] / largest).astype(np.float16).view(np.uint8)
    if offset is not None:
        least = numbers[1] / 2 / (63 if kind.endswith("K") else 1) * (1 if kind.endswith("K") else -1)
        blocks[:, offset : offset + 2] = least.astype(np.float16).view(np.uint8)
    return blocks.reshape(out, -1)
