"""Stage ``codes``: songs as what the planner knows of them, words and codes. Mixes alone, and many.

A planner of this size knows three thousand songs by heart before it has learned to keep a beat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from acestep_graph.acestep_core.models.config import ModelConfig
from acestep_graph.acestep_core.models.oobleck import OobleckConfig, OobleckVAE
from acestep_graph.acestep_core.song import Song

from .codes import Coder, codes_of
from .compose import compose
from .pool import FIRST_SEED
from .run import Setup, write_atomically
from .songs import LENGTHS, VAE_FILE, Cached, fill, heard_by, song_files

STAGE = "codes"
CODER_FILE = "coder.safetensors"


@dataclass(frozen=True)
class Coded:
    """A song's words, and its codes. ``captions``: phrasings, the fullest first."""

    song: Song
    captions: tuple[str, ...]
    codes: tuple[int, ...]


def of_cached(songs: Iterable[Cached], coder: Coder) -> list[Coded]:
    """Songs that are there as latents."""
    return [Coded(song.song, song.captions, tuple(codes_of(coder, song.mix).tolist())) for song in songs]


def write_coded(folder: Path, vae: OobleckConfig, dit: ModelConfig, seed: int, number: int) -> Path:
    """Make the file of song ``number`` unless it is there; runs in a worker."""
    path = folder / f"{number:06d}.json"
    if not path.is_file():
        torch.set_num_threads(1)
        hearing, coder = OobleckVAE(vae), Coder(dit)
        hearing.load_state_dict(load_file(folder / VAE_FILE))
        coder.load_state_dict(load_file(folder / CODER_FILE))
        piece = compose(seed + number, float(LENGTHS[number % len(LENGTHS)]))
        with torch.inference_mode():
            latents = hearing.eval().encode(torch.from_numpy(piece.mix)[None])[0][0].T
            codes = codes_of(coder.eval(), latents.half()).tolist()
        about = {"song": asdict(piece.song), "captions": piece.captions, "codes": codes}
        write_atomically(path, lambda fresh: fresh.write_text(json.dumps(about), encoding="utf-8"))
    return path


def make_coded(
    vae: OobleckVAE, coder: Coder, dit: ModelConfig, setup: Setup, *, minutes: float, most: int, least: int = 0
) -> int:
    """As :func:`nano.songs.make_songs`. Other songs than its, so that the planner hears all of them."""
    folder = setup.place(STAGE)
    heard_by(folder, {VAE_FILE: vae, CODER_FILE: coder})
    write = partial(write_coded, folder, vae.config, dit, FIRST_SEED * (1 + setup.seed) + 3 * FIRST_SEED // 4)
    return fill(folder, write, setup, minutes=minutes, most=most, least=least)


def load_coded(setup: Setup) -> list[Coded]:
    """All that were made, in order; none where there are none."""
    found = [json.loads(path.read_text("utf-8")) for path in song_files(setup.place(STAGE))]
    return [Coded(Song(**one["song"]), tuple(one["captions"]), tuple(one["codes"])) for one in found]
