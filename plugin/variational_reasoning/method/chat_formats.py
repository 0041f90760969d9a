"""How a model family writes the turns of a conversation.

A prompt is the system turn, the user turn, and the opening of the model's turn. With ChatML:

    <|im_start|>system\\n{system}<|im_end|>\\n
    <|im_start|>user\\n{question}<|im_end|>\\n
    <|im_start|>assistant\\n

and the model closes its turn with `<|im_end|>`. The prompt family (families.py) has the texts that
are in the turns.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object

_MARKER = re.compile(r"<\|[^<>|\s]+\|>|</?[A-Za-z_]+>|\[/?[A-Z_]+\]")
"""A control token as chat formats write it: <|name|>, <name> or [NAME]."""

ApplyTemplate = Callable[[list[dict[str, str]], bool], str]
"""(messages, add_generation_prompt) to text: a tokenizer's `apply_chat_template`. It raises
ValueError for messages that the template refuses."""


@dataclass(frozen=True)
class ChatFormat:
    """The texts around the system text, the question and the response.

    system: the system turn, with `{system}`. Empty for a format without a system turn. The system
        text is then left out, unless `user` has a place for it.
    user: the user turn, with `{question}`. A format without a system role may have `{system}` here,
        followed by a separator. Both disappear where a prompt has no system text.
    assistant: the opening of the model's turn.
    end_of_turn: the end of the model's turn, where it stops.
    separator, boundary: only for the family `paper` (families.py), because they depend on the
        model's tokens.
    no_system: the opening of a conversation without a system turn, such as a beginning-of-text
        token.
    """

    name: str
    system: str
    user: str
    assistant: str
    end_of_turn: str
    separator: str = "\n\n"
    boundary: str = "<|end_of"
    no_system: str = ""

    def __post_init__(self) -> None:
        faults = []
        if self.system and "{system}" not in self.system:
            faults.append(f"`system` lacks the placeholder {{system}}: {self.system!r}")
        if "{question}" not in self.user:
            faults.append(f"`user` lacks the placeholder {{question}}: {self.user!r}")
        if not self.end_of_turn:
            faults.append("`end_of_turn` is empty; without it a model never learns to stop")
        if not self.boundary or not "<|end_of_thought|>".startswith(self.boundary):
            faults.append(f"`boundary` must begin '<|end_of_thought|>': {self.boundary!r}")
        if faults:
            raise ValueError(f"chat format {self.name!r}: {'; '.join(faults)}")

    @property
    def control_texts(self) -> tuple[str, ...]:
        """The markers that only the format itself may write: <|im_start|>, <start_of_turn>, [INST].

        A question with such a marker would open or close a turn. The words around them (`user`) are
        plain text.
        """
        parts = (self.system, self.user, self.assistant, self.end_of_turn, self.no_system)
        markers = _MARKER.findall(" ".join(parts))
        return tuple(dict.fromkeys(markers))

    def opening(self, system: str) -> str:
        """Everything before the user turn: the system turn, or `no_system`."""
        if self.system and system:
            return self.system.replace("{system}", system)
        return self.no_system

    def user_turn(self, system: str) -> str:
        """The user turn with `{question}` left in it.

        A format without a system role puts the system text there: "{system}\\n\\n{question}" gives
        "Be brief.\\n\\n {question}", and "{question}" where there is no system text.
        """
        if "{system}" not in self.user:
            return self.user
        if system:
            return self.user.replace("{system}", system)
        before, _, after = self.user.partition("{system}")
        return before + after[after.index("{question}") :]


CHAT_FORMATS = {
    "chatml": ChatFormat(
        name="chatml",
        system="<|im_start|>system\n{system}<|im_end|>\n",
        user="<|im_start|>user\n{question}<|im_end|>\n",
        assistant="<|im_start|>assistant\n",
        end_of_turn="<|im_end|>",
    ),
    "llama3": ChatFormat(
        name="llama3",
        system="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
        end_of_turn="<|eot_id|>",
        no_system="<|begin_of_text|>",
    ),
    "gemma": ChatFormat(
        name="gemma",
        system="",
        user="<start_of_turn>user\n{system}\n\n{question}<end_of_turn>\n",
        assistant="<start_of_turn>model\n",
        end_of_turn="<end_of_turn>",
        no_system="<bos>",
    ),
    "mistral": ChatFormat(
        name="mistral",
        system="",
        user="[INST] {system}\n\n{question}[/INST]",
        assistant=" ",
        end_of_turn="</s>",
        no_system="<s>",
    ),
}

TEMPLATE = "template"
"""The value of `chat_format` that stands for the model's own chat template."""


