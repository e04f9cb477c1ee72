"""Functions that prepare a backbone and find out what it can do."""

import copy
import inspect
import logging
from numbers import Integral
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from textcl.device import keep_few_products, keep_freed_memory
from textcl.dropout import draw_fast, dropout_rates, evaluation_copy, is_dropout_rate
from textcl.encoder.attention import attend_fast
from textcl.encoder.linear import multiply_fast
from textcl.encoder.pooling import DenseTanh
from textcl.errors import InputError
from textcl.tokenising import check_room

logger = logging.getLogger("textcl")


def backbone_class(config: PretrainedConfig) -> Any:
    """The class that loads the backbone of a configuration; of an encoder–decoder model such as T5, its encoder alone.

    transformers has a class of the encoder alone for T5, mT5, UMT5, LongT5, Switch and T5Gemma. Other encoder–decoder
    models are loaded whole, and `textcl.encoder.probe` refuses those that need a text for the decoder too.
    """
    if type(config) in transformers.MODEL_MAPPING:
        whole = transformers.MODEL_MAPPING[type(config)]
        name = getattr(whole, "__name__", "").removesuffix("Model") + "EncoderModel"
        if (encoder := getattr(transformers, name, None)) is not None:
            config.is_encoder_decoder = False
            return encoder
    return transformers.AutoModel


def set_dropout(config: PretrainedConfig, rate: float) -> None:
    """Sets every dropout rate of a configuration, under whatever name the architecture keeps it.

    Raises:
        InputError: If the rate is not at least 0 and below 1.
    """
    if not 0 <= rate < 1:
        raise InputError(f"A dropout rate must be at least 0 and below 1, not {rate}.")
    for name, value in config.to_dict().items():
        if is_dropout_rate(name, value):
            setattr(config, name, float(rate))


def check_dropout(backbone: nn.Module, rate: float, name: str) -> None:
    """Raises `InputError` if setting the dropout rates of a configuration has not changed the layers."""
    if bool(found := dropout_rates(backbone)) != (rate > 0):
        has = f"has layers with dropout {max(found)}" if found else "has no dropout"
        raise InputError(
            f"The dropout of {name} ({type(backbone).__name__}) cannot be set to {rate}: the architecture {has}, "
            "whatever its configuration says. Leave --dropout out, and take other views, such as --text-view crop."
        )


