"""Which box is the answer."""

import pytest

from variational_reasoning.verify.mathematics.boxes import final_boxes, last_boxed


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{7}.", "7"),
        (r"\boxed{41} wait, \boxed{42}", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"\boxed{7", None),
        (r"\boxed{7} but then \boxed{8", "7"),
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
        (r"\boxed{ \boxed{3}", "3"),
        (r"\fbox{5}", "5"),
        (r"\boxed{}", None),
        (r"\boxed{5} \boxed{ }", None),
        ("the answer is 7", None),
        ("", None),
    ],
)
def test_the_last_complete_box_is_the_answer(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        (r"\boxed{1}, \boxed{2}", ["1", "2"]),
        (r"\boxed{1} for x and \boxed{2} for y", ["1", "2"]),
        (r"$a = \boxed{1}$ and $b = \boxed{2}$", ["1", "2"]),
        (r"\boxed{1}. Then \boxed{2}", ["2"]),
        ("\\boxed{1}\n\\boxed{2}", ["2"]),
        (r"\boxed{1} is not what we were looking for but \boxed{2}", ["2"]),
        (r"\boxed{1}, \boxed{}", []),
    ],
)
def test_several_boxes_of_one_sentence(text, contents):
    assert final_boxes(text) == contents
