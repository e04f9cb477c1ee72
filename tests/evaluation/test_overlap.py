"""Evaluation texts in the training corpus: found through tokenisation, counted, and marked in the result."""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from textcl.data import load_triplets
from textcl.data.clustering import load_clustering
from textcl.data.overlap import fingerprint, is_transductive, with_earlier
from textcl.data.sts import Subset, read_sts
from textcl.data.transfer import read_transfer
from textcl.errors import InputError
from textcl.evaluation import Clustering, Result, evaluate, mark_transductive, overlap
from textcl.evaluation.sts import score
from textcl.evaluation.transductive import recorded_overlap, transductive_tasks


class Lengths:
    """Embeds a text by its number of letters and words."""

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.array([[len(text), len(text.split()) ** 2] for text in texts])


def test_tokenised_and_raw_text_are_the_same_text() -> None:
    assert fingerprint('" I don \'t know , " said the U.S. man .') == fingerprint('"I don\'t know," said the U.S. man.')
    assert fingerprint("ein straßen-café , 東京") == fingerprint("Ein Straßen-Café, 東京")
    assert fingerprint("DIE STRASSE") == fingerprint("die Straße")
    assert fingerprint("a dog runs") != fingerprint("a dog ran")
    assert fingerprint(" ... !") == ""


def test_counts_of_planted_texts(evaluation_sets: Path) -> None:
    headlines = next(subset for subset in read_sts("STS16", evaluation_sets) if subset.name == "headlines")
    planted = {headlines.first[0], headlines.second[2]}
    corpus = (f"  {text.upper().replace(' .', '.')}" for text in (*planted, "Something else.", "...", ""))
    counts = overlap(corpus, ["STS16"], evaluation_sets)
    distinct = {fingerprint(text) for text in (*headlines.first, *headlines.second)}
    assert counts["STS16"]["headlines"] == {
        "found": len({fingerprint(text) for text in planted}),
        "total": len(distinct),
        "pairs_found": sum(
            first in planted or second in planted
            for first, second in zip(headlines.first, headlines.second, strict=True)
        ),
        "pairs": 249,
    }
    assert counts["STS16"]["headlines"]["pairs_found"] == 2
    assert all(count["found"] == 0 for name, count in counts["STS16"].items() if name != "headlines")


def test_texts_of_punctuation_alone_are_not_counted(evaluation_sets: Path) -> None:
    marks = {fingerprint(text) for text in read_transfer("CR", evaluation_sets)["all"].first}
    assert "" in marks
    counts = overlap(["*", "!"], ["CR"], evaluation_sets)
    assert counts == {"CR": {"all": {"found": 0, "total": len(marks) - 1}}}


def test_a_whole_set_is_found_and_a_made_up_corpus_is_not(evaluation_sets: Path) -> None:
    dev = read_sts("STSBenchmark", evaluation_sets, "dev")[0]
    everything = overlap([*dev.first, *dev.second], ["STSBenchmark-dev"], evaluation_sets)["STSBenchmark-dev"]["dev"]
    assert everything["found"] == everything["total"] > 2500
    assert everything["pairs_found"] == everything["pairs"] == 1500
    none = overlap([f"Made-up sentence number {i} about kettles." for i in range(1000)], data_dir=evaluation_sets)
    # the seven tasks, dev of the two that have one, three clustering sets, nine classifications, two regressions
    assert len(none) == 23
    assert {count["found"] for subsets in none.values() for count in subsets.values()} == {0}


def test_texts_that_are_clustered_are_counted_and_marked(evaluation_sets: Path) -> None:
    """All of them for a method that trains on what it clusters; one in a hundred is enough to be said."""
    texts, labels = load_clustering("AgNews", evaluation_sets)
    distinct = len({fingerprint(text) for text in texts})
    everything = overlap(texts, ["AgNews"], evaluation_sets)
    assert everything == {"AgNews": {"all": {"found": distinct, "total": distinct}}}
    task = Clustering({"few": (texts[::40], labels[::40])}, seeds=[0])
    names = ("AgNews", "StackOverflow")
    task.sets, task.classes = dict.fromkeys(names, task.sets["few"]), dict.fromkeys(names, task.classes["few"])
    result = task(Lengths())
    marked = mark_transductive(result, everything)
    assert marked.results["AgNews"]["transductive"] is True
    assert marked.results["AgNews"]["overlap"] == everything["AgNews"]["all"]
    assert "transductive" not in marked.results["StackOverflow"]  # not checked
    assert "AgNews*" in marked.table()
    said = f"* AgNews: {distinct:,} of {distinct:,} distinct texts were in the training corpus (transductive)"
    assert marked.table().splitlines()[-2:] == [
        said,
        "Not compared with the training corpus, so a * may be missing: StackOverflow.",
    ]
    assert "Not compared" not in mark_transductive(result, overlap([], names, evaluation_sets)).table()
    few = overlap(texts[:20], ["AgNews"], evaluation_sets)
    assert few["AgNews"]["all"]["found"] == 20
    assert mark_transductive(result, few).results["AgNews"]["transductive"] is False


