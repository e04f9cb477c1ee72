"""Evaluating encoders: the function `evaluate`, evaluators for a trainer, and baselines to compare with."""

from textcl.data.overlap import overlap
from textcl.evaluation.baselines import MeanWordVectors, TfidfEncoder, whitening
from textcl.evaluation.clustering import Clustering
from textcl.evaluation.clusters import ClusteredTexts, assign_texts, assign_vectors, cluster_texts, cluster_vectors
from textcl.evaluation.finetune import Finetune
from textcl.evaluation.geometry import Geometry
from textcl.evaluation.label_free import LabelFree
from textcl.evaluation.results import Result
from textcl.evaluation.retrieval import Retrieval
from textcl.evaluation.sts import LabelledPairs, STSBenchmark, STSSuite
from textcl.evaluation.suite import TASKS, Suite, evaluate, task_names
from textcl.evaluation.transductive import mark_transductive
from textcl.evaluation.transfer import Transfer

__all__ = [
    "TASKS",
    "ClusteredTexts",
    "Clustering",
    "Finetune",
    "Geometry",
    "LabelFree",
    "LabelledPairs",
    "MeanWordVectors",
    "Result",
    "Retrieval",
    "STSBenchmark",
    "STSSuite",
    "Suite",
    "TfidfEncoder",
    "Transfer",
    "assign_texts",
    "assign_vectors",
    "cluster_texts",
    "cluster_vectors",
    "evaluate",
    "mark_transductive",
    "overlap",
    "task_names",
    "whitening",
]
