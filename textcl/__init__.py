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

_ROOMS = {
    "Encoder": "textcl.encoder",
    "export_onnx": "textcl.encoder.onnx_graph",
    "SimCSE": "textcl.methods",
    "BertCT": "textcl.methods",
    "CTInBatch": "textcl.methods",
    "ConSERT": "textcl.methods",
    "CLEAR": "textcl.methods",
    "DeCLUTR": "textcl.methods",
    "SCCL": "textcl.methods",
    "SimCSEPlus": "textcl.methods",
    "SimCLR": "textcl.methods",
    "MoCo": "textcl.methods",
    "MoCoV3": "textcl.methods",
    "SwAV": "textcl.methods",
    "BYOL": "textcl.methods",
    "SimSiam": "textcl.methods",
    "BarlowTwins": "textcl.methods",
    "VICReg": "textcl.methods",
    "METHODS": "textcl.methods",
    "InfoNCE": "textcl.modules",
    "ContrastiveTrainer": "textcl.training",
    "ContrastiveTrainingArguments": "textcl.training",
    "MethodCallback": "textcl.training",
    "Clustering": "textcl.evaluation",
    "Finetune": "textcl.evaluation",
    "Geometry": "textcl.evaluation",
    "STSBenchmark": "textcl.evaluation",
    "STSSuite": "textcl.evaluation",
    "Transfer": "textcl.evaluation",
    "LabelFree": "textcl.evaluation",
    "LabelledPairs": "textcl.evaluation",
    "Result": "textcl.evaluation",
    "Retrieval": "textcl.evaluation",
    "SentenceTransformersEvaluator": "textcl.evaluation.sentence_transformers",
    "evaluate": "textcl.evaluation",
    "evaluate_sizes": "textcl.evaluation.sizes",
    "assign_texts": "textcl.evaluation",
    "assign_vectors": "textcl.evaluation",
    "cluster_texts": "textcl.evaluation",
    "cluster_vectors": "textcl.evaluation",
    "cluster_stability": "textcl.metrics.stability",
    "adapt": "textcl.adaptation.adapt",
    "draw_pairs": "textcl.adaptation.judging",
    "finish_judging": "textcl.adaptation.judging",
    "augment": "textcl.views.text",
    "smooth_inverse_frequency": "textcl.encoder.pooling",
    "CorpusIndex": "textcl.vectors.index",
    "encode_corpus": "textcl.vectors.encode",
    "distill": "textcl.vectors.distill",
    "near_duplicates": "textcl.vectors.duplicates",
    "near_duplicate_groups": "textcl.vectors.near_duplicates",
    "cluster_keywords": "textcl.vectors.topics",
    "cluster_names": "textcl.vectors.topics",
    "load_vectors": "textcl.vectors.shards",
    "Vectors": "textcl.vectors.vectors",
    "explore": "textcl.report.explore",
    "write_map": "textcl.report.map",
    "hold_out": "textcl.data",
    "load_clustering": "textcl.data",
    "load_labelled": "textcl.data",
    "load_texts": "textcl.data",
    "load_triplets": "textcl.data",
    "InputError": "textcl.errors",
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
