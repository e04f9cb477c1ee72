"""Known-item queries: what is cut out of a text, and that the rest no longer holds it."""

import logging
from pathlib import Path

import pytest

from textcl.adaptation.known_items import halves, known_items, read_pairs, sentences
from textcl.errors import InputError

LONG = "The first sentence stands here. A second one has more to say. The third ends the whole text."


def test_a_title_has_to_find_its_body_and_is_not_in_it():
    (view, *_) = known_items(["A wing in a stream. It was tested.", "Heat flows."], ["a wing in a stream.", ""])
    assert (view.name, view.queries, view.targets.tolist()) == ("title", ["a wing in a stream."], [0])
    assert view.documents == ["It was tested.", "Heat flows."]


def test_a_sentence_has_to_find_the_others_with_the_title():
    by_name = {view.name: view for view in known_items([LONG, "Only one."], ["On texts", ""])}
    view = by_name["sentence"]
    assert view.targets.tolist() == [0]
    (query,) = view.queries
    assert query in sentences(LONG)
    assert view.documents == ["On texts " + " ".join(each for each in sentences(LONG) if each != query), "Only one."]


def test_a_text_of_two_sentences_gives_none_of_them():
    two = "One sentence of seven words is here. And another one of seven words here."
    assert [view.name for view in known_items([two])] == ["half"]
    assert [view.name for view in known_items([f"{two} Three."])] == ["sentence", "half"]


def test_the_same_text_gives_the_same_sentence_wherever_it_stands():
    alone, among = (known_items(bodies)[0] for bodies in ([LONG], ["Another text."] * 3 + [LONG]))
    assert alone.queries == among.queries
    assert among.targets.tolist() == [3]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("one two three four", ("one two", "three four")),
        ("one two three four five", ("one two three", "four five")),
        ("one two three", None),
        ("今日は天気がいい", ("今日は天", "気がいい")),
        ("一二三", None),
    ],
)
def test_halves_are_cut_at_a_word_or_where_there_are_no_spaces_at_a_character(text: str, parts: tuple[str, str] | None):
    assert halves(text) == parts


def test_sentences_end_at_marks_of_other_scripts_and_at_line_ends():
    assert sentences("雨が降る。風が吹く！\nAnd now?  Yes.") == ["雨が降る。", "風が吹く！", "And now?", "Yes."]


def test_views_with_too_few_queries_are_left_out():
    assert [view.name for view in known_items([LONG] * 3, least=3)] == ["sentence", "half"]
    assert known_items([LONG] * 3, least=4) == []
    assert known_items(["word"] * 9, least=1) == []


def test_pairs_are_the_first_two_columns_and_each_query_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "pairs.csv"
    path.write_text("question,answer,id\nwhy,because,1\nhow,so,2\nwhy,no reason,3\nwhen,because,4\n,never,5\n")
    with caplog.at_level(logging.WARNING, logger="textcl"):
        view = read_pairs(str(path))
    assert [each.removeprefix(f"{path}: ")[:40] for each in caplog.messages] == [
        "1 row with an empty cell is left out.",
        "1 row is left out because an earlier row",
    ]
    assert view.queries == ["why", "how", "when"]
    assert view.documents == ["because", "so"]
    assert view.targets.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("title", "body", "rest"),
    [
        ("Art", "Article one is about cars", "Article one is about cars"),
        ("Art", "art: on cars", ": on cars"),
        ("Go", "Go 1.2 is out", "1.2 is out"),
        ("Straße", "STRASSE frei für alle", "frei für alle"),
        ("Straßen", "Strassenbahn fährt", "Strassenbahn fährt"),
        ("東京", "東京は大きい", "は大きい"),
        ("Same", "same", ""),
    ],
)
def test_a_repeated_title_is_cut_at_the_end_of_a_word(title: str, body: str, rest: str):
    assert known_items([body, "something else"], [title, "other"])[0].documents[0] == (rest or title)


def test_a_first_line_that_is_a_pair_is_not_taken_for_a_header(tmp_path: Path):
    for name, mark in (("pairs.csv", ","), ("pairs.tsv", "\t")):
        path = tmp_path / name
        path.write_text(f"why is it so{mark}because\nhow{mark}so\n")
        with pytest.raises(InputError, match="the first line, 'why is it so, because', is the header, but it does not"):
            read_pairs(str(path))
    lines = tmp_path / "pairs.jsonl"
    lines.write_text('{"the query": "why", "the answer": "because"}\n')
    assert read_pairs(str(lines)).queries == ["why"]


def test_a_file_without_pairs_is_refused(tmp_path: Path):
    one = tmp_path / "one.csv"
    one.write_text("text\na\n")
    with pytest.raises(InputError, match="must have two columns"):
        read_pairs(str(one))
    empty = tmp_path / "empty.csv"
    empty.write_text("question,answer\nwhy,\n")
    with pytest.raises(InputError, match="no row with two texts"):
        read_pairs(str(empty))
