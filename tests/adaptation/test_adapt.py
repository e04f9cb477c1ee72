"""`textcl adapt` as a user calls it: what is exported, what is refused, kills, several models, folders of vectors."""

import csv
import json
import random
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from support.command import DIES, TEXTCL, Forked
from support.judged import judged_titles
from support.ranks import check_ranks
from support.tiny import TEXTS, tiny_encoder_directory

import textcl
from textcl.adaptation import guard, linear_map, trial
from textcl.adaptation.adapt import _dev_hash, adapt
from textcl.adaptation.guard import GRADED_PAIRS
from textcl.adaptation.linear_map import mapped, with_linear_map
from textcl.cli.main import main
from textcl.data.overlap import read_overlap
from textcl.data.sts import read_sts
from textcl.data.training import BUNDLED_TEXTS
from textcl.encoder import Encoder
from textcl.encoder.layers import Dense
from textcl.errors import InputError
from textcl.vectors.compress import unit

GLOSSES = [line for line in BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines() if 8 <= len(line.split()) <= 14]
COUNT = 260


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_pretrained("bundled").with_(normalize=True)


@pytest.fixture(scope="module")
def directory(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled encoder in the format of sentence-transformers."""
    return encoder.save(tmp_path_factory.mktemp("models") / "bundled")


@pytest.fixture(scope="module")
def spoilt(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with eight directions that are seven times too long, which a linear map can put right."""
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(encoder.dimension, 8)))[0]
    weight = (6 * axes @ axes.T).astype(np.float32)
    return with_linear_map(encoder, weight).save(tmp_path_factory.mktemp("models") / "spoilt")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with titles: two glosses and the first words of the first of them."""
    path = tmp_path_factory.mktemp("data") / "texts.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["number", "name", "text"])
        for row in range(COUNT):
            one, two = GLOSSES[row].split(), GLOSSES[row + COUNT]
            writer.writerow([row, " ".join(one[:5]), f"{' '.join(one[3:])}. {two}"])
    return path


@pytest.fixture(scope="module")
def few_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "few.tsv"
    path.write_text("".join(GRADED_PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[:700]))
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, few_pairs: Path, tmp_path: Path) -> None:
    """Few steps with a larger rate, and a guard of few pairs without STS-B."""
    monkeypatch.setattr(linear_map, "STEPS", 40)
    monkeypatch.setattr(linear_map, "LEARNING_RATE", 1e-2)
    monkeypatch.setattr(guard, "GRADED_PAIRS", few_pairs)
    monkeypatch.setenv("TEXTCL_DATA", str(few_pairs.parent))


def run(model: Path | str, data: Path, output: Path, *flags: str) -> list[str]:
    ledger = output.parent / f"{output.name}-ledger" / "looks.jsonl"
    words = ["adapt", str(model), "--data", str(data), "--output", str(output), "--ledger", str(ledger), *flags]
    assert main(words) == 0
    return list(json.loads((output / "adapt.json").read_text())["lines"])


def test_a_spoilt_encoder_is_mended_and_loads_everywhere(
    spoilt: Path, table: Path, few_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TEXTCL_DATA", str(few_sets))
    spoilt = shutil.copytree(spoilt, tmp_path / "spoilt")
    counts = {"STS13": {"FNWN": {"found": 3, "total": 9, "pairs_found": 3, "pairs": 9}}}
    (spoilt / "overlap.json").write_text(json.dumps(counts))
    known = read_sts("STS16", few_sets)[0]
    data, output = tmp_path / "texts.csv", tmp_path / "better"
    data.write_text(table.read_text(encoding="utf-8") + f'1000,"{known.first[0]}",one more\n', encoding="utf-8")
    lines = run(spoilt, data, output, "--column", "name,text")
    assert lines[-2].startswith("VERDICT: better at finding a body by its title: nDCG@10 ")
    assert "holds the adapted encoder" in lines[-1]
    record = json.loads((output / "adapt.json").read_text())
    assert record["main"]["difference"] > 1
    assert len(record["candidates"]) == 3
    assert sum(each["chosen_in_folds"] for each in record["candidates"]) == 5
    check_ranks(record)
    assert sum(record["changed"].values()) == COUNT + 1
    learnt = read_overlap(output)  # of the model it came from, and of what it was adapted to
    assert learnt["STS13"] == counts["STS13"]
    assert (learnt["STS16"][known.name]["found"], learnt["AgNews"]["all"]["found"]) == (1, 0)
    for way, sign in (("gained", 1), ("lost", -1)):
        gains = [sign * (each["after"] - each["before"]) for each in record["changes"]]
        assert sum(gain > 0 for gain in gains) == min(10, record["changed"][way])
    theirs = SentenceTransformer(str(output), device="cpu").encode(GLOSSES[:5])
    np.testing.assert_allclose(theirs, Encoder.from_pretrained(output).encode(GLOSSES[:5]), atol=1e-6)
    assert not (tmp_path / ".better.adapt").exists()
    card = ModelCard.load(output / "README.md")
    assert "VERDICT: better" in card.text
    of_main = card.data.eval_results[0]
    assert (of_main.dataset_name, of_main.metric_type) == ("finding a body by its title", "ndcg@10")
    assert of_main.metric_value == pytest.approx(record["main"]["after"], abs=1e-4)
    assert card.data.language == "en"  # the bundled encoder's


@pytest.mark.slow
def test_where_nothing_is_better_the_files_are_those_of_the_model(
    directory: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(linear_map, "STEPS", 1)
    lines = run(directory, table, tmp_path / "same", "--column", "name,text")
    assert lines[-2].startswith("VERDICT: no difference at finding a body by its title")
    assert lines[-1] == f"EXPORT: {tmp_path / 'same'} holds the untouched encoder"
    files = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    for name, content in files.items():
        assert (tmp_path / "same" / name).read_bytes() == content, name
    assert {path.name for path in (tmp_path / "same").iterdir()} - {path.name for path in directory.iterdir()} == {
        "adapt.json",
        "report.html",
    }


def test_an_untouched_model_of_another_format_is_exported_with_its_weights(table: Path, tmp_path: Path):
    lines = run("bundled", table, tmp_path / "few", "--column", "number")
    assert lines[-2].startswith("VERDICT: not measured: fewer than 200 texts are long enough")
    loaded = Encoder.from_pretrained(tmp_path / "few")
    for name, weight in Encoder.from_pretrained("bundled").state_dict().items():
        assert (loaded.state_dict()[name] == weight).all(), name


@pytest.mark.parametrize(
    ("model", "module", "folder"), [("tiny", 0, "0_BERT"), ("tiny", 1, "mean"), ("small", 0, "0_T")]
)
def test_an_untouched_model_whose_folders_have_other_names_is_exported_whole(
    model: str, module: int, folder: str, tmp_path: Path
):
    source = tiny_encoder_directory(tmp_path / "tiny") if model == "tiny" else model
    saved = Encoder.from_pretrained(source).with_(normalize=True).save(tmp_path / "saved")
    modules = json.loads((saved / "modules.json").read_text())
    if modules[module]["path"]:
        (saved / modules[module]["path"]).rename(saved / folder)
    else:
        (saved / folder).mkdir()
        for file in [path for path in saved.iterdir() if path.is_file()]:
            if file.name not in ("modules.json", "README.md", "config_sentence_transformers.json"):
                file.rename(saved / folder / file.name)
    modules[module]["path"] = folder
    (saved / "modules.json").write_text(json.dumps(modules))
    before = Encoder.from_pretrained(saved).encode(TEXTS)
    for _ in range(2):  # the second one replaces the first
        adapt(saved, TEXTS[:50], tmp_path / "out")
        assert (Encoder.from_pretrained(tmp_path / "out").encode(TEXTS) == before).all()


def test_too_few_texts_and_texts_without_structure_are_not_measured(directory: Path, table: Path, tmp_path: Path):
    few = tmp_path / "few.txt"
    few.write_text("\n".join(GLOSSES[:150]))
    assert run(directory, few, tmp_path / "1")[-2] == (
        "VERDICT: not measured: there are 150 different texts, and 200 are needed"
    )
    draw = random.Random(0)
    rows = list(csv.reader(table.open()))
    names = [row[1] for row in rows[1:]]
    draw.shuffle(names)
    permuted = tmp_path / "permuted.csv"
    with permuted.open("w", newline="") as handle:
        csv.writer(handle).writerows([rows[0], *([0, name, row[2]] for name, row in zip(names, rows[1:], strict=True))])
    line = run(directory, permuted, tmp_path / "2", "--column", "name,text")[-2]
    assert line.startswith("VERDICT: not measured: the untouched encoder has nDCG@10 ")
    words = [word for row in rows[1:] for word in row[2].split()]
    mixed = tmp_path / "mixed.txt"
    mixed.write_text("\n".join(" ".join(draw.choices(words, k=10)) for _ in range(COUNT)))
    assert run(directory, mixed, tmp_path / "3")[-2].startswith("VERDICT: not measured: the untouched encoder has")


def _template(row: int) -> str:
    return f"The backup of server {row} finished without an error at all. All files were copied to the remote store."


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        ("template", "260 of 260 texts are near-duplicates of each other, such as texts of one template, and count as"),
        ("pairs", "there are 3 groups of texts with a query, and 20 are needed"),
        ("judged", "there are 19 queries with a relevant document, and 20 are needed"),
        ("each its own label", "there are 30 labelled texts with 30 labels, and 20 texts are needed, 4 for each label"),
        ("one label", "all labelled texts have the same label, and two are needed"),
    ],
)
def test_too_little_evidence_is_not_measured_and_said_before_anything_is_encoded(
    models: int, evidence: str, said: str, directory: Path, table: Path, tmp_path: Path, encoded: list[str]
):
    rows = list(csv.DictReader(table.open()))
    settings: dict[str, str] = {}
    texts: object = [_template(row) for row in range(COUNT)] if evidence == "template" else table
    if evidence == "pairs":
        settings["dev"] = f"pairs:{_pairs(tmp_path / 'pairs.csv', 3)}"
    elif evidence == "judged":
        settings["dev"] = f"beir:{judged_titles(rows[:19], tmp_path / 'mine')}"
    elif evidence != "template":
        settings |= {"dev": f"labels:{tmp_path / 'labels.csv'}", "purpose": "clusters"}
        with (tmp_path / "labels.csv").open("w", newline="") as handle:
            labels = [f"label {row if evidence == 'each its own label' else 0}" for row in range(30)]
            csv.writer(handle).writerows([["text", "label"], *zip(GLOSSES, labels, strict=False)])
    names = f"{directory},{tiny_encoder_directory(tmp_path / 'tiny')}" if models == 2 else str(directory)
    encoded.clear()
    verdict = adapt(
        names, texts, tmp_path / "out", columns=() if evidence == "template" else ["text"], **settings
    ).verdict  # type: ignore[arg-type]
    assert verdict.sentence().startswith(f"VERDICT: not measured: {said}")
    assert len(encoded) <= 4 + 64  # those whose encoding was timed
    assert not (tmp_path / ".out.adapt").exists()


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        ("text\n" + "the same text\n" * 300, [], "hold the same text"),
        ("name,text\n" + "".join(f",text {i} of these\n" for i in range(9)), ["--column", "name,text"], "is empty"),
        ("text\n" + "\n" * 9, [], "no text"),
        ("text\n" + "".join(f"{'龘' * (i + 1)}\n" for i in range(9)), [], "all tokens are [UNK]"),
        ("text\na b c d\n", ["--column", "other"], "has no column 'other'"),
        ("text\na b c d\n", ["--dev", "beir:there/is/none"], "there/is/none"),
        ("text\na b c d\n", ["--dev", "labels:x.csv"], "--for search takes"),
        ("text\na b c d\n", ["--for", "clusters", "--dev", "beir:x"], "--for clusters takes labels:PATH"),
        ("text\na b c d\n", ["--minutes", "0"], "--minutes must be"),
        ("text\na b c d\n", ["--minutes", "nan"], "--minutes must be"),
        ("text\na b c d\n", ["--bm25-weight", "1.5"], "--bm25-weight must be"),
        ("text\na b c d\n", ["--language", "klingon"], "klingon"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    content: str, flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = tmp_path / "data.csv"
    data.write_text(content)
    model = tiny_encoder_directory(tmp_path / "model")
    capsys.readouterr()
    assert main(["adapt", str(model), "--data", str(data), "--output", str(tmp_path / "out"), *flags]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "model"]


def test_columns_of_different_lengths_and_a_folder_that_is_not_ours_are_refused(directory: Path, tmp_path: Path):
    with pytest.raises(InputError):
        adapt(directory, {"name": ["a"] * 300, "text": ["b c d e"] * 299}, columns=("name", "text"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        adapt(directory, GLOSSES[:COUNT], tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


@pytest.mark.slow
def test_vectors_that_are_there_are_not_computed_again(
    directory: Path, table: Path, tmp_path: Path, encoded: list[str]
):
    vectors = tmp_path / "vectors"
    textcl.encode_corpus(directory, table, vectors, columns=["name"])
    bodies = {row["text"] for row in csv.DictReader(table.open())}
    encoded.clear()
    one = run(directory, vectors, tmp_path / "one", "--column", "name")
    timed = 4 + 64  # the texts whose encoding is timed
    assert len(bodies & {*encoded[timed:]}) == 0
    two = run(directory, table, tmp_path / "two", "--column", "name,text")
    assert one[:-1] == two[:-1]


def test_a_folder_of_parts_of_texts_is_refused(directory: Path, table: Path, tmp_path: Path):
    vectors = textcl.encode_corpus(directory, table, tmp_path / "vectors", split_long=True)
    with pytest.raises(InputError, match="textcl adapt needs one vector for each text"):
        adapt(directory, vectors)


@pytest.mark.slow
def test_of_several_models_the_best_of_the_others_is_named_and_copied(
    directory: Path, spoilt: Path, table: Path, tmp_path: Path
):
    other = tiny_encoder_directory(tmp_path / "tiny")
    lines = run(f"{spoilt},{other},{directory}", table, tmp_path / "best", "--column", "name,text")
    assert lines[-2].startswith("VERDICT: better at finding a body by its title")
    assert lines[-1] == f"EXPORT: {tmp_path / 'best'} holds {directory}, untouched"
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()
    record = json.loads((tmp_path / "best" / "adapt.json").read_text())
    check_ranks(record)
    assert record["held_out"].startswith("Nothing is trained")
    assert "first model" in (tmp_path / "best" / "report.html").read_text(encoding="utf-8")
    worse = run(f"{directory},{spoilt}", table, tmp_path / "first", "--column", "name,text")
    assert worse[-2].startswith("VERDICT: worse")
    assert worse[-1].endswith("holds the untouched encoder")
    with pytest.raises(InputError, match="are the same encoder"):
        adapt(f"{directory},{directory}", table, columns=("name", "text"))


def test_an_encoder_has_the_same_score_whatever_its_place(
    encoder: Encoder, directory: Path, table: Path, tmp_path: Path
):
    """Most cosines of the second encoder are above 0.95, so that they say nothing of near-duplicates."""
    shift = Dense(encoder.dimension, encoder.dimension, bias=True, activation="Identity", residual=False)
    with torch.no_grad():
        shift.linear.weight.copy_(torch.eye(encoder.dimension))
        shift.linear.bias.fill_(2.0)
    high = Encoder(encoder.backbone, encoder.tokenizer, encoder.pooling, layers=[*encoder.layers, shift])
    vectors = unit(high.encode(GLOSSES[:COUNT]))
    assert np.median(vectors @ vectors.T) > 0.95
    other = high.save(tmp_path / "high")
    ledger = tmp_path / "looks" / "l.jsonl"
    mains, seconds = [], []
    for names in (f"{directory},{other}", f"{other},{directory}"):
        record = adapt(names, table, columns=("name", "text"), ledger=ledger).record
        assert "groups, if near-duplicates are put together." in " ".join(record["looked"])
        mains.append((record["main"]["before"], record["main"]["after"]))
        seconds.append((record["second"]["before"], record["second"]["after"]))
    assert mains[0] == mains[1][::-1]
    assert seconds[0] == seconds[1][::-1]


def _pairs(path: Path, count: int) -> Path:
    with path.open("w", newline="") as handle:
        rows = [[" ".join(text.split()[:4]), " ".join(text.split()[3:])] for text in GLOSSES[-count:]]
        csv.writer(handle).writerows([["q", "a"], *rows])
    return path


@pytest.mark.parametrize("count", [30, pytest.param(COUNT, marks=pytest.mark.slow)])
def test_several_models_are_compared_on_pairs_of_another_number_than_the_texts(
    count: int, directory: Path, table: Path, tmp_path: Path
):
    other = tiny_encoder_directory(tmp_path / "tiny")
    dev, ledger = f"pairs:{_pairs(tmp_path / 'pairs.csv', count)}", tmp_path / "looks" / "l.jsonl"
    adapted = adapt(f"{directory},{other}", table, columns=("name", "text"), dev=dev, ledger=ledger)
    assert adapted.record["main"]["units"] == pytest.approx(count, abs=9)
    assert adapted.record["second"]["task"] == "finding a body by its title"
    assert adapted.record["second"]["units"] == pytest.approx(COUNT, abs=9)
    alone = adapt(f"{directory},{other}", table, columns=("name", "text"), ledger=ledger).record["main"]
    assert [adapted.record["second"][key] for key in ("before", "after")] == [alone["before"], alone["after"]]


@pytest.mark.slow
def test_the_same_command_is_no_new_look_and_another_setting_or_other_texts_are_one(
    spoilt: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = []
    for seed, most in ((0, COUNT), (1, COUNT), (0, COUNT - 20), (0, COUNT)):
        monkeypatch.setattr(trial, "MOST_DOCUMENTS", most)  # as a slow machine, which looks at a part of the texts
        ledger = tmp_path / "looks" / "looks.jsonl"
        found.append(adapt(spoilt, table, columns=("name", "text"), ledger=ledger, seed=seed))
    assert [each.verdict.looks for each in found] == [1, 2, 3, 1]
    assert [each.record["plan"]["documents"] for each in found] == [COUNT, COUNT, COUNT - 20, COUNT]


def test_evidence_that_was_moved_or_is_named_another_way_is_the_same_evidence(tmp_path: Path):
    for name, text in {"one": "q\ta\n", "two": "q\ta\n", "other": "q\tb\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "queries.tsv").write_text(text)
    one, two, other = (_dev_hash(f"beir:{tmp_path / name}") for name in ("one", "two", "other"))
    assert one == two == _dev_hash(f"beir:{tmp_path}/two/../one") != other
    assert _dev_hash(f"pairs:{tmp_path}/one/queries.tsv") == _dev_hash(f"pairs:{tmp_path}/two/queries.tsv")


@pytest.mark.slow
def test_duplicates_and_hybrid_search_are_measured_by_their_own_evidence(spoilt: Path, table: Path, tmp_path: Path):
    lines = run(spoilt, table, tmp_path / "duplicates", "--for", "duplicates")
    assert " at recognising texts with a planted edit (typo, case, order, words added), as textcl dup" in lines[-2]
    assert "licates does: recall at 1 % wrong " in lines[-2]
    lines = run(spoilt, table, tmp_path / "hybrid", "--column", "name,text", "--retrieval", "hybrid")
    edits = json.loads((tmp_path / "duplicates" / "adapt.json").read_text())
    assert all(each.keys() >= {"text", "copy"} for each in edits["changes"])
    assert edits["main"]["difference"] == pytest.approx(
        100 * (edits["changed"]["gained"] - edits["changed"]["lost"]) / sum(edits["changed"].values())
    )
    record = json.loads((tmp_path / "hybrid" / "adapt.json").read_text())
    check_ranks(record)
    assert record["main"]["after"] == pytest.approx(record["retrieval"]["hybrid"][1]["after"])
    (advice,) = (line for line in lines if line.startswith("RETRIEVAL: nDCG@10 "))
    exported = "adapted" if record["verdict"]["outcome"] == "better" else "untouched"
    assert f"with the {exported} encoder" in advice or "no difference between the two is shown" in advice


@pytest.mark.slow
def test_clusters_are_measured_by_labels_alone(
    spoilt: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("textcl.adaptation.labels.SAMPLES", 10)
    without = run(spoilt, table, tmp_path / "without", "--for", "clusters")
    assert without[-2] == (
        "VERDICT: not measured: there are no labels to judge clusters by; give labelled texts with --dev labels:FILE"
    )
    labelled = tmp_path / "labelled.csv"
    with labelled.open("w", newline="") as handle:
        rows = [[text, "to" if text.startswith("to ") else "a"] for text in GLOSSES if text.startswith(("to ", "a "))]
        csv.writer(handle).writerows([["text", "label"], *rows[:120]])
    if len({row[1] for row in rows[:120]}) < 2:
        rows = [[text, str(len(text) % 2)] for text in GLOSSES[:120]]
        with labelled.open("w", newline="") as handle:
            csv.writer(handle).writerows([["text", "label"], *rows])
    lines = run(spoilt, table, tmp_path / "with", "--for", "clusters", "--dev", f"labels:{labelled}")
    assert " at separating your labelled texts by k-means: accuracy " in lines[-2]
    record = json.loads((tmp_path / "with" / "adapt.json").read_text())
    assert sum(record["changed"].values()) == record["main"]["units"]
    assert {each["text"] for each in record["changes"]} <= {row["text"] for row in csv.DictReader(labelled.open())}
    assert "Each half of the labelled texts" in record["held_out"]


@pytest.mark.slow
def test_pairs_are_trained_on_and_judge(spoilt: Path, table: Path, tmp_path: Path):
    rows = list(csv.DictReader(table.open()))
    pairs = tmp_path / "pairs.csv"
    with pairs.open("w", newline="") as handle:
        csv.writer(handle).writerows([["q", "a"], *([row["name"], row["text"]] for row in rows)])
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(GLOSSES[-COUNT:]))
    lines = run(spoilt, texts, tmp_path / "out", "--dev", f"pairs:{pairs}")
    assert lines[-2].startswith("VERDICT: better at finding the second text of a pair by the first")


@pytest.mark.slow
def test_judgements_select_and_judge(spoilt: Path, table: Path, tmp_path: Path):
    rows = list(csv.DictReader(table.open()))
    folder = judged_titles(rows, tmp_path / "mine")
    lines = run(spoilt, table, tmp_path / "out", "--column", "name,text", "--dev", f"beir:{folder}")
    assert lines[-2].startswith("VERDICT: better at finding the judged documents of mine")
    record = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert record["main"]["units"] == len(rows) - 1  # two names are nearly the same words
    check_ranks(record)


@pytest.mark.slow
def test_without_output_nothing_is_written_and_the_encoder_is_returned(
    spoilt: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    adapted = textcl.adapt(spoilt, table, columns=("name", "text"), ledger=tmp_path / "looks" / "l.jsonl")
    assert adapted.verdict.outcome == "better"
    before = Encoder.from_pretrained(spoilt).encode(GLOSSES[:3])
    weight = adapted.encoder.layers[-1].state_dict()["linear.weight"].numpy() - np.eye(before.shape[1])
    np.testing.assert_allclose(adapted.encoder.encode(GLOSSES[:3]), unit(mapped(before, weight)), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["looks"]


@pytest.mark.slow
def test_killed_again_and_again_the_same_command_goes_on_to_the_same_export(spoilt: Path, table: Path, tmp_path: Path):
    """Before its plan, its first vectors, its look and its record are there; in between it changes nothing on disk."""
    setup = """
