"""One pass over training data: which items it holds, what chance decides for them, and the gradients it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..checkpoints.handles import DiffusionModel
from ..models.dit import DiT
from ..sampling.conditioning import context
from ..tasks.reference import silence_of
from . import losses
from .chance import seeded
from .items import TrainItem
from .settings import TrainSettings


class Passes:
    """The passes of a run.

    Args:
        model: whose silence and levels count. decoder, null: what is trained, on the device.
        generator: of everything that chance decides within a pass.
    """

    def __init__(
        self,
        model: DiffusionModel,
        decoder: DiT,
        null: Tensor,
        items: Sequence[TrainItem],
        settings: TrainSettings,
        generator: torch.Generator,
    ):
        self.model, self.decoder, self.null = model, decoder, null
        self.items, self.settings, self.generator = items, settings, generator
        self.order = [index for index, item in enumerate(items) for _ in range(item.repeat)]

    def of_epoch(self, epoch: int) -> list[list[int]]:
        """Items of each pass of an epoch, counted from 0: a shuffle that seed and epoch alone decide."""
        seed = hashlib.sha256(f"{self.settings.seed} {epoch}".encode()).digest()
        mixed = torch.Generator().manual_seed(int.from_bytes(seed[:8], "big") >> 1)
        order = [self.order[index] for index in torch.randperm(len(self.order), generator=mixed).tolist()]
        size = self.settings.batch_size
        return [order[first : first + size] for first in range(0, len(order), size)]

    def learn(self, batch: Sequence[int], passes: int) -> float:
        """Leave the gradients of the mean loss of ``batch``, one of so many ``passes`` of a step; that loss.

        Items of one shape run side by side, others alone, none padded.
        """
        total, device = 0.0, self.null.device
        for rows, draw, seed in self._groups(batch):
            draw = draw.to(device)
            target, given, conditions = (part.to(device) for part in self._tensors(rows))
            with seeded(device, seed):
                made = losses.batch_losses(self.decoder, target, given, conditions, self.null, draw, self.null.dtype)
                weighted = made * losses.snr_weights(draw.t, self.settings.min_snr) if self.settings.min_snr else made
                (weighted.sum() / (len(batch) * passes)).backward()
            total += float(made.detach().sum())
        return total / len(batch)

    def skip(self, batch: Sequence[int]) -> None:
        """Draw what another process draws for ``batch``."""
        for _ in self._groups(batch):
            pass

    def _groups(self, batch: Sequence[int]) -> Iterator[tuple[list[TrainItem], losses.Draw, int]]:
        """Items of one shape, what chance decides for them, and a seed for the rest."""
        groups: dict[tuple[int, int], list[TrainItem]] = {}
        for index in batch:
            groups.setdefault(self.items[index].shape, []).append(self.items[index])
        for rows in groups.values():
            draw = self._draw((len(rows), *rows[0].latents.shape))
            yield rows, draw, int(torch.randint(2**31, (), generator=self.generator))

    def _draw(self, shape: tuple[int, ...]) -> losses.Draw:
        dropout, config = self.settings.condition_dropout, self.model.config
        if self.settings.discrete:
            return losses.draw_discrete(shape, self.generator, self.settings.shift, dropout)
        return losses.draw_continuous(shape, self.generator, config.timestep_mu, config.timestep_sigma, dropout)

    def _tensors(self, rows: Sequence[TrainItem]) -> tuple[Tensor, Tensor, Tensor]:
        """Clean latents, context and conditions of items of one shape, in float32."""
        given = [
            context(silence_of(self.model, item.latents.shape[0]).float()[None])[0]
            if item.context is None
            else item.context.float()
            for item in rows
        ]
        latents = torch.stack([item.latents.float() for item in rows])
        return latents, torch.stack(given), torch.stack([item.conditions.float() for item in rows])
