"""Random adapters for the tiny model, the decoder's inputs, and files in every format."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from acestep_graph.acestep_core.lora.adapter import Adapter, Change, Full, Hadamard, Kron, LowRank
from acestep_graph.acestep_core.lora.apply import active
from acestep_graph.acestep_core.lora.branch import Branch
from acestep_graph.acestep_core.lora.layers import Layers
from tests import models

ENTRY = "proj_in.1"
LAYERS = ("layers.0.self_attn.q_proj", "layers.1.cross_attn.v_proj", "layers.3.mlp.down_proj", "condition_embedder")


def config():
    return models.diffusion().config


def shapes():
    return Layers(config()).shapes


def draw(*shape, seed=0, scale=0.3):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def form(kind, out, inside, rank=3, seed=0):
    """A random form of a layer [out, in]."""
    a = b = 2
    c, d = out // a, inside // b

    def part(*shape, salt):
        return draw(*shape, seed=seed + salt)

    return {
        "lora": lambda: LowRank(part(out, rank, salt=1), part(rank, inside, salt=2)),
        "lokr": lambda: Kron((part(a, b, salt=3),), (part(c, d, salt=4),)),
        "lokr_pair": lambda: Kron((part(a, b, salt=3),), (part(c, rank, salt=5), part(rank, d, salt=6))),
        "lokr_pairs": lambda: Kron(
            (part(a, rank, salt=7), part(rank, b, salt=8)), (part(c, rank, salt=5), part(rank, d, salt=6))
        ),
        "loha": lambda: Hadamard(
            (part(out, rank, salt=9), part(rank, inside, salt=10)),
            (part(out, rank, salt=11), part(rank, inside, salt=12)),
        ),
        "full": lambda: Full(part(out, inside, salt=13)),
    }[kind]()


FORM_KINDS = ("lora", "lokr", "lokr_pair", "lokr_pairs", "loha", "full")


def change(layer, kind="lora", rank=3, seed=0, scale=1.0, magnitude="", bias=False):
    """A random change of a layer of the tiny model; ``magnitude`` is rows, columns or nothing."""
    out, inside = shapes()[layer]
    kernel = Layers(config()).kernels.get(layer, 1)
    norms = {"rows": (out, 1), "columns": (1, inside // kernel)}.get(magnitude)
    return Change(
        form(kind, out, inside, rank, seed),
        scale,
        None if norms is None else 1 + draw(*norms, seed=seed + 20).abs(),
        draw(out, seed=seed + 21) if bias else None,
        kernel,
    )


def adapter(kind="lora", layers=LAYERS, rank=3, seed=0, scale=1.0, magnitude="", name="random"):
    changes = {n: change(n, kind, rank, seed + 100 * i, scale, magnitude) for i, n in enumerate(layers)}
    return Adapter(name, changes, config().hidden_size)


def delta(change):
    return change.scale * change.form.dense()


def same(ours, theirs, tolerance=1e-6):
    """Whether two adapters change the same layers by the same matrices, magnitudes and biases."""
    assert set(ours.changes) == set(theirs.changes)
    for layer, one in ours.changes.items():
        other = theirs.changes[layer]
        torch.testing.assert_close(delta(one), delta(other), atol=tolerance, rtol=tolerance)
        assert one.kernel == other.kernel
        for part in ("magnitude", "bias"):
            first, second = getattr(one, part), getattr(other, part)
            assert (first is None) == (second is None), (layer, part)
            if first is not None:
                torch.testing.assert_close(first, second, atol=tolerance, rtol=tolerance)
    return True


def inputs(frames=12, tokens=7, rows=2):
    width = config().encoder_width
    return (
        draw(rows, frames, 64, seed=1, scale=1.0),
        draw(rows, frames, 128, seed=2, scale=1.0),
        draw(rows, tokens, width, seed=3, scale=1.0),
        torch.tensor([0.8, 0.35][:rows]),
    )


@torch.no_grad()
def velocity(model, given=None):
    """The decoder's answer with the adapters of a handle."""
    with active(model):
        return model.module.decoder(*(given or inputs()))


@torch.no_grad()
def through_branch(layer, x, *weighted):
    """A linear layer's answer with changes, each with its strength."""
    return Branch(weighted)(layer, (x,), layer(x))


def save(path, tensors, metadata=None):
    save_file({name: t.clone().contiguous() for name, t in tensors.items()}, path, metadata)
    return path


def spelled(adapter, spell, down="lora_A.weight", up="lora_B.weight", alpha=True):
    """The tensors of a LoRA with the names that ``spell`` makes of its layers."""
    tensors = {}
    for layer, one in adapter.changes.items():
        conv = one.kernel > 1
        tensors[f"{spell(layer)}.{down}"] = one.form.down.unflatten(1, (-1, one.kernel)) if conv else one.form.down
        tensors[f"{spell(layer)}.{up}"] = one.form.up[..., None] if conv else one.form.up
        if alpha:
            tensors[f"{spell(layer)}.alpha"] = torch.tensor(one.alpha)
    return tensors
