"""Writes the drawing of each method, docs/methods/drawings/NAME.svg: `python tools/draw_methods.py`.

A drawing follows the page's colours where it stands inside a page (`--md-default-fg-color`), and the reader's light or
dark setting where it is an image.
"""

from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

PAGES = Path(__file__).parents[1] / "docs" / "methods"
FOLDER = PAGES / "drawings"
SIZE, LINE, PAD, GAP, BETWEEN = 20, 24, 7, 20, 16  # text, its lines, inside a box, and between columns and lanes
STYLE = (
    ".tcl-drawing{color:var(--md-default-fg-color,#1f2328);font-family:Helvetica,Arial,sans-serif}"
    "@media (prefers-color-scheme:dark){.tcl-drawing{color:var(--md-default-fg-color,#e6edf3)}}"
    f".tcl-drawing text{{fill:currentColor;font-size:{SIZE}px;text-anchor:middle}}"
    ".tcl-drawing .tcl-left{text-anchor:start}.tcl-drawing .tcl-right{text-anchor:end}"
    ".tcl-drawing rect{fill:none;stroke:currentColor;stroke-width:1.5}"
    ".tcl-drawing path{fill:none;stroke:currentColor;stroke-width:2}"
    ".tcl-drawing .tcl-link{stroke-dasharray:2 5}"
    ".tcl-drawing .tcl-dropped{stroke-dasharray:7 5}"
    ".tcl-drawing .tcl-still{fill:currentColor;fill-opacity:.16}"
    ".tcl-drawing .tcl-kept{fill:#4051b5;stroke:#8f9bdf}.tcl-drawing .tcl-box .tcl-kept~text{fill:#fff}"
)
MARKS = {"*": ("tcl-kept", "kept"), "~": ("tcl-dropped", "dropped after training"), "!": ("tcl-still", "no gradient")}


@dataclass(frozen=True)
class Drawing:
    """What the drawing of one method holds.

    Attributes:
        description: Two sentences that say what the drawing shows, for readers who do not see it.
        picture: Lanes of boxes, one a line, an empty line, and the lines of words below them. Arrows connect the boxes
            of a lane. A cell holds the words of a box, nothing for no box, or ^ to continue the box above; " / " breaks
            a line. Marks come first: * is kept after training, ~ is dropped after training, ! gets no gradient.
        links: Dotted arrows from a box to the one below it: column, lane of the upper box, words beside the arrow.
    """

    description: str
    picture: str
    links: tuple[tuple[int, int, str], ...] = ()


