"""The trace that the verbal chain gives: what a model's trace could tell at best.

    chain      verbal traces: the chain of the questions table itself
    posterior  symbols: what a posterior samples that sees question and chain
    clusters   symbols: the clusters of the chain's steps

The last two are a table of stage 3's columns, controls/chain in the folder of the evaluation.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from variational_reasoning.method.abstract import symbols_text
from variational_reasoning.method.prompts import Decode, Encode
from variational_reasoning.model_record import model_identity
from variational_reasoning.pipeline.clusters import states_model, symbols_of
from variational_reasoning.pipeline.config import resolved
from variational_reasoning.pipeline.controls.exchange import Trace, chain_of, closed_trace
from variational_reasoning.pipeline.engines import Request, engine_name, open_engine
from variational_reasoning.pipeline.engines.fitting import check_prompt_kind
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import (
    Identity,
    is_written,
    open_stage,
    read_rows,
    table_digest,
    write_table,
)
from variational_reasoning.pipeline.sample import (
    Sampler,
    ShardRequests,
    TraceSampler,
    sample_seed,
    span_settings,
)
from variational_reasoning.pipeline.tables import given_trace
from variational_reasoning.pipeline.work.job import StageJob, do_shards

FOLDER = "controls/chain"

Rows = Mapping[str, Mapping[str, Any]]
"""question_id to the row of a question that has a chain."""


def chain_traces(
    benchmark: Benchmark, model: Model, encode: Encode, decode: Decode
) -> tuple[dict[str, Trace], dict[str, str]]:
    """({question_id: the trace}, digests of what they are made from).

    Raises: ValueError for a source that does not fit the model's traces, or that is not there.
    """
    rows = {}
    for row in benchmark.questions:
        if row.get("trace"):
            rows[row["question_id"]] = row
    source = source_of(model)
    if source == "none" or not rows:
        return {}, {}
    boundary = model.renderer.boundary
    chains: dict[str, Trace] = {}
    if source == "chain":
        for question_id, row in rows.items():
            chains[question_id] = chain_of(row["trace"], boundary, encode, decode)
        return chains, {"chains": _digest(rows, ["trace"])}
    folder = benchmark.folder / FOLDER
    if source == "posterior":
        _sample(rows, folder, model)
    else:
        _cluster(rows, folder, model, encode)
    for row in read_rows(folder, "traces", ["question_id", "token_ids"]):
        trace = closed_trace(row["token_ids"], boundary, decode)
        if trace is not None:
            chains[row["question_id"]] = trace
    return chains, {"chains": table_digest(folder, "traces")}


def source_of(model: Model) -> str:
    """Where the traces are from: eval.controls.chain, with `auto` decided.

    Raises: ValueError for symbols where traces are verbal, and the reverse.
    """
    config = model.config
    setting = config.eval.controls.chain
    is_abstract = model.renderer.is_abstract
    if setting == "none":
        return "none"
    if setting == "auto":
        return _default_source(model)
    is_for_symbols = setting != "chain"
    if is_for_symbols != is_abstract:
        kind, allowed = "text", "chain"
        if is_abstract:
            kind, allowed = "symbols", "clusters, posterior"
        raise ValueError(
            f"eval.controls.chain: {setting!r} does not fit a model whose traces are {kind}; set "
            f"one of {allowed}, none, auto"
        )
    return setting


def _default_source(model: Model) -> str:
    """What `auto` is: for symbols the posterior, or else the clusters, where these are there."""
    if not model.renderer.is_abstract:
        return "chain"
    if model.config.model_folder("posterior").is_dir():
        return "posterior"
    if states_model(model.config) is not None:
        return "clusters"
    return "none"


def _cluster(rows: Rows, folder: Path, model: Model, encode: Encode) -> None:
    """Fill the table with the clusters of the steps."""
    config = model.config
    inputs = {
        "steps": table_digest(config.folder("steps"), "steps"),
        "step_clusters": table_digest(config.folder("step_clusters"), "step_clusters"),
        "chains": _digest(rows, ["question", "trace"]),
    }
    settings = model.renderer.to_record() | resolved(config, "sampling.max_symbols")
    identity = Identity(inputs, settings)
    if is_written(folder, "traces", identity):
        return
    traces = []
    for question_id, symbols in symbols_of(config, rows).items():
        if len(symbols) > config.sampling.max_symbols:
            continue
        text = symbols_text(symbols, config.steps.clusters)
        ids = encode(text + model.renderer.boundary)
        traces.append(given_trace(question_id, text, ids, "clusters"))
    write_table(folder, "traces", traces, identity)


def _digest(rows: Rows, columns: Sequence[str]) -> str:
    """Of the names of the questions with these columns.

    Of the columns question and trace: the digest of [["q1", "1+5=", "+5=6"], ...] as JSON.
    """
    values = []
    for question_id, row in rows.items():
        texts = [row[column] for column in columns]
        values.append([question_id, *texts])
    text = json.dumps(values)
    return hashlib.sha256(text.encode()).hexdigest()


def _sample(rows: Rows, folder: Path, model: Model) -> None:
    """Fill the table with a trace of the posterior for each question."""
    config = model.config
    posterior = config.model_folder("posterior")
    kind = model.renderer.family.posteriors[-1]
    check_prompt_kind(posterior, kind, model.renderer, config)
    identity = Identity(
        inputs={"chains": _digest(rows, ["question", "trace"])},
        config={
            **model.renderer.to_record(),
            "prompt_kind": kind,
            "sampling.engine": engine_name(config),
            **resolved(config, "cutoff_len", "sampling.dtype", "eval.top_p"),
            **resolved(config, "eval.temperature", "eval.trace_temperature"),
            **span_settings(config, model.renderer),
        },
        model=model_identity(posterior),
        seed=config.seed,
    )
    per_shard = config.eval.answers_per_shard
    job = StageJob(
        stage=open_stage(folder, "traces", identity, list(rows), per_shard),
        title=f"reads {len(rows)} verbal chains, {posterior} ({kind}); writes {folder}",
        row="trace",
        size=lambda unit: 1,
        cost=lambda unit: 1.0,
        load=lambda: ChainSampler(rows, kind, posterior, model),
    )
    # All shards, whatever the share of this process: every process needs all traces.
    num_shards = len(job.stage.shards)
    do_shards(job, set(range(num_shards)))


class ChainSampler(TraceSampler):
    """The worker that asks the posterior."""

    def __init__(self, rows: Rows, kind: str, posterior: Path, model: Model) -> None:
        engine = open_engine(model.config, str(posterior))
        # TraceSampler.__init__ wants stage 3's questions and hints, which are not there.
        Sampler.__init__(self, model.config, engine)
        self.rows = rows
        self.kind = kind
        self.renderer = model.renderer
        settings = model.config.eval
        self.temperature = settings.temperature
        if settings.trace_temperature is not None:
            self.temperature = settings.trace_temperature
        self.span = self._span(self.temperature)
        self._expert_traces: dict[str, str] = {}

    def plan(self, units: Sequence[str]) -> ShardRequests:
        """See Sampler."""
        assert self.span is not None  # traces are symbols
        needed = self.span.max_symbols + 1  # the symbols and the boundary
        requests = []
        dropped = []
        for question_id in units:
            row = self.rows[question_id]
            self._expert_traces[question_id] = ""
            prompt = self.renderer.encode_prompt(
                self.kind, row["question"], row["trace"], self.encode
            )
            room = self.config.cutoff_len - len(prompt)
            if room < needed:
                dropped.append(self._no_room(question_id, len(prompt)))
                continue
            request = Request(
                key=(question_id, 0),
                prompt_ids=prompt,
                max_new_tokens=needed,
                seed=sample_seed(self.config.seed, f"chain/{question_id}"),
                stop=self.renderer.trace_stops,
                temperature=self.temperature,
                top_p=self.config.eval.top_p,
                span=self.span,
            )
            requests.append(request)
        num_dropped = len(dropped)
        counts = Counter(dropped=num_dropped)
        return ShardRequests(requests, dropped, counts, num_dropped)

    def row(self, request: Request, result: Any, counts: Counter) -> dict[str, Any]:
        """See Sampler."""
        row = super().row(request, result, counts)
        return row | {"temperature": self.temperature}
