"""textcl results: what is found, how it is written, and what is said of two."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_rel
from support.command import textcl
from support.comparison import record_of
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import STSSuite
from textcl.evaluation.significance import over_pairs
from textcl.files import append_result
from textcl.report.differences import compare_results
from textcl.report.formats import results_csv, results_json, results_latex, results_table
from textcl.report.records import read_comparison
from textcl.report.results import by_row, find_results, score_columns, select
from textcl.report.tables import comparison, comparison_table


def sts(average: float, transductive: bool = False) -> dict:
    results = {"STS16": {"all": average - 1, "mean": 0.0}, "STSBenchmark": {"all": average + 1, "mean": 0.0}}
    results["STS16"]["transductive"] = transductive
    return results | {"STSBenchmark-dev": {"all": average + 10, "mean": 0.0}}


def add(folder: Path, row: str, seed: int | None, results: dict, **more: object) -> dict:
    dev = results.get("STSBenchmark-dev", {}).get("all")
    line = {"row": row, "seed": seed, "fingerprint": f"{row} {seed}", "average": 0.0, "dev": dev, "results": results}
    line |= {"provenance": {}, "recipe": None if seed is None else {"method": "simcse"}, "run": None}
    append_result(folder / "results.jsonl", line | {"written": "2026-03-01T10:00:00+00:00"} | more)
    return line


A, B = {1: 60.0, 2: 60.5, 3: 59.8}, {1: 61.0, 2: 61.2, 3: 61.1}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two comparisons, a run that one of them scored and a run on its own."""
    folder = tmp_path / "runs"
    one, two = folder / "one", folder / "two"
    add(one, "untouched", None, sts(50.0), written="2026-01-01T10:00:00+00:00")
    for name, scores in (("a_1", A), ("b", B)):
        for seed, average in scores.items():
            run = {"export": f"runs/{name}-{seed}/export"}
            (one / run["export"]).mkdir(parents=True)
            record(one / "runs" / f"{name}-{seed}", seed)
            add(one, name, seed, sts(average, transductive=name == "b"), run=run)
    clusters = {"AgNews": {"accuracy": 80.0, "nmi": 70.0, "ari": 60.0}}
    add(two, "sccl", 0, clusters, written="2026-05-01T10:00:00+00:00", recipe={"method": "sccl"})
    record(folder / "alone", 7)
    append_result(folder / "cache" / "results.jsonl", {"task": "MR", "scores": {}})  # as `Transfer` keeps them
    (folder / "alone" / "checkpoint-5").mkdir()
    (folder / "alone" / "checkpoint-5" / "run.json").write_text("{}")
    return folder


def record(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record_of(seed)))


def test_lines_and_runs_are_found_once_each_oldest_first(runs: Path) -> None:
    found = find_results([runs, runs / "one"])
    names = [(result.name, result.seed) for result in found]
    expected = [("untouched", None), *((n, s) for n in ("a_1", "b") for s in (1, 2, 3)), ("alone", 7), ("sccl", 0)]
    assert names == expected
    assert found[1].scores() == {"STS": 60.0, "STS-B dev": 70.0}
    assert found[-2].scores() == {"STS-B dev": 66.5}
    assert found[-1].scores() == {"clustering": 80.0}
    assert found[1].scores(["STS16", "MR"]) == {"STS16": 59.0}
    assert score_columns(found) == ["STS", "clustering", "STS-B dev"]


def test_a_run_whose_export_was_removed_is_still_found_once(runs: Path) -> None:
    before = [(each.name, each.seed) for each in find_results([runs])]
    for export in runs.glob("one/runs/*/export"):
        export.rmdir()
    assert [(each.name, each.seed) for each in find_results([runs])] == before


def test_they_are_chosen_and_ordered(runs: Path) -> None:
    found = find_results([runs])

    def names(**how: object) -> list[str]:
        return [f"{result.name}{result.seed or ''}" for result in select(found, **how)]

    assert names(methods=["sccl"]) == ["sccl"]
    assert names(rows=["b", "alone"], sort="STS") == ["b2", "b3", "b1", "alone7"]
    assert names(sort="sts-b dev")[0] == "b2"
    assert names(tasks=["AgNews"]) == ["sccl"]
    assert names(since="2026-04-01") == ["alone7", "sccl"]
    assert names(since="2026-05-01T10:00:00+00:00") == ["sccl"]
    assert names(rows=["untouched", "a_1"], sort="seed") == ["a_11", "a_12", "a_13", "untouched"]
    with pytest.raises(InputError, match="not a date"):
        names(since="yesterday")
    with pytest.raises(InputError, match="Did you mean 'clustering'"):
        names(sort="clusterin")


