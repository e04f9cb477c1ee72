"""The base class of all methods: an encoder, the modules around it, and an objective over one batch of views."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypedDict, Unpack

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from textcl.collator.batch import Batch
from textcl.collator.collator import Collator
from textcl.collator.prompts import Prompts
from textcl.collator.reads import Reads
from textcl.encoder import Encoder
from textcl.encoder.backbone import compile_layers
from textcl.encoder.batching import on_device
from textcl.encoder.card import model_card
from textcl.encoder.layers import with_first_dimensions
from textcl.errors import InputError
from textcl.methods.matryoshka import PAPER, check_test_pooling, checked_sizes, over_sizes
from textcl.modules.info_nce import InfoNCE
from textcl.texts import described
from textcl.views.view import PLAIN, View


class Outputs(TypedDict, total=False):
    """What `objective` and `forward` return; everything but the loss is detached."""

    loss: Tensor
    """The loss that training minimises, a scalar with gradient."""
    embeddings: Tensor
    """The encoder's embeddings, (rows, dim), for diagnostics; `forward` adds them."""
    keys: Tensor
    """The rows that enter a queue after the optimizer step."""
    projections: Tensor
    """One view's projector outputs, (batch, dim), if only the loss prevents collapse: the projector can collapse even
    when the embeddings do not. The trainer watches them."""
    deviation: Tensor
    """The projections' standard deviation divided by the loss's target, if it has one."""
    contrastive: Tensor
    """The contrastive term of a loss with several terms; the keys below are further terms of such losses."""
    mlm: Tensor
    """The masked-word term (cross-entropy)."""
    supervised: Tensor
    """The classification term on labelled pairs."""
    clustering: Tensor
    """The clustering term."""
    invariance: Tensor
    """VICReg: the squared distance between the two views."""
    variance: Tensor
    """VICReg: how far the standard deviations of the dimensions are below 1."""
    covariance: Tensor
    """VICReg: the squared covariance between different dimensions."""
    dimension: Tensor
    """SimCSE++: InfoNCE between the dimensions of the two views."""
    decorrelation: Tensor
    """SCD: Barlow Twins' term."""
    consistency: Tensor
    """RankCSE: the divergence between the two views' rankings."""
    ranking: Tensor
    """RankCSE: the distance to a teacher's ranking."""


HOOKS = ("on_fit_start", "before_optimizer_step", "after_optimizer_step")
"""The methods that `textcl.MethodCallback` calls in training; no-ops unless a subclass overrides them."""