from textcl.adaptation import linear_map
linear_map.STEPS, linear_map.LEARNING_RATE = 30, 1e-2
"""

    def run(code: str, name: str, *place: str) -> subprocess.CompletedProcess[str]:
        words = ["adapt", spoilt, "--data", table, "--column", "name,text", "--output", tmp_path / name]
        words += ["--ledger", tmp_path / f"{name}-looks" / "l.jsonl"]
        with Forked(setup + code, *place, *words, cwd=tmp_path) as process:
            return process.wait()

    whole = run(TEXTCL, "whole")
    assert whole.returncode == 0, whole.stderr
    for place in ("/.plan.json.", "/.part-00000.parquet.", "/.l.jsonl.", "/.adapt.json."):
        killed = run(DIES, "killed", place)
        assert killed.returncode == -signal.SIGKILL, (place, killed.stderr)
    last = run(TEXTCL, "killed")
    assert last.returncode == 0, last.stderr
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file() and path.name not in ("adapt.json", "report.html", "README.md"):
            assert (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes(), path
    assert not list(tmp_path.glob(".*")), "what the killed ones left is gone"
    one, two = (json.loads((tmp_path / name / "adapt.json").read_text()) for name in ("whole", "killed"))
    assert one["lines"][:-1] == two["lines"][:-1]
    assert one["verdict"]["outcome"] == "better"


def test_texts_of_one_encoder_are_those_of_the_other(directory: Path, spoilt: Path):
    """The fixtures differ as they should, else the tests above show nothing."""
    one, two = (unit(Encoder.from_pretrained(path).encode(TEXTS[:9])) for path in (directory, spoilt))
    assert np.abs(one - two).max() > 0.1
