"""A static student of an encoder: one vector for each token, so that a text costs an average and no transformer.

1. The start. Each token of the vocabulary alone is given to the teacher, and so are the most frequent words of the
   texts, which become tokens. PCA reduces the vectors, and frequent tokens weigh less: a / (a + p). With the p of
   Zipf's law this is Model2Vec (Tulkens and van Dongen 2024); here p is the token's share of the texts' tokens.
2. The regression. The mean over the tokens of a text is fitted to the teacher's vector of the text.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize
from transformers import PreTrainedTokenizerBase

from textcl.encoder import Encoder
from textcl.encoder.batching import row_lengths
from textcl.encoder.forward import embed_slice
from textcl.encoder.static import UNCUT, StaticBackbone, fast_tokenizer, flat, rows_of
from textcl.errors import InputError
from textcl.progress import Progress
from textcl.tokenising import pad, special_edges, vocabulary_size, whole_ids
from textcl.vectors.compress import unit

A = 1e-3  # the share of all tokens at which a token has half the weight
WORDS = 10_000
EPOCHS = 10
BATCH = 512
LEARNING_RATE = 3e-3
HELD_OUT = 0.02  # share of the texts that choose the epoch
MOST_HELD_OUT = 2000
_UNUSED = re.compile(r"\[unused\d+\]")
_TEXTS = 4096  # texts that are split into tokens at a time
_ROWS = 512  # tokens that the teacher embeds between two updates of the progress bar


@dataclass(frozen=True)
class Projection:
    """A PCA: the directions of largest variance.

    Attributes:
        mean: The mean of the vectors, (dim,).
        directions: One direction a column, (dim, dimensions), orthonormal.
    """

    mean: np.ndarray
    directions: np.ndarray


def frequent_words(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], count: int) -> dict[str, list[int]]:
    """The most frequent words of texts that have several tokens, with these tokens.

    Args:
        tokenizer: A WordPiece tokenizer.
        texts: The texts.
        count: How many words are returned at most; a word that occurs once is not one of them.
    """
    raw = cast(Any, tokenizer).backend_tokenizer
    prefix = json.loads(raw.to_str())["model"]["continuing_subword_prefix"]
    found: Counter[tuple[int, ...]] = Counter()
    for start in range(0, len(texts), 1024):
        # encode_batch_fast does not say which word a token belongs to
        for encoding in raw.encode_batch(list(texts[start : start + 1024]), add_special_tokens=False):
            ids, words, first = encoding.ids, encoding.word_ids, 0
            for place in range(1, len(ids) + 1):
                if place == len(ids) or words[place] != words[first]:
                    if place - first > 1:
                        found[tuple(ids[first:place])] += 1
                    first = place
    ranked = sorted((ids for ids, times in found.items() if times > 1), key=lambda ids: (-found[ids], ids))[:count]
    return {"".join(raw.id_to_token(each).removeprefix(prefix) for each in ids): list(ids) for ids in ranked}


def is_word_piece(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer takes the longest token that fits, so that a word becomes a token by being in its list."""
    return bool(json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())["model"].get("type") == "WordPiece")


def student_tokenizer(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> Tokenizer:
    """The teacher's tokenizer without special tokens around a text, and with further words as tokens."""
    content = json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())
    content |= {"post_processor": None, "truncation": None, "padding": None}
    if words:
        vocabulary = content["model"]["vocab"]
        vocabulary |= {each["content"]: each["id"] for each in content["added_tokens"]}
        first = max(vocabulary.values()) + 1
        vocabulary |= {word: first + number for number, word in enumerate(words)}
    return Tokenizer.from_str(json.dumps(content))


def token_vectors(teacher: Encoder, rows: Sequence[Sequence[int]], show: bool | None = None) -> np.ndarray:
    """The teacher's vectors of rows of tokens without special tokens, each row a text of its own, (rows, dim)."""
    before, after = special_edges(teacher.tokenizer)
    sample = whole_ids(teacher.tokenizer, ["a"])[0]
    head, tail = sample[:before], sample[len(sample) - after :]
    found = np.empty((len(rows), teacher.dimension), np.float32)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))  # most rows need no padding then
    with Progress("Encoding the vocabulary", len(rows), "tokens", show=show) as bar, torch.no_grad():
        for start in range(0, len(order), _ROWS):
            some = order[start : start + _ROWS]
            tokens = pad(teacher.tokenizer, [[*head, *rows[row], *tail] for row in some])
            tokens = {name: each.to(teacher.device) for name, each in tokens.items()}
            vectors, _ = embed_slice(teacher, tokens, row_lengths(tokens), dropout=False)
            found[some] = vectors.float().cpu().numpy()
            bar.update(len(some))
    return found


