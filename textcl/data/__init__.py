"""Training corpora, and the public sets that encoders are evaluated on."""

from textcl.data.archives import import_archive
from textcl.data.catalogue import SetInfo, SetStatus, data_directory, list_sets, verify
from textcl.data.clustering import CLUSTERING_SETS, load_clustering
from textcl.data.corpora import hold_out, load_labelled, load_texts, load_triplets
from textcl.data.fetching import fetch

__all__ = [
    "CLUSTERING_SETS",
    "SetInfo",
    "SetStatus",
    "data_directory",
    "fetch",
    "hold_out",
    "import_archive",
    "list_sets",
    "load_clustering",
    "load_labelled",
    "load_texts",
    "load_triplets",
    "verify",
]
