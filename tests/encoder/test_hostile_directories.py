"""Directories that are damaged, or that name something outside of themselves: one sentence, and nothing is loaded."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import TEXTS, tiny_encoder_directory
from torch import nn
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel

from textcl.cli.main import main
from textcl.encoder import Encoder, load
from textcl.errors import InputError
from textcl.methods import SimCSE


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("hostile") / "bert")


@pytest.fixture(scope="module")
def exported(original: Path) -> Path:
    encoder = Encoder.from_pretrained(original, pooling="pooler")
    return encoder.save(original.parent / "export")


@pytest.fixture
def plain(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "plain"))


@pytest.fixture
def export(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "export"))


def put(file: str, **keys: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps({**content, **keys}))

    return edit


def write(file: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def remove(*files: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / file).unlink() for file in files] and None


def cut(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-100]) and None


DEEP = '{"a":' * 200_000 + "1" + "}" * 200_000

DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "config is empty": (write("config.json", "{}"), "No model can be loaded"),
    "config is cut": (cut("config.json"), "config.json cannot be read"),
    "config is a list": (write("config.json", "[]"), "must hold a JSON object"),
    "config is latin-1": (write("config.json", b'{"model_type": "b\xe9rt"}'), "config.json cannot be read"),
    "config is deep": (write("config.json", DEEP), "config.json cannot be read"),
    "unknown model type": (put("config.json", model_type="my_model"), "my_model"),
    "code of the directory": (
        put("config.json", model_type="my_model", auto_map={"AutoConfig": "configuration_my.MyConfig"}),
        "No model can be loaded",
    ),
    "other sizes": (put("config.json", intermediate_size=128), "another shape than config.json says"),
    "words as a size": (put("config.json", hidden_size="many"), "No model can be loaded"),
    "no heads": (put("config.json", num_attention_heads=0), "No model can be loaded"),
    "an activation that is none": (put("config.json", hidden_act="none"), "No model can be loaded"),
    "too few layers": (put("config.json", num_hidden_layers=1), "weights that its backbone does not use"),
    "no layers": (put("config.json", num_hidden_layers=0), "weights that its backbone does not use"),
    "too many layers": (put("config.json", num_hidden_layers=4), "lacks 16 of the backbone's weights"),
    "a million layers": (put("config.json", num_hidden_layers=10**6), "says 1000000 layers"),
    "a huge width": (put("config.json", hidden_size=10**7), "shape|No model can be loaded"),
    "quantised": (put("config.json", quantization_config={"quant_method": "fp8"}), "quantization_config"),
    "named weights": (put("config.json", transformers_weights="other.safetensors"), "transformers_weights"),
    "weights are cut": (cut("model.safetensors"), "model.safetensors cannot be read"),
    "no weights": (remove("model.safetensors"), "holds no model.safetensors"),
    "no config": (remove("config.json"), "holds neither config.json"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "holds no tokenizer"),
    "no vocabulary": (remove("tokenizer.json"), "holds no tokenizer"),
    "tokenizer is cut": (cut("tokenizer.json"), "holds no tokenizer"),
    "tokenizer is of another kind": (write("tokenizer.json", '{"model": 3}'), "holds no tokenizer"),
    "no number as length": (put("tokenizer_config.json", model_max_length="long"), "model_max_length must be a finite"),
    "tokenizer is deep": (write("tokenizer.json", DEEP), "holds no tokenizer"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_one_sentence(plain: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage, reason = DAMAGES[name]
    for kind in ("configuration_my", "tokenization_my", "modeling_my"):
        (plain / f"{kind}.py").write_text("raise SystemExit('the code of the directory ran')\n")
    damage(plain)
    with pytest.raises(InputError, match=reason) as caught:
        Encoder.from_pretrained(plain)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600
    assert capsys.readouterr().out == ""  # no question whether to run code


EXPORT_DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "modules are cut": (cut("modules.json"), "modules.json cannot be read"),
    "modules are deep": (write("modules.json", DEEP), "modules.json cannot be read"),
    "a folder is missing": (
        write("modules.json", '[{"path": "somerepo", "type": "sentence_transformers.models.Transformer"}]'),
        "'somerepo', which does not exist",
    ),
    "a folder outside": (
        write("modules.json", '[{"path": "../outside", "type": "sentence_transformers.models.Transformer"}]'),
        "outside of the directory",
    ),
    "an absolute folder": (
        write("modules.json", '[{"path": "/etc", "type": "sentence_transformers.models.Transformer"}]'),
        "outside of the directory",
    ),
    "a folder far outside": (
        write(
            "modules.json", '[{"path": "../../../../../../../../etc", "type": "sentence_transformers.models.Dense"}]'
        ),
        "outside of the directory",
    ),
    "a folder with NUL": (
        write("modules.json", '[{"path": "a\\u0000b", "type": "sentence_transformers.models.Transformer"}]'),
        "names the folder",
    ),
    "a very long name": (
        write("modules.json", json.dumps([{"path": "x" * 5000, "type": "sentence_transformers.models.Transformer"}])),
        "names the folder",
    ),
    "pooling is cut": (cut("1_Pooling/config.json"), "config.json cannot be read"),
    "pooling is not named": (remove("1_Pooling/config.json"), "1_Pooling holds no config.json"),
    "dense is cut": (cut("2_Dense/model.safetensors"), "model.safetensors cannot be read"),
    "dense lacks a size": (write("2_Dense/config.json", "{}"), "lacks the key in_features"),
    "prompts are numbers": (put("config_sentence_transformers.json", prompts=[1]), "prompts must be an object"),
    "default prompt is a list": (put("config_sentence_transformers.json", default_prompt_name=["q"]), "a string"),
    "default prompt is missing": (
        put("config_sentence_transformers.json", prompts={"query": "q: "}, default_prompt_name="document"),
        "default_prompt_name: document, which is not among its prompts",
    ),
    "requirements are a list": (put("config_sentence_transformers.json", requirements=["x"]), "an object of versions"),
    "requirements are no version": (
        put("config_sentence_transformers.json", requirements={"transformers": "new"}),
        "not a version",
    ),
}


@pytest.mark.parametrize("name", EXPORT_DAMAGES)
def test_a_damaged_export_is_one_sentence(export: Path, original: Path, name: str) -> None:
    shutil.copytree(original, export.parent / "outside")
    damage, reason = EXPORT_DAMAGES[name]
    damage(export)
    with pytest.raises(InputError, match=reason):
        Encoder.from_pretrained(export)


def test_the_command_line_says_it_with_exit_code_2(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plain / "tokenizer.json").unlink()
    (plain.parent / "t.txt").write_text("a text\nanother text\n")
    assert main(["encode", str(plain), str(plain.parent / "t.txt"), "--output", str(plain.parent / "v")]) == 2
    assert "holds no tokenizer" in capsys.readouterr().err
    assert not (plain.parent / "v").exists()


def test_a_dense_layer_without_activation_is_one_with_tanh(export: Path) -> None:
    before = Encoder.from_pretrained(export).encode(TEXTS[:3])
    config = json.loads((export / "2_Dense" / "config.json").read_text())
    del config["activation_function"]
    (export / "2_Dense" / "config.json").write_text(json.dumps(config))
    assert np.array_equal(Encoder.from_pretrained(export).encode(TEXTS[:3]), before)


@pytest.mark.parametrize("name", ["x.bin", "../outside.safetensors", "/tmp/x.safetensors", "a/x.safetensors", 3, None])
@pytest.mark.parametrize("of_head", [False, True])
def test_an_index_names_safetensors_files_of_its_own_folder(plain: Path, name: Any, of_head: bool) -> None:
    weights = load_file(plain / "model.safetensors")
    encoder = Encoder.from_pretrained(plain)
    (plain / "model.safetensors").unlink()
    torch.save(weights, plain / "x.bin")
    save_file(weights, plain.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (plain / "model.safetensors.index.json").write_text(json.dumps(index))
    # the masked-word head is read from the same directory
    refused = (lambda: SimCSE(encoder, mlm_weight=0.1)) if of_head else (lambda: Encoder.from_pretrained(plain))
    with pytest.raises(InputError, match=r"only from \.safetensors files"):
        refused()


def test_shards_are_loaded(plain: Path) -> None:
    before = Encoder.from_pretrained(plain).encode(TEXTS[:3])
    weights = load_file(plain / "model.safetensors")
    (plain / "model.safetensors").unlink()
    files = {name: f"model-0000{i % 2}-of-00002.safetensors" for i, name in enumerate(weights)}
    for file in set(files.values()):
        save_file({name: value for name, value in weights.items() if files[name] == file}, plain / file)
    (plain / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert np.array_equal(Encoder.from_pretrained(plain).encode(TEXTS[:3]), before)
    (plain / file).unlink()
    with pytest.raises(InputError, match="No such file"):
        Encoder.from_pretrained(plain)


def test_links_to_the_files_of_a_cache_are_followed(export: Path, tmp_path: Path) -> None:
    before = Encoder.from_pretrained(export).encode(TEXTS[:3])
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    for number, file in enumerate(sorted(path for path in export.rglob("*") if path.is_file())):
        place = snapshot / file.relative_to(export)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        place.symlink_to(os.path.relpath(blobs / str(number), place.parent))
    assert np.array_equal(Encoder.from_pretrained(snapshot).encode(TEXTS[:3]), before)
    shutil.copytree(export / "1_Pooling", tmp_path / "elsewhere")
    shutil.rmtree(snapshot / "1_Pooling")
    (snapshot / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="outside of the directory"):
        Encoder.from_pretrained(snapshot)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("value", ["evil/repo", "flash_attention_2", "kernels-community/flash-attn", {"": "evil/repo"}])
def test_no_attention_is_loaded_that_a_file_names(plain: Path, key: str, value: Any) -> None:
    before = Encoder.from_pretrained(plain).encode(TEXTS[:3])
    put("config.json", **{key: value})(plain)
    assert np.array_equal(Encoder.from_pretrained(plain).encode(TEXTS[:3]), before)


def test_known_architectures_load_whatever_code_comes_with_them(
    plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Encoder.from_pretrained(plain).encode(TEXTS[:3])
    code = {"AutoConfig": "modeling_my.MyConfig", "AutoModel": "modeling_my.MyModel"}
    (plain / "modeling_my.py").write_text("raise SystemExit('the code of the directory ran')\n")
    put("config.json", auto_map=code)(plain)
    put("tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["modeling_my.Mine", None]})(plain)
    assert np.array_equal(Encoder.from_pretrained(plain).encode(TEXTS[:3]), before)
    SimCSE(Encoder.from_pretrained(plain), mlm_weight=0.1)
    assert capsys.readouterr().out == ""


def test_buffers_of_old_checkpoints_and_heads_are_no_weights_of_the_backbone(plain: Path) -> None:
    before = Encoder.from_pretrained(plain).encode(TEXTS[:3])
    weights = load_file(plain / "model.safetensors")
    assert any(name.startswith("cls.predictions") for name in weights)  # a masked-word head
    weights["bert.embeddings.position_ids"] = torch.arange(66)[None]
    weights["bert.pooler.dense.extra"] = torch.ones(1)
    weights["classifier.weight"] = torch.ones(2, 32)
    save_file(weights, plain / "model.safetensors")
    assert np.array_equal(Encoder.from_pretrained(plain).encode(TEXTS[:3]), before)
    weights["bert.encoder.layer.2.attention.self.extra"] = torch.ones(1)
    save_file(weights, plain / "model.safetensors")
    with pytest.raises(InputError, match="does not use"):
        Encoder.from_pretrained(plain)


@pytest.mark.parametrize("place", ["load_config", "_check_fit", "prepare_backbone", "read_settings"])
def test_a_bug_of_ours_keeps_its_traceback(plain: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def bug(*given: Any, **options: Any) -> None:
        raise ValueError("planted")

    where = "textcl.encoder.encoder" if place == "prepare_backbone" else load.__name__
    monkeypatch.setattr(f"{where}.{place}", bug)
    with pytest.raises(ValueError, match="planted"):
        Encoder.from_pretrained(plain)
    (plain.parent / "t.txt").write_text("a text\nanother text\n")
    with pytest.raises(ValueError, match="planted"):
        main(["encode", str(plain), str(plain.parent / "t.txt"), "--output", str(plain.parent / "v")])


def adapted(folder: Path, rank: int = 2, **keys: Any) -> dict[str, torch.Tensor]:
    """Writes a LoRA adapter of two linear layers and the word embeddings; returns the sums that it stands for."""
    draw = torch.Generator().manual_seed(5)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 6,
        "target_modules": ["query", "value"],
        "bias": "none",
        "base_model_name_or_path": "someone/somewhere",
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps({**config, **keys}))
    scale = 6 / math.sqrt(rank) if keys.get("use_rslora") else 6 / rank
    tensors, sums = {}, {}
    for name in ("encoder.layer.0.attention.self.query", "encoder.layer.2.attention.self.value"):
        a, b = torch.randn(rank, 32, generator=draw) / 9, torch.randn(32, rank, generator=draw) / 9
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
        sums[f"{name}.weight"] = torch.einsum("or,ri->oi", b.double(), a.double()) * scale
    rows = len(AutoModel.from_pretrained(folder.parent / "base").get_input_embeddings().weight)
    a, b = torch.randn(rank, rows, generator=draw) / 9, torch.randn(32, rank, generator=draw) / 9
    tensors["base_model.model.embeddings.word_embeddings.lora_embedding_A"] = a
    tensors["base_model.model.embeddings.word_embeddings.lora_embedding_B"] = b
    sums["embeddings.word_embeddings.weight"] = torch.einsum("dr,rv->vd", b.double(), a.double()) * scale
    save_file(tensors, folder / "adapter_model.safetensors")
    return sums


@pytest.fixture
def lora(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "base")
    return Path(shutil.copytree(original, tmp_path / "lora"))


@pytest.mark.parametrize("stable", [False, True])
def test_an_adapter_is_added_to_the_weights(lora: Path, stable: bool) -> None:
    sums = adapted(lora, use_rslora=stable)
    base = AutoModel.from_pretrained(lora.parent / "base", dtype=torch.float32).state_dict()
    encoder = Encoder.from_pretrained(lora, device="cpu")
    state = encoder.backbone.state_dict()
    for name, value in state.items():
        change = sums.get(name, torch.zeros(()))
        assert (value.double() - base[name].double() - change).abs().max() < 1e-6 * max(1, value.abs().max())
    half = Encoder.from_pretrained(lora, device="cpu", dtype=torch.bfloat16).backbone.state_dict()
    for name, change in sums.items():  # added in float32, and rounded once
        expected = (base[name].bfloat16().float() + change.float()).bfloat16()
        assert (half[name] == expected).float().mean() > 0.99  # the rest is on the border between two roundings
    again = Encoder.from_pretrained(encoder.save(lora.parent / "merged"), device="cpu")
    assert not (lora.parent / "merged" / "adapter_config.json").exists()
    assert np.abs(again.encode(TEXTS[:3]) - encoder.encode(TEXTS[:3])).max() < 1e-6


def test_an_adapter_of_a_transposed_layer(tmp_path: Path, original: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=120, n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(original / file, tmp_path)
    before = Encoder.from_pretrained(tmp_path).backbone.h[0].attn.c_attn.weight.clone()
    a, b = torch.randn(2, 32), torch.randn(96, 2)
    name = "base_model.model.transformer.h.0.attn.c_attn"
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, tmp_path / "adapter_model.safetensors")
    put("adapter_config.json", peft_type="LORA", r=2, lora_alpha=4, fan_in_fan_out=True)(tmp_path)
    after = Encoder.from_pretrained(tmp_path).backbone.h[0].attn.c_attn.weight
    assert (after - before - 2 * torch.einsum("or,ri->io", b, a)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"alpha_pattern": {"query": 3}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa"),
        ({"lora_alpha": "much"}, "lora_alpha"),
        ({"something_new": 1}, "something_new"),
    ],
)
def test_adapters_of_other_kinds_are_refused_by_name(lora: Path, keys: dict[str, Any], reason: str) -> None:
    adapted(lora, **keys)
    with pytest.raises(InputError, match=reason):
        Encoder.from_pretrained(lora)


def test_an_adapter_that_does_not_fit_is_refused(lora: Path) -> None:
    adapted(lora)
    tensors = load_file(lora / "adapter_model.safetensors")
    for changed, reason in [
        ({name.replace("layer.0", "layer.7"): value for name, value in tensors.items()}, "not a layer of the backbone"),
        ({name: value for name, value in tensors.items() if "lora_B" not in name}, "not a layer of the backbone"),
        ({name: value[..., :3].contiguous() for name, value in tensors.items()}, "changes .* by"),
        ({**tensors, "base_model.model.x.weight": torch.ones(1)}, "not part of a LoRA adapter"),
    ]:
        save_file(changed, lora / "adapter_model.safetensors")
        with pytest.raises(InputError, match=reason):
            Encoder.from_pretrained(lora)
    (lora / "config.json").unlink()
    with pytest.raises(InputError, match="weights of its base model beside it"):
        Encoder.from_pretrained(lora)


def test_the_fingerprint_sees_what_decides_vectors(export: Path) -> None:
    def fingerprint() -> str:
        return Encoder.from_pretrained(export).fingerprint()

    seen = {fingerprint()}
    assert fingerprint() in seen
    tokenizer = json.loads((export / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [tokenizer["normalizer"], {"type": "NFC"}]}
    modules = json.loads((export / "modules.json").read_text())
    normalize = {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}
    (export / "3_Normalize").mkdir()
    for edit in (
        put("config.json", layer_norm_eps=1e-3),
        write("tokenizer.json", json.dumps(tokenizer)),
        put("sentence_bert_config.json", max_seq_length=9),
        put("sentence_bert_config.json", do_lower_case=True),
        put("sentence_bert_config.json", tokenizer_args={"truncation_side": "left"}),
        put("1_Pooling/config.json", include_prompt=False),
        put("2_Dense/config.json", activation_function="torch.nn.modules.activation.GELU"),
        put("2_Dense/config.json", activation_function="torch.nn.modules.activation.ReLU"),
        put("config_sentence_transformers.json", truncate_dim=9),
        put("config_sentence_transformers.json", prompts={"query": "find "}),
        write("modules.json", json.dumps([*modules, normalize])),
    ):
        edit(export)
        assert fingerprint() not in seen
        seen.add(fingerprint())
    assert isinstance(Encoder.from_pretrained(export).layers[0].activation, nn.ReLU)
