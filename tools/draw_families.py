"""Writes docs/drawings/families.svg and its table in docs/families.md: `python tools/draw_families.py`.

Five small runs of textcl's own methods on the bundled encoder and texts, about three minutes on one core. Each panel
shows what a run's loss compares: two views of texts that were not trained on.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import set_seed

import textcl
from textcl.data.training import BUNDLED_TEXTS
from textcl.methods.method import Method
from textcl.metrics.geometry import effective_rank, mean_cosine, positive_cosine

DOCS = Path(__file__).parents[1] / "docs"
SHOWN, ROWS, LENGTH, RATE, STEPS, SEED = 128, 32, 16, 1e-3, 60, 0  # texts in a panel, then the setting of each run
VIEWS = {"first_view": "word_deletion:0.2", "second_view": "word_deletion:0.2"}
SIZE = {"projection_dimension": 64}
BEGIN, END = "<!-- figures of tools/draw_families.py -->\n", "<!-- end of figures -->"  # around the table of the page


@dataclass(frozen=True)
class Panel:
    """A panel: its name, what prevents collapse in it, and its method; without `trained`, the method at its start."""

    name: str
    defence: str
    method: Callable[[textcl.Encoder], Method]
    trained: bool = True


@dataclass(frozen=True)
class Cloud:
    """What a run's loss compares, (2, texts, dim) unit vectors, and the embeddings of the same texts, (texts, dim)."""

    views: Tensor
    embeddings: Tensor

    def figures(self) -> dict[str, str]:
        """Effective rank and mean cosine of different texts, of projections and embeddings; cosine of the two views."""
        first, second = self.views
        return {
            "rank": f"{effective_rank(first):.1f}",
            "cosine": _signed(mean_cosine(first)),
            "views": _signed(positive_cosine(first, second)),
            "rank of embeddings": f"{effective_rank(self.embeddings):.1f}",
            "cosine of embeddings": _signed(mean_cosine(self.embeddings)),
        }


def _byol(encoder: textcl.Encoder, asymmetric: bool = True) -> Method:
    return textcl.BYOL(encoder, **VIEWS, **SIZE, hidden_dimension=256, momentum=0.9, asymmetric=asymmetric)


def _swav(encoder: textcl.Encoder) -> Method:
    options = {"hidden_dimension": 256, "prototypes": 16, "frozen_steps": 10, "queue_size": 0}
    return textcl.SwAV(encoder, **VIEWS, **SIZE, **options)


PANELS = {
    "start": Panel("before training", "BYOL's random head", _byol, trained=False),
    "positives": Panel("positives only", "nothing", lambda encoder: _byol(encoder, asymmetric=False)),
    "negatives": Panel("negatives", "SimCLR: other texts", lambda encoder: textcl.SimCLR(encoder, **VIEWS, **SIZE)),
    "asymmetry": Panel("asymmetry", "BYOL: predictor, target", _byol),
    "redundancy": Panel("redundancy", "VICReg: variance", lambda encoder: textcl.VICReg(encoder, **VIEWS, **SIZE)),
    "clustering": Panel("clustering", "SwAV: equal shares", _swav),
}


def run(panel: Panel, steps: int, shown: int) -> Cloud:
    """Trains a panel's method, and embeds two views of texts that were not trained on."""
    texts = BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines()
    random.Random(SEED).shuffle(texts)
    held_out, trained_on = texts[:shown], texts[shown:]
    set_seed(SEED)  # heads get random initial weights
    encoder = textcl.Encoder.from_pretrained("bundled", pooling="mean", max_length=LENGTH, device="cpu")
    method = panel.method(encoder)
    if panel.trained:
        with tempfile.TemporaryDirectory() as folder:
            args = textcl.ContrastiveTrainingArguments(
                folder,
                per_device_train_batch_size=ROWS,
                learning_rate=RATE,
                max_steps=steps,
                logging_steps=steps,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=False,
                seed=SEED,
            )
            rows = Dataset.from_dict({"text": trained_on[: steps * ROWS]})
            textcl.ContrastiveTrainer(model=method, args=args, train_dataset=rows).train()
    torch.manual_seed(SEED)
    method.train()  # with the dropout of training: what the loss compares
    head = method.expander if isinstance(method, textcl.VICReg) else method.projector
    with torch.no_grad():
        embedded = method.embed(method.collator(SEED)([{"text": text} for text in held_out]))
        views = torch.stack([head(view) for view in embedded.chunk(2)])
    embeddings = torch.as_tensor(encoder.encode(held_out))
    return Cloud(torch.nn.functional.normalize(views, dim=2), embeddings)


