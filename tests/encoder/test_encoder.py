"""The Encoder: every architecture through encode, train and export; poolings against loops; what users pass in."""

import json
import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from support.tiny import ARCHITECTURES, TEXTS, tiny_encoder_directory, tiny_tokenizer
from transformers import AutoModel, BertConfig, BertModel, PhobertTokenizer
from transformers.models.bert.modeling_bert import BertPooler

from textcl.device import has_bf16
from textcl.encoder import Encoder, encoding
from textcl.encoder.batching import few_lengths, length_ordered_slices, words_asked_for
from textcl.encoder.pooling import POOLINGS
from textcl.errors import InputError
from textcl.methods import SimCSE

SENTENCES = [TEXTS[0], "a small boat", TEXTS[7] + " and " + TEXTS[11], "!", TEXTS[0], "today " * 100]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_encodes_trains_and_exports(architecture, tmp_path):
    directory = tiny_encoder_directory(tmp_path / "model", architecture)
    for pooling in ("mean", "first_last", "pooler"):
        encoder = Encoder.from_pretrained(directory, pooling=pooling)
        method = SimCSE(encoder, mlm_weight=0.1).train()
        method.hooked = True
        optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
        before = encoder.encode(SENTENCES)
        method(**method.collator()([{"text": text} for text in TEXTS[:6]]))["loss"].backward()
        without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
        assert not without, "a parameter outside the graph would hang DDP"
        optimizer.step()
        after = encoder.encode(SENTENCES)
        assert np.abs(after - before).max() > 1e-3
        encoder.save(tmp_path / "export")
        again = Encoder.from_pretrained(tmp_path / "export")
        assert again.pooling == pooling
        assert again.max_length == encoder.max_length == 64
        assert np.abs(again.encode(SENTENCES) - after).max() <= 1e-6
        theirs = SentenceTransformer(str(tmp_path / "export"), device="cpu").encode(SENTENCES)
        assert np.abs(theirs - after).max() <= 1e-6
        plain = AutoModel.from_pretrained(tmp_path / "export").state_dict()
        ours = encoder.backbone.state_dict()
        assert all(torch.equal(plain[name], ours[name]) for name in ours)


def test_poolings_equal_loops_over_tokens(bert):
    texts = ["a small boat [MASK]", "the [MASK] old sailor mends [MASK] today"]
    for pooling in POOLINGS:
        encoder = Encoder.from_pretrained(bert, pooling=pooling)
        got = encoder.encode(texts)
        for text, vector in zip(texts, got, strict=True):
            tokens = encoder.tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                layers = encoder.backbone(**tokens, output_hidden_states=True).hidden_states
            ids, rows = tokens["input_ids"][0].tolist(), range(tokens["input_ids"].shape[1])
            expected = {
                "cls": layers[-1][0, 0],
                "pooler": torch.tanh(encoder.head.dense(layers[-1][0, 0])) if encoder.head else None,
                "mean": sum(layers[-1][0, i] for i in rows) / len(rows),
                "max": torch.stack([layers[-1][0, i] for i in rows]).max(dim=0).values,
                "last_token": layers[-1][0, len(rows) - 1],
                "first_last": sum(layers[1][0, i] + layers[-1][0, i] for i in rows) / (2 * len(rows)),
                "last2": sum(layers[-2][0, i] + layers[-1][0, i] for i in rows) / (2 * len(rows)),
                "mask_token": sum(layers[-1][0, i] for i in rows if ids[i] == 4) / ids.count(4),
            }[pooling]
            assert np.allclose(vector, expected.detach().numpy(), atol=1e-6), pooling


@pytest.mark.parametrize("pooling", ["cls", "max", "last_token", "last2"])
def test_the_other_poolings_export_to_sentence_transformers(bert, pooling, tmp_path):
    encoder = Encoder.from_pretrained(bert, pooling=pooling)
    encoder.save(tmp_path / "export")
    theirs = SentenceTransformer(str(tmp_path / "export"), device="cpu").encode(SENTENCES)
    assert np.abs(theirs - encoder.encode(SENTENCES)).max() <= 1e-6
    assert Encoder.from_pretrained(tmp_path / "export").pooling == pooling


