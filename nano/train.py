"""Trains the nano checkpoint: ``python -m nano.train STAGE --minutes M --out runs/nano``. See nano/README.md.

Stages, in order: vae, songs, tokenizer, dit, turbo, codes, lm, export; ``all`` does them one after the other. Each
goes on where it was stopped. Nothing is read but what the stages before it left in the folder, and with ``--further``
the models that are trained further.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from acestep_graph.acestep_core import tokenizer as tokenizers
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.oobleck import OobleckVAE
from acestep_graph.acestep_core.models.qwen3 import Qwen3
from acestep_graph.acestep_core.tokenizer import Tokenizer

from . import coded, codes, diffusion, export, planner, songs, sound, vocabulary
from .pool import Pool
from .run import Budget, Setup, weights_of
from .sizes import SIZES, Sizes
from .weights import begin

SHARES = {"vae": 0.13, "songs": 0.1, "tokenizer": 0.02, "dit": 0.38, "turbo": 0.07, "codes": 0.12, "lm": 0.18}
"""How ``all`` divides its minutes."""
STAGES = (*SHARES, "export")
FURTHER = ("songs", "dit", "turbo", "codes", "lm", "export")
"""Stages of ``--further``."""
MOST_SONGS = 4000
CODED = 5
"""Times as many songs are made as codes at most."""
VOCABULARY = "vocabulary"
SILENCE_FRAMES = 15000
SHIPPED_SILENCE = 750
"""Frames of silence in the file, 30 s; longer music repeats them."""


@dataclass(frozen=True)
class Run:
    """A run in a folder.

    Attributes:
        rows: of every stage's batches; None for its own. most_songs, least_songs: how many are encoded.
        pool: what the autoencoder hears; None for one of its own.
    """

    sizes: Sizes
    setup: Setup
    rows: int | None = None
    most_songs: int = MOST_SONGS
    least_songs: int = 32
    pool: Pool | None = None

    @property
    def more(self) -> dict[str, int]:
        return {} if self.rows is None else {"rows": self.rows}

    def stage(self, name: str, budget: Budget) -> None:
        """Run one stage.

        Raises:
            FileNotFoundError: a stage before it is missing.
        """
        getattr(self, f"_{name}")(budget)

    def _vae(self, budget: Budget) -> None:
        sound.train_vae(self.sizes.vae, budget, self.setup, pool=self.pool, **self.more)

    def _songs(self, budget: Budget) -> None:
        vae = sound.load_trained(self.sizes.vae, self.setup, self.pool)
        limits = {"minutes": budget.minutes, "most": self.most_songs, "least": self.least_songs}
        songs.make_songs(vae, self.setup, **limits)
        place = self.setup.out / VOCABULARY
        if (place / "lm" / "added_tokens.json").is_file():
            return
        words = vocabulary.train_vocabulary(songs.load_songs(self.setup), self.sizes.words)
        count = math.prod(self.sizes.dit.fsq_input_levels)
        vocabulary.write_vocabulary(words, place / "text")
        vocabulary.write_vocabulary(words, place / "lm", codes=count)

    def _tokenizer(self, budget: Budget) -> None:
        codes.train_tokenizer(self.sizes.dit, songs.load_songs(self.setup), budget, self.setup)

    def _dit(self, budget: Budget) -> None:
        diffusion.train_dit(self.maker(), self.examples(), budget, self.setup)

    def _turbo(self, budget: Budget) -> None:
        diffusion.train_turbo(self.trained_maker(), self.examples(), budget, self.setup)

    def _codes(self, budget: Budget) -> None:
        limits = {"minutes": budget.minutes, "most": CODED * self.most_songs, "least": self.least_songs}
        coded.make_coded(self.vae(), self.coder(), self.sizes.dit, self.setup, **limits)

    def _lm(self, budget: Budget) -> None:
        planner.train_planner(self.planner(), self.known(), self.words("lm"), budget, self.setup, **self.more)

    def _export(self, budget: Budget) -> None:
        self.export(self.setup.out / "models")

    # -- what stages leave behind

    def vae(self) -> OobleckVAE:
        """The autoencoder that the songs were encoded with."""
        path = self.setup.place(songs.STAGE) / songs.VAE_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there. Run the stage `songs` first.")
        vae = OobleckVAE(self.sizes.vae)
        vae.load_state_dict(load_file(path))
        return vae.eval().requires_grad_(False)

    def words(self, kind: str) -> Tokenizer:
        """The tokenizer of ``text`` or ``lm``."""
        return tokenizers.load(self.setup.out / VOCABULARY / kind)

    def silence(self, frames: int = SILENCE_FRAMES) -> Tensor:
        return export.silence_latent(self.vae(), frames)

    def coder(self) -> codes.Coder:
        coder = codes.Coder(self.sizes.dit)
        coder.load_state_dict(weights_of(self.setup, codes.STAGE))
        return coder.eval().requires_grad_(False)

    def maker(self) -> diffusion.Maker:
        """Diffusion model and text encoder before training, with the trained tokenizer."""
        dit = begin(AceStepModel(self.sizes.dit), self.setup.seed)
        coder = self.coder()
        dit.tokenizer.load_state_dict(coder.tokenizer.state_dict())
        dit.detokenizer.load_state_dict(coder.detokenizer.state_dict())
        text = Qwen3(replace(self.sizes.text, vocab_size=self.words("text").vocab_size))
        begin(text, self.setup.seed + 1)
        with torch.no_grad():
            text.embed_tokens.weight.normal_(0, 0.5)
        return diffusion.Maker(dit, text)

    def trained_maker(self) -> diffusion.Maker:
        maker = self.maker()
        maker.load_state_dict(weights_of(self.setup, diffusion.DIT))
        return maker.eval().requires_grad_(False)

    def examples(self) -> diffusion.Examples:
        clip = self.sizes.dit.timbre_fix_frame
        rows = self.rows or self.setup.rows(diffusion.ROWS)
        return diffusion.Examples.of(songs.load_songs(self.setup), self.silence(), self.words("text"), clip, rows)

    def known(self) -> list[coded.Coded]:
        """What the planner learns from."""
        cached = songs.load_songs(self.setup) if songs.song_files(self.setup.place(songs.STAGE)) else []
        found = coded.of_cached(cached, self.coder()) + coded.load_coded(self.setup)
        if not found:
            raise FileNotFoundError(f"There are no songs in {self.setup.out}. Run the stage `codes` first.")
        return found

    def planner(self) -> Qwen3:
        words = self.words("text").vocab_size
        return planner.make_planner(self.sizes.lm, words, self.sizes.dit.fsq_input_levels, self.setup.seed)

    def export(self, folder: Path) -> Path:
        """Write everything that was trained as a models folder; parts that were not are left out.

        Raises:
            FileNotFoundError: not even the diffusion model was trained.
        """
        export.write_vae(folder, self.vae())
        self._export_base(folder)
        if self._trained(diffusion.TURBO):
            self._export_turbo(folder)
        if self._trained(planner.STAGE):
            self._export_planner(folder)
        return self._exported(folder)

    def _exported(self, folder: Path) -> Path:
        if not self.setup.quiet:
            print(f"{folder}: {export.size_of(folder) / 1e6:.1f} MB", file=sys.stderr)
        return folder

    def _export_base(self, folder: Path) -> None:
        maker = self.trained_maker()
        export.write_diffusion(folder, "base", maker.dit.state_dict(), self.sizes.dit, self.silence(SHIPPED_SILENCE))
        config = export.published(maker.text.config, model_type="qwen3", tie_word_embeddings=True)
        export.write_model(folder / export.TEXT, maker.text.state_dict(), config)
        self._copy_words("text", folder / export.TEXT)

    def _export_turbo(self, folder: Path) -> None:
        weights, silence = weights_of(self.setup, diffusion.TURBO), self.silence(SHIPPED_SILENCE)
        export.write_diffusion(folder, "turbo", weights, self.sizes.dit, silence)

    def _export_planner(self, folder: Path) -> None:
        model = self.planner()
        model.load_state_dict(weights_of(self.setup, planner.STAGE))
        tensors = planner.written_out(model)
        sizes = replace(self.sizes.lm, vocab_size=len(tensors["embed_tokens.weight"]))
        config = export.published(sizes, model_type="qwen3", tie_word_embeddings=True)
        export.write_model(folder / export.LM, tensors, config)
        self._copy_words("lm", folder / export.LM)

    def _trained(self, stage: str) -> bool:
        return (self.setup.place(stage) / "checkpoint.pt").is_file()

    def _copy_words(self, kind: str, folder: Path) -> None:
        for path in (self.setup.out / VOCABULARY / kind).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())


@dataclass(frozen=True)
class Further(Run):
    """Trains the diffusion models and the planner of a models folder further, on songs of its own.

    Autoencoder, vocabulary and tokenizer stay, so that latents and codes keep their meaning.
    """

    models: Path = Path()

    def _songs(self, budget: Budget) -> None:
        limits = {"minutes": budget.minutes, "most": self.most_songs, "least": self.least_songs}
        songs.make_songs(self.vae(), self.setup, **limits)

    def vae(self) -> OobleckVAE:
        vae = OobleckVAE(self.sizes.vae)
        vae.load_state_dict(self._tensors(f"{export.VAE}/diffusion_pytorch_model.safetensors"))
        return vae.eval().requires_grad_(False)

    def words(self, kind: str) -> Tokenizer:
        return tokenizers.load(self.models / (export.LM if kind == "lm" else export.TEXT))

    def coder(self) -> codes.Coder:
        coder = codes.Coder(self.sizes.dit)
        weights = self._tensors(f"{export.BASE}/model.safetensors")
        coder.load_state_dict({name: weights[name] for name in coder.state_dict()})
        return coder.eval().requires_grad_(False)

    def maker(self) -> diffusion.Maker:
        dit = AceStepModel(self.sizes.dit)
        dit.load_state_dict(self._tensors(f"{export.BASE}/model.safetensors"))
        text = Qwen3(replace(self.sizes.text, vocab_size=self.words("text").vocab_size))
        text.load_state_dict(self._tensors(f"{export.TEXT}/model.safetensors"))
        return diffusion.Maker(dit, text)

    def trained_maker(self) -> diffusion.Maker:
        if self._trained(diffusion.DIT):
            return super().trained_maker()
        return self.maker().eval().requires_grad_(False)

    def planner(self) -> Qwen3:
        model, weights = super().planner(), self._tensors(f"{export.LM}/model.safetensors")
        model.embed_tokens.take(weights.pop("embed_tokens.weight"))
        model.load_state_dict(model.state_dict() | weights)
        return model

    def export(self, folder: Path) -> Path:
        """Write the models folder with what was trained in place of what it was. A turbo model that its base has left
        behind is left out."""
        shutil.copytree(self.models, folder, dirs_exist_ok=True)
        if self._trained(diffusion.DIT):
            self._export_base(folder)
            shutil.rmtree(folder / export.TURBO, ignore_errors=True)
        if self._trained(diffusion.TURBO):
            self._export_turbo(folder)
        if self._trained(planner.STAGE):
            self._export_planner(folder)
        return self._exported(folder)

    def _copy_words(self, kind: str, folder: Path) -> None:
        """They came with the models."""

    def _tensors(self, name: str) -> dict[str, Tensor]:
        path = self.models / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there. --further takes a models folder as `export` writes it.")
        return {key: tensor.float() for key, tensor in load_file(path).items()}


def main(arguments: list[str] | None = None) -> None:
    """Train a stage, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m nano.train", description="Train the nano checkpoint.")
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--minutes", type=float, default=120.0, help="how long the stage, or all of them, may train")
    parser.add_argument("--steps", type=int, help="train a stage for so many steps instead")
    parser.add_argument("--out", type=Path, default=Path("runs/nano"), help="folder of the run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0, help="of weights, songs and noise")
    parser.add_argument("--sizes", choices=tuple(SIZES), default="nano")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="composing processes")
    parser.add_argument("--songs", type=int, default=MOST_SONGS, help="most songs that are made as latents")
    parser.add_argument("--further", type=Path, metavar="MODELS", help="train the models of this folder on")
    given = parser.parse_args(arguments)
    if given.minutes <= 0 or (given.steps is not None and given.steps < 1):
        parser.error("--minutes and --steps must be above 0.")
    setup = Setup(given.out, torch.device(given.device), given.seed, given.workers)
    stages, run = STAGES, Run(SIZES[given.sizes], setup, most_songs=given.songs)
    if given.further:
        stages = FURTHER
        run = Further(SIZES[given.sizes], setup, most_songs=given.songs, models=given.further)
    if given.stage not in (*stages, "all"):
        parser.error(f"--further keeps what the stage {given.stage} makes; allowed are {', '.join(stages)}, all.")
    chosen = stages if given.stage == "all" else (given.stage,)
    whole = sum(SHARES.get(name, 0.0) for name in chosen)
    for name in chosen:
        share = SHARES.get(name, 0.0) / whole if whole else 0.0
        try:
            run.stage(name, Budget(given.minutes * share, given.steps))
        except FileNotFoundError as error:
            parser.error(str(error))
        except KeyboardInterrupt:
            parser.exit(130, f"\nStopped in {name}; the same command goes on from there.\n")


if __name__ == "__main__":
    main()
