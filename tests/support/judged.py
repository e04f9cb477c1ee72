"""A small collection of judged queries in BEIR's layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def judged_titles(rows: Sequence[Mapping[str, str]], folder: Path) -> Path:
    """Each row's text is a document, and the one answer to its name."""
    (folder / "qrels").mkdir(parents=True)
    write = {
        "corpus.jsonl": [{"_id": str(i), "title": "", "text": row["text"]} for i, row in enumerate(rows)],
        "queries.jsonl": [{"_id": f"q{i}", "text": row["name"]} for i, row in enumerate(rows)],
    }
    for name, entries in write.items():
        (folder / name).write_text("\n".join(map(json.dumps, entries)))
    judged = "".join(f"q{i}\t{i}\t1\n" for i in range(len(rows)))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder
