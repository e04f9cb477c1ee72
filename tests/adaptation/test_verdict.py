"""The verdict: one test, an interval, a minimum, no loss elsewhere, and a count of looks."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from support.command import environment
from support.tiny import TEXTS, tiny_encoder_directory

import textcl
from textcl.adaptation import guard
from textcl.adaptation.guard import compare_cosines
from textcl.adaptation.ledger import count_look
from textcl.adaptation.verdict import DRAWS, Comparison, compare, judge
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.encoding import cosine
from textcl.evaluation.significance import over_pairs
from textcl.evaluation.sts import LabelledPairs
from textcl.locks import taken


def found(
    difference: float, p_value: float, low: float | None = None, error: float = 0.5, task: str = "a task"
) -> Comparison:
    low = difference - 1 if low is None else low
    high = difference + 1 if p_value > 0.05 else difference + 0.9
    return Comparison(task, "nDCG@10", 50.0, 50.0 + difference, low, high, p_value, 300, error)


def test_a_comparison_by_hand():
    before, after = np.array([0.0, 100.0, 50.0, 0.0]), np.array([100.0, 100.0, 50.0, 50.0])
    result = compare(before, after, np.array([0, 0, 1, 2]), "a task")
    assert (result.before, result.after, result.difference, result.units) == (37.5, 75.0, 37.5, 3)
    # sums of the units: 100, 0, 50; of the four sign patterns of the two that are not 0, two are as far from 0
    assert result.p_value == 0.5


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(100):
        units = np.repeat(np.arange(60), 2)
        shift = 3 + np.repeat(generator.normal(0, 10, 60), 2) + generator.normal(0, 5, 120)
        result = compare(np.zeros(120), shift, units, "a task")
        covered += result.low <= 3 <= result.high
    assert 88 <= covered <= 100


def test_queries_of_one_unit_do_not_make_the_interval_narrower():
    generator = np.random.default_rng(1)
    shift = generator.normal(1, 5, 40)
    once = compare(np.zeros(40), shift, np.arange(40), "a task")
    repeated = compare(np.zeros(400), np.tile(shift, 10), np.tile(np.arange(40), 10), "a task")
    assert repeated.error == pytest.approx(once.error, rel=0.1)
    assert repeated.p_value == pytest.approx(once.p_value, abs=0.02)


def test_interval_and_error_are_those_of_a_loop_that_pools_the_queries_of_the_drawn_units():
    shift = np.random.default_rng(2).normal(1, 5, 21)
    units = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])  # each query counts the same, whatever the size of its unit
    members, generator = [shift[units == unit] for unit in range(6)], np.random.default_rng(0)
    drawn = [np.concatenate([members[i] for i in generator.integers(6, size=6)]).mean() for _ in range(DRAWS)]
    result = compare(np.zeros(21), shift, units, "a task")
    assert result.difference == pytest.approx(shift.mean())
    assert (result.low, result.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975], method="weibull"))
    assert result.error == pytest.approx(np.std(drawn, ddof=1))


def test_two_equal_queries_in_each_unit_are_one():
    """Also where nearly all units are unchanged, so that the error is the least that is believed."""
    for shift in (np.random.default_rng(3).normal(1, 5, 40), 50.0 * (np.arange(40) == 7)):
        once = compare(np.zeros(40), shift, np.arange(40), "a task")
        twice = compare(np.zeros(80), np.repeat(shift, 2), np.repeat(np.arange(40), 2), "a task")
        assert asdict(twice) == pytest.approx(asdict(once))


def test_the_smallest_difference_is_shown_four_times_in_five():
    assert found(0, 1, error=1.0).smallest() == pytest.approx(1.96 + 0.84, abs=0.01)


def test_units_that_are_too_few_for_the_test_show_nothing_however_equal_their_gains_are():
    for units, p_value in ((1, 1.0), (5, 2 / 2**5)):
        result = compare(np.zeros(units), np.linspace(10, 12, units), np.arange(units), "a task")
        assert (result.p_value, result.smallest(), result.record()["smallest"]) == (p_value, None, None)
        assert (
            judge(result, 1.0, None, [])
            .sentence()
            .endswith(f"; {units} groups of texts, too few to show any difference")
        )
    result = compare(np.zeros(6), np.linspace(10, 12, 6), np.arange(6), "a task")
    assert result.p_value == 2 / 2**6
    assert result.smallest() is not None
    assert result.smallest(0.05 / 2) is None
    assert "too few to show any difference; look number 2" in judge(result, 1.0, None, [], looks=2).sentence()


@pytest.mark.parametrize("few", [0, 1, 5])
def test_the_smallest_difference_of_units_that_hardly_change_is_shown_about_four_times_in_five(few: int):
    """All or nothing for each unit, such as a recognised edit: one that changes, changes by 100 points."""
    units, generator = 300, np.random.default_rng(few)
    result = compare(np.zeros(units), 100.0 * (np.arange(units) < few), np.arange(units), "a task")
    smallest = result.smallest()
    assert smallest is not None
    shown = [
        compare(np.zeros(units), 100.0 * (generator.random(units) < smallest / 100), np.arange(units), "").p_value
        for _ in range(40)
    ]
    assert np.mean(np.array(shown) <= 0.05) >= 0.5
    assert smallest < 3


def test_a_guard_is_the_bootstrap_over_its_pairs():
    generator = np.random.default_rng(4)
    gold = generator.normal(size=60)
    before, after = (gold + generator.normal(size=60) for _ in range(2))
    result, expected = compare_cosines("pairs", gold, before, after), over_pairs([gold], [before], [after])
    sides = [100 * spearmanr(gold, side).statistic for side in (before, after)]
    assert (result.before, result.after) == pytest.approx(sides)
    assert (result.low, result.high, result.p_value) == (expected.low, expected.high, expected.p_value)
    assert result.error == pytest.approx((expected.high - expected.low) / 3.92)
    assert (result.task, result.units) == ("similarity on pairs", 60)


def test_a_guard_compares_an_encoder_with_its_map_on_graded_pairs_with_its_own_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{TEXTS[i]}\t{TEXTS[i + i % 5]}\t{5 - i % 5}\n" for i in range(40)]
    (tmp_path / "pairs.tsv").write_text("".join(rows))
    monkeypatch.setattr(guard, "GRADED_PAIRS", tmp_path / "pairs.tsv")
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path))  # STS-B is not there
    directory = tiny_encoder_directory(tmp_path / "model")
    encoder = Encoder.from_pretrained(directory, prompts={"q": "the old sailor "}, default_prompt_name="q")
    weight = np.random.default_rng(5).normal(size=(32, 32)).astype(np.float32)
    (result,) = guard.compare_guards(encoder, encoder, Workplace(tmp_path / "place"), weight)
    pairs = LabelledPairs(tmp_path / "pairs.tsv").tasks["pairs"][0]
    sides = [encoder.encode(texts) for texts in (pairs.first, pairs.second)]
    cosines = [cosine(*sides), cosine(*(side + side @ weight.T for side in sides))]
    expected = compare_cosines("graded pairs of WordNet", np.array(pairs.scores), *cosines)
    assert expected.before != expected.after
    assert asdict(result) == pytest.approx(asdict(expected))


@pytest.mark.parametrize(
    ("main", "second", "guards", "outcome"),
    [
        (found(2, 0.001), found(1, 0.2), [found(-0.1, 0.5)], "better"),
        (found(2, 0.001), None, [], "better"),
        (found(2, 0.06), None, [], "no difference"),
        (found(0.9, 0.001), None, [], "no difference"),  # less than the point that counts
        (found(-2, 0.001), None, [], "worse"),
        (found(2, 0.001), found(-1, 0.01), [], "worse"),
        (found(2, 0.001), found(-1, 0.3), [], "better"),
        (found(2, 0.001), None, [found(-1.5, 0.001, low=-2.1)], "worse"),
        (found(2, 0.001), None, [found(3, 0.2, low=-2.1)], "no difference"),
        (found(2, 0.001), None, [found(-0.5, 0.2, low=-2.1)], "no difference"),  # a loss that is not shown
        (found(2, 0.001), None, [found(-1, 0.1, low=-1.9)], "better"),
        (found(0.1, 0.6), found(-20, 0.001), [], "worse"),  # a loss elsewhere is said whatever the main test shows
        (found(0.1, 0.6), None, [found(-20, 0.001)], "worse"),
        (found(0.1, 0.6), found(-1, 0.3), [found(3, 0.2, low=-2.1)], "no difference"),
    ],
)
def test_what_the_verdict_is(main: Comparison, second: Comparison | None, guards: list[Comparison], outcome: str):
    assert judge(main, 1.0, second, guards).outcome == outcome


def test_what_is_worse_elsewhere_is_not_called_worse_at_the_main_view():
    sentence = judge(found(0.1, 0.6, task="one"), 1.0, found(-20, 0.001, task="two"), []).sentence()
    assert sentence.startswith("VERDICT: worse; at one: nDCG@10 50.0 → 50.1, +0.1 (")
    assert "; but worse at two: nDCG@10 50.0 → 30.0, -20.0 (" in sentence


def test_looks_and_models_make_the_level_smaller():
    main = found(2, 0.02)
    assert judge(main, 1.0, None, []).outcome == "better"
    assert judge(main, 1.0, None, [], looks=3).outcome == "no difference"
    assert judge(main, 1.0, None, [], models=3).outcome == "no difference"
    assert "look number 3" in judge(main, 1.0, None, [], looks=3).sentence()
    # a loss elsewhere is shown at 5 %, however often the main evidence was looked at
    assert judge(found(2, 0.001), 1.0, found(-1, 0.04), [], looks=3, models=3).outcome == "worse"


def test_a_sentence_names_measure_interval_and_groups():
    assert judge(found(2, 0.001, task="finding a body by its title"), 1.0, found(1, 0.5), []).sentence() == (
        "VERDICT: better at finding a body by its title: nDCG@10 50.0 → 52.0, +2.0 (95 % interval +1.0 to +2.9); "
        "300 groups of texts, enough to show a difference of 1.4"
    )


def test_a_look_counts_once_and_only_for_its_own_evidence(tmp_path: Path):
    ledger = tmp_path / "looks" / "ledger.jsonl"
    assert [count_look("texts", look, ledger) for look in ("a", "b", "a", "c")] == [1, 2, 1, 3]
    assert count_look("other texts", "c", ledger) == 1
    assert count_look("texts", "d", tmp_path / "another" / "ledger.jsonl") == 1


LOOK = '{"evidence": "a", "look": "b"}\n'
COUNTS = """
import sys
from textcl.adaptation.ledger import count_look
for look in range(10):
    print(count_look("texts", f"{sys.argv[2]} {look}", sys.argv[1]), flush=True)
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LOOK * 2 + '{"text": "a text"}\n', "line 3, is not a look of textcl adapt; remove that line"),
        (LOOK + '"evidence"\n', "line 2, is not a look"),
        ("notes\n", "line 1, is not a look"),
        (LOOK + LOOK[:20], "line 2, is not a look"),
        (b"\xff\xfe", "cannot be read: it is not text in UTF-8"),
        (None, "is a folder|is not a file|cannot be written"),
    ],
)
def test_a_ledger_of_another_kind_is_refused_before_a_model_is_loaded(
    content: str | bytes | None, said: str, tmp_path: Path
):
    ledger = tmp_path / "ledger"
    if content is None:
        ledger.mkdir()
    else:
        ledger.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=rf"^The ledger .*ledger.* ({said}).*name another file with --ledger\.$"):
        textcl.adapt("no-such-model", ["a text", "another"], tmp_path / "out", ledger=ledger)


def test_a_ledger_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(InputError, match=r"^The ledger .*looks\.jsonl is in .*out, which is replaced"):
        textcl.adapt("no-such-model", ["a text", "another"], tmp_path / "out", ledger=tmp_path / "out" / "looks.jsonl")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    with pytest.raises(InputError, match=r"^The ledger /proc/nothing.* cannot be written: .*name another file with"):
        textcl.adapt("no-such-model", ["a text", "another"])


def test_processes_that_count_at_the_same_moment_wait_for_each_other_and_for_nothing_else_in_the_folder(tmp_path: Path):
    ledger = tmp_path / "ledger.jsonl"
    with taken(tmp_path):  # by something else that works in the same folder
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", COUNTS, str(ledger), name], env=environment(), stdout=subprocess.PIPE, text=True
            )
            for name in ("one", "two", "three")
        ]
        counted = [int(line) for process in processes for line in process.communicate()[0].split()]
    assert sorted(counted) == list(range(1, 31))
    assert len(ledger.read_text().splitlines()) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.jsonl"]
