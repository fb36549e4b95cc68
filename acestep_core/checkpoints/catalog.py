"""Which models are published, under which names, and which of them lie on this machine.

Loaders offer :func:`list_choices` and turn the chosen name into a file with :func:`resolve`. What a file
is, is read from its header (see :mod:`contents`), never guessed from its name; names only tell which
published model a file stands for, so that a workflow made with one layout runs with another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..host import Host
from ..memory.tiers import lm_size_of
from . import bundled
from .contents import components_in
from .header import GGUF, INDEX, SAFETENSORS, CheckpointError, weight_parts
from .layouts import COMPONENTS

FOLDER_KINDS = {
    "dit": ("acestep", "diffusion_models", "checkpoints"),
    "text": ("acestep", "text_encoders", "checkpoints"),
    "vae": ("acestep", "vae", "checkpoints"),
    "lm": ("acestep", "text_encoders", "checkpoints"),
}
"""Kinds of model folder in which a component may lie, in the order they are searched."""

HUB = "https://huggingface.co"
MAIN_REPO = "ACE-Step/Ace-Step1.5"
COMFY_REPO = "Comfy-Org/ace_step_1.5_ComfyUI_files"
AIO_FILE = "ace_step_1.5_turbo_aio.safetensors"
"""ComfyUI's all-in-one checkpoint: turbo, text encoder, VAE and the 1.7B language model in one file."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-?????-of-?????.safetensors")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
_FILES = {
    "dit": ("config.json", *_WEIGHTS, "silence_latent.pt"),
    "text": ("config.json", *_WEIGHTS, *_TOKENIZER),
    "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
    "lm": ("config.json", *_WEIGHTS, *_TOKENIZER),
}


@dataclass(frozen=True)
class ComfyFile:
    """One file of ComfyUI's repackaged weights: ``repo``, ``path`` in it, and where ComfyUI keeps it."""

    repo: str
    path: str
    folder: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def url(self) -> str:
        return f"{HUB}/{self.repo}/resolve/main/{self.path}"


@dataclass(frozen=True)
class PublishedModel:
    """One published model and the names under which its weights are known.

    Attributes:
        id: what ``download`` calls it; also the published folder name.
        component: ``"dit"``, ``"text"``, ``"vae"`` or ``"lm"``.
        kind: ``"turbo"``, ``"sft"`` or ``"base"`` for a diffusion model, else None.
        size: the usual label, such as ``"2B"`` or ``"0.6B"``.
        bytes: approximate size of the weights.
        repo: repository of the original folder.
        subfolder: the folder inside ``repo``; empty where the repository is the folder.
        comfy: ComfyUI's single file, where one is published.
        diffusers: repository of the diffusers form, where one is known.
        aliases: further file names, without suffix, under which the same weights circulate.
    """

    id: str
    title: str
    component: str
    kind: str | None
    size: str
    bytes: int
    repo: str
    subfolder: str = ""
    comfy: ComfyFile | None = None
    diffusers: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return self.id

    @property
    def files(self) -> tuple[str, ...]:
        """Patterns of the files to fetch; whatever else the repository holds is left there."""
        return _FILES[self.component]

    @property
    def page(self) -> str:
        return f"{HUB}/{self.repo}" + (f"/tree/main/{self.subfolder}" if self.subfolder else "")


@dataclass(frozen=True)
class Resolved:
    """The file a loader should read.

    Attributes:
        kind_of_folder: one of :data:`FOLDER_KINDS`' kinds.
        name: the name within that folder.
        path: the file; of a sharded model, its index.
        substituted_for: the name asked for, where this is the same model in another layout, or another in place of one
            that is not here; else None.
        note: what the user should know of a substitution.
        stands_in: whether this is another model than the one asked for: nano, or a planner of another size.
    """

    kind_of_folder: str
    name: str
    path: Path
    substituted_for: str | None = None
    note: str = ""
    stands_in: bool = False


