"""Plots. altair makes one Vega-Lite specification, which is shown in a page or drawn as PNG or SVG without a browser.

altair and vl-convert are optional (pip install altair vl-convert-python) and imported when a plot is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textcl.errors import InputError
from textcl.files import atomic_write
from textcl.texts import json_value

COLOURS = ("#3f87c9", "#d9822b", "#2f9e6e", "#b85fb0", "#c9504c", "#8a7a3c", "#5f6fd6", "#1f9aa8", "#9a6a4f", "#808890")
MOST_POINTS = 2000  # of all curves of a plot together; longer curves are thinned evenly
_CURRENT = "currentColor"  # the text colour of the page, light or dark; black in a PNG
_AXIS = dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor", "gridColor"), _CURRENT)
_CONFIGURATION = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {**_AXIS, "gridOpacity": 0.15, "labelLimit": 140, "tickCount": 6},
    "legend": {"labelColor": _CURRENT, "titleColor": _CURRENT, "orient": "bottom", "columns": 2, "labelLimit": 260},
    "title": {"color": _CURRENT},
    "range": {"category": list(COLOURS)},
}


@dataclass(frozen=True)
class Plot:
    """A chart, with its values as a table.

    Attributes:
        title: The title of the plot.
        note: A sentence that explains how to read the plot.
        rows: The values, one dictionary per mark.
        chart: The altair chart of the values.
    """

    title: str
    note: str
    rows: list[dict[str, Any]]
    chart: Any

    def specification(self, width: int | str = "container") -> dict[str, Any]:
        """The Vega-Lite specification as JSON holds it. With width "container" the chart is as wide as its place."""
        chart = self.chart.properties(width=width, description=f"{self.title}. {self.note}").configure(**_CONFIGURATION)
        return dict(json_value(chart.to_dict()))

    def save(self, path: str | Path, width: int = 560) -> Path:
        """Draws the plot as a .png file (with twice the width in pixels, on white) or as an .svg file.

        Raises:
            InputError: vl-convert is not installed, or the file has another suffix.
        """
        import json

        check_plot(path)
        converter, ending = _library("vl_convert"), Path(path).suffix.lower()
        specification = {**self.specification(width), "title": self.title}
        if ending == ".png":
            specification["background"] = "white"
            content = converter.vegalite_to_png(json.dumps(specification), scale=2)
        else:
            content = converter.vegalite_to_svg(json.dumps(specification)).encode()
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return Path(path)


def check_plot(path: str | Path) -> None:
    """Raises an InputError if a plot cannot be drawn: the file is neither .png nor .svg, or a library is missing."""
    if Path(path).suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{path} is neither a .png nor an .svg file; name one of these.")
    for name in ("altair", "vl_convert"):
        _library(name)


def curves(
    runs: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    note: str = "",
    groups: Mapping[str, str] | None = None,
    start: float | None = None,
) -> Plot:
    """The curve of a value over the steps, one line per run.

    Args:
        runs: From the name of a run to its (step, value) pairs.
        title: The name of the value.
        note: A sentence that explains how to read the plot.
        groups: From the name of a run to the group that sets its colour; default: one colour per run.
        start: The value of the untouched encoder, which is drawn as a dashed line; None: there is no such line.
    """
    rows = [{"run": run, "step": step, "value": value} for run, points in _thinned(runs) for step, value in points]
    if start is not None:
        note = f"{note} The dashed line is the untouched encoder, {start:.2f}.".strip()
    return Plot(title, note, rows, _lines(rows, "step", "value", ("step", title), groups, start=start))


def alignment_uniformity(
    runs: Mapping[str, Sequence[tuple[float, float, float]]], groups: Mapping[str, str] | None = None
) -> Plot:
    """The path of each run in the plane of alignment and uniformity (Wang and Isola 2020); low values are good.

    Args:
        runs: From the name of a run to its (step, alignment, uniformity) triples.
        groups: As in `curves`.
    """
    rows = [
        {"run": run, "step": step, "alignment": alignment, "uniformity": uniformity}
        for run, points in _thinned(runs)
        for step, alignment, uniformity in points
    ]
    note = "Each point is a logged batch; the large point is the last. Further left, embeddings are spread more "
    note += "evenly; further down, positives are closer to each other."
    chart = _lines(rows, "uniformity", "alignment", ("uniformity", "alignment"), groups, ends=True)
    return Plot("Alignment and uniformity", note, rows, chart)


def similarity_by_grade(panels: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Plot:
    """The distribution of the cosines of pairs for each grade of similarity, for one or several encoders.

    For a good encoder the boxes rise from left to right and overlap little.

    Args:
        panels: From the name of an encoder to the grades and the cosines of all pairs.
    """
    alt = _library("altair")
    rows: list[dict[str, Any]] = []
    for name, (grades, cosines) in panels.items():
        for grade in sorted(set(grades)):
            group = [c for g, c in zip(grades, cosines, strict=True) if g == grade]
            marks = np.quantile(group, (0.05, 0.25, 0.5, 0.75, 0.95)).round(4).tolist()
            figures = dict(zip(("5 %", "25 %", "median", "75 %", "95 %"), marks, strict=True))
            rows.append({"model": name, "grade": f"{grade:g}", "pairs": len(group), **figures})
    order = list(panels)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("grade:O", title="gold score", sort=None, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("model:N", sort=order),
        color=alt.Color("model:N", sort=order, title=None, legend=alt.Legend(symbolType="square")),
        tooltip=[f"{name}:{'N' if isinstance(value, str) else 'Q'}" for name, value in rows[0].items()],
    )
    quantity = alt.Y("5 %:Q", title="cosine of the two embeddings", scale=alt.Scale(zero=False))
    whiskers = base.mark_rule().encode(y=quantity, y2="95 %:Q")
    boxes = base.mark_bar(opacity=0.75).encode(y=alt.Y("25 %:Q", title=""), y2="75 %:Q")
    median = base.mark_tick(color=_CURRENT, thickness=2).encode(y=alt.Y("median:Q", title=""))
    median = median.encode(color=alt.value(_CURRENT))
    note = (
        "Boxes show the middle half of the pairs, lines nine tenths of them. For a good encoder the boxes rise and "
        "overlap little."
    )
    return Plot("Cosine by gold score", note, rows, alt.layer(whiskers, boxes, median).properties(height=280))


def precision_by_share(panels: Mapping[str, tuple[Sequence[bool], Sequence[float]]], title: str, pairs: str) -> Plot:
    """How many of the pairs that an encoder finds nearest are similar, for one or several encoders.

    Args:
        panels: From the name of an encoder to whether each pair is similar, and to the cosines of all pairs.
        title: The title of the plot.
        pairs: What the pairs are, for the titles of the axes.
    """
    alt = _library("altair")
    rows: list[dict[str, Any]] = []
    for name, (similar, cosines) in panels.items():
        ordered = np.asarray(similar)[np.argsort(-np.asarray(cosines), kind="stable")]
        precision = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
        for share in range(6, 101, 2):  # of fewer pairs the share is noise
            last = max(1, round(len(ordered) * share / 100))
            rows.append({"model": name, "nearest": share, "similar": round(100 * float(precision[last - 1]), 2)})
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("nearest:Q", title=f"the nearest {pairs}, in % of all", scale=alt.Scale(domain=[0, 100], nice=False)),
        y=alt.Y("similar:Q", title="of these, similar, in %", scale=alt.Scale(zero=False)),
        color=alt.Color("model:N", title=None, sort=list(panels)),
        tooltip=["model:N", "nearest:Q", "similar:Q"],
    )
    note = "A higher curve is better. All curves end at the share of similar pairs among all pairs."
    return Plot(title, note, rows, base.mark_line(strokeWidth=2).properties(height=280))


def sentence_map(
    points: Any, groups: Sequence[str], texts: Sequence[str] | None = None, title: str = "Map", note: str = ""
) -> Plot:
    """Sentences as points in the plane, coloured by group; the text of a point is shown on hover.

    Args:
        points: The coordinates, (sentences, 2).
        groups: The label or cluster of each sentence.
        texts: The text of each sentence; None: no text is shown.
        title: The title of the plot.
        note: A sentence that explains how to read the plot.
    """
    alt = _library("altair")
    rows: list[dict[str, Any]] = [
        {"group": group, "x": round(float(x), 4), "y": round(float(y), 4)}
        for group, (x, y) in zip(groups, points, strict=True)
    ]
    if texts is not None:
        rows = [{"text": text, **row} for text, row in zip(texts, rows, strict=True)]
    axis = alt.Axis(labels=False, ticks=False)
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_circle(size=30, opacity=0.7, aria=False)
        .encode(
            x=alt.X("x:Q", title="first component", axis=axis, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", title="second component", axis=axis, scale=alt.Scale(zero=False)),
            color=alt.Color("group:N", title=None, sort=list(dict.fromkeys(sorted(groups)))),
            tooltip=["group:N"] if texts is None else ["text:N", "group:N"],
        )
        .properties(height=380)
    )
    return Plot(title, note, rows, chart)


def far_rows(scores: Mapping[str, Sequence[float]], some: Sequence[str]) -> list[str]:
    """The rows to leave out of a plot, because they would press the other rows into a small part of its axis.

    A row is left out if the other rows cover less than a third of the axis; at least two rows are kept.

    Args:
        scores: The values of each row.
        some: The rows that may be left out.

    Example:
        >>> far_rows({"a": [62.0], "b": [63.0], "tfidf": [40.0]}, ["tfidf"])
        ['tfidf']
    """

    def spread(names: Sequence[str]) -> float:
        values = [value for name in names for value in scores[name]]
        return max(values) - min(values)

    kept = list(scores)
    for name in some:
        others = [each for each in kept if each != name]
        if len(others) > 1 and 3 * spread(others) < spread(kept):
            kept = others
    return [name for name in scores if name not in kept]


def scores_by_row(scores: Mapping[str, Sequence[float]], measure: str) -> Plot:
    """The scores of all runs for each row of a comparison, and the mean of each row."""
    alt = _library("altair")
    rows = [{"row": row, "score": round(value, 4)} for row, values in scores.items() for value in values]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("row:N", sort=list(scores), title=None), x=alt.X("score:Q", title=measure, scale=alt.Scale(zero=False))
    )
    dots = base.mark_circle(size=60, opacity=0.7, color=COLOURS[0]).encode(tooltip=["row:N", "score:Q"])
    means = base.mark_tick(thickness=2, size=18, color=_CURRENT).encode(x=alt.X("mean(score):Q", title=measure))
    note = "A dot is a run; the stroke is the mean of the row's runs."
    return Plot(f"{measure} by row", note, rows, alt.layer(dots, means).properties(height=alt.Step(26)))


def differences(figures: Mapping[str, Any]) -> Plot:
    """The difference of each row of a comparison to the reference row, with its interval if it has one.

    Args:
        figures: The result of `textcl.report.tables.comparison`.
    """
    note = (
        "The difference of the averages, with its 95 % interval over seeds. If the interval does not contain the "
        "dashed line, a difference is shown."
    )
    found = {
        name: {key: row["difference"][key] for key in ("mean", "low", "high")}
        for name, row in figures["rows"].items()
        if row["difference"]
    }
    return intervals(found, f"Difference to {figures['reference']}", note)


def intervals(found: Mapping[str, Mapping[str, Any]], title: str, note: str) -> Plot:
    """Differences in points, one below the other, each with its interval if it has one.

    Args:
        found: From the name of a row to its "mean", "low" and "high"; the last two may be None.
        title: The title of the plot.
        note: A sentence that explains how to read the plot.
    """
    alt = _library("altair")
    rows = [{"row": name, **{key: each[key] and round(each[key], 4) for key in each}} for name, each in found.items()]
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("row:N", sort=list(found), title=None))
    fields = ["row:N", "mean:Q", "low:Q", "high:Q"]
    lines = base.mark_rule(strokeWidth=2, color=COLOURS[0]).encode(x=alt.X("low:Q", title="points"), x2="high:Q")
    dots = base.mark_circle(size=70, opacity=1, color=COLOURS[0]).encode(x="mean:Q", tooltip=fields)
    chart = alt.layer(_dashed(alt).encode(x=alt.datum(0)), lines.transform_filter("isValid(datum.low)"), dots)
    return Plot(title, note, rows, chart.properties(height=alt.Step(26)))


def before_and_after(found: Any, sides: tuple[str, str]) -> Plot:
    """The score before and after, with the interval of the difference.

    Args:
        found: A `textcl.adaptation.verdict.Comparison`.
        sides: The names of before and after.
    """
    alt = _library("altair")
    before, after = (
        {"encoder": side, "score": round(score, 4)}
        for side, score in zip(sides, (found.before, found.after), strict=True)
    )
    ends = {"low": round(found.before + found.low, 4), "high": round(found.before + found.high, 4)}
    rows = [{**before, "low": None, "high": None}, {**after, **ends}]
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("encoder:N", sort=list(sides), title=None))
    fields = ["encoder:N", "score:Q", "low:Q", "high:Q"]
    lines = base.mark_rule(strokeWidth=2, color=COLOURS[0]).encode(
        x=alt.X("low:Q", title=f"{found.measure}, in points", scale=alt.Scale(zero=False, padding=24)), x2="high:Q"
    )
    dots = base.mark_circle(size=90, opacity=1, color=COLOURS[0]).encode(x="score:Q", tooltip=fields)
    texts = base.mark_text(align="left", dx=7, dy=-12, color=_CURRENT).encode(
        x="score:Q", text=alt.Text("score:Q", format=".1f")
    )
    chart = alt.layer(
        _dashed(alt).encode(x=alt.datum(before["score"])), lines.transform_filter("isValid(datum.low)"), dots, texts
    )
    note = (
        f"{found.task[0].upper()}{found.task[1:]}. The line is the 95 % interval of the difference, drawn from the "
        "score before. The p-value under “How it was judged” decides, and not whether the line meets the dashed one."
    )
    return Plot("Before and after", note, rows, chart.properties(height=alt.Step(44)))


def blends(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Plot:
    """For each trained candidate, the score of blends (1 − α) · start + α · trained of its weights, drawn over α.

    Args:
        curves: From the name of a candidate to its (α, score) pairs.
    """
    alt = _library("altair")
    rows = [
        {"candidate": name, "α": alpha, "score": round(score, 4)}
        for name, points in curves.items()
        for alpha, score in sorted(points)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("α:Q", title="α, the share of the trained weights", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("score:Q", title="score where the candidates are selected", scale=alt.Scale(zero=False)),
        color=alt.Color("candidate:N", title=None, sort=None, legend=alt.Legend(columns=1)),
        tooltip=["candidate:N", "α:Q", "score:Q"],
    )
    note = "At α = 0 the weights are the untouched ones, at α = 1 the trained ones."
    chart = alt.layer(base.mark_line(strokeWidth=1.5, opacity=0.9), base.mark_circle(size=40, opacity=0.9, aria=False))
    return Plot("Blends with the start", note, rows, chart.properties(height=260))


def curves_by_size(lines: Mapping[str, Sequence[tuple[int, int, float]]], measure: str) -> Plot:
    """The score of vectors by their size.

    Args:
        lines: From the way in which vectors are stored to (dimensions, bytes, score) triples.
        measure: The name of the score.
    """
    alt = _library("altair")
    rows = [
        {"stored as": name, "dimensions": dimensions, "bytes": size, "score": round(score, 4)}
        for name, points in lines.items()
        for dimensions, size, score in sorted(points)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("bytes:Q", title="bytes of a vector", scale=alt.Scale(type="log")),
        y=alt.Y("score:Q", title=measure, scale=alt.Scale(zero=False)),
        color=alt.Color("stored as:N", title=None, sort=list(lines)),
        tooltip=["stored as:N", "dimensions:Q", "bytes:Q", "score:Q"],
    )
    texts = base.mark_text(dy=-9, fontSize=9).encode(text="dimensions:Q")
    layers = [base.mark_line(strokeWidth=1.5, opacity=0.9), base.mark_circle(size=40, opacity=0.9, aria=False), texts]
    note = "Further left, vectors are smaller; the number at a point is that of its dimensions."
    return Plot(f"{measure} by size", note, rows, alt.layer(*layers).properties(height=300))


def _lines(
    rows: list[dict[str, Any]],
    x: str,
    y: str,
    titles: tuple[str, str],
    groups: Mapping[str, str] | None,
    ends: bool = False,
    start: float | None = None,
) -> Any:
    """A line through the points of each run, ordered by step; with `ends` the last point of each run is marked, and
    with `start` a dashed line is drawn at this height."""
    alt = _library("altair")
    names = list(dict.fromkeys(row["run"] for row in rows))
    values = [{**row, "group": groups[row["run"]]} for row in rows] if groups else rows
    colour = "group" if groups else "run"
    legend = alt.Legend() if len({row[colour] for row in values}) > 1 else None
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(f"{x}:Q", title=titles[0], scale=alt.Scale(zero=False)),
        y=alt.Y(f"{y}:Q", title=titles[1], scale=alt.Scale(zero=False)),
        color=alt.Color(f"{colour}:N", title=None, sort=None, legend=legend),
        detail="run:N",
        order="step:Q",
        tooltip=[f"{name}:{'N' if name == 'run' else 'Q'}" for name in rows[0]],
    )
    layers = [base.mark_line(strokeWidth=1.5, opacity=0.9), base.mark_circle(size=18, opacity=0.9, aria=False)]
    if ends:
        last = {row["run"]: row["step"] for row in rows}
        values = [row for row in values if row["step"] == last[row["run"]]]
        layers.append(base.mark_circle(size=110, opacity=1).properties(data=alt.Data(values=values)))
    if start is not None:
        layers.append(_dashed(alt).encode(y=alt.datum(start)))
    return alt.layer(*layers).properties(height=260 if len(names) < 12 else 320)


def _dashed(alt: Any) -> Any:
    """A dashed line; its place is yet to be encoded."""
    return alt.Chart(alt.Data(values=[{}])).mark_rule(strokeDash=[4, 4], opacity=0.6, color=_CURRENT)


def _thinned(runs: Mapping[str, Sequence[Any]]) -> list[tuple[str, list[Any]]]:
    """The runs with fewer points, evenly spaced and including the last, so that all together have `MOST_POINTS`."""
    most = max(2, MOST_POINTS // max(1, len(runs)))
    chosen = []
    for name, points in runs.items():
        places = np.unique(np.linspace(0, len(points) - 1, min(most, len(points))).round().astype(int))
        chosen.append((name, [points[place] for place in places]))
    return chosen


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise InputError("Plots need altair and vl-convert: pip install altair vl-convert-python") from error
