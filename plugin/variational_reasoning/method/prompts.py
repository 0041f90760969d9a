"""The one renderer: question, trace and solution to text, and text to token ids (App. E; stages 0
to 9, evaluation).

A sequence is a prompt (no loss) and a response (the target). What the texts are is the prompt
family's (families.py), how turns are written is the chat format's (chat_formats.py). For the family
`paper` with ChatML:

    reasoner    prompt    ...system turn, user turn, <|im_start|>assistant\\n
                          <|begin_of_thought|>\\n\\n
                response  {trace}<|end_of_thought|>\\n\\n
                          <|begin_of_solution|>{solution}<|end_of_solution|>
    posterior   prompt    ...assistant\\n<|begin_of_solution|>{hint}<|end_of_solution|>\\n\\n
                          <|begin_of_thought|>\\n\\n
                response  {trace}<|end_of_thought|>

The chat format's end of turn closes every response.

The boundary between trace and answer. To most tokenizers a closing tag is ordinary text, so a
tokenizer may merge across it, and the closing tags of reasoner and posterior may differ. Every
response is therefore cut in ids at one place, the end of the first boundary text (`<|end_of` in
`paper`, `</think>` in `think`), which begins every closing tag of the family. The trace's ids are
those up to and including the boundary, and what follows is tokenized apart. Reasoner and posterior
thus score the same ids, for any tokenizer. With the Qwen and Llama 3 pre-tokenizers `_thought`
starts a piece anyway, and `</think>` is a single token of Qwen3, so the ids equal those of the
whole text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from variational_reasoning.method.abstract import SYMBOL_OPENING, has_only_symbols
from variational_reasoning.method.chat_formats import (
    TEMPLATE,
    ApplyTemplate,
    ChatFormat,
    chat_format_from_dict,
    chat_format_of_template,
    chat_format_to_dict,
    load_chat_format,
)
from variational_reasoning.method.families import (
    BOTTLENECK,
    FAMILIES,
    REASONER,
    KindTexts,
    PromptFamily,
    family_from_dict,
    family_to_dict,
    load_family,
)

_PLACES = re.compile(r"\{question\}|\{hint\}")
"""Where a layout takes the texts of a row."""

Encode = Callable[[str], list[int]]
"""Text to ids without adding special tokens; special tokens that are in the text are recognized."""
Decode = Callable[[Sequence[int]], str]
"""Ids to text, special tokens included, without clean-up of spaces."""


class SampledTrace(NamedTuple):
    """A trace as it is stored and scored; the ids of a well-formed one end with the boundary."""

    token_ids: list[int]
    text: str
    is_well_formed: bool
    is_retokenized: bool


def encode_parts(parts: Sequence[str], encode: Encode) -> list[int]:
    """Ids of texts that are tokenized apart; an empty one has none, whatever `encode` gives it."""
    ids: list[int] = []
    for part in parts:
        if part:
            ids += encode(part)
    return ids


class PromptParts(NamedTuple):
    """The texts of a prompt that become ids apart; joined, they are the prompt.

    x: all of it, except in `abstract`, where the model's turn may begin with a verbal chain:

        x          ...<|im_start|>assistant\n      the same ids with a chain and without
        chain      Two and two make four.           empty in the reasoner's prompt
        opening    <beginabstract>
    """

    x: str
    chain: str
    opening: str

    def encode(self, encode: Encode) -> list[int]:
        """The prompt's ids."""
        return encode_parts(self, encode)


class TargetParts(NamedTuple):
    """The texts of a response that become ids apart; joined, they are the response.

    trace: through the boundary. lead: the constant text before the solution, only in `abstract`,
    where it has no loss (`Renderer.separator`). answer: the rest, with the end of turn.
    """

    trace: str
    lead: str
    answer: str