def load_chat_format(name_or_path: str) -> ChatFormat:
    """A chat format by name, or from a JSON file with the fields of `ChatFormat`.

    Raises: ValueError for a name that is not known, a missing file, a file that is not a JSON
        object, and fields that do not fit.
    """
    if name_or_path in CHAT_FORMATS:
        return CHAT_FORMATS[name_or_path]
    path = Path(name_or_path)
    if path.suffix != ".json" or not path.is_file():
        known = ", ".join(CHAT_FORMATS)
        raise ValueError(
            f"chat_format {name_or_path!r} is neither one of {known}, {TEMPLATE} nor an existing "
            f".json file"
        )
    return chat_format_from_dict(read_json_object(path, "correct it"), source=str(path))


def chat_format_from_dict(values: dict[str, Any], source: str) -> ChatFormat:
    """The inverse of `chat_format_to_dict`; `source` names the file in errors.

    Raises: ValueError.
    """
    names = {f.name for f in fields(ChatFormat)}
    unknown = sorted(set(values) - names)
    missing = sorted({"name", "system", "user", "assistant", "end_of_turn"} - set(values))
    if unknown or missing:
        raise ValueError(
            f"{source}: unknown fields {unknown}, missing fields {missing}; allowed: "
            f"{sorted(names)}"
        )
    others = {name: value for name, value in values.items() if not isinstance(value, str)}
    if others:
        listed = ", ".join(f"{name} is {value!r}" for name, value in others.items())
        raise ValueError(f"{source}: {listed}; text is needed")
    built_in = CHAT_FORMATS.get(values["name"])
    if built_in and "no_system" not in values:  # recorded before the field existed
        values = values | {"no_system": built_in.no_system}
    return ChatFormat(**values)


def chat_format_to_dict(chat_format: ChatFormat) -> dict[str, str]:
    """What records and manifests store, so that a model folder is enough to sample from it.

    `no_system` is left out where it has its default. Older records do not have the field, and must
    compare equal.
    """
    values = asdict(chat_format)
    built_in = CHAT_FORMATS.get(chat_format.name)
    default = built_in.no_system if built_in else ""
    if values["no_system"] == default:
        del values["no_system"]
    return values


def chat_format_of_template(apply: ApplyTemplate, source: str) -> ChatFormat:
    """The chat format that a tokenizer's own template writes, found by rendering marked texts once.

    With Qwen3's template and the marks S, Q, A:

        [S, Q] + generation prompt    <|im_start|>system\\nS<|im_end|>\\n<|im_start|>user\\nQ...
        [Q] + generation prompt       <|im_start|>user\\nQ<|im_end|>\\n<|im_start|>assistant\\n
        [Q, A]                        ...A<|im_end|>\\n

    The first text begins with the system turn, and then both have the user turn.

    Args:
        apply: renders messages with the template.
        source: names the model in errors.

    Raises: ValueError for a template that drops or changes a text, or does not close the model's
        turn. The caller has the source of the template, and must refuse one that depends on the
        date.
    """
    system, question, answer = "SYSTEM-7f3a", "QUESTION-7f3a", "ANSWER-7f3a"
    user_message = {"role": "user", "content": question}
    plain = apply([user_message], True)
    without_generation = apply([user_message], False)
    if plain.count(question) != 1 or not plain.startswith(without_generation):
        raise ValueError(
            f"{source}: its chat template does not write the user's text once, or writes it "
            "differently before an answer; name a chat format or a .json file instead of "
            "`template`"
        )
    assistant = plain.removeprefix(without_generation)
    for block in ("<think>\n\n</think>\n\n", "<think>\n", "<think>"):
        assistant = assistant.removesuffix(block)  # the prompt family opens the trace
    answered = apply([user_message, {"role": "assistant", "content": answer}], False)
    end_of_turn = answered.rpartition(answer)[2].strip()
    if answered.count(answer) != 1 or not end_of_turn:
        raise ValueError(
            f"{source}: its chat template does not close the model's turn; name a chat format or a "
            ".json file"
        )
    no_system, system_turn = "", ""
    user = without_generation
    try:
        full = apply([{"role": "system", "content": system}, user_message], False)
    except ValueError:  # "System role not supported", as Gemma's says
        full = ""
    if full.count(system) == 1 and full.count(question) == 1:
        # The longest common ending of the two texts is the user turn. The endings of `sSuQ` and
        # `uQ` agree in two signs, which leaves `sS` as the system turn.
        length = 0
        longest = min(len(full), len(user))
        while length < longest and full[-1 - length] == user[-1 - length]:
            length += 1
        system_turn, user = full[: len(full) - length], user[len(user) - length :]
        no_system = without_generation[: len(without_generation) - length]
        system_turn = system_turn.replace(system, "{system}")
    return ChatFormat(
        name=TEMPLATE,
        system=system_turn if "{system}" in system_turn else "",
        user=user.replace(question, "{question}"),
        assistant=assistant,
        end_of_turn=end_of_turn,
        no_system=no_system,
    )
