"""`textcl encode MODEL FILE --output FILE.npy`"""

from collections.abc import Sequence
from pathlib import Path

from textcl.cli.eval import add_model_flags
from textcl.cli.main import Parser
from textcl.errors import InputError


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="textcl encode", description="Write one vector a text: a float32 array (texts, dim).")
    add_model_flags(parser)
    parser.add_argument("texts", help="txt, csv, tsv, jsonl or parquet, also gz or xz; blank lines are left out")
    parser.add_argument("--output", required=True, metavar="FILE.npy")
    parser.add_argument("--column", help="the column of a csv, tsv, jsonl or parquet file")
    parser.add_argument("--limit", type=int, help="the first LIMIT texts only")
    parser.add_argument("--normalize", action="store_true", help="scale vectors to length 1")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: faster where the processor has it")
    given = parser.parse_args(arguments)
    if not given.output.endswith(".npy"):
        raise InputError(f"The output has to be a .npy file, and {given.output} is none.")
    if Path(given.output).exists():
        raise InputError(f"{given.output} exists already; remove it or name another file.")

    import numpy

    from textcl.data import load_texts
    from textcl.encoder import Encoder
    from textcl.files import atomic_write

    texts = load_texts(given.texts, column=given.column, limit=given.limit)["text"]
    encoder = Encoder.from_pretrained(given.model, pooling=given.pooling, max_length=given.max_length)
    normalize = True if given.normalize else None
    vectors = encoder.encode(list(texts), batch_size=given.batch_size, normalize=normalize, bf16=given.bf16)
    with atomic_write(given.output) as temporary, temporary.open("wb") as handle:
        numpy.save(handle, vectors)
    print(f"{given.output}: {vectors.shape[0]:,} vectors of {vectors.shape[1]} numbers")
