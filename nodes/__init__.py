"""The nodes: thin adapters from the canvas to the engine, listed in the order a song is made."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}


def register_in_comfyui() -> None:
    """Where ComfyUI is running, register the model folder and make it the engine's host."""
