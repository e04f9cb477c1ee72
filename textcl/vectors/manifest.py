"""What the manifest of a directory of vectors says about its corpora: how many rows and shards each has, and where."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StoredCorpus:
    """One of the corpora in a directory.

    Attributes:
        name: Where it was read from.
        texts: The number of its rows in the shards.
        documents: The number of its texts; fewer than rows if long texts were split.
        sha256: SHA-256 of its content.
        first_id: The id of its first row.
        first_shard: The number of its first shard.
        shards: The number of its shards.
    """

    name: str
    texts: int
    documents: int
    sha256: str
    first_id: int
    first_shard: int
    shards: int

    @property
    def numbers(self) -> range:
        """The numbers of its shards."""
        return range(self.first_shard, self.first_shard + self.shards)


def stored_corpora(manifest: Mapping[str, Any]) -> list[StoredCorpus]:
    """The corpora of a directory: the one that was encoded first, and those that were appended."""
    found: list[StoredCorpus] = []
    for each in (manifest["corpus"], *manifest.get("added", ())):
        shards = -(-each["texts"] // manifest["settings"]["shard_rows"])
        before = found[-1].numbers.stop if found else 0
        documents = each.get("documents", each["texts"])
        of_corpus = (each["name"], each["texts"], documents, each["sha256"], each.get("first_id", 0))
        found.append(StoredCorpus(*of_corpus, before, shards))
    return found


def shard_starts(manifest: Mapping[str, Any]) -> list[int]:
    """The place of each shard's first row among the rows of all shards.

    Example:
        >>> starts = shard_starts(manifest)  # doctest: +SKIP
        >>> number = bisect_right(starts, place) - 1  # doctest: +SKIP
        >>> row = place - starts[number]  # doctest: +SKIP
    """
    starts: list[int] = []
    before = 0
    for corpus in stored_corpora(manifest):
        starts += range(before, before + corpus.texts, manifest["settings"]["shard_rows"])
        before += corpus.texts
    return starts


def origin(manifest: Mapping[str, Any], corpus: StoredCorpus) -> str:
    """SHA-256 of all that decides the vectors of a corpus: model, settings, corpus and what was fitted; no names."""
    made_of = [manifest["model"]["sha256"], manifest["settings"], corpus.sha256, manifest["dimension"]]
    if corpus.first_id:
        made_of.append(corpus.first_id)
    if "fitted" in manifest:
        made_of.append(manifest["fitted"])
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