def test_an_export_with_any_kind_of_tokenizer_is_replaced_and_loads(bert, tmp_path):
    """PhoBERT and BERTweet have their vocabulary in a file of another name, and training replaces its best encoder."""
    words = ["the@@", "th@@", "a", "small", "boat", "e", "t@@", "h@@", "b@@", "o@@", "s@@"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word} 1\n" for word in words))
    (tmp_path / "bpe.codes").write_text("t h 9\n")
    tokenizer = PhobertTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"), model_max_length=64)
    encoder = Encoder(AutoModel.from_pretrained(bert), tokenizer)
    for _ in range(2):
        encoder.save(tmp_path / "export")
        assert (tmp_path / "export" / "bpe.codes").is_file()
        texts = ["a small boat", "the boat"]
        assert np.abs(Encoder.from_pretrained(tmp_path / "export").encode(texts) - encoder.encode(texts)).max() <= 1e-6


def test_an_export_names_only_what_every_sentence_transformers_knows(bert, tmp_path):
    Encoder.from_pretrained(bert, pooling="pooler").save(tmp_path / "export")
    modules = json.loads((tmp_path / "export" / "modules.json").read_text())
    assert [m["type"] for m in modules] == [
        f"sentence_transformers.models.{n}" for n in ("Transformer", "Pooling", "Dense")
    ]
    names = {path.name for path in (tmp_path / "export").rglob("*") if path.is_file()}
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pkl", ".py"))}
    assert "pooling: `pooler`" in (tmp_path / "export" / "README.md").read_text()


def test_a_trained_head_is_the_pooler_of_the_exported_backbone(tmp_path):
    """As published SimCSE checkpoints have it: `pooler_output` of plain transformers is the sentence vector."""
    config = BertConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, pad_token_id=1
    )
    BertModel(config).save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    encoder = Encoder.from_pretrained(tmp_path / "m", pooling="pooler")
    torch.nn.init.normal_(encoder.head.dense.weight)
    encoder.save(tmp_path / "export")
    backbone = AutoModel.from_pretrained(tmp_path / "export").eval()
    with torch.no_grad():
        pooled = backbone(**encoder.tokenizer("a small boat", return_tensors="pt")).pooler_output[0]
    assert np.allclose(pooled.numpy(), encoder.encode("a small boat"), atol=1e-6)


def test_the_head_of_the_pooler_is_on_the_device_of_its_backbone(bert):
    loaded = Encoder.from_pretrained(bert)
    for trained in (True, False):
        backbone = loaded.backbone.to("meta")  # a device without values
        backbone.pooler = BertPooler(backbone.config).to("meta") if trained else None
        encoder = Encoder(backbone, loaded.tokenizer, "pooler")
        assert {each.device.type for each in encoder.parameters()} == {"meta"}


def test_mask_token_pooling_loads_with_textcl_alone_and_says_so(bert, tmp_path, caplog):
    prompts = {"means": "{text} means [MASK] ."}
    encoder = Encoder.from_pretrained(bert, pooling="mask_token", prompts=prompts, default_prompt_name="means")
    with caplog.at_level(logging.WARNING, "textcl"):
        encoder.save(tmp_path / "export")
    assert "only textcl.Encoder loads" in caplog.text
    again = Encoder.from_pretrained(tmp_path / "export")
    assert again.pooling == "mask_token"
    assert np.array_equal(again.encode(SENTENCES), encoder.encode(SENTENCES))
    with pytest.raises((ValueError, AttributeError), match=r"trust_remote_code|no attribute 'load'"):  # the latter: 5.x
        SentenceTransformer(str(tmp_path / "export"))


def test_a_template_keeps_its_end_however_long_the_text(bert):
    encoder = Encoder.from_pretrained(bert, pooling="mask_token")
    vector = encoder.encode("today " * 5000, prompt="{text} means [MASK] .")
    assert np.isfinite(vector).all()
    with pytest.raises(InputError, match="mask token in every text"):
        encoder.encode("no such token here")


