"""What only a chat format itself may write."""

import pytest

from variational_reasoning.method.chat_formats import CHAT_FORMATS, ChatFormat


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("chatml", ("<|im_start|>", "<|im_end|>")),
        (
            "llama3",
            ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
        ("gemma", ("<start_of_turn>", "<end_of_turn>", "<bos>")),
        ("mistral", ("[INST]", "[/INST]", "</s>", "<s>")),
    ],
)
def test_control_texts(name, texts):
    assert CHAT_FORMATS[name].control_texts == texts


def test_words_around_a_question_are_no_control_texts():
    plain = ChatFormat(
        name="plain",
        system="",
        user="Question: {question}\n",
        assistant="Answer: ",
        end_of_turn="<|endoftext|>",
    )
    assert plain.control_texts == ("<|endoftext|>",)
