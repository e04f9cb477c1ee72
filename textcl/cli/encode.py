"""`textcl encode [MODEL] FILE... --output DIRECTORY|FILE.npy [--precision bf16] [--dtype ubinary] [--append]`"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from textcl.cli.eval import add_model_flags
from textcl.cli.main import Parser, within, without_collector
from textcl.cli.output import add_json_flag, check_json, show
from textcl.environment import launched
from textcl.errors import InputError
from textcl.files import check_output
from textcl.ranges import Count
from textcl.texts import counted


def main(arguments: Sequence[str]) -> None:
    given, asked = _parse(arguments)

    from textcl.data.formats import is_text_file

    alone = Path(given.model)
    if not given.texts and not is_text_file(given.model) and (alone.is_dir() or not alone.exists()):
        raise InputError(f"Name a file of texts behind {given.model}: textcl encode MODEL FILE --output DIRECTORY.")
    if not given.texts or is_text_file(given.model):
        given.model, given.texts = "small", [given.model, *given.texts]
    texts = given.texts[0] if len(given.texts) == 1 else [Path(name) for name in given.texts]
    check_json(given)
    output = Path(given.output)
    if output.suffix not in ("", ".npy") and not given.output.endswith("/") and not output.is_dir():
        raise InputError(
            f"The output must be a directory or a .npy file, and {given.output} is neither; write {given.output}/ for "
            "a directory of that name."
        )
    options = {
        "batch_size": given.batch_size,
        "normalize": True if given.normalize else None,
        "prompt": given.prompt,
        "bf16": given.precision == "bf16",
    }
    if output.suffix == ".npy" and not output.is_dir():
        if asked:
            first = "no-rescoring" if "rescoring" in asked else next(iter(asked)).replace("_", "-")
            raise InputError(f"--{first} works only with a directory, not with a .npy file.")
        if output.exists():
            raise InputError(f"{given.output} exists already; remove it or name another file.")
        if launched().rank == 0:  # only a directory can be shared by several processes
            check_output(output)
            _write_array(given, texts, output, options)
    else:
        if given.dimensions is not None:
            asked["dimensions"] = given.dimensions
        _write_shards(given, texts, output, {**options, **asked})


def _parse(arguments: Sequence[str]) -> tuple[Namespace, dict[str, Any]]:
    """The arguments, and those that were given of the flags that work only with a directory."""
    parser = Parser(
        prog="textcl encode",
        description="Write one vector for each text: to a directory of Parquet shards, for corpora of any size, or to "
        "one float32 array (texts, dim). A directory resumes after an interruption; torchrun shares the work.",
    )
    add_model_flags(parser)
    parser.add_argument(
        "texts",
        nargs="*",
        help="txt, csv, tsv, jsonl or parquet, also gz, xz or zst; several files and patterns in quotation marks, such "
        "as 'shards/*.jsonl.zst', are one corpus; blank lines are skipped. If only files are named, the model is "
        "'small'",
    )
    parser.add_argument("--output", required=True, metavar="DIRECTORY|FILE.npy", help="where vectors are written")
    parser.add_argument("--column", help="the column of a csv, tsv, jsonl or parquet file")
    parser.add_argument("--limit", type=within(Count), help="read the first LIMIT texts only")
    parser.add_argument("--normalize", action="store_true", help="scale vectors to length 1")
    parser.add_argument("--prompt", help="put before each text, or around it if it contains {text}")
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="numbers to compute in (default: fp32); bf16 is faster if the hardware supports it",
    )
    parser.add_argument(
        "--bf16", dest="precision", action="store_const", const="bf16", help="short for --precision bf16"
    )
    parser.add_argument(
        "--dimensions", type=within(Count), metavar="SIZE", help="keep the first SIZE numbers of each vector"
    )
    add_json_flag(parser)
    sharded = parser.add_argument_group("with a directory")
    flags = [
        sharded.add_argument(
            "--dtype",
            choices=["float32", "float16", "int8", "ubinary"],
            help="type of the stored numbers (default: float32); ubinary: bits, and int8 beside them",
        ),
        sharded.add_argument(
            "--pca",
            action="store_true",
            default=None,
            help="with --dimensions, keep the directions in which the first 10,000 vectors vary most",
        ),
        sharded.add_argument(
            "--no-rescoring",
            dest="rescoring",
            action="store_false",
            default=None,
            help="with --dtype ubinary, store bits alone",
        ),
        sharded.add_argument(
            "--shard-rows", type=within(Count), metavar="TEXTS", help="texts in a shard (default: 32,768)"
        ),
    ]
    flags += [
        sharded.add_argument("--id-column", metavar="NAME", help="a column of ids of your own, which results show"),
        sharded.add_argument(
            "--columns", metavar="NAMES", help="further columns to keep, such as date,product, or all (default: none)"
        ),
        sharded.add_argument(
            "--append",
            action="store_true",
            default=None,
            help="add the texts to a directory that is complete; other settings are those of the directory",
        ),
        sharded.add_argument(
            "--split-long",
            action="store_true",
            default=None,
            help="encode long texts in overlapping parts with the same id, where they would be cut",
        ),
    ]
    given = parser.parse_with_optional("texts", arguments)
    return given, {flag.dest: getattr(given, flag.dest) for flag in flags if getattr(given, flag.dest) is not None}


def column_names(given: str) -> list[str] | Literal["all"]:
    """The columns that --columns names."""
    return "all" if given == "all" else [name.strip() for name in given.split(",") if name.strip()]


def _said_of_long(cut: int | None, documents: int, length: int, split: bool) -> str:
    """The sentence about texts that are longer than the model reads; empty if there are none, or none were counted."""
    if not cut:
        return ""
    become = "were split into parts" if split else "were cut; --split-long (to a directory) keeps them whole"
    return (
        f"\n{100 * cut / documents:.1f} % of the texts ({cut:,} of {documents:,}) are longer than the model's "
        f"{length:,} tokens and {become}"
    )


def _write_array(given: Namespace, source: Any, output: Path, options: dict[str, Any]) -> None:
    import numpy

    from textcl.data import load_texts
    from textcl.encoder import Encoder
    from textcl.files import atomic_write
    from textcl.vectors.compress import Compression, bytes_of, check_sizes
    from textcl.vectors.encode import corpus_prompt
    from textcl.vectors.lengths import are_longer
    from textcl.vectors.shards import check_finite

    texts = list(load_texts(source, column=given.column, limit=given.limit, at_least=1)["text"])
    encoder = Encoder.from_pretrained(given.model, pooling=given.pooling, max_length=given.max_length)
    if given.dimensions is not None:
        check_sizes(encoder.dimension, [given.dimensions], [])
    prompt = corpus_prompt(encoder, given.prompt, silent=False)
    normalize = given.normalize or encoder.normalize
    vectors = encoder.encode(texts, **{**options, "prompt": prompt})
    check_finite(vectors)
    vectors = Compression(given.dimensions, normalize).reduce(vectors)
    with atomic_write(output) as temporary, temporary.open("wb") as handle:
        numpy.save(handle, vectors)
    cut = int(are_longer(encoder, texts, prompt).sum())
    result = {"output": given.output, "texts": len(texts), "dimension": vectors.shape[1], "cut": cut}
    size = result["bytes_per_vector"] = bytes_of(vectors.shape[1], "float32")
    text = f"{given.output}: {counted(len(texts), 'vector')} of {vectors.shape[1]} numbers, {size:,} bytes each"
    show(result, text + _said_of_long(cut, len(texts), encoder.max_length, False), given.json)


def _write_shards(given: Namespace, source: Any, output: Path, options: dict[str, Any]) -> None:
    from textcl.vectors.compress import bytes_of

    with without_collector():
        from textcl.vectors.encode import encode_corpus
    from textcl.vectors.manifest import stored_corpora
    from textcl.vectors.shards import read_complete, read_manifest, texts_cut

    if "columns" in options:
        options["columns"] = column_names(options["columns"])
    asked = {name: getattr(given, name) for name in ("pooling", "max_length", "column", "limit")}
    encode_corpus(given.model, source, output, **asked, **options)
    manifest = read_manifest(output)
    made = read_complete(output) if (output / "complete.json").is_file() else None
    # behind an interrupted --append, `complete.json` speaks of what was there before
    if made is None or (given.append and made.texts < sum(each.texts for each in stored_corpora(manifest))):
        text = f"{given.output}: this process has written its shards; those of other processes are still missing"
        show({"output": given.output, "complete": False}, text, given.json)
        return
    settings, dimension, cut = manifest["settings"], manifest["dimension"], texts_cut(output, made)
    documents = sum(each.documents for each in stored_corpora(manifest) if each.numbers.stop <= made.shards)
    shards = f"{made.shards:,} shard{'s' * (made.shards != 1)}"
    result = {"output": given.output, "complete": True, "texts": documents, "vectors": made.texts}
    result |= {"shards": made.shards, "dimension": dimension, "cut": cut}
    rescoring = settings.get("rescoring", True)
    size = result["bytes_per_vector"] = bytes_of(dimension, settings["dtype"], rescoring=rescoring)
    text = f"{given.output}: {counted(made.texts, 'vector')} of {dimension} numbers in {shards}, {size:,} bytes each"
    if settings["dtype"] == "ubinary" and rescoring:
        text += f": {dimension // 8:,} of bits and {size - dimension // 8:,} of int8"
    split = settings.get("split", False)
    show(result, text + _said_of_long(cut, documents, settings["max_length"], split), given.json)
