"""Recordings and what is known of them → training items: the tensors inference would build for the same songs.

>>> songs = [Recording("tide.flac", Path("songs/tide.flac"), make_song("slow tape-worn folk", "[Verse]\\n…"))]
>>> done = preprocess(songs, "output/acestep/tensors/tide", model, text, vae)
>>> items = load_folder(done.folder)

Two passes: the autoencoder hears every song, then leaves the card to the text encoder and the condition encoder;
the decoder stays in main memory. Whatever is finished is on disk, and what is up to date is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .. import audio, codec
from ..checkpoints.fingerprint import described, fingerprint
from ..checkpoints.handles import Autoencoder, DiffusionModel, LoadReport, TextEncoder
from ..host import Host, current
from ..memory.recovery import advice, is_out_of_memory
from ..result import VERSION
from ..sampling.conditioning import MIN_FRAMES
from ..song import Song
from ..tasks.assemble import maker
from ..tasks.instructions import TEXT2MUSIC
from ..tasks.reference import Reference, encode_reference, silence_of
from ..tasks.source import SILENCE_LEVEL
from ..text import make_prompt
from .items import FRAMES_A_SECOND, ItemError, TrainItem, load_item, save_item
from .limits import MAX_SECONDS_RANGE, REPEAT_RANGE, SEED_RANGE, TILE_RANGE, TIMBRES

MANIFEST = "manifest.json"
MANIFEST_FORMAT = "acestep-graph training items 1"
PARTS = "parts"
MADE_AS = 1
"""Counts changes to what is written; tensors made under another number are made again."""


class PreprocessError(ValueError):
    """Nothing usable came out, or the request makes no sense."""


@dataclass(frozen=True)
class Recording:
    """One song to learn from.

    Attributes:
        name: unique in the data set, usually the path within it. path: the audio file.
        song: its caption is the whole prompt text, activation tag included; its duration does not count,
            because the prompt says that of the stored music.
        repeat: how often it comes in an epoch. about: plain values to keep with the tensors.
    """

    name: str
    path: Path
    song: Song
    repeat: int = 1
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PreprocessSettings:
    """How tensors are made.

    Attributes:
        max_seconds: longer recordings are cut after it.
        seed: of the draws from the autoencoder's posterior, together with the name of each song.
        timbre: ``silence``, which is what the timbre encoder hears in use where there is no reference audio, so that
            an adapter learns under the conditions it is played under; ``own``, 30 s of the song itself, for adapters
            that are to be used with reference audio. ``own`` tells the model part of the answer.
        tile: window of the autoencoder in latent frames, overlaps included. Less needs less memory; it is fixed
            because the draws depend on it.
    """

    max_seconds: float = 240.0
    seed: int = 42
    timbre: str = "silence"
    tile: int = 256

    def __post_init__(self) -> None:
        for name, (low, high), kinds in (
            ("max_seconds", MAX_SECONDS_RANGE, (int, float)),
            ("seed", SEED_RANGE, int),
            ("tile", TILE_RANGE, int),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise PreprocessError(f"{name} is {value!r}; allowed is {low} to {high}.")
        object.__setattr__(self, "max_seconds", float(self.max_seconds))  # 240 makes the tensors of 240.0
        if self.timbre not in TIMBRES:
            raise PreprocessError(f"timbre is {self.timbre!r}; allowed is {' or '.join(TIMBRES)}.")


@dataclass(frozen=True)
class Preprocessed:
    """What a run left behind.

    Attributes:
        files: items of the data set, in its order. made, kept: names of songs worked on, and of those up to date.
        failed: name and reason of each that could not be used. notes: sentences the user should read.
    """

    folder: Path
    files: tuple[Path, ...]
    made: tuple[str, ...]
    kept: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        lines = [f"{len(self.files)} songs ready: {len(self.made)} made, {len(self.kept)} already there."]
        lines += [f"Not used: {name}: {reason}" for name, reason in self.failed]
        return "\n".join([*lines, *self.notes])


def preprocess(
    recordings: Sequence[Recording],
    folder: str | Path,
    model: DiffusionModel,
    text: TextEncoder,
    vae: Autoencoder,
    settings: PreprocessSettings | None = None,
    *,
    overwrite: bool = False,
    host: Host | None = None,
) -> Preprocessed:
    """Make the training items of ``recordings`` in ``folder``.

    A song is made again where its audio, the settings or the autoencoder changed; where only its words or the
    encoders of the conditions did, its latents are kept. A song that cannot be used is named and the rest goes on.
    Stopping keeps everything finished, and the next run goes on from there.

    Args:
        overwrite: make everything again.

    Raises:
        PreprocessError: no recordings, names that are not unique, or not one that can be used.
        OutOfMemory: advice on what to do; what is finished is kept.
    """
    _check(recordings)
    run = _Run(Path(folder), settings or PreprocessSettings(), model, text, vae, overwrite, host or current())
    try:
        return run(recordings)
    except Exception as error:
        if is_out_of_memory(error):
            raise advice("preprocessing") from error
        raise


def load_folder(folder: str | Path) -> tuple[TrainItem, ...]:
    """The items that :func:`preprocess` made, in the order of the data set.

    A folder without the list of its items is read by name.

    Raises:
        ItemError: no items, or one that is missing or broken.
    """
    folder = Path(folder)
    listed = _read_manifest(folder)
    paths = [folder / Path(file).name for file in listed] or sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ItemError(f"{folder.name} holds no training items. Preprocess a data set into it.")
    for path in paths:
        if not path.is_file():
            raise ItemError(f"{path.name} is missing in {folder.name}. Preprocess the data set again.")
    return tuple(load_item(path) for path in paths)


def file_name(name: str) -> str:
    """The file of an item: readable, valid on every system, and another for every name.

    >>> file_name("live/Tide 01.flac")
    'Tide-01-7d8c40a5.safetensors'
    """
    stem = name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    readable = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in stem).split())[:40]
    return f"{readable or 'song'}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}.safetensors"


def song_seed(seed: int, name: str) -> int:
    """Seed of one song: other for each name, the same in every run."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()[:6], "big")