def prepare_backbone(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Changes a backbone in place so that it trains fast; `Encoder.from_pretrained` calls this.

    Dropout layers, attention and, on some CPUs, linear layers are replaced by faster ones with the same statistics. The
    pooler, which textcl does not use, is frozen; otherwise DistributedDataParallel would wait for its gradient. A
    tokenizer without a padding token gets its end token as padding token. On a CPU the process keeps freed memory for
    later use, and less of oneDNN's compiled code.
    """
    keep_few_products()  # before the first product
    draw_fast(backbone)
    attend_fast(backbone)
    multiply_fast(backbone)
    keep_freed_memory()
    if (unused := getattr(backbone, "pooler", None)) is not None:
        unused.requires_grad_(False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def pooler_head(backbone: PreTrainedModel, name: str) -> DenseTanh:
    """A dense tanh layer with the weights of the backbone's own pooler, or random weights if it has none."""
    pooler = getattr(backbone, "pooler", None)
    dense = getattr(pooler, "dense", pooler)  # ALBERT's pooler is the dense layer itself
    head = DenseTanh(int(backbone.config.hidden_size))
    if isinstance(dense, nn.Linear) and dense.weight.shape == head.dense.weight.shape:
        head = head.to(dense.weight)
        head.dense.load_state_dict(dense.state_dict())
    else:
        head = head.to(backbone.device, dense.weight.dtype if isinstance(dense, nn.Linear) else backbone.dtype)
        logger.warning("%s has no trained pooler; its dense layer starts with random weights.", name or "The backbone")
    return head


def input_table(backbone: PreTrainedModel) -> nn.Embedding | None:
    """The table of word vectors; None if there is none: CANINE has hashed characters, and ViT has patches of images."""
    try:
        table = backbone.get_input_embeddings()
    except NotImplementedError:
        return None
    return table if isinstance(table, nn.Embedding) else None


def longest_input(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest number of tokens that the backbone has positions for."""
    positions = getattr(backbone.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:  # XLNet has -1: any number of tokens
        return int(tokenizer.model_max_length)
    return int(min(positions - first_position(backbone), tokenizer.model_max_length))


def fitting_length(max_length: int | None, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The length at which texts are cut: the given one or 512, at most what the backbone takes.

    Raises:
        InputError: If it is no whole number, or leaves no token for a text.
    """
    length = 512 if max_length is None else max_length
    if not isinstance(length, Integral):
        raise InputError(f"max_length must be a whole number, not {length!r}.")
    length = min(int(length), longest_input(backbone, tokenizer))  # one of numpy's could not be saved as JSON
    check_room(tokenizer, length)
    return length


def first_position(backbone: PreTrainedModel) -> int:
    """The position id of a text's first token: 0, but padding_idx + 1 in the RoBERTa family."""
    table = next((m for n, m in backbone.named_modules() if n.endswith("position_embeddings")), None)
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        return table.padding_idx + 1
    return 0


def ordinary_tokens(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int) -> list[int]:
    """The ids of `count` tokens that are not special, for probing a backbone."""
    table = cast(nn.Embedding, backbone.get_input_embeddings())
    return [i for i in range(table.num_embeddings) if i not in tokenizer.all_special_ids][-count:]


@torch.no_grad()
def order_is_in_position_ids(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the backbone takes the order of words only from position ids.

    Then moving tokens with their position ids changes nothing, and moving only the position ids changes the result.
    """
    if "position_ids" not in inspect.signature(backbone.forward).parameters:
        return False
    ids = torch.tensor([ordinary_tokens(backbone, tokenizer, 6)], device=backbone.device)
    positions = first_position(backbone) + torch.arange(ids.shape[1], device=ids.device)[None]
    order = torch.tensor([2, 5, 0, 3, 1, 4], device=ids.device)
    cases = ((ids, positions), (ids[:, order], positions[:, order]), (ids, positions[:, order]))
    model = evaluation_copy(backbone)
    plain, moved, shuffled = (
        model(input_ids=words, attention_mask=torch.ones_like(words), position_ids=places)[0] for words, places in cases
    )
    error, change = (plain[:, order] - moved).abs().max(), (plain - shuffled).abs().max()
    return bool(error < 1e-5 * plain.abs().max() and change > 10 * error)


def add_token(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Adds a special token to the tokenizer and its row, the mean of the other rows, to the word embeddings.

    Raises:
        InputError: If the vocabulary has gaps, so that the tokenizer would give the new token a number in use.
    """
    vocabulary = tokenizer.get_vocab()
    if token in vocabulary:
        return
    used = set(vocabulary.values())
    if len(used) <= max(used):  # tokenizers take the number of tokens as the next number
        trial = copy.deepcopy(tokenizer)
        trial.add_special_tokens({"additional_special_tokens": [token]})
        if trial.convert_tokens_to_ids(token) in used:
            raise InputError(
                f"The token {token} cannot be added: the vocabulary of this tokenizer has gaps, and the next number is "
                "in use. Choose views that do not delete tokens."
            )
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    new = cast(int, tokenizer.convert_tokens_to_ids(token))
    table = cast(nn.Embedding, backbone.get_input_embeddings())
    mean = table.weight.detach().mean(dim=0)
    if new >= table.num_embeddings:
        backbone.resize_token_embeddings(new + 1, mean_resizing=False)
        table = cast(nn.Embedding, backbone.get_input_embeddings())
    with torch.no_grad():
        table.weight[new] = mean


def compile_layers(backbone: PreTrainedModel) -> None:
    """Compiles each layer on its first use, for rows of any length (`torch.compile`).

    On a GPU the operations between two matrix products become one kernel, and a step of BERT-base takes a fifth less
    time. The first step takes 10 to 20 seconds longer, or less if torch finds earlier compiled code. On a CPU it saves
    no time. `Encoder.encode` is not compiled: it computes with copies of the layers.
    """
    count = backbone.config.num_hidden_layers
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            for layer in module:
                layer.compile(dynamic=True)
