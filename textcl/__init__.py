"""Turn any Hugging Face encoder into a better sentence encoder by contrastive learning, and prove it.

Names are loaded when they are first used, so `import textcl` takes milliseconds and does not import torch:

    >>> import textcl
    >>> encoder = textcl.Encoder.from_pretrained("bundled")
    >>> method = textcl.SimCSE(encoder, temperature=0.05)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from textcl.version import __version__ as __version__

if TYPE_CHECKING:
    from textcl.adaptation.adapt import adapt
    from textcl.adaptation.judging import draw_pairs, finish_judging
    from textcl.data import hold_out, load_clustering, load_labelled, load_texts, load_triplets
    from textcl.encoder import Encoder
    from textcl.encoder.onnx_graph import export_onnx
    from textcl.encoder.pooling import smooth_inverse_frequency
    from textcl.errors import InputError
    from textcl.evaluation import (
        Clustering,
        Finetune,
        Geometry,
        LabelFree,
        LabelledPairs,
        Result,
        Retrieval,
        STSBenchmark,
        STSSuite,
        Transfer,
        assign_texts,
        assign_vectors,
        cluster_texts,
        cluster_vectors,
        evaluate,
    )
    from textcl.evaluation.sentence_transformers import SentenceTransformersEvaluator
    from textcl.evaluation.sizes import evaluate_sizes
    from textcl.methods import (
        BYOL,
        CLEAR,
        METHODS,
        SCCL,
        BarlowTwins,
        BertCT,
        ConSERT,
        CTInBatch,
        DeCLUTR,
        MoCo,
        MoCoV3,
        SimCLR,
        SimCSE,
        SimCSEPlus,
        SimSiam,
        SwAV,
        VICReg,
    )
    from textcl.metrics.stability import cluster_stability
    from textcl.modules import InfoNCE
    from textcl.report.explore import explore
    from textcl.report.map import write_map
    from textcl.training import ContrastiveTrainer, ContrastiveTrainingArguments, MethodCallback
    from textcl.vectors.distill import distill
    from textcl.vectors.duplicates import near_duplicates
    from textcl.vectors.encode import encode_corpus
    from textcl.vectors.index import CorpusIndex
    from textcl.vectors.near_duplicates import near_duplicate_groups
    from textcl.vectors.shards import load_vectors
    from textcl.vectors.topics import cluster_keywords, cluster_names
    from textcl.vectors.vectors import Vectors
    from textcl.views.text import augment

# the module of each public name
_ROOMS = {
    name: module
    for module, names in {
        "textcl.encoder": "Encoder",
        "textcl.encoder.onnx_graph": "export_onnx",
        "textcl.methods": (
            "SimCSE BertCT CTInBatch ConSERT CLEAR DeCLUTR SCCL SimCSEPlus SimCLR MoCo MoCoV3 SwAV BYOL SimSiam "
            "BarlowTwins VICReg METHODS"
        ),
        "textcl.modules": "InfoNCE",
        "textcl.training": "ContrastiveTrainer ContrastiveTrainingArguments MethodCallback",
        "textcl.evaluation": (
            "Clustering Finetune Geometry STSBenchmark STSSuite Transfer LabelFree LabelledPairs Result Retrieval "
            "evaluate assign_texts assign_vectors cluster_texts cluster_vectors"
        ),
        "textcl.evaluation.sentence_transformers": "SentenceTransformersEvaluator",
        "textcl.evaluation.sizes": "evaluate_sizes",
        "textcl.metrics.stability": "cluster_stability",
        "textcl.adaptation.adapt": "adapt",
        "textcl.adaptation.judging": "draw_pairs finish_judging",
        "textcl.views.text": "augment",
        "textcl.encoder.pooling": "smooth_inverse_frequency",
        "textcl.vectors.index": "CorpusIndex",
        "textcl.vectors.encode": "encode_corpus",
        "textcl.vectors.distill": "distill",
        "textcl.vectors.duplicates": "near_duplicates",
        "textcl.vectors.near_duplicates": "near_duplicate_groups",
        "textcl.vectors.topics": "cluster_keywords cluster_names",
        "textcl.vectors.shards": "load_vectors",
        "textcl.vectors.vectors": "Vectors",
        "textcl.report.explore": "explore",
        "textcl.report.map": "write_map",
        "textcl.data": "hold_out load_clustering load_labelled load_texts load_triplets",
        "textcl.errors": "InputError",
    }.items()
    for name in names.split()
}

__all__ = [
    "BYOL",
    "CLEAR",
    "METHODS",
    "SCCL",
    "BarlowTwins",
    "BertCT",
    "CTInBatch",
    "Clustering",
    "ConSERT",
    "ContrastiveTrainer",
    "ContrastiveTrainingArguments",
    "CorpusIndex",
    "DeCLUTR",
    "Encoder",
    "Finetune",
    "Geometry",
    "InfoNCE",
    "InputError",
    "LabelFree",
    "LabelledPairs",
    "MethodCallback",
    "MoCo",
    "MoCoV3",
    "Result",
    "Retrieval",
    "STSBenchmark",
    "STSSuite",
    "SentenceTransformersEvaluator",
    "SimCLR",
    "SimCSE",
    "SimCSEPlus",
    "SimSiam",
    "SwAV",
    "Transfer",
    "VICReg",
    "Vectors",
    "adapt",
    "assign_texts",
    "assign_vectors",
    "augment",
    "cluster_keywords",
    "cluster_names",
    "cluster_stability",
    "cluster_texts",
    "cluster_vectors",
    "distill",
    "draw_pairs",
    "encode_corpus",
    "evaluate",
    "evaluate_sizes",
    "explore",
    "export_onnx",
    "finish_judging",
    "hold_out",
    "load_clustering",
    "load_labelled",
    "load_texts",
    "load_triplets",
    "load_vectors",
    "near_duplicate_groups",
    "near_duplicates",
    "smooth_inverse_frequency",
    "write_map",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'textcl' has no attribute '{name}'")
    value = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value  # later uses find the name without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