def test_transfer_texts_are_counted_by_split_and_marked_by_the_one_that_is_scored(evaluation_sets: Path) -> None:
    trec, mrpc, mr = (read_transfer(task, evaluation_sets) for task in ("TREC", "MRPC", "MR"))
    test = [text.upper() for text in trec["test"].first[:20]]
    one_side = mrpc["test"].second[:40]
    counts = overlap([*test, *one_side, *mr["all"].first[:50]], ["TREC", "MRPC", "MR"], evaluation_sets)
    assert counts["TREC"]["test"]["found"] == len({fingerprint(text) for text in test})
    assert set(counts["TREC"]["train"]) == {"found", "total"}
    assert counts["MRPC"]["test"]["pairs"] == 1725
    assert 40 <= counts["MRPC"]["test"]["pairs_found"] < 60
    result = Result(
        {task: {"accuracy": 50.0, "dev_accuracy": 50.0} for task in counts},
        {"transfer": 50.0, "transfer_dev": 50.0},
        {"tasks": {}, "transfer": {"setting": "test"}},
    )
    marked = mark_transductive(result, counts)
    assert {task: entry["transductive"] for task, entry in marked.results.items()} == {
        "TREC": True, "MRPC": True, "MR": False,  # 50 of 10,662 are too few
    }  # fmt: skip
    assert marked.results["MRPC"]["overlap"] == counts["MRPC"]["test"]
    assert marked.provenance["overlap"]["TREC"]["train"] == counts["TREC"]["train"]
    assert "TREC*" in marked.table()
    assert "* TREC: 20 of 500 distinct texts were in the training corpus (transductive)" in marked.table()
    assert re.search(r"\* MRPC: \d+ of 1,725 pairs \(\d\.\d %\) have a text that was", marked.table())
    # a classifier's training texts are not scored; but they are under the setting dev, where there is no dev split
    of_train = overlap(trec["train"].first, ["TREC"], evaluation_sets)
    assert mark_transductive(result, of_train).results["TREC"]["transductive"] is (
        of_train["TREC"]["test"]["found"] >= 5
    )
    result.provenance["transfer"]["setting"] = "dev"
    assert mark_transductive(result, of_train).results["TREC"]["transductive"] is True
    assert mark_transductive(result, counts).results["TREC"]["transductive"] is False


def test_without_sets_nothing_is_checked(tmp_path: Path) -> None:
    assert overlap(["a text"], data_dir=tmp_path) == {}


def wordnet_glosses(archive: Path) -> Iterator[str]:
    """Definitions and examples, as a corpus of WordNet glosses has them: one a line."""
    with tarfile.open(archive) as tape:
        for part in ("noun", "verb", "adj", "adv"):
            member = tape.extractfile(f"nltk_data/corpora/wordnet/data.{part}")
            assert member is not None
            for line in member.read().decode("latin-1").split("\n"):
                if "|" in line and not line.startswith(" "):
                    gloss = line.split("|", 1)[1].strip()
                    yield gloss.split('; "')[0]
                    yield from re.findall('"([^"]*)"', gloss)


def test_wordnet_glosses_hold_nearly_all_of_onwn_and_fnwn(shared_data: Path, evaluation_sets: Path) -> None:
    tasks = ["STS12", "STS13", "STS14", "STS15", "STS16", "SICKRelatedness"]
    counts = overlap(wordnet_glosses(shared_data / "nltk_data.tar.xz"), tasks, evaluation_sets)
    for task, subset in (("STS12", "surprise.OnWN"), ("STS13", "OnWN"), ("STS13", "FNWN"), ("STS14", "OnWN")):
        count = counts[task][subset]
        assert count["pairs_found"] > 0.9 * count["pairs"], (task, subset, count)
    others = [count for task in ("STS15", "STS16", "SICKRelatedness") for count in counts[task].values()]
    assert sum(count["pairs_found"] for count in others) < 10


def test_sick_sentences_in_the_nli_triplets_are_found(shared_data: Path, evaluation_sets: Path) -> None:
    triplets = load_triplets(shared_data / "nli_triplets_small.csv.xz")
    corpus = (text for column in triplets.column_names for text in triplets[column])
    counts = overlap(corpus, ["SICKRelatedness", "STS13"], evaluation_sets)
    assert counts["SICKRelatedness"]["test"]["found"] >= 59
    assert counts["STS13"]["OnWN"]["found"] == 0


