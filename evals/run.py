"""The embedded evaluation: Avg@k of a model on the test questions, with the prompt, seeds and verifier of the pipeline.

Each question is sampled eval.num_samples times from the reasoner's prompt to the end of the solution, every response is
verified, and Avg@k is the mean over questions of the share of correct samples; its standard error is over questions. An
answer without a complete pair of solution tags is wrong and is counted as such; there is no fallback to the last
number."""

import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from variational_reasoning.method.prompts import (
    chat_format_to_dict,
    extract_solution,
    load_chat_format,
    render_prompt,
)
from variational_reasoning.model_record import model_identity, read_record
from variational_reasoning.pipeline.config import Config, read_command, resolved, run_command
from variational_reasoning.pipeline.engines import Request, engine_name, open_engine, text_codec
from variational_reasoning.pipeline.rows import (
    Identity,
    file_digest,
    group_by,
    open_stage,
    read_rows,
    table_digest,
    write_json,
)
from variational_reasoning.pipeline.sample import answer_stops, check_prompt_kind, sample_seed
from variational_reasoning.pipeline.timings import timed
from variational_reasoning.pipeline.verify import open_programs
from variational_reasoning.verify.checks import parse_check
from variational_reasoning.verify.pool import Job, VerifierPool
from variational_reasoning.verify.verdicts import UNDECIDED, Verdict

USAGE = """usage: python evals/run.py CONFIG.yaml model=FOLDER|NAME name=NAME [key=value ...]
Samples and verifies eval.num_samples responses for each test question, and prints Avg@k.
model is a folder, or the name of one in run_dir/models; reads run_dir/questions (or eval.file); writes
run_dir/evals/NAME"""


