"""Stage 3, K traces per question, and stage 6, M answers per trace (Eqs. 5 and 8; Algorithm 1).

Prompts come from the one renderer and go to the engine as ids; what is stored are the sampled ids, and text is
derived from them. An answer continues the ids of prompt and trace and nothing else: the trace ends with the boundary
(`<|end_of`), and the model writes the rest of the closing tag itself, so no tokenizer can merge anything there.

Seeds are hashes of (run seed, question, trace, answer), so a sample does not depend on what else is sampled, and equal
traces of one question still get answers of their own. The reasoner's end tag or end of turn is part of the sampled ids.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from variational_reasoning.method.prompts import (
    PROMPT_KINDS,
    SOLUTION_CLOSE,
    ChatFormat,
    chat_format_to_dict,
    cut_trace,
    load_chat_format,
    render_prompt,
    thought_close,
)
from variational_reasoning.model_record import RECORD_NAME, model_identity, read_record
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import Engine, Request, open_engine, text_codec
from variational_reasoning.pipeline.rows import (
    Identity,
    group_by,
    open_stage,
    read_manifest,
    read_rows,
    table_digest,
)

TRACE_CLOSES = tuple(dict.fromkeys(thought_close(kind) for kind in PROMPT_KINDS))
"""A trace also ends at the tag of another prompt kind; it is malformed then, and more tokens would not mend it."""


@dataclass(frozen=True)
class Summary:
    """What a sampling stage did: the table's manifest, and what this process itself sampled, in which time."""

    folder: Path
    manifest: dict[str, Any]
    sampled: dict[str, int]
    seconds: float


def sample_traces(config: Config) -> Summary:
    """Stage 3: `sampling.num_traces` traces for each training question, into run_dir/traces.

    Raises: ValueError for a model that was trained on another prompt, a table of another run, or when no trace remains.
    """
    name = config.sampling.traces_from
    kind = config.posterior_prompt if name == "posterior" else "reasoner"
    chat_format = load_chat_format(config.chat_format)
    folder, model_folder = config.folder("traces"), config.model_folder(name)
    check_prompt_kind(model_folder, kind, chat_format, config)
    questions = training_questions(config)
    by_id = {row["question_id"]: row for row in questions}
    identity = Identity(
        inputs={"questions": table_digest(config.folder("questions"), "questions")},
        config={
            "prompt_kind": kind,
            "chat_format": chat_format_to_dict(chat_format),
            **resolved(config, "cutoff_len", "sampling.engine", "sampling.dtype", "sampling.num_traces"),
            **resolved(config, "sampling.temperature", "sampling.top_p", "sampling.max_trace_tokens"),
        },
        model=model_identity(model_folder),
        seed=config.seed,
    )
    stage = open_stage(folder, "traces", identity, list(by_id), config.sampling.questions_per_shard)
    if stage.is_complete:
        return Summary(folder, read_manifest(folder, "traces"), {}, 0.0)

    print(f"reads {len(questions)} training questions, {name} {model_folder} ({kind}); writes {folder}")
    engine = open_engine(config, str(model_folder))
    encode, decode = text_codec(engine.tokenizer)
    stop = (*TRACE_CLOSES, *answer_stops(chat_format))
    limit = config.sampling.max_trace_tokens or config.cutoff_len
    num_traces = config.sampling.num_traces
    pending = list(stage.pending())
    found = len(questions) - sum(len(units) for _, units in pending)
    started = time.monotonic()
    with tqdm(total=len(questions) * num_traces, initial=found * num_traces, unit="trace") as bar:
        for index, units in pending:
            requests, dropped = [], []
            for question_id in units:
                row = by_id[question_id]
                hint = None if kind == "reasoner" else row["solution"]
                prompt_ids = encode(render_prompt(kind, chat_format, row["question"], hint))
                room = min(limit, config.cutoff_len - len(prompt_ids))
                if room < 1:
                    dropped.append(_no_room(question_id, len(prompt_ids), config))
                    continue
                for trace_id in range(num_traces):
                    seed = sample_seed(config.seed, question_id, trace_id)
                    requests.append(_request(config, (question_id, trace_id), prompt_ids, room, seed, stop))
            rows, counts = [], Counter(dropped=len(dropped) * num_traces)
            for request, result in zip(requests, engine.generate(requests, bar.update), strict=True):
                question_id, trace_id = request.key
                cut = cut_trace(kind, chat_format, result.token_ids, encode, decode)
                row = {
                    "question_id": question_id,
                    "trace_id": trace_id,
                    "token_ids": cut.token_ids,
                    "text": cut.text,
                    "finish_reason": result.finish_reason,
                    "is_well_formed": cut.is_well_formed,
                    "is_retokenized": cut.is_retokenized,
                    "seed": request.seed,
                    "prompt_kind": kind,
                    "temperature": config.sampling.temperature,
                }
                rows.append(row)
                counts[result.finish_reason] += 1
                counts["tokens"] += len(result.token_ids)
                counts["malformed"] += not cut.is_well_formed
                counts["retokenized"] += cut.is_retokenized
                counts["copies_of_training_trace"] += cut.text.strip() == by_id[question_id]["trace"].strip()
            counts["duplicates"] = _duplicates(rows, "question_id")
            stage.write_shard(index, rows, counts, dropped)
            bar.update(len(dropped) * num_traces)
            _show_rate(bar, engine, started)
    seconds = time.monotonic() - started
    manifest = stage.finish(vocabulary=vocabulary_digest(engine.tokenizer), execution=_execution(config))
    return Summary(folder, manifest, engine.statistics(), seconds)


