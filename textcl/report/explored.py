"""The page of `textcl explore`, and the lines that the command prints: what was found in a file of texts."""

import shlex
from pathlib import Path
from typing import Any

from textcl.report.clusters import not_found_again, silhouette_sentence, trust_sentences
from textcl.report.page import Card, Link, Page, Section, Table
from textcl.texts import counted
from textcl.vectors.duplicates import rule
from textcl.version import __version__

SHOWN = 20  # groups of near-duplicates on the page; further ones are in a table that can be opened
LEAST = "least cosine with the kept text"
STEPS = ("vectors", "duplicates", "clusters", "map")

Record = dict[str, Any]


def printed_lines(record: Record, folder: str, seconds: float) -> list[str]:
    """What was found, a line for each step, as the command prints it.

    Args:
        record: What `explore` returned.
        folder: The directory, as the user named it.
        seconds: How long the command took.
    """
    return [
        *(f"{folder}/{file}: {text}" if file else text for file, text in _said(record)),
        f"{folder}/index.html: all of it on one page; open it in a browser ({seconds:,.0f} s in all).",
    ]


def explored_page(record: Record) -> Page:
    """The page on what `explore` returned."""
    clusters, drawn = record["clusters"], record["map"]
    name, column = Path(record["settings"]["source"]).resolve().name, record["settings"]["column"]
    what = f"{_texts(record['vectors']['texts'])}{f' of the column {column}' if column else ''}"
    page = Page(f"{name}: a first look", f"{what}, encoded by {_model(record)}; textcl {__version__}.")
    said = _said(record)
    links = [Link(file, text) for file, text in said if file is not None]
    page.sections.append(Section("What there is", [text for file, text in said if file is None], links=links))
    if "failed" not in drawn:
        page.sections.append(Section("Map", [f"Each text is a point, {_placed(drawn)}."], frame="map.html"))
    if "failed" not in clusters:
        page.sections.append(_clusters(clusters))
    page.sections.append(_groups(record["duplicates"]))
    return page


def _said(record: Record) -> list[tuple[str | None, str]]:
    """For each step a file beside the page, or None, and a sentence."""
    vectors, duplicates, clusters, drawn = (record[name] for name in STEPS)
    copies, near, groups = (duplicates[name] for name in ("copies", "near", "groups"))
    said: list[tuple[str | None, str]] = [
        (
            "groups.csv",
            f"{_texts(groups + copies + near)} in {counted(groups, 'group')} of near-duplicates. If you keep one text "
            f"of each group, {copies + near:,} can be removed: {copies:,} equal to an earlier text but for case "
            f"and spaces, {near:,} near the kept one. {' '.join(duplicates['notes'])}",
        )
    ]
    if "failed" in clusters:
        said.append((None, f"No clusters: {clusters['failed']}"))
    else:
        chosen = ", a number that was estimated from the texts" if clusters["estimated"] else ""
        chosen += "" if clusters["shown"] else "; they show no clear groups, and another number would be as good"
        weak = len(not_found_again([each["found_again"] for each in clusters["clusters"]]))
        mixed = (
            f" Not found again in half of the texts, so mixtures or parts of a topic: {weak} of them." if weak else ""
        )
        said.append(("clusters.csv", f"{counted(len(clusters['clusters']), 'cluster')}{chosen}.{mixed}"))
    if "failed" in drawn:
        said.append((None, f"No map: {drawn['failed']}"))
    else:
        said.append(("map.html", f"each text as a point, {_placed(drawn)}."))
    use = f'textcl search {shlex.quote(vectors["path"])} "a query" finds texts by meaning.'
    said.append((None, f"{vectors['path']}: {_texts(vectors['texts'])} as vectors of {_model(record)}. {use}"))
    return said


def _placed(drawn: Record) -> str:
    if drawn["layout"] == "umap":
        return "placed by UMAP: similar texts are near each other, and distances between groups mean little"
    kept = f"{100 * drawn['kept']:.0f} % of the variance of the vectors"
    return f"placed by PCA, which keeps {kept}: similar texts are near each other, but near ones need not be similar"


def _clusters(clusters: Record) -> Section:
    listed = clusters["clusters"]
    sense = (
        silhouette_sentence(clusters["silhouette"])
        if clusters["shown"]
        else "These texts show no clear groups: another number of clusters would be as good."
    )
    trust = trust_sentences(
        clusters["agreement"], [each["name"] for each in listed], [each["found_again"] for each in listed]
    )
    how = "Each cluster with its keywords and its most central texts; the largest one is the first."
    cards = [
        Card(f"{each['name']}: {_texts(each['size'])}", [(", ".join(each["keywords"]), each["texts"])])
        for each in listed
    ]
    return Section("Clusters", [sense, *trust, how], cards=cards)


def _groups(duplicates: Record) -> Section:
    groups = duplicates["surest"]
    if not groups:
        return Section("Near-duplicates", ["There are none."])
    paragraphs = [
        f"Two texts are taken for near-duplicates if {rule(duplicates['cosine'], duplicates['words'])}.",
        *duplicates["notes"],
        "Of each group the first text in the file is kept. The groups whose texts are nearest to the kept one come "
        "first; a least cosine below the threshold means that texts were found by their words. groups.csv has every "
        "text with the number of its group.",
    ]
    cards = [
        Card(f"Group {each['group']}: {_texts(each['size'])}", [(_sureness(each), _marked(each))])
        for each in groups[:SHOWN]
    ]
    header = ["group", "texts", LEAST, "texts of the group"]
    rest = [
        [each["group"], each["size"], f"{each['cosine']:.2f}", _marked(each) + _more(each)] for each in groups[SHOWN:]
    ]
    caption = f"{'The next' if duplicates['groups'] > len(groups) else 'The other'} {len(rest):,} groups"
    folded = [Table(header, rest, caption)] if rest else []
    return Section("Near-duplicates", paragraphs, cards=cards, folded=folded)


def _sureness(group: Record) -> str:
    return "; ".join([f"{LEAST} {group['cosine']:.2f}", *_more(group)])


def _more(group: Record) -> list[str]:
    hidden = group["size"] - len(group["texts"])
    return [f"{hidden:,} more in groups.csv"] if hidden else []


def _marked(group: Record) -> list[str]:
    """The texts of a group with their ids; the first is the one to keep."""
    return [f"{text} ({'id' if row else 'keep; id'} {own})" for row, (own, text) in enumerate(group["texts"])]


def _model(record: Record) -> str:
    """The encoder: its name, or the end of its path."""
    path = Path(record["vectors"]["model"])
    return "/".join(path.parts[-2:]) if path.is_absolute() else str(path)


def _texts(number: int) -> str:
    return counted(number, "text")
