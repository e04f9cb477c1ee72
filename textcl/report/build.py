"""The content of the report on a run and of the report on a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textcl.data import verify
from textcl.data.sts import Subset, read_sts
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Suite
from textcl.evaluation.results import measures, short_name
from textcl.evaluation.significance import NORMAL, shown_p
from textcl.evaluation.sts import pair_cosines
from textcl.evaluation.transductive import mark_transductive, recorded_overlap
from textcl.files import check_output, check_same_kind
from textcl.report import examples, plots
from textcl.report.adapted import adapted_page, is_adapted, read_adapted
from textcl.report.page import Page, Section, Table
from textcl.report.records import Comparison, Run, is_comparison, read_comparison, read_run, recorded_results
from textcl.report.results import score
from textcl.report.sentences import by_grade, disagreements, map_and_neighbours
from textcl.report.tables import comparison, comparison_cells, mean_sd, pair_differences
from textcl.runs.card import papers
from textcl.training.selection import Selection
from textcl.version import __version__

FEW_PAIRS = 15  # pairs of rows; the table of more is closed at first
DIFFERENT = 0.05  # points by which a score computed again may differ from the recorded one without a note
STS_DEV = "STSBenchmark-dev"


def report(
    source: str | Path,
    output: str | Path | None = None,
    *,
    texts: bool = True,
    tasks: str | Sequence[str] | None = None,
    reference: str | None = None,
) -> Path:
    """Writes one self-contained HTML page on a run or a comparison, finished or not, or on an adaptation.

    Args:
        source: The directory of a run, the folder of a comparison, or the output of `textcl adapt`.
        output: The file of the page; default: `report.html` in `source`.
        texts: Whether to show sentences of the corpus and of the evaluation sets.
        tasks: For a run: keys of `textcl.evaluation.TASKS` to evaluate the trained and the untouched model on; default:
            STS-B dev, if it is installed.
        reference: For a comparison: the row that the other rows are compared with; default: the first.

    Raises:
        InputError: `source` is none of these, one of its files is damaged or has another schema, a
            task is unknown or not installed, the page cannot be written, or altair, vl-convert-python or jinja2 is not
            installed.

    Example:
        >>> textcl.report.build.report("runs/simcse")  # doctest: +SKIP
    """
    output = output or Path(source) / "report.html"
    check_output(output)
    check_same_kind(output)
    if is_adapted(source):
        if tasks or reference:
            raise InputError("The report on an adaptation has no --tasks and no --reference; leave them out.")
        page = adapted_page(read_adapted(source), texts=texts)
    elif is_comparison(source):
        if tasks:
            raise InputError("The report on a comparison shows its own tasks; --tasks is only for a single run.")
        page = comparison_page(read_comparison(source), reference)
    else:
        if reference:
            raise InputError("A single run has no rows to compare; --reference can be used only for a comparison.")
        page = run_page(read_run(source), texts=texts, tasks=tasks)
    return page.save(output)


def run_page(run: Run, *, texts: bool = True, tasks: str | Sequence[str] | None = None) -> Page:
    """The page on one run; arguments as in `report`."""
    page = Page(_headline(run), _subtitle(run), _verdict(run))
    if run.record is None:
        last = max((entry["step"] for entry in run.log), default=0)
        best = f" The best encoder so far is that of step {run.best['step']}." if run.best else ""
        page.notes.append(
            f"This run has not finished: it was killed, failed, or is still running. Its log ends at step {last}.{best}"
        )
    if not texts:
        page.notes.append("Texts are not shown, because the report was made without them.")
    encoders = _encoders(run, page.notes)
    if tasks and not encoders:
        raise InputError(f"{run.path} has no encoder that could be evaluated.")
    pairs = _sts_dev(page.notes) if encoders else None
    if tasks is None:
        tasks = ["stsb-dev"] if pairs else []
    page.sections.append(_scores(run, encoders, tasks))
    page.sections += _training({run.name: run})
    if pairs:
        found = {name: pair_cosines(encoder, {STS_DEV: [pairs]})[0] for name, encoder in encoders.items()}
        cosines = {name: of_tasks[STS_DEV][0] for name, of_tasks in found.items()}
        page.sections += [by_grade(pairs, cosines), disagreements(pairs, cosines, texts)]
    if encoders:
        page.sections += map_and_neighbours(run, encoders, pairs, page.notes, texts)
    page.sections += [_provenance(run), _citation([run.recipe])]
    return page


def comparison_page(found: Comparison, reference: str | None = None) -> Page:
    """The page on a comparison; arguments as in `report`."""
    name = found.path.resolve().name
    page = Page(f"{name}: a comparison", f"A report on runs of several recipes and seeds, by textcl {__version__}.")
    unfinished = [run.name for run in found.runs if run.record is None]
    if unfinished:
        page.notes.append(
            f"Not finished: {', '.join(unfinished)}. They were killed, failed, or are still running. They are in the "
            "curves, but not in the tables."
        )
    if found.replaced:
        page.notes.append(
            f"The results have earlier lines of {', '.join(found.replaced)}, with another recipe, model or corpus. "
            "They are left out."
        )
    if not found.lines:
        page.notes.append("No run has been evaluated yet.")
    for lines in _by_tasks(found.lines):
        rows = {line["row"] for line in lines}
        page.sections.append(_comparison(lines, reference if reference in rows else None))
    if reference and reference not in {line["row"] for line in found.lines}:
        comparison(found.lines, reference)  # raises an error that lists the rows
    page.sections += _training({run.name: run for run in found.runs}, _rows_of(found))
    page.sections.append(_lines_provenance(found.lines))
    page.sections.append(_citation([run.recipe for run in found.runs]))
    return page


def _headline(run: Run) -> str:
    """The run's name with the verdict and the score before and after, or with its method if nothing was measured."""
    dev = _measured(run)
    if dev is None or dev.before is None:
        return f"{run.name}: {run.recipe.get('method', 'a method')}"
    if dev.untouched:
        return f"{run.name}: no better encoder was found, {dev.set} {dev.before:.2f}"
    interval, gain = _interval(dev), dev.score - dev.before
    verdict = "better" if gain > 0 else "worse" if gain < 0 else "no difference"
    if interval is None:
        verdict = f"{verdict}, without an interval"
    elif interval[0] <= 0 <= interval[1]:
        verdict = "no difference is shown"
    return f"{run.name}: {verdict}, {dev.set} {dev.before:.2f} → {dev.score:.2f}"


