"""What a text is in training: its tokens are those of `encode`, with the prompt of its column."""

import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.collator.prompts import Prompts, prompt_edges
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import BertCT, CTInBatch, DeCLUTR, SimCSE, SimCSEPlus
from textcl.runs.recipe import resolve
from textcl.runs.run import make_trainer, train_prompts
from textcl.training import ContrastiveTrainer, ContrastiveTrainingArguments

PREFIX = "the door: "
AROUND = "today {text} mends"
PROMPTS = {"plain": PREFIX, "query": "a teacher: ", "document": "the wall: "}
ROWS = [{"text": text} for text in TEXTS[:16]]
TRIPLETS = [
    {"text": a, "positive": b, "negative": c} for a, b, c in zip(TEXTS[:8], TEXTS[20:28], TEXTS[40:48], strict=True)
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def encoder_of(directory, default="plain", prompts=PROMPTS, **options):
    return Encoder.from_pretrained(
        directory, prompts=prompts, default_prompt_name=default, device="cpu", **{"max_length": 24, **options}
    )


def bare(directory, **options):
    return encoder_of(directory, default=None, prompts={}, **options)


def loss_of(kind, encoder, rows, **options):
    torch.manual_seed(0)
    method = kind(encoder, **options)
    method.hooked = True
    method.train()
    return float(method(**method.collator()(rows))["loss"].detach())


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SimCSE, BertCT, CTInBatch])
@pytest.mark.parametrize("prompt", [PREFIX, AROUND])
def test_the_loss_is_that_of_texts_with_the_prompt_written_in_front(kind, prompt, directory):
    options = {"negatives": "consecutive"} if kind is BertCT else {}  # pairs that do not depend on the text's hash
    found = loss_of(kind, encoder_of(directory, prompts={"plain": prompt}), ROWS, **options)
    template = prompt if "{text}" in prompt else prompt + "{text}"
    written = [{"text": template.replace("{text}", row["text"])} for row in ROWS]
    assert found == loss_of(kind, bare(directory), written, **options)
    assert found != loss_of(kind, bare(directory), ROWS, **options)


@pytest.mark.parametrize("default", ["plain", None])
def test_anchors_are_queries_and_positives_and_negatives_are_documents(default, directory):
    written = [
        {name: PROMPTS["query" if name == "text" else "document"] + text for name, text in row.items()}
        for row in TRIPLETS
    ]
    found = loss_of(SimCSE, encoder_of(directory, default), TRIPLETS)
    assert found == loss_of(SimCSE, bare(directory), written)
    pairs = [{name: row[name] for name in ("text", "positive")} for row in TRIPLETS]
    only_query = encoder_of(directory, default, {"plain": PREFIX, "query": PROMPTS["query"]})
    written = [
        {"text": PROMPTS["query"] + row["text"], "positive": (PREFIX if default else "") + row["positive"]}
        for row in pairs
    ]
    assert loss_of(SimCSE, only_query, pairs) == loss_of(SimCSE, bare(directory), written)


def test_prompts_of_single_columns_take_the_place_of_the_models(directory):
    method = SimCSE(encoder_of(directory))
    method.train_prompts = {"text": "sells: ", "positive": "", "negative": "query"}
    batch = method.collator()(TRIPLETS)
    written = [
        *("sells: " + row["text"] for row in TRIPLETS),
        *(row["positive"] for row in TRIPLETS),
        *(PROMPTS["query"] + row["negative"] for row in TRIPLETS),
    ]
    assert torch.equal(batch["input_ids"], method.encoder.tokenize(written)["input_ids"])


# -- the tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_length", [9, 24])  # the shorter one cuts texts
@pytest.mark.parametrize("prompt", [PREFIX, AROUND])
def test_training_tokens_are_those_of_encode(prompt, max_length, directory, tmp_path):
    encoder = encoder_of(directory, prompts={"plain": prompt}, max_length=max_length)
    expected = encoder.tokenize([row["text"] for row in ROWS], prompt)["input_ids"].repeat(2, 1)
    collator = SimCSE(encoder).collator()
    assert torch.equal(collator(ROWS)["input_ids"], expected)
    made = collator.tokenized(Dataset.from_list(ROWS), tmp_path)
    assert torch.equal(collator([made[row] for row in range(16)])["input_ids"], expected)