def test_prompts_are_those_of_sentence_transformers(bert, tmp_path):
    encoder = Encoder.from_pretrained(bert, prompts={"query": "the garden wall "}, default_prompt_name="query")
    encoder.save(tmp_path / "export")
    theirs = SentenceTransformer(str(tmp_path / "export"), device="cpu")
    assert np.abs(theirs.encode(SENTENCES) - encoder.encode(SENTENCES)).max() <= 1e-6
    bare = theirs.encode(SENTENCES, prompt="")
    assert np.abs(bare - encoder.encode(SENTENCES, prompt="")).max() <= 1e-6
    assert np.abs(bare - encoder.encode(SENTENCES)).max() > 1e-3
    with pytest.raises(InputError, match="no prompt 'question'"):
        encoder.encode(SENTENCES, prompt_name="question")


def test_directories_saved_by_sentence_transformers_load(bert, tmp_path):
    transformer = Transformer(str(bert), max_seq_length=20)
    model = SentenceTransformer(
        modules=[
            transformer,
            Pooling(32, pooling_mode="cls"),
            Dense(32, 32, activation_function=torch.nn.Tanh()),
            Normalize(),
        ],
        device="cpu",
        prompts={"query": "the old "},
    )
    model.save(str(tmp_path / "theirs"))
    encoder = Encoder.from_pretrained(tmp_path / "theirs")
    assert (encoder.pooling, encoder.max_length, encoder.normalize) == ("pooler", 20, True)
    assert encoder.prompts["query"] == "the old "
    assert np.abs(encoder.encode(SENTENCES) - model.encode(SENTENCES)).max() <= 1e-6


def test_embed_restores_the_order_whatever_the_slices(bert):
    encoder = Encoder.from_pretrained(bert)
    tokens = encoder.tokenize(SENTENCES)
    encoder.slicing.token_budget = 10**6
    together = encoder.embed(tokens)
    encoder.slicing.token_budget = 16
    assert torch.allclose(encoder.embed(tokens), together, atol=1e-6)
    assert np.allclose(encoder.encode(SENTENCES), together.detach().numpy(), atol=1e-6)


def test_padding_is_the_tokenizers_token(bert):
    encoder = Encoder.from_pretrained(bert)
    encoder.tokenizer.pad_token = encoder.tokenizer.sep_token
    tokens = encoder.tokenize(SENTENCES)
    padding = tokens["input_ids"][tokens["attention_mask"] == 0]
    assert len(padding)
    assert (padding == encoder.tokenizer.sep_token_id).all()


def test_slices_cover_every_row_once_within_the_budget():
    lengths = torch.randint(1, 40, (200,), generator=torch.Generator().manual_seed(0))
    slices = length_ordered_slices(lengths, token_budget=90)
    assert sorted(torch.cat(slices).tolist()) == list(range(200))
    assert all(len(rows) * int(lengths[rows].max()) <= 90 for rows in slices)
    assert len(slices) < 60


def test_even_slices_hold_little_padding():
    """A slice ends before a shorter row, but only once it has enough tokens; each row is in one slice."""
    lengths = torch.randint(1, 129, (400,), generator=torch.Generator().manual_seed(0))
    slices = length_ordered_slices(lengths, token_budget=4096, even_from=512)
    assert sorted(torch.cat(slices).tolist()) == list(range(400))
    sizes = [len(rows) * int(lengths[rows].max()) for rows in slices]
    assert all(size <= 4096 for size in sizes)
    assert all(size >= 512 for size in sizes[:-1]), "not smaller than asked for"
    for rows, size in zip(slices, sizes, strict=True):
        longest = int(lengths[rows].max())
        assert size < 512 + longest or 16 * int(lengths[rows].min()) >= 15 * longest
    plain = length_ordered_slices(lengths, token_budget=4096)
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in plain)
    assert sum(sizes) - lengths.sum() < 0.5 * (padded - lengths.sum())
    equal = length_ordered_slices(torch.full((400,), 16), token_budget=4096, even_from=512)
    assert [len(rows) for rows in equal] == [256, 144], "rows of one length fill the budget"


