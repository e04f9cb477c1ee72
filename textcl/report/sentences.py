"""The sections of a run's report that show sentences: pairs of STS-B dev, the map of texts, and nearest neighbours."""

from typing import Any

from textcl.data.sts import Subset
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.report import examples, plots
from textcl.report.page import Card, Section, Table
from textcl.report.records import Run
from textcl.texts import in_one_line

WIDTH = 160  # longest text that is shown, in characters
MAP_WIDTH = 100  # longest text on a map, which has thousands of texts
GONE, NEW = "[gone]", "[new]"  # before a neighbour that only the first encoder, or only the last one, has


def by_grade(pairs: Subset, cosines: dict[str, Any]) -> Section:
    grades = [float(int(score + 0.5)) for score in pairs.scores]
    plot = plots.similarity_by_grade({name: (grades, found.tolist()) for name, found in cosines.items()})
    return Section("Similarity by gold score", ["STS-B dev, with gold scores rounded to integers."], plots=[plot])


def disagreements(pairs: Subset, cosines: dict[str, Any], texts: bool) -> Section:
    name = list(cosines)[-1]
    rows: dict[bool, list[list[Any]]] = {True: [], False: []}
    for pair, gold, model in examples.disagreements(pairs.scores, cosines[name]):
        shown = (
            [in_one_line(pairs.first[pair], WIDTH), in_one_line(pairs.second[pair], WIDTH)] if texts else str(pair + 1)
        )
        figures = [f"{model - gold:+.0f}", f"{gold:.0f}", f"{model:.0f}"]
        rows[model > gold].append([shown, *figures, f"{pairs.scores[pair]:g}", f"{cosines[name][pair]:.2f}"])
    header = ["texts" if texts else "pair", "difference", "rank, people", "rank, model", "gold score", "cosine"]
    tables = [
        Table(header, rows[True], "The model ranks them too similar"),
        Table(header, rows[False], "The model ranks them too different"),
    ]
    how = (
        f"The pairs of STS-B dev whose rank by the {name} encoder differs most from their rank by people. Rank 0 is "
        "the least similar pair, rank 100 the most similar."
    )
    return Section("Where model and people disagree", [how], [table for table in tables if table.rows])


def map_and_neighbours(
    run: Run, encoders: dict[str, Encoder], pairs: Subset | None, notes: list[str], texts: bool
) -> list[Section]:
    """The map of texts, and the nearest neighbours of a few of them."""
    try:
        if not run.recipe.get("data"):
            raise InputError("the run's recipe names no corpus.")
        sample = examples.sample_corpus(run.recipe, run.record.data.sha256 if run.record else None)
    except (InputError, OSError) as error:
        notes.append(f"The training corpus cannot be read: {error}")
        if pairs is None:
            notes.append("The map and the nearest neighbours are not shown, because there are no texts for them.")
            return []
        sample = examples.sample_pairs(pairs)
    rows = {name: examples.embed(encoder, sample.texts) for name, encoder in encoders.items()}
    if len(sample.texts) < 3:
        return []
    last = list(rows)[-1]
    groups, colour = examples.grouping(sample, rows[last], words=texts)
    drawn = []
    for name, embeddings in rows.items():
        points, kept = examples.project(embeddings)
        shown = [in_one_line(text, MAP_WIDTH) for text in sample.texts] if texts else None
        note = f"The first two principal components, which have {100 * kept:.0f} % of the variance."
        drawn.append(plots.sentence_map(points, groups, shown, name.capitalize(), note))
    on_hover = " Hover over or tap a point for its text." if texts else ""
    what = f"{len(sample.texts):,} texts of {sample.source}. {colour}{on_hover}"
    sections = [Section("Map of sentences", [what], plots=drawn)]
    return [*sections, _neighbours(sample, rows)] if texts else sections


def _neighbours(sample: examples.Sample, rows: dict[str, Any]) -> Section:
    """The nearest texts of a few texts by each encoder; with two encoders, of texts where they changed."""
    how = f"The {examples.NEIGHBOURS} nearest texts of the map, by cosine, for a few of its texts."
    chosen = examples.spaced(range(len(sample.texts)))
    if len(rows) < 2:
        how += " These are evenly spaced in the sample, not selected by result."
    else:
        changed = examples.changed(*rows.values())
        chosen = examples.spaced(changed) or chosen
        first, last = rows
        how += (
            f" {len(changed):,} of {len(sample.texts):,} texts have other nearest texts after training than before; "
            f"{len(chosen)} of these are shown, evenly spaced in the sample. {GONE} marks a text that is near for the "
            f"{first} encoder only, {NEW} one that is near for the {last} encoder only."
            if changed
            else " No text has other nearest texts after training than before; these are evenly spaced in the sample."
        )
    cards = []
    for query in chosen:
        found = {name: examples.neighbours(embeddings, query) for name, embeddings in rows.items()}
        both = set.intersection(*({place for place, _ in each} for each in found.values()))
        lists = []
        for (name, each), mark in zip(found.items(), (GONE, NEW), strict=False):
            lines = [
                f"{cosine:.2f}  {'' if place in both else f'{mark} '}{in_one_line(sample.texts[place], WIDTH)}"
                for place, cosine in each
            ]
            lists.append((name, lines))
        cards.append(Card(in_one_line(sample.texts[query], WIDTH), lists))
    return Section("Nearest neighbours", [how], cards=cards)
