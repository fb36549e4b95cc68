"""ComfyUI as the engine's host: its devices, folders, progress bar, cancel button and memory management."""

from __future__ import annotations

import gc
import html
import os
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..acestep_core import host as engine

TEXT_INTERVAL = 0.25
EXTENSIONS = {".safetensors", ".sft", ".bin", ".pt", ".ckpt", ".gguf", ".json"}
GGUF_FOLDERS = {kind: f"acestep_{kind}_gguf" for kind in ("diffusion_models", "text_encoders", "vae")}
"""Kinds under which the GGUF files of ComfyUI's folders are listed; ComfyUI itself passes over them."""


def register_model_folder(folder_paths: Any) -> None:
    """Add ``models/acestep`` to ComfyUI's model folders, keeping what extra_model_paths.yaml added.

    Folders of :data:`GGUF_FOLDERS` are the same as ComfyUI's own, for other files.
    """
    default = os.path.join(folder_paths.models_dir, "acestep")
    folders, known = folder_paths.folder_names_and_paths.get("acestep", ([], set()))
    folder_paths.folder_names_and_paths["acestep"] = (
        folders if default in folders else [*folders, default],
        set(known) | EXTENSIONS,
    )
    for kind, listed in GGUF_FOLDERS.items():
        if kind in folder_paths.folder_names_and_paths:
            folder_paths.folder_names_and_paths[listed] = (folder_paths.folder_names_and_paths[kind][0], {".gguf"})


