"""Encoding with ONNX Runtime and OpenVINO, as peers: a graph written by torch.onnx, with their settings for throughput.

Batches are made as sentence-transformers makes them: texts sorted by length, a fixed number of rows, padded to the
longest row of the batch.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from transformers import AutoTokenizer

from benchmarks.measure import seconds
from textcl import Encoder, export_onnx

BATCH = 32


def installed() -> dict[str, list[str]]:
    """The runtimes that are installed, and the precisions that they are measured in. Writing a graph needs onnxscript.

    ONNX Runtime computes in float32 only: its CPU kernels have no bfloat16.
    """
    known = {"onnxruntime": ["fp32"], "openvino": ["fp32", "bf16"]}
    if any(find_spec(name) is None for name in ("onnx", "onnxscript")):
        return {}
    return {name: precisions for name, precisions in known.items() if find_spec(name) is not None}


def described(runtime: str, precision: str, length: int) -> str:
    """The command, threads, type, padding and length of a runtime's row, for its note."""
    command = {
        "onnxruntime": "InferenceSession(graph, graph_optimization_level=ORT_ENABLE_ALL).run",
        "openvino": "AsyncInferQueue(compile_model(graph, 'CPU', PERFORMANCE_HINT=THROUGHPUT))",
    }[runtime]
    return (
        f"the peer is {runtime}, {command}, {precision}, {torch.get_num_threads()} threads; sorted by length, batches "
        f"of {BATCH} padded to their longest row, at most {length} tokens"
    )


def write(model: str, path: str, length: int) -> None:
    """Writes the graph of an encoder."""
    export_onnx(Encoder.from_pretrained(model, max_length=length), path)


def encoded(
    runtime: str, precision: str, graph: str, model: str, texts: list[str], length: int
) -> tuple[float, np.ndarray]:
    """Seconds with tokenising, and the vectors (texts, dim)."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    compute = {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime](graph, precision)
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))

    def batches(rows: list[int]) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(rows), BATCH):
            given = [texts[row] for row in rows[start : start + BATCH]]
            tokens = tokenizer(given, padding=True, truncation=True, max_length=length, return_tensors="np")
            yield {name: tokens[name].astype(np.int64) for name in tokens}

    compute(batches(order[:BATCH]))  # warming up
    found: list[np.ndarray] = []
    taken = seconds(lambda: found.extend(compute(batches(order))))
    return taken, np.concatenate(found)[np.argsort(order)]


Compute = Callable[[Iterator[dict[str, np.ndarray]]], list[np.ndarray]]


def _onnxruntime(graph: str, precision: str) -> Compute:
    import onnxruntime

    assert precision == "fp32"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    return lambda batches: [
        session.run(None, {name: value for name, value in batch.items() if name in names})[0] for batch in batches
    ]


def _openvino(graph: str, precision: str) -> Compute:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    names = {each.any_name for each in compiled.inputs}

    def compute(batches: Iterator[dict[str, np.ndarray]]) -> list[np.ndarray]:
        found: dict[int, np.ndarray] = {}
        queue = openvino.AsyncInferQueue(compiled)
        queue.set_callback(lambda request, batch: found.update({batch: request.get_output_tensor().data.copy()}))
        for number, batch in enumerate(batches):
            queue.start_async({name: value for name, value in batch.items() if name in names}, number)
        queue.wait_all()
        return [found[number] for number in range(len(found))]

    return compute
