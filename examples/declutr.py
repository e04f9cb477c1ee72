"""DeCLUTR (Giorgi et al. 2021) on a file of long documents: train, export, score.

python examples/declutr.py texts.txt --output runs/example
"""

import argparse
from pathlib import Path

from transformers import set_seed

import textcl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="one document a line; csv, tsv, jsonl and parquet work as well")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--output", type=Path, default=Path("runs/example"))
    parser.add_argument("--pairs", help="labelled pairs (text, text, score) that choose the checkpoint")
    parser.add_argument("--scale-spans", action="store_true", help="shorter spans where documents are short")
    options = parser.parse_args()

    set_seed(42)
    encoder = textcl.Encoder.from_pretrained(options.model, pooling="mean", max_length=512)
    method = textcl.DeCLUTR(encoder, shortest_span=32, longest_span=512, scale_spans=options.scale_spans)
    trainer = textcl.ContrastiveTrainer(
        model=method,
        args=textcl.ContrastiveTrainingArguments(
            str(options.output), per_device_train_batch_size=16, learning_rate=5e-5, num_train_epochs=1, seed=42
        ),
        train_dataset=textcl.load_texts(options.texts),
        evaluators=[textcl.LabelledPairs(options.pairs)] if options.pairs else [],
    )
    trainer.train()
    exported = method.export(options.output / "export")
    print(f"SentenceTransformer({str(exported)!r}) loads it")
    if options.pairs:
        print(textcl.LabelledPairs(options.pairs)(textcl.Encoder.from_pretrained(exported)).table())


if __name__ == "__main__":
    main()
