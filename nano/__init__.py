"""The recipe of the nano checkpoint: music composed and synthesised here, and the training on it.

Not part of the installed pack. Run from the root of the checkout: ``python -m nano.compose 1 song.wav``.
"""

from tests import pack

pack.load()
