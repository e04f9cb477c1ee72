"""The methods, by the names that the command line and recipes use."""

from textcl.methods.barlow_twins import BarlowTwins
from textcl.methods.bert_ct import BertCT
from textcl.methods.byol import BYOL
from textcl.methods.clear import CLEAR
from textcl.methods.consert import ConSERT
from textcl.methods.ct_in_batch import CTInBatch
from textcl.methods.declutr import DeCLUTR
from textcl.methods.method import Method
from textcl.methods.moco import MoCo
from textcl.methods.moco_v3 import MoCoV3
from textcl.methods.sccl import SCCL
from textcl.methods.simclr import SimCLR
from textcl.methods.simcse import SimCSE
from textcl.methods.simcse_plus import SimCSEPlus
from textcl.methods.simsiam import SimSiam
from textcl.methods.swav import SwAV
from textcl.methods.vicreg import VICReg

_CLASSES: tuple[type[Method], ...] = (
    SimCSE,
    SimCSEPlus,
    BertCT,
    CTInBatch,
    ConSERT,
    CLEAR,
    DeCLUTR,
    SCCL,
    SimCLR,
    MoCo,
    MoCoV3,
    SwAV,
    BYOL,
    SimSiam,
    BarlowTwins,
    VICReg,
)
METHODS: dict[str, type[Method]] = {each.name: each for each in _CLASSES}

__all__ = [
    "BYOL",
    "CLEAR",
    "METHODS",
    "SCCL",
    "BarlowTwins",
    "BertCT",
    "CTInBatch",
    "ConSERT",
    "DeCLUTR",
    "Method",
    "MoCo",
    "MoCoV3",
    "SimCLR",
    "SimCSE",
    "SimCSEPlus",
    "SimSiam",
    "SwAV",
    "VICReg",
]
