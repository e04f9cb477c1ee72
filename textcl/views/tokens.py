"""ids -> ids: operators over a whole batch of token rows, without a loop over rows.

CLEAR (Wu et al. 2020, arXiv 2012.15466), figure 2, has the four operators. Its rates, and the numbers and lengths of
spans, come from memory of the paper and are unverified.

What is random comes from `draw`, which the collator binds to the run's seed, the epoch, the rows and the view.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Draw = Callable[[int], Tensor]
"""`draw(count)` gives (rows, count) numbers from [0, 1), other ones at each call."""


@dataclass(frozen=True)
class TokenRows:
    """Token rows as operators take and give them.

    Attributes:
        ids: (rows, length), padded on the right.
        attention: (rows, length) bool, false on padding.
        ordinary: (rows, length) bool, false on padding and on the tokenizer's special tokens.
        padding: The padding token.
    """

    ids: Tensor
    attention: Tensor
    ordinary: Tensor
    padding: int

    @property
    def body(self) -> tuple[Tensor, Tensor]:
        """The first ordinary position of each row and how many there are, both (rows, 1)."""
        return self.ordinary.int().argmax(dim=1, keepdim=True), self.ordinary.sum(dim=1, keepdim=True)

    def reordered(self, order: Tensor) -> "TokenRows":
        """Position i of the result is position `order[:, i]` of this, (rows, length)."""
        return replace(
            self,
            ids=self.ids.gather(1, order),
            attention=self.attention.gather(1, order),
            ordinary=self.ordinary.gather(1, order),
        )

    def kept(self, keep: Tensor) -> "TokenRows":
        """Only the positions where `keep` (rows, length) is true, padded to the longest row that is left."""
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
    """Each token becomes [DEL] with probability `rate`; a run of them becomes one (figure 2a; rate 0.7 unverified)."""
    return _deleted(rows, draw(rows.ids.shape[1]) < rate, deletion_token)


def span_deletion(rows: TokenRows, draw: Draw, rate: float, deletion_token: int, spans: int = 5) -> TokenRows:
    """`spans` spans, together at most `rate` of the text, become one [DEL] each (figure 2b; 5 of 5 % unverified).

    A span has one token at least, so that a short text has fewer of them.
    """
    first, count = rows.body
    length = (count * rate / spans).floor().clamp(min=1)
    start = first + (draw(spans) * (count - length + 1)).floor()  # (rows, spans)
    position = torch.arange(rows.ids.shape[1])[None, None]
    inside = (position >= start[..., None]) & (position < (start + length)[..., None])
    inside &= (torch.arange(spans) < _as_many(count, rate, spans))[..., None]
    return _deleted(rows, inside.any(dim=1), deletion_token)


def reordering(rows: TokenRows, draw: Draw, rate: float, pairs: int = 5) -> TokenRows:
    """`pairs` times two spans change places; they may differ in length (figure 2c; 5 pairs of 5 % spans unverified).

    A span has one token at least and `rate / pairs` of the text on average; in a short text fewer pairs are exchanged.
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
        # the row falls into five parts, of which the second and the fourth change places
        part = sum((position >= edge).long() for edge in (start, end, other_start, other_end))
        rows = rows.reordered(torch.argsort(torch.tensor([0, 3, 2, 1, 4])[part], dim=1, stable=True))
    return rows


def substitution(
    rows: TokenRows, draw: Draw, rate: float, table: Tensor, count: Tensor, continues: Tensor
) -> TokenRows:
    """Each word with synonyms is replaced by one of them with probability `rate` (figure 2d; rate 0.3 unverified).

    A word of several tokens stays as it is.

    Args:
        rows: The rows.
        draw: Of random numbers.
        rate: Of the words that have synonyms.
        table: Synonyms of each token, (vocabulary, most).
        count: How many of them there are, (vocabulary,).
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
    """Says some tokens twice: from none to max(2, ⌊rate · L⌋) of a text's L, all numbers as likely, in random places.

    ESimCSE (Wu et al. 2022, arXiv 2109.04380), section 3.1, on subwords: the length of a text says less of its sense.
    No row grows beyond `longest` tokens, for which the backbone has places.
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
    """Keeps a contiguous span of max(1, ⌊(1 − rate) · L⌋) of a text's L tokens, and the special ones around it.

    The text's counterpart of an image's crop; short ones are that of SwAV's multi-crop.
    """
    first, count = rows.body
    length = (count * (1 - rate)).floor().clamp(min=1)
    start = first + (draw(1) * (count - length + 1)).floor()
    position = torch.arange(rows.ids.shape[1])
    return rows.kept(~rows.ordinary | ((position >= start) & (position < start + length)))


def _as_many(count: Tensor, rate: float, most: int) -> Tensor:
    """How many single tokens `rate` of a text's `count` allows, at least one and at most `most`, (rows, 1)."""
    return (count * rate).floor().clamp(1, most)


def _deleted(rows: TokenRows, chosen: Tensor, deletion_token: int) -> TokenRows:
    chosen = chosen & rows.ordinary
    before = torch.nn.functional.pad(chosen[:, :-1], (1, 0))
    replaced = replace(rows, ids=rows.ids.masked_fill(chosen, deletion_token))
    return replaced.kept(~(chosen & before))
