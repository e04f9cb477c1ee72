"""Spans of a document: anchors, and positives that are adjacent to them, overlap them or are inside them.

DeCLUTR (Giorgi et al. 2021, arXiv 2006.03659), section 3.2.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from scipy.stats import beta

Span = tuple[int, int]
"""The index of the first token, and the index after the last token."""

Positives = Literal["any", "subsuming", "adjacent"]


def sample_spans(
    tokens: int,
    numbers: Sequence[float],
    *,
    anchors: int,
    positives: int,
    shortest: int,
    longest: int,
    sampling: Positives = "any",
) -> list[tuple[Span, list[Span]]]:
    """Samples anchors from a document, and positives for each anchor.

    Lengths are ⌊Beta · (longest − shortest) + shortest⌋, with Beta(4, 2) for anchors, which are long, and Beta(2, 4)
    for positives. The starts of anchors are at least 2 · longest apart, and all such choices are equally likely (as in
    the paper; the authors' code draws them in buckets). With `sampling="any"` the start of a positive is uniform
    between (anchor start − length of the positive) and the anchor's end, so that the positive is adjacent to the
    anchor, overlaps it or is inside it.

    Args:
        tokens: The number of tokens of the document, at least 2 · anchors · longest.
        numbers: 2 · anchors · (1 + positives) random numbers from [0, 1).
        anchors: The number of anchors.
        positives: The number of positives per anchor.
        shortest: The shortest length of a span, in tokens.
        longest: The longest length of a span, in tokens.
        sampling: "any", as above; "subsuming": inside the anchor; "adjacent": directly before or after the anchor.

    Returns:
        For each anchor the anchor and its positives.

    Example:
        >>> sample_spans(100, [0.5] * 4, anchors=1, positives=1, shortest=4, longest=20)
        [((43, 57), [(46, 55)])]
    """
    draws = iter(numbers)
    lengths = [_length(next(draws), 4, 2, shortest, longest) for _ in range(anchors)]
    apart = 2 * longest
    room = tokens - (anchors - 1) * apart - max(lengths)
    starts = sorted(int(next(draws) * (room + 1)) for _ in range(anchors))
    spans = []
    for number, (offset, length) in enumerate(zip(starts, lengths, strict=True)):
        start = offset + number * apart
        anchor = (start, start + length)
        spans.append(
            (anchor, [_positive(anchor, tokens, draws, shortest, longest, sampling) for _ in range(positives)])
        )
    return spans


def _positive(
    anchor: Span, tokens: int, draws: Iterator[float], shortest: int, longest: int, sampling: Positives
) -> Span:
    start, end = anchor
    length = _length(next(draws), 2, 4, shortest, longest)
    place = next(draws)
    if sampling == "subsuming":
        length = min(length, end - start)
        first = start + int(place * (end - start - length + 1))
    elif sampling == "adjacent":
        sides = [first for first in (start - length, end) if 0 <= first <= tokens - length]
        first = sides[int(place * len(sides))] if sides else max(0, start - length)
    else:
        least, most = max(0, start - length), min(end, tokens - length)
        first = least + int(place * (most - least + 1))
    return first, first + length


def _length(number: float, a: float, b: float, shortest: int, longest: int) -> int:
    """A Beta-distributed length, by the inverse of the distribution function."""
    return int(beta.ppf(number, a, b) * (longest - shortest) + shortest)
