"""A small byte-level vocabulary of the composer's own words, in the published files of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from acestep_graph.acestep_core import tokenizer as tokenizers
from acestep_graph.acestep_core.lm import prompts
from acestep_graph.acestep_core.song import KEYS, LANGUAGES
from acestep_graph.acestep_core.tasks.instructions import TASKS, TRACKS, instruction_for
from acestep_graph.acestep_core.text import lyric_header, song_metas, text_prompt
from acestep_graph.acestep_core.tokenizer import AUDIO_CODE, PRE_TOKENIZER, QWEN3_ADDED_TOKENS, Tokenizer

from .songs import Cached


def texts(songs: Sequence[Cached]) -> Iterator[str]:
    """What the models read and write."""
    for task in TASKS:
        for track in TRACKS:
            yield text_prompt(instruction_for(task, track, (track,)), "", None)
    yield from (prompts.GENERATE, prompts.UNDERSTAND, prompts.CREATE, prompts.FORMAT)
    yield " ".join(KEYS)
    yield from (lyric_header(language) for language in LANGUAGES)
    for cached in songs:
        song = cached.song
        yield from cached.captions
        yield from cached.stem_captions.values()
        yield f"{song.sung}\n{prompts.plan_text({**prompts.metas_of(song), 'language': song.language})}\n"
        yield text_prompt("", song.caption, song_metas(song, song.duration))


def train_vocabulary(songs: Sequence[Cached], words: int) -> Backend:
    """Byte pairs of :func:`texts` up to ``words`` entries, cut into words as Qwen3 cuts them."""
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(PRE_TOKENIZER), behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=words, initial_alphabet=alphabet, special_tokens=[], show_progress=False, min_frequency=3
    )
    backend.train_from_iterator(texts(songs), trainer)
    return backend


def write_vocabulary(backend: Backend, folder: Path, codes: int = 0) -> Tokenizer:
    """``vocab.json``, ``merges.txt`` and ``added_tokens.json``: the control tokens, then ``codes`` audio codes."""
    folder.mkdir(parents=True, exist_ok=True)
    model = json.loads(backend.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    added = [*QWEN3_ADDED_TOKENS, *(AUDIO_CODE.format(number) for number in range(codes))]
    first = len(model["vocab"])
    files = {
        "vocab.json": json.dumps(model["vocab"], ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
        "added_tokens.json": json.dumps({name: first + number for number, name in enumerate(added)}),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tokenizers.load(folder)