class ModelNotFound(LookupError):
    """No usable file for a name. The message says what was looked for, where, and how to get it."""


def _comfy(folder: str, file: str) -> ComfyFile:
    return ComfyFile(COMFY_REPO, f"split_files/{folder}/{file}", folder)


def _dit(
    variant: str,
    title: str,
    kind: str,
    comfy: str | None = None,
    repo: str = "",
    diffusers: str | None = None,
    aliases: tuple[str, ...] = (),
) -> PublishedModel:
    folder, extra_large = f"acestep-v15-{variant}", variant.startswith("xl-")
    return PublishedModel(
        id=folder,
        title=title,
        component="dit",
        kind=kind,
        size="XL" if extra_large else "2B",
        bytes=9_974_700_000 if extra_large else 4_787_800_000,
        repo=repo or f"ACE-Step/{folder}",
        subfolder=folder if repo else "",
        comfy=_comfy("diffusion_models", comfy) if comfy else None,
        diffusers=diffusers,
        aliases=aliases,
    )


MODELS: tuple[PublishedModel, ...] = (
    _dit("turbo", "Turbo, 2B", "turbo", "acestep_v1.5_turbo.safetensors", repo=MAIN_REPO),
    _dit("sft", "SFT, 2B", "sft", aliases=("acestep_v1.5_sft",)),
    _dit("base", "Base, 2B", "base", aliases=("acestep_v1.5_base",)),
    _dit(
        "xl-turbo",
        "Turbo, XL",
        "turbo",
        "acestep_v1.5_xl_turbo_bf16.safetensors",
        diffusers="ACE-Step/acestep-v15-xl-turbo-diffusers",
    ),
    _dit("xl-sft", "SFT, XL", "sft", "acestep_v1.5_xl_sft_bf16.safetensors"),
    _dit("xl-base", "Base, XL", "base", "acestep_v1.5_xl_base_bf16.safetensors"),
    _dit("turbo-shift1", "Turbo trained at shift 1, 2B", "turbo"),
    _dit("turbo-shift3", "Turbo trained at shift 3, 2B", "turbo"),
    _dit("turbo-continuous", "Turbo trained at continuous shifts, 2B", "turbo"),
    PublishedModel(
        id="Qwen3-Embedding-0.6B",
        title="Text encoder",
        component="text",
        kind=None,
        size="0.6B",
        bytes=1_191_600_000,
        repo=MAIN_REPO,
        subfolder="Qwen3-Embedding-0.6B",
        comfy=_comfy("text_encoders", "qwen_0.6b_ace15.safetensors"),
    ),
    PublishedModel(
        id="vae",
        title="VAE",
        component="vae",
        kind=None,
        size="169M",
        bytes=337_500_000,
        repo=MAIN_REPO,
        subfolder="vae",
        comfy=_comfy("vae", "ace_1.5_vae.safetensors"),
    ),
    PublishedModel(
        id="acestep-5Hz-lm-1.7B",
        title="Language model, 1.7B",
        component="lm",
        kind=None,
        size="1.7B",
        bytes=3_708_500_000,
        repo=MAIN_REPO,
        subfolder="acestep-5Hz-lm-1.7B",
        comfy=_comfy("text_encoders", "qwen_1.7b_ace15.safetensors"),
    ),
    PublishedModel(
        id="acestep-5Hz-lm-0.6B",
        title="Language model, 0.6B",
        component="lm",
        kind=None,
        size="0.6B",
        bytes=1_325_800_000,
        repo="ACE-Step/acestep-5Hz-lm-0.6B",
    ),
    PublishedModel(
        id="acestep-5Hz-lm-4B",
        title="Language model, 4B",
        component="lm",
        kind=None,
        size="4B",
        bytes=8_379_200_000,
        repo="ACE-Step/acestep-5Hz-lm-4B",
        comfy=_comfy("text_encoders", "qwen_4b_ace15.safetensors"),
    ),
)
BY_ID = {model.id: model for model in MODELS}

