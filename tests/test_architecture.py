"""The order of the rooms, by `ast`: no circle, no import upward, no file and no class that is too large."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.command import REPOSITORY

PACKAGE = REPOSITORY / "textcl"
# Data walks through the rooms in this order; a room imports only from rooms before it, and from itself.
GROUND = (
    *("errors", "texts", "ranges", "progress", "files", "seals", "locks", "terminal", "environment"),
    *("version", "device", "dropout", "tokenising", "words", "model_files", "distributed"),
)
ROOMS = (
    *(("metrics", "data", "views", "encoder", "collator", "losses", "modules", "methods", "vectors", "evaluation")),
    *(("training", "runs", "adaptation", "report", "demo", "cli", "__main__")),
)
LOSSES_MAY_IMPORT = {"losses", *GROUND}
VIEWS_MAY_IMPORT = {"views", *GROUND}
CATALOGUE = "textcl.data.catalogue"  # of `data`, the views need to know where WordNet lies
LINES = 450
METHODS = 20
PUBLIC_HOOKS = 26


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package but `textcl/__init__.py`, which names them all and is lazy."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        if name != "textcl":
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules of textcl that are imported, in functions too; blocks under TYPE_CHECKING are left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("textcl"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textcl"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules() else str(node.module)
        else:
            yield from imports(node)


def graph() -> dict[str, set[str]]:
    return {name: {each for each in imports(tree) if each != name} for name, tree in modules().items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """A path back to itself for some modules of each circle."""
    found, done = [], set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for each in sorted(graph.get(module, ())):
                walk(each, [*path, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found


def test_no_circle_of_imports():
    assert circles(graph()) == []


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]


def test_every_module_has_a_room():
    assert {room(module) for module in modules()} <= {*GROUND, *ROOMS}


def test_no_room_imports_from_a_later_one():
    order = dict.fromkeys(GROUND, 0) | {name: place for place, name in enumerate(ROOMS, start=1)}
    upward = [
        f"{module} imports {each}"
        for module, imported in graph().items()
        for each in imported
        if each != "textcl" and order[room(each)] > order[room(module)]
    ]
    assert upward == []


def test_the_ground_floor_imports_nothing_of_the_house():
    for module, imported in graph().items():
        if room(module) in GROUND:
            assert {room(each) for each in imported} <= {*GROUND}, module


def test_losses_and_views_import_themselves_and_the_ground_floor():
    for module, imported in graph().items():
        if room(module) == "losses":
            assert {room(each) for each in imported} <= LOSSES_MAY_IMPORT, module
        if room(module) == "views":
            assert {room(each) for each in imported - {CATALOGUE}} <= VIEWS_MAY_IMPORT, module


def test_rooms_hold_no_code_in_their_init():
    for path in PACKAGE.rglob("*/__init__.py"):
        kinds = {type(node) for node in ast.parse(path.read_text(encoding="utf-8")).body}
        assert not kinds & {ast.FunctionDef, ast.ClassDef}, path


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_too_long(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


def classes() -> dict[str, ast.ClassDef]:
    found: dict[str, ast.ClassDef] = {}
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[f"{module}.{node.name}"] = node
    return found


def methods_of(node: ast.ClassDef, known: dict[str, ast.ClassDef]) -> set[str]:
    """The methods of a class and of those classes of textcl that it inherits from, by name."""
    own = {each.name for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
    for base in node.bases:
        parent = known.get(ast.unparse(base).split("[")[0].split(".")[-1])
        if parent is not None and parent is not node:  # `class Dropout(nn.Dropout)`
            own |= methods_of(parent, known)
    return own


def test_no_class_has_too_many_methods_but_method():
    by_name = {node.name: node for node in classes().values()}
    method = methods_of(by_name["Method"], by_name)
    assert len([name for name in method if not name.startswith("_")]) <= PUBLIC_HOOKS
    too_many = {}
    for name, node in classes().items():
        if node.name == "Method":
            continue
        own = methods_of(node, by_name)
        if method <= own:  # a method of the papers: what it adds, or does in another way, counts
            own = own - method
        if len(own) > METHODS:
            too_many[name] = len(own)
    assert too_many == {}


def test_methods_that_are_inherited_count():
    tree = ast.parse("class A:\n def f(self): 0\nclass B(A):\n def g(self): 0")
    known = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert methods_of(known["B"], known) == {"f", "g"}
