"""Training a LoRA: tensors from songs, settings, the run itself, its curve, and the adapter for use."""

from __future__ import annotations

from typing import Any

from ..acestep_core import host
from ..acestep_core.training import limits, places
from ..acestep_core.training import settings as s
from .dataset import CATEGORY, FROM_DATASET
from .kept import Kept
from .lora import strength_widget
from .widgets import (
    DATASET,
    LINKED,
    MODEL,
    RUN,
    SONG,
    TENSORS,
    TEXT,
    TRAIN_SETTINGS,
    VAE,
    choice,
    number,
    problem_of,
    socket,
    switch,
    text,
    whole,
)

D = s.TrainSettings()
R = s.RANGES
PLAIN_MODEL = "Diffusion model, without LoRAs and not quantized. Its weights are never changed."
FROM_TENSORS = "From Preprocess Dataset or Load Tensors."
FROM_RUN = "From Train LoRA or Load Run."
NO_RUN = "no run yet"
WHICH_TIP = "final: what training ended with. best: the kept checkpoint of lowest loss. latest: the newest checkpoint."
STEP_TIP = "Take the checkpoint of this step instead; Train LoRA and Load Run list them. 0: as above."
_tensors, _runs, _exports = Kept(), Kept(), Kept(only_gone=True)


def _name_problem(name: str | None) -> bool | str:
    return True if name is None else problem_of(places.checked_name, name)


