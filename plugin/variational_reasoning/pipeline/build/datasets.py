"""Stage 8: from traces, log-likelihoods and verdicts to the rows that a model trains on (Eqs. 5, 6,
8 to 12; Algorithm 1).

Each entry of build.outputs is one train file, for the final model or (target: posterior, Eq. 9) for
the posterior. A trace is a candidate when it finished, is well formed and its row fits cutoff_len;
`select.py` says which candidates are taken. For the final model, with `acc`, a trace is followed by
one of its verified answers, drawn under the seed (for the control arm by the reference solution
where none is verified); otherwise by the reference solution. For the posterior the prompt holds a
hint instead. A question without an acceptable trace is treated by `fallback` and counted. The terms
of rho are kept raw in every row, so that another estimator can be tried without running a model
again.

No row is there twice. Equal rows of a question become one with the sum of
their weights: a trace that was sampled three times, or one that repeats the data set's in a mix.
That leaves the direction of the gradient over the file as it is (C's mean length becomes that of
the different rows); a single step varies more, since equal rows now stand in it together. Only an
original row that is there as the fallback does not count again in the mix, unless `mix_fallback`
asks for both as rows of their own, which is what the paper's files hold.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from variational_reasoning.files import write_json
from variational_reasoning.method.estimators import ESTIMATORS
from variational_reasoning.method.prompts import Encode
from variational_reasoning.method.weights import effective_sample_size, top_p_warning
from variational_reasoning.pipeline.build.health import (
    HEALTH,
    describe_health,
    health_of,
    ids_warnings,
)
from variational_reasoning.pipeline.build.join import Joined, Trace, join
from variational_reasoning.pipeline.build.select import (
    best_of,
    copies_of_originals,
    draw_hint,
    draw_verified,
    factor_of_question,
    has_wanted_accuracy,
    select,
)
from variational_reasoning.pipeline.config import Config, OutputConfig, resolved
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.rows import Identity, read_manifest, read_table
from variational_reasoning.pipeline.tables import RHO_TERMS
from variational_reasoning.pipeline.train_files import (
    current_manifest,
    register_datasets,
    write_file,
)

ORIGINAL, FALLBACK = -2, -1
"""`source` of a row: the original one in a mix, the original one as fallback; otherwise the chosen
trace's id.
"""

_NUM_LISTED = 5


class BuiltFile(NamedTuple):
    """A train file: its manifest's figures and whether it was written by this call."""

    path: Path
    figures: dict[str, Any]
    was_written: bool


class BuildSummary(NamedTuple):
    """All train files, the sampler's health, and how many traces were no candidates, by reason."""

    files: list[BuiltFile]
    health: dict[str, Any]
    filtered: dict[str, int]


class Row(NamedTuple):
    """A row before it is rendered. solution: what the final model's row ends with, or the
    posterior's hint; answer_id: of the sampled answer that it is; num_tokens: of the response;
    terms: RHO_TERMS, none without a trace.
    """

    source: int
    trace: str
    solution: str
    weight: float
    num_tokens: int
    answer_id: int | None = None
    terms: Mapping[str, Any] | None = None


def build_datasets(config: Config) -> BuildSummary:
    """Stage 8: one train file per build.outputs entry that is made from the traces of
    sampling.traces_from, their names in train/dataset_info.json, and health.json next to the
    traces.

    Raises: ValueError for settings that make no sense together, tables that do not belong together,
    rows that are missing and files without a row, with their ids. Nothing is written then.
    """
    outputs = _checked_outputs(config)
    joined = join(config, outputs)
    num_usable = sum(map(len, joined.traces.values()))
    print(
        f"reads {len(joined.sampled)} traces of {len(joined.questions)} questions, {num_usable} of "
        f"them fit for use"
    )
    _check_num_traces(outputs, joined)
    builder = Builder(config, joined)
    files, planned = [], []
    for output in outputs:
        name = f"{config.data.name}_{output.name}"
        path = config.folder("train", f"{name}.parquet")
        identity = builder.identity(output)
        manifest = current_manifest(path, identity)
        if manifest is None:
            rows, figures = builder.plan(output)
            planned.append((path, output, rows, identity, figures))
        else:
            figures = manifest["figures"]
        files.append(BuiltFile(path, figures, manifest is None))
    if not config.build.allow_no_traces:
        _refuse_files_without_traces(files, config)
    _count_other_ids(planned, builder, config)
    for path, output, rows, identity, figures in planned:
        write_file(path, "train", builder.render(output, rows), identity, figures=figures)
    register_datasets(
        config.folder("train"), dict.fromkeys((file.path.stem for file in files), "weighted_sft")
    )
    health = health_of(joined, config.sampling.traces_from, config.sampling.hint)
    health["trained_ids"] = {file.path.stem: file.figures.get("trained_ids") for file in files}
    health["warnings"] += ids_warnings(health["trained_ids"]) + _sampling_warnings(config, outputs)
    write_json(config.folder(HEALTH), health)
    return BuildSummary(files, health, joined.filtered)


