"""Plays every workflow with the nano checkpoint: ``python -m nano.show [--out docs/nano]``.

For each mode an mp3, and one picture of all their spectra. Settings and recordings are those that the workflows open
with, so this is what a user gets who changes nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from acestep_graph.acestep_core import audio

from .measures import RATE, spectrogram

ROOT = Path(__file__).resolve().parent.parent
MODES = ("simple", "custom", "remix", "repaint", "extract", "lego", "complete")
LONGEST = 14.0
"""Seconds kept of each."""
WIDTH, HEIGHT, MARGIN, TITLE = 900, 120, 12, 20
TOP_HZ = 8000
FLOOR_DB, PEAK_DB = -75.0, -5.0
COLOURS = np.array([(8, 6, 30), (70, 20, 110), (180, 40, 100), (245, 130, 40), (255, 245, 190)], float)


def played(workflow: str, models: Path | None, folder: Path, changes: Sequence[str] = ()) -> Path:
    """The first sound that a workflow saves.

    Raises:
        RuntimeError: the workflow failed; the message holds what it said.
    """
    command = [sys.executable, "-m", "acestep_graph", "run", str(ROOT / "workflows" / f"{workflow}.json"), "--json"]
    if models is None:
        models = folder / "none"  # of one's own: those that come with the project play
        models.mkdir(exist_ok=True)
    command += ["--output", str(folder), "--input", str(folder), "--models", str(models)]
    command += [part for change in changes for part in ("--set", change)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{workflow}: {done.stdout or done.stderr}")
    files = [Path(file) for output in json.loads(done.stdout)["outputs"] for file in output["files"]]
    sounds = [file for file in files if file.suffix in (".mp3", ".flac", ".wav", ".opus")]
    return sounds[0] if sounds[0].is_absolute() else folder / sounds[0]


def picture(titles: Sequence[str], waves: Sequence[np.ndarray]) -> Image.Image:
    """Spectra of ``waves [2, N]``, one below the other, each as long as it lasts."""
    row = HEIGHT + TITLE + MARGIN
    page = Image.new("RGB", (WIDTH + 2 * MARGIN, row * len(waves) + MARGIN), (18, 18, 22))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    longest = max(wave.shape[1] for wave in waves)
    for at, (title, wave) in enumerate(zip(titles, waves, strict=True)):
        top = MARGIN + at * row
        pen.text(
            (MARGIN, top), f"{title}, {wave.shape[1] / RATE:.1f} s, 0 to {TOP_HZ // 1000} kHz", (225, 225, 230), font
        )
        width = max(1, round(WIDTH * wave.shape[1] / longest))
        page.paste(_painted(wave.mean(axis=0)).resize((width, HEIGHT)), (MARGIN, top + TITLE))
    return page


def _painted(wave: np.ndarray) -> Image.Image:
    size = 2048
    levels = spectrogram(wave, size, 512)[:, : TOP_HZ * size // RATE].T[::-1] / (size / 4)
    share = np.clip((20 * np.log10(levels + 1e-6) - FLOOR_DB) / (PEAK_DB - FLOOR_DB), 0, 1) * (len(COLOURS) - 1)
    low = np.minimum(share.astype(int), len(COLOURS) - 2)
    part = (share - low)[..., None]
    return Image.fromarray((COLOURS[low] * (1 - part) + COLOURS[low + 1] * part).astype(np.uint8))


def main(arguments: list[str] | None = None) -> None:
    """Play, write the mp3 files and the picture."""
    parser = argparse.ArgumentParser(prog="python -m nano.show", description="Play every workflow with nano weights.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "nano")
    parser.add_argument("--models", type=Path, help="another models folder than the one that comes with the project")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    waves = []
    for mode in MODES:
        with tempfile.TemporaryDirectory() as folder:
            sound, rate = audio.read(played(mode, given.models, Path(folder)), seconds=LONGEST)
        audio.write(given.out / f"{mode}.mp3", sound, rate, quality="128k")
        waves.append(torch.as_tensor(sound).numpy())
        print(mode, f"{sound.shape[1] / rate:.1f} s", file=sys.stderr, flush=True)
    picture(MODES, waves).quantize(48).save(given.out / "modes.png", optimize=True)


if __name__ == "__main__":
    main()
