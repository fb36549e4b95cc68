"""Writes one set of tiny weights in every layout in which ACE-Step 1.5 is published."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.oobleck import OobleckVAE
from acestep_graph.acestep_core.models.qwen3 import Qwen3
from tests import tiny

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "checkpoints"
FORMS = ("safetensors", "sharded", "bin", "sharded bin")
XL = {
    **{"hidden_size": 48, "num_attention_heads": 6},
    **{"encoder_hidden_size": 64, "encoder_intermediate_size": 96},
    **{"encoder_num_attention_heads": 4, "encoder_num_key_value_heads": 2},
}


class Part(NamedTuple):
    """One model: its tensors under the original names, its config.json, and a folder with its tokenizer."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    tokenizer: Path | None = None


@dataclass(frozen=True)
class Family:
    """All models of one installation; silence is [1, 64, frames] as published."""

    name: str
    dit: Part
    text: Part
    vae: Part
    lm: Part
    silence: Tensor | None = None


class Paths(NamedTuple):
    """Where the models of a family were written."""

    dit: Path
    text: Path
    vae: Path
    lm: Path | None = None


def fixture(kind: str) -> Family:
    """The models of the fixtures, whose window and quantizer are not the published ones."""
    text, vae, lm = (_read(name) for name in ("Qwen3-Embedding-0.6B", "vae", "acestep-5Hz-lm-0.6B"))
    silence = torch.load(FIXTURES / f"acestep-v15-{kind}" / "silence_latent.pt", weights_only=True)
    bare = {name.removeprefix("model."): tensor for name, tensor in lm.tensors.items()}
    return Family(f"acestep-v15-{kind}", _read(f"acestep-v15-{kind}"), text, vae, lm._replace(tensors=bare), silence)


def _read(name: str) -> Part:
    folder, tensors = FIXTURES / name, {}
    for file in folder.glob("*model*.safetensors"):
        tensors |= load_file(file)
    return Part(tensors, json.loads((folder / "config.json").read_text()), folder)


def published_like(xl: bool = False) -> Family:
    """Random models with the published window, quantizer and vocabularies, stored in bfloat16."""
    dit = replace(tiny.DIT, is_turbo=True, **(XL if xl else {}))
    lm = replace(tiny.TEXT, vocab_size=217204)
    made = []
    for seed, (network, config) in enumerate(
        ((AceStepModel, dit), (Qwen3, tiny.TEXT), (OobleckVAE, tiny.VAE), (Qwen3, lm))
    ):
        module = tiny.randomize(network(config), seed)
        tensors = {name: tensor.bfloat16() for name, tensor in tiny.published_vae(module).items()}
        made.append(Part(tensors, {key: value for key, value in asdict(config).items() if value is not None}))
    return Family(f"acestep-v15-{'xl-' * xl}turbo", *made)


def original(root: Path, family: Family, form: str = "safetensors", prefix: str = "", silence: str = "pt") -> Paths:
    """Folders of the original repositories. ``prefix``: of the Qwen3 models; silence: pt, safetensors or none."""
    paths = Paths(root / family.name, root / "Qwen3-Embedding-0.6B", root / "vae", root / "acestep-5Hz-lm-0.6B")
    parts = (family.dit, family.text, family.vae, family.lm)
    stems = ("model", "model", "diffusion_pytorch_model", "model")
    for path, part, stem, before in zip(paths, parts, stems, ("", prefix, "", prefix), strict=True):
        _folder(path, part, form, stem if "bin" not in form or stem != "model" else "pytorch_model", before)
    if family.silence is not None and silence == "pt":
        torch.save(family.silence, paths.dit / "silence_latent.pt")
    elif family.silence is not None and silence == "safetensors":
        save_file({"silence_latent": family.silence}, paths.dit / "silence_latent.safetensors")
    for name in ("modeling_acestep_v15_turbo.py", "configuration_acestep_v15.py"):
        (paths.dit / name).write_text("raise SystemExit('code of a checkpoint was run')\n")
    return paths


def comfy(
    root: Path, family: Family, prefix: str = "", norm: str = "weight_norm", text_prefix: str = "model."
) -> Paths:
    """ComfyUI's split files. ``prefix`` is that of the diffusion model; norm: weight_norm or parametrizations."""
    paths = Paths(
        root / "diffusion_models" / f"{family.name}.safetensors",
        root / "text_encoders" / "qwen_0.6b_ace15.safetensors",
        root / "vae" / "ace_1.5_vae.safetensors",
        root / "text_encoders" / "qwen_1.7b_ace15.safetensors",
    )
    vae = stable_audio(family.vae.tensors, norm)
    for path, tensors, before in zip(
        paths,
        (family.dit.tensors, family.text.tensors, vae, family.lm.tensors),
        (prefix, text_prefix, "", text_prefix),
        strict=True,
    ):
        _save(path, tensors, before)
    return paths


def all_in_one(root: Path, family: Family) -> Paths:
    """ComfyUI's checkpoint with all four models."""
    path = root / "checkpoints" / "ace_step_1.5_turbo_aio.safetensors"
    together = {f"model.diffusion_model.{name}": tensor for name, tensor in family.dit.tensors.items()}
    together |= {f"vae.{name}": tensor for name, tensor in stable_audio(family.vae.tensors).items()}
    for tag, part in (("qwen3_06b", family.text), ("qwen3_2b", family.lm)):
        together |= {f"text_encoders.{tag}.transformer.model.{name}": t for name, t in part.tensors.items()}
    _save(path, together)
    return Paths(path, path, path, path)