def evaluate(config: Config, model: str, name: str) -> dict[str, Any]:
    """Evaluate one model and return what result.json holds.

    Raises: ValueError for a model of another prompt, questions without a check, or too many answers that no checker
    decides."""
    chat_format = load_chat_format(config.chat_format)
    folder = config.folder("evals", name)
    model_folder = Path(model) if Path(model).is_dir() else config.model_folder(model)
    if not model_folder.is_dir():
        raise ValueError(f"model={model!r} is no folder, and {model_folder} does not exist")
    if (read_record(model_folder) or {}).get("prompt_kind") is not None:
        check_prompt_kind(model_folder, "reasoner", chat_format, config)
    questions, digest = _questions(config)
    by_id = {row["question_id"]: row for row in questions}
    checks = {question_id: parse_check(row["check"]) for question_id, row in by_id.items()}
    settings = config.eval
    identity = Identity(
        inputs={"questions": digest},
        config={
            "chat_format": chat_format_to_dict(chat_format),
            **resolved(config, "cutoff_len", "sampling.dtype", "eval.num_samples"),
            "sampling.engine": engine_name(config),
            **resolved(config, "eval.temperature", "eval.top_p", "eval.max_new_tokens", "verify.timeout_seconds"),
        },
        model=model_identity(model_folder),
        seed=config.seed,
    )
    stage = open_stage(folder, "evals", identity, list(by_id), settings.questions_per_shard)
    if stage.is_complete:
        print(f"{folder}: nothing to do, the evaluation was finished before")
    else:
        print(f"reads {len(questions)} questions, {model_folder}; writes {folder}")
        engine = open_engine(config, str(model_folder))
        encode, decode = text_codec(engine.tokenizer)
        stop = answer_stops(chat_format)
        pending = list(stage.pending())
        found = len(questions) - sum(len(units) for _, units in pending)
        started = time.monotonic()
        total = len(questions) * settings.num_samples
        with (
            VerifierPool(
                config.verify.workers, config.verify.timeout_seconds, config.verify.memory_mib, open_programs(checks, config)
            ) as pool,
            tqdm(total=total, initial=found * settings.num_samples, unit="answer") as bar,
        ):
            for index, units in pending:
                requests, dropped = [], []
                for question_id in units:
                    prompt_ids = encode(render_prompt("reasoner", chat_format, by_id[question_id]["question"]))
                    room = config.cutoff_len - len(prompt_ids)
                    room = min(room, settings.max_new_tokens or room)
                    if room < 1:
                        reason = f"no room in cutoff_len {config.cutoff_len}"
                        dropped.append({"question_id": question_id, "reason": reason})
                        continue
                    for answer_id in range(settings.num_samples):
                        key = (question_id, answer_id)
                        seed = sample_seed(config.seed, f"eval/{question_id}", answer_id)
                        requests.append(Request(key, prompt_ids, room, seed, stop, settings.temperature, settings.top_p))
                rows = {}
                for request, result in zip(requests, engine.generate(requests, bar.update), strict=True):
                    if result.error:
                        raise ValueError(f"question {request.key[0]}, sample {request.key[1]}: {result.error}")
                    rows[request.key] = {
                        "question_id": request.key[0],
                        "answer_id": request.key[1],
                        "token_ids": result.token_ids,
                        "text": decode(result.token_ids),
                        "finish_reason": result.finish_reason,
                        "seed": request.seed,
                    }
                jobs = [Job(key, checks[key[0]], extract_solution(row["text"])) for key, row in rows.items()]
                for key, result in pool.check(jobs):
                    rows[key] |= {"verdict": str(result.verdict), "reason": result.reason, "tier": result.tier}
                stage.write_shard(index, list(rows.values()), {}, dropped)
        seconds = time.monotonic() - started
        manifest = stage.finish(statistics=engine.statistics(), execution=resolved(config, "sampling.batch_tokens"))
        tokens = engine.statistics()["sampled_tokens"]
        print(f"{manifest['rows']} answers; this run: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s")
        if manifest["dropped"]:
            print(f"dropped: {len(manifest['dropped'])} questions whose prompt leaves no room in cutoff_len")
    result = {"name": name, "model": str(model_folder)} | summarize(read_rows(folder, "evals"))
    undecided = sum(result["verdicts"].get(str(verdict), 0) for verdict in UNDECIDED)
    if undecided > config.verify.max_fault_fraction * result["num_answers"]:
        raise ValueError(
            f"{folder}: no checker decides {undecided} of {result['num_answers']} answers ({result['verdicts']}), more "
            f"than verify.max_fault_fraction {config.verify.max_fault_fraction}; Avg@k would say nothing"
        )
    write_json(folder / "result.json", result)
    return result


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Avg@k and what belongs to it, from the rows of an evals table; shares are in [0, 1].

    The standard error is that of the mean over questions (null for one question).
    """
    groups = group_by(rows, "question_id").values()
    shares = [sum(row["verdict"] == str(Verdict.CORRECT) for row in group) / len(group) for group in groups]
    mean = sum(shares) / len(shares)
    variance = sum((share - mean) ** 2 for share in shares) / (len(shares) - 1) if len(shares) > 1 else None
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "num_questions": len(shares),
        "num_answers": len(rows),
        "num_samples": max(len(group) for group in groups),
        "avg": mean,
        "standard_error": None if variance is None else math.sqrt(variance / len(shares)),
        "mean_tokens": sum(len(row["token_ids"]) for row in rows) / len(rows),
        "truncated": sum(row["finish_reason"] == "length" for row in rows) / len(rows),
        "no_answer": verdicts[str(Verdict.NO_ANSWER)] / len(rows),
        "verdicts": dict(sorted(verdicts.items())),
    }


def describe(result: dict[str, Any]) -> str:
    """The line that the command prints."""
    error = "" if result["standard_error"] is None else f" ± {100 * result['standard_error']:.1f}"
    return (
        f"{result['name']}: Avg@{result['num_samples']} {100 * result['avg']:.1f}{error} on {result['num_questions']} "
        f"questions; mean tokens {result['mean_tokens']:.1f}, truncated {result['truncated']:.1%}, "
        f"no answer {result['no_answer']:.1%}"
    )


def _questions(config: Config) -> tuple[list[dict[str, Any]], str]:
    """(rows with question_id, question and check, digest) from the questions table or from eval.file."""
    columns = ["question_id", "question", "check"]
    if config.eval.file:
        path = Path(config.eval.file)
        if not path.is_file():
            raise ValueError(f"eval.file: {path} does not exist")
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            row = json.loads(line)
            missing = [name for name in columns if not row.get(name)]
            if missing:
                raise ValueError(f"{path}, line {number}: missing {missing}; a line holds {columns}")
            check = row["check"]
            rows.append(row | {"check": check if isinstance(check, str) else json.dumps(check)})
        digest, where = file_digest(path), str(path)
    else:
        table = config.folder("questions")
        rows = [row for row in read_rows(table, "questions", [*columns, "split"]) if row["split"] == config.eval.split]
        digest, where = table_digest(table, "questions"), f"{table} with split {config.eval.split}"
    if not rows:
        raise ValueError(f"there are no questions in {where}")
    return rows[: config.eval.max_questions], digest


def main() -> None:
    config, own = read_command(USAGE, own=("model", "name"))
    with timed(config.run_dir, f"evaluate_{own['name']}") as timing:
        timing.did_something = not config.folder("evals", own["name"], "result.json").is_file()
        result = evaluate(config, own["model"], own["name"])
    print(describe(result))


if __name__ == "__main__":
    run_command(main)
