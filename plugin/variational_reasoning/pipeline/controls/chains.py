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

from variational_reasoning.method.abstract import symbol_names
from variational_reasoning.method.prompts import Decode, Encode
from variational_reasoning.model_record import model_identity
from variational_reasoning.pipeline.clusters import states_model, symbols_of
from variational_reasoning.pipeline.config import resolved
from variational_reasoning.pipeline.controls.exchange import Trace, chain_of, closed_trace
from variational_reasoning.pipeline.engines import Request, engine_name, open_engine
from variational_reasoning.pipeline.engines.fitting import check_prompt_kind
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import (
    MANIFEST,
    Identity,
    open_stage,
    read_manifest,
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
from variational_reasoning.pipeline.work.job import StageJob, do_shards

FOLDER = "controls/chain"


def chain_traces(
    benchmark: Benchmark, model: Model, encode: Encode, decode: Decode
) -> tuple[dict[str, Trace], dict[str, str]]:
    """({question_id: the trace}, digests of what they are made from).

    Raises: ValueError for a source that does not fit the model's traces, or that is not there.
    """
    rows = {row["question_id"]: row for row in benchmark.questions if row.get("trace")}
    source = source_of(model)
    if source == "none" or not rows:
        return {}, {}
    if source == "chain":
        text = json.dumps([[name, row["trace"]] for name, row in rows.items()])
        digest = hashlib.sha256(text.encode()).hexdigest()
        boundary = model.renderer.boundary
        verbal = {}
        for name, row in rows.items():
            verbal[name] = chain_of(row["trace"], boundary, encode, decode)
        return verbal, {"chains": digest}
    folder = benchmark.folder / FOLDER
    if source == "posterior":
        _sample(rows, folder, model)
    else:
        _cluster(rows, folder, model, encode)
    chains = {}
    for row in read_rows(folder, "traces", ["question_id", "token_ids"]):
        trace = closed_trace(row["token_ids"], model.renderer.boundary, decode)
        if trace is not None:
            chains[row["question_id"]] = trace
    return chains, {"chains": table_digest(folder, "traces")}


def source_of(model: Model) -> str:
    """Where the traces are from: eval.controls.chain, with `auto` decided.

    Raises: ValueError for symbols where traces are verbal, and the reverse.
    """
    config = model.config
    setting, is_abstract = config.eval.controls.chain, model.renderer.is_abstract
    if setting == "auto" and not is_abstract:
        return "chain"
    if setting == "auto":
        if config.model_folder("posterior").is_dir():
            return "posterior"
        return "none" if states_model(config) is None else "clusters"
    if setting != "none" and (setting == "chain") == is_abstract:
        kind, allowed = ("symbols", "clusters, posterior") if is_abstract else ("text", "chain")
        raise ValueError(
            f"eval.controls.chain: {setting!r} does not fit a model whose traces are {kind}; set "
            f"one of {allowed}, none, auto"
        )
    return setting


def _cluster(
    rows: Mapping[str, Mapping[str, Any]], folder: Path, model: Model, encode: Encode
) -> None:
    """Fill the table with the clusters of the steps."""
    config = model.config
    identity = Identity(
        {
            "steps": table_digest(config.folder("steps"), "steps"),
            "step_clusters": table_digest(config.folder("step_clusters"), "step_clusters"),
            "chains": _digest(rows),
        },
        model.renderer.to_record() | resolved(config, "sampling.max_symbols"),
    )
    if (folder / MANIFEST).is_file() and _is_of(read_manifest(folder, "traces"), identity):
        return
    names = symbol_names(config.steps.clusters)
    traces = []
    for question_id, symbols in symbols_of(config, rows).items():
        if len(symbols) > config.sampling.max_symbols:
            continue
        text = "".join(names[symbol] for symbol in symbols)
        ids = encode(text + model.renderer.boundary)
        row = {"question_id": question_id, "trace_id": 0, "token_ids": ids, "text": text}
        row |= {"finish_reason": "stop", "is_well_formed": True, "is_retokenized": False}
        traces.append(row | {"seed": 0, "prompt_kind": "clusters", "temperature": 0.0})
    write_table(folder, "traces", traces, identity)


def _is_of(manifest: Mapping[str, Any], identity: Identity) -> bool:
    return all(manifest.get(name) == value for name, value in identity.to_dict().items())


def _digest(rows: Mapping[str, Mapping[str, Any]]) -> str:
    text = json.dumps([[name, row["question"], row["trace"]] for name, row in rows.items()])
    return hashlib.sha256(text.encode()).hexdigest()


def _sample(rows: Mapping[str, Mapping[str, Any]], folder: Path, model: Model) -> None:
    """Fill the table with a trace of the posterior for each question."""
    config = model.config
    posterior, kind = config.model_folder("posterior"), model.renderer.family.posteriors[-1]
    check_prompt_kind(posterior, kind, model.renderer, config)
    identity = Identity(
        {"chains": _digest(rows)},
        {
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
    do_shards(job, set(range(len(job.stage.shards))))


class ChainSampler(TraceSampler):
    """The worker that asks the posterior."""

    def __init__(
        self, rows: Mapping[str, Mapping[str, Any]], kind: str, posterior: Path, model: Model
    ) -> None:
        Sampler.__init__(self, model.config, open_engine(model.config, str(posterior)))
        self.rows, self.kind, self.renderer = rows, kind, model.renderer
        settings = model.config.eval
        own = settings.trace_temperature
        self.temperature = settings.temperature if own is None else own
        self.span = self._span(self.temperature)
        self._expert_traces: dict[str, str] = {}

    def plan(self, units: Sequence[str]) -> ShardRequests:
        """See Sampler."""
        assert self.span is not None  # traces are symbols
        needed, settings = self.span.max_symbols + 1, self.config.eval
        requests, dropped = [], []
        for question_id in units:
            row = self.rows[question_id]
            self._expert_traces[question_id] = ""
            prompt = self.renderer.encode_prompt(
                self.kind, row["question"], row["trace"], self.encode
            )
            if self.config.cutoff_len - len(prompt) < needed:
                dropped.append(self._no_room(question_id, len(prompt)))
                continue
            request = Request(
                (question_id, 0),
                prompt,
                needed,
                sample_seed(self.config.seed, f"chain/{question_id}"),
                self.renderer.trace_stops,
                self.temperature,
                settings.top_p,
                self.span,
            )
            requests.append(request)
        return ShardRequests(requests, dropped, Counter(dropped=len(dropped)), len(dropped))

    def row(self, request: Request, result: Any, counts: Counter) -> dict[str, Any]:
        """See Sampler."""
        return super().row(request, result, counts) | {"temperature": self.temperature}
