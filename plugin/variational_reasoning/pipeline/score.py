"""Stages 4 and 5: log-likelihoods of every trace, and of the reference solution after it (terms of rho, before Eq. 8).

For a question x, a trace z and a model: trace_logp = sum over the trace's ids of log p(z_t | prompt, z_<t), in nats,
on the ids that were sampled, boundary included. For the reasoner also answer_logp, the same sum over the ids of the
reference solution that follow prompt, trace and the fixed tags; the tags themselves are not counted. The posterior's
prompt holds the solution as the hint, so it is not asked for an answer.

The logits of a whole sequence never exist: the model's body gives hidden states, and the head is applied to chunks of
the positions that are needed, with the log-softmax in float32. A row's numbers do not depend on the rows beside it:
padding stands on the right and is masked. The paper compares at temperature 1; `scoring.temperature` divides the
logits."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from variational_reasoning.method.prompts import (
    chat_format_to_dict,
    encode_answer,
    load_chat_format,
    render_prompt,
)
from variational_reasoning.model_record import model_identity
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import load_model, load_tokenizer, text_codec
from variational_reasoning.pipeline.rows import (
    Identity,
    group_by,
    open_stage,
    read_manifest,
    read_rows,
    table_digest,
)
from variational_reasoning.pipeline.sample import (
    Summary,
    check_prompt_kind,
    check_vocabulary,
    training_questions,
)

SCORED_MODELS = ("reasoner", "posterior")


class ScoredSequence(NamedTuple):
    """A row to score: ids, and the spans [start, stop) of ids whose log-likelihoods are summed; start is at least 1."""

    key: tuple
    token_ids: Sequence[int]
    spans: Sequence[tuple[int, int]]


def score_traces(config: Config, model_name: str) -> Summary:
    """Stage 4 (reasoner) or 5 (posterior): log-likelihoods of the well-formed traces, into run_dir/trace_logps/<model>.

    Malformed traces are counted and not scored: their ids do not end with the boundary, so the ratio would compare
    different events. Rows beyond cutoff_len are dropped and counted, because no training could use them.

    Args:
        model_name: reasoner or posterior.

    Raises: ValueError for another name, a model trained on another prompt, another tokenizer, and values that are not
    finite."""
    if model_name not in SCORED_MODELS:
        raise ValueError(f"model={model_name!r} is not one of {', '.join(SCORED_MODELS)}")
    kind = config.posterior_prompt if model_name == "posterior" else "reasoner"
    chat_format = load_chat_format(config.chat_format)
    folder, model_folder = config.folder("trace_logps", model_name), config.model_folder(model_name)
    check_prompt_kind(model_folder, kind, chat_format, config)
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
            "prompt_kind": kind,
            "chat_format": chat_format_to_dict(chat_format),
            **resolved(config, "cutoff_len", "scoring.temperature", "scoring.dtype"),
        },
        model=model_identity(model_folder),
    )
    stage = open_stage(folder, "trace_logps", identity, units, config.scoring.questions_per_shard)
    if stage.is_complete:
        return Summary(folder, read_manifest(folder, "trace_logps"), {}, 0.0)

    print(f"reads {len(traces)} traces of {len(units)} questions, {model_name} {model_folder} ({kind}); writes {folder}")
    tokenizer = load_tokenizer(str(model_folder))
    check_vocabulary(config, tokenizer, model_folder)
    encode, decode = text_codec(tokenizer)
    scorer = Scorer(load_model(str(model_folder), config.scoring.dtype, config.scoring.device), config)
    if scorer.note:
        print(scorer.note)
    end_of_turn = len(encode(chat_format.end_of_turn))
    pending = list(stage.pending())
    left = sum(len(by_question[question_id]) for _, ids in pending for question_id in ids)
    started, num_tokens = time.monotonic(), 0
    with tqdm(total=len(traces), initial=len(traces) - left, unit="trace") as bar:
        for index, ids in pending:
            sequences, dropped, counts = [], [], Counter(traces=0, malformed=0, no_room=0, tokens=0)
            for question_id in ids:
                row = questions[question_id]
                hint = None if kind == "reasoner" else row["solution"]
                prompt_ids = encode(render_prompt(kind, chat_format, row["question"], hint))
                answer_ids, start, stop = [], 0, 0
                if kind == "reasoner":
                    answer_ids, start, stop = encode_answer(chat_format, row["solution"], encode, decode)
                for trace in by_question[question_id]:
                    key = (question_id, trace["trace_id"])
                    counts["traces"] += 1
                    if not trace["is_well_formed"]:
                        counts["malformed"] += 1
                        continue
                    begin = len(prompt_ids)
                    end = begin + len(trace["token_ids"])
                    spans = [(begin, end)] + ([(end + start, end + stop)] if kind == "reasoner" else [])
                    token_ids = prompt_ids + trace["token_ids"] + answer_ids
                    if len(token_ids) + end_of_turn > config.cutoff_len:
                        counts["no_room"] += 1
                        reason = f"longer than cutoff_len {config.cutoff_len}"
                        dropped.append(
                            {"question_id": question_id, "trace_id": key[1], "reason": reason, "tokens": len(token_ids)}
                        )
                        continue
                    sequences.append(ScoredSequence(key, token_ids, spans))
                    counts["tokens"] += len(token_ids)
            rows = []
            for sequence, logps in zip(sequences, scorer.score(sequences), strict=True):
                lengths = [stop - start for start, stop in sequence.spans]
                row = {
                    "question_id": sequence.key[0],
                    "trace_id": sequence.key[1],
                    "trace_logp": logps[0],
                    "trace_tokens": lengths[0],
                    "answer_logp": logps[1] if kind == "reasoner" else None,
                    "answer_tokens": lengths[1] if kind == "reasoner" else None,
                    "temperature": config.scoring.temperature,
                }
                rows.append(row)
            stage.write_shard(index, rows, counts, dropped)
            num_tokens += counts["tokens"]
            bar.update(counts["traces"])
            bar.set_postfix_str(f"{num_tokens / (time.monotonic() - started):.0f} tokens/s", refresh=False)
    manifest = stage.finish(
        execution={
            **resolved(config, "scoring.batch_tokens", "scoring.chunk_positions"),
            "device": str(scorer.model.device),
            "attention": str(getattr(scorer.model.config, "_attn_implementation", None)),
        }
    )
    return Summary(folder, manifest, {"tokens": num_tokens}, time.monotonic() - started)


class Scorer:
    """Sums of token log-likelihoods under one model."""

    def __init__(self, model: Any, config: Config) -> None:
        self.model = model
        self.batch_tokens = config.scoring.batch_tokens
        self.chunk_positions = config.scoring.chunk_positions
        self.temperature = config.scoring.temperature
        self._body, self._head = _body_and_head(model)
        self.note = ""
        if self._body is None:
            self.note = (
                f"{type(model).__name__} does not split into a body and a linear head; its logits of whole batches are "
                "computed, which takes memory in proportion to length x vocabulary"
            )

    def score(self, sequences: Sequence[ScoredSequence]) -> list[list[float]]:
        """One sum of log p per span, in nats, for each row in the order given.

        Raises: ValueError with the row's key for an empty span, a span without a token before it, and NaN or infinity.
        """
        import torch

        for sequence in sequences:
            for start, stop in sequence.spans:
                if not 1 <= start < stop <= len(sequence.token_ids):
                    raise ValueError(
                        f"row {sequence.key}: nothing to score in the span [{start}, {stop}) of "
                        f"{len(sequence.token_ids)} ids; a trace or a solution is empty"
                    )
        # equal rows have equal numbers; a sharp posterior repeats itself often
        places: dict[tuple, list[int]] = {}
        for i, sequence in enumerate(sequences):
            places.setdefault((tuple(sequence.token_ids), tuple(sequence.spans)), []).append(i)
        order = sorted((group[0] for group in places.values()), key=lambda i: len(sequences[i].token_ids))
        firsts: dict[int, list[float]] = {}
        with torch.inference_mode():
            while order:
                batch = []
                # from the longest down, so that a batch too large for the memory fails at the start and not at the end
                while order and (not batch or (len(batch) + 1) * len(sequences[batch[0]].token_ids) <= self.batch_tokens):
                    batch.append(order.pop())
                firsts |= zip(batch, self._score_batch([sequences[i] for i in batch]), strict=True)
        results: list[list[float]] = [[] for _ in sequences]
        for group in places.values():
            for i in group:
                results[i] = firsts[group[0]]
        for sequence, sums in zip(sequences, results, strict=True):
            if not all(math.isfinite(value) for value in sums):
                raise ValueError(
                    f"row {sequence.key}: its log-likelihood is {sums}; check the model's weights, or score with "
                    "scoring.dtype=float32"
                )
        return results

    def _score_batch(self, sequences: list[ScoredSequence]) -> list[list[float]]:
        import torch

        device = self.model.device
        longest = max(len(sequence.token_ids) for sequence in sequences)
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask = torch.zeros(len(sequences), longest, dtype=torch.long)
        for i, sequence in enumerate(sequences):
            ids[i, : len(sequence.token_ids)] = torch.tensor(list(sequence.token_ids))
            mask[i, : len(sequence.token_ids)] = 1
        # the logits at position t - 1 give the log-likelihood of token t
        where = [
            (row, t, row_span)
            for row, sequence in enumerate(sequences)
            for row_span, (start, stop) in enumerate(sequence.spans)
            for t in range(start, stop)
        ]
        rows = torch.tensor([row for row, _, _ in where], device=device)
        targets_at = torch.tensor([t for _, t, _ in where], device=device)
        ids = ids.to(device)
        targets = ids[rows, targets_at]
        options = {} if bool(mask.all()) else {"attention_mask": mask.to(device)}
        if self._body is not None:
            needed = self._body(input_ids=ids, use_cache=False, **options).last_hidden_state[rows, targets_at - 1]
        else:
            needed = self.model(input_ids=ids, use_cache=False, **options).logits[rows, targets_at - 1]
        logps = []
        for begin in range(0, len(where), self.chunk_positions):
            part = needed[begin : begin + self.chunk_positions]
            logits = self._head(part) if self._head is not None else part
            logits = logits if logits.dtype == torch.float64 else logits.float()
            logits = logits / self.temperature
            chosen = logits.gather(1, targets[begin : begin + self.chunk_positions, None])[:, 0]
            logps.append((chosen - logits.logsumexp(dim=-1)).double())
        sums = [[0.0] * len(sequence.spans) for sequence in sequences]
        at = 0
        flat = torch.cat(logps).cpu()
        for row, sequence in enumerate(sequences):
            for span, (start, stop) in enumerate(sequence.spans):
                sums[row][span] = float(flat[at : at + stop - start].sum())
                at += stop - start
        return sums


def _body_and_head(model: Any) -> tuple[Any, Any]:
    """(body, head) when head(body(x)) equals the model's logits on a probe, else (None, None).

    The probe finds what an attribute cannot tell: a scale or a soft cap that a family puts between head and logits.
    """
    import torch

    body = getattr(model, getattr(model, "base_model_prefix", ""), None)
    head = model.get_output_embeddings()
    if body is None or body is model or head is None:
        return None, None
    probe = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
    with torch.inference_mode():
        output = body(input_ids=probe, use_cache=False)
        if not hasattr(output, "last_hidden_state"):
            return None, None
        apart = head(output.last_hidden_state)
        whole = model(input_ids=probe, use_cache=False).logits
    fits = apart.shape == whole.shape and torch.allclose(apart.float(), whole.float(), rtol=1e-3, atol=1e-3)
    return (body, head) if fits else (None, None)
