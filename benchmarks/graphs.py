"""Encoding with OpenVINO and ONNX Runtime, as peers: a graph written by torch.onnx, with their settings for throughput.

All texts are tokenised at once and sorted by their number of tokens. A batch is padded to its longest row, and has at
most 1,024 tokens: with 32 rows of 128 tokens both took up to a fifth more time, except OpenVINO in bf16.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from benchmarks.measure import Seconds, with_seconds
from textcl import Encoder, export_onnx
from textcl.encoder.batching import length_ordered_slices

TOKENS = 1024  # of a batch
PRECISIONS = {"openvino": ("fp32", "bf16"), "onnxruntime": ("fp32", "int8")}  # ONNX Runtime has no bfloat16 on a CPU

Batch = dict[str, np.ndarray]
Compute = Callable[[Iterator[Batch]], list[np.ndarray]]


def missing(runtime: str) -> list[str]:
    """The packages that this runtime needs and that are not installed."""
    return [name for name in ("onnx", "onnxscript", runtime) if find_spec(name) is None]


def described(runtime: str, precision: str) -> str:
    """The command of a runtime, with its settings."""
    if runtime == "openvino":
        return f"openvino, compile_model(graph, 'CPU', {_hints(precision)})"
    graph = "quantize_dynamic(graph, weight_type=QInt8)" if precision == "int8" else "graph"
    return f"onnxruntime, InferenceSession({graph}, graph_optimization_level=ORT_ENABLE_ALL)"


def write(model: str, folder: str, length: int, int8: bool) -> None:
    """Writes the graph of an encoder, `fp32.onnx`, and with `int8` also the graph with quantised products."""
    path = export_onnx(Encoder.from_pretrained(model, max_length=length), f"{folder}/fp32.onnx")
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(path, f"{folder}/int8.onnx", weight_type=QuantType.QInt8)


def encoded(
    folder: str, runtime: str, precision: str, model: str, sets: Mapping[str, list[str]], length: int
) -> dict[str, tuple[Seconds, np.ndarray]]:
    """Encodes each set with a graph that `write` has written: the time, with tokenising, and the vectors."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    compute = {"openvino": _openvino, "onnxruntime": _onnxruntime}[runtime](folder, precision)

    def encode(texts: list[str]) -> np.ndarray:
        rows = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
        batches = length_ordered_slices(torch.tensor(list(map(len, rows))), TOKENS)
        found = compute(_padded([rows[row] for row in batch], tokenizer.pad_token_id) for batch in batches)
        return np.concatenate(found)[torch.cat(batches).argsort().numpy()]

    encode(next(iter(sets.values()))[:32])  # warming up
    return {title: with_seconds(partial(encode, texts)) for title, texts in sets.items()}


def _padded(rows: list[list[int]], padding: int) -> Batch:
    """The tensors of the tokenizer, (rows, length of the longest row) each, padded on the right."""
    ids = np.full((len(rows), max(map(len, rows))), padding, dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _onnxruntime(folder: str, precision: str) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(f"{folder}/{precision}.onnx", options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda batches: [session.run(None, {name: batch[name] for name in names})[0] for batch in batches]


def _hints(precision: str) -> dict[str, str | int]:
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }


def _openvino(folder: str, precision: str) -> Compute:
    import openvino

    compiled = openvino.Core().compile_model(f"{folder}/fp32.onnx", "CPU", _hints(precision))
    names = [each.any_name for each in compiled.inputs]
    # Not an AsyncInferQueue with a callback: OpenVINO's thread needs the GIL to release the callback, while Python
    # holds the GIL, destroys the model and waits for this thread. Both wait forever.
    count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    requests = [compiled.create_infer_request() for _ in range(count)]

    def compute(batches: Iterator[Batch]) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        running: deque[Any] = deque()
        for batch, request in zip(batches, cycle(requests), strict=False):
            if len(running) == count:
                found.append(_result(running.popleft()))
            request.start_async({name: batch[name] for name in names})
            running.append(request)
        return found + [_result(request) for request in running]

    return compute


def _result(request: Any) -> np.ndarray:
    """The vectors of a batch, (rows, dim), once OpenVINO has computed them."""
    request.wait()
    return np.array(request.get_output_tensor().data)