@dataclass(frozen=True)
class Renderer:
    """A prompt family in a chat format: everything between texts and the ids of a model."""

    family: PromptFamily
    chat_format: ChatFormat

    @property
    def boundary(self) -> str:
        """The text that ends a trace's ids."""
        return self.family.boundary or self.chat_format.boundary

    @property
    def is_abstract(self) -> bool:
        """Whether traces are symbols (abstract.py) and not text."""
        return self.family.is_abstract

    @property
    def kinds(self) -> tuple[str, ...]:
        """The prompt kinds, the reasoner's first."""
        return tuple(self.family.kinds)

    @property
    def answer_open(self) -> str:
        """What the reasoner writes between its closing tag and the solution."""
        return self.family.answer_open.replace("{separator}", self.chat_format.separator)

    @property
    def answer_close(self) -> str:
        """What closes a solution; empty where only the end of turn does."""
        return self.family.answer_close

    @property
    def answer_stops(self) -> tuple[str, ...]:
        """Where a sampled answer ends."""
        if not self.answer_close:
            return (self.chat_format.end_of_turn,)
        return (self.answer_close, self.chat_format.end_of_turn)

    @property
    def trace_stops(self) -> tuple[str, ...]:
        """Where a sampled trace ends: at any kind's closing tag, or where an answer would."""
        closes = [self._resolved(texts).close for texts in self.family.kinds.values()]
        return tuple(dict.fromkeys([*closes, *self.answer_stops]))

    @property
    def tags(self) -> tuple[str, ...]:
        """The texts that a question, a trace or a solution of a data set must not hold."""
        tags = []
        for texts in self.family.kinds.values():
            resolved = self._resolved(texts)
            _, _, after_hint = resolved.opening.rpartition("{hint}")
            tags += [after_hint.strip(), resolved.close]
        tags += [self.answer_open.strip(), self.answer_close]
        tags.append(self.chat_format.end_of_turn)
        tags += self.chat_format.control_texts
        tags += self.family.forbidden
        if self.family.is_abstract:
            tags.append(SYMBOL_OPENING)
        # A tag of two lines is found by each of them: the blanks between may be written otherwise.
        pieces: list[str] = []
        for tag in tags:
            pieces += re.split(r"\s{2,}", tag)
        return tuple(dict.fromkeys(filter(None, pieces)))

    @property
    def bottleneck(self) -> str:
        """The kind whose answer must not see the chain (phase A).

        Raises: ValueError for a family without such a kind.
        """
        kind = self.family.bottleneck
        if kind is None:
            raise ValueError(
                f"prompt family {self.family.name!r} has no kind with `has_answer: true`, whose "
                f"answer follows a chain that it does not see; {BOTTLENECK} of the family "
                "`abstract` is one"
            )
        return kind

    def texts(self, kind: str) -> KindTexts:
        """The texts of a prompt kind, separators filled in.

        Raises: ValueError for a kind that the family does not have, or that this chat format's
        boundary cannot carry.
        """
        if kind not in self.family.kinds:
            raise ValueError(
                f"prompt kind {kind!r} is not one of {', '.join(self.kinds)} (prompt family "
                f"{self.family.name!r})"
            )
        texts = self._resolved(self.family.kinds[kind])
        if not texts.close.startswith(self.boundary):
            raise ValueError(
                f"chat format {self.chat_format.name!r} cannot carry {kind}: its boundary "
                f"{self.boundary!r} does not begin {texts.close!r}"
            )
        return texts

    def _resolved(self, texts: KindTexts) -> KindTexts:
        separator = self.chat_format.separator
        return replace(
            texts,
            opening=texts.opening.replace("{separator}", separator),
            close=texts.close.replace("{separator}", separator),
        )

    def prompt(self, kind: str, question: str, hint: str | None = None) -> str:
        """The text that the model continues with a trace.

        Args:
            kind: a prompt kind of the family.
            question: x.
            hint: y', needed by the posteriors and refused for the reasoner.

        Raises: ValueError for an unknown kind, or a hint that is missing or out of place.
        Source: arXiv 2509.22637, App. E (the family `paper`).
        """
        return "".join(self.prompt_parts(kind, question, hint))

    def encode_prompt(
        self, kind: str, question: str, hint: str | None, encode: Encode
    ) -> list[int]:
        """The ids of a prompt, the same in training, sampling, scoring and evaluation."""
        return self.prompt_parts(kind, question, hint).encode(encode)

    def prompt_parts(self, kind: str, question: str, hint: str | None = None) -> PromptParts:
        """The prompt in the texts that become ids apart; see `prompt`."""
        texts = self.texts(kind)
        if texts.has_hint != (hint is not None):
            needs = "needs a hint" if texts.has_hint else "takes no hint"
            raise ValueError(f"prompt kind {kind!r} {needs}")
        turn = self.chat_format.user_turn(texts.system)
        turn = turn.replace("{question}", texts.user)
        said = {"{question}": question, "{hint}": hint or ""}

        def fill(layout: str) -> str:
            # In one pass: a question may itself hold "{hint}".
            return _PLACES.sub(lambda found: said[found.group()], layout)

        start = self.chat_format.opening(texts.system) + fill(turn) + self.chat_format.assistant
        if not self.family.is_abstract:
            return PromptParts(start + fill(texts.opening), "", "")
        if "{hint}" not in texts.opening:
            return PromptParts(start, "", fill(texts.opening))
        before, _, after = texts.opening.partition("{hint}")
        return PromptParts(start + before, hint or "", after)

    def cut_prompt(self, kind: str, prompt: str) -> PromptParts:
        """The parts of a rendered prompt of this kind.

        Raises: ValueError for a prompt of the bottleneck whose chain cannot be told from the
        question, because the chat format has no text between them.
        """
        _, _, opening = self.texts(kind).opening.rpartition("{hint}")
        if not self.family.is_abstract or not prompt.endswith(opening):
            return PromptParts(prompt, "", "")
        start = prompt[: len(prompt) - len(opening)]
        if kind == REASONER:
            return PromptParts(start, "", opening)
        *_, between, _ = self._literals(kind)  # from the question to the chain
        head, found, chain = start, "", ""
        if between:
            head, found, chain = start.partition(between)
        if not found and self.answers(kind):
            raise ValueError(
                f"chat format {self.chat_format.name!r} has no text between question and chain, so "
                f"a prompt of kind {kind!r} cannot be taken apart; use the data format `abstract`"
            )
        return PromptParts(head + found, chain, opening)

    def render(
        self, kind: str, question: str, trace: str, solution: str, chain: str | None = None
    ) -> tuple[str, str]:
        """A training example as (prompt, response); the end of turn is not part of the response.

        The solution is the second part of the reasoner's response, and the hint in the posteriors'
        prompt, except in families whose hint is the data's trace.

        Args:
            chain: the data's own trace, a verbal chain of thought, where that is the hint.
        """
        parts, response = self.render_parts(kind, question, trace, solution, chain)
        return "".join(parts), response

    def render_parts(
        self, kind: str, question: str, trace: str, solution: str, chain: str | None = None
    ) -> tuple[PromptParts, str]:
        """`render` with the prompt in its parts. Raises: ValueError for a chain that is missing."""
        hint: str | None = None
        if kind != REASONER:
            hint = solution
            if self.family.hint == "trace":
                hint = chain
            if hint is None:
                raise ValueError(
                    f"prompt kind {kind!r} shows a verbal chain, which these rows do not have"
                )
        response = trace + self.texts(kind).close
        if self.answers(kind):
            response = trace + self.boundary + self.answer_lead + solution + self.answer_close
        return self.prompt_parts(kind, question, hint), response

    def answers(self, kind: str) -> bool:
        """Whether responses of this kind go on with a solution.

        A kind that the chat format cannot carry has an answer to this, too.
        """
        return kind == REASONER or self.family.kinds[kind].has_answer

    @cached_property
    def answer_lead(self) -> str:
        """The fixed text between a trace's last id and the solution: the rest of the closing tag,
        and `answer_open`.
        """
        close = self.texts(REASONER).close
        return close.removeprefix(self.boundary) + self.answer_open

    @property
    def separator(self) -> str:
        """The constant text between an abstract trace and its answer; empty for verbal traces.

        It is never sampled: engines append it, as they append the end of a trace at its longest.
        So it has no loss, and the end of the trace, which sees the chain under the bottleneck,
        predicts nothing that is trained.
        """
        return self.answer_lead if self.family.is_abstract else ""

    def encode_separator(self, encode: Encode) -> list[int]:
        """The ids that follow an abstract trace's end; none after a verbal trace."""
        return encode(self.separator) if self.separator else []

    def detect_kind(self, prompt: str) -> str | None:
        """The kind that a rendered prompt is laid out for, or None for a text of another layout."""
        for kind in self._most_literal_first:
            _, *inner, last = self._literals(kind)
            if not prompt.endswith(last):
                continue
            before = prompt[: -len(last)]
            if all(text in before for text in inner):
                return kind
        return None

    @property
    def _most_literal_first(self) -> list[str]:
        """The kinds in the order in which a text is compared with them.

        A layout may fit texts of another one with an empty hint: in `abstract` only the chain tells
        the posterior's prompt from the reasoner's. So the layout with more fixed text comes first,
        and of two with the same text the one with fewer gaps.
        """

        def order(kind: str) -> tuple[int, int]:
            literals = self._literals(kind)
            return -sum(map(len, literals)), len(literals)

        return sorted((*self.family.posteriors, REASONER), key=order)

    def _literals(self, kind: str) -> list[str]:
        """The fixed texts of a prompt from the user turn on, in order, cut where question and hint
        are.

        For the reasoner in ChatML: ["<|im_start|>user\\n",
            "<|im_end|>\\n<|im_start|>assistant\\n<|begin_of_thought|>\\n\\n"].
        """
        texts = self._resolved(self.family.kinds[kind])
        turn = self.chat_format.user_turn("").replace("{question}", texts.user)
        return _PLACES.split(turn + self.chat_format.assistant + texts.opening)

    def check_codec(self, encode: Encode, decode: Decode, source: str) -> None:
        """Refuse a tokenizer whose texts cannot be joined in ids, as SentencePiece with a dummy
        prefix (Llama 2).

        Such a tokenizer puts a space before every text, so that `</think>` and `\\n\\n` joined in
        ids decode to `</think> \\n\\n`, and every place where a trace is cut or an answer begins
        would be off by a token.

        Args:
            source: names the model in the error.

        Raises: ValueError.
        """
        parts = (self.boundary, self.answer_lead, self.chat_format.end_of_turn)
        text = "".join(parts)
        returned = decode(encode_parts(parts, encode))
        if returned != text:
            raise ValueError(
                f"{source}: its tokenizer changes texts that are joined in ids: {text!r} "
                f"comes back as {returned!r}. Tokenizers that put a space before every text "
                "(SentencePiece with a dummy prefix, as Llama 2's) are not supported; choose a "
                "model with a byte-level tokenizer"
            )

    def encode_target(self, response: str, encode: Encode) -> list[int]:
        """Ids of a response, cut once after the first boundary (module docstring) and closed by the
        end of turn.
        """
        return encode_parts(self.target_parts(response), encode)

    def target_parts(self, response: str) -> TargetParts:
        """The texts of a response that become ids apart, closed by the end of turn."""
        head, rest = self.split_target(response)
        lead = self.separator
        if not rest.startswith(lead):
            lead = ""
        return TargetParts(head, lead, rest.removeprefix(lead))

    def split_target(self, response: str) -> tuple[str, str]:
        """The two texts of a response that become ids apart: through the first boundary, and the
        rest, closed by the end of turn. Without a boundary everything is in the first.
        """
        if not response.endswith(self.chat_format.end_of_turn):
            response += self.chat_format.end_of_turn
        head, boundary, rest = response.partition(self.boundary)
        return head + boundary, rest

    def answer_rest(self, solution: str) -> str:
        """What a reasoner's response has after the boundary, as `split_target` gives it."""
        return "".join(self.answer_parts(solution))

    def answer_parts(self, solution: str) -> tuple[str, str]:
        """What a reasoner's response has after the boundary: lead and answer (`TargetParts`)."""
        rest = self.answer_lead + solution + self.answer_close
        _, lead, answer = self.target_parts(self.boundary + rest)
        return lead, answer

    def cut_trace(
        self, kind: str, sampled_ids: Sequence[int], encode: Encode, decode: Decode
    ) -> SampledTrace:
        """Cut what a model sampled after its prompt into the trace's ids.

        The ids are the sampled ones up to the end of the first boundary. Only when one sampled
        token reaches beyond that end are the ids from the last clean token on made from the text;
        `is_retokenized` says so, and callers count it. A trace is well formed when it is not empty,
        is closed by its own kind's tag, and holds none of the texts that the family forbids.

        Example, with the boundary `<|end_of` and one token per bracket: the ids of `7`, `<|end`,
        `_of_thought|>` have no prefix with the text `7<|end_of`. `7`, `<|end` are kept, and `_of`
        is tokenized.

        Returns: ids, the text before the closing tag, and the two flags. Without a boundary:
        everything, not well formed.
        """
        ids = list(sampled_ids)
        text = decode(ids)
        trace, boundary, rest = text.partition(self.boundary)
        if not boundary:
            return SampledTrace(ids, text, is_well_formed=False, is_retokenized=False)
        is_well_formed = self._is_well_formed(kind, trace, rest)
        through = trace + boundary
        end = _first_prefix(ids, through, decode)
        if decode(ids[:end]) == through:
            return SampledTrace(ids[:end], trace, is_well_formed, is_retokenized=False)
        # The last of these ids reaches beyond the boundary: it goes, and the text that it had up
        # to there is tokenized.
        clean = ids[: end - 1]
        while clean and not through.startswith(decode(clean)):
            clean.pop()  # the text so far ends inside a character
        missing = through[len(decode(clean)) :]
        return SampledTrace(clean + encode(missing), trace, is_well_formed, is_retokenized=True)

    def _is_well_formed(self, kind: str, trace: str, rest: str) -> bool:
        """Whether a trace counts; `rest` is what was sampled after its boundary."""
        close = self.texts(kind).close
        if not rest.startswith(close.removeprefix(self.boundary)):
            return False
        if any(forbidden in trace for forbidden in self.family.forbidden):
            return False
        if self.is_abstract:
            return has_only_symbols(trace)  # which may be none
        return bool(trace.strip())

    def encode_answer(
        self, solution: str, encode: Encode, decode: Decode
    ) -> tuple[list[int], int, int]:
        """Ids that follow a trace's ids when the reasoner answers with `solution`, and which of
        them are the solution's.

        The fixed tags are context, not evidence: counting them would dilute the mean log-likelihood
        (GML). A token that holds both tag and solution text counts as the solution's. With the lead
        `<b>`, the solution `7`, and `</b>` after it, as tokens `<b`, `>7`, `</b>`:

            ids[1:2] are to be scored, since `>7` holds the solution

        Returns: (ids, start, stop); ids[start:stop] are to be scored, none for an empty solution.
        The end of turn is not part of the ids.
        """
        lead = self.answer_lead
        if self.family.is_abstract:  # tokenized apart, as in `target_parts`
            lead_ids = self.encode_separator(encode)
            rest_ids = encode(solution + self.answer_close) if solution else []
            start = len(lead_ids)
            stop = start + _first_prefix(rest_ids, solution, decode)
            return lead_ids + rest_ids, start, stop
        ids = encode(lead + solution + self.answer_close)
        start = _first_prefix(ids, lead, decode)
        if decode(ids[:start]) != lead:
            start -= 1  # this token reaches from the tag into the solution
        stop = start
        if solution:
            stop = _first_prefix(ids, lead + solution, decode)
        return ids, start, stop

    def solution_of_answer(self, text: str) -> str | None:
        """The solution in what the reasoner wrote after a trace's ids; None if it is not closed."""
        return self._solution_in(text, self.answer_lead)

    def solution_of_response(self, text: str) -> str | None:
        """The solution in a whole response, trace included; None where trace or solution is not
        closed.
        """
        if self.answer_close and self.answer_open.strip():
            return self._solution_in(text, self.answer_lead)
        _, closed, answer = text.partition(self.texts(REASONER).close)
        if not closed:
            return None
        return self._solution_in(answer, self.answer_open)

    def _solution_in(self, text: str, lead: str) -> str | None:
        """The solution after `lead`, or after the tag in it; None where it is not closed."""
        if not self.answer_close:
            end_of_turn = self.chat_format.end_of_turn
            if not text.endswith(end_of_turn):
                return None
            return text.removeprefix(lead).removesuffix(end_of_turn)
        tag = self.answer_open.strip()
        if tag:
            _, opened, rest = text.partition(tag)
            if not opened:
                return None
        else:  # only spaces or line breaks lead to the solution
            rest = text.removeprefix(lead)
        solution, closed, _ = rest.partition(self.answer_close)
        return solution if closed else None

    def split_response(self, text: str) -> tuple[str, str] | None:
        """(trace, solution) of a full assistant text as data sets write it, or None where a tag is
        missing or repeated.

        Both keep the newlines inside their tags, except that what follows the opening tag in the
        prompt is the prompt's.
        """
        texts = self.texts(REASONER)
        opening = texts.opening.strip()
        answer_tag = self.answer_open.strip()
        tags = [opening, texts.close, answer_tag, self.answer_close]
        tags = [tag for tag in tags if tag]
        if any(text.count(tag) != 1 for tag in tags):
            return None
        positions = [text.index(tag) for tag in tags]
        if positions != sorted(positions):
            return None
        # Every tag is there once and in order, so the text can be cut at one after the other.
        if opening:
            _, _, rest = text.partition(opening)
            blanks = texts.opening.lstrip().removeprefix(opening)
        else:  # the opening is nothing but blanks
            rest = text
            blanks = texts.opening
        trace, _, answer = rest.partition(texts.close)
        if answer_tag:
            _, _, solution = answer.partition(answer_tag)
        else:
            solution = answer.removeprefix(self.answer_open)
        if self.answer_close:
            solution, _, _ = solution.partition(self.answer_close)
        return trace.removeprefix(blanks), solution

    def split_example(self, text: str) -> tuple[str, str, str] | None:
        """(question, trace, solution) of a whole example, prompt and response in one text, or None.

        The inverse of `render`. The example may be the reasoner's or any posterior's, with or
        without the end of turn. The system text is not compared, so that prompts of older wording
        are read too.
        """
        text = text.removesuffix(self.chat_format.end_of_turn)
        kinds = self._most_literal_first if self.family.hint == "solution" else [REASONER]
        for kind in kinds:  # a posterior that sees a chain has no solution
            parts = self._split_kind(kind, text)
            if parts is not None:
                return parts
        return None

    def _split_kind(self, kind: str, text: str) -> tuple[str, str, str] | None:
        """`split_example` of an example of this kind: what is between the layout's fixed texts."""
        start, *literals = self._literals(kind)
        texts = self._resolved(self.family.kinds[kind])
        position = text.find(start)  # 0 for a format whose user turn begins with the question
        if position < 0:
            return None
        rest = text[position + len(start) :]
        said = []
        for literal in literals:
            part, found, rest = rest.partition(literal)
            if not found:
                return None
            said.append(part)
        said[0] = self._without_system(texts.system, said[0])
        if kind == REASONER:
            parts = self.split_response(texts.opening + rest)
            if parts is None:
                return None
            [question] = said
            return question, *parts
        if not rest.endswith(texts.close) or rest.count(texts.close) != 1:
            return None
        trace = rest.removesuffix(texts.close)
        question, hint = said
        layout = texts.user + texts.opening
        if layout.index("{hint}") < layout.index("{question}"):
            hint, question = said
        return question, trace, hint

    def _without_system(self, system: str, said: str) -> str:
        """What the user says, without the system text that a format without a system role puts
        before it.
        """
        if not system or "{system}" not in self.chat_format.user:
            return said
        # Of a format `<u>{system}{question}</u>`: `<u>` and `<u>Think first.`
        before_question, _, _ = self.chat_format.user_turn("").partition("{question}")
        with_system, _, _ = self.chat_format.user_turn(system).partition("{question}")
        return said.removeprefix(with_system.removeprefix(before_question))

    def to_record(self) -> dict[str, Any]:
        """What a model's record and a table's manifest hold; the family `paper` is what its absence
        says.
        """
        record: dict[str, Any] = {"chat_format": chat_format_to_dict(self.chat_format)}
        if self.family != FAMILIES["paper"]:
            record["prompt_family"] = family_to_dict(self.family)
        return record


