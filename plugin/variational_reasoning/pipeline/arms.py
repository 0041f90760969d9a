"""Train files whose traces are given instead of sampled: first traces of symbols, and what they are
compared with.

    clusters   <TOKEN_C><TOKEN_A>   the cluster of each step (step_clusters)
    random     <TOKEN_Q><TOKEN_B>   the paper's rule, 1 to l / 2 symbols per step of l tokens
    chain      +5=1*4=4             the verbal chain itself
    values     =1=4                 what the steps found out, and nothing else
    empty                           no token between the tags: an answer without a chain

Traces of symbols are also a table, run_dir/first_traces/<kind>, with the columns of stage 3. A
random trace is a function of the seed and the question alone.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from variational_reasoning.faults import list_faults
from variational_reasoning.method.abstract import symbols_text
from variational_reasoning.method.prompts import REASONER, Renderer, make_renderer
from variational_reasoning.method.steps import random_symbols, split_steps, values_only
from variational_reasoning.pipeline.clusters import clusters_of
from variational_reasoning.pipeline.config import ArmConfig, Config, resolved
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import Identity, write_table
from variational_reasoning.pipeline.tables import RHO_TERMS, given_trace
from variational_reasoning.pipeline.train_files import register_datasets, write_file_once

SAMPLERS: dict[str, Literal["posterior", "reasoner"]] = {
    "policy": "reasoner",
    "posterior": "posterior",
}
"""Kind of a sampled trace to sampling.traces_from of its table."""

Texts = dict[str, str]
"""question_id to the text of its only trace."""

Symbols = dict[str, list[int]]
"""question_id to the symbols of its only trace."""

Traces = dict[str, dict[int, str]]
"""question_id to trace_id to the text of a trace."""


class Arm(NamedTuple):
    """A train file and its size; the mean length of a response is in tokens. num_dropped: questions
    without a row.
    """

    path: Path
    num_rows: int
    num_dropped: int
    mean_tokens: float
    format: str


def build_arms(config: Config, model_folder: Path, names: Sequence[str] = ()) -> list[Arm]:
    """Write the train files of `arms`, and the tables of first traces that they need.

    Args:
        model_folder: the extended model, whose tokenizer counts and encodes.
        names: of the arms to write; none names all of them.

    Raises: ValueError for an empty list, a name that is not there, clusters that are not there, and
    chains without values.
    """
    if not config.arms:
        raise ValueError("arms is empty; name at least one train file")
    known = {arm.name: arm for arm in config.arms}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"arms has no {', '.join(unknown)}; it has {', '.join(known)}")
    writer = ArmWriter(config, model_folder)
    written = []
    for name in names or known:
        written.append(writer.write(known[name]))
    formats = {arm.path.stem: arm.format for arm in written}
    register_datasets(config.folder("train"), formats)
    return written


def has_texts_apart(arm: ArmConfig, renderer: Renderer) -> bool:
    """Whether rows keep question, chain and trace apart (the format `abstract`) and are not one
    prompt.

    The chain of a bottleneck is cut out in ids. A posterior's prompt may be one text where it shows
    itself where the chain begins, which not every chat format does.
    """
    if arm.target == "posterior":
        kind = renderer.family.posteriors[-1]
        prompt = renderer.prompt(kind, "1", "1")
        return renderer.detect_kind(prompt) != kind
    return arm.target == "bottleneck"


class _Fitting(NamedTuple):
    """A trace of a question, and its row's texts. num_target: tokens that are trained."""

    trace_id: int
    trace: str
    prompt: str
    response: str
    num_target: int


