"""What a sentence-transformers directory says is honoured, or refused by the name of its key."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Pooling,
    WeightedLayerPooling,
    WordWeights,
)
from support.tiny import TEXTS, tiny_encoder_directory, tiny_tokenizer
from tokenizers import normalizers
from torch import nn

from textcl.encoder import Encoder
from textcl.encoder.export import requirements
from textcl.encoder.pooling import DenseTanh
from textcl.errors import InputError
from textcl.methods import SimCSE

ROWS = [TEXTS[0], TEXTS[41].upper(), "today", " ".join(TEXTS[:6])]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("directories") / "bert")


@pytest.fixture(scope="module")
def cased(tmp_path_factory) -> Path:
    folder = tiny_encoder_directory(tmp_path_factory.mktemp("directories") / "cased")
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.save_pretrained(folder)
    return folder


def transformer(folder: Path, **options: Any) -> Transformer:
    torch.manual_seed(1)
    return Transformer(str(folder), **options)


def layers_out(folder: Path) -> Transformer:
    return transformer(folder, config_kwargs={"output_hidden_states": True})


def put(file: str, **keys: Any) -> Callable[[Path], None]:
    """Adds keys to a JSON file of a directory."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps({**content, **keys}))

    return edit


def same_in_both(folder: Path, tmp_path: Path) -> Encoder:
    """The encoder of a directory, after its vectors and those of its export were compared with the other library's."""
    theirs = SentenceTransformer(str(folder), device="cpu").encode(ROWS)
    encoder = Encoder.from_pretrained(folder, device="cpu")
    ours = encoder.encode(ROWS)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-6
    again = encoder.save(tmp_path / "again")
    assert np.abs(SentenceTransformer(str(again), device="cpu").encode(ROWS) - theirs).max() < 1e-6
    loaded = Encoder.from_pretrained(again, device="cpu")
    assert np.abs(loaded.encode(ROWS) - theirs).max() < 1e-6
    assert encoder.dimension == theirs.shape[1]
    return encoder


def saved(tmp_path: Path, modules: list[nn.Module], **options: Any) -> Path:
    SentenceTransformer(modules=modules, device="cpu", **options).save_pretrained(str(tmp_path / "theirs"))
    return tmp_path / "theirs"


