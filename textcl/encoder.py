"""The Encoder: a transformer backbone, a pooling and, where a method keeps one, a head. The only thing exported."""

import hashlib
import inspect
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from textcl import export
from textcl.attention import ATTENTION, attend_fast
from textcl.batching import (
    Tokens,
    apart,
    end_to_end,
    in_slices,
    in_windows,
    input_names,
    on_device,
    on_host,
    pad,
    row_lengths,
    take_rows,
    to_device,
    tokenize,
    words_asked_for,
)
from textcl.device import KeptMemory, bf16_if_there, keep_freed_memory
from textcl.dropout import draw_fast
from textcl.errors import InputError
from textcl.pooling import AVERAGES, LAYERS, POOLINGS, Apart, EndToEnd, check_pooling, smooth_inverse_frequency
from textcl.views import DELETION_TOKEN, View, deletes_tokens, parse_view
from textcl.views.model_side import applied
from textcl.views.template import PLACE, Template

logger = logging.getLogger("textcl")

BUNDLED = Path(__file__).parent / "assets" / "encoder"

# The names under which the configurations of the supported architectures keep their dropout rates.
DROPOUT_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)

# Padded tokens in one slice. Small slices pad less and stay in the processor's cache; a GPU wants large ones.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 131072}
# So much padding makes the rows of a slice lie end to end; less costs less than to lay them so.
END_TO_END = {"cuda": 8192}
BATCH_SIZE = {"cpu": 32, "cuda": 512}  # of `encode`
# Texts tokenised at a time while encoding: bounds the memory that token lists take. A GPU computes meanwhile.
WINDOW = {"cpu": 16384, "cuda": 4096}
# Texts that normalisers and pre-tokenisers treat in different ways, and what a configuration says of its origin alone.
_PROBES = ["The ÉCOLE's", "naïve  co-op", "$1,234.50", "ΑΒΓ", "東京", "עברית;", "ﬁne", "👩‍🚀\t", "<s>[MASK]"]
_INCIDENTAL = ("_name_or_path", "architectures", "transformers_version", "output_hidden_states")