def sample_answers(config: Config) -> Summary:
    """Stage 6: `sampling.num_answers` answers of the reasoner after each well-formed trace, into run_dir/answers.

    Traces that are malformed, or after which cutoff_len leaves no room, get no answer and are counted.

    Raises: ValueError as `sample_traces` does; also when the reasoner's tokenizer is not the one of the traces.
    """
    chat_format = load_chat_format(config.chat_format)
    folder, model_folder = config.folder("answers"), config.model_folder("reasoner")
    check_prompt_kind(model_folder, "reasoner", chat_format, config)
    questions = {row["question_id"]: row for row in training_questions(config)}
    traces = read_rows(config.folder("traces"), "traces", ["question_id", "trace_id", "token_ids", "is_well_formed"])
    by_question = group_by(traces, "question_id")
    units = [question_id for question_id in questions if question_id in by_question]
    identity = Identity(
        inputs={
            "questions": table_digest(config.folder("questions"), "questions"),
            "traces": table_digest(config.folder("traces"), "traces"),
        },
        config={
            "chat_format": chat_format_to_dict(chat_format),
            **resolved(config, "cutoff_len", "sampling.engine", "sampling.dtype", "sampling.num_answers"),
            **resolved(config, "sampling.temperature", "sampling.top_p", "sampling.max_answer_tokens"),
        },
        model=model_identity(model_folder),
        seed=config.seed,
    )
    stage = open_stage(folder, "answers", identity, units, config.sampling.questions_per_shard)
    if stage.is_complete:
        return Summary(folder, read_manifest(folder, "answers"), {}, 0.0)

    print(f"reads {len(traces)} traces of {len(units)} questions, reasoner {model_folder}; writes {folder}")
    engine = open_engine(config, str(model_folder))
    check_vocabulary(config, engine.tokenizer, model_folder)
    encode, decode = text_codec(engine.tokenizer)
    stop = answer_stops(chat_format)
    limit = config.sampling.max_answer_tokens or config.cutoff_len
    started = time.monotonic()
    pending = list(stage.pending())
    left = sum(len(by_question[question_id]) for _, ids in pending for question_id in ids)
    num_answers = config.sampling.num_answers
    with tqdm(total=len(traces) * num_answers, initial=(len(traces) - left) * num_answers, unit="answer") as bar:
        for index, ids in pending:
            requests, dropped, counts = [], [], Counter(traces=0, malformed=0, no_room=0)
            for question_id in ids:
                prompt_ids = encode(render_prompt("reasoner", chat_format, questions[question_id]["question"]))
                for trace in by_question[question_id]:
                    trace_id, start_ids = trace["trace_id"], prompt_ids + trace["token_ids"]
                    room = min(limit, config.cutoff_len - len(start_ids))
                    counts["traces"] += 1
                    if not trace["is_well_formed"]:
                        counts["malformed"] += 1
                    elif room < 1:
                        counts["no_room"] += 1
                        dropped.append(_no_room(question_id, len(start_ids), config) | {"trace_id": trace_id})
                    else:
                        for answer_id in range(num_answers):
                            seed = sample_seed(config.seed, question_id, trace_id, answer_id)
                            key = (question_id, trace_id, answer_id)
                            requests.append(_request(config, key, start_ids, room, seed, stop))
            rows = []
            for request, result in zip(requests, engine.generate(requests, bar.update), strict=True):
                row = dict(zip(("question_id", "trace_id", "answer_id"), request.key, strict=True))
                row |= {
                    "token_ids": result.token_ids,
                    "text": decode(result.token_ids),
                    "finish_reason": result.finish_reason,
                    "seed": request.seed,
                }
                rows.append(row)
                counts[result.finish_reason] += 1
                counts["tokens"] += len(result.token_ids)
            counts["duplicates"] = _duplicates(rows, "question_id", "trace_id")
            stage.write_shard(index, rows, counts, dropped)
            bar.update((counts["malformed"] + counts["no_room"]) * num_answers)
            _show_rate(bar, engine, started)
    seconds = time.monotonic() - started
    manifest = stage.finish(vocabulary=vocabulary_digest(engine.tokenizer), execution=_execution(config))
    return Summary(folder, manifest, engine.statistics(), seconds)


