"""Clusters as text: how their number was found, what their silhouette means, and the tree in which they merge."""

from collections.abc import Sequence

from textcl.metrics.clustering import Merge
from textcl.metrics.stability import Stability
from textcl.report.tables import table

BAR = 30  # characters of the longest bar
AGAIN = 0.5  # a cluster with less overlap is dissolved in other texts rather than found again (Hennig 2007)
_AGREEMENTS = (
    (0.75, "mostly the same clusters come back."),
    (0.5, "most clusters come back, some do not."),
    (-1.0, "many clusters do not come back."),
)
# From this mean silhouette on, what it says of the clusters. Those of classes that people made are 0.05 to 0.15.
_MEANINGS = (
    (0.5, "the clusters lie clearly apart."),
    (0.25, "the clusters can be told apart, and some overlap."),
    (0.05, "the clusters overlap, as topics of short texts mostly do, so where one ends is arbitrary."),
    (-1.0, "the clusters run into each other: read them as a rough order of the texts."),
)


def silhouette_sentence(silhouette: float | None) -> str:
    """What a mean silhouette means, in one sentence."""
    if silhouette is None:
        return "The silhouette is not defined: it needs two clusters with texts, and two texts in one of them."
    meaning = next(words for least, words in _MEANINGS if silhouette >= least)
    nearer, other = ("its own", "the nearest other") if silhouette >= 0 else ("the nearest other", "its own")
    return (
        f"Silhouette {silhouette:.2f} (−1 to 1): on average, a text is about {100 * abs(silhouette):.0f} % nearer to "
        f"the texts of {nearer} cluster than to those of {other} cluster; {meaning}"
    )


def not_found_again(again: Sequence[float | None]) -> list[int]:
    """The numbers of the clusters that are dissolved in halves of the texts; `again`: `ClusteredTexts.found_again`."""
    return [number for number, each in enumerate(again) if each is not None and each < AGAIN]


def trust_sentences(agreement: float | None, names: Sequence[str], again: Sequence[float | None]) -> list[str]:
    """Whether clusters can be trusted, and which ones cannot: sentences.

    Args:
        agreement: `ClusteredTexts.agreement`.
        names: The names of the clusters.
        again: `ClusteredTexts.found_again`.
    """
    if agreement is None:
        return []
    meaning = next(words for least, words in _AGREEMENTS if agreement >= least)
    said = [
        f"Can they be trusted? k-means on one half of the texts and on the other half agree to {agreement:.2f} on "
        f"which texts belong together (1: fully; 0: as by chance): {meaning}"
    ]
    if weak := [f"{names[place]} ({100 * (again[place] or 0):.0f} %)" for place in not_found_again(again)]:
        said.append(
            f"Not found again in half of the texts, so mixtures or parts of a topic: {'; '.join(weak)}. (The "
            "percentage: how far the cluster and its nearest match there overlap.)"
        )
    return said


def adapted_sentences(changed: int, texts: int, before: float | None, after: float | None) -> list[str]:
    """What is known of clusters of a trained encoder beside those of the untouched one: sentences.

    Args:
        changed: The number of texts in another cluster.
        texts: The number of texts.
        before: How well halves of the texts agree with the untouched encoder; None if it is not known.
        after: The same with the trained encoder.
    """
    said = [
        "Whether --adapt made the clusters better cannot be said without labels. Compared with as many clusters of the "
        f"untouched encoder, {changed:,} of {texts:,} texts ({100 * changed / texts:.1f} %) are in another cluster."
    ]
    if before is not None and after is not None:
        said.append(
            f"k-means on one half of the texts and on the other half agreed to {before:.2f} before and {after:.2f} "
            "after; training pulls clusters together, so this rises even where they get worse."
        )
    said.append(
        "For a verdict, keep the trained encoder (--save-encoder DIR) and label some texts: "
        "textcl adapt MODEL,DIR --data FILE --for clusters --dev labels:LABELLED"
    )
    return said


def stability_lines(stability: Stability) -> list[str]:
    """The curve by which the number of clusters was chosen, as a table with bars."""
    rows = []
    for number, agreement, null in zip(stability.numbers, stability.agreement, stability.null, strict=True):
        bar = "█" * round(BAR * max(agreement - null, 0)) + ("  ← chosen" if number == stability.best else "")
        rows.append([str(number), f"{agreement:.2f}", f"{null:.2f}", f"{agreement - null:.2f}", bar])
    found = (
        f"{stability.best} clusters come back best on other texts of the same kind. Agreement of k-means on two halves "
        "of the texts, beside that on permuted values without clusters (1: the same clusters; 0: chance):"
    )
    if not stability.shown:
        found = (
            "No number of clusters is more stable than in permuted values without clusters: these texts show no clear "
            f"groups. {stability.best} clusters are taken. Agreement (1: the same clusters; 0: chance):"
        )
    lines = table(["clusters", "agreement", "permuted", "difference", ""], rows).splitlines()
    return [found, *(line.rstrip() for line in lines)]


def tree_lines(names: Sequence[str], merges: Sequence[Merge]) -> list[str]:
    """The hierarchy as lines: each branch says how much of the variance between clusters lies between its two parts.

    Args:
        names: What is written at each leaf.
        merges: What `merge_clusters` returned for them.
    """
    parts = {each.merged: each for each in merges}
    lines: list[str] = []
    waiting = [(len(names) + len(merges) - 1, "", "")]  # node, beginning of its line, beginning of those below it
    while waiting:
        node, head, below = waiting.pop()
        if node not in parts:
            lines.append(f"{head}{names[node]}")
            continue
        merge = parts[node]
        lines.append(f"{head}{100 * merge.height:.1f} %")
        waiting.append((merge.second, f"{below}└ ", f"{below}  "))
        waiting.append((merge.first, f"{below}├ ", f"{below}│ "))
    return lines
