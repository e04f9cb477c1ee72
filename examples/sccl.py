"""SCCL (Zhang et al. 2021) with virtual views on a file of short texts: train, export, show the clusters.

python examples/sccl.py texts.txt --output runs/example
"""

import argparse
from pathlib import Path

from transformers import set_seed

import textcl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="one text a line; csv, tsv, jsonl and parquet work as well")
    parser.add_argument("--model", default="bundled", help="better: an encoder that was trained with labels")
    parser.add_argument("--output", type=Path, default=Path("runs/example"))
    parser.add_argument("--clusters", type=int, help="default: estimated from the texts")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()

    set_seed(42)  # the head gets random initial weights
    encoder = textcl.Encoder.from_pretrained(options.model, pooling="mean", max_length=32)
    method = textcl.SCCL(encoder, clusters=options.clusters, temperature=0.5, eta=10.0)
    trainer = textcl.ContrastiveTrainer(
        model=method,
        args=textcl.ContrastiveTrainingArguments(
            str(options.output),
            per_device_train_batch_size=400,
            dataloader_drop_last=False,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            max_steps=options.steps,
            eval_steps=100,
            target_score=99.9,  # stop when this share of the texts, in percent, stays in its cluster
            seed=42,
        ),
        train_dataset=textcl.load_texts(options.texts),
    )
    trainer.train()
    exported = method.export(options.output / "export")
    print(f"SentenceTransformer({str(exported)!r}) loads it")
    texts = list(textcl.load_texts(options.texts)["text"])
    clusters = method.assign(method.clustered(texts))
    for text, cluster in zip(texts[:20], clusters, strict=False):
        print(f"{cluster:4}  {text}")


if __name__ == "__main__":
    main()
