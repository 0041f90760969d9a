"""Stage 8: from traces, log-likelihoods and verdicts to the rows that the final model trains on (Eqs. 5, 6, 8;
Algorithm 1).

Each entry of build.outputs is one train file. A trace is a candidate when it finished, is well formed and its row fits
cutoff_len. Selections of a question's candidates:

    best        the one with the highest log rho, weight 1; ties go to the lower trace_id
    weighted    all, with rho~; rows of weight zero are left out and counted
    unweighted  all, with weight 1, correct or not: the control arm

With `acc` a trace is followed by one of its verified answers, drawn under the seed (for the control arm by the
reference solution where none is verified); otherwise by the reference solution. A question without an acceptable
trace is treated by `fallback` and counted. The terms of rho are kept raw in every row, so that another estimator can
be tried without running a model again. Tables are joined by id; a row that is missing, and that no stage reported as
dropped, is an error.

The surprising thing: undecided verdicts (checker_error, unverifiable) are left out of the accuracy, not counted as
wrong.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from variational_reasoning.method.prompts import (
    ChatFormat,
    Encode,
    chat_format_to_dict,
    encode_target,
    extract_solution,
    load_chat_format,
    render,
)
from variational_reasoning.method.weights import (
    effective_sample_size,
    log_answer_term,
    log_gml,
    log_ratio,
    normalized_weights,
)
from variational_reasoning.pipeline.config import Config, OutputConfig, resolved
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.prepare import current_manifest, register_datasets
from variational_reasoning.pipeline.rows import (
    RHO_TERMS,
    Identity,
    group_by,
    index_by,
    read_manifest,
    read_rows,
    table_digest,
    write_file,
    write_json,
)
from variational_reasoning.verify.verdicts import UNDECIDED, Verdict

ORIGINAL, FALLBACK = -2, -1
"""`source` of a row: the original one in a mix, the original one as fallback; otherwise the chosen trace's id."""

HEALTH = "health.json"
HEALTH_RANGES = {
    "malformed_share": (0.0, 0.05),
    "copies_share": (0.0, 0.5),
    "coverage": (0.9, 1.0),
    "mean_effective_sample_size": (0.25, 0.875),
}
"""Where a posterior is neither under- nor over-trained; the effective sample size is a share of K (2 to 7 of 8)."""

_LOGP_COLUMNS = ["question_id", "trace_id", "trace_logp", "trace_tokens", "answer_logp", "answer_tokens", "temperature"]


@dataclass
class Trace:
    """One sampled trace with what the stages before found out about it; log-likelihoods in nats.

    num_correct and num_answers count decided verdicts; both are None when answers were not asked for or none is
    decided.
    """

    question_id: str
    trace_id: int
    text: str
    mean_log_ratio: float
    sum_log_ratio: float
    trace_tokens: int
    answer_logp: float
    answer_tokens: int
    num_correct: int | None
    num_answers: int | None
    verified: list[tuple[int, str]]

    def log_rho(self, estimator: str) -> float:
        """mean_log_ratio plus the logarithm of the answer term; minus infinity where no answer is verified."""
        if estimator == "acc" and self.num_answers is None:
            return -math.inf
        return self.mean_log_ratio + log_answer_term(
            estimator, self.num_correct, self.num_answers, self.answer_logp, self.answer_tokens
        )

    def terms(self, estimator: str) -> dict[str, Any]:
        """The columns RHO_TERMS of a train row; `accuracy` and `gml` are in [0, 1], `log_rho` belongs to the estimator."""
        return {
            "mean_log_ratio": self.mean_log_ratio,
            "sum_log_ratio": self.sum_log_ratio,
            "trace_tokens": self.trace_tokens,
            "accuracy": None if self.num_answers is None else self.num_correct / self.num_answers,
            "num_answers": self.num_answers,
            "gml": math.exp(log_gml(self.answer_logp, self.answer_tokens)),
            "answer_logp": self.answer_logp,
            "log_rho": self.log_rho(estimator),
        }


