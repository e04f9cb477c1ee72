"""Synonyms of words and of the tokens of a vocabulary, from WordNet 3.0, which NLTK reads from disk."""

import os
import unicodedata
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.data.catalogue import data_directory
from textcl.errors import InputError

MOST = 8
"""A word is replaced by one of this many synonyms, the most frequent ones."""


def require(resource: str) -> None:
    """Makes NLTK find a resource on disk: in $NLTK_DATA, in NLTK's folders, or in `nltk_data` in the data directory.

    Args:
        resource: The resource's path in NLTK's layout, such as "corpora/wordnet".

    Raises:
        InputError: The resource is in none of these folders, or NLTK is not installed.
    """
    try:
        import nltk.data
    except ImportError:
        raise InputError("WordNet is read by NLTK, which is not installed: pip install nltk") from None
    own = os.path.abspath(data_directory() / "nltk_data")
    for folder in (*os.environ.get("NLTK_DATA", "").split(os.pathsep), own):
        if folder and folder not in nltk.data.path:
            nltk.data.path.append(folder)
    try:
        nltk.data.find(resource)
    except LookupError:
        raise InputError(
            f"NLTK's {resource} is not on this machine: not in $NLTK_DATA, not in NLTK's own folders, not in {own}. "
            f"Import it with `textcl data import nltk_data.tar.xz`, an archive or folder in NLTK's layout."
        ) from None


def synonyms(word: str) -> list[str]:
    """The single-word lemmas of all synsets of a word, lower-cased, without the word itself.

    They are sorted by how often they occur in WordNet's sense-tagged texts, in the senses that they share with the
    word; the most frequent comes first. An inflected word is looked up by its base form.

    Raises:
        InputError: WordNet is not on this machine; the message says how to import it.

    Example:
        >>> synonyms("huge")  # doctest: +SKIP
        ['vast', 'immense', 'brobdingnagian']
    """
    return list(_synonyms(word.lower()))


def substitutes(word: str) -> tuple[str, ...]:
    """The `MOST` most frequent synonyms of a word, by which it may be replaced; none for a stop word.

    Stop words are not replaced, as in EDA (Wei and Zou 2019): in WordNet, "in" means indium and "a" ampere.
    """
    word = word.lower()
    return () if word in _stop_words() else _synonyms(word)[:MOST]


def in_case_of(word: str, synonym: str) -> str:
    """The synonym with the word's capitals: all upper case, or with an upper-case first letter."""
    if word.isupper() and len(word) > 1:
        return synonym.upper()
    return synonym[:1].upper() + synonym[1:] if word[:1].isupper() else synonym


def synonym_table(tokenizer: PreTrainedTokenizerBase, most: int = MOST) -> tuple[Tensor, Tensor]:
    """The synonyms of every token that is a whole word; only synonyms that are single tokens are included.

    Args:
        tokenizer: A tokenizer with a WordPiece, byte-level BPE or SentencePiece vocabulary.
        most: The largest number of synonyms per token; the most frequent ones are kept.

    Returns:
        The ids of the synonyms, (vocabulary, most), int64, filled up with the token's own id; and the number of
        synonyms of each token, (vocabulary,), int64.

    Raises:
        InputError: WordNet is not on this machine.
    """
    words = whole_words(tokenizer)
    ids = {word: index for index, word in words.items()}
    table = torch.arange(_size(tokenizer)).unsqueeze(1).repeat(1, most)
    count = torch.zeros(len(table), dtype=torch.long)
    for index, word in words.items():
        names = (in_case_of(word, name) for name in substitutes(word))
        found = [ids[name] for name in names if name in ids][:most]
        table[index, : len(found)] = torch.tensor(found, dtype=torch.long)
        count[index] = len(found)
    return table, count


def continues(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Which tokens continue a word, (vocabulary,), bool.

    Punctuation and special tokens do not. In byte-level BPE the first token of a text has no mark, so this function
    says that it continues a word; treat the first token of a text always as the beginning of a word.
    """
    vocabulary, mark = _vocabulary(tokenizer)
    result = torch.zeros(_size(tokenizer), dtype=torch.bool)
    for token, index in vocabulary.items():
        result[index] = _continues(token, mark) and (mark == "##" or not _is_punctuation(_written(token, tokenizer)))
    return result


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that are whole words of letters: from token id to word."""
    vocabulary, mark = _vocabulary(tokenizer)
    begins = {index: token for token, index in vocabulary.items() if not _continues(token, mark)}
    words = {index: _written(token, tokenizer).removeprefix(mark).strip() for index, token in begins.items()}
    return {index: word for index, word in words.items() if word.isalpha()}


@cache
def _synonyms(word: str) -> tuple[str, ...]:
    reader, counts = _reader()
    found: dict[str, int] = {}
    for synset in reader.synsets(word):
        for lemma in synset.lemmas():
            name = lemma.name().lower()
            if "_" not in name and name != word:
                found[name] = found.get(name, 0) + counts.get(lemma.key(), 0)
    return tuple(sorted(found, key=found.__getitem__, reverse=True))


@cache
def _reader() -> tuple[Any, dict[str, int]]:
    """NLTK's reader and the count of each sense key. All counts are read once, since NLTK would search for each."""
    require("corpora/wordnet")
    from nltk.corpus import wordnet
    from nltk.corpus.reader.wordnet import WordNetError

    try:
        wordnet.ensure_loaded()
        with wordnet.open("cntlist.rev") as lines:
            counts = {key: int(count) for key, _, count in map(str.split, lines)}
    except (OSError, ValueError, WordNetError) as error:
        raise InputError(
            f"WordNet cannot be read; all its files must be present, and none may be a link: {error}"
        ) from None
    return wordnet, counts


@cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], str]:
    """The vocabulary without special tokens, and its mark: "##" continues a word, "Ġ" and "▁" begin one, "": no mark.

    The most frequent mark is taken, because RoBERTa has a token "##" too, with another meaning.
    """
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    vocabulary = {token: index for token, index in tokenizer.get_vocab().items() if index not in special}
    counts = {mark: sum(token.startswith(mark) for token in vocabulary) for mark in ("##", "Ġ", "▁")}
    mark = max(counts, key=counts.__getitem__)
    return vocabulary, mark if counts[mark] else ""


def _size(tokenizer: PreTrainedTokenizerBase) -> int:
    return max(tokenizer.get_vocab().values()) + 1  # ids may have gaps


def _continues(token: str, mark: str) -> bool:
    return token.startswith(mark) if mark == "##" else not token.startswith(mark)


def _written(token: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A token as text. Byte-level BPE writes the bytes of non-ASCII characters as other characters."""
    return token if token.isascii() else tokenizer.convert_tokens_to_string([token])


def _is_punctuation(text: str) -> bool:
    # U+FFFD means an incomplete character; such bytes do continue a word
    return all(unicodedata.category(sign)[0] in "PSZC" and sign != "\ufffd" for sign in text)
