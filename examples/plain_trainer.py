"""SimCSE with the plain `transformers.Trainer`: same weights as `ContrastiveTrainer` with the same arguments.

python examples/plain_trainer.py texts.txt --output runs/plain
"""

import argparse
from pathlib import Path

from transformers import Trainer, TrainingArguments, set_seed

import textcl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="one text a line; csv, tsv, jsonl and parquet work as well")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--output", type=Path, default=Path("runs/plain"))
    options = parser.parse_args()

    set_seed(42)  # the head gets random initial weights
    method = textcl.SimCSE(textcl.Encoder.from_pretrained(options.model, pooling="cls", max_length=32))
    trainer = Trainer(
        model=method,
        args=TrainingArguments(
            str(options.output),
            per_device_train_batch_size=64,
            learning_rate=3e-5,
            num_train_epochs=1,
            seed=42,
            remove_unused_columns=False,  # the collator needs the text
            dataloader_drop_last=True,  # the last batch would have fewer negatives
        ),
        data_collator=method.collator(seed=42),
        train_dataset=textcl.load_texts(options.texts),
        callbacks=[textcl.MethodCallback()],  # calls the hooks of the method
    )
    trainer.train()
    print(f"SentenceTransformer({str(method.export(options.output / 'export'))!r}) loads it")


if __name__ == "__main__":
    main()
