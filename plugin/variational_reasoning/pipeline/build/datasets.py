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

No row is there twice. Equal rows of a question become one with the sum of their weights: a trace
that was sampled three times, or one that repeats the data set's in a mix. That leaves the direction
of the gradient over the file as it is, and C's mean length becomes that of the different rows. A
single step varies more, since equal rows are now in one step. An original row that is there as the
fallback does not count again in the mix, unless `mix_fallback` asks for both as rows of their own.
The paper's files hold both.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from variational_reasoning.files import write_json
from variational_reasoning.method.estimators import ESTIMATORS
from variational_reasoning.method.weights import top_p_warning
from variational_reasoning.pipeline.build.health import (
    HEALTH,
    HealthCounter,
    describe_health,
    ids_warnings,
)
from variational_reasoning.pipeline.build.join import Joined, join
from variational_reasoning.pipeline.build.lengths import Lengths
from variational_reasoning.pipeline.build.plan import OutputPlan
from variational_reasoning.pipeline.build.traces import Chosen, read_blocks
from variational_reasoning.pipeline.config import Config, OutputConfig, resolved
from variational_reasoning.pipeline.rows import Identity, read_manifest
from variational_reasoning.pipeline.train_files import (
    current_manifest,
    open_file,
    register_datasets,
)


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


def build_datasets(config: Config) -> BuildSummary:
    """Stage 8: one train file per build.outputs entry that is made from the traces of
    sampling.traces_from, their names in train/dataset_info.json, and health.json next to the
    traces.

    Raises: ValueError for settings that make no sense together, tables that do not belong together,
    rows that are missing and files without a row, with their ids. Nothing is written then.
    """
    outputs = _checked_outputs(config)
    joined = join(config, outputs)
    print(
        f"reads {len(joined.traces)} traces of {len(joined.questions)} questions, "
        f"{len(joined.candidates)} of them fit for use"
    )
    _check_num_traces(outputs, joined)
    files: dict[Path, dict[str, Any]] = {}
    plans: list[OutputPlan] = []
    for output in outputs:
        path = config.train_file(output.name)
        identity = _identity(output, joined, config)
        manifest = current_manifest(path, identity)
        if manifest is None:
            plans.append(OutputPlan(path, output, identity, config, joined.num_traces))
        files[path] = manifest["figures"] if manifest is not None else {}
    health = _plan(plans, joined, config)
    files |= {plan.path: plan.figures for plan in plans}
    planned = {plan.path for plan in plans}
    built = [BuiltFile(path, figures, path in planned) for path, figures in files.items()]
    if not config.build.allow_no_traces:
        _refuse_files_without_traces(built, config)
    _write(plans, joined, config)
    names = [file.path.stem for file in built]
    register_datasets(config.folder("train"), dict.fromkeys(names, "weighted_sft"))
    trained_ids = {file.path.stem: file.figures.get("trained_ids") for file in built}
    health["trained_ids"] = trained_ids
    health["warnings"] += ids_warnings(trained_ids)
    health["warnings"] += _sampling_warnings(config, outputs)
    write_json(config.folder(HEALTH), health)
    return BuildSummary(built, health, joined.filtered)


def _identity(output: OutputConfig, joined: Joined, config: Config) -> Identity:
    """What a train file's rows depend on."""
    values = asdict(output)
    if not output.mix_fallback:
        del values["mix_fallback"]  # files that were built before this key was there stay valid
    if output.traces_hint == "reference":
        del values["traces_hint"]
    settings = {"output": values, **config.renderer.to_record()}
    if config.build.question_accuracy.is_set:
        settings |= resolved(config, "build.question_accuracy")
    if output.question_factor != "none":
        # Earlier releases left responses without an answer out of P; such files are built again.
        settings["question_accuracy"] = "of all sampled responses"
    settings |= resolved(config, "cutoff_len", "posterior_prompt")
    return Identity(joined.inputs, settings, seed=config.seed)