def test_kept_tokens_of_another_prompt_are_not_used(directory, tmp_path):
    """The same corpus and the same tokenizer, first without a prompt, then with two of them."""
    rows = Dataset.from_list(ROWS)
    names = []
    for prompts in ({}, {"plain": PREFIX}, {"plain": "sells: "}, {"plain": AROUND}):
        encoder = encoder_of(directory, "plain" if prompts else None, prompts)
        collator = SimCSE(encoder).collator()
        rows = collator.tokenized(rows, tmp_path)
        names.append(rows.column_names[-1])
        expected = encoder.tokenize([row["text"] for row in ROWS], prompts.get("plain", ""))["input_ids"]
        assert torch.equal(collator([rows[row] for row in range(16)])["input_ids"], expected.repeat(2, 1))
    assert len(set(names)) == len(list(tmp_path.glob("*.arrow"))) == 4
    assert names[0].startswith("text, 24 tokens of ")  # as before there were prompts


def test_text_views_have_the_prompt_in_front(directory):
    rows = [{"text": a, "text_1": b, "text_2": c} for a, b, c in zip(TEXTS[:4], TEXTS[4:8], TEXTS[8:12], strict=True)]
    encoder = encoder_of(directory)
    expected = encoder.tokenize([*TEXTS[4:8], *TEXTS[8:12]], PREFIX)["input_ids"]
    assert torch.equal(SimCSE(encoder).collator()(rows)["input_ids"], expected)


def test_a_views_own_template_takes_the_place_of_the_prompt(directory):
    encoder = encoder_of(directory, pooling="mask_token")
    method = SimCSEPlus(encoder, template="{text} means [MASK] .")
    expected = encoder.tokenize([row["text"] for row in ROWS], "{text} means [MASK] .")["input_ids"]
    assert torch.equal(method.collator()(ROWS)["input_ids"], expected.repeat(2, 1))


@pytest.mark.parametrize(
    "view", ["word_deletion:0.9", "span_deletion:0.9", "reordering:0.9", "repetition:0.9", "crop_away:0.9"]
)
@pytest.mark.parametrize("prompt", [PREFIX, AROUND])
def test_operators_on_tokens_leave_the_prompt_alone(view, prompt, directory):
    encoder = encoder_of(directory, prompts={"plain": prompt}, max_length=40)
    method = SimCSE(encoder)
    method.views = encoder.prepare_views(view, view)
    batch = method.collator()(ROWS)
    before, behind = prompt_edges(encoder.tokenizer, prompt)
    plain = encoder.tokenize(["a"], prompt)["input_ids"][0]
    for ids, length in zip(batch["input_ids"], batch["lengths"], strict=True):
        assert torch.equal(ids[:before], plain[:before])
        assert torch.equal(ids[length - behind : length], plain[-behind:])
    expected = encoder.tokenize([row["text"] for row in ROWS], prompt)["input_ids"]
    assert not all(row.tolist() in expected.tolist() for row in batch["input_ids"])


def test_each_span_of_a_document_has_the_prompt(directory):
    documents = [{"text": " ".join(TEXTS[start : start + 8])} for start in range(0, 64, 8)]
    options = {"shortest_span": 4, "longest_span": 8, "mlm_weight": 0.0}
    prompted, plain = DeCLUTR(encoder_of(directory), **options), DeCLUTR(bare(directory), **options)
    found, expected = prompted.collator()(documents), plain.collator()(documents)
    before, _ = prompt_edges(prompted.encoder.tokenizer, PREFIX)
    prompt = prompted.encoder.tokenize(["a"], PREFIX)["input_ids"][0, :before]
    assert (found["input_ids"][:, :before] == prompt).all()
    assert torch.equal(found["input_ids"][:, before:], expected["input_ids"][:, 1:])
    assert prompted.collator().document_lengths(Dataset.from_list(documents)) == plain.collator().document_lengths(
        Dataset.from_list(documents)
    )
    narrow = DeCLUTR(bare(directory, max_length=10), **options)
    narrow.train_prompts = {"text": PREFIX}
    with pytest.raises(InputError, match="leaves 5 tokens for a span, but spans have up to 8"):
        narrow.collator()


