"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., ICML 2020), on text."""

from torch import Tensor

from textcl.collator.batch import Batch, holds_pairs
from textcl.encoder import Encoder
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.modules.info_nce import InfoNCE
from textcl.ranges import Count, Positive, TwoOrMore, checked


class SimCLR(Method):
    """Each view of a text must find the text's other view among both views of the batch, arXiv 2002.05709.

    NT-Xent (eq. 1) behind a projector, FC-BN-ReLU-FC, which both views pass together. It differs from SimCSE in three
    things: the negatives are the rows of both views, both directions are trained, and there is a projector. Algorithm 1
    takes the mean over the 2N rows, and so do we; the authors' code computes twice that.

    Args:
        encoder: The encoder that is trained and exported. The projector, a train-only head, reads its embeddings.
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        temperature: Softmax temperature τ: lower makes hard negatives count more. The paper uses 0.1 with its large
            batches and 0.5 with small ones (table 5, on images).
        projection_dimension: Output dimension of the projector (section 4.2: 128; larger ones change little), as in the
            standard run.
        hidden_dimension: Hidden dimension of the projector; None: the encoder's dimension.
        mask_duplicates: Do not use rows with the same text, nor pairs that share one of their texts, as each other's
            negatives. None: yes for pairs, no for single texts; the paper uses all of them.

    Example:
        >>> method = SimCLR(Encoder.from_pretrained("bundled"), second_view="token_cutoff")
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method(**batch)["loss"].shape
        torch.Size([])
    """

    name = "simclr"
    family = "negatives"
    needs = "sentences or pairs"
    paper = (
        "Chen, Kornblith, Norouzi and Hinton (2020). A Simple Framework for Contrastive Learning of Visual "
        "Representations. ICML. arXiv 2002.05709"
    )

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: Positive = 0.1,
        projection_dimension: TwoOrMore = 128,
        hidden_dimension: Count | None = None,
        mask_duplicates: bool | None = None,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view)
        hidden = hidden_dimension or encoder.dimension
        self.projector = mlp([encoder.dimension, hidden, projection_dimension]).to(encoder.device)
        self.info_nce = InfoNCE(temperature, topology="nt_xent", mask_duplicates=mask_duplicates)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = self.projector(embeddings).chunk(2)
        return {"loss": self.info_nce(first, second, text_id=batch["text_id"], pairs=holds_pairs(batch))}