_SHARED = ("Qwen3-Embedding-0.6B", "vae")
GROUPS = {
    variant: (f"acestep-v15-{variant}", *_SHARED)
    for variant in ("turbo", "sft", "base", "xl-turbo", "xl-sft", "xl-base")
}
"""Sets that make music together: a diffusion model with the text encoder and the VAE."""

AIO = ComfyFile(COMFY_REPO, f"checkpoints/{AIO_FILE}", "checkpoints")
_IN_AIO = {"dit": "acestep-v15-turbo", "text": "Qwen3-Embedding-0.6B", "vae": "vae", "lm": "acestep-5Hz-lm-1.7B"}

_FOLDER_FILE = re.compile(
    r"(model|pytorch_model|diffusion_pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?"
)
_GGUF_FILE = re.compile(r"(.+?)(?:[-_.](?:bf16|f16|f32|q\d_(?:\d|k(?:_[sml])?)))?\.gguf")
"""A model's name and, behind it, how it is packed."""
_SHARD = re.compile(r"-\d{5}-of-\d{5}(\.(?:safetensors|bin))$")
_DIFFUSERS_PARTS = {"text_encoder": "Qwen3-Embedding-0.6B", "vae": "vae"}
_BY_FOLDER = {model.folder.lower(): model for model in MODELS}
_BY_STEM = {
    stem.lower(): model
    for model in MODELS
    for stem in (model.folder, *model.aliases, *([Path(model.comfy.name).stem] if model.comfy else []))
    if stem != "vae"
}


def equivalents(name: str, component: str | None = None) -> PublishedModel | None:
    """The published model that a widget value stands for, whatever the layout; None if it is none.

    Args:
        name: such as ``acestep_v1.5_turbo.safetensors``, ``acestep-v15-turbo/model.safetensors`` or
            ``acestep-v15-xl-turbo-diffusers/transformer/diffusion_pytorch_model.safetensors``.
        component: what is wanted of the file. It decides for the all-in-one checkpoint, which is the
            turbo model where it is not given; a model of another component is not returned.
    """
    found = _published(name, component)
    return found if found and component in (None, found.component) else None


def _published(name: str, component: str | None) -> PublishedModel | None:
    parts = name.replace("\\", "/").lower().split("/")
    if parts[-1] == AIO_FILE:
        return BY_ID[_IN_AIO[component or "dit"]]
    packed = _GGUF_FILE.fullmatch(parts[-1])
    stem = packed[1] if packed else parts[-1].removesuffix(".safetensors")
    for candidate in (stem, stem.removesuffix("_bf16"), f"{stem}_bf16"):
        if candidate in _BY_STEM:
            return _BY_STEM[candidate]
    if len(parts) < 2 or not _FOLDER_FILE.fullmatch(parts[-1]):
        return None
    repo = parts[-3].removesuffix("-diffusers") if len(parts) > 2 else ""
    if repo in _BY_FOLDER:
        if parts[-2] == "transformer":
            return _BY_FOLDER[repo]
        if parts[-2] in _DIFFUSERS_PARTS:
            return BY_ID[_DIFFUSERS_PARTS[parts[-2]]]
    return _BY_FOLDER.get(parts[-2])


def list_choices(host: Host, component: str) -> list[str]:
    """Names a loader offers for one component: published models first, in the catalog's order, the nano model last.

    Only files that hold the component are named; a damaged file is left out. A sharded model is named by
    its index.
    """
    return [*(offer.name for offer in _offers(host, component)), *bundled.names(component)]


