"""Speed and memory, side by side with the ACE-Step classes of diffusers. See README.md here."""

from tests import pack

pack.load()