def principal(vectors: np.ndarray, dimensions: int) -> Projection:
    """The PCA of vectors, (rows, dim), to `dimensions`.

    Raises:
        InputError: There are not more vectors than dimensions.
    """
    if len(vectors) <= dimensions:
        raise InputError(
            f"The PCA to {dimensions} dimensions needs more than {dimensions} tokens, and there are {len(vectors)}; "
            "name a smaller number of dimensions."
        )
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    _, directions = np.linalg.eigh(centred.T @ centred)
    return Projection(mean, np.ascontiguousarray(directions[:, ::-1][:, :dimensions]))


def starting_table(vectors: np.ndarray, projection: Projection, shares: np.ndarray, a: float) -> np.ndarray:
    """The table before the regression, (tokens, dimensions) float32.

    Args:
        vectors: The teacher's vectors of the tokens, (tokens, dim).
        projection: The PCA.
        shares: The share of each token among all tokens, (tokens,).
        a: The share at which a token has half the weight.
    """
    weights = a / (a + shares)
    table = (vectors - projection.mean) @ projection.directions * weights[:, None]
    return np.ascontiguousarray(table, dtype=np.float32)


@dataclass(frozen=True)
class Bags:
    """Texts as rows of tokens, one after the other.

    Attributes:
        ids: The tokens of all rows, (tokens,).
        offsets: Where each row begins, and the end, (rows + 1,).
    """

    ids: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Bags":
        ids, offsets = flat(rows)
        return cls(ids, torch.cat([offsets, torch.tensor([len(ids)])]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of some rows and where each row begins, as `embedding_bag` takes them."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        begins = lengths.cumsum(0) - lengths
        places = torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts - begins, lengths)
        return self.ids[places], begins

    def means(self, table: Tensor) -> Tensor:
        """The mean over the tokens of each row, (rows, dimensions)."""
        return embedding_bag(self.ids, table, self.offsets[:-1], mode="mean")


@dataclass(frozen=True)
class Fitted:
    """The result of the regression.

    Attributes:
        table: The table, (tokens, dimensions).
        cosines: The mean cosine of student and teacher over the held-out texts: before, and after each epoch.
        epoch: The epoch whose table this is, the one with the highest cosine; 0: the start.
    """

    table: Tensor
    cosines: list[float]
    epoch: int


def fit_table(
    start: Tensor,
    bags: Bags,
    targets: Tensor,
    *,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH,
    seed: int = 0,
    show: bool | None = None,
) -> Fitted:
    """Regression of the teacher's vectors on the tokens of the texts.

    Minimises 1 − cosine of the mean over the tokens with the teacher's vector, which is half the squared distance
    of the two as unit vectors, by AdamW (Loshchilov and Hutter 2019) with a learning rate that falls linearly to 0. A
    part of the texts is held out, and the table of the best epoch is returned, the start included.

    Args:
        start: The table at the start, (tokens, dimensions).
        bags: The texts; each has a token.
        targets: The teacher's vectors in the dimensions of the student, (texts, dimensions).
        epochs: How often each text is seen.
        learning_rate: The learning rate at the start.
        batch_size: Texts in a step.
        seed: The seed of the held-out texts and of the order.
        show: Whether to show a bar, see `Progress`.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = normalize(targets, dim=-1)
    order = torch.randperm(len(bags), generator=generator)
    held = order[: held_out(len(order))]
    order = order[len(held) :]
    used, ids = bags.ids.unique(return_inverse=True)  # the other tokens keep their vectors
    bags = Bags(ids, bags.offsets)
    table = nn.Parameter(start[used])
    optimizer = torch.optim.AdamW([table], lr=learning_rate, weight_decay=0.0)
    steps = epochs * -(-len(order) // batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, max(1, steps))
    held_ids, held_begins = bags.take(held)

    def cosine() -> float:
        with torch.no_grad():
            found = normalize(embedding_bag(held_ids, table, held_begins, mode="mean"), dim=-1)
            return float((found * targets[held]).sum(dim=-1).mean())

    cosines = [cosine()]
    best = Fitted(start, cosines, 0)
    with Progress("Fitting the student", steps, "steps", show=show) as bar:
        for epoch in range(1, epochs + 1):
            mixed = order[torch.randperm(len(order), generator=generator)]
            for rows in mixed.split(batch_size):
                ids, begins = bags.take(rows)
                found = normalize(embedding_bag(ids, table, begins, mode="mean"), dim=-1)
                loss = 1 - (found * targets[rows]).sum(dim=-1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
            cosines.append(cosine())
            if cosines[-1] > max(cosines[:-1]):
                best = Fitted(start.index_copy(0, used, table.detach()), cosines, epoch)
    return best


def held_out(texts: int) -> int:
    """How many of the texts are held out."""
    return min(MOST_HELD_OUT, max(1, round(HELD_OUT * texts)))


def unit_targets(vectors: np.ndarray, projection: Projection) -> Tensor:
    """The teacher's vectors of texts, with as many dimensions as the student, of length 1, (texts, dimensions)."""
    return torch.from_numpy(unit(unit(vectors) @ projection.directions.astype(np.float32)))


@dataclass(frozen=True)
class Start:
    """A static student before the regression.

    Attributes:
        tokenizer: The student's tokenizer.
        table: The vector of each token, (tokens, dimensions).
        projection: The PCA from the teacher's dimensions to the student's.
        rows: The tokens of the texts.
        words: How many words became tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    table: Tensor
    projection: Projection
    rows: list[list[int]]
    words: int

    def encoder(self, table: Tensor, name: str = "") -> Encoder:
        """The student with this table; its vectors have length 1."""
        return Encoder(StaticBackbone.of(table), self.tokenizer, max_length=UNCUT, normalize=True, name=name).eval()


def start_of(
    teacher: Encoder, texts: Sequence[str], dimensions: int, words: int | None = None, show: bool | None = None
) -> Start:
    """The static student of a teacher before it has learnt from the texts.

    Args:
        teacher: The encoder.
        texts: The texts; their tokens are counted, and their frequent words become tokens.
        dimensions: The dimensions of the student.
        words: How many words become tokens; default: 10,000 if the tokenizer is WordPiece, else none.
        show: Whether to show bars, see `Progress`.

    Raises:
        InputError: The vocabulary is too small for the PCA, or words are asked for and the tokenizer is not WordPiece.
    """
    whole = is_word_piece(teacher.tokenizer)
    if words and not whole:
        raise InputError(f"Words become tokens only of a WordPiece tokenizer, which {teacher.name} does not have.")
    words = (WORDS if whole else 0) if words is None else words
    added = frequent_words(teacher.tokenizer, texts, words) if words else {}
    tokenizer = fast_tokenizer(student_tokenizer(teacher.tokenizer, list(added)))
    own = vocabulary_size(teacher.tokenizer)
    rows = [[token] for token in range(own)] + list(added.values())
    vectors = token_vectors(teacher, rows, show)
    bags = [row for first in range(0, len(texts), _TEXTS) for row in rows_of(tokenizer, texts[first : first + _TEXTS])]
    counts = np.bincount(flat(bags)[0].numpy(), minlength=len(rows))
    # tokens that no text can hold say nothing about directions
    special = {*teacher.tokenizer.all_special_ids}
    named = teacher.tokenizer.get_vocab().items()
    ordinary = [token for name, token in named if token not in special and not _UNUSED.fullmatch(name)]
    ordinary += range(own, len(rows))
    projection = principal(vectors[ordinary], dimensions)
    table = torch.from_numpy(starting_table(vectors, projection, counts / counts.sum(), A))
    lengths = Bags.of(bags).means(table).norm(dim=-1)
    return Start(tokenizer, table / lengths.mean().clamp(min=1e-9), projection, bags, len(added))