class DenseTanh(nn.Module):
    """A dense layer followed by tanh, (rows, dim) to (rows, dim): the head of BERT's pooler and of SimCSE."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dimension, dimension)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        return torch.tanh(self.dense(embeddings))


class Encoder(nn.Module):
    """A sentence encoder: backbone, pooling, an optional head, and what the tokenizer needs to know.

    Args:
        backbone: Any encoder that `AutoModel` loads.
        tokenizer: Its tokenizer.
        pooling: One of cls, pooler ([CLS] through a dense tanh layer), mean, max, last_token, first_last, last2 and
            mask_token.
        max_length: Tokens after which a text is cut, special tokens included.
        head: A layer behind the pooling; pooling "pooler" makes one where none is given.
        token_weights: How much each token of the vocabulary counts, (vocabulary,), where a pooling averages over tokens
            (mean, first_last, last2), as `smooth_inverse_frequency` gives them; None: all count the same.
        projection: A linear layer behind those, which may change the dimension, as `whitening` makes one.
        normalize: Whether `encode` scales vectors to length 1 by default.
        prompts: Named prompts. A prompt is put before the text, or, if it holds `{text}`, around it.
        default_prompt_name: The prompt that `encode` takes where none is named.
        name: Where the backbone came from; results quote it.

    Raises:
        InputError: If the pooling is unknown, or does not suit the tokenizer.

    Example:
        >>> encoder = Encoder.from_pretrained("bundled")
        >>> encoder.encode(["A cat sleeps.", "A kitten naps."]).shape
        (2, 256)
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str = "mean",
        max_length: int | None = None,
        *,
        token_weights: Tensor | None = None,
        head: DenseTanh | None = None,
        projection: nn.Linear | None = None,
        normalize: bool = False,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        check_pooling(pooling)
        if pooling == "mask_token" and tokenizer.mask_token is None:
            raise InputError(f"Pooling mask_token needs a tokenizer with a mask token, and that of {name} has none.")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.backbone = backbone
        draw_fast(backbone)
        attend_fast(backbone)
        keep_freed_memory()
        self._kept = KeptMemory()
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.max_length = min(max_length or 512, _longest_input(backbone, tokenizer))
        self.normalize = normalize
        self.prompts = dict(prompts or {})
        self.default_prompt_name = default_prompt_name
        self.name = name
        self.token_budget: int | None = None  # None: by the device, see TOKEN_BUDGET; lowered where memory ran out
        self.gradient_cache = False  # whether `embed` keeps no activations and computes each slice again in backward
        self.source: Path | None = None  # the directory of the backbone, for the masked-word head that may lie there
        self.token_weights: Tensor | None
        self.register_buffer("token_weights", token_weights)
        self.head = head
        self.projection = projection
        pooler = _pooler_dense(backbone)
        if pooling == "pooler" and head is None:
            self.head = DenseTanh(int(backbone.config.hidden_size)).to(
                pooler.weight.dtype if pooler is not None else backbone.dtype
            )
            if pooler is not None and pooler.weight.shape == self.head.dense.weight.shape:
                self.head.dense.load_state_dict(pooler.state_dict())
            else:
                logger.warning("%s has no trained pooler; its dense layer starts at random.", name or "The backbone")
        if (unused := getattr(backbone, "pooler", None)) is not None:
            unused.requires_grad_(False)  # never in the graph here, so that DDP must not wait for its gradient

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "bundled",
        *,
        pooling: str | None = None,
        max_length: int | None = None,
        dropout: float | None = None,
        dtype: torch.dtype = torch.float32,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        device: str | torch.device | None = None,
    ) -> Self:
        """Loads an encoder from a hub name, a transformers directory or a sentence-transformers directory.

        Args:
            name_or_path: "bundled" for the small encoder that comes with textcl.
            pooling: Default: what the directory says, else mean.
            max_length: Default: what the directory says, else the longest input of the backbone, at most 512.
            dropout: Sets every dropout rate of the backbone; default: as its configuration says.
            dtype: Of the weights. Training wants float32 also where the file holds a half type.
            prompts: Added to those the directory names.
            default_prompt_name: The prompt used where `encode` names none.
            device: Default: a GPU if there is one.

        Raises:
            InputError: If there is no such model, or it holds something that this library cannot load safely.
        """
        name = str(name_or_path)
        folder = _locate(str(BUNDLED) if name == "bundled" else name)
        settings = export.read_settings(folder)
        backbone_folder = folder / settings.backbone
        config = AutoConfig.from_pretrained(backbone_folder)
        if dropout is not None:
            for field in DROPOUT_FIELDS:
                if hasattr(config, field):
                    setattr(config, field, dropout)
        config.output_hidden_states = False
        backbone = _load_backbone(backbone_folder, config, dtype)
        tokenizer = AutoTokenizer.from_pretrained(backbone_folder)
        if pooling is not None and pooling != settings.pooling:
            settings.head = settings.projection = None  # they belong to the pooling that they were trained behind
        pooling = pooling or settings.pooling or "mean"
        _warn_of_wrong_pooling(f"{name} {config.name_or_path}", pooling)
        head = None
        if settings.head is not None:
            head = DenseTanh(len(settings.head["bias"])).to(dtype)
            head.dense.load_state_dict(settings.head)
        projection = None
        if (weights := settings.projection) is not None:
            rows, columns = weights["weight"].shape
            projection = nn.Linear(columns, rows, bias="bias" in weights).to(torch.promote_types(dtype, torch.float32))
            projection.load_state_dict(weights)
        encoder = cls(
            backbone,
            tokenizer,
            pooling,
            max_length or settings.max_length,
            token_weights=settings.token_weights,
            head=head,
            projection=projection,
            normalize=settings.normalize,
            prompts={**settings.prompts, **(prompts or {})},
            default_prompt_name=default_prompt_name or settings.default_prompt_name,
            name=name,
        )
        encoder.source = backbone_folder
        return encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()

    @property
    def dimension(self) -> int:
        """Size of an embedding."""
        return int(self.backbone.config.hidden_size if self.projection is None else self.projection.out_features)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The backbone's table of word vectors."""
        return cast(nn.Embedding, self.backbone.get_input_embeddings())

    @property
    def weights_in_use(self) -> Tensor | None:
        """`token_weights` where the pooling averages over tokens, else None."""
        return self.token_weights if self.pooling in AVERAGES else None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def tokens_at_a_time(self) -> int:
        """The most tokens, padding included, that `embed` puts through the backbone together."""
        return self.token_budget or TOKEN_BUDGET.get(self.device.type, 65536)

    @property
    def has_dropout(self) -> bool:
        """Whether two passes over the same text differ in training."""
        config = self.backbone.config
        return any(getattr(config, field, 0.0) for field in DROPOUT_FIELDS)

    def weigh_tokens(self, texts: Iterable[str], a: float = 1e-3) -> None:
        """Makes tokens that are frequent in `texts` count less in averages, see `smooth_inverse_frequency`."""
        self.token_weights = smooth_inverse_frequency(self.tokenizer, texts, a).to(self.device)

    def embed(
        self,
        tokens: Tokens,
        *,
        views: Sequence[View] = (),
        dropout: bool = True,
        perturbation: Tensor | None = None,
    ) -> Tensor:
        """Embeds tokenised rows, with gradient.

        Rows are ordered by length and go through the backbone in slices of a token budget; the order is restored.

        Args:
            tokens: `input_ids`, `attention_mask` and what else the tokenizer gives, each (rows, length), padded on
                the right; with `views` also `view` (rows,). `lengths` (rows,), where given, saves a wait for a GPU.
            views: What row i is put through inside the backbone is that of `views[view[i]]`.
            dropout: False leaves it out, whatever mode the encoder is in.
            perturbation: Added to what the embedding block gives, (rows, length, dim of the word embeddings).

        Returns:
            Embeddings (rows, dim), in float32 or wider.
        """
        return self._embed(tokens, views, dropout, perturbation)[0]

    def embed_masked(self, tokens: Tokens, labels: Tensor | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Embeds rows, and gives the token vectors that a masked-word head asks for, from the same pass.

        Args:
            tokens: As `embed` takes them.
            labels: -100 where no word is asked for, (rows, length).

        Returns:
            Embeddings (rows, dim); the last layer where words are asked for, (words, dim); those words, (words,).
        """
        embeddings, asked = self._embed(tokens, labels=on_host(labels))
        return embeddings, torch.cat([hidden for hidden, _ in asked]), torch.cat([words for _, words in asked])

    def add_token(self, token: str) -> None:
        """Makes the tokenizer know a special token, and the word embeddings have a row for it; exports carry both."""
        if token in self.tokenizer.get_vocab():
            return
        self.tokenizer.add_special_tokens({"additional_special_tokens": [token]})
        if len(self.tokenizer) > self.word_embeddings.num_embeddings:
            mean = self.word_embeddings.weight.detach().mean(dim=0)
            self.backbone.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
            with torch.no_grad():
                self.word_embeddings.weight[-1] = mean

    def prepare_views(self, *names: str) -> tuple[View, ...]:
        """The views of these names, see `textcl.views.parse_view`, for `embed` and a collator.

        A view that deletes makes the tokenizer and the word embeddings grow by [DEL].

        Raises:
            InputError: For an unknown view; or if this backbone has no place for one of them: its embedding block is
                not known, or it sees the order of words in another way than by position ids.
        """
        if deletes_tokens(names):
            self.add_token(DELETION_TOKEN)
        longest = _longest_input(self.backbone, self.tokenizer)
        views = tuple(parse_view(name, self.tokenizer, longest) for name in names)
        if any(view.model_operators for view in views) and not hasattr(self.backbone, "embeddings"):
            raise InputError(
                f"{self.name} has no embedding block that could be found, so that views inside it have no place."
            )
        if any(view.shuffles_positions for view in views) and not self._order_is_in_position_ids():
            raise InputError(
                f"Shuffling positions means nothing to {self.name} ({self.backbone.config.model_type}): it sees the "
                "order of words in another way than by position ids alone. Choose another view."
            )
        return views

    @torch.no_grad()
    def _order_is_in_position_ids(self) -> bool:
        """Whether moving tokens together with their position ids changes nothing, and moving the ids alone does."""
        if "position_ids" not in inspect.signature(self.backbone.forward).parameters:
            return False
        ordinary = [i for i in range(self.word_embeddings.num_embeddings) if i not in self.tokenizer.all_special_ids]
        ids = torch.tensor([ordinary[-6:]], device=self.device)
        positions = first_position(self.backbone) + torch.arange(ids.shape[1], device=self.device)[None]
        order = torch.tensor([2, 5, 0, 3, 1, 4], device=self.device)
        cases = ((ids, positions), (ids[:, order], positions[:, order]), (ids, positions[:, order]))
        with self._without_dropout():
            plain, moved, shuffled = (
                self.backbone(input_ids=words, attention_mask=torch.ones_like(words), position_ids=places)[0]
                for words, places in cases
            )
        error, change = (plain[:, order] - moved).abs().max(), (plain - shuffled).abs().max()
        return bool(error < 1e-5 * plain.abs().max() and change > 10 * error)

    def compile_layers(self) -> None:
        """Compiles the layers of the backbone, on their first use and for any length (`torch.compile`).

        On a GPU what lies between two products becomes one kernel, and a step of BERT-base a fifth shorter. The first
        takes 10 to 20 seconds longer, and less when torch finds what it compiled before. On a processor it brings
        nothing.
        """
        count = self.backbone.config.num_hidden_layers
        for module in self.backbone.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                for layer in module:
                    layer.compile(dynamic=True)

    def last_hidden_state(self, tokens: Tokens) -> Tensor:
        """The last layer's token vectors, (rows, length, dim), for a masked-word head."""
        tokens = {name: tokens[name] for name in input_names(self.tokenizer) if name in tokens}
        return cast(Tensor, self.backbone(**tokens).last_hidden_state)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int | None = None,
        normalize: bool | None = None,
        show_progress_bar: bool | None = None,
        convert_to: Literal["numpy", "tensor", "list"] = "numpy",
        prompt: str | None = None,
        prompt_name: str | None = None,
        bf16: bool = False,
    ) -> Any:
        """Embeds texts; each distinct text once.

        Args:
            texts: One text, or several.
            batch_size: Bounds the memory: a slice holds at most batch_size × 128 tokens, hence more short texts.
                Default: 32, and 512 on a GPU.
            normalize: Scale to length 1; default: as the encoder was saved.
            show_progress_bar: Default: on a terminal, when it takes over two seconds.
            convert_to: "numpy" (n, dim), "tensor" (n, dim) on the encoder's device, or "list" of tensors. A single
                text gives (dim,).
            prompt: Put before each text, or around it where it holds `{text}`.
            prompt_name: The name of one of `prompts`.
            bf16: Compute in bfloat16, where the machine has it; the vectors are float32 all the same.

        Out of memory halves the tokens of a slice, here and in what this encoder does later, and a warning says so.

        Raises:
            InputError: If the prompt is unknown, or pooling is mask_token and a text holds no mask token.

        Example:
            >>> encoder.encode("A cat sleeps.").shape
            (256,)
        """
        single = isinstance(texts, str)
        wrap = self._prompt_function(self.prompt_text(prompt, prompt_name))
        unique: dict[str, int] = {}
        which = [unique.setdefault(text, len(unique)) for text in ([str(texts)] if single else texts)]
        distinct = sorted(unique, key=len, reverse=True)  # long ones together: character length foretells token length
        embeddings = torch.empty(len(distinct), self.dimension, dtype=self._output_dtype, device=self.device)
        bar = tqdm(
            total=len(distinct),
            desc="Encoding",
            unit=" texts",
            delay=2,
            leave=None,  # it goes when it is done, if it stands below that of a whole corpus
            disable=None if show_progress_bar is None else not show_progress_bar,
        )
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bf16_if_there(bf16))
        most = (batch_size or BATCH_SIZE.get(self.device.type, 32)) * 128
        with self._without_dropout(), bar, torch.no_grad(), autocast:
            for window in in_windows(len(distinct), WINDOW.get(self.device.type, 4096)):
                tokens = self.tokenize([wrap(distinct[i]) for i in window])
                lengths = row_lengths(tokens)
                tokens = on_device(tokens, self.device)

                def embed(
                    rows: Tensor, tokens: Tokens = tokens, lengths: Tensor = lengths, start: int = window.start
                ) -> None:
                    own, there = lengths[rows], to_device(rows, self.device)
                    pooled, _ = self._embed_slice(take_rows(tokens, there, int(own.max())), own)
                    embeddings[start + there] = pooled
                    bar.update(len(rows))

                self._in_slices(lengths, min(most, self.token_budget or most), embed)
        if self.normalize if normalize is None else normalize:
            embeddings = nn.functional.normalize(embeddings, dim=-1)
        position = torch.empty(len(distinct), dtype=torch.long)
        for row, text in enumerate(distinct):
            position[unique[text]] = row
        embeddings = embeddings[position[which].to(self.device)] if which else embeddings
        if single:
            embeddings = embeddings[0]
        if convert_to == "numpy":
            return np.asarray(embeddings.cpu())
        return list(embeddings) if convert_to == "list" else embeddings

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as token tensors (rows, length), cut at `max_length`, padded on the right."""
        return tokenize(self.tokenizer, texts, self.max_length)

    def save(self, path: str | Path, *, card: str | None = None) -> Path:
        """Writes the directory that `SentenceTransformer(path)`, `AutoModel` and `from_pretrained` load.

        Args:
            path: Replaced if it exists.
            card: Text of the model card, README.md; default: a short one.
        """
        return export.save(self, Path(path), card)

    def describe(self) -> dict[str, Any]:
        """What a result must say of the encoder that it was measured on."""
        return {
            "model": self.name,
            "pooling": self.pooling,
            "layers": LAYERS.get(self.pooling, "last"),
            "max_length": self.max_length,
            "dimension": self.dimension,
            "dtype": str(self.backbone.dtype).removeprefix("torch."),
            "normalize": self.normalize,
            "prompt": self.prompts.get(self.default_prompt_name or ""),
            **({} if self.weights_in_use is None else {"token_weights": "by token"}),
            **({} if self.projection is None else {"projection": f"linear, from {self.projection.in_features}"}),
        }

    def fingerprint(self, *, settings: bool = True) -> str:
        """SHA-256 over what decides the vectors, whatever the encoder is called and wherever it lies.

        Args:
            settings: Pooling, length and the like (`describe`) as well; False: weights, configuration, vocabulary and
                tokenisation alone.
        """
        config = {k: v for k, v in self.backbone.config.to_dict().items() if k not in _INCIDENTAL}
        words = [sorted(self.tokenizer.get_vocab().items()), self.tokenizer(_PROBES)["input_ids"]]
        chosen = {**self.describe(), "model": None} if settings else None
        digest = hashlib.sha256(json.dumps([config, words, chosen], sort_keys=True, default=str).encode())
        for name, weight in sorted(self.state_dict().items()):
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def _output_dtype(self) -> torch.dtype:
        return torch.promote_types(self.backbone.dtype, torch.float32)

    @contextmanager
    def _without_dropout(self) -> Iterator[None]:
        """Evaluation mode, and at the exit the mode that was before."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def _embed(
        self,
        tokens: Tokens,
        views: Sequence[View] = (),
        dropout: bool = True,
        perturbation: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Embeddings in the order of the rows; and, slice by slice, what `words_asked_for` gives by the labels."""
        inputs = {name: tokens[name] for name in input_names(self.tokenizer) if name in tokens}
        if any(view.shuffles_positions for view in views):
            positions = torch.arange(inputs["input_ids"].shape[1], device=self.device) + first_position(self.backbone)
            inputs["position_ids"] = positions.expand_as(inputs["input_ids"])
        if perturbation is not None:
            inputs["perturbation"] = perturbation
        lengths = row_lengths(tokens)
        view = on_host(tokens["view"]) if views else None
        embeddings, asked = [], []

        def embed(rows: Tensor) -> None:
            own = lengths[rows]
            longest = int(own.max())
            of_slice = take_rows(inputs, to_device(rows, self.device), longest)
            if view is not None:
                of_slice["view"] = view[rows]
            if self.gradient_cache and torch.is_grad_enabled():
                # shared by slices, weights cast to a half type would have the gradients of all added up in that type
                with _autocast_without_cache(self.device.type):
                    pooled, output = checkpoint(
                        self._embed_slice, of_slice, own, views, dropout, labels is None, use_reentrant=False
                    )
            else:
                pooled, output = self._embed_slice(of_slice, own, views, dropout, labels is None)
            embeddings.append(pooled)
            if labels is not None:
                asked.append(words_asked_for(output.last_hidden_state, labels[rows, :longest]))

        # smaller slices save nothing where the graphs of all of them are kept
        halving = self.gradient_cache or not torch.is_grad_enabled()
        slices = self._in_slices(lengths, self.tokens_at_a_time, embed, halving=halving)
        restored = to_device(torch.argsort(torch.cat(slices)), self.device)
        return torch.cat(embeddings)[restored], asked

    def _in_slices(
        self, lengths: Tensor, budget: int, compute: Callable[[Tensor], None], *, halving: bool = True
    ) -> list[Tensor]:
        """`in_slices`; a budget that was halved holds for what comes after."""
        slices, held = in_slices(lengths, budget, compute, halving=halving)
        if held < budget:
            self.token_budget = held
        return slices

    def _embed_slice(
        self,
        tokens: Tokens,
        lengths: Tensor,
        views: Sequence[View] = (),
        dropout: bool = True,
        may_lie_end_to_end: bool = True,
    ) -> tuple[Tensor, Any]:
        if self.gradient_cache:
            self._kept.look()
        several_layers = self.pooling in LAYERS
        count = int(lengths.sum())
        padding = tokens["input_ids"].numel() - count
        plain = not views and "perturbation" not in tokens
        flat = plain and may_lie_end_to_end and padding >= END_TO_END.get(self.device.type, math.inf)
        flat = flat and self._takes_rows_end_to_end
        # the mode is set in here, so that a slice which backward computes again has the same
        with nullcontext() if dropout else self._without_dropout(), self._views_applied(tokens, views) as inputs:
            if flat:
                given = self._end_to_end(inputs, count)
            elif plain and padding == 0:
                given = {name: tensor for name, tensor in inputs.items() if name != "attention_mask"}
            else:
                given = dict(inputs)
            output = self.backbone(**given, output_hidden_states=several_layers)
        hidden = [*output.hidden_states[:-1], output.last_hidden_state] if several_layers else [output[0]]
        mask, ids = inputs["attention_mask"], given["input_ids"]
        rows = EndToEnd(mask.sum(dim=1)) if flat else Apart(mask)
        mask_tokens = ids == self.tokenizer.mask_token_id
        if self.pooling == "mask_token" and not (rows.total(mask_tokens[..., None].float()) > 0).all():
            raise InputError(
                "Pooling mask_token needs a mask token in every text; give a prompt such as "
                f"'{{text}} means {self.tokenizer.mask_token}.'"
            )
        weights = torch.ones_like(ids) if flat else mask
        if (of_tokens := self.weights_in_use) is not None:
            weights = weights * of_tokens[ids]
        pooled = POOLINGS[self.pooling](hidden, rows, weights, mask_tokens)
        if self.head is not None:
            pooled = self.head(pooled)
        pooled = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
        if self.projection is not None:
            with torch.autocast(self.device.type, enabled=False):  # the small directions of a whitening need the bits
                pooled = self.projection(pooled)
        return pooled, output

    def _end_to_end(self, tokens: Tokens, count: int) -> dict[str, Tensor]:
        """The backbone's inputs of rows that lie end to end, of which there are `count` tokens."""
        mask = tokens["attention_mask"]
        positions = torch.arange(mask.shape[1], device=self.device) + first_position(self.backbone)
        flat, places = end_to_end({**tokens, "position_ids": positions.expand_as(mask)}, count)
        return {**flat, "places": places, "there": mask.bool()}

    @cached_property
    def _takes_rows_end_to_end(self) -> bool:
        """Whether the backbone gives rows that lie end to end what it gives them apart, and not as if they were one."""
        config = self.backbone.config
        windows = any(getattr(config, name, None) for name in ("sliding_window", "local_attention"))
        named = inspect.signature(self.backbone.forward).parameters
        if config._attn_implementation != ATTENTION or windows or not {"position_ids", "kwargs"} <= set(named):
            return False
        ordinary = [i for i in range(self.word_embeddings.num_embeddings) if i not in self.tokenizer.all_special_ids]
        rows = [ordinary[-6:-4], ordinary[-4:], ordinary[-6:]]  # 12 tokens
        tokens = {name: tensor.to(self.device) for name, tensor in pad(self.tokenizer, rows).items()}
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False), self._without_dropout():
            expected = self.backbone(**tokens)[0]
            flat = self._end_to_end(tokens, count=12)
            found = apart(self.backbone(**flat)[0], flat["places"], expected.shape[:2])
        there = tokens["attention_mask"].bool()
        error = (found - expected)[there].abs().max()
        change = (expected[0, :2] - expected[2, :2]).abs().max()  # the same words, but one row saw what followed them
        return bool(error < change / 10)

    def _views_applied(self, tokens: Tokens, views: Sequence[View]) -> AbstractContextManager[Tokens]:
        if not views and "perturbation" not in tokens:
            return nullcontext(tokens)
        nothing = {"view": torch.zeros(len(tokens["input_ids"]), dtype=torch.long)}
        return applied(self.backbone, {**nothing, **tokens}, [view.model_operators for view in views])

    def prompt_text(self, prompt: str | None = None, prompt_name: str | None = None) -> str:
        """The prompt that `encode` takes when it is given these; empty for none.

        Raises:
            InputError: If there is no prompt of that name.
        """
        name = prompt_name or self.default_prompt_name
        if prompt is None and name is not None:
            if name not in self.prompts:
                raise InputError(f"There is no prompt {name!r}; the encoder has {sorted(self.prompts) or 'none'}.")
            prompt = self.prompts[name]
        return prompt or ""

    def _prompt_function(self, prompt: str) -> Callable[[str], str]:
        """What turns a text into what is tokenised."""
        return self.template(prompt) if PLACE in prompt else lambda text: prompt + text

    def template(self, template: str) -> Template:
        """What puts a text into a template that holds `{text}`, cut to `max_length`."""
        return Template(template, self.tokenizer, self.max_length)


