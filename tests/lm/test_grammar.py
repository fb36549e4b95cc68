"""The grammar: every walk ends, leaves a block that can be read, and keeps what was given."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.lm import grammar, parsing
from acestep_graph.acestep_core.lm.vocabulary import vocabulary_of
from acestep_graph.acestep_core.song import KEYS, LANGUAGES, TIME_SIGNATURES
from tests.lm.planner import planner, published_tokenizer

fields = st.fixed_dictionaries(
    {},
    optional={
        "bpm": st.integers(30, 300),
        "duration": st.integers(10, 600),
        "keyscale": st.sampled_from(KEYS),
        "language": st.sampled_from(LANGUAGES),
        "timesignature": st.sampled_from(TIME_SIGNATURES),
    },
)


def walked(tokenizer, script, pick, limit):
    walk, taken = grammar.Walk(vocabulary_of(tokenizer), script), []
    while not walk.done and len(taken) < limit:
        ids = walk.options().ids
        taken.append(int(ids[pick(len(ids))]))
        walk.take(taken[-1])
    return walk, taken


@pytest.mark.parametrize("size", ("tiny", "published"))
@settings(deadline=None, max_examples=40)
@given(given_fields=fields, skip=st.sets(st.sampled_from(["caption", "language"])), seed=st.integers(0, 2**32))
def test_any_walk_ends_and_keeps_what_was_given(size, given_fields, skip, seed):
    draw = random.Random(seed)
    tokenizer = planner().tokenizer if size == "tiny" else published_tokenizer()
    words = vocabulary_of(tokenizer)
    script = grammar.block(words, given=given_fields, skip=skip, longest=77)
    walk, taken = walked(tokenizer, script, draw.randrange, grammar.BLOCK_TOKENS)
    assert walk.done
    text = tokenizer.decode(taken)
    metas, song = parsing.read(text).metas, parsing.song_of(text)
    wanted = {"bpm", "duration", "keyscale", "timesignature"} | ({"language"} - set(skip))
    assert wanted <= set(metas)
    kept = {name: value for name, value in given_fields.items() if name not in skip}
    assert {name: str(metas[name]) for name in kept} == {name: str(value) for name, value in kept.items()}
    if "duration" not in given_fields:
        assert 10 <= song.duration <= 77
    assert not any(token >= words.words for token in taken[1:-1])


def test_stubborn_choices_end_too():
    """Always the first or always the last option, where a loop would show."""
    for tokenizer in (planner().tokenizer, published_tokenizer()):
        script = grammar.block(vocabulary_of(tokenizer))
        for pick in (lambda n: 0, lambda n: n - 1):
            walk, taken = walked(tokenizer, script, pick, grammar.BLOCK_TOKENS)
            assert walk.done, tokenizer.decode(taken)[-80:]


@pytest.mark.parametrize("limit", (1, 2, 3))
def test_the_longest_caption_is_closed_by_a_newline_wherever_it_is_cut(limit):
    tokenizer = published_tokenizer()
    words = vocabulary_of(tokenizer)
    script = grammar.block(words, caption_limit=limit)
    for broken_at in range(limit + 1):
        walk, taken = grammar.Walk(words, script), []
        while not walk.done:
            ids, at = walk.options().ids.tolist(), walk.taken
            inside = walk.label == "caption" and isinstance(script[walk.index], grammar.Caption)
            wanted = words.newline if inside and at == broken_at else ids[-1]
            taken.append(wanted if wanted in ids else ids[-1])
            walk.take(taken[-1])
        assert parsing.song_of(tokenizer.decode(taken)).complete


def test_a_caption_goes_on_with_an_indented_line_or_to_its_successor():
    tokenizer = published_tokenizer()
    words = vocabulary_of(tokenizer)
    script = grammar.block(words, given={"bpm": 100, "duration": 30})
    walk = grammar.Walk(words, script)
    for token in tokenizer.encode_words("<think>"[:0]) + [words.think, words.newline]:
        walk.take(token)
    for token in [*words.name("bpm"), *words.value("bpm", "100"), *words.name("caption")]:
        walk.take(token)
    for token in tokenizer.encode_words(" Warm strings.\n"):
        walk.take(token)
    allowed = set(walk.options().ids.tolist())
    assert words.name("duration")[0] in allowed
    others = allowed - {words.name("duration")[0]}
    sample = random.Random(0).sample(sorted(others), 400)
    assert all(tokenizer.decode([token])[:1] in (" ", "\t") for token in sample)
    walk.take(words.name("duration")[0])
    assert walk.label == "duration (given)"


def test_behind_lyrics_only_the_end_of_the_turn_ends():
    tokenizer = planner().tokenizer
    words = vocabulary_of(tokenizer)
    script = grammar.block(words, skip=["caption"], lyrics=True)
    walk, _ = walked(tokenizer, script, lambda n: 0, 200)
    assert not walk.done and walk.label == "lyrics"
    walk.take(words.end)
    assert walk.done


def test_a_tokenizer_without_codes_is_answered():
    from acestep_graph.acestep_core import tokenizer

    with pytest.raises(ValueError, match="semantic codes"):
        vocabulary_of(tokenizer.load(None))
