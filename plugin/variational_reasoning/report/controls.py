"""The sections on traces as such: does a model use its trace, and what do its symbols tell?

The first needs controls.json of evaluations (scripts/trace_controls.py), the second tables of
abstract traces: first traces, those of stage 3, and the samples of evaluations, in every round.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.method.abstract import END
from variational_reasoning.method.steps import (
    chance_information,
    entropy,
    mutual_information,
    split_steps,
)
from variational_reasoning.pipeline.collapse import variety
from variational_reasoning.pipeline.controls.exchange import KINDS
from variational_reasoning.pipeline.controls.result import CONTROLS, read_controls
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import MANIFEST, read_manifest
from variational_reasoning.report import figures
from variational_reasoning.report.page import Picture, Section, Table
from variational_reasoning.report.runs import rounds_in

SHOWN_PLACES = 8
"""Places of a trace whose information is shown."""
EVALUATION = "evaluation of"
SYMBOL = re.compile(r"<TOKEN_[A-Z]+>")


def trace_use(folders: Sequence[Path]) -> Section:
    """Accuracy of all models after other traces, as one table and one plot."""
    section = Section(
        "Does a model use its trace?",
        "The same questions after another trace: another question's (donor), a random one, the own "
        "one shuffled, with one token replaced, replaced and continued, none, and the one that the "
        "verbal chain gives. A model that uses its trace loses its accuracy with the first two.",
    )
    found, stale = _read_all(folders)
    for name in stale:
        section.warnings.append(
            f"the controls of {name} are about other samples than its evaluation now, and not "
            "shown: run scripts/trace_controls.py again"
        )
    if not found:
        section.absent = "There are no controls (scripts/trace_controls.py)."
        return section
    measured: set[str] = set()
    for result in found.values():
        measured.update(result["kinds"])
    kinds = [kind for kind in KINDS if kind in measured]
    columns = ["model", *kinds, "changed", "not answered", "follows", "keeps"]
    table = Table(columns, [])
    intervals = {}
    for name, result in found.items():
        by_kind = result["kinds"]
        row = [name]
        for kind in kinds:
            row.append(_cell(by_kind, kind, "accuracy"))
        row.append(_cell(by_kind, "donor", "changed"))
        row.append(_cell(by_kind, "none", "unanswered"))
        row.append(_cell(by_kind, "continued", "follows"))
        row.append(_cell(by_kind, "continued", "keeps"))
        table.rows.append(row)
        intervals[name] = _intervals(by_kind)
    section.tables.append(table)
    picture = figures.plot_controls(kinds, intervals)
    section.pictures.append(Picture("controls", picture))
    section.notes.append(
        "Percent, ± half of the 95 % interval over questions. Changed: with another question's "
        "trace, answers that are not the one after the own trace. Not answered: without a trace. "
        "Continued: one token in the middle is replaced and the model writes what follows it. Of "
        "the answers whose changed trace implies another one, those that follow it and those that "
        "keep the old answer (eval.controls.implied_answer tells)."
    )
    return section


def _read_all(
    folders: Sequence[Path],
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """(controls by the name of the model, names whose controls are about other samples)."""
    found: dict[str, Mapping[str, Any]] = {}
    stale = []
    for folder in folders:
        for path in sorted(folder.glob(f"evals/*/{CONTROLS}")):
            name = path.parent.name
            if len(folders) > 1:
                name = f"{folder.name}/{name}"
            result = read_controls(path.parent)
            if result is None:
                stale.append(name)
            elif result["kinds"]:
                found[name] = result
    return found, stale


def _cell(by_kind: Mapping[str, Any], kind: str, name: str) -> str:
    """A share in percent with half of its interval, as 16.8 ± 3.2; empty where it is not known."""
    values = by_kind.get(kind, {})
    if name not in values:
        return ""
    share = f"{100 * values[name]:.1f}"
    bounds = values.get("intervals", {}).get(name)
    if bounds is None:
        return share
    low, high = bounds
    half = (high - low) / 2
    if half == 0:
        return share
    return f"{share} ± {100 * half:.1f}"


def _intervals(kinds: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """(accuracy, low, high) by kind; controls of an earlier release have a standard error."""
    found = {}
    for kind, values in kinds.items():
        mean = values["accuracy"]
        error = values.get("standard_error") or 0.0
        around = [mean - 1.96 * error, mean + 1.96 * error]
        low, high = values.get("intervals", {}).get("accuracy", around)
        found[kind] = mean, low, high
    return found


class SymbolTraces(NamedTuple):
    """Traces of symbols: (question_id, symbols) in the order of a table."""

    name: str
    rows: list[tuple[str, list[str]]]


def symbol_use(run: Path) -> Section:
    """How often symbols are used, and what they tell about the steps' values and the answer, in a
    run, its later rounds (round2) and those of its loops (LOOP/round1).
    """
    section = Section(
        "Use of symbols",
        "The symbols of abstract traces by how often they are used, most frequent first. A steep "
        "curve has few symbols that say little.",
    )
    tables = list(_tables_of(run))
    for folder in _rounds(run):
        place = folder.relative_to(run)
        for traces in _tables_of(folder):
            tables.append(traces._replace(name=f"{place}, {traces.name}"))
    if not tables:
        section.absent = "There are no traces of symbols."
        return section
    columns = ["traces", "number", "symbols", "bits each", "length", "different"]
    use = Table(columns, [])
    of_rounds: dict[str, list[float]] = {}
    of_models: dict[str, list[float]] = {}
    for traces in tables:
        use.rows.append(_use_cells(traces))
        shares = _symbol_shares(traces)
        if shares and EVALUATION in traces.name:
            of_models[traces.name] = shares
        elif shares:
            of_rounds[traces.name] = shares
    section.tables.append(use)
    if of_rounds:
        picture = figures.plot_symbol_use(of_rounds)
        section.pictures.append(Picture("symbols_of_rounds", picture))
    if of_models:
        picture = figures.plot_symbol_use(of_models)
        section.pictures.append(Picture("symbols_of_models", picture))
    told = _information(tables, run)
    if told.rows:
        section.tables.append(told)
    section.notes.append(
        "Length: the median, and the 10th and 90th percentile. Different: among the first traces "
        "of the questions. Bits: mutual information of the symbol at a place with the value of the "
        "step there, where steps.pattern knows it, and with the answer. By chance: the mean of the "
        "same with the values shuffled; only what is above it says something."
    )
    return section


def _use_cells(traces: SymbolTraces) -> list[str]:
    """The figures of one table of traces."""
    found = variety(_as_rows(traces))
    assert found is not None  # no table is written without a row
    low, middle, high = found.lengths
    return [
        traces.name,
        f"{len(traces.rows):,}",
        str(found.num_symbols),
        f"{found.entropy:.2f}",
        f"{middle:g} ({low:g} to {high:g})",
        f"{found.distinct:.1%}",
    ]


def _symbol_shares(traces: SymbolTraces) -> list[float]:
    """Shares of the symbols in all symbols, the largest first; none of traces without symbols."""
    counts: Counter[str] = Counter()
    for _, symbols in traces.rows:
        counts.update(symbols)
    total = counts.total()
    return [count / total for _, count in counts.most_common()]


def _as_rows(traces: SymbolTraces) -> Iterator[dict[str, Any]]:
    """Rows as `variety` takes them, whose last id is the end."""
    for number, (question_id, symbols) in enumerate(traces.rows):
        yield {
            "question_id": question_id,
            "trace_id": number,
            "token_ids": [*symbols, END],
        }


def _rounds(run: Path) -> list[Path]:
    """The folders of all rounds but the first one of the run itself: round2, LOOP/round1, ..."""
    rounds = rounds_in(run)
    for folder in sorted(run.iterdir()):
        if folder.is_dir():
            rounds += rounds_in(folder)
    return rounds


def _tables_of(folder: Path) -> Iterator[SymbolTraces]:
    """The tables of abstract traces of one round."""
    places = {
        "posterior": folder / "traces",
        "reasoner": folder / "from_reasoner/traces",
    }
    for path in sorted(folder.glob("first_traces/*")):
        places[f"first, {path.name}"] = path
    for name, path in places.items():
        if _is_abstract(path, "traces"):
            yield SymbolTraces(name, list(_symbols(path, "traces")))
    for path in sorted(folder.glob("evals/*/samples")):
        if _is_abstract(path, "samples"):
            name = f"{EVALUATION} {path.parent.name}"
            yield SymbolTraces(name, list(_symbols(path, "samples")))


def _is_abstract(path: Path, table: str) -> bool:
    if not (path / MANIFEST).is_file():
        return False
    config = read_manifest(path, table)["config"]
    family = config.get("prompt_family") or {}
    return family.get("boundary") == END


def _symbols(path: Path, table: str) -> Iterator[tuple[str, list[str]]]:
    """(question_id, symbols) of the rows of a table of texts, in their order."""
    reader = TableReader(path, table)
    for part in reader.scan(["question_id", "text"]):
        for row in part.to_pylist():
            trace, _, _ = row["text"].partition(END)
            yield row["question_id"], SYMBOL.findall(trace)


def _information(tables: Sequence[SymbolTraces], run: Path) -> Table:
    """Bits that the symbol at each place tells of the step's value and of the answer."""
    columns = ["traces", "place", "bits of the value", "by chance", "at most"]
    columns += ["bits of the answer", "by chance", "at most"]
    table = Table(columns, [])
    facts = _facts(run)
    for traces in tables:
        longest = max(len(symbols) for _, symbols in traces.rows)
        for place in range(min(longest, SHOWN_PLACES)):
            # (symbol, what it may tell) of all traces that have a symbol at this place.
            about_value = []
            about_answer = []
            for question_id, symbols in traces.rows:
                known = facts.get(question_id)
                if known is None or place >= len(symbols):
                    continue
                values, answer = known
                about_answer.append((symbols[place], answer))
                if place < len(values):
                    about_value.append((symbols[place], values[place]))
            cells = [*_bits(about_value), *_bits(about_answer)]
            table.rows.append([traces.name, str(place + 1), *cells])
    return table


def _bits(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """[information, information by chance, entropy of the second] of pairs; empty without any."""
    if not pairs:
        return ["", "", ""]
    told = mutual_information(pairs)
    by_chance = chance_information(pairs)
    at_most = entropy(value for _, value in pairs)
    return [f"{told:.2f}", f"{by_chance:.2f}", f"{at_most:.2f}"]


def _facts(run: Path) -> dict[str, tuple[list[str], str]]:
    """question_id to (the values of its steps where they are known, its answer)."""
    if not (run / "questions" / MANIFEST).is_file():
        return {}
    pattern = None
    if (run / "steps" / MANIFEST).is_file():
        pattern = read_manifest(run / "steps", "steps")["config"]["steps.pattern"]
    facts = {}
    reader = TableReader(run / "questions", "questions")
    for part in reader.scan(["question_id", "trace", "solution"]):
        for row in part.to_pylist():
            values = []
            if pattern:
                for step in split_steps(row["trace"], pattern):
                    if step.value is not None:
                        values.append(step.value)
            facts[row["question_id"]] = values, row["solution"]
    return facts
