"""InfoNCE: one-way or two-way, computed at once or in tiles.

Each row has one softmax over all columns, and one column is its positive. ``info_nce`` builds the one-way problem
(queries against keys and negatives), ``nt_xent`` the two-way problem (both views against both views). Both call
``_row_losses``, which computes all scores at once or, with a ``chunk_size``, tile by tile.

These are pure functions. Rows are those of this rank, columns those of all ranks, and ``offset`` is the column of this
rank's first row. ``textcl.modules.InfoNCE`` gathers, holds the temperature and takes the mean.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Similarity = Literal["cosine", "dot"]

NO_ID = torch.iinfo(torch.int64).min
"""The id of a column whose text is unknown; such a column is never a duplicate."""

_MIX = 0x1E3779B97F4A7C15
_ROWS_AT_A_TIME = 1024


def info_nce(
    queries: Tensor,
    keys: Tensor,
    *,
    offset: int = 0,
    hard_negatives: Tensor | None = None,
    hard_negative_log_weight: float = 0.0,
    extra_negatives: Tensor | None = None,
    temperature: float | Tensor = 0.05,
    similarity: Similarity = "cosine",
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    hard_negative_ids: Tensor | None = None,
    extra_ids: Tensor | None = None,
    all_query_ids: Tensor | None = None,
    keys_are_negatives: bool = True,
    chunk_size: int | None = None,
) -> Tensor:
    r"""One-way InfoNCE, summed over the rows: each query must find its key among all keys and negatives.

    .. math:: \ell_i = -\log \frac{e^{s(q_i, k_i)/\tau}}
        {\sum_j e^{s(q_i, k_j)/\tau} + \sum_j \alpha^{[i=j]} e^{s(q_i, n_j)/\tau} + \sum_m e^{s(q_i, e_m)/\tau}}

    van den Oord et al. 2018 (arXiv 1807.03748), eq. 4; SimCSE (Gao et al. 2021, arXiv 2104.08821), eq. 1, and with hard
    negatives eq. 5, weighted by :math:`\alpha` as in its section 6.3. Half precision is computed in float32.

    Args:
        queries: ``(batch, dim)``, this rank's rows.
        keys: ``(columns, dim)``, of all ranks; row i's positive is column ``offset + i``.
        offset: the column of this rank's first row.
        hard_negatives: ``(columns, dim)``, of all ranks. All are negatives of every row; the one at ``offset + i`` is
            row i's own.
        hard_negative_log_weight: log alpha, added to the score of a row's own hard negative.
        extra_negatives: ``(any number, dim)``, further negatives of every row, such as a queue.
        temperature: softmax temperature tau, a number or a tensor that may need a gradient.
        similarity: ``"cosine"`` or ``"dot"``.
        query_ids: ``(batch,)``, ids of the queries' texts. With ``query_ids`` and ``key_ids`` duplicates are masked: a
            column with the same text as the row or as the row's positive, except that positive, is not in the row's
            denominator.
        key_ids: ``(columns,)``, ids of the keys' texts.
        hard_negative_ids: ``(columns,)``, ids of the hard negatives' texts; None: hard negatives are not masked.
        extra_ids: ``(any number,)``, ids of the extra negatives' texts; None: extra negatives are not masked.
        all_query_ids: ``(columns,)``, ids of the texts of the queries of all ranks, if a query and its key show
            different texts. With them a column is also masked if its text is the query or the key of a row with the
            same query or the same key as this row.
        keys_are_negatives: False: a key is the positive of its own row, and is not in any other row's denominator.
        chunk_size: None: compute all ``(batch, columns)`` scores at once. A number: compute tiles of that many rows and
            columns, with memory linear in the batch; backward computes the scores again.

    Returns:
        Scalar, the sum over the rows. The tiled form can be differentiated only once.

    Example:
        >>> rows = torch.eye(4)
        >>> info_nce(rows, rows, temperature=1.0) / 4      # ln(1 + 3 / e)
        tensor(0.7437)
    """
    columns = [keys]
    column_ids = [key_ids]
    positive = offset + torch.arange(queries.shape[0], device=queries.device)
    shifts = []
    if hard_negatives is not None:
        columns.append(hard_negatives)
        column_ids.append(hard_negative_ids)
        if hard_negative_log_weight != 0.0:
            shifts.append((keys.shape[0] + positive, hard_negative_log_weight))
    if extra_negatives is not None:
        columns.append(extra_negatives)
        column_ids.append(extra_ids)

    ids = None
    if query_ids is not None and key_ids is not None:
        ids = torch.cat(
            [
                key_ids.new_full((block.shape[0],), NO_ID) if known is None else known
                for block, known in zip(columns, column_ids, strict=True)
            ]
        )
    lone_keys = 0 if keys_are_negatives else keys.shape[0]
    pairing = _Pairing(positive, shifts, column_ids=ids, lone_keys=lone_keys)
    if ids is not None and query_ids is not None and key_ids is not None:
        pairing = replace(pairing, texts=(query_ids, key_ids[positive]), pairs=_pairs(all_query_ids, key_ids))
    return _row_losses(queries, torch.cat(columns), pairing, temperature, similarity, chunk_size)


def nt_xent(
    first: Tensor,
    second: Tensor,
    all_first: Tensor,
    all_second: Tensor,
    *,
    offset: int = 0,
    temperature: float | Tensor = 0.05,
    similarity: Similarity = "cosine",
    first_ids: Tensor | None = None,
    second_ids: Tensor | None = None,
    pairs: bool = False,
    chunk_size: int | None = None,
) -> Tensor:
    r"""NT-Xent, summed over the rows of both views: each row must find its other view among all other rows.

    .. math:: \ell_i = -\log \frac{e^{s(z_i, z_{i'})/\tau}}{\sum_{j \neq i} e^{s(z_i, z_j)/\tau}},
        \qquad i, j \in \{1 \dots 2N\}

    SimCLR (Chen et al. 2020, arXiv 2002.05709), eq. 1. Half precision is computed in float32.

    Args:
        first: ``(batch, dim)``, this rank's rows of the first view.
        second: ``(batch, dim)``, this rank's rows of the second view.
        all_first: ``(columns, dim)``, the first view of all ranks; row i of ``first`` is its row ``offset + i``.
        all_second: ``(columns, dim)``, the second view of all ranks; row i of ``second`` is its row ``offset + i``.
        offset: the row of ``all_first`` at which ``first`` begins.
        temperature: softmax temperature tau, a number or a tensor that may need a gradient.
        similarity: ``"cosine"`` or ``"dot"``.
        first_ids: ``(columns,)``, ids of the texts of ``all_first``. With ``first_ids`` and ``second_ids`` duplicates
            are masked as in ``info_nce``.
        second_ids: ``(columns,)``, ids of the texts of ``all_second``.
        pairs: whether the two views show different texts. If so, a row's columns are also masked as with
            ``all_query_ids`` in ``info_nce``.
        chunk_size: see ``info_nce``.

    Returns:
        Scalar, the sum over the ``2 * batch`` rows. The tiled form can be differentiated only once.

    Example:
        >>> rows = torch.eye(4)
        >>> nt_xent(rows, rows, rows, rows, temperature=1.0) / 8      # ln(1 + 6 / e)
        tensor(1.1654)
    """
    own_first = offset + torch.arange(first.shape[0], device=first.device)
    own_second = all_first.shape[0] + own_first
    itself = torch.cat([own_first, own_second])
    pairing = _Pairing(positive=torch.cat([own_second, own_first]), shifts=[(itself, -torch.inf)])
    if first_ids is not None and second_ids is not None:
        pairing = replace(
            pairing,
            texts=(first_ids[own_first].repeat(2), second_ids[own_first].repeat(2)),
            column_ids=torch.cat([first_ids, second_ids]),
            pairs=_pairs(first_ids if pairs else None, second_ids),
        )
    rows, columns = torch.cat([first, second]), torch.cat([all_first, all_second])
    return _row_losses(rows, columns, pairing, temperature, similarity, chunk_size)


@dataclass(frozen=True)
class _Pairing:
    """How columns relate to rows: everything about the score matrix that carries no gradient.

    Attributes:
        positive: ``(rows,)``, the column of each row's positive.
        shifts: ``(index, value)`` pairs, where ``index`` is ``(rows,)``: ``value`` is added to each row's score at
            column ``index``. It is the log weight of a row's own hard negative, or minus infinity to remove a row's
            score with itself.
        texts: the ids of the two texts of each row's pair, query and key, each ``(rows,)``; None: duplicates are not
            masked.
        column_ids: ``(columns,)``, ids of the columns' texts; None: duplicates are not masked.
        pairs: the pairs of all ranks, see ``_pairs``; None: a row's query and key show one text.
        lone_keys: the first ``lone_keys`` columns count only for the row whose positive they are.
    """

    positive: Tensor
    shifts: list[tuple[Tensor, float]]
    texts: tuple[Tensor, Tensor] | None = None
    column_ids: Tensor | None = None
    pairs: Tensor | None = None
    lone_keys: int = 0

    def scores(self, rows: Tensor, columns: Tensor, row: slice, column: slice) -> Tensor:
        """One complete tile of the score matrix; ``rows`` are already divided by the temperature."""
        scores = rows[row] @ columns[column].T
        for index, value in self.shifts:
            _add_at(scores, index[row] - column.start, value)
        if self.texts is not None and self.column_ids is not None:
            ids = self.column_ids[column]
            number = torch.arange(column.start, column.start + ids.shape[0], device=ids.device)
            for part in _slices(scores.shape[0], _ROWS_AT_A_TIME):  # the 64-bit codes of a whole tile would be large
                query, key, positive = (each[row][part, None] for each in (*self.texts, self.positive))
                same = self._related(query, key, ids) & (number != positive)
                scores[part].masked_fill_(same, -torch.inf)
        if column.start < self.lone_keys:
            number = torch.arange(column.start, column.start + scores.shape[1], device=scores.device)
            scores.masked_fill_((number < self.lone_keys) & (number != self.positive[row, None]), -torch.inf)
        return scores

    def _related(self, query: Tensor, key: Tensor, ids: Tensor) -> Tensor:
        """Whether each column's text belongs to a row's pair, or to a pair with the same query or the same key."""
        related = (ids == query) | (ids == key)
        if self.pairs is None:
            return related
        for codes in (_codes(query, ids), _codes(ids, key)):
            place = torch.searchsorted(self.pairs, codes).clamp(max=len(self.pairs) - 1)
            related |= self.pairs[place] == codes
        return related


def _pairs(query_ids: Tensor | None, key_ids: Tensor) -> Tensor | None:
    """The pairs of texts of all rows of all ranks, as sorted codes; None if query and key show one text."""
    return None if query_ids is None else _codes(query_ids, key_ids).sort().values


def _codes(query_ids: Tensor, key_ids: Tensor) -> Tensor:
    """One number for each pair of ids, a hash as the ids are: the product wraps around at 64 bits."""
    return query_ids * _MIX + key_ids


def unit_rows(rows: Tensor) -> Tensor:
    """The rows scaled to length 1; a row of zeros stays, and its gradient is finite.

    ``torch.nn.functional.normalize`` divides such a row by 1e-12, and its gradient too, which then is the whole step.
    """
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / lengths.masked_fill(lengths == 0, 1)


def _row_losses(
    rows: Tensor,
    columns: Tensor,
    pairing: _Pairing,
    temperature: float | Tensor,
    similarity: Similarity,
    chunk_size: int | None,
) -> Tensor:
    """The sum over rows of ``logsumexp(scores of the row) - score of its positive``."""
    dtype = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
    with torch.autocast(rows.device.type, enabled=False):
        rows, columns = rows.to(dtype), columns.to(dtype)
        if similarity == "cosine":
            rows, columns = unit_rows(rows), unit_rows(columns)
        rows = rows / temperature
        if chunk_size is not None:
            return _Tiled.apply(rows, columns, pairing, chunk_size)
        everything = pairing.scores(rows, columns, slice(0, rows.shape[0]), slice(0, columns.shape[0]))
        return F.cross_entropy(everything, pairing.positive, reduction="sum")


class _Tiled(torch.autograd.Function):
    """``_row_losses`` with a running logsumexp. It keeps no scores; backward computes each tile again.

    A tile takes one matrix product in forward and three in backward (scores, gradient of rows, gradient of columns).
    The rows are already divided by the temperature, which gets its gradient through them.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, pairing: _Pairing, size: int) -> Tensor:
        normaliser = rows.new_full((rows.shape[0],), -torch.inf)
        for row in _slices(rows.shape[0], size):
            for column in _slices(columns.shape[0], size):
                scores = pairing.scores(rows, columns, row, column)
                normaliser[row] = torch.logaddexp(normaliser[row], scores.logsumexp(1))
        ctx.save_for_backward(rows, columns, normaliser)
        ctx.pairing, ctx.size = pairing, size
        return (normaliser - (rows * columns[pairing.positive]).sum(1)).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        if torch.is_grad_enabled():  # create_graph=True; once_differentiable would accept most such calls silently
            raise RuntimeError("Tiled InfoNCE has no second gradient: leave out chunk_size, or take fewer rows.")
        rows, columns, normaliser = ctx.saved_tensors
        of_rows = torch.zeros_like(rows) if ctx.needs_input_grad[0] else None
        of_columns = torch.zeros_like(columns) if ctx.needs_input_grad[1] else None
        with torch.autocast(rows.device.type, enabled=False):
            for row in _slices(rows.shape[0], ctx.size):
                for column in _slices(columns.shape[0], ctx.size):
                    scores = ctx.pairing.scores(rows, columns, row, column)
                    slope = scores.sub_(normaliser[row, None]).exp_()  # softmax - [positive]
                    _add_at(slope, ctx.pairing.positive[row] - column.start, -1.0)
                    if of_rows is not None:
                        of_rows[row].addmm_(slope, columns[column])
                    if of_columns is not None:
                        of_columns[column].addmm_(slope.T, rows[row])
        for total in (of_rows, of_columns):
            if total is not None:
                total.mul_(gradient)
        return of_rows, of_columns, None, None


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _add_at(scores: Tensor, index: Tensor, value: float) -> None:
    """Adds ``value`` to column ``index[i]`` of row i if the tile has that column, without waiting for a GPU."""
    inside = (index >= 0) & (index < scores.shape[1])
    amount = scores.new_zeros(index.shape[0]).masked_fill_(inside, value)
    scores.scatter_add_(1, index.clamp(0, scores.shape[1] - 1)[:, None], amount[:, None])