def _plan(plans: Sequence[OutputPlan], joined: Joined, config: Config) -> dict[str, Any]:
    """Decide the rows of all files in one pass over the texts, so that all faults are found before
    any file is written; the sampler's health.
    """
    lengths = Lengths(config)
    health = HealthCounter(joined, config.sampling.traces_from, config.sampling.hint)
    with tqdm(total=len(joined.questions), unit="question", desc="rows") as bar:
        for block in read_blocks(joined, config.renderer, lengths.measure):
            health.add(block)
            for question_id, question in block.questions.items():
                traces = block.traces[question_id]
                for plan in plans:
                    accuracy = joined.question_accuracy(question_id, plan.num_traces)
                    plan.add(question_id, question, traces, accuracy, lengths)
            lengths.forget()
            bar.update(len(block.questions))
    for plan in plans:
        plan.finish()
    if any(plan.num_rows_of_traces for plan in plans):
        for plan in plans:
            plan.count_other_ids()
    return health.health()


def _write(plans: Sequence[OutputPlan], joined: Joined, config: Config) -> None:
    """Write the planned files in one more pass over the texts."""
    if not plans:
        return
    chosen = Chosen(set(), set(), set())
    for plan in plans:
        plan.add_chosen(chosen)
    with ExitStack() as stack:
        files = []
        for plan in plans:
            opening = open_file(plan.path, "train", plan.identity, figures=plan.figures)
            files.append(stack.enter_context(opening))
        bar = tqdm(total=len(chosen.questions), unit="question", desc="texts")
        stack.enter_context(bar)
        for block in read_blocks(joined, config.renderer, chosen=chosen):
            for plan, file in zip(plans, files, strict=True):
                accuracies = {
                    question_id: joined.question_accuracy(question_id, plan.num_traces)
                    for question_id in block.questions
                }
                file.write(plan.render(block, accuracies))
            bar.update(len(block.questions))


def _refuse_files_without_traces(files: Sequence[BuiltFile], config: Config) -> None:
    """Raises: ValueError for a file that holds original rows only: training on it would repeat
    stage 1.
    """
    counts_of_traces = ["traces_chosen"]
    counts_of_traces += [f"fallback_{name}" for name in ESTIMATORS]
    without = []
    for file in files:
        counts = file.figures["counts"]
        if not any(counts.get(name) for name in counts_of_traces):
            without.append(file.path.stem)
    if without:
        raise ValueError(
            f"no trace was chosen for {', '.join(without)}: the rows would be the original ones "
            "alone, and the final model would learn nothing from the traces. Look at "
            f"{config.folder('traces')} and {config.folder('verdicts')}: with the estimator acc a "
            "trace needs a verified answer, so train the reasoner longer, sample more traces or "
            "answers (sampling.num_traces, sampling.num_answers), or set an output's estimator or "
            "fallback to gml. build.allow_no_traces: true writes the file all the same"
        )


def _sampling_warnings(config: Config, outputs: Sequence[OutputConfig]) -> list[str]:
    """What makes the ratio of these traces something else than the method's."""
    sampled_with = read_manifest(config.folder("traces"), "traces")["config"]
    top_p = sampled_with.get("sampling.top_p", 1.0)
    named = [output.name for output in outputs if output.ratio != "none"]
    if not named or top_p == 1:
        return []
    return [top_p_warning(top_p, named)]


def describe_files(summary: BuildSummary) -> str:
    """The lines that the command prints at its end."""
    filtered = [f"{count} {reason}" for reason, count in sorted(summary.filtered.items())]
    listed = ", ".join(filtered) or "none"
    lines = [f"traces that are not candidates: {listed}"]
    lines += [_describe_file(file) for file in summary.files]
    lines += describe_health(summary.health)
    return "\n".join(lines)


