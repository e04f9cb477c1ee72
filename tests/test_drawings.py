"""The drawings of the methods, each what the script writes today, and the picture of the families; all can be read."""

import importlib.util
import inspect
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import pytest
from support.command import REPOSITORY

from textcl.methods import METHODS

PAGES = REPOSITORY / "docs" / "methods"
SVG = "{http://www.w3.org/2000/svg}"
SIZE = 20  # of the letters
Area = tuple[float, float, float, float]  # left, top, right, bottom


@pytest.fixture(scope="module")
def tool():
    return script("draw_methods")


def script(name: str):
    """A script of tools/ as a module."""
    specification = importlib.util.spec_from_file_location(name, REPOSITORY / "tools" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def drawing(method: str) -> ET.Element:
    return ET.parse(PAGES / "drawings" / f"{method}.svg").getroot()


def words(element: ET.Element) -> Area:
    """Where a text is, estimated as in the widest of the usual fonts: thin letters and signs 0.4 as wide as high."""
    wide = SIZE * sum(0.62 if letter.isalnum() and letter not in "fijlrt" else 0.4 for letter in element.text)
    x, baseline = float(element.get("x")), float(element.get("y"))
    left = x - wide * {"tcl-left": 0, "tcl-right": 1}.get(element.get("class"), 0.5)
    return left, baseline - 0.75 * SIZE, left + wide, baseline + 0.25 * SIZE


def rectangle(element: ET.Element) -> Area:
    x, y, wide, high = (float(element.get(name)) for name in ("x", "y", "width", "height"))
    return x, y, x + wide, y + high


def line(element: ET.Element) -> Area:
    """Where an arrow is; it is horizontal or vertical. The head of a vertical one has a path of its own."""
    x, y, way, end = re.match(r"M(\S+) (\S+?)([HVm])(-?\d+)", element.get("d")).groups()
    x, y = float(x), float(y)
    return x, y, float(end) if way == "H" else x, float(end) if way == "V" else y


def inside(one: Area, other: Area) -> bool:
    return other[0] <= one[0] and other[1] <= one[1] and one[2] <= other[2] and one[3] <= other[3]


def meet(one: Area, other: Area) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_each_method_has_a_drawing_and_nothing_else_has(tool) -> None:
    assert set(tool.DRAWINGS) == set(METHODS) == {path.stem for path in (PAGES / "drawings").iterdir()}


@pytest.mark.parametrize("method", METHODS)
def test_it_is_what_the_script_writes(tool, method: str) -> None:
    written = (PAGES / "drawings" / f"{method}.svg").read_text(encoding="utf-8")
    assert tool.draw(method) == written, "run python tools/draw_methods.py"


@pytest.mark.parametrize("method", METHODS)
def test_it_stands_alone_and_speaks_to_screen_readers(method: str) -> None:
    root = drawing(method)
    parts = {"svg", "title", "desc", "style", "g", "rect", "text", "path"}
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == parts
    source = (PAGES / "drawings" / f"{method}.svg").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|href|http", source.replace('xmlns="http://www.w3.org/2000/svg"', "", 1))
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert len(re.findall(r"[.](?= |$)", description.text)) == 2, "two sentences"
    style = root.find(f"{SVG}style").text
    assert "(prefers-color-scheme:dark)" in style
    for selector in re.findall(r"(?:^|[{}])([^{}@]+)\{", style):
        assert selector.startswith(".tcl-drawing"), f"{selector} could meet something of the page"
    assert all(name.startswith("tcl-") for element in root.iter() for name in element.get("class", "").split())


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_cut_or_covered(method: str) -> None:
    root = drawing(method)
    boxes = root.findall(f"{SVG}g")
    assert 6 <= len(boxes) <= 12
    areas = [rectangle(box.find(f"{SVG}rect")) for box in boxes]
    for box, area in zip(boxes, areas, strict=True):
        for text in box.findall(f"{SVG}text"):
            assert inside(words(text), area), text.text
    whole = tuple(float(number) for number in root.get("viewBox").split())
    assert whole[2] <= 800  # at the 358 units of a phone's page a letter is then 9 units high
    loose, lines = root.findall(f"{SVG}text"), [line(arrow) for arrow in root.findall(f"{SVG}path")]
    for one in (*areas, *map(words, loose), *lines):
        assert inside(one, whole), one
    for one, other in combinations([*areas, *map(words, loose)], 2):
        assert not meet(one, other), (one, other)
    for left, top, right, bottom in lines:
        for area in (*areas, *map(words, loose)):
            assert not meet((left - 1, top - 1, right + 1, bottom + 1), area), ((left, top, right, bottom), area)


def test_no_two_are_equal() -> None:
    def seen(method: str) -> list[tuple[str, ...]]:
        parts = drawing(method).iter()
        return [
            (part.tag, part.text or "", part.get("d", "")) for part in parts if part.tag in (f"{SVG}text", f"{SVG}path")
        ]

    for one, other in combinations(METHODS, 2):
        assert seen(one) != seen(other)


@pytest.mark.parametrize("method", METHODS)
def test_its_page_shows_it_after_the_first_paragraph(method: str) -> None:
    heading, paragraph, image, _ = (PAGES / f"{method}.md").read_text(encoding="utf-8").split("\n\n", 3)
    title = heading.removeprefix("# ")
    assert image == f"![{title}: how it works](drawings/{method}.svg)"
    assert drawing(method).find(f"{SVG}title").text == f"{title}: how it works"
    assert len(paragraph) > 80


@pytest.mark.parametrize("method", METHODS)
def test_it_agrees_with_the_method(method: str) -> None:
    said = " ".join(text.text for text in drawing(method).iter(f"{SVG}text"))
    defaults = {name: each.default for name, each in inspect.signature(METHODS[method]).parameters.items()}
    if "temperature" in defaults:
        assert f"τ = {defaults['temperature']}" in said
    if defaults.get("queue_size"):
        assert f"{defaults['queue_size']:,}" in said
    if "momentum" in defaults:
        assert re.search(rf"moving average, m [=≥] {defaults['momentum']}\b", said)
    source = inspect.getsource(METHODS[method])
    assert ("Target(" in source) == ("moving average" in said)
    assert ("MaskedLanguageModelHead" in source and defaults["mlm_weight"] > 0) == ("word loss" in said)
    assert re.search(r"self\.(head|projector|expander) = ", source) is None or "dropped after training" in said


FAMILIES = REPOSITORY / "docs" / "families.md"
PANELS = ("start", "positives", "negatives", "asymmetry", "redundancy", "clustering")


def panels(picture: ET.Element) -> dict[str, ET.Element]:
    return {panel.get("id").removeprefix("tcl-families-"): panel for panel in picture.findall(f"{SVG}g")}


def figures(page: str) -> list[list[str]]:
    """The cells of the table that the script writes, without its header."""
    written = page.split("<!-- figures of tools/draw_families.py -->\n")[1].split("<!-- end of figures -->")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in written.splitlines()[2:]]


