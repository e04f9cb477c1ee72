"""`python -m benchmarks [NAME …] [--quick]`: textcl versus its peers, as a table and as JSON.

Three others have flags of their own: `python -m benchmarks what-helps …`, what each method does to a tuned encoder,
`dimensions …`, vectors of few dimensions, and `distill …`, students.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from textcl.cli.main import Parser, quieten
from textcl.errors import InputError, nearest

NAMES = {  # the module of each name has a function `run(options) -> rows`
    "training": "SimCSE steps versus MultipleNegativesRankingLoss",
    "encode": "sentences per second",
    "sts": "the seven STS tasks, from text to table",
    "info-nce": "time and memory of the loss and its gradient versus the whole matrix and versus NT-Xent by pairs",
    "gradient-cache": "a batch of thousands versus CachedMultipleNegativesRankingLoss",
    "transfer": "the seven transfer tasks versus SentEval's loop over folds and regularisations",
    "corpus": "time and memory of encoding a corpus to Parquet",
    "bits": "recall, size and speed of a search with fewer dimensions and fewer bits versus exact float32",
    "search": "many vectors: exact, HNSW, IVF, words, hybrid; recall, speed, building and memory",
    "duplicates": "precision and recall of planted near-duplicates versus SemHash and versus cosines alone",
    "memory": "resident size over 200 training steps, and during cluster --adapt",
    "clusters": "the classes of labelled texts found by k-means and by density versus BERTopic",
    "ranks": "training on one process and on two",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named benchmarks and returns the exit code: 2 if one of them cannot run."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] in (["what-helps"], ["dimensions"], ["distill"]):  # with flags of their own
        try:
            return int(import_module(f"benchmarks.{arguments[0].replace('-', '_')}").main(arguments[1:]))
        except InputError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 2
    parser = Parser(
        prog="python -m benchmarks",
        description="Shows ratios textcl : peer of medians; both sides run in turns. "
        + " ".join(f"{name}: {text}." for name, text in NAMES.items()),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only check that it runs and agrees")
    parser.add_argument(
        "--data",
        default="bundled",
        metavar="FILE",
        help="a file of sentences; for search also a directory of textcl encode (default: bundled texts)",
    )
    parser.add_argument("--model", metavar="DIRECTORY", help="default: all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, help="how often each side runs (default: depends on the benchmark)")
    parser.add_argument("--output", default="benchmarks.json", metavar="FILE.json")
    try:
        given = parser.parse_args(arguments)
        for name in given.names:
            if name not in NAMES:
                raise InputError(f"There is no benchmark {name!r}.{nearest(name, NAMES)}")
        if given.rounds is not None and given.rounds < 1:
            raise InputError(f"--rounds must be at least 1, not {given.rounds}.")
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2

    quieten()
    from benchmarks.measure import Options, show
    from textcl.cli.env import describe
    from textcl.files import write_json

    options = Options(given.model, given.data, given.rounds, given.quick)
    machine = describe()
    for package in ("pytorch-metric-learning", "semhash"):
        with suppress(PackageNotFoundError):
            machine[package] = version(package)
    print("\n".join(f"{name:<25}{value}" for name, value in machine.items()))
    rows, missing = [], {}
    for name in given.names or NAMES:
        try:
            found = import_module(f"benchmarks.{name.replace('-', '_')}").run(options)
        except InputError as error:
            missing[name] = str(error)
            print(f"\n{name}: {error}", file=sys.stderr)
            continue
        rows += found
        print(f"\n{show(found)}", flush=True)
        # written after each benchmark, so that an interruption loses only one
        written = {"machine": machine, "options": asdict(options), "rows": [row.to_dict() for row in rows]}
        write_json(given.output, written)
    if given.quick:
        print("\nThese are tiny sizes: the numbers say nothing about speed.")
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
