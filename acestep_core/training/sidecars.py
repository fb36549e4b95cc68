"""What lies beside a recording and says what it is: text, lyrics, JSON, and tables for a whole folder.

Beside ``song.mp3``, later ones win: ``song.lrc``; ``song.txt``, which is lyrics, or lines such as ``bpm: 90``;
``song.lyrics.txt``; ``song.caption.txt``; ``song.json``; and the song's row in a CSV of the top folder. Lyrics are
taken from the first of the row, ``song.lyrics.txt``, ``song.txt``, ``song.json``, ``song.lrc``.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dataset import INSTRUMENTAL_LANGUAGE, DatasetError, parse_field

ENDINGS = (".lyrics.txt", ".caption.txt", ".txt", ".json", ".lrc")
MOST_BYTES = 4_000_000
SYNONYMS = {
    **{"caption": "caption", "prompt": "caption", "genre": "genre", "genres": "genre", "lyrics": "lyrics"},
    **{"bpm": "bpm", "tempo": "bpm", "key": "key", "keyscale": "key", "key_scale": "key", "scale": "key"},
    **dict.fromkeys(("signature", "timesignature", "time_signature", "sig"), "time_signature"),
    **{"language": "language", "lang": "language", "vocal_language": "language"},
    **{"is_instrumental": "instrumental", "instrumental": "instrumental"},
    **{"custom_tag": "tag", "trigger": "tag", "tags": "tag"},
    **{"prompt_override": "prompt", "repeat": "repeat"},
}
"""Names that programs have given the fields of a sample."""
_LABEL_STARTS = ("caption:", "genre:", "bpm:", "key:", "lyrics:")
_MARKED = re.compile(r"<(CAPTION|LYRICS|BPM|KEYSCALE|TIMESIGNATURE|LANGUAGE|GENRE)>(.*?)</\1>", re.DOTALL)
_STAMP = re.compile(r"\[\d+:\d{1,2}(?:[.:]\d{1,3})?\]|<\d+:\d{1,2}(?:[.:]\d{1,3})?>")
_LRC_HEAD = re.compile(r"\[(?:ar|ti|al|au|by|la|re|ve|length|offset|#)\s*:[^\]]*\]\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Beside:
    """Checked fields of a sample, and (file name, sentence) of what could not be used."""

    values: Mapping[str, Any]
    remarks: tuple[tuple[str, str], ...]
    files: frozenset[Path]


def plain(name: str) -> str:
    """A file name as it is compared: composed, without case."""
    return unicodedata.normalize("NFC", name).casefold()


def read_text(path: Path) -> str:
    """The text of a file, UTF-8, or UTF-16 where it begins with that mark.

    Raises:
        DatasetError: too large, unreadable, or in another encoding.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DatasetError(f"it has more than {MOST_BYTES // 1_000_000} MB, which is no text about a song")
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"it cannot be opened ({error.strerror})") from error
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError("it is not UTF-8 text; save it with that encoding") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def beside(audio: Path, row: Mapping[str, str] | None = None, row_from: str = "") -> Beside:
    """Everything said about ``audio`` by its neighbours and its ``row`` of a table called ``row_from``."""
    values: dict[str, Any] = {}
    remarks: list[tuple[str, str]] = []
    files: set[Path] = set()
    lyrics: dict[str, str] = {}

    def take(found: Mapping[str, Any], name: str, ending: str) -> None:
        for field, value in found.items():
            try:
                checked = parse_field(field, value)
            except DatasetError as error:
                remarks.append((name, f"{error} It is left out."))
                continue
            if field == "lyrics":
                lyrics[ending] = checked
            elif checked not in ("", None) or field == "instrumental":
                values[field] = checked

    readers = {
        ".lrc": lambda text: {"lyrics": lyrics_of_lrc(text)},
        ".txt": labels_or_lyrics,
        ".lyrics.txt": lambda text: {"lyrics": text},
        ".caption.txt": lambda text: {"caption": text},
        ".json": fields_of_json,
    }
    for ending, reader in readers.items():
        path = audio.with_name(audio.stem + ending)
        if not path.is_file():
            continue
        files.add(path)
        try:
            take(reader(read_text(path)), path.name, ending)
        except DatasetError as error:
            remarks.append((path.name, f"{error}."))
    if row is not None:
        take(row, row_from, ".csv")
    first = (".csv", ".lyrics.txt", ".txt", ".json", ".lrc")
    found = next((text for ending in first if (text := lyrics.get(ending))), "")
    if found.strip():
        values |= {"lyrics": found, "raw_lyrics": found}
        if ".lyrics.txt" in lyrics or "instrumental" not in values:
            values["instrumental"] = False
    values["labelled"] = bool(values.get("caption"))
    return Beside(values, tuple(remarks), frozenset(files))


def labels_or_lyrics(text: str) -> dict[str, str]:
    """Fields of a plain text: between marks, in lines ``name: value``, or the lyrics that it is.

    >>> labels_or_lyrics("bpm: 90\\nlyrics:\\nla la")
    {'bpm': '90', 'lyrics': 'la la'}
    """
    marked = {SYNONYMS[name.lower()]: value.strip() for name, value in _MARKED.findall(text)}
    if marked:
        return marked
    head = text.strip("\n").split("\n\n", 1)[0]
    if not any(line.strip().lower().startswith(_LABEL_STARTS) for line in head.split("\n")):
        return {"lyrics": text.strip("\n")}
    found: dict[str, str] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        name, colon, value = line.partition(":")
        field = SYNONYMS.get(name.strip().lower().replace(" ", "_"))
        if line.lstrip().startswith("#") or not colon or field is None:
            continue
        if field == "lyrics":
            found[field] = "\n".join([value.strip(), *lines]).strip("\n")
        else:
            found[field] = value.strip()
    return found


def fields_of_json(text: str) -> dict[str, Any]:
    """Fields of a JSON object beside a song. A ``language`` that is one makes it a sung piece."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"it is no valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise DatasetError("it is no JSON object")
    known = {SYNONYMS[name.lower()]: value for name, value in found.items() if name.lower() in SYNONYMS}
    language = known.get("language")
    if isinstance(language, str) and language.strip() and "instrumental" not in known:
        known["instrumental"] = language.strip().lower() == INSTRUMENTAL_LANGUAGE
    return known


def lyrics_of_lrc(text: str) -> str:
    """The words of timed lyrics, without stamps and headers."""
    lines = (_STAMP.sub("", line).strip() for line in text.split("\n") if not _LRC_HEAD.fullmatch(line.strip()))
    return "\n".join(lines).strip("\n")


# -- tables


def read_table(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(what stands under File, fields) for every row of a CSV with commas, semicolons or tabs.

    Raises:
        DatasetError: it cannot be read, or has no column File.
    """
    text = read_text(path)
    head = text.lstrip("\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise DatasetError(f"it is no table ({error})") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    columns = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "file" not in columns:
        raise DatasetError("it has no column File, so it says nothing about songs")
    for row in rows[1:]:
        cells = {name: cell.strip() for name, cell in zip(columns, row, strict=False) if cell.strip()}
        file = cells.pop("file", "").replace("\\", "/")
        known = {SYNONYMS[name]: cell for name, cell in cells.items() if name in SYNONYMS and name != "tags"}
        if "bpm" in known:
            known["bpm"] = _whole(known["bpm"])
        if file:
            yield file, known


def _whole(text: str) -> str:
    """A number of a table without what stands behind its point or comma."""
    match = re.fullmatch(r"(\d+)[.,]\d*", text)
    return match[1] if match else text