class BuiltFile(NamedTuple):
    """A train file: its manifest's figures and whether it was written by this call."""

    path: Path
    figures: dict[str, Any]
    was_written: bool


class BuildSummary(NamedTuple):
    """All train files, the posterior's health, and how many traces were no candidates, by reason."""

    files: list[BuiltFile]
    health: dict[str, Any]
    filtered: dict[str, int]


def build_datasets(config: Config) -> BuildSummary:
    """Stage 8: one train file per build.outputs entry, run_dir/health.json, and the names in train/dataset_info.json.

    Raises: ValueError for settings that make no sense together, tables that do not belong together, and rows that are
    missing, with their ids.
    """
    _check_settings(config)
    chat_format = load_chat_format(config.chat_format)
    needs_verdicts = any(output.estimator == "acc" for output in config.build.outputs)
    questions, sampled, traces, filtered, inputs = _join(config, needs_verdicts)
    print(f"reads {len(sampled)} traces of {len(questions)} questions, {len(traces)} of them scored and well formed")
    by_question = group_by_question(traces)
    files = []
    encode: Encode | None = None
    token_counts: dict[int, int] = {}
    for output in config.build.outputs:
        identity = Identity(
            inputs=inputs,
            config={
                "output": asdict(output),
                "chat_format": chat_format_to_dict(chat_format),
                **resolved(config, "cutoff_len", "build.merge_identical"),
            },
            seed=config.seed,
        )
        name = f"{config.data.name}_{output.name}"
        path = config.folder("train", f"{name}.parquet")
        manifest = current_manifest(path, identity)
        was_written = manifest is None
        if manifest is None:
            if encode is None:
                encode, _ = text_codec(load_tokenizer(str(config.base or config.model_folder("reasoner"))))
            rows, figures = _build(output, questions, by_question, chat_format, encode, token_counts, config)
            manifest = write_file(path, "train", rows, identity, figures=figures)
        register_datasets(config.folder("train"), {name: "weighted_sft"})
        files.append(BuiltFile(path, manifest["figures"], was_written))
    health = posterior_health(questions, sampled, by_question, needs_verdicts)
    write_json(config.folder(HEALTH), health)
    return BuildSummary(files, health, filtered)


def posterior_health(
    questions: Mapping[str, Mapping[str, Any]],
    sampled: Sequence[Mapping[str, Any]],
    by_question: Mapping[str, Sequence[Trace]],
    has_verdicts: bool,
) -> dict[str, Any]:
    """What the sampled traces say about the posterior that drew them, and warnings where a figure is out of its range.

    Args:
        sampled: all rows of the traces table with question_id, text and is_well_formed.
        by_question: the scored traces.

    Returns: shares in [0, 1]; the effective sample size is a mean over questions that have weights, between 1 and K.
    `coverage`, the share of questions with an accepted answer among the K, is None without verdicts.
    """
    num_traces = max(Counter(row["question_id"] for row in sampled).values())
    copies = sum(row["text"].strip() == questions[row["question_id"]]["trace"].strip() for row in sampled)
    estimator = "acc" if has_verdicts else "gml"
    weights = [normalized_weights([trace.log_rho(estimator) for trace in group]) for group in by_question.values()]
    sizes = [effective_sample_size(found) for found in weights if found is not None]
    covered = sum(any(trace.num_correct for trace in group) for group in by_question.values())
    health: dict[str, Any] = {
        "num_questions": len(questions),
        "num_traces_per_question": num_traces,
        "malformed_share": sum(not row["is_well_formed"] for row in sampled) / len(sampled),
        "copies_share": copies / len(sampled),
        "coverage": covered / len(questions) if has_verdicts else None,
        "mean_effective_sample_size": sum(sizes) / len(sizes) if sizes else None,
        "num_questions_without_weights": len(questions) - len(sizes),
        "estimator": estimator,
    }
    meanings = {
        "malformed_share": "the posterior is trained too short, or its traces are cut",
        "copies_share": "the posterior is trained too long and repeats the training traces",
        "coverage": "few questions have any trace with an accepted answer",
        "mean_effective_sample_size": "one trace takes nearly all weight, or the weights tell nothing apart",
    }
    warnings = []
    for name, (low, high) in HEALTH_RANGES.items():
        scale = num_traces if name == "mean_effective_sample_size" else 1
        value = health[name]
        if scale == 1 and name == "mean_effective_sample_size":
            continue  # with one trace per question it is 1 by definition
        if value is not None and not low * scale <= value <= high * scale:
            warnings.append(f"{name} is {value:.3g}, outside {low * scale:g} to {high * scale:g}: {meanings[name]}")
    return health | {"warnings": warnings}