def resolve(host: Host, component: str, name: str) -> Resolved:
    """The file for a chosen name: itself, else the same published model in another layout, else a planner of another
    size for a planner, else the nano model where no weights of any kind are on this machine.

    Raises:
        ModelNotFound: there is neither, or the file of that name is damaged or something else.
    """
    own = bundled.path_of(component, name)
    if own:
        return Resolved(bundled.NANO, name, own)
    refused: list[str] = []
    for kind in FOLDER_KINDS[component]:
        actual = _index_of(host, kind, name)
        path = host.find_model(kind, actual)
        if path is None:
            continue
        try:
            held = components_in(path, _name_hint(actual))
        except CheckpointError as error:
            refused.append(str(error))
            continue
        if component in held:
            return Resolved(kind, actual, path)
        known = " and ".join(f"a {COMPONENTS[other]}" for other in COMPONENTS if other in held)
        refused.append(f"{path} is not an ACE-Step 1.5 {COMPONENTS[component]}; it is {known or 'another model'}.")
    if refused:
        raise ModelNotFound(" ".join([*refused, _there_is(host, component)]))
    wanted = equivalents(name, component)
    for offer in _offers(host, component) if wanted else ():
        if _model_of(offer, component) is wanted:
            note = f"{offer.name} stands in for {name}: the same model."
            return Resolved(offer.kind_of_folder, offer.name, offer.path, name, note)
    other = _nearest_planner(host, wanted) if wanted and component == "lm" else None
    if other:
        note = (
            f"{name} is not on this machine, so {other.name} plans instead; from the same seed it writes another song. "
            f"For the one that was named run `acestep-graph download {wanted.id}`."
        )
        return Resolved(other.kind_of_folder, other.name, other.path, name, note, stands_in=True)
    nano = bundled.stand_in(component, wanted.kind if wanted else None)
    if nano and not has_weights(host):
        get = _to_get(component, wanted)
        note = bundled.note(nano, name, host.models.absolute(), f"acestep-graph download {get.id}")
        return Resolved(bundled.NANO, nano, bundled.path_of(component, nano), name, note, stands_in=True)
    raise ModelNotFound(_not_found(host, component, name, wanted))


def _nearest_planner(host: Host, wanted: PublishedModel) -> Resolved | None:
    """The largest planner on this machine that needs no more memory than the one that is not, else the smallest."""

    def away(offer: Resolved) -> tuple[bool, float]:
        model = _model_of(offer, "lm")
        size = model.size if model else lm_size_of(offer.name)
        more = float(size.rstrip("B")) - float(wanted.size.rstrip("B"))
        return more > 0, abs(more)

    return min(_offers(host, "lm"), key=away, default=None)


def has_weights(host: Host) -> bool:
    """Whether there is any model file of the user's own, be it damaged."""
    return any(_offers(host, component) for component in COMPONENTS) or bool(_damaged(host))


def _to_get(component: str, wanted: PublishedModel | None) -> PublishedModel:
    return wanted or next(model for model in MODELS if model.component == component)


def describe_models(host: Host) -> str:
    """What is on this machine and what can be downloaded, as text for a terminal."""
    lines, present = [f"Models in {host.models.absolute()}", ""], set()
    for component, title in COMPONENTS.items():
        lines.append(f"{title[0].upper()}{title[1:]}s")
        offers = _offers(host, component)
        for offer in offers:
            model = _model_of(offer, component)
            present.add(model.id if model else None)
            label = f"{model.title}" if model else "own model"
            lines.append(f"  {offer.name}  ({label}; {_size(_bytes_on_disk(offer.path))}; {offer.path.parent})")
        nano = ", ".join(bundled.names(component))
        if nano:
            lines.append(f"  {nano}  (comes with the project; plays where nothing else is)")
        elif not offers:
            lines.append("  none")
    damaged = _damaged(host)
    if damaged:
        lines += ["", "Left out, because they cannot be read", *(f"  {reason}" for reason in damaged)]
    lines += ["", "To download: acestep-graph download NAME"]
    for group, members in GROUPS.items():
        missing = sum(BY_ID[member].bytes for member in members if member not in present)
        lines.append(f"  {group:<30}{', '.join(members)} ({'all here' if not missing else _size(missing)})")
    for model in MODELS:
        note = "here" if model.id in present else _size(model.bytes)
        lines.append(f"  {model.id:<30}{model.title} ({note})")
    return "\n".join(lines)


