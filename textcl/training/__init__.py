"""The thin glue to `transformers.Trainer`."""

from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.callback import MethodCallback
from textcl.training.trainer import ContrastiveTrainer

__all__ = ["ContrastiveTrainer", "ContrastiveTrainingArguments", "MethodCallback"]
