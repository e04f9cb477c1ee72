"""Numbers outside their range are refused with the range: in every method, in training arguments, in every command."""

import inspect
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.adaptation.adapt import adapt
from textcl.cli.main import COMMANDS, main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import cluster_texts, cluster_vectors
from textcl.methods import METHODS
from textcl.modules import InfoNCE
from textcl.ranges import Count, Range, Share, checked, range_of, ranges_of, with_values_attached
from textcl.report.explore import explore
from textcl.report.map import write_map
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.checks import RANGES
from textcl.vectors.distill import distill
from textcl.vectors.duplicates import near_duplicates
from textcl.vectors.encode import encode_corpus

LIBRARY = (adapt, cluster_texts, cluster_vectors, distill, encode_corpus, explore, near_duplicates, write_map)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranges")
    tiny_encoder_directory(folder / "model")
    (folder / "texts.txt").write_text("\n".join(TEXTS[:33]), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (Range(above=0), (1e-9, 5), (0, -1, math.nan, math.inf, "1", None)),
        (Range(at_least=0, at_most=1), (0, 0.5, 1), (-0.001, 1.001, math.nan)),
        (Range(at_least=0, below=1), (0, 0.999), (1, -1)),
        (Range(at_least=1, also=-1, whole=True), (1, -1), (0, -2, 1.5)),
        (Range(), (-3.5, 0), (math.inf, -math.inf, math.nan, 10**400)),
        (Range(whole=True), (2**63 - 1, -(2**63) + 1), (2**63, -(2**63), 10**400)),
    ],
    ids=str,
)
def test_what_is_in_a_range(allowed: Range, inside: tuple[Any, ...], outside: tuple[Any, ...]) -> None:
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)


def test_a_range_stands_beside_the_type() -> None:
    assert range_of(Count | None) == Range(at_least=1, whole=True)
    assert range_of(Share) == Range(at_least=0, at_most=1)
    assert range_of(float) == Range()
    assert range_of(str | None) is None
    assert str(Range(at_least=1, also=-1, whole=True)) == "a whole number of at least 1, or -1"


@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_every_method_is_checked_by_its_constructor(name: str, folder: Path) -> None:
    """No number may be NaN or infinite, and none may lie below the bound that its type names."""
    encoder = Encoder.from_pretrained(folder / "model")
    ranges = ranges_of(METHODS[name].__init__)
    parameters = inspect.signature(METHODS[name]).parameters.values()
    assert {each.name for each in parameters if type(each.default) in (int, float)} <= set(ranges)
    for parameter, allowed in ranges.items():
        for wrong in (math.nan, math.inf, *([-1] if -1 not in allowed else [])):
            with pytest.raises(InputError, match=f"^{parameter} must be a (whole|finite) number.*, not {wrong}"):
                METHODS[name](encoder, **{parameter: wrong})


@pytest.mark.parametrize("function", LIBRARY, ids=lambda function: function.__name__)
def test_functions_of_the_library_check_their_numbers_before_any_work(function: Any) -> None:
    """As their commands do: no text is encoded for a seed that k-means refuses."""
    ranges, parameters = ranges_of(function), inspect.signature(function).parameters
    assert "seed" not in parameters or -1 not in ranges["seed"]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [each.name for each in parameters.values() if each.default is each.empty and each.kind in kinds]
    for name, allowed in ranges.items():
        for wrong in (math.nan, "5", *([-1] if -1 not in allowed else [])):
            with pytest.raises(InputError, match=f"^{name} must be a (whole|finite) number.*, not {wrong!r}"):
                function(**{**dict.fromkeys(needed, "nothing"), name: wrong})


def test_a_checked_function_gets_numbers_of_numpy_as_pythons() -> None:
    @checked
    def both(count: Count, share: Share | None = None, **options: Any) -> list[Any]:
        return [count, share, options]

    found = both(np.int64(3), share=np.float32(0.5), more=np.int64(1))
    assert found == [3, 0.5, {"more": 1}]
    assert [type(each) for each in found] == [int, float, dict]
    assert both(3) == [3, None, {}]


def test_a_temperature_that_is_not_a_number_is_refused_without_a_method() -> None:
    for wrong in (math.nan, math.inf, 0.0, -1.0):
        with pytest.raises(InputError, match="temperature must be a finite number above 0"):
            InfoNCE(wrong)
    with pytest.raises(InputError, match=r"A learned temperature must be a finite number of at least 0\.01, not nan"):
        InfoNCE(math.nan, learn_temperature=True)


def test_every_training_argument_that_is_a_number_has_a_range() -> None:
    numbers = {
        field.name
        for field in fields(ContrastiveTrainingArguments)
        if field.init and re.search(r"\b(int|float)\b", str(field.type)) and "Literal" not in str(field.type)
    }
    assert set(RANGES) == numbers - {"warmup_ratio"}  # deprecated; transformers 5.5 still has it


