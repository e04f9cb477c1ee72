"""Texts that are longer than the encoder reads: how many are cut, and the parts that they become."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.tiny import TEXTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.tokenising import whole_ids
from textcl.vectors.encode import encode_corpus
from textcl.vectors.lengths import are_longer, parts_of
from textcl.vectors.shards import iterate_vectors, read_complete, texts_cut
from textcl.vectors.vectors import Vectors

_draw = random.Random(5)
# none of them repeats itself, so that a part has one place
UNIQUE = [
    "".join(_draw.choices("abcdefgh", k=900)),
    "".join(map(chr, _draw.sample(range(0x4E00, 0x9000), 600))),
    "".join(_draw.choices("éèêëàâ", k=400)),
    " " * 9000 + " ".join(_draw.sample(TEXTS, 30)),
    " ".join(map(chr, _draw.sample(range(0x1F300, 0x1F5FF), 200))),
    " ".join(f"{n}" for n in range(400)),
]
ODD = [
    "x" * 900,
    "東京" * 300,
    "é" * 400,
    " " * 9000 + "a boat " * 80,
    "👩‍🚀 " * 200,
    "a " * 62,
    "a " * 63,
    "\ufdfa" * 40,
]
PROMPTS = ["", "the old ", "a {text} today"]


def long_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(TEXTS, k=draw.choice((1, 2, 9, 40)))) for _ in range(count)]


def byte_level(encoder: Encoder) -> Encoder:
    """The encoder with a tokenizer as GPT-2 has it, in which a space belongs to the word behind it."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    changed = encoder.with_()
    changed.tokenizer = fast
    return changed


