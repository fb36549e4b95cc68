"""The words a sample is learned with: caption or genre, the activation tag, and the prompts, letter for letter.

>>> prompts_of(dataset, 0).text
'# Instruction\\nFill the audio semantic mask based on the given conditions:\\n\\n# Caption\\nhrbrtape, slow …'
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..song import UNKNOWN_LANGUAGE, Song
from ..tasks.instructions import TEXT2MUSIC
from ..text import lyric_prompt, song_metas, text_prompt
from .dataset import Dataset, DatasetError, Sample
from .limits import MAX_SECONDS_RANGE
from .preprocess import Recording

GENRE_SEED = 42
LONGEST_PROMPT = float(MAX_SECONDS_RANGE[1])


@dataclass(frozen=True)
class Prompts:
    """What the text encoder and the lyric encoder read."""

    text: str
    lyrics: str

    def preview(self) -> str:
        return f"{self.text}\n{self.lyrics}"


def tagged(text: str, tag: str, position: str) -> str:
    """``text`` with an activation tag: before it, behind it, or in its place.

    >>> tagged("slow folk", "hrbrtape", "prepend")
    'hrbrtape, slow folk'
    """
    text, tag = text.strip(), tag.strip()
    if not tag:
        return text
    if not text or position == "replace":
        return tag
    return f"{tag}, {text}" if position == "prepend" else f"{text}, {tag}"


def genre_names(dataset: Dataset, seed: int = GENRE_SEED) -> frozenset[str]:
    """Names of the samples whose prompt is made of the genre, drawn among the labelled ones by ``seed``.

    As in the original: of the shuffled positions, the first ``int(count · ratio / 100)``. A sample that says itself
    what its prompt is made of can be drawn too; its word counts.
    """
    labelled = dataset.labelled
    order = list(range(len(labelled)))
    random.Random(seed).shuffle(order)
    chosen = order[: len(order) * dataset.genre_ratio // 100]
    return frozenset(labelled[index].name for index in chosen)


def caption_of(dataset: Dataset, index: int, seed: int = GENRE_SEED) -> str:
    """The whole caption of a sample as it is encoded: caption or genre, with the tag."""
    return _caption(dataset, dataset.samples[index], genre_names(dataset, seed))


def _caption(dataset: Dataset, sample: Sample, by_genre: frozenset[str]) -> str:
    wanted = sample.prompt or ("genre" if sample.name in by_genre else "caption")
    text = sample.genre if wanted == "genre" and sample.genre.strip() else sample.caption
    return tagged(text, sample.tag or dataset.tag, dataset.tag_position)


def song_of(dataset: Dataset, index: int, seed: int = GENRE_SEED) -> Song:
    """The song that inference would be asked for to make this sample; its length is left open."""
    return _song(dataset, dataset.samples[index], genre_names(dataset, seed))


def _song(dataset: Dataset, sample: Sample, by_genre: frozenset[str]) -> Song:
    return Song(
        caption=_caption(dataset, sample, by_genre),
        lyrics="" if sample.silent else sample.lyrics,
        language=UNKNOWN_LANGUAGE if sample.silent else sample.language,
        instrumental=sample.silent,
        bpm=sample.bpm,
        key=sample.key,
        time_signature=sample.time_signature,
    )


def prompts_of(dataset: Dataset, index: int, max_seconds: float = LONGEST_PROMPT, seed: int = GENRE_SEED) -> Prompts:
    """Both prompts of a sample, of which ``max_seconds`` are kept. The length is that of whole latent frames."""
    sample, song = dataset.samples[index], song_of(dataset, index, seed)
    metas = song_metas(song, min(sample.duration, max_seconds) if sample.duration else "")
    return Prompts(text_prompt(TEXT2MUSIC, song.caption, metas), lyric_prompt(song.sung, song.language))


def recordings(dataset: Dataset, seed: int = GENRE_SEED) -> tuple[Recording, ...]:
    """The labelled samples as :func:`preprocess.preprocess` takes them.

    Raises:
        DatasetError: nothing is labelled.
    """
    by_genre = genre_names(dataset, seed)
    made = []
    for sample in dataset.labelled:
        about = {"id": sample.id, "genre": sample.genre, "tag": sample.tag or dataset.tag}
        song = _song(dataset, sample, by_genre)
        made.append(Recording(sample.name, sample.path, song, sample.repeat, about))
    if not made:
        raise DatasetError(
            f"None of the {len(dataset)} samples is labelled. Write captions, put them in files beside the "
            "recordings, or let the planner label them."
        )
    return tuple(made)