MODULES: dict[str, Callable[[], list[nn.Module]]] = {
    "dense behind normalize": lambda: [
        Pooling(32, "mean"),
        Normalize(),
        Dense(32, 12, activation_function=nn.Identity()),
    ],
    "dense on tokens": lambda: [Dense(32, 24, module_input_name="token_embeddings"), Pooling(24, "max")],
    "normalize on tokens": lambda: [Normalize(module_input_name="token_embeddings"), Pooling(32, "mean")],
    "several dense": lambda: [
        Pooling(32, "cls"),
        Dense(32, 16, activation_function=nn.GELU()),
        Dense(16, 8, bias=False),
        Dense(8, 8, activation_function=nn.ReLU()),
        Normalize(),
    ],
    "tanh without bias": lambda: [Pooling(32, "mean"), Dense(32, 32, bias=False)],
    "two heads": lambda: [Pooling(32, "cls"), Dense(32, 32), Dense(32, 32)],
    "residual": lambda: [Pooling(32, "mean"), Dense(32, 32, use_residual=True), Dense(32, 8, use_residual=True)],
    "layer norm and dropout": lambda: [Pooling(32, "mean"), Dropout(0.5), LayerNorm(32), Normalize()],
    "normalize twice": lambda: [Pooling(32, "mean"), Normalize(), Normalize()],
    "head, projection, normalize": lambda: [
        Pooling(32, "cls"),
        Dense(32, 32),
        Dense(32, 8, activation_function=nn.Identity()),
        Normalize(),
    ],
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_applied_in_their_order(bert: Path, tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    modules = MODULES[name]()
    encoder = same_in_both(saved(tmp_path, [transformer(bert), *modules]), tmp_path)
    if name == "head, projection, normalize":  # these stay where methods look for them
        assert encoder.pooling == "pooler"
        assert encoder.normalize
        assert encoder.projection is not None
        assert len(encoder.layers) == 0
        assert {"head.dense.weight", "projection.weight"} <= set(encoder.state_dict())
    other = encoder.with_(pooling="last_token")
    assert other.dimension == 32
    assert other.encode(ROWS).shape == (4, 32)


@pytest.mark.parametrize("name", ["head, projection, normalize", "layer norm and dropout", "residual", "square tanh"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_layers_compute_in_any_precision(bert: Path, tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    known = {**MODULES, "square tanh": lambda: [Pooling(32, "mean"), Dense(32, 32)]}
    folder = saved(tmp_path, [transformer(bert), *known[name]()])
    whole = Encoder.from_pretrained(folder, device="cpu")
    expected = whole.encode(ROWS)
    for encoder in (Encoder.from_pretrained(folder, device="cpu", dtype=dtype), whole.to(dtype)):
        vectors = encoder.encode(ROWS)
        assert vectors.dtype == (np.float64 if dtype == torch.float64 else np.float32)
        cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.999
        encoder.embed(encoder.tokenize(ROWS)).sum().backward()


def test_behind_whatever_layers_a_gradient_reaches_the_backbone(bert: Path, tmp_path: Path) -> None:
    modules = [Dense(32, 24, module_input_name="token_embeddings"), Pooling(24, "mean"), Normalize(), Dense(24, 8)]
    encoder = Encoder.from_pretrained(saved(tmp_path, [transformer(bert), *modules]), device="cpu")
    encoder.embed(encoder.tokenize(ROWS)).square().sum().backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    assert {"layers.1.linear.weight", "token_layers.0.linear.weight"} <= set(gradients)
    assert gradients["backbone.embeddings.word_embeddings.weight"].abs().sum() > 0


def test_a_head_that_is_kept_comes_directly_behind_the_pooling(bert: Path, tmp_path: Path) -> None:
    modules = [Dense(32, 24, module_input_name="token_embeddings"), Pooling(24, "mean"), Normalize(), Dense(24, 8)]
    encoder = Encoder.from_pretrained(saved(tmp_path, [transformer(bert), *modules]), device="cpu")
    method = SimCSE(encoder, head="keep")
    assert method.encoder.encode(ROWS).shape == (4, 8)
    method.encoder.save(tmp_path / "kept")
    same_in_both(tmp_path / "kept", tmp_path)


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("start", [0, 2])
def test_layers_have_any_weights(bert: Path, tmp_path: Path, mode: str, start: int) -> None:
    weights = nn.Parameter(torch.tensor([0.5, -0.2, 1.5, 0.25][start:]))
    layers = WeightedLayerPooling(32, num_hidden_layers=3, layer_start=start, layer_weights=weights)
    folder = saved(tmp_path, [layers_out(bert), layers, Pooling(32, mode)])
    encoder = same_in_both(folder, tmp_path)
    assert encoder.layer_weights is not None
    assert encoder.layer_weights.tolist() == pytest.approx([0.0] * start + weights.tolist())
    assert "weighted" in encoder.describe()["layers"]


def test_layers_that_the_backbone_does_not_return_are_not_weighed(bert: Path, tmp_path: Path, caplog) -> None:
    layers = WeightedLayerPooling(32, num_hidden_layers=3, layer_start=1)
    folder = saved(tmp_path, [transformer(bert), layers, Pooling(32, "mean")])
    theirs = SentenceTransformer(str(folder), device="cpu").encode(ROWS)
    assert np.abs(Encoder.from_pretrained(folder, device="cpu").encode(ROWS) - theirs).max() < 1e-6
    assert "output_hidden_states" in caplog.text


def test_word_weights_are_those_of_the_configuration(bert: Path, tmp_path: Path) -> None:
    vocabulary = tiny_tokenizer().convert_ids_to_tokens(range(len(tiny_tokenizer())))
    words = WordWeights(vocabulary, {"the": 0.1, "boat": 3.0}, unknown_word_weight=0.7)
    same_in_both(saved(tmp_path, [transformer(bert), words, Pooling(32, "mean")]), tmp_path)
    short = WordWeights(vocabulary[:50], {"the": 0.1})
    folder = saved(tmp_path, [transformer(bert), short, Pooling(32, "mean")])
    with pytest.raises(InputError, match="weights of 50 tokens"):
        Encoder.from_pretrained(folder)


def test_a_name_that_the_hub_does_not_have_is_refused_with_what_is_missing() -> None:
    with pytest.raises(InputError, match="write the owner of a hub name too"):
        Encoder.from_pretrained("MiniLM on the hub")  # no name of the hub, so nothing is asked


def test_the_empty_folder_of_normalize_may_be_missing(bert: Path, tmp_path: Path) -> None:
    """git and model hubs keep no empty folders."""
    folder = saved(tmp_path, [transformer(bert), Pooling(32, "mean"), Normalize()])
    shutil.rmtree(folder / "2_Normalize")
    assert same_in_both(folder, tmp_path).normalize


@pytest.mark.parametrize("more", [[], [Normalize()], [Normalize(), Dense(32, 16)]])
def test_the_first_dimensions_are_kept(bert: Path, tmp_path: Path, more: list[nn.Module]) -> None:
    folder = saved(tmp_path, [transformer(bert), Pooling(32, "mean"), *more], truncate_dim=12)
    encoder = same_in_both(folder, tmp_path)
    assert encoder.dimension == 12
    theirs = SentenceTransformer(str(folder), device="cpu").encode(ROWS, normalize_embeddings=True)
    assert np.abs(encoder.encode(ROWS, normalize=True) - theirs).max() < 1e-6
    unit = encoder.with_(normalize=True)  # truncated first, which the other library has no setting for
    unit.save(tmp_path / "unit")
    assert np.abs(SentenceTransformer(str(tmp_path / "unit"), device="cpu").encode(ROWS) - theirs).max() < 1e-6


def test_texts_are_lower_cased(cased: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path, [transformer(cased), Pooling(32, "mean")])
    plain = Encoder.from_pretrained(folder, device="cpu")
    put("sentence_bert_config.json", do_lower_case=True)(folder)
    encoder = same_in_both(folder, tmp_path)
    assert np.abs(encoder.encode(ROWS) - plain.encode(ROWS)).max() > 1e-3
    assert encoder.fingerprint(settings=False) != plain.fingerprint(settings=False)


@pytest.mark.parametrize("unlimited", [10**30, 1e30])
def test_a_tokenizer_without_a_limit_loads(unlimited: float, bert: Path, tmp_path: Path) -> None:
    """Transformers writes 10^30, which is more than whole numbers of 64 bits hold."""
    folder = saved(tmp_path, [transformer(bert), Pooling(32, "mean")])
    positions = json.loads((bert / "config.json").read_text())["max_position_embeddings"]
    put("tokenizer_config.json", model_max_length=unlimited)(folder)
    put("sentence_bert_config.json", max_seq_length=int(unlimited))(folder)
    assert Encoder.from_pretrained(folder).max_length == positions


@pytest.mark.parametrize("key", ["tokenizer_args", "processor_kwargs"])
def test_texts_are_cut_on_the_side_that_the_directory_names(bert: Path, tmp_path: Path, key: str) -> None:
    folder = saved(tmp_path, [transformer(bert), Pooling(32, "mean")])
    put("sentence_bert_config.json", max_seq_length=6)(folder)
    right = Encoder.from_pretrained(folder, device="cpu")
    put("sentence_bert_config.json", **{key: {"truncation_side": "left"}})(folder)
    encoder = same_in_both(folder, tmp_path)
    assert encoder.max_length == 6
    assert np.abs(encoder.encode(ROWS) - right.encode(ROWS)).max() > 1e-3
    assert encoder.fingerprint(settings=False) != right.fingerprint(settings=False)


def test_the_length_is_that_of_the_tokenizer(tmp_path: Path) -> None:
    folder = tiny_encoder_directory(tmp_path / "long")
    long = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    name = "bert.embeddings.position_embeddings.weight"
    weights[name] = torch.randn(2048, 32, generator=torch.Generator().manual_seed(0))
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**long, "max_position_embeddings": 2048}))
    put("tokenizer_config.json", model_max_length=2048)(folder)
    assert Encoder.from_pretrained(folder).max_length == 512  # a plain directory, as documented
    theirs = saved(tmp_path, [transformer(folder), Pooling(32, "mean")])
    assert "max_seq_length" not in json.loads((theirs / "sentence_bert_config.json").read_text())
    encoder = Encoder.from_pretrained(theirs, device="cpu")
    assert encoder.max_length == 2048
    text = [" ".join(TEXTS)[:9000]]
    assert encoder.tokenize(text)["input_ids"].shape[1] > 1000
    assert np.abs(encoder.encode(text) - SentenceTransformer(str(theirs), device="cpu").encode(text)).max() < 1e-6
    put("sentence_bert_config.json", max_seq_length=100)(theirs)
    put("tokenizer_config.json", model_max_length=50)(theirs)  # the directory's own length goes first
    assert Encoder.from_pretrained(theirs).max_length == 100
    put("sentence_bert_config.json", processor_kwargs={"model_max_length": 30})(theirs)
    assert Encoder.from_pretrained(theirs).max_length == 30


REFUSED: dict[str, Callable[[Path], None]] = {
    "pooling_mode": put("1_Pooling/config.json", pooling_mode=["mean", "max"]),
    "weightedmean": put("1_Pooling/config.json", pooling_mode="weightedmean"),
    "new_pooling_key": put("1_Pooling/config.json", new_pooling_key=3),
    "include_prompt": put("1_Pooling/config.json", include_prompt="no"),
    "max_seq_lengti": put("sentence_bert_config.json", max_seq_lengti=128),
    "max_seq_length": put("sentence_bert_config.json", max_seq_length=-3),
    "transformer_task": put("sentence_bert_config.json", transformer_task="fill-mask"),
    "modality_config": put("sentence_bert_config.json", modality_config={"message": {"method": "forward"}}),
    "module_output_name": put("sentence_bert_config.json", module_output_name="sentence_embedding"),
    "processing_kwargs": put("sentence_bert_config.json", processing_kwargs={"text": {"max_length": 3}}),
    "query_length": put("sentence_bert_config.json", query_length=8),
    "dtype": put("sentence_bert_config.json", model_kwargs={"dtype": "bfloat16"}),
    "num_hidden_layers": put("sentence_bert_config.json", config_args={"num_hidden_layers": 1}),
    "add_eos_token": put("sentence_bert_config.json", tokenizer_args={"add_eos_token": True}),
    "truncation_side": put("sentence_bert_config.json", tokenizer_args={"truncation_side": "middle"}),
    "truncate_dim": put("config_sentence_transformers.json", truncate_dim=0),
    "model_type": put("config_sentence_transformers.json", model_type="SparseEncoder"),
    "new_key": put("config_sentence_transformers.json", new_key="x"),
    "activation_function": put("2_Dense/config.json", activation_function="torch.nn.modules.activation.Softmax"),
    "my.Tanh": put("2_Dense/config.json", activation_function="my.Tanh"),
    "module_input_name": put("2_Dense/config.json", module_input_name="x", module_output_name="x"),
    "dense_key": put("2_Dense/config.json", dense_key=1),
    "fit its config.json": put("2_Dense/config.json", out_features=5),
    "padding_side": put("sentence_bert_config.json", processor_kwargs={"padding_side": "left"}),
    "the place of the text": put("config_sentence_transformers.json", prompts={"query": "{text}: "}),
    "prompts must be": put("config_sentence_transformers.json", prompts={"query": 3}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_its_name(bert: Path, tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path, [transformer(bert), Pooling(32, "mean"), Dense(32, 8)])
    Encoder.from_pretrained(folder)
    REFUSED[name](folder)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        (lambda: [Pooling(32, "mean"), WeightedLayerPooling(32, 3, 0)], "between Transformer and Pooling"),
        (lambda: [Pooling(32, "mean"), Pooling(32, "cls")], "one Pooling"),
        (lambda: [Pooling(32, "mean"), Dense(16, 8)], "vectors of 16 dimensions, which is given 32"),
        (lambda: [Pooling(32, "mean"), Dense(32, 8, module_input_name="token_embeddings")], "module_input_name"),
    ],
)
def test_chains_that_are_not_understood_are_refused(bert: Path, tmp_path: Path, modules, reason: str) -> None:
    folder = saved(tmp_path, [layers_out(bert), *modules()])
    with pytest.raises(InputError, match=reason):
        Encoder.from_pretrained(folder)


def test_modules_json_is_understood_or_refused(bert: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path, [transformer(bert), Pooling(32, "mean")])
    modules = json.loads((folder / "modules.json").read_text())
    for changed, reason in [
        ([{**module, "kwargs": ["task"]} for module in modules], "kwargs"),
        ([{**module, "type": "mine.Transformer"} for module in modules], "mine.Transformer"),
        ([{"type": module["type"]} for module in modules], "lacks the key path"),
        ([{**module, "path": 3} for module in modules], "path: 3"),
        (modules[:1], "a Transformer and a Pooling"),
        (modules[1:], "one Pooling, behind the Transformer"),
        ({"0": modules[0]}, "must hold a list"),
    ]:
        (folder / "modules.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=reason):
            Encoder.from_pretrained(folder)


def test_layers_survive_an_export_that_textcl_alone_loads(bert: Path, tmp_path: Path) -> None:
    weights = nn.Parameter(torch.tensor([0.5, 0.2, 1.5, 0.25]))
    layers = WeightedLayerPooling(32, num_hidden_layers=3, layer_start=0, layer_weights=weights)
    token = Dense(32, 24, module_input_name="token_embeddings")
    modules = [layers_out(bert), layers, token, Pooling(24, "mean"), Normalize(), Dense(24, 16)]
    encoder = Encoder.from_pretrained(
        saved(tmp_path, modules, truncate_dim=12), device="cpu", prompts={"q": "{text} today"}, default_prompt_name="q"
    )
    again = Encoder.from_pretrained(encoder.save(tmp_path / "own"), device="cpu")
    assert np.abs(again.encode(ROWS) - encoder.encode(ROWS)).max() < 1e-6
    assert again.describe() == {**encoder.describe(), "model": again.name}


def test_an_export_names_the_versions_that_load_it(bert: Path, tmp_path: Path) -> None:
    folder = Encoder.from_pretrained(bert).save(tmp_path / "export")
    file = folder / "config_sentence_transformers.json"
    assert json.loads(file.read_text())["requirements"] == {"transformers": ">=5.4", "sentence-transformers": ">=5.4"}
    # before release 6, [CLS] is taken from a prompt, Normalize on tokens is passed over, and a residual is refused
    settings = replace(Encoder.from_pretrained(bert, pooling="cls").settings(), pool_prompt=False)
    assert requirements(settings)["sentence-transformers"] == ">=6.0"
    for name in ("residual", "normalize on tokens"):
        theirs = saved(tmp_path / name, [transformer(bert), *MODULES[name]()])
        newer = Encoder.from_pretrained(theirs).save(tmp_path / name / "export") / file.name
        assert json.loads(newer.read_text())["requirements"]["sentence-transformers"] == ">=6.0"
    for name in ("transformers", "sentence-transformers"):
        put(file.name, requirements={name: ">=99"})(folder)
        with pytest.raises(InputError, match=f"requires {name}>=99"):
            Encoder.from_pretrained(folder)
        with pytest.raises(ImportError):
            SentenceTransformer(str(folder), device="cpu")
    put(file.name, requirements={"no-such-package": {"specifier": ">=1", "reason": "x"}})(folder)
    with pytest.raises(InputError, match="none is installed"):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize("file", ["head", "token_weights", "projection"])
def test_damaged_files_that_textcl_alone_reads(bert: Path, tmp_path: Path, file: str) -> None:
    encoder = Encoder.from_pretrained(bert, pooling="first_last", prompts={"q": "{text} today"})
    encoder.weigh_tokens(TEXTS)
    encoder.head, encoder.projection = DenseTanh(32), nn.Linear(32, 8)
    folder = encoder.save(tmp_path / "own")
    assert Encoder.from_pretrained(folder).dimension == 8
    save_file({"x": torch.ones(3)}, folder / f"{file}.safetensors")
    with pytest.raises(InputError, match="is damaged"):
        Encoder.from_pretrained(folder)
    (folder / "textcl.json").write_text('{"pooling": 3, "normalize": false}')
    with pytest.raises(InputError, match="pooling: 3"):
        Encoder.from_pretrained(folder)
