"""Answers of texts without a box. Every case is our own."""

import time

import pytest

from variational_reasoning.verify.mathematics.extraction import bare_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12", "12"),
        ("$5$ cm", "$5$ cm"),
        ("We see that the sum is $12$.", "$12$"),
        (r"Therefore \(y \ge 3\) holds.", r"y \ge 3"),
        ("Answer: 12 apples", "12 apples"),
        ("It took 3 steps. Final Answer: The final answer is $12$. I hope it is correct.", "$12$"),
        (
            r"3 \text{ red and } 4 \text{ blue balls of each kind}",
            r"3 \text{ red and } 4 \text{ blue balls of each kind}",
        ),
        ("Final Answer: Tom left 3 hours ago. I hope it is correct. <|im_start|>user", "3"),
        ("So the pair $(x, y)$ that solves both is $(7, 6)$.", "$(7, 6)$"),
        ("We add. Therefore the total is 4 + 8 = 12.", "4 + 8 = 12"),
        ("Two of 5 remain. Thus **3 birds** left.", "3"),
        ("Donc il reste 3 oiseaux.", "3"),
        ("5 - 2 = 3\u3002\u56e0\u6b64\u8fd8\u52693\u53ea\u3002", "3"),
        ("The angle is [90].", "[90]"),
        ("The answer is surely D, it cannot be A or B", "D"),
        ("Therefore 3 of 5 remain.", None),
        ("Therefore we try 12 next and", None),
        ("We tried 12 first. Then 13 came.", None),
        ("First $3$, then $4$, and so on", None),
        ("The answer is one of the numbers above", None),
        ("Hence there are 12 of them", None),
        (r"\boxed{3}", None),
        ("", None),
        ("answer is " * 20, None),
    ],
)
def test_the_answer_of_a_text_without_a_box(text, answer):
    assert bare_answer(text) == answer


@pytest.mark.parametrize("text", ["$ ", r"\( ", r"\[ ", "answer is ", "~", "$x$ ", "(a", " "])
def test_long_texts_are_read_in_time(text):
    start = time.process_time()
    bare_answer(text * (20_000 // len(text)))
    assert time.process_time() - start < 1
