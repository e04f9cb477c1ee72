"""The Encoder: a transformer backbone, a pooling and, if a method keeps one, a head. Only the encoder is exported."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textcl.dropout import dropout_rates
from textcl.encoder import export
from textcl.encoder.backbone import (
    add_token,
    fitting_length,
    longest_input,
    order_is_in_position_ids,
    pooler_head,
    prepare_backbone,
)
from textcl.encoder.batching import Slicing, Tokens, on_host
from textcl.encoder.card import model_card
from textcl.encoder.encoding import encode_texts, tokenize_prompted
from textcl.encoder.fingerprint import fingerprint
from textcl.encoder.forward import embed_rows
from textcl.encoder.layers import dimension_behind, further_layers, layers_read, pooled_dimension
from textcl.encoder.load import head_of, in_float32, load, projection_of
from textcl.encoder.pooling import POOLINGS, DenseTanh, smooth_inverse_frequency
from textcl.encoder.probe import check_pooling_fits, check_token_weights, probe
from textcl.errors import InputError
from textcl.texts import as_texts, check_text
from textcl.tokenising import vocabulary_size
from textcl.views.view import DELETION_TOKEN, View, deletes_tokens, parse_view

# Padded tokens in one slice. Small slices pad less and fit the cache of a CPU; a GPU wants large ones.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 131072}


class Encoder(nn.Module):
    """A sentence encoder: backbone, pooling, the layers behind the pooling, and how texts are tokenised.

    `from_pretrained` loads one, and prepares the backbone to train fast. `Encoder(...)` changes none of its arguments;
    call `textcl.encoder.backbone.prepare_backbone` first to have the same speed.

    Args:
        backbone: Any encoder that `AutoModel` loads.
        tokenizer: The tokenizer of the backbone.
        pooling: One of cls, pooler ([CLS] through a dense tanh layer), mean, max, last_token, first_last, last2 and
            mask_token.
        max_length: Tokens after which a text is cut, special tokens included.
        head: The dense tanh layer behind the pooling; with pooling "pooler" one is made if none is given.
        token_weights: The weight of each token of the vocabulary, (vocabulary,), in poolings that average over tokens
            (mean, first_last, last2), see `smooth_inverse_frequency`; None: equal weights.
        projection: A linear layer behind pooling and head, which may change the dimension; `whitening` makes one.
        layers: Further layers behind them, in order, see `textcl.encoder.layers`.
        token_layers: Layers on the vectors of tokens, before the pooling.
        layer_weights: The weight of each hidden state, (blocks + 1,); the pooling then reads their weighted mean.
        normalize: Whether `encode` scales vectors to length 1 by default.
        prompts: Named prompts. A prompt is put before the text or, if it holds `{text}`, around it.
        default_prompt_name: The prompt that `encode` takes if none is named.
        pool_prompt: Whether the pooling reads the tokens of a prompt in front of the text; False as in INSTRUCTOR.
        name: The name or directory that the backbone came from; results record it.

    Raises:
        InputError: If the pooling is unknown or does not suit backbone or tokenizer, `max_length` leaves no token for a
            text, a prompt is no text, or there is no default prompt of that name.

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
        layers: Iterable[nn.Module] = (),
        token_layers: Iterable[nn.Module] = (),
        layer_weights: Tensor | None = None,
        normalize: bool = False,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        pool_prompt: bool = True,
        name: str = "",
    ) -> None:
        super().__init__()
        check_pooling_fits(pooling, backbone, tokenizer, name)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.max_length = fitting_length(max_length, backbone, tokenizer)
        self.normalize = normalize
        self.prompts = {each: check_text(text or "", f"The prompt {each!r}") for each, text in (prompts or {}).items()}
        self.default_prompt_name = default_prompt_name
        self.prompt_text()  # an encoder whose default prompt is missing could be saved, and not be loaded
        self.pool_prompt = pool_prompt
        self.name = name
        self.slicing = Slicing()
        self.source: Path | None = None  # the directory of the backbone, which may hold a masked-word head
        self.token_weights: Tensor | None
        self.register_buffer("token_weights", token_weights)
        self.layer_weights: Tensor | None
        self.register_buffer("layer_weights", layer_weights)
        check_token_weights(token_weights, tokenizer, name)
        self.head = head
        self.projection = projection
        self.layers = nn.ModuleList(layers)
        self.token_layers = nn.ModuleList(token_layers)
        if pooling == "pooler" and head is None:
            self.head = pooler_head(backbone, name)

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
            name_or_path: A hub name or a directory; "small" or "bundled" for the encoders that come with textcl.
            pooling: The pooling, see `Encoder`; default: that of the directory, else mean.
            max_length: Default: that of the directory, else the longest input of the backbone, at most 512.
            dropout: Sets every dropout rate of the backbone; default: the rates of its configuration.
            dtype: Type of the weights. Train in float32 even if the file holds half precision.
            prompts: Prompts to add to those of the directory.
            default_prompt_name: The prompt that `encode` takes if none is named.
            device: The device of the weights; default: a GPU if there is one.

        Raises:
            InputError: If there is no such model, or it holds something that textcl cannot load safely.
        """
        loaded = load(str(name_or_path), pooling, dropout, dtype)
        prepare_backbone(loaded.backbone, loaded.tokenizer)
        settings = loaded.settings
        encoder = cls(
            loaded.backbone,
            loaded.tokenizer,
            settings.pooling or "mean",
            settings.max_length if max_length is None else max_length,
            token_weights=settings.token_weights,
            head=head_of(settings, dtype),
            projection=projection_of(settings, dtype),
            layers=in_float32(settings.layers, dtype),
            token_layers=in_float32(settings.token_layers, dtype),
            layer_weights=settings.layer_weights,
            normalize=settings.normalize,
            prompts={**settings.prompts, **(prompts or {})},
            default_prompt_name=default_prompt_name or settings.default_prompt_name,
            pool_prompt=settings.pool_prompt,
            name=str(name_or_path),
        )
        encoder.source = loaded.folder
        encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        probe(encoder)
        return encoder

    def with_(
        self,
        *,
        pooling: str | None = None,
        max_length: int | None = None,
        normalize: bool | None = None,
        default_prompt_name: str | None = None,
    ) -> Self:
        """A copy with other settings. It shares weights and slicing with this encoder, so training changes both.

        Args:
            pooling: If it is another pooling, the layers before and behind it are dropped: they were trained with this
                one.
            max_length: Tokens after which a text is cut.
            normalize: Whether `encode` scales vectors to length 1 by default.
            default_prompt_name: The prompt that `encode` takes if none is named.

        Raises:
            InputError: If the pooling is unknown, does not suit backbone or tokenizer, or is "pooler", whose dense
                layer this encoder does not have; or there is no prompt of that name.
        """
        changed = copy.copy(self)
        # copy.copy shares the dictionaries of modules, buffers and prompts, so copy them too
        changed._modules, changed._buffers = dict(self._modules), dict(self._buffers)
        changed.prompts = dict(self.prompts)
        if pooling is not None and pooling != self.pooling:
            check_pooling_fits(pooling, self.backbone, self.tokenizer, self.name)
            if pooling == "pooler":
                raise InputError("Pooling pooler has a dense layer of its own; load the encoder with pooling='pooler'.")
            changed.pooling, changed.head, changed.projection = pooling, None, None
            changed.layers, changed.token_layers, changed.layer_weights = nn.ModuleList(), nn.ModuleList(), None
        if max_length is not None:
            changed.max_length = fitting_length(max_length, self.backbone, self.tokenizer)
        if normalize is not None:
            changed.normalize = normalize
        if default_prompt_name is not None:
            changed.default_prompt_name = default_prompt_name
            changed.prompt_text()
        return changed

    @property
    def dimension(self) -> int:
        """Size of an embedding."""
        size = pooled_dimension(self) if self.projection is None else self.projection.out_features
        return dimension_behind(self.layers, size)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The backbone's table of word vectors."""
        return cast(nn.Embedding, self.backbone.get_input_embeddings())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def tokens_at_a_time(self) -> int:
        """Largest number of tokens, padding included, that `embed` puts through the backbone at a time."""
        return self.slicing.token_budget or TOKEN_BUDGET.get(self.device.type, 65536)

    @property
    def has_dropout(self) -> bool:
        """Whether two passes over the same text differ in training."""
        return bool(dropout_rates(self.backbone))

    def weigh_tokens(self, texts: Iterable[str], a: float = 1e-3) -> None:
        """Makes frequent tokens of `texts` count less in poolings that average, see `smooth_inverse_frequency`."""
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
            tokens: The tokenizer's tensors, padded on the right; with `views` also `view`, each row's view number.
            views: The view `views[view[i]]` is applied to row i inside the backbone.
            dropout: False: no dropout, whatever mode the encoder is in.
            perturbation: Added to the output of the embedding block, (rows, length, dim of the word embeddings).

        Returns:
            Embeddings (rows, dim), in float32 or wider.
        """
        return embed_rows(self, tokens, views, dropout, perturbation)[0]

    def embed_masked(self, tokens: Tokens, labels: Tensor | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Embeds rows, and returns the token vectors for a masked-word head from the same pass.

        Args:
            tokens: The rows, see `embed`.
            labels: The token to predict at each masked position, -100 elsewhere, (rows, length).

        Returns:
            Embeddings (rows, dim); the last layer at masked positions, (words, dim); the tokens to predict, (words,).
        """
        embeddings, asked = embed_rows(self, tokens, labels=on_host(labels))
        return embeddings, torch.cat([hidden for hidden, _ in asked]), torch.cat([words for _, words in asked])

    def masked_words(self, tokens: Tokens, labels: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
        """The last two results of `embed_masked`, without pooling the rows."""
        _, asked = embed_rows(self, tokens, labels=on_host(labels), pooled=False)
        return torch.cat([hidden for hidden, _ in asked]), torch.cat([words for _, words in asked])

    def prepare_views(self, *names: str) -> tuple[View, ...]:
        """The views with these names, see `textcl.views.view.parse_view`, for `embed` and a collator.

        A view that deletes tokens adds [DEL] to the tokenizer and the word embeddings.

        Raises:
            InputError: If a view is unknown or does not work with this backbone: its embedding block is not known, or
                it does not take the order of words only from position ids.
        """
        if deletes_tokens(names):
            add_token(self.backbone, self.tokenizer, DELETION_TOKEN)
            if self.token_weights is not None:  # a new token gets the weight of a token that never occurs
                missing = max(0, vocabulary_size(self.tokenizer) - len(self.token_weights))
                self.token_weights = nn.functional.pad(self.token_weights, (0, missing), value=1.0)
        longest = longest_input(self.backbone, self.tokenizer)
        views = tuple(parse_view(name, self.tokenizer, longest) for name in names)
        inside = any(view.input_operators or view.embedding_operators for view in views)
        if inside and not hasattr(self.backbone, "embeddings"):
            raise InputError(
                f"{self.name} has no `embeddings` module, which views inside the model need. Choose another."
            )
        shuffled = any(view.shuffles_positions for view in views)
        if shuffled and not order_is_in_position_ids(self.backbone, self.tokenizer):
            raise InputError(
                f"Shuffling positions means nothing to {self.name} ({self.backbone.config.model_type}): it does not "
                "take the order of words only from position ids. Choose another view."
            )
        return views

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
        """Embeds texts; each distinct text is embedded once.

        If memory runs out, a warning is logged, and this encoder uses half as many tokens per slice from then on.

        Args:
            texts: One text, or several: a list, numpy array, pandas Series or generator of strings.
            batch_size: Limits the memory: a slice holds at most batch_size × 128 tokens, so it holds more
                texts if they are short. Default: 32, or 512 on a GPU.
            normalize: Whether to scale vectors to length 1; default: the setting of the encoder.
            show_progress_bar: Whether to show a bar; default: on a terminal, if encoding takes over two seconds.
            convert_to: "numpy" (n, dim), "tensor" (n, dim) on the encoder's device, or "list" of tensors. A single
                text gives (dim,), with "list" as a tensor.
            prompt: Put before each text or, if it holds `{text}`, around it.
            prompt_name: The name of one of the encoder's `prompts`.
            bf16: Compute in bfloat16 if the machine supports it; the vectors are still float32.

        Raises:
            InputError: A text is no string or lacks mask_token's token, a prompt is unknown, or batch_size is below 1.

        Example:
            >>> Encoder.from_pretrained("bundled").encode("A cat sleeps.").shape
            (256,)
        """
        if convert_to not in ("numpy", "tensor", "list"):
            raise InputError(f"convert_to must be 'numpy', 'tensor' or 'list', not {convert_to!r}.")
        single = isinstance(texts, str)
        embeddings = encode_texts(
            self,
            as_texts([texts] if single else texts),
            self.prompt_text(prompt, prompt_name),
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            bf16=bf16,
        )
        if self.normalize if normalize is None else normalize:
            embeddings = nn.functional.normalize(embeddings, dim=-1)
        embeddings = embeddings[0] if single else embeddings
        if convert_to == "numpy":
            return np.asarray(embeddings.cpu())
        return list(embeddings) if convert_to == "list" and not single else embeddings

    def tokenize(self, texts: Sequence[str], prompt: str = "") -> Tokens:
        """Texts as token tensors (rows, length), cut at `max_length`, padded on the right.

        Args:
            texts: The texts.
            prompt: Put before each text or, if it holds `{text}`, around it. If `pool_prompt` is False, the result
                has `prompt_lengths`.

        Raises:
            InputError: If the prompt stands around the text, and `pool_prompt` is False.
        """
        return tokenize_prompted(self, as_texts(texts), prompt)

    def settings(self) -> export.Settings:
        """The settings that an export holds in addition to backbone and tokenizer."""
        return export.Settings(
            pooling=self.pooling,
            max_length=self.max_length,
            layer_weights=self.layer_weights,
            token_weights=self.token_weights if POOLINGS[self.pooling].averages else None,
            token_layers=list(self.token_layers),
            head=None if self.head is None else self.head.dense.state_dict(),
            projection=None if self.projection is None else self.projection.state_dict(),
            layers=list(self.layers),
            normalize=self.normalize,
            prompts=self.prompts,
            default_prompt_name=self.default_prompt_name,
            pool_prompt=self.pool_prompt,
        )

    def save(self, path: str | Path, *, card: str | None = None) -> Path:
        """Writes the directory that `SentenceTransformer(path)`, `AutoModel` and `from_pretrained` load.

        Args:
            path: The directory. An existing one is replaced if it is empty, or a model directory and nothing else.
            card: Text of the model card, README.md; default: a short one.
        """
        settings = self.settings()
        card = card or model_card(self.describe(), settings, source=self.source)
        return export.save(Path(path), self.backbone, self.tokenizer, settings, card, self.source)

    def describe(self) -> dict[str, Any]:
        """The facts that a result records about the encoder that it was measured on."""
        return {
            "model": self.name,
            "pooling": self.pooling,
            "layers": layers_read(self),
            "max_length": self.max_length,
            "dimension": self.dimension,
            "dtype": str(self.backbone.dtype).removeprefix("torch."),
            "normalize": self.normalize,
            "prompt": self.prompts.get(self.default_prompt_name or ""),
            **({"token_weights": "by token"} if self.settings().token_weights is not None else {}),
            **({} if self.projection is None else {"projection": f"linear, from {self.projection.in_features}"}),
            **further_layers(self),
        }

    def fingerprint(self, *, settings: bool = True) -> str:
        """SHA-256 of everything that decides the vectors; name and directory of the encoder do not change it.

        Args:
            settings: Whether to include pooling, length and the like (`describe`); False: only weights, configuration,
                vocabulary and tokenisation.
        """
        return fingerprint(self, settings)

    def prompt_text(self, prompt: str | None = None, prompt_name: str | None = None) -> str:
        """The prompt that `encode` takes for these arguments; empty if there is none.

        Raises:
            InputError: If there is no prompt of that name.
        """
        name = prompt_name or self.default_prompt_name
        if prompt is None and name is not None:
            if name not in self.prompts:
                raise InputError(f"There is no prompt {name!r}; the encoder has {sorted(self.prompts) or 'none'}.")
            prompt = self.prompts[name]
        return check_text(prompt or "", "The prompt")
