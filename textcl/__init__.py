"""Turn any Hugging Face encoder into a better sentence encoder by contrastive learning, and prove it.

Names are loaded when they are first used, so that `import textcl` costs milliseconds and pulls in no torch:

    >>> import textcl
    >>> encoder = textcl.Encoder.from_pretrained("bundled")
    >>> method = textcl.SimCSE(encoder, temperature=0.05)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textcl.data import load_texts, load_triplets
    from textcl.encoder import Encoder
    from textcl.errors import InputError
    from textcl.evaluation import Clustering, LabelledPairs, Result, STSBenchmark, STSSuite, evaluate
    from textcl.methods import METHODS, SimCSE
    from textcl.modules import InfoNCE
    from textcl.training import ContrastiveTrainer, ContrastiveTrainingArguments, MethodCallback

__version__ = "0.1.0"

_ROOMS = {
    "Encoder": "textcl.encoder",
    "SimCSE": "textcl.methods",
    "METHODS": "textcl.methods",
    "InfoNCE": "textcl.modules",
    "ContrastiveTrainer": "textcl.training",
    "ContrastiveTrainingArguments": "textcl.training",
    "MethodCallback": "textcl.training",
    "Clustering": "textcl.evaluation",
    "STSBenchmark": "textcl.evaluation",
    "STSSuite": "textcl.evaluation",
    "LabelledPairs": "textcl.evaluation",
    "Result": "textcl.evaluation",
    "evaluate": "textcl.evaluation",
    "load_texts": "textcl.data",
    "load_triplets": "textcl.data",
    "InputError": "textcl.errors",
}

__all__ = [
    "METHODS",
    "Clustering",
    "ContrastiveTrainer",
    "ContrastiveTrainingArguments",
    "Encoder",
    "InfoNCE",
    "InputError",
    "LabelledPairs",
    "MethodCallback",
    "Result",
    "STSBenchmark",
    "STSSuite",
    "SimCSE",
    "evaluate",
    "load_texts",
    "load_triplets",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'textcl' has no attribute '{name}'")
    value = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
