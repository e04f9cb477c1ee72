"""Lines of a comparison's results file, made up."""


def line(row: str, seed: int | None, average: float) -> dict:
    results = {"STS16": {"all": average}, "STSBenchmark-dev": {"all": average + 1}}
    return {"row": row, "seed": seed, "average": average, "dev": average + 1, "results": results}


LINES = [line("untouched", None, 50.0)]
LINES += [line("a", seed, value) for seed, value in ((1, 60.0), (2, 62.0), (3, 61.0))]
LINES += [line("b", seed, value) for seed, value in ((1, 59.0), (2, 60.0), (3, 60.5))]


def record_of(seed: int, **more: object) -> dict:
    """The content of a finished run's `run.json`, made up."""
    return {
        "started": "2026-04-01T09:00:00+00:00",
        "finished": "2026-04-01T10:00:00+00:00",
        "fingerprint": "f",
        "recipe": {"method": "simcse"},
        "command": "textcl train simcse",
        "seed": seed,
        "encoder": {"pooling": "cls"},
        "data": {
            "file": "texts.txt",
            "sha256": "0",
            "rows": 10,
            "held_out": 0,
            "duplicates": 0,
            "duplicates_in_batches": None,
            "overlap": {},
        },
        "dev": {"set": "stsb-dev", "score": 66.5},
        "steps": 1,
        "train_loss": 1.0,
        "seconds": 1.0,
        "sentences_per_second": 1.0,
        "resumed": False,
        "processes": 1,
        "device": "cpu",
        "precision": "fp32",
        "versions": {},
        **more,
    }
