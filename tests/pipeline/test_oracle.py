"""The answer after symbols that see the chain, while it does not see the chain itself."""

import random
import shutil

import pytest
import torch

from variational_reasoning.host.bottleneck import dense_mask, layout_of
from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.engines import (
    Completion,
    TransformersEngine,
    load_model,
    load_tokenizer,
    text_codec,
)
from variational_reasoning.pipeline.oracle import (
    OracleRow,
    are_right,
    bottleneck_mask,
    describe_oracle,
    measure_oracle,
    row_of,
)
from variational_reasoning.pipeline.rows import Identity, read_rows, write_table


def test_the_mask_is_that_of_the_training():
    """Of two rows, one shorter: (x x c c z z y) and (x c z y)."""
    rows = [
        OracleRow(list(range(7)), 2, 4, 6, start=6, stop=7),
        OracleRow(list(range(4)), 1, 2, 3, start=3, stop=4),
    ]
    mask = bottleneck_mask(rows, 7)
    layout = layout_of([[(7, (2, 4, 6))], [(4, (1, 2, 3))]])
    trained = dense_mask(layout, 7)
    assert torch.equal(mask[0], trained[0])
    assert torch.equal(mask[1, 0, :4, :4], trained[1, 0, :4, :4])
    assert mask.any(-1).all()  # padding sees something, so no softmax is over nothing


def test_a_row_is_laid_out_as_the_training_has_it(abstract_dir):
    renderer = make_renderer("chatml", "abstract")
    encode, decode = text_codec(load_tokenizer(str(abstract_dir)))
    question = {"question": "two and two", "trace": "two, three, four", "solution": "four"}
    trace = encode("<TOKEN_B><TOKEN_A><endabstract>")
    row = row_of(renderer, question, trace, encode, decode)
    assert decode(row.token_ids[row.chain_start : row.chain_stop]) == "two, three, four"
    assert decode(row.token_ids[row.chain_stop : row.answer_start]) == (
        "<beginabstract><TOKEN_B><TOKEN_A><endabstract>"
    )
    assert decode(row.token_ids[row.answer_start : row.start]) == "\n"
    assert decode(row.token_ids[row.start : row.stop]) == "four"


def test_an_answer_is_right_when_the_model_finds_it_most_likely(make_run, abstract_dir):
    """Compared with a forward pass per row, under a mask that is made cell by cell."""
    config = load_config(make_run(prompt_family="abstract"))
    model = load_model(str(abstract_dir), "float32", "cpu", "sdpa")
    rng = random.Random(0)
    rows, expected = [], []
    for length in (9, 7, 8, 9):
        ids = [rng.randrange(5, 100) for _ in range(length)]
        row = OracleRow(ids, 2, 4, length - 3, start=length - 1, stop=length)
        context = ids[: row.start]
        mask = torch.zeros(1, 1, len(context), len(context), dtype=torch.bool)
        for query in range(len(context)):
            for key in range(query + 1):
                in_chain = row.chain_start <= key < row.chain_stop
                mask[0, 0, query, key] = not (query >= row.answer_start and in_chain)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([context]), attention_mask=mask).logits[0, -1]
        likely, unlikely = logits.argmax().item(), logits.argmin().item()
        rows += [row._replace(token_ids=[*context, token]) for token in (likely, unlikely)]
        expected += [True, False]
    assert are_right(config, abstract_dir, rows) == expected


def test_a_measurement_is_kept_until_its_inputs_change(make_run, abstract_dir):
    settings = {"max_symbols": 3}
    path = make_run(2, num_test=4, prompt_family="abstract", sampling=settings)
    words = ["eval.temperature=0", "models.allow_unrecorded=true"]
    config = load_config(path, words)
    first = measure_oracle(config, abstract_dir, "some")
    assert first["num_questions"] == 4 and first["num_without_chain"] == 0
    assert 0 <= first["accuracy"] <= 1
    assert 1 <= first["mean_symbols"] <= 3
    written = config.folder("evals", "some", "oracle.json")
    time = written.stat().st_mtime_ns
    assert measure_oracle(config, abstract_dir, "some") == first
    assert written.stat().st_mtime_ns == time
    other = load_config(path, [*words, "eval.top_p=0.5"])
    assert measure_oracle(other, abstract_dir, "some")["identity"]["eval.top_p"] == 0.5
    fewer = measure_oracle(
        load_config(path, [*words, "eval.max_questions=3"]), abstract_dir, "some"
    )
    assert fewer["num_questions"] == 3


def test_questions_without_a_chain_are_left_out_and_counted(make_run, abstract_dir):
    path = make_run(2, num_test=4, prompt_family="abstract", sampling={"max_symbols": 3})
    config = load_config(path, ["eval.temperature=0", "models.allow_unrecorded=true"])
    folder = config.folder("questions")
    rows = list(read_rows(folder, "questions"))
    assert rows[-1]["split"] == config.eval.split
    rows[-1]["trace"] = ""
    shutil.rmtree(folder)
    write_table(folder, "questions", rows, Identity({"made": "here"}, {}))
    result = measure_oracle(config, abstract_dir, "some")
    assert (result["num_questions"], result["num_without_chain"]) == (3, 1)


def test_a_trace_that_cannot_be_drawn_is_not_taken_for_one_without_symbols(
    make_run, abstract_dir, monkeypatch
):
    def fail(self, requests, progress=None):
        return [Completion([], "error", "no room") for _ in requests]

    monkeypatch.setattr(TransformersEngine, "generate", fail)
    words = ["eval.temperature=0", "models.allow_unrecorded=true"]
    config = load_config(make_run(2, num_test=2, prompt_family="abstract"), words)
    with pytest.raises(ValueError, match="the trace of the question .* cannot be drawn: no room"):
        measure_oracle(config, abstract_dir, "some")


def test_what_is_printed():
    result = {"accuracy": 0.5, "standard_error": 0.1, "num_questions": 25}
    result |= {"mean_symbols": 5.0, "distinct": 1.0, "num_without_chain": 0}
    line = describe_oracle("a", result)
    assert line.startswith("a: 50.0 ± 10.0 % of 25 answers are right")
    assert line.endswith("100% of the traces are different")
    result["num_without_chain"] = 3
    assert describe_oracle("a", result) == line + "; 3 questions without a chain are left out"
