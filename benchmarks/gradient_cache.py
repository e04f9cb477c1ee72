"""Training with a gradient cache, at a batch size of thousands, versus CachedMultipleNegativesRankingLoss."""

from dataclasses import replace

from benchmarks.measure import FASTER, MEBIBYTE, SMALLER, Options, Row, in_child, take_turns
from benchmarks.simcse import SIDES, Job, equal_losses, measured
from textcl.device import has_bf16


def run(options: Options) -> list[Row]:
    """Steps per second and peak memory, each run in its own process."""
    batch = options.size(4096, 16)
    job = Job(options.encoder(), options.texts(batch), batch, Job.warm_up + 1, bf16=has_bf16(), cached=True)
    sides = {name: lambda name=name: in_child(measured, name, job) for name in SIDES}
    found = take_turns(sides, options.turns(1))
    precision = "bf16" if job.bf16 else "fp32"
    name, notes = f"gradient cache, batch {batch:,}, {precision}", "CachedMultipleNegativesRankingLoss, defaults"
    return [
        Row.of(name, {side: [1 / each[0] for each in runs] for side, runs in found.items()}, "steps/s", FASTER, notes),
        Row.of(
            f"{name}: peak memory",
            {side: [each[1] / MEBIBYTE for each in runs] for side, runs in found.items()},
            "MiB",
            SMALLER,
            "above the loaded model: gradients, the optimizer's state, activations",
        ),
        equal_losses(f"{name}, no dropout", replace(job, batch=batch // 4)),
    ]
