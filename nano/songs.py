"""Composed songs as latents, made once and kept: what the tokenizer, the diffusion model and the planner learn from.

A file a song: its mix, some of its stems, the mix without each of those, and everything that is known in words.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from acestep_graph.acestep_core.models.oobleck import OobleckConfig, OobleckVAE
from acestep_graph.acestep_core.song import Song

from .compose import compose
from .pool import FIRST_SEED, processes
from .run import Setup, stoppable, write_atomically

STAGE = "songs"
LENGTHS = (10, 10, 10, 12, 12, 14, 16, 20)
"""Seconds of songs, in turn."""
STEMS = 2
"""Stems kept of every other song; vocals and drums come more often than the others. Mixes alone cost a fifth."""
VAE_FILE = "vae.safetensors"
CLOCK = "seconds"
"""File that counts the time spent."""


@dataclass(frozen=True, eq=False)
class Cached:
    """A song as latents.

    Attributes:
        song: its first caption is the fullest. captions, stem_captions: phrasings.
        tracks: all it has. words: (text, start, end) in seconds, in the order of the lyrics.
        mix: [T, 64]. stems, rests: track → its latents, and those of the mix without it.
    """

    song: Song
    captions: tuple[str, ...]
    stem_captions: Mapping[str, str]
    tracks: tuple[str, ...]
    words: tuple[tuple[str, float, float], ...]
    mix: Tensor
    stems: Mapping[str, Tensor]
    rests: Mapping[str, Tensor]

    @property
    def frames(self) -> int:
        return self.mix.shape[0]


def encoded_song(
    vae: OobleckVAE, seed: int, seconds: float, stems: int = STEMS
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Tensors and words of one song's file, with so many ``stems``."""
    piece = compose(seed, seconds)
    random = np.random.default_rng([seed, 9])
    names = list(piece.stems)
    weights = np.array([3.0 if name in ("vocals", "drums") else 1.0 for name in names])
    kept = [str(n) for n in random.choice(names, min(stems, len(names)), replace=False, p=weights / weights.sum())]
    sounds = {"mix": piece.mix}
    for name in kept:
        sounds |= {f"stem/{name}": piece.stems[name], f"rest/{name}": piece.mix - piece.stems[name]}
    with torch.inference_mode():
        tensors = {name: vae.encode(torch.from_numpy(sound)[None])[0][0].T.half() for name, sound in sounds.items()}
    about = {
        "song": asdict(piece.song),
        "captions": piece.captions,
        "stem_captions": dict(piece.stem_captions),
        "tracks": names,
        "words": [(word.text, word.start, word.end) for word in piece.words],
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, about


def write_song(folder: Path, config: OobleckConfig, seed: int, number: int) -> Path:
    """Make the file of song ``number`` unless it is there; runs in a worker."""
    path = folder / f"{number:06d}.safetensors"
    if not path.is_file():
        torch.set_num_threads(1)
        vae = OobleckVAE(config)
        vae.load_state_dict(load_file(folder / VAE_FILE))
        tensors, about = encoded_song(
            vae.eval(), seed + number, float(LENGTHS[number // 2 % len(LENGTHS)]), STEMS * (1 - number % 2)
        )
        write_atomically(path, lambda fresh: save_file(tensors, fresh, {"about": json.dumps(about)}))
    return path


def make_songs(vae: OobleckVAE, setup: Setup, *, minutes: float, most: int, least: int = 16) -> int:
    """Make up to ``most`` songs within ``minutes`` over every call, but ``least`` in any case; how many there are.

    Songs that another autoencoder made are thrown away.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the songs under way are written.
    """
    folder = setup.place(STAGE)
    heard_by(folder, {VAE_FILE: vae})
    write = partial(write_song, folder, vae.config, FIRST_SEED * (1 + setup.seed) + FIRST_SEED // 2)
    return fill(folder, write, setup, minutes=minutes, most=most, least=least)


def heard_by(folder: Path, models: Mapping[str, nn.Module]) -> None:
    """Write the weights of what hears the songs of a folder, by file; songs that others heard are thrown away."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        state = {key: tensor.contiguous().cpu() for key, tensor in model.state_dict().items()}
        file = folder / name
        before = load_file(file) if file.is_file() else {}
        if before.keys() != state.keys() or any(not torch.equal(before[key], state[key]) for key in state):
            for old in song_files(folder):
                old.unlink()
            (folder / CLOCK).unlink(missing_ok=True)
            write_atomically(file, lambda fresh, state=state: save_file(state, fresh))


def fill(
    folder: Path, write: Callable[[int], object], setup: Setup, *, minutes: float, most: int, least: int = 16
) -> int:
    """Let ``write`` make the files of songs 0, 1, ..., as :func:`make_songs` does."""
    done = len(song_files(folder))
    before = float((folder / CLOCK).read_text()) if (folder / CLOCK).is_file() else 0.0
    began = time.perf_counter() - before
    if not setup.workers:
        while done < most and (done < least or _used(folder, began) < 60 * minutes):
            write(done)
            done += 1
        return done
    workers = 2 * setup.workers  # nothing trains meanwhile
    with stoppable() as stop, processes(workers) as pool:
        waiting: set[Future] = set()
        started = done
        while True:
            late = stop or (started >= least and _used(folder, began) >= 60 * minutes)
            while not late and started < most and len(waiting) < 2 * workers:
                waiting.add(pool.submit(write, started))
                started += 1
            if not waiting:
                break
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for one in finished:
                one.result()
            done += len(finished)
            if not setup.quiet and done % 20 == 0:
                seconds = time.perf_counter() - began
                print(f"{folder.name} {done} of {most}, {seconds:.0f} s", file=sys.stderr, flush=True)
    if stop:
        raise KeyboardInterrupt
    return len(song_files(folder))


def _used(folder: Path, began: float) -> float:
    """Seconds since ``began``, noted for the next call."""
    seconds = time.perf_counter() - began
    write_atomically(folder / CLOCK, lambda fresh: fresh.write_text(f"{seconds:.1f}"))
    return seconds


def load_songs(setup: Setup) -> list[Cached]:
    """All songs that were made, in order.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = setup.place(STAGE)
    files = song_files(folder)
    if not files:
        raise FileNotFoundError(f"There are no songs in {folder}. Run the stage `songs` first.")
    return [_load(path) for path in files]


def grouped(songs: Sequence[Cached]) -> list[list[int]]:
    """Indices of songs of equal length, the groups in the order of their first songs."""
    groups: dict[int, list[int]] = {}
    for index, song in enumerate(songs):
        groups.setdefault(song.frames, []).append(index)
    return list(groups.values())


def song_files(folder: Path) -> list[Path]:
    """Files of the songs in a folder, in order."""
    return sorted(folder.glob("[0-9]*"))


def _load(path: Path) -> Cached:
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)

    def of(kind: str) -> dict[str, Tensor]:
        return {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{kind}/")}

    return Cached(
        song=Song(**about["song"]),
        captions=tuple(about["captions"]),
        stem_captions=about["stem_captions"],
        tracks=tuple(about["tracks"]),
        words=tuple((text, start, end) for text, start, end in about["words"]),
        mix=tensors["mix"],
        stems=of("stem"),
        rests=of("rest"),
    )
