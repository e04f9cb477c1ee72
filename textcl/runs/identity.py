"""What identifies the files and models that a recipe names: hashes of all that decides what they do."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from textcl.collator.token_cache import tokenizer_digest
from textcl.data.corpus_files import CorpusFiles
from textcl.data.retrieval import beir_dev_split, beir_files
from textcl.data.training import find_corpus
from textcl.encoder import Encoder
from textcl.encoder.load import path_of
from textcl.errors import InputError
from textcl.evaluation.label_free import CRITERIA
from textcl.files import file_hash
from textcl.runs.flags import BEIR, beir_folder, path_flags
from textcl.training.callback import COMPLETE

# The flags that decide how the trained model is loaded; they are part of a recipe's fingerprint anyway.
_OF_ENCODER = ("model", "pooling", "max_length", "dropout")


def load_encoder(flags: Mapping[str, Any]) -> Encoder:
    """The encoder that a recipe trains, before its method changes it. Sets the random seed first.

    Args:
        flags: The flags of the recipe.
    """
    set_seed(flags["seed"])  # weights that the directory does not have are random
    name, *options = _OF_ENCODER
    return Encoder.from_pretrained(flags[name], **{key: flags[key] for key in options})


def identity_of(encoder: Encoder, weights: list[str] | None = None) -> str:
    """A hash of all files of an encoder that was just loaded, whatever their names are.

    It is `Encoder.fingerprint`, together with the tokenizer's state and the weights that the encoder does not use, such
    as a masked-word head.

    Args:
        encoder: The encoder.
        weights: What `weights_of` found, if it is known; large files are slow to hash.
    """
    files = weights_of(encoder) if weights is None else weights
    return _hash([encoder.fingerprint(), tokenizer_digest(encoder.tokenizer), files])


def weights_of(encoder: Encoder) -> list[str]:
    """The hash of each weight file of an encoder that was just loaded; versions of libraries do not change them."""
    return [] if encoder.source is None else [file_hash(path) for path in sorted(encoder.source.glob("*.safetensors"))]


def identity_of_checkpoint(checkpoint: str | Path) -> str:
    """A hash of a checkpoint, by the file that has the hashes of all its other files.

    Raises:
        InputError: There is no complete checkpoint.
    """
    if not Path(checkpoint).is_dir():
        raise InputError(f"There is no checkpoint {checkpoint}; leave --resume-from-checkpoint out, or use --resume.")
    if not (complete := Path(checkpoint) / COMPLETE).is_file():
        raise InputError(f"{checkpoint} is not a checkpoint that was written completely: it has no {COMPLETE}.")
    return file_hash(complete)


class Identities:
    """Hashes of the files and models that recipes name. Each is read once, however many recipes name it."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], str] = {}

    def of(self, method: str, flags: Mapping[str, Any], known: Mapping[str, str] | None = None) -> dict[str, str]:
        """The hash of each flag that names a file or a model.

        Args:
            method: The method of the recipe.
            flags: The flags of the recipe.
            known: The hashes of flags that are known already.

        Raises:
            InputError: There is no such file, or the model cannot be loaded.
        """
        found = dict(known or {})
        if (checkpoint := flags.get("resume_from_checkpoint")) and "resume_from_checkpoint" not in found:
            found["resume_from_checkpoint"] = self._once(identity_of_checkpoint, checkpoint)
        for key, kind in path_flags(method).items():
            value = flags.get(key)
            if key in found or not value or value in ("stsb", "none", *CRITERIA):
                continue
            if key == "model":
                # a dense layer that the directory does not have is random, so it depends on the seed
                seed = flags["seed"] if flags["pooling"] == "pooler" else None
                described = (*(flags[name] for name in _OF_ENCODER), seed)
                found[key] = self._once(_of_trained, flags, key=described)
            elif key == "text_view_model":
                found[key] = self._once(_of_files, value)
            elif kind == "model":
                found[key] = self._once(_of_model, value)
            elif kind == "pairs" and (folder := beir_folder(value)) is not None:
                found[key] = BEIR + self._once(_of_collection, folder)
            else:
                found[key] = self._once(_of_corpus, value, key=tuple(value) if isinstance(value, list) else value)
        return found

    def _once(self, compute: Callable[[Any], str], what: Any, key: Any = None) -> str:
        key = (compute, what if key is None else key)
        if key not in self._found:
            with torch.random.fork_rng(devices=[]):  # loading draws the weights that a model does not have
                self._found[key] = compute(what)
        return self._found[key]


def _of_trained(flags: Mapping[str, Any]) -> str:
    return identity_of(load_encoder(flags))


def _of_model(name: str) -> str:
    return identity_of(Encoder.from_pretrained(name, device="cpu"))


def _of_corpus(name: str | list[str]) -> str:
    return CorpusFiles(find_corpus(name)).sha256


def _of_collection(folder: Path) -> str:
    """A hash of the files of a folder in BEIR's layout that choose a checkpoint."""
    return _hash([[file.name, file_hash(file)] for file in beir_files(folder, beir_dev_split(folder))])


def _of_files(name: str) -> str:
    """A hash of all files of a model that is not an encoder; its name if it is a hub name."""
    path = path_of(name)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".md")
        return _hash([[str(file.relative_to(path)), file_hash(file)] for file in files])
    return file_hash(path) if path.is_file() else name


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
