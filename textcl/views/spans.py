"""document -> spans: anchors, and positives that touch, overlap or lie within them.

DeCLUTR (Giorgi et al. 2021, arXiv 2006.03659), section 3.2.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from scipy.stats import beta

Span = tuple[int, int]
"""First token, and the one behind the last."""

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
    """Anchors of a document, each with its positives.

    Lengths are ⌊Beta · (longest − shortest) + shortest⌋, with Beta(4, 2) for anchors, which are long, and Beta(2, 4)
    for positives. Anchors start at least 2 · longest apart, uniformly among all ways to do so (the paper; the authors'
    code draws them in buckets). A positive starts uniformly between where it would end at its anchor's start and its
    anchor's end, so that it is adjacent, overlaps, or lies within.

    Args:
        tokens: Of the document, at least 2 · anchors · longest.
        numbers: From [0, 1), 2 · anchors · (1 + positives) of them.
        anchors: How many.
        positives: How many an anchor.
        shortest: Bounds of the lengths, in tokens.
        longest: Likewise.
        sampling: "any" as above; "subsuming": within the anchor; "adjacent": directly before or behind it.

    Example:
        >>> sample_spans(100, [0.5] * 4, anchors=1, positives=1, shortest=4, longest=20)
        [((42, 56), [(44, 53)])]
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
    """Beta-distributed, by the inverse of its distribution function."""
    return int(beta.ppf(number, a, b) * (longest - shortest) + shortest)
