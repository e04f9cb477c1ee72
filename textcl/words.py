"""Words, also of scripts that put no spaces between them.

These are Chinese, Japanese, Thai, Lao, Burmese and Khmer. No dictionary is used: two neighbouring characters count as
a word when texts are compared (Lucene's analysis of Chinese and Japanese does the same), and one character when a text
is cut or changed. A character is a letter with the marks on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from unicodedata import category

# Thai and Lao, Burmese, Khmer, then Chinese and Japanese with their punctuation marks
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
KOREAN = "\uac00-\ud7a3"
_HAS_UNSPACED = re.compile(f"[{UNSPACED}]")
_HAS_CHARACTERS = re.compile(f"[{UNSPACED}{KOREAN}]")
_PLAIN_WORD = re.compile(r"(\w+(?:['’-]\w+)*)")


def words_of(text: str, least: int = 1) -> list[str]:
    """The words of a text in their order: runs of letters, digits and underscores, or pairs of characters.

    Args:
        text: The text.
        least: The number of letters of the shortest word.

    Example:
        >>> words_of("Two cats, 猫睡觉")
        ['Two', 'cats', '猫睡', '睡觉']
    """
    if _is_plain(text):
        return re.findall(rf"\w{{{least},}}", text)
    return re.findall(word_pattern(least), with_spaces(text))


def with_spaces(text: str, *, for_search: bool = False) -> str:
    """A text whose pairs of characters are separate words, for tokenizers of other packages.

    Args:
        text: The text.
        for_search: Whether a query has to find longer words too. Then each character of a pair is a word as well, and
            so are the characters and pairs of Korean words, most of which end in a particle.

    Example:
        >>> with_spaces("睡觉了"), with_spaces("睡觉了", for_search=True)
        (' 睡觉 觉了 ', ' 睡 觉 了 睡觉 觉了 ')
    """
    if text.isascii() or not (_HAS_CHARACTERS if for_search else _HAS_UNSPACED).search(text):
        return text

    def separate(run: re.Match[str]) -> str:
        characters = _character().findall(run[0])
        pairs = [one + two for one, two in pairwise(characters)]
        return f" {' '.join([*characters, *pairs] if for_search else pairs or characters)} "

    return _run(UNSPACED + KOREAN * for_search).sub(separate, text)


def word_pattern(least: int = 1, *, for_search: bool = False) -> str:
    """Matches a word of at least `least` letters in what `with_spaces` returns, or one character without spaces.

    `\\w` alone would cut words of Hindi or Tamil at their vowel signs, which are marks.
    """
    return rf"[\w{_marks()}]{{{least},}}|(?=\w)[{UNSPACED + KOREAN * for_search}]"


def pieces_of(text: str) -> list[str]:
    """The pieces of a text: words such as "don't" at odd places, and what is between them at even places.

    Example:
        >>> pieces_of("Don't, 猫睡")
        ['', "Don't", ', ', '猫', '', '睡', '']
    """
    return (_PLAIN_WORD if _is_plain(text) else _word()).split(text)


def split_words(text: str) -> list[str]:
    """The words of a text with their punctuation marks; where no spaces separate them, its characters.

    Example:
        >>> split_words("Two cats, 猫睡觉")
        ['Two', 'cats,', '猫', '睡', '觉']
    """
    if text.isascii() or not _HAS_UNSPACED.search(text):
        return text.split()
    return _part().findall(text)


def join_words(words: Sequence[str]) -> str:
    """The text of such words, in which spaces are put back where the script has them.

    Example:
        >>> join_words(["Two", "cats,", "猫", "睡"])
        'Two cats, 猫睡'
    """
    if all(map(str.isascii, words)):
        return " ".join(words)
    text = "".join(word if _HAS_UNSPACED.match(word) else f" {word} " for word in words)
    return " ".join(text.split())


def count_words(text: str) -> int:
    """About how many words a text has: two characters count as one word where no spaces separate words.

    Example:
        >>> count_words("two cats sleep"), count_words("两只猫在睡觉")
        (3, 3)
    """
    words = split_words(text)
    return len(words) - sum(map(bool, map(_HAS_UNSPACED.match, words))) // 2


def _is_plain(text: str) -> bool:
    """Whether the words of a text are what `\\w` matches, which takes an eighth of the time."""
    return text.isascii() or not _not_plain().search(text)


@cache
def _not_plain() -> re.Pattern[str]:
    return re.compile(f"[{UNSPACED}{_marks()}]")


@cache
def _marks() -> str:
    marks = "".join(chr(code) for code in range(0x300, 0x10000) if category(chr(code)) in ("Mn", "Mc"))
    # whole blocks of Brahmic scripts and of Miao: with single characters above 0xffff `re` takes ten times as long
    return f"{marks}\U00011000-\U00011fff\U00016f40-\U00016f9f"


@cache
def _character() -> re.Pattern[str]:
    return re.compile(rf"\w[{_marks()}]*|.")


@cache
def _run(characters: str) -> re.Pattern[str]:
    return re.compile(rf"(?:(?=[\w{_marks()}])[{characters}])+")


@cache
def _word() -> re.Pattern[str]:
    plain = rf"(?:(?![{UNSPACED}])[\w{_marks()}])+"
    return re.compile(rf"((?=\w)[{UNSPACED}][{_marks()}]*|{plain}(?:['’-]{plain})*)")


@cache
def _part() -> re.Pattern[str]:
    return re.compile(rf"[{UNSPACED}][{_marks()}]*|[^\s{UNSPACED}]+")
