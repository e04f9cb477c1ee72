"""Plots. One specification (Vega-Lite, made by altair) becomes a part of a page, a PNG or an SVG; without a browser.

altair and vl-convert are optional (pip install altair vl-convert-python) and imported when a plot is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textcl.errors import InputError
from textcl.files import atomic_write

COLOURS = ("#3f87c9", "#d9822b", "#2f9e6e", "#b85fb0", "#c9504c", "#8a7a3c", "#5f6fd6", "#1f9aa8", "#9a6a4f", "#808890")
MOST_POINTS = 2000  # of all curves of a plot together; between them, steps are left out evenly
_CURRENT = "currentColor"  # ink that follows the page, light or dark; black in a PNG
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
    """A chart, and all that it shows as a table.

    Attributes:
        title: What is drawn.
        note: How to read it.
        rows: The figures, one dictionary a mark.
        chart: The altair chart of them.
    """

    title: str
    note: str
    rows: list[dict[str, Any]]
    chart: Any

    def specification(self, width: int | str = "container") -> dict[str, Any]:
        """The Vega-Lite specification; a width of "container" follows the page."""
        chart = self.chart.properties(width=width, description=f"{self.title}. {self.note}").configure(**_CONFIGURATION)
        return dict(chart.to_dict())

    def save(self, path: str | Path, width: int = 560) -> Path:
        """Draws it as a .png (at twice the width in pixels, on white) or .svg file.

        Raises:
            InputError: If vl-convert is not installed, or the file has another ending.
        """
        import json

        converter = _library("vl_convert")
        ending = Path(path).suffix.lower()
        if ending not in (".png", ".svg"):
            raise InputError(f"{path} is neither a .png nor an .svg file; a plot is drawn as one of them.")
        specification = {**self.specification(width), "title": self.title}
        if ending == ".png":
            specification["background"] = "white"
            content = converter.vegalite_to_png(json.dumps(specification), scale=2)
        else:
            content = converter.vegalite_to_svg(json.dumps(specification)).encode()
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return Path(path)


def curves(
    runs: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    note: str = "",
    groups: Mapping[str, str] | None = None,
) -> Plot:
    """How a figure goes on over the steps of runs, each a line.

    Args:
        runs: Steps and values by the run's name.
        title: Names the figure.
        note: How to read it.
        groups: What each run is coloured by; default: its name.
    """
    rows = [{"run": run, "step": step, "value": value} for run, points in _thinned(runs) for step, value in points]
    return Plot(title, note, rows, _lines(rows, "step", "value", ("step", title), groups))


def alignment_uniformity(
    runs: Mapping[str, Sequence[tuple[float, float, float]]], groups: Mapping[str, str] | None = None
) -> Plot:
    """The way of runs through the plane of alignment and uniformity (Wang and Isola 2020); good is below and left.

    Args:
        runs: Step, alignment and uniformity by the run's name.
        groups: As of `curves`.
    """
    rows = [
        {"run": run, "step": step, "alignment": alignment, "uniformity": uniformity}
        for run, points in _thinned(runs)
        for step, alignment, uniformity in points
    ]
    note = "Each point is a logged batch; the large one is the last. Positives near to one another lie left, "
    note += "embeddings spread out evenly lie low."
    chart = _lines(rows, "uniformity", "alignment", ("uniformity", "alignment"), groups, ends=True)
    return Plot("Alignment and uniformity", note, rows, chart)


def similarity_by_grade(
    panels: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str = "Cosine by gold score"
) -> Plot:
    """How the cosine of pairs is distributed in each grade of similarity, for one or several encoders.

    Where an encoder is good, the boxes rise from the left to the right and overlap little.

    Args:
        panels: For each encoder's name the grade and the cosine of every pair.
        title: Above the plot.
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
    median = base.mark_tick(color="currentColor", thickness=2).encode(y=alt.Y("median:Q", title=""))
    median = median.encode(color=alt.value("currentColor"))
    note = "Boxes hold the middle half of the pairs, lines nine tenths. A good encoder's boxes rise and overlap little."
    return Plot(title, note, rows, alt.layer(whiskers, boxes, median).properties(height=280))


def sentence_map(
    points: Any, groups: Sequence[str], texts: Sequence[str] | None = None, title: str = "Map", note: str = ""
) -> Plot:
    """Sentences as points of the plane, coloured by group, with their text on hover.

    Args:
        points: (sentences, 2).
        groups: The label or cluster of each.
        texts: Left out where None.
        title: Above the plot.
        note: How to read it.
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


def scores_by_row(scores: Mapping[str, Sequence[float]], measure: str) -> Plot:
    """The score of each run of each row of a comparison, and their means."""
    alt = _library("altair")
    rows = [{"row": row, "score": round(value, 4)} for row, values in scores.items() for value in values]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("row:N", sort=list(scores), title=None),
        x=alt.X("score:Q", title=measure, scale=alt.Scale(zero=False)),
    )
    dots = base.mark_circle(size=60, opacity=0.7, color=COLOURS[0]).encode(tooltip=["row:N", "score:Q"])
    means = base.mark_tick(thickness=2, size=18, color="currentColor").encode(x=alt.X("mean(score):Q", title=measure))
    note = "A dot is a run, the stroke the mean of a row's runs."
    return Plot(f"{measure} by row", note, rows, alt.layer(dots, means).properties(height=alt.Step(26)))


def differences(figures: Mapping[str, Any]) -> Plot:
    """The difference of each row of a comparison to its reference, with the interval where there is one.

    Args:
        figures: Of `textcl.report.tables.comparison`.
    """
    alt = _library("altair")
    rows = [
        {"row": name, **{key: value and round(value, 4) for key, value in row["difference"].items() if key in _ENDS}}
        for name, row in figures["rows"].items()
        if row["difference"]
    ]
    title = f"Difference to {figures['reference']}"
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("row:N", sort=None, title=None))
    fields = ["row:N", "mean:Q", "low:Q", "high:Q"]
    zero = alt.Chart(alt.Data(values=[{}])).mark_rule(strokeDash=[4, 4], opacity=0.6, color="currentColor")
    lines = base.mark_rule(strokeWidth=2, color=COLOURS[0]).encode(x=alt.X("low:Q", title="points"), x2="high:Q")
    dots = base.mark_circle(size=70, opacity=1, color=COLOURS[0]).encode(x="mean:Q", tooltip=fields)
    chart = alt.layer(zero.encode(x=alt.datum(0)), lines.transform_filter("isValid(datum.low)"), dots)
    note = (
        "Of the averages, with the 95 % interval over seeds. An interval clear of the dashed line shows a difference."
    )
    return Plot(title, note, rows, chart.properties(height=alt.Step(26)))


_ENDS = ("mean", "low", "high")


def _lines(
    rows: list[dict[str, Any]],
    x: str,
    y: str,
    titles: tuple[str, str],
    groups: Mapping[str, str] | None,
    ends: bool = False,
) -> Any:
    """Lines through the rows of each run, in their order of steps; with `ends` the last point of each is marked."""
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
    return alt.layer(*layers).properties(height=260 if len(names) < 12 else 320)


def _thinned(runs: Mapping[str, Sequence[Any]]) -> list[tuple[str, list[Any]]]:
    """Runs with so few of their points, evenly spaced and the last among them, that all together can be drawn."""
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
