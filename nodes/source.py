"""Source recordings and 5 Hz codes, and the ways between them."""

from __future__ import annotations

from typing import Any

from ..acestep_core import host
from ..acestep_core.sampling.settings import SEED_MAX
from .sound import check_file
from .widgets import AUDIO, CODES, LATENT, LINKED, MODEL, ROOT, SOURCE, VAE, choice, socket, text, whole

CATEGORY = f"{ROOT}/Source"
CODES_SUFFIX = ".codes.txt"
NO_CODES_FILE = "no codes saved yet"
NO_LATENTS_FILE = "no latents saved yet"


class EncodeSource:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Makes a recording the source of a remix, repaint or stem task. "
        "Any sample rate and channel count is brought to 48 kHz stereo."
    )
    SEARCH_ALIASES = ["ace step", "source audio", "cover", "input audio"]
    FUNCTION = "encode"
    RETURN_TYPES = (SOURCE, "FLOAT")
    RETURN_NAMES = ("source", "seconds")
    OUTPUT_TOOLTIPS = ("For task nodes", "Length of the recording")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        posterior = "mean: the same latents every time. sample: drawn by the seed, as the original does."
        latent = (
            "Latents this recording was decoded from, if it was made here: they are used as they are, "
            "so nothing is lost by encoding again."
        )
        return {
            "required": {
                "vae": socket(VAE, "VAE that encodes the recording."),
                "audio": socket(AUDIO, "The recording; of a batch, the first."),
                "posterior": choice(("mean", "sample"), posterior, advanced=True),
                "draw_seed": whole(0, 0, SEED_MAX, "Seed of the draw, for sample.", advanced=True),
            },
            "optional": {"latent": socket(LATENT, latent)},
        }

    def encode(self, vae: Any, audio: dict, posterior: str, draw_seed: int, latent: dict | None = None) -> tuple:
        from ..acestep_core.result import source_of

        made = source_of(vae, audio, latent, draw_seed if posterior == "sample" else None)
        return made, made.seconds


class SourceToCodes:
    CATEGORY = CATEGORY
    DESCRIPTION = "The 5 Hz codes of a recording: its melody, rhythm and structure without its sound."
    SEARCH_ALIASES = ["ace step", "convert to codes", "semantic codes"]
    FUNCTION = "convert"
    RETURN_TYPES = (CODES, "STRING")
    RETURN_NAMES = ("codes", "text")
    OUTPUT_TOOLTIPS = ("For task nodes", "The codes as text")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": socket(MODEL, "Any ACE-Step model; all of them share their codes."),
                "source": socket(SOURCE, "The recording."),
            }
        }

    def convert(self, model: Any, source: Any) -> tuple:
        from ..acestep_core.tasks import codes
        from ..acestep_core.tasks import source as sources

        found = codes.Codes((codes.encode_codes(model, sources.source_latents(model, source)),))
        return found, found.text()


class TextToCodes:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Codes from pasted text: tokens such as audio_code_123, as the model writes them. "
        "An empty line starts the next item."
    )
    SEARCH_ALIASES = ["ace step", "paste codes", "code hints"]
    FUNCTION = "parse"
    RETURN_TYPES = (CODES, "FLOAT")
    RETURN_NAMES = ("codes", "seconds")
    OUTPUT_TOOLTIPS = ("For task nodes", "Length of the first item; five codes are one second")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"text": text("The codes; anything between them is ignored.", multiline=True)}}

    def parse(self, text: str) -> tuple:
        from ..acestep_core.tasks import codes

        found = codes.parse_codes(text)
        return found, codes.seconds_of(found.for_item(0))


class CodesToText:
    CATEGORY = CATEGORY
    DESCRIPTION = "The codes as text, to show, keep or edit."
    SEARCH_ALIASES = ["ace step", "show codes"]
    FUNCTION = "show"
    RETURN_TYPES = ("STRING", "INT")
    RETURN_NAMES = ("text", "count")
    OUTPUT_TOOLTIPS = ("The codes as text", "Codes of the first item")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"codes": socket(CODES, "Codes of a recording, of text, or of the planner.")}}

    def show(self, codes: Any) -> tuple:
        return codes.text(), len(codes.for_item(0))


