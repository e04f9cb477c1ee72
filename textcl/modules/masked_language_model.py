"""The masked-word head: transform, bias, and the backbone's own word embeddings as output layer."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM, PreTrainedModel
from transformers.activations import ACT2FN

from textcl.collator.batch import Batch, masked_copies
from textcl.distributed import mean
from textcl.encoder import Encoder
from textcl.encoder.layers import in_type_of
from textcl.encoder.load import load_config, load_model
from textcl.errors import InputError
from textcl.tokenising import SAMPLES, pad, whole_ids


class MaskedLanguageModelHead(nn.Module):
    """Predicts masked words from the last layer (Devlin et al. 2019, §3.1).

    The output layer is the encoder's word embedding matrix. Each call gets it as an argument, and the head does not
    own it, so no two parameters of a method share memory, and any Trainer can save the method.

    Args:
        transform: Dense layer from the dimension of the backbone to the dimension of its word embeddings.
        norm: The layer norm behind the dense layer and its activation.
        activation: The activation between the two.
        bias: Bias of the output layer, (vocabulary,).
    """

    def __init__(
        self, transform: nn.Linear, norm: nn.LayerNorm, activation: Callable[[Tensor], Tensor], bias: Tensor
    ) -> None:
        super().__init__()
        self.transform = transform
        self.norm = norm
        self.activation = activation
        self.bias = nn.Parameter(bias.detach().clone())

    @classmethod
    def from_encoder(cls, encoder: Encoder) -> "MaskedLanguageModelHead":
        """The trained head from the checkpoint of the encoder's backbone.

        Raises:
            InputError: If the encoder does not come from a checkpoint that has a trained masked-word head, or the head
                is not built as BERT's.
        """
        if encoder.source is None:
            raise InputError("A masked-word term needs an encoder loaded from a checkpoint with its masked-word head.")
        if type(encoder.backbone.config) not in MODEL_FOR_MASKED_LM_MAPPING:  # static encoders have no config.json
            raise InputError(
                f"The architecture of {encoder.name} has no masked-word model; train without the masked-word term."
            )
        model, loading = load_model(AutoModelForMaskedLM, encoder.source, load_config(encoder.source), torch.float32)
        decoder = model.get_output_embeddings()
        own = [key for key in loading["missing_keys"] if not key.startswith(model.base_model_prefix)]
        if lost := [key for key in own if not key.endswith(("decoder.weight", "decoder.bias"))]:
            raise InputError(
                f"{encoder.name} comes without a trained masked-word head ({lost[0]} is missing); train without the "
                "masked-word term, or start from a checkpoint that has one."
            )
        of_backbone = set(model.base_model.modules())
        outside = [module for module in model.modules() if module not in of_backbone and module is not decoder]
        vocabulary = decoder.weight.shape[0]
        bias = decoder.bias if getattr(decoder, "bias", None) is not None else torch.zeros(vocabulary)
        try:
            transform = next(module for module in outside if isinstance(module, nn.Linear))
            norm = next(module for module in outside if isinstance(module, nn.LayerNorm))
            head = cls(transform, norm, ACT2FN[_activation_name(model)], bias)
            same = head._gives_the_logits_of(model, pad(encoder.tokenizer, whole_ids(encoder.tokenizer, SAMPLES)))
        except (StopIteration, LookupError, RuntimeError):  # there is no such layer, or none of that size
            same = False
        if not same:
            raise InputError(
                f"The masked-word head of {encoder.name} ({type(model).__name__}) is built in a way that textcl does "
                "not know; train without the masked-word term, or start from another checkpoint."
            )
        grown = encoder.word_embeddings.num_embeddings - vocabulary  # textcl added tokens such as [DEL]
        return cls(head.transform, head.norm, head.activation, nn.functional.pad(bias, (0, grown)))

    @torch.no_grad()
    def _gives_the_logits_of(self, model: PreTrainedModel, tokens: dict[str, Tensor]) -> bool:
        """Whether the model itself predicts words from its last layer as this head does."""
        expected = model(**tokens).logits
        found = self.logits(model.base_model(**tokens)[0], cast(Tensor, model.get_input_embeddings().weight))
        return found.shape == expected.shape and bool((found - expected).abs().max() < 1e-3 * expected.abs().max())

    def on_copies(self, encoder: Encoder, batch: Batch) -> Tensor:
        """The masked-word term on a batch's masked copies, in one more pass of the encoder.

        Args:
            encoder: The encoder that reads the copies; its word embeddings are the output layer.
            batch: A batch with `mlm_input_ids`, `mlm_attention_mask` and so on, and `mlm_labels`, each (rows, length).
        """
        hidden, words = encoder.masked_words(masked_copies(batch), batch["mlm_labels"])
        return self(hidden, words, encoder.word_embeddings.weight)

    def forward(self, hidden: Tensor, labels: Tensor, word_embeddings: Tensor) -> Tensor:
        """The mean cross-entropy over the masked words of all ranks.

        Args:
            hidden: Last layer of the backbone on the masked text at the chosen positions, (words, dim).
            labels: The words to predict at these positions, (words,).
            word_embeddings: The backbone's word embeddings, (vocabulary, embedding dim).
        """
        logits = self.logits(hidden, word_embeddings)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = nn.functional.cross_entropy(logits, labels, reduction="sum")
        return mean(total, len(labels))

    def logits(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """The logits of all words, (…, vocabulary), from vectors of the last layer, (…, dim)."""
        words = self.norm(self.activation(self.transform(in_type_of(self.transform, hidden))))
        dtype = word_embeddings.dtype
        return nn.functional.linear(words.to(dtype), word_embeddings, self.bias.to(dtype))


def _activation_name(model: PreTrainedModel) -> str:
    """The name of the head's activation. In the RoBERTa family and MPNet it is gelu, whatever the blocks use."""
    config = model.config
    names = ("classifier_activation", "hidden_act", "activation")
    if config.model_type in {"roberta", "xlm-roberta", "mpnet"}:
        return "gelu"
    return next(getattr(config, name) for name in names if isinstance(getattr(config, name, None), str))
