"""What data sets, tensors and exports may hold, for checks and widgets alike. Imports no torch.

Those of the training itself are in :mod:`training.settings`.
"""

TAG_POSITIONS = ("prepend", "append", "replace")
GENRE_RATIO_RANGE = (0, 100)
PROMPTS = ("", "caption", "genre")
"""What the prompt of a sample is made of; "" leaves it to the genre ratio of the data set."""
REPEAT_RANGE = (1, 1000)

MAX_SECONDS_RANGE = (10, 600)
TILE_RANGE = (64, 1024)
"""Window of the autoencoder in latent frames."""
TIMBRES = ("silence", "own")
SEED_RANGE = (0, 2**32 - 1)

EVERY_RANGE = (1, 10000)
"""Epochs between two samples."""
WHICH = ("final", "best", "latest")
FORMATS = ("ComfyUI file", "PEFT folder")
DTYPES = ("bf16", "fp16", "fp32", "as trained")
