"""Loaders: from a file name to a handle. Lists and lookups go through the host, so paths never leave it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..acestep_core import host
from ..acestep_core.checkpoints import bundled, catalog
from ..acestep_core.lm.backends import BACKENDS
from ..acestep_core.memory.tiers import TIERS, best_planner, lm_size_of, tier_of
from .widgets import LM, MODEL, ROOT, TEXT, VAE, choice, problem_of, socket, switch

CATEGORY = f"{ROOT}/Load"
PRECISIONS = ("auto", "bf16", "fp32", "fp16", "file")
DIT_PRECISIONS = (*PRECISIONS, "int8", "fp8")
KINDS = ("auto", "turbo", "sft", "base")
PRECISION_TIP = (
    "Number format of the weights. auto: bf16 on GPUs that compute it natively, else fp32. "
    "file: as stored. fp16 can turn lyrics into noise."
)
PACKED_TIP = (
    " Of files in fp8 and GGUF, auto and file keep the matrices packed, which saves memory; the others unpack them."
)
LM_TIP = (
    " Of files in fp8 and GGUF, file keeps the matrices packed, which saves memory and is slow; the others unpack them."
)
INT8_TIP = (
    " On NVIDIA cards under 20 GB auto means int8. int8: the decoder's matrices in 8 bits, a third less memory; needs "
    "the Python package torchao. fp8: the same memory in 8-bit floating point, less exact, needs nothing and works on "
    f"every device.{PACKED_TIP}"
)
INT8_ALL_TIP = f"{INT8_TIP} With int8 and fp8, text encoder and VAE are loaded as with auto."
KIND_TIP = "What the checkpoint is. auto reads it from config.json or from the file name."
DOWNLOAD_TIP = (
    "Fetch models that are not on this machine from their official repositories (several GB, resumable). "
    "Off: nothing is ever downloaded."
)
REPORT_TIP = "What was loaded: file, layout, kind, precision, and anything worth knowing"
WHERE = {
    "dit": "models/diffusion_models, models/checkpoints or models/acestep",
    "text": "models/text_encoders, models/checkpoints or models/acestep",
    "vae": "models/vae, models/checkpoints or models/acestep",
    "lm": "models/text_encoders, models/checkpoints or models/acestep",
}


def model_choice(component: str) -> tuple[str, dict[str, Any]]:
    """Combo of the files on this machine that hold ``component``; the ComfyUI file's name where there is none."""
    title = catalog.COMPONENTS[component]
    found = catalog.list_choices(host.current(), component)
    standard = next(m.comfy.name for m in catalog.MODELS if m.component == component and m.comfy)
    tooltip = f"File of the {title}. Searched in {WHERE[component]}."
    return choice(found or [standard], tooltip, default=found[0] if found else standard)


def check_file(component: str, name: str | None, download: bool | None = False) -> bool | str:
    """True where ``name`` can be loaded, or downloaded if that is allowed; else what to do."""
    if name is None:
        return True
    fetchable = download and catalog.equivalents(name, component)
    return True if fetchable else problem_of(catalog.resolve, host.current(), component, name)


def find_file(component: str, name: str, download: bool = False) -> tuple[Path, str]:
    """The file for a widget value, and a note where another layout of the same model, or the nano model, stands in."""
    here, model = host.current(), catalog.equivalents(name, component)
    here.let_go()
    missing: Exception | None = None
    try:
        found = catalog.resolve(here, component, name)
    except catalog.ModelNotFound as error:
        missing = error
    if missing or found.stands_in:
        if download and model:
            from ..acestep_core.checkpoints.download import download as fetch

            fetch(model.id, here)
            found = catalog.resolve(here, component, name)
        elif missing:
            raise missing
    if found.note:
        here.say(found.note)
    return found.path, found.note


def fingerprint(component: str, name: str | None) -> str:
    """Changes when a file behind ``name`` changes or is replaced: the weights, a part of them, the configuration.
    None, which is what a linked widget is then, does not change."""
    if name is None:
        return ""
    try:
        path = catalog.resolve(host.current(), component, name).path
        return f"{path}|{catalog.state_of(path)}"
    except (LookupError, OSError, ValueError):
        return name


