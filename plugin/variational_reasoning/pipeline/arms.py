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
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.faults import list_faults
from variational_reasoning.method.abstract import symbol_names
from variational_reasoning.method.prompts import REASONER, Renderer, make_renderer
from variational_reasoning.method.steps import random_symbols, split_steps, values_only
from variational_reasoning.pipeline.clusters import clusters_of
from variational_reasoning.pipeline.config import ArmConfig, Config, resolved
from variational_reasoning.pipeline.engines import load_tokenizer, text_codec
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.rows import Identity, write_table
from variational_reasoning.pipeline.tables import RHO_TERMS
from variational_reasoning.pipeline.train_files import register_datasets, write_file_once


class Arm(NamedTuple):
    """A train file and its size; the mean length of a response is in tokens."""

    path: Path
    num_rows: int
    num_dropped: int
    mean_tokens: float


def build_arms(config: Config, model_folder: Path) -> list[Arm]:
    """Write every train file of `arms`, and the tables of first traces that they need.

    Args:
        model_folder: the extended model, whose tokenizer counts and encodes.

    Raises: ValueError for an empty list, clusters that are not there, and chains without values.
    """
    if not config.arms:
        raise ValueError("arms is empty; name at least one train file")
    writer = ArmWriter(config, model_folder)
    arms = [writer.write(arm) for arm in config.arms]
    register_datasets(
        config.folder("train"), dict.fromkeys((arm.path.stem for arm in arms), "weighted_sft")
    )
    return arms