def _offers(host: Host, component: str) -> list[Resolved]:
    offers: dict[str, Resolved] = {}
    for kind in FOLDER_KINDS[component]:
        for listed in host.list_models(kind):
            name = _index_of(host, kind, listed)
            path = host.find_model(kind, name)
            if name in offers or path is None or _SHARD.search(name) or bundled.holds(path):
                continue
            try:
                if component in components_in(path, _name_hint(name)):
                    offers[name] = Resolved(kind, name, path)
            except CheckpointError:
                continue
    return sorted(offers.values(), key=lambda offer: _order(offer, component))


def _order(offer: Resolved, component: str) -> tuple[int, int, bool, str]:
    model = _model_of(offer, component)
    all_in_one = offer.name.lower().endswith(AIO_FILE)
    return (MODELS.index(model) if model else len(MODELS), int(all_in_one), offer.name.endswith(GGUF), offer.name)


def _model_of(offer: Resolved, component: str) -> PublishedModel | None:
    """The published model an offer is, told from its name or from the folders above it."""
    return equivalents(offer.name, component) or equivalents("/".join(offer.path.parts[-3:]), component)


def _index_of(host: Host, kind: str, name: str) -> str:
    """The index file of a shard, where there is one; else the name itself."""
    index = _SHARD.sub(r"\1.index.json", name)
    return index if index != name and host.find_model(kind, index) else name


def _name_hint(name: str) -> str | None:
    """Which component the name speaks of, for test models too small to be told apart by shape."""
    model = equivalents(name)
    if model:
        return model.component
    return "lm" if "5hz-lm" in name.lower() else None


def state_of(path: Path) -> str:
    """What is different when a model file, one of its parts, or its config.json is another one than before.

    Sizes, times and numbers of the files: a copy that keeps size and date is noticed too.

    Raises:
        OSError: a file is gone. CheckpointError: a part is missing.
    """
    beside = path.parent / "config.json"
    files = dict.fromkeys((path, *weight_parts(path), *([beside] if beside.is_file() else [])))
    states = [file.stat() for file in files]
    return "|".join(f"{s.st_size}-{s.st_mtime_ns}-{s.st_ino}-{s.st_ctime_ns}" for s in states)


def _bytes_on_disk(path: Path) -> int:
    return sum(part.stat().st_size for part in weight_parts(path))


def _damaged(host: Host) -> list[str]:
    reasons = []
    for kind in dict.fromkeys(kind for kinds in FOLDER_KINDS.values() for kind in kinds):
        for name in host.list_models(kind):
            path = host.find_model(kind, name)
            try:
                if path is not None and path.name.endswith((*SAFETENSORS, GGUF, INDEX)) and not bundled.holds(path):
                    components_in(path)
            except CheckpointError as error:
                reasons.append(str(error))
    return reasons


def _not_found(host: Host, component: str, name: str, wanted: PublishedModel | None) -> str:
    title = COMPONENTS[component]
    searched = dict.fromkeys(root for kind in FOLDER_KINDS[component] for root in host.model_roots(kind))
    sentences = [
        f"There is no {title} {name!r}, in any published layout." if wanted else f"There is no {title} {name!r}."
    ]
    sentences.append(f"Looked in {', '.join(map(str, searched))}.")
    sentences.append(_there_is(host, component))
    get = _to_get(component, wanted)
    command = f"acestep-graph download {get.id}"
    sentences.append(f"To get {'it' if wanted else get.title}: run `{command}` ({_size(get.bytes)})")
    if get.comfy:
        sentences[-1] += f", or put {get.comfy.url} into the {get.comfy.folder} folder"
    sentences[-1] += "."
    return " ".join(sentences)


def _there_is(host: Host, component: str) -> str:
    choices = list_choices(host, component)
    return f"On this machine there is: {', '.join(choices)}." if choices else "On this machine there is none."


def _size(count: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.{int(unit == 1e9)}f} {name}"
    return f"{count / 1e3:.0f} kB"