class ComfyHost(engine.Host):
    """Everything is asked of ComfyUI at the moment it is needed, so its command line settings hold."""

    name = "comfyui"
    _streamed: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
    """Diffusion models of which layers wait in main memory."""

    def __init__(self) -> None:
        import folder_paths

        self._paths = folder_paths
        super().__init__(
            models=folder_paths.models_dir,
            input=folder_paths.get_input_directory(),
            output=folder_paths.get_output_directory(),
            temp=folder_paths.get_temp_directory(),
        )
        self._bar: Any = None
        self._last_text = 0.0

    @classmethod
    def install(cls) -> None:
        engine.install(cls())

    # -- progress, messages, cancelling

    def on_progress(self, done: int, total: int, text: str) -> None:
        import comfy.utils

        if done == 0 or self._bar is None:
            self._bar = comfy.utils.ProgressBar(total)
        self._bar.update_absolute(done, total)
        now = time.monotonic()
        if done in (0, total) or now - self._last_text > TEXT_INTERVAL:
            self._last_text = now
            self._show(text)

    def check_cancelled(self) -> None:
        import comfy.model_management

        comfy.model_management.throw_exception_if_processing_interrupted()

    def is_cancel(self, error: BaseException) -> bool:
        import comfy.model_management

        return super().is_cancel(error) or isinstance(error, comfy.model_management.InterruptProcessingException)

    def say(self, text: str) -> None:
        engine.log.info(text)
        self._show(text)

    def send(self, event: str, values: Mapping[str, Any]) -> None:
        """To every open page, with the node that is running."""
        from comfy_execution.utils import get_executing_context
        from server import PromptServer

        context, server = get_executing_context(), getattr(PromptServer, "instance", None)
        if context is not None and server is not None:
            server.send_sync(event, {"node": context.node_id, **values})

    def _show(self, text: str) -> None:
        """Text under the node that is running; nothing where there is no server or no node.

        The page takes it as HTML, and names and words in it may come from a stranger's workflow.
        """
        from comfy_execution.utils import get_executing_context
        from server import PromptServer

        context, server = get_executing_context(), getattr(PromptServer, "instance", None)
        if context is not None and server is not None and server.client_id is not None:
            server.send_progress_text(html.escape(text, quote=False), context.node_id)

    @property
    def shares_workflows(self) -> bool:
        from comfy.cli_args import args

        return not args.disable_metadata

    # -- devices

    def device(self, component: str) -> Any:
        import comfy.model_management as management

        if component in ("text", "lm"):
            return management.text_encoder_device()
        return management.vae_device() if component == "vae" else management.get_torch_device()

    def dtype(self, component: str) -> Any:
        import comfy.model_management as management
        import torch

        device = self.device(component)
        if component == "vae":
            return management.vae_dtype(device, [torch.bfloat16, torch.float32])
        return torch.bfloat16 if management.should_use_bf16(device) else torch.float32

    def prepare(self, module: Any, component: str, activation_bytes: int = 0) -> Any:
        """Load through ComfyUI's memory management, which may evict other models and, later, this one.

        Layers of a diffusion model that would not fit even alone stay in main memory until their turn.
        """
        import comfy.model_management as management

        from ..acestep_core.memory import streaming

        device = self.device(component)
        if component == "dit" and not management.is_device_cpu(device) and streaming.possible(device):
            room = self._room(module, device, activation_bytes)
            if not streaming.fits(module, room):
                management.free_memory(1e30, device)  # the same parameters must not be in two loaded models
                room = self._room(module, device, activation_bytes)
                self._streamed.add(module)
                streaming.arrange(
                    module, device, room, lambda part: self._load(part, component, device, activation_bytes)
                )
                return device
            if streaming.notes(module):
                management.free_memory(1e30, device)
        streaming.settle(module)
        return self._load(module, component, device, activation_bytes)

    def let_go(self) -> None:
        """A module and its patcher hold each other."""
        gc.collect()

    def _load(self, module: Any, component: str, device: Any, activation_bytes: int) -> Any:
        """The whole of ``module`` to ``device``, by ComfyUI."""
        import comfy.model_management as management
        from comfy.model_patcher import ModelPatcher

        patcher = getattr(module, "comfy_patcher", None)
        if patcher is None:
            gc.collect()  # a module and its patcher hold each other, and what nobody uses should not be on the card
            away = self._offload_device(module, component)
            patcher = module.comfy_patcher = ModelPatcher(module, load_device=device, offload_device=away)
        wanted = min(activation_bytes, int(management.get_total_memory(device)))
        management.load_models_gpu([patcher], memory_required=wanted, force_full_load=True)
        if patcher.loaded_size() < patcher.model_size():  # with --novram ComfyUI waits for layers of its own kind
            patcher.partially_load(device, 1e32)
        return patcher.load_device

    def _offload_device(self, module: Any, component: str) -> Any:
        """Where ``module`` waits while it is idle; never on the card what does not fit there whole."""
        import comfy.model_management as management
        import torch

        if component in ("text", "lm"):
            return management.text_encoder_offload_device()
        if component == "vae":
            return management.vae_offload_device()
        return management.unet_offload_device() if _whole(module) is None else torch.device("cpu")

    def make_room(self) -> None:
        import comfy.model_management as management

        from ..acestep_core.memory import streaming

        management.unload_all_models()
        for module in self._streamed:
            streaming.settle(module)
        self._streamed.clear()
        management.soft_empty_cache()

    def _total_bytes(self) -> int:
        import comfy.model_management as management

        device = self.device("dit")
        return 0 if management.is_device_cpu(device) else int(management.get_total_memory(device))

    def _free_bytes(self) -> int:
        import comfy.model_management as management

        return int(management.get_free_memory(self.device("dit")))

    def _evictable_bytes(self, keep: Any) -> int:
        import comfy.model_management as management

        patchers = [loaded.model for loaded in management.current_loaded_models if loaded.model is not None]
        here = self.device("dit")
        if keep is not None:
            patchers = [p for p in patchers if keep is not p.model and keep is not _whole(p.model)]
        return sum(int(p.loaded_size()) for p in patchers if p.load_device == here)

    # -- files

    def model_roots(self, kind: str) -> list[Path]:
        known = self._paths.folder_names_and_paths
        return [Path(p) for p in known[kind][0]] if kind in known else []

    def list_models(self, kind: str) -> list[str]:
        if kind not in self._paths.folder_names_and_paths:
            return []
        known = self._paths.folder_names_and_paths
        kinds = [listed for listed in (kind, GGUF_FOLDERS.get(kind)) if listed in known]
        names = (name.replace(os.sep, "/") for listed in kinds for name in self._paths.get_filename_list(listed))
        return [name for name in dict.fromkeys(names) if name.endswith(engine.WEIGHT_SUFFIXES)]


def _whole(part: Any) -> Any:
    """The model that ``part`` is what stays on the card of; None for anything else."""
    whole = getattr(part, "whole", None)
    return whole() if callable(whole) else None
