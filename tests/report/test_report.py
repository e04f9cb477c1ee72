"""The report: what it says of runs that ended well, were killed or hold hostile texts, and that it needs no network."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.browser import CHROMIUM, open_in_browser
from support.command import environment, textcl
from support.comparison import LINES
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.data.sts import Subset
from textcl.encoder import Encoder
from textcl.encoder.layers import with_first_dimensions
from textcl.errors import InputError
from textcl.evaluation.significance import said_p, shown_p
from textcl.files import append_result
from textcl.report import examples, plots
from textcl.report.build import _encoders, _headline, _scores, _subtitle, _training, _verdict, comparison_page, report
from textcl.report.page import Card, Page, Section, Table, render
from textcl.report.records import is_comparison, read_comparison, read_run, recorded_results
from textcl.report.results import find_results
from textcl.report.sentences import _neighbours
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe
from textcl.seals import read_sealed
from textcl.terminal import printable

SECRET = "zyzzyva"
HOSTILE = [
    f"<script>document.title = 'owned'</script> {SECRET}",
    f"</script><img src=x onerror=\"document.title = 'owned'\"> {SECRET}",
    f"a sailor 👩‍🚀 and \u202eanother {SECRET}",
    f"שלום עולם {SECRET}",
    f"a nul \x00 in the middle {SECRET}",
    f"{{{{ page.title }}}} {{% raw %}} {SECRET}",
]


class Elements(HTMLParser):
    """The start tags of a page, its text by tag, and what it would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.tags[-1][0] if self.tags else "", []).append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(t == tag and all(a.get(k.rstrip("_")) == v for k, v in attributes.items()) for t, a in self.tags)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a labelled corpus with hostile texts, and a finished run on it."""
    folder = tmp_path_factory.mktemp("report")
    tiny_encoder_directory(folder / "model")
    rows = [{"text": text, "topic": f"topic {number % 3}"} for number, text in enumerate([*HOSTILE, *TEXTS[:58]])]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_recipe(_recipe(folder, folder / "run"))
    return folder


def _recipe(folder: Path, output: Path, **flags: object):
    content = {"method": "simcse", "model": str(folder / "model"), "data": str(folder / "texts.jsonl"), "dev": "none"}
    content |= {"per_device_train_batch_size": 8, "max_steps": 4, "logging_steps": 1, "output": str(output)}
    content |= {"column": "text", "label_column": "topic", "use_cpu": True}
    return resolve(content | flags)[0]


@pytest.fixture(scope="module")
def page(work: Path, evaluation_sets: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTCL_DATA", str(evaluation_sets))
        return report(work / "run").read_text(encoding="utf-8")


def test_a_page_holds_every_part_once_and_loads_nothing(page: str) -> None:
    elements = Elements(page)
    titles = re.findall(r"<h2 [^>]*>([^<]*)<", page)
    assert titles == [
        "Scores",
        "Training",
        "Similarity by gold score",
        "Where model and people disagree",
        "Map of sentences",
        "Nearest neighbours",
        "Provenance",
        "Citation",
    ]
    assert elements.count("script") - elements.count("script", type="application/json") == 1
    assert not [(tag, a) for tag, a in elements.tags if a.keys() & {"src", "srcset", "onerror"} or tag == "link"]
    assert all(str(a["href"]).startswith("#") for _, a in elements.tags if "href" in a)
    assert "default-src 'none'" in page
    assert len(page.encode()) < 3e6
    assert "STS-B dev" in page
    assert "2104.08821" in page


def test_each_chart_has_its_figures_as_a_table_and_a_description(page: str) -> None:
    elements = Elements(page)
    charts = elements.count("div", class_="chart")
    assert charts == 6  # loss, effective rank, plane, grades, two maps; no dev set chose a checkpoint
    blocks = re.findall(r'<script type="application/json" id="specification-\d+">(.*?)</script>', page, re.DOTALL)
    specifications = [json.loads(block) for block in blocks]
    assert len(specifications) == charts
    assert all(each["description"] and each["width"] == "container" for each in specifications)
    figures = re.findall(r"<figure>(.*?)</figure>", page, re.DOTALL)
    for specification, figure in zip(specifications, figures, strict=True):
        rows = re.findall(r"<tr><td", figure)
        drawn = max(len(d["values"]) for d in _data(specification))
        assert len(rows) == drawn > 0


def _data(specification: dict) -> list[dict]:
    here = [specification["data"]] if "values" in specification.get("data", {}) else []
    return here + [data for layer in specification.get("layer", ()) for data in _data(layer)]


def test_hostile_texts_are_shown_and_do_nothing(page: str) -> None:
    assert "&lt;script&gt;document.title" in page
    assert "<script>document" not in page
    assert Elements(page).count("img") == 0
    assert "\x00" not in page
    assert "a nul \ufffd in" in page
    assert "{{ page.title }}" in page  # a text is no template
    assert "שלום" in page
    assert printable("a\x00b\ud800\t👩‍🚀") == "a\ufffdb\ufffd\t👩‍🚀"
    hostile = "</p><script>x</script>\x00\ud800"
    table = Table([hostile], [[hostile], [[hostile]]], hostile)
    plot = plots.sentence_map(np.zeros((2, 2)), [hostile, "b"], [hostile, "c"], hostile, hostile)
    section = Section(hostile, [hostile], [table], [plot], [Card(hostile, [(hostile, [hostile])])], [table])
    html = render(Page(hostile, hostile, [hostile], [section]))
    assert Elements(html).count("script") == 2  # the specification, and the one that draws
    html.encode()
    assert "\x00" not in html


def test_without_texts_there_are_none(work: Path, evaluation_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTCL_DATA", str(evaluation_sets))
    page = report(work / "run", work / "bare.html", texts=False).read_text(encoding="utf-8")
    from textcl.data.sts import read_sts

    dev = read_sts("STSBenchmark", split="dev")[0]
    sentences = {t for t in (*dev.first, *dev.second, *TEXTS) if len(t) > 25}
    assert SECRET not in page
    assert [sentence for sentence in sentences if sentence in page] == []
    assert "Texts are not shown" in page
    assert "Map of sentences" in page
    assert "named by words" not in page
    assert "Nearest neighbours" not in page


def test_without_sts_and_without_the_corpus_the_page_says_what_is_missing(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path / "nothing"))
    run = shutil.copytree(work / "run", tmp_path / "run")
    for name in ("recipe.json", "run.json"):
        record = read_sealed(run / name)
        record["recipe"] |= {"data": "gone.jsonl", "model": str(tmp_path / "gone")}
        (run / name).write_text(json.dumps(record))
    page = report(run).read_text(encoding="utf-8")
    assert "STS-B is not installed" in page
    assert "There is no file gone.jsonl" in page
    assert "The model that training started from is not shown: " in page
    assert "Map of sentences" not in page
    assert "Effective rank" in page


def test_a_model_that_changed_since_the_run_is_not_shown_as_untouched(work: Path, tmp_path: Path) -> None:
    model = shutil.copytree(work / "model", tmp_path / "model")
    run = shutil.copytree(work / "run", tmp_path / "run")
    for name in ("recipe.json", "run.json"):
        record = read_sealed(run / name)
        record["recipe"]["model"] = str(model)
        (run / name).write_text(json.dumps(record))
    after = Encoder.from_pretrained(run / "export")
    notes: list[str] = []
    assert list(_encoders(read_run(run), notes)) == ["untouched", "trained"]
    assert notes == []
    after.backbone.save_pretrained(model)
    assert list(_encoders(read_run(run), notes)) == ["trained"]
    assert notes == [
        f"The model that training started from is not shown: {model} has other weights now than when the run started."
    ]


def test_a_corpus_that_changed_is_not_shown_as_what_was_trained_on(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path / "nothing"))
    run = shutil.copytree(work / "run", tmp_path / "run")
    other = tmp_path / "texts.jsonl"
    other.write_text("".join(json.dumps({"text": f"another text {n}", "topic": "a"}) + "\n" for n in range(9)))
    record = json.loads((run / "run.json").read_text())
    record["recipe"]["data"] = str(other)
    del record["sha256"]
    (run / "run.json").write_text(json.dumps(record))
    page = report(run).read_text(encoding="utf-8")
    assert f"The training corpus cannot be read: {other} has other content than when it was trained on." in page
    assert "another text 1" not in page


def test_the_head_of_a_runs_page_has_verdict_scores_interval_model_corpus_date_and_duration(
    work: Path, tmp_path: Path
) -> None:
    def head(name: str, **dev: object) -> Page:
        run = shutil.copytree(work / "run", tmp_path / name)
        record = json.loads((run / "run.json").read_text())
        record |= {"finished": "2026-04-01T10:00:00+00:00", "seconds": 300.0, "resumed": False}
        record["dev"] = {"set": "stsb-dev", "chosen": True, **dev} if dev else None
        del record["sha256"]
        (run / "run.json").write_text(json.dumps(record))
        return Page(_headline(read_run(run)), _subtitle(read_run(run)), _verdict(read_run(run)))

    kept = {"score": 72.0, "step": 8, "before": 70.0, "highest": 72.0, "error": 0.5}
    page = head("better", **kept)
    assert page.title == "better: better, stsb-dev 70.00 → 72.00"
    assert page.notes[0].startswith("On stsb-dev the difference is +2.00, 95 % interval +1.02 to +2.98 (paired boot")
    assert page.subtitle.startswith(
        f"simcse, trained from {work / 'model'} on texts.jsonl (64 rows), 2026-04-01, in 5 min."
    )
    assert head("open", **kept | {"error": 1.5}).title == "open: no difference is shown, stsb-dev 70.00 → 72.00"
    last = head("last", **kept | {"score": 69.0, "chosen": False})
    assert last.title == "last: worse, without an interval, stsb-dev 70.00 → 69.00"
    assert last.notes == ["On stsb-dev the difference is -1.00."]
    still = head("still", **kept | {"score": 70.0, "chosen": False})
    assert still.title == "still: no difference, without an interval, stsb-dev 70.00 → 70.00"
    same = head("same", **kept | {"score": 70.0, "step": 0, "highest": 70.2})
    assert same.title == "same: no better encoder was found, stsb-dev 70.00"
    assert "by +0.20, 95 % interval -0.78 to +1.18 (paired bootstrap). This is not a gain of more" in same.notes[0]
    lost = head("lost", **kept | {"score": 70.0, "step": 0, "highest": 68.0})
    assert "-2.98 to -1.02 (paired bootstrap). This is not a gain of more than its standard error," in lost.notes[0]
    unsure = head("unsure", **kept | {"score": 70.0, "step": 0, "highest": 69.0, "error": None})
    assert "by -1.00. This is not a gain, so the untouched encoder is the export." in unsure.notes[0]
    nothing = head("nothing")
    assert (nothing.title, nothing.notes) == ("nothing: simcse", [])


def test_the_development_curve_has_the_untouched_encoder_as_a_line_and_an_axis_near_the_data(work: Path) -> None:
    log = [{"step": step, "eval_stsb-dev": value} for step, value in ((0, 70.25), (4, 71.5), (8, 71.0))]
    run = replace(read_run(work / "run"), log=log)
    plot = next(each for each in _training({"run": run})[0].plots if each.title == "stsb-dev")
    assert plot.note == "This score chooses nothing: the last weights are kept. The dashed line is the untouched " + (
        "encoder, 70.25."
    )
    choosing = replace(run, best={"metric": "eval_stsb-dev", "score": 71.5, "step": 4})
    (chosen,) = (each for each in _training({"run": choosing})[0].plots if each.title == "stsb-dev")
    assert chosen.note.startswith("This score chooses the checkpoint; higher is better.")
    *layers, rule = plot.specification(400)["layer"]
    assert rule["encoding"]["y"] == {"datum": 70.25}
    assert all([row["value"] for row in layer["data"]["values"]] == [70.25, 71.5, 71.0] for layer in layers)
    assert all(layer["encoding"]["y"]["scale"] == {"zero": False} for layer in layers)
    other = replace(run, log=[{**entry, "eval_stsb-dev": 60.0} for entry in log])
    both = next(each for each in _training({"run": run, "other": other})[0].plots if each.title == "stsb-dev")
    assert "dashed" not in both.note, "the runs started from different encoders"


@pytest.mark.slow
def test_a_killed_run_has_a_report_that_says_so(work: Path, tmp_path: Path) -> None:
    recipe = _recipe(work, tmp_path / "killed", max_steps=100000)
    (tmp_path / "recipe.yaml").write_text(json.dumps({k: v for k, v in recipe.to_dict().items() if v is not None}))
    process = subprocess.Popen(
        [sys.executable, "-m", "textcl", "train", "recipe.yaml"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (log.exists() and log.read_bytes().count(b"\n") > 2):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = textcl("report", "killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "killed" / "report.html").read_text(encoding="utf-8")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if line.endswith("}")]
    assert (
        f"This run has not finished: it was killed, failed, or is still running. Its log ends at step {steps[-1]}."
        in page
    )
    assert "This run has no encoder on disk" in page
    assert "Effective rank" in page


def test_of_steps_made_twice_the_last_counts_and_a_torn_line_does_not(tmp_path: Path) -> None:
    lines = [(1, 5.0), (2, 4.0), (3, 9.0), (2, 4.5), (3, 3.0), (4, float("nan"))]
    log = "".join(json.dumps({"loss": loss, "step": step}) + "\n" for step, loss in lines)
    (tmp_path / "log.jsonl").write_text(log + '{"loss": 1.0, "st')
    run = read_run(tmp_path)
    assert run.series("loss") == [(1, 5.0), (2, 4.5), (3, 3.0)]
    assert run.record is None
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(InputError, match=r"recipe.json is damaged"):
        read_run(tmp_path)


@pytest.fixture
def comparison_folder(work: Path, tmp_path: Path) -> Path:
    """A comparison with the lines of test_compare, a finished run and one that was killed."""
    for name in ("a-seed1-00000000", "b-seed1-00000000"):
        shutil.copytree(work / "run", tmp_path / "runs" / name)
    (tmp_path / "runs" / "b-seed1-00000000" / "run.json").unlink()
    provenance = {"encoder": {"pooling": "mean"}, "versions": {}, "tasks": {"STS16": {"pairs": 1186}}}
    for number, line in enumerate([LINES[0], {**LINES[1], "average": 10.0}, *LINES[1:]]):
        further = {"fingerprint": str(number), "provenance": provenance, "written": "today", "run": None}
        append_result(tmp_path / "results.jsonl", line | further)
    return tmp_path


@pytest.mark.slow
def test_a_comparison_has_differences_with_intervals_and_the_curves_of_all_runs(comparison_folder: Path) -> None:
    page = report(comparison_folder).read_text(encoding="utf-8")
    assert "Not finished: b-seed1-00000000." in page
    assert "earlier lines of a, with another recipe" in page
    assert "+11.00 ± 2.48*" in page
    assert "a is better than untouched by 11.00 ± 2.48 (95 %, over seeds)." in page
    found = read_comparison(comparison_folder)
    assert [line["average"] for line in found.lines if line["row"] == "a"] == [60.0, 62.0, 61.0]
    blocks = re.findall(r'<script type="application/json" id="[^"]*">(.*?)</script>', page, re.DOTALL)
    rows, differences, loss, *_ = ([row for data in _data(json.loads(b)) for row in data["values"]] for b in blocks)
    assert [row["score"] for row in rows] == [60.0, 62.0, 61.0, 59.0, 60.0, 60.5]
    assert "would share a small part of the axis: untouched 50.00." in page
    shown = {row["row"]: row for row in differences if "row" in row}
    assert shown["a"]["low"] < 11.0 < shown["a"]["high"]
    assert {(row["run"], row["group"]) for row in loss} == {("a-seed1-00000000", "a"), ("b-seed1-00000000", "b")}
    against = report(comparison_folder, reference="b").read_text(encoding="utf-8")
    assert "+1.17 ± 1.90" in against


def test_a_comparison_has_the_difference_of_every_two_rows_and_says_what_is_equal_once(tmp_path: Path) -> None:
    more = [{**LINES[0], "row": name, "average": value, "results": {"STS16": {"all": value}}} for name, value in (
        ("untouched", 58.0), ("tfidf", 20.0)
    )]  # fmt: skip
    lines = [*more, *({**line, "results": {"STS16": line["results"]["STS16"]}} for line in LINES[1:])]
    for number, line in enumerate(lines):
        provenance = {"encoder": {"pooling": "mean"}, "versions": {"torch": "2.13.0"}, "tasks": {}}
        further = {"fingerprint": str(number), "provenance": provenance, "written": "today", "run": None}
        append_result(tmp_path / "results.jsonl", line | further)
    page = comparison_page(read_comparison(tmp_path))
    scores, provenance = page.sections[0], next(each for each in page.sections if each.title == "Provenance")
    table, pairs = scores.tables
    assert table.header == ["", "STS16", "STS-B dev", "STS16 − untouched", "runs"], "the average is that of one task"
    assert [row[0] for row in pairs.rows] == [
        "tfidf − untouched", "a − untouched", "b − untouched", "a − tfidf", "b − tfidf", "b − a"
    ]  # fmt: skip
    found = dict(zip(pairs.header, pairs.rows[-1], strict=True))
    assert found["difference"] == "-1.17"
    assert found["interval over"] == "paired seeds"
    assert dict(zip(pairs.header, pairs.rows[0], strict=True))["p"] is None, "two single runs have no interval"
    drawn = [{row["row"] for row in plot.rows} for plot in scores.plots]
    assert drawn == [{"untouched", "a", "b"}, {"a", "b"}]
    assert scores.paragraphs[-1].endswith("share a small part of the axis: tfidf 20.00.")
    assert provenance.paragraphs == ["Versions, the same for all lines: torch 2.13.0."]
    assert "versions" not in provenance.tables[0].header


def test_rows_stay_in_a_drawing_unless_they_squeeze_its_axis() -> None:
    assert plots.far_rows({"a": [62.0], "b": [63.0], "tfidf": [40.0]}, ["tfidf"]) == ["tfidf"]
    assert plots.far_rows({"a": [62.0], "b": [63.0], "tfidf": [61.0]}, ["tfidf"]) == []
    assert plots.far_rows({"a": [62.0], "tfidf": [40.0]}, ["tfidf"]) == [], "two rows are kept"
    assert plots.far_rows({"a": [62.0], "b": [40.0], "c": [63.0]}, []) == [], "rows that were trained stay"


def test_small_p_values_are_said_to_be_small() -> None:
    assert [shown_p(value) for value in (0.5, 0.0001, 0.00009, 0.0)] == ["0.5000", "0.0001", "< 0.0001", "< 0.0001"]
    assert [said_p(value) for value in (0.5, 0.0)] == ["p = 0.5000", "p < 0.0001"]
    assert Table(["p"], [["0.0312"], ["< 0.0001"], [None]]).is_figure(0)


def test_rows_that_were_scored_on_different_data_are_not_compared_in_silence(tmp_path: Path) -> None:
    for number, line in enumerate(LINES[:3]):
        tasks = {"STS16": {"data_sha256": "new" if number == 2 else "old"}, "STSBenchmark-dev": {"data_sha256": "same"}}
        provenance = {"encoder": {"pooling": "mean"}, "versions": {}, "tasks": tasks}
        further = {"fingerprint": str(number), "provenance": provenance, "written": "today", "run": None}
        append_result(tmp_path / "results.jsonl", line | further)
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "Not comparable: the data of STS16 were not the same for all runs" in page
    assert "data_sha256 old" in page
    assert "data_sha256 new" in page
    assert page.count("data_sha256 same") == 1


def test_scores_computed_for_the_report_keep_marks_and_differ_from_recorded_ones_visibly(
    work: Path, evaluation_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTCL_DATA", str(evaluation_sets))
    shutil.copytree(work / "run", tmp_path / "runs" / "a")
    export = tmp_path / "runs" / "a" / "export"
    seen = {"found": 5, "total": 10, "pairs_found": 5, "pairs": 10}
    (export / "overlap.json").write_text(json.dumps({"STSBenchmark-dev": {"dev": seen}}))
    recorded = {"STSBenchmark-dev": {"kind": "STS", "all": 99.0, "mean": 99.0, "wmean": 99.0, "subsets": {"dev": {}}}}
    line = {**LINES[1], "results": recorded, "run": {"export": "runs/a/export"}}
    append_result(tmp_path / "results.jsonl", line)
    section = _scores(read_run(tmp_path / "runs" / "a"), {"trained": Encoder.from_pretrained(export)}, ["stsb-dev"])
    (row,) = section.tables[0].rows
    assert row[:2] == ["STS-B dev*", "all"]
    assert float(row[2]) < 90
    assert section.paragraphs[0] == (
        "STS-B dev: the comparison recorded 99.00; the table has the score computed for this report."
    )


def test_what_is_no_run_is_refused(comparison_folder: Path, work: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no directory"):
        report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a run"):
        report(tmp_path / "empty")
    with pytest.raises(InputError, match="no row 'c'"):
        report(comparison_folder, reference="c")
    with pytest.raises(InputError, match="for a single run"):
        report(comparison_folder, tasks="sts")
    with pytest.raises(InputError, match="for a comparison"):
        report(work / "run", reference="a")


def test_results_of_another_schema_are_refused(comparison_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other"
    shutil.copytree(comparison_folder, copy)
    with (copy / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"schema": 2, "row": "a"}\n')
    with pytest.raises(InputError, match=r"results\.jsonl, line \d+ has results of schema 2, .* reads schema 1"):
        report(copy)


def test_texts_are_coloured_by_the_labels_of_the_file_and_not_by_their_numbers(tmp_path: Path) -> None:
    """Training numbers the classes of the rows that it reads: those of a blank row and of rows without one are none."""
    given = ["7", "5", "", "late", "7", "5", "late"]
    lines = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, given, strict=False))
    (tmp_path / "rows.csv").write_text(f"body,topic\n,0\n{lines}{TEXTS[0]},7\nbehind the limit,1\n")
    recipe = {"data": str(tmp_path / "rows.csv"), "column": "body", "label_column": "topic", "limit": 7}
    found = examples.sample_corpus({**recipe, "drop_unlabelled": True, "dedup": True})
    assert found.labels is not None
    assert dict(zip(found.texts, found.labels, strict=True)) == {
        text: label for text, label in zip(TEXTS, given, strict=False) if label
    }


@pytest.mark.parametrize("theirs", ['{"accuracy": 0.5}\n', '[1, 2]\n{"schema": 7}\n'])
def test_results_of_another_program_are_passed_over(theirs: str, work: Path, tmp_path: Path) -> None:
    """A results.jsonl beside runs/, and one in a run's own folder."""
    shutil.copytree(work / "run", tmp_path / "runs" / "mine")
    for folder in (tmp_path, tmp_path / "runs" / "mine"):
        (folder / "results.jsonl").write_text(theirs)
        assert recorded_results(read_run(tmp_path / "runs" / "mine")) == {}
        assert not is_comparison(tmp_path / "runs" / "mine")
        assert [result.name for result in find_results([tmp_path])] == ["mine"]
    assert is_comparison(tmp_path)  # runs alone, as of a comparison that was killed in its first one
    assert read_comparison(tmp_path).lines == []