class Builder:
    """Plans the rows of a file, so that all faults are found before any file is written, and
    renders them.
    """

    def __init__(self, config: Config, joined: Joined) -> None:
        self.config, self.joined = config, joined
        self.renderer = config.renderer
        self._counted: dict[int, int] = {}

    def identity(self, output: OutputConfig) -> Identity:
        """What a train file's rows depend on."""
        values = asdict(output)
        if not output.mix_fallback:
            del values["mix_fallback"]  # files that were built before this key was there stay valid
        if output.traces_hint == "reference":
            del values["traces_hint"]
        settings = {"output": values, **self.renderer.to_record()}
        if self.config.build.question_accuracy.is_set:
            settings |= resolved(self.config, "build.question_accuracy")
        if output.question_factor != "none":
            # Earlier releases left responses without an answer out of P; such files are built
            # again.
            settings["question_accuracy"] = "of all sampled responses"
        settings |= resolved(self.config, "cutoff_len", "posterior_prompt")
        return Identity(self.joined.inputs, settings, seed=self.config.seed)

    def plan(self, output: OutputConfig) -> tuple[dict[str, list[Row]], dict[str, Any]]:
        """({question_id: rows}, figures for the manifest). Raises: ValueError when no row remains,
        with ids.
        """
        counts: Counter[str] = Counter()
        sizes: list[
            tuple[float, list[float]]
        ] = []  # effective sample size before a cap, and the weights after it
        planned: dict[str, list[Row]] = {}
        for question_id in tqdm(self.joined.questions, unit="question", desc=output.name):
            if rows := self._rows_of(output, question_id, counts, sizes):
                planned[question_id] = rows
        if not planned:
            some = list(self.joined.questions)[:_NUM_LISTED]
            raise ValueError(
                f"build.outputs {output.name!r}: no row remains, the weights of all "
                f"{len(self.joined.questions)} questions "
                f"are zero ({dict(counts)}); questions such as {some}. Look at "
                f"{self.config.folder('verdicts')} and at the "
                "model that sampled the traces"
            )
        for question_id, copies in copies_of_originals(
            list(planned), output.mix, self.config.seed
        ).items():
            if not copies:
                continue
            if not self._has_original(question_id):
                counts["questions_without_original"] += 1
                continue
            rows = planned[question_id]
            is_fallback = rows[0].source == FALLBACK
            if is_fallback and not output.mix_fallback:
                counts["duplicates_removed"] += 1
                continue
            counts["original"] += 1
            original = self._original(output, question_id, ORIGINAL, float(copies))
            if is_fallback:
                planned[question_id] = [*rows, original]  # two rows, as in the paper's files
            else:
                planned[question_id] = _merged([*rows, original], counts)
        figures = _figures(
            [row for rows in planned.values() for row in rows], counts, sizes, output
        )
        return planned, figures

    def trace_ids(self, text: str) -> list[int]:
        """The ids that a training gives the loss for a trace's text, boundary included."""
        return self._encode(text + self.renderer.boundary)

    def render(
        self, output: OutputConfig, planned: Mapping[str, Sequence[Row]]
    ) -> list[dict[str, Any]]:
        """Rows of the table `train`."""
        num_traces = output.num_traces or self.joined.num_traces
        rendered = []
        for question_id, rows in planned.items():
            accuracy = self.joined.question_accuracy(question_id, num_traces)
            for row in rows:
                prompt, response = self._texts(output, question_id, row.trace, row.solution)
                ids = {"question_id": question_id, "source": row.source, "answer_id": row.answer_id}
                ids["trace_id"] = row.source if row.source >= 0 else None
                columns = {
                    "prompt": prompt,
                    "response": response,
                    "weight": row.weight,
                    "question_accuracy": accuracy,
                }
                rendered.append(dict.fromkeys(RHO_TERMS) | ids | columns | dict(row.terms or {}))
        return rendered

    def _rows_of(
        self,
        output: OutputConfig,
        question_id: str,
        counts: Counter,
        sizes: list[tuple[float, list[float]]],
    ) -> list[Row]:
        """Rows of one question, but for the mix."""
        num_traces = output.num_traces or self.joined.num_traces
        accuracy = self.joined.question_accuracy(question_id, num_traces)
        if not has_wanted_accuracy(accuracy, self.config.build.question_accuracy, counts):
            return []
        traces = [
            trace
            for trace in self.joined.traces.get(question_id, ())
            if trace.trace_id < num_traces
        ]
        fitting: dict[int, Row] = {}
        for trace in traces:
            if output.verified_only and not trace.verified:
                counts["dropped_without_verified_answer"] += 1
                continue
            row = self._row_of(output, trace, traces, counts)
            if row is not None:
                fitting[trace.trace_id] = row
        selection = select(
            output,
            [trace for trace in traces if trace.trace_id in fitting],
            self.config.seed,
            counts,
        )
        if not selection.chosen:
            counts["questions_without_acceptable_trace"] += 1
            return self._fallback(output, question_id, traces, counts)
        factor = factor_of_question(output.question_factor, accuracy, counts)
        if factor == 0:
            return []
        counts["traces_chosen"] += len(selection.chosen)
        if selection.effective_sample_size is not None:
            sizes.append(
                (selection.effective_sample_size, [weight for _, weight in selection.chosen])
            )
        rows = [
            fitting[trace.trace_id]._replace(weight=weight * factor)
            for trace, weight in selection.chosen
        ]
        if output.target == "reasoner" and ESTIMATORS[output.estimator].samples_answers:
            counts["with_reference_solution"] += sum(row.answer_id is None for row in rows)
        return _merged(rows, counts)

    def _row_of(
        self, output: OutputConfig, trace: Trace, traces: Sequence[Trace], counts: Counter
    ) -> Row | None:
        """A trace's row with weight 1, or None where it does not fit cutoff_len."""
        solution, answer_id = self.joined.questions[trace.question_id]["solution"], None
        if output.target == "posterior":
            if output.hint == "verified":
                drawn_hint = draw_hint(trace, traces, self.config.seed)
                counts["with_reference_hint"] += drawn_hint is None
                solution = solution if drawn_hint is None else drawn_hint
        elif ESTIMATORS[output.estimator].samples_answers:
            drawn = draw_verified(trace, self.config.seed)
            if drawn is not None:
                answer_id, solution = drawn
        if not solution.strip():  # of a question with tests only
            counts["dropped_without_solution"] += 1
            return None
        num_tokens, fits = self._length(output, trace.question_id, trace.text, solution)
        counts["dropped_overlong"] += not fits
        terms = trace.terms(output.estimator, output.ratio)
        return (
            Row(trace.trace_id, trace.text, solution, 1.0, num_tokens, answer_id, terms)
            if fits
            else None
        )

    def _fallback(
        self, output: OutputConfig, question_id: str, traces: Sequence[Trace], counts: Counter
    ) -> list[Row]:
        """What takes the place of a question without an acceptable trace."""
        solution = self.joined.questions[question_id]["solution"]
        if output.fallback == "original" and self._has_original(question_id):
            counts["fallback_original"] += 1
            return [self._original(output, question_id, FALLBACK, 1.0)]
        if output.fallback in ESTIMATORS:
            lengths = {
                trace.trace_id: self._length(output, question_id, trace.text, solution)
                for trace in traces
            }
            fitting = [trace for trace in traces if lengths[trace.trace_id][1]]
            if fitting:
                best = best_of(fitting, output.fallback, output.ratio)
                counts[f"fallback_{output.fallback}"] += 1
                terms = best.terms(output.fallback, output.ratio)
                return [
                    Row(
                        best.trace_id,
                        best.text,
                        solution,
                        1.0,
                        lengths[best.trace_id][0],
                        terms=terms,
                    )
                ]
        counts["questions_dropped"] += 1
        return []

    def _has_original(self, question_id: str) -> bool:
        """Whether the data give the question a trace, without which it has no original row."""
        return bool(self.joined.questions[question_id]["trace"].strip())

    def _original(self, output: OutputConfig, question_id: str, source: int, weight: float) -> Row:
        question = self.joined.questions[question_id]
        num_tokens, _ = self._length(output, question_id, question["trace"], question["solution"])
        return Row(source, question["trace"], question["solution"], weight, num_tokens)

    def _texts(
        self, output: OutputConfig, question_id: str, trace: str, solution: str
    ) -> tuple[str, str]:
        kind = "reasoner" if output.target == "reasoner" else self.config.posterior_prompt
        return self.renderer.render(
            kind, self.joined.questions[question_id]["question"], trace, solution
        )

    def _length(
        self, output: OutputConfig, question_id: str, trace: str, solution: str
    ) -> tuple[int, bool]:
        """(tokens of the response, whether prompt and response fit cutoff_len)."""
        prompt, response = self._texts(output, question_id, trace, solution)
        num_tokens = self._count(
            response, lambda text: self.renderer.encode_target(text, self._encode)
        )
        return num_tokens, self._count(prompt, self._encode) + num_tokens <= self.config.cutoff_len

    def _count(self, text: str, to_ids: Encode) -> int:
        """Tokens of a text; the next file has most of them again."""
        key = hash(text)
        if key not in self._counted:
            self._counted[key] = len(to_ids(text))
        return self._counted[key]

    @cached_property
    def _encode(self) -> Encode:
        encode, _ = text_codec(
            load_tokenizer(str(self.config.base or self.config.model_folder("reasoner")))
        )
        return encode


