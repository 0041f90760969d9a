"""Small tables of traces for the report's tests, made by the real writers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from variational_reasoning.pipeline.rows import Identity, write_table

NOTHING = Identity({}, {"sampling.num_answers": 2})


def write_traces(
    run: Path,
    questions: Mapping[str, str],
    traces: Mapping[tuple[str, int], Mapping[str, Any]],
    trace_tokens: int = 4,
    only_scores: bool = False,
) -> None:
    """Write questions, traces, trace_logps and verdicts.

    Args:
        questions: source by question_id; each has the gold answer 7.
        traces: by (question_id, trace_id) the values that differ: text, finish_reason,
            is_well_formed, `logps` of reasoner and posterior, and `verdicts`.
        only_scores: write nothing but the log-likelihoods.
    """
    ids = ("question_id", "trace_id")
    if not only_scores:
        rows = [
            {
                "question_id": name,
                "question": "?",
                "trace": "an expert finds 7",
                "solution": r"so \boxed{7}",
                "source": source,
            }
            | {"check": json.dumps({"kind": "math", "gold": "7"}), "split": "train"}
            for name, source in questions.items()
        ]
        write_table(
            run / "questions",
            "questions",
            rows,
            NOTHING,
            dropped_counts={"train": {"empty trace": 1}},
        )
        rows = [
            dict(zip(ids, key, strict=True))
            | {
                "token_ids": [1],
                "text": trace.get("text", "it is 7"),
                "finish_reason": trace.get("finish_reason", "stop"),
            }
            | {
                "is_well_formed": trace.get("is_well_formed", True),
                "is_retokenized": False,
                "seed": 0,
            }
            | {"prompt_kind": "posterior_b", "temperature": 0.7}
            for key, trace in traces.items()
        ]
        write_table(run / "traces", "traces", rows, NOTHING)
    scored = {key: trace["logps"] for key, trace in traces.items() if "logps" in trace}
    for i, model in enumerate(("reasoner", "posterior") if scored else ()):
        answer = {"answer_logp": -2.0, "answer_tokens": 5} if model == "reasoner" else {}
        rows = [
            dict(zip(ids, key, strict=True))
            | {
                "trace_logp": logps[i],
                "trace_tokens": trace_tokens,
                "answer_logp": None,
                "answer_tokens": None,
            }
            | {"temperature": 1.0, **answer}
            for key, logps in scored.items()
        ]
        write_table(run / "trace_logps" / model, "trace_logps", rows, NOTHING)
    rows = [
        dict(zip(ids, key, strict=True))
        | {"answer_id": i, "verdict": verdict, "reason": "", "seconds": 0.0, "tier": ""}
        for key, trace in traces.items()
        for i, verdict in enumerate(trace.get("verdicts", ()))
    ]
    if rows and not only_scores:
        write_table(run / "verdicts", "verdicts", rows, NOTHING)
