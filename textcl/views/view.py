"""The View protocol: how one text becomes several, by changing its tokens or by changing values inside the encoder.

The name of a view lists its operators, each with a rate if it is not the default: "plain", "shuffle",
"token_cutoff:0.15", "word_deletion:0.5+reordering". "plain" changes nothing: two plain views differ only by dropout.

A rate is always the share that is changed or removed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from textcl.errors import InputError, nearest
from textcl.views import model_side, tokens
from textcl.views.template import Template
from textcl.views.wordnet import continues, synonym_table

TokenOperator = Callable[[tokens.TokenRows, tokens.Draw], tokens.TokenRows]

DELETION_TOKEN = "[DEL]"


@dataclass(frozen=True)
class Operator:
    """A view operator: its function and how to use it.

    Attributes:
        function: Changes token rows, or the rows of one view inside the encoder.
        rate: The share that is changed or removed by default; None: the operator has no rate.
        place: What the operator changes: the "tokens" of a row, the "inputs" of the backbone, or the output of the
            backbone's embedding block ("embeddings").
        options: Computes further arguments of the function from the tokenizer and the backbone's longest row.
        deletes: Whether the operator puts [DEL] into rows; the tokenizer must then have this token.
    """

    function: Callable[..., Any]
    rate: float | None
    place: Literal["tokens", "inputs", "embeddings"]
    options: Callable[[Any, int | None], dict[str, Any]] = lambda tokenizer, longest: {}
    deletes: bool = False


def _deletion_token(tokenizer: Any, longest: int | None) -> dict[str, Any]:
    return {"deletion_token": tokenizer.convert_tokens_to_ids(DELETION_TOKEN)}


def _synonyms(tokenizer: Any, longest: int | None) -> dict[str, Any]:
    table, count = synonym_table(tokenizer)
    return {"table": table, "count": count, "continues": continues(tokenizer)}


# The default rates are those of the papers (ConSERT §4.1; ESimCSE; those of CLEAR are unverified).
OPERATORS: dict[str, Operator] = {
    "word_deletion": Operator(tokens.word_deletion, 0.7, "tokens", _deletion_token, deletes=True),
    "span_deletion": Operator(tokens.span_deletion, 0.25, "tokens", _deletion_token, deletes=True),
    "reordering": Operator(tokens.reordering, 0.25, "tokens"),
    "substitution": Operator(tokens.substitution, 0.3, "tokens", _synonyms),
    "repetition": Operator(tokens.repetition, 0.32, "tokens", lambda tokenizer, longest: {"longest": longest}),
    "crop_away": Operator(tokens.crop_away, 0.5, "tokens"),
    "shuffle": Operator(model_side.shuffle, None, "inputs"),
    "span": Operator(model_side.span, 0.15, "inputs"),
    "token_cutoff": Operator(model_side.token_cutoff, 0.15, "embeddings"),
    "feature_cutoff": Operator(model_side.feature_cutoff, 0.2, "embeddings"),
    "embedding_dropout": Operator(model_side.embedding_dropout, 0.2, "embeddings"),
}


@dataclass(frozen=True)
class View:
    """One view of a text, parsed from its name.

    Attributes:
        name: The name that the view was parsed from.
        token_operators: The operators on the token rows, in order.
        input_operators: The operators on the backbone's inputs, in order.
        embedding_operators: The operators on the output of the backbone's embedding block, in order.
        shuffles_positions: Whether an input operator permutes position ids.
        template: The template into which the text is put first.
    """

    name: str = "plain"
    token_operators: tuple[TokenOperator, ...] = ()
    input_operators: tuple[model_side.Operator, ...] = ()
    embedding_operators: tuple[model_side.Operator, ...] = ()
    shuffles_positions: bool = False
    template: Template | None = None


PLAIN = View()


def deletes_tokens(names: Iterable[str]) -> bool:
    """Whether one of these views needs a tokenizer with `DELETION_TOKEN`."""
    found = (operator for name in names for operator, _, _ in _parts(name))
    return any(OPERATORS[operator].deletes for operator in found)


def parse_view(name: str, tokenizer: Any, longest: int | None = None) -> View:
    """Parses the name of a view, such as "word_deletion:0.5+reordering".

    Args:
        name: Operators joined by plus signs, each optionally followed by a colon and a rate from 0 to 1.
        tokenizer: The encoder's tokenizer. Operators on tokens need it for the id of [DEL] and for synonyms.
        longest: The longest row that the backbone has positions for, in tokens, special tokens included.

    Raises:
        InputError: An operator is unknown (the message suggests the nearest), or a rate is not valid.
    """
    placed: dict[str, list[Any]] = {"tokens": [], "inputs": [], "embeddings": []}
    for operator, given, part in _parts(name):
        known = OPERATORS[operator]
        rate = _rate(given, known.rate, part)
        options = known.options(tokenizer, longest)
        placed[known.place].append(partial(known.function, **options, **({} if rate is None else {"rate": rate})))
    shuffles = any(operator == "shuffle" for operator, _, _ in _parts(name))
    return View(name, tuple(placed["tokens"]), tuple(placed["inputs"]), tuple(placed["embeddings"]), shuffles)


def _parts(name: str) -> Iterator[tuple[str, str, str]]:
    """Yields each operator of a view but "plain": its name, its rate as written, and the whole part as written."""
    for part in name.split("+"):
        operator, _, given = part.strip().partition(":")
        if operator == "plain" and not given:
            continue
        if operator == "crop":  # an earlier version had "crop", whose rate was the share that is kept
            kept = _rate(given, 0.5, part)
            raise InputError(
                f"The view {part.strip()!r} is now spelled 'crop_away:{1 - (kept or 0.0):.3g}': its rate is the share "
                "of the text that is cut away."
            )
        if operator not in OPERATORS:
            known = ["plain", *OPERATORS]
            raise InputError(
                f"There is no view {operator!r}.{nearest(operator, known)} The views are: {', '.join(known)}."
            )
        yield operator, given, part


def _rate(given: str, default: float | None, part: str) -> float | None:
    if not given:
        return default
    try:
        rate = float(given)
    except ValueError:
        rate = -1.0
    if default is None or not 0 <= rate <= 1:
        takes = "takes no rate" if default is None else "takes a rate from 0 to 1"
        raise InputError(f"The view {part.partition(':')[0]!r} {takes}, but {given!r} was given.")
    return rate