class Method(nn.Module):
    """Owns the encoder and everything else that training needs.

    A Trainer therefore saves and resumes all of it and, on several ranks, synchronises it.

    A subclass writes `objective`. `forward(batch) = objective(embed(batch), batch)` changes no state: state changes in
    the hooks, which `textcl.MethodCallback` calls.

    Args:
        encoder: The encoder that is trained and exported.

    Attributes:
        name: The name of the method on the command line and in recipes.
        family: How the method avoids collapse: negatives, clustering, asymmetry or redundancy reduction, see
            docs/families.md.
        needs: The rows that it trains on: sentences, documents, pairs, triplets. Rows with positives are refused unless
            it names pairs, and rows with hard negatives unless it names triplets.
        paper: The paper to cite.
        option_papers: Further papers to cite, by the option that uses them.
        option_needs: For an option, the options that it needs. It changes nothing unless one of these is on, or has
            the value behind the equals sign.
        argument_defaults: Training arguments whose flags have another default for this method.
        takes_views: Whether rows may hold text views, `text_1` and `text_2`, in place of the method's own views.
        takes_labels: Whether the loss reads the labels of pairs; without it every pair is a positive one.
        without_parts: What to do if `set_dimensions` is refused, because something stands between embeddings and loss.
        views: The views of an unlabelled text, see `textcl.views.view`. Two plain views differ by dropout.
        mask_probability: Share of the tokens that are predicted in masked copies of the rows, for a masked-word term.
        test_pooling: The pooling for evaluation and export; None: the pooling used in training.
        train_prompts: The prompts of single columns of the training rows (text, positive, negative), in place of the
            encoder's: for each column the text of a prompt, or the name of one of the encoder's prompts.
        dimensions: The sizes of the vectors that are trained, see `set_dimensions`; empty: only the whole vectors.
        hooked: Whether a `MethodCallback` calls the hooks; the callback sets this to the handle of its forward hook.
    """

    name: ClassVar[str] = ""
    family: ClassVar[str] = ""
    needs: ClassVar[str] = "sentences or pairs"
    paper: ClassVar[str] = ""
    option_papers: ClassVar[dict[str, str]] = {}
    option_needs: ClassVar[dict[str, tuple[str, ...]]] = {}
    argument_defaults: ClassVar[dict[str, Any]] = {}
    takes_views: bool = True
    takes_labels: bool = False
    without_parts: ClassVar[str] = "Take simcse with --head none, bert-ct, ct-in-batch, consert or declutr."
    accepts_loss_kwargs = False  # the loss is a mean over its batch, so the Trainer must divide it under accumulation

    def __init__(self, encoder: Encoder) -> None:
        if not isinstance(encoder, Encoder):
            raise InputError(f"A method needs an Encoder, not {described(encoder)}; see Encoder.from_pretrained.")
        super().__init__()
        self.register_state_dict_post_hook(_copy_tied)
        self.encoder = encoder
        self.views: tuple[View, ...] = (PLAIN, PLAIN)
        self.mask_probability = 0.0
        self.hooked: bool | RemovableHandle = False
        self.test_pooling: str | None = None
        self.train_prompts: dict[str, str] = {}
        self.dimensions: tuple[int, ...] = ()

    @property
    def needs_hooks(self) -> bool:
        """Whether training without `MethodCallback` would be wrong: a hook is overridden, a temperature is learned, or
        the collator draws new views or masks in each epoch."""
        overridden = any(getattr(type(self), hook) is not getattr(Method, hook) for hook in HOOKS)
        return overridden or bool(self.learned_temperatures) or self.collator().draws

    @property
    def learned_temperatures(self) -> list[InfoNCE]:
        """The InfoNCE modules that learn their temperature; the callback keeps each in its range."""
        return [module for module in self.modules() if isinstance(module, InfoNCE) and module.learns_temperature]

    def set_dimensions(self, sizes: Sequence[int]) -> None:
        """Trains the first dimensions of the vectors, so that vectors can be cut (Matryoshka, arXiv 2205.13147).

        The loss is the sum over sizes m of the objective on the first m dimensions, cut before they are normalised. A
        masked-word term is added once. The first sizes share their encoder with the whole vector, so each of them
        costs little time. Dimensions behind the largest size are not trained, and the export leaves them out.

        Args:
            sizes: Sizes that fall, such as [256, 128, 64]. Begin with `encoder.dimension` to keep the whole vector.

        Raises:
            InputError: The sizes do not fall, are below 2 or above the encoder's dimension; the method has a head or
                projector between the embeddings and the loss; or `test_pooling` is not the pooling of training.

        Example:
            >>> method = SimCSE(Encoder.from_pretrained("bundled"), head="none")
            >>> method.set_dimensions([256, 128, 64])
            >>> method.describe()["dimensions"]
            [256, 128, 64]
        """
        self.dimensions = checked_sizes(self, sizes)

    def collator(self, seed: int = 42) -> Collator:
        """The collator that makes this method's batches from dataset rows; `seed` is for its views and masks."""
        return Collator(
            self.encoder.tokenizer,
            self.encoder.max_length,
            views=self.views,
            dropout_views=self.encoder.has_dropout,
            reads=Reads.of(self),
            mask_probability=self.mask_probability,
            prompts=Prompts.of(self.encoder, self.train_prompts),
            seed=seed,
        )

    def prepare_corpus(self, dataset: Any) -> Any:
        """Returns the rows that can be trained on; textcl's trainer calls this before anything else."""
        return dataset

    def evaluators(self, dataset: Any, bf16: bool = False) -> list[Any]:
        """The method's own evaluators for training on these rows, which can stop it but choose no checkpoint; with
        `bf16` they embed in bfloat16."""
        return []

    def embed(self, batch: Batch) -> Tensor:
        """Embeds all views of the batch in one call of the encoder, (views · batch, dim)."""
        return self.encoder.embed(batch, views=self.views)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        """Computes the loss and the values that are logged or watched, see `Outputs`.

        Args:
            embeddings: The result of `embed`, (views · batch, dim).
            batch: The batch that the collator made.
        """
        raise NotImplementedError

    def forward(self, **batch: Unpack[Batch]) -> Outputs:
        """The loss of a batch, its terms, and the detached embeddings (views · batch, dim) for diagnostics.

        Raises:
            RuntimeError: If the method is trained without the hooks that it needs.
        """
        if self.training and not self.hooked:
            self.check_hooks()
        batch = on_device(batch, self.encoder.device)
        embeddings = self.embed(batch)
        return {"embeddings": embeddings.detach(), **self._objective_over_sizes(embeddings, batch)}

    def _objective_over_sizes(self, embeddings: Tensor, batch: Batch) -> Outputs:
        """`objective`, or its sum over `dimensions`."""
        if not self.dimensions:
            return self.objective(embeddings, batch)
        return over_sizes(self.objective, embeddings, batch, self.dimensions)

    def check_hooks(self) -> None:
        """Raises if the method needs its hooks; `forward` calls this in training if there is no `MethodCallback`."""
        if self.needs_hooks:
            raise RuntimeError(
                f"{type(self).__name__} needs its hooks: pass callbacks=[textcl.MethodCallback()] to the Trainer."
            )

    def on_fit_start(self, dataset: Any, batch_size: int) -> None:
        """Called once before the first step of a run, not after a resume.

        Args:
            dataset: The training rows.
            batch_size: Number of rows of a batch over all ranks.
        """
        try:
            rows = len(dataset)
        except TypeError:  # a stream, which the plain trainer takes
            return
        self.check_sizes(rows, batch_size)

    def check_sizes(self, rows: int, batch_size: int) -> None:
        """Warns of sizes that a corpus of so many rows, or a batch over all ranks, cannot fill."""

    def before_optimizer_step(self, step: int) -> None:
        """Called when gradients are final, before the optimizer step; `step` steps were done before."""

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        """Called once after each optimizer step that was not skipped.

        Args:
            step: Number of steps done.
            total: Number of steps in the whole run.
            keys: The `keys` that `objective` returned since the previous step, one tensor per micro-batch.
        """

    @property
    def learning_rate_factors(self) -> dict[str, float]:
        """Factors of the learning rate by name of the child module; a module without an entry has factor 1."""
        return {}

    def param_groups(
        self, learning_rate: float, weight_decay: float = 0.0, decayed: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """The trained parameters as optimizer groups, one group for each pair of learning rate and weight decay.

        Args:
            learning_rate: Learning rate of parameters without a factor.
            weight_decay: Weight decay of the parameters named in `decayed`; the others have none.
            decayed: Names of the parameters with weight decay.
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
        """Called at each evaluation with the index of the candidate that scored best."""

    @property
    def exported(self) -> Encoder:
        """The encoder that is evaluated and exported: the same weights, with `test_pooling`, and without dimensions
        that were not trained."""
        return self._at_test(self.encoder)

    def _at_test(self, encoder: Encoder) -> Encoder:
        """One of the method's encoders as it is evaluated and exported."""
        if not self.dimensions:
            return encoder.with_(pooling=self.test_pooling)
        check_test_pooling(self)
        whole = self.dimensions[0] == encoder.dimension
        return encoder.with_() if whole else with_first_dimensions(encoder, self.dimensions[0])

    def encode(self, texts: list[str], **options: Any) -> Any:
        """Embeds texts with the encoder that would be exported now, see `Encoder.encode`."""
        return self.exported.encode(texts, **options)

    def describe(self) -> dict[str, Any]:
        """The facts about the exported encoder that a result records, see `Encoder.describe`, and `dimensions`."""
        return {**self.exported.describe(), **({"dimensions": list(self.dimensions)} if self.dimensions else {})}

    def export(self, path: str | Path, *, card: str | None = None) -> Path:
        """Writes the trained encoder as a sentence-transformers directory, see `Encoder.save`.

        Args:
            path: The directory. An existing one is replaced if it is empty, or a model directory and nothing else.
            card: Text of the model card; default: a short one that names the method and its paper.
        """
        exported = self.exported
        cited = [paper for paper in (self.paper, PAPER if self.dimensions else "") if paper]
        sections = {"Citation": "\n".join(f"- {paper}" for paper in cited)} if cited else {}
        tags = [self.name] if self.name else []
        own = model_card(self.describe(), exported.settings(), source=exported.source, tags=tags, sections=sections)
        return exported.save(path, card=card or own)

    def gradient_cache_enable(self) -> None:
        """Makes every encoder keep only embeddings and recompute activations, slice by slice, in backward.

        Backward first computes the gradient of the loss with respect to the embeddings, then recomputes each slice with
        the same random numbers. A batch then needs the memory of one slice (Gao et al. 2021, GradCache, arXiv
        2101.06983). Loss and gradients stay the same, and the cost is one more forward pass. The trainer calls this for
        `gradient_cache`.
        """
        for encoder in self._encoders:
            encoder.slicing.gradient_cache = True

    def compile_layers(self) -> None:
        """Compiles the layers of every encoder, see `textcl.encoder.backbone.compile_layers`."""
        for encoder in self._encoders:
            compile_layers(encoder.backbone)

    def halve_slices(self) -> bool:
        """Halves the slices of each encoder; returns False, and does nothing, if a slice may hold one row only."""
        if any(encoder.tokens_at_a_time < 2 * encoder.max_length for encoder in self._encoders):
            return False
        for encoder in self._encoders:
            encoder.slicing.token_budget = encoder.tokens_at_a_time // 2
        return True

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Trades compute for memory in every backbone; the Trainer calls this for `--gradient-checkpointing`."""
        for encoder in self._encoders:
            encoder.backbone.gradient_checkpointing_enable(**options)

    @property
    def _encoders(self) -> list[Encoder]:
        """All encoders that the method owns, towers and targets included."""
        return [module for module in self.modules() if isinstance(module, Encoder)]


def _copy_tied(module: nn.Module, weights: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Of a tensor with several names, which safetensors refuses, gives each further name a copy.

    T5 and BART have the same table of word vectors under several names.
    """
    seen: set[int] = set()
    for name, value in weights.items():
        if value.data_ptr() in seen:
            weights[name] = value.clone()
        seen.add(value.data_ptr())
