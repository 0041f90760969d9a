"""What phase A's channel carries: the answer after symbols that were written with the chain in
view, while the answer does not see the chain.

The model writes z given question and chain. Then the whole row is read once, under the mask of its
training, with the reference solution as the answer:

    x x | c c c | begin z z end | separator y
                                  ^^^^^^^^^^^^ sees x and z, not c

The answer is right when the most likely token is the reference's at each of its places, that is,
when greedy decoding would write it. A check that accepts other spellings would accept more.

The channel is the hidden states of z. The same symbols read again without the chain are another
question (controls/).
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from variational_reasoning.files import read_json_object, write_json
from variational_reasoning.method.evaluation import mean_and_error
from variational_reasoning.method.prompts import Decode, Encode, Renderer
from variational_reasoning.model_record import model_identity
from variational_reasoning.packages import need
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import (
    Request,
    load_model,
    load_tokenizer,
    open_engine,
    text_codec,
)
from variational_reasoning.pipeline.engines.fitting import check_prompt_kind
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import read_rows
from variational_reasoning.pipeline.sample import abstract_span, sample_seed, span_settings

if TYPE_CHECKING:
    import torch

ORACLE = "oracle.json"


class OracleRow(NamedTuple):
    """A row in ids. Positions count in it: the chain is chain_start to chain_stop, what does not
    see it begins at answer_start, and the solution's tokens are start to stop.
    """

    token_ids: list[int]
    chain_start: int
    chain_stop: int
    answer_start: int
    start: int
    stop: int


def measure_oracle(config: Config, model_folder: Path, name: str) -> dict[str, Any]:
    """The share of test questions that are answered right, into run_dir/evals/<name>/oracle.json.

    Symbols are drawn at eval.trace_temperature, or eval.temperature.

    Raises: ValueError for a prompt family without the kind of the bottleneck, a model that was
    trained on another kind, no test question with a chain, and a trace that cannot be drawn.
    """
    renderer = config.renderer
    check_prompt_kind(model_folder, renderer.bottleneck, renderer, config)
    questions, num_without_chain = _questions(config)
    identity = {
        "questions": TableReader(config.folder("questions"), "questions").digest,
        "model": model_identity(model_folder),
        "seed": config.seed,
        **renderer.to_record(),
        **resolved(config, "cutoff_len", "eval.split", "eval.temperature"),
        **resolved(config, "eval.top_p", "eval.trace_temperature", "eval.max_questions"),
        **span_settings(config, renderer),
    }
    path = config.folder("evals", name, ORACLE)
    if path.is_file():
        found = read_json_object(path, f"remove {path}")
        if found["identity"] == identity:
            return found
    encode, decode = text_codec(load_tokenizer(str(model_folder)))
    traces = _sampled_traces(config, model_folder, questions, encode)
    rows = []
    for question in questions:
        trace = traces[question["question_id"]]
        rows.append(row_of(renderer, question, trace, encode, decode))
    right = are_right(config, model_folder, rows)
    estimate = mean_and_error([float(each) for each in right])
    num_symbols = sum(len(trace) - 1 for trace in traces.values())  # without the end
    num_distinct = len({tuple(trace) for trace in traces.values()})
    result = {
        "identity": identity,
        "num_questions": len(rows),
        "num_without_chain": num_without_chain,
        "accuracy": estimate.mean,
        "standard_error": estimate.standard_error,
        "mean_symbols": num_symbols / len(traces),
        "distinct": num_distinct / len(traces),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return result


def _questions(config: Config) -> tuple[list[dict[str, Any]], int]:
    """The first eval.max_questions test questions with a chain; and how many have no chain.

    Raises: ValueError for no question with a chain.
    """
    columns = ["question_id", "question", "trace", "solution", "split"]
    rows = []
    num_without_chain = 0
    for row in read_rows(config.folder("questions"), "questions", columns):
        if row["split"] != config.eval.split:
            continue
        if row["trace"]:
            rows.append(row)
        else:
            num_without_chain += 1
    if not rows:
        raise ValueError(
            f"{config.folder('questions')}: no question of the split {config.eval.split} has a "
            "chain, so nothing can be written with it in view"
        )
    return rows[: config.eval.max_questions], num_without_chain


def _sampled_traces(
    config: Config, model_folder: Path, questions: Sequence[Mapping[str, Any]], encode: Encode
) -> dict[str, list[int]]:
    """{question_id: the symbols with the end}, written with the chain in view.

    Raises: ValueError for a trace that the engine cannot draw.
    """
    renderer = config.renderer
    settings = config.eval
    engine = open_engine(config, str(model_folder))
    temperature = settings.temperature
    if settings.trace_temperature is not None:
        temperature = settings.trace_temperature
    span = abstract_span(config, engine.tokenizer, temperature)
    requests = []
    for row in questions:
        request = Request(
            key=(row["question_id"],),
            prompt_ids=renderer.encode_prompt(
                renderer.bottleneck, row["question"], row["trace"], encode
            ),
            max_new_tokens=span.max_symbols + 1,
            seed=sample_seed(config.seed, f"oracle/{row['question_id']}"),
            stop=renderer.trace_stops,
            temperature=settings.temperature,
            top_p=settings.top_p,
            span=span,
        )
        requests.append(request)
    with closing(engine):
        results = engine.generate(requests)
    found = {}
    for request, result in zip(requests, results, strict=True):
        [question_id] = request.key
        if result.error:
            raise ValueError(
                f"the trace of the question {question_id} cannot be drawn: {result.error}"
            )
        found[question_id] = list(result.token_ids)
    return found


def row_of(
    renderer: Renderer,
    question: Mapping[str, Any],
    trace: Sequence[int],
    encode: Encode,
    decode: Decode,
) -> OracleRow:
    """A question's row with a given trace, laid out as the training of phase A has it."""
    parts = renderer.prompt_parts(renderer.bottleneck, question["question"], question["trace"])
    x = encode(parts.x)
    chain = encode(parts.chain)
    opening = encode(parts.opening)
    answer, start, stop = renderer.encode_answer(question["solution"], encode, decode)
    before = [*x, *chain, *opening, *trace]
    return OracleRow(
        token_ids=before + answer,
        chain_start=len(x),
        chain_stop=len(x) + len(chain),
        answer_start=len(before),
        start=len(before) + start,
        stop=len(before) + stop,
    )


