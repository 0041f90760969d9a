"""The one renderer: question, trace and solution to text, and text to token ids (App. E; stages 0 to 9 and the evaluation).

A sequence is a prompt (no loss) and a response (the target). With ChatML:

    reasoner    prompt    ...system turn, user turn, <|im_start|>assistant\\n<|begin_of_thought|>\\n\\n
                response  {trace}<|end_of_thought|>\\n\\n<|begin_of_solution|>{solution}<|end_of_solution|>
    posterior   prompt    ...assistant\\n<|begin_of_solution|>{hint}<|end_of_solution|>\\n\\n<|begin_of_thought|>\\n\\n
                response  {trace}<|end_of_thought|>

Posterior A says `explanation` where B says `thought`. The chat format's end of turn closes every response.

The boundary between trace and answer. The tags are ordinary text to most tokenizers, so a tokenizer may merge across them,
and A's closing tag differs from the reasoner's. Every response is therefore cut in ids at one place, the end of the first
`<|end_of`, which all closing tags share: the trace's ids are those up to and including that piece, and `_thought|>...` or
`_explanation|>...` is tokenized apart. Reasoner and posterior thus score the same ids, for any tokenizer. With the Qwen and
Llama 3 pre-tokenizers `_thought` starts a piece anyway, so the ids equal those of the whole text.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from variational_reasoning.files import read_json_object

PROMPT_KINDS = ("reasoner", "posterior_a", "posterior_b")
"""What a prompt conditions: pi(z, y | x), or q(z | x, y') in the wording of Sakana's RLT (A) or of the paper (B)."""

SYSTEM_PROMPTS = {
    kind: (Path(__file__).parent / "system_prompts" / f"{kind}_system.txt")
    .read_bytes()
    .decode("utf-8")
    for kind in PROMPT_KINDS
}
"""Interface constants, byte for byte: published models only work with them, misspellings included."""

SOLUTION_OPEN = "<|begin_of_solution|>"
SOLUTION_CLOSE = "<|end_of_solution|>"

Encode = Callable[[str], list[int]]
"""Text to ids without adding special tokens; special tokens that stand in the text are recognised."""
Decode = Callable[[Sequence[int]], str]
"""Ids to text, special tokens included, without clean-up of spaces."""


@dataclass(frozen=True)
class ChatFormat:
    """How a model family writes turns, and how our tags stand in them.

    system, user: turn texts with `{system}` and `{question}`; an empty `system` means that the format has no system turn.
    assistant: what opens the model's turn. end_of_turn: what closes it (the model's own stop).
    separator: what stands after the opening thought tag and between the two sections.
    boundary: the text that ends a trace's ids; it must begin every closing tag that is used (see the module docstring).
    """

    name: str
    system: str
    user: str
    assistant: str
    end_of_turn: str
    separator: str = "\n\n"
    boundary: str = "<|end_of"

    def __post_init__(self) -> None:
        faults = []
        if self.system and "{system}" not in self.system:
            faults.append(f"`system` lacks the placeholder {{system}}: {self.system!r}")
        if "{question}" not in self.user:
            faults.append(f"`user` lacks the placeholder {{question}}: {self.user!r}")
        if not self.end_of_turn:
            faults.append("`end_of_turn` is empty; without it a model never learns to stop")
        if not thought_close("reasoner").startswith(self.boundary) or not self.boundary:
            faults.append(f"`boundary` must begin {thought_close('reasoner')!r}: {self.boundary!r}")
        if faults:
            raise ValueError(f"chat format {self.name!r}: " + "; ".join(faults))


def thought_open(kind: str) -> str:
    """The tag that opens a trace for this prompt kind."""
    return "<|begin_of_explanation|>" if kind == "posterior_a" else "<|begin_of_thought|>"


def thought_close(kind: str) -> str:
    """The tag that closes a trace for this prompt kind."""
    return "<|end_of_explanation|>" if kind == "posterior_a" else "<|end_of_thought|>"


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
    ),
}


def load_chat_format(name_or_path: str) -> ChatFormat:
    """A chat format by name (`chatml`, `llama3`), or from a JSON file with the fields of `ChatFormat`.

    Raises: ValueError for a name that is not known, a missing file, one that is no JSON object, and fields that do not fit.
    """
    if name_or_path in CHAT_FORMATS:
        return CHAT_FORMATS[name_or_path]
    path = Path(name_or_path)
    if path.suffix != ".json" or not path.is_file():
        known = ", ".join(CHAT_FORMATS)
        raise ValueError(
            f"chat_format {name_or_path!r} is neither one of {known} nor an existing .json file"
        )
    return chat_format_from_dict(read_json_object(path, "correct it"), source=str(path))


def chat_format_from_dict(values: dict[str, str], source: str) -> ChatFormat:
    """The inverse of `dataclasses.asdict`; `source` names the file in errors. Raises: ValueError."""
    names = {f.name for f in fields(ChatFormat)}
    unknown = sorted(set(values) - names)
    missing = sorted({"name", "system", "user", "assistant", "end_of_turn"} - set(values))
    if unknown or missing:
        raise ValueError(
            f"{source}: unknown fields {unknown}, missing fields {missing}; allowed: {sorted(names)}"
        )
    if wrong := [
        f"{name} is {value!r}" for name, value in values.items() if not isinstance(value, str)
    ]:
        raise ValueError(f"{source}: {', '.join(wrong)}; text is needed")
    return ChatFormat(**values)


def chat_format_to_dict(chat_format: ChatFormat) -> dict[str, str]:
    """What a model's record stores, so that a model folder is enough to sample from it."""
    return asdict(chat_format)


