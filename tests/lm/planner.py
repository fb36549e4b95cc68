"""The tiny planner of the fixtures, loaded once, and hosts for it."""

from functools import cache

import torch

from acestep_graph.acestep_core import tokenizer
from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lm.vocabulary import vocabulary_of
from tests.models import CHECKPOINTS

FOLDER = CHECKPOINTS / "acestep-5Hz-lm-0.6B"
HOST = Host(device="cpu")


@cache
def planner():
    return loading.load_language_model(FOLDER, dtype=torch.float32)


@cache
def published_tokenizer():
    """As the published language models have it, from the bundled vocabulary."""
    return tokenizer.load(None, audio_codes=tokenizer.LM_AUDIO_CODES)


def words():
    return vocabulary_of(planner().tokenizer)