class Preprocess:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Turns the labelled songs into the tensors that training needs, exactly as the model sees them when it makes "
        "music. Songs that are up to date are not made again; cancelled, the next queue goes on."
    )
    SEARCH_ALIASES = ["ace step", "tensors", "encode dataset", "latents"]
    FUNCTION = "make"
    RETURN_TYPES = (TENSORS, "INT", "STRING")
    RETURN_NAMES = ("tensors", "count", "report")
    OUTPUT_TOOLTIPS = ("The tensors, for Train LoRA", "How many songs", "What was made, kept, and left out")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        timbre = (
            "silence: as songs are made without reference audio. own: 30 s of the song itself, for a LoRA that you "
            "will use with reference audio; it tells the model part of the answer."
        )
        longest, chance = "Longer songs are cut after this many seconds.", "Of the encoder's small random part."
        tile = "Window of the autoencoder in latent frames, overlaps included. Less needs less memory."
        name = "Name of the folder in output/acestep/tensors. Empty: that of the data set."
        return {
            "required": {
                "dataset": socket(DATASET, FROM_DATASET),
                "model": socket(MODEL, "The diffusion model that will be trained."),
                "text_encoder": socket(TEXT, "From Load ACE-Step Models."),
                "vae": socket(VAE, "From Load ACE-Step Models."),
                "name": text(name),
                "max_seconds": number(240.0, *limits.MAX_SECONDS_RANGE, 1.0, longest),
                "seed": whole(42, *limits.SEED_RANGE, chance, control_after_generate="fixed"),
                "timbre": choice(limits.TIMBRES, timbre, advanced=True),
                "tile": whole(256, *limits.TILE_RANGE, tile, advanced=True),
                "overwrite": switch(False, "Make all tensors again.", advanced=True),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, name: str | None = None) -> bool | str:
        return _name_problem(name) if name and name.strip() else True

    @classmethod
    def IS_CHANGED(cls, name: str | None = None, **_: Any) -> str:
        return _tensors.state(name)

    def make(
        self,
        dataset: Any,
        model: Any,
        text_encoder: Any,
        vae: Any,
        name: str,
        max_seconds: float,
        seed: int,
        timbre: str,
        tile: int,
        overwrite: bool,
    ) -> tuple:
        from ..acestep_core.training.preprocess import PreprocessSettings, preprocess
        from ..acestep_core.training.tensors import open_tensors
        from ..acestep_core.training.wording import recordings

        folder = places.place_of(host.current(), places.TENSORS, name.strip() or dataset.name)
        how = PreprocessSettings(max_seconds=max_seconds, seed=seed, timbre=timbre, tile=tile)
        done = preprocess(recordings(dataset), folder, model, text_encoder, vae, how, overwrite=overwrite)
        _tensors.made(name, folder)
        tensors, _ = open_tensors(folder, model.config.encoder_width)
        unlabelled = len(dataset) - len(dataset.labelled)
        left = f"\n{unlabelled} songs are not labelled and were left out." if unlabelled else ""
        return tensors, tensors.count, f"{done.text()}{left}\nIn {folder}."


class LoadTensors:
    CATEGORY = CATEGORY
    DESCRIPTION = "Opens preprocessed tensors: ours, or the .pt files of the original trainer, read safely."
    SEARCH_ALIASES = ["ace step", "preprocessed", "open tensors", "pt files"]
    FUNCTION = "load"
    RETURN_TYPES = (TENSORS, "INT", "STRING")
    RETURN_NAMES = ("tensors", "count", "report")
    OUTPUT_TOOLTIPS = ("The tensors, for Train LoRA", "How many songs", "What is in them, and what is wrong with them")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        folder = "Folder: the name given to Preprocess Dataset, a whole path, or one below ComfyUI's input folder."
        return {"required": {"folder": text(folder, placeholder="my songs")}}

    @classmethod
    def VALIDATE_INPUTS(cls, folder: str | None = None) -> bool | str:
        return True if folder is None else problem_of(places.find, host.current(), folder, places.TENSORS)

    @classmethod
    def IS_CHANGED(cls, folder: str | None = None) -> str | float:
        if folder is None:
            return LINKED
        from ..acestep_core.training.tensors import fingerprint_of

        path = places.find(host.current(), folder, places.TENSORS)
        return f"{path} {fingerprint_of(path)}"

    def load(self, folder: str) -> tuple:
        from ..acestep_core.training.tensors import open_tensors

        tensors, report = open_tensors(places.find(host.current(), folder, places.TENSORS))
        return tensors, tensors.count, report


def _setting(name: str, tooltip: str, step: float = 0.0, **more: Any) -> tuple[str, dict[str, Any]]:
    """The widget of a training setting: its default and range are those of the engine."""
    default, (low, high) = getattr(D, name), R[name]
    if isinstance(default, int):
        return whole(default, int(low), int(high), tooltip, **more)
    return number(default, low, high, step, tooltip, **more)


def _choice(name: str, tooltip: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return choice(s.CHOICES[name], tooltip, getattr(D, name), **more)


class TrainingSettings:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "How a LoRA is trained. With model and tensors connected it tells steps, size and the memory it will take, "
        "before anything starts."
    )
    SEARCH_ALIASES = ["ace step", "lora config", "rank", "learning rate", "hyperparameters"]
    FUNCTION = "set"
    RETURN_TYPES = (TRAIN_SETTINGS, "STRING")
    RETURN_NAMES = ("settings", "estimate")
    OUTPUT_TOOLTIPS = ("For Train LoRA", "Steps, trained numbers, and memory")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        a = {"advanced": True}
        timesteps = (
            "auto and continuous: noise levels as the model was trained with. discrete: only the eight levels that "
            "turbo models play at."
        )
        method = "Kind of adapter. lora is usual and plays everywhere. lokr is tiny; train it at a rate of 1e-3."
        decay = "Of the optimizer: pulls the LoRA towards nothing."
        precision = "Of the frozen model. auto: bf16 where the device computes it, else fp32. The LoRA is fp32."
        minutes = "Minutes between checkpoints that only guard the run against a crash. 0: none."
        return {
            "required": {
                "method": _choice("method", method),
                "rank": _setting("rank", "Size of the LoRA: larger learns more detail and needs more memory."),
                "alpha": _setting("alpha", "Loudness of what is learnt, over rank. Twice the rank is usual.", 1.0),
                "dropout": _setting("dropout", "Share of the LoRA's inputs that a step leaves out.", 0.01),
                "learning_rate": _setting("learning_rate", "At its highest. 1e-4 is usual; lower is safer.", 1e-6),
                "epochs": _setting("epochs", "How often every song is learnt. 500 for 10 to 20 songs is usual."),
                "batch_size": _setting("batch_size", "Songs learnt side by side. More needs more memory."),
                "accumulation": _setting("accumulation", "Passes before a step: a larger batch at no more memory."),
                "save_every": _setting("save_every", "Epochs between checkpoints that are kept."),
                "shift": _setting("shift", "Moves discrete timesteps towards noise; continuous do not know it.", 0.1),
                "seed": _setting("seed", "Of everything that is drawn.", control_after_generate="fixed"),
                "gradient_checkpointing": switch(True, "Half the speed at a tenth of the memory for activations."),
                "timesteps": _choice("timesteps", timesteps, **a),
                "attention": _choice("attention", "Which attention layers are adapted.", **a),
                "factor": _setting("factor", "Of lokr: most rows and columns of the smaller matrix. 0: even.", **a),
                "mlp": switch(D.mlp, "Adapt the feed-forward layers as well.", **a),
                "schedule": _choice("schedule", "How the learning rate falls: to 1 % of it, or not.", **a),
                "warmup_steps": _setting("warmup_steps", "Steps of rising rate; at most a tenth of all.", **a),
                "condition_dropout": _setting(
                    "condition_dropout", "How often a song is learnt without its words.", 0.01, **a
                ),
                "min_snr": _setting("min_snr", "Gamma of min-SNR weighting. 0: off; 5 is usual.", 0.5, **a),
                "weight_decay": _setting("weight_decay", decay, 0.001, **a),
                "max_grad_norm": _setting("max_grad_norm", "Where gradients are clipped. 0: nowhere.", 0.1, **a),
                "optimizer": _choice("optimizer", "adamw8bit needs less memory, and a package of its own.", **a),
                "precision": _choice("precision", precision, **a),
                "save_minutes": _setting("save_minutes", minutes, 1.0, **a),
            },
            "optional": {
                "model": socket(MODEL, "Only for the estimate."),
                "tensors": socket(TENSORS, "Only for the estimate."),
            },
        }

    def set(self, model: Any = None, tensors: Any = None, **values: Any) -> tuple:
        made = s.TrainSettings.from_values(values)
        return made, s.estimate_text(made, None if model is None else model.config, tensors)


class TrainLoRA:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Trains a LoRA. Cancel it whenever you like: queued again, it goes on where it was. Stop and Keep ends it and "
        "hands on what it has learned so far."
    )
    SEARCH_ALIASES = ["ace step", "finetune", "fine tune", "lora training", "train adapter"]
    FUNCTION = "train"
    OUTPUT_NODE = True
    RETURN_TYPES = (RUN, "IMAGE", "STRING")
    RETURN_NAMES = ("run", "curve", "report")
    OUTPUT_TOOLTIPS = ("The run, for Export LoRA and Use Trained LoRA", "The loss curve", "What came of it")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        name = "Name of the run and of its folder in output/acestep/runs. The same name goes on with the same run."
        stopped = "Train on where the run was ended with Stop and Keep. Off: it is taken as it is."
        samples = "Make a short piece with the LoRA after every so many epochs. 0: none. Needs the sockets below."
        return {
            "required": {
                "model": socket(MODEL, PLAIN_MODEL),
                "tensors": socket(TENSORS, FROM_TENSORS),
                "name": text(name, "my-lora"),
                "go_on_after_stop": switch(False, stopped),
                "samples_every": whole(0, 0, limits.EVERY_RANGE[1], samples),
            },
            "optional": {
                "settings": socket(TRAIN_SETTINGS, "From Training Settings. Not connected: the usual ones."),
                "start": socket(RUN, "A run whose LoRA this one starts from; it must be of the same kind and size."),
                "song": socket(SONG, "What the samples play."),
                "text_encoder": socket(TEXT, "For the samples."),
                "vae": socket(VAE, "For the samples."),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, name: str | None = None) -> bool | str:
        return _name_problem(name)

    @classmethod
    def IS_CHANGED(cls, name: str | None = None, **_: Any) -> str:
        return _runs.state(name)

    def train(
        self,
        model: Any,
        tensors: Any,
        name: str,
        go_on_after_stop: bool,
        samples_every: int,
        settings: Any = None,
        start: Any = None,
        song: Any = None,
        text_encoder: Any = None,
        vae: Any = None,
    ) -> dict[str, Any]:
        from ..acestep_core.training import curve, live, runs
        from ..acestep_core.training.samples import Samples

        made = None
        if samples_every:
            if None in (song, text_encoder, vae):
                raise ValueError("Samples need song, text_encoder and vae. Connect them, or set samples_every to 0.")
            made = Samples(song, text_encoder, vae, every=samples_every)
        run, result = live.train_run(
            model,
            tensors,
            settings or D,
            name,
            start=None if start is None else runs.adapter_of(start),
            go_on_after_stop=go_on_after_stop,
            samples=made,
        )
        _runs.made(name, result.final)
        report = "\n".join([*result.notes, run.report()])
        image = curve.picture(result.points, run.name)[None]
        return {"ui": {"acestep_training": [{"run": run.name}]}, "result": (run, image, report)}


class LoadRun:
    CATEGORY = CATEGORY
    DESCRIPTION = "A run of earlier: its curve, its checkpoints, its LoRA, without training on."
    SEARCH_ALIASES = ["ace step", "open run", "checkpoints", "loss log"]
    FUNCTION = "load"
    RETURN_TYPES = (RUN, "STRING")
    RETURN_NAMES = ("run", "report")
    OUTPUT_TOOLTIPS = ("The run", "Steps, losses and checkpoints")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        names = places.names(host.current(), places.RUNS)
        return {
            "required": {
                "model": socket(MODEL, "The model it was trained on, or one of the same size."),
                "run": choice(names or [NO_RUN], "Runs in output/acestep/runs, newest first."),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, run: str | None = None) -> bool | str:
        if run == NO_RUN:
            return "There is no run yet. Train one with Train LoRA, as the workflow train-lora does."
        known = places.names(host.current(), places.RUNS)
        if run is None or run in known:
            return True
        return f"There is no run {run!r} in output/acestep/runs. There is {', '.join(known[:5]) or 'none yet'}."

    @classmethod
    def IS_CHANGED(cls, run: str | None = None, **_: Any) -> str | float:
        if run is None:
            return LINKED
        from ..acestep_core.training.runs import stamp

        return stamp(places.place_of(host.current(), places.RUNS, run))

    def load(self, model: Any, run: str) -> tuple:
        from ..acestep_core.training.runs import open_run

        found = open_run(host.current(), run, model.config)
        return found, found.report()


class LossCurve:
    CATEGORY = CATEGORY
    DESCRIPTION = "The loss curve of a run as a picture, and the file with every step."
    SEARCH_ALIASES = ["ace step", "plot loss", "training graph", "csv"]
    FUNCTION = "draw"
    OUTPUT_NODE = True
    RETURN_TYPES = ("IMAGE", "STRING", "STRING")
    RETURN_NAMES = ("curve", "csv_path", "report")
    OUTPUT_TOOLTIPS = ("Every loss in blue, the running mean in yellow", "Table of all steps", "Steps and losses")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"run": socket(RUN, FROM_RUN)}}

    def draw(self, run: Any) -> dict[str, Any]:
        from ..acestep_core.training import curve

        report = run.report()
        image = curve.picture(run.points, run.name)[None]
        return {"ui": {"text": [report]}, "result": (image, str(run.csv), report)}