def report_text(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def load_dit(name: str, precision: str, kind: str, vae: Any, download: bool) -> tuple[Any, str]:
    from ..acestep_core import codec
    from ..acestep_core.checkpoints import loading

    path, note = find_file("dit", name, download)
    model = loading.load_diffusion_model(path, kind=kind, dtype=precision)
    if vae is not None:
        model = codec.with_silence(model, vae)
    return model, report_text(model.report.text(), note)


def load_text(name: str, precision: str, download: bool) -> tuple[Any, str]:
    from ..acestep_core.checkpoints import loading

    path, note = find_file("text", name, download)
    encoder = loading.load_text_encoder(path, dtype=precision)
    return encoder, report_text(encoder.report.text(), note)


def load_vae(name: str, precision: str, download: bool) -> tuple[Any, str]:
    from ..acestep_core.checkpoints import loading

    path, note = find_file("vae", name, download)
    vae = loading.load_vae(path, dtype=precision)
    return vae, report_text(vae.report.text(), note)


class LoadModels:
    """Everything text to music needs, from one node."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Loads the diffusion model, the text encoder and the VAE of ACE-Step 1.5. Original folders, ComfyUI files, "
        "diffusers folders and GGUF files all work; use the single loaders for special cases."
    )
    SEARCH_ALIASES = ["ace step", "checkpoint", "loader", "music model"]
    FUNCTION = "load"
    RETURN_TYPES = (MODEL, TEXT, VAE, "STRING")
    RETURN_NAMES = ("model", "text_encoder", "vae", "report")
    OUTPUT_TOOLTIPS = ("Diffusion model", "Text encoder", "VAE", REPORT_TIP)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "diffusion_model": model_choice("dit"),
                "text_encoder": model_choice("text"),
                "vae": model_choice("vae"),
                "precision": choice(DIT_PRECISIONS, PRECISION_TIP + INT8_ALL_TIP),
                "kind": choice(KINDS, KIND_TIP, advanced=True),
                "download_missing": switch(False, DOWNLOAD_TIP, advanced=True),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        diffusion_model: str | None = None,
        text_encoder: str | None = None,
        vae: str | None = None,
        download_missing: bool | None = False,
    ) -> bool | str:
        names = (("dit", diffusion_model), ("text", text_encoder), ("vae", vae))
        answers = (check_file(component, name, download_missing) for component, name in names)
        return next((answer for answer in answers if answer is not True), True)

    @classmethod
    def IS_CHANGED(
        cls, diffusion_model: str | None = None, text_encoder: str | None = None, vae: str | None = None, **_: Any
    ) -> str:
        names = (("dit", diffusion_model), ("text", text_encoder), ("vae", vae))
        return "|".join(fingerprint(component, name) for component, name in names)

    def load(
        self, diffusion_model: str, text_encoder: str, vae: str, precision: str, kind: str, download_missing: bool
    ) -> tuple:
        others = precision
        if precision == "int8":
            from ..acestep_core.memory import quantize

            quantize.require()
        if precision in ("int8", "fp8"):
            others = "auto"
        autoencoder, vae_report = load_vae(vae, others, download_missing)
        encoder, text_report = load_text(text_encoder, others, download_missing)
        model, report = load_dit(diffusion_model, precision, kind, autoencoder, download_missing)
        host.current().say(f"Ready: {model.kind} model, text encoder and VAE ({model.report.dtype}).")
        return model, encoder, autoencoder, report_text(report, text_report, vae_report)


class _LoadOne:
    """What the single loaders share."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    COMPONENT = ""
    WIDGET = ""
    PRECISION: tuple[tuple[str, ...], str] = (PRECISIONS, PRECISION_TIP)

    @classmethod
    def _inputs(cls) -> dict[str, Any]:
        return {
            cls.WIDGET: model_choice(cls.COMPONENT),
            "precision": choice(*cls.PRECISION),
            "download_missing": switch(False, DOWNLOAD_TIP, advanced=True),
        }

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": cls._inputs()}

    @classmethod
    def IS_CHANGED(cls, **widgets: Any) -> str:
        return fingerprint(cls.COMPONENT, widgets.get(cls.WIDGET))


class LoadDiffusionModel(_LoadOne):
    DESCRIPTION = "Loads an ACE-Step 1.5 diffusion model: turbo, sft or base, 2B or XL."
    SEARCH_ALIASES = ["ace step", "dit", "unet"]
    COMPONENT, WIDGET = "dit", "diffusion_model"
    PRECISION = (DIT_PRECISIONS, PRECISION_TIP + INT8_TIP)
    RETURN_TYPES = (MODEL, "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = ("Diffusion model", REPORT_TIP)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        vae = socket(VAE, "Needed for ComfyUI files, which carry no silence latent: it is made with the VAE.")
        return {"required": {**cls._inputs(), "kind": choice(KINDS, KIND_TIP)}, "optional": {"vae": vae}}

    @classmethod
    def VALIDATE_INPUTS(cls, diffusion_model: str | None = None, download_missing: bool | None = False) -> bool | str:
        return check_file("dit", diffusion_model, download_missing)

    def load(self, diffusion_model: str, precision: str, download_missing: bool, kind: str, vae: Any = None) -> tuple:
        return load_dit(diffusion_model, precision, kind, vae, download_missing)


class LoadTextEncoder(_LoadOne):
    DESCRIPTION = "Loads the text encoder (Qwen3-Embedding-0.6B) that reads captions and lyrics."
    SEARCH_ALIASES = ["ace step", "clip", "qwen"]
    COMPONENT, WIDGET = "text", "text_encoder"
    PRECISION = (PRECISIONS, PRECISION_TIP + PACKED_TIP)
    RETURN_TYPES = (TEXT, "STRING")
    RETURN_NAMES = ("text_encoder", "report")
    OUTPUT_TOOLTIPS = ("Text encoder", REPORT_TIP)

    @classmethod
    def VALIDATE_INPUTS(cls, text_encoder: str | None = None, download_missing: bool | None = False) -> bool | str:
        return check_file("text", text_encoder, download_missing)

    def load(self, text_encoder: str, precision: str, download_missing: bool) -> tuple:
        return load_text(text_encoder, precision, download_missing)


class LoadVAE(_LoadOne):
    DESCRIPTION = "Loads the VAE that turns latents into sound and sound into latents."
    SEARCH_ALIASES = ["ace step", "autoencoder", "oobleck"]
    COMPONENT, WIDGET = "vae", "vae"
    RETURN_TYPES = (VAE, "STRING")
    RETURN_NAMES = ("vae", "report")
    OUTPUT_TOOLTIPS = ("VAE", REPORT_TIP)

    @classmethod
    def VALIDATE_INPUTS(cls, vae: str | None = None, download_missing: bool | None = False) -> bool | str:
        return check_file("vae", vae, download_missing)

    def load(self, vae: str, precision: str, download_missing: bool) -> tuple:
        return load_vae(vae, precision, download_missing)


AUTO_PLANNER = "auto"
AUTO_TIP = " auto: the one that suits the memory of this card."


class LoadLanguageModel(_LoadOne):
    DESCRIPTION = (
        "Loads the planner: the 5 Hz language model that writes songs from a sentence, completes their plan and "
        "writes the codes the diffusion model follows. 0.6B for small cards, 1.7B for most, 4B for large ones."
    )
    SEARCH_ALIASES = ["ace step", "llm", "5hz lm", "planner", "qwen"]
    COMPONENT, WIDGET = "lm", "language_model"
    PRECISION = (PRECISIONS, PRECISION_TIP + LM_TIP)
    RETURN_TYPES = (LM, "STRING")
    RETURN_NAMES = ("lm", "report")
    OUTPUT_TOOLTIPS = ("Planner, for Create Sample, Format Song, Think and Transcribe", REPORT_TIP)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        backend = (
            "How it decodes. auto: CUDA graphs on NVIDIA GPUs, which are several times faster, else plain PyTorch. "
            "All give the same codes."
        )
        kind, options = model_choice("lm")
        options["options"].append(AUTO_PLANNER)
        options["tooltip"] += AUTO_TIP
        return {"required": {**cls._inputs(), cls.WIDGET: (kind, options), "backend": choice(BACKENDS, backend)}}

    @classmethod
    def VALIDATE_INPUTS(cls, language_model: str | None = None, download_missing: bool | None = False) -> bool | str:
        if language_model == AUTO_PLANNER:
            return problem_of(fitting_planner)
        return check_file("lm", language_model, download_missing)

    @classmethod
    def IS_CHANGED(cls, language_model: str | None = None, **_: Any) -> str:
        if language_model == AUTO_PLANNER:
            language_model = fitting_planner()
        return fingerprint("lm", language_model)

    def load(self, language_model: str, precision: str, download_missing: bool, backend: str) -> tuple:
        from ..acestep_core.checkpoints import loading
        from ..acestep_core.lm.backends import with_backend

        if language_model == AUTO_PLANNER:
            language_model = fitting_planner()
        misfit = planner_misfit(language_model)
        path, note = find_file("lm", language_model, download_missing)
        lm = with_backend(loading.load_language_model(path, dtype=precision), backend)
        return lm, report_text(lm.report.text(), note, misfit)


def fitting_planner() -> str:
    """The planner on this machine that suits its card; the smallest one where none does.

    Raises:
        LookupError: there is no planner at all.
    """
    here = host.current()
    names = catalog.list_choices(here, "lm")
    if not names:
        raise LookupError(f"There is no planner in {WHERE['lm']}. Get one: acestep-graph download acestep-5Hz-lm-0.6B")
    memory = here.memory_gb()
    tier = tier_of(memory) if memory else TIERS["tier5"]
    names = [name for name in names if not bundled.is_nano(name)] or names
    return best_planner(names, tier) or min(names, key=lambda name: float(lm_size_of(name).rstrip("B")))


def planner_misfit(name: str) -> str:
    """A sentence where a planner is larger than the card's tier allows, said at once; "" otherwise."""
    here = host.current()
    memory, size = here.memory_gb(), lm_size_of(name)
    tier = tier_of(memory)
    if not memory or size in tier.lm_sizes:
        return ""
    fits = f"{', '.join(tier.lm_sizes)} fits" if tier.lm_sizes else "none is comfortable"
    note = f"A planner of {size} is large for a card of {memory:.1f} GB ({fits}); memory may run out."
    here.say(note)
    return note
