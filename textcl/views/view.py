"""How one text becomes several: before it is tokenised, on its tokens, or inside the encoder.

A view is named by its operators, each with a rate where the default is not wanted: "plain", "shuffle",
"token_cutoff:0.15", "word_deletion:0.5+reordering". "plain" does nothing: what then makes two views is dropout.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from textcl.errors import InputError, nearest
from textcl.views import model_side, tokens
from textcl.views.template import Template

TokenOperator = Callable[[tokens.TokenRows, tokens.Draw], tokens.TokenRows]

DELETION_TOKEN = "[DEL]"

# Default rates: those of the papers (ConSERT §4.1; ESimCSE; CLEAR's are unverified). None: the operator takes none.
TOKEN_OPERATORS: dict[str, tuple[Callable[..., tokens.TokenRows], float]] = {
    "word_deletion": (tokens.word_deletion, 0.7),
    "span_deletion": (tokens.span_deletion, 0.25),
    "reordering": (tokens.reordering, 0.25),
    "substitution": (tokens.substitution, 0.3),
    "repetition": (tokens.repetition, 0.32),
    "crop": (tokens.crop, 0.5),
}
MODEL_OPERATORS: dict[str, tuple[Callable[..., Any], float | None]] = {
    "shuffle": (model_side.shuffle, None),
    "span": (model_side.span, 0.15),
    "token_cutoff": (model_side.token_cutoff, 0.15),
    "feature_cutoff": (model_side.feature_cutoff, 0.2),
    "embedding_dropout": (model_side.embedding_dropout, 0.2),
}


@dataclass(frozen=True)
class View:
    """One way to see a text.

    Attributes:
        name: What it was parsed from.
        token_operators: Applied to the token rows, in order.
        model_operators: Applied inside the encoder, in order, by name.
        template: What the text is put into before anything else.
    """

    name: str = "plain"
    token_operators: tuple[TokenOperator, ...] = ()
    model_operators: tuple[tuple[str, model_side.Operator], ...] = ()
    template: Template | None = None

    @property
    def shuffles_positions(self) -> bool:
        return any(name == "shuffle" for name, _ in self.model_operators)


PLAIN = View()


def deletes_tokens(names: Iterable[str]) -> bool:
    """Whether a view of these needs the tokenizer to know `DELETION_TOKEN`."""
    return any("_deletion" in name for name in names)


def parse_view(name: str, tokenizer: Any, longest: int | None = None) -> View:
    """The view that a name such as "word_deletion:0.5+reordering" means.

    Args:
        name: Operators with plus signs between them, each perhaps with a colon and a rate from 0 to 1.
        tokenizer: Tells the operators on tokens which token is [DEL], and which are words with synonyms.
        longest: Tokens of a row that the backbone has places for, special ones included.

    Raises:
        InputError: For an unknown operator (the nearest is suggested) or a rate that is none.
    """
    token_operators: list[TokenOperator] = []
    model_operators: list[tuple[str, model_side.Operator]] = []
    for part in name.split("+"):
        operator, _, given = part.strip().partition(":")
        if operator == "plain" and not given:
            continue
        if operator not in TOKEN_OPERATORS and operator not in MODEL_OPERATORS:
            known = ["plain", *TOKEN_OPERATORS, *MODEL_OPERATORS]
            raise InputError(f"There is no view {operator!r}.{nearest(operator, known)} There are: {', '.join(known)}.")
        function, default = {**TOKEN_OPERATORS, **MODEL_OPERATORS}[operator]
        rate = _rate(given, default, part)
        if operator in TOKEN_OPERATORS:
            token_operators.append(partial(function, rate=rate, **_resources(operator, tokenizer, longest)))
        else:
            model_operators.append((operator, function if rate is None else partial(function, rate=rate)))
    return View(name, tuple(token_operators), tuple(model_operators))


def _rate(given: str, default: float | None, part: str) -> float | None:
    if not given:
        return default
    try:
        rate = float(given)
    except ValueError:
        rate = -1.0
    if default is None or not 0 <= rate <= 1:
        takes = "takes no rate" if default is None else "takes a rate from 0 to 1"
        raise InputError(f"The view {part.partition(':')[0]!r} {takes}, and {given!r} was given.")
    return rate


def _resources(operator: str, tokenizer: Any, longest: int | None) -> dict[str, Any]:
    """What an operator on tokens has to know of tokenizer and backbone."""
    if operator == "repetition":
        return {"longest": longest}
    if "_deletion" in operator:
        return {"deletion_token": tokenizer.convert_tokens_to_ids(DELETION_TOKEN)}
    if operator == "substitution":
        from textcl.views.wordnet import continues, synonym_table

        table, count = synonym_table(tokenizer)
        return {"table": table, "count": count, "continues": continues(tokenizer)}
    return {}
