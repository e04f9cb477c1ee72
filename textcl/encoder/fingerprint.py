"""The fingerprint of an encoder: one hash of everything that decides its vectors."""

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PreTrainedTokenizerBase

from textcl.encoder.layers import further_layers

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder

# Texts on which tokenizers differ, and configuration keys that only say where a model is from.
_PROBES = ["The ÉCOLE's", "naïve  co-op", "$1,234.50", "ΑΒΓ", "東京", "עברית;", "ﬁne", "👩‍🚀\t", "<s>[MASK]"]
_INCIDENTAL = ("_name_or_path", "architectures", "transformers_version", "output_hidden_states")


def fingerprint(encoder: "Encoder", settings: bool) -> str:
    """SHA-256 of weights, configuration, layers and tokenisation and, with `settings`, of the encoder's settings."""
    config = {k: v for k, v in encoder.backbone.config.to_dict().items() if k not in _INCIDENTAL}
    own = [config, _tokenisation(encoder.tokenizer), further_layers(encoder)]
    if settings:
        own += [{**encoder.describe(), "model": None}, encoder.prompts]
    digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode())
    for name, weight in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _tokenisation(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Everything that decides the tokens of a text. A fast tokenizer's own file says more than any probe."""
    whole: dict[str, Any] = {}
    if tokenizer.is_fast:
        whole = json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())
        del whole["truncation"], whole["padding"]  # the last call set them
    else:
        whole = {"vocabulary": sorted(tokenizer.get_vocab().items())}
    return [whole, tokenizer(_PROBES)["input_ids"], tokenizer.truncation_side]
