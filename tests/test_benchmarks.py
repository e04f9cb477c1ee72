"""The benchmarks: each runs at tiny sizes and agrees with its peer where it must. What is fast is not asked here."""

import json
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from support.command import REPOSITORY, environment
from support.judged import judged_titles
from support.tiny import TEXTS, tiny_encoder_directory
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from benchmarks import dimensions, encode, graphs, info_nce, senteval_loop, what_helps_pages
from benchmarks.__main__ import NAMES, main
from benchmarks.encode import mean_cosine
from benchmarks.measure import EQUAL, MEBIBYTE, Options, Row, Seconds, in_child, peak_above, take_turns, with_seconds
from benchmarks.peak import operations
from benchmarks.quality import draw_plainly
from benchmarks.transfer import TINY, Cached, features, random_tasks, scikit_learn
from textcl import Encoder
from textcl.encoder.load import BUNDLED
from textcl.errors import InputError
from textcl.evaluation import Transfer
from textcl.evaluation.logistic import Fold, train, with_ones
from textcl.evaluation.transfer import SEED, SETTINGS
from textcl.files import append_result, read_results

# How far apart the two sides' results may lie, as a share: losses and gradients in float32, and in bfloat16; points
# of accuracy, where a text on the border may fall to either side.
CLOSE = {"loss": 1e-4, "length": 1e-4, "mean cosine": 1e-4, "points": 0.01, "pairs": 0.05}
MEBIBYTES = 64


def benchmark(module: str, folder: Path, *arguments: str, **variables: str) -> tuple[list[dict], str]:
    """Runs it in a process and returns the rows of its JSON, and what it printed."""
    run = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--quick", "--output", str(folder / "out.json")],
        cwd=REPOSITORY,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert run.returncode == 0, run.stderr
    written = json.loads((folder / "out.json").read_text())
    assert {"torch", "sentence-transformers", "device", "cores", "bf16"} <= set(written["machine"])
    return written["rows"], run.stdout


def check(rows: list[dict], printed: str) -> None:
    """Every row is complete and printed; results that must be equal are."""
    for row in rows:
        assert row["name"] in printed
        assert np.isfinite([row["textcl"], row["peer"], row["ratio"]]).all()
        assert row["peer"] > 0
        assert row["ratio"] == row["textcl"] / row["peer"]
        if row["aim"] == EQUAL:
            within = 2e-2 if "bf16" in row["name"] or "ranks" in row["name"] else CLOSE[row["unit"]]
            assert row["ratio"] == pytest.approx(1, abs=within), row


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES if find_spec("bertopic") else [name for name in NAMES if name != "clusters"])
def test_a_benchmark_runs_and_agrees_with_its_peer(name: str, evaluation_sets: Path, tmp_path: Path) -> None:
    rows, printed = benchmark("benchmarks", tmp_path, name, TEXTCL_DATA=str(evaluation_sets))
    check(rows, printed)
    assert "the numbers say nothing about speed" in printed
    assert any(row["aim"] == EQUAL for row in rows) or name == "memory"  # it measures sizes alone
    if name == "encode":
        expected = {runtime for runtime in graphs.PRECISIONS if not graphs.missing(runtime)}
        assert expected == {runtime for runtime in graphs.PRECISIONS if any(runtime in row["name"] for row in rows)}
    assert any(row["aim"] != EQUAL for row in rows)


