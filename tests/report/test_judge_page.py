"""The page of blind judging: keys, clicks and the terminal give one file; the source hides what must be hidden."""

import base64
import hashlib
import io
import json
import re
import time
from pathlib import Path

import pytest
from support.browser import CHROMIUM, Browser

from textcl.adaptation.judging import BlindPairs, draw_pairs
from textcl.cli.main import main
from textcl.data.training import BUNDLED_TEXTS
from textcl.report.judge import judging_page, save_judging_page

HOSTILE = (
    "<script>document.title = 'owned'</script></script><img src=x onerror=\"document.title = 'owned'\"> \u202eesrever"
)
GLOSSES = [line for line in BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines() if 8 <= len(line.split()) <= 14]
ANSWERS = [("left", "right", "equal", "neither")[n * n % 7 % 4] for n in range(50)]
KEYS = {"left": "l", "right": "r", "equal": "e", "neither": "n"}
PROGRESS = "document.getElementById('progress').textContent"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judging")
    texts = [f"{text} {HOSTILE}" if n % 2 else text for n, text in enumerate(dict.fromkeys(GLOSSES[:200]))]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="module")
def pairs(work: Path) -> BlindPairs:
    return draw_pairs("bm25", "tfidf", work / "texts.jsonl", work / "judgements.tsv")


@pytest.fixture(scope="module")
def page(pairs: BlindPairs, work: Path) -> Path:
    return save_judging_page(pairs, work / "page.html")


@pytest.fixture(scope="module")
def expected(work: Path, pairs: BlindPairs) -> bytes:
    """The file that the terminal writes."""
    command = ["judge", "bm25", "tfidf", "--data", str(work / "texts.jsonl"), "--output", str(pairs.output)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO("".join(f"{KEYS[answer]}\n" for answer in ANSWERS)))
        assert main(command) == 0
    content = pairs.output.read_bytes()
    pairs.output.unlink()
    return content


def test_the_source_holds_the_texts_and_not_whose_they_are(pairs: BlindPairs):
    html = judging_page(pairs)
    embedded = json.loads(re.findall(r'<script type="application/json" id="judged">(.*?)</script>', html)[0])
    assert set(embedded) == {"name", "file", "pairs", "answers"}
    assert [set(pair) for pair in embedded["pairs"]] == [{"query", "left", "right"}] * 50
    assert [(pair["query"], pair["left"], pair["right"]) for pair in embedded["pairs"]] == [
        pairs.shown(number) for number in range(50)
    ]
    for secret in ("bm25", "tfidf", pairs.content["sides"], pairs.content["identity"]):
        assert secret not in html.casefold(), secret


def test_the_policy_allows_the_script_of_the_page_alone_and_no_connection(pairs: BlindPairs):
    html = judging_page(pairs)
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}';" in html
    assert not re.search(r'(src|href)="(?!#")', html)


def test_a_page_goes_on_with_the_answers_of_the_terminal(pairs: BlindPairs):
    pairs.write(["left", "equal"])
    assert '"answers": ["left", "equal"]' in judging_page(pairs)
    pairs.output.unlink()


if CHROMIUM:  # a browser is no part of the package's own needs; where there is one, it opens the page

    def test_50_clicks_50_keys_and_the_terminal_give_one_file(page: Path, expected: bytes):
        with Browser() as browser:
            browser.open(page)
            for answer in ANSWERS:
                browser.click(f"button[data-answer={answer}]")
            browser.click("#save")
            by_clicks = browser.downloaded("judgements.tsv")
            assert browser.evaluate("document.title") == "Which text fits better?"
            assert browser.complaints == []
        with Browser() as browser:
            browser.open(page)
            arrows = {"left": "ArrowLeft", "right": "ArrowRight"}
            for number, answer in enumerate(ANSWERS):
                browser.press(arrows.get(answer, KEYS[answer].upper()) if number % 2 else KEYS[answer])
            browser.press("l")  # one more changes nothing
            browser.click("#save")
            by_keys = browser.downloaded("judgements.tsv")
        assert by_clicks == by_keys == expected
        assert expected.decode().split("\n")[1:3] == [
            f"{expected.decode().split()[3]}\t{n}\t{ANSWERS[n - 1]}" for n in (1, 2)
        ]

    def test_a_page_that_is_opened_again_goes_on_and_fits_a_phone(page: Path, pairs: BlindPairs):
        with Browser(390, 800) as browser:
            browser.open(page)
            assert browser.evaluate(PROGRESS) == "Pair 1 of 50"
            for part, text in zip(("query", "left", "right"), pairs.shown(0), strict=True):
                assert browser.evaluate(f"document.getElementById('{part}').textContent") == text
            for key in ("l", "x", "e", "b", "n"):
                browser.press(key)
            assert browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
            end = time.monotonic() + 60  # the browser stores what a page keeps a moment later
            browser.open(page)
            while browser.evaluate(PROGRESS) != "Pair 3 of 50":
                assert time.monotonic() < end, browser.evaluate(PROGRESS)
                time.sleep(0.2)  # each opening puts off the storing of what the last page kept
                browser.open(page)
            browser.click("#save")
            content = browser.downloaded("judgements.tsv")
        pairs.output.write_bytes(content)
        assert pairs.answers() == ["left", "neither"]
        pairs.output.unlink()

    def test_the_buttons_stay_in_sight_and_a_new_pair_is_shown_from_its_beginning(page: Path):
        with Browser(600, 260) as browser:
            browser.open(page)
            button = "document.querySelector('button[data-answer=left]').getBoundingClientRect()"
            assert browser.evaluate(f"{button}.bottom <= innerHeight && {button}.top > 0")
            places = "[scrollY, ...[...document.querySelectorAll('.result')].map((box) => box.scrollTop)]"
            browser.evaluate("for (const box of document.querySelectorAll('.result')) box.scrollTop = 9")
            browser.evaluate("scrollTo(0, 100)")
            assert min(browser.evaluate(places)) > 0
            browser.press("e")
            assert browser.evaluate(PROGRESS) == "Pair 2 of 50"
            assert browser.evaluate(places) == [0, 0, 0]
