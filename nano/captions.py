"""What a piece is, in words: several captions, all of them true of the sound."""

from __future__ import annotations

import numpy as np

from .arrangement import Arrangement
from .hits import PERCUSSION
from .words import language_of

MOOD_WORDS = {
    "happy": ("happy", "cheerful", "joyful", "upbeat"),
    "playful": ("playful", "bouncy", "light-hearted"),
    "energetic": ("energetic", "driving", "lively", "bright"),
    "epic": ("epic", "grand", "heroic"),
    "romantic": ("romantic", "tender", "warm"),
    "calm": ("calm", "relaxed", "gentle", "peaceful"),
    "dreamy": ("dreamy", "atmospheric", "floating"),
    "sad": ("sad", "melancholic", "wistful"),
    "dark": ("dark", "moody", "brooding"),
}
METRES = {"2": "two-beat march time", "3": "three-four time", "4": "four-four time", "6": "six-eight time"}
TEMPI = ((72, "very slow"), (90, "slow"), (112, "mid-tempo"), (134, "fast"), (1000, "very fast"))
"""Up to so many beats a minute, and the word for it."""

HANDS = {"high conga": "congas", "low conga": "congas", "high bongo": "bongos", "low bongo": "bongos"}


def tempo_word(bpm: int) -> str:
    """How fast that is, in a word."""
    return next(word for limit, word in TEMPI if bpm < limit)


def instrument_names(arrangement: Arrangement, sounds: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Track class → what is heard on it. ``sounds``: the strokes that drums and percussion really have."""
    names: dict[str, list[str]] = {}
    for player in arrangement.players:
        if player.patch.name not in names.setdefault(player.track, []):
            names[player.track].append(player.patch.name)
    if "drums" in arrangement.active:
        names["drums"] = [arrangement.kit.name]
    if "percussion" in arrangement.active:
        hands = [HANDS.get(name, name) for name in PERCUSSION if name in sounds.get("percussion", ())]
        names["percussion"] = list(dict.fromkeys(hands))
    if arrangement.effect:
        names["fx"] = [arrangement.effect]
    if arrangement.singer:
        names["vocals"] = [arrangement.singer.name]
        if "backing_vocals" in arrangement.active:
            names["backing_vocals"] = ["backing vocals"]
    return {track: " and ".join(found) for track, found in names.items() if track in arrangement.active and found}


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def captions(arrangement: Arrangement, names: dict[str, str], rng: np.random.Generator) -> tuple[str, ...]:
    """Six phrasings, from a list of tags to full sentences; the first is the fullest list."""
    plan, genre = arrangement.plan, arrangement.genre.name
    words = MOOD_WORDS[arrangement.mood.name]
    mood, other = (str(word) for word in rng.choice(words, 2, replace=False))
    tempo = tempo_word(plan.bpm)
    order = list(names)
    rng.shuffle(order)
    heard = [names[track] for track in order]
    band = [names[track] for track in order if "vocals" not in track]
    voice = names.get("vocals", "")
    language = arrangement.language.name if arrangement.language else ""
    kind = "song" if voice else "instrumental"
    sung_by = f", sung by {voice.replace('vocals', 'voice')} in {language}" if voice and language != "wordless" else ""
    if voice and not sung_by:
        sung_by = f" and wordless {voice}"
    a, some = _article(mood), band[: int(rng.integers(2, 5))]
    tags = [genre, mood, tempo, plan.key.quality, *heard, *([] if voice else ["instrumental"])]
    ending = f"{_article(tempo).capitalize()} {tempo} {genre} {kind} in {METRES[plan.metre]}"
    return (
        ", ".join(tags),
        f"{a.capitalize()} {mood} {genre} {kind} with {_listed(band)}{sung_by}.",
        f"{mood.capitalize()} and {tempo} {genre} in {plan.key.name} with {_listed(some)}{sung_by}.",
        f"{genre}, {other}, {', '.join(heard[:3])}",
        f"{ending}, {mood} in mood, featuring {_listed(some)}{sung_by}.",
        f"{mood} {genre}{f' with {voice}' if voice else ''}",
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def stem_captions(arrangement: Arrangement, names: dict[str, str]) -> dict[str, str]:
    """Track class → a caption of its stem alone."""
    mood, genre = arrangement.mood.name, arrangement.genre.name
    styles = {player.track: player.style for player in arrangement.players}
    playing = {
        "lead": "playing the tune",
        "solo": "playing a solo",
        "line": "playing a melody",
        "pad": "holding chords",
        "bass": "line",
    }
    result = {}
    for track, name in names.items():
        style = styles.get(track, "")
        what = playing.get(style, f"{style} accompaniment" if style else "groove" if track == "drums" else "part")
        result[track] = f"{mood} {genre} {name} {what}"
    return result


def language_code(arrangement: Arrangement) -> str:
    """The code for the Song; wordless singing is ``unknown``."""
    return arrangement.language.code if arrangement.language else language_of("unknown").code
