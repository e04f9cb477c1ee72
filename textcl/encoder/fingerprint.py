"""The fingerprint of an encoder: one hash of everything that decides its vectors."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder

# Texts on which tokenizers differ, and configuration keys that only say where a model is from.
_PROBES = ["The ÉCOLE's", "naïve  co-op", "$1,234.50", "ΑΒΓ", "東京", "עברית;", "ﬁne", "👩‍🚀\t", "<s>[MASK]"]
_INCIDENTAL = ("_name_or_path", "architectures", "transformers_version", "output_hidden_states")


def fingerprint(encoder: "Encoder", settings: bool) -> str:
    """SHA-256 of weights, configuration and tokenisation and, with `settings`, of the encoder's settings."""
    config = {k: v for k, v in encoder.backbone.config.to_dict().items() if k not in _INCIDENTAL}
    chosen = None
    if settings:
        chosen = {**encoder.describe(), "model": None, "prompts": encoder.prompts, "pool_prompt": encoder.pool_prompt}
    words = _tokenisation(encoder.tokenizer)
    digest = hashlib.sha256(json.dumps([config, words, chosen], sort_keys=True, default=str).encode())
    for name, weight in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _tokenisation(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    return [sorted(tokenizer.get_vocab().items()), tokenizer(_PROBES)["input_ids"], tokenizer.truncation_side]