class ExportLoRA:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Writes what a run has learned into models/loras, alpha included, so that it is as loud anywhere as here: a "
        "single file for ComfyUI, or a PEFT folder."
    )
    SEARCH_ALIASES = ["ace step", "save lora", "peft", "safetensors"]
    FUNCTION = "export"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("path", "lora_name")
    OUTPUT_TOOLTIPS = ("Where it lies", "What Load LoRA calls it")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        kinds = "ComfyUI file: one .safetensors, for Load LoRA and ComfyUI's own loader. PEFT folder: for Python."
        dtype = "Precision of the numbers. bf16 is half the size of what was trained, at no loss to hear."
        return {
            "required": {
                "run": socket(RUN, FROM_RUN),
                "name": text("Name of the file or folder. Empty: that of the run."),
                "format": choice(limits.FORMATS, kinds),
                "which": choice(limits.WHICH, WHICH_TIP),
                "step": whole(0, 0, 100_000_000, STEP_TIP, advanced=True),
                "dtype": choice(limits.DTYPES, dtype, advanced=True),
                "overwrite": switch(False, "Replace what is there under this name."),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, name: str | None = None) -> bool | str:
        return _name_problem(name) if name and name.strip() else True

    @classmethod
    def IS_CHANGED(cls, name: str | None = None, **_: Any) -> str:
        return _exports.state(name)

    def export(self, run: Any, name: str, overwrite: bool, **how: Any) -> dict[str, Any]:
        from ..acestep_core.training.runs import export

        done = export(run, host.current(), name, overwrite=overwrite, **how)
        _exports.made(name, done.path)
        return {"ui": {"text": [done.text()]}, "result": (str(done.path), done.name)}


class UseTrainedLoRA:
    CATEGORY = CATEGORY
    DESCRIPTION = "Adds what a run has learned to a diffusion model, without exporting it first."
    SEARCH_ALIASES = ["ace step", "apply run", "test lora", "trained adapter"]
    FUNCTION = "apply"
    RETURN_TYPES = (MODEL, "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = ("The model with the LoRA, for the task and the sampler", "What is in it")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": socket(MODEL, "Diffusion model, with or without other LoRAs."),
                "run": socket(RUN, FROM_RUN),
                "strength": strength_widget(),
                "which": choice(limits.WHICH, WHICH_TIP),
                "step": whole(0, 0, 100_000_000, STEP_TIP, advanced=True),
            }
        }

    def apply(self, model: Any, run: Any, strength: float, which: str, step: int) -> tuple:
        from ..acestep_core.lora.apply import with_adapter
        from ..acestep_core.training.runs import adapter_of

        adapter = adapter_of(run, which, step)
        return with_adapter(model, adapter, strength), adapter.text()