def _describe_file(file: BuiltFile) -> str:
    figures = file.figures
    line = (
        f"{file.path}: {figures['rows']} rows, weights mean {figures['mean_weight']:.4g} min "
        f"{figures['min_weight']:.4g} max {figures['max_weight']:.4g}, mean response "
        f"{figures['mean_tokens']:.1f} tokens"
    )
    size = figures.get("mean_effective_sample_size")
    if size:
        line += f", effective sample size {size:.2f}"
    counts = []
    for name, count in sorted(figures["counts"].items()):
        words = name.replace("_", " ")
        counts.append(f"{words} {count}")
    line += f"; {', '.join(counts)}"
    if not file.was_written:
        line += " (was there already)"
    return line


def _checked_outputs(config: Config) -> list[OutputConfig]:
    """The outputs made from the traces of sampling.traces_from. Raises: ValueError for settings
    that make no sense.
    """
    outputs = config.build.outputs
    faults = []
    if not outputs:
        faults.append("build.outputs is empty; name at least one train file")
    for index, output in enumerate(outputs):
        where = f"build.outputs.{index} ({output.name})"
        faults += [f"{where}.{fault}" for fault in _faults(output, config)]
    wanted = [output for output in outputs if config.is_of_these_traces(output)]
    if outputs and not wanted:
        sampler = config.sampling.traces_from
        hint = config.sampling.hint
        of_hint = "" if hint == "reference" else f" with the hint {hint}"
        faults.append(
            f"build.outputs: none is made from the {sampler}'s traces{of_hint}; set "
            f"sampling.traces_from to the other model, or an output's traces_from to {sampler} "
            f"and its traces_hint to {hint}"
        )
    if faults:
        raise ValueError("\n".join(faults))
    return wanted


def _faults(output: OutputConfig, config: Config) -> list[str]:
    """Settings of an output that make no sense together, each as `key: why`."""
    family = config.renderer.family
    faults = []
    if output.target == "posterior" and output.sampler == "posterior":
        faults.append(
            "traces_from: the posterior learns from the reasoner's traces (Eq. 9), not from its own"
        )
    if output.sampler == "reasoner" and output.ratio != "none":
        faults.append("ratio: the reasoner's own traces have no ratio to it; set ratio: none")
    if output.hint == "verified" and output.target != "posterior":
        faults.append(
            "hint: only the posterior's rows have a hint; leave it out, or set target: posterior"
        )
    if output.hint == "verified" and family.hint == "trace":
        faults.append(
            "hint: verified answers are solutions, and the posterior of the prompt family "
            f"{family.name!r} shows the verbal chain; leave it out"
        )
    is_estimated = output.fallback in ESTIMATORS
    if is_estimated and not ESTIMATORS[output.estimator].samples_answers:
        faults.append(
            f"fallback: {output.fallback} only makes sense with the estimator acc; with "
            f"{output.estimator} every trace is acceptable. Use drop or original"
        )
    if is_estimated and output.selection == "unweighted":
        faults.append(f"fallback: {output.fallback} has no use where selection is unweighted")
    if output.weight_cap is not None and output.selection != "weighted":
        faults.append(
            f"weight_cap: only the selection weighted has weights to cap; it is {output.selection}"
        )
    if output.question_factor != "none" and output.fallback != "drop":
        faults.append(
            f"fallback: {output.fallback} would give a weight to questions that question_weight "
            f"{output.question_factor} gives none; use drop"
        )
    return faults


def _check_num_traces(outputs: Sequence[OutputConfig], joined: Joined) -> None:
    """Raises: ValueError for outputs that use more traces than were sampled."""
    faults = []
    for output in outputs:
        if output.num_traces is None or output.num_traces <= joined.num_traces:
            continue
        faults.append(
            f"build.outputs {output.name!r}: num_traces is {output.num_traces}, but only "
            f"{joined.num_traces} traces per question were sampled (sampling.num_traces)"
        )
    if faults:
        raise ValueError("\n".join(faults))