def read_audio(path: Path, max_seconds: float) -> Tensor:
    """The beginning of a recording as the autoencoder hears it: [2, n] at 48 kHz in ±1, at most ``max_seconds``.

    Raises:
        AudioError, ValueError: it cannot be read, is silent, or too short for the model.
    """
    waveform, rate = audio.read(path, seconds=max_seconds)
    if waveform.shape[1] < round(max_seconds * rate):
        waveform, rate = audio.read(path)  # read to the end, a file that was cut off is noticed
    clip = audio.for_model({"waveform": waveform[None], "sample_rate": rate})[0]
    clip = clip[:, : round(max_seconds * audio.SAMPLE_RATE)]
    shortest, seconds = MIN_FRAMES / FRAMES_A_SECOND, clip.shape[1] / audio.SAMPLE_RATE
    if seconds < shortest:
        raise ValueError(f"it lasts {seconds:.2f} s; the model needs at least {shortest:g} s")
    if not bool((clip.abs() > SILENCE_LEVEL).any()):
        raise ValueError("it is silent from end to end")
    return clip


class _EncoderAlone(nn.Module):
    """What conditions need of the checkpoint, sharing its weights: a tenth of them moves to the card."""

    def __init__(self, model: DiffusionModel):
        super().__init__()
        self.config = model.config
        self.encoder, self.null_condition_emb = model.module.encoder, model.module.null_condition_emb


@dataclass(frozen=True)
class _Job:
    """A recording with its place and the fingerprints of what its tensors follow from."""

    recording: Recording
    path: Path
    part: Path
    heard: str
    told: str
    file: Mapping[str, Any]


