"""Does a model use its trace? Its answers after other traces than its own, for the same questions.

    own        the trace that it wrote in its evaluation; what the others are compared with
    donor      the trace of another question
    random     as many tokens, each at random among those of all traces
    shuffled   its own tokens in another order
    replaced   its own, but for one token in the middle; what comes after it stays
    none       the opening and the closing tag with nothing between

A model that uses its trace loses its accuracy with `donor`, `random` and `none`, and most of its
answers change. One that does not gives the same answers whatever is in the trace. It works for any
model with a trace, of symbols or of words: what is exchanged are the tokens before the boundary.

All kinds have the same questions, and one seed per question, so that equal traces have equal
answers. The answer to `own` is drawn again with that seed: above temperature 0 its accuracy differs
from the evaluation's by noise.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from variational_reasoning.files import read_json_object, write_json
from variational_reasoning.method.evaluation import mean_and_error
from variational_reasoning.method.prompts import REASONER, Decode, Encode
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.engines import Request, text_codec
from variational_reasoning.pipeline.evaluate import Benchmark, Model
from variational_reasoning.pipeline.rows import digest_of, read_manifest, read_rows
from variational_reasoning.pipeline.sample import sample_seed
from variational_reasoning.pipeline.verify import open_pool, open_programs, read_checks
from variational_reasoning.verify.pool import Job
from variational_reasoning.verify.verdicts import Verdict

CONTROLS = "controls.json"
KINDS = ("own", "donor", "random", "shuffled", "replaced", "none")
FIGURES = ("accuracy", "standard_error", "changed", "unanswered")
"""Of a kind, in [0, 1]. unanswered: the share of answers that are not closed, so say nothing."""

Traces = dict[str, list[int]]
"""question_id to the tokens of a trace, without those of the boundary."""


def run_controls(benchmark: Benchmark, model: Model) -> dict[str, Any]:
    """The controls of a model whose evaluation is done, written next to its result.

    Returns: FIGURES of each kind; no kind where fewer than two of the samples have a closed trace
    with room for an answer.

    Raises: ValueError where there is no finished evaluation.
    """
    config = model.config
    samples = read_manifest(benchmark.folder / "samples", "samples")
    identity = {"samples": digest_of(samples), "seed": config.seed}
    identity |= {"kinds": list(KINDS), "figures": list(FIGURES)}
    path = benchmark.folder / CONTROLS
    if path.is_file():
        found = read_json_object(path, f"remove {path}")
        if found["identity"] == identity:
            return found
    encode, decode = text_codec(model.engine.tokenizer)
    own = own_traces(read_rows(benchmark.folder / "samples", "samples"), model, encode, decode)
    num_without_trace = len(benchmark.questions) - len(own)
    figures: dict[str, dict[str, Any]] = {}
    if len(own) > 1:  # a trace can only be exchanged for another one
        traces = {kind: exchange(kind, own, config.seed) for kind in KINDS}
        answers = ask(traces, benchmark, model, encode, decode)
        own = {name: trace for name, trace in own.items() if ("own", name) in answers}
        figures = judge(answers, benchmark, config) if own else {}
    result = {
        "identity": identity,
        "num_questions": len(own),
        "num_without_trace": num_without_trace,
        "num_without_room": len(benchmark.questions) - num_without_trace - len(own),
        "kinds": figures,
    }
    write_json(path, result)
    return result


def own_traces(
    rows: Sequence[Mapping[str, Any]], model: Model, encode: Encode, decode: Decode
) -> Traces:
    """The trace of every question's first sample; those without a boundary are left out."""
    boundary = encode(model.renderer.boundary)
    found: Traces = {}
    for row in sorted(rows, key=lambda row: (row["question_id"], row["answer_id"])):
        cut = model.renderer.cut_trace(REASONER, row["token_ids"], encode, decode)
        is_closed = cut.token_ids[-len(boundary) :] == boundary
        if is_closed and row["question_id"] not in found:
            found[row["question_id"]] = cut.token_ids[: -len(boundary)]
    return found


