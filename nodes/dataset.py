"""Data sets to train on: scan songs, label them, look at them, change them, save them."""

from __future__ import annotations

from typing import Any

from ..acestep_core import host
from ..acestep_core import song as words
from ..acestep_core.sampling.settings import SEED_MAX
from ..acestep_core.training import limits
from .examples import ASSETS
from .kept import Kept
from .song import INSTRUMENTAL, KEEP, KEEP_BPM, SUNG
from .widgets import (
    AUDIO,
    DATASET,
    LINKED,
    LM,
    MODEL,
    PLANNER_SETTINGS,
    ROOT,
    VAE,
    choice,
    problem_of,
    socket,
    switch,
    text,
    whole,
)

CATEGORY = f"{ROOT}/Training"
FROM_DATASET = "Data set, from Scan Songs, Load Dataset or another node of this kind."
TAG_TIP = "Activation tag, a rare word such as hrbrtape: written into every prompt, it later calls up the LoRA."
POSITION_TIP = "Where the tag stands: before the caption, behind it, or in its place."
WHICH_TIP = "Which song: #1 is the first; its name in the table works too."
YES, NO = "yes", "no"
MOST_ROWS = 500
EXAMPLES = "examples"
"""In place of a folder: the recordings that come with the pack."""
_saved = Kept()


def _places() -> Any:
    from ..acestep_core.training import places

    return places


def _found(path: str) -> Any:
    return _places().find(host.current(), path, "datasets")


def _songs(folder: str) -> Any:
    return ASSETS if folder.strip() == EXAMPLES else _found(folder)