DRAWINGS = {
    "simcse": Drawing(
        "A text passes the encoder and a train-only head twice, with two dropout masks, which gives h and h⁺. InfoNCE "
        "pulls h to h⁺ and away from the other texts of the batch.",
        """
        a text        | dropout / mask 1 | *encoder | ~MLP / head | h         | InfoNCE / τ = 0.05
        ^             | dropout / mask 2 | ^        | ^           | h⁺        | ^
        other / texts | dropout / mask 2 | ^        | ^           | negatives | ^

        loss = −log ( exp(cos(h, h⁺)/τ) / Σ exp(cos(h, k)/τ) )
        k runs over h⁺ and the negatives.
        """,
    ),
    "simcse-plus": Drawing(
        "The path of SimCSE is drawn at the top: two views of a text, one encoder, a head and InfoNCE. Below it are "
        "the options that add something: a queue of earlier keys from a moving copy, and a teacher's ranking.",
        """
        a text | view 1 | *encoder               | ~MLP / head  | h                    | InfoNCE / τ = 0.05 / + options
        ^      | view 2 | ^                      | ^            | h⁺                   | ^
        ^      |        | ~!moving / copy        | ~!its / head | ~!queue, / an option | ^
        ^      |        | ~!teacher, / an option |              |                      | ^

        Each option is off unless you set it:
        view 1, 2: a template (PromptBERT), repetition (ESimCSE)
        negatives: a queue (ESimCSE), random vectors (smoothed),
        or texts without dropout (SimCSE++)
        terms: between dimensions (SimCSE++), decorrelation (SCD),
        a teacher's ranking (RankCSE)
        """,
        ((2, 1, "moving average"),),
    ),
    "bert-ct": Drawing(
        "Two encoders, called towers, start from the same weights and read one text each. The dot product of their "
        "embeddings must say whether the two texts are the same.",
        """
        text s | *tower f | f(s) | logit / f(s) · g(t) | binary / cross- / entropy
        text t | *tower g | g(t) | ^                   | ^

        A group: 1 pair with s = t, and 7 pairs of different texts.
        loss = −log σ(f(s) · g(t)) for the same text,
        −log (1 − σ(f(s) · g(t))) for different ones
        The tower that is better on dev is kept; the other is not.
        """,
        ((1, 0, "same start"),),
    ),
    "ct-in-batch": Drawing(
        "A text is read by two encoders, called towers, that start from the same weights. InfoNCE in both directions "
        "pulls its two embeddings together and away from the other texts of the batch.",
        """
        a text        | *tower f      | f         | InfoNCE, / both ways / τ = 0.05 / at first, / learned
        ^             | *tower g      | g         | ^
        other / texts | *both / towers | negatives | ^

        loss = ½ InfoNCE(f → g) + ½ InfoNCE(g → f)
        The tower that is better on dev is kept; the other is not.
        """,
        ((1, 0, "equal at the start"),),
    ),
    "consert": Drawing(
        "Two views of a text are made inside the encoder, here by cutting features and by shuffling positions. "
        "NT-Xent pulls the two embeddings together and away from both views of all other texts; there is no head.",
        """
        a text        | cut / features      | *encoder | r         | 0.15 × / NT-Xent / τ = 0.1
        ^             | shuffle / positions | ^        | r⁺        | ^
        other / texts | both / views        | ^        | negatives | ^

        The views change the token embeddings inside the encoder.
        NT-Xent = −log ( exp(cos(r, r⁺)/τ) / Σ exp(cos(r, k)/τ) ),
        added over both views; k: r⁺ and the negatives
        """,
    ),
    "clear": Drawing(
        "Two views of a text lose words and pass the encoder and a train-only head to NT-Xent. Copies with masked "
        "words pass the same encoder, and a second loss predicts these words.",
        """
        a text | delete / words | *encoder | ~MLP / head  | z                 | NT-Xent / τ = 0.1
        ^      | delete / words | ^        | ^            | z⁺                | ^
        ^      | mask / words   | ^        | ~word / head | predicted / words | masked- / word loss

        loss = Σ −log ( exp(cos(z, z⁺)/τ) / Σ exp(cos(z, k)/τ) )
        + λ · masked-word loss
        k: z⁺ and both views of the other texts of the batch
        """,
    ),
    "declutr": Drawing(
        "Anchor spans and nearby positive spans of one long document, and spans of other documents, pass one encoder. "
        "NT-Xent pulls an anchor to the mean of its positives, and the anchor's masked words are predicted too.",
        """
        a long / document | anchor / span, / masked / words | *encoder | ~word / head | masked- / word loss
        ^                 | ^                               | ^        | anchor       | NT-Xent / τ = 0.05
        ^                 | 2 spans / nearby                | ^        | mean of 2    | ^
        other / documents | their / spans                   | ^        | negatives    | ^

        loss = −log ( exp(cos(r, r⁺)/τ) / Σ exp(cos(r, k)/τ) )
        + λ · masked-word loss
        k: r⁺ and all other anchors and means; the second anchor
        of the same document is a hard negative.
        """,
    ),
    "sccl": Drawing(
        "Two views of a text pass one encoder. NT-Xent behind a train-only head pushes texts apart, and a clustering "
        "loss pulls the embedding of the first view to trained cluster centres.",
        """
        a text | view 1 | *encoder | ~cluster / centres | shares / q and p | clustering / KL(p ‖ q)
        ^      | ^      | ^        | ~MLP / head        | z₁               | NT-Xent / τ = 0.5
        ^      | view 2 | ^        | ^                  | z₂               | ^

        loss = 10 · NT-Xent + 0.5 · KL(p ‖ q)
        q: the share of each centre in the embedding of view 1
        p: q made sharper, with no gradient
        k-means sets the centres before the first step.
        """,
    ),
    "simclr": Drawing(
        "Two views of a text pass one encoder and a train-only projector with batch norm. Each view must find the "
        "other one among both views of all texts of the batch.",
        """
        a text        | view 1       | *encoder | ~projector, / batch / norm | z₁        | NT-Xent / τ = 0.1
        ^             | view 2       | ^        | ^                          | z₂        | ^
        other / texts | both / views | ^        | ^                          | negatives | ^

        NT-Xent = −log ( exp(cos(z₁, z₂)/τ) / Σ exp(cos(z₁, k)/τ) )
        and the same from z₂ to z₁; k: z₂ and the negatives
        """,
    ),
    "moco": Drawing(
        "View 1 of a text passes the encoder and a projector and gives a query; view 2 passes a slowly moving copy of "
        "both and gives its key. InfoNCE must find the key among a queue of keys from earlier batches.",
        """
        a text | view 1 | *encoder | ~projector        | q                       | InfoNCE / τ = 0.2
        ^      | view 2 | ~!copy   | ~!its / projector | !key k⁺                 | ^
               |        |          |                   | ~!queue of / 1,024 keys | ^

        loss = −log ( exp(q · k⁺/τ) / Σ exp(q · k/τ) )
        k runs over k⁺ and the queue; vectors have length 1.
        """,
        ((2, 0, "moving average, m = 0.999"), (4, 1, "joins after the step")),
    ),
    "moco-v3": Drawing(
        "View 1 passes the encoder, a projector and a predictor; view 2 passes a slowly moving copy of encoder and "
        "projector. InfoNCE must find the key of the same text among the keys of the batch.",
        """
        a text        | view 1 | *encoder | ~projector        | ~predictor    | InfoNCE / × 2τ / τ = 0.2
        ^             | view 2 | ~!copy   | ~!its / projector | !key k₂       | ^
        other / texts | ^      | ^        | ^                 | !other / keys | ^

        loss = InfoNCE(q₁ → k₂) + InfoNCE(q₂ → k₁), each × 2τ
        q₁ is the predictor's output; the drawing shows one half.
        """,
        ((2, 0, "moving average, m ≥ 0.99"),),
    ),
    "swav": Drawing(
        "Two views pass one encoder and a projector and are compared with trained prototypes. View 1 predicts the "
        "code of view 2, which Sinkhorn's iterations compute with equal shares for all prototypes and without "
        "gradient.",
        """
        a text | view 1 | *encoder | ~projector       | ~128 / proto- / types | softmax / τ = 0.1  | cross- / entropy
        ^      | view 2 | ^        | ^                | ^                     | !Sinkhorn / code q | ^
               |        |          | ~!queue / of 256 | ^                     | ^                  |

        loss = −Σ q log softmax(z · c/τ), and with the views swapped
        z: projection, c: prototypes; codes give every prototype an
        equal share of batch and queue of earlier projections.
        """,
    ),
    "byol": Drawing(
        "View 1 passes the encoder, a projector and a predictor; view 2 passes a slowly moving copy of encoder and "
        "projector. The prediction must equal the copy's projection; there are no negatives.",
        """
        a text | view 1 | *encoder | ~projector        | ~predictor | squared / distance
        ^      | view 2 | ~!copy   | ~!its / projector | !target t  | ^

        loss = ‖q − t‖², and the same with the views exchanged
        q: the predictor's output; q and t have length 1.
        """,
        ((2, 0, "moving average, m ≥ 0.99"),),
    ),
    "simsiam": Drawing(
        "Both views pass the same encoder and projector, and a predictor follows for view 1 only. The prediction must "
        "point in the direction of the other view's projection, through which no gradient flows.",
        """
        a text | view 1 | *encoder | ~projector | ~predictor | negative / cosine
        ^      | view 2 | ^        | ^          | !z₂        | ^

        loss = −½ cos(p₁, z₂) − ½ cos(p₂, z₁)
        p₁: the predictor's output; the drawing shows one half.
        """,
    ),
    "barlow-twins": Drawing(
        "Two views pass one encoder and a train-only projector. The matrix of correlations between the dimensions of "
        "the two projections must become the identity.",
        """
        a text | view 1 | *encoder | ~projector, / 3 layers | z₁ | correlation / matrix C / = identity
        ^      | view 2 | ^        | ^                      | z₂ | ^

        loss = Σ (1 − C(i, i))² + λ Σ C(i, j)², λ = 0.0051
        C(i, i): dimension i in both views, over the batch
        C(i, j): two different dimensions
        """,
    ),
    "vicreg": Drawing(
        "Two views pass one encoder and a train-only expander. Three terms make the views agree, make each dimension "
        "vary over the batch and make different dimensions uncorrelated.",
        """
        a text | view 1 | *encoder | ~expander, / 3 layers | z₁ | 25 · invariance / + 25 · variance / + covariance
        ^      | view 2 | ^        | ^                     | z₂ | ^

        invariance: the mean squared difference of z₁ and z₂
        variance: max(0, 1 − deviation), the mean over dimensions
        covariance: the squares of those between two dimensions
        """,
    ),
}