def _refuse_files_without_traces(files: Sequence[BuiltFile], config: Config) -> None:
    """Raises: ValueError for a file that holds original rows only: training on it would repeat
    stage 1.
    """
    names = ["traces_chosen", *(f"fallback_{name}" for name in ESTIMATORS)]
    without = [
        file.path.stem
        for file in files
        if not any(file.figures["counts"].get(name) for name in names)
    ]
    if without:
        raise ValueError(
            f"no trace was chosen for {', '.join(without)}: the rows would be the original ones "
            f"alone, and the final "
            f"model would learn nothing from the traces. Look at {config.folder('traces')} and "
            f"{config.folder('verdicts')}: with the estimator acc a trace needs a verified answer, "
            f"so train the reasoner "
            "longer, sample more traces or answers (sampling.num_traces, sampling.num_answers), or "
            "set an output's "
            "estimator or fallback to gml. build.allow_no_traces: true writes the file all the same"
        )


Planned = tuple[Path, OutputConfig, dict[str, list[Row]], Identity, dict[str, Any]]


def _count_other_ids(planned: Sequence[Planned], builder: Builder, config: Config) -> None:
    """Count the rows whose trace is trained as other ids than those that were scored: `trained_ids`
    of the figures.

    A trace goes from ids to text and back. rho is of the sampled ids; where a model sampled pieces
    that its tokenizer would not have chosen for the text, such as `a` `b` for `ab`, a training sees
    another sequence.
    """
    texts: dict[tuple[str, int], str] = {}
    for _, _, rows_by_question, _, _ in planned:
        for question_id, rows in rows_by_question.items():
            texts |= {(question_id, row.source): row.trace for row in rows if row.source >= 0}
    if not texts:
        return
    differing = set()
    columns = ["question_id", "trace_id", "token_ids"]
    for batch in read_table(config.folder("traces"), "traces", columns).to_batches():
        ids = zip(batch["question_id"].to_pylist(), batch["trace_id"].to_pylist(), strict=True)
        for place, key in enumerate(ids):
            if key in texts and batch["token_ids"][place].as_py() != builder.trace_ids(texts[key]):
                differing.add(key)
    for _, _, rows_by_question, _, figures in planned:
        chosen = [
            (question_id, row.source)
            for question_id, rows in rows_by_question.items()
            for row in rows
            if row.source >= 0
        ]
        num_differing = sum(key in differing for key in chosen)
        figures["trained_ids"] = {"rows": len(chosen), "differ": num_differing}


