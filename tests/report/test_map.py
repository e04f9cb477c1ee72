"""The map: its places, its file, what fits it, and the page in a browser."""

import csv
import json
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from support.browser import CHROMIUM, Browser
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.errors import InputError
from textcl.report import map as maps
from textcl.report.layout import among, lay_out, project
from textcl.report.map import write_map
from textcl.report.map_file import read_map_file, write_map_file
from textcl.vectors.compress import unit
from textcl.vectors.encode import encode_corpus
from textcl.vectors.neighbours import nearest_rows
from textcl.vectors.vectors import Vectors

HOSTILE = [
    "<script>document.title = 'owned'</script> zyzzyva",
    "</script><img src=x onerror=\"document.title = 'owned'\"> zyzzyva",
    '=HYPERLINK("http://example.invalid") zyzzyva',
    "a nul \0 and \u202eanother \x1b[31m zyzzyva",
    "{{ script }} {{ blocks }} zyzzyva",
    "Crème brûlée für 東京の猫",
]
ROWS = [
    {"key": f"k{n}", "text": text, "topic": TEXTS[n % 3][:20], "votes": n, "day": f"2026-01-{1 + n % 28:02}"}
    for n, text in enumerate([*HOSTILE, *TEXTS[:74]])
]
OPTIONS = {"column": "text", "id_column": "key", "columns": ["topic", "votes", "day"]}


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([columns, *rows])
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of 80 texts, with clusters and duplicates as the other commands write them."""
    folder = tmp_path_factory.mktemp("map")
    tiny_encoder_directory(folder / "model")
    encode_corpus(folder / "model", write_rows(folder / "rows.jsonl", ROWS), folder / "v", **OPTIONS)
    clusters = [
        (row["text"], n % 3, 0.5, 1, row["key"], ("boats", "doors", "<b>bold</b>")[n % 3]) for n, row in enumerate(ROWS)
    ]
    write_csv(folder / "clusters.csv", ("text", "cluster", "confidence", "rank", "id", "name"), clusters)
    groups = [(row["text"], min(n, 77), "no", row["key"]) for n, row in enumerate(ROWS)]  # 77, 78 and 79 are one group
    write_csv(folder / "groups.csv", ("text", "group", "kept", "id"), groups)
    write_map(
        folder / "v",
        folder / "map.html",
        clusters=folder / "clusters.csv",
        duplicates=folder / "groups.csv",
        layout="pca",
    )
    return folder


def positions(path: Path) -> np.ndarray:
    return read_map_file(path).array("positions", "<f4", 2)


def test_pca_is_that_of_sklearn_but_for_signs_and_is_always_the_same() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 7)) * np.arange(1, 8)
    found = lay_out(rows, "pca", nearest_rows(rows, 5))
    peer = PCA(2, svd_solver="full")
    theirs = peer.fit_transform(unit(rows))
    assert np.allclose(np.abs(found.positions), np.abs(theirs), atol=1e-5)
    assert found.kept == pytest.approx(peer.explained_variance_ratio_.sum(), abs=1e-6)
    again = lay_out(3 * rows, "pca", nearest_rows(rows, 5))  # lengths do not matter
    assert np.allclose(again.positions, found.positions, atol=1e-5)


def test_a_new_text_lies_on_its_twin_or_between_its_nearest() -> None:
    old, places = np.eye(4), np.array([[0.0, 0], [1, 0], [4, 4], [4, 8]], np.float32)
    assert np.allclose(among(old[2:3], old, places), places[2:3], atol=1e-4)
    between = np.array([[1.0, 1, 0, 0]])  # cosines 0.707, 0.707, 0, 0: weights 3.41, 3.41, 1, 1
    weights = np.array([1 / (1 - 0.5**0.5)] * 2 + [1.0, 1.0])
    assert np.allclose(among(between, old, places)[0], weights @ places / weights.sum(), atol=1e-5)


def test_the_file_holds_true_neighbours_positions_and_inert_texts(work: Path) -> None:
    made, vectors = read_map_file(work / "map.html"), Vectors(work / "v").vectors()
    rows, cosines = nearest_rows(vectors, 5)
    assert np.array_equal(made.array("neighbours", "<i4", 5), rows)
    assert np.abs(made.array("cosines", "u1", 5) / 100 - cosines).max() <= 0.006
    assert np.allclose(positions(work / "map.html"), project(vectors, made.array("projection", "<f4", 32)))
    assert made.values("ids") == [row["key"] for row in ROWS]
    shown = made.values("texts")
    assert shown[0] == HOSTILE[0]
    assert not {"\0", "\x1b", "\u202e"} & set("".join(shown))
    page = (work / "map.html").read_text()
    assert "zyzzyva" not in page
    assert "<b>" not in page
    assert [cluster["size"] for cluster in made.head["clusters"]] == [27, 27, 26]
    assert (made.array("groups", "<i4", 1).ravel() >= 0).nonzero()[0].tolist() == [77, 78, 79]


def test_an_update_moves_nothing_and_places_new_texts(work: Path, tmp_path: Path) -> None:
    encode_corpus(work / "model", write_rows(tmp_path / "a.jsonl", ROWS[:50]), tmp_path / "v", **OPTIONS)
    write_map(tmp_path / "v", tmp_path / "map.html", layout="pca")
    encode_corpus(work / "model", write_rows(tmp_path / "b.jsonl", ROWS[50:]), tmp_path / "v", append=True, **OPTIONS)
    before, vectors = positions(tmp_path / "map.html"), Vectors(tmp_path / "v").vectors()
    made = write_map(tmp_path / "v", tmp_path / "new.html", update=tmp_path / "map.html")
    assert (made.texts, made.new, made.gone, made.layout) == (80, 30, 0, "pca")
    after = positions(tmp_path / "new.html")
    assert np.array_equal(after[:50], before)
    assert np.allclose(
        after[50:], project(vectors[50:], read_map_file(tmp_path / "map.html").array("projection", "<f4", 32))
    )
    assert not np.allclose(positions_of_a_new_map(tmp_path), after)  # a map from nothing would move the old texts

    # a map by UMAP, whose places come from nothing that the vectors say
    old = read_map_file(tmp_path / "map.html")
    places = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    head = {**old.head, "layout": "umap", "kept": None}
    blocks = {"texts": old.values("texts"), "ids": old.values("ids"), "positions": places}
    write_map_file(tmp_path / "umap.html", "A map", head, blocks)
    made = write_map(tmp_path / "v", tmp_path / "umap.html", update=tmp_path / "umap.html")  # onto itself
    after = positions(tmp_path / "umap.html")
    assert (made.layout, made.new) == ("umap", 30)
    assert np.array_equal(after[:50], places)
    assert np.allclose(after[50:], among(vectors[50:], vectors[:50], places))

    encode_corpus(work / "model", write_rows(tmp_path / "c.jsonl", ROWS[40:60]), tmp_path / "fewer", **OPTIONS)
    made = write_map(tmp_path / "fewer", tmp_path / "fewer.html", update=tmp_path / "map.html")
    assert (made.new, made.gone) == (10, 40)
    assert np.array_equal(positions(tmp_path / "fewer.html")[:10], before[40:])


def positions_of_a_new_map(folder: Path) -> np.ndarray:
    write_map(folder / "v", folder / "fresh.html", layout="pca")
    return positions(folder / "fresh.html")


def test_an_update_must_fit(work: Path, tmp_path: Path) -> None:
    tiny_encoder_directory(tmp_path / "other", seed=1)
    encode_corpus(tmp_path / "other", work / "rows.jsonl", tmp_path / "o", **OPTIONS)
    with pytest.raises(InputError, match="made with another model"):
        write_map(tmp_path / "o", tmp_path / "n.html", update=work / "map.html")
    encode_corpus(work / "model", ["something else", "and more"], tmp_path / "e")
    with pytest.raises(InputError, match=r"No text of .* --append"):
        write_map(tmp_path / "e", tmp_path / "n.html", update=work / "map.html")
    with pytest.raises(InputError, match="keeps it: leave --layout out"):
        write_map(work / "v", tmp_path / "n.html", update=work / "map.html", layout="umap")
    page = (work / "map.html").read_text()
    start = page.index('id="block-positions">') + 40
    changed = "A" if page[start] != "A" else "B"
    (tmp_path / "damaged.html").write_text(page[:start] + changed + page[start + 1 :])
    with pytest.raises(InputError, match=r"damaged\.html is damaged"):
        write_map(work / "v", tmp_path / "n.html", update=tmp_path / "damaged.html")
    (tmp_path / "head.html").write_text(page.replace('"layout": "pca"', '"layout": "umap"'))
    with pytest.raises(InputError, match=r"head\.html is damaged"):
        write_map(work / "v", tmp_path / "n.html", update=tmp_path / "head.html")
    (tmp_path / "page.html").write_text("<p>not a map</p>")
    with pytest.raises(InputError, match="is not a map"):
        write_map(work / "v", tmp_path / "n.html", update=tmp_path / "page.html")
    assert not (tmp_path / "n.html").exists()


def test_clusters_are_found_by_id_in_any_order_and_with_apostrophes(work: Path, tmp_path: Path) -> None:
    encode_corpus(
        work / "model",
        write_rows(tmp_path / "r.jsonl", [{**row, "key": f"-{row['key']}"} for row in ROWS]),
        tmp_path / "v",
        **OPTIONS,
    )
    rows = [(f"'-k{n}", "a" if n < 30 else "-1", "=evil" if n < 30 else "") for n in reversed(range(70))]
    write_csv(tmp_path / "c.csv", ("id", "cluster", "name"), rows)
    made = write_map(tmp_path / "v", tmp_path / "m.html", clusters=tmp_path / "c.csv", layout="pca")
    found = read_map_file(tmp_path / "m.html")
    assert found.array("clusters", "<i4", 1).ravel().tolist() == [0] * 30 + [-1] * 50
    assert (made.clusters, found.head["clusters"][0]["name"]) == (1, "=evil")


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        (("id", "text"), ("k0", "a"), "has no column 'cluster'; give a file that textcl cluster wrote"),
        (("cluster",), ("1",), "has no column 'text'"),
        (("id", "cluster"), ("other", "1"), "No row of .* is among these vectors"),
    ],
)
def test_clusters_of_something_else_are_refused(
    columns: tuple[str, ...], row: tuple[str, ...], message: str, work: Path, tmp_path: Path
) -> None:
    write_csv(tmp_path / "c.csv", columns, [row])
    with pytest.raises(InputError, match=message):
        write_map(work / "v", tmp_path / "m.html", clusters=tmp_path / "c.csv")


@pytest.mark.parametrize(("flag", "column"), [("clusters", "cluster"), ("duplicates", "group")])
def test_rows_of_a_file_must_have_the_texts_of_their_ids(
    flag: str, column: str, work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    january = [{"id": n, "text": TEXTS[n]} for n in range(30)]
    february = [{"id": n, "text": TEXTS[30 + n]} for n in range(30)]  # counts from 0 again
    for name, rows, append in (("a", january, False), ("b", february, True)):
        path = write_rows(tmp_path / f"{name}.jsonl", rows)
        encode_corpus(work / "model", path, tmp_path / "v", column="text", id_column="id", append=append)
    rows = [(row["id"], row["text"], row["id"] % 3, "yes", "a") for row in january]
    write_csv(tmp_path / "january.csv", ("id", "text", column, "kept", "name"), rows)
    write_map(tmp_path / "v", tmp_path / "m.html", layout="pca", **{flag: tmp_path / "january.csv"})
    marks = read_map_file(tmp_path / "m.html").array("clusters" if flag == "clusters" else "groups", "<i4", 1).ravel()
    assert (marks[:30] >= 0).all()
    assert (marks[30:] == -1).all()
    assert "has no row for 30 of the 60 texts" in caplog.text

    encode_corpus(work / "model", tmp_path / "b.jsonl", tmp_path / "other", column="text", id_column="id")
    with pytest.raises(InputError, match=r"No row of .* is among these vectors"):
        write_map(tmp_path / "other", tmp_path / "n.html", layout="pca", **{flag: tmp_path / "january.csv"})


def test_other_files_than_csv_are_refused_with_a_sentence(work: Path, tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"id,cluster\n\xff\xfe,1\n")
    (tmp_path / "header.csv").write_bytes(b"id,caf\xe9,cluster\na,b,1\n")
    (tmp_path / "empty.csv").write_bytes(b"")
    for name in ("bytes.csv", "header.csv", "empty.csv", "none.csv"):
        with pytest.raises(InputError, match=name):
            write_map(work / "v", tmp_path / "m.html", clusters=tmp_path / name)
    write_csv(tmp_path / "twice.csv", ("id", "cluster"), [("k1", 1), ("k1", 2)])
    with pytest.raises(InputError, match="'k1' more than once"):
        write_map(work / "v", tmp_path / "m.html", clusters=tmp_path / "twice.csv")


@pytest.mark.parametrize(
    "texts",
    [["one"], ["a", "b", "c"], ["the same"] * 60, [*TEXTS[:10], " ".join(["word"] * 10_000)]],
    ids=["one", "three", "equal", "long"],
)
def test_odd_corpora_give_a_map(texts: list[str], work: Path, tmp_path: Path) -> None:
    encode_corpus(work / "model", texts, tmp_path / "v")
    made = write_map(tmp_path / "v", tmp_path / "m.html", layout="pca")
    assert made.texts == len(texts)
    assert np.isfinite(positions(tmp_path / "m.html")).all()
    assert made.cut == sum(len(text) > 500 for text in texts)
    if CHROMIUM and len(texts) in (1, 60):
        with Browser() as browser:
            browser.open(tmp_path / "m.html")
            browser.wait_for("document.body.dataset.ready === 'yes'")
            browser.press("Tab")
            browser.press("Enter")  # chooses the text nearest to the middle
            assert browser.evaluate("document.getElementById('text').textContent") in texts
            assert browser.complaints == []


def test_colours_are_a_scale_for_numbers_and_dates_else_values(work: Path, tmp_path: Path) -> None:
    heads = {}
    for name in ("votes", "day", "topic"):
        write_map(work / "v", tmp_path / f"{name}.html", color=name, layout="pca")
        heads[name] = read_map_file(tmp_path / f"{name}.html")
    assert heads["votes"].head["color"] == {"name": "votes", "low": "0", "high": "79"}
    assert heads["votes"].array("shades", "u1", 1).ravel()[[0, 79]].tolist() == [0, 100]
    assert heads["day"].head["color"] == {"name": "day", "low": "2026-01-01", "high": "2026-01-28"}
    assert [each["size"] for each in heads["topic"].head["color"]["values"]] == [80]
    with pytest.raises(InputError, match="does not hold the column 'votse'"):
        write_map(work / "v", tmp_path / "m.html", color="votse")


def test_the_cells_of_a_csv_are_a_scale_where_all_are_numbers_or_dates(work: Path, tmp_path: Path) -> None:
    """Numbers and dates of a csv have the colours that they have where they are typed; a blank cell has none."""
    typed = [
        {"text": TEXTS[n], "ratio": None if n == 3 else n - 4.5, "at": f"2026-{1 + n // 2:02}-01T0{n % 10}:00:00"}
        for n in range(20)
    ]
    named = {"code": lambda n: f"c{n}", "nan": lambda n: "nan" if n == 3 else f"{n}"}
    cells = [[row["text"], "" if row["ratio"] is None else row["ratio"], row["at"]] for row in typed]
    rows = [(*row, *(of(n) for of in named.values())) for n, row in enumerate(cells)]
    write_csv(tmp_path / "r.csv", ("text", "ratio", "at", *named), rows)
    for row in typed:
        row["at"] = datetime.fromisoformat(str(row["at"]))
    options = {"column": "text", "columns": ["ratio", "at"]}
    encode_corpus(work / "model", tmp_path / "r.csv", tmp_path / "text", **{**options, "columns": "all"})
    encode_corpus(work / "model", typed, tmp_path / "typed", **options)
    for name in ("ratio", "at"):
        found = []
        for directory in ("text", "typed"):
            write_map(tmp_path / directory, tmp_path / "m.html", color=name, layout="pca")
            found.append(read_map_file(tmp_path / "m.html"))
        assert found[0].head["color"] == found[1].head["color"]
        shades = [each.array("shades", "u1", 1).ravel().tolist() for each in found]
        assert shades[0] == shades[1]
        assert (shades[0][3] == 255) == (name == "ratio")
        assert {0, 100} < {*shades[0]}
    for name in named:
        write_map(tmp_path / "text", tmp_path / "m.html", color=name, layout="pca")
        assert len(read_map_file(tmp_path / "m.html").head["color"]["values"]) == 9


def refused(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_the_page_holds_only_what_javascript_can_read(work: Path, tmp_path: Path) -> None:
    large = [1729384756102938475 + 3 * n for n in range(20)]
    ends = [float("inf"), float("-inf"), 1e308, -1e308]
    rows = [
        {"text": TEXTS[n], "key": large[n], "ratio": n + 0.5 if n < 16 else ends[n - 16], "few": ends[n % 2]}
        for n in range(20)
    ]
    options = {"column": "text", "id_column": "key", "columns": ["ratio", "few"]}
    encode_corpus(work / "model", write_rows(tmp_path / "r.jsonl", rows), tmp_path / "v", **options)
    write_map(tmp_path / "v", tmp_path / "ids.html", color="key", layout="pca")
    made = read_map_file(tmp_path / "ids.html")
    assert made.values("ids") == made.values("values") == [str(each) for each in large]
    assert write_map(tmp_path / "v", tmp_path / "new.html", update=tmp_path / "ids.html").new == 0

    write_map(tmp_path / "v", tmp_path / "ratio.html", color="ratio", layout="pca")
    made = read_map_file(tmp_path / "ratio.html")
    values = json.loads(made._block("values"), parse_constant=refused)
    assert values[14:] == [14.5, 15.5, "Infinity", "-Infinity", 1e308, -1e308]
    assert made.array("shades", "u1", 1).ravel().tolist() == [50] * 16 + [100, 0, 100, 0]
    assert (made.head["color"]["low"], made.head["color"]["high"]) == ("-1e+308", "1e+308")
    write_map(tmp_path / "v", tmp_path / "few.html", color="few", layout="pca")
    found = read_map_file(tmp_path / "few.html")
    assert [each["value"] for each in found.head["color"]["values"]] == ["Infinity", "-Infinity"]
    assert set(json.loads(found._block("values"), parse_constant=refused)) == {"Infinity", "-Infinity"}

    old = {"texts": made.values("texts"), "ids": large, "positions": positions(tmp_path / "ratio.html")}
    old["projection"] = made.array("projection", "<f4", 32)  # a page with ids as numbers can be updated too
    write_map_file(tmp_path / "old.html", "A map", made.head, old)
    assert write_map(tmp_path / "v", tmp_path / "old2.html", update=tmp_path / "old.html").new == 0
    if CHROMIUM:
        with opened(tmp_path / "ratio.html") as browser:
            browser.click_at(*place_of(browser, row := lonely_row(tmp_path / "ratio.html")))
            assert str(large[row]) in text_of(browser, "#facts")
            assert (browser.complaints, browser.requests) == ([], [])


def test_the_command_says_what_it_made_and_refuses_before_the_work(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.html"
    arguments = ["map", str(work / "v"), "--output", str(output), "--layout", "pca"]
    assert main([*arguments, "--clusters", str(work / "clusters.csv"), "--duplicates", str(work / "groups.csv")]) == 0
    said = capsys.readouterr().out
    assert "80 texts" in said
    assert "Placed by PCA" in said
    assert "3 clusters" in said
    assert "3 texts are marked" in said
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["map", str(work / "v"), "--output", str(output), "--update", str(output), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == 0
    assert main(["map", str(work / "model"), "--output", str(tmp_path / "n.html")]) == 2
    monkeypatch.setattr(maps, "MOST", 79)
    with pytest.raises(InputError, match="holds 80 texts, and a map shows at most 79"):
        write_map(work / "v", tmp_path / "n.html")
    assert not (tmp_path / "n.html").exists()


ODD = {
    "three": ["one cat", "two dogs", "three birds"],
    "one": ["one cat"],
    "repeated": ["the same text"] * 60,
    "of one word": [text.split()[number % 4] for number, text in enumerate(TEXTS[:90])],
    "with a long one": [*TEXTS[:99], " ".join(f"word{number}" for number in range(10_000))],
}


@pytest.mark.parametrize("case", ODD)
def test_odd_texts_have_a_map(case: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ODD[case]
    encode_corpus(
        work / "model", write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in texts]), tmp_path / "v"
    )
    assert main(["map", str(tmp_path / "v"), "--output", str(tmp_path / "m.html"), "--layout", "pca"]) == 0
    said = capsys.readouterr().out
    assert f"m.html: {len(texts)} text{'s' if len(texts) > 1 else ''}, " in said
    assert ("1 text longer than 500 characters" in said) == (case == "with a long one")
    made = read_map_file(tmp_path / "m.html")
    places = positions(tmp_path / "m.html")
    assert places.shape == (len(texts), 2)
    assert np.isfinite(places).all()
    assert [len(text) for text in made.values("texts")] == [min(len(text), 500) for text in texts]
    if CHROMIUM and case == "one":
        with opened(tmp_path / "m.html") as browser:
            browser.click_at(*place_of(browser, 0))
            assert text_of(browser, "#text") == "one cat"
            assert (browser.complaints, browser.requests) == ([], [])


if find_spec("umap"):  # an extra, which takes a minute to load

    @pytest.mark.slow
    def test_umap_keeps_neighbours_better_than_pca_and_is_repeatable(tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        centres = 3 * generator.normal(size=(12, 20))
        rows = centres[np.arange(240) % 12] + generator.normal(size=(240, 20))
        near = nearest_rows(rows, 14)
        kept = {}
        for kind in ("pca", "umap"):
            found = lay_out(rows, kind, near)
            assert np.array_equal(found.positions, lay_out(rows, kind, near).positions)
            distances = np.linalg.norm(found.positions[:, None] - found.positions[None], axis=2)
            nearest = np.argsort(distances, axis=1)[:, 1:6]
            kept[kind] = np.mean(nearest % 12 == np.arange(240)[:, None] % 12)
        assert kept["umap"] > kept["pca"] + 0.2
        equal = np.ones((60, 20))
        assert np.isfinite(lay_out(equal, "umap", nearest_rows(equal, 14)).positions).all()
        assert torch.get_num_threads() == 1, "of the process, as tests/conftest.py sets it"


if CHROMIUM:

    def opened(path: Path, **options: object) -> Browser:
        browser = Browser(**options)
        browser.open(path)
        browser.wait_for("document.body.dataset.ready === 'yes'")
        return browser

    def text_of(browser: Browser, selector: str) -> str:
        return browser.evaluate(f"document.querySelector('{selector}').innerText")

    def place_of(browser: Browser, row: int) -> tuple[float, float]:
        x, y = browser.evaluate(f"screen({row})")
        return x, y

    def lonely_row(path: Path) -> int:
        """The row that is farthest from its neighbour on the map, so that a click is sure to hit it."""
        places = positions(path).astype(np.float64)
        distances = np.linalg.norm(places[:, None] - places[None], axis=2) + np.diag(np.full(len(places), np.inf))
        return int(distances.min(axis=1).argmax())

    def assert_inside(browser: Browser, width: int, height: int, *selectors: str) -> None:
        for selector in selectors:
            box = browser.box(selector)
            assert 0 <= box["left"] < box["right"] <= width, selector
            assert 0 <= box["top"] < box["bottom"] <= height, selector

    def test_on_a_desktop_everything_can_be_seen_and_clicked(work: Path) -> None:
        with opened(work / "map.html") as browser:
            assert "80 texts" in text_of(browser, "#count")
            assert {"boats", "doors", "<b>bold</b>"} <= set(text_of(browser, "#legend").splitlines())
            assert_inside(browser, 1200, 800, "#query", "#tools", "#panel")
            lonely = lonely_row(work / "map.html")
            shown = read_map_file(work / "map.html").values("texts")
            browser.evaluate("document.getElementById('labels').hidden = true")  # a name may lie over the point
            browser.move_to(*place_of(browser, lonely))
            assert text_of(browser, "#tip").split() == shown[lonely].split()
            assert_inside(browser, 1200, 800, "#tip")
            browser.click_at(*place_of(browser, lonely))
            assert text_of(browser, "#text").split() == shown[lonely].split()
            assert f"k{lonely}" in text_of(browser, "#facts")
            near = nearest_rows(Vectors(work / "v").vectors(), 5)[0][lonely]
            listed = browser.evaluate("[...document.querySelectorAll('#near .words')].map((each) => each.textContent)")
            assert listed == [shown[row] for row in near]
            browser.click("#near li button")  # to the nearest text
            assert text_of(browser, "#text").split() == shown[near[0]].split()
            browser.press("Escape")
            assert browser.evaluate("document.getElementById('chosen').hidden")
            browser.evaluate("document.getElementById('labels').hidden = false")

            browser.press("/")
            browser.write("ZYZZ docu")
            browser.wait_for("document.getElementById('count').innerText.startsWith('2 of')")
            assert "<script>document.title = 'owned'</script>" in text_of(browser, "#found")
            browser.evaluate("document.getElementById('query').value = ''")
            browser.write("creme 猫")
            browser.wait_for("document.getElementById('count').innerText.startsWith('1 of')")
            browser.evaluate("document.getElementById('query').value = ''")
            browser.write("nowhere")
            browser.wait_for("document.getElementById('found').innerText.includes('No text has all of these words.')")
            browser.press("Escape")
            browser.wait_for("document.getElementById('count').innerText === '80 texts'")

            browser.click("#legend li button")
            assert text_of(browser, "#count") == "27 of 80 texts"
            browser.click("#filters button")
            assert text_of(browser, "#count") == "80 texts"
            browser.click("#filters button")  # duplicates only
            assert text_of(browser, "#count") == "3 of 80 texts"
            focused = "document.activeElement.textContent"
            assert browser.evaluate(focused).startswith("Duplicates only")  # keys go on from the button
            browser.click("#legend li button")
            browser.evaluate("document.querySelector('#filters button').focus()")
            browser.evaluate("document.querySelector('#filters button').click()")  # the cluster's is gone
            assert browser.evaluate(focused).startswith("Duplicates only")
            browser.click("#found li button")
            assert text_of(browser, "#group h3") == "Near-duplicates (2)"
            assert browser.evaluate("document.title") == "Map of v"
            assert browser.evaluate("document.images.length") == 0
            assert (browser.complaints, browser.requests) == ([], [])

    def test_a_cluster_without_duplicates_says_so(work: Path, tmp_path: Path) -> None:
        groups = [(row["text"], 75 if n == 78 else n, "no", row["key"]) for n, row in enumerate(ROWS)]  # of one cluster
        file = write_csv(tmp_path / "groups.csv", ("text", "group", "kept", "id"), groups)
        files = {"clusters": work / "clusters.csv", "duplicates": file}
        write_map(work / "v", tmp_path / "map.html", layout="pca", **files)
        said = []
        with opened(tmp_path / "map.html") as browser:
            for number in (1, 2, 3):
                browser.evaluate(f"document.querySelector('#legend li:nth-child({number}) button').click()")
                browser.evaluate("document.querySelector('#filters button:last-child').click()")
                said.append(
                    (text_of(browser, "#count"), browser.evaluate("document.getElementById('more').textContent"))
                )
                browser.press("Escape")
        none = ("0 of 80 texts", "No text of this cluster has a near-duplicate.")
        assert sorted(said) == [none, none, ("2 of 80 texts", "")]

    def test_a_name_on_the_map_shows_its_cluster(work: Path) -> None:
        with opened(work / "map.html") as browser:
            names = (
                "[...document.querySelectorAll('#labels button')].filter((each) => each.style.visibility === 'visible')"
            )
            browser.wait_for(f"{names}.length > 0")
            browser.evaluate(f"{names}[0].id = 'name'")
            name = text_of(browser, "#name")
            browser.click("#name")
            assert f"Cluster: {name}" in text_of(browser, "#filters")
            assert (browser.complaints, browser.requests) == ([], [])

    def test_in_a_window_of_another_size_the_whole_map_is_drawn_again_but_not_a_part(work: Path) -> None:
        with opened(work / "map.html") as browser:
            texts = len(positions(work / "map.html"))
            inside = (
                f"Array.from({{length: {texts}}}, (_, row) => screen(row))"
                ".every(([x, y]) => x >= 0 && y >= 0 && x <= size[0] && y <= size[1])"
            )
            metrics = {"height": 800, "deviceScaleFactor": 1, "mobile": False}
            browser.ask("Emulation.setDeviceMetricsOverride", width=400, **metrics)
            browser.wait_for("size[0] === 400")
            assert browser.evaluate(inside)
            assert browser.evaluate("new Set(context.getImageData(0, 0, canvas.width, canvas.height).data).size > 4")
            browser.evaluate("zoom(20)")
            scale = browser.evaluate("view.scale")
            browser.ask("Emulation.setDeviceMetricsOverride", width=1200, **metrics)
            browser.wait_for("size[0] > 400")
            assert browser.evaluate("view.scale") == scale
            assert not browser.evaluate(inside)

    def test_on_a_phone_in_the_dark_a_tap_shows_the_text(work: Path) -> None:
        with opened(work / "map.html", width=390, height=800, dark=True, touch=True) as browser:
            assert browser.evaluate("document.documentElement.scrollWidth") == 390
            assert_inside(browser, 390, 800, "#query", "#tools", "#panel", "#stage")
            browser.wait_for("context.getImageData(0, 0, 1, 1).data[3] > 0")  # drawn in the next frame
            paper = browser.evaluate("context.getImageData(0, 0, 1, 1).data.join()")
            assert paper == "20,24,28,255"
            row = browser.evaluate("at(size[0] / 2, size[1] / 2, Infinity)")
            browser.evaluate("document.getElementById('labels').hidden = true")
            x, y = place_of(browser, row)
            browser.tap_at(x, y)
            browser.wait_for("!document.getElementById('chosen').hidden")
            shown = read_map_file(work / "map.html").values("texts")
            tapped = browser.evaluate("state.chosen")
            assert np.hypot(*np.subtract(place_of(browser, tapped), (x, y))) < 24
            assert text_of(browser, "#text").split() == shown[tapped].split()
            assert (browser.complaints, browser.requests) == ([], [])

    def test_keys_move_zoom_and_choose(work: Path) -> None:
        with opened(work / "map.html") as browser:
            browser.press("Tab")
            assert browser.evaluate("document.activeElement.id") == "canvas"
            x, scale = browser.evaluate("[view.x, view.scale]")
            browser.press("ArrowRight")
            browser.press("+")
            moved, larger = browser.evaluate("[view.x, view.scale]")
            assert moved == pytest.approx(x + 60 / scale)
            assert larger == pytest.approx(1.5 * scale)
            browser.press("0")
            assert browser.evaluate("[view.x, view.scale]") == pytest.approx([x, scale])
            browser.press("Enter")
            assert not browser.evaluate("document.getElementById('chosen').hidden")
            assert browser.complaints == []

    def test_a_damaged_page_says_so_and_the_checks_of_a_page_can_fail(work: Path, tmp_path: Path) -> None:
        page = (work / "map.html").read_text()
        start = page.index('id="block-texts">') + 60
        (tmp_path / "damaged.html").write_text(page[:start] + "!!!" + page[start + 3 :])
        with Browser() as browser:
            browser.open(tmp_path / "damaged.html")
            browser.wait_for("!document.getElementById('trouble').hidden")
            assert "the file is damaged" in text_of(browser, "#trouble")
            assert browser.complaints != []
        (tmp_path / "image.html").write_text("<img src='http://example.invalid/a.png'>")
        with Browser() as browser:
            browser.open(tmp_path / "image.html")
            browser.wait_for("document.images[0].complete")
            assert browser.requests == ["http://example.invalid/a.png"]
