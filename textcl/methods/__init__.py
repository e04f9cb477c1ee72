"""The methods, by the name that the command line and recipes use."""

from textcl.methods.bert_ct import BertCT
from textcl.methods.clear import CLEAR
from textcl.methods.consert import ConSERT
from textcl.methods.ct_in_batch import CTInBatch
from textcl.methods.declutr import DeCLUTR
from textcl.methods.method import Method
from textcl.methods.simcse import SimCSE

METHODS: dict[str, type[Method]] = {
    "simcse": SimCSE,
    "bert-ct": BertCT,
    "ct-in-batch": CTInBatch,
    "consert": ConSERT,
    "clear": CLEAR,
    "declutr": DeCLUTR,
}

__all__ = ["CLEAR", "METHODS", "BertCT", "CTInBatch", "ConSERT", "DeCLUTR", "Method", "SimCSE"]