def _sampling_warnings(config: Config, outputs: Sequence[OutputConfig]) -> list[str]:
    """What makes the ratio of these traces something else than the method's."""
    sampled_with = read_manifest(config.folder("traces"), "traces")["config"]
    top_p = sampled_with.get("sampling.top_p", 1.0)
    named = [output.name for output in outputs if output.ratio != "none"]
    if not named or top_p == 1:
        return []
    return [top_p_warning(top_p, named)]


def _merged(rows: Sequence[Row], counts: Counter) -> list[Row]:
    """Equal rows as one, the first of them, with the sum of their weights."""
    merged: dict[tuple[str, str], Row] = {}
    for row in rows:
        earlier = merged.get((row.trace, row.solution))
        counts["duplicates_merged"] += earlier is not None
        merged[row.trace, row.solution] = (
            row if earlier is None else earlier._replace(weight=earlier.weight + row.weight)
        )
    return list(merged.values())


def describe_files(summary: BuildSummary) -> str:
    """The lines that the command prints at its end."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.filtered.items()))
    lines = [f"traces that are not candidates: {reasons or 'none'}"]
    for file in summary.files:
        figures = file.figures
        counts = ", ".join(
            f"{name.replace('_', ' ')} {count}" for name, count in sorted(figures["counts"].items())
        )
        size = figures.get("mean_effective_sample_size")
        lines.append(
            f"{file.path}: {figures['rows']} rows, weights mean {figures['mean_weight']:.4g} min "
            f"{figures['min_weight']:.4g} max {figures['max_weight']:.4g}, mean response "
            f"{figures['mean_tokens']:.1f} tokens"
            + (f", effective sample size {size:.2f}" if size else "")
            + f"; {counts}"
            + ("" if file.was_written else " (was there already)")
        )
    return "\n".join(lines + describe_health(summary.health))


def _checked_outputs(config: Config) -> list[OutputConfig]:
    """The outputs made from the traces of sampling.traces_from. Raises: ValueError for settings
    that make no sense.
    """
    faults = []
    if not config.build.outputs:
        faults.append("build.outputs is empty; name at least one train file")
    for index, output in enumerate(config.build.outputs):
        where = f"build.outputs.{index} ({output.name})"
        is_estimated = output.fallback in ESTIMATORS
        if output.target == "posterior" and output.sampler == "posterior":
            faults.append(
                f"{where}.traces_from: the posterior learns from the reasoner's traces (Eq. 9), "
                f"not from its own"
            )
        if output.sampler == "reasoner" and output.ratio != "none":
            faults.append(
                f"{where}.ratio: the reasoner's own traces have no ratio to it; set ratio: none"
            )
        if output.hint == "verified" and output.target != "posterior":
            faults.append(
                f"{where}.hint: only the posterior's rows have a hint; leave it out, or set "
                f"target: posterior"
            )
        if is_estimated and not ESTIMATORS[output.estimator].samples_answers:
            faults.append(
                f"{where}.fallback: {output.fallback} only makes sense with the estimator acc; "
                f"with {output.estimator} every trace is "
                "acceptable. Use drop or original"
            )
        if is_estimated and output.selection == "unweighted":
            faults.append(
                f"{where}.fallback: {output.fallback} has no use where selection is unweighted"
            )
        if output.weight_cap is not None and output.selection != "weighted":
            faults.append(
                f"{where}.weight_cap: only the selection weighted has weights to cap; it is "
                f"{output.selection}"
            )
        if output.question_factor != "none" and output.fallback != "drop":
            faults.append(
                f"{where}.fallback: {output.fallback} would give a weight to questions that "
                f"question_weight "
                f"{output.question_factor} gives none; use drop"
            )
    wanted = [output for output in config.build.outputs if config.is_of_these_traces(output)]
    if config.build.outputs and not wanted:
        sampler, hint = config.sampling.traces_from, config.sampling.hint
        of_hint = "" if hint == "reference" else f" with the hint {hint}"
        faults.append(
            f"build.outputs: none is made from the {sampler}'s traces{of_hint}; set "
            f"sampling.traces_from to the other model, or an output's traces_from to {sampler} "
            f"and its traces_hint to {hint}"
        )
    if faults:
        raise ValueError("\n".join(faults))
    return wanted


def _check_num_traces(outputs: Sequence[OutputConfig], joined: Joined) -> None:
    faults = [
        f"build.outputs {output.name!r}: num_traces is {output.num_traces}, but only "
        f"{joined.num_traces} traces per question "
        "were sampled (sampling.num_traces)"
        for output in outputs
        if (output.num_traces or 0) > joined.num_traces
    ]
    if faults:
        raise ValueError("\n".join(faults))


def _figures(
    rows: Sequence[Row],
    counts: Counter,
    sizes: Sequence[tuple[float, list[float]]],
    output: OutputConfig,
) -> dict[str, Any]:
    weights = [row.weight for row in rows]
    figures = {
        "rows": len(rows),
        "mean_weight": math.fsum(weights) / len(weights),
        "min_weight": min(weights),
        "max_weight": max(weights),
        "mean_tokens": sum(row.num_tokens for row in rows) / len(rows),
        "counts": {name: count for name, count in counts.items() if count},
    }
    if sizes:
        figures["mean_effective_sample_size"] = math.fsum(
            effective_sample_size(w) for _, w in sizes
        ) / len(sizes)
    if sizes and output.weight_cap is not None:
        figures["mean_effective_sample_size_before_cap"] = math.fsum(
            size for size, _ in sizes
        ) / len(sizes)
        figures["weight_taken_by_cap"] = len(sizes) - math.fsum(
            weight for _, w in sizes for weight in w
        )
    return figures
