"""The progress of a training run: step, loss, score and time left, in one line."""

from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from textcl.progress import Progress

ENTRIES = 20  # how many entries the log of a run has, unless --logging-steps is given


class ProgressCallback(TrainerCallback):
    """Shows the progress of a run in place of transformers' bar and dictionaries, and sets the steps of its log.

    It also evaluates the last step if `--eval-delay` is longer than the run, or if another callback stops the run
    between two evaluations: without a score no trained encoder would be kept.

    Attributes:
        loss: The last loss; the trainer sets it.
    """

    def __init__(self) -> None:
        self.loss: Tensor | None = None
        self._progress: Progress | None = None
        self._score = ""
        self._scored: int | None = None  # the step of the last evaluation

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.close()
        self._scored = None
        state.compute_steps(args, state.max_steps)  # a checkpoint brings the intervals of the run that wrote it
        if args.logs_by_length:
            args.logging_steps = state.logging_steps = max(1, state.max_steps // ENTRIES)
        if not state.is_world_process_zero:
            return
        self._progress = Progress(
            "Training",
            state.max_steps,
            "steps",
            show=False if args.shows_no_progress else None,
            start=state.global_step,
            counted=lambda: state.global_step,
            figures=self._figures,
            at_once=True,
        )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        name, score = next(iter(kwargs["metrics"].items()))
        self._score = f"{name.removeprefix('eval_')} {score:.2f}"
        self._scored = state.global_step

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.eval_strategy == "steps":
            self._evaluate_the_last(state, control)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.eval_strategy == "steps" and control.should_training_stop:
            self._evaluate_the_last(state, control)

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.eval_strategy != "no":
            self._evaluate_the_last(state, control)

    def _evaluate_the_last(self, state: TrainerState, control: TrainerControl) -> None:
        ends = state.global_step >= state.max_steps or control.should_training_stop
        if ends and self._scored != state.global_step:
            control.should_evaluate = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the line, also where training ended with an error."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def _figures(self) -> list[str]:
        """Reading a loss on a GPU waits for it, which every 15 seconds costs nothing."""
        loss = [] if self.loss is None else [f"loss {self.loss.item():.4g}"]
        return loss + ([self._score] if self._score else [])