def _verdict(run: Run) -> list[str]:
    """The figures behind the headline."""
    dev = _measured(run)
    if dev is None or dev.before is None:
        return []
    interval, score = _interval(dev), dev.highest if dev.untouched else dev.score
    if score is None:
        return []
    said = "" if interval is None else f", 95 % interval {interval[0]:+.2f} to {interval[1]:+.2f} (paired bootstrap)"
    if dev.untouched:
        least = "" if dev.error is None else " of more than its standard error"
        return [
            f"On {dev.set} the best checkpoint differs from the untouched encoder by {score - dev.before:+.2f}{said}. "
            f"This is not a gain{least}, so the untouched encoder is the export."
        ]
    chosen = " The same data chose the checkpoint, so the gain on other data is smaller." if dev.chosen else ""
    return [f"On {dev.set} the difference is {score - dev.before:+.2f}{said}.{chosen}"]


def _is_chosen(run: Run) -> bool:
    """Whether a score chooses what the run exports."""
    dev = _measured(run)
    return run.best is not None if dev is None else dev.chosen


def _measured(run: Run) -> Selection | None:
    return run.record.dev if run.record else None


def _interval(dev: Selection) -> tuple[float, float] | None:
    """The 95 % interval of the highest score minus the score before; None if it has no error or was not kept."""
    if (
        dev.error is None
        or dev.highest is None
        or dev.before is None
        or not (dev.untouched or dev.score == dev.highest)
    ):
        return None
    gain = dev.highest - dev.before
    return gain - NORMAL * dev.error, gain + NORMAL * dev.error


def _subtitle(run: Run) -> str:
    """What was trained on what, when, and for how long."""
    recipe, record = run.recipe, run.record
    model = f" from {recipe['model']}" if "model" in recipe else ""
    said = f"{recipe.get('method', 'A method')}, trained{model}"
    if record:
        seconds = record.seconds
        duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        said += f" on {Path(record.data.file).name} ({record.data.rows:,} rows), {record.finished[:10]}, in {duration}"
        said += " since it was resumed" if record.resumed else ""
    return f"{said}. A report on a training run, by textcl {__version__}."


def _encoders(run: Run, notes: list[str]) -> dict[str, Encoder]:
    """The encoders before and after training, as far as they can be loaded; `notes` gets what is missing."""
    if run.encoder is None:
        notes.append("This run has no encoder on disk, so nothing is shown that needs one.")
        return {}
    after = Encoder.from_pretrained(run.encoder)
    trained = {"trained": after} if run.record else {"best so far": after}
    if "model" not in run.recipe:
        notes.append("The run has no recipe that names its first model, so the encoder cannot be compared with it.")
        return trained
    weights = run.record.model_weights if run.record else None
    try:
        return {"untouched": examples.untouched(run.recipe, after, weights), **trained}
    except (InputError, OSError) as error:
        notes.append(f"The model that training started from is not shown: {error}")
        return trained


def _sts_dev(notes: list[str]) -> Subset | None:
    if not verify(names=["STSBenchmark"])[0].usable:
        notes.append(
            "STS-B is not installed, so similarity by gold score and disagreements are not shown. Install it with "
            "`textcl data fetch STSBenchmark`."
        )
        return None
    return read_sts("STSBenchmark", split="dev")[0]