def test_encode_of_few_texts_pads_little(bert, monkeypatch):
    encoder = Encoder.from_pretrained(bert, max_length=64, device="cpu")
    texts = [" ".join(["boat"] * count) for count in range(1, 55)]

    def computed() -> tuple[int, np.ndarray]:
        sizes = []
        hook = encoder.backbone.register_forward_pre_hook(
            lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        vectors = encoder.encode(texts)
        hook.remove()
        return sum(sizes), vectors

    large, expected = computed()  # fewer tokens than from which slices are even
    monkeypatch.setitem(encoding.EVEN_FROM, "cpu", 128)
    small, found = computed()
    tokens = int(encoder.tokenize(texts)["attention_mask"].sum())
    assert small - tokens < 0.5 * (large - tokens)
    assert np.allclose(found, expected, atol=1e-6)


def test_lengths_are_rounded_up_to_four_between_powers_of_two():
    lengths = torch.arange(2049)
    rounded = few_lengths(lengths)
    assert (rounded >= lengths).all()
    assert (4 * rounded <= 5 * lengths).all()
    assert torch.equal(few_lengths(rounded), rounded)
    assert [len(rounded[lo : 2 * lo].unique()) for lo in (64, 128, 1024)] == [5, 5, 5], "both powers of two included"
    assert torch.equal(rounded[:9], lengths[:9])


def test_training_has_few_widths_and_the_vectors_of_encoding(bert):
    encoder = Encoder.from_pretrained(bert, max_length=64)
    encoder.slicing.token_budget = 64
    widths = []
    encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    texts = [" ".join(["boat"] * count) for count in range(1, 55)]
    tokens = encoder.tokenize(texts)
    with torch.no_grad():
        expected = encoder.embed(tokens, dropout=False)
    assert len(set(widths)) > 25
    widths.clear()
    found = encoder.embed(tokens, dropout=False)
    longest = int(tokens["attention_mask"].sum(dim=1).max())
    assert set(widths) <= {*few_lengths(torch.arange(longest)).tolist(), longest}
    assert len(set(widths)) < 18
    assert torch.allclose(found, expected, atol=1e-6)


def test_equal_texts_are_encoded_once_and_put_back(bert):
    encoder = Encoder.from_pretrained(bert)
    rows = []
    encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    vectors = encoder.encode(["a small boat", TEXTS[1], "a small boat"] * 50)
    assert sum(rows) == 2
    assert np.array_equal(vectors[0], vectors[149])
    assert not np.array_equal(vectors[0], vectors[1])


def test_encode_gives_what_a_sentence_transformers_user_expects(bert):
    encoder = Encoder.from_pretrained(bert)
    assert encoder.encode("a small boat").shape == (32,)
    assert encoder.encode([]).shape == (0, 32)
    assert {len(tensor) for tensor in encoder.tokenize([]).values()} == {0}
    assert isinstance(encoder.encode(SENTENCES, convert_to="tensor"), torch.Tensor)
    assert len(encoder.encode(SENTENCES, convert_to="list")) == len(SENTENCES)
    assert encoder.encode("a small boat", convert_to="list").shape == (32,)
    for wrong in ("np", "torch", None):
        with pytest.raises(InputError, match=f"must be 'numpy', 'tensor' or 'list', not {wrong!r}"):
            encoder.encode(SENTENCES, convert_to=wrong)
    assert np.allclose(np.linalg.norm(encoder.encode(SENTENCES, normalize=True), axis=1), 1, atol=1e-6)
    assert np.allclose(encoder.encode(SENTENCES, batch_size=1), encoder.encode(SENTENCES), atol=1e-6)
    half = encoder.encode(SENTENCES, bf16=True)
    assert half.dtype == np.float32
    difference = np.abs(half - encoder.encode(SENTENCES)).max()
    assert difference < 0.05
    assert (difference > 0) == has_bf16()
    encoder.train()
    assert np.array_equal(encoder.encode(SENTENCES), encoder.encode(SENTENCES))
    assert encoder.training


def test_a_text_of_100000_characters_is_cut_not_refused(bert):
    assert np.isfinite(Encoder.from_pretrained(bert).encode("the old sailor " * 7000)).all()


def test_dropout_is_set_on_every_architecture(tmp_path):
    for architecture in ("bert", "distilbert", "modernbert"):
        directory = tiny_encoder_directory(tmp_path / architecture, architecture, dropout=0.0)
        assert not Encoder.from_pretrained(directory).has_dropout
        encoder = Encoder.from_pretrained(directory, dropout=0.3).train()
        tokens = encoder.tokenize(TEXTS[:3])
        assert encoder.has_dropout
        assert not torch.equal(encoder.embed(tokens), encoder.embed(tokens))


def test_refusals_say_what_to_do(bert, tmp_path):
    with pytest.raises(InputError, match="Did you mean 'mean'"):
        Encoder.from_pretrained(bert, pooling="meen")
    for size in (0, -3):
        with pytest.raises(InputError, match=f"batch_size must be a whole number of at least 1, not {size}"):
            Encoder.from_pretrained(bert).encode(["a"], batch_size=size)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a model"):
        Encoder.from_pretrained(tmp_path / "empty")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        Encoder.from_pretrained(tmp_path / "file.txt")
    damaged = tiny_encoder_directory(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        Encoder.from_pretrained(damaged)
    other = tiny_encoder_directory(tmp_path / "other", "roberta")
    (other / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(InputError, match="lacks"):
        Encoder.from_pretrained(other)


@pytest.mark.parametrize("kind", ["Dense", "WeightedLayerPooling"])
def test_pickled_weights_of_a_module_are_refused(bert, tmp_path, kind):
    encoder = Encoder.from_pretrained(bert, pooling="pooler" if kind == "Dense" else "first_last")
    encoder.save(tmp_path / "export")
    weights = next(tmp_path.glob(f"export/*_{kind}")) / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(InputError, match="pickle"):
        Encoder.from_pretrained(tmp_path / "export")


@pytest.mark.parametrize(
    ("name", "wrong", "right"), [("unsup-simcse-bert", "pooler", "cls"), ("sup-simcse-bert", "mean", "pooler")]
)
def test_a_pooling_known_to_be_wrong_is_warned_of(name, wrong, right, tmp_path, caplog):
    directory = tiny_encoder_directory(tmp_path / name)
    Encoder.from_pretrained(directory, pooling=right)
    assert "published SimCSE" not in caplog.text
    Encoder.from_pretrained(directory, pooling=wrong)
    assert f"pooling={right!r} gives the published scores" in caplog.text.replace('"', "'")


def refuse_slices(encoder, tokens, kind):
    """Makes the backbone run out of memory, with the error that torch raises, for slices over so many tokens.

    Returns what has become of each slice: the size of it, and whether it was refused.
    """
    seen = []

    def hook(module, args, kwargs):
        size = kwargs["input_ids"].numel()
        seen.append((size, size > tokens))
        if size > tokens and kind == "processor":
            torch.empty(2**47)  # a real error of the allocator
        if size > tokens:
            raise {"accelerator": torch.OutOfMemoryError, "other": RuntimeError}[kind]("CUDA out of memory.")

    encoder.backbone.register_forward_pre_hook(hook, with_kwargs=True)
    return seen


@pytest.mark.parametrize("kind", ["accelerator", "processor"])
def test_out_of_memory_in_encode_halves_the_token_budget_and_says_so(bert, kind, caplog):
    encoder, texts = Encoder.from_pretrained(bert), TEXTS[:100] + SENTENCES
    expected = encoder.encode(texts)
    seen = refuse_slices(encoder, 150, kind)
    assert np.allclose(encoder.encode(texts), expected, atol=1e-6)
    refused = [size for size, was_refused in seen if was_refused]
    assert len(refused) >= 3
    assert all(after <= before / 2 for before, after in pairwise(refused))
    assert caplog.text.count("Out of memory with") == len(refused)
    assert f"Out of memory with {refused[0]} tokens at a time; continuing with {refused[0] // 2}." in caplog.text
    seen.clear()
    assert np.allclose(encoder.encode(texts), expected, atol=1e-6)
    assert not any(was_refused for _, was_refused in seen), "what was learnt is forgotten"


def test_out_of_memory_in_a_slice_of_the_gradient_cache_changes_no_gradient(bert, caplog):
    encoder = Encoder.from_pretrained(bert, dropout=0.0)
    tokens = encoder.tokenize(TEXTS[:40] + SENTENCES)
    weights = torch.randn(len(tokens["input_ids"]), 32, generator=torch.Generator().manual_seed(0))

    def gradients():
        encoder.zero_grad()
        embeddings = encoder.embed(tokens)
        (embeddings * weights).sum().backward()
        return embeddings.detach(), torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])

    expected = gradients()
    seen = refuse_slices(encoder, 150, "accelerator")
    with pytest.raises(torch.OutOfMemoryError):
        gradients()  # without the cache all graphs are kept, whatever the slices
    assert len(seen) == 1
    encoder.slicing.gradient_cache = True
    for got, wanted in zip(gradients(), expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-4)
    assert "Out of memory" in caplog.text
    assert encoder.slicing.token_budget <= 150


def test_memory_that_runs_out_for_masked_words_gives_no_row_twice(bert, monkeypatch):
    encoder = Encoder.from_pretrained(bert, dropout=0.0)
    tokens = encoder.tokenize(TEXTS[:40] + SENTENCES)
    chosen = (torch.arange(tokens["input_ids"].shape[1]) % 3 == 0) & tokens["attention_mask"].bool()
    labels = tokens["input_ids"].masked_fill(~chosen, -100)
    expected = encoder.embed_masked(tokens, labels)
    full = iter([False, True])

    def words(*given):
        if next(full, False):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return words_asked_for(*given)

    monkeypatch.setattr("textcl.encoder.forward.words_asked_for", words)
    encoder.slicing.gradient_cache, encoder.slicing.token_budget = True, 300
    embeddings, hidden, _ = encoder.embed_masked(tokens, labels)
    assert encoder.slicing.token_budget < 300
    assert torch.allclose(embeddings, expected[0], atol=1e-6)
    assert len(hidden) == len(expected[1])


def test_what_no_smaller_slice_can_help_is_raised(bert, caplog):
    encoder = Encoder.from_pretrained(bert)
    refuse_slices(encoder, 1, "accelerator")
    with pytest.raises(torch.OutOfMemoryError):
        encoder.encode(SENTENCES)
    encoder = Encoder.from_pretrained(bert)
    caplog.clear()
    seen = refuse_slices(encoder, 1, "other")
    with pytest.raises(RuntimeError, match="CUDA out"):
        encoder.encode(SENTENCES)
    assert len(seen) == 1
    assert not caplog.text


def test_gradients_of_many_slices_add_up_in_float32_under_bf16():
    encoder = Encoder.from_pretrained("bundled", max_length=32, dropout=0.0).train()
    encoder.backbone.encoder.layer = encoder.backbone.encoder.layer[:2]
    encoder.slicing.gradient_cache = True
    tokens = encoder.tokenize(TEXTS[::3][:64])

    def gradient(bf16: bool, budget: int) -> torch.Tensor:
        encoder.zero_grad()
        encoder.slicing.token_budget = budget
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            encoder.embed(tokens).sum().backward()
        layers = encoder.backbone.encoder.parameters()
        return torch.cat([weight.grad.flatten() for weight in layers])

    exact = gradient(bf16=False, budget=10**6)
    one, many = ((gradient(bf16=True, budget=budget) - exact).norm() / exact.norm() for budget in (10**6, 16))
    assert 0 < many < 1.2 * one


def test_without_bf16_on_this_processor_encoding_goes_on_and_says_so(bert, monkeypatch, caplog):
    monkeypatch.setattr("textcl.device.has_bf16", lambda: False)
    encoder = Encoder.from_pretrained(bert)
    assert np.array_equal(encoder.encode(SENTENCES, bf16=True), encoder.encode(SENTENCES))
    assert "no bfloat16, and emulating it is many times slower; float32 is used" in caplog.text