def test_a_score_that_is_not_finite_leaves_a_chart_that_a_browser_can_read(tmp_path: Path) -> None:
    plot = plots.scores_by_row({"a": [60.0, float("nan")], "b": [float("inf"), 61.0]}, "Avg.")
    html = render(Page("scores", "", [], [Section("Scores", plots=[plot])]))
    (specification,) = re.findall(r'<script type="application/json" id="specification-0">(.*?)</script>', html)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(specification, parse_constant=refuse)
    assert plot.save(tmp_path / "scores.svg").read_text().count("<path") > 2


def test_plots_are_drawn_from_python_as_png_and_svg(tmp_path: Path) -> None:
    boxes = plots.similarity_by_grade({"before": ([0, 0, 0, 1], [0.1, 0.2, 0.4, 0.9]), "after": ([0], [0.5])})
    assert boxes.rows[0] == {
        "model": "before", "grade": "0", "pairs": 3, "5 %": 0.11, "25 %": 0.15, "median": 0.2, "75 %": 0.3, "95 %": 0.38
    }  # fmt: skip
    curve = plots.precision_by_share({"a": ([True, False, True, False], [0.9, 0.1, 0.5, 0.8])}, "Curve", "pairs")
    assert [(row["nearest"], row["similar"]) for row in curve.rows if row["nearest"] in (26, 50, 76, 100)] == [
        (26, 100.0), (50, 50.0), (76, 66.67), (100, 50.0)
    ]  # fmt: skip
    drawn = [
        boxes,
        curve,
        plots.curves({"a.b[0]": [(1, 2.0), (2, 1.0)], "c": [(1, 1.0)]}, "loss"),
        plots.alignment_uniformity({"a": [(1, 0.5, -2.0), (2, 0.4, -2.5)]}),
        plots.sentence_map([(0.0, 1.0), (1.0, 0.0)], ["x", "y"], ["one", "two"]),
        plots.scores_by_row({"a": [60.0, 61.0], "b": [59.0]}, "Avg."),
    ]
    for number, plot in enumerate(drawn):
        svg = plot.save(tmp_path / f"{number}.svg").read_text()
        assert svg.count("<path") > 2
        assert "NaN" not in svg
    assert drawn[3].save(tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "0.svg").read_text().count('aria-roledescription="bar"') == 3
    with pytest.raises(InputError, match="neither a"):
        boxes.save(tmp_path / "boxes.gif")


