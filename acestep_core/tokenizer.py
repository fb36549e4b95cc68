"""The byte-level BPE tokenizer of Qwen3, which the text encoder and the language model share.

    >>> from acestep_graph.acestep_core import tokenizer
    >>> words = tokenizer.load(None)
    >>> words.encode("a song") + [words.end_of_text]
    [64, 5492, 151643]

Published folders bring their own tokenizer files; single-file checkpoints bring none, so the Qwen3
vocabulary is bundled. Nothing is ever appended or cut here: callers add end tokens and truncate.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

END_OF_TEXT = "<|endoftext|>"
AUDIO_CODE = "<|audio_code_{}|>"
LM_AUDIO_CODES = 65535
"""Audio code tokens of the published language models; only the first 64000 name a code."""

QWEN3_ADDED_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
"""What Qwen3 adds to the base vocabulary, in order: ids 151643 to 151668 in the published models."""

PRE_TOKENIZER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES_FILE = Path(__file__).parent / "data" / "qwen_merges.txt.gz"


class Tokenizer:
    """Text to token ids and back. Build one with :func:`load`."""

    def __init__(self, backend: tokenizers.Tokenizer):
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.end_of_text = self.token_id(END_OF_TEXT)

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, with nothing added; special tokens written in the text become their ids.

        Lone surrogates, which no tokenizer can encode, count as U+FFFD.
        """
        return self.backend.encode(_without_surrogates(text), add_special_tokens=False).ids

    def encode_words(self, text: str) -> list[int]:
        """Ids of ``text`` as ordinary text: a special token written in it is spelled out and means nothing."""
        return self._words.encode(_without_surrogates(text), add_special_tokens=False).ids

    @cached_property
    def _words(self) -> tokenizers.Tokenizer:
        """The same vocabulary without its added tokens."""
        words = tokenizers.Tokenizer(self.backend.model)
        words.normalizer, words.pre_tokenizer = self.backend.normalizer, self.backend.pre_tokenizer
        return words

    @property
    def words(self) -> int:
        """How many ids are ordinary text; the added tokens follow them."""
        return self.backend.get_vocab_size(with_added_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``, special tokens included. Bytes that form no character become U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def bytes_of(self, ids: Sequence[int]) -> list[bytes]:
        """The UTF-8 bytes that each token stands for; a character may be spread over several tokens."""
        names = [self.backend.id_to_token(number) or "" for number in ids]
        return [
            name.encode() if number >= self.words else bytes(_BYTE_OF[character] for character in name)
            for number, name in zip(ids, names, strict=True)
        ]

    def token_id(self, name: str) -> int:
        """Id of one token, such as ``<think>``. Raises KeyError where the vocabulary lacks it."""
        found = self.backend.token_to_id(name)
        if found is None:
            raise KeyError(
                f"The tokenizer has no token {name!r}. "
                "The tokenizer files belong to another model; use those published with this one."
            )
        return found


def load(folder: Path | None, audio_codes: int = 0) -> Tokenizer:
    """The tokenizer of a model folder, or the bundled Qwen3 one.

    Args:
        folder: holds ``tokenizer.json``, or ``vocab.json`` and ``merges.txt`` with, if there are any,
            ``added_tokens.json`` or ``tokenizer_config.json``. None means the bundled vocabulary.
        audio_codes: how many ``<|audio_code_N|>`` tokens to append where the files have none:
            :data:`LM_AUDIO_CODES` for a language model, which puts them at 151669.

    Raises:
        FileNotFoundError: the folder has no tokenizer files.
        ValueError: a tokenizer file is damaged.
    """
    backend = _bundled() if folder is None else _from_folder(Path(folder))
    if audio_codes and backend.token_to_id(AUDIO_CODE.format(0)) is None:
        backend.add_special_tokens([_added(AUDIO_CODE.format(n)) for n in range(audio_codes)])
    return Tokenizer(backend)


def _from_folder(folder: Path) -> tokenizers.Tokenizer:
    whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    if whole.is_file():
        try:
            return tokenizers.Tokenizer.from_file(str(whole))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{whole} cannot be read as a tokenizer ({error}). Download it again.") from error
    if not (vocabulary.is_file() and merges.is_file()):
        raise FileNotFoundError(
            f"No tokenizer in {folder}: expected tokenizer.json, or vocab.json and merges.txt. "
            "Download the folder again."
        )
    try:
        with merges.open(encoding="utf-8") as lines:
            backend = _bpe(json.loads(vocabulary.read_text(encoding="utf-8")), _pairs(lines))
        backend.add_tokens(_added_tokens(folder))
    except Exception as error:
        raise ValueError(f"The tokenizer files in {folder} are damaged ({error}). Download them again.") from error
    return backend


def _added_tokens(folder: Path) -> list[AddedToken]:
    """Added tokens of a folder without ``tokenizer.json``, in the order of their ids."""
    by_id: dict[int, AddedToken] = {}
    listed, config = folder / "added_tokens.json", folder / "tokenizer_config.json"
    if config.is_file():
        decoder = json.loads(config.read_text(encoding="utf-8")).get("added_tokens_decoder", {})
        by_id = {
            int(number): _added(entry["content"], entry.get("special", False)) for number, entry in decoder.items()
        }
    if not by_id and listed.is_file():
        by_id = {number: _added(name) for name, number in json.loads(listed.read_text(encoding="utf-8")).items()}
    if not by_id:
        return [_added(name) for name in QWEN3_ADDED_TOKENS]
    return [token for _, token in sorted(by_id.items(), key=lambda item: item[0])]


def _bundled() -> tokenizers.Tokenizer:
    with gzip.open(MERGES_FILE, "rt", encoding="utf-8") as lines:
        merges = _pairs(lines)
    tokens = [*_byte_characters(), *(left + right for left, right in merges)]
    backend = _bpe({token: number for number, token in enumerate(tokens)}, merges)
    backend.add_tokens([_added(name) for name in QWEN3_ADDED_TOKENS])
    return backend


def _bpe(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZER), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _pairs(lines: Iterable[str]) -> list[tuple[str, str]]:
    rows = [line.rstrip("\r\n") for line in lines]
    if rows and rows[0].startswith("#version"):
        del rows[0]
    pairs = [tuple(row.split(" ")) for row in rows if row]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("a merge is not two tokens")
    return pairs


def _byte_characters() -> list[str]:
    """The 256 byte tokens: printable Latin-1 bytes stand for themselves, the rest for U+0100 and up."""
    return [chr(byte) for byte in _PRINTABLE] + [chr(256 + n) for n in range(256 - len(_PRINTABLE))]


_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
_BYTE_OF = dict(zip(_byte_characters(), (*_PRINTABLE, *sorted(set(range(256)) - set(_PRINTABLE))), strict=True))


def _added(name: str, special: bool = True) -> AddedToken:
    return AddedToken(name, normalized=False, special=special)


def _without_surrogates(text: str) -> str:
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
