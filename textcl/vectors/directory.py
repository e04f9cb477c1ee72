"""The state of a directory of vectors while it is written: what is there, a corpus that is added, and completion."""

import logging
import re
from pathlib import Path
from typing import Any

from textcl.errors import InputError
from textcl.files import clear_leftovers
from textcl.seals import Seal, seal, write_sealed
from textcl.vectors.manifest import StoredCorpus, origin, stored_corpora
from textcl.vectors.shards import check_shard, holds, read_complete, read_manifest, read_shard, shard_path

logger = logging.getLogger("textcl")

_OWN = re.compile(
    r"part-\d{5,}\.parquet|complete\.json|index\.(faiss|json)|bits\.(npy|json)|int8\.npy|bm25\.(npz|json)"
)  # files of a directory of vectors


def manifest_there(output: Path, append: bool) -> dict[str, Any]:
    """The manifest of a directory that a corpus is added to; empty without `append`.

    Raises:
        InputError: There is nothing to add to, or the directory holds something else than vectors.
    """
    # hidden files are locks, and temporary files of another rank that is running or was killed
    there = {path.name for path in output.glob("[!.]*")}
    if append and "manifest.json" not in there:
        raise InputError(f"{output} has no vectors to which something can be added; leave out --append.")
    if "manifest.json" not in there and not all(_OWN.fullmatch(name) for name in there):
        raise InputError(f"{output} already exists and does not hold vectors of textcl; name another directory.")
    return read_manifest(output) if append else {}


def with_added(output: Path, corpus: dict[str, Any]) -> dict[str, Any]:
    """Adds a corpus to the manifest, in place of one whose addition was given up. All ranks may call this together."""
    clear_leftovers(output)
    manifest = read_manifest(output)
    corpora = stored_corpora(manifest)
    for each in corpora:
        if each.sha256 == corpus["sha256"]:
            if covers(output, each):
                logger.info("%s is in %s already, so it is not added again.", corpus["name"], output)
            return manifest
    there = read_complete(output)
    whole = [each for each in corpora if each.numbers.stop <= there.shards]
    for each in corpora[len(whole) :]:
        logger.warning("%s was not added completely to %s, and is left out now.", each.name, output)
        for number in each.numbers:
            shard_path(output, number).unlink(missing_ok=True)
    check_shard(output, there.shards - 1, there)
    last = int(read_shard(output, there.shards - 1, ["id"])["id"][-1])
    added = [*manifest.get("added", ())[: len(whole) - 1], {**corpus, "first_id": last + 1}]
    manifest = {**manifest, "added": added}
    write_sealed(output / "manifest.json", manifest)
    return manifest


def covers(output: Path, corpus: StoredCorpus) -> bool:
    """Whether `complete.json` speaks of the shards of a corpus, or is damaged."""
    try:
        return read_complete(output).shards >= corpus.numbers.stop
    except InputError:
        return True


def complete(output: Path, manifest: dict[str, Any], place: int) -> None:
    """Marks a directory as complete, after the shards of one of its corpora were written.

    Shards of other corpora keep their seals. Where these were lost, the marks of the shards themselves are checked.
    """
    corpora = stored_corpora(manifest)
    try:
        sealed = read_complete(output).files
    except InputError:
        sealed = {}
    files: Seal = {}
    for number, corpus in enumerate(corpora):
        names = [shard_path(output, each).name for each in corpus.numbers]
        if number == place:
            for name in ("manifest.json", *names):
                if not (output / name).is_file():
                    raise InputError(
                        f"{output} changed while it was written: {name} is missing. Run the same `textcl encode` "
                        "again: it makes what is missing."
                    )
            files |= seal(output, names)
        elif all(name in sealed for name in names):
            files |= {name: sealed[name] for name in names}
        elif all(holds(output / name, origin(manifest, corpus), None, corpus.first_id) for name in names):
            files |= seal(output, names)
        elif number < place:
            raise InputError(
                f"Shards of {corpus.name} in {output} are missing or damaged; run the `textcl encode` again that wrote "
                "them, and then this one."
            )
        else:  # its addition was interrupted
            logger.warning(
                "Not all of %s is in %s: run the `textcl encode --append` again that adds it.", corpus.name, output
            )
            corpora = corpora[:number]
            break
    texts = sum(corpus.texts for corpus in corpora)
    write_sealed(output / "complete.json", {"texts": texts, "shards": len(files), "files": files})
