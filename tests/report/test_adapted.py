"""The page of `textcl adapt`: its figures are those of adapt.json, hostile texts do nothing, a browser draws all."""

import builtins
import copy
import csv
import json
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM, open_in_browser
from support.tiny import tiny_encoder_directory

from textcl.adaptation import guard, linear_map
from textcl.adaptation.adapt import adapt
from textcl.adaptation.guard import GRADED_PAIRS
from textcl.cli.main import main
from textcl.data.training import BUNDLED_TEXTS
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.report import page as page_module
from textcl.report.adapted import adapted_page, read_adapted, write_page
from textcl.report.page import render
from textcl.seals import read_sealed

SECRET = "zyzzyva"
HOSTILE = (
    f"<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\x1b[31m \u202e {SECRET}"
)
GLOSSES = [line for line in BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines() if 8 <= len(line.split()) <= 14]
COUNT = 220


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hostile texts, their titles, and what `textcl adapt` made of them."""
    folder = tmp_path_factory.mktemp("adapted")
    with (folder / "texts <b>.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["name", "text"])
        for row in range(COUNT):
            one, two = GLOSSES[row].split(), GLOSSES[row + COUNT]
            more = f" {HOSTILE}" if row % 3 == 0 else ""  # in every row it would make them near-duplicates
            writer.writerow([f"{' '.join(one[:5])}{more}", f"{' '.join(one[3:])}. {two}.{more}"])
    Encoder.from_pretrained("bundled").with_(normalize=True).save(folder / "model")
    (folder / "pairs.tsv").write_text("".join(GRADED_PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[:150]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_map, "STEPS", 25)
        patch.setattr(linear_map, "LEARNING_RATE", 1e-2)
        patch.setattr(guard, "GRADED_PAIRS", folder / "pairs.tsv")
        patch.setenv("TEXTCL_DATA", str(folder))
        words = ["adapt", str(folder / "model"), "--data", str(folder / "texts <b>.csv"), "--column", "name,text"]
        assert main([*words, "--output", str(folder / "out"), "--ledger", str(folder / "looks" / "looks.jsonl")]) == 0
    return folder


@pytest.fixture(scope="module")
def record(work: Path) -> dict[str, Any]:
    return read_adapted(work / "out")


@pytest.fixture(scope="module")
def page(work: Path) -> str:
    return (work / "out" / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """The start tags of a page, without what is in its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def cells(html: str, section: str) -> list[list[str]]:
    """The rows of all tables of a section, in words."""
    (part,) = re.findall(rf"<h2 [^>]*>{section}</h2>(.*?)</section>", html, re.DOTALL)
    rows = re.findall(r"<tr>(<td.*?)</tr>", part, re.DOTALL)
    return [
        [unescape(re.sub(r"<[^>]*>", " ", cell)).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        for row in rows
    ]


def test_the_figures_are_those_of_adapt_json(page: str, record: dict[str, Any]):
    main_view = record["main"]
    (headline,) = re.findall(r"<h1>(.*?)</h1>", page)
    assert record["verdict"]["outcome"] in headline.lower()
    assert f"nDCG@10 {main_view['before']:.1f} → {main_view['after']:.1f}" in unescape(headline)
    for line in record["lines"][-2:]:
        assert line in unescape(page)
    named = {row[0].partition("  ")[0]: row for row in cells(page, "Before and after") if len(row) == 6}
    for name, found in (("main view", main_view), ("second view", record["second"])):
        assert named[name][1:5] == [
            *(f"{found[key]:.1f}" for key in ("before", "after")),
            f"{found['difference']:+.1f}",
            f"{found['low']:+.1f} to {found['high']:+.1f}",
        ]
    advised = cells(page, "Which search to use")
    assert [row[:3] for row in advised] == [
        [name, side, f"{cell['after']:.1f}"]
        for name in ("dense", "hybrid")
        for side, cell in zip(("untouched", "adapted"), record["retrieval"][name], strict=True)
    ]
    for row, found in zip(cells(page, "Candidates")[:3], record["candidates"], strict=True):
        assert row[:4] == [
            f"linear map, pull {found['pull']:g}",
            str(found["chosen_in_folds"]),
            f"{found['before']:.1f}",
            f"{found['after']:.1f}",
        ]
    rows = cells(page, "Queries that changed most")
    assert len(rows) == len(record["changes"]) > 2
    for row, found in zip(rows, record["changes"], strict=True):
        assert row[1] == f"{found['rank_before']} → {found['rank_after']}"
        assert row[2] == f"{found['before']:.1f} → {found['after']:.1f}"
    judged = {row[0]: row[1] for row in cells(page, "How it was judged")}
    assert judged["held out"] == record["held_out"]
    assert judged["looks at these texts"].startswith("1;")
    assert judged["what is split and resampled"] == f"{main_view['units']} groups of texts"
    provenance = {row[0]: row[1] for row in cells(page, "Provenance")}
    assert provenance["command"] == record["command"]
    assert provenance["texts, SHA-256"] == record["data"]["sha256"]


def test_a_page_on_answers_says_what_was_measured_of_what(record: dict[str, Any]):
    answers = copy.deepcopy(record)
    answers["main"] |= {"measure": "right choices", "unit": "answers", "units": 48}
    text = unescape(re.sub(r"<[^>]+>", "", render(adapted_page(answers))))
    assert "queries whose right choices rose most" in text
    assert "48 answers" in text
    assert "groups of near-duplicate texts" not in text
    (header,) = re.findall(
        r"document to be found(?:<[^>]*>|\s)*rank(?:<[^>]*>|\s)*([^<]+)<", render(adapted_page(answers))
    )[:1]
    assert header.strip() == "right choices"


@pytest.mark.parametrize(
    ("purpose", "title", "what"),
    [
        ("search", "Queries that changed most", "queries"),
        *((purpose, "Texts that changed", "texts") for purpose in ("clusters", "duplicates")),
    ],
)
def test_where_nothing_changed_nothing_is_said_to_be_shown(record: dict[str, Any], purpose: str, title: str, what: str):
    changed = {"gained": 0, "lost": 0, "unchanged": 60}
    still = {**record, "settings": {**record["settings"], "purpose": purpose}, "changes": [], "changed": changed}
    (section,) = (each for each in adapted_page(still).sections if each.title == title)
    assert section.paragraphs == [f"Of 60 {what}, 0 gained, 0 lost and 60 did not change."]
    assert not section.tables


def test_the_parts_are_in_this_order_and_nothing_is_loaded(page: str):
    assert re.findall(r"<h2 [^>]*>([^<]*)<", page) == [
        "Before and after",
        "Which search to use",
        "Candidates",
        "Queries that changed most",
        "How it was judged",
        "Provenance",
    ]
    tags = Tags(page)
    assert not {name for name, _ in tags.found} & {"link", "img", "iframe", "object"}
    assert not [attributes for _, attributes in tags.found if attributes.keys() & {"src", "srcset", "onerror"}]
    assert sum(name == "script" and not attributes for name, attributes in tags.found) == 1
    assert "default-src 'none'" in page


def test_hostile_texts_are_words(page: str, record: dict[str, Any]):
    assert any(SECRET in each["query"] for each in record["changes"])
    assert "&lt;script&gt;document.title=" in page
    assert "<script>document.title" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "texts &lt;b&gt;.csv" in page


def test_the_recorded_command_repeats_the_work(record: dict[str, Any], work: Path):
    words = shlex.split(record["command"])
    assert words == [
        *("textcl", "adapt", str(work / "model"), "--data", str(work / "texts <b>.csv"), "--output", str(work / "out")),
        *("--column", "name,text", "--ledger", str(work / "looks" / "looks.jsonl")),
    ]


def test_report_writes_the_page_again_with_or_without_texts(work: Path, page: str, tmp_path: Path):
    assert main(["report", str(work / "out"), "--output", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    assert main(["report", str(work / "out"), "--output", str(tmp_path / "without.html"), "--no-texts"]) == 0
    without = (tmp_path / "without.html").read_text(encoding="utf-8")
    assert SECRET in page
    assert SECRET not in without
    assert "Texts are not shown" in without


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace('"before": ', '"before": 1', 1), "is damaged"),
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: '{"verdict": {}, "lines": []}', "another version of textcl wrote it"),
    ],
)
def test_a_changed_record_is_refused(
    damage: Any, said: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "adapt.json").write_text(damage((work / "out" / "adapt.json").read_text(encoding="utf-8")))
    assert main(["report", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
    assert main(["report", str(work / "out"), "--tasks", "sts"]) == 2


def test_what_was_not_measured_says_why(work: Path):
    found = adapt(work / "model", GLOSSES[:150], work / "few", ledger=work / "looks" / "few.jsonl")
    assert not (work / "few" / "report.html").exists()
    html = write_page(found.record, work / "few" / "report.html").read_text(encoding="utf-8")
    why = "Nothing was measured: there are 150 different texts, and 200 are needed."
    assert "<h1>Not measured</h1>" in html
    assert html.count(why) == 4  # in place of figures, candidates, queries and the test
    assert "the texts came from Python" in html
    assert found.record["changes"] == []
    again = adapt(work / "few", GLOSSES[:150], work / "again", ledger=work / "looks" / "few.jsonl")
    assert again.verdict.outcome == "not measured"
    assert not (work / "again" / "report.html").exists(), "the page of the model's own adaptation was copied"
    adapt(work / "model", GLOSSES[:150], work / "few", ledger=work / "looks" / "few.jsonl")
    assert not (work / "few" / "report.html").exists(), "a page of earlier figures was kept"


def test_without_the_libraries_that_draw_the_work_is_kept_and_the_reader_is_told(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    (work / "short.txt").write_text("\n".join(GLOSSES[:20]))
    words = ["adapt", str(tiny_encoder_directory(work / "tiny")), "--data", str(work / "short.txt")]
    assert main([*words, "--output", str(work / "tiny-out"), "--ledger", str(work / "l" / "l.jsonl")]) == 0
    assert read_sealed(work / "tiny-out" / "adapt.json")["verdict"]["outcome"] == "not measured"
    assert not (work / "tiny-out" / "report.html").exists()
    assert "pip install" in caplog.text
    assert "textcl report" in caplog.text
    monkeypatch.undo()
    assert main(["report", str(work / "tiny-out")]) == 0


def trained(record: dict[str, Any]) -> dict[str, Any]:
    """The record with candidates that were trained and blended, one of which failed."""
    more = [
        {
            "name": "last two layers, <img src=x onerror=x>",
            "seconds": 83.2,
            "alphas": [[0.0, 50.0], [0.5, 53.25], [0.75, 52.0]],
        },
        {
            "name": "all layers, halves, 2e-5",
            "seconds": 120,
            "alphas": [[0.5, 41.5], [0.25, 50.5]],
            "before": 50,
            "after": 50.5,
        },
        {"name": "all layers, crops, 2e-5", "seconds": 3, "alphas": [], "failed": "the loss is not finite"},
    ]
    return {**copy.deepcopy(record), "candidates": [*record["candidates"], *more]}


@pytest.fixture(scope="module")
def with_trained(record: dict[str, Any]) -> str:
    return render(adapted_page(trained(record)))


def test_blends_are_drawn_and_failures_are_told(with_trained: str):
    html = with_trained
    rows = cells(html, "Candidates")
    assert rows[5] == ["all layers, crops, 2e-5", *["–"] * 5, "3", "failed: the loss is not finite"]
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    drawn = next(each for each in map(json.loads, blocks) if each["description"].startswith("Blends"))
    (values,) = (
        (each["data"]["values"] for each in drawn["layer"][:1])
        if "data" not in drawn
        else ([*drawn["data"]["values"]],)
    )
    assert [(each["α"], each["score"]) for each in values] == [
        (0.0, 50.0),
        (0.5, 53.25),
        (0.75, 52.0),
        (0.0, 50),
        (0.25, 50.5),
        (0.5, 41.5),
    ]


@pytest.mark.parametrize(
    ("cell", "figure"),
    [("14 → 1", True), ("47.1 to 52.9", True), ("+1.0 ± 0.5*", True), ("– → 3", True), ("–", True), ("3 of 4", False),
     ("1 → x", False), ("", True), ("60.1", True)],
)  # fmt: skip
def test_pairs_of_numbers_are_figures(cell: str, figure: bool):
    assert page_module.Table(["x"], [[cell]]).is_figure(0) == figure


if CHROMIUM:  # a browser is no part of the package's own needs; where there is one, it opens the page
    LOOK = """setTimeout(() => {
      const seen = {overlap: [], cut: []};
      for (const row of document.querySelectorAll("tr")) {
        const boxes = [...row.children].map(cell => {
          const range = document.createRange();
          range.selectNodeContents(cell);
          return range.getBoundingClientRect();
        });
        boxes.forEach((box, i) => {
          if (i && box.width && boxes[i - 1].right > box.left + 0.5) seen.overlap.push(row.textContent);
        });
      }
      for (const chart of document.querySelectorAll(".chart")) {
        const texts = [...chart.querySelectorAll("svg text")].filter(text => text.textContent);
        seen.cut.push(...texts.filter(text => text.textContent.includes("…")).map(text => text.textContent));
        const boxes = texts.map(text => text.getBoundingClientRect());
        boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
          if (a.right > b.left + 1 && b.right > a.left + 1 && a.bottom > b.top + 3 && b.bottom > a.top + 3)
            seen.overlap.push(texts[i].textContent + " | " + texts[i + 1 + j].textContent);
        }));
      }
      document.body.dataset.overlap = seen.overlap.join(" || ");
      document.body.dataset.cut = seen.cut.join(" || ");
      document.body.dataset.images = document.querySelectorAll("img").length;
      document.body.dataset.requests = performance.getEntriesByType("resource").length;
      document.body.dataset.wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
      document.body.dataset.seen = document.body.innerText;
    }, 3000)"""

    @pytest.mark.parametrize("size", ["1200,900", "390,900"])
    def test_a_browser_draws_it_without_a_word_to_the_network(
        with_trained: str, record: dict[str, Any], tmp_path: Path, size: str
    ):
        """With the policy nothing fails; without it, texts still run nothing, and nothing is wider than a phone."""
        html = with_trained
        drawn, complaints = open_in_browser(html, tmp_path, size)
        assert complaints == []
        assert drawn.count('<svg xmlns="http://www.w3.org/2000/svg"') == html.count('class="chart"') == 3
        free = re.sub(r"<meta http-equiv[^>]*>", "", html)
        end = free.rindex("</body>")
        drawn, complaints = open_in_browser(f"{free[:end]}<script>{LOOK}</script>{free[end:]}", tmp_path, size)
        assert complaints == []
        (body,) = re.findall(r"<body [^>]*>", drawn, re.DOTALL)
        data = {name: unescape(value) for name, value in re.findall(r'data-(\w+)="([^"]*)"', body)}
        assert (data["overlap"], data["cut"]) == ("", "")
        assert (data["requests"], data["images"], data["wider"]) == ("0", "0", "0")
        for words in ("Before and after", record["changes"][0]["query"][:20], record["held_out"], "textcl adapt"):
            assert words in data["seen"]
        assert "<title>owned" not in drawn


def test_a_page_needs_a_place(record: dict[str, Any], tmp_path: Path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_page(record, tmp_path / "report.html")
