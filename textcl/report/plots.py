"""Pictures. matplotlib comes with `pip install textcl[viz]` and is imported when a picture is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textcl.errors import InputError
from textcl.files import atomic_write

_INK, _MEDIAN = "#4878a8", "#c44e52"


def similarity_by_grade(
    path: str | Path, panels: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str = ""
) -> Path:
    """Draws, side by side, how the cosine of pairs is distributed in each grade of similarity.

    Where an encoder is good, the boxes rise from the left to the right and overlap little.

    Args:
        path: A .png, .svg or .pdf file.
        panels: For each panel's title the grade and the cosine of every pair.
        title: Above all panels.

    Raises:
        InputError: If matplotlib is not installed.
    """
    figure, axes = _figure(len(panels))
    for axis, (name, (grades, cosines)) in zip(axes, panels.items(), strict=True):
        levels = sorted(set(grades))
        groups = [[c for g, c in zip(grades, cosines, strict=True) if g == level] for level in levels]
        boxes = axis.boxplot(groups, tick_labels=[f"{level:g}" for level in levels], patch_artist=True, widths=0.6)
        for box in boxes["boxes"]:
            box.set(facecolor=_INK, alpha=0.5)
        for line in boxes["medians"]:
            line.set(color=_MEDIAN, linewidth=2)
        for flier in boxes["fliers"]:
            flier.set(marker=".", markersize=2, alpha=0.4)
        axis.set_title(name)
        axis.set_xlabel("grade of similarity")
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("cosine of the two embeddings")
    figure.suptitle(title)
    figure.tight_layout()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:] or "png", dpi=150)
    return Path(path)


def _figure(panels: int) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("Pictures need matplotlib: pip install 'textcl[viz]'.") from error
    figure = Figure(figsize=(4.5 * panels, 4.5))  # without pyplot: no window, no global state
    return figure, figure.subplots(1, panels, sharey=True, squeeze=False)[0]
