"""BERT-CT (Carlsson et al. 2021) on a file of texts: train, export, score.

python examples/bert_ct.py texts.txt --output runs/example
"""

import argparse
from pathlib import Path

from transformers import set_seed

import textcl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="one text a line; csv, tsv, jsonl and parquet work as well")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--output", type=Path, default=Path("runs/example"))
    parser.add_argument("--pairs", help="labelled pairs (text, text, score) that choose the checkpoint")
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args()

    set_seed(42)
    encoder = textcl.Encoder.from_pretrained(options.model, pooling="mean", max_length=75)
    method = textcl.BertCT(encoder, negatives="independent", negatives_per_positive=7)
    trainer = textcl.ContrastiveTrainer(
        model=method,
        args=textcl.ContrastiveTrainingArguments(
            str(options.output),
            per_device_train_batch_size=16,  # two groups, each with one identical pair and seven others
            optim="rmsprop",
            optim_args="alpha=0.9,eps=1e-7",
            learning_rate=1e-5,
            learning_rate_pieces=["500:8e-6", "1000:6e-6", "1500:4e-6", "2000:2e-6"],
            max_grad_norm=0.0,
            max_steps=options.steps,
            seed=42,
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