def bottleneck_mask(rows: Sequence[OracleRow], longest: int) -> "torch.Tensor":
    """bool [rows, 1, longest, longest], True where a query (third axis) sees a key.

    Padding is on the right and seen by nothing before it. A question, a chain c, a symbol z and an
    answer y, with chain_start 1, chain_stop 2 and answer_start 3:

        query    sees x c z y
        x             1 0 0 0
        c             1 1 0 0
        z             1 1 1 0
        y             1 0 1 1
    """
    import torch

    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = causal.repeat(len(rows), 1, 1)
    for number, row in enumerate(rows):
        queries = slice(row.answer_start, None)
        chain = slice(row.chain_start, row.chain_stop)
        mask[number, queries, chain] = False
    return mask.unsqueeze(1)


def are_right(config: Config, model_folder: Path, rows: Sequence[OracleRow]) -> list[bool]:
    """Whether the most likely token is the reference's at every place of each row's solution."""
    torch = need("torch", "train")
    # A dense mask is what SDPA takes as it is.
    model = load_model(str(model_folder), config.scoring.dtype, config.scoring.device, "sdpa")
    longest_of_all = max(len(row.token_ids) for row in rows)
    at_once = max(1, config.scoring.batch_tokens // longest_of_all)
    right = []
    for first in range(0, len(rows), at_once):
        batch = rows[first : first + at_once]
        longest = max(len(row.token_ids) for row in batch)
        ids = []
        for row in batch:
            padding = [0] * (longest - len(row.token_ids))
            ids.append(row.token_ids + padding)
        with torch.inference_mode():
            output = model(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=bottleneck_mask(batch, longest).to(model.device),
                use_cache=False,
            )
        likely = output.logits.argmax(-1).tolist()
        for row, found in zip(batch, likely, strict=True):
            # The token at a place is predicted one place before it.
            predicted = found[row.start - 1 : row.stop - 1]
            right.append(predicted == row.token_ids[row.start : row.stop])
    return right


def describe_oracle(name: str, result: Mapping[str, Any]) -> str:
    """The line that the command prints."""
    error = result["standard_error"] or 0.0
    left_out = ""
    if result["num_without_chain"]:
        left_out = f"; {result['num_without_chain']} questions without a chain are left out"
    return (
        f"{name}: {100 * result['accuracy']:.1f} ± {100 * error:.1f} % of "
        f"{result['num_questions']} answers are right after symbols that were written with the "
        f"chain in view, which the answer does not see; {result['mean_symbols']:.1f} symbols, "
        f"{result['distinct']:.0%} of the traces are different{left_out}"
    )
