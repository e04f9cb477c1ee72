"""An encoder as one ONNX graph: tokens in, vectors out, with pooling, the layers behind it and normalisation."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from textcl.encoder.forward import hidden_states, pool, with_first_token
from textcl.encoder.pooling import POOLINGS
from textcl.errors import InputError
from textcl.files import atomic_write
from textcl.tokenising import INPUTS

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder

OUTPUT = "sentence_embedding"  # as sentence-transformers calls it
_LARGEST = 2**31  # bytes that an ONNX file can hold


def export_onnx(encoder: "Encoder", path: str | Path) -> Path:
    """Writes an encoder as one ONNX graph, which gives the vectors of `Encoder.encode` without torch.

    The graph's inputs are the tensors of the tokenizer, (rows, length) int64 each, padded on the right: `input_ids`,
    `attention_mask` and, if the tokenizer makes them, `token_type_ids`. Rows and length are free. Its output is
    `sentence_embedding`, (rows, dim) float32. Texts are tokenised outside, with the prompt if the encoder has one, see
    `Encoder.tokenize`. Weights are in the file.

    Args:
        encoder: The encoder; it is not changed.
        path: The file to write, such as "encoder.onnx".

    Raises:
        InputError: The packages onnx and onnxscript are missing, the encoder is too large for one file or leaves the
            prompt out of the pooling, or torch cannot express its backbone as a graph.

    Example:
        >>> textcl.export_onnx(encoder, "encoder.onnx")  # doctest: +SKIP
        PosixPath('encoder.onnx')
    """
    path = Path(path)
    if not encoder.pool_prompt and any(encoder.prompts.values()):
        raise InputError(
            f"{encoder.name} does not pool its prompt, which an ONNX graph of tokens cannot know. Use textcl.Encoder."
        )
    if (size := 4 * sum(weights.numel() for weights in encoder.state_dict().values())) >= _LARGEST:
        raise InputError(f"{encoder.name} has {size / 2**30:.1f} GiB of weights; an ONNX file holds at most 2 GiB.")
    if any(find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise InputError("export_onnx needs the packages onnx and onnxscript: pip install onnx onnxscript")
    tokens: Any = encoder.tokenize(["the cat", "the small cat sleeps on the mat"])  # two rows, of which one has padding
    names = [name for name in INPUTS if name in tokens]
    graph = _Graph(copy.deepcopy(encoder).to("cpu").float().eval(), names)
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length")
    with atomic_write(path) as temporary, torch.no_grad(), _quiet():
        try:
            program: Any = torch.onnx.export(
                graph,
                tuple(tokens[name] for name in names),
                input_names=names,
                output_names=[OUTPUT],
                dynamic_shapes=(tuple({0: rows, 1: length} for _ in names),),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            raise InputError(
                f"torch cannot write {encoder.name} ({type(encoder.backbone).__name__}) as an ONNX graph: {reason}"
            ) from error
        # torch's last resort is a graph for batches of the size that it was traced with
        if any(isinstance(size, int) for each in program.model.graph.inputs for size in each.shape):
            raise InputError(
                f"torch can write {encoder.name} ({type(encoder.backbone).__name__}) only as an ONNX graph for batches "
                "of one size, which is of no use."
            )
        program.save(temporary, external_data=False)
    return path


class _Graph(nn.Module):
    """From the tensors of a tokenizer to vectors, with the functions that `Encoder.encode` uses for padded rows."""

    def __init__(self, encoder: "Encoder", names: list[str]) -> None:
        super().__init__()
        self.encoder, self.names = encoder, names

    def forward(self, *tokens: Tensor) -> Tensor:
        encoder, inputs = self.encoder, dict(zip(self.names, tokens, strict=True))
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        # for a text without tokens, attention sees one padding token, and the vector is set to 0 below
        inputs["attention_mask"] = with_first_token(mask)
        layers = POOLINGS[encoder.pooling].layers != "last" or encoder.layer_weights is not None
        output: Any = encoder.backbone(**inputs, output_hidden_states=layers)
        vectors = pool(encoder, hidden_states(encoder, output, ids.shape, layers), ids, mask, None, None)
        vectors = vectors * (mask.sum(dim=1, keepdim=True) > 0)
        return nn.functional.normalize(vectors, dim=-1) if encoder.normalize else vectors


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what torch's exporter says about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
