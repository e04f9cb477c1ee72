"""The documentation: its blocks run, its links resolve, and what it names is there.

That the site builds without a warning is a matter for `make docs`.
"""

import inspect
import json
import re
import shlex
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from support.command import REPOSITORY
from support.tiny import TEXTS, tiny_encoder_directory

import textcl
from textcl.cli.main import COMMANDS, main
from textcl.errors import InputError
from textcl.methods import METHODS
from textcl.runs.flags import FlagParser
from textcl.runs.recipe import RECIPES, load_recipe, resolve

DOCS = REPOSITORY / "docs"
SKILL = REPOSITORY / "skills" / "textcl" / "SKILL.md"
PAGES = [REPOSITORY / "README.md", SKILL, REPOSITORY / "llms.txt", *sorted(DOCS.rglob("*.md"))]
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
SHIPPED = {path.stem for path in RECIPES.glob("*.yaml")}

# What is not run, and why. All else in a fence of Python, and every line that begins with `textcl`, is run.
NOT_RUN = {
    r"textcl data (fetch|import)": "a network, or an archive",
    r"textcl eval |textcl\.evaluate\(|--tasks|--baselines|STSBenchmark|read_sts": "the evaluation sets",
    rf"textcl (train|compare) ({'|'.join(sorted(SHIPPED, key=len, reverse=True))})\b": "its corpus, see test_recipe.py",
    r"textcl compare": "processes of their own, see test_compare.py",
    r"textcl results \S": "past runs, see test_results.py",
    r"import ray": "a cluster, see test_corpus_encoding.py",
    r"textcl judge .*(bm25|hybrid:)": "more texts than there are here, see test_judging.py",
    r"textcl report|textcl\.report": "a finished run, see test_report.py",
    r"LabelFree": "held-out texts, see test_label_free.py",
    r"langchain|llama_index|haystack": "packages that are not installed, see test_integrations.py",
}
# What stands in for what is not here, a backbone of the hub and the export of another page, or takes long.
STAND_INS = {"bert-base-uncased": "bundled", "runs/simcse/export": "my-encoder", "--steps 20": "--steps 2"}
STAND_INS |= {"--steps 100": "--steps 2"}
STAND_INS |= {"--static 256": "--static 64", "static=256": "static=64"}  # there are only 130 texts
FLAGS_OF_OTHERS = {
    "--extra-index-url": "pip",
    "--preload": "gunicorn",
    "--logdir": "tensorboard",
    "--fix-pred-lr": "SimSiam's authors",
    "--bootstrap": "benchmarks.significance",
    "--nproc_per_node": "torchrun",
    "--quick": "benchmarks",
    "--rounds": "benchmarks",
    "--collection": "benchmarks.dimensions",
    "--texts": "benchmarks.dimensions",
    "--table": "benchmarks.label_free",
}


def fences(page: Path) -> Iterator[tuple[str, str, int]]:
    """Language, content and first line of each fenced block."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield found[1], found[2], text[: found.start()].count("\n") + 2


def commands(block: str) -> list[str]:
    """The lines that begin with `textcl`, comments left out and continued lines joined."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.startswith("textcl ")]


def steps(page: Path) -> list[tuple[str, str, int]]:
    """What can be run of a page, in order: ("python" or "", code or a command, line)."""
    found = []
    for language, block, line in fences(page):
        parts = [block] if language == "python" else [] if language else commands(block)
        found.extend((language, part, line) for part in parts)
    return found


def reason(code: str) -> str | None:
    return next((why for sign, why in NOT_RUN.items() if re.search(sign, code)), None)


