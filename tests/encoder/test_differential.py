"""Random module chains and settings, saved by sentence-transformers: the same vectors, or a refusal that says why."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
from textcl.errors import InputError

DRAWS = 300
ROWS = [TEXTS[0], TEXTS[41].upper(), "today", " ".join(TEXTS[:6]), "The Red Door ist offen"]
ACTIVATIONS = [nn.Tanh, nn.Identity, nn.ReLU, nn.GELU, nn.Sigmoid, nn.SiLU, nn.LeakyReLU, nn.Softplus]


class Draw:
    """One directory.

    Attributes:
        refusals: What a refusal may name: the keys and modules that textcl does not understand, if any.
    """

    def __init__(self, seed: int, backbones: list[Path], folder: Path) -> None:
        self.draw = random.Random(seed)
        self.refusals: list[str] = []
        torch.manual_seed(seed)
        backbone = self.draw.choice(backbones)
        layers = self.chance(0.25)
        modules: list[nn.Module] = [
            Transformer(str(backbone), **({"config_kwargs": {"output_hidden_states": True}} if layers else {}))
        ]
        if layers or self.chance(0.05):
            start = self.draw.randrange(3)
            weights = nn.Parameter(torch.rand(4 - start) + 0.1)
            modules.append(WeightedLayerPooling(32, 3, start, weights))
        words = self.chance(0.1)
        if words:
            vocabulary = tiny_tokenizer().convert_ids_to_tokens(range(len(tiny_tokenizer())))
            known = {word: self.draw.random() for word in self.draw.sample(vocabulary, 60)}
            modules.append(WordWeights(vocabulary, known, self.draw.choice([0.5, 1.0])))
        self.size = 32
        for _ in range(self.draw.choice([0, 0, 0, 0, 1, 1, 2])):
            modules.append(self.dense("token_embeddings") if self.chance(0.8) else self.normalize("token_embeddings"))
            if words:
                self.refusals.append("module_input_name")
        modules.append(self.pooling(words))
        for _ in range(self.draw.choice([0, 0, 1, 1, 2, 3, 4])):
            kinds = [self.dense, self.dense, self.dense, self.normalize, self.norm, lambda: Dropout(0.3)]
            modules.append(self.draw.choice(kinds)())
        prompts = {"query": self.draw.choice(["", "the old sailor "]), "other": "Today: "}
        default = self.draw.choice([None, None, "query", "other"])
        truncate = self.draw.choice([None, None, None, 3, 7, 40])
        SentenceTransformer(
            modules=modules, device="cpu", prompts=prompts, default_prompt_name=default, truncate_dim=truncate
        ).save_pretrained(str(folder))
        self.edit(folder)

    def chance(self, probability: float) -> bool:
        return self.draw.random() < probability

    def dense(self, place: str = "sentence_embedding") -> nn.Module:
        before, self.size = self.size, self.draw.choice([self.size, 8, 24, 48])
        options: dict[str, Any] = {"bias": self.chance(0.7), "activation_function": self.draw.choice(ACTIVATIONS)()}
        return Dense(before, self.size, module_input_name=place, use_residual=self.chance(0.2), **options)

    def normalize(self, place: str = "sentence_embedding") -> nn.Module:
        return Normalize(place)

    def norm(self) -> nn.Module:
        return LayerNorm(self.size)

    def pooling(self, words: bool) -> nn.Module:
        mode: Any = self.draw.choice(["cls", "max", "lasttoken", "mean", "mean", "mean"])
        if self.chance(0.06):
            mode = self.draw.choice(["weightedmean", "mean_sqrt_len_tokens", ["mean", "max"]])
            self.refusals.append("pooling_mode")
        include = self.chance(0.75)
        if words:
            self.refusals += [*([] if mode == "mean" else ["weighs tokens"]), *([] if include else ["include_prompt"])]
        module = Pooling(self.size, mode, include_prompt=include)
        self.size = module.get_embedding_dimension()
        return module

    def edit(self, folder: Path) -> None:
        content = json.loads((folder / "sentence_bert_config.json").read_text())
        if self.chance(0.3):
            content["max_seq_length"] = self.draw.choice([5, 9, 40])
        if self.chance(0.2):
            content["do_lower_case"] = True
        if self.chance(0.2):
            content[self.draw.choice(["tokenizer_args", "processor_kwargs"])] = {"truncation_side": "left"}
        if self.chance(0.03):
            content["processor_kwargs"] = {"padding_side": "left"}
            self.refusals.append("padding_side")
        (folder / "sentence_bert_config.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_random_directories_give_the_same_vectors_or_are_refused_by_name(tmp_path: Path, capsys) -> None:
    backbones = []
    for architecture in ("bert", "roberta", "distilbert"):
        folder = tiny_encoder_directory(tmp_path / architecture, architecture)
        tokenizer = tiny_tokenizer()
        tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.save_pretrained(folder)
        backbones.append(folder)
    loaded = 0
    for seed in range(DRAWS):
        draw = Draw(seed, backbones, tmp_path / str(seed))
        refusal = ""
        try:
            encoder = Encoder.from_pretrained(tmp_path / str(seed), device="cpu")
        except InputError as error:
            refusal = str(error)
        if refusal:
            assert any(name in refusal for name in draw.refusals), (seed, refusal, draw.refusals)
            continue
        loaded += 1
        theirs = SentenceTransformer(str(tmp_path / str(seed)), device="cpu")
        for options in ({}, {"prompt_name": "other"}):
            expected = theirs.encode(ROWS, **options)
            try:
                found = encoder.encode(ROWS, **options)
            except InputError as error:
                refusal = str(error)
            if refusal:  # the prompt fills a small max_length, so that all texts would be equal
                assert f"max_length {encoder.max_length} leaves none for a text" in refusal, seed
                assert np.ptp(expected, axis=0).max() < 1e-5, seed
                break
            assert found.shape == expected.shape, seed
            assert np.abs(found - expected).max() < 1e-6 * max(1, np.abs(expected).max()), seed

    with capsys.disabled():
        print(f"\n{loaded} of {DRAWS} loaded with equal vectors")
    assert loaded >= 0.8 * DRAWS
