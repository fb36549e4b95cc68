"""Weights kept in the precision of the file are the file: mapped, not copied."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.config import ModelConfig
from acestep_graph.acestep_core.training.optimizers import restore_optimizer

PROCESS = Path("/proc/self")
CONFIG = ModelConfig(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=6,
    num_attention_heads=6,
    num_key_value_heads=2,
    num_lyric_encoder_hidden_layers=1,
    num_timbre_encoder_hidden_layers=1,
    num_attention_pooler_hidden_layers=1,
    fsq_dim=768,
)


def own_megabytes() -> float:
    """Memory of this process that no file stands behind."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", (PROCESS / "status").read_text())[1]) / 1000


def mappings(file: Path) -> tuple[list[range], int]:
    """Addresses at which ``file`` is mapped, and how many kB of them became copies by being written."""
    spans, copied, ours = [], 0, False
    for line in (PROCESS / "smaps").read_text().splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            ours = line.endswith(str(file))
            spans += [range(int(head[1], 16), int(head[2], 16))] if ours else []
        elif ours and line.startswith("Anonymous:"):
            copied += int(line.split()[1])
    return spans, copied


@pytest.mark.skipif(not (PROCESS / "smaps").exists(), reason="measures with Linux's /proc")
def test_a_file_s_own_precision_costs_no_memory(tmp_path):
    shapes = {n: p.shape for n, p in loading.without_weights(AceStepModel, CONFIG).named_parameters()}
    file = tmp_path / "turbo.safetensors"
    save_file({name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}, file)
    megabytes = file.stat().st_size / 1e6
    assert megabytes > 190

    before = own_megabytes()
    parameters = list(loading.load_diffusion_model(file, dtype="file").module.parameters())
    assert sum(p.sum(dtype=torch.float64) for p in parameters) == sum(p.numel() for p in parameters)
    assert own_megabytes() - before < 0.25 * megabytes
    spans, copied = mappings(file)
    assert copied == 0 and all(any(p.data_ptr() in span for span in spans) for p in parameters)

    converted = loading.load_diffusion_model(file, dtype="fp32").module.parameters()
    assert not any(p.data_ptr() in span for span in spans for p in converted)


@pytest.mark.skipif(not (PROCESS / "maps").exists(), reason="looks at Linux's /proc")
def test_an_optimizer_that_goes_on_holds_nothing_of_its_file(tmp_path):
    weight = torch.nn.Parameter(torch.ones(100_000))
    state = {"w/step": torch.tensor(3.0), "w/exp_avg": torch.ones(100_000), "w/exp_avg_sq": torch.ones(100_000)}
    file = tmp_path / "optimizer.safetensors"
    save_file(state, file)
    optimizer = torch.optim.AdamW([weight])
    restore_optimizer(optimizer, {"w": weight}, load_file(file), {})
    assert optimizer.state[weight]["step"] == 3
    assert str(file) not in (PROCESS / "maps").read_text()
