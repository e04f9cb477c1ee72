"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., ICML 2020), on text."""

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.encoder import Encoder
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.modules.info_nce import InfoNCE


class SimCLR(Method):
    """Each view of a text finds the other one among both views of the whole batch, arXiv 2002.05709.

    NT-Xent (eq. 1) behind a projector, FC-BN-ReLU-FC, which both views pass together. It differs from SimCSE by the
    negatives, which are the rows of both views, by both directions, and by the projector. Algorithm 1 takes the mean
    over the 2N rows, and so do we; the authors' code has twice that.

    Args:
        encoder: What the projector reads is what is exported.
        first_view: See `textcl.views`. Two plain views differ by dropout.
        second_view: Likewise.
        temperature: τ; 0.1 with the large batches of the paper, 0.5 with small ones (table 5, on images).
        projection_dimension: What the projector gives (section 4.2: 128; larger ones change little).
        hidden_dimension: Of the projector; None: the encoder's.
        mask_duplicates: Leave rows with the same text out of each other's negatives; the paper does not.

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

    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: float = 0.1,
        projection_dimension: int = 128,
        hidden_dimension: int | None = None,
        mask_duplicates: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view)
        hidden = hidden_dimension or encoder.dimension
        self.projector = mlp([encoder.dimension, hidden, projection_dimension]).to(encoder.device)
        self.info_nce = InfoNCE(temperature, topology="nt_xent", mask_duplicates=mask_duplicates)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = self.projector(embeddings).chunk(2)
        return {"loss": self.info_nce(first, second, text_id=batch["text_id"])}
