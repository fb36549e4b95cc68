"""Texts in every language: complete, in step with the nodes, and with the names and code they speak of."""

import json
import re
import unicodedata
from collections.abc import Iterator

import pytest

from tests import pack

pack.load()

from tools import build_help, build_locales  # noqa: E402
from tools.build_locales import NODES, read  # noqa: E402

LOCALES = build_locales.ROOT / "locales"
FILES = ("nodeDefs", "help", "main", "commands", "settings")
THERE = sorted(folder.name for folder in LOCALES.iterdir() if folder.is_dir())
TRANSLATED = [code for code in THERE if code != "en"]
LONG = 25
SAME_IN_EVERY_LANGUAGE: frozenset[str] = frozenset()
"""Texts longer than 25 characters that are names from end to end."""

BRACES = re.compile(r"\{[^{}]*\}")
CODE = re.compile(r"`[^`]+`")
EMPHASIS = re.compile(r"(\*{1,2})(?![\s*])([^*\n]+?)(?<!\s)\1")


def texts(content: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and text of everything in a file."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from texts(value, f"{path}/{key}")
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from texts(value, f"{path}/{index}")
    else:
        yield path, content


def file(code: str, name: str) -> dict[str, str]:
    return dict(texts(read(LOCALES / code / f"{name}.json")))


every_file = pytest.mark.parametrize("name", FILES)
every_translation = pytest.mark.parametrize("code", TRANSLATED)
every_language = pytest.mark.parametrize("code", THERE)


def test_only_known_languages_are_there():
    assert "en" in THERE and set(THERE) <= set(build_help.LANGUAGES)


def test_english_names_and_tooltips_are_those_of_the_nodes():
    with build_locales.no_files():
        made = build_locales.as_text(build_locales.node_defs())
    assert (LOCALES / "en" / "nodeDefs.json").read_text(encoding="utf-8") == made


def test_english_categories_and_wires_are_those_of_the_nodes():
    main = read(LOCALES / "en" / "main.json")
    with build_locales.no_files():
        assert {name: main[name] for name in ("nodeCategories", "dataTypes")} == build_locales.main_texts()


def test_every_node_has_words_of_its_own():
    words = read(LOCALES / "en" / "help.json")
    assert list(words) == [build_help.HEADINGS, *NODES]
    for name in NODES:
        assert {"when", "example"} <= set(words[name]) <= {"when", "example", "more"}, name


@every_file
@every_language
def test_every_language_has_the_same_keys_and_no_empty_text(code, name):
    found = file(code, name)
    assert sorted(found) == sorted(file("en", name))
    assert not [path for path, text in found.items() if not isinstance(text, str) or not text.strip()]


@every_file
@every_translation
def test_nothing_long_is_left_in_english(code, name):
    english, found = file("en", name), file(code, name)
    left = [path for path, text in english.items() if _words(text) and found.get(path) == text]
    assert not left


def _words(text: str) -> bool:
    """Whether a text holds more to translate than names and code."""
    bare = CODE.sub("", BRACES.sub("", text))
    return text not in SAME_IN_EVERY_LANGUAGE and len(bare.strip()) > LONG


@every_file
@every_translation
def test_names_in_braces_and_code_are_kept(code, name):
    english, found = file("en", name), file(code, name)
    for pattern in (BRACES, CODE):
        changed = {
            path: sorted(set(pattern.findall(text)) ^ set(pattern.findall(found.get(path, ""))))
            for path, text in english.items()
        }
        assert not {path: parts for path, parts in changed.items() if parts}


def test_names_and_code_are_told_from_words():
    assert not _words("{ACEStepThink:codes} → {ACEStepCodesToLatents} → `audio/stems/a-rather-long-name`")
    assert _words("{.text} is what {ACEStepTextToCodes} reads and nothing else.")


def test_pages_are_up_to_date():
    pages, left_out = build_help.build(tuple(THERE))
    assert not left_out
    lying = {path.relative_to(build_help.PAGES).as_posix() for path in build_help.PAGES.rglob("*.md")}
    assert lying == set(pages), "run python tools/build_help.py"
    old = [name for name, text in pages.items() if (build_help.PAGES / name).read_text(encoding="utf-8") != text]
    assert not old, "run python tools/build_help.py"


@every_language
def test_every_node_has_a_page_that_names_all_its_inputs(code):
    names = read(LOCALES / code / "nodeDefs.json")
    for node in NODES:
        page = (build_help.PAGES / node / f"{code}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {names[node]['display_name']}\n")
        assert not [i["name"] for i in names[node]["inputs"].values() if f"| **{i['name']}** |" not in page]
        assert not BRACES.search(CODE.sub("", page))


@every_language
def test_emphasis_is_read_as_such(code):
    """Markdown sees no end of emphasis between a mark of punctuation and a letter."""
    with build_locales.no_files():
        words = build_help.language(code)
        broken = [
            (name, hit[0]) for name in NODES for hit in EMPHASIS.finditer(build_help.page(words, name)) if _lost(hit)
        ]
    assert not broken


def _lost(hit: re.Match[str]) -> bool:
    before, after = hit.string[: hit.start()][-1:], hit.string[hit.end() :][:1]
    return (_mark(hit[2][0]) and _letter(before)) or (_mark(hit[2][-1]) and _letter(after))


def _mark(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "PS"


def _letter(sign: str) -> bool:
    return bool(sign) and not sign.isspace() and not _mark(sign)


def test_lost_emphasis_is_found():
    assert [_lost(hit) for hit in EMPHASIS.finditer("将**歌曲（新）**连接 and **this.** then")] == [True, False]


def test_names_are_spelled_as_on_the_canvas():
    words = build_help.language("en")
    assert words.spelled("{ACEStepSong}: {.steps}, {:seeds}", "ACEStepSampler") == "**Song**: *steps*, *seeds*"
    assert words.spelled("{ACEStepMixStems.stem_1_db}", "ACEStepSampler") == "*stem 1 dB*"


@pytest.mark.parametrize("wrong", ["{ACEStepNothing}", "{.nothing}", "{:nothing}", "{ACEStepSaveResult:audio}"])
def test_a_name_that_nothing_has_is_said(wrong):
    with pytest.raises(LookupError, match=re.escape(wrong)):
        build_help.language("en").spelled(f"See {wrong}.", "ACEStepSampler")


def test_a_language_that_is_not_complete_is_left_out(tmp_path, monkeypatch):
    for code in ("en", "it"):
        (tmp_path / code).mkdir()
        for name in ("nodeDefs", "help", "main"):
            content = read(LOCALES / "en" / f"{name}.json")
            if (code, name) == ("it", "help"):
                del content["ACEStepSong"]
            (tmp_path / code / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(build_help, "LOCALES", tmp_path)
    pages, left_out = build_help.build(("en", "it"))
    assert left_out == ["it lacks ACEStepSong in help."]
    assert len(pages) == 2 * len(NODES)


def test_a_wire_without_a_name_is_said(monkeypatch):
    fewer = {kind: name for kind, name in build_locales.WIRES.items() if kind != "ACESTEP_SONG"}
    monkeypatch.setattr(build_locales, "WIRES", fewer)
    with pytest.raises(LookupError, match="ACESTEP_SONG"):
        build_locales.wires()
