"""Where the test data is, a skip fails, unless it is one of the few in conftest.py's lists; and those are no longer
than what tests need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = {
    "expected": "raise pytest.skip.Exception(\"could not import 'langchain_huggingface': No module named 'x'\")",
    "another_package": "pytest.importorskip('onnxruntime.missing')",
    "a_longer_name": "pytest.importorskip('langchain_huggingface_missing')",
    "no_data": "pytest.skip('no test data')",
    "machine": "pytest.skip('this CPU has no bfloat16')",
    "a_longer_reason": "pytest.skip('this CPU has no bfloat16 or so')",
    "only_the_name": "pytest.skip('langchain_huggingface')",
    "there": "pytest.importorskip('json')",
}


class Outcomes:
    """Notes the outcome of each test, and what is said about it; conftest.py decides, as it does here."""

    def __init__(self, no_skip: Callable[[pytest.TestReport], pytest.TestReport]) -> None:
        self.no_skip = no_skip
        self.found: dict[str, str] = {}
        self.said: dict[str, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        return self.no_skip((yield))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call":
            name = report.location[2].removeprefix("test_")
            self.found[name], self.said[name] = report.outcome, str(report.longrepr)


@pytest.fixture
def conftest(pytestconfig: pytest.Config) -> Any:
    """tests/conftest.py by its path: in `sys.modules`, "conftest" is the one of the folder that was imported last."""
    return pytestconfig.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))


def test_only_expected_skips_are_skips(conftest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = "".join(f"def test_{name}():\n    {code}\n\n\n" for name, code in CASES.items())
    (tmp_path / "test_of_skips.py").write_text(f"import pytest\n\n\n{tests}")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(data_is_here: bool) -> Outcomes:
        monkeypatch.setattr(conftest, "DATA_IS_HERE", data_is_here)
        noted = Outcomes(conftest._no_skip)
        options = ["-q", "--noconftest", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist"]
        pytest.main([str(tmp_path), *options], plugins=[noted])
        return noted

    skipped = dict.fromkeys(CASES, "skipped")
    assert run(data_is_here=False).found == skipped | {"there": "passed"}
    noted = run(data_is_here=True)
    failed = dict.fromkeys(CASES, "failed")
    assert noted.found == failed | {"there": "passed", "expected": "skipped", "machine": "skipped"}
    assert noted.said["no_data"] == "A skip is a failure where the test data is: Skipped: no test data"


def test_the_lists_name_what_tests_need(conftest: Any) -> None:
    for name, file in conftest.MAY_BE_MISSING.items():
        text = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
        assert f'"{name}"' in text, f"{file} does not need {name} any more"
        assert "importorskip" in text
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    tests += (Path(__file__).parent / "support" / "disk.py").read_text(encoding="utf-8")
    for reason in conftest.MAY_LACK:
        assert f'reason="{reason}"' in tests or f'skip("{reason}")' in tests, f"no test is skipped because {reason}"