def prose(page: Path) -> str:
    """The page without its fences."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def as_built(page: Path) -> str:
    """The page as docs/hooks.py gives it to the site."""
    return hooks().on_page_markdown(page.read_text(encoding="utf-8"))


@cache
def hooks() -> Any:
    specification = spec_from_file_location("hooks", DOCS / "hooks.py")
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def slug(heading: str) -> str:
    """The anchor that the site gives a heading."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    documented = re.findall(r"^::: (\S+)$", as_built(page), flags=re.MULTILINE)
    return {slug(heading) for heading in headings} | set(documented)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages speak of."""
    folder = tmp_path_factory.mktemp("desk")
    lines = "\n".join(TEXTS[:130]) + "\n"
    for name in ("mine.txt", "notes.txt", "wiki.txt", "corpus.txt", "texts.txt"):
        (folder / name).write_text(lines)
    (folder / "documents.txt").write_text("".join(" ".join(TEXTS[i : i + 40]) + "\n" for i in range(70)))
    (folder / "pairs.tsv").write_text("".join(f"{TEXTS[i]}\t{TEXTS[i + i % 5]}\t{5 - i % 5}\n" for i in range(20)))
    tickets = [f"T-{n},{TEXTS[n + 100]},{TEXTS[n]},2024-01-{n % 28 + 1:02}\n" for n in range(100)]
    for name, some in (("tickets", tickets[:80]), ("more-tickets", tickets[80:])):
        (folder / f"{name}.csv").write_text("id,subject,body,date\n" + "".join(some))
    triplets = "".join(f"{TEXTS[i]},{TEXTS[i + 1]},{TEXTS[i + 90]}\n" for i in range(70))
    (folder / "triplets.csv").write_text(f"sent0,sent1,hard_neg\n{triplets}")
    tiny_encoder_directory(folder / "another-encoder")
    labelled = "".join(f"{text},{number % 2}\n" for number, text in enumerate(TEXTS[:40]))
    (folder / "labelled.csv").write_text(f"text,label\n{labelled}")
    (folder / "clicks.csv").write_text("query,clicked\n" + "".join(f"{TEXTS[n]},{TEXTS[n + 1]}\n" for n in range(40)))
    (folder / "judged" / "qrels").mkdir(parents=True)
    for name, some in (("corpus", TEXTS[:40]), ("queries", TEXTS[40:50])):
        rows = "".join(json.dumps({"_id": f"{number}", "text": text}) + "\n" for number, text in enumerate(some))
        (folder / "judged" / f"{name}.jsonl").write_text(rows)
    (folder / "judged" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\t2\t1\n")
    (folder / "shards").mkdir()
    for name, some in (("a", TEXTS[:65]), ("b", TEXTS[65:130])):
        shard = "".join(json.dumps({"text": text}) + "\n" for text in some)
        (folder / "shards" / f"{name}.jsonl.zst").write_bytes(pyarrow.compress(shard.encode(), "zstd", asbytes=True))
    (folder / "my-recipe.yaml").write_text("method: simcse\ndata: wiki.txt\nmax_steps: 2\n")
    textcl.Encoder.from_pretrained("bundled").save(folder / "my-encoder")
    page = (DOCS / "how-to" / "write-your-own-method.md").read_text(encoding="utf-8")
    own = page.split("```python\n")[1].split("\n\n\nmethod = ")[0]  # the class, without what trains it
    (folder / "mymethods.py").write_text(own + "\n", encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in zip(NAMES, PAGES, strict=True) if steps(page)])
def test_what_a_page_shows_runs(name, desk, tmp_path, monkeypatch, capsys):
    for path in desk.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTCL_DATA", "/nonexistent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sys.modules.pop("mymethods", None)  # of another page, whose directory is gone
    names = {"textcl": textcl}
    for number, (language, code, line) in enumerate(steps(REPOSITORY / name)):
        if reason(code):
            continue
        for sign, stand_in in STAND_INS.items():
            code = code.replace(sign, stand_in)
        if language == "python":
            exec(compile("\n" * (line - 1) + code, str(REPOSITORY / name), "exec"), names)
            continue
        arguments = shlex.split(code)[1:]
        if arguments[0] == "train" and "--output" not in code:
            arguments += ["--output", f"runs/{number}"]  # several commands of a page may have the same default
        if arguments[0] == "train" and "--max-steps" not in code.replace("_", "-"):
            arguments += ["--max_steps", "2"]
        try:
            code = main(arguments)
        except SystemExit as end:  # --help
            code = end.code
        assert code == 0, f"{name}, line {line}: {shlex.join(arguments)}: {capsys.readouterr().err}"


def test_few_blocks_are_not_run() -> None:
    every = [code for page in PAGES for _, code, _ in steps(page)]
    skipped = [code for code in every if reason(code)]
    assert len(every) > 100
    assert len(skipped) < 0.3 * len(every), "\n".join(skipped)
    for sign in NOT_RUN:
        assert any(re.search(sign, code) for code in every), f"{sign} stands for nothing any more"


@pytest.mark.parametrize("name", NAMES)
def test_links_resolve(name: str) -> None:
    page = REPOSITORY / name
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+://", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name} links to {target}"
        assert not anchor or anchor in anchors(other), f"{name} links to {target}"


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(node: Any) -> list[str]:
        entries = [value for entry in node for value in entry.values()]
        return [page for entry in entries for page in ([entry] if isinstance(entry, str) else pages(entry))]

    navigation = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages(navigation)) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_site_has_a_theme_switch_and_loads_nothing() -> None:
    site = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
    theme, extra = site["theme"], [*site["extra_css"], *site.get("extra_javascript", [])]
    assert theme["font"] is False
    assert all((DOCS / path).exists() for path in extra), "a file of ours, not of a network"
    assert not re.search(r"url\(|@import|//", (DOCS / "style.css").read_text())
    assert {"navigation.footer", "navigation.top"} <= set(theme["features"])
    assert [each["media"].strip("()") for each in theme["palette"]] == [
        "prefers-color-scheme",
        "prefers-color-scheme: light",
        "prefers-color-scheme: dark",
    ]
    assert [each.get("scheme") for each in theme["palette"]] == [None, "default", "slate"]
    assert all(each["toggle"]["icon"] and each["toggle"]["name"] for each in theme["palette"])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_page_with_its_defaults(method: str) -> None:
    page = DOCS / "methods" / f"{method}.md"
    text = page.read_text(encoding="utf-8")
    for part in ("**When to use it.**", "```math", "## Defaults", "## Where", f"textcl train {method} ", "```python"):
        assert part in text, f"{page.name} has no {part}"
    assert f"api/methods.md#{METHODS[method].__module__}.{METHODS[method].__qualname__})" in text
    parameters = inspect.signature(METHODS[method]).parameters
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| \S", text, flags=re.MULTILINE)
    assert len(rows) >= 3
    for parameter, default in rows:
        assert parameter in parameters, f"{page.name}: {method} has no {parameter}"
        assert str(parameters[parameter].default) == default, f"{page.name}: {parameter}"


def known_flags(capsys) -> set[str]:
    """The flags of all commands, as their help gives them; those of training also with dashes."""
    flags = {f"--{flag}" for method in METHODS for flag in FlagParser(method).known_flags()}
    flags |= {flag.replace("_", "-") for flag in flags}
    for command in COMMANDS:
        with pytest.raises(SystemExit) if command != "train" else pytest.MonkeyPatch.context():
            main([command, "--help"])
        flags |= set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
    flags |= {flag.replace("_", "-") for flag in flags}  # both spellings are understood
    return flags | {"--resume", "--overwrite", "--allow-code", "--help", "--help-all"}


def test_every_flag_exists(capsys) -> None:
    known = known_flags(capsys)
    for name, page in zip(NAMES, PAGES, strict=True):
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8")):
            assert flag in known or flag in FLAGS_OF_OTHERS, f"{name} speaks of {flag}"


def test_the_skill_names_the_commands_without_json(capsys) -> None:
    found = re.search(r"Without `--json` are ([^.]*\.json[^.]*)\.", SKILL.read_text(encoding="utf-8"))
    without = set()
    for command in COMMANDS:
        with pytest.raises(SystemExit) if command != "train" else pytest.MonkeyPatch.context():
            main([command, "--help"])
        if "--json" not in capsys.readouterr().out:
            without.add(command)
    assert found
    assert set(re.findall(r"`(\w+)`", found[1])) == without


def test_every_command_is_understood(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of `textcl train` to their last flag, by the method that they name, whether they are run or not."""
    monkeypatch.chdir(desk)
    for name, page in zip(NAMES, PAGES, strict=True):
        for code in (code for language, code, _ in steps(page) if not language):
            _, command, *arguments = shlex.split(code)
            assert command in COMMANDS, f"{name}: {code}"
            if command == "train" and arguments[0] != "my-recipe.yaml" and not {"--help", "--help-all"} & {*arguments}:
                what, *flags = arguments
                recipe = load_recipe(what) if what in SHIPPED else {"method": what}
                parser = FlagParser(recipe["method"])
                parser.add_argument("--resume", action="store_true")
                parser.add_argument("--overwrite", action="store_true")
                resolve(recipe, flags, parser)


