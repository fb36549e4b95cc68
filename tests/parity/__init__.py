"""Checks against reference tensors of the original implementation. ``python -m tests.parity DIR`` runs alone."""