@pytest.mark.slow
def test_the_graphs_of_the_runtimes_give_the_vectors_of_encode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of many lengths, in several batches; many times, because OpenVINO's threads once waited for Python's."""
    for runtime in graphs.PRECISIONS:
        pytest.importorskip(runtime)
    monkeypatch.setattr(graphs, "TOKENS", 64)
    model = str(tiny_encoder_directory(tmp_path / "model"))
    graphs.write(model, str(tmp_path), 32, int8=True)
    texts = [" ".join(TEXTS[: 1 + place % 5]) for place in range(40)]
    expected = Encoder.from_pretrained(model, max_length=32).encode(texts)
    sides = [(runtime, each) for runtime, precisions in graphs.PRECISIONS.items() for each in precisions]
    for side in sides * 4:
        ((taken, found),) = graphs.encoded(str(tmp_path), *side, model, {"": texts}, 32).values()
        assert taken.wall > 0
        assert taken.cpu > 0
        within = {"fp32": 1e-6, "bf16": 1e-3, "int8": 0.1}[side[1]]
        assert mean_cosine(found, expected) == pytest.approx(1, abs=within), side


def test_what_is_not_installed_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    assert "openvino" not in encode.runtimes()
    if not torch.cuda.is_available():
        assert "the rows of openvino are left out: pip install openvino." in capsys.readouterr().err


def test_different_precisions_are_called_unequal_work() -> None:
    taken = {"textcl, bf16": [Seconds(2.0, 1.0)], "onnxruntime, int8": [Seconds(1.0, 1.0)]}
    vectors = {"sentence-transformers, fp32": np.eye(2)} | dict.fromkeys(taken, np.eye(2))
    pair = (("textcl", "bf16"), ("onnxruntime", "int8"))
    rows = encode.compared("sentences", pair, taken, vectors, 10, 1.0, {"bf16": 100.0}, "10 texts")
    assert all("unequal work" in row.name for row in rows)
    assert not any(row.unit == "of the peak" for row in rows)
    assert (rows[0].textcl, rows[0].peer) == (5.0, 10.0)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_the_processor(tmp_path: Path) -> None:
    rows, printed = benchmark("benchmarks.gpu", tmp_path, "--device", "cpu")
    check(rows, printed)
    units = [row["unit"] for row in rows]
    # two trainings, each without and with compiled layers, and the first in two ways with CUDA graphs; and `encode`
    assert units.count("tokens/s") == units.count("of the peak") == 7
    assert {"InfoNCE, N = 96", "transfer, fast beside senteval"} <= {row["name"] for row in rows}


@pytest.mark.slow
def test_quality_is_measured_on_both_sides_and_nothing_twice(evaluation_sets: Path, tmp_path: Path) -> None:
    tiny_encoder_directory(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:64]) + "\n")
    flags = ["--model", "model", "--data", "texts.txt", "--limit", "64", "--max_steps", "2", "--seeds", "2"]
    command = [sys.executable, "-m", "benchmarks.quality", "standard-simcse", *flags, "--output", "out"]
    variables = environment(TEXTCL_DATA=str(evaluation_sets))

    def printed() -> str:
        run = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout

    first = printed()
    lines = read_results(tmp_path / "out" / "quality.jsonl")
    assert [(line["side"], line["seed"]) for line in lines] == [
        ("textcl", 42), ("plain", 42), ("textcl", 43), ("plain", 43)
    ]  # fmt: skip
    assert len({line["average"] for line in lines}) == 4
    assert "textcl − plain" in first
    assert printed() == first
    assert read_results(tmp_path / "out" / "quality.jsonl") == lines


def test_the_plain_side_draws_as_torch_does() -> None:
    backbone = Encoder.from_pretrained("bundled").backbone
    draw_plainly(backbone)
    rates = {type(module) for module in backbone.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {torch.nn.Dropout}
    assert backbone.config._attn_implementation == "sdpa"


def test_operations_are_those_that_torch_counts() -> None:
    # on a CPU neither fused attention nor oneDNN's products are counted, so this is transformers' backbone
    backbone = AutoModel.from_pretrained(BUNDLED, attn_implementation="eager", add_pooling_layer=False)
    ids = torch.ones(1, 24, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(input_ids=ids, attention_mask=ids)
    assert operations(str(BUNDLED), [24]) == counter.get_total_flops()
    assert operations(str(BUNDLED), [24, 24]) == 2 * counter.get_total_flops()


@pytest.mark.parametrize("name", ["SST2", "TREC"])
def test_scikit_learns_choice_on_dev_is_that_of_the_fast_mode(name: str) -> None:
    tasks, vectors = random_tasks({name: TINY[name]}, 64)
    evaluate = Transfer({"own": (["a", "b"], [0, 1])}, mode="fast")
    evaluate.tasks = tasks
    found = scikit_learn({split: features(each, vectors) for split, each in tasks[name].items()})
    assert evaluate(Cached(vectors)).average["transfer"] == pytest.approx(found, abs=0.51)  # a few texts of 200


@pytest.mark.parametrize("name", ["SST2", "TREC"])
def test_the_loop_scores_as_textcl_does(name: str) -> None:
    tasks, vectors = random_tasks({name: TINY[name]}, 64)
    evaluate = Transfer({"own": (["a", "b"], [0, 1])})
    evaluate.tasks = tasks
    found = senteval_loop.score({split: features(each, vectors) for split, each in tasks[name].items()})
    assert evaluate(Cached(vectors)).average["transfer"] == pytest.approx(found, abs=0.01)
    assert found > {"SST2": 60, "TREC": 40}[name]


@pytest.mark.parametrize("seed", range(4))
def test_the_loop_ends_with_the_weights_of_textcl(seed: int) -> None:
    """Which test_transfer.py holds against another oracle: this one has to be as slow, and no slower."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=300)
    rows = generator.normal(size=(300, 12)) + generator.normal(size=(3, 12))[labels] / 2
    own = np.split(np.arange(300), [260])
    targets = torch.nn.functional.one_hot(torch.as_tensor(labels), 3).double()
    grid = np.array([senteval_loop.DECAYS])
    weights, scores = train(with_ones(rows), targets, [Fold.split(*own, SEED)], grid, SETTINGS["test"][1], SEED)
    parts = [(torch.as_tensor(rows[part]), torch.as_tensor(labels[part])) for part in own]
    for place, decay in enumerate(senteval_loop.DECAYS):
        layer, best = senteval_loop.fit(*parts, decay)
        expected = torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1).detach()
        assert scores[0, place] == best
        assert torch.allclose(weights[0, place], expected, rtol=0, atol=1e-9)