class _Run:
    def __init__(
        self,
        folder: Path,
        settings: PreprocessSettings,
        model: DiffusionModel,
        text: TextEncoder,
        vae: Autoencoder,
        overwrite: bool,
        host: Host,
    ):
        self.folder, self.settings, self.overwrite, self.host = folder, settings, overwrite, host
        self.text, self.vae = text, vae
        self.model = codec.with_silence(model, vae, host)
        self.alone = replace(self.model, module=_EncoderAlone(self.model))
        self.weights = {
            name: _weights(handle.report) for name, handle in (("vae", vae), ("dit", model), ("text", text))
        }
        silence = silence_of(self.model, model.config.timbre_fix_frame).float().contiguous()
        self.silence = hashlib.sha256(silence.view(torch.uint8).numpy()).hexdigest()
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []
        self.ready: dict[str, Path] = {}

    def __call__(self, recordings: Sequence[Recording]) -> Preprocessed:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.names = [recording.name for recording in recordings]
        jobs = [job for recording in recordings if (job := self._job(recording)) is not None]
        todo = [job for job in jobs if self.overwrite or not self._up_to_date(job)]
        late = {job.recording.name for job in todo}
        self.ready = {job.recording.name: job.path for job in jobs if job.recording.name not in late}
        kept = tuple(self.ready)
        self._list()
        if todo:
            try:
                self._hear(todo)
                self.host.make_room()
                self._tell([job for job in todo if job.recording.name not in self.failed])
            finally:
                self.host.make_room()
        self._list()
        failed = tuple((name, self.failed[name]) for name in self.names if name in self.failed)
        if not self.ready:
            reasons = "".join(f"\n{name}: {reason}" for name, reason in failed)
            raise PreprocessError(f"None of the {len(self.names)} recordings can be used:{reasons}")
        files = tuple(self.ready[name] for name in self.names if name in self.ready)
        strangers = len(set(self.folder.glob("*.safetensors")) - {self.folder / file_name(name) for name in self.names})
        if strangers:
            self.notes.append(f"{strangers} items in the folder belong to no song of this data set and are not used.")
        made = tuple(name for name in self.names if name in self.ready and name not in kept)
        return Preprocessed(self.folder, files, made, kept, failed, tuple(self.notes))

    def _job(self, recording: Recording) -> _Job | None:
        """What there is to do for a recording; None, and its reason noted, where the file cannot be opened."""
        try:
            found = os.stat(recording.path)
            file = {"bytes": found.st_size, "changed": found.st_mtime_ns, "content": fingerprint(recording.path)}
        except OSError as error:
            self._fail(recording.name, f"{recording.path.name} cannot be opened ({error.strerror}).")
            return None
        chosen = self.settings
        heard = _digest([MADE_AS, recording.name, file, asdict(chosen), self.weights["vae"]])
        told = _digest(
            [
                *(heard, replace(recording.song, duration=-1).digest, recording.repeat, dict(recording.about)),
                *(self.weights["dit"], self.weights["text"], self.silence),
            ]
        )
        name = file_name(recording.name)
        return _Job(recording, self.folder / name, self.folder / PARTS / name, heard, told, file)

    def _up_to_date(self, job: _Job) -> bool:
        about = _about(job.path)
        return (about.get("heard"), about.get("told")) == (job.heard, job.told)

    # -- first pass: sound

    def _hear(self, jobs: Sequence[_Job]) -> None:
        """Latents of every song, each in a part of its own."""
        waiting = [job for job in jobs if self.overwrite or not self._heard(job)]
        if not waiting:
            return
        bar = self.host.progress(len(waiting), "encoding songs", "song")
        for done, job in enumerate(waiting, start=1):
            tensors = self._sound(job)
            if tensors is not None:
                _save_part(tensors, job.part, job.heard)
            bar.update(done, job.recording.name)

    def _heard(self, job: _Job) -> bool:
        """Whether the latents are there: in a part of a run that was stopped, or in an item with other words."""
        if _part_key(job.part) == job.heard:
            return True
        if self.settings.timbre == "own" or _about(job.path).get("heard") != job.heard:
            return False
        try:
            _save_part({"latents": load_item(job.path).latents}, job.part, job.heard)
        except ItemError:
            return False
        return True

    def _sound(self, job: _Job) -> dict[str, Tensor] | None:
        chosen, own = self.settings, song_seed(self.settings.seed, job.recording.name)
        try:
            clip = read_audio(job.recording.path, chosen.max_seconds)
            noise = codec.drawn(self.vae, clip[None], torch.Generator().manual_seed(own))
            latents = codec.encode(self.vae, clip[None], noise=noise, chunk=chosen.tile, host=self.host)[0]
            if not bool(torch.isfinite(latents).all()):
                raise ValueError("the autoencoder answers with values that are no numbers; load it in bf16 or fp32")
            if chosen.timbre == "own":
                return {"latents": latents, "clips": encode_reference(self.vae, [clip], own, host=self.host).clips}
            return {"latents": latents}
        except (ValueError, OSError) as error:
            self._fail(job.recording.name, str(error))
            return None

    # -- second pass: words

    def _tell(self, jobs: Sequence[_Job]) -> None:
        """The conditions of every song, and with them its item."""
        if not jobs:
            return
        bar = self.host.progress(len(jobs), "encoding words", "song")
        for done, job in enumerate(jobs, start=1):
            # copies: Windows deletes no file whose tensors are still mapped
            part = {name: tensor.clone() for name, tensor in load_file(job.part).items()}
            item = self._item(job, part)
            if item is not None:
                save_item(item, job.path)
                self.ready[job.recording.name] = job.path
                self._list()
            job.part.unlink()
            bar.update(done, job.recording.name)
        if not any((self.folder / PARTS).iterdir()):
            (self.folder / PARTS).rmdir()

    def _item(self, job: _Job, part: Mapping[str, Tensor]) -> TrainItem | None:
        recording, latents = job.recording, part["latents"]
        seconds = latents.shape[0] // FRAMES_A_SECOND
        prompt = make_prompt(self.text.tokenizer, TEXT2MUSIC, recording.song, seconds)
        for note in prompt.notes():
            self.notes.append(f"{recording.name}: {note}")
        reference = Reference(part["clips"]) if "clips" in part else None
        make = maker(self.alone, self.text, recording.song, reference, self.host)
        about = {
            **recording.about,
            **{
                "heard": job.heard,
                "told": job.told,
                "model": self.model.kind,
                "width": self.model.config.encoder_width,
            },
            **{"prompt": prompt.text, "lyric_prompt": prompt.lyrics, "seconds": seconds},
            **{"audio": recording.path.name, "audio_bytes": job.file["bytes"], "audio_content": job.file["content"]},
            **{"crop": [0, latents.shape[0] / FRAMES_A_SECOND], "seed": self.settings.seed},
            **{"timbre": self.settings.timbre, "acestep_graph_version": VERSION},
        }
        name = recording.name.encode("utf-8", "replace").decode()
        try:
            return TrainItem(name, latents, make.sequence(prompt)[0], None, recording.repeat, about)
        except ValueError as error:
            self._fail(recording.name, str(error))
            return None

    # -- what is known

    def _fail(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        self.host.say(f"{name} is not used: {reason}")

    def _list(self) -> None:
        """Name the finished items, in the order of the data set, and the songs that failed."""
        listed = [{"name": name, "file": self.ready[name].name} for name in self.names if name in self.ready]
        failed = [{"name": name, "reason": self.failed[name]} for name in self.names if name in self.failed]
        text = json.dumps({"format": MANIFEST_FORMAT, "items": listed, "failed": failed}, indent=2)
        path = self.folder / MANIFEST
        if path.is_file() and path.read_bytes() == text.encode():
            return
        fresh = _beside(path)
        try:
            fresh.write_bytes(text.encode())
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)