def test_the_note_on_the_plane_names_its_axes_rightly() -> None:
    """Uniformity is drawn from left to right and alignment from bottom to top; low is good for both."""
    plot = plots.alignment_uniformity({"a": [(1, 0.5, -2.0), (2, 0.4, -2.5)]})
    encoding = plot.chart.to_dict()["layer"][0]["encoding"]
    assert (encoding["x"]["field"], encoding["y"]["field"]) == ("uniformity", "alignment")
    left, down = plot.note.split("Further left, ")[1].split("; further down, ")
    assert left == "embeddings are spread more evenly"
    assert down == "positives are closer to each other."


def test_long_curves_are_thinned_evenly_and_keep_their_ends() -> None:
    long = {name: [(step, float(step)) for step in range(1, 10_001)] for name in ("a", "b")}
    rows = plots.curves(long, "loss").rows
    assert len(rows) == plots.MOST_POINTS
    steps = [row["step"] for row in rows if row["run"] == "a"]
    assert (steps[0], steps[-1]) == (1, 10_000)
    assert set(np.diff(steps)) <= {10, 11}


def test_disagreements_are_differences_of_ranks() -> None:
    gold, cosines = [0.0, 1.0, 1.0, 3.0, 5.0], np.array([0.9, 0.1, 0.2, 0.3, 0.4])
    found = examples.disagreements(gold, cosines, most=1)
    assert found == [(0, 0.0, 100.0), (1, 37.5, 0.0)]  # the tied pairs of gold score 1 share rank 2.5 of 1 to 5


