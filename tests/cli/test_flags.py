"""Flags of every command: help, both spellings, no abbreviations, and the answer to an unknown one."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
from support.command import textcl

from textcl.cli.main import COMMANDS, Parser, main
from textcl.errors import InputError
from textcl.methods import METHODS

# What comes before the flags, for those that do not begin with them.
BEFORE = {
    "train": [["train", "simcse"]],
    "data": [["data", action] for action in ("list", "fetch", "import", "verify")],
}
CALLS = [call for command in COMMANDS for call in BEFORE.get(command, [[command]])]
NEEDED = {"compare": ["demo"]}


def help_of(call: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) if call[0] != "train" else pytest.MonkeyPatch.context():
        main([*call, "--help"])
    return capsys.readouterr().out


def test_textcl_alone_prints_its_help_and_exits_with_2(tmp_path: Path) -> None:
    run = textcl(cwd=tmp_path)
    assert run.returncode == 2
    assert run.stdout == textcl("--help", cwd=tmp_path).stdout
    assert all(f"\n  {command} " in run.stdout for command in COMMANDS)


def test_train_alone_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    shown = capsys.readouterr()
    assert "textcl train METHOD|RECIPE --help-all" in shown.out
    assert shown.err == "textcl: Name a method or a recipe, as in: textcl train simcse --data wiki.txt.\n"


@pytest.mark.parametrize("method", METHODS)
def test_the_help_of_train_is_short(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(["train", method], capsys)
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 120
    assert "(default: None)" not in text
    assert not re.search(r"--\w*_", text)
    flags = set(re.findall(r"--[a-z][\w-]*", text))
    assert {"--data", "--max-length", "--resume", "--gradient-cache", "--seed"} <= flags
    assert not {"--fsdp", "--deepspeed", "--hub-token", "--output-dir"} & flags


def test_help_all_shows_the_flags_of_transformers_too(capsys: pytest.CaptureFixture[str]) -> None:
    import inspect

    from textcl.runs.flags import FlagParser, method_flags

    assert main(["train", "simcse", "--help-all"]) == 0
    text = capsys.readouterr().out
    assert "(default: None)" not in text
    shown = set(re.findall(r"^  --([a-z][\w-]*)", text, flags=re.MULTILINE))
    known = {flag.replace("_", "-") for flag in FlagParser("simcse").known_flags() if not flag.startswith("no_")}
    assert {"fsdp", "deepspeed", "per-device-train-batch-size"} <= shown
    assert known - shown == {"output-dir"}
    assert shown - known == {"resume", "overwrite", "allow-code"}
    for name in method_flags("simcse").__dataclass_fields__:  # with their defaults
        default = inspect.signature(METHODS["simcse"]).parameters[name].default
        value = "true|false" if default is None else str(default).lower()
        assert f"--{name.replace('_', '-')} {value}  " in text


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_help_spells_flags_with_dashes(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(call, capsys)
    assert not re.search(r"--[a-z]+_", text)
    assert "(default: None)" not in text


class Parsed(Exception):
    """Ends a command once its arguments are parsed."""


def parsed(call: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """What the outermost parser of a command makes of its arguments."""
    original = argparse.ArgumentParser.parse_known_args

    def stop(self: argparse.ArgumentParser, *given: Any, **named: Any) -> Any:
        found = original(self, *given, **named)
        if self.prog.split()[:3] == ["textcl", *call[: len(self.prog.split()) - 1]] and self.prog != "textcl":
            raise Parsed(found)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        with pytest.raises(Parsed) as caught:
            main(call)
    return caught.value.args[0]


VALUES = {
    "train": ["per-device-train-batch-size=8", "max-length=16", "mask-duplicates=true"],
    "compare": ["data-dir=sets"],
    "eval": ["max-length=16", "batch-size=8", "data-dir=sets"],
    "encode": ["max-length=16", "batch-size=8", "shard-rows=9", "precision=bf16"],
    "cluster": ["max-length=16", "batch-size=8", "first-view=plain", "save-encoder=x", "min-size=9", "id-column=key"],
    "results": ["data-dir=sets"],
    "data": ["data-dir=sets"],
    "judge": ["query-log=a.txt"],
    "explore": ["id-column=key"],
    "duplicates": ["id-column=key"],
    "distill": ["batch-size=8", "learning-rate=0.1"],
}
POSITIONALS = {
    "train": ["simcse"],
    "compare": ["demo"],
    "eval": ["bundled"],
    "encode": ["bundled", "a.txt", "--output=v.npy"],
    "cluster": ["bundled", "a.txt", "--output=c.csv"],
    "data": ["list"],
    "judge": ["bm25", "tfidf", "--data=a.txt"],
    "explore": ["a.csv", "--output=o"],
    "duplicates": ["a.csv"],
    "distill": ["bundled", "--data=a.txt", "--output=o", "--static=8"],
}


@pytest.mark.parametrize("command", VALUES)
def test_both_spellings_are_taken(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [command, *POSITIONALS.get(command, [])]
    dashes = [f"--{value}" for value in VALUES[command]]
    underscores = [
        f"--{value.partition('=')[0].replace('-', '_')}={value.partition('=')[2]}" for value in VALUES[command]
    ]
    apart = [part for flag in underscores for part in flag.split("=")]
    first, unknown = parsed([*before, *dashes], monkeypatch)
    assert unknown == []
    for flags in (underscores, apart):
        again, unknown = parsed([*before, *flags], monkeypatch)
        assert (vars(again), unknown) == (vars(first), [])


SWITCHES = {"--allow-code", "--no-texts", "--raw-csv", "--safe-csv"}


def test_every_flag_of_two_words_is_covered_above(capsys: pytest.CaptureFixture[str]) -> None:
    for call in CALLS:
        two_words = set(re.findall(r"--[a-z]+-[a-z-]+", help_of(call, capsys))) - SWITCHES
        assert not two_words or call[0] in VALUES, call


def test_a_switch_and_a_value_with_an_underscore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, _ = parsed(["report", "my_run", "--no_texts", "--output", "my_page.html"], monkeypatch)
    assert (given.source, given.no_texts, given.output) == ("my_run", True, "my_page.html")
    given, _ = parsed(["search", "vectors", "--", "--a_query"], monkeypatch)
    assert given.query == "--a_query"


@pytest.mark.parametrize(
    ("call", "name", "value"),
    [
        (["search", "vectors", "--top", "3", "a query"], "query", "a query"),
        (["search", "--top", "3", "vectors", "a query"], "query", "a query"),
        (["search", "vectors", "--top", "3"], "query", None),
        (["cluster", "bundled", "--clusters", "3", "a.txt", "--output", "c.csv"], "texts", "a.txt"),
        (["cluster", "vectors", "--output", "c.csv"], "texts", None),
    ],
)
def test_a_positional_may_stand_behind_a_flag(call: list[str], name: str, value: str | None):
    parser = Parser(prog="textcl")
    parser.add_argument("first")
    parser.add_argument(name, nargs="?")
    parser.add_argument("--top", type=int)
    parser.add_argument("--clusters", type=int)
    parser.add_argument("--output")
    given = parser.parse_with_optional(name, call[1:])
    assert getattr(given, name) == value
    with pytest.raises(InputError, match=r"[Uu]nrecognized arguments: more"):
        parser.parse_with_optional(name, [*call[1:], *([] if value else ["one"]), "more"])


@pytest.mark.parametrize(
    "call", [["m", "a", "b", "--top", "3"], ["m", "--top", "3", "a", "b"], ["m", "a", "--top", "3", "b"]]
)
def test_several_positionals_may_stand_around_a_flag(call: list[str]) -> None:
    parser = Parser(prog="textcl")
    parser.add_argument("first")
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--top", type=int)
    assert vars(parser.parse_with_optional("texts", call)) == {"first": "m", "texts": ["a", "b"], "top": 3}


MISSPELT = {
    "train": ("--learning-rat", "--learning-rate"),
    "methods": ("--jsno", "--json"),
    "recipes": ("--jsno", "--json"),
    "compare": ("--baselins", "--baselines"),
    "adapt": ("--minute", "--minutes"),
    "judge": ("--answer", "--answers"),
    "eval": ("--maxlength", "--max-length"),
    "encode": ("--normalise", "--normalize"),
    "search": ("--topp", "--top"),
    "explore": ("--colum", "--column"),
    "distill": ("--layer", "--layers"),
    "cluster": ("--cluster", "--clusters"),
    "map": ("--duplicate", "--duplicates"),
    "duplicates": ("--treshold", "--threshold"),
    "results": ("--methode", "--method"),
    "report": ("--no-text", "--no-texts"),
    "data": ("--datadir", "--data-dir"),
    "demo": ("--overwrit", "--overwrite"),
    "env": ("--jsno", "--json"),
}


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_an_unknown_flag_is_answered_with_the_nearest(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Also an abbreviation, which argparse would take, and before a required argument is asked for."""
    wrong, right = MISSPELT[call[0]]
    for flag in (wrong, wrong.replace("-", "_").replace("__", "--")):
        assert main([*call, *NEEDED.get(call[0], []), flag, "1"]) == 2
        shown = capsys.readouterr()
        assert f"There is no flag {wrong}. Did you mean {right}?" in shown.err
        assert shown.out == ""


@pytest.mark.parametrize("command", ["compare", "demo"])
def test_flags_of_train_are_suggested_where_they_are_passed_on(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, *NEEDED.get(command, []), "--max_lenght", "16"]) == 2
    assert "There is no flag --max-lenght. Did you mean --max-length?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_flag_that_is_like_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--qqq"]) == 2
    assert capsys.readouterr().err == "textcl: There is no flag --qqq. textcl env --help lists the flags.\n"


def test_messages_spell_flags_with_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "simcse", "--max_length", "long"]) == 2
    assert "--max-length must be a whole number of at least 1, not long." in capsys.readouterr().err
    assert main(["train", "simcse", "--data", "bundled", "--held_out", "5"]) == 2
    assert "--held-out can be used only if --dev is one of" in capsys.readouterr().err
