"""Local attention in blocks against the same attention with a dense mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.models import layers
from acestep_graph.acestep_core.models.attention import attend, attend_visible, rotary, rotate, visible

LENGTHS = (1, 2, 100, 128, 129, 130, 257, 385, 750, 1001)


def dense(q, k, v, reach, keys=None):
    """Repeated heads, a T×T mask with the lowest finite number, softmax: the definition."""
    group = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2).double() for x in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)))
    length = q.shape[2]
    position = torch.arange(length)
    seen = torch.ones(length, length, dtype=torch.bool)
    if reach is not None:
        seen = (position[:, None] - position[None]).abs() <= reach
    seen = seen[None] if keys is None else seen[None] & keys[:, None, :]
    score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    score = score.masked_fill(~seen[:, None], torch.finfo(torch.float32).min)
    return (score.softmax(-1) @ v).transpose(1, 2).flatten(2).float()


def tensors(batch, length, heads=4, kv_heads=2, dim=16, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = ((heads,), (kv_heads,), (kv_heads,))
    return [torch.randn(batch, length, *shape, dim, generator=draw) for shape in shapes]


def blocked(q, k, v, reach, keys=None):
    group = q.shape[2] // k.shape[2]
    who = visible(q.shape[1], reach, group, q.device, q.dtype, keys, q.shape[0])
    return attend_visible(q, k, v, who), who


@pytest.mark.parametrize("length", LENGTHS)
def test_window_of_128_equals_dense_mask(length):
    q, k, v = tensors(2, length)
    ours, _ = blocked(q, k, v, 128)
    assert torch.allclose(ours, dense(q, k, v, 128), atol=2e-6)


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 70),
    reach=st.integers(1, 30),
    batch=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]),
    seed=st.integers(0, 10**6),
)
def test_any_window_and_any_padding_equals_dense_mask(length, reach, batch, heads, seed):
    q, k, v = tensors(batch, length, *heads, dim=8, seed=seed)
    keys = torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < 0.6
    for mask in (None, keys):
        ours, _ = blocked(q, k, v, reach, mask)
        assert torch.allclose(ours, dense(q, k, v, reach, mask), atol=5e-6)
    ours, _ = blocked(q, k, v, None, keys)
    assert torch.allclose(ours, dense(q, k, v, None, keys), atol=5e-6)


def test_memory_of_the_mask_grows_linearly():
    sizes = [visible(n, 128, 2, torch.device("cpu"), torch.float32).bias.numel() for n in (1000, 2000, 4000)]
    assert sizes[1] < 2.2 * sizes[0] and sizes[2] < 2.2 * sizes[1]


def test_full_layers_without_padding_have_no_mask():
    assert visible(5000, None, 2, torch.device("cpu"), torch.float32).bias is None
    assert visible(129, 128, 2, torch.device("cpu"), torch.float32).bias is None


def test_causal_attention_ignores_what_follows():
    q, k, v = tensors(1, 20)
    whole = attend(q, k, v, causal=True)
    part = attend(q[:, :7], k[:, :7], v[:, :7], causal=True)
    assert torch.allclose(whole[:, :7], part, atol=1e-6)


def test_rotation_depends_on_distance_only():
    q, k, _ = tensors(1, 40)
    table = rotary(40, 16, 1e6, q.device, torch.float32)
    q, k = rotate(q[:, :1].expand(-1, 40, -1, -1), table), rotate(k[:, :1].expand(-1, 40, -1, -1), table)
    near, far = (q[0, 5] * k[0, 2, :1]).sum(-1), (q[0, 35] * k[0, 32, :1]).sum(-1)
    assert torch.allclose(near, far, atol=1e-4)


@pytest.mark.parametrize("autocast", [False, True])
def test_training_in_bfloat16_learns_what_float32_does(autocast):
    draws = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(2, 9, heads, 16, generator=draws) for heads in (4, 2, 2))
    bias = torch.zeros(2, 1, 1, 9).masked_fill_(torch.rand(2, 1, 1, 9, generator=draws) < 0.3, float("-inf"))
    bias[..., 0] = 0

    def learned(dtype, autocast=False):
        given = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = attend(*given, bias.to(dtype))
            (out.float() * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
        return [out.detach(), *(x.grad for x in given)]

    ours = learned(torch.float32, True) if autocast else learned(torch.bfloat16)
    for made, exact in zip(ours, learned(torch.float32), strict=True):
        assert (made.float() - exact).abs().max() < 0.04 * exact.abs().max()


@pytest.mark.parametrize("kind, close", ((torch.float32, 2e-6), (torch.bfloat16, 2**-7)))
@pytest.mark.parametrize("size", (1e-3, 1.0, 1e3))
def test_what_cards_normalise_with_is_the_same_formula(kind, close, size):
    norm = layers.RMSNorm(256, 1e-6)
    x = (size * torch.randn(3, 5, 256, generator=torch.Generator().manual_seed(1))).to(kind)
    written_out = x.double() / (x.double().square().mean(-1, keepdim=True) + norm.eps).sqrt()
    for made in (norm.normalise(x), layers.fused(x, norm.eps)):
        assert made.dtype == kind and ((made - written_out).abs() <= close * written_out.abs() + 1e-9).all()