def render_prompt(
    kind: str, chat_format: ChatFormat, question: str, hint: str | None = None
) -> str:
    """The text that the model continues with a trace.

    Args:
        kind: one of PROMPT_KINDS.
        question: x.
        hint: y', needed by the posteriors and refused for the reasoner.

    Raises: ValueError for an unknown kind, or a hint that is missing or out of place.
    Source: arXiv 2509.22637, App. E.
    """
    if kind not in PROMPT_KINDS:
        raise ValueError(f"prompt kind {kind!r} is not one of {', '.join(PROMPT_KINDS)}")
    if (kind == "reasoner") == (hint is not None):
        raise ValueError(
            f"prompt kind {kind!r} " + ("takes no hint" if kind == "reasoner" else "needs a hint")
        )
    if not thought_close(kind).startswith(chat_format.boundary):
        raise ValueError(
            f"chat format {chat_format.name!r} cannot carry {kind}: its boundary {chat_format.boundary!r} "
            f"does not begin {thought_close(kind)!r}"
        )
    turns = [
        chat_format.system.replace("{system}", SYSTEM_PROMPTS[kind]),
        chat_format.user.replace("{question}", question),
        chat_format.assistant,
    ]
    if hint is not None:
        turns += [SOLUTION_OPEN, hint, SOLUTION_CLOSE, chat_format.separator]
    return "".join([*turns, thought_open(kind), chat_format.separator])


def answer_lead(kind: str, chat_format: ChatFormat) -> str:
    """The fixed text between a trace's last id and the solution: the rest of the closing tag, and the solution's opening."""
    return (
        thought_close(kind).removeprefix(chat_format.boundary)
        + chat_format.separator
        + SOLUTION_OPEN
    )


def render(
    kind: str, chat_format: ChatFormat, question: str, trace: str, solution: str
) -> tuple[str, str]:
    """A training example as (prompt, response); the end of turn is not part of the response.

    The solution is the target's second part for the reasoner, and the hint in the prompt for the posteriors.
    """
    if kind == "reasoner":
        prompt = render_prompt(kind, chat_format, question)
        answer = answer_lead(kind, chat_format) + solution + SOLUTION_CLOSE
        return prompt, trace + chat_format.boundary + answer
    return render_prompt(kind, chat_format, question, hint=solution), trace + thought_close(kind)


def detect_prompt_kind(prompt: str, chat_format: ChatFormat) -> str | None:
    """The kind whose layout a rendered prompt ends with, or None for a text of another layout."""
    for kind in ("posterior_a", "posterior_b"):
        if prompt.endswith(
            SOLUTION_CLOSE + chat_format.separator + thought_open(kind) + chat_format.separator
        ):
            return kind
    opening = chat_format.assistant + thought_open("reasoner") + chat_format.separator
    return "reasoner" if prompt.endswith(opening) else None


def encode_target(chat_format: ChatFormat, response: str, encode: Encode) -> list[int]:
    """Ids of a response, cut once after the first boundary (module docstring) and closed by the end of turn."""
    if not response.endswith(chat_format.end_of_turn):
        response += chat_format.end_of_turn
    head, boundary, rest = response.partition(chat_format.boundary)
    return encode(head + boundary) + encode(rest) if rest else encode(response)


class SampledTrace(NamedTuple):
    """A trace as it is stored and scored. Ids end with the boundary when the trace is well formed."""

    token_ids: list[int]
    text: str
    is_well_formed: bool
    is_retokenized: bool


