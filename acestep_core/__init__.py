"""ACE-Step 1.5 music engine on PyTorch.

Importing this package is cheap: torch and the models are loaded by the modules that need them. Start
with :mod:`song` (what to make), :mod:`checkpoints` (load), :mod:`tasks` (condition),
:mod:`sampling` (make latents) and :mod:`decode` (latents to sound).
"""
