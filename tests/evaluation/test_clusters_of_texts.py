"""Clusters of one's own texts as files and commands: old clusters for new texts, HDBSCAN, bad input, hostile texts."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny import TEXTS, HashedWords, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import assign_texts, assign_vectors, cluster_texts, cluster_vectors
from textcl.evaluation.saved_clusters import read_clusters
from textcl.report.clusters import silhouette_sentence, tree_lines
from textcl.vectors.encode import encode_corpus
from textcl.vectors.vectors import Vectors

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b[0m\u202e",
    "+1+1",
    "\uff1d1+1",
    "@SUM(A1)",
]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("clusters") / "model")


@pytest.fixture(scope="module")
def vectors(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clusters") / "v"
    encode_corpus(Encoder.from_pretrained(model), TEXTS[:90], folder)
    return folder


def test_old_texts_are_put_where_they_were_and_new_ones_beside_them(model: Path, vectors: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(model)
    old, old_rows = cluster_vectors(vectors, 4), Vectors(vectors).vectors()
    for number in range(4):
        members = np.flatnonzero(old.clusters == number)
        by_rank = old.typical[members[np.argsort(old.rank[members])]]
        assert by_rank[0] == 1
        assert (np.diff(by_rank) <= 0).all()
        assert np.allclose(by_rank, 1 - np.arange(len(members)) / len(members), atol=1 / len(members) + 0.01)
    old.save(tmp_path / "old.csv")
    same = assign_vectors(vectors, tmp_path / "old.csv")
    for name in ("clusters", "second", "rank", "typical"):
        assert np.array_equal(getattr(same, name), getattr(old, name)), name
    assert np.allclose(same.confidence, old.confidence, atol=1e-6)
    assert same.hierarchy() == old.hierarchy()
    new = assign_texts(encoder, TEXTS[90:120], tmp_path / "old.csv")
    assert new.names == old.names
    distances = np.linalg.norm(encoder.encode(TEXTS[90:120])[:, None] - old.about.centres, axis=2)
    assert new.clusters.tolist() == distances.argmin(axis=1).tolist()
    assert new.second.tolist() == distances.argsort(axis=1)[:, 1].tolist()
    for row, number in enumerate(new.clusters.tolist()):
        own = np.linalg.norm(old_rows[old.clusters == number] - old.about.centres[number], axis=1)
        assert new.typical[row] == pytest.approx((own >= distances[row, number]).mean(), abs=1 / len(own) + 0.01)
    alone = assign_texts(encoder, TEXTS[90:91], tmp_path / "old.csv")
    assert alone.clusters.tolist() == new.clusters[:1].tolist()


def test_centres_come_back_exactly(vectors: Path, tmp_path: Path) -> None:
    old = cluster_vectors(vectors, 3)
    old.save(tmp_path / "old.csv")
    read = read_clusters(tmp_path / "old.csv")
    assert np.array_equal(read.centres, old.about.centres)
    assert (read.names, read.keywords, read.made_by) == (old.names, old.about.keywords, old.about.made_by)


def test_clusters_of_vectors_with_fewer_dimensions_are_not_said_to_be_of_another_model(
    model: Path, vectors: Path, tmp_path: Path
) -> None:
    encode_corpus(model, TEXTS[:90], tmp_path / "fewer", dimensions=8)
    cluster_vectors(tmp_path / "fewer", 3).save(tmp_path / "old.csv")
    for assigned in (
        lambda: assign_texts(Encoder.from_pretrained(model), TEXTS[:3], tmp_path / "old.csv"),
        lambda: assign_vectors(vectors, tmp_path / "old.csv"),
    ):
        with pytest.raises(InputError, match=r"with 8 dimensions, and the new ones are of .* with all dimensions"):
            assigned()
    assert len(assign_vectors(tmp_path / "fewer", tmp_path / "old.csv").texts) == 90


def test_clusters_of_another_model_or_damaged_ones_are_refused(model: Path, vectors: Path, tmp_path: Path) -> None:
    cluster_vectors(vectors, 3).save(tmp_path / "old.csv")
    other = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="as it is now"):
        assign_texts(other, TEXTS[:3], tmp_path / "old.csv")
    with pytest.raises(InputError, match="with pooling 'mean', but the new ones have 'cls'"):
        assign_texts(Encoder.from_pretrained(model, pooling="cls"), TEXTS[:3], tmp_path / "old.csv")
    with pytest.raises(InputError, match="There is no text to cluster"):
        assign_texts(Encoder.from_pretrained(model), [], tmp_path / "old.csv")
    with pytest.raises(InputError, match="with normalisation False, but the new ones have True"):
        assign_texts(Encoder.from_pretrained(model), TEXTS[:3], tmp_path / "old.csv", normalize=True)
    file = tmp_path / "old.centres.json"
    written = file.read_text()
    file.write_text(written.replace('"kmeans"', '"hdbscan"'))
    with pytest.raises(InputError, match="is damaged"):
        assign_vectors(vectors, tmp_path / "old.csv")
    file.unlink()
    with pytest.raises(InputError, match=r"no file old\.centres\.json beside it"):
        assign_vectors(vectors, tmp_path / "old.csv")
    with pytest.raises(InputError, match="There is no file"):
        assign_vectors(vectors, tmp_path / "none.csv")


class Directions:
    """Embeds a text by its first word; a text "far" is far from all others."""

    def encode(self, texts: list[str]) -> np.ndarray:
        generator = np.random.default_rng(0)
        places = {"north": 0, "south": 1, "far": 2}
        centres = 10 * np.eye(8)[[places[text.split()[0]] for text in texts]]
        return centres + generator.normal(size=centres.shape) * 0.5


def test_new_texts_far_from_all_clusters_of_hdbscan_are_outliers(tmp_path: Path) -> None:
    texts = [f"{side} {number}" for side in ("north", "south") for number in range(40)]
    old = cluster_texts(Directions(), texts, algorithm="hdbscan", min_size=10)
    assert (old.names, old.estimated) == (["north", "south"], False)
    outlier = np.where(np.arange(80) == 79, -1, old.clusters)
    replace(old, clusters=outlier).save(tmp_path / "old.csv")
    last = table(tmp_path / "old.csv")[-1]
    assert (last["cluster"], last["name"]) == ("-1", "outliers")
    new = assign_texts(Directions(), ["far off", "north 99", "south 99"], tmp_path / "old.csv")
    assert new.clusters[0] == -1
    assert (new.confidence[0], new.outliers) == (0, 1)
    assert [new.names[number] for number in new.clusters[1:]] == ["north", "south"]
    cluster_texts(Directions(), texts, 2).save(tmp_path / "means.csv")
    means = assign_texts(Directions(), ["far off"], tmp_path / "means.csv")
    assert means.outliers == 0, "the negative control: k-means has none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "dbscan"}, "must be 'kmeans' or 'hdbscan'"),
        ({"min_size": 5}, "works only with hdbscan"),
        ({"algorithm": "hdbscan", "clusters": 3}, "finds the number of clusters itself"),
    ],
)
def test_arguments_that_do_not_fit_the_algorithm(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster_texts(HashedWords(), TEXTS[:20], **options)


LONG = " ".join(f"word{number}" for number in range(10_000))
CASES = {
    "three texts": (["one cat", "two dogs", "three birds"], None),
    "one text": (["one cat"], None),
    "no text": ([], None),
    "one repeated text": (["the same text"] * 50, None),
    "texts of one word": ([text.split()[number % 4] for number, text in enumerate(TEXTS[:90])], "texts in"),
    "some long texts": ([*TEXTS[:99], LONG], "texts in"),
    "hostile texts": (HOSTILE * 3 + TEXTS[:30], "texts in"),
}


@pytest.mark.parametrize("algorithm", ["kmeans", "hdbscan"])
@pytest.mark.parametrize("case", CASES)
def test_odd_texts_give_a_result_or_a_sentence(
    case: str, algorithm: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    texts, expected = CASES[case]
    monkeypatch.chdir(tmp_path)
    Path("t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    code = main(["cluster", str(model), "t.jsonl", "--algorithm", algorithm, "--output", "c.csv"])
    shown = capsys.readouterr()
    if code == 0:
        rows = table(Path("c.csv"))
        assert [row["text"].removeprefix("'") for row in rows] == texts
        assert "texts in" in shown.out
        assert "Silhouette" in shown.out or "silhouette is not defined" in shown.out
    else:
        assert code == 2
        assert shown.err.splitlines()[-1].startswith("textcl: ")
        assert not Path("c.csv").exists()
        assert algorithm == "hdbscan" or expected is None, shown.err


def test_hostile_texts_stay_inert(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": text, "=id": text, "owner": text} for text in HOSTILE + TEXTS[:12]]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = ["--column", "text", "--id-column", "=id", "--columns", "owner", "--output", "v"]
    assert main(["encode", str(model), "t.jsonl", *kept]) == 0
    files = ["--output", "c.csv", "--hierarchy", "h.csv"]
    assert main(["cluster", "v", "--clusters", "3", "--nearest", "20", *files]) == 0
    shown = capsys.readouterr().out
    assert "red" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    with Path("c.csv").open(encoding="utf-8", newline="") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "@", "\uff1d"))] == []
    assert sum(cell.startswith("'") for cell in cells) == 3 * 4
    assert len(table(Path("h.csv"))) == 2
    assert main(["cluster", "v", "--clusters", "3", "--output", "raw.csv", "--raw-csv"]) == 0
    assert [row["text"] for row in table(Path("raw.csv"))] == [row["text"] for row in rows]


def test_the_texts_nearest_to_a_centre_differ_in_more_than_case_and_spaces() -> None:
    texts = [each for text in TEXTS[:12] for each in (text, text.upper(), f"{text[:5]}  {text[5:]}", text)]
    found = cluster_texts(HashedWords(), texts, 2)
    for _, nearest in found.groups(5):
        assert len({" ".join(text.casefold().split()) for text in nearest}) == len(nearest) > 1


def test_the_command_assigns(model: Path, vectors: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cluster", str(vectors), "--clusters", "4", "--output", "old.csv"]) == 0
    assert main(["cluster", str(vectors), "--assign", "old.csv", "--output", "same.csv"]) == 0
    assert Path("same.csv").read_bytes() == Path("old.csv").read_bytes()
    Path("t.txt").write_text("\n".join(TEXTS[90:100]))
    capsys.readouterr()
    flags = ["--assign", "same.csv", "--output", "new.csv", "--json", "-"]
    assert main(["cluster", str(model), "t.txt", *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in told["clusters"]] == list(
        {
            row["cluster"]: row["name"] for row in sorted(table(Path("old.csv")), key=lambda row: int(row["cluster"]))
        }.values()
    )
    for wrong, message in (
        (["--assign", "old.csv", "--clusters", "3"], "leave --clusters out"),
        (["--assign", "old.csv", "--algorithm", "hdbscan"], "leave --algorithm out"),
        (["--min-size", "9"], "--min-size works only with --algorithm hdbscan"),
        (["--algorithm", "hdbscan", "--clusters", "3"], "give --min-size, not --clusters"),
        (["--clusters", "many"], "of at least 2, or auto, not many"),
        (["--raw-csv", "--safe-csv"], "are opposites"),
        (["--json", "x.centres.json"], "Two outputs have the same name"),
    ):
        assert main(["cluster", str(vectors), *wrong, "--output", "x.csv"]) == 2
        assert message in capsys.readouterr().err
    assert not Path("x.csv").exists()


def test_what_is_printed_of_silhouette_and_tree() -> None:
    assert "8 % nearer to the texts of its own cluster than to those of the nearest other" in silhouette_sentence(0.08)
    assert "2 % nearer to the texts of the nearest other cluster than to those of its own" in silhouette_sentence(-0.02)
    said = [silhouette_sentence(value).split(";")[1] for value in (0.6, 0.3, 0.1, 0.01)]
    assert len(set(said)) == 4
    assert "not defined" in silhouette_sentence(None)
    found = cluster_texts(HashedWords(), TEXTS[:60], 4)
    lines = tree_lines(found.names, found.hierarchy())
    assert len(lines) == 7
    assert sorted(line.strip("├└│ ") for line in lines if "%" not in line) == sorted(found.names)
    last = found.hierarchy()[-1]
    assert lines[0] == f"{100 * last.height:.1f} %"


@pytest.mark.parametrize("name", ["t.txt", "t.csv", "t.tsv", "one.csv"])
def test_cluster_and_encode_give_a_text_the_same_id(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Blank rows count, and repeated texts are said."""
    monkeypatch.chdir(tmp_path)
    texts = ["", *TEXTS[:5], "", "  ", *TEXTS[5:12], TEXTS[0]]
    mark = {"t.csv": ",", "t.tsv": "\t"}.get(name)
    lines = texts if mark is None else [f"{text}{mark}{text and 9}" for text in texts]
    header = {"t.txt": [], "one.csv": ["text"]}.get(name, [f"text{mark}n"])
    Path(name).write_text("\n".join([*header, *lines]) + "\n")
    column = [] if name == "t.txt" else ["--column", "text"]
    assert main(["encode", str(model), name, "--output", "v", *column]) == 0
    assert main(["cluster", "v", "--clusters", "3", "--output", "v.csv"]) == 0
    caplog.clear()
    assert main(["cluster", str(model), name, "--clusters", "3", "--output", "f.csv", *column]) == 0
    assert "3 rows are blank and were left out; ids still count them" in caplog.text
    assert "1 text is equal to an earlier one" in caplog.text
    of_file, of_vectors = ([(row["text"], row["id"]) for row in table(Path(path))] for path in ("f.csv", "v.csv"))
    assert of_file == of_vectors
    assert [int(row) for _, row in of_file] == [row for row, text in enumerate(texts) if text.strip()]
    assert main(["cluster", str(model), name, "--assign", "f.csv", "--output", "a.csv", *column]) == 0
    assert [(row["text"], row["id"]) for row in table(Path("a.csv"))] == of_file


