"""The tokenizer, beside transformers' own Qwen2 tokenizer on the same vocabulary."""

import json
import shutil
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import tokenizer

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures" / "checkpoints"
EMBEDDING, LM = FIXTURES / "Qwen3-Embedding-0.6B", FIXTURES / "acestep-5Hz-lm-0.6B"

TEXTS = [
    "",
    " ",
    "\n\n \t\r\n  x  \n",
    "a song",
    "# Languages\nen\n\n# Lyric\n[Verse 1]\nI'm WALKING, they'LL see: 1234567890!\n",
    "春の夜、桜が舞い散る。\n[副歌] 夜空中最亮的星",
    "사랑해요 그대만을",
    "Perché no? L'été déjà vu — Straße, ÅNGSTRÖM e\u0301 a\u030a",
    "Я люблю тебя، أحبك كثيرا שלום",
    "สวัสดีชาวโลก नमस्ते দুনিয়া தமிழ்",
    "😀👩‍👩‍👧‍👦🏳️‍🌈🇯🇵 ♪♫",
    "\ufeffzero\u200bwidth\u00a0space\u2028line\x85next\x00nul",
    "½ Ⅻ ٣٤ ೫ ²",
    "<|im_start|>system\nhi<|im_end|>\n<think>\n\n</think><|endoftext|><|endoftext|",
    "<tool_call>x</tool_call> <|vision_pad|>",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff \ud7ff \ue000",
]
anything = st.text(max_size=60) | st.lists(
    st.sampled_from([*TEXTS[3:], *tokenizer.QWEN3_ADDED_TOKENS, "'s", "'LL", " ", "\n", "\r", "9"]), max_size=6
).map("".join)


@pytest.fixture(scope="module")
def bundled():
    return tokenizer.load(None)


def reference(vocabulary, merges):
    transformers = pytest.importorskip("transformers")
    from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

    peer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    peer.add_tokens([transformers.AddedToken(name, special=True) for name in tokenizer.QWEN3_ADDED_TOKENS])
    return lambda text: peer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def peer(bundled):
    model = json.loads(bundled.backend.to_str())["model"]
    return reference(model["vocab"], [tuple(pair) for pair in model["merges"]])


def test_published_ids(bundled):
    assert bundled.vocab_size == 151_669
    assert bundled.end_of_text == 151_643
    assert [bundled.token_id(name) for name in tokenizer.QWEN3_ADDED_TOKENS] == list(range(151_643, 151_669))
    assert bundled.encode("<|im_start|>hi<think>") == [151_644, 6023, 151_667]
    assert len(bundled.encode("# Languages\nen\n\n# Lyric\n")) == 9


@pytest.mark.parametrize("text", TEXTS)
def test_many_languages_equal_transformers(bundled, peer, text):
    assert bundled.encode(text) == peer(text)


def test_random_text_equals_transformers(bundled, peer):
    @settings(max_examples=200, deadline=None)
    @given(anything)
    def check(text):
        assert bundled.encode(text) == peer(text)

    check()


def test_text_survives_the_round_trip(bundled):
    @settings(max_examples=100, deadline=None)
    @given(anything)
    def check(text):
        parts = bundled.decode(bundled.encode(text))
        assert unicodedata.normalize("NFC", parts) == unicodedata.normalize("NFC", text)

    check()


def test_lone_surrogates_count_as_replacement_characters(bundled):
    assert bundled.encode("a\ud800b") == bundled.encode("a\ufffdb")
    assert bundled.encode("\ud83d\ude00") == bundled.encode("😀")


def test_nothing_is_cut_or_appended(bundled):
    assert len(bundled.encode("la " * 5000)) >= 5000
    assert tokenizer.load(EMBEDDING).encode("a")[-1] != tokenizer.load(EMBEDDING).end_of_text


def test_an_unknown_token_is_named(bundled):
    with pytest.raises(KeyError, match="no token '<.audio_code_0.>'"):
        bundled.token_id("<|audio_code_0|>")


def test_audio_codes_follow_the_qwen_tokens_and_load_fast():
    started = time.perf_counter()
    words = tokenizer.load(None, audio_codes=tokenizer.LM_AUDIO_CODES)
    assert time.perf_counter() - started < 5
    assert words.vocab_size == 217_204
    assert [words.token_id(f"<|audio_code_{n}|>") for n in (0, 1, 63_999, 65_534)] == [
        151_669,
        151_670,
        215_668,
        217_203,
    ]
    ids = words.encode("</think>\n\n<|audio_code_7|><|audio_code_63999|>")
    assert ids == [151_668, 271, 151_676, 215_668]
    assert words.decode(ids[2:]) == "<|audio_code_7|><|audio_code_63999|>"


@pytest.mark.parametrize("folder", [EMBEDDING, LM], ids=lambda folder: folder.name)
def test_folders_read_alike_from_either_set_of_files(folder, tmp_path):
    whole = tokenizer.load(folder)
    assert whole.token_id("<think>") == 664
    copies = []
    for number, extra in enumerate([("added_tokens.json",), ("tokenizer_config.json",)]):
        copies.append(tmp_path / str(number))
        copies[-1].mkdir()
        for name in ("vocab.json", "merges.txt", *extra):
            shutil.copy(folder / name, copies[-1] / name)
    for copy in copies:
        parts = tokenizer.load(copy)
        assert parts.vocab_size == whole.vocab_size
        for text in [*TEXTS, "<|audio_code_0|><|audio_code_374|>"]:
            assert parts.encode(text) == whole.encode(text)
            assert parts.decode(parts.encode(text)) == whole.decode(whole.encode(text))


def test_the_fixture_ids_equal_the_reference():
    words = tokenizer.load(EMBEDDING)
    cases = json.loads((ROOT / "tests/fixtures/prompts.json").read_text(encoding="utf-8"))["dit_prompts"]
    assert cases
    for case in cases:
        text = case["text_prompt_batch_path"]
        lyrics = case["text_and_lyric_joined"][len(text) + 2 :]
        for limit, prompt, ids in ((256, text, case["text_ids"]), (2048, lyrics, case["lyric_ids"])):
            assert [*words.encode(prompt)[: limit - 1], words.end_of_text] == ids


def test_only_missing_audio_codes_are_added():
    assert tokenizer.load(LM, audio_codes=500).vocab_size == 1041
    assert tokenizer.load(EMBEDDING, audio_codes=375).token_id("<|audio_code_374|>") == 1040


def test_damaged_files_are_answered_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="No tokenizer in.*vocab.json and merges.txt"):
        tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text("[]")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(ValueError, match="damaged.*two tokens"):
        tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json cannot be read"):
        tokenizer.load(tmp_path)


def test_importing_it_is_cheap():
    code = (
        "import sys; sys.path.insert(0, '.'); from tests import pack; pack.load()\n"
        "from acestep_graph.acestep_core import tokenizer\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'transformers', 'huggingface_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
