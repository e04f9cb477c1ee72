"""What is trained on: pairs, crops and halves of texts that may be seen, batches without near-duplicates, negatives."""

from collections import Counter

import numpy as np
import pytest

from textcl.adaptation import rows as rows_module
from textcl.adaptation.known_items import View, halves
from textcl.adaptation.material import Material
from textcl.adaptation.rows import (
    Rows,
    crop_rows,
    crops,
    half_rows,
    in_batches,
    mined,
    mined_rows,
    pair_rows,
    text_rows,
)

DRAW = np.random.default_rng(0)
COUNT = 90
VIEW = View(
    "title", "a test", [f"q{i}" for i in range(COUNT)], [f"d{i}" for i in range(COUNT)], DRAW.permutation(COUNT)
)
GROUPS = np.arange(COUNT) // 2  # each document has one near-duplicate
ALLOWED = np.arange(COUNT // 2) % 3 != 0


def sentence(number: int) -> str:
    return f"Sentence {number} of these."


def assert_apart(found: Rows, documents: list[int]) -> None:
    """No batch has two documents of one group, which would be each other's negatives."""
    batches = GROUPS[documents].reshape(-1, found.batch)
    assert all(len(set(batch)) == found.batch for batch in batches)


def test_a_batch_has_no_two_items_of_one_group_and_passes_are_complete():
    order, size = in_batches(GROUPS, 30, seed=1)
    assert (size, len(order)) == (32, 30 * 32)
    for batch in order.reshape(30, size):
        assert len(set(GROUPS[batch])) == size
    counts = Counter(order.tolist())
    assert set(counts) == set(range(COUNT))
    assert max(counts.values()) - min(counts.values()) <= 2  # the rest of a pass comes in the next batches
    again, _ = in_batches(GROUPS, 30, seed=1)
    assert (order == again).all()
    assert (order != in_batches(GROUPS, 30, seed=2)[0]).any()


def test_a_batch_is_smaller_if_there_are_fewer_groups():
    order, size = in_batches(np.array([0, 0, 0, 1, 2]), 4)
    assert size == 3
    assert all(len(set(batch)) == 3 for batch in np.array([0, 0, 0, 1, 2])[order].reshape(4, 3))


def test_pairs_are_queries_with_their_documents_of_groups_that_may_be_seen():
    found = pair_rows(VIEW, GROUPS, ALLOWED, steps=20)
    pairs = {(row["text"], row["positive"]) for row in (found[i] for i in range(len(found)))}
    allowed = [i for i in range(COUNT) if ALLOWED[GROUPS[VIEW.targets[i]]]]
    assert pairs == {(f"q{i}", f"d{VIEW.targets[i]}") for i in allowed}
    assert_apart(found, [int(text[1:]) for text in found.columns["positive"]])


def test_crops_are_two_windows_of_two_consecutive_sentences_and_all_pairs_are_equally_likely():
    text = " ".join(map(sentence, range(6)))
    windows = {f"{sentence(i)} {sentence(i + 1)}": i for i in range(5)}
    generator = np.random.default_rng(0)
    counts = Counter(
        (windows[one], windows[two]) for one, two in (crops(text, generator) or ("", "") for _ in range(6000))
    )
    expected = {(i, j) for i in range(5) for j in range(5) if abs(i - j) >= 2}  # they do not overlap
    assert set(counts) == expected
    assert min(counts.values()) > 6000 / len(expected) * 0.8
    assert max(counts.values()) < 6000 / len(expected) * 1.2
    assert crops(" ".join(map(sentence, range(3))), generator) is None


def test_crops_and_halves_come_from_texts_that_may_be_seen_and_differ_from_pass_to_pass():
    texts = [" ".join(sentence(10 * i + j) for j in range(3 + i % 4)) for i in range(COUNT)]
    found = crop_rows(texts, GROUPS, ALLOWED, steps=20)
    numbers = [int(row.split()[1]) // 10 for row in found.columns["text"]]
    expected = {i for i in range(COUNT) if ALLOWED[GROUPS[i]] and i % 4}
    assert set(numbers) == expected
    assert numbers == [int(row.split()[1]) // 10 for row in found.columns["positive"]]
    assert_apart(found, numbers)
    drawn = {text for text, number in zip(found.columns["text"], numbers, strict=True) if number == max(numbers)}
    assert len(drawn) > 1
    half = half_rows(texts, GROUPS, ALLOWED, steps=20)
    assert set(zip(half.columns["text"], half.columns["positive"], strict=True)) == {
        halves(texts[i]) for i in range(COUNT) if ALLOWED[GROUPS[i]]
    }
    assert_apart(half, [int(row.split()[1]) // 10 for row in half.columns["text"]])
    assert text_rows(texts, GROUPS, ALLOWED).columns["text"] == [
        t for t, g in zip(texts, GROUPS, strict=True) if ALLOWED[g]
    ]


def test_mined_negatives_have_ranks_10_to_50_and_at_most_95_percent_of_the_positives_similarity(
    monkeypatch: pytest.MonkeyPatch,
):
    documents = DRAW.normal(size=(COUNT, 5)).astype(np.float32)
    queries = (documents[VIEW.targets] + DRAW.normal(size=(COUNT, 5))).astype(np.float32)
    material = Material([VIEW], [queries], [documents], GROUPS)
    monkeypatch.setattr(rows_module, "_AT_ONCE", 7)
    found = mined(material, ALLOWED)
    dropped = left = 0
    for row in range(COUNT):
        target = int(VIEW.targets[row])
        if not ALLOWED[GROUPS[target]]:
            assert len(found[row]) == 0
            continue

        def cosine(document: int, row: int = row) -> float:
            return float(
                queries[row] @ documents[document] / np.linalg.norm(queries[row]) / np.linalg.norm(documents[document])
            )

        others = [i for i in range(COUNT) if ALLOWED[GROUPS[i]] and GROUPS[i] != GROUPS[target]]
        ranked = sorted(others, key=cosine, reverse=True)[9:50]
        kept = [i for i in ranked if cosine(i) <= 0.95 * cosine(target)]
        assert found[row].tolist() == kept
        dropped, left = dropped + len(ranked) - len(kept), left + len(kept)
    assert dropped > 50  # both rules act here
    assert left > 500
    triplets = mined_rows(material, ALLOWED, steps=10)
    for number in range(len(triplets)):
        row = triplets[number]
        query = int(row["text"][1:])
        assert row["positive"] == f"d{VIEW.targets[query]}"
        assert int(row["negative"][1:]) in found[query]
    assert_apart(triplets, [int(text[1:]) for text in triplets.columns["positive"]])