class CodesToLatents:
    CATEGORY = CATEGORY
    DESCRIPTION = "What codes stand for, as latents: a rough sketch of the music, before any sampling."
    SEARCH_ALIASES = ["ace step", "decode codes", "detokenize"]
    FUNCTION = "decode"
    RETURN_TYPES = (LATENT,)
    RETURN_NAMES = ("latent",)
    OUTPUT_TOOLTIPS = ("Latents of the first item",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": socket(MODEL, "Any ACE-Step model; all of them share their codes."),
                "codes": socket(CODES, "The codes."),
            }
        }

    def decode(self, model: Any, codes: Any) -> tuple:
        from ..acestep_core.tasks.codes import decode_codes

        latents = decode_codes(model, codes.for_item(0))
        return ({"samples": latents.transpose(1, 2).contiguous(), "type": "audio"},)


class SaveCodes:
    CATEGORY = CATEGORY
    DESCRIPTION = "Writes codes to a text file in the output folder."
    SEARCH_ALIASES = ["ace step", "export codes"]
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "codes": socket(CODES, "The codes."),
                "filename_prefix": text("Folder and beginning of the file name.", "codes/ACE-Step"),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: Any = None) -> bool | str:
        return check_file(filename_prefix)

    def save(self, codes: Any, filename_prefix: str) -> dict:
        from ..acestep_core.save_location import save_location

        place = save_location(host.current().output, filename_prefix)
        path = place.folder / f"{place.name}_{place.counter:05}_{CODES_SUFFIX}"
        path.write_text(codes.text(), encoding="utf-8")
        return {"ui": {"text": [str(path.name)]}}


class _LoadFile:
    """A combo of the files of one kind below the output folder."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    SUFFIX = ""
    EMPTY = ""
    TIP = ""

    @classmethod
    def _files(cls) -> list[str]:
        root = host.current().output
        return sorted(file.relative_to(root).as_posix() for file in root.rglob(f"*{cls.SUFFIX}"))

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"file": choice(cls._files() or [cls.EMPTY], cls.TIP)}}

    @classmethod
    def VALIDATE_INPUTS(cls, file: str | None = None) -> bool | str:
        if file is None or cls._path(file):
            return True
        return f"There is no file {file!r} in {host.current().output}. {cls.TIP}"

    @classmethod
    def IS_CHANGED(cls, file: str | None = None) -> str | float:
        if file is None:
            return LINKED
        path = cls._path(file)
        return str(path.stat().st_mtime_ns) if path else ""

    @classmethod
    def _path(cls, file: str) -> Any:
        return host.find_inside([host.current().output], file) if file.endswith(cls.SUFFIX) else None

    def _found(self, file: str) -> Any:
        path = self._path(file)
        if path is None:
            raise ValueError(self.VALIDATE_INPUTS(file))
        return path


class LoadCodes(_LoadFile):
    DESCRIPTION = "Reads codes from a text file of the output folder."
    SEARCH_ALIASES = ["ace step", "import codes"]
    SUFFIX, EMPTY, TIP = CODES_SUFFIX, NO_CODES_FILE, "Choose a file written by Save Codes."
    RETURN_TYPES = (CODES,)
    RETURN_NAMES = ("codes",)
    OUTPUT_TOOLTIPS = ("For task nodes",)

    def load(self, file: str) -> tuple:
        from ..acestep_core.tasks.codes import parse_codes

        return (parse_codes(self._found(file).read_text("utf-8")),)


class LoadLatents(_LoadFile):
    DESCRIPTION = "Reads the latents kept beside a saved file; give them to Encode Source together with its sound."
    SEARCH_ALIASES = ["ace step", "import latents"]
    SUFFIX, EMPTY, TIP = (
        ".latents.safetensors",
        NO_LATENTS_FILE,
        "Choose a file written by Save Result, save_latents on.",
    )
    RETURN_TYPES = (LATENT,)
    RETURN_NAMES = ("latent",)
    OUTPUT_TOOLTIPS = ("For Encode Source",)

    def load(self, file: str) -> tuple:
        from ..acestep_core.keeping import load_latents

        return (load_latents(self._found(file)),)
