"""compare: what its table says, and that a kill at any moment costs nothing that was finished."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import stdev

import pytest
from support.command import environment, textcl
from support.comparison import LINES, line
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.errors import InputError
from textcl.evaluation import Suite
from textcl.files import append_result, read_results
from textcl.report.tables import comparison, comparison_table, mean_sd, table
from textcl.runs.compare import compare

T_OF_2, T_OF_3 = 12.7062, 4.30265  # Student's 97.5 % quantiles with one and with two degrees of freedom


def half(row: dict) -> float:
    return float((row["difference"]["high"] - row["difference"]["low"]) / 2)


def test_mean_and_deviation_over_seeds() -> None:
    row = comparison(LINES)["rows"]["a"]["columns"]["Avg."]
    assert (row["mean"], row["sd"]) == (61.0, 1.0)  # n - 1
    assert mean_sd([60.0, 62.0, 61.0]) == "61.00 ± 1.00"
    assert mean_sd([61.0]) == "61.00"


def test_differences_are_paired_by_seed() -> None:
    rows = comparison(LINES, "b")["rows"]
    differences = [1.0, 2.0, 0.5]
    assert rows["a"]["difference"]["mean"] == pytest.approx(3.5 / 3)
    assert half(rows["a"]) == pytest.approx(T_OF_3 * stdev(differences) / sqrt(3), rel=1e-5)
    assert rows["untouched"]["difference"]["mean"] == pytest.approx(50 - 179.5 / 3)
    assert rows["b"]["difference"] is None
    against_fixed = comparison(LINES)["rows"]["a"]["difference"]
    assert against_fixed["mean"] == pytest.approx(11.0)
    assert half(comparison(LINES)["rows"]["a"]) == pytest.approx(T_OF_3 / sqrt(3), rel=1e-5)


def test_a_pairing_that_mixed_up_the_seeds_would_show() -> None:
    shuffled = [line("b", {1: 2, 2: 1, 3: 3}[each["seed"]], each["average"]) for each in LINES[4:]]
    paired = half(comparison(LINES, "b")["rows"]["a"])
    assert half(comparison([*LINES[:4], *shuffled], "b")["rows"]["a"]) != pytest.approx(paired)


def test_the_table_has_a_row_each_and_says_how_to_read_it() -> None:
    text = comparison_table(comparison(LINES))
    assert "61.00 ± 1.00" in text
    assert "+11.00 ± 2.48*" in text
    assert "a is better than untouched by 11.00 ± 2.48 (95 %, over seeds)." in text
    close = comparison_table(comparison(LINES, "b"))
    assert "+1.17 ± 1.90 |" in close
    assert "No difference between b and a is shown: +1.17 ± 1.90 (95 %, over paired seeds)." in close
    assert "62.00 ± 1.00" in text  # STS-B dev
    heads = [head.strip() for head in text.splitlines()[0].split("|")]
    assert (heads.count("STS16"), heads.count("Avg.")) == (1, 0), "the average over one task is that task"
    assert "n - 1" in text or "mean ± sd over seeds" in text
    with pytest.raises(InputError, match="no row 'c'"):
        comparison(LINES, "c")


def clustered(row: str, seed: int | None, accuracy: float, transductive: bool = False) -> dict:
    results = {
        name: {"accuracy": accuracy + i, "nmi": accuracy - 10, "ari": 0.0, "transductive": transductive}
        for i, name in enumerate(("AgNews", "StackOverflow"))
    }
    return {"row": row, "seed": seed, "average": accuracy + 0.5, "dev": None, "results": results}


def test_clusterings_have_columns_of_accuracy_and_information() -> None:
    lines = [clustered("untouched", None, 40.0)]
    lines += [clustered("sccl", seed, value, True) for seed, value in ((1, 50.0), (2, 54.0))]
    figures = comparison(lines)
    heads = ["AgNews ACC", "StackOverflow ACC", "Avg. ACC", "AgNews NMI", "StackOverflow NMI", "Avg. NMI"]
    assert figures["columns"] == heads
    row = figures["rows"]["sccl"]
    assert [row["columns"][head]["mean"] for head in heads] == [52.0, 53.0, 52.5, 42.0, 42.0, 42.0]
    assert row["difference"]["mean"] == 12.0
    assert half(row) == pytest.approx(2 * T_OF_2, rel=1e-5)
    text = comparison_table(figures)
    assert "Avg. ACC − untouched" in text.splitlines()[0]
    assert "STS" not in text
    assert "Spearman" not in text
    assert text.endswith("Transductive (evaluation texts were in the training corpus): sccl: AgNews, StackOverflow.")


def test_in_a_mixed_table_the_average_is_that_of_sts() -> None:
    lines = [
        {**line(row, None, value), "results": line(row, None, value)["results"] | clustered("", None, 30)["results"]}
        for row, value in (("untouched", 50.0), ("a", 60.0))
    ]
    figures = comparison(lines)
    assert figures["columns"][:4] == ["STS16", "Avg.", "STS-B dev", "AgNews ACC"]
    assert figures["rows"]["a"]["columns"]["Avg."]["mean"] == 60.0
    assert figures["rows"]["a"]["columns"]["Avg. ACC"]["mean"] == 30.5
    text = comparison_table(figures)
    assert "STS16 − untouched" in text.splitlines()[0]
    assert "Avg. |" not in text.splitlines()[0], "the average over one task is that task"
    assert "Spearman" in text
    assert "k-means" in text


@pytest.mark.parametrize(
    ("entry", "head"),
    [
        ({"kind": "geometry", "alignment": 0.2, "uniformity": -2.0, "effective_rank": 40.0}, "eff. rank"),
        ({"kind": "finetune", "score": 70.0}, "Avg. finetune"),
        ({"kind": "regression", "pearson": 70.0}, "Pearson"),
        ({"kind": "retrieval", "ndcg@10": 70.0}, "nDCG@10"),
        ({"kind": "STS", "all": 70.0}, "Avg."),
    ],
)
def test_the_difference_is_headed_by_the_score_that_it_is_of(entry: dict, head: str) -> None:
    second = {key: value if key == "kind" else value + 1 for key, value in entry.items()}
    for more in ({}, {"other": {"kind": "geometry", "alignment": 0.2, "uniformity": -2.0, "effective_rank": 4.0}}):
        lines = [
            {"row": row, "seed": None, "average": 70.0, "dev": None, "results": {"one": entry, "two": second, **more}}
            for row in ("untouched", "a")
        ]
        assert f"| {head} − untouched |" in comparison_table(comparison(lines)).splitlines()[0]


def test_columns_of_a_table_are_aligned() -> None:
    lines = table(["row", "score"], [["SimCSE", "61.2"], ["x", "100.25"]]).splitlines()
    assert len({len(each) for each in lines}) == 1
    assert lines[1] == "|:-------|-------:|"
    assert lines[2].endswith("|   61.2 |")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, texts and two recipes."""
    folder = tmp_path_factory.mktemp("compare")
    tiny_encoder_directory(folder / "model")
    (folder / "texts.txt").write_text("\n".join(TEXTS[:64]) + "\n")
    shared = "method: simcse\nmodel: model\ndata: texts.txt\nper_device_train_batch_size: 8\nmax_steps: 4\ndev: none\n"
    shared += "max_length: 8\n"
    (folder / "plain.yaml").write_text(shared)
    wild = "max_grad_norm: 0\nlr_scheduler_type: constant\n"
    (folder / "broken.yaml").write_text(shared + "learning_rate: 1e30\n" + wild)
    # its weights become infinite in the last step, so no loss shows it
    (folder / "endless.yaml").write_text(shared.replace("steps: 4", "steps: 1") + "learning_rate: 1e38\n" + wild)
    return folder