def _autocast_without_cache(device_type: str) -> torch.autocast:
    """What autocast does already, but each time a weight is used it is cast anew."""
    enabled, dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    return torch.autocast(device_type, dtype, enabled, cache_enabled=False)


def _locate(name: str) -> Path:
    """The local directory of a model, downloaded from the hub if it has to be."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
            raise InputError(
                f"The directory {name} is no model: it holds neither config.json nor modules.json. Give a directory "
                "saved by textcl, transformers or sentence-transformers."
            )
        return folder
    if folder.exists():
        raise InputError(f"{name} is a file, not a model directory.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["onnx/*", "openvino/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"There is no model directory {name!r}, and the hub gave no model of that name "
            f"({type(error).__name__}). Check the path, or use 'bundled'."
        ) from error


def _load_backbone(folder: Path, config: Any, dtype: torch.dtype) -> PreTrainedModel:
    try:
        with export.quiet_transformers():
            backbone, loading = AutoModel.from_pretrained(
                folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"No model can be loaded from {folder}: {first_line}") from error
    missing = set(loading["missing_keys"])
    if any(key.startswith("pooler") for key in missing):
        backbone.pooler = None  # it would be random, and be exported as if it meant something
    if lost := sorted(key for key in missing if not key.startswith("pooler")):
        raise InputError(
            f"{folder} lacks {len(lost)} of the backbone's weights (the first is {lost[0]}); it is damaged, or its "
            "config.json belongs to another model."
        )
    return cast(PreTrainedModel, backbone)


def _pooler_dense(backbone: PreTrainedModel) -> nn.Linear | None:
    """The dense layer of the backbone's own pooler; ALBERT's pooler is that layer itself."""
    pooler = getattr(backbone, "pooler", None)
    dense = getattr(pooler, "dense", pooler)
    return dense if isinstance(dense, nn.Linear) else None


def _longest_input(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that the backbone has positions for."""
    positions = getattr(backbone.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(positions - first_position(backbone), tokenizer.model_max_length))


def first_position(backbone: PreTrainedModel) -> int:
    """The position id of a text's first token: 0, but padding_idx + 1 in the RoBERTa family."""
    table = next((m for n, m in backbone.named_modules() if n.endswith("position_embeddings")), None)
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        return table.padding_idx + 1
    return 0


def _warn_of_wrong_pooling(name: str, pooling: str) -> None:
    """Published SimCSE checkpoints keep their head in the pooler, which only the supervised ones use at test."""
    if match := re.search(r"\b(un)?sup-simcse", name):
        right = "cls" if match[1] else "pooler"
        if pooling != right:
            kind = "unsupervised ([CLS] before the pooler)" if match[1] else "supervised ([CLS] through the pooler)"
            logger.warning(
                "%s is a published SimCSE checkpoint, %s: pooling=%r was asked for, and pooling=%r gives the "
                "published scores.",
                name.split()[0],
                kind,
                pooling,
                right,
            )