def diffusers(
    root: Path, family: Family, new_keys: bool = True, codes: bool = True, form: str = "safetensors"
) -> Paths:
    """A diffusers folder; ``codes`` adds the two parts that the earliest converter dropped."""
    parts: dict[str, dict[str, Tensor]] = {"transformer": {}, "condition_encoder": {}}
    if codes:
        parts |= {"audio_tokenizer": {}, "audio_token_detokenizer": {}}
    sides = dict(zip(("decoder", "encoder", "tokenizer", "detokenizer"), parts, strict=False))
    for name, tensor in family.dit.tensors.items():
        side, _, rest = name.partition(".")
        if side == "null_condition_emb":
            parts["condition_encoder"][name] = tensor
        elif side in sides:
            parts[sides[side]][_diffusers_name(rest, new_keys)] = tensor
    if family.silence is not None:
        parts["condition_encoder"]["silence_latent"] = family.silence.transpose(1, 2).contiguous()
    for name, tensors in parts.items():
        _folder(root / name, Part(tensors, _diffusers_config(name, family.dit.config)), form, "diffusion_pytorch_model")
    _folder(root / "vae", family.vae, form, "diffusion_pytorch_model")
    _folder(root / "text_encoder", family.text._replace(tokenizer=None), form, "model")
    if family.text.tokenizer:
        shutil.copytree(family.text.tokenizer, root / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors"))
    return Paths(root, root, root)


def _diffusers_name(name: str, new_keys: bool) -> str:
    pairs = [("proj_in.1.", "proj_in_conv."), ("proj_out.1.", "proj_out_conv.")]
    if new_keys:
        pairs += [(f".{letter}_proj.", f".to_{letter}.") for letter in "qkv"]
        pairs += [(".o_proj.", ".to_out.0."), (".q_norm.", ".norm_q."), (".k_norm.", ".norm_k.")]
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name


def _diffusers_config(part: str, config: dict[str, Any]) -> dict[str, Any]:
    """The keys that the part's class registers, with the encoder side's widths where it is on that side."""
    shared = ["hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"]
    keys = {
        "transformer": "num_hidden_layers in_channels audio_acoustic_hidden_dim patch_size encoder_hidden_size "
        "is_turbo",
        "condition_encoder": "text_hidden_dim timbre_hidden_dim num_lyric_encoder_hidden_layers "
        "num_timbre_encoder_hidden_layers",
        "audio_tokenizer": "audio_acoustic_hidden_dim pool_window_size fsq_dim fsq_input_levels "
        "num_attention_pooler_hidden_layers",
        "audio_token_detokenizer": "audio_acoustic_hidden_dim pool_window_size num_attention_pooler_hidden_layers",
    }[part].split()
    keys += [*shared, "head_dim", "rope_theta", "rms_norm_eps", "sliding_window"]
    made = {key: config[key] for key in keys if key in config}
    if part != "transformer":
        made |= {key: config[f"encoder_{key}"] for key in shared if config.get(f"encoder_{key}") is not None}
    return made


def stable_audio(tensors: dict[str, Tensor], norm: str = "weight_norm") -> dict[str, Tensor]:
    """The autoencoder's tensors under the names of stable-audio-tools (snakes flat)."""
    return {theirs: tensor.flatten() if flat else tensor for theirs, tensor, flat in _renamed(tensors, norm)}


def _renamed(tensors: dict[str, Tensor], norm: str) -> Iterator[tuple[str, Tensor, bool]]:
    for name, tensor in tensors.items():
        *modules, parameter = name.split(".")
        side = modules[0]
        numbers = [int(m[-1]) for m in modules if m.startswith("res_unit")]
        block = int(modules[2]) + 1 if modules[1] == "block" else {"conv1": 0, "snake1": 6, "conv2": 7}[modules[1]]
        path = [side, "layers", str(block)]
        if numbers:
            inner = ("snake1", "conv1", "snake2", "conv2").index(modules[-1])
            path += ["layers", str(numbers[0] + (1 if side == "decoder" else -1)), "layers", str(inner)]
        elif modules[1] == "block":
            ends = {"snake1": "3", "conv1": "4"} if side == "encoder" else {"snake1": "0", "conv_t1": "1"}
            path += ["layers", ends[modules[-1]]]
        if norm == "parametrizations":
            forms = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
            parameter = forms.get(parameter, parameter)
        yield ".".join([*path, parameter]), tensor, "snake" in modules[-1]


def _folder(folder: Path, part: Part, form: str, stem: str, prefix: str = "") -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(part.config))
    tensors = {prefix + name: tensor for name, tensor in part.tensors.items()}
    suffix = "bin" if "bin" in form else "safetensors"
    if "sharded" not in form:
        _save(folder / f"{stem}.{suffix}", tensors)
    else:
        names = sorted(tensors)
        files = {name: f"{stem}-0000{1 + (i * 3) // len(names)}-of-00003.{suffix}" for i, name in enumerate(names)}
        for file in set(files.values()):
            _save(folder / file, {name: tensors[name] for name in names if files[name] == file})
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    for file in part.tokenizer.iterdir() if part.tokenizer else ():
        if "tokenizer" in file.name or file.name in ("vocab.json", "merges.txt", "added_tokens.json"):
            shutil.copyfile(file, folder / file.name)


def _save(path: Path, tensors: dict[str, Tensor], prefix: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {prefix + name: tensor.contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
