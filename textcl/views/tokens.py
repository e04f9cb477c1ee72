"""Operators on token ids: each changes a whole batch of token rows without a loop over rows.

The first four operators are those of CLEAR (Wu et al. 2020, arXiv 2012.15466), figure 2. CLEAR's rates, and its numbers
and lengths of spans, come from memory of the paper and are unverified.

Random numbers come from `draw`, which the collator binds to the run's seed, the epoch, the rows and the view.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Draw = Callable[[int], Tensor]
"""`draw(count)` returns (rows, count) random numbers from [0, 1), different ones at each call."""


@dataclass(frozen=True)
class TokenRows:
    """A batch of token rows; operators take and return it.

    Attributes:
        ids: Token ids, (rows, length), padded on the right.
        attention: (rows, length) bool, false on padding.
        ordinary: (rows, length) bool, true on the tokens of the text: those between the special tokens and the prompt
            around it, one run in each row.
        padding: The id of the padding token.
    """

    ids: Tensor
    attention: Tensor
    ordinary: Tensor
    padding: int

    @property
    def body(self) -> tuple[Tensor, Tensor]:
        """The first ordinary position of each row and the number of ordinary positions, both (rows, 1)."""
        return self.ordinary.int().argmax(dim=1, keepdim=True), self.ordinary.sum(dim=1, keepdim=True)

    def reordered(self, order: Tensor) -> "TokenRows":
        """The rows with their positions permuted: position i of the result is `order[:, i]`, (rows, length)."""
        return replace(
            self,
            ids=self.ids.gather(1, order),
            attention=self.attention.gather(1, order),
            ordinary=self.ordinary.gather(1, order),
        )

    def kept(self, keep: Tensor) -> "TokenRows":
        """The rows with only the positions where `keep` (rows, length) is true, padded to the longest new row."""
        keep = keep & self.attention
        moved = self.reordered(torch.argsort(~keep, dim=1, stable=True))
        longest = int(keep.sum(dim=1).max())
        there = torch.arange(longest) < keep.sum(dim=1, keepdim=True)
        return replace(
            self,
            ids=moved.ids[:, :longest].masked_fill(~there, self.padding),
            attention=there,
            ordinary=moved.ordinary[:, :longest] & there,
        )


def word_deletion(rows: TokenRows, draw: Draw, rate: float, deletion_token: int) -> TokenRows:
    """Replaces tokens by [DEL] with probability `rate`, and a run of [DEL] by one (figure 2a; rate 0.7 unverified)."""
    return _deleted(rows, draw(rows.ids.shape[1]) < rate, deletion_token)


def span_deletion(rows: TokenRows, draw: Draw, rate: float, deletion_token: int, spans: int = 5) -> TokenRows:
    """Replaces `spans` spans, at most `rate` of the text in all, by one [DEL] each (figure 2b; 5 of 5 % unverified).

    A span has at least one token, so that a short text has fewer spans.
    """
    first, count = rows.body
    length = (count * rate / spans).floor().clamp(min=1)
    start = first + (draw(spans) * (count - length + 1)).floor()  # (rows, spans)
    position = torch.arange(rows.ids.shape[1])[None, None]
    inside = (position >= start[..., None]) & (position < (start + length)[..., None])
    inside &= (torch.arange(spans) < _as_many(count, rate, spans))[..., None]
    return _deleted(rows, inside.any(dim=1), deletion_token)


def reordering(rows: TokenRows, draw: Draw, rate: float, pairs: int = 5) -> TokenRows:
    """Exchanges two spans, `pairs` times; they may differ in length (figure 2c; 5 pairs of 5 % spans unverified).

    A span has at least one token, and on average `rate / pairs` of the text. In a short text fewer pairs are exchanged.
    """
    position = torch.arange(rows.ids.shape[1])[None]
    for pair in range(pairs):
        first, count = rows.body
        longest = (2 * count * rate / pairs - 1).round().clamp(min=1)
        numbers = draw(4)
        length = (1 + (numbers[:, :2] * longest).floor()).minimum(count // 2)
        length = length * (pair < _as_many(count, rate, pairs))
        free = count - length.sum(dim=1, keepdim=True)
        gap = (numbers[:, 2:] * (free + 1)).floor().sort(dim=1).values
        start = first + gap[:, :1]
        end = start + length[:, :1]
        other_start = first + gap[:, 1:] + length[:, :1]
        other_end = other_start + length[:, 1:]
        # the row has five parts; the second and the fourth are exchanged
        part = sum((position >= edge).long() for edge in (start, end, other_start, other_end))
        rows = rows.reordered(torch.argsort(torch.tensor([0, 3, 2, 1, 4])[part], dim=1, stable=True))
    return rows


def substitution(
    rows: TokenRows, draw: Draw, rate: float, table: Tensor, count: Tensor, continues: Tensor
) -> TokenRows:
    """Replaces each word that has synonyms by one of them with probability `rate` (figure 2d; rate 0.3 unverified).

    A word of several tokens is not replaced.

    Args:
        rows: The rows.
        draw: The source of random numbers.
        rate: The probability that a word with synonyms is replaced.
        table: The synonyms of each token, (vocabulary, most).
        count: The number of synonyms of each token, (vocabulary,).
        continues: Whether a token continues the word before it, (vocabulary,).
    """
    length = rows.ids.shape[1]
    next_continues = torch.nn.functional.pad(continues[rows.ids[:, 1:]], (0, 1))
    whole = rows.ordinary & (count[rows.ids] > 0) & ~next_continues
    chosen = whole & (draw(length) < rate)
    which = (draw(length) * count[rows.ids]).long()
    synonyms = table[rows.ids].gather(2, which[..., None])[..., 0]
    return replace(rows, ids=torch.where(chosen, synonyms, rows.ids))


def repetition(rows: TokenRows, draw: Draw, rate: float, longest: int | None = None) -> TokenRows:
    """Repeats random tokens: from 0 to max(2, ⌊rate · L⌋) of a text's L tokens, each number with equal probability.

    ESimCSE (Wu et al. 2022, arXiv 2109.04380), section 3.1, applied to subwords. Its purpose is that texts of similar
    length do not count as similar in meaning. No row becomes longer than `longest` tokens, the number of positions of
    the backbone.
    """
    _, count = rows.body
    most = (count * rate).floor().clamp(min=2)
    repeated = (draw(1) * (most + 1)).floor().minimum(count)
    if longest is not None:
        repeated = repeated.minimum((longest - rows.attention.sum(dim=1, keepdim=True)).clamp(min=0))
    place = draw(rows.ids.shape[1]).masked_fill(~rows.ordinary, 2.0).argsort(dim=1).argsort(dim=1)
    again = rows.ordinary & (place < repeated)
    twice = torch.arange(rows.ids.shape[1]).repeat_interleave(2).expand(len(rows.ids), -1)
    return rows.reordered(twice).kept(torch.stack([torch.ones_like(again), again], dim=2).flatten(1))


def crop_away(rows: TokenRows, draw: Draw, rate: float) -> TokenRows:
    """Keeps a contiguous span of max(1, ⌊(1 − rate) · L⌋) of a text's L tokens, and the special tokens.

    For texts this corresponds to cropping an image. Short crops correspond to the small crops of SwAV's multi-crop.
    """
    first, count = rows.body
    length = (count * (1 - rate)).floor().clamp(min=1)
    start = first + (draw(1) * (count - length + 1)).floor()
    position = torch.arange(rows.ids.shape[1])
    return rows.kept(~rows.ordinary | ((position >= start) & (position < start + length)))


def _as_many(count: Tensor, rate: float, most: int) -> Tensor:
    """⌊count · rate⌋, but at least 1 and at most `most`, (rows, 1): how many spans of one token fit into the rate."""
    return (count * rate).floor().clamp(1, most)


def _deleted(rows: TokenRows, chosen: Tensor, deletion_token: int) -> TokenRows:
    chosen = chosen & rows.ordinary
    before = torch.nn.functional.pad(chosen[:, :-1], (1, 0))
    replaced = replace(rows, ids=rows.ids.masked_fill(chosen, deletion_token))
    return replaced.kept(~(chosen & before))