def exchange(kind: str, own: Traces, seed: int) -> Traces:
    """Other traces for the same questions, a function of the seed."""
    names = sorted(own)
    rng = random.Random(f"controls {seed} {kind}")
    pieces = sorted({piece for trace in own.values() for piece in trace})
    if kind == "own":
        return dict(own)
    if kind == "none" or not pieces:
        return {name: [] for name in names}
    if kind == "donor":
        # Every question gives its trace to the next one in a random circle.
        rng.shuffle(names)
        return {name: own[giver] for name, giver in zip(names, names[1:] + names[:1], strict=True)}
    exchanged: Traces = {}
    for name in names:
        trace = list(own[name])
        if kind == "random":
            trace = rng.choices(pieces, k=len(trace))
        elif kind == "shuffled":
            rng.shuffle(trace)
        elif trace and len(pieces) > 1:
            middle = len(trace) // 2
            trace[middle] = rng.choice([piece for piece in pieces if piece != trace[middle]])
        exchanged[name] = trace
    return exchanged


def ask(
    traces: Mapping[str, Traces],
    benchmark: Benchmark,
    model: Model,
    encode: Encode,
    decode: Decode,
) -> dict[tuple[str, str], str | None]:
    """{(kind, question_id): the solution after this trace, None where it is not closed}.

    The settings are the evaluation's. A question that some kind leaves no room is left out of all.
    """
    config, renderer = model.config, model.renderer
    boundary = [*encode(renderer.boundary), *renderer.encode_separator(encode)]
    settings = (config.eval.temperature, config.eval.top_p)
    requests = []
    for row in benchmark.questions:
        name = row["question_id"]
        if name not in traces["own"]:
            continue
        prompt = renderer.encode_prompt(REASONER, row["question"], None, encode)
        seed = sample_seed(config.seed, f"controls/{name}")
        ids = {kind: [*prompt, *traces[kind][name], *boundary] for kind in traces}
        room = config.cutoff_len - max(map(len, ids.values()))
        if room < 1:
            continue
        limit = min(config.eval.max_new_tokens or room, room)
        for kind, whole in ids.items():
            key = (kind, name)
            requests.append(Request(key, whole, limit, seed, renderer.answer_stops, *settings))
    results = model.engine.generate(requests) if requests else []
    return {
        request.key: renderer.solution_of_answer(decode(result.token_ids))
        for request, result in zip(requests, results, strict=True)
    }


def judge(
    answers: Mapping[tuple[str, str], str | None], benchmark: Benchmark, config: Config
) -> dict[str, dict[str, Any]]:
    """FIGURES of each kind. Two answers that are not closed count as the same."""
    checks = read_checks(benchmark.questions)
    jobs = [Job(key, checks[key[1]], solution) for key, solution in answers.items()]
    with closing(open_pool(config, open_programs(checks, config))) as pool:
        verdicts = {key: result.verdict for key, result in pool.check(jobs)}
    figures = {}
    for kind in KINDS:
        keys = [key for key in answers if key[0] == kind]
        right = mean_and_error([float(verdicts[key] == Verdict.CORRECT) for key in keys])
        own = {key: answers.get(("own", key[1])) for key in keys}
        changed = mean_and_error([float(answers[key] != own[key]) for key in keys])
        figures[kind] = {
            "accuracy": right.mean,
            "standard_error": right.standard_error,
            "changed": changed.mean,
            "unanswered": mean_and_error([float(answers[key] is None) for key in keys]).mean,
        }
    return figures


def describe_controls(name: str, result: Mapping[str, Any]) -> str:
    """A Markdown table."""
    lines = [
        f"{name}: {result['num_questions']} questions, {result['num_without_trace']} without a "
        f"closed trace, {result['num_without_room']} without room for an answer",
        "",
        "| trace | accuracy | answers that change | not answered |",
        "|---|---|---|---|",
    ]
    for kind, figures in result["kinds"].items():
        error = figures["standard_error"] or 0.0
        lines.append(
            f"| {kind} | {100 * figures['accuracy']:.1f} ± {100 * error:.1f} | "
            f"{100 * figures['changed']:.0f} % | {100 * figures['unanswered']:.0f} % |"
        )
    return "\n".join(lines)