def _check(recordings: Sequence[Recording]) -> None:
    if not recordings:
        raise PreprocessError("There are no recordings to preprocess. Scan a folder with audio files first.")
    places: dict[str, str] = {}
    for recording in recordings:
        low, high = REPEAT_RANGE
        if (
            isinstance(recording.repeat, bool)
            or not isinstance(recording.repeat, int)
            or not low <= recording.repeat <= high
        ):
            raise PreprocessError(f"{recording.name}: repeat is {recording.repeat!r}; allowed is {low} to {high}.")
        file = file_name(recording.name)
        if file in places:
            raise PreprocessError(
                f"Two recordings, {places[file]!r} and {recording.name!r}, would share a file. Give each its own name."
            )
        places[file] = recording.name


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _weights(report: LoadReport) -> list[str]:
    """Which weights, in which precision: their fingerprints, or names where the files are gone."""
    known = (described(report.component, path) for path in report.files)
    return [report.dtype, *(one.get("fingerprint", one["name"]) for one in known)]


def _about(path: Path) -> Mapping[str, Any]:
    """The header of an item without its tensors; empty where there is none to be read."""
    try:
        about = json.loads(_header(path).get("about", "{}"))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _part_key(path: Path) -> str:
    return _header(path).get("heard", "")


def _header(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except Exception:  # safetensors has its own kinds of error; whatever it is, the file is made again
        return {}


def _save_part(tensors: Mapping[str, Tensor], path: Path, key: str) -> None:
    path.parent.mkdir(exist_ok=True)
    fresh = _beside(path)
    try:
        fresh.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"heard": key}))
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}"


def _read_manifest(folder: Path) -> list[str]:
    """File names of the finished items; none where the list is missing, broken, or of another program."""
    try:
        known = json.loads((folder / MANIFEST).read_text("utf-8"))
        if known.get("format") != MANIFEST_FORMAT:
            return []
        return [str(item["file"]) for item in known["items"]]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return []
