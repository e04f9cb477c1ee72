"""Texts as tokens: cut as the tokenizer itself would, without changing it, however long the text and in threads."""

import random
import threading

import pytest
from support.tiny import TEXTS, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from textcl.errors import InputError
from textcl.tokenising import check_room, head_of, special_edges, token_ids, vocabulary_size, whole_ids
from textcl.views.template import Template, in_prompt


def byte_level() -> PreTrainedTokenizerFast:
    """A BPE tokenizer that puts nothing before a text and two tokens after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s> <s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")


def unigram() -> PreTrainedTokenizerFast:
    """A tokenizer of the SentencePiece kind, for which a text without spaces is one word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=150, unk_token="<unk>", special_tokens=["<unk>"])
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


TOKENIZERS = {"wordpiece": tiny_tokenizer, "byte-level": byte_level, "unigram": unigram, "python": ByT5Tokenizer}


def cut_by_the_tokenizer(tokenizer, text: str, max_length: int) -> list[int]:
    return tokenizer([text], truncation=True, max_length=max_length, verbose=False)["input_ids"][0]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokens_are_those_of_the_tokenizers_own_truncation(kind, side):
    tokenizer = TOKENIZERS[kind]()
    tokenizer.truncation_side = side
    draw = random.Random(0)
    words = [
        *" ".join(TEXTS).split()[:200],
        "x" * 5000,
        " " * 5000,
        "été",
        "中文" * 50,
        "\n" * 9000,
        "\u200b" * 300,
        "!?",
    ]
    for count in (0, 1, 7, 60, 700):
        for glue in (" ", ""):
            text = glue.join(draw.choice(words if glue else words[:200]) for _ in range(count))
            for length in (4, 16):
                assert token_ids(tokenizer, [text], length)[0] == cut_by_the_tokenizer(tokenizer, text, length)


def test_special_tokens_are_counted_on_both_sides():
    assert special_edges(tiny_tokenizer()) == (1, 1)
    assert special_edges(byte_level()) == (0, 2)
    assert special_edges(unigram()) == (0, 0)
    assert special_edges(ByT5Tokenizer()) == (0, 1)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("text", ["my neighbour ", "x", " ", "\0", "中"])
def test_of_a_line_of_megabytes_only_its_first_thousands_of_characters_are_tokenised(text, side):
    """The tokenizer is asked to read less than a hundredth of the line."""
    tokenizer, read = tiny_tokenizer(), []
    plain = type(tokenizer).__call__

    class Counting(type(tokenizer)):
        def __call__(self, texts, **options):
            read.append(sum(map(len, texts)))
            return plain(self, texts, **options)

    tokenizer.truncation_side = side
    tokenizer.__class__ = Counting
    line = (text * (10_000_000 // len(text))) + "a small boat"
    rows = token_ids(tokenizer, [line], 16)
    assert sum(read) < 100_000
    short = text * 3000 + "a small boat"  # 3,000 of them are as good as ten million
    tokenizer.__class__ = PreTrainedTokenizerFast
    assert rows[0] == cut_by_the_tokenizer(tokenizer, short, 16)


def test_spaces_and_unknown_words_in_turns_are_not_mistaken_for_one_long_word():
    tokenizer = tiny_tokenizer()
    text = "ж" * 6000 + " " * 3000 + "ж ж ж" + " " * 20_000 + "boat"
    assert token_ids(tokenizer, [text], 16)[0] == cut_by_the_tokenizer(tokenizer, text, 16)


def test_a_short_text_is_left_as_it_is():
    text = "a small boat " * 100
    assert head_of(tiny_tokenizer(), text, 16) is text


def test_a_length_that_leaves_no_token_for_a_text_is_refused():
    tokenizer = tiny_tokenizer()
    check_room(tokenizer, 3)
    for length in (2, 1, 0, -5):
        with pytest.raises(InputError, match=f"max_length {length} leaves none for a text: .* at least 3"):
            check_room(tokenizer, length)
    with pytest.raises(InputError, match="leaves none for a text"):
        token_ids(tokenizer, [TEXTS[0]], 2)


def test_a_tokenizer_that_cuts_on_the_left_keeps_the_end_of_a_text_behind_a_long_prompt():
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side = "left"
    text = in_prompt("the old sailor: ", tokenizer, 5)("a boat")
    assert token_ids(tokenizer, [text], 5)[0][-3:] == tokenizer("a boat")["input_ids"][-3:]


def test_a_prompt_that_fills_the_length_is_refused_also_one_of_megabytes():
    tokenizer = tiny_tokenizer()
    prompt = "the old sailor: "
    taken = len(whole_ids(tokenizer, [prompt])[0])
    assert in_prompt(prompt, tokenizer, taken + 1)("a boat") == "the old sailor: a boat"
    for each, length in (
        (prompt, taken),
        ("the old sailor " * 1_000_000, 64),
        ("the old {text} sailor " + "boat " * 10**6, 64),
    ):
        with pytest.raises(InputError, match=f"max_length {length} leaves none for a text") as refusal:
            in_prompt(each, tokenizer, length)
        assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("kind", ["wordpiece", "python"])
def test_a_template_keeps_its_end_with_a_tokenizer_that_gives_no_offsets(kind):
    tokenizer = TOKENIZERS[kind]()
    template = Template("the {text} boat", tokenizer, 20)
    assert template("old") == "the old boat"
    filled = template("a young teacher paints the garden wall " * 5000)
    assert filled.startswith("the a ")
    assert filled.endswith(" boat")
    assert len(whole_ids(tokenizer, [filled])[0]) == 20
    before, behind = template.edges
    ids = whole_ids(tokenizer, [template.template.replace("{text}", "a")])[0]
    assert len(ids) == before + 1 + behind


def test_the_size_of_a_vocabulary_counts_its_gaps():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a")))
    assert len(tokenizer) == 2
    assert vocabulary_size(tokenizer) == 8


def test_threads_that_cut_at_different_lengths_share_a_tokenizer():
    tokenizer = tiny_tokenizer()
    texts = [" ".join(TEXTS[i : i + 4]) for i in range(40)]
    expected = {length: token_ids(tokenizer, texts, length) for length in (5, 9, 30)}
    wrong = []

    def work(length: int) -> None:
        wrong.extend(length for _ in range(60) if token_ids(tokenizer, texts, length) != expected[length])

    threads = [threading.Thread(target=work, args=(length,)) for length in (5, 9, 30, 5, 9, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert tokenizer.backend_tokenizer.truncation is None  # the state is not touched
