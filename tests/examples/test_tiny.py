"""The tiny profile: the task `chain`, its tokenizer, the same bytes for the same seed."""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.method.prompts import make_renderer
from variational_reasoning.pipeline import embedded

SCRIPT = Path(__file__).parents[2] / "examples" / "variational_reasoning" / "tiny" / "make_task.py"
spec = importlib.util.spec_from_file_location("make_task", SCRIPT)
make_task = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_task)


@pytest.fixture(scope="module")
def tokenizer():
    return embedded.make_tokenizer(make_task.TASK)


def encode_with(tokenizer):
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


def decode_with(tokenizer):
    return lambda ids: tokenizer.decode(
        ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def test_one_operation():
    # modulo 7: 3 + 5 = 8 = 1; 1 - 4 = -3 = 4; 4 * 6 = 24 = 3
    assert [make_task.apply(3, "+5"), make_task.apply(1, "-4"), make_task.apply(4, "*6")] == [
        1,
        4,
        3,
    ]


def test_every_trace_ends_with_the_gold_answer_and_follows_the_question():
    rows = make_task.task_rows(seed=5)
    everything = rows["train"] + rows["test"]
    assert (len(rows["train"]), len(rows["test"])) == (400, 500)
    assert len({row["question"] for row in everything}) == 900
    for row in everything:
        question, value = row["question"], int(row["question"][0])
        for i in range(1, len(question), 2):
            value = make_task.apply(value, question[i : i + 2])
        assert row["check"] == {"kind": "exact", "gold": str(value)}
        assert row["trace"].endswith(f"={value}")
        steps = row["trace"].split("=")
        bare = steps[0] + "".join(part[1:] for part in steps[1:])
        assert row["question"][0] + bare == question
    detailed = sum(row["trace"].count("=") == 5 for row in everything) / 900
    assert 0.25 < detailed < 0.40  # 0.3, and 0.7 * 0.4^4 = 0.018 of the others


def test_a_careless_writer_computes_one_step_and_guesses_after_a_gap():
    class Scripted(random.Random):
        """Draws from a list: the share, the rate, then one number per step."""

        def __init__(self, draws):
            super().__init__(0)
            self.draws = iter(draws)

        def random(self):
            return next(self.draws)

        def randrange(self, stop):
            return 6

    # Not dense (0.9), keeps at rate 0.5. 3+5=1 is kept (0.1); *2 is not (0.8); -1 is kept after the
    # gap: a guess, 6.
    assert make_task.careless_trace(
        Scripted([0.9, 0.5, 0.1, 0.8, 0.1]), "3+5*2-1", ["+5", "*2", "-1"]
    ) == ("+5=1*2-1=6", "6")


def test_text_to_ids_to_text(tokenizer):
    encode, decode = encode_with(tokenizer), decode_with(tokenizer)
    renderer = make_renderer(str(make_task.CHAT_FORMAT))
    assert len(tokenizer) == len(make_task.TASK.vocabulary) == 24
    for kind in ("reasoner", "posterior_b"):
        prompt, response = renderer.render(kind, "3+5*2", "+5=1*2=2", "2")
        assert decode(encode(prompt)) == prompt
        assert (
            decode(renderer.encode_target(response, encode))
            == response + renderer.chat_format.end_of_turn
        )
    # Nonsense that a model may write must come back too.
    nonsense = "+-*=4=5<|pad|>66<|question|>=1-"
    assert decode(encode(nonsense)) == nonsense
    with pytest.raises(Exception, match="UNK"):
        encode("3/5")


def test_a_sampled_trace_is_cut_at_the_closing_tag(tokenizer):
    renderer = make_renderer(str(make_task.CHAT_FORMAT))
    encode, decode = encode_with(tokenizer), decode_with(tokenizer)
    cut = renderer.cut_trace(
        "posterior_b",
        encode("+5=1*2=2<|end_of_thought|><|end_of_turn|>"),
        encode,
        decode,
    )
    assert cut.text == "+5=1*2=2" and cut.is_well_formed and not cut.is_retokenized
    text = "<|begin_of_thought|>+5=1<|end_of_thought|><|begin_of_solution|>1<|end_of_solution|>"
    assert renderer.split_response(text) == ("+5=1", "1")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_task(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        embedded.write_source(tmp_path / name, make_task.task_rows(seed))
    files = {name: (tmp_path / name / "train.jsonl").read_bytes() for name in "abc"}
    assert files["a"] == files["b"] != files["c"]
    assert json.loads(files["a"].splitlines()[0])["split"] == "train"


def test_bad_arguments_are_refused_together():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "sead=1", "seed=-1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "unknown key 'sead'" in done.stderr and "not '-1'" in done.stderr