class ScanSongs:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Finds the songs of a folder and the folders in it (wav, mp3, flac, ogg, opus, m4a), with the captions, lyrics "
        "and tables that lie beside them. Every file that is not used is named with the reason."
    )
    SEARCH_ALIASES = ["ace step", "dataset", "folder", "training data", "import songs"]
    FUNCTION = "scan"
    RETURN_TYPES = (DATASET, "INT", "STRING")
    RETURN_NAMES = ("dataset", "count", "report")
    OUTPUT_TOOLTIPS = ("The songs found", "How many", "What was found, and what became of every other file")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        folder = "Folder of your songs: a whole path, or one below ComfyUI's input folder. examples: songs of the pack."
        alone = "Songs without lyrics beside them are instrumentals. Off: their lyrics are still to be written."
        return {
            "required": {
                "folder": text(folder, EXAMPLES, placeholder="C:\\music\\my songs"),
                "tag": text(TAG_TIP),
                "tag_position": choice(limits.TAG_POSITIONS, POSITION_TIP),
                "all_instrumental": switch(True, alone),
                "name": text("Name of the data set. Empty: that of the folder.", advanced=True),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, folder: str | None = None) -> bool | str:
        return True if folder is None else problem_of(_songs, folder)

    @classmethod
    def IS_CHANGED(cls, folder: str | None = None, **_: Any) -> str | float:
        from ..acestep_core.training.scan import fingerprint

        return LINKED if folder is None else fingerprint(_songs(folder))

    def scan(self, folder: str, tag: str, tag_position: str, all_instrumental: bool, name: str) -> tuple:
        from ..acestep_core.training.scan import scan

        name = name or (EXAMPLES if folder.strip() == EXAMPLES else "")
        how = {"name": name, "tag": tag, "tag_position": tag_position, "all_instrumental": all_instrumental}
        found = scan(_songs(folder), **how)
        return found.dataset, len(found.dataset), found.report()


class LoadDataset:
    CATEGORY = CATEGORY
    DESCRIPTION = "Reads a data set file: one of Save Dataset, or a dataset.json of the original, old or new."
    SEARCH_ALIASES = ["ace step", "dataset json", "open dataset"]
    FUNCTION = "load"
    RETURN_TYPES = (DATASET, "INT", "STRING")
    RETURN_NAMES = ("dataset", "count", "report")
    OUTPUT_TOOLTIPS = ("The data set", "How many songs", "What could not be used, and why")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        file = "The file: the name given to Save Dataset, a whole path, or one below ComfyUI's input folder."
        return {"required": {"file": text(file, placeholder="my songs.json")}}

    @classmethod
    def VALIDATE_INPUTS(cls, file: str | None = None) -> bool | str:
        return True if file is None else problem_of(_found, file)

    @classmethod
    def IS_CHANGED(cls, file: str | None = None) -> str | float:
        from ..acestep_core.training.dataset_file import fingerprint

        return LINKED if file is None else fingerprint(_found(file))

    def load(self, file: str) -> tuple:
        from ..acestep_core.training.dataset_file import load

        found = load(_found(file))
        return found.dataset, len(found.dataset), found.report()


class DatasetSettings:
    CATEGORY = CATEGORY
    DESCRIPTION = "Changes what all songs of a data set share: activation tag, what prompts are made of, vocals."
    SEARCH_ALIASES = ["ace step", "activation tag", "trigger word", "genre ratio"]
    FUNCTION = "set"
    RETURN_TYPES = (DATASET,)
    RETURN_NAMES = ("dataset",)
    OUTPUT_TOOLTIPS = ("The changed data set",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        vocals = "Songs found without lyrics: yes makes them instrumentals, no leaves their lyrics to be written."
        ratio = "Percent of the songs whose prompt is made of their genre in place of their caption."
        return {
            "required": {
                "dataset": socket(DATASET, FROM_DATASET),
                "tag": text(TAG_TIP + " It replaces tags that songs have of their own. Empty: none."),
                "tag_position": choice(limits.TAG_POSITIONS, POSITION_TIP),
                "all_instrumental": choice((KEEP, YES, NO), vocals),
                "genre_ratio": whole(0, *limits.GENRE_RATIO_RANGE, ratio),
            }
        }

    def set(self, dataset: Any, tag: str, tag_position: str, all_instrumental: str, genre_ratio: int) -> tuple:
        from ..acestep_core.training.dataset import configured

        alone = {KEEP: None, YES: True, NO: False}[all_instrumental]
        how = {"tag": tag, "tag_position": tag_position, "all_instrumental": alone, "genre_ratio": genre_ratio}
        return (configured(dataset, **how),)


class AutoLabel:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Lets the planner listen to every song and write its caption, tempo, key, time signature and lyrics. Each "
        "label is kept as soon as it is made: cancelled, the next queue goes on with the rest."
    )
    SEARCH_ALIASES = ["ace step", "caption songs", "tag dataset", "annotate"]
    FUNCTION = "label"
    RETURN_TYPES = (DATASET, "STRING")
    RETURN_NAMES = ("dataset", "report")
    OUTPUT_TOOLTIPS = ("The labelled data set", "What was labelled, and what failed")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        metas = "Leave tempo, key and time signature as they are."
        formats = "Where there are lyrics, have them formatted and described, instead of listening."
        hears = "Write lyrics from listening also where there are some. Many words will be wrong."
        return {
            "required": {
                "dataset": socket(DATASET, FROM_DATASET),
                "model": socket(MODEL, "Diffusion model, to hear the songs with. Needs its audio tokenizer."),
                "vae": socket(VAE, "From Load ACE-Step Models."),
                "lm": socket(LM, "From Load ACE-Step Language Model."),
                "only_unlabelled": switch(True, "Pass over songs that have a caption and are marked as labelled."),
                "skip_metas": switch(False, metas),
                "format_lyrics": switch(False, formats),
                "transcribe_lyrics": switch(False, hears),
                "overwrite": switch(False, "Let answers replace what is known. Off: they only fill what is open."),
                "seed": whole(42, 0, SEED_MAX, "The same seed gives the same labels.", control_after_generate="fixed"),
            },
            "optional": {"settings": socket(PLANNER_SETTINGS, "From Planner Settings. Not connected: as usual.")},
        }

    def label(
        self,
        dataset: Any,
        model: Any,
        vae: Any,
        lm: Any,
        only_unlabelled: bool,
        skip_metas: bool,
        format_lyrics: bool,
        transcribe_lyrics: bool,
        overwrite: bool,
        seed: int,
        settings: Any = None,
    ) -> tuple:
        from ..acestep_core.training.labels import LabelSettings, auto_label

        how = LabelSettings(
            only_unlabelled=only_unlabelled,
            skip_metas=skip_metas,
            format_lyrics=format_lyrics,
            transcribe_lyrics=transcribe_lyrics,
            overwrite=overwrite,
            seed=seed,
            planner=settings,
        )
        kept = _places().labels_file(host.current(), dataset.name)
        done = auto_label(dataset, model, vae, lm, how, kept=kept)
        return done.dataset, done.report()


class EditSample:
    CATEGORY = CATEGORY
    DESCRIPTION = "Changes one song of a data set. What is left empty or on keep stays as it is. Chain several."
    SEARCH_ALIASES = ["ace step", "edit label", "correct caption", "lyrics of sample"]
    FUNCTION = "edit"
    RETURN_TYPES = (DATASET, "STRING")
    RETURN_NAMES = ("dataset", "prompt")
    OUTPUT_TOOLTIPS = ("The changed data set", "What the model will read for this song")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        low, high = words.BPM_RANGE
        often = "How often it comes in an epoch. 0: keep."
        made_of = "What its prompt is made of; keep: as the genre ratio of the data set decides."
        return {
            "required": {
                "dataset": socket(DATASET, FROM_DATASET),
                "sample": text(WHICH_TIP, "#1"),
                "caption": text("New caption. Empty: keep.", multiline=True),
                "lyrics": text("New lyrics, all of them. Empty: keep.", multiline=True),
                "vocals": choice((KEEP, SUNG, INSTRUMENTAL), "Whether it is sung. instrumental: lyrics do not count."),
                "language": choice((KEEP, *words.LANGUAGES), "Language of the lyrics."),
                "bpm": whole(KEEP_BPM, KEEP_BPM, high, f"Tempo, {low} to {high}. -1: keep. 0: not known."),
                "key": choice((KEEP, words.AUTO, *words.KEYS), "Musical key. auto: not known."),
                "time_signature": choice((KEEP, words.AUTO, *words.TIME_SIGNATURES), "Beats in a bar."),
                "genre": text("New genre. Empty: keep."),
                "prompt": choice((KEEP, *filter(None, limits.PROMPTS)), made_of, advanced=True),
                "repeat": whole(0, 0, limits.REPEAT_RANGE[1], often, advanced=True),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, bpm: Any = None) -> bool | str:
        return problem_of(words.make_song, bpm=None if bpm == KEEP_BPM else bpm)

    def edit(self, dataset: Any, sample: str, vocals: str, bpm: int, repeat: int, **fields: str) -> tuple:
        from ..acestep_core.training.dataset import with_edits
        from ..acestep_core.training.wording import prompts_of

        changes: dict[str, Any] = {name: value for name, value in fields.items() if value.strip() and value != KEEP}
        changes |= {"bpm": bpm or None} if bpm != KEEP_BPM else {}
        changes |= {"repeat": repeat} if repeat else {}
        changes |= {"instrumental": vocals == INSTRUMENTAL} if vocals != KEEP else {}
        for name in ("key", "time_signature"):
            if changes.get(name) == words.AUTO:
                changes[name] = ""
        changed = with_edits(dataset, {sample.strip(): changes})
        return changed, prompts_of(changed, changed.index_of(sample.strip())).preview()


class EditDataset:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "All songs of a data set in a table, to be changed in place. The changes are kept in the workflow, so that it "
        "gives the same data set again."
    )
    SEARCH_ALIASES = ["ace step", "edit labels", "table", "caption editor", "review"]
    FUNCTION = "edit"
    OUTPUT_NODE = True
    RETURN_TYPES = (DATASET, "STRING")
    RETURN_NAMES = ("dataset", "table")
    OUTPUT_TOOLTIPS = ("The changed data set", "A line for every song")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        edits = "Changes as JSON, written by the table: for each song the fields that differ. Empty: none."
        return {
            "required": {
                "dataset": socket(DATASET, FROM_DATASET),
                "edits": text(edits, multiline=True, placeholder='{"#1": {"caption": "slow folk", "bpm": 84}}'),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, edits: str | None = None) -> bool | str:
        from ..acestep_core.training.dataset import parse_edits

        return True if edits is None else problem_of(parse_edits, edits)

    def edit(self, dataset: Any, edits: str) -> dict[str, Any]:
        from ..acestep_core.training.dataset import as_rows, parse_edits, with_edits

        changed = with_edits(dataset, parse_edits(edits))
        shown = {
            "rows": as_rows(changed)[:MOST_ROWS],
            "original": as_rows(dataset)[:MOST_ROWS],
            "more": max(0, len(dataset) - MOST_ROWS),
            "languages": list(words.LANGUAGES),
            "keys": list(words.KEYS),
            "time_signatures": list(words.TIME_SIGNATURES),
        }
        return {"ui": {"acestep_dataset": [shown]}, "result": (changed, changed.table())}


class PreviewSample:
    CATEGORY = CATEGORY
    DESCRIPTION = "One song of a data set: its sound, and word for word what the model will read while it learns it."
    SEARCH_ALIASES = ["ace step", "preview prompt", "listen to sample", "dataset table"]
    FUNCTION = "show"
    OUTPUT_NODE = True
    RETURN_TYPES = (AUDIO, "STRING", "STRING", "STRING", "STRING")
    RETURN_NAMES = ("audio", "caption", "lyrics", "prompt", "table")
    OUTPUT_TOOLTIPS = (
        "The song",
        "Its caption, tag included",
        "Its lyrics",
        "Both prompts, word for word",
        "A line for every song of the data set",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"dataset": socket(DATASET, FROM_DATASET), "sample": text(WHICH_TIP, "#1")}}

    def show(self, dataset: Any, sample: str) -> dict[str, Any]:
        from ..acestep_core import audio
        from ..acestep_core.training.wording import prompts_of, song_of

        index = dataset.index_of(sample.strip())
        prompt, song = prompts_of(dataset, index).preview(), song_of(dataset, index)
        waveform, rate = audio.read(dataset.samples[index].path)
        sound = {"waveform": waveform[None], "sample_rate": rate}
        return {
            "ui": {"text": [prompt]},
            "result": (sound, song.caption, song.sung, prompt, dataset.table()),
        }


class SaveDataset:
    CATEGORY = CATEGORY
    DESCRIPTION = "Writes a data set file into output/acestep/datasets. The original and other trainers read it too."
    SEARCH_ALIASES = ["ace step", "dataset json", "export dataset"]
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = (DATASET, "STRING")
    RETURN_NAMES = ("dataset", "path")
    OUTPUT_TOOLTIPS = ("The data set, for the next node", "Where the file lies")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        name = "Name of the file; one of this name is replaced. Empty: that of the data set."
        return {"required": {"dataset": socket(DATASET, FROM_DATASET), "name": text(name)}}

    @classmethod
    def VALIDATE_INPUTS(cls, name: str | None = None) -> bool | str:
        return problem_of(_places().checked_name, name) if name and name.strip() else True

    @classmethod
    def IS_CHANGED(cls, name: str | None = None, **_: Any) -> str:
        return _saved.state(name)

    def save(self, dataset: Any, name: str) -> dict[str, Any]:
        from ..acestep_core.training.dataset_file import save

        path = save(dataset, _places().dataset_file(host.current(), name.strip() or dataset.name))
        _saved.made(name, path)
        return {"ui": {"text": [str(path)]}, "result": (dataset, str(path))}
