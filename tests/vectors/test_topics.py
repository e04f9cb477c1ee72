"""Keywords and names of clusters: an oracle, frequent words, long texts, languages, hostile texts."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from textcl.errors import InputError
from textcl.vectors.topics import cluster_keywords, cluster_names, keywords_and_names

TEXTS = [
    *("how do i sort the excel sheet", "the excel macro is slow", "how to run a macro in excel", "excel and the cell"),
    *("how do i write a bash loop", "the bash script is slow", "how to run a script in bash", "bash and the shell"),
]
CLUSTERS = [0] * 4 + [1] * 4


def test_keywords_agree_with_the_equation() -> None:
    texts, clusters = TEXTS * 2, CLUSTERS * 2
    found = cluster_keywords(texts, clusters)
    sets = [set(re.findall(r"\w{2,}", text)) for text in texts]
    frequency = Counter(word for each in sets for word in each)
    average = sum(frequency.values()) / 2
    for number in (0, 1):
        inside = Counter(w for each, c in zip(sets, clusters, strict=True) for w in each if c == number)
        weights = {
            word: times / 8 * math.log(1 + average / frequency[word])
            for word, times in inside.items()
            if times >= 2 and times >= 3 * (frequency[word] - times)
        }
        assert found[number] == sorted(weights, key=lambda word: (-weights[word], word))[:10]
    assert found[0][:2] == ["excel", "macro"]
    assert found[1][:2] == ["bash", "script"]


def test_the_mean_number_of_words_of_the_clusters_decides_between_frequent_and_rare_words() -> None:
    """A = 10: 4 ln(1 + 10 / 4) = 5.01 for alpha, 5 ln(1 + 10 / 6) = 4.90 for beta; with A = 20 beta would be first."""
    texts = ["alpha", *["alpha beta"] * 3, *["beta"] * 2, "delta beta", *["delta omega"] * 4, "delta"]
    assert cluster_keywords(texts, [0] * 6 + [1] * 6)[0] == ["alpha", "beta"]


def test_words_that_all_clusters_have_are_no_keywords_in_any_language() -> None:
    german = ["der hund bellt", "der hund schläft", "der baum blüht", "der baum wächst"]
    assert all("der" not in each for each in cluster_keywords(german, [0, 0, 1, 1]))
    hindi = ["कुत्ता सोता है", "कुत्ता दौड़ता है", "पेड़ बड़ा है", "पेड़ हरा है"]
    assert [each[0] for each in cluster_keywords(hindi, [0, 0, 1, 1])] == ["कुत्ता", "पेड़"]


def test_one_long_text_does_not_decide() -> None:
    long = " ".join(["spam"] * 10_000 + [f"word{number}" for number in range(10_000)])
    found = cluster_keywords([*TEXTS, long], [*CLUSTERS, 1])
    assert found == cluster_keywords(TEXTS, CLUSTERS)


def test_endings_are_one_keyword() -> None:
    texts = ["a query", "two queries and a query", "queries", "query text", *["a dog"] * 4]
    assert len({"query", "queries"} & set(cluster_keywords(texts, CLUSTERS)[0])) == 1


def test_a_name_has_words_that_few_other_clusters_have() -> None:
    keywords = [["file", f"first{number}", f"second{number}"] for number in range(12)]
    assert cluster_names(keywords)[3] == "first3, second3"
    assert cluster_names([["file", "one", "two"]])[0] == "file, one"  # the negative control: no other cluster has it
    assert cluster_names([["file"], ["file"]]) == ["file", "file (1)"]
    three = [["a1", "b1", "d1"], ["b1", "a1", "c1"], ["x1", "y1"], ["x1", "y1", "z1"]]
    assert cluster_names(three) == ["d1, a1", "c1, b1", "x1, y1", "z1, x1"]  # a word of no other cluster comes first
    few = [["a1", "b1", "d1"], ["b1", "a1", "c1"], ["a1", "b1", "e1"], *[[f"k{number}", "l"] for number in range(30)]]
    assert cluster_names(few)[:3] == ["a1, b1", "b1, c1", "a1, e1"]
    names = cluster_names([["a1", "b1"], ["a1", "b1", "c1"], ["a1", "b1"], [], []])
    assert len(set(names)) == 5
    assert names[3:] == ["cluster 3", "cluster 4"]


def test_keywords_and_names_from_one_count_are_those_of_both_functions() -> None:
    texts, clusters = [*TEXTS, "an outlier with excel", *TEXTS[:3]], [*CLUSTERS, -1, 2, 2, 2]
    keywords = cluster_keywords(texts, clusters, most=3)
    assert keywords_and_names(texts, clusters, most=3) == (keywords, cluster_names(keywords, texts, clusters))


def test_a_word_names_the_cluster_in_which_it_is_twice_as_frequent_as_in_another() -> None:
    texts = [*["wordpress page"] * 9, "page", *["wordpress menu"] * 4, *["menu"] * 6, *["a dog runs"] * 80]
    clusters = [0] * 10 + [1] * 10 + [2] * 80
    keywords = cluster_keywords(texts, clusters)
    assert "wordpress" in keywords[0]
    assert "wordpress" in keywords[1]
    assert cluster_names(keywords, texts, clusters)[:2] == ["page, wordpress", "menu, wordpress"]
    ahead = [["wordpress", "page", "x"], ["wordpress", "menu", "x"], keywords[2]]
    assert cluster_names(ahead, texts, clusters)[:2] == ["wordpress, page", "menu, x"]
    assert cluster_names(ahead)[0] == "page, wordpress"  # the negative control: the texts are not known


def test_a_name_has_no_word_that_is_frequent_elsewhere_too() -> None:
    others = [f"word{number} and thing{number}" for number in range(40)]
    texts = [*["he played chess openings"] * 20, *others, *["he said"] * 10, *others]
    clusters = [0] * 20 + [1] * 90
    keywords = cluster_keywords(texts, clusters)
    assert "he" in keywords[0]  # nine times as frequent as outside, but a ninth of the other texts have it too
    ahead = [["he", *(word for word in keywords[0] if word != "he")], keywords[1]]
    assert cluster_names(ahead, texts, clusters)[0] == ", ".join(ahead[0][1:3])
    assert cluster_names(ahead)[0].startswith("he, ")  # the negative control: the texts are not known
    assert cluster_names([["he"], ["and"]], texts, clusters) == ["he", "and"]  # there is no other word
    few = ["he is", "he was", "a dog", "he ran"]  # fewer than 30 words: none of them is known to be frequent
    assert cluster_names([["he", "is"], ["dog", "ran"]], few, [0, 0, 1, 1])[0] == "he, is"
    outliers = [-1 if number == 1 else 0 for number in clusters]  # count as texts outside of the cluster
    assert cluster_names(ahead[:1], texts, outliers)[0] == ", ".join(ahead[0][1:3])
    with pytest.raises(InputError, match="each text needs one"):
        cluster_names(ahead, texts, [0])


def test_texts_without_words_and_outliers() -> None:
    assert cluster_keywords(["!", "?", "...", "12"], [0, 0, 1, 1]) == [[], []]
    assert cluster_keywords(["a cat", "a dog"], [-1, -1]) == []
    assert cluster_keywords([], []) == []
    assert len(cluster_keywords([*TEXTS, "excel " * 3], np.array([*CLUSTERS, -1]))) == 2
    with pytest.raises(InputError, match="each text needs one"):
        cluster_keywords(TEXTS, [0])


def test_keywords_of_hostile_texts_are_words() -> None:
    texts = ["<script>alert(1)</script>\x1b[31m =cmd|'/C calc'!A0 \u202e"] * 4 + ["a plain dog"] * 4
    words = [word for each in cluster_keywords(texts, CLUSTERS) for word in each]
    assert {"script", "alert", "cmd"} <= set(words)
    assert all(re.fullmatch(r"\w+", word) for word in words)
    assert not any(name.startswith(("=", "+", "-", "@", "<")) for name in cluster_names([words]))


@pytest.mark.parametrize("clusters", [["excel", "bash"] * 4, [0.0, math.nan] * 4, [0.5, 1] * 4])
def test_clusters_that_are_no_whole_numbers_are_refused(clusters: list[object]) -> None:
    with pytest.raises(InputError, match="clusters must be whole numbers"):
        cluster_keywords(TEXTS, clusters)  # type: ignore[arg-type]


def test_whole_numbers_of_any_type_and_clusters_without_a_text() -> None:
    expected = cluster_keywords(TEXTS, CLUSTERS)
    assert cluster_keywords(TEXTS, np.array(CLUSTERS, np.float32)) == expected
    assert cluster_names([*expected, ["fish"]], TEXTS, CLUSTERS)[2] == "fish"


def test_keywords_are_spelt_as_people_write_them() -> None:
    texts = ["Die Größe der Straße", "GRÖßE und Straße", "ein Hund bellt", "der HUND schläft"]
    keywords = cluster_keywords(texts, [0, 0, 1, 1])
    assert {"größe", "straße"} <= {*keywords[0]}
    assert "hund" in keywords[1]


def test_a_long_run_of_characters_is_no_keyword() -> None:
    """Such as an attachment: it would be the name of the cluster, in each of its rows."""
    blob, word = "a" * 100_000, "Donaudampfschifffahrtsgesellschaft"
    keywords, names = keywords_and_names([f"{word} {blob}", f"the {word}", "two dogs", "big dogs"], [0, 0, 1, 1])
    assert keywords[0] == [word.lower(), "the"]
    assert max(map(len, names)) < 50