def tokens_of(encoder: Encoder, text: str, prompt: str) -> int:
    filled = prompt.replace("{text}", text) if "{text}" in prompt else prompt + text
    return len(whole_ids(encoder.tokenizer, [filled])[0])


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("of", [lambda encoder: encoder, byte_level], ids=["words", "bytes"])
def test_which_texts_are_longer(encoder: Encoder, of: Callable[[Encoder], Encoder], prompt: str) -> None:
    encoder, texts = of(encoder), [*long_texts(40), *ODD]
    expected = [tokens_of(encoder, text, prompt) > encoder.max_length for text in texts]
    assert are_longer(encoder, texts, prompt).tolist() == expected
    assert 5 < sum(expected) < len(texts) - 5


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("block", [100, 1 << 18])
@pytest.mark.parametrize("of", [lambda encoder: encoder, byte_level], ids=["words", "bytes"])
def test_parts_fit_overlap_and_leave_nothing_out(
    encoder: Encoder, of: Callable[[Encoder], Encoder], block: int, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a text is so long that it is tokenised in blocks."""
    encoder = of(encoder)
    monkeypatch.setattr("textcl.vectors.lengths.BLOCK", block)
    for text in [*long_texts(12), *UNIQUE]:
        parts = parts_of(encoder, text, prompt)
        at = covered = 0
        for part in parts:
            assert tokens_of(encoder, part, prompt) <= encoder.max_length
            at = text.index(part, at)
            assert not text[covered:at].strip(), "nothing between two parts is left out"
            covered = max(covered, at + len(part))
            at += 1
        assert not text[covered:].strip()
        if text.count(" ") > 100:
            assert all(set(part.split()) <= set(text.split()) for part in parts), "no word is cut"


def test_parts_are_windows_of_the_tokens_with_a_quarter_in_common(encoder: Encoder) -> None:
    text = " ".join(TEXTS[:40])
    whole = whole_ids(encoder.tokenizer, [text], special=False)[0]
    rows = whole_ids(encoder.tokenizer, parts_of(encoder, text, ""), special=False)
    start = end = 0
    for number, row in enumerate(rows):
        assert len(row) > 55, "parts are full, the last one too"
        place = next(n for n in range(start, len(whole)) if whole[n : n + len(row)] == row)
        if number:
            assert 15 <= end - place <= 20 or number == len(rows) - 1
        start, end = place + 1, place + len(row)
    assert end == len(whole)


def test_parts_are_rows_with_the_id_of_their_text(encoder: Encoder, tmp_path: Path) -> None:
    texts = ["", *long_texts(30, seed=3)]
    rows = [{"key": f"k{n}", "text": text} for n, text in enumerate(texts)]
    directory = encode_corpus(encoder, rows, tmp_path / "v", split_long=True, id_column="key", shard_rows=7)
    vectors = Vectors(directory)
    expected = [
        (n, part, text)
        for n, whole in enumerate(texts)
        if whole
        for part, text in enumerate(parts_of(encoder, whole, ""))
    ]
    assert list(zip(vectors.ids(), vectors.parts(), vectors.texts(), strict=True)) == expected
    assert vectors.own_ids() == [f"k{n}" for n, _, _ in expected]
    assert np.allclose(vectors.vectors(), encoder.encode([text for _, _, text in expected]), atol=1e-6)
    assert vectors.split
    assert vectors.manifest["settings"]["split"] is True
    assert vectors.manifest["corpus"]["documents"] == 30
    assert texts_cut(directory, read_complete(directory)) == int(are_longer(encoder, texts[1:], "").sum())
    assert vectors.table().column_names == ["id", "part", "text"]
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    (directory / "part-00002.parquet").unlink()
    (directory / "complete.json").unlink()
    encode_corpus(encoder, rows, directory, split_long=True, id_column="key", shard_rows=7)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    more = [{"key": "m", "text": " ".join(TEXTS[:30])}]
    encode_corpus(encoder, more, directory, append=True)
    added = Vectors(directory)
    assert set(added.ids()[len(vectors) :].tolist()) == {31}
    assert len(added) - len(vectors) == len(parts_of(encoder, more[0]["text"], "")) > 3
    with pytest.raises(InputError, match="holds parts of long texts, and clustering needs one vector for each text"):
        added.check_whole("clustering")
    assert sum(len(ids) for ids, _ in iterate_vectors(directory)) == len(added)


def test_the_share_is_said(model: Path, encoder: Encoder, tmp_path: Path, capsys) -> None:
    texts = [*TEXTS[:7], " ".join(TEXTS[:20])]
    (tmp_path / "t.txt").write_text("\n".join(texts))
    command = ["encode", str(model), str(tmp_path / "t.txt"), "--output"]
    share = "12.5 % of the texts (1 of 8) are longer than the model's 64 tokens and were "
    for output, more, said in [
        ("v", ["--shard-rows", "3"], "cut; --split-long (to a directory) keeps them whole"),
        ("v", ["--shard-rows", "3"], "cut; --split-long (to a directory) keeps them whole"),
        ("x.npy", [], "cut; --split-long (to a directory) keeps them whole"),
        ("s", ["--split-long"], "split into parts"),
    ]:
        assert main([*command, str(tmp_path / output), *more]) == 0
        assert capsys.readouterr().out.splitlines()[1] == share + said
    assert main([*command, str(tmp_path / "j"), "--split-long", "--json", "-"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["texts"], shown["cut"]) == (8, 1)
    assert shown["vectors"] == len(Vectors(tmp_path / "j")) > 8
    assert main(["cluster", str(tmp_path / "s"), "--clusters", "2", "--output", str(tmp_path / "c.csv")]) == 2
    assert "encode them without --split-long" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "w"), "--limit", "7"]) == 0
    assert capsys.readouterr().out.count("\n") == 1, "nothing was cut, and nothing is said"


def test_a_prompt_that_leaves_no_room_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves none for a text"):
        encode_corpus(encoder, [" ".join(TEXTS)], tmp_path / "v", split_long=True, prompt=" ".join(TEXTS[:20]))
    assert not (tmp_path / "v").exists()
