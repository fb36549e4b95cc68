"""Training: the loss of the model's own training pass, and steps of an adapter on both kinds of timesteps."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from acestep_graph.acestep_core.lora.formats import read_adapter
from acestep_graph.acestep_core.training import losses
from acestep_graph.acestep_core.training.adapters import Trainable, twin
from acestep_graph.acestep_core.training.settings import TrainSettings
from acestep_graph.acestep_core.training.trainer import make_optimizer

from .golden import Difference, Fixtures, close, equal, golden

CPU = torch.device("cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def adapted(fixtures: Fixtures, kind: str, settings: TrainSettings):
    """A twin of the decoder, and adapter_a beside it, ready to be trained."""
    model = fixtures.model(kind)
    decoder = twin(model.module.decoder, CPU, torch.float32)
    trained = Trainable(decoder, settings, seeded(0))
    trained.load(read_adapter(fixtures.root / "adapters" / "adapter_a", model.config))
    return decoder, trained


def batch(g, null):
    given = (g["in.target_latents"], g["in.context_latents"], g["in.encoder_hidden_states"])
    return given, null.detach()


@golden("training_loss", "training_loss.safetensors", "training_loss.json")
def training_loss(fixtures: Fixtures) -> Iterator[Difference]:
    g, cases = fixtures.tensors("training_loss.safetensors"), fixtures.json("training_loss.json")
    for case, facts in cases.items():
        kind = case.split(".")[0]
        model = fixtures.model(kind)
        module, config = model.module, model.config
        x = {name: g[f"{kind}.in.{name}"] for name in ("hidden_states", "src_latents", "chunk_masks")}
        clips = "refer_audio_acoustic_hidden_states_packed"
        parts = ("text_hidden_states", "text_attention_mask", "lyric_hidden_states", "lyric_attention_mask", clips)
        heard = [g[f"{kind}.in.{name}"] for name in (*parts, "refer_audio_order_mask")]
        conditions, _ = module.encoder(*heard)
        hints = module.hints(x["src_latents"], model.silence[: module.tokenizer.pool])
        covers = torch.tensor(facts["is_covers"], dtype=torch.bool)
        source = torch.where(covers[:, None, None], hints, x["src_latents"])
        given = torch.cat((source, x["chunk_masks"]), dim=-1)

        target, mu, sigma = x["hidden_states"], config.timestep_mu, config.timestep_sigma
        draw = losses.draw_continuous(target.shape, seeded(facts["global_seed"]), mu, sigma, facts["cfg_ratio"])
        yield close(f"{case} noise", draw.noise, g[f"{case}.in.x1"])
        yield close(f"{case} t", draw.t, g[f"{case}.mid.t"])
        yield equal(f"{case} dropped", draw.dropped.tolist(), facts["dropped"])
        yield close(f"{case} x", losses.noisy(target, draw), g[f"{case}.mid.xt"])
        null = module.null_condition_emb.detach()
        after = losses.unconditional(conditions, null, draw.dropped)
        yield close(f"{case} conditions", after, g[f"{case}.mid.encoder_hidden_states"])

        with torch.enable_grad():
            decoder = twin(module.decoder, CPU, torch.float32)
            start = f"{case}.grad.decoder."
            wanted = [name.removeprefix(start) for name in g if name.startswith(start)]
            for name in wanted:
                decoder.get_parameter(name).requires_grad_(True)
            loss = losses.batch_losses(decoder, target, given, conditions, null, draw).mean()
            loss.backward()
        yield close(f"{case} loss", loss.detach(), g[f"{case}.out.loss"])
        yield close(f"{case} loss, as text", loss.detach(), torch.tensor(facts["loss"]))
        for name in wanted:
            yield close(f"{case} gradient of {name}", decoder.get_parameter(name).grad, g[start + name])


@golden("lora_training_discrete", "lora_training_discrete.safetensors", "lora_training.json")
def lora_training_discrete(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("lora_training_discrete.safetensors")
    everything = fixtures.json("lora_training.json")
    facts, how = everything["discrete_turbo"], everything["discrete_turbo"]["optimizer"]
    rate, decay = how["lr"], how["weight_decay"]
    settings = TrainSettings(rank=4, alpha=8, dropout=0.0, learning_rate=rate, weight_decay=decay)
    yield close("levels", torch.tensor(losses.discrete_levels(3.0)), torch.tensor(facts["timestep_table"]), 1e-6)
    with torch.enable_grad():
        decoder, trained = adapted(fixtures, "turbo", settings)
        given, null = batch(g, fixtures.model("turbo").module.null_condition_emb)
        yield equal("trainable", sum(p.numel() for p in trained.parameters()), everything["trainable"])
        optimizer = make_optimizer(trained.parameters(), settings)
        for step, seed in enumerate(facts["global_seeds"]):
            draw = losses.draw_discrete(given[0].shape, seeded(seed), 3.0)
            yield close(f"step {step} noise", draw.noise, g[f"step{step}.x1"])
            yield close(f"step {step} t", draw.t, g[f"step{step}.t"])
            loss = losses.batch_losses(decoder, *given, null, draw).mean()
            optimizer.zero_grad()
            loss.backward()
            yield close(f"step {step} loss", loss.detach(), torch.tensor(facts["losses"][step]))
            for name, theirs in ((n, t) for n, t in g.items() if step == 0 and n.startswith("grad0.")):
                layer, part = name.removeprefix("grad0.base_model.model.").split(".lora_")
                ours = {"A.weight": "down", "B.weight": "up"}[part]
                yield close(name, getattr(trained.layers[layer], ours).grad, theirs)
            optimizer.step()
    for layer, change in trained.adapter("after").changes.items():
        stem = f"final.base_model.model.{layer}.lora_"
        yield close(f"final {layer} A", change.form.down, g[f"{stem}A.weight"], 2e-4)
        yield close(f"final {layer} B", change.form.up, g[f"{stem}B.weight"], 2e-4)
    yield equal("layers", 2 * len(trained.layers), sum(name.startswith("final.") for name in g))


@golden("lora_training_continuous", "lora_training_continuous.safetensors", "lora_training.json")
def lora_training_continuous(fixtures: Fixtures) -> Iterator[Difference]:
    g = fixtures.tensors("lora_training_continuous.safetensors")
    facts = fixtures.json("lora_training.json")["continuous_base"]
    decoder, _ = adapted(fixtures, "base", TrainSettings(rank=4, alpha=8, dropout=0.0))
    given, null = batch(g, fixtures.model("base").module.null_condition_emb)
    mu, sigma, ratio = facts["timestep_mu"], facts["timestep_sigma"], facts["cfg_ratio"]
    for index, step in enumerate(facts["steps"]):
        draw = losses.draw_continuous(given[0].shape, seeded(step["global_seed"]), mu, sigma, ratio)
        yield close(f"step {index} noise", draw.noise, g[f"step{index}.x1"])
        yield close(f"step {index} t", draw.t, g[f"step{index}.t"])
        yield equal(f"step {index} dropped", draw.dropped.tolist(), step["dropped"])
        loss = losses.batch_losses(decoder, *given, null, draw).mean()
        yield close(f"step {index} loss", loss, torch.tensor(step["loss"]))
