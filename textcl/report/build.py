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
from textcl.evaluation.sts import pair_cosines
from textcl.evaluation.suite import mark_by_record
from textcl.files import check_output, check_same_kind
from textcl.report import examples, plots
from textcl.report.adapted import adapted_page, is_adapted, read_adapted
from textcl.report.page import Card, Page, Section, Table
from textcl.report.records import Comparison, Run, is_comparison, read_comparison, read_run, recorded_results
from textcl.report.results import score
from textcl.report.tables import comparison, comparison_cells
from textcl.runs.card import papers
from textcl.texts import in_one_line
from textcl.version import __version__

WIDTH = 160  # longest text that is shown, in characters
MAP_WIDTH = 100  # longest text on a map, which has thousands of texts
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
    method = run.recipe.get("method", "a method")
    page = Page(f"{run.name}: {method}", f"A report on a training run, by textcl {__version__}.")
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
        page.sections += [_by_grade(pairs, cosines), _disagreements(pairs, cosines, texts)]
    if encoders:
        page.sections += _texts(run, encoders, pairs, page.notes, texts)
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
            "Only the last line of each is shown. Rows may not be comparable."
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
    try:
        return {"untouched": examples.untouched(run.recipe, after), **trained}
    except (InputError, OSError) as error:
        notes.append(f"The model that training started from is not shown, because it cannot be loaded: {error}")
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
            result = mark_by_record(suite(encoder), encoder)
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
    named = {
        "loss": ("Loss", "The mean training loss since the previous log entry."),
        **({dev: (dev.removeprefix("eval_"), "This score chooses the checkpoint; higher is better.")} if dev else {}),
        "effective_rank": ("Effective rank", "How many directions a batch's embeddings use; a collapse lowers it."),
    }
    for key, (title, note) in named.items():
        points = {name: series for name, run in runs.items() if (series := run.series(key))}
        if points:
            drawn.append(plots.curves(points, title, note, groups))  # type: ignore[arg-type]
    plane = {name: series for name, run in runs.items() if (series := run.series("alignment", "uniformity"))}
    if plane:
        drawn.append(plots.alignment_uniformity(plane, groups))  # type: ignore[arg-type]
    if not drawn:
        return [Section("Training", ["Nothing was logged."])]
    return [Section("Training", plots=drawn)]


def _by_grade(pairs: Subset, cosines: dict[str, Any]) -> Section:
    grades = [float(int(score + 0.5)) for score in pairs.scores]
    plot = plots.similarity_by_grade({name: (grades, found.tolist()) for name, found in cosines.items()})
    return Section("Similarity by gold score", ["STS-B dev, with gold scores rounded to integers."], plots=[plot])


def _disagreements(pairs: Subset, cosines: dict[str, Any], texts: bool) -> Section:
    name = list(cosines)[-1]
    rows: dict[bool, list[list[Any]]] = {True: [], False: []}
    for pair, gold, model in examples.disagreements(pairs.scores, cosines[name]):
        shown = (
            [in_one_line(pairs.first[pair], WIDTH), in_one_line(pairs.second[pair], WIDTH)] if texts else str(pair + 1)
        )
        figures = [f"{model - gold:+.0f}", f"{gold:.0f}", f"{model:.0f}"]
        rows[model > gold].append([shown, *figures, f"{pairs.scores[pair]:g}", f"{cosines[name][pair]:.2f}"])
    header = ["texts" if texts else "pair", "difference", "rank, people", "rank, model", "gold score", "cosine"]
    tables = [
        Table(header, rows[True], "The model ranks them too similar"),
        Table(header, rows[False], "The model ranks them too different"),
    ]
    how = (
        f"The pairs of STS-B dev whose rank by the {name} encoder differs most from their rank by people. Rank 0 is "
        "the least similar pair, rank 100 the most similar."
    )
    return Section("Where model and people disagree", [how], [table for table in tables if table.rows])


def _texts(
    run: Run, encoders: dict[str, Encoder], pairs: Subset | None, notes: list[str], texts: bool
) -> list[Section]:
    """The map of texts, and the nearest neighbours of a few of them."""
    try:
        if not run.recipe.get("data"):
            raise InputError("the run's recipe names no corpus.")
        sample = examples.sample_corpus(run.recipe)
    except (InputError, OSError) as error:
        notes.append(f"The training corpus cannot be read: {error}")
        if pairs is None:
            notes.append("The map and the nearest neighbours are not shown, because there are no texts for them.")
            return []
        sample = examples.sample_pairs(pairs)
    rows = {name: examples.embed(encoder, sample.texts) for name, encoder in encoders.items()}
    if len(sample.texts) < 3:
        return []
    last = list(rows)[-1]
    groups, colour = examples.grouping(sample, rows[last])
    drawn = []
    for name, embeddings in rows.items():
        points, kept = examples.project(embeddings)
        shown = [in_one_line(text, MAP_WIDTH) for text in sample.texts] if texts else None
        note = f"The first two principal components, which have {100 * kept:.0f} % of the variance."
        drawn.append(plots.sentence_map(points, groups, shown, name.capitalize(), note))
    on_hover = " Hover over or tap a point for its text." if texts else ""
    what = f"{len(sample.texts):,} texts of {sample.source}. {colour}{on_hover}"
    sections = [Section("Map of sentences", [what], plots=drawn)]
    if not texts:
        return sections
    cards = []
    for query in examples.queries(sample):
        lists = []
        for name, embeddings in rows.items():
            found = examples.neighbours(embeddings, query)
            lists.append(
                (name, [f"{cosine:.2f}  {in_one_line(sample.texts[place], WIDTH)}" for place, cosine in found])
            )
        cards.append(Card(in_one_line(sample.texts[query], WIDTH), lists))
    how = (
        "The nearest texts of the map, by cosine, for a few of its texts. These are evenly spaced in the sample, not "
        "selected by result."
    )
    return [*sections, Section("Nearest neighbours", [how], cards=cards)]


def _comparison(lines: list[dict[str, Any]], reference: str | None) -> Section:
    figures = comparison(lines, reference)
    header, rows, notes = comparison_cells(figures)
    average = next(iter(name for name in figures["columns"] if name.startswith("Avg.")), figures["columns"][0])
    scores = {name: row["columns"][average]["values"] for name, row in figures["rows"].items()}
    drawn = [plots.scores_by_row(scores, average)]
    if any(row["difference"] for row in figures["rows"].values()):
        drawn.append(plots.differences(figures))
    title = ", ".join(short_name(task) for task in lines[0]["results"] if task != STS_DEV)
    return Section(f"Scores: {title}", notes, [Table(header, rows)], drawn)


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
    folded = []
    for line in lines:
        provenance = line["provenance"]
        cells = [line["row"], line["seed"], _facts(provenance["encoder"]), line["fingerprint"], line["written"]]
        rows.append([*cells, _facts(provenance["versions"])])
    if lines:
        scored = [(task, _facts(facts)) for line in lines for task, facts in line["provenance"]["tasks"].items()]
        cells = [[short_name(task), facts] for task, facts in dict.fromkeys(scored)]
        folded = [Table(["set", "what was scored"], cells, "Evaluation sets")]
    header = ["row", "seed", "encoder", "fingerprint", "written", "versions"]
    return Section("Provenance", tables=[Table(header, rows)] if rows else [], folded=folded)


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
