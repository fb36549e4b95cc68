"""ACE-Step 1.5 as a node graph: what ComfyUI imports.

Nothing heavy is imported here; torch and the models are loaded when a node runs.
"""

if __package__:  # a test runner may import this file as a lone module, which has nothing to offer
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, register_in_comfyui

    register_in_comfyui()

    WEB_DIRECTORY = "./web"

    __all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