def describe(summary: Summary) -> str:
    """The lines that a sampling command prints at its end."""
    manifest, counts = summary.manifest, summary.manifest["counts"]
    shown = ", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in sorted(counts))
    lines = [f"{summary.folder}: {manifest['rows']} rows in {len(manifest['shards'])} shards; {shown}"]
    if manifest["dropped"]:
        reasons = Counter(row["reason"] for row in manifest["dropped"])
        lines.append("dropped: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items()))
    if not summary.sampled:
        lines.append("nothing to do: the table was finished before")
    else:
        tokens = summary.sampled.get("sampled_tokens", summary.sampled.get("tokens", 0))
        rate = tokens / summary.seconds if summary.seconds else 0.0
        lines.append(f"this run: {tokens} tokens in {summary.seconds:.1f} s, {rate:.0f} tokens/s")
        if shared := summary.sampled.get("prompt_tokens_shared"):
            share = shared / (shared + summary.sampled["prompt_tokens_computed"])
            lines[-1] += f"; {shared} prompt tokens ({share:.0%}) were shared by samples and not computed again"
    return "\n".join(lines)


def sample_seed(run_seed: int, question_id: str, *indices: int) -> int:
    """A 63-bit seed that is a function of its arguments only: no two rows share their noise (defect 33, rule R4)."""
    text = json.dumps([run_seed, question_id, *indices])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def answer_stops(chat_format: ChatFormat) -> tuple[str, ...]:
    """Where an answer, or a whole response, ends: at the solution's closing tag or the end of turn."""
    return (SOLUTION_CLOSE, chat_format.end_of_turn)


def training_questions(config: Config) -> list[dict[str, Any]]:
    """The questions of the train split, in the table's order. Raises: ValueError when there is none."""
    rows = read_rows(config.folder("questions"), "questions", ["question_id", "question", "trace", "solution", "split"])
    rows = [row for row in rows if row["split"] == "train"]
    if not rows:
        raise ValueError(f"{config.folder('questions')} has no question whose split is train")
    return rows


def check_prompt_kind(folder: Path, kind: str, chat_format: ChatFormat, config: Config) -> None:
    """Refuse a model that was trained on another prompt than the one it is about to be given.

    Raises: ValueError that names both; also for a model without a record, unless models.allow_unrecorded is true.
    """
    if not folder.is_dir():
        raise ValueError(f"the model folder {folder} does not exist; train the model first, or set models.*")
    record = read_record(folder) or {}
    faults = []
    if record.get("prompt_kind") not in (None, kind):
        faults.append(
            f"it was trained on the prompt {record['prompt_kind']!r}, but would be given {kind!r} "
            "(posterior_prompt in the pipeline.yaml, prompt_kind in the training YAML)"
        )
    if record.get("chat_format") not in (None, chat_format_to_dict(chat_format)):
        faults.append(f"its chat format was {record['chat_format']}, but it would be given {chat_format}")
    if faults:
        raise ValueError(f"model {folder}: " + "; ".join(faults))
    silent = [name for name in ("prompt_kind", "chat_format") if record.get(name) is None]
    if silent and not config.models.allow_unrecorded:
        raise ValueError(
            f"{folder / RECORD_NAME} does not say the model's {' and '.join(silent)}, so nothing shows that it was trained on "
            f"the prompt {kind!r}; set them in the training YAML, or, if you know it, set models.allow_unrecorded: true"
        )


def vocabulary_digest(tokenizer: Any) -> str:
    """sha256 over a tokenizer's pieces and their ids: equal for two copies of one tokenizer, whoever saved them."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def check_vocabulary(config: Config, tokenizer: Any, model_folder: Path) -> None:
    """Raises: ValueError when this tokenizer's ids are not the ids of the traces."""
    if vocabulary_digest(tokenizer) != read_manifest(config.folder("traces"), "traces").get("vocabulary"):
        raise ValueError(
            f"the tokenizer of {model_folder} is not the one that the traces in {config.folder('traces')} were sampled "
            "with, so their ids mean other text; reasoner and posterior must start from one base model"
        )


def _request(config: Config, key: tuple, prompt_ids: Sequence[int], room: int, seed: int, stop: tuple[str, ...]) -> Request:
    return Request(key, prompt_ids, room, seed, stop, config.sampling.temperature, config.sampling.top_p)


def _no_room(question_id: str, num_tokens: int, config: Config) -> dict[str, Any]:
    return {"question_id": question_id, "reason": f"no room in cutoff_len {config.cutoff_len}", "tokens": num_tokens}


def _duplicates(rows: Sequence[Mapping[str, Any]], *columns: str) -> int:
    """Rows whose ids equal those of an earlier row of the same group."""
    groups = group_by(rows, *columns).values()
    return sum(len(group) - len({tuple(row["token_ids"]) for row in group}) for group in groups)


def _show_rate(bar: tqdm, engine: Engine, started: float) -> None:
    rate = engine.statistics()["sampled_tokens"] / max(time.monotonic() - started, 1e-9)
    bar.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)


def _execution(config: Config) -> dict[str, Any]:
    """How the rows were computed, where that changes them by float noise at most; in the manifest, not compared."""
    return resolved(config, "sampling.device", "sampling.batch_tokens")
