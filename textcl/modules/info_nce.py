"""The InfoNCE module of the methods: holds the temperature, gathers across ranks and takes the global mean."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from textcl import distributed
from textcl.errors import InputError
from textcl.losses.info_nce import NO_ID, Similarity, info_nce, nt_xent
from textcl.ranges import Range

LARGEST_SCALE = 100.0
"""The largest learned 1 / temperature, as in CLIP (Radford et al. 2021, arXiv 2103.00020), section 2.5."""

TILED_FROM = 4096 * 4096
"""Without a chunk size, this many scores or more are computed in tiles, which then is faster and needs less memory."""

TILE = {"cpu": 1024, "cuda": 8192}
"""The rows and columns of such a tile, by type of the device."""


class InfoNCE(nn.Module):
    """InfoNCE over the batch of all ranks; see ``textcl.losses.info_nce`` for the equations.

    Every rank scores its own rows against the columns of all ranks, gathered with gradient. After
    DistributedDataParallel's averaging, loss and gradient are those of one process on the joined batch. Ranks may hold
    different numbers of rows. Gradient accumulation does not enlarge the batch: each micro-batch has its own negatives.

    Args:
        temperature: softmax temperature, which divides the similarities: lower makes hard negatives count more.
        learn_temperature: learn the temperature, starting at ``temperature``, as the logarithm of its inverse (as CLIP
            does), and keep it at 0.01 or more.
        similarity: ``"cosine"`` or ``"dot"``.
        topology: ``"one_way"``, queries against keys and negatives (SimCSE), or ``"nt_xent"``, both views against both
            views, except a row against itself (SimCLR).
        symmetric: for one-way, average with the direction from keys to queries (CLIP), which has no further negatives.
        reduction: ``"mean"`` over the rows of all ranks (both views' rows for NT-Xent), or their ``"sum"``.
        hard_negative_log_weight: added to the score of a row's own hard negative.
        mask_duplicates: do not use rows with the same text as each other's negatives, nor rows of pairs that share one
            of their texts; needs ``text_id`` in ``forward``. None: only where ``forward`` is told that rows are pairs.
        keys_are_negatives: False: only the hard and the extra negatives are negatives (MoCo); only one-way.
        chunk_size: compute the scores in tiles of that many rows and columns: memory is linear in the batch, and scores
            are computed twice. ``None``: in tiles from 4,096 × 4,096 scores on, and at once below.

    Raises:
        InputError: if options do not go together.

    Example:
        >>> loss = InfoNCE(temperature=0.05)(torch.randn(8, 32), torch.randn(8, 32))
    """

    def __init__(
        self,
        temperature: float = 0.05,
        learn_temperature: bool = False,
        similarity: Similarity = "cosine",
        topology: Literal["one_way", "nt_xent"] = "one_way",
        symmetric: bool = False,
        reduction: Literal["mean", "sum"] = "mean",
        hard_negative_log_weight: float = 0.0,
        mask_duplicates: bool | None = False,
        keys_are_negatives: bool = True,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("similarity", similarity, ("cosine", "dot")),
            ("topology", topology, ("one_way", "nt_xent")),
            ("reduction", reduction, ("mean", "sum")),
        ):
            if value not in known:
                raise InputError(f"The {name} of InfoNCE must be {known[0]!r} or {known[1]!r}, not {value!r}.")
        (Range(at_least=1 / LARGEST_SCALE) if learn_temperature else Range(above=0)).check(
            "A learned temperature" if learn_temperature else "temperature", temperature
        )
        if not keys_are_negatives and (topology == "nt_xent" or symmetric):
            raise InputError("keys_are_negatives=False works only one-way: leave out symmetric=True and 'nt_xent'.")
        if topology == "nt_xent" and symmetric:
            raise InputError("NT-Xent is symmetric already: leave out symmetric=True.")
        if chunk_size is not None:
            Range(at_least=1, whole=True).check("chunk_size", chunk_size)
        self.similarity = similarity
        self.topology = topology
        self.symmetric = symmetric
        self.reduction = reduction
        self.hard_negative_log_weight = hard_negative_log_weight
        self.mask_duplicates = mask_duplicates
        self.keys_are_negatives = keys_are_negatives
        self.chunk_size = chunk_size
        self.fixed_temperature = temperature
        # "bias" is in the name because transformers' trainer then applies no weight decay
        self.log_scale_bias = nn.Parameter(torch.tensor(-math.log(temperature))) if learn_temperature else None

    @property
    def learns_temperature(self) -> bool:
        return self.log_scale_bias is not None

    @property
    def temperature(self) -> float | Tensor:
        """The given number or, if learned, a scalar tensor with gradient, 0.01 or more."""
        if self.log_scale_bias is None:
            return self.fixed_temperature
        scale = self.log_scale_bias
        return torch.exp(-scale.to(torch.promote_types(scale.dtype, torch.float32)).clamp(max=math.log(LARGEST_SCALE)))

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Raises a learned temperature that fell below 0.01 to 0.01: below, it would get no gradient and stay there."""
        if self.log_scale_bias is not None:
            self.log_scale_bias.clamp_(max=math.log(LARGEST_SCALE))

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        hard_negatives: Tensor | None = None,
        extra_negatives: Tensor | None = None,
        text_id: Tensor | None = None,
        pairs: bool | None = None,
    ) -> Tensor:
        """The loss of this rank's rows; its average over the ranks is the loss of the global batch.

        Args:
            queries: ``(batch, dim)``.
            keys: ``(batch, dim)``, row i is the positive of query i; the other view for NT-Xent.
            hard_negatives: ``(batch, dim)``, row i is the hard negative of query i and a negative of all other queries;
                only one-way.
            extra_negatives: ``(any number, dim)``, not gathered, so they must be the same on all ranks; only one-way.
            text_id: integers that are equal for equal texts, for ``mask_duplicates``: ``(batch,)`` if query and key
                come from one text, else those of the queries, then of the keys, then of the hard negatives.
            pairs: whether query and key show different texts; None: they do if ``text_id`` has more than one number for
                each query. A column is then no negative of a row if its text is the query or the key of a row that has
                the same query or the same key.

        Returns:
            Scalar, float32 or float64.

        Raises:
            InputError: if shapes do not agree, an option needs an argument that is missing, or there is no negative.
        """
        masked = bool(pairs) if self.mask_duplicates is None else self.mask_duplicates
        if not masked:
            text_id = None
        elif text_id is not None:
            text_id = text_id.long()  # NO_ID has 64 bits
        self._check(queries, keys, hard_negatives, extra_negatives, text_id, masked)
        counts = distributed.row_counts(queries)
        offset, columns, batch = sum(counts[: distributed.rank()]), sum(counts), queries.shape[0]
        none_else = hard_negatives is None and (extra_negatives is None or len(extra_negatives) == 0)
        if columns == 1 and self.keys_are_negatives and none_else:
            raise InputError(
                "InfoNCE takes its negatives from the batch, but the batch has a single row: "
                "use a batch size of 2 or more, or drop the last incomplete batch (dataloader_drop_last=True)."
            )
        if pairs is None:
            pairs = text_id is not None and len(text_id) > batch
        query_ids, key_ids, hard_ids = (None, None, None) if text_id is None else self._ids(text_id, batch)
        all_query_ids, all_key_ids, all_hard_ids = (
            None if ids is None else distributed.gather(ids, counts) for ids in (query_ids, key_ids, hard_ids)
        )
        all_keys = distributed.gather(keys, counts)
        chunk_size = self.chunk_size
        if chunk_size is None and batch * columns >= TILED_FROM:
            chunk_size = TILE.get(queries.device.type, 1024)
        settings: dict[str, Any] = {
            "offset": offset,
            "temperature": self.temperature,
            "similarity": self.similarity,
            "chunk_size": chunk_size,
        }
        if self.topology == "nt_xent":
            all_queries = distributed.gather(queries, counts)
            settings |= {"first_ids": all_query_ids, "second_ids": all_key_ids, "pairs": pairs}
            total, rows = nt_xent(queries, keys, all_queries, all_keys, **settings), 2 * columns
        else:
            total = info_nce(
                queries,
                all_keys,
                hard_negatives=None if hard_negatives is None else distributed.gather(hard_negatives, counts),
                hard_negative_log_weight=self.hard_negative_log_weight,
                extra_negatives=extra_negatives,
                query_ids=query_ids,
                key_ids=all_key_ids,
                hard_negative_ids=all_hard_ids,
                all_query_ids=all_query_ids if pairs else None,
                keys_are_negatives=self.keys_are_negatives,
                **settings,
            )
            if self.symmetric:
                all_queries = distributed.gather(queries, counts)
                settings |= {"query_ids": key_ids, "key_ids": all_query_ids}
                back = info_nce(keys, all_queries, all_query_ids=all_key_ids if pairs else None, **settings)
                total = (total + back) / 2
            rows = columns
        total = total * distributed.world_size()  # DDP averages over the ranks: this makes it the sum of all rows
        return total if self.reduction == "sum" else total / max(1, rows)

    def _ids(self, text_id: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The ids of queries, keys and hard negatives.

        Missing ids are filled with ``NO_ID``, because all ranks must gather the same tensors.
        """
        blocks = text_id.split(batch)
        unknown = torch.full_like(blocks[0], NO_ID)
        return blocks[0], blocks[min(1, len(blocks) - 1)], blocks[2] if len(blocks) > 2 else unknown

    def _check(
        self,
        queries: Tensor,
        keys: Tensor,
        hard_negatives: Tensor | None,
        extra_negatives: Tensor | None,
        text_id: Tensor | None,
        masked: bool,
    ) -> None:
        batch = queries.shape[0]
        for name, tensor in (("keys", keys), ("hard_negatives", hard_negatives)):
            if tensor is not None and tensor.shape != queries.shape:
                raise InputError(
                    f"InfoNCE needs as many {name} as queries, of the same dimension, but the shape of {name} is "
                    f"{tuple(tensor.shape)}, and that of the queries is {tuple(queries.shape)}."
                )
        if self.topology == "nt_xent" and not (hard_negatives is None and extra_negatives is None):
            raise InputError("NT-Xent takes two views and nothing else: use topology='one_way' for further negatives.")
        if not self.keys_are_negatives and hard_negatives is None and extra_negatives is None:
            raise InputError("keys_are_negatives=False leaves no negatives: give hard_negatives or extra_negatives.")
        if masked and text_id is None:
            raise InputError("mask_duplicates=True needs text_id, a number for each text: pass it to forward.")
        if text_id is not None:
            most = 2 if hard_negatives is None else 3
            if text_id.shape not in [(batch * blocks,) for blocks in range(1, most + 1)]:
                raise InputError(
                    "text_id must hold one number per query, or one per query and key (and hard negative), but its "
                    f"shape is {tuple(text_id.shape)} for {batch} queries."
                )