class ArmWriter:
    """The training questions, and the traces of each kind as text."""

    def __init__(self, config: Config, model_folder: Path) -> None:
        self.config = config
        self.encode, self.decode = text_codec(load_tokenizer(str(model_folder)))
        reader, units = training_questions(config)
        rows = reader.rows_of(units, ["question", "trace", "solution"])
        self.questions = {question_id: rows[question_id][0] for question_id in units}
        self.digest = reader.digest

    def write(self, arm: ArmConfig) -> Arm:
        """One train file; questions whose row does not fit cutoff_len, or whose chain has more
        steps than sampling.max_symbols, are left out and counted.

        Raises: ValueError for a file without a row.
        """
        config = self.config
        renderer = config.renderer
        if arm.family is not None:
            renderer = make_renderer(config.chat_format, arm.family)
        traces, inputs = self.traces(arm.trace, renderer)
        settings: dict[str, Any] = {"arm": asdict(arm), **renderer.to_record()}
        settings |= resolved(config, "cutoff_len", "steps.pattern")
        identity = Identity({"questions": self.digest, **inputs}, settings, seed=config.seed)
        rows, lengths = [], []
        for question_id, trace in traces.items():
            prompt, response = self.texts(renderer, arm, question_id, trace)
            target = renderer.encode_target(response, self.encode)
            if len(self.encode(prompt)) + len(target) <= config.cutoff_len:
                rows.append(_row(question_id, prompt, response))
                lengths.append(len(target))
        if not rows:
            raise ValueError(
                f"arms: no question has a trace of {arm.trace!r} that fits cutoff_len "
                f"{config.cutoff_len} (and sampling.max_symbols {config.sampling.max_symbols}), "
                f"so {arm.name!r} would be empty"
            )
        path = config.folder("train", f"{config.data.name}_{arm.name}.parquet")
        write_file_once(path, "train", rows, identity)
        return Arm(path, len(rows), len(self.questions) - len(rows), sum(lengths) / len(lengths))

    def texts(
        self, renderer: Renderer, arm: ArmConfig, question_id: str, trace: str
    ) -> tuple[str, str]:
        """(prompt, response): the reasoner answers after the trace, the posterior reads the chain
        and writes the trace only.
        """
        row = self.questions[question_id]
        if arm.target == "reasoner":
            return renderer.render(REASONER, row["question"], trace, row["solution"])
        kind = renderer.family.posteriors[-1]
        return renderer.render(kind, row["question"], trace, row["solution"], chain=row["trace"])

    def traces(self, kind: str, renderer: Renderer) -> tuple[dict[str, str], dict[str, str]]:
        """({question_id: trace}, digests of the tables that it is made from)."""
        if kind == "chain":
            return {name: row["trace"] for name, row in self.questions.items()}, {}
        if kind == "empty":
            return dict.fromkeys(self.questions, ""), {}
        if kind == "values":
            return self._values(), {}
        symbols, inputs = self._clusters() if kind == "clusters" else (self._random(), {})
        self._write_table(kind, symbols, inputs, renderer)
        return {name: self._text(found) for name, found in symbols.items()}, inputs

    def _text(self, symbols: Sequence[int]) -> str:
        names = symbol_names(self.config.steps.clusters)
        return "".join(names[symbol] for symbol in symbols)

    def _values(self) -> dict[str, str]:
        pattern, traces, faults = self.config.steps.pattern, {}, []
        for question_id, row in self.questions.items():
            try:
                traces[question_id] = values_only(row["trace"], split_steps(row["trace"], pattern))
            except ValueError as error:
                faults.append(f"{question_id}: {error}")
        if faults:
            raise ValueError(list_faults("arms with trace: values cannot be written", faults))
        return traces

    def _clusters(self) -> tuple[dict[str, list[int]], dict[str, str]]:
        found, digest = clusters_of(self.config)
        limit = self.config.sampling.max_symbols
        symbols = {}
        for name in self.questions:
            # A trace that is cut would lack its last step, which the answer follows from.
            if name in found and len(found[name]) <= limit:
                symbols[name] = found[name]
        return symbols, {"step_clusters": digest}

    def _random(self) -> dict[str, list[int]]:
        steps, symbols = self.config.steps, {}
        limit = self.config.sampling.max_symbols
        for question_id, row in self.questions.items():
            found = split_steps(row["trace"], steps.pattern)
            lengths = [len(self.encode(step.text)) for step in found]
            rng = random.Random(f"random trace {self.config.seed} {question_id}")
            symbols[question_id] = random_symbols(lengths, steps.clusters, limit, rng)
        return symbols

    def _write_table(
        self,
        kind: str,
        symbols: Mapping[str, Sequence[int]],
        inputs: Mapping[str, str],
        renderer: Renderer,
    ) -> None:
        settings = {"trace": kind, **renderer.to_record()}
        settings |= resolved(self.config, "steps.clusters", "sampling.max_symbols", "steps.pattern")
        rows = []
        for question_id, found in symbols.items():
            text = self._text(found)
            ids = self.encode(text + renderer.boundary)
            row = {"question_id": question_id, "trace_id": 0, "token_ids": ids, "text": text}
            row |= {"finish_reason": "stop", "is_well_formed": True, "is_retokenized": False}
            row |= {"trained_tokens": len(ids), "is_trained_as_sampled": True}
            rows.append(row | {"seed": 0, "prompt_kind": kind, "temperature": 0.0})
        folder = self.config.folder("first_traces", kind)
        identity = Identity({"questions": self.digest, **inputs}, settings, seed=self.config.seed)
        write_table(folder, "traces", rows, identity)


def _row(question_id: str, prompt: str, response: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(RHO_TERMS)
    row |= {"question_id": question_id, "source": 0, "prompt": prompt, "response": response}
    row |= {"weight": 1.0, "trace_id": 0, "answer_id": None, "question_accuracy": None}
    return row


def describe_arms(arms: Sequence[Arm]) -> str:
    """The lines that the command prints."""
    return "\n".join(
        f"{arm.path}: {arm.num_rows} rows, mean response {arm.mean_tokens:.1f} tokens"
        + (f", {arm.num_dropped} questions without a trace that fits" if arm.num_dropped else "")
        for arm in arms
    )
