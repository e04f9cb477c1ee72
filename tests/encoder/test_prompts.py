"""Prompts: those whose tokens are not pooled, and those that are empty."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder, forward
from textcl.errors import InputError

PROMPT = "the old sailor mends "
ROWS = [TEXTS[0], "today", " ".join(TEXTS[:4]), TEXTS[9]]
MODES = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last_token"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("prompts") / "bert")


@pytest.mark.parametrize("mode", MODES)
def test_the_tokens_of_a_prompt_are_not_pooled_if_the_directory_says_so(bert: Path, mode: str, tmp_path: Path) -> None:
    theirs = SentenceTransformer(
        modules=[Transformer(str(bert)), Pooling(32, mode, include_prompt=False)],
        prompts={"q": PROMPT},
        default_prompt_name="q",
        device="cpu",
    )
    theirs.save_pretrained(str(tmp_path / "theirs"))
    encoder = Encoder.from_pretrained(tmp_path / "theirs", device="cpu")
    assert encoder.pooling == MODES[mode]
    assert not encoder.pool_prompt
    expected = theirs.encode(ROWS)
    assert np.abs(encoder.encode(ROWS) - expected).max() < 1e-6
    assert np.abs(encoder.encode(ROWS, prompt="") - theirs.encode(ROWS, prompt="")).max() < 1e-6
    pooled = Encoder.from_pretrained(tmp_path / "theirs", device="cpu")
    pooled.pool_prompt = True
    if mode != "lasttoken":
        assert np.abs(pooled.encode(ROWS) - expected).max() > 1e-3
    encoder.save(tmp_path / "ours")
    assert np.abs(SentenceTransformer(str(tmp_path / "ours"), device="cpu").encode(ROWS) - expected).max() < 1e-6


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last_token", "first_last"])
def test_each_row_skips_its_own_number_of_tokens_padded_and_packed(
    bert: Path, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.from_pretrained(bert, pooling=pooling, device="cpu")
    tokens = encoder.tokenize(ROWS)
    skipped = [2, 0, 5, 1]
    with torch.no_grad():
        hidden = encoder.backbone(
            **{name: tokens[name] for name in ("input_ids", "attention_mask")}, output_hidden_states=True
        ).hidden_states
    layer = (hidden[1] + hidden[-1]) / 2 if pooling == "first_last" else hidden[-1]
    expected = []
    for row, start in enumerate(skipped):
        kept = [layer[row, i] for i in range(start, int(tokens["attention_mask"][row].sum()))]
        stacked = torch.stack(kept)
        by_name = {"cls": kept[0], "last_token": kept[-1], "max": stacked.max(dim=0).values}
        expected.append(by_name.get(pooling, stacked.mean(dim=0)))
    tokens["prompt_lengths"] = np.array(skipped)
    with torch.no_grad():
        assert (encoder.embed(tokens) - torch.stack(expected)).abs().max() < 1e-6
        monkeypatch.setattr(forward, "PACK_FROM", {"cpu": 0})
        assert (encoder.embed(tokens) - torch.stack(expected)).abs().max() < 1e-6
    assert encoder.slicing.packs
    encoder.slicing.gradient_cache = True  # computes each slice a second time, with the same rows
    encoder.embed(tokens).sum().backward()


def test_a_prompt_around_the_text_is_refused_if_it_is_not_pooled(bert: Path) -> None:
    encoder = Encoder.from_pretrained(bert, device="cpu")
    encoder.pool_prompt = False
    with pytest.raises(InputError, match="stands around the text"):
        encoder.encode(TEXTS[:2], prompt="{text} today")
    assert "prompt_lengths" not in encoder.tokenize(TEXTS[:2])
    counted = 1 + len(encoder.tokenizer.tokenize(PROMPT))  # [CLS] and the words
    assert encoder.tokenize(TEXTS[:2], PROMPT)["prompt_lengths"].tolist() == [counted, counted]


def test_whether_a_prompt_is_pooled_is_part_of_the_fingerprint(bert: Path) -> None:
    encoder = Encoder.from_pretrained(bert, device="cpu", prompts={"q": PROMPT})
    before, model = encoder.fingerprint(), encoder.fingerprint(settings=False)
    encoder.pool_prompt = False
    assert encoder.fingerprint() != before
    assert encoder.fingerprint(settings=False) != model  # the directory decides it, not the caller
    encoder.pool_prompt = True
    encoder.prompts["q"] = "another "
    assert encoder.fingerprint() != before
    assert encoder.fingerprint(settings=False) == model


def test_an_empty_prompt_is_a_prompt(bert: Path, tmp_path: Path) -> None:
    theirs = SentenceTransformer(
        modules=[Transformer(str(bert)), Pooling(32, "mean")],
        prompts={"query": PROMPT, "document": ""},
        default_prompt_name="document",
        device="cpu",
    )
    theirs.save_pretrained(str(tmp_path / "theirs"))
    encoder = Encoder.from_pretrained(tmp_path / "theirs", device="cpu")
    assert encoder.prompts == {"query": PROMPT, "document": ""}
    assert np.abs(encoder.encode(ROWS) - theirs.encode(ROWS)).max() < 1e-6
    assert np.abs(encoder.encode(ROWS, prompt_name="query") - theirs.encode(ROWS, prompt_name="query")).max() < 1e-6


def test_an_encoder_whose_export_nobody_could_load_is_refused(bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(bert, prompts={"query": "a small ", "none": None}, default_prompt_name="query")
    assert encoder.prompts["none"] == ""  # as in a directory
    for refused in (
        lambda: Encoder.from_pretrained(bert, default_prompt_name="query"),
        lambda: Encoder(encoder.backbone, encoder.tokenizer, default_prompt_name="query"),
        lambda: encoder.with_(default_prompt_name="qeury"),
    ):
        with pytest.raises(InputError, match="There is no prompt"):
            refused()
    with pytest.raises(InputError, match="The prompt 'query': the value must be a text, not an int"):
        Encoder.from_pretrained(bert, prompts={"query": 3})
    assert Encoder.from_pretrained(encoder.save(tmp_path / "saved")).prompts == encoder.prompts


def test_given_prompts_come_before_those_of_the_directory(bert: Path, tmp_path: Path) -> None:
    prompts = {"query": "a small ", "other": "the garden "}
    saved = Encoder.from_pretrained(bert, prompts=prompts, default_prompt_name="query").save(tmp_path / "saved")
    encoder = Encoder.from_pretrained(saved, prompts={"query": PROMPT, "new": "a "}, default_prompt_name="new")
    assert encoder.prompts == {"query": PROMPT, "other": "the garden ", "new": "a "}
    assert encoder.default_prompt_name == "new"


def test_weights_of_tokens_beside_a_prompt_that_is_not_pooled_are_loaded_by_textcl_alone(
    bert: Path, tmp_path: Path
) -> None:
    """sentence-transformers would divide by the weights of the prompt's tokens too."""
    encoder = Encoder.from_pretrained(bert, prompts={"q": PROMPT}, default_prompt_name="q", device="cpu")
    encoder.weigh_tokens(TEXTS)
    encoder.pool_prompt = False
    folder = encoder.save(tmp_path / "saved")
    again = Encoder.from_pretrained(folder, device="cpu")
    assert np.abs(again.encode(ROWS) - encoder.encode(ROWS)).max() < 1e-6
    again.pool_prompt = True
    assert np.abs(again.encode(ROWS) - encoder.encode(ROWS)).max() > 1e-3
    with pytest.raises(ValueError, match=r"references the module class 'textcl\.Encoder'"):
        SentenceTransformer(str(folder), device="cpu")


def test_a_length_is_a_whole_number_of_any_kind(bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(bert, max_length=np.int64(12))
    assert Encoder.from_pretrained(encoder.save(tmp_path / "saved")).max_length == 12
    for wrong in (12.5, "12", float("nan")):
        with pytest.raises(InputError, match="max_length must be a whole number"):
            encoder.with_(max_length=wrong)


def test_a_prompt_of_a_copy_with_other_settings_is_its_own(bert: Path) -> None:
    """Only weights and slicing are shared."""
    encoder = Encoder.from_pretrained(bert, device="cpu", prompts={"query": PROMPT})
    copied = encoder.with_(max_length=16)
    copied.prompts["query"] = "another "
    assert encoder.prompts == {"query": PROMPT}
    assert copied.prompt_text(prompt_name="query") == "another "