class ArmWriter:
    """The training questions, and the traces of each kind as text."""

    def __init__(self, config: Config, model_folder: Path) -> None:
        self.config = config
        tokenizer = load_tokenizer(str(model_folder))
        self.encode, self.decode = text_codec(tokenizer)
        reader, units = training_questions(config)
        rows = reader.rows_of(units, ["question", "trace", "solution"])
        self.questions = {}
        for question_id in units:
            self.questions[question_id] = rows[question_id][0]
        self.digest = reader.digest

    def write(self, arm: ArmConfig) -> Arm:
        """One train file; questions whose rows do not fit cutoff_len, whose chain has more steps
        than sampling.max_symbols, or that have no well-formed sampled trace are left out and
        counted.

        Raises: ValueError for a file without a row.
        """
        config = self.config
        renderer = config.renderer
        if arm.family is not None:
            renderer = make_renderer(config.chat_format, arm.family)
        is_apart = has_texts_apart(arm, renderer)
        traces, inputs = self.traces(arm, renderer)
        settings: dict[str, Any] = {
            "arm": _settings(arm),
            **renderer.to_record(),
            **resolved(config, "cutoff_len", "steps.pattern"),
        }
        identity = self._identity(inputs, settings)
        rows: list[dict[str, Any]] = []
        lengths: list[int] = []
        num_questions = 0
        for question_id, given in traces.items():
            fitting = self._fitting(renderer, arm, question_id, given)
            if fitting:
                num_questions += 1
            rows += self._rows(question_id, fitting, is_apart)
            lengths += [trace.num_target for trace in fitting]
        if not rows:
            raise ValueError(
                f"arms: no question has a trace of {arm.trace!r} that fits cutoff_len "
                f"{config.cutoff_len} (and sampling.max_symbols {config.sampling.max_symbols}), "
                f"so {arm.name!r} would be empty"
            )
        path = config.train_file(arm.name)
        write_file_once(path, "abstract" if is_apart else "train", rows, identity)
        return Arm(
            path=path,
            num_rows=len(rows),
            num_dropped=len(self.questions) - num_questions,
            mean_tokens=sum(lengths) / len(lengths),
            format="abstract" if is_apart else "weighted_sft",
        )

    def _identity(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> Identity:
        """Of a file or table that is made from the questions and these inputs."""
        return Identity(
            inputs={"questions": self.digest, **inputs},
            config=settings,
            seed=self.config.seed,
        )

    def _fitting(
        self,
        renderer: Renderer,
        arm: ArmConfig,
        question_id: str,
        given: Mapping[int, str],
    ) -> list[_Fitting]:
        """The traces of a question whose rows fit cutoff_len."""
        fitting = []
        for trace_id, trace in given.items():
            prompt, response = self.texts(renderer, arm, question_id, trace)
            target = renderer.encode_target(response, self.encode)
            num_prompt = len(self.encode(prompt))
            num_target = len(target)
            if num_prompt + num_target <= self.config.cutoff_len:
                fits = _Fitting(trace_id, trace, prompt, response, num_target)
                fitting.append(fits)
        return fitting

    def texts(
        self,
        renderer: Renderer,
        arm: ArmConfig,
        question_id: str,
        trace: str,
    ) -> tuple[str, str]:
        """(prompt, response): the reasoner answers after the trace, the posterior reads the chain
        and writes the trace only, the bottleneck reads the chain and answers, too.
        """
        row = self.questions[question_id]
        question = row["question"]
        solution = row["solution"]
        if arm.target == "reasoner":
            return renderer.render(REASONER, question, trace, solution)
        kind = renderer.family.posteriors[-1]
        if arm.target == "bottleneck":
            kind = renderer.bottleneck
        return renderer.render(kind, question, trace, solution, chain=row["trace"])

    def _rows(
        self,
        question_id: str,
        fitting: Sequence[_Fitting],
        is_apart: bool,
    ) -> list[dict[str, Any]]:
        """A row for each trace of a question; together they have the weight 1."""
        rows = []
        for trace in fitting:
            # Two of a question's traces fit: each has the weight 1/2.
            weight = 1 / len(fitting)
            if is_apart:
                rows.append(self._apart(question_id, trace, weight))
            else:
                rows.append(_row(question_id, trace, weight))
        return rows

    def _apart(self, question_id: str, fitting: _Fitting, weight: float) -> dict[str, Any]:
        """A row of the format `abstract`."""
        question = self.questions[question_id]
        return {
            "question_id": question_id,
            "trace_id": fitting.trace_id,
            "question": question["question"],
            "trace": fitting.trace,
            "solution": question["solution"],
            "chain": question["trace"],
            "weight": weight,
        }

    def traces(self, arm: ArmConfig, renderer: Renderer) -> tuple[Traces, dict[str, str]]:
        """(the traces of a kind, digests of the tables that they are made from)."""
        kind = arm.trace
        if kind in SAMPLERS:
            return self._sampled(kind)
        if kind == "chain":
            chains = {name: row["trace"] for name, row in self.questions.items()}
            return _alone(chains), {}
        if kind == "empty":
            empty = dict.fromkeys(self.questions, "")
            return _alone(empty), {}
        if kind == "values":
            return _alone(self._values()), {}
        inputs: dict[str, str] = {}
        if kind == "clusters":
            symbols, inputs = self._clusters()
        else:
            symbols = self._random(arm.count)
        count = self.config.steps.clusters
        texts = {name: symbols_text(trace, count) for name, trace in symbols.items()}
        self._write_table(arm, texts, inputs, renderer)
        return _alone(texts), inputs

    def _sampled(self, kind: str) -> tuple[Traces, dict[str, str]]:
        """The well-formed traces that a model has sampled."""
        sampling = replace(self.config.sampling, traces_from=SAMPLERS[kind])
        config = replace(self.config, sampling=sampling)
        table = TableReader(config.folder("traces"), "traces")
        columns = ["question_id", "trace_id", "text", "is_well_formed"]
        traces: Traces = {}
        for part in table.scan(columns):
            for row in part.to_pylist():
                question_id = row["question_id"]
                if row["is_well_formed"] and question_id in self.questions:
                    of_question = traces.setdefault(question_id, {})
                    of_question[row["trace_id"]] = row["text"]
        return traces, {"traces": table.digest}

    def _values(self) -> Texts:
        """Each chain without what is not a value.

        Raises: ValueError that lists the chains without values.
        """
        pattern = self.config.steps.pattern
        traces = {}
        faults = []
        for question_id, row in self.questions.items():
            chain = row["trace"]
            steps = split_steps(chain, pattern)
            try:
                traces[question_id] = values_only(chain, steps)
            except ValueError as error:
                faults.append(f"{question_id}: {error}")
        if faults:
            raise ValueError(list_faults("arms with trace: values cannot be written", faults))
        return traces

    def _clusters(self) -> tuple[Symbols, dict[str, str]]:
        """The clusters of each chain's steps, where these are at most sampling.max_symbols."""
        found, digest = clusters_of(self.config)
        limit = self.config.sampling.max_symbols
        symbols = {}
        for name in self.questions:
            # A trace that is cut would lack its last step, which the answer follows from.
            if name in found and len(found[name]) <= limit:
                symbols[name] = found[name]
        return symbols, {"step_clusters": digest}

    def _random(self, count: Sequence[int] | None) -> Symbols:
        """Random symbols, as many as `count` allows; by default as the paper's rule has it."""
        steps = self.config.steps
        limit = self.config.sampling.max_symbols
        symbols = {}
        for question_id, row in self.questions.items():
            # By the question's name, so that other questions change nothing of its trace.
            rng = random.Random(f"random trace {self.config.seed} {question_id}")
            if count is not None:
                length = rng.randint(*count)
                symbols[question_id] = [rng.randrange(steps.clusters) for _ in range(length)]
                continue
            lengths = []
            for step in split_steps(row["trace"], steps.pattern):
                ids = self.encode(step.text)
                lengths.append(len(ids))
            symbols[question_id] = random_symbols(lengths, steps.clusters, limit, rng)
        return symbols

    def _write_table(
        self,
        arm: ArmConfig,
        texts: Texts,
        inputs: Mapping[str, str],
        renderer: Renderer,
    ) -> None:
        """Traces of symbols as run_dir/first_traces/<kind>."""
        kind = str(arm.trace)
        name = kind
        settings: dict[str, Any] = {"trace": kind, **renderer.to_record()}
        if arm.count is not None:  # two ranges are two tables: first_traces/random_8_64
            least, most = arm.count
            name = f"{kind}_{least}_{most}"
            settings["count"] = arm.count
        settings |= resolved(self.config, "steps.clusters", "sampling.max_symbols", "steps.pattern")
        rows = []
        for question_id, text in texts.items():
            ids = self.encode(text + renderer.boundary)
            row = given_trace(question_id, text, ids, kind)
            row["trained_tokens"] = len(ids)
            row["is_trained_as_sampled"] = True
            rows.append(row)
        folder = self.config.folder("first_traces", name)
        identity = self._identity(inputs, settings)
        write_table(folder, "traces", rows, identity)


def _alone(traces: Texts) -> Traces:
    """The only trace of each question."""
    return {question_id: {0: trace} for question_id, trace in traces.items()}


def _settings(arm: ArmConfig) -> dict[str, Any]:
    """An arm in a manifest, without what its rows do not depend on; a count only where there is
    one, as in files of earlier releases.
    """
    settings = asdict(arm)
    del settings["evaluation"]
    if arm.count is None:
        del settings["count"]
    return settings


def _row(question_id: str, fitting: _Fitting, weight: float) -> dict[str, Any]:
    """A row of the format `weighted_sft`; no term of rho is known."""
    row: dict[str, Any] = dict.fromkeys(RHO_TERMS)
    return row | {
        "question_id": question_id,
        "source": fitting.trace_id,
        "prompt": fitting.prompt,
        "response": fitting.response,
        "weight": weight,
        "trace_id": fitting.trace_id,
        "answer_id": None,
        "question_accuracy": None,
    }


def describe_arms(arms: Sequence[Arm]) -> str:
    """The lines that the command prints."""
    lines = []
    for arm in arms:
        mean = f"{arm.mean_tokens:.1f}"
        line = f"{arm.path}: {arm.num_rows} rows, mean response {mean} tokens"
        if arm.num_dropped:
            line += f", {arm.num_dropped} questions without a trace that fits"
        lines.append(line)
    return "\n".join(lines)