@pytest.mark.parametrize("name", RANGES)
def test_training_arguments_outside_their_range_are_refused(name: str, folder: Path) -> None:
    for wrong in (math.nan, math.inf, *([-2] if -2 not in RANGES[name] else [])):
        with pytest.raises(InputError, match=f"^{name} must be a (whole|finite) number.*, not {wrong}"):
            ContrastiveTrainingArguments(str(folder / "run"), **{name: wrong})
    for wrong in ("nan", "inf", "-inf", "-1e400", "many"):
        with pytest.raises(ValueError, match=f"^must be .*, not {wrong}"):
            RANGES[name].read(wrong)


TRAIN = ["train", "simcse", "--model", "model", "--data", "texts.txt", "--output", "run", "--dev", "none"]
WRONG = {
    "temperature": ("nan", "a finite number above 0"),
    "learning-rate": ("-1e-5", "a finite number above 0"),
    "learning_rate": ("-inf", "a finite number above 0"),
    "text-view-rate": ("nan", "a finite number of at least 0 and at most 1"),
    "dropout": ("1.5", "a finite number of at least 0 and below 1"),
    "limit": ("-5", "a whole number of at least 1"),
    "max-length": ("0", "a whole number of at least 1"),
    "num-train-epochs": ("-1", "a finite number above 0"),
    "max-steps": ("0", "a whole number of at least 1, or -1"),
    "gradient-accumulation-steps": ("0", "a whole number of at least 1"),
    "mlm-probability": ("1.2", "a finite number above 0 and at most 1"),
    "held-out": ("1.5", "a whole number of at least 1"),
    "seed": ("4294967296", "a whole number of at least 0 and at most 4,294,967,295"),
    "target-score": ("nan", "a finite number"),
}


@pytest.mark.parametrize("flag", WRONG)
def test_train_says_the_range_of_a_flag_and_writes_nothing(
    flag: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    value, allowed = WRONG[flag]
    assert main([*TRAIN, f"--{flag}", value]) == 2
    name = flag.replace("_", "-")
    assert re.fullmatch(rf"textcl: --{name} must be {re.escape(allowed)}, not [^ ]+\.\n", capsys.readouterr().err)
    assert not (folder / "run").exists()


POSITIONALS = {
    "eval": ["bundled"],
    "encode": ["bundled", "a.txt", "--output", "v"],
    "cluster": ["bundled", "a.txt", "--output", "c.csv"],
    "search": ["v", "query"],
    "compare": ["demo"],
}
NUMBERS = {
    "eval": ["--batch-size", "--max-length"],
    "encode": ["--batch-size", "--max-length", "--limit", "--shard-rows"],
    "cluster": ["--batch-size", "--max-length", "--limit", "--clusters", "--nearest", "--seed", "--steps"],
    "search": ["--top"],
    "compare": ["--seeds"],
}


@pytest.mark.parametrize("command", NUMBERS)
@pytest.mark.parametrize("value", ["-3", "nan", "1.5", "-1e3", "many"])
def test_every_command_says_the_range_of_a_number(command: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in NUMBERS[command]:
        assert main([command, *POSITIONALS[command], flag, value]) == 2
        assert re.match(
            rf"textcl: {flag} must be a whole number of at least \d.*, not {value} \(see", capsys.readouterr().err
        )


def test_a_whole_number_fits_in_64_bits(capsys: pytest.CaptureFixture[str]) -> None:
    """Larger ones are errors of the libraries below, in their words."""
    bound = "a whole number of at least 1 and at most 9,223,372,036,854,775,807"
    for value in (str(2**63), "9" * 400):
        assert main(["encode", "bundled", "a.txt", "--output", "v", "--limit", value]) == 2
        assert f"--limit must be {bound}, not {value} (see" in capsys.readouterr().err
    with pytest.raises(InputError, match=f"^limit must be {bound}, not {10**20}"):
        Range(at_least=1, whole=True).check("limit", 10**20)


def test_no_flag_of_a_command_is_a_number_without_a_range() -> None:
    """Their types are made by `within`, not by int or float alone."""
    import textcl.cli

    for command in COMMANDS:
        source = (Path(textcl.cli.__path__[0]) / f"{command}.py").read_text(encoding="utf-8")
        assert not re.search(r"type=(int|float)\b", source), command


def test_negative_numbers_are_values_and_not_flags() -> None:
    given = ["--a", "-1e-5", "--b", "-inf", "--c", "--d", "-.5", "x", "-2", "--e=-1", "-h"]
    assert list(with_values_attached(given)) == ["--a=-1e-5", "--b=-inf", "--c", "--d=-.5", "x", "-2", "--e=-1", "-h"]
