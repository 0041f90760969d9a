"""What a pipeline.yaml may say: every key, its type, its default and its limits (all stages between
the trainings).

The loader is ours. pydantic gives an unknown key no did-you-mean, names types in its own words, and
reads "8" as 8 and true as 1 unless each field says otherwise; importing it takes as long as all
that this module imports.

Loading is strict. An unknown key, a wrong type or a value out of bounds is a fault with the key's
dotted name; all faults of a file and of its command-line overrides are raised together, before any
model is touched. Paths are relative to the working directory, as LLaMA-Factory's are."""

import copy
import difflib
import os
import re
import shlex
import types
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import yaml

from variational_reasoning.chat_template import chat_template_of
from variational_reasoning.files import is_plain_name
from variational_reasoning.method.estimators import ESTIMATORS
from variational_reasoning.method.families import REASONER
from variational_reasoning.method.prompts import Renderer, make_renderer
from variational_reasoning.method.steps import LINES, check_pattern
from variational_reasoning.verify.implied import implied_answer_fault
from variational_reasoning.verify.traces import trace_check_fault

FROM_REASONER = "from_reasoner"
RESERVED_NAMES = {
    "reasoner": "stage 0 writes a train file of this name, and stage 1 a model",
    "posterior": "stage 0 writes a train file of this name, and stage 2 a model",
    "chosen": "stage 0 writes a train file of this name",
    "extended": "models/extended is the model with untrained symbols",
    "base": "it is the name of the base's evaluation",
}
"""What neither a train file of stage 8 nor an arm can be called: a name has one train file, one
model and one evaluation in a run."""

RUN_FOLDERS = frozenset(
    (
        *("adapters", "answers", "evals", "first_traces", FROM_REASONER, "logs", "models"),
        *("questions", "report_figures", "source", "step_clusters", "steps", "trace_logps"),
        *("traces", "train", "verdicts"),
    )
)
"""Folders of a run, which no loop can be called."""
_MADE_FROM_TRACES = ("traces", "trace_logps", "answers", "verdicts", "health.json")


if TYPE_CHECKING:
    EstimatorName: TypeAlias = str
    FallbackName: TypeAlias = str
else:
    EstimatorName = Literal[tuple(ESTIMATORS)]
    _FALLBACKS = [name for name, estimator in ESTIMATORS.items() if estimator.is_fallback]
    FallbackName = Literal[("drop", "original", *_FALLBACKS)]


