"""Tiny random models of every supported architecture, an encoder without weights, and a few texts of our own."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

ARCHITECTURES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "albert",
    "mpnet",
    "electra",
    "deberta-v2",
    "modernbert",
)
SUBJECTS = "the old sailor|a young teacher|my neighbour|the tall farmer|her quiet brother|the chess player".split("|")  # noqa: SIM905
VERBS = "mends|paints|carries|forgets|admires|hides|sells|repairs".split("|")  # noqa: SIM905
OBJECTS = "a small boat|the red door|two heavy boxes|an empty bottle|the garden wall|a broken clock".split("|")  # noqa: SIM905
TEXTS = [
    f"{s} {v} {o} {'today' * (i % 3 == 0)}".strip() for s in SUBJECTS for i, v in enumerate(VERBS) for o in OBJECTS
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of 120 tokens for `TEXTS`; [PAD] is token 1, as the RoBERTa family has it.

    It is not trained: the trainer breaks ties at random, so that each process would have another vocabulary.
    """
    counts = Counter(word for text in TEXTS for word in text.lower().split())
    words = sorted(counts, key=lambda word: (-counts[word], word))
    letters = sorted(set("".join(words)))
    common, rare = words[:14], [word for word in words[14:] if len(word) > 3]  # the rare ones are split into pieces
    tokens = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *common]
    tokens += [f"##{word[-2:]}" for word in rare] + [word[:2] for word in rare] + [word[:3] for word in rare] + rare
    vocabulary = {token: number for number, token in enumerate(list(dict.fromkeys(tokens))[:120])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        pad_token="[PAD]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def tiny_encoder_directory(path: str | Path, architecture: str = "bert", dropout: float = 0.1, seed: int = 0) -> Path:
    """Writes a random model of `architecture` with its masked-word head, and the tokenizer, to `path`."""
    tokenizer = tiny_tokenizer()
    options = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 66,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "cls_token_id": 0,
        "sep_token_id": 2,
    }
    by_architecture = {
        "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4},
        "albert": {"embedding_size": 16},
        "electra": {"embedding_size": 16},
        "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
        "modernbert": {"local_attention": 16, "global_attn_every_n_layers": 3, "layer_types": None},
    }
    config = AutoConfig.for_model(architecture, **{**options, **by_architecture.get(architecture, {})})
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "mlp_dropout"):
        if hasattr(config, name):
            setattr(config, name, dropout)
    torch.manual_seed(seed)
    model = AutoModelForMaskedLM.from_config(config)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return Path(path)


class HashedWords:
    """A bag of words hashed to 64 places: an encoder for real text that needs no weights."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                rows[row, int.from_bytes(word.encode(), "big") % 61] += 1
        return rows