WIDE, HIGH, GAP, MARGIN, TOP, LETTERS = 252, 200, 10, 4, 60, 20  # a panel's picture, and the words above it
REACH = 0.9  # of a panel's half height, on the plane: how far from the mean a point may lie
STYLE = (
    ".tcl-drawing{color:var(--md-default-fg-color,#1f2328);font-family:Helvetica,Arial,sans-serif}"
    "@media (prefers-color-scheme:dark){.tcl-drawing{color:var(--md-default-fg-color,#e6edf3)}}"
    f".tcl-drawing text{{fill:currentColor;font-size:{LETTERS}px;text-anchor:middle}}"
    ".tcl-drawing .tcl-name{font-weight:bold}.tcl-drawing .tcl-left{text-anchor:start}"
    ".tcl-drawing rect{fill:none;stroke:currentColor;stroke-width:1;stroke-opacity:.4}"
    ".tcl-drawing path{fill:none;stroke-linecap:round}"
    ".tcl-drawing .tcl-pairs{stroke:currentColor;stroke-width:1;stroke-opacity:.3}"
    ".tcl-drawing .tcl-points{stroke:#6674d4;stroke-width:5}"
    ".tcl-drawing .tcl-scale{stroke:currentColor;stroke-width:2}"
)
DESCRIPTION = (
    "Six point clouds: the projections of {texts} texts, two views of each, joined by a line. All panels have the same "
    "scale, so a collapsed cloud is a dot. {numbers}"
)


def draw(clouds: dict[str, Cloud]) -> str:
    """The picture as SVG: two rows of three panels, each on its first two principal components."""
    parts, numbers = [], []
    for place, (key, cloud) in enumerate(clouds.items()):
        left, top = MARGIN + place % 3 * (WIDE + GAP), MARGIN + place // 3 * (TOP + HIGH + 30 + 2 * GAP)
        panel, figures, middle = PANELS[key], cloud.figures(), left + WIDE // 2
        said = f"rank {figures['rank']}, cosine {figures['cosine']}"
        numbers.append(f"{panel.name.capitalize()}: {said}.")
        spots = _plane(cloud.views) * (HIGH / 2 / REACH)
        spots = spots * torch.tensor([1.0, -1.0]) + torch.tensor([left + WIDE / 2, top + TOP + HIGH / 2])
        first, second = ([f"{x:.1f} {y:.1f}" for x, y in view.tolist()] for view in spots)
        parts += [
            f'<g class="tcl-panel" id="tcl-families-{key}">',
            _text(middle, top + 20, panel.name, "tcl-name"),
            _text(middle, top + 45, panel.defence),
            f'<rect x="{left}" y="{top + TOP}" width="{WIDE}" height="{HIGH}" rx="6"/>',
            f'<path class="tcl-pairs" d="{"".join(map("M{}L{}".format, first, second))}"/>',
            f'<path class="tcl-points" d="{"".join(f"M{each}h0" for each in first + second)}"/>',
            _text(middle, top + TOP + HIGH + 24, said),
            "</g>",
        ]
    bottom, unit = MARGIN + 2 * (TOP + HIGH + 30 + 2 * GAP) + 12, HIGH / 2 / REACH
    parts += [
        f'<path class="tcl-scale" d="M{MARGIN} {bottom}h{unit / 2:.0f}"/>',
        _text(
            MARGIN + unit / 2 + 12, bottom + 7, "0.5 in all panels; unit vectors, two views of each text", "tcl-left"
        ),
    ]
    texts = clouds["start"].views.shape[1]
    description = DESCRIPTION.format(texts=texts, numbers=" ".join(numbers))
    total = 3 * WIDE + 2 * GAP + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tcl-drawing" width="{total}" viewBox="0 0 {total} '
        f'{bottom + 14}" role="img" aria-labelledby="tcl-families-title tcl-families-desc">\n'
        '<title id="tcl-families-title">Collapse, and what prevents it</title>\n'
        f'<desc id="tcl-families-desc">{escape(description)}</desc>\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def table(clouds: dict[str, Cloud]) -> str:
    """The figures of all panels, as a Markdown table."""
    header = ["", "what prevents collapse", "rank", "cosine", "two views", "embeddings: rank", "cosine"]
    rows = [[PANELS[key].name, PANELS[key].defence, *cloud.figures().values()] for key, cloud in clouds.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def _plane(views: Tensor) -> Tensor:
    """Both views on the first two principal components of their unit vectors, (2, texts, 2)."""
    rows = views.flatten(0, 1)
    rows = rows - rows.mean(dim=0)
    axes = torch.linalg.svd(rows, full_matrices=False).Vh[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()  # else the sign is arbitrary
    return (rows @ axes.T).unflatten(0, (2, -1))


def _text(x: float, baseline: float, words: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.0f}" y="{baseline:.0f}"{kind}>{escape(words, quote=False)}</text>'


def _signed(value: Tensor) -> str:
    return f"{value:.3f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder with families.md (default: docs/)")
    parser.add_argument("--quick", action="store_true", help="two steps and eight texts, to try the script")
    options = parser.parse_args()
    steps, shown = (2, 8) if options.quick else (STEPS, SHOWN)
    page = options.docs / "families.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest[rest.index(END) :]
    clouds = {key: run(panel, steps, shown) for key, panel in PANELS.items()}
    (options.docs / "drawings").mkdir(exist_ok=True)
    (options.docs / "drawings" / "families.svg").write_text(draw(clouds), encoding="utf-8")
    page.write_text(f"{before}{BEGIN}{table(clouds)}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