def test_the_losses_of_all_forms_are_one() -> None:
    def tiled(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return info_nce.one_way_tiled(queries, keys, chunk=7)

    for forms in ((tiled, info_nce.one_way_matrix), (info_nce.two_way_textcl, info_nce.two_way_by_pairs)):
        for row in info_nce.agreement("", *forms, batch=20):
            assert row.ratio == pytest.approx(1, abs=1e-5)


def test_sides_take_turns() -> None:
    order = []
    found = take_turns({"A": lambda: order.append("A") or 1.0, "B": lambda: order.append("B") or 2.0}, 3)
    assert "".join(order) == "ABABAB"
    assert found == {"A": [1.0] * 3, "B": [2.0] * 3}


def test_a_row_has_medians() -> None:
    row = Row.of("", {"textcl": [1.0, 9.0, 3.0], "peer": [8.0, 6.0, 0.0]}, "s", "below 1")
    assert (row.textcl, row.peer, row.rounds, row.ratio) == (3.0, 6.0, 3, 0.5)


def test_the_time_on_the_cpu_is_that_of_this_process_alone() -> None:
    """A sleep takes none; the clock goes on."""
    taken, result = with_seconds(lambda: time.sleep(0.3) or "result")
    assert result == "result"
    assert taken.wall >= 0.3
    assert taken.cpu < 0.2


def test_memory_is_that_of_the_action_alone() -> None:
    """Neither of what the process took and gave back before, nor, in a child, of the process that started it."""
    action = partial(np.ones, MEBIBYTES << 17)
    np.ones(4 * MEBIBYTES << 17)
    assert 0.95 * MEBIBYTES < peak_above(action) / MEBIBYTE < 1.3 * MEBIBYTES
    held = np.ones(4 * MEBIBYTES << 17)
    assert 0.95 * MEBIBYTES < in_child(peak_above, action) / MEBIBYTE < 1.3 * MEBIBYTES
    del held


def test_texts_are_distinct_and_enough(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo\none\nthree\n")
    assert Options(data=str(path)).texts(3) == ["one", "two", "three"]
    with pytest.raises(InputError, match=r"has 3 distinct texts, but 4 are needed"):
        Options(data=str(path)).texts(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info-ncee"], "There is no benchmark 'info-ncee'. Did you mean 'info-nce'?"),
        (["sts", "--rounds", "0"], "--rounds must be at least 1, not 0."),
        (["--quik"], "There is no flag --quik. Did you mean --quick?"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def titled_collection(folder: Path) -> Path:
    """240 judged documents with titles."""
    bodies = [f"{text} {TEXTS[-number]}" for number, text in enumerate(TEXTS[:240])]
    rows = [{"name": text.rsplit(" ", 1)[0], "text": body} for text, body in zip(TEXTS, bodies, strict=False)]
    judged_titles(rows, folder)
    lines = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    titled = [{**line, "title": f"{TEXTS[-number - 2]} {number}"} for number, line in enumerate(lines)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, titled)))
    return folder


@pytest.mark.slow
def test_the_checks_of_adapt_run_on_a_small_collection(tmp_path: Path) -> None:
    folder = titled_collection(tmp_path / "collection")
    names = ["level", "random", "permuted", "no-titles", "truth"]
    flags = ["--model", str(tiny_encoder_directory(tmp_path / "model")), "--seeds", "2", "--only", *names]
    command = [sys.executable, "-m", "benchmarks.adaptation", str(folder), *flags]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (level|random maps|trained on permuted|words drawn|pull 1: judgements)", done.stdout, re.M)
    assert {*rows} == {"level", "random maps", "trained on permuted", "words drawn", "pull 1: judgements"}


@pytest.mark.slow
def test_few_dimensions_are_compared_and_no_row_is_made_twice(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = titled_collection(tmp_path / "collection")
    model = str(tiny_encoder_directory(tmp_path / "model"))
    flags = ["--collection", str(folder), "--model", model, "--output", str(tmp_path / "out"), "--sizes", "8"]

    def printed() -> str:
        assert main(["dimensions", *flags, "--steps", "2", "--seeds", "2"]) == 0
        return capsys.readouterr().out

    first = printed()
    found = read_results(tmp_path / "out" / "dimensions.jsonl")
    assert [line["row"] for line in found] == [*dimensions.ROWS, *dimensions.ROWS[3:]]
    assert all(set(line["sizes"]) == {"32", "8"} for line in found)
    assert all(f"| {row} " in first for row in dimensions.ROWS)
    assert "not run" not in first
    by_row = {line["row"]: {size: each["score"] for size, each in line["sizes"].items()} for line in found[:6]}
    assert by_row["rotated"]["32"] == pytest.approx(by_row["cut"]["32"], abs=0.5), "a rotation changes no cosine"
    assert printed() == first
    assert len(read_results(tmp_path / "out" / "dimensions.jsonl")) == len(found)


def test_cells_become_a_table_and_sections(tmp_path: Path) -> None:
    """By hand: gains -1 and -3 have mean -2 and error 1 over seeds; with 0.75 by bootstrap it is 1.25, and t has
    1 · (1.25 / 1)⁴ = 2.44 degrees of freedom, where 2.5 % lie above 3.64.
    """
    path = tmp_path / what_helps_pages.FILE
    for line in (
        {"row": "untouched", "column": "search", "seed": 42, "score": 50.0},
        {"row": "simcse", "column": "search", "seed": 42, "score": 47.0, "gain": -3.0, "error": 0.75, "tool": "worse"},
        {"row": "simcse", "column": "search", "seed": 43, "score": 49.0, "gain": -1.0, "error": 0.75},
        {"row": "declutr", "column": "search", "seed": 42, "not_applicable": "short texts"},
        {"row": "declutr", "column": "bundled", "seed": 42, "score": 60.0, "gain": 1.0, "error": 0.1},
        {"row": "simcse", "column": "search", "seed": 42, "score": 1.0, "gain": -49.0, "error": 0.1, "steps": 10},
    ):
        append_result(path, {"steps": 100, "key": "", **line})
    found = what_helps_pages.read_cells(path, 100)
    assert what_helps_pages.difference(found["simcse", "search"]) == pytest.approx((-2.0, 1.25 * 3.63679), rel=1e-5)
    assert what_helps_pages.judged(found["simcse", "search"]) == ("-2.0 (-6.5 to +2.5)", "no difference")
    equal = [{"gain": 0.03}, {"gain": 0.03}]  # nothing in this row is drawn
    assert what_helps_pages.judged(equal) == ("+0.0", "the same for each seed")
    assert what_helps_pages.judged(equal[:1]) == ("+0.0", "no interval")
    assert what_helps_pages.judged([{"gain": 0.0, "error": 0.0}]) == ("+0.0", "no difference")
    shown = what_helps_pages.table_of(found)
    assert "48.0: -2.0 (-6.5 to +2.5), no difference" in shown
    assert "not applicable: short texts" in shown
    assert "60.0: +1.0 (+0.8 to +1.2), better" in shown, "from the bundled encoder; in this table alone"
    heads = re.sub(" +", " ", shown.splitlines()[0])
    assert "search: nDCG@10 (Cranfield) |" in heads
    assert "bundled: STS-B test of the bundled encoder (Wikipedia sentences), one seed |" in heads
    alone = {**found, ("byol", "search"): found["simcse", "search"][:1], ("bm25", "search"): [{"score": 1, "gain": 1}]}
    assert "47.0: -3.0 (-4.5 to -1.5), **worse** (one seed)" in what_helps_pages.table_of(alone)
    assert "(one seed)" not in re.search(".*bm25.*", what_helps_pages.table_of(alone))[0], "nothing is drawn"
    short = [re.sub(" +", " ", line) for line in what_helps_pages.short_table(found).splitlines()]
    assert short[2:] == [
        f"| {row} | not run | not run |" for row in ("untouched | 50.0", "simcse | -2.0", "declutr | –")
    ]
    (tmp_path / "methods").mkdir()
    pages = [tmp_path / "what-helps.md", tmp_path / "methods" / "simcse.md"]
    for page in pages:
        page.write_text(f"# Page\n\n{what_helps_pages.BEGIN}\n\n-\n\n{what_helps_pages.END}\n\nThe end.\n")
    for _ in range(2):  # the second time it stands there already
        what_helps_pages.write_pages(found, 100, tmp_path)
        assert shown in pages[0].read_text()
        assert "in 100 steps: no difference at search." in pages[1].read_text()
        assert all(page.read_text().endswith("\n\nThe end.\n") for page in pages)
    pages[1].write_text("# Page\n")
    with pytest.raises(InputError, match=r"simcse\.md needs a line"):
        what_helps_pages.write_pages(found, 100, tmp_path)


def test_a_score_on_labels_that_chose_the_recipe_is_marked_wherever_it_is_shown() -> None:
    cells = [{"seed": 42, "score": 80.0, "gain": 8.0, "error": 0.5}]
    found = {(row, "clusters"): cells for row in ("untouched", "sccl", "simcse")}
    for shown, marked in [
        (what_helps_pages.table_of(found), "80.0*: +8.0"),
        (what_helps_pages.short_table(found), "+8.0* better"),
        (what_helps_pages.section("sccl", found, 100), "80.0* |"),
    ]:
        assert marked in shown
        assert shown.count("*: +") + shown.count("* better") + shown.count("* |") == 1, "that of SimCSE is not"
    assert "these labels" in what_helps_pages.section("sccl", found, 100)
    assert "*" not in what_helps_pages.section("simcse", found, 100)


def test_the_pages_of_the_docs_show_the_cells_that_are_kept(tmp_path: Path) -> None:
    docs = Path(__file__).parents[1] / "docs"
    copy = shutil.copytree(docs, tmp_path / "docs")
    shutil.copy(docs.parent / "README.md", tmp_path)
    found = what_helps_pages.read_cells(docs / "results" / "what-helps" / what_helps_pages.FILE, 100)
    assert found["untouched", "search"]
    what_helps_pages.write_pages(found, 100, copy)
    for page in [docs / "what-helps.md", *(docs / "methods").glob("*.md")]:
        assert (copy / page.relative_to(docs)).read_text() == page.read_text(), page
    readme = (docs.parent / "README.md").read_text()
    assert (tmp_path / "README.md").read_text() == readme
    search, clusters = (-what_helps_pages.difference(found["simcse", name])[0] for name in ("search", "clusters"))
    assert f"costs {search:.0f} points of search and {clusters:.0f} of clusters" in readme, "the advice of the README"
    worse = {
        row: cells[0].get("tool")
        for (row, name), cells in found.items()
        if name == "search" and "gain" in cells[0] and what_helps_pages.judged(cells)[1] == "worse"
    }
    assert "none of the fourteen rows" in readme
    assert len(worse) == 14
    assert all(said.endswith(": exports the untouched encoder") for said in worse.values())
    others = {row for row, said in worse.items() if not said.startswith("worse")}
    assert "it called thirteen of them `worse`, and `clear` `no difference`" in readme
    assert others == {"clear"}


def test_the_rotation_is_that_of_scikit_learn() -> None:
    vectors = np.random.default_rng(0).normal(1, np.arange(1, 7), (200, 6))
    ours, theirs = dimensions.principal(vectors, centred=True)(3)(vectors), PCA(3).fit_transform(vectors)
    assert np.abs(np.abs(ours) - np.abs(theirs)).max() < 1e-9
    whole = dimensions.principal(vectors, centred=False)(6)(vectors)
    assert np.allclose(whole @ whole.T, vectors @ vectors.T)


@pytest.mark.slow
def test_the_table_of_students_is_continued(
    evaluation_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEXTCL_DATA", str(evaluation_sets))
    tiny_encoder_directory(tmp_path / "teacher")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    monkeypatch.setattr("benchmarks.distill.DIMENSIONS", 16)
    given = ["distill", "--dev", "--model", str(tmp_path / "teacher"), "--data", str(tmp_path / "texts.txt")]
    given += ["--output", str(tmp_path / "out"), "--seeds", "2", "--only", "teacher", "start", "static", "tf-idf"]
    assert main(given) == 0
    first = capsys.readouterr().out
    lines = read_results(tmp_path / "out" / "distill.jsonl")
    assert [line["row"] for line in lines if line["column"] == "STS-B dev"] == [
        *("teacher", "start", "static", "static", "tf-idf")
    ]
    assert main(given) == 0
    assert capsys.readouterr().out == first
    assert read_results(tmp_path / "out" / "distill.jsonl") == lines
    assert "teacher's vectors of" in first