def group_by_question(traces: Sequence[Trace]) -> dict[str, list[Trace]]:
    """Traces by question_id, each list in the order of trace_id."""
    groups: dict[str, list[Trace]] = defaultdict(list)
    for trace in sorted(traces, key=lambda trace: (trace.question_id, trace.trace_id)):
        groups[trace.question_id].append(trace)
    return dict(groups)


def best_of(traces: Sequence[Trace], estimator: str) -> Trace | None:
    """The trace of the highest log rho, the lower trace_id among equals; None when every rho is zero."""
    possible = [trace for trace in traces if trace.log_rho(estimator) > -math.inf]
    return min(possible, key=lambda trace: (-trace.log_rho(estimator), trace.trace_id), default=None)


def draw_verified(trace: Trace, seed: int) -> tuple[int, str] | None:
    """(answer_id, solution) of one verified answer, uniformly under a hash of seed and ids; None when there is none."""
    if not trace.verified:
        return None
    text = json.dumps(["verified answer", seed, trace.question_id, trace.trace_id])
    draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return sorted(trace.verified)[draw % len(trace.verified)]


def describe(summary: BuildSummary) -> str:
    """The lines that the command prints at its end."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.filtered.items()))
    lines = [f"traces that are no candidates: {reasons or 'none'}"]
    for file in summary.files:
        figures = file.figures
        counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(figures["counts"].items()))
        lines.append(
            f"{file.path}: {figures['rows']} rows, weights mean {figures['mean_weight']:.4g} min "
            f"{figures['min_weight']:.4g} max {figures['max_weight']:.4g}, mean response {figures['mean_tokens']:.1f} "
            f"tokens; {counts}" + ("" if file.was_written else " (was there already)")
        )
    health = summary.health
    lines.append(
        f"posterior: malformed {health['malformed_share']:.1%}, copies {health['copies_share']:.1%}, coverage "
        + ("not measured" if health["coverage"] is None else f"{health['coverage']:.1%}")
        + ", effective sample size "
        + (f"{health['mean_effective_sample_size']:.2f}" if health["mean_effective_sample_size"] else "none")
        + f" of {health['num_traces_per_question']}"
    )
    return "\n".join(lines + [f"warning: {warning}" for warning in health["warnings"]])


def _check_settings(config: Config) -> None:
    faults = []
    if not config.build.outputs:
        faults.append("build.outputs is empty; name at least one train file")
    for index, output in enumerate(config.build.outputs):
        if output.fallback == "gml" and output.estimator != "acc":
            faults.append(
                f"build.outputs.{index}.fallback: gml only makes sense with the estimator acc; with {output.estimator} "
                "every trace is acceptable. Use drop or original"
            )
        if output.selection == "unweighted" and output.fallback == "gml":
            faults.append(f"build.outputs.{index}.fallback: gml has no use where selection is unweighted")
        if output.fallback == "original" and output.mix == "original" and output.selection == "weighted":
            print(f"build.outputs.{index}: questions without a trace will hold the original row twice")
    if faults:
        raise ValueError("\n".join(faults))


def _join(
    config: Config, needs_verdicts: bool
) -> tuple[dict[str, Any], list[dict[str, Any]], list[Trace], dict[str, int], dict[str, str]]:
    """Read and join all tables: questions by id, all traces, the scored ones, counts of the others, input digests."""
    places = {
        "questions": ("questions", config.folder("questions")),
        "traces": ("traces", config.folder("traces")),
        "reasoner": ("trace_logps", config.folder("trace_logps", "reasoner")),
        "posterior": ("trace_logps", config.folder("trace_logps", "posterior")),
    }
    if needs_verdicts:
        places |= {name: (name, config.folder(name)) for name in ("answers", "verdicts")}
    manifests, faults = {}, []
    for name, (table, folder) in places.items():
        try:
            manifests[name] = read_manifest(folder, table)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    inputs = {name: table_digest(folder, table) for name, (table, folder) in places.items()}
    for name, manifest in manifests.items():
        for source, digest in manifest["inputs"].items():
            if name != "questions" and source in inputs and digest != inputs[source]:
                faults.append(
                    f"{places[name][1]} was made from another {places[source][1]} than the one that is there now; remove "
                    f"{places[name][1]} and run its stage again"
                )
    if faults:
        raise ValueError("\n".join(faults))
    question_rows = read_rows(places["questions"][1], "questions")
    questions = {row["question_id"]: row for row in question_rows if row["split"] == "train"}
    sampled = read_rows(places["traces"][1], "traces", ["question_id", "trace_id", "text", "finish_reason", "is_well_formed"])
    logps = {
        name: index_by(read_rows(places[name][1], "trace_logps", _LOGP_COLUMNS), "question_id", "trace_id")
        for name in ("reasoner", "posterior")
    }
    dropped, failed = (
        {
            name: {(row["question_id"], row.get("trace_id")) for row in manifest.get(what, ())}
            for name, manifest in manifests.items()
        }
        for what in ("dropped", "failed")
    )
    score_only_verified = _check_partial_scores(config, {name: manifests[name] for name in logps})
    answers = _answers_by_trace(places) if needs_verdicts else {}
    traces, filtered, missing = [], Counter(), defaultdict(list)
    for row in sampled:
        key = (row["question_id"], row["trace_id"])
        if not row["is_well_formed"]:
            filtered["malformed"] += 1
            continue
        if row["finish_reason"] != "stop":
            filtered[f"finish_reason {row['finish_reason']}"] += 1
            continue
        absent = [name for name in logps if key not in logps[name]]
        is_verified = any(answer["verdict"] is Verdict.CORRECT for answer in answers.get(key, ()))
        if absent and score_only_verified and key in answers and not is_verified:
            filtered["not scored, no verified answer"] += 1
            continue
        absent += ["answers"] if needs_verdicts and key not in answers else []
        unexplained = [name for name in absent if key not in dropped[name] and key not in failed[name]]
        for name in unexplained:
            missing[name].append(key)
        if absent:
            reason = "failed" if any(key in failed[name] for name in absent) else f"beyond cutoff_len {config.cutoff_len}"
            filtered[reason] += not unexplained
            continue
        traces.append(_trace(row, logps["reasoner"][key], logps["posterior"][key], answers.get(key)))
    faults = [
        f"{places[name][1]} lacks {len(keys)} traces that it should have, such as {keys[:3]}; remove it and run its stage again"
        for name, keys in missing.items()
    ]
    if faults:
        raise ValueError("\n".join(faults))
    return questions, sampled, traces, dict(filtered), inputs


def _check_partial_scores(config: Config, manifests: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether only traces with a verified answer were scored. Raises: ValueError when an output needs the others, too."""
    partly = [
        manifest["config"] for manifest in manifests.values() if manifest["config"].get("scoring.score_only") == "verified"
    ]
    if not partly:
        return False
    wanting = [
        output.name
        for output in config.build.outputs
        if output.estimator != "acc"
        or output.selection == "unweighted"
        or (output.fallback == "gml" and not all(part["kept_for_fallback"] for part in partly))
    ]
    if wanting:
        raise ValueError(
            f"build.outputs {', '.join(wanting)} need the log-likelihoods of all traces, but they were scored with "
            "scoring.score_only: verified; remove trace_logps and score with all, or leave these outputs out"
        )
    return True


