"""What all tests share: the test data, two processes, one thread each, and no silent skips."""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.process_pool import ProcessPool

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA_IS_HERE = SHARED.exists() or "TEXTCL_TEST_DATA" in os.environ

# Every skip is a failure where the test data is, except those of the two lists.
# The packages that `make test` does not install, as `pytest.importorskip` names them, with the test that needs them:
MAY_BE_MISSING = {
    "langchain_huggingface": "tests/test_integrations.py",
    "llama_index.embeddings.huggingface": "tests/test_integrations.py",
    "haystack_integrations.components.embedders.sentence_transformers": "tests/test_integrations.py",
}
# What a machine may lack, as the reasons of the skips say it:
MAY_LACK = (
    "this CPU has no bfloat16",
    "torch has no oneDNN here",
    "another allocator",
    "RssAnon is of Linux",
    "there is no /dev/full",
    "only root can mount a file system",
    "needs root to become another user",
)

torch.set_num_threads(1)
CACHE = tempfile.TemporaryDirectory()  # tests leave nothing in the user's
os.environ["XDG_CACHE_HOME"] = CACHE.name
collect_ignore = [] if torch.cuda.is_available() else ["test_gpu.py"]  # nobody would see it skipped


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora and evaluation sets: $TEXTCL_TEST_DATA, else ../shared/data, else a skip."""
    folder = Path(os.environ.get("TEXTCL_TEST_DATA", SHARED / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data: set TEXTCL_TEST_DATA ({folder} is no directory)")
    return folder


@pytest.fixture(scope="session")
def evaluation_sets(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with all public evaluation sets in it, brought in from the real archives."""
    from textcl.data import import_archive

    directory = tmp_path_factory.mktemp("evaluation_sets")
    import_archive(shared_data / "senteval_downstream.tar.xz", directory)
    import_archive(shared_data / "clustering.tar.xz", directory)
    return directory


@pytest.fixture(scope="session")
def few_sets(evaluation_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with STS16, STS-B and AgNews alone: each run reads all sets, to look for overlap."""
    directory = tmp_path_factory.mktemp("few_sets")
    for name in ("STS/STS16-en-test", "STS/STSBenchmark", "clustering/agnews.csv"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).symlink_to(evaluation_sets / name)
    return directory


@pytest.fixture(scope="session")
def lexicons(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with WordNet and the tagger in it."""
    from textcl.data import import_archive

    directory = tmp_path_factory.mktemp("lexicons")
    import_archive(shared_data / "nltk_data.tar.xz", directory)
    return directory


@pytest.fixture(scope="session")
def two_processes() -> Iterator[ProcessPool]:
    """``two_processes(function, *args)`` -> the results of ``function(rank, *args)`` on two gloo ranks."""
    pool = ProcessPool()
    yield pool
    pool.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where the data is, a skip that is not expected is a failure: nothing goes untested unseen."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _no_skip((yield))


def _no_skip(report):
    if report.skipped and DATA_IS_HERE and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        missing = re.search(r"could not import '([\w.]+)': No module named", reason)
        if (missing and missing[1] in MAY_BE_MISSING) or reason.removeprefix("Skipped: ") in MAY_LACK:
            return report  # pytest lists it at the end of its output
        report.outcome = "failed"
        report.longrepr = f"A skip is a failure where the test data is: {reason}"
    return report