def test_clusters_are_named_by_their_words_unless_texts_are_left_out() -> None:
    texts = [f"{animal} number {n}" for animal in ("cat", "dog") for n in range(8)]
    rows = np.repeat(np.eye(2), 8, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(16, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "CLUSTERS", 2)
        sample = examples.Sample(texts, None, "somewhere")
        named, how = examples.grouping(sample, rows)
        bare, _ = examples.grouping(sample, rows, words=False)
    assert named == ["cat"] * 8 + ["dog"] * 8
    assert how.endswith("named by words that are frequent in it and not elsewhere.")
    assert set(bare) == {"cluster 0", "cluster 1"}


def test_neighbours_that_changed_are_marked_and_the_texts_chosen_by_a_stated_rule() -> None:
    angles = np.linspace(0, 3, 40)
    before = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    after = before.copy()
    after[[0, 39]] = before[[39, 0]]  # two texts change places
    sample = examples.Sample([f"text {n}" for n in range(40)], None, "somewhere")
    moved = examples.changed(before, after)
    assert moved == [0, 1, 2, 37, 38, 39]
    section = _neighbours(sample, {"untouched": before, "trained": after})
    assert (
        "6 of 40 texts have other nearest texts after training than before; 6 of these are shown, evenly spaced"
        in (section.paragraphs[0])
    )
    assert [card.title for card in section.cards] == [f"text {n}" for n in moved]
    (first, gone), (last, new) = section.cards[1].lists
    assert (first, last) == ("untouched", "trained")
    assert {line.partition("  ")[2] for line in gone} == {"[gone] text 0", "text 2", "text 3"}
    assert {line.partition("  ")[2] for line in new} == {"[new] text 39", "text 2", "text 3"}
    same = _neighbours(sample, {"untouched": before, "trained": before})
    assert "No text has other nearest texts after training than before; these are evenly spaced" in same.paragraphs[0]
    assert len(same.cards) == examples.QUERIES
    assert not any("[" in line for card in same.cards for _, lines in card.lists for line in lines)


def test_the_untouched_encoder_has_what_training_gives_without_learning_it(work: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(work / "model")
    encoder.weigh_tokens(TEXTS)
    with_first_dimensions(encoder, 8).save(tmp_path / "export")  # as a run exports it if training changed no weight
    after = Encoder.from_pretrained(tmp_path / "export")
    before = examples.untouched({"model": str(work / "model")}, after)
    assert not np.allclose(Encoder.from_pretrained(work / "model").encode(TEXTS)[:, :8], after.encode(TEXTS))
    np.testing.assert_array_equal(before.encode(TEXTS), after.encode(TEXTS))


def test_a_sample_has_each_text_once_where_it_comes_first() -> None:
    pairs = Subset("pairs", ["a", "b", "b"], ["c", "a", " "], [1.0, 2.0, 3.0])
    assert examples.sample_pairs(pairs).texts == ["a", "b", "c"]


def test_neighbours_and_map_of_known_points() -> None:
    angles = np.array([0.0, 0.1, 0.3, 3.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert [place for place, _ in examples.neighbours(rows, 0)] == [1, 2, 3]
    assert examples.neighbours(rows, 0)[0][1] == pytest.approx(np.cos(0.1))
    points, kept = examples.project(rows)
    assert kept == pytest.approx(1.0)
    distances = [np.linalg.norm(cloud[:, None] - cloud[None], axis=2) for cloud in (rows, points)]
    assert np.allclose(*distances)
    assert np.array_equal(points, examples.project(rows)[0])


if CHROMIUM:  # a browser is no part of the package's own needs; where there is one, it opens the page

    @pytest.mark.parametrize("size", ["1200,800", "390,800"])
    def test_a_browser_draws_every_chart_from_disk_and_runs_no_text(page: str, tmp_path: Path, size: str) -> None:
        html, complaints = open_in_browser(page, tmp_path, size)
        assert complaints == []
        assert html.count('<svg xmlns="http://www.w3.org/2000/svg"') == page.count('class="chart"') > 0
        assert "<title>run: simcse</title>" in html

    def test_in_a_browser_hovering_shows_a_text_and_runs_nothing_even_without_the_policy(
        page: str, tmp_path: Path
    ) -> None:
        """And nothing makes the page of a phone wider than the phone."""
        hover = """setTimeout(() => {
          const seen = [];
          for (const mark of document.querySelectorAll(".chart svg path")) {
            mark.dispatchEvent(new PointerEvent("pointermove", {bubbles: true}));
            mark.dispatchEvent(new PointerEvent("mousemove", {bubbles: true}));
            const tooltip = document.getElementById("vg-tooltip-element");
            if (tooltip && tooltip.textContent.includes("onerror")) seen.push(tooltip.textContent);
          }
          document.body.dataset.seen = seen.length;
          document.body.dataset.images = document.querySelectorAll("img").length;
          document.body.dataset.wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
        }, 3000)"""
        free = re.sub(r"<meta http-equiv[^>]*>", "", page)
        end = free.rindex("</body>")
        html, _ = open_in_browser(f"{free[:end]}<script>{hover}</script>{free[end:]}", tmp_path, "390,800")
        body = next(attributes for tag, attributes in Elements(html).tags if tag == "body")
        assert int(body["data-seen"]) >= 2  # the map before and after
        assert (body["data-images"], body["data-wider"]) == ("0", "0")
        assert "<title>run: simcse</title>" in html