def check_picture(folder: Path, texts: int) -> None:
    """The picture of the families and the table of its page belong together, and nothing in it is cut or covered."""
    source = (folder / "drawings" / "families.svg").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|href|http", source.replace('xmlns="http://www.w3.org/2000/svg"', "", 1))
    picture = ET.fromstring(source)
    assert tuple(panels(picture)) == PANELS
    assert "(prefers-color-scheme:dark)" in picture.find(f"{SVG}style").text
    assert "--md-default-fg-color" in picture.find(f"{SVG}style").text, "the theme of the page"
    table = figures((folder / "families.md").read_text(encoding="utf-8"))
    whole = tuple(float(number) for number in picture.get("viewBox").split())
    assert whole[2] <= 800  # see above
    seen = []
    for panel, row in zip(panels(picture).values(), table, strict=True):
        name, defence, figure = panel.findall(f"{SVG}text")
        assert [name.text, defence.text] == row[:2]
        assert figure.text == f"rank {row[2]}, cosine {row[3]}"
        assert row[2] in picture.find(f"{SVG}desc").text
        frame = rectangle(panel.find(f"{SVG}rect"))
        pairs, points = (panel.find(f"{SVG}path[@class='tcl-{kind}']").get("d") for kind in ("pairs", "points"))
        places = [tuple(map(float, place.split())) for place in re.findall(r"[ML](\S+ [\d.-]+)", pairs)]
        assert len(places) == points.count("M") == 2 * texts
        assert all(inside((x, y, x, y), frame) for x, y in places), name.text
        seen += [frame, *map(words, (name, defence, figure))]
    seen += map(words, picture.findall(f"{SVG}text"))
    assert all(inside(one, whole) for one in seen)
    assert not any(meet(one, other) for one, other in combinations(seen, 2))


def test_the_picture_of_the_families_is_on_its_page_with_its_figures() -> None:
    check_picture(FAMILIES.parent, 128)
    page = FAMILIES.read_text(encoding="utf-8")
    assert "![Collapse, and what prevents it](drawings/families.svg)" in page


def test_the_picture_shows_what_the_page_says() -> None:
    """One panel is collapsed, and no other is."""
    rows = dict(zip(PANELS, figures(FAMILIES.read_text(encoding="utf-8")), strict=True))
    rank, cosine = ({key: float(row[column].replace("−", "-")) for key, row in rows.items()} for column in (2, 3))
    assert cosine["positives"] > 0.99
    assert rank["positives"] < 0.1 * 64
    others = set(PANELS) - {"positives"}
    assert all(cosine[key] < 0.5 and rank[key] > 0.3 * 64 for key in others)


@pytest.mark.slow
def test_the_script_that_draws_the_families_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(FAMILIES, tmp_path)
    monkeypatch.setattr(sys, "argv", ["draw_families.py", "--quick", "--docs", str(tmp_path)])
    script("draw_families").main()
    check_picture(tmp_path, 8)
    assert figures((tmp_path / "families.md").read_text()) != figures(FAMILIES.read_text())