def test_texts_and_their_vectors_have_the_prompt_of_documents(model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = {"query": "a ", "document": "the old sailor "}
    encoder = Encoder.from_pretrained(model, prompts=prompts, default_prompt_name="query")
    encoder.save("pm")
    Path("t.txt").write_text("\n".join(TEXTS[:90]) + "\n")
    assert main(["encode", "pm", "t.txt", "--output", "v"]) == 0
    for name, source in (("texts", ["pm", "t.txt"]), ("vectors", ["v"])):
        assert main(["cluster", *source, "--clusters", "3", "--output", f"{name}.csv"]) == 0
        for other, again in (("texts", ["pm", "t.txt"]), ("vectors", ["v"])):
            assert main(["cluster", *again, "--assign", f"{name}.csv", "--output", f"{name}-{other}.csv"]) == 0
            assert table(Path(f"{name}-{other}.csv")) == table(Path(f"{name}.csv"))
    assert table(Path("texts.csv")) == table(Path("vectors.csv"))
    for options, prompt in (({}, "the old sailor "), ({"prompt": ""}, ""), ({"prompt_name": "query"}, "a ")):
        found = cluster_texts(encoder, TEXTS[:90], 3, **options)
        assert found.about.made_by["prompt"] == prompt
        vectors = encoder.encode(TEXTS[:90], prompt=prompt)
        mean = vectors[found.clusters == 0].mean(axis=0)
        assert np.allclose(found.about.centres[0], mean, atol=1e-5)
    found.save("query.csv")
    with pytest.raises(InputError, match="vectors with prompt 'a ', but the new ones have 'the old sailor '"):
        assign_vectors("v", "query.csv")
