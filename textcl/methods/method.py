"""What every method is: an encoder, the modules around it, and an objective over one flat batch of views."""

import copy
from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from textcl.batching import on_host
from textcl.card import model_card
from textcl.collator import Collator
from textcl.encoder import Encoder
from textcl.methods.citations import papers
from textcl.views import PLAIN, View

Batch = dict[str, Any]


class Method(nn.Module):
    """Owns the encoder and everything that training needs beside it, so that a Trainer saves, resumes and, on several
    ranks, synchronises all of it.

    A subclass writes `objective`. `forward(batch) = objective(embed(batch), batch)` changes no state: what has to
    change does so in the hooks, which `textcl.MethodCallback` calls.

    Args:
        encoder: The encoder that is trained, and exported.

    Attributes:
        views: Those of an unlabelled text, see `textcl.views`. Two plain ones differ by dropout.
        mask_probability: Share of the tokens asked for in masked copies of the rows, for a masked-word term.
        test_pooling: The pooling that evaluators see and that is exported, where it is not the one trained with.
    """

    takes_views = True  # whether the batch holds views of a text, which may then be others than the method's own

    accepts_loss_kwargs = False  # the loss is a mean of its batch: the Trainer must divide it under accumulation

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.views: tuple[View, ...] = (PLAIN, PLAIN)
        self.mask_probability = 0.0
        self.hooked = False  # set by MethodCallback
        self.test_pooling: str | None = None

    @property
    def needs_hooks(self) -> bool:
        """Whether training without `MethodCallback` would be wrong, as where a collator draws anew in each epoch."""
        return self.mask_probability > 0 or any(view.token_operators for view in self.views)

    def collator(self, seed: int = 42) -> Collator:
        """What makes this method's batches from rows of a dataset; `seed` is that of its views and masks."""
        return Collator(
            self.encoder.tokenizer,
            self.encoder.max_length,
            views=self.views,
            dropout_views=self.encoder.has_dropout,
            mask_probability=self.mask_probability,
            seed=seed,
        )

    def prepare_corpus(self, dataset: Any) -> Any:
        """The rows that can be trained on; a trainer of textcl calls it before anything else."""
        return dataset

    def evaluators(self, dataset: Any, bf16: bool = False) -> list[Any]:
        """What is to be followed of this method itself while it trains on these rows, in bfloat16 where asked for."""
        return []

    def embed(self, batch: Batch) -> Tensor:
        """All views of the batch in one call of the encoder, (views · batch, dim)."""
        return self.encoder.embed(batch, views=self.views)

    def objective(self, embeddings: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`{"loss": scalar}` and, where the loss has parts, those by name; `keys` are for a queue, see the hooks.

        Where nothing but the objective keeps the rows that it sees apart, those of a view, detached, are `projections`:
        a projector can collapse behind embeddings that do not. `deviation` is their standard deviation as a share of
        what the loss asks for, where it asks for one.

        Args:
            embeddings: What `embed` gave, (views · batch, dim).
            batch: What the collator made.
        """
        raise NotImplementedError

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        """The loss of a batch, its parts, and the detached embeddings (views · batch, dim) for diagnostics."""
        self.check_hooks()
        embeddings = self.embed(batch)
        return {"embeddings": embeddings.detach(), **self.objective(embeddings, batch)}

    def check_hooks(self) -> None:
        """Raises if this method is trained without the hooks that it needs."""
        if self.training and self.needs_hooks and not self.hooked:
            raise RuntimeError(
                f"{type(self).__name__} needs its hooks: pass callbacks=[textcl.MethodCallback()] to the Trainer."
            )

    def on_fit_start(self, dataset: Any, batch_size: int) -> None:
        """Called once before the first step of a run, not after a resume.

        Args:
            dataset: The rows that are trained on.
            batch_size: Rows of a batch over all ranks.
        """

    def before_optimizer_step(self, step: int) -> None:
        """Called when gradients are final, before the optimizer moves; `step` are done."""

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        """Called once after each optimizer step that was not skipped.

        Args:
            step: Steps done.
            total: Steps in the whole run.
            keys: What `objective` gave under that name since the step before, one tensor a micro-batch.
        """

    @property
    def learning_rate_factors(self) -> dict[str, float]:
        """By what the learning rate of a child module is multiplied, where it is not 1."""
        return {}

    def param_groups(
        self, learning_rate: float, weight_decay: float = 0.0, decayed: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """The trained parameters as an optimizer takes them, in groups of one learning rate and one weight decay.

        Args:
            learning_rate: Where no factor changes it.
            weight_decay: Of the parameters named in `decayed`; that of the others is 0.
            decayed: Names of parameters.
        """
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = learning_rate * self.learning_rate_factors.get(name.split(".")[0], 1.0)
                groups.setdefault((rate, weight_decay if name in decayed else 0.0), []).append(parameter)
        return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]

    @property
    def candidates(self) -> list[Encoder]:
        """The encoders that could be exported; the trainer scores each and calls `choose`."""
        return [self.exported]

    def choose(self, candidate: int) -> None:
        """Called at each evaluation with the number of the candidate that scored best."""

    @property
    def exported(self) -> Encoder:
        """The encoder as it is evaluated and exported: the same weights, under the pooling used at test."""
        return self.as_tested(self.encoder)

    def as_tested(self, encoder: Encoder) -> Encoder:
        """An encoder that shares its parameters with the given one, under the pooling used at test."""
        encoder = copy.copy(encoder)
        encoder.pooling = self.test_pooling or encoder.pooling
        return encoder

    def encode(self, texts: list[str], **options: Any) -> Any:
        """Embeds texts with the encoder that would be exported now, see `Encoder.encode`."""
        return self.exported.encode(texts, **options)

    def describe(self) -> dict[str, Any]:
        """What a result must say of the encoder, see `Encoder.describe`."""
        return self.exported.describe()

    def export(self, path: str | Path, *, card: str | None = None) -> Path:
        """Writes the trained encoder as a sentence-transformers directory, see `Encoder.save`.

        Args:
            path: Replaced if it exists.
            card: Text of the model card; default: a short one that names the method and its paper.
        """
        from textcl.methods import METHODS

        name = next((name for name, kind in METHODS.items() if kind is type(self)), None)
        cited = "\n".join(f"- {paper}" for paper in papers({"method": name}))
        own = model_card(self.exported, tags=[name], sections={"Citation": cited}) if name else None
        return self.exported.save(path, card=card or own)

    def gradient_cache_enable(self) -> None:
        """Makes every encoder keep embeddings alone, and compute activations again, slice by slice, in backward.

        The gradient of the loss by the embeddings comes first and each slice after it, under the same random numbers,
        so that a batch takes the memory of one slice (Gao et al. 2021, GradCache, arXiv 2101.06983), with the same
        loss and gradients, for one more forward pass. The trainer calls it for `gradient_cache`.
        """
        for encoder in self._encoders:
            encoder.gradient_cache = True

    def compile_layers(self) -> None:
        """Compiles the layers of every encoder, see `Encoder.compile_layers`; for `compile_layers` of the trainer."""
        for encoder in self._encoders:
            encoder.compile_layers()

    def halve_slices(self) -> bool:
        """Halves what each encoder takes at a time; False, and nothing done, where that may be one row already."""
        if any(encoder.tokens_at_a_time < 2 * encoder.max_length for encoder in self._encoders):
            return False
        for encoder in self._encoders:
            encoder.token_budget = encoder.tokens_at_a_time // 2
        return True

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Trades compute for memory in every backbone; the Trainer calls it for `--gradient_checkpointing`."""
        for encoder in self._encoders:
            encoder.backbone.gradient_checkpointing_enable(**options)

    @property
    def _encoders(self) -> list[Encoder]:
        """All that the method owns: towers and targets as well."""
        return [module for module in self.modules() if isinstance(module, Encoder)]


def where_views_are(batch: Batch) -> list[slice]:
    """The rows of each view; views follow one another in a batch."""
    counts = on_host(batch["view"]).bincount().tolist()
    ends = list(accumulate(counts))
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def rows_of_view(batch: Batch, number: int) -> Batch:
    """The rows of one view, of all that has a row for each row of the batch."""
    rows = where_views_are(batch)[number]
    return {name: values[rows] for name, values in batch.items() if len(values) == len(batch["view"])}