def _scores(run: Run, encoders: dict[str, Encoder], tasks: str | Sequence[str]) -> Section:
    """The scores that a comparison recorded for the run, and new scores of the encoders before and after training."""
    results: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in encoders} or {"trained": {}}
    paragraphs, provenance = [], None
    recorded = recorded_results(run)
    trained = results[list(results)[-1]]
    trained |= recorded
    if tasks:
        suite = Suite(tasks)
        for name, encoder in encoders.items():
            counts = recorded_overlap(encoder)
            result = mark_transductive(suite(encoder), counts)
            results[name] |= result.results
            provenance = result.provenance
    paragraphs += [
        f"{short_name(task)}: the comparison recorded {score(entry):.2f}; the table has the score computed for this "
        "report."
        for task, entry in recorded.items()
        if abs(score(trained[task]) - score(entry)) > DIFFERENT
    ]
    if run.record:
        paragraphs.append(f"{run.record.verdict().removesuffix('.')}.")
    elif run.best:
        best = run.best
        paragraphs.append(f"Best so far on {best['metric'].removeprefix('eval_')}: {best['score']:.2f}.")
    rows: list[list[Any]] = []
    marks = False
    for task in dict.fromkeys(task for each in results.values() for task in each):
        columns = [each.get(task, {}) for each in results.values()]
        transductive = any(column.get("transductive", False) for column in columns)
        marks |= transductive
        for measure in measures(max(columns, key=len)):
            values = [column.get(measure) for column in columns]
            first, last = values[0], values[-1]
            change = None if len(values) < 2 or first is None or last is None else f"{last - first:+.2f}"
            shown = [None if value is None else f"{value:.2f}" for value in values]
            rows.append([short_name(task) + "*" * transductive, measure, *shown, change])
    if not rows:
        return Section("Scores", paragraphs or ["There is no recorded score, and no task to evaluate here."])
    paragraphs.append(
        "STS: Spearman's correlation of cosine and gold score × 100. “all” is one correlation over the joined subsets, "
        "“mean” and “wmean” are means over subsets. Accuracies and mutual information are × 100. For alignment and "
        "uniformity, low is good."
    )
    if marks:
        paragraphs.append("* transductive: texts of this set were in the training corpus.")
    if provenance:
        paragraphs.append(f"Encoder: {_facts(provenance['encoder'])}.")
    return Section("Scores", paragraphs, [Table(["task", "measure", *results, "difference"], rows)])


def _training(runs: dict[str, Run], groups: dict[str, str] | None = None) -> list[Section]:
    """The training curves of all runs."""
    drawn = []
    dev = next((run.dev_set for run in runs.values() if run.dev_set), None)
    what = (
        "This score chooses the checkpoint; higher is better."
        if any(map(_is_chosen, runs.values()))
        else "This score chooses nothing: the last weights are kept."
    )
    named = {
        "loss": ("Loss", "The mean training loss since the previous log entry."),
        **({dev: (dev.removeprefix("eval_"), what)} if dev else {}),
        "effective_rank": ("Effective rank", "How many directions a batch's embeddings use; a collapse lowers it."),
    }
    for key, (title, note) in named.items():
        points = {name: series for name, run in runs.items() if (series := run.series(key))}
        if points:
            starts = {value for series in points.values() for step, value, *_ in series if step == 0}
            start = starts.pop() if key == dev and len(starts) == 1 else None
            drawn.append(plots.curves(points, title, note, groups, start))  # type: ignore[arg-type]
    plane = {name: series for name, run in runs.items() if (series := run.series("alignment", "uniformity"))}
    if plane:
        drawn.append(plots.alignment_uniformity(plane, groups))  # type: ignore[arg-type]
    if not drawn:
        return [Section("Training", ["Nothing was logged."])]
    return [Section("Training", plots=drawn)]


def _comparison(lines: list[dict[str, Any]], reference: str | None) -> Section:
    figures = comparison(lines, reference)
    header, rows, notes = comparison_cells(figures)
    average = next(iter(name for name in figures["columns"] if name.startswith("Avg.")), figures["columns"][0])
    scores = {name: row["columns"][average]["values"] for name, row in figures["rows"].items()}
    far = plots.far_rows(scores, [name for name, row in figures["rows"].items() if row["seeds"] == [None]])
    if far:
        said = "; ".join(f"{name} {mean_sd(scores[name])}" for name in far)
        notes = [*notes, f"Not in the drawings, because the other rows would share a small part of the axis: {said}."]
    drawn = [plots.scores_by_row({name: values for name, values in scores.items() if name not in far}, average)]
    near = {name: row for name, row in figures["rows"].items() if row["difference"] and name not in far}
    if near:
        drawn.append(plots.differences({**figures, "rows": near}))
    title = ", ".join(short_name(task) for task in lines[0]["results"] if task != STS_DEV)
    tables, pairs = [Table(header, rows)], _pairs(lines)
    few = len(pairs.rows) <= FEW_PAIRS
    if pairs.rows and few:
        tables.append(pairs)
    return Section(f"Scores: {title}", notes, tables, drawn, folded=[] if few else [pairs])