def make_renderer(
    chat_format: str,
    prompt_family: str = "paper",
    model: str | None = None,
    read_template: Callable[[str], ApplyTemplate] | None = None,
) -> Renderer:
    """The renderer of two settings, each a name or a file.

    Args:
        chat_format: `template` stands for the chat template of `model`, which `read_template`
            opens.

    Raises: ValueError with the faults of both.
    """

    def load_format(name: str) -> ChatFormat:
        if name != TEMPLATE or read_template is None:
            return load_chat_format(name)
        if model is None:
            raise ValueError("chat_format: template needs a model (`base` or models.reasoner)")
        return chat_format_of_template(read_template(model), model)

    faults = []
    family: PromptFamily | None = None
    loaded_format: ChatFormat | None = None
    try:
        loaded_format = load_format(chat_format)
    except ValueError as error:
        faults.append(str(error))
    try:
        family = load_family(prompt_family)
    except ValueError as error:
        faults.append(str(error))
    if family is None or loaded_format is None:
        raise ValueError("\n".join(faults))
    return Renderer(family, loaded_format)


def renderer_of_record(record: Mapping[str, Any], source: str) -> Renderer:
    """The renderer that a model's record names. Raises: ValueError."""
    family = FAMILIES["paper"]
    if record.get("prompt_family") is not None:
        family = family_from_dict(record["prompt_family"], source)
    return Renderer(family, chat_format_from_dict(record["chat_format"], source))


def _first_prefix(ids: list[int], through: str, decode: Decode) -> int:
    """The smallest count of leading ids whose text reaches the end of `through`.

    With ids of the texts `ab`, `c`, `d`, and `abc` to reach: 0, 1, 2 and 3 ids have the texts "",
    "ab", "abc" and "abcd", so the count is 2. By bisection, because the text never gets shorter
    with an id.
    """
    low = 0
    high = len(ids)
    while low < high:
        middle = (low + high) // 2
        text = decode(ids[:middle])
        if len(text) >= len(through) and text.startswith(through):
            high = middle
        else:
            low = middle + 1
    return low