@pytest.mark.slow
def test_killed_and_called_again_it_goes_on_and_repeats_nothing(work: Path, evaluation_sets: Path) -> None:
    plain = (work / "plain.yaml").read_text()
    (work / "long.yaml").write_text(plain.replace("steps: 4", "steps: 40"))  # takes longer than it takes to kill it
    command = ["compare", "long.yaml", "--seeds", "2", "--output", "out", "--tasks", "sts16"]
    data = {"TEXTCL_DATA": str(evaluation_sets)}
    results = work / "out" / "results.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "textcl", *command],
        cwd=work,
        env=environment(**data),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    second = work / "out" / "runs"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not list(second.glob("long-seed43-*/resolved.yaml")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)  # while the second seed's run is under way
    process.wait()
    assert [each["seed"] for each in read_results(results)] == [None, 42]
    before = results.read_bytes()
    first = next(second.glob("long-seed42-*")) / "run.json"
    written = first.stat().st_mtime_ns
    if sys.platform == "linux":  # the run that was under way went with it
        deadline = time.monotonic() + 60
        while (alive := _working_in(work)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive
        assert not list(second.glob("long-seed43-*/run.json")), "else it went on alone"

    done = textcl(*command, cwd=work, **data)
    assert done.returncode == 0, done.stderr
    assert results.read_bytes().startswith(before)
    assert [each["seed"] for each in read_results(results)] == [None, 42, 43]
    assert first.stat().st_mtime_ns == written
    assert "±" in done.stdout
    assert (work / "out" / "table.md").read_text() == done.stdout

    complete = results.read_bytes()
    again = textcl(*command, "--json", "-", cwd=work, **data)
    assert results.read_bytes() == complete
    assert json.loads(again.stdout)["rows"]["long"]["seeds"] == [42, 43]
    provenance = read_results(results)[-1]["provenance"]
    assert provenance.keys() >= {"tasks", "aggregation", "encoder", "versions", "seed"}
    assert provenance["seed"] == 43


@pytest.fixture(scope="module")
def clustering_set(work: Path, few_sets: Path) -> Path:
    """A recipe of SCCL on AgNews, which is then scored on it."""
    path = few_sets / "clustering" / "agnews.csv"
    recipe = {"method": "sccl", "model": "model", "data": str(path), "label_column": "label", "clusters": 4}
    recipe |= {"per_device_train_batch_size": 50, "max_steps": 2, "eval_steps": 2, "limit": 200}
    recipe |= {"max_length": 8}
    (work / "sccl.yaml").write_text(json.dumps(recipe))
    return path


@pytest.mark.slow
def test_a_recipe_with_a_template_is_compared_with_its_model_read_by_it(
    work: Path, few_sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untouched encoder that pools the mask token has one in every text, long ones as well."""
    monkeypatch.chdir(work)
    monkeypatch.setenv("TEXTCL_DATA", str(few_sets))
    shutil.copytree("model", "trained-before")  # on texts of STS16
    seen = {"STS16": {"headlines": {"found": 9, "total": 10, "pairs_found": 5, "pairs": 5}}}
    Path("trained-before", "overlap.json").write_text(json.dumps(seen))
    recipe = {"method": "simcse-plus", "model": "trained-before", "data": "texts.txt", "dev": "none", "max_steps": 1}
    recipe |= {"pooling": "mask_token", "template": '"{text}" means [MASK].', "max_length": 12}
    (work / "template.yaml").write_text(json.dumps(recipe))
    lines, failures = compare(["template.yaml"], "templates", seeds=1, baselines=["untouched"], tasks=["sts16"])
    assert failures == []
    untouched, trained = (line["provenance"]["encoder"]["prompt"] for line in lines)
    assert untouched == trained == recipe["template"]
    assert [line["results"]["STS16"]["transductive"] for line in lines] == [True, True]


@pytest.mark.slow
def test_sccl_is_compared_on_the_texts_that_it_was_trained_on(
    work: Path, clustering_set: Path, few_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines, table and mark; what is done stays done; STS beside it is another comparison in the same file."""
    monkeypatch.chdir(work)
    monkeypatch.delenv("TEXTCL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # so that only data_dir names the sets
    for variable, value in environment().items():
        if variable in ("PYTHONPATH", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
            monkeypatch.setenv(variable, value)
    sccl = partial(compare, ["sccl.yaml"], "clusterings", seeds=1)
    baselines = ["untouched", "tfidf"]
    lines, failures = sccl(baselines=baselines, tasks=["agnews"], data_dir=few_sets)
    assert failures == []
    assert [each["row"] for each in lines] == ["untouched", "tfidf", "sccl"]
    assert all(each["dev"] is None for each in lines)
    assert all(each["results"].keys() == {"AgNews"} for each in lines)
    assert all(each["average"] == each["results"]["AgNews"]["accuracy"] for each in lines)
    assert lines[2]["results"]["AgNews"]["transductive"] is True  # 200 of 8,000
    assert lines[2]["run"]["dev"]["set"] == "unchanged"
    card = (Path("clusterings") / lines[2]["run"]["export"] / "README.md").read_text(encoding="utf-8")
    assert f"| AgNews* | all | accuracy | {lines[2]['average']:.2f} |" in card
    assert "Texts of AgNews were in the training data" in card
    assert comparison_table(comparison(lines)).endswith("in the training corpus): sccl: AgNews.")

    results = work / "clusterings" / "results.jsonl"
    before = results.read_bytes()
    assert sccl(baselines=baselines, tasks=["agnews"], data_dir=few_sets)[0] == lines
    assert results.read_bytes() == before
    other = tmp_path / "other" / "clustering" / "agnews.csv"
    other.parent.mkdir(parents=True)
    header, *rows = clustering_set.read_text(encoding="utf-8").splitlines()
    swapped = ["1" + row[1:] if row[0] == "2" else row for row in rows]
    other.write_text("\n".join([header, *swapped]) + "\n", encoding="utf-8")
    (of_others,), _ = sccl(baselines=[], tasks=["agnews"], data_dir=tmp_path / "other")
    assert of_others["average"] != lines[2]["average"]
    assert sccl(baselines=[], tasks=["agnews"], data_dir=few_sets)[0] == lines[2:]
    assert sccl(baselines=[], tasks=["agnews"], data_dir=tmp_path / "other")[0] == [of_others]
    mixed, _ = sccl(baselines=[], tasks=["sts16", "agnews"], data_dir=few_sets)
    assert list(mixed[0]["results"]) == ["STS16", "STSBenchmark-dev", "AgNews"]
    assert mixed[0]["average"] == mixed[0]["results"]["STS16"]["all"]
    assert mixed[0]["dev"] == mixed[0]["results"]["STSBenchmark-dev"]["all"]
    assert mixed[0]["run"] == lines[2]["run"]  # the run was finished, and only scored again


def test_lines_of_before_clusterings_are_still_done(work: Path, few_sets: Path) -> None:
    """A line as an earlier version wrote it stands for its run."""
    from textcl.runs.compare import _plan

    (row,) = _plan([work / "plain.yaml"], 1, ["--model", str(work / "model"), "--data", str(work / "texts.txt")], [])
    hashes = Suite(["sts16", "stsb-dev"], few_sets).data_hashes
    tasks = {task: {"data_sha256": digest} for task, digest in hashes.items()}
    old = {**line("plain", 42, 50.0), "fingerprint": row.fingerprint, "written": "before"}
    old |= {"provenance": {"tasks": tasks}}
    (work / "old").mkdir()
    append_result(work / "old" / "results.jsonl", old)
    flags = ["--model", str(work / "model"), "--data", str(work / "texts.txt")]
    lines, _ = compare(
        [work / "plain.yaml"],
        work / "old",
        seeds=1,
        flags=flags,
        baselines=[],
        tasks=["sts16"],
        data_dir=few_sets,
    )
    assert lines == [old]


def test_a_baseline_that_a_task_cannot_score_is_refused_before_anything_is_scored(
    work: Path, evaluation_sets: Path, tmp_path: Path
) -> None:
    flags = ["--model", str(work / "model"), "--data", str(work / "texts.txt")]
    with pytest.raises(InputError, match="tfidf has sparse vectors, on which no classifier is trained"):
        compare(
            [work / "plain.yaml"],
            tmp_path / "out",
            flags=flags,
            baselines=["untouched", "tfidf"],
            tasks=["trec"],
            data_dir=evaluation_sets,
        )
    assert not (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.slow
def test_two_rows_never_have_one_name(work: Path, tmp_path: Path) -> None:
    """A baseline named twice is one row, and a recipe must not be called like a baseline."""
    from textcl.runs.compare import _plan

    flags = ["--model", str(work / "model"), "--data", str(work / "texts.txt")]
    rows = list(_plan([work / "plain.yaml"], 1, flags, ["untouched", "untouched", "tfidf"]))
    assert [row.name for row in rows] == ["untouched", "tfidf", "plain"]
    shutil.copy(work / "plain.yaml", tmp_path / "tfidf.yaml")
    with pytest.raises(InputError, match="A recipe and a baseline are both called tfidf; rename the recipe's file"):
        list(_plan([tmp_path / "tfidf.yaml"], 1, flags, ["tfidf"]))


@pytest.mark.slow
def test_a_flag_is_passed_to_every_run_and_a_failed_run_does_not_stop_the_others(work: Path, few_sets: Path) -> None:
    recipes = ["broken.yaml", "endless.yaml", "plain.yaml"]
    command = ["compare", *recipes, "--seeds", "1", "--output", "failed", "--tasks", "sts16"]
    flags = ["--baselines", "none", "--temperature", "0.1"]
    done = textcl(*command, *flags, cwd=work, TEXTCL_DATA=str(few_sets))
    assert done.returncode == 2
    assert "2 of the runs failed" in done.stderr.splitlines()[-1]
    assert "broken, seed 42: The loss became nan" in done.stderr.splitlines()[-1]
    assert "endless, seed 42 failed: Weights became NaN or infinite by step" in done.stderr
    (result,) = read_results(work / "failed" / "results.jsonl")
    assert (result["row"], result["recipe"]["temperature"]) == ("plain", 0.1)


def _working_in(folder: Path) -> list[Path]:
    """The processes whose current folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            if (process / "cwd").readlink() == folder.resolve():
                found.append(process)
    return found
