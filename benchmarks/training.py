"""SimCSE training versus sentence-transformers, with the same model, sentences, loss and dropout rates."""

from collections.abc import Callable

from benchmarks.measure import FASTER, Options, Row, in_child, take_turns
from benchmarks.peak import operations, peak_rate, precisions, share, token_lengths
from benchmarks.simcse import SIDES, Job, equal_losses, measured, trajectories


def run(options: Options) -> list[Row]:
    """Sentences per second (a sentence counts once, although it is encoded twice), and the losses of both sides."""
    batch, steps = options.size(64, 8), options.size(12, 4)
    texts = options.texts(batch * steps)
    jobs = {name: Job(options.encoder(), texts, batch, steps, bf16=name == "bf16") for name in precisions()}

    def rate(side: str, job: Job) -> Callable[[], float]:
        return lambda: batch / in_child(measured, side, job)[0]

    sides = {(side, name): rate(side, job) for name, job in jobs.items() for side in SIDES}
    found = take_turns({" ".join(key): run for key, run in sides.items()}, options.turns())
    best = list(jobs)[-1]  # textcl's default precision
    rows = [
        Row.of(
            f"training, {ours} beside {theirs}",
            {"textcl": found[f"textcl {ours}"], "peer": found[f"sentence-transformers {theirs}"]},
            "sentences/s",
            FASTER,
            notes,
        )
        for ours, theirs, notes in [
            (best, "fp32", f"both with their defaults: batch {batch}, at most 32 tokens, MultipleNegativesRankingLoss"),
            *((name, name, "") for name in jobs if (name, name) != (best, "fp32")),
        ]
    ]
    # each text is encoded twice, and a backward pass costs two forward passes; padding is not counted
    work = 3 * 2 * operations(options.encoder(), token_lengths(options.encoder(), texts, 32)) / len(texts)
    for name, job in jobs.items():
        size = options.size(4096, 256)
        peak = peak_rate(precisions()[name], size)
        rates = {side: found[f"{side} {name}"] for side in SIDES}
        notes = f"the peak is the speed of a matrix product of {size:,} rows and columns, {peak / 1e9:.0f} Gflop/s"
        rows.append(share(f"training, {name}", rates, work / peak, notes))
        rows += [trajectories(f"training, {name}, dropout", job), equal_losses(f"training, {name}, no dropout", job)]
    return rows
