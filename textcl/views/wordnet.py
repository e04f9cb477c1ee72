"""WordNet 3.0, read from disk by NLTK: the synonyms of a word, and of the tokens of a vocabulary."""

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
"""Synonyms of a word that are drawn from, the most frequent ones."""


def require(resource: str) -> None:
    """Makes NLTK find a resource on disk: in $NLTK_DATA, its own folders, or `nltk_data` in the data directory.

    Args:
        resource: Its path in NLTK's layout, such as "corpora/wordnet".

    Raises:
        InputError: It is in none of them, or NLTK is not installed.
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
            f"Bring it in with `textcl data import nltk_data.tar.xz`, an archive or folder in NLTK's layout."
        ) from None


def synonyms(word: str) -> list[str]:
    """The single-word lemmas of all synsets of a word, lower-cased, without the word itself.

    Those that occur most often in WordNet's sense-tagged texts, in the senses that they share with the word, come
    first. Inflected words are looked up under their base form.

    Raises:
        InputError: WordNet is not on this machine; the message says how to bring it in.

    Example:
        >>> synonyms("huge")  # doctest: +SKIP
        ['vast', 'immense', 'brobdingnagian']
    """
    return list(_synonyms(word.lower()))


def substitutes(word: str) -> tuple[str, ...]:
    """What a word may be replaced with: its `MOST` most frequent synonyms; nothing where it is a stop word.

    As in EDA (Wei and Zou 2019), stop words stay: WordNet knows "in" as indium and "a" as ampere.
    """
    word = word.lower()
    return () if word in _stop_words() else _synonyms(word)[:MOST]


def in_case_of(word: str, synonym: str) -> str:
    """A synonym, written with capitals where the word has them."""
    if word.isupper() and len(word) > 1:
        return synonym.upper()
    return synonym[:1].upper() + synonym[1:] if word[:1].isupper() else synonym


def synonym_table(tokenizer: PreTrainedTokenizerBase, most: int = MOST) -> tuple[Tensor, Tensor]:
    """The synonyms of every token that is a word by itself, as far as they are such tokens too.

    Args:
        tokenizer: With a WordPiece, byte-level BPE or SentencePiece vocabulary.
        most: Synonyms a token, the most frequent ones.

    Returns:
        Their ids (vocabulary, most), int64, the token's own id where there are fewer; and how many there are
        (vocabulary,), int64.

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

    Punctuation and special tokens do not. In byte-level BPE the first word of a text bears no mark either, so what
    stands first in a text begins a word whatever this says.
    """
    vocabulary, mark = _vocabulary(tokenizer)
    result = torch.zeros(_size(tokenizer), dtype=torch.bool)
    for token, index in vocabulary.items():
        result[index] = _continues(token, mark) and (mark == "##" or not _is_punctuation(_written(token, tokenizer)))
    return result


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that are words of letters by themselves, id -> word."""
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
    """NLTK's reader, and how often each sense key occurs (read at once: NLTK would search the file for each)."""
    require("corpora/wordnet")
    from nltk.corpus import wordnet
    from nltk.corpus.reader.wordnet import WordNetError

    try:
        wordnet.ensure_loaded()
        with wordnet.open("cntlist.rev") as lines:
            counts = {key: int(count) for key, _, count in map(str.split, lines)}
    except (OSError, ValueError, WordNetError) as error:
        raise InputError(f"WordNet cannot be read; it has to be whole, and of files, not links: {error}") from None
    return wordnet, counts


@cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], str]:
    """The vocabulary without special tokens, and its mark: "##" continues a word, "Ġ" and "▁" begin one, "" is none.

    The commonest is taken, since "##" is also a token of RoBERTa, where it has other uses.
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
    """A token as text: byte-level BPE writes what is not ASCII as bytes in disguise."""
    return token if token.isascii() else tokenizer.convert_tokens_to_string([token])


def _is_punctuation(text: str) -> bool:
    # U+FFFD stands for part of a character's bytes, which do continue a word.
    return all(unicodedata.category(sign)[0] in "PSZC" and sign != "\ufffd" for sign in text)
