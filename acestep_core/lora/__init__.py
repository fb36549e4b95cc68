"""Adapters: reading and writing their formats, and playing them beside the weights they change."""
