"""textcl on one GPU at large sizes: one table, offline, in less than eight minutes.

    python -m benchmarks.gpu [--part speed|rest] [--output gpu.json]
    python -m benchmarks.gpu --device cpu --quick

`--part speed` takes less than five minutes: SimCSE's own step (64 texts of at most 32 tokens), also with CUDA graphs,
passages, and `encode`.
Rows are written to the output as they come, so that an interrupted run keeps them.

A BERT-base with random weights trains on and encodes passages of one to eight sentences, versus sentence-transformers,
which avoids padding if flash-attention is installed; then InfoNCE at 262,144 rows and the transfer tasks. "Share of the
peak" is relative to the speed of a large bfloat16 matrix product, timed in the same run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import senteval_loop
from benchmarks.info_nce import inputs, one_way_tiled, products, timed
from benchmarks.measure import EQUAL, FASTER, MEBIBYTE, SMALLER, Options, Row, peak_above, seconds, show, take_turns
from benchmarks.peak import operations, peak_rate, share, token_lengths
from textcl.files import write_json

if TYPE_CHECKING:
    from benchmarks.simcse import Job


def bert_base(folder: str, quick: bool) -> str:
    """Writes a BERT-base with random weights and the bundled tokenizer, and returns its directory."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from textcl.encoder.load import BUNDLED

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(**(small if quick else {})), add_pooling_layer=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BUNDLED).save_pretrained(folder)
    return folder


def passages(options: Options, count: int) -> list[str]:
    """Texts of one to eight consecutive sentences of the corpus."""
    sentences = options.texts(count + 8)
    return [" ".join(sentences[start : start + 1 + start % 8]) for start in range(count)]


def sentences(options: Options, model: str, peak: float) -> list[Row]:
    """SimCSE's own step: 64 sentences of at most 32 tokens, where launching operations takes longer than computing."""
    from benchmarks.simcse import Job, same_by_graphs

    batch, warm_up, steps = options.size(64, 4), options.size(12, 2), options.size(90, 2)
    job = Job(model, options.texts(batch * (warm_up + steps)), batch, warm_up + steps, 32, bf16=True, warm_up=warm_up)
    few = replace(job, steps=options.size(22, 4))
    ways = {"graphs": replace(job, graphs=True), "compiled, graphs": replace(job, compiled=True, graphs=True)}
    return [*_training(options, job, peak, ways), same_by_graphs(f"training with dropout, {batch} × 32", few)]


def training(options: Options, model: str, peak: float) -> list[Row]:
    """Steps of 512 passages of at most 128 tokens."""
    from benchmarks.simcse import Job

    batch, steps, length = options.size(512, 4), options.size(22, 4), options.size(128, 32)
    return _training(options, Job(model, passages(options, batch * steps), batch, steps, length, bf16=True), peak)


def _training(options: Options, job: Job, peak: float, ways: Mapping[str, Job] | None = None) -> list[Row]:
    """Tokens per second of SimCSE steps in bfloat16, and the share of the peak; also compiled, and by further ways."""
    from benchmarks.simcse import equal_losses, measured

    lengths = token_lengths(job.model, job.texts, job.length)
    per_step = 2 * sum(lengths) / job.steps  # each text is encoded twice
    work = 3 * 2 * operations(job.model, lengths) / job.steps  # a backward pass costs two forward passes
    jobs = {"textcl": job, "compiled": replace(job, compiled=True), **(ways or {})}
    sides = {way: partial(_step_seconds, each) for way, each in jobs.items()}
    found = take_turns({**sides, "peer": lambda: measured("sentence-transformers", job)[0]}, options.turns())
    size = f"{job.batch} × {job.length}"
    name, notes = f"training, BERT-base, bf16, {size}", f"batch {job.batch}, at most {job.length} tokens"
    return [
        *rates(name, found, per_step, work / peak, notes),
        *(
            Row.of(f"{name}: a step, {way}", {"textcl": found[way], "peer": found["peer"]}, "s", SMALLER, notes)
            for way in jobs
        ),
        equal_losses(f"training, no dropout, {size}", job),
    ]


def _step_seconds(job: Job) -> float:
    from benchmarks.simcse import measured

    return measured("textcl", job)[0]


def encoding(options: Options, model: str, peak: float) -> list[Row]:
    """Tokens per second of `encode` with bfloat16 weights, and the share of the peak."""
    from benchmarks.encode import mean_cosine
    from benchmarks.simcse import load_peer
    from textcl import Encoder

    texts, length = passages(options, options.size(20_000, 32)), options.size(128, 32)
    encoder = Encoder.from_pretrained(model, max_length=length, dtype=torch.bfloat16)
    peer = load_peer(model, length, bf16=True)
    size = options.size(512, 8)
    sides = {
        "textcl": partial(encoder.encode, convert_to="tensor"),
        "peer": partial(peer.encode, convert_to_tensor=True),
    }
    vectors: dict[str, torch.Tensor] = {}

    def encode(side: str) -> None:
        vectors[side] = sides[side](texts, batch_size=size, show_progress_bar=False)

    for side in sides:
        encode(side)  # warming up
    found = take_turns({side: partial(seconds, partial(encode, side)) for side in sides}, options.turns())
    lengths = token_lengths(model, texts, length)
    notes = f"{len(texts):,} texts, batch size {size}"
    ours, theirs = (vectors[side].float().cpu().numpy() for side in ("textcl", "peer"))
    return [
        *rates("encode, BERT-base, bf16", found, sum(lengths), operations(model, lengths) / peak, notes),
        Row("encode: to the peer's vectors", mean_cosine(ours, theirs), 1.0, "mean cosine", 1, EQUAL),
    ]


