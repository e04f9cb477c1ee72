"""What later papers put on unsupervised SimCSE, one option each, in any combination."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from textcl.batching import input_names, on_host, row_lengths, to_device
from textcl.distributed import broadcast, gather, mean, rank, row_counts
from textcl.encoder import DenseTanh, Encoder
from textcl.errors import InputError
from textcl.losses.info_nce import info_nce
from textcl.losses.ranking import jensen_shannon, list_mle, list_net
from textcl.losses.redundancy import barlow_twins
from textcl.methods.method import Batch, Method, rows_of_view, where_views_are
from textcl.modules.info_nce import InfoNCE
from textcl.modules.queue import Queue
from textcl.modules.target import Target
from textcl.views import View
from textcl.views.model_side import template_alone


class SimCSEPlus(Method):
    """Unsupervised SimCSE (see `SimCSE`) with the changes of later papers; without options it is SimCSE.

    Published averages over the seven STS tasks are those with BERT-base, where SimCSE has 76.25.

    - ESimCSE (Wu et al. 2022, arXiv 2109.04380; 78.27): `second_view="repetition"`, `queue_size=160`. Texts of earlier
      batches are negatives as well, as a momentum encoder without dropout saw them.
    - Smoothed InfoNCE (Wu et al. 2022, arXiv 2109.04321; 77.63): `noise_negatives`, random directions as negatives.
    - PromptBERT (Jiang et al. 2022, arXiv 2201.04337; 78.54 ± 0.15): pooling mask_token, `template`s, and
      `denoise_templates`, which takes what a template says without a text from each embedding, in training (§3.3).
    - SimCSE++ (Xu et al. 2023, arXiv 2305.13192; 1.8 more than SimCSE): `off_dropout_negatives`, the other texts as
      seen without dropout, in place of the other keys; `dimension_weight`, InfoNCE between dimensions of the two views.
    - SCD (Klein and Nabi 2022, arXiv 2203.07847; 74.19, without InfoNCE): `decorrelation_weight`, Barlow Twins' term.
    - RankCSE (Liu et al. 2023, arXiv 2305.16726; 80.36 with two stronger teachers): `ranking_weight`, the order in
      which a teacher sees the other texts; `consistency_weight`, the two views' divergence over them.

    Temperatures of the further terms, and the weights that go with them, are unverified.

    Args:
        encoder: SimCSE pools [CLS], PromptBERT mask_token.
        first_view: See `textcl.views`. Two plain views differ by dropout.
        second_view: Likewise.
        temperature: τ of the contrastive term.
        queue_size: Texts remembered; 0: none.
        queue_momentum: Of the momentum encoder.
        noise_negatives: Random directions a batch.
        template: What a text stands in, such as 'This sentence of "{text}" means [MASK].'; exported as default prompt.
        second_template: That of the second view; None: the same.
        denoise_templates: See above.
        off_dropout_negatives: See above.
        dimension_weight: Of the term between dimensions.
        dimension_temperature: Of that term.
        decorrelation_weight: Of Barlow Twins' term.
        off_diagonal_weight: λ of that term.
        ranking_weight: Of the distillation.
        ranking: Its loss.
        ranking_temperature: Of the student's and the teacher's scores.
        consistency_weight: Of the divergence between the two views.
        teacher: An encoder, as `Encoder.from_pretrained` takes it, for the distillation.
        mask_duplicates: Leave rows with the same text out of each other's negatives; the papers do not.
        chunk_size: Rows and columns of a tile of the similarity matrix; None: tiles from 4,096 × 4,096 scores on.

    Raises:
        InputError: For options that do not go together.

    Example:
        >>> method = SimCSEPlus(Encoder.from_pretrained("bundled", pooling="cls"), noise_negatives=64)
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method(**batch)["loss"].shape
        torch.Size([])
    """

    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: float = 0.05,
        queue_size: int = 0,
        queue_momentum: float = 0.995,
        noise_negatives: int = 0,
        template: str | None = None,
        second_template: str | None = None,
        denoise_templates: bool = False,
        off_dropout_negatives: bool = False,
        dimension_weight: float = 0.0,
        dimension_temperature: float = 0.05,
        decorrelation_weight: float = 0.0,
        off_diagonal_weight: float = 0.012,
        ranking_weight: float = 0.0,
        ranking: Literal["list_mle", "list_net"] = "list_mle",
        ranking_temperature: float = 0.05,
        consistency_weight: float = 0.0,
        teacher: str | None = None,
        mask_duplicates: bool = False,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(encoder)
        if template is None and (second_template or denoise_templates):
            raise InputError("second_template and denoise_templates want a template.")
        if bool(ranking_weight) != bool(teacher):
            raise InputError("ranking_weight and teacher go together: the one says how much of the other.")
        self.views = encoder.prepare_views(first_view, second_view)
        if template is not None:
            encoder.prompts, encoder.default_prompt_name = {**encoder.prompts, "template": template}, "template"
            templates = (encoder.template(template), encoder.template(second_template or template))
            self.views = tuple(replace(view, template=of) for view, of in zip(self.views, templates, strict=True))
        self.head = DenseTanh(encoder.dimension).to(encoder.device)
        self.target = Target(encoder, self.head, dropout=False) if queue_size else None
        self.queue = Queue(queue_size, encoder.dimension).to(encoder.device)
        self.info_nce = InfoNCE(
            temperature,
            hard_negative_log_weight=-torch.inf if off_dropout_negatives else 0.0,
            keys_are_negatives=not off_dropout_negatives,
            mask_duplicates=mask_duplicates,
            chunk_size=chunk_size,
        )
        self.queue_momentum = queue_momentum
        self.noise_negatives = noise_negatives
        self.denoise_templates = denoise_templates
        self.off_dropout_negatives = off_dropout_negatives
        self.dimension_weight = dimension_weight
        self.dimension_temperature = dimension_temperature
        self.decorrelation_weight = decorrelation_weight
        self.off_diagonal_weight = off_diagonal_weight
        self.ranking_weight = ranking_weight
        self.ranking = {"list_mle": list_mle, "list_net": list_net}[ranking]
        self.ranking_temperature = ranking_temperature
        self.consistency_weight = consistency_weight
        self.teacher = teacher

    @property
    def needs_hooks(self) -> bool:
        return super().needs_hooks or self.target is not None

    def prepare_corpus(self, dataset: Any) -> Any:
        """Adds what the teacher makes of each text."""
        if self.teacher is None:
            return dataset
        embeddings = Encoder.from_pretrained(self.teacher).encode(list(dataset["text"]), normalize=True)
        return dataset.add_column("teacher", list(embeddings))

    def embed(self, batch: Batch) -> Tensor:
        embeddings = self._embed(batch, self.encoder.embed)
        if self.off_dropout_negatives:
            without = self._embed(rows_of_view(batch, 0), partial(self.encoder.embed, dropout=False))
            embeddings = torch.cat([embeddings, without])
        return embeddings

    def objective(self, embeddings: Tensor, batch: Batch) -> dict[str, Tensor]:
        rows = where_views_are(batch)[0].stop
        first, second, *without_dropout = self.head(embeddings).split(rows)
        ids = batch["text_id"][: 2 * rows]
        terms = {
            "contrastive": self.info_nce(
                first,
                second,
                hard_negatives=without_dropout[0] if without_dropout else None,
                extra_negatives=self._further_negatives(first),
                text_id=torch.cat([ids, ids[:rows]]) if without_dropout else ids,
            )
        }
        if self.dimension_weight or self.decorrelation_weight:
            all_first, all_second = gather(first), gather(second)
        if self.dimension_weight:
            term = info_nce(all_first.T, all_second.T, temperature=self.dimension_temperature)
            terms["dimension"] = self.dimension_weight * term / first.shape[1]
        if self.decorrelation_weight:
            term = barlow_twins(all_first, all_second, self.off_diagonal_weight)
            terms["decorrelation"] = self.decorrelation_weight * term
        if self.consistency_weight or self.ranking_weight:
            scores = self._scores(first, second)
        if self.consistency_weight:
            term = jensen_shannon(scores, self._scores(second, first))
            terms["consistency"] = self.consistency_weight * mean(term, rows)
        if self.ranking_weight:
            term = self.ranking(scores, self._scores(batch["teacher"], batch["teacher"]))
            terms["ranking"] = self.ranking_weight * mean(term, rows)
        outputs = {name: term.detach() for name, term in terms.items()}
        outputs["embeddings"] = embeddings[: len(batch["view"])].detach()
        if self.target is not None:
            outputs["keys"] = self.target.projector(self._embed(rows_of_view(batch, 0), self.target.embed))
        return {"loss": torch.stack(list(terms.values())).sum(), **outputs}

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        if self.target is not None:
            self.target.update(self.encoder, self.head, self.queue_momentum)
        for of_batch in keys:
            self.queue.push(of_batch)

    def _further_negatives(self, like: Tensor) -> Tensor | None:
        """The queue and the noise, (any number, dim), the same on all ranks."""
        noise = torch.randn(self.noise_negatives, like.shape[1], dtype=like.dtype, device=like.device)
        broadcast(noise)
        negatives = torch.cat([self.queue.read().to(like.dtype), noise])
        return negatives if len(negatives) else None

    def _scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Cosines of this rank's rows with all others of all ranks, over a temperature, (rows, all rows − 1)."""
        counts = row_counts(rows)
        dtype = torch.promote_types(rows.dtype, torch.float32)
        rows, columns = normalize(rows.to(dtype)), normalize(columns.to(dtype))
        own = sum(counts[: rank()]) + torch.arange(len(rows), device=rows.device)
        with torch.autocast(rows.device.type, enabled=False):
            scores = rows @ gather(columns, counts).T / self.ranking_temperature
        others = torch.arange(scores.shape[1] - 1, device=rows.device).expand(len(rows), -1)
        return scores.gather(1, others + (others >= own[:, None]))

    def _embed(self, batch: Batch, embed: Callable[..., Tensor]) -> Tensor:
        """Embeddings, less what their template says alone if asked, which depends on the view and the text's length."""
        if not self.denoise_templates:
            return embed(batch, views=self.views)
        alone = [
            View(model_operators=(("template_alone", partial(template_alone, before=before, behind=behind)),))
            for before, behind in (view.template.edges for view in self.views if view.template)
        ]
        view, lengths = on_host(batch["view"]), row_lengths(batch)
        _, which = torch.stack([view, lengths], dim=1).unique(dim=0, return_inverse=True)
        example = torch.zeros(int(which.max()) + 1, dtype=torch.long)
        example[which] = torch.arange(len(which))
        rows = to_device(torch.cat([torch.arange(len(which)), example]), self.encoder.device)
        both = {name: batch[name][rows] for name in input_names(self.encoder.tokenizer) if name in batch}
        both["view"] = torch.cat([view, view[example] + len(self.views)])
        both["lengths"] = torch.cat([lengths, lengths[example]])
        embeddings, biases = embed(both, views=[*self.views, *alone]).tensor_split([len(which)])
        return embeddings - biases[to_device(which, self.encoder.device)]
