"""Extensions of unsupervised SimCSE from later papers, one option each, in any combination."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from textcl.collator.batch import Batch, holds_pairs, rows_of_view, where_views_are
from textcl.collator.collator import Collator
from textcl.data.training import whole_corpus
from textcl.device import to_device
from textcl.distributed import broadcast, gather, mean, rank, row_counts
from textcl.encoder import Encoder
from textcl.encoder.batching import on_host, row_lengths
from textcl.encoder.load import ModelPath
from textcl.encoder.pooling import DenseTanh
from textcl.errors import InputError
from textcl.losses.info_nce import unit_rows
from textcl.losses.ranking import jensen_shannon, list_mle, list_net
from textcl.losses.redundancy import barlow_twins, dimension_contrast
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import check_dimensions, mlp
from textcl.modules.info_nce import InfoNCE
from textcl.modules.queue import Queue
from textcl.modules.target import Target
from textcl.ranges import NotNegative, Positive, Share, ZeroOrMore, checked
from textcl.tokenising import INPUTS
from textcl.views.model_side import template_alone
from textcl.views.template import Template
from textcl.views.view import View

_ESIMCSE = (
    "Wu, Gao, Zang, Han, Wang and Hu (2022). ESimCSE: Enhanced Sample Building Method for Contrastive Learning of "
    "Unsupervised Sentence Embedding. COLING. arXiv 2109.04380"
)
_SMOOTHED = (
    "Wu, Gao, Su, Han, Wang and Hu (2022). Smoothed Contrastive Learning for Unsupervised Sentence Embedding. COLING. "
    "arXiv 2109.04321"
)
_PROMPTBERT = (
    "Jiang et al. (2022). PromptBERT: Improving BERT Sentence Embeddings with Prompts. EMNLP. arXiv 2201.04337"
)
_SIMCSE_PLUS_PLUS = (
    "Xu, Shao, Chen and Liu (2023). SimCSE++: Improving Contrastive Learning for Sentence Embeddings from Two "
    "Perspectives. EMNLP. arXiv 2305.13192"
)
_SCD = "Klein and Nabi (2022). SCD: Self-Contrastive Decorrelation of Sentence Embeddings. ACL. arXiv 2203.07847"
_RANKCSE = (
    "Liu et al. (2023). RankCSE: Unsupervised Sentence Representations Learning via Learning to Rank. ACL. "
    "arXiv 2305.16726"
)


class SimCSEPlus(Method):
    """Unsupervised SimCSE (see `SimCSE`) with extensions from later papers; without options it is SimCSE.

    The scores are the published averages over the seven STS tasks with BERT-base, where SimCSE has 76.25.

    - ESimCSE (Wu et al. 2022, arXiv 2109.04380; 78.27): `second_view="repetition"`, `queue_size=160`. Texts of earlier
      batches, embedded by a momentum encoder without dropout, are further negatives.
    - Smoothed InfoNCE (Wu et al. 2022, arXiv 2109.04321; 77.63): `noise_negatives`, random directions as negatives.
    - PromptBERT (Jiang et al. 2022, arXiv 2201.04337; 78.54 ± 0.15): pooling mask_token, `template`s, and
      `denoise_templates`, which subtracts the embedding of the empty template from each embedding in training (§3.3).
    - SimCSE++ (Xu et al. 2023, arXiv 2305.13192; 1.8 more than SimCSE): `off_dropout_negatives`, negatives whose both
      sides are embedded without dropout, in place of the other keys; `dimension_weight`, InfoNCE between the
      standardised dimensions of the two views.
    - SCD (Klein and Nabi 2022, arXiv 2203.07847; 74.19, without InfoNCE): `decorrelation_weight`, Barlow Twins' term
      behind a projector of its own.
    - RankCSE (Liu et al. 2023, arXiv 2305.16726; 80.36 with two stronger teachers): `ranking_weight`, to rank the other
      texts as a teacher does; `consistency_weight`, to rank them alike in both views.

    The temperatures and weights of these terms are unverified.

    Args:
        encoder: The encoder that is trained and exported; SimCSE pools with cls, PromptBERT with mask_token.
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        temperature: Softmax temperature τ of the contrastive term: lower makes hard negatives count more.
        queue_size: Number of embeddings of earlier batches that are further negatives (ESimCSE); 0: none.
        queue_momentum: Momentum of the copy of the encoder that makes the queue's embeddings: higher makes it follow
            the encoder more slowly.
        noise_negatives: Number of random directions per batch that are further negatives (smoothed InfoNCE).
        template: The template that a text is put into, such as 'This sentence of "{text}" means [MASK].'; exported as
            default prompt (PromptBERT).
        second_template: The template of the second view; None: the same.
        denoise_templates: Subtract the embedding of the template without a text from each embedding, in training
            (PromptBERT).
        off_dropout_negatives: Compare a text with the other texts without dropout on either side, in place of the other
            keys (SimCSE++). The positives are the two views with dropout.
        dimension_weight: Weight of InfoNCE between the dimensions of the two views (SimCSE++); 0.1 in the authors'
            code, 0: no such term.
        dimension_temperature: Softmax temperature of InfoNCE between dimensions, which divides their correlations: 5 in
            the authors' code with negatives without dropout, 10 without.
        decorrelation_weight: Weight of Barlow Twins' term (SCD); 0: no such term.
        decorrelation_dimension: Output dimension of each of the three layers of the projector of Barlow Twins' term
            (SCD), which reads the embeddings; 4096 in the authors' code with batches of 192. 0: no projector, the term
            reads the outputs of the MLP.
        off_diagonal_weight: Weight λ of the off-diagonal elements in Barlow Twins' term: higher makes the dimensions
            less correlated.
        ranking_weight: Weight of the term that learns the teacher's ranking of the other texts (RankCSE); 0: no such
            term.
        ranking: Loss of the ranking term: "list_mle" or "list_net".
        ranking_temperature: Temperature that divides the cosines in the ranking and consistency terms.
        consistency_weight: Weight of the divergence between the two views' rankings (RankCSE); 0: no such term.
        teacher: The encoder whose ranking is learned: a name or directory that `Encoder.from_pretrained` takes.
        mask_duplicates: Do not use rows with the same text, nor pairs that share one of their texts, as each other's
            negatives. None: yes for pairs, no for single texts; the papers use all of them.

    Raises:
        InputError: If options do not go together.

    Example:
        >>> method = SimCSEPlus(Encoder.from_pretrained("bundled", pooling="cls"), noise_negatives=64)
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method.eval()(**batch)["loss"].shape
        torch.Size([])
    """

    name = "simcse-plus"
    family = "negatives"
    paper = (
        "Gao, Yao and Chen (2021). SimCSE: Simple Contrastive Learning of Sentence Embeddings. EMNLP. arXiv 2104.08821"
    )

    option_papers = {  # noqa: RUF012
        "queue_size": _ESIMCSE,
        "noise_negatives": _SMOOTHED,
        "template": _PROMPTBERT,
        "off_dropout_negatives": _SIMCSE_PLUS_PLUS,
        "dimension_weight": _SIMCSE_PLUS_PLUS,
        "decorrelation_weight": _SCD,
        "teacher": _RANKCSE,
    }

    option_needs = {  # noqa: RUF012
        "queue_momentum": ("queue_size",),
        "dimension_temperature": ("dimension_weight",),
        "decorrelation_dimension": ("decorrelation_weight",),
        "off_diagonal_weight": ("decorrelation_weight",),
        "ranking": ("ranking_weight",),
        "ranking_temperature": ("ranking_weight", "consistency_weight"),
    }

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: Positive = 0.05,
        queue_size: ZeroOrMore = 0,
        queue_momentum: Share = 0.995,
        noise_negatives: ZeroOrMore = 0,
        template: str | None = None,
        second_template: str | None = None,
        denoise_templates: bool = False,
        off_dropout_negatives: bool = False,
        dimension_weight: NotNegative = 0.0,
        dimension_temperature: Positive = 5.0,
        decorrelation_weight: NotNegative = 0.0,
        decorrelation_dimension: ZeroOrMore = 4096,
        off_diagonal_weight: NotNegative = 0.012,
        ranking_weight: NotNegative = 0.0,
        ranking: Literal["list_mle", "list_net"] = "list_mle",
        ranking_temperature: Positive = 0.05,
        consistency_weight: NotNegative = 0.0,
        teacher: ModelPath | None = None,
        mask_duplicates: bool | None = None,
    ) -> None:
        super().__init__(encoder)
        if template is None and (second_template or denoise_templates):
            raise InputError("second_template and denoise_templates need a template: set template too.")
        if bool(ranking_weight) != bool(teacher):
            raise InputError("ranking_weight and teacher need each other: set both or neither.")
        self.views = encoder.prepare_views(first_view, second_view)
        if template is not None:
            encoder.prompts, encoder.default_prompt_name = {**encoder.prompts, "template": template}, "template"
            templates = [
                Template(of, encoder.tokenizer, encoder.max_length) for of in (template, second_template or template)
            ]
            self.views = tuple(replace(view, template=of) for view, of in zip(self.views, templates, strict=True))
        self.head = DenseTanh(encoder.dimension).to(encoder.device)
        self.projector: nn.Module | None = None
        if decorrelation_weight and (width := decorrelation_dimension):
            self.projector = mlp([encoder.dimension, width, width, width], last="no_bias").to(encoder.device)
        self.target = Target(encoder, self.head, dropout=False) if queue_size else None
        self.queue = Queue(queue_size, encoder.dimension).to(encoder.device)
        self.info_nce = InfoNCE(
            temperature,
            similarity="dot" if off_dropout_negatives else "cosine",  # `_off_dropout` normalises
            hard_negative_log_weight=-torch.inf if off_dropout_negatives else 0.0,
            keys_are_negatives=not off_dropout_negatives,
            mask_duplicates=mask_duplicates,
        )
        self.queue_momentum = queue_momentum
        self.noise_negatives = noise_negatives
        self.denoise_templates = denoise_templates
        self.off_dropout_negatives = off_dropout_negatives
        self.dimension_weight = dimension_weight
        self.dimension_temperature = dimension_temperature
        self.decorrelation_weight = decorrelation_weight
        self.decorrelation_dimension = decorrelation_dimension
        self.off_diagonal_weight = off_diagonal_weight
        self.ranking_weight = ranking_weight
        self.ranking = {"list_mle": list_mle, "list_net": list_net}[ranking]
        self.ranking_temperature = ranking_temperature
        self.consistency_weight = consistency_weight
        self.teacher = teacher

    def prepare_corpus(self, dataset: Any) -> Any:
        """Puts the teacher's embedding of each text into a column `teacher`."""
        if self.teacher is None:
            return dataset
        dataset = whole_corpus(dataset, "RankCSE")
        embeddings = Encoder.from_pretrained(self.teacher).encode(list(dataset["text"]), normalize=True)
        if "teacher" in dataset.column_names:  # of an earlier call
            dataset = dataset.remove_columns("teacher")
        return dataset.add_column("teacher", list(embeddings))

    def collator(self, seed: int = 42) -> Collator:
        collator = super().collator(seed)
        collator.reads_teacher = self.ranking_weight > 0
        return collator

    def check_sizes(self, rows: int, batch_size: int) -> None:
        self.queue.check_size(rows, batch_size)
        if self.projector is not None:
            check_dimensions("--decorrelation-dimension", self.decorrelation_dimension, batch_size)

    def embed(self, batch: Batch) -> Tensor:
        embeddings = self._embed(batch, self.encoder.embed)
        if self.off_dropout_negatives:
            without = self._embed(rows_of_view(batch, 0), partial(self.encoder.embed, dropout=False))
            embeddings = torch.cat([embeddings, without])
        return embeddings

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        rows = where_views_are(batch)[0].stop
        first, second, *without_dropout = self.head(embeddings).split(rows)
        terms = {"contrastive": self._contrastive(first, second, without_dropout, batch)}
        if self.dimension_weight:
            terms["dimension"] = self.dimension_weight * self._between_dimensions(first, second)
        if self.decorrelation_weight:
            read = (first, second) if self.projector is None else map(self.projector, embeddings.split(rows)[:2])
            terms["decorrelation"] = self.decorrelation_weight * self._decorrelation(*read)
        if self.consistency_weight or self.ranking_weight:
            scores = self._scores(first, second)
        if self.consistency_weight:
            terms["consistency"] = self.consistency_weight * self._consistency(scores, first, second)
        if self.ranking_weight:
            if "teacher" not in batch:
                raise InputError("RankCSE needs the teacher's vectors; train on method.prepare_corpus(dataset).")
            terms["ranking"] = self.ranking_weight * self._ranking(scores, batch["teacher"])
        outputs = cast(Outputs, {name: term.detach() for name, term in terms.items()})
        outputs["embeddings"] = embeddings[: len(batch["view"])].detach()
        if self.target is not None:
            outputs["keys"] = self.target.projector(self._embed(rows_of_view(batch, 0), self.target.embed))
        outputs["loss"] = torch.stack(list(terms.values())).sum()
        return outputs

    # SimCSE's term (Gao et al. 2021, eq. 4), and the further negatives of three papers

    def _contrastive(self, first: Tensor, second: Tensor, without_dropout: list[Tensor], batch: Batch) -> Tensor:
        """InfoNCE between the two views, each (batch, dim).

        Negatives are the other keys or, in SimCSE++, the other texts without dropout. Further negatives are the rows of
        the queue (ESimCSE, Wu et al. 2022, §3.2) and random noise (smoothed InfoNCE, Wu et al. 2022).
        """
        noise = torch.randn(self.noise_negatives, first.shape[1], dtype=first.dtype, device=first.device)
        broadcast(noise)
        further = torch.cat([self.queue.read().to(first.dtype), noise])
        if without_dropout:
            return self._off_dropout(first, second, without_dropout[0], further, batch)
        negatives = further if len(further) else None
        ids, pairs = batch["text_id"], holds_pairs(batch)
        return self.info_nce(first, second, extra_negatives=negatives, text_id=ids, pairs=pairs)

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        """ESimCSE: updates the momentum encoder, and pushes its keys of this step into the queue."""
        if self.target is not None:
            self.target.update(self.encoder, self.head, self.queue_momentum)
        for of_batch in keys:
            self.queue.push(of_batch)

    # SimCSE++ (Xu et al. 2023, §3 and §4)

    def _off_dropout(self, first: Tensor, second: Tensor, without: Tensor, further: Tensor, batch: Batch) -> Tensor:
        """InfoNCE with the cosines of the two views as positives, and cosines without dropout as negatives.

        With rows of length 1, the dot product of [first, without] with [second, 0] is the positive, and with
        [0, without] the negative, so that one InfoNCE has both.
        """
        dtype = torch.promote_types(first.dtype, torch.float32)
        first, second, without, further = (unit_rows(rows.to(dtype)) for rows in (first, second, without, further))
        return self.info_nce(
            torch.cat([first, without], dim=1),
            torch.cat([second, torch.zeros_like(second)], dim=1),
            hard_negatives=torch.cat([torch.zeros_like(without), without], dim=1),
            extra_negatives=torch.cat([torch.zeros_like(further), further], dim=1) if len(further) else None,
            text_id=torch.cat([batch["text_id"], batch["text_id"][: len(first)]]),
            pairs=holds_pairs(batch),
        )

    def _between_dimensions(self, first: Tensor, second: Tensor) -> Tensor:
        """InfoNCE over dimensions: each dimension of the first view must find itself in the second view."""
        return dimension_contrast(gather(first), gather(second), self.dimension_temperature)

    # SCD (Klein and Nabi 2022)

    def _decorrelation(self, first: Tensor, second: Tensor) -> Tensor:
        """Barlow Twins' term between the two views."""
        return barlow_twins(gather(first), gather(second), self.off_diagonal_weight)

    # RankCSE (Liu et al. 2023, §3)

    def _consistency(self, scores: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """The Jensen-Shannon divergence between the two views' distributions over the other texts."""
        return mean(jensen_shannon(scores, self._scores(second, first)), len(first))

    def _ranking(self, scores: Tensor, teacher: Tensor) -> Tensor:
        """The distance between the student's and the teacher's order of the other texts."""
        return mean(self.ranking(scores, self._scores(teacher, teacher)), len(scores))

    def _scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Cosines of this rank's rows with all other rows of all ranks, over the temperature, (rows, all rows − 1)."""
        counts = row_counts(rows)
        dtype = torch.promote_types(rows.dtype, torch.float32)
        rows, columns = normalize(rows.to(dtype)), normalize(columns.to(dtype))
        own = sum(counts[: rank()]) + torch.arange(len(rows), device=rows.device)
        with torch.autocast(rows.device.type, enabled=False):
            scores = rows @ gather(columns, counts).T / self.ranking_temperature
        others = torch.arange(scores.shape[1] - 1, device=rows.device).expand(len(rows), -1)
        return scores.gather(1, others + (others >= own[:, None]))

    # PromptBERT (Jiang et al. 2022, §3.3)

    def _embed(self, batch: Batch, embed: Callable[..., Tensor]) -> Tensor:
        """Embeds the rows.

        With `denoise_templates`, subtracts from each row the embedding of the template without a text, computed for the
        same view and the same number of tokens.
        """
        if not self.denoise_templates:
            return embed(batch, views=self.views)
        alone = [
            View(input_operators=(partial(template_alone, before=before, behind=behind),))
            for before, behind in (view.template.edges for view in self.views if view.template)
        ]
        view, lengths = on_host(batch["view"]), row_lengths(batch)
        _, which = torch.stack([view, lengths], dim=1).unique(dim=0, return_inverse=True)
        example = torch.zeros(int(which.max()) + 1, dtype=torch.long)
        example[which] = torch.arange(len(which))
        rows = to_device(torch.cat([torch.arange(len(which)), example]), self.encoder.device)
        read: dict[str, Any] = dict(batch)
        both = {name: read[name][rows] for name in INPUTS if name in read}
        both["view"] = torch.cat([view, view[example] + len(self.views)])
        both["lengths"] = torch.cat([lengths, lengths[example]])
        embeddings, biases = embed(both, views=[*self.views, *alone]).tensor_split([len(which)])
        return embeddings - biases[to_device(which, self.encoder.device)]