def rates(name: str, found: dict[str, list[float]], tokens: float, at_peak: float, notes: str) -> list[Row]:
    """Rows of tokens per second (without padding) and of the share of the peak, for each way of textcl."""
    from benchmarks.simcse import has_flash_attention

    notes += f"; the peer {'with' if has_flash_attention() else 'without'} flash-attention"
    speed = {side: [tokens / each for each in runs] for side, runs in found.items()}
    rows = []
    for way in (side for side in speed if side != "peer"):
        title, pair = name if way == "textcl" else f"{name}, {way}", {way: speed[way], "peer": speed["peer"]}
        rows += [Row.of(title, pair, "tokens/s", FASTER, notes), share(title, pair, at_peak / tokens)]
    return rows


def transfer(options: Options, model: str, peak: float) -> list[Row]:
    """The three smallest tasks in both modes; and an eighth of one task versus SentEval's loop, which is slow."""
    from benchmarks.transfer import COUNTS, TINY, Cached, beside, random_tasks
    from textcl.evaluation import Transfer

    counts, width = (TINY, 64) if options.quick else ({name: COUNTS[name] for name in ("CR", "TREC", "MRPC")}, 768)
    tasks, vectors = random_tasks(counts, width)
    taken = []
    for mode in ("fast", "senteval"):
        evaluate = Transfer({"own": (["a", "b"], [0, 1])}, mode=mode)
        evaluate.tasks = tasks
        taken.append(seconds(partial(evaluate, Cached(vectors))))
    notes = f"{', '.join(tasks)}; textcl on both sides"
    modes = Row("transfer, fast beside senteval", *taken, "s", 1, SMALLER, notes)
    one = list(tasks)[-1]
    part = {one: {split: [size // options.size(8, 1) for size in sizes] for split, sizes in counts[one].items()}}
    loop = {"loop": senteval_loop.score}
    return [modes, *beside(loop, *random_tasks(part, width), 1, "an eighth of its rows, random vectors")]


def info_nce(options: Options, model: str, peak: float) -> list[Row]:
    """Forward and backward at a size whose matrix does not fit a GPU, versus only the matrix products of its tiles."""
    batch, chunk = options.size(262_144, 96), options.size(8192, 32)
    loss = partial(one_way_tiled, chunk=chunk)
    sides: dict[str, Callable[[], Any]] = {"textcl": timed(loss, batch), "peer": lambda: products(batch, chunk)}
    found = take_turns(sides, options.turns())
    pair = inputs(batch)
    memory = peak_above(lambda: torch.autograd.grad(loss(*pair), pair)) / MEBIBYTE
    name = f"InfoNCE, N = {batch:,}"
    return [
        Row.of(name, found, "s", "near 1", f"the peer is its four products, in tiles of {chunk:,}, in float32"),
        Row(f"{name}: memory", memory, 4 * batch**2 / MEBIBYTE, "MiB", 1, SMALLER, "the peer is its matrix, computed"),
    ]


PARTS = {"speed": (sentences, training, encoding), "rest": (info_nce, transfer)}


def main(arguments: Sequence[str] | None = None) -> None:
    from textcl.cli.env import describe

    parser = ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--part", choices=list(PARTS), nargs="*", default=list(PARTS), help="default: all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only check that it runs and agrees")
    parser.add_argument("--data", default="bundled", metavar="FILE")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--output", default="gpu.json", metavar="FILE.json")
    given = parser.parse_args(arguments)
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        sys.exit("benchmarks: There is no GPU; --device cpu --quick runs the same code at tiny sizes.")
    options = Options(None, given.data, given.rounds, given.quick)
    machine = describe()
    peak = peak_rate(torch.bfloat16, 256 if given.quick else 8192)
    machine["bf16 product"] = f"{peak / 1e12:.1f} Tflop/s"
    print("\n".join(f"{name:<25}{value}" for name, value in machine.items()), end="\n\n")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        model = bert_base(str(Path(folder) / "bert"), given.quick)
        for benchmark in (each for part in given.part for each in PARTS[part]):
            rows += benchmark(options, model, peak)
            written = {"machine": machine, "options": asdict(options), "rows": [row.to_dict() for row in rows]}
            write_json(given.output, written)
    print(show(rows))


if __name__ == "__main__":
    from textcl.cli.main import quieten

    quieten()
    main()
