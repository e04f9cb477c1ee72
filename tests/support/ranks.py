"""What adapt.json says of the queries that changed most."""

from math import log2
from typing import Any

import pytest


def check_ranks(record: dict[str, Any]) -> None:
    """The score of a query with one document follows from its rank."""
    assert record["changes"]
    for each in record["changes"]:
        for side in ("before", "after"):
            rank = each[f"rank_{side}"]
            score = 100 / log2(rank + 1) if rank is not None and rank <= 10 else 0
            assert each[side] == pytest.approx(score)