# -- prompts that are not pooled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("gradient_cache", [False, True])
def test_training_pools_as_encode_does(pooling, gradient_cache, directory):
    encoder = encoder_of(directory, pooling=pooling, dropout=0.0)
    encoder.pool_prompt = False
    encoder.slicing.token_budget = 40  # several slices
    method = SimCSE(encoder)
    batch = method.collator()(TRIPLETS)
    assert isinstance(batch["prompt_lengths"], np.ndarray)
    if gradient_cache:
        method.gradient_cache_enable()
    found = method.embed(batch).detach()
    sides = [("text", "query"), ("positive", "document"), ("negative", "document")]
    expected = [encoder.encode([row[name] for row in TRIPLETS], prompt_name=prompt) for name, prompt in sides]
    assert found.numpy() == pytest.approx(np.concatenate(expected), abs=1e-5)
    encoder.pool_prompt = True
    assert "prompt_lengths" not in method.collator()(TRIPLETS)
    assert abs(method.embed(method.collator()(TRIPLETS)).detach() - found).max() > 1e-3


def test_masked_copies_skip_the_prompt_too(directory):
    encoder = encoder_of(directory)
    encoder.pool_prompt = False
    batch = SimCSE(encoder, mlm_weight=0.1).collator()(ROWS)
    assert (batch["mlm_prompt_lengths"] == batch["prompt_lengths"]).all()
    loss = loss_of(SimCSE, encoder, ROWS, mlm_weight=0.1)
    assert loss == pytest.approx(loss)


def test_a_prompt_around_the_text_that_is_not_pooled_is_refused(directory):
    encoder = encoder_of(directory, prompts={"plain": AROUND})
    encoder.pool_prompt = False
    with pytest.raises(InputError, match=r"stands around the text.*Give a prompt without \{text\}"):
        SimCSE(encoder).collator()(ROWS)


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_flag_names_columns_as_the_file_or_the_rows_do(directory, tmp_path):
    given = ["question=query: ", "positive=a=b", "negative="]
    found = train_prompts(given, "question, answer,other", ["text", "positive", "negative"])
    assert found == {"text": "query: ", "positive": "a=b", "negative": ""}
    assert train_prompts(["answer=a "], "question, answer", ["text", "positive"]) == {"positive": "a "}
    (tmp_path / "rows.tsv").write_text("q\ta\n" + "".join(f"{a}\t{b}\n" for a, b in itertools.pairwise(TEXTS)))
    flags = {"data": str(tmp_path / "rows.tsv"), "column": "q,a", "model": str(directory), "dev": "none",
             "output": str(tmp_path / "run"), "train_prompts": ["q=sells: "]}  # fmt: skip
    trainer, _ = make_trainer(resolve({"method": "simcse", **flags})[0])
    words = trainer.method.encoder.tokenizer.tokenize("sells: " + TEXTS[0])
    ids = trainer.data_collator([trainer.train_dataset[0]])["input_ids"]
    assert trainer.method.encoder.tokenizer.convert_ids_to_tokens(ids[0])[1 : 1 + len(words)] == words
    assert trainer.method.train_prompts == {"text": "sells: "}


@pytest.mark.parametrize("wrong", ["sells: ", "answer=a: "])
def test_a_wrong_entry_is_refused_before_anything_is_written(wrong, directory, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    flags = ["--data", str(tmp_path / "texts.txt"), "--model", str(directory), "--output", str(tmp_path / "run")]
    assert main(["train", "simcse", *flags, "--dev", "none", "--train-prompts", wrong]) == 2
    assert "--train-prompts takes COLUMN=PROMPT" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_trainer_trains_on_prompted_texts(directory, tmp_path):
    """Through the trainer, the kept tokens and the callback, to the weights of texts with the prompt in front."""

    def weights(name, encoder, texts):
        args = ContrastiveTrainingArguments(
            str(tmp_path / name), per_device_train_batch_size=8, max_steps=2, bf16=False, save_strategy="no"
        )
        torch.manual_seed(0)
        method = SimCSE(encoder)
        ContrastiveTrainer(method, args, Dataset.from_dict({"text": texts})).train()
        return method.encoder.state_dict()

    found = weights("prompted", encoder_of(directory), TEXTS[:24])
    expected = weights("written", bare(directory), [PREFIX + text for text in TEXTS[:24]])
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_prompts_of_an_encoder():
    assert Prompts().of_column("text", paired=True) == ""
    known = Prompts("d: ", None, "doc: ", {"negative": "n: "})
    assert [known.of_column(name, paired=True) for name in ("text", "positive", "negative")] == ["d: ", "doc: ", "n: "]
    assert [known.of_column(name, paired=False) for name in ("text", "text_1", "text_2")] == ["d: "] * 3
    chosen = Prompts("d: ", chosen={"text": "t: "})  # its views have it too
    assert [chosen.of_column(name, paired=False) for name in ("text", "text_1", "text_2")] == ["t: "] * 3
