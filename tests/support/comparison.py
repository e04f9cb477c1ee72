"""Lines of a comparison's results file, made up."""


def line(row: str, seed: int | None, average: float) -> dict:
    results = {"STS16": {"all": average}, "STSBenchmark-dev": {"all": average + 1}}
    return {"row": row, "seed": seed, "average": average, "dev": average + 1, "results": results}


LINES = [line("untouched", None, 50.0)]
LINES += [line("a", seed, value) for seed, value in ((1, 60.0), (2, 62.0), (3, 61.0))]
LINES += [line("b", seed, value) for seed, value in ((1, 59.0), (2, 60.0), (3, 60.5))]
