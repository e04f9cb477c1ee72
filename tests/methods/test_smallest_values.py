"""With the smallest value of each number the encoder still learns, or the value is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import METHODS
from textcl.ranges import ranges_of

ROWS = {"text": TEXTS[:16]}
LABELLED = {**ROWS, "positive": TEXTS[16:32], "label": [0, 1] * 8}
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {} for name in METHODS},
    "declutr": {"shortest_span": 1, "longest_span": 2, "anchors": 1},
    "sccl": {"clusters": 2},
    "consert, supervised": {"objective": "supervised", "classes": 2},
    "consert, joint": {"objective": "joint", "classes": 2},
    "simcse-plus, decorrelation": {"decorrelation_weight": 0.1, "decorrelation_dimension": 8},
}
ZERO: list[tuple[str, dict[str, Any]]] = [
    ("moco", {"queue_size": 0}),
    ("consert", {"contrastive_weight": 0.0}),
    ("sccl", {"clusters": 2, "eta": 0.0, "clustering_weight": 0.0}),
    ("vicreg", {"invariance_weight": 0.0, "variance_weight": 0.0, "covariance_weight": 0.0}),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def smallest() -> Iterator[Any]:
    for case, options in OPTIONS.items():
        for name, allowed in ranges_of(METHODS[case.split(",")[0]].__init__).items():
            least = allowed.at_least
            if least is not None and "span" not in name:
                value = int(least) if allowed.whole else float(least)
                yield pytest.param(case.split(",")[0], {**options, name: value}, id=f"{case}, {name}={value}")


@pytest.mark.parametrize(("name", "options"), [*smallest(), *ZERO])
def test_the_encoder_learns_or_the_value_is_refused(directory: Path, name: str, options: dict[str, Any]) -> None:
    try:
        method: Any = METHODS[name](Encoder.from_pretrained(directory, device="cpu"), **options)
    except InputError:
        return
    assert (name, options) not in ZERO
    rows = method.prepare_corpus(Dataset.from_dict(LABELLED if method.takes_labels else ROWS))
    method.hooked = True
    method.train().on_fit_start(rows, 16)
    batch = method.collator()(rows.to_list())
    for step in range(2):  # a queue is empty at first
        method.zero_grad()
        outputs = method(**batch)
        outputs["loss"].backward()
        method.after_optimizer_step(step + 1, 2, [outputs["keys"]] if "keys" in outputs else [])
    trained = [each.grad.abs().max() for each in method.encoder.parameters() if each.grad is not None]
    assert max(trained) > 1e-5