def expanded(name: str) -> list[str]:
    """`simcse-{sup,unsup}-bert` -> its two names."""
    found = re.search(r"\{([^}]*)\}", name)
    if not found:
        return [name]
    choices = found[1].split(",")
    return [each for choice in choices for each in expanded(name[: found.start()] + choice + name[found.end() :])]


def test_every_recipe_named_exists() -> None:
    families = (
        "best-",
        "standard-",
        "esimcse-",
        "noise-",
        "promptbert-",
        "rankcse-",
        "scd-",
        *(f"{m}-" for m in METHODS),
    )
    seen = set()
    for name, page in zip(NAMES, PAGES, strict=True):
        words = [word for span in re.findall(r"`([a-z][\w{},-]*)`", prose(page)) for word in expanded(span)]
        for code in (code for language, code, _ in steps(page) if not language):
            words += [word for word in shlex.split(code)[2:] if word in SHIPPED]
        for word in words:
            if word.startswith(families) and word not in METHODS:
                assert word in SHIPPED, f"{name} names a recipe {word}"
                seen.add(word)
    assert SHIPPED - seen == {"demo"}


def located(name: str) -> Any:
    """The module, or the class or function of one, that a dotted name means; None: nothing."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(import_module(module), attribute, None)


@pytest.mark.parametrize("page", sorted((DOCS / "api").glob("*.md")), ids=lambda page: page.stem)
def test_what_the_api_pages_show_is_there(page: Path) -> None:
    shown = re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
    assert shown
    for name in shown:
        assert located(name) is not None, name


def test_the_site_lists_every_method_in_the_api() -> None:
    shown = as_built(DOCS / "api" / "methods.md").splitlines()
    listed = [f"::: {each.__module__}.{each.__qualname__}" for each in METHODS.values()]
    assert [line for line in shown if line in listed] == listed


def test_every_public_name_has_a_place_in_the_api() -> None:
    shown = {name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)$", as_built(page), re.M)}
    for name in set(textcl.__all__) - {"METHODS"}:
        home = getattr(textcl, name)
        assert {home.__module__, f"{home.__module__}.{home.__qualname__}"} & shown or (
            f"{home.__module__}.{name}" in shown
        ), f"{name} is in no page"


def test_the_checks_above_can_fail() -> None:
    assert reason("textcl eval my-encoder --tasks sts")
    assert not reason("textcl train simcse --data wiki.txt")
    assert commands("textcl a \\\n  --b c  # said\nmake d") == ["textcl a --b c"]
    assert expanded("a-{b,c}-{d,e}") == ["a-b-d", "a-b-e", "a-c-d", "a-c-e"]
    with pytest.raises(InputError, match=r"There is no flag --temprature\. Did you mean --temperature"):
        resolve({"method": "simcse"}, ["--temprature", "1"])