def test_damaged_records_are_left_out_and_another_schema_is_refused(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (runs / "torn").mkdir()
    (runs / "torn" / "run.json").write_text('{"recipe": {')
    assert len(find_results([runs])) == 9
    assert "run.json is damaged" in caplog.text
    with (runs / "two" / "results.jsonl").open("a") as file:
        file.write('{"schema": 2}\n')
    with pytest.raises(InputError, match="schema 2"):
        find_results([runs])
    with pytest.raises(InputError, match="There is no folder"):
        find_results([runs / "nothing"])


def test_table_and_csv_have_a_row_each(runs: Path) -> None:
    found = find_results([runs])
    lines = results_table(found).splitlines()
    assert len(lines) == 2 + 9 + 2
    assert lines[-1].startswith("* transductive")
    assert next(line for line in lines if "| b* " in line).count("61.00") == 1
    rows = list(csv.DictReader(io.StringIO(results_csv(found))))
    assert [row["STS"] for row in rows if row["name"] == "a_1"] == ["60.0", "60.5", "59.8"]
    assert {row["transductive"] for row in rows if row["name"] == "b"} == {"STS16"}
    assert rows[-2]["folder"] == str(runs / "alone")


def test_averages_over_different_tasks_are_said_not_to_be_comparable(runs: Path, tmp_path: Path) -> None:
    assert "Not comparable" not in results_table(find_results([runs]))
    add(runs / "two", "few", 1, {"STS16": {"all": 70.0, "mean": 0.0}})
    found = find_results([runs])
    assert "\n\nNot comparable: STS is the mean over other tasks in some rows" in results_table(found)
    assert "Not comparable" not in results_table(found, ["STS16"])


def test_latex_has_mean_and_deviation_and_is_escaped(runs: Path) -> None:
    add(runs / "one", r"50% of \{x}_&~^", 1, sts(-1.0))
    text = results_latex(select(find_results([runs / "one"]), tasks=["STS16"]), ["STS16", "STSBenchmark"])
    assert text.splitlines()[:3] == [r"\begin{tabular}{lrrr}", r"\toprule", r" & STS16 & STS-B & runs \\"]
    assert rf"a\_1 & 59.10 $\pm$ {np.std([60, 60.5, 59.8], ddof=1):.2f} & " in text
    assert r"50\% of \textbackslash{}\{x\}\_\&\textasciitilde{}\textasciicircum{} & $-$2.00 & 0.00 & 1 \\" in text
    assert "b* & " in text
    if shutil.which("pdflatex"):
        page = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
        done = subprocess.run(["pdflatex", "-halt-on-error"], input=page, text=True, cwd=runs, capture_output=True)
        assert done.returncode == 0, done.stdout


def test_rows_of_several_runs_are_compared_over_seeds(runs: Path) -> None:
    found = find_results([runs])
    said = compare_results(("a_1", "b"), found)
    theirs = ttest_rel(list(B.values()), list(A.values()))
    interval = theirs.confidence_interval(0.95)
    assert said.splitlines()[0] == (
        f"b is better than a_1 by 1.00 ± {(interval.high - interval.low) / 2:.2f} (95 %, over paired seeds)."
    )
    assert "Average of STS16, STS-B; 3 runs and 3 runs" in said
    assert f"p = {theirs.pvalue:.4f}" in said
    assert said.endswith("training corpus): STS16.")
    assert "b is better than untouched by 11.10" in compare_results(("untouched", "b"), found)
    assert "No difference between a_1 and a_1 is shown" in compare_results(("a_1", "a_1"), found)
    assert "Average of STS-B;" in compare_results(("a_1", "b"), found, ["STSBenchmark"])
    with pytest.raises(InputError, match="no task in common"):
        compare_results(("a_1", "b"), found, ["MR"])
    with pytest.raises(InputError, match="Did you mean 'sccl'"):
        compare_results(("scl", "a_1"), found)


def test_of_one_row_and_seed_the_last_counts_and_tasks_are_joined(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    geometry = {"geometry": {"effective_rank": 9.0}}
    for seed in A:  # scored again on another task
        add(runs / "one", "a_1", seed, geometry, written="2026-06-01T10:00:00+00:00")
    assert "by 1.00 ±" in compare_results(("a_1", "b"), find_results([runs]))
    assert caplog.text == ""
    for seed in A:  # another recipe of the same name
        add(runs / "two", "a_1", seed, sts(40.0), fingerprint="other", written="2026-07-01T10:00:00+00:00")
    assert "by 21.10 ±" in compare_results(("a_1", "b"), find_results([runs]))
    assert "a_1 has results of different recipes, models or corpora" in caplog.text


def test_runs_of_different_recipes_are_never_the_seeds_of_one_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def recipe(seed: int, rate: float) -> dict:
        return {"method": "simcse", "learning_rate": rate, "seed": seed, "output": f"runs/{seed}", "limit": None}

    for day, rate, seeds in ((1, 1e-5, (1, 2, 3)), (2, 3e-4, (3, 4))):
        for seed in seeds:
            more = {"written": f"2026-03-0{day}T10:00:00+00:00", "fingerprint": f"{rate} {seed}"}
            add(tmp_path, "a", seed, sts(60.0 + day), recipe=recipe(seed, rate), **more)
    assert {
        seed: each.results["STSBenchmark"]["all"] for seed, each in by_row(find_results([tmp_path]))["a"].items()
    } == {
        3: 63.0,
        4: 63.0,
    }
    assert "3 earlier results are left out" in caplog.text
    compared = read_comparison(tmp_path)
    assert [(line["row"], line["seed"]) for line in compared.lines] == [("a", 3), ("a", 4)]
    assert compared.replaced == ["a"]
    assert r"a & 62.00 $\pm$ 0.00 & 72.00 $\pm$ 0.00 & 2 \\" in results_latex(find_results([tmp_path]))


def test_an_other_model_of_the_same_recipe_replaces_all_seeds_of_a_row(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        add(tmp_path, "a", seed, sts(60.0))
    add(tmp_path, "a", 1, sts(70.0), fingerprint="other model", written="2026-06-01T10:00:00+00:00")
    assert list(by_row(find_results([tmp_path]))["a"]) == [1]
    assert [line["seed"] for line in read_comparison(tmp_path).lines] == [1]


@pytest.mark.parametrize("change", [{"data": {"sha256": "new"}}, {"model_weights": ["new"]}])
def test_runs_on_other_data_or_from_another_model_are_never_the_seeds_of_one_row(change: dict, tmp_path: Path) -> None:
    """The corpus or the model changed at the same path, and was then trained with seeds of its own."""
    for day, seeds, more in ((1, (1, 2, 3), {}), (2, (4, 5), change)):
        for seed in seeds:
            run = {**record_of(seed), "model_weights": ["old"], **more, "export": f"runs/a-{seed}/export"}
            add(tmp_path, "a", seed, sts(60.0 + day), run=run, written=f"2026-03-0{day}T10:00:00+00:00")
    assert sorted(by_row(find_results([tmp_path]))["a"]) == [4, 5]
    assert [line["seed"] for line in read_comparison(tmp_path).lines] == [4, 5]


def test_a_score_of_nan_is_shown_and_never_the_best(tmp_path: Path) -> None:
    """Results of earlier versions may have one."""
    for row, seed, value in (("a", 1, float("nan")), ("a", 2, 60.0), ("b", 1, 61.0), ("b", 2, 62.0)):
        add(tmp_path, row, seed, {"STS16": {"all": value}})
    found = find_results([tmp_path])
    chosen = select(found, sort="STS")
    assert [(each.name, each.seed) for each in chosen] == [("b", 2), ("b", 1), ("a", 2), ("a", 1)]
    assert r"a & nan $\pm$ nan & 2" in results_latex(found)
    assert "NaN" not in results_json(found)
    assert r"b & 61.50 $\pm$ 0.71 & 2" in results_latex(found)
    lines = [{"row": each.name, "seed": each.seed, "average": each.results["STS16"]["all"], "dev": None,
              "results": each.results} for each in found]  # fmt: skip
    assert "nan ± nan" in comparison_table(comparison(lines))
    with pytest.raises(InputError, match="A score is NaN or infinite"):
        compare_results(("a", "b"), found)


def test_scores_on_different_data_are_compared_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for row, hashes in (("a", ("old", "old")), ("b", ("old", "new"))):
        for seed, mark in enumerate(hashes):
            provenance = {"tasks": {"STS16": {"data_sha256": mark}, "STSBenchmark": {"data_sha256": "same"}}}
            add(tmp_path, row, seed, sts(60.0 + seed), provenance=provenance)
    said = compare_results(("a", "b"), find_results([tmp_path]))
    assert said.splitlines()[-1].startswith("Not comparable: the data of STS16 were not the same for all runs")
    assert "STS16" not in compare_results(("a", "b"), find_results([tmp_path]), ["STSBenchmark"])
    assert caplog.messages == []


def test_a_row_keeps_the_provenance_of_tasks_that_were_scored_at_another_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provenance = {name: {"tasks": {name: {"data_sha256": name}}} for name in ("STS16", "geometry")}
    add(tmp_path, "a", 1, {"STS16": {"all": 1.0}}, provenance=provenance["STS16"])
    later = {"written": "2026-06-01T10:00:00+00:00"}
    add(tmp_path, "a", 1, {"geometry": {"effective_rank": 9.0}}, provenance=provenance["geometry"], **later)
    joined = by_row(find_results([tmp_path]))["a"][1]
    assert list(joined.results) == ["STS16", "geometry"]
    assert {task: facts["data_sha256"] for task, facts in joined.provenance["tasks"].items()} == {
        "STS16": "STS16",
        "geometry": "geometry",
    }
    assert caplog.messages == []
    again = {"tasks": {"STS16": {"data_sha256": "another"}}}
    add(tmp_path, "a", 1, {"STS16": {"all": 5.0}}, provenance=again, written="2026-07-01T10:00:00+00:00")
    assert by_row(find_results([tmp_path]))["a"][1].results["STS16"]["all"] == 5.0
    assert caplog.messages == ["a was scored twice on STS16, with different data; the last score is used."]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encoders, one of them as the export of a run."""
    folder = tmp_path_factory.mktemp("encoders")
    for name, seed in (("one", 0), ("run/export", 1)):
        tiny_encoder_directory(folder / "m", seed=seed)
        Encoder.from_pretrained(folder / "m", pooling="mean").save(folder / name)
    return folder


@pytest.mark.slow
def test_two_encoders_are_compared_over_the_pairs_of_real_tasks(
    encoders: Path, few_sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(encoders)
    monkeypatch.setenv("TEXTCL_DATA", str(few_sets))
    cosines, gold = {}, {}
    for name in ("one", "run"):
        assert main(["results", "--pairs", name, "--task", "sts16,stsb-dev", "--output", f"{name}.csv"]) == 0
        rows = list(csv.DictReader((encoders / f"{name}.csv").open()))
        for task in ("STS16", "STSBenchmark-dev"):
            gold[task] = [float(row["gold"]) for row in rows if row["task"] == task]
            cosines[name, task] = [float(row["cosine"]) for row in rows if row["task"] == task]
        assert [row["pair"] for row in rows[:254]] == [str(n) for n in range(1, 255)]  # answer-answer
        assert not any(text in (encoders / f"{name}.csv").read_text() for text in ("What", "what"))
    suite = STSSuite(["STS16", "STSBenchmark-dev"])
    scored = suite(Encoder.from_pretrained("one")).results
    for task in gold:  # whoever reads the file comes to the same score
        assert 100 * spearmanr(gold[task], cosines["one", task]).statistic == pytest.approx(scored[task]["all"])

    assert main(["results", "--compare", "one", "run", "--task", "sts16,stsb-dev"]) == 0
    said = capsys.readouterr().out
    sides = [[cosines[name, task] for task in gold] for name in ("one", "run")]
    assert said.splitlines()[0] == over_pairs(list(gold.values()), *sides).sentence("one", "run")
    assert "STS16" in said
    assert "Williams" in said
    assert "Transductive" not in said
    counts = {"found": 9, "total": 9, "pairs_found": 9, "pairs": 9}
    (encoders / "one" / "overlap.json").write_text(json.dumps({"STS16": {"headlines": counts}}))
    assert main(["results", "--compare", "run", "one", "--task", "sts16,stsb-dev"]) == 0
    assert capsys.readouterr().out.endswith("(evaluation texts were in a training corpus): STS16.\n")
    (encoders / "one" / "overlap.json").unlink()
    assert main(["results", "--compare", "one", "one", "--task", "sts16"]) == 0
    assert "No difference between one and one is shown: +0.00 ± 0.00" in capsys.readouterr().out


def test_the_command_as_a_user_gives_it(encoders: Path, tmp_path: Path) -> None:
    """A real run is listed; formats go to standard output alone; nothing is there, nothing is asked for."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:32]) + "\n")
    flags = ["--per_device_train_batch_size", 8, "--max_steps", 1, "--dev", "none", "--output", "runs/mine"]
    assert textcl("results", cwd=tmp_path).returncode == 2
    done = textcl("train", "simcse", "--model", encoders / "one", "--data", "texts.txt", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = textcl("results", cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines()[2].split(" | ")[0] == "| mine"
    (only,) = json.loads(textcl("results", "runs", "--format", "json", cwd=tmp_path).stdout)
    assert only["method"] == "simcse"
    assert only["export"] == "runs/mine/export"
    none = textcl("results", "--method", "moco", cwd=tmp_path)
    assert none.returncode == 2
    assert none.stderr == "textcl: None of the 1 results matches the flags; leave some flags out.\n"


def test_a_list_replaces_an_earlier_list_alone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output_format in ("table", "csv", "latex", "json"):
        output = runs / f"list.{output_format}"
        for empty in (False, False, True):  # nothing is there, then a list, then an empty file
            if empty:
                output.write_text("")
            assert main(["results", str(runs), "--format", output_format, "--output", str(output)]) == 0
        output.write_text("id,text\n1,mine\n")
        assert main(["results", str(runs), "--format", output_format, "--output", str(output)]) == 2
        assert "exists already and holds something else" in capsys.readouterr().err
        assert output.read_text() == "id,text\n1,mine\n"