def _pairs(lines: list[dict[str, Any]]) -> Table:
    """The difference of every two rows."""
    rows = []
    for first, second, found in pair_differences(lines):
        interval, p_value = None, None
        if found["low"] is not None:
            interval = f"{found['low']:+.2f} to {found['high']:+.2f}"
            p_value = shown_p(found["p_value"])
        rows.append([f"{second} − {first}", f"{found['mean']:+.2f}", interval, p_value, found.get("basis")])
    caption = f"Differences of every two rows ({len(rows):,}). The p-values are not corrected for this number."
    return Table(["rows", "difference", "95 % interval", "p", "interval over"], rows, caption)


def _by_tasks(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups lines by their tasks. Only lines with the same tasks can be in one table."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(tuple(line["results"]), []).append(line)
    return list(groups.values())


def _rows_of(found: Comparison) -> dict[str, str]:
    """The row of each run: the recipe's name, which is the part of the directory's name before "-seed"."""
    return {run.name: run.name.rpartition("-seed")[0] or run.name for run in found.runs}


def _provenance(run: Run) -> Section:
    record = run.record
    facts: list[tuple[str, Any]] = [("directory", str(run.path))]
    if record:
        data = record.data
        facts += [
            *((name, getattr(record, name)) for name in ("started", "finished", "seed", "steps", "seconds")),
            *((name, getattr(record, name)) for name in ("resumed", "processes", "device", "precision")),
            ("corpus", data.file),
            ("corpus, SHA-256", data.sha256),
            ("rows", data.rows),
            ("duplicates", data.duplicates),
            ("duplicates_in_batches", data.duplicates_in_batches),
            ("evaluation texts in the corpus", _overlap(data.overlap)),
            ("encoder", _facts(record.encoder)),
            ("versions", _facts(record.versions)),
            ("fingerprint", record.fingerprint),
        ]
    settings = [[key, _plain(value)] for key, value in sorted(run.recipe.items()) if value is not None]
    folded = [Table(["flag", "value"], settings, "The recipe with all defaults")] if settings else []
    rows = [[name, _plain(value)] for name, value in facts if value is not None]
    return Section("Provenance", tables=[Table(["what", "value"], rows)], folded=folded)


def _lines_provenance(lines: list[dict[str, Any]]) -> Section:
    rows: list[list[Any]] = []
    folded, paragraphs = [], []
    of_line = [_facts(line["provenance"]["versions"]) for line in lines]
    versions = list(dict.fromkeys(of_line))
    for line, own in zip(lines, of_line, strict=True):
        provenance = line["provenance"]
        cells = [line["row"], line["seed"], _facts(provenance["encoder"]), line["fingerprint"], line["written"]]
        more = [versions.index(own) + 1] if len(versions) > 1 else []
        rows.append([*cells, *more])
    if len(versions) == 1 and versions[0]:
        paragraphs.append(f"Versions, the same for all lines: {versions[0]}.")
    if lines:
        scored = [(task, _facts(facts)) for line in lines for task, facts in line["provenance"]["tasks"].items()]
        cells = [[short_name(task), facts] for task, facts in dict.fromkeys(scored)]
        folded = [Table(["set", "what was scored"], cells, "Evaluation sets")]
    header = ["row", "seed", "encoder", "fingerprint", "written"]
    tables = [Table(header + ["versions"] * (len(versions) > 1), rows)] if rows else []
    if len(versions) > 1:
        tables.append(Table(["", "versions"], [[number, each] for number, each in enumerate(versions, start=1)]))
    return Section("Provenance", paragraphs, tables, folded=folded)


def _citation(recipes: Sequence[dict[str, Any]]) -> Section:
    found = dict.fromkeys(paper for recipe in recipes for paper in papers(recipe))
    return Section("Citation", [*found, f"textcl, version {__version__}."])


def _overlap(counts: dict[str, dict[str, dict[str, int]]]) -> str:
    """The subsets of evaluation sets that have texts in the corpus, with the numbers of these texts."""
    touched = [
        f"{short_name(task)} {name}: {count['found']:,} of {count['total']:,}"
        for task, subsets in counts.items()
        for name, count in subsets.items()
        if count["found"]
    ]
    return "; ".join(touched) or ("none" if counts else "not checked: no set is installed")


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in facts.items() if value is not None)


def _plain(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)
