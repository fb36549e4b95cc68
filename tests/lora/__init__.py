"""Adapters: reading, writing, playing."""