def cut_trace(
    kind: str, chat_format: ChatFormat, sampled_ids: Sequence[int], encode: Encode, decode: Decode
) -> SampledTrace:
    """Cut what a model sampled after its prompt into the trace's ids.

    The ids are the sampled ones up to the end of the first boundary. Only when one sampled token reaches beyond that
    end are the ids from the last clean token on made anew from the text; `is_retokenized` says so, and callers count it.
    A trace is well formed when it is not empty, is closed by its own kind's tag, and holds no other tag.

    Returns: ids, the text before the closing tag, and the two flags. Without a boundary: everything, not well formed.
    """
    ids = list(sampled_ids)
    text = decode(ids)
    trace, boundary, rest = text.partition(chat_format.boundary)
    if not boundary:
        return SampledTrace(ids, text, is_well_formed=False, is_retokenized=False)
    closed = rest.startswith(thought_close(kind).removeprefix(chat_format.boundary))
    is_well_formed = closed and bool(trace.strip()) and "<|begin_of" not in trace
    through = trace + boundary
    end = _first_prefix(ids, through, decode)
    if decode(ids[:end]) == through:
        return SampledTrace(ids[:end], trace, is_well_formed, is_retokenized=False)
    clean = end - 1
    while clean > 0 and not through.startswith(decode(ids[:clean])):
        clean -= 1  # the text so far ends inside a character
    remade = ids[:clean] + encode(through[len(decode(ids[:clean])) :])
    return SampledTrace(remade, trace, is_well_formed, is_retokenized=True)


def _first_prefix(ids: list[int], through: str, decode: Decode) -> int:
    """The smallest count of leading ids whose text reaches the end of `through`; text length never falls with the count."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(decode(ids[:middle])) >= len(through) and decode(ids[:middle]).startswith(through):
            high = middle
        else:
            low = middle + 1
    return low


def encode_answer(
    chat_format: ChatFormat, solution: str, encode: Encode, decode: Decode
) -> tuple[list[int], int, int]:
    """Ids that follow a trace's ids when the reasoner answers with `solution`, and which of them are the solution's.

    The fixed tags are context, not evidence: counting them would dilute the mean log-likelihood (GML). A token that holds
    both tag and solution text counts as the solution's.

    Returns: (ids, start, stop); ids[start:stop] are to be scored, none for an empty solution. The end of turn is not
    part of the ids.
    """
    lead = answer_lead("reasoner", chat_format)
    ids = encode(lead + solution + SOLUTION_CLOSE)
    start = _first_prefix(ids, lead, decode)
    if decode(ids[:start]) != lead:
        start -= 1  # this token reaches from the tag into the solution
    return ids, start, _first_prefix(ids, lead + solution, decode) if solution else start


def extract_solution(text: str) -> str | None:
    """The solution inside the first complete pair of solution tags, or None. A truncated answer has no solution."""
    _, opening, rest = text.partition(SOLUTION_OPEN)
    solution, closing, _ = rest.partition(SOLUTION_CLOSE)
    return solution if opening and closing else None


def split_response(text: str, separator: str = "\n\n") -> tuple[str, str] | None:
    """(trace, solution) of a full assistant text as published data sets write it, or None where a tag is missing or repeated.

    Both keep the newlines inside their tags, except that the separator after the opening thought tag is the prompt's.
    """
    tags = (thought_open("reasoner"), thought_close("reasoner"), SOLUTION_OPEN, SOLUTION_CLOSE)
    if any(text.count(tag) != 1 for tag in tags):
        return None
    positions = [text.index(tag) for tag in tags]
    if positions != sorted(positions):
        return None
    trace = text[positions[0] + len(tags[0]) : positions[1]].removeprefix(separator)
    solution = text[positions[2] + len(tags[2]) : positions[3]]
    return trace, solution


def split_example(text: str, chat_format: ChatFormat) -> tuple[str, str, str] | None:
    """(question, trace, solution) of a whole example, prompt and response in one text, or None: the inverse of `render`.

    The example may be the reasoner's or either posterior's, with or without the end of turn. The system text is not
    compared, so that prompts of older wording are read too.
    """
    opening, closing = chat_format.user.split("{question}")
    start = text.find(opening)
    if start < 0:
        return None
    text = text[start + len(opening) :].removesuffix(chat_format.end_of_turn)
    question, is_reasoner, rest = text.partition(
        closing + chat_format.assistant + thought_open("reasoner")
    )
    if is_reasoner and SOLUTION_OPEN not in question:
        parts = split_response(thought_open("reasoner") + rest, chat_format.separator)
        return (question, *parts) if parts else None
    question, is_posterior, rest = text.partition(closing + chat_format.assistant + SOLUTION_OPEN)
    for kind in PROMPT_KINDS[1:] if is_posterior else ():
        hint, found, trace = rest.partition(
            SOLUTION_CLOSE + chat_format.separator + thought_open(kind) + chat_format.separator
        )
        if found and trace.endswith(thought_close(kind)):
            return question, trace.removesuffix(thought_close(kind)), hint
    return None