def _number(
    default: float | None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field for a number with bounds, which `_check_bounds` reads."""
    bounds = {"at_least": at_least, "above": above, "at_most": at_most}
    return field(default=default, metadata=bounds)


@dataclass(frozen=True)
class ProgramTestsConfig:
    """Stage 0: test cases of programs, for the rows whose source is `<source>/<n>`: record n of a
    file, from 0.
    """

    source: str = ""  # such as apps
    file: str = ""  # as data.train
    split: str = "train"  # of a hub data set
    # as in APPS and TACO: {"inputs", "outputs", "fn_name"}, or its JSON text
    column: str = "input_output"


@dataclass(frozen=True)
class BenchmarkConfig:
    """Stage 0: the questions of one benchmark, for decontamination."""

    # what reports call it
    name: str = ""
    file: str = ""  # as data.train
    split: str = "test"  # of a hub data set
    # of the questions
    column: str = "question"


@dataclass(frozen=True)
class DecontaminateConfig:
    """Stage 0: train questions that share a run of words with a benchmark's question."""

    # what must not be in the train questions
    benchmarks: list[BenchmarkConfig] = field(default_factory=list)
    # Length of the run. 13: arXiv 2005.14165, App. C, which keeps chance matches rare; 8: arXiv
    # 2501.19393, which wants none.
    ngram_words: int = _number(13, at_least=1)
    # either way run_dir/questions/decontamination.json lists them
    mode: Literal["report", "drop"] = "report"


@dataclass(frozen=True)
class GymConfig:
    """Stage 0: the questions of reasoning_gym:NAME, in data.train, data.test or eval.file."""

    # questions for training; those for the test come after them, so the two share none
    train_size: int = _number(1000, at_least=1)
    # questions for the test
    test_size: int = _number(200, at_least=1)
    # another seed: other questions
    seed: int = _number(0, at_least=0)
    # A task's name to its settings in the library, such as {chain_sum: {min_terms: 3}}.
    tasks: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """Stage 0: where questions, expert traces and solutions come from."""

    name: str = "tiny"  # prefix of the train files: <name>_reasoner, <name>_posterior, ...
    # A .jsonl, .json or .parquet file, a folder that holds a copy of a hub data set, the name of
    # one on the hub, or reasoning_gym:NAME.
    train: str = ""
    test: str | None = None  # the same for the test questions
    # Whether train rows without a trace, or with an answer in place of the solution, are used
    # (docs/own_questions.md). null: required where `posterior` is trained, else optional.
    traces: Literal["required", "optional"] | None = None
    # The split of a hub data set; of rows with a column `split`, those that name it (or nothing)
    # are taken.
    train_split: str = "train"
    # as train_split, of data.test
    test_split: str = "test"
    allow_hub: bool = False  # nothing is downloaded unless this is true
    # Of a hub data set or a folder: train rows to read from its shuffled stream; null: all rows,
    # without a stream.
    stream_rows: int | None = _number(None, at_least=1)
    # rows among which the stream is shuffled; a small buffer sees one source of a mixture only
    stream_buffer: int = _number(20_000, at_least=1)
    stream_seed: int = _number(42, at_least=0)
    # conversations: rows as in Bespoke-Stratos; text: one column `text`, a whole example in the
    # configured chat format; prompt_response: the same as two columns, as in the published data
    # sets. Of the reasoner or of either posterior. think_messages: a column `messages`, one
    # question and one answer that begins with a <think> block.
    format: Literal["columns", "conversations", "text", "prompt_response", "think_messages"] = (
        "columns"
    )
    # Of think_messages: characters of a <think> block, and of the answer after it; rows with fewer
    # are dropped, being templates without a thought.
    min_chain: int = _number(200, at_least=1)
    # of the answer
    min_answer: int = _number(5, at_least=1)
    # our column name: theirs, where they differ
    columns: dict[str, str] = field(default_factory=dict)
    # question_id of train rows without one; content: a hash of the row; row: the row's number, from
    # 0.
    ids: Literal["content", "row"] = "content"
    # A data set with a column `source`, joined to data.train row by row; other columns that both
    # have must agree.
    sources: str | None = None
    # Checker of rows without a `check` of their own; none: nothing there can be verified.
    check_kind: Literal["math", "exact", "none"] = "math"
    # the same for one source, such as {ruc: none} for ruc/12
    check_kinds: dict[str, str] = field(default_factory=dict)
    # sources whose rows are checked by running programs
    tests: list[ProgramTestsConfig] = field(default_factory=list)
    # the first so many; null: all
    max_train_questions: int | None = _number(None, at_least=1)
    # the first so many; null: all
    max_test_questions: int | None = _number(None, at_least=1)
    # A text file with one question_id per line: only these train questions go through stages 3 to
    # 8.
    question_ids: str | None = None
    # true: stages 1 and 2 train on the other questions only (the paper's no-overlap split); false:
    # on all of them.
    hold_out: bool = False
    decontaminate: DecontaminateConfig = field(default_factory=DecontaminateConfig)
    gym: GymConfig = field(default_factory=GymConfig)


@dataclass(frozen=True)
class ModelsConfig:
    """Model folders; each is run_dir/models/<name> unless it is named here."""

    # a trained model; null: run_dir/models/reasoner
    reasoner: str | None = None
    # a trained model; null: run_dir/models/posterior
    posterior: str | None = None
    # A model that this plugin did not train carries no record of its prompt; true says that the
    # YAML's prompt is right.
    allow_unrecorded: bool = False


@dataclass(frozen=True)
class CollapseConfig:
    """Stage 3: when abstract traces have become too alike to say anything. The published checkpoint
    has one trace for all questions.
    """

    # stop: end the stage with an error, its table kept; report: say it and go on
    mode: Literal["stop", "report"] = "stop"
    # different traces among the first ones of all questions, as a share of these
    distinct_at_least: float = _number(0.1, at_least=0, at_most=1)
    # different traces of one question as a share of its traces, the mean
    per_question_at_least: float = _number(0.0, at_least=0, at_most=1)
    # bits per symbol
    entropy_at_least: float = _number(0.5, at_least=0)
    # null: no limit
    entropy_at_most: float | None = _number(None, at_least=0)
    # Symbols of a trace: of nine traces in ten (10th percentile) at least, and of nine in ten (90th
    # percentile) at most. null: no limit.
    length_at_least: int | None = _number(None, at_least=0)
    # null: no limit
    length_at_most: int | None = _number(None, at_least=0)
    # how many different symbols occur; null: no limit
    symbols_at_least: int | None = _number(None, at_least=1)


@dataclass(frozen=True)
class SamplingConfig:
    """Stages 3 and 6: traces and answers."""

    # auto: vllm on a GPU where it is installed, else transformers
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    # Whose traces the tables of stages 3 to 8 hold; those of the reasoner's traces are in
    # run_dir/from_reasoner.
    traces_from: Literal["posterior", "reasoner"] = "posterior"
    # What the posterior's prompt shows: the question's solution, its final answer only, another
    # question's solution, or nothing; with abstract traces the verbal chain in place of a solution.
    # The tables of the last three are in run_dir/hint_<name>.
    hint: Literal["reference", "answer", "other_question", "none"] = "reference"
    num_traces: int = _number(8, at_least=1)  # K, per question
    num_answers: int = _number(8, at_least=1)  # M, per trace
    temperature: float = _number(0.7, at_least=0)  # 0 takes the most likely token
    # 1: all tokens; below, the ratio in rho is not that of the samples
    top_p: float = _number(1.0, above=0, at_most=1)
    max_trace_tokens: int | None = _number(None, at_least=1)  # null: up to cutoff_len
    # Abstract traces: symbols that a trace has at least, and at most. At most, the end is forced.
    min_symbols: int = _number(1, at_least=0)
    # of an abstract trace
    max_symbols: int = _number(128, at_least=1)
    collapse: CollapseConfig = field(default_factory=CollapseConfig)
    # null: what cutoff_len leaves
    max_answer_tokens: int | None = _number(None, at_least=1)
    # transformers: rows x (prompt + new tokens) in the KV cache at once; at most as many again for
    # what prompts share
    batch_tokens: int = _number(32768, at_least=1)
    # of the weights
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    # auto: a GPU where there is one
    device: str = "auto"
    gpu_memory_utilization: float = _number(0.9, above=0, at_most=1)  # vllm
    tensor_parallel_size: int = _number(1, at_least=1)  # vllm
    # vllm: no compilation and no CUDA graphs; starts faster, runs slower
    enforce_eager: bool = False
    # vllm: its core died; finding one row of 1,024 takes about 11
    max_engine_restarts: int = _number(20, at_least=0)
    questions_per_shard: int = _number(64, at_least=1)  # what a kill loses at most
    # more rows that an engine fails on end the stage
    max_failed_fraction: float = _number(0.01, at_least=0, at_most=1)


@dataclass(frozen=True)
class ScoringConfig:
    """Stages 4 and 5: log-likelihoods."""

    # verified: only traces with a verified answer (stages 6 and 7 come first then); enough for the
    # estimator acc
    score_only: Literal["all", "verified"] = "all"
    temperature: float = _number(1.0, above=0)  # divides the logits; the paper compares at 1
    # Of abstract traces: log-likelihoods of the symbols under the distribution that they were
    # sampled from, renormalized over what the constraint admits (abstract), or over all ids (full).
    support: Literal["abstract", "full"] = "abstract"
    # the same sums also at sampling.temperature, in columns of their own
    at_sampling_temperature: bool = False
    token_logps: bool = False  # the terms of the sums, token by token
    # Also how likely the solution is after the first so many tokens of a trace, and after none: for
    # the report on hints. null: neither.
    early_tokens: int | None = _number(None, at_least=1)
    batch_tokens: int = _number(16384, at_least=1)  # padded tokens per forward pass
    # Positions whose logits exist at once: x vocabulary x 6 bytes on a GPU in bfloat16, 0.43 GiB
    # for 151,936 ids.
    chunk_positions: int = _number(512, at_least=1)
    # of the weights
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    device: str = "auto"  # split: one model over all visible GPUs
    # auto: FlashAttention where it is installed
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = "auto"
    # fuse what is between a layer's matrix products: a minute at the start, faster on a GPU
    compile: bool = False
    # what a kill loses at most
    questions_per_shard: int = _number(64, at_least=1)
    # more rows that the model fails on end the stage
    max_failed_fraction: float = _number(0.01, at_least=0, at_most=1)


@dataclass(frozen=True)
class VerifyConfig:
    """Stage 7: verdicts."""

    # processes
    workers: int = _number(2, at_least=1)
    timeout_seconds: float = _number(2.0, above=0)  # wall time of one check of math
    memory_mib: int = _number(2048, at_least=256)  # address space of one worker
    # Programs: limits of one test (the wall limit is twice the processor time and a second) and of
    # all tests together.
    program_cpu_seconds: float = _number(4.0, above=0)
    # of all tests of a program together
    program_total_seconds: float = _number(60.0, above=0)
    # of a program
    program_memory_mib: int = _number(1024, at_least=64)
    # of a program
    program_output_mib: float = _number(8.0, above=0)
    program_python: str | None = None  # the interpreter that runs programs; null: this one
    # true runs programs that a model wrote even where this machine offers less than tier T2 of
    # isolation.
    allow_unsandboxed_code: bool = False
    # more checker faults than this end the stage
    max_fault_fraction: float = _number(0.01, at_least=0, at_most=1)
    bad_golds: Literal["refuse", "exclude"] = "refuse"  # golds that their own check rejects
    # A check of the traces whose answer is right: no_mention_of_hint, or a command that reads and
    # writes JSON lines (docs/own_questions.md). An answer after a trace that fails is not accepted.
    trace_check: str | None = None
    # of a trace check's command, for the traces of one shard
    trace_check_seconds: float = _number(600.0, above=0)
    # questions that no checker here can decide
    unverifiable: Literal["refuse", "accept"] = "refuse"
    # what a kill loses at most
    questions_per_shard: int = _number(256, at_least=1)


@dataclass(frozen=True)
class QuestionPowerConfig:
    """Stage 8: a question's weight as a power of P, the share of its answers that are verified."""

    # 1: accuracy (Eq. 10); 0: none, which is maximum likelihood; below 0 favors hard questions
    power: float = _number(1.0, at_least=-10, at_most=10)


@dataclass(frozen=True)
class OutputConfig:
    """Stage 8: one train file, `<data.name>_<name>.parquet`."""

    # of the train file: <data.name>_<name>
    name: str = ""
    # the model that trains on it; posterior: Eq. 9
    target: Literal["reasoner", "posterior"] = "reasoner"
    # Whose traces. null: the posterior's for the reasoner, the reasoner's for the posterior.
    traces_from: Literal["posterior", "reasoner"] | None = None
    # the sampling.hint of these traces
    traces_hint: Literal["reference", "answer", "other_question", "none"] = "reference"
    # K' <= K: the traces 0 .. K' - 1; null: all K
    num_traces: int | None = _number(None, at_least=1)
    estimator: EstimatorName = "acc"  # of pi(Y_x | x, z)
    # Likelihood ratio: geometric mean per trace token, the full ratio, or none (rho is the answer
    # term alone).
    ratio: Literal["mean", "sum", "none"] = "mean"
    # One by rho, all K by weight, all K alike; control arms: one at random, the longest.
    selection: Literal["best", "weighted", "unweighted", "random", "longest"] = "best"
    # only traces with a verified answer; acc implies it, except for unweighted
    verified_only: bool = False
    # of normalized weights, which then sum to less than 1
    weight_cap: float | None = _number(None, above=0, at_most=1)
    # Times P (accuracy, Eq. 10), sqrt(P / (1 - P)) (grpo, Eq. 12), or {power: a}: P to the power
    # a; P: the share of verified answers of the question.
    question_weight: Literal["none", "accuracy", "grpo"] | QuestionPowerConfig = "none"
    # target posterior: the solution, or a verified answer of the question, drawn at random (the
    # solution where there is none)
    hint: Literal["reference", "verified"] = "reference"
    # original rows per question that has a row: 1 is 1:1, 0.5 every second, at random
    mix: float = _number(0.0, at_least=0)
    fallback: FallbackName = "drop"  # for a question none of whose traces is acceptable
    # Whether the mix adds the original row of a question whose only row is its original as
    # fallback. true: two rows, as in the paper's files, so that an epoch has as many steps whatever
    # falls back; false: one.
    mix_fallback: bool = False

    @property
    def sampler(self) -> str:
        """The model whose traces this file is made from: posterior or reasoner."""
        return self.traces_from or ("reasoner" if self.target == "posterior" else "posterior")

    @property
    def question_factor(self) -> str | float:
        """The weight of a question as `method.weights.question_weight` takes it."""
        if isinstance(self.question_weight, QuestionPowerConfig):
            return self.question_weight.power or "none"
        return self.question_weight


@dataclass(frozen=True)
class QuestionAccuracyConfig:
    """Stage 8: the questions that are used, by the share P of their sampled answers that are
    verified. Where an answer is never or always right, there is nothing to learn from.
    """

    # null: all. 0.01 leaves out questions that are never answered right
    at_least: float | None = _number(None, at_least=0, at_most=1)
    # null: all. 0.99 leaves out questions that are always answered right
    at_most: float | None = _number(None, at_least=0, at_most=1)

    @property
    def is_set(self) -> bool:
        """Whether it leaves out anything."""
        return self.at_least is not None or self.at_most is not None


@dataclass(frozen=True)
class BuildConfig:
    """Stage 8: train files. Those made from the other model's traces than sampling.traces_from are
    left out.
    """

    # one train file each
    outputs: list[OutputConfig] = field(default_factory=list)
    # true writes a file although no trace was chosen for any of its rows, so that it holds original
    # rows only
    allow_no_traces: bool = False
    question_accuracy: QuestionAccuracyConfig = field(default_factory=QuestionAccuracyConfig)


@dataclass(frozen=True)
class StepsConfig:
    """Steps of the verbal chain, from which first traces of symbols are made (docs/abstract.md)."""

    # A regular expression whose matches are the steps; its group `value`, where it has one, is what
    # the step found out. The default: a line that is not blank, with its line breaks.
    pattern: str = LINES
    # of symbols; as many as extend_vocabulary added
    clusters: int = _number(64, at_least=2)
    # The hidden states after this many layers are averaged over a step; null: three quarters of the
    # model's.
    layer: int | None = _number(None, at_least=1)
    # The states of a step that are averaged. all_but_last leaves out that of the last token, where
    # a step has more than one: it encodes what comes next, and the symbol would name that, too.
    states: Literal["all", "all_but_last"] = "all_but_last"
    # prompt family in which the model that gives the states reads question and chain
    family: str = "paper"
    # steps that the clusters are fitted on, at random; all steps get one
    max_fitted: int = _number(200_000, at_least=2)


@dataclass(frozen=True)
class VocabularyConfig:
    """scripts/run.py: how the base of `arms` gets its symbols, as many as steps.clusters
    (scripts/extend_vocabulary.py).
    """

    # A symbol's first rows. steps: the mean of the tokens of its cluster of steps; mean_noise: the
    # mean of all rows, with noise; zeros.
    init: Literal["steps", "mean_noise", "zeros"] = "steps"
    # standard deviation of the noise, in the units of the embedding
    noise: float = _number(1e-3, above=0)
    # give the head a table of its own, where the base ties it to the embedding: for adapters
    untie: bool = False


@dataclass(frozen=True)
class ArmConfig:
    """A train file `<data.name>_<name>` whose traces are given: first traces of symbols, traces
    that stage 3 has sampled, and what they are compared with (docs/abstract.md).
    """

    # of the train file
    name: str = ""
    # clusters: a symbol per step of the chain. random: random symbols. policy: sampled by the
    # reasoner, which sees the question alone. posterior: sampled by the posterior, which sees the
    # chain too. chain: the verbal chain. values: what its steps found out, and nothing else. empty:
    # a trace of no token.
    trace: Literal["clusters", "random", "policy", "posterior", "chain", "values", "empty"] = (
        "clusters"
    )
    # Of random: the fewest and the most symbols of a trace, such as [8, 64]. null: the paper's
    # rule, by the lengths of the chain's steps.
    count: list[int] | None = None
    # posterior: the prompt shows the chain, and only the trace is learned. bottleneck: trace and
    # answer are learned, and the answer does not see the chain (phase A).
    target: Literal["reasoner", "posterior", "bottleneck"] = "reasoner"
    # prompt family of the rows, and of the model's evaluation; null: prompt_family
    family: str | None = None
    # Settings of the model's evaluation alone, each key=value. eval.trace_temperature=1000 draws
    # every symbol alike.
    evaluation: list[str] = field(default_factory=list)

    @property
    def is_sampled(self) -> bool:
        """Whether stage 3 has to sample its traces first."""
        return self.trace in ("policy", "posterior")

    @property
    def sampler(self) -> str:
        """The model whose traces stage 3 samples for it: posterior or reasoner."""
        return "reasoner" if self.trace == "policy" else "posterior"


@dataclass(frozen=True)
class PhaseConfig:
    """A part of a round: traces are sampled by the models of this moment, and models train on them.

    The first of them is the reasoner of what follows.
    """

    # names of build.outputs, or of arms whose traces are sampled
    train: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LoopConfig:
    """scripts/run.py: rounds of sampling and training that begin with models of arms, in
    run_dir/<name>/round<t> (docs/abstract.md).
    """

    # of its folder
    name: str = ""
    # the arm whose model is the first reasoner; null: the model with untrained symbols
    reasoner: str | None = None
    # The arm whose model samples with the chain in view; null: settings say posterior=prompted, and
    # the reasoner does.
    posterior: str | None = None
    # an arm of given traces that is trained in place of the first phase of round 1
    first: str | None = None
    # T; run.py's rounds=T is for all loops
    rounds: int = _number(1, at_least=1)
    # of a round, one after another
    phases: list[PhaseConfig] = field(default_factory=list)
    # prompt family of its stages; null: prompt_family
    family: str | None = None
    # of its stages, each key=value
    settings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EvalTask:
    """A benchmark of a suite."""

    task: str = ""  # a name that docs/evaluation.md lists
    num_samples: int | None = _number(None, at_least=1)  # null: eval.num_samples
    # of the task vr_file: a .jsonl with a question and its gold on every line
    file: str | None = None


@dataclass(frozen=True)
class ControlsConfig:
    """scripts/trace_controls.py: the same questions after other traces (docs/abstract.md)."""

    # samples of a question whose traces are exchanged; null: all
    num_samples: int | None = _number(None, at_least=1)
    # What gives the upper bound. chain: the question's verbal chain itself. clusters: the clusters
    # of its steps. posterior: a trace of models.posterior, which sees it. none: no such trace.
    # auto: chain for verbal traces, else posterior or clusters where the run has them.
    chain: Literal["auto", "chain", "clusters", "posterior", "none"] = "auto"
    # A command that reads and writes JSON lines: which answer does a trace imply? {run_dir} in it
    # is the folder of the run (docs/abstract.md).
    implied_answer: str | None = None
    # of that command, for the traces of one shard
    implied_answer_seconds: float = _number(600.0, above=0)


@dataclass(frozen=True)
class EvalConfig:
    """The evaluation of one model: a suite of benchmarks, or the questions of this run."""

    tasks: list[EvalTask] = field(default_factory=list)  # empty: the questions table, or `file`
    num_samples: int = _number(8, at_least=1)  # k of Avg@k
    # of the samples
    temperature: float = _number(0.7, at_least=0)
    # of the symbols of abstract traces; null: as of the rest
    trace_temperature: float | None = _number(None, at_least=0)
    # of the samples
    top_p: float = _number(1.0, above=0, at_most=1)
    max_new_tokens: int | None = _number(None, at_least=1)  # null: up to what `context` leaves
    # What prompt and response share: cutoff_len, or what the model was made for
    # (max_position_embeddings).
    context: Literal["cutoff_len", "model"] = "cutoff_len"
    split: Literal["test", "train"] = "test"  # of the questions table
    # instead of it, a .jsonl with question_id, question and check, reasoning_gym:NAME, or the name
    # of a benchmark, such as vr_math500
    file: str | None = None
    max_questions: int | None = _number(None, at_least=1)  # of each task
    # vllm; null: sampling's, 0: by the model's size and the GPUs (the paper's 4 for 4B to 8B, 8 for
    # 32B)
    tensor_parallel_size: int | None = _number(None, at_least=0)
    # whole questions, at least one; what a kill loses at most
    answers_per_shard: int = _number(512, at_least=1)
    controls: ControlsConfig = field(default_factory=ControlsConfig)


@dataclass(frozen=True)
class CardsConfig:
    """The README.md next to data sets and models. A card whose license is unknown can only be
    pushed privately.
    """

    # an identifier of the hub's list, such as apache-2.0 or cc-by-4.0
    data_license: str = "unknown"
    # of the models; unknown: pushed privately only
    model_license: str = "unknown"


@dataclass(frozen=True)
class SequenceConfig:
    """scripts/run.py: what a profile needs in addition to the stages."""

    # Commands before stage 0, one after another and without a shell. {profile} is the profile's
    # folder, {run} and {seed} are run.py's; `python` is the interpreter of run.py. Trainings of
    # the profile named 0_*.yaml follow them.
    before: list[str] = field(default_factory=list)
    # environment variables of all commands
    environment: dict[str, str] = field(default_factory=dict)
    # the final model that is the next round's reasoner; null: the first one
    carry: str | None = None
    # trainings, scorings and evaluations that run at the same time, where the order allows it
    at_once: int = _number(1, at_least=1)
    # Of arms: the temperature of a second evaluation, NAME_sampled. null: none.
    sampled_at: float | None = _number(None, above=0)


@dataclass(frozen=True)
class Config:
    """A pipeline.yaml."""

    # the folder of the run; every table, model and report is below it
    run_dir: str = "runs/tiny"
    # of every draw: sampling, selection, mixing
    seed: int = _number(0, at_least=0)
    # chatml, llama3, gemma, mistral, a .json file, or template: the model's own
    chat_format: str = "chatml"
    prompt_family: str = "paper"  # paper, think, or a .yaml file
    # the posterior's prompt kind in the family; where it is not set, the family's last one
    posterior_prompt: str = "posterior_b"
    # The posterior of round 1. trained: on expert traces (stage 2); prompted: the reasoner itself
    # with the posterior's prompt; own_traces: trained on the reasoner's verified traces (Eq. 9).
    posterior: Literal["trained", "prompted", "own_traces"] = "trained"
    # prompt + response; one number for all stages and trainings
    cutoff_len: int = _number(16384, at_least=1)
    # Work is shared by processes that see the same run_dir. shard: 3/16 does the fourth of 16 parts
    # (a Slurm array); ray: the stage's shards become tasks of the Ray cluster at ray_address (auto:
    # the one of this machine).
    shard: str | None = None
    # what runs the shards of a stage
    launcher: Literal["local", "ray"] = "local"
    # of the Ray cluster, with launcher: ray
    ray_address: str = "auto"
    # the model that both trainings start from; its tokenizer counts lengths in stage 0
    base: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    steps: StepsConfig = field(default_factory=StepsConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    # train files whose traces are given
    arms: list[ArmConfig] = field(default_factory=list)
    # what comes after the arms of given traces
    loops: list[LoopConfig] = field(default_factory=list)
    build: BuildConfig = field(default_factory=BuildConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    cards: CardsConfig = field(default_factory=CardsConfig)
    sequence: SequenceConfig = field(default_factory=SequenceConfig)

    @cached_property
    def renderer(self) -> Renderer:
        """The prompt family in the chat format. Stage 8 asks for it several times per row, and a
        family of a file takes milliseconds to read.
        """
        model = self.base or self.models.reasoner
        return make_renderer(self.chat_format, self.prompt_family, model, chat_template_of)

    def folder(self, *parts: str) -> Path:
        """A folder of the run, such as folder("traces"); what is made from the reasoner's traces
        is in from_reasoner, from traces of another hint in hint_<name>.
        """
        if self.traces_place and parts and parts[0] in _MADE_FROM_TRACES:
            parts = (self.traces_place, *parts)
        return Path(self.run_dir, *parts)

    @property
    def traces_place(self) -> str:
        """The folder in run_dir of all that is made from these traces; empty for run_dir itself."""
        if self.sampling.traces_from == "reasoner":
            return FROM_REASONER
        hint = self.sampling.hint
        if hint == "reference":
            return ""
        return f"hint_{hint}"

    def train_file(self, name: str) -> Path:
        """The train file of an output or an arm."""
        return self.folder("train", f"{self.data.name}_{name}.parquet")

    def stage_name(self, name: str) -> str:
        """A stage's name in timings.jsonl; with the reasoner's traces it is a stage of its own."""
        if not self.traces_place:
            return name
        return f"{name}_{self.traces_place}"

    @property
    def traces_are_optional(self) -> bool:
        """Whether stage 0 takes train rows without a trace."""
        if self.data.traces is None:
            return self.posterior != "trained"
        return self.data.traces == "optional"

    def model_folder(self, name: str) -> Path:
        """The folder of a model: as the YAML names it, or run_dir/models/<name>. A posterior that
        is prompted is the reasoner.
        """
        if name == "posterior" and self.posterior == "prompted":
            name = "reasoner"
        named = getattr(self.models, name, None)
        if named:
            return Path(named)
        return self.folder("models", name)

    def trained_kind(self, name: str) -> str:
        """The prompt kind that a model, reasoner or posterior, was trained on."""
        if name == "reasoner" or self.posterior == "prompted":
            return REASONER
        return self.posterior_prompt

    def is_of_these_traces(self, output: OutputConfig) -> bool:
        """Whether an output is made from the traces of sampling.traces_from and sampling.hint."""
        if output.sampler != self.sampling.traces_from:
            return False
        return output.sampler == "reasoner" or output.traces_hint == self.sampling.hint


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Config:
    """Read a pipeline.yaml and apply `key=value` overrides with dotted keys, such as
    sampling.num_traces=4.

    Raises: ValueError that names every fault of the file and of the overrides; FileNotFoundError
    for a missing file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration file {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} holds a {type(values).__name__}; a pipeline.yaml is a mapping of keys to "
            "values"
        )
    faults: list[str] = []
    values = with_overrides(values, overrides, faults)
    config: Config = _build(Config, values, "", faults)
    config = _with_posterior_prompt(config, "posterior_prompt" in values, faults)
    faults += _cross_faults(config)
    if faults:
        lines = [f"{path}: {len(faults)} fault(s) in the configuration:"]
        for fault in faults:
            lines.append(f"  {fault}")
        raise ValueError("\n".join(lines))
    return config


def _cross_faults(config: Config) -> list[str]:
    """What is wrong with values that are each allowed."""
    faults = []
    try:
        parse_share(config.shard or "0/1")
    except ValueError as error:
        faults.append(str(error))
    try:
        check_pattern(config.steps.pattern)
    except ValueError as error:
        faults.append(f"steps.pattern: {error}")
    if config.shard and config.launcher == "ray":
        faults.append(
            f"shard: {config.shard!r} has no meaning with launcher ray, which does all shards"
        )
    if config.posterior == "prompted" and config.models.posterior:
        faults.append(
            f"models.posterior: {config.models.posterior!r} would not be used: with posterior: "
            "prompted the reasoner itself samples the traces. Leave it out, or set posterior: "
            "trained"
        )
    if config.sampling.traces_from == "reasoner" and config.sampling.hint != "reference":
        faults.append(
            f"sampling.hint: {config.sampling.hint!r} has no meaning with sampling.traces_from: "
            "reasoner, whose prompt shows no hint"
        )
    for index, output in enumerate(config.build.outputs):
        if output.sampler == "reasoner" and output.traces_hint != "reference":
            faults.append(
                f"build.outputs.{index}.traces_hint: {output.traces_hint!r} has no meaning for "
                "traces of the reasoner, whose prompt shows no hint"
            )
    if config.sampling.min_symbols > config.sampling.max_symbols:
        faults.append(
            f"sampling.min_symbols: {config.sampling.min_symbols} is above sampling.max_symbols "
            f"{config.sampling.max_symbols}, so no abstract trace could be drawn"
        )
    for index, arm in enumerate(config.arms):
        fault = _count_fault(arm, config.sampling.max_symbols)
        if fault:
            faults.append(f"arms.{index}.count: {fault}")
    if config.verify.trace_check is not None:
        fault = trace_check_fault(config.verify.trace_check)
        if fault:
            faults.append(fault)
    if config.eval.controls.implied_answer is not None:
        fault = implied_answer_fault(config.eval.controls.implied_answer)
        if fault:
            faults.append(fault)
    low = config.build.question_accuracy.at_least
    high = config.build.question_accuracy.at_most
    if low is not None and high is not None and low > high:
        faults.append(
            f"build.question_accuracy: at_least {low} is above at_most {high}, which leaves no "
            "question"
        )
    return faults + _name_faults(config)


def _name_faults(config: Config) -> list[str]:
    """Names of files that cannot be, names that are missing or there twice, and commands and loops
    that name nothing.
    """
    outputs = [output.name for output in config.build.outputs]
    arms = [arm.name for arm in config.arms]
    tasks = [task.task for task in config.eval.tasks]
    of_files = {"data.name": config.data.name}
    for index, name in enumerate(outputs):
        of_files[f"build.outputs.{index}.name"] = name
    for index, name in enumerate(arms):
        of_files[f"arms.{index}.name"] = name
    faults = []
    for key, name in of_files.items():
        is_left_out = not name and key != "data.name"  # said below, with what it is for
        if not is_left_out and not is_plain_name(name):
            faults.append(
                f"{key}: {name!r} cannot be part of a file's name; use letters, digits, '-', '_' "
                "and '.', not first"
            )
    faults += _command_faults(config.sequence.before)
    faults += _loop_faults(config)
    faults += _reserved_faults(config)
    faults += _empty("build.outputs.{}.name: is empty; it names the train file", outputs)
    faults += _empty("arms.{}.name: is empty; it names the train file", arms)
    faults += _repeated("arms: the name {!r} is there twice, or an output's", [*outputs, *arms])
    faults += _empty("eval.tasks.{}.task: is empty; it names the benchmark", tasks)
    faults += _repeated("eval.tasks: the task {!r} is there twice", tasks)
    faults += _repeated("build.outputs: the name {!r} is there twice", outputs)
    return faults


def _count_fault(arm: ArmConfig, max_symbols: int) -> str:
    """What is wrong with the count of an arm's random symbols; empty when nothing is."""
    if arm.count is None:
        return ""
    if arm.trace != "random":
        return f"{arm.count} has no meaning for trace: {arm.trace}; it is for random"
    is_range = len(arm.count) == 2 and 0 <= arm.count[0] <= arm.count[1]
    if not is_range:
        return f"{arm.count} is not a range of two whole numbers from 0, such as [8, 64]"
    if arm.count[1] > max_symbols:
        return f"{arm.count} goes beyond sampling.max_symbols {max_symbols}; change one of them"
    return ""


def _loop_faults(config: Config) -> list[str]:
    """Names in `loops` that refer to nothing."""
    given = {arm.name for arm in config.arms if not arm.is_sampled}
    sampled = {arm.name for arm in config.arms if arm.is_sampled}
    sampled |= {output.name for output in config.build.outputs}
    faults = []
    for index, loop in enumerate(config.loops):
        where = f"loops.{index}"
        if not is_plain_name(loop.name):
            faults.append(f"{where}.name: {loop.name!r} cannot be the name of a folder")
        for key in ("reasoner", "posterior", "first"):
            name = getattr(loop, key)
            if name is not None and name not in given:
                faults.append(
                    f"{where}.{key}: {name!r} is not an arm of given traces; there are "
                    f"{', '.join(sorted(given)) or 'none'}"
                )
        if not loop.phases:
            faults.append(f"{where}.phases: is empty; a round needs at least one phase")
        for place, phase in enumerate(loop.phases):
            if not phase.train:
                faults.append(f"{where}.phases.{place}.train: is empty; name what is trained")
            for name in phase.train:
                if name not in sampled:
                    faults.append(
                        f"{where}.phases.{place}.train: {name!r} is neither a name of "
                        "build.outputs nor an arm whose traces are sampled; there are "
                        f"{', '.join(sorted(sampled)) or 'none'}"
                    )
        faults += _stale_phases(config, loop, where)
    faults += _repeated("loops: the name {!r} is there twice", [loop.name for loop in config.loops])
    return faults


def _stale_phases(config: Config, loop: LoopConfig, where: str) -> list[str]:
    """Phases of a round that would sample into the tables of a phase before, by another model.

    A round has one table of the posterior's traces and one of the reasoner's. With phases that
    sample from [posterior], [reasoner], each of which trains the next reasoner, both tables have
    one model; with [reasoner], [reasoner] the second phase would need the first one's table again.
    """
    entries: dict[str, OutputConfig | ArmConfig] = {}
    entries.update((output.name, output) for output in config.build.outputs)
    entries.update((arm.name, arm) for arm in config.arms)
    sampled: set[str] = set()
    stale: set[str] = set()
    faults = []
    for place, phase in enumerate(loop.phases):
        trained = [entries[name] for name in phase.train if name in entries]
        samplers = {entry.sampler for entry in trained}
        for sampler in sorted(samplers & stale):
            faults.append(
                f"{where}.phases.{place}.train: samples from the {sampler} again, whose traces of "
                "this round are another model's by now; train all that learns from them in one "
                "phase, or let a phase come first that trains the posterior"
            )
        sampled |= samplers
        if trained and trained[0].target == "posterior":
            stale |= sampled & {"posterior"}
        else:  # the reasoner scores the posterior's traces, too
            stale |= sampled
    return faults


def _reserved_faults(config: Config) -> list[str]:
    """Names whose files the run itself writes, or another model's evaluation.

    With a loop of rounds that trains `published`, and with sequence.sampled_at, the evaluations of
    `published` are published_1, published_1_sampled, published_2, ...
    """
    named = {}
    for index, output in enumerate(config.build.outputs):
        named[f"build.outputs.{index}.name"] = output.name
    for index, arm in enumerate(config.arms):
        named[f"arms.{index}.name"] = arm.name
    models = {"base", *named.values()}
    of_loops = {name for loop in config.loops for phase in loop.phases for name in phase.train}
    faults = []
    for key, name in named.items():
        model, _, ending = name.rpartition("_")
        reason = RESERVED_NAMES.get(name, "")
        if ending == "sampled" and model in models and config.sequence.sampled_at is not None:
            reason = f"it is the name of the evaluation of {model!r} at sequence.sampled_at"
        elif ending.isdecimal() and model in of_loops:
            reason = f"it is the name of the evaluation of {model!r} in round {ending} of a loop"
        if reason:
            faults.append(f"{key}: {name!r} is reserved ({reason}); choose another name")
    for index, loop in enumerate(config.loops):
        is_folder = loop.name in RUN_FOLDERS or re.fullmatch(r"round\d+|hint_\w+", loop.name)
        if is_folder:
            faults.append(
                f"loops.{index}.name: {loop.name!r} is reserved (it is a folder of every run); "
                "choose another name"
            )
    return faults


def _command_faults(lines: Sequence[str]) -> list[str]:
    """What is wrong with the commands of sequence.before."""
    faults = []
    for index, line in enumerate(lines):
        name = f"sequence.before.{index}"
        try:
            words = shlex.split(line)
            for word in words:
                word.format(profile="", run="", seed="")
        except (ValueError, KeyError, IndexError) as error:
            faults.append(
                f"{name}: {line!r} cannot be read ({error}); placeholders are {{profile}}, {{run}} "
                "and {seed}, and quotes must be closed"
            )
            continue
        if not words:
            faults.append(f"{name}: is empty; it is a command, such as python {{profile}}/task.py")
    return faults


def _empty(message: str, names: Sequence[str]) -> list[str]:
    """The message for each name that is empty, with its place in the list."""
    faults = []
    for index, name in enumerate(names):
        if not name:
            faults.append(message.format(index))
    return faults


def _repeated(message: str, names: Sequence[str]) -> list[str]:
    """The message for each name that is there more than once."""
    faults = []
    for name, count in sorted(Counter(names).items()):
        if count > 1:
            faults.append(message.format(name))
    return faults


def _with_posterior_prompt(config: Config, is_set: bool, faults: list[str]) -> Config:
    """The configuration with a prompt kind of its family; faults of family and chat format are
    added.
    """
    try:
        renderer = config.renderer
    except ValueError as error:
        faults += str(error).splitlines()
        return config
    kinds = renderer.family.posteriors
    if is_set and config.posterior_prompt not in kinds:
        faults.append(
            f"posterior_prompt: {config.posterior_prompt!r} is not one of {', '.join(kinds)} "
            f"(prompt_family {renderer.family.name!r})"
        )
    if is_set:
        return config
    return replace(config, posterior_prompt=kinds[-1])


def parse_share(text: str) -> tuple[int, int]:
    """(index, count) of a text such as 3/16. Raises: ValueError unless 0 <= index < count."""
    index, _, count = text.partition("/")
    are_numbers = index.isdigit() and count.isdigit()
    if not are_numbers or int(index) >= int(count):
        raise ValueError(
            f"shard: {text!r} is not of the form i/n with i from 0 to n - 1, such as 0/4"
        )
    return int(index), int(count)


def with_overrides(
    values: dict[str, Any], overrides: Sequence[str], faults: list[str]
) -> dict[str, Any]:
    """A copy of `values` with each `a.b=value` set; the value is read as YAML. Faults are appended
    to `faults`. In a list, the place after the last one adds an entry.
    """
    values = copy.deepcopy(values)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            faults.append(f"override {override!r} is not of the form key=value")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            faults.append(f"override {override!r}: the value is not valid YAML ({error})")
            continue
        *parents, last = name.split(".")
        place: Any = values
        for parent in parents:
            if isinstance(place, dict) and place.get(parent) is None:
                place[parent] = {}
            place = _step(place, parent)
        if isinstance(place, dict):
            place[last] = value
        elif isinstance(place, list) and last.isdigit() and int(last) < len(place):
            place[int(last)] = value
        elif isinstance(place, list) and last == str(len(place)):
            place.append(value)
        else:
            faults.append(
                f"override {override!r}: there is no section {'.'.join(parents)!r} to set a key in"
            )
    return values


def resolved(config: Config, *names: str) -> dict[str, Any]:
    """The named parts of a configuration as plain values, for a manifest: resolved(config, "seed",
    "sampling.top_p").

    Raises: AttributeError for a name that does not exist.
    """
    values = {}
    for name in names:
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        values[name] = value
    return values


def _build(cls: type, values: dict[str, Any], prefix: str, faults: list[str]) -> Any:
    """A section from the values of its keys.

    Args:
        prefix: of its keys' dotted names, such as `sampling.`. faults: get what is wrong; such a
            key has its default.
    """
    hints = typing.get_type_hints(cls)
    known = {spec.name: spec for spec in fields(cls)}
    for name in values:
        if name in known:
            continue
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"known are {', '.join(known)}"
        if near:
            hint = f"did you mean {prefix + near[0]!r}?"
        faults.append(f"{prefix}{name}: unknown key; {hint}")
    made = {}
    for name, spec in known.items():
        if name not in values:
            continue
        key = prefix + name
        is_allowed, value = _convert(values[name], hints[name], key, faults)
        if is_allowed:
            made[name] = value
            _check_bounds(value, spec.metadata, key, faults)
    return cls(**made)


Converted = tuple[bool, Any]
"""(True, a value as the dataclass has it), or (False, None) where a fault was added."""


def _convert(value: Any, hint: Any, name: str, faults: list[str]) -> Converted:
    """A value of YAML as a type that a key may have.

    Args:
        hint: the key's type. name: its dotted name, for the faults.
    """
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, hint, name, faults)
    if is_dataclass(hint):
        if value is None:
            value = {}
        if isinstance(value, dict):
            return True, _build(typing.cast(type, hint), value, name + ".", faults)
        return _fault(faults, name, value, "a section of keys")
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value in allowed:
            return True, value
        return _fault(faults, name, value, f"one of {', '.join(allowed)}")
    if origin is list:
        return _convert_list(value, hint, name, faults)
    if origin is dict:
        return _convert_mapping(value, hint, name, faults)
    return _convert_plain(value, hint, name, faults)


def _convert_union(value: Any, hint: Any, name: str, faults: list[str]) -> Converted:
    """A plain type or null; or words, or a section of keys in their place."""
    alternatives = typing.get_args(hint)
    if value is None and type(None) in alternatives:
        return True, None
    sections = [part for part in alternatives if is_dataclass(part)]
    plain = next(part for part in alternatives if part not in (type(None), *sections))
    if not sections:
        return _convert(value, plain, name, faults)
    [section] = sections
    if isinstance(value, dict):
        return _convert(value, section, name, faults)
    words = typing.get_args(plain)
    if value in words:
        return _convert(value, plain, name, faults)
    keys = ", ".join(key.name for key in fields(section))
    allowed = f"one of {', '.join(words)}, or a section of the keys {keys}"
    return _fault(faults, name, value, allowed)


def _convert_list(value: Any, hint: Any, name: str, faults: list[str]) -> Converted:
    """A list, each part of which has its own name: `arms.0`, `arms.1`."""
    if not isinstance(value, list):
        return _fault(faults, name, value, "a list")
    [hint_of_part] = typing.get_args(hint)
    parts = []
    are_allowed = True
    for index, part in enumerate(value):
        is_allowed, converted = _convert(part, hint_of_part, f"{name}.{index}", faults)
        are_allowed = are_allowed and is_allowed
        parts.append(converted)
    return are_allowed, parts


def _convert_mapping(value: Any, hint: Any, name: str, faults: list[str]) -> Converted:
    """A mapping of text to text, or of names to anything."""
    _, hint_of_values = typing.get_args(hint)
    allowed = "a mapping of names to values"
    if hint_of_values is str:
        allowed = "a mapping of text to text"
    if not isinstance(value, dict):
        return _fault(faults, name, value, allowed)
    for key, part in value.items():
        is_text = isinstance(part, str) or hint_of_values is not str
        if not isinstance(key, str) or not is_text:
            return _fault(faults, name, value, allowed)
    return True, value


def _convert_plain(value: Any, hint: Any, name: str, faults: list[str]) -> Converted:
    """A number, a text, or true or false. A whole number is also a number, and true is neither."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if hint is float and isinstance(value, str):
        try:
            return True, float(value)  # YAML 1.1 reads 1e-5, without a point, as text
        except ValueError:
            return _fault(faults, name, value, words[float])
    is_bool = isinstance(value, bool)
    if hint is float and isinstance(value, int) and not is_bool:
        return True, float(value)
    if not isinstance(value, hint) or (hint is int and is_bool):
        return _fault(faults, name, value, words[hint])
    return True, value


def _fault(faults: list[str], name: str, value: Any, allowed: str) -> Converted:
    faults.append(f"{name}: {value!r} is not {allowed}")
    return False, None


def _check_bounds(
    value: Any, bounds: typing.Mapping[str, Any], name: str, faults: list[str]
) -> None:
    """Add a fault for a number outside the bounds of `_number`; null is within all of them."""
    if value is None or not bounds:
        return
    at_least = bounds["at_least"]
    above = bounds["above"]
    at_most = bounds["at_most"]
    if at_least is not None and not value >= at_least:
        faults.append(f"{name}: {value!r} must be at least {at_least}")
    if above is not None and not value > above:
        faults.append(f"{name}: {value!r} must be above {above}")
    if at_most is not None and not value <= at_most:
        faults.append(f"{name}: {value!r} must be at most {at_most}")


def _step(place: Any, name: str) -> Any:
    """What is under a key of a section, or at a place of a list; None where there is nothing."""
    if isinstance(place, dict):
        return place[name]
    if isinstance(place, list) and name.isdigit() and int(name) < len(place):
        return place[int(name)]
    return None
