"""The page on an adaptation: the verdict, what it rests on, and the queries that changed most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from textcl.adaptation.adapt import RECORD
from textcl.adaptation.changes import MOST, WIDTH
from textcl.adaptation.verdict import Comparison
from textcl.errors import InputError
from textcl.evaluation.significance import shown_p
from textcl.report import plots
from textcl.report.page import Page, Section, Table
from textcl.seals import read_sealed
from textcl.version import __version__

Record = Mapping[str, Any]
_NEEDED = ("verdict", "main", "candidates", "changes", "chosen", "command", "settings", "data", "lines")


def write_page(record: Record, path: str | Path, *, texts: bool = True) -> Path:
    """Writes the page on an adaptation: one HTML file that needs no network.

    Args:
        record: `Adapted.record`, or what `read_adapted` returns.
        path: The file to write.
        texts: Whether to show the queries and documents that changed most.

    Raises:
        InputError: altair, vl-convert-python or jinja2 is not installed, or the file cannot be written.

    Example:
        >>> adapted = textcl.adapt("bundled", "tickets.csv", "better")  # doctest: +SKIP
        >>> textcl.report.adapted.write_page(adapted.record, "better/report.html")  # doctest: +SKIP
    """
    return adapted_page(record, texts=texts).save(path)


def is_adapted(folder: str | Path) -> bool:
    """Whether a directory is the output of `textcl adapt`."""
    return (Path(folder) / RECORD).is_file()


def read_adapted(folder: str | Path) -> dict[str, Any]:
    """The content of adapt.json in the output of `textcl adapt`.

    Raises:
        InputError: The file is damaged, or an earlier version of textcl wrote it.
    """
    record = read_sealed(Path(folder) / RECORD)
    if missing := [key for key in _NEEDED if key not in record]:
        raise InputError(
            f"{Path(folder) / RECORD} has no entry {missing[0]!r}, so another version of textcl wrote it; run textcl "
            "adapt again."
        )
    return record


def adapted_page(record: Record, *, texts: bool = True) -> Page:
    """The page on an adaptation; arguments as in `write_page`."""
    what = f"A report on looking for an encoder that is better for {record['data']['name']}, by textcl {__version__}."
    page = Page(_headline(record), what, [str(line) for line in record["lines"][-2:]])
    if not texts:
        page.notes.append("Texts are not shown, because the report was made without them.")
    page.sections = [_before_and_after(record)]
    if record["retrieval"]:
        page.sections.append(_retrieval(record["retrieval"]))
    page.sections += [_candidates(record), _changes(record, texts), _judging(record), _provenance(record)]
    return page


def _headline(record: Record) -> str:
    verdict, main = record["verdict"], record["main"]
    outcome = verdict["outcome"].capitalize()
    if main is None:
        return outcome
    figures = f"{main['measure']} {_points(main['before'])} → {_points(main['after'])}"
    if verdict["why"] and verdict["outcome"] != "better":  # the main figures do not explain it
        return f"{outcome}: {figures} at {main['task']}, {verdict['why'].partition(':')[0]}"
    return f"{outcome} at {main['task']}: {figures}"


def _sides(record: Record) -> tuple[str, str]:
    """The names of before and after."""
    return ("untouched", "adapted") if len(record["models"]) == 1 else ("first model", "best other")


def _compared(record: Record) -> dict[str, Comparison]:
    """All comparisons by short names, the one that decides first."""
    found = {"main view": record["main"], "second view": record["second"]}
    found |= {each["task"].removeprefix("similarity on "): each for each in record["guards"]}
    return {name: _comparison(each) for name, each in found.items() if each is not None}


def _comparison(entry: Record) -> Comparison:
    return Comparison(**{each.name: entry[each.name] for each in fields(Comparison) if each.name in entry})


def _before_and_after(record: Record) -> Section:
    title, (before, after) = "Before and after", _sides(record)
    compared = _compared(record)
    if "main view" not in compared:
        return Section(title, [_not_measured(record)])
    rows = [
        [[name, f"{each.task}: {each.measure}"], *_figures(each), f"{each.units:,} {each.unit}"]
        for name, each in compared.items()
    ]
    header = ["what was measured", before, after, "difference", "95 % interval", "units"]
    how = (
        "The main view decides. The second view asks queries of another kind, which were not trained on. The other "
        "rows are general pairs of sentences: they show whether the encoder still knows what sentences mean."
    )
    drawn = [
        plots.before_and_after(compared["main view"], (before, after)),
        plots.intervals(
            {name: {"mean": each.difference, "low": each.low, "high": each.high} for name, each in compared.items()},
            "Differences in points",
            "With 95 % intervals. The p-value under “How it was judged” decides, and not whether an interval meets the "
            "dashed line.",
        ),
    ]
    return Section(title, [how], [Table(header, rows, leading=True)], drawn)


def _retrieval(found: Record) -> Section:
    rows = [
        [name, encoder, _points(cell["after"]), f"{_points(cell['low'])} to {_points(cell['high'])}"]
        for name in ("dense", "hybrid")
        for encoder, cell in zip(("untouched", "adapted"), found[name], strict=True)
    ]
    how = "Dense search compares vectors alone; hybrid search counts words as well, which is no gain of the adaptation."
    use = f"{found['use'][0].upper()}{found['use'][1:]}."
    return Section("Which search to use", [use, how], [Table(["search", "encoder", "nDCG@10", "95 % interval"], rows)])


def _candidates(record: Record) -> Section:
    title, (before, after) = "Candidates", _sides(record)
    if not record["candidates"]:
        return Section(title, [_not_measured(record)])
    rows = []
    for each in record["candidates"]:
        measured = _comparison(each) if "p_value" in each else None
        seconds = each.get("seconds")
        rows.append(
            [
                _name(each),
                each.get("chosen_in_folds"),
                *(_means(each) if measured is None else _figures(measured)),
                None if seconds is None else f"{seconds:,.0f}",
                f"failed: {each['failed']}" if each.get("failed") else None,
            ]
        )
    header = ["candidate", "chosen in folds", before, after, "difference", "95 % interval", "seconds", "note"]
    kept = [0, *(column for column in range(1, len(header)) if any(row[column] is not None for row in rows))]
    table = Table([header[column] for column in kept], [[row[column] for column in kept] for row in rows])
    paragraphs = []
    chosen = record["chosen"] or (None if record["pull"] is None else f"linear map, pull {record['pull']:g}")
    if chosen:
        how = "Each was measured where it could be selected, so these figures are not those of the verdict."
        paragraphs.append(f"Chosen: {chosen}. {how}")
    curves = {}
    for each in record["candidates"]:
        if each.get("alphas"):
            start = [[0.0, each["before"]]] if "before" in each and min(each["alphas"])[0] > 0 else []
            curves[_name(each)] = start + each["alphas"]
    return Section(title, paragraphs, [table], [plots.blends(curves)] if curves else [])


def _means(candidate: Record) -> list[str | None]:
    """The figures of a candidate of which only means were kept: its best blend, or an accuracy."""
    before, after = candidate.get("before"), candidate.get("after", candidate.get("accuracy"))
    shown = [None if each is None else _points(each) for each in (before, after)]
    return [*shown, None if before is None or after is None else f"{after - before:+.1f}", None]


def _name(candidate: Record) -> str:
    known = candidate.get("name") or candidate.get("model")
    return str(known) if known else f"linear map, pull {candidate['pull']:g}"


def _changes(record: Record, texts: bool) -> Section:
    changes, purpose = record["changes"], record["settings"]["purpose"]
    queries = purpose == "search"
    title = "Queries that changed most" if queries else "Texts that changed"
    if record["main"] is None:
        return Section(title, [_not_measured(record)])
    counts, measure = record["changed"], record["main"]["measure"]
    of = f"{sum(counts.values()):,} {'queries' if queries else 'texts'}"
    paragraphs = [
        f"Of {of}, {counts['gained']:,} gained, {counts['lost']:,} lost and {counts['unchanged']:,} did not change."
    ]
    if not changes:
        return Section(title, paragraphs)
    if queries:
        paragraphs.append(
            f"Shown are the {MOST} queries whose {measure} rose most and the {MOST} whose {measure} fell most, by the "
            f"difference; ties in the order of the queries. Texts are cut at {WIDTH} characters. Of several documents "
            "that answer a query, the one that changed its score most is shown. A rank of – is below those that were "
            "kept."
        )
    else:
        of_purpose = {"duplicates": "a planted edit is recognised", "clusters": "the cluster is that of their label"}
        gained = of_purpose[purpose]
        paragraphs.append(
            f"Texts gain where {gained} after and was not before. Shown are the first {MOST} of each, in the order of "
            f"the texts, cut at {WIDTH} characters."
        )
    tables = []
    for caption, rising in (
        ("Gained most" if queries else "Gained", True),
        ("Lost most" if queries else "Lost", False),
    ):
        rows = [_change(each, texts) for each in changes if (each["after"] > each["before"]) == rising]
        if rows:
            tables.append(Table(_header(changes[0], measure, texts), rows, caption, leading=True))
    return Section(title, paragraphs, tables)


def _header(change: Record, measure: str, texts: bool) -> list[str]:
    if "query" in change:
        return ["query, and the document to be found" if texts else "query", "rank", measure]
    if "copy" in change:
        return ["text, and its edited copy" if texts else "text"]
    return ["text"]


def _change(change: Record, texts: bool) -> list[Any]:
    shown = [change[key] for key in ("query", "document", "text", "copy") if key in change]
    first: Any = shown if texts else f"row {change['row'] + 1:,}"
    if "query" not in change:
        return [first]
    ranks = ["–" if rank is None else f"{rank:,}" for rank in (change["rank_before"], change["rank_after"])]
    return [first, " → ".join(ranks), f"{_points(change['before'])} → {_points(change['after'])}"]


def _judging(record: Record) -> Section:
    verdict, main = record["verdict"], record["main"]
    rows: list[list[Any]] = [["the texts", record["looked"]]]
    if main is not None:
        others = len(record["models"]) - 1
        divided = "their number" + (f" and by that of the other models, {others}" if others > 1 else "")
        rows += [
            ["what decides", f"{main['measure']} at {main['task']}"],
            ["what is split and resampled", f"{main['units']:,} {_comparison(main).unit}"],
            ["held out", record["held_out"]],
            ["p-value", f"{shown_p(main['p_value'])}; a difference is shown up to {verdict['level']:.2g}"],
            ["looks at these texts", f"{verdict['looks']:,}; the level of the test, 0.05, is divided by {divided}"],
            ["gain that counts", f"{record['minimum']:.1f} points"],
        ]
        second = record["second"]
        rows.append(
            ["second view", f"{second['task']}: {_comparison(second).sentence()}"]
            if second
            else ["second view", "not measured: the texts allow no second kind of query"]
        )
        guards = [f"{each['task']}: {_comparison(each).sentence()}" for each in record["guards"]]
        limit = "A loss of two points or more must be excluded. English only; other languages are not measured."
        rows.append(["guard", [*guards, limit]])
    else:
        rows.append(["verdict", _not_measured(record)])
    return Section("How it was judged", tables=[_facts(rows)])


def _provenance(record: Record) -> Section:
    data, settings = record["data"], record["settings"]
    seconds = record["seconds"]
    rows: list[list[Any]] = [
        ["model" if len(record["models"]) == 1 else "models", ", ".join(record["models"])],
        ["texts", f"{data['name']}, {data['texts']:,} different texts"],
        *([["columns", ", ".join(data["columns"])]] if data["columns"] else []),
        ["texts, SHA-256", data["sha256"]],
        *[[name.replace("_", " "), str(value)] for name, value in settings.items() if value is not None],
        ["started", record["started"]],
        ["duration", f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"],
        ["versions", ", ".join(f"{name} {value}" for name, value in record["versions"].items())],
        ["command", record["command"] or "none: the texts came from Python, not from a file"],
    ]
    return Section("Provenance", tables=[_facts(rows)])


def _facts(rows: list[list[Any]]) -> Table:
    """A table of values that may be long: as paragraphs they are wrapped."""
    return Table(["what", "value"], [[name, [value] if isinstance(value, str) else value] for name, value in rows])


def _not_measured(record: Record) -> str:
    return f"Nothing was measured: {record['verdict']['why']}."


def _figures(found: Comparison) -> list[str]:
    interval = f"{found.low:+.1f} to {found.high:+.1f}"
    return [_points(found.before), _points(found.after), f"{found.difference:+.1f}", interval]


def _points(value: float) -> str:
    return f"{value:.1f}"
