"""CLEAR: Contrastive Learning for Sentence Representation (Wu et al. 2020, arXiv 2012.15466)."""

from typing import Literal

from torch import Tensor

from textcl.collator.batch import Batch, holds_pairs
from textcl.encoder import Encoder
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.modules.info_nce import InfoNCE
from textcl.modules.masked_language_model import MaskedLanguageModelHead
from textcl.ranges import NotNegative, Positive, PositiveShare, TwoOrMore, checked


class CLEAR(Method):
    """NT-Xent on two views of a text with deleted, reordered or substituted tokens, plus a masked-word loss.

    Eq. 1 is NT-Xent behind a projection head, eq. 2 its sum over all pairs; the masked-word loss is added. The paper
    trains an encoder from scratch on its own corpus; this class continues training from any encoder. The authors
    published no code, so temperature, rates of the views, weight of the masked-word term and shape of the head are
    unverified. Masked words are predicted in a copy of each view as it was before its operators.

    Args:
        encoder: The encoder that is trained and exported; the paper pools with [CLS].
        first_view: The first view of a text: operators word_deletion, span_deletion, reordering and substitution (from
            WordNet), joined by plus signs to apply several in order. See textcl.views.view for all views.
        second_view: The second view of a text; the paper uses the same operators as in the first.
        temperature: Softmax temperature τ: lower makes hard negatives count more. The default is unverified.
        projection_dimension: Output dimension of the train-only head; 128 as in SimCLR, unverified.
        reduction: "sum": add the loss over the pairs (eq. 2); "mean": average it.
        mlm_weight: Weight of the masked-word term; 0: no such term.
        mlm_probability: Share of the tokens that are masked for the masked-word term.
        mask_duplicates: Do not use rows with the same text, nor pairs that share one of their texts, as each other's
            negatives. None: yes for pairs, no for single texts; the paper uses all of them.

    Example:
        >>> method = CLEAR(Encoder.from_pretrained("bundled", pooling="cls"), "span_deletion+reordering", "reordering")
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> sorted(method.eval()(**batch))
        ['contrastive', 'embeddings', 'loss', 'mlm']
    """

    name = "clear"
    family = "negatives"
    paper = (
        "Wu, Wang, Gu, Khabsa, Sun and Ma (2020). CLEAR: Contrastive Learning for Sentence Representation. arXiv "
        "2012.15466"
    )

    option_needs = {"mlm_probability": ("mlm_weight",)}  # noqa: RUF012

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "word_deletion",
        second_view: str = "word_deletion",
        temperature: Positive = 0.1,
        projection_dimension: TwoOrMore = 128,
        reduction: Literal["mean", "sum"] = "sum",
        mlm_weight: NotNegative = 1.0,
        mlm_probability: PositiveShare = 0.15,
        mask_duplicates: bool | None = None,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view)
        dimension = encoder.dimension
        self.head = mlp([dimension, dimension, projection_dimension], batch_norm=False).to(encoder.device)
        self.info_nce = InfoNCE(temperature, topology="nt_xent", reduction=reduction, mask_duplicates=mask_duplicates)
        self.mlm_weight = mlm_weight
        self.mask_probability = mlm_probability if mlm_weight else 0.0
        self.mlm_head = MaskedLanguageModelHead.from_encoder(encoder).to(encoder.device) if mlm_weight else None

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = self.head(embeddings).chunk(2)
        loss = self.info_nce(first, second, text_id=batch["text_id"], pairs=holds_pairs(batch))
        if self.mlm_head is None:
            return {"loss": loss}
        mlm = self.mlm_head.on_copies(self.encoder, batch)
        return {"loss": loss + self.mlm_weight * mlm, "contrastive": loss.detach(), "mlm": mlm.detach()}
