"""How often is the true gain inside the interval that `textcl adapt --for clusters` prints?

    python -m benchmarks.coverage FILE [--model DIRECTORY] [--texts 600] [--draws 40] [--vectors FOLDER]

FILE has the columns text and label, such as StackOverflow's titles. A linear map is trained on one half of the texts,
half against half. The other half is fresh: the true gain in accuracy is the mean over draws from it, and each draw of
the same size gives an interval. 95 % of the intervals should contain the true gain.
"""

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from benchmarks.measure import Options
from textcl.adaptation.known_items import known_items
from textcl.adaptation.labels import Labels
from textcl.adaptation.material import make_material
from textcl.adaptation.workplace import Workplace
from textcl.data.corpora import load_labelled
from textcl.encoder import Encoder
from textcl.progress import Progress
from textcl.report.tables import table

PULL = 0.3


def gain(labels: Labels, weight: np.ndarray, rows: np.ndarray) -> float:
    """The gain in accuracy on some texts, as `Labels.judge` measures it: each half by itself."""
    halves = rows[::2], rows[1::2]
    return float(np.concatenate([labels.right(each, weight) - labels.right(each, None) for each in halves]).mean())


def measure(path: Path, encoder: Encoder, place: Workplace, texts: int, draws: int) -> list[list[str]]:
    rows = load_labelled(path)
    numbers = np.unique(np.array(rows["label"]), return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(len(numbers))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    views = [view for view in known_items(list(rows.select(first)["text"])) if view.name == "half"]
    weight = make_material(encoder, views, place, np.arange(len(first))).fit(PULL)
    labels = Labels(place.vectors(encoder, list(rows["text"]), encoder.prompt_text()), numbers, "")
    generator = np.random.default_rng(1)
    truth = [
        gain(labels, weight, generator.choice(second, texts, replace=False))
        for _ in Progress("Measuring the true gain", 4 * draws, "draws").over(range(4 * draws))
    ]
    true, inside, widths, found = float(np.mean(truth)), 0, [], []
    for seed in Progress("Measuring intervals", draws, "draws").over(range(draws)):
        drawn = generator.choice(second, texts, replace=False)
        part = Labels(labels.vectors[drawn], np.unique(numbers[drawn], return_inverse=True)[1], "")
        comparison = part.judge([weight], seed)[1]
        inside += comparison.low <= true <= comparison.high
        widths.append(comparison.high - comparison.low)
        found.append(comparison.after - comparison.before)
    error = np.std(truth, ddof=1) / np.sqrt(len(truth))
    return [
        ["true gain", f"{true:+.2f} ± {error:.2f}"],
        ["gains of the draws", f"{np.mean(found):+.2f}, standard deviation {np.std(found, ddof=1):.2f}"],
        ["width of the intervals", f"{np.mean(widths):.2f}, of a standard error {np.mean(widths) / 3.92:.2f}"],
        ["intervals with the true gain", f"{inside} of {draws}"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--vectors", type=Path, default=None)
    given = parser.parse_args()
    encoder = Encoder.from_pretrained(Options(given.model).encoder())
    with nullcontext(given.vectors) if given.vectors else tempfile.TemporaryDirectory() as folder:
        rows = measure(given.file, encoder, Workplace(Path(folder)), given.texts, given.draws)
    print(table(["what", "result"], rows))


if __name__ == "__main__":
    main()