def _answers_by_trace(places: Mapping[str, tuple[str, Path]]) -> dict[tuple, list[dict[str, Any]]]:
    """Answers with their verdicts by (question_id, trace_id). Raises: ValueError for an answer without a verdict."""
    ids = ("question_id", "trace_id", "answer_id")
    verdicts = index_by(read_rows(places["verdicts"][1], "verdicts", [*ids, "verdict"]), *ids)
    answers = read_rows(places["answers"][1], "answers", [*ids, "text"])
    missing = [key for key in (tuple(row[name] for name in ids) for row in answers) if key not in verdicts]
    if missing:
        raise ValueError(
            f"{places['verdicts'][1]} lacks {len(missing)} answers, such as {missing[:3]}; remove it and run stage 7 again"
        )
    joined = [row | {"verdict": Verdict(verdicts[tuple(row[n] for n in ids)]["verdict"])} for row in answers]
    return group_by(joined, "question_id", "trace_id")


def _trace(
    row: Mapping[str, Any],
    reasoner: Mapping[str, Any],
    posterior: Mapping[str, Any],
    answers: Sequence[Mapping[str, Any]] | None,
) -> Trace:
    where = f"question {row['question_id']}, trace {row['trace_id']}"
    for name in ("trace_tokens", "temperature"):
        if reasoner[name] != posterior[name]:
            raise ValueError(
                f"{where}: {name} is {reasoner[name]} for the reasoner and {posterior[name]} for the posterior; the ratio "
                "needs the same ids at the same temperature. Run stages 4 and 5 again"
            )
    try:
        mean, total = log_ratio(reasoner["trace_logp"], posterior["trace_logp"], reasoner["trace_tokens"])
        log_gml(reasoner["answer_logp"], reasoner["answer_tokens"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    decided = [answer for answer in answers or () if answer["verdict"] not in UNDECIDED]
    correct = [answer for answer in decided if answer["verdict"] is Verdict.CORRECT]
    return Trace(
        question_id=row["question_id"],
        trace_id=row["trace_id"],
        text=row["text"],
        mean_log_ratio=mean,
        sum_log_ratio=total,
        trace_tokens=reasoner["trace_tokens"],
        answer_logp=reasoner["answer_logp"],
        answer_tokens=reasoner["answer_tokens"],
        num_correct=len(correct) if decided else None,
        num_answers=len(decided) or None,
        verified=[(answer["answer_id"], extract_solution(answer["text"])) for answer in correct],
    )


class _Rendered(NamedTuple):
    """A row's texts, the answer it ends with (None: the reference solution), and its length in tokens."""

    prompt: str
    response: str
    answer_id: int | None
    response_tokens: int
    fits: bool


def _build(
    output: OutputConfig,
    questions: Mapping[str, Mapping[str, Any]],
    by_question: Mapping[str, Sequence[Trace]],
    chat_format: ChatFormat,
    encode: Encode,
    token_counts: dict[int, int],
    config: Config,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of one train file and its figures. `token_counts` remembers lengths by the text's hash, for the next
    file."""
    rows: list[dict[str, Any]] = []
    lengths: list[int] = []
    counts: Counter = Counter()

    def count(text: str, to_ids: Callable[[str], Sequence[int]]) -> int:
        key = hash(text)
        if key not in token_counts:
            token_counts[key] = len(to_ids(text))
        return token_counts[key]

    def rendered(question: Mapping[str, Any], trace: str, solution: str, answer_id: int | None = None) -> _Rendered:
        prompt, response = render("reasoner", chat_format, question["question"], trace, solution)
        num_tokens = count(response, lambda text: encode_target(chat_format, text, encode))
        fits = count(prompt, encode) + num_tokens <= config.cutoff_len
        return _Rendered(prompt, response, answer_id, num_tokens, fits)

    def add(text: _Rendered, question_id: str, weight: float, source: int, terms: Mapping[str, Any] | None) -> None:
        row = dict.fromkeys(RHO_TERMS) | dict(terms or {})
        row |= {"question_id": question_id, "source": source, "weight": weight, "answer_id": text.answer_id}
        row |= {"trace_id": source if source >= 0 else None, "prompt": text.prompt, "response": text.response}
        rows.append(row)
        lengths.append(text.response_tokens)

    for question_id, question in tqdm(questions.items(), unit="question", desc=output.name):
        candidates: list[Trace] = []
        texts: dict[int, _Rendered] = {}
        for trace in by_question.get(question_id, ()):
            drawn = draw_verified(trace, config.seed) if output.estimator == "acc" else None
            answer_id, solution = drawn or (None, question["solution"])
            text = rendered(question, trace.text, solution, answer_id)
            if text.fits:
                candidates.append(trace)
                texts[trace.trace_id] = text
            else:
                counts["dropped_overlong"] += 1
        chosen = _select(output.selection, output.estimator, candidates, counts)
        if output.selection == "unweighted" and output.estimator == "acc":
            counts["with_reference_solution"] += sum(texts[t.trace_id].answer_id is None for t, _ in chosen)
        if not chosen:
            counts["questions_without_acceptable_trace"] += 1
            fallback = best_of(candidates, "gml") if output.fallback == "gml" else None
            if fallback is not None:
                counts["fallback_gml"] += 1
                text = rendered(question, fallback.text, question["solution"])
                if text.fits:
                    add(text, question_id, 1.0, fallback.trace_id, fallback.terms("gml"))
            elif output.fallback == "original":
                counts["fallback_original"] += 1
                add(rendered(question, question["trace"], question["solution"]), question_id, 1.0, FALLBACK, None)
            else:
                counts["questions_dropped"] += 1
        first = len(rows)
        for trace, weight in chosen:
            add(texts[trace.trace_id], question_id, weight, trace.trace_id, trace.terms(output.estimator))
        counts["traces_chosen"] += len(chosen)
        if config.build.merge_identical:
            counts["merged"] += _merge_identical(rows, lengths, first)
        if output.mix == "original":
            counts["original"] += 1
            add(rendered(question, question["trace"], question["solution"]), question_id, 1.0, ORIGINAL, None)
    if not rows:
        raise ValueError(
            f"build.outputs {output.name!r}: no row remains ({dict(counts)}); look at run_dir/verdicts and the posterior"
        )
    weights = [row["weight"] for row in rows]
    figures = {
        "rows": len(rows),
        "mean_weight": math.fsum(weights) / len(weights),
        "min_weight": min(weights),
        "max_weight": max(weights),
        "mean_tokens": sum(lengths) / len(lengths),
        "counts": {name: count for name, count in counts.items() if count},
    }
    return rows, figures


def _select(selection: str, estimator: str, candidates: Sequence[Trace], counts: Counter) -> list[tuple[Trace, float]]:
    """(trace, weight) of the chosen candidates; none when no candidate is acceptable."""
    if not candidates:
        return []
    if selection == "unweighted":
        return [(trace, 1.0) for trace in candidates]
    if selection == "best":
        best = best_of(candidates, estimator)
        return [] if best is None else [(best, 1.0)]
    weights = normalized_weights([trace.log_rho(estimator) for trace in candidates])
    if weights is None:
        return []
    counts["dropped_weight_zero"] += weights.count(0.0)
    return [(trace, weight) for trace, weight in zip(candidates, weights, strict=True) if weight > 0]


def _merge_identical(rows: list[dict[str, Any]], lengths: list[int], first: int) -> int:
    """Merge rows from `first` on that have the same response, into the earliest of them; returns how many went."""
    kept: dict[str, int] = {}
    remaining, remaining_lengths = rows[:first], lengths[:first]
    for row, length in zip(rows[first:], lengths[first:], strict=True):
        place = kept.get(row["response"])
        if place is not None:
            remaining[place]["weight"] += row["weight"]
        else:
            kept[row["response"]] = len(remaining)
            remaining.append(row)
            remaining_lengths.append(length)
    num_merged = len(rows) - len(remaining)
    rows[:], lengths[:] = remaining, remaining_lengths
    return num_merged