def test_touched_subsets_are_marked_and_shown() -> None:
    tasks = {
        "STS13": [
            Subset("OnWN", ["a", "bb bb", "ccc"], ["a a", "b", "c c c"], [1.0, 2.0, 3.0]),
            Subset("headlines", ["d", "ee ee", "fff"], ["d d", "e", "f f f"], [1.0, 3.0, 2.0]),
        ],
        "STS16": [Subset("plagiarism", ["g", "hh hh", "iii"], ["g g", "h", "i i i"], [1.0, 2.0, 3.0])],
    }
    result = score(Lengths(), tasks)
    counts = {
        "STS13": {
            "OnWN": {"found": 500, "total": 1000, "pairs_found": 560, "pairs": 561},
            "headlines": {"found": 1, "total": 1400, "pairs_found": 1, "pairs": 750},  # a stray one
        },
        "STS14": {"OnWN": {"found": 3, "total": 4, "pairs_found": 3, "pairs": 4}},  # not scored here
    }
    marked = mark_transductive(result, counts)
    assert marked.results["STS13"]["subsets"]["OnWN"]["transductive"] is True
    assert marked.results["STS13"]["subsets"]["OnWN"]["overlap"] == counts["STS13"]["OnWN"]
    assert marked.results["STS13"]["subsets"]["headlines"]["transductive"] is False
    assert marked.results["STS13"]["subsets"]["headlines"]["overlap"]["found"] == 1
    assert marked.results["STS13"]["transductive"] is True
    assert "transductive" not in marked.results["STS16"]  # not checked, so nothing is claimed
    assert marked.provenance["overlap"] == {"STS13": counts["STS13"]}
    assert marked.average == result.average
    assert "transductive" not in result.results["STS13"]  # a copy
    table = marked.table()
    assert "STS13*" in table
    assert "* STS13 OnWN: 560 of 561 pairs (99.8 %)" in table
    assert "headlines" not in table
    assert "*" not in result.table()


@pytest.mark.parametrize("total", [100, 700, 5700])
def test_one_in_a_hundred_is_enough_for_a_mark(total: int) -> None:
    texts = {"found": total // 100, "total": total}
    assert is_transductive(texts)
    assert is_transductive({"found": 0, "total": 9, "pairs_found": total // 100, "pairs": total})
    assert not is_transductive({**texts, "found": total // 100 - 1})
    assert not is_transductive({"found": 0, "total": 0})
    assert not is_transductive({**texts, "pairs_found": 0, "pairs": 0})


def test_evaluate_reads_the_record_in_the_model_directory(evaluation_sets: Path, tmp_path: Path) -> None:
    encoder = Lengths()
    encoder.source = tmp_path
    assert "transductive" not in evaluate(encoder, "sts13", data_dir=evaluation_sets).results["STS13"]
    onwn = read_sts("STS13", evaluation_sets)[2]
    (tmp_path / "overlap.json").write_text(json.dumps(overlap(onwn.first, data_dir=evaluation_sets)))
    result = evaluate(encoder, "sts13", data_dir=evaluation_sets)
    assert [entry["transductive"] for entry in result.results["STS13"]["subsets"].values()] == [False, False, True]
    assert transductive_tasks(recorded_overlap(encoder), ["STS13", "STS16"]) == {"STS13"}
    with pytest.raises(KeyError):
        result.results["STS14"]


@pytest.mark.parametrize("content", ["{", "[]", '{"STS13": 3}', '{"STS13": {"FNWN": 3}}', '{"STS13": {"FNWN": {}}}'])
def test_a_damaged_record_is_named_before_anything_is_scored(
    content: str, evaluation_sets: Path, tmp_path: Path
) -> None:
    encoder = Lengths()
    encoder.source = tmp_path
    encoder.encode = lambda texts: pytest.fail("it was scored")
    (tmp_path / "overlap.json").write_text(content)
    with pytest.raises(InputError, match=r"overlap\.json"):
        evaluate(encoder, "sts13", data_dir=evaluation_sets)


def test_of_two_corpora_the_larger_counts_of_each_subset_are_kept() -> None:
    def pairs(found: int) -> dict[str, int]:
        return {"found": 50 - found, "total": 50, "pairs_found": found, "pairs": 40}

    texts = {"found": 3, "total": 9}
    now = {"STS13": {"OnWN": pairs(30), "FNWN": pairs(0)}, "AgNews": {"all": {"found": 2, "total": 9}}}
    before = {"STS13": {"OnWN": pairs(1), "FNWN": pairs(5)}, "AgNews": {"all": texts}, "STS16": {"a": pairs(2)}}
    assert with_earlier(now, before) == {
        "STS13": {"OnWN": pairs(30), "FNWN": pairs(5)},
        "AgNews": {"all": texts},
        "STS16": {"a": pairs(2)},
    }
    assert with_earlier(now, None) == now
    assert now["STS13"]["FNWN"] == pairs(0)
