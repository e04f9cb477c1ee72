"""An encoder in other people's programs: each block of docs/how-to/use-it-elsewhere.md gives the vectors of `encode`.

LangChain, LlamaIndex and Haystack are not installed by `make test`; conftest.py says so. To run their tests:
pip install langchain-huggingface llama-index-embeddings-huggingface haystack-ai sentence-transformers-haystack
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl import Encoder
from textcl.cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "use-it-elsewhere.md"
TEXTS_OF_PAGE = ["The boat is late.", "The ferry did not come."]
QUERY = "Why is the boat late?"
PROMPTS = {"query": "query: ", "document": "passage: "}
HAYSTACK = "haystack_integrations.components.embedders.sentence_transformers"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_pretrained("bundled", device="cpu").with_(normalize=True)


@pytest.fixture(scope="module")
def folder(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with my-encoder, as the page says, and an encoder with prompts."""
    place = tmp_path_factory.mktemp("elsewhere")
    encoder.save(place / "my-encoder")
    tiny_encoder_directory(place / "bert")
    asking = Encoder.from_pretrained(place / "bert", prompts=PROMPTS, default_prompt_name="document", device="cpu")
    asking.with_(normalize=True).save(place / "asking")
    (place / "mine.txt").write_text("\n".join(TEXTS[:64]) + "\n")
    return place


@pytest.fixture
def asking(folder: Path) -> Encoder:
    """The encoder with prompts."""
    return Encoder.from_pretrained(folder / "asking", device="cpu")


@pytest.fixture
def shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Runs the block of the page that has a word in it, and returns its variables."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")

    def run(word: str) -> dict[str, Any]:
        blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        (block,) = [block for block in blocks if word in block]
        names: dict[str, Any] = {}
        exec(compile(block, str(PAGE), "exec"), names)
        return names

    return run


def check(found: Any, encoder: Encoder, texts: str | list[str], prompt: str = "") -> None:
    expected = encoder.encode(texts, prompt=prompt)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)


def check_block(names: dict[str, Any], encoder: Encoder) -> None:
    """The vectors of texts and of a query that a block of the page left behind."""
    check(names["vectors"], encoder, TEXTS_OF_PAGE)
    check(names["query"], encoder, QUERY)


def prompts_matter(encoder: Encoder) -> None:
    vectors = [encoder.encode(QUERY, prompt=prompt) for prompt in ("", *PROMPTS.values())]
    assert min(np.abs(a - b).max() for a, b in ((vectors[0], vectors[1]), (vectors[1], vectors[2]))) > 1e-3


def test_sentence_transformers(
    shown: Callable[[str], dict[str, Any]], encoder: Encoder, asking: Encoder, folder: Path
) -> None:
    model = shown("import SentenceTransformer\n")
    check(model["vectors"], encoder, TEXTS_OF_PAGE)
    prompts_matter(asking)
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(folder / "asking"), device="cpu")
    check(theirs.encode_query([QUERY]), asking, [QUERY], PROMPTS["query"])
    check(theirs.encode_document(TEXTS[:3]), asking, TEXTS[:3], PROMPTS["document"])


def test_langchain(shown: Callable[[str], dict[str, Any]], encoder: Encoder, asking: Encoder, folder: Path) -> None:
    pytest.importorskip("langchain_huggingface")
    from langchain_huggingface import HuggingFaceEmbeddings

    check_block(shown("langchain_huggingface"), encoder)
    theirs = HuggingFaceEmbeddings(
        model_name=str(folder / "asking"),
        query_encode_kwargs={"prompt_name": "query"},
        encode_kwargs={"prompt_name": "document"},
    )
    check(theirs.embed_query(QUERY), asking, QUERY, PROMPTS["query"])
    check(theirs.embed_documents(TEXTS[:3]), asking, TEXTS[:3], PROMPTS["document"])
    plain = HuggingFaceEmbeddings(model_name=str(folder / "asking"))
    check(plain.embed_query(QUERY), asking, QUERY, PROMPTS["document"])  # the default prompt


def test_llama_index(shown: Callable[[str], dict[str, Any]], encoder: Encoder, asking: Encoder, folder: Path) -> None:
    pytest.importorskip("llama_index.embeddings.huggingface")
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    check_block(shown("llama_index"), encoder)
    theirs = HuggingFaceEmbedding(
        model_name=str(folder / "asking"), query_instruction="query: ", text_instruction="passage: "
    )
    check(theirs.get_query_embedding(QUERY), asking, QUERY, PROMPTS["query"])
    check(theirs.get_text_embedding(TEXTS[0]), asking, TEXTS[0], PROMPTS["document"])
    plain = HuggingFaceEmbedding(model_name=str(folder / "asking"))
    check(plain.get_text_embedding(TEXTS[0]), asking, TEXTS[0], "")  # it does not read the directory's prompts


def test_haystack(shown: Callable[[str], dict[str, Any]], encoder: Encoder, asking: Encoder, folder: Path) -> None:
    embedders = pytest.importorskip(HAYSTACK)
    check_block(shown("haystack"), encoder)

    def asked(**options: Any) -> list[float]:
        text = embedders.SentenceTransformersTextEmbedder(model=str(folder / "asking"), progress_bar=False, **options)
        text.warm_up()
        return list(text.run(QUERY)["embedding"])

    check(asked(encode_kwargs={"prompt_name": "query"}), asking, QUERY, PROMPTS["query"])
    check(asked(), asking, QUERY, PROMPTS["document"])  # the default prompt


@pytest.mark.slow
def test_onnx(shown: Callable[[str], dict[str, Any]], encoder: Encoder, folder: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    shown("export_onnx")
    names = shown("onnxruntime")
    check(names["vectors"], encoder, TEXTS_OF_PAGE)


def test_tensorboard(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's command, with a small encoder and few steps: the curves are those of log.jsonl."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (line,) = re.findall(r"^textcl (train .* --report-to tensorboard)$", PAGE.read_text(), re.MULTILINE)
    for name in ("bert", "mine.txt"):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)
    small = ("--model", "bert", "--max-steps", "4", "--per-device-train-batch-size", "8", "--logging-steps", "1")
    pairs = "".join(f"{TEXTS[n]}\t{TEXTS[n + n % 5]}\t{5 - n % 5}\n" for n in range(20))
    (tmp_path / "pairs.tsv").write_text(pairs)
    assert main([*line.split(), *small, "--dev", "pairs.tsv", "--eval-steps", "2"]) == 0
    log = [json.loads(line) for line in Path("runs/board/log.jsonl").read_text().splitlines()]
    (written,) = Path("runs/board/runs").iterdir()
    events = EventAccumulator(str(written))
    events.Reload()
    for ours, theirs, count in (("loss", "train/loss", 4), ("eval_pairs", "eval/pairs", 3)):
        expected = {entry["step"]: entry[ours] for entry in log if ours in entry}
        assert len(expected) == count
        found = {event.step: event.value for event in events.Scalars(theirs)}
        assert found == pytest.approx(expected, rel=1e-5)