def width(text: str) -> float:
    """The width of a text in a wide font (DejaVu Sans), roughly and rather too much than too little."""
    return SIZE * sum(
        0.42 if c in " .,;:ijlftr()/|'‖₁₂" else 0.86 if c in "mwMW=+−×≈≥→½" else 0.72 if c.isupper() else 0.64
        for c in text
    )


def draw(name: str) -> str:
    """The drawing of a method as SVG."""
    drawing = DRAWINGS[name]
    title = (PAGES / f"{name}.md").read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
    above, _, below = dedent(drawing.picture).strip("\n").rstrip().partition("\n\n")
    lanes = [[cell.strip() for cell in line.split("|")] for line in above.split("\n")]
    notes, columns = below.split("\n"), len(lanes[0])
    if "view 1" in above:
        notes.append("Views 1 and 2 differ by dropout, unless you choose others.")
    boxes = []  # column, first and last lane, marks, lines
    for column in range(columns):
        for first, lane in enumerate(lanes):
            if lane[column] not in ("", "^"):
                last = first
                while last + 1 < len(lanes) and lanes[last + 1][column] == "^":
                    last += 1
                words = lane[column].lstrip("*~!")
                boxes.append((column, first, last, lane[column].removesuffix(words), words.split(" / ")))

    widths = [2 * PAD + max(width(line) for box in boxes if box[0] == c for line in box[4]) for c in range(columns)]
    heights = [0.0] * len(lanes)
    gaps = [LINE + 20 if any(link[1] == lane for link in drawing.links) else BETWEEN for lane in range(len(lanes))]
    for _, first, last, _, lines in sorted(boxes, key=lambda box: box[2] - box[1]):
        missing = LINE * len(lines) + 2 * PAD - sum(heights[first : last + 1]) - sum(gaps[first:last])
        for lane in range(first, last + 1):
            heights[lane] += max(0.0, missing) / (last + 1 - first)
    marks = [mark for mark in MARKS if any(mark in box[3] for box in boxes)]
    legend = sum(46 + width(MARKS[mark][1]) for mark in marks)
    total = max(sum(widths) + GAP * (columns - 1), legend, *map(width, notes)) + 4
    left = [(total - sum(widths) - GAP * (columns - 1)) / 2 + sum(widths[:c]) + GAP * c for c in range(columns)]
    top = [2 + sum(heights[:lane]) + sum(gaps[:lane]) for lane in range(len(lanes))]

    parts, places = [], {}
    for column, first, last, mark, lines in boxes:
        upper, lower = top[first], top[last] + heights[last]
        if first == last:  # as high as its words, in the middle of the lane
            upper, lower = ((upper + lower + sign * (LINE * len(lines) + 2 * PAD)) / 2 for sign in (-1, 1))
        places.update({(lane, column): (first, upper, lower) for lane in range(first, last + 1)})
        style = " ".join(MARKS[each][0] for each in mark)
        parts.append(f'<g class="tcl-box">{_rect(left[column], upper, widths[column], lower - upper, style)}')
        middle = (upper + lower) / 2 - LINE * (len(lines) - 1) / 2
        parts += [_text(left[column] + widths[column] / 2, middle + LINE * n, line) for n, line in enumerate(lines)]
        parts.append("</g>")
    arrows: dict[tuple[tuple[int, int], ...], list[float]] = {}  # the heights of the lanes that two boxes share
    for lane, cells in enumerate(lanes):
        filled = [column for column in range(columns) if cells[column]]
        for one, other in pairwise(filled):
            ends = tuple((column, places[lane, column][0]) for column in (one, other))
            arrows.setdefault(ends, []).append(top[lane] + heights[lane] / 2)
    for ((one, _), (other, _)), shared in arrows.items():
        y, end = sum(shared) / len(shared), left[other] - 2
        parts.append(f'<path d="M{left[one] + widths[one] + 2:.0f} {y:.0f}H{end:.0f}m-7-5l7 5-7 5"/>')
    for column, lane, words in drawing.links:
        x, start, end = left[column] + widths[column] / 2, places[lane, column][2] + 2, places[lane + 1, column][1] - 2
        parts.append(f'<path class="tcl-link" d="M{x:.0f} {start:.0f}V{end:.0f}"/>')
        parts.append(f'<path d="M{x:.0f} {end:.0f}m-5-7l5 7 5-7"/>')
        style, shift = ("tcl-left", 10) if x < total / 2 else ("tcl-right", -10)
        parts.append(_text(x + shift, top[lane] + heights[lane] + gaps[lane] / 2, words, style))

    x, y = 2.0, top[-1] + heights[-1] + 30
    for mark in marks:
        parts += [_rect(x, y - 9, 26, 18, MARKS[mark][0]), _text(x + 32, y, MARKS[mark][1], "tcl-left")]
        x += 46 + width(MARKS[mark][1])
    parts += [_text(2, y + 36 + LINE * n, line, "tcl-left") for n, line in enumerate(notes)]
    height = y + 36 + LINE * len(notes) - 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tcl-drawing" width="{0.85 * total:.0f}" '
        f'viewBox="0 0 {total:.0f} {height:.0f}" role="img" aria-labelledby="tcl-{name}-title tcl-{name}-desc">\n'
        f'<title id="tcl-{name}-title">{escape(title)}: how it works</title>\n'
        f'<desc id="tcl-{name}-desc">{escape(drawing.description)}</desc>\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _rect(x: float, y: float, wide: float, high: float, style: str) -> str:
    kind = f' class="{style}"' if style else ""
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{high:.0f}" rx="6"{kind}/>'


def _text(x: float, middle: float, words: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.0f}" y="{middle + 0.35 * SIZE:.0f}"{kind}>{escape(words.strip(), quote=False)}</text>'


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for method in DRAWINGS:
        (FOLDER / f"{method}.svg").write_text(draw(method), encoding="utf-8")
