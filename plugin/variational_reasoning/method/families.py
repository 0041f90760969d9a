"""What a prompt says, and how thought and solution are marked: prompt families.

A family has one prompt for the reasoner, pi(z, y | x), and one or more for the posterior, q(z | x,
y'). Three are built in:

    paper     the published prompts, byte for byte (App. E): reasoner, posterior_a (Sakana's RLT),
              posterior_b (the paper's)
    think     <think> ... </think>, then the answer up to the end of turn; the posterior sees the
              hint in the user turn
    abstract  <beginabstract> symbols <endabstract>, then the answer (arXiv 2604.22709,
              abstract.py); the posterior's turn begins with the hint, a verbal chain of thought.
              `abstract_bottleneck` has the posterior's prompt and the reasoner's response

With `paper` and ChatML a posterior's row is, after the system and the user turn,

    prompt      <|im_start|>assistant\\n<|begin_of_solution|>{hint}<|end_of_solution|>\\n\\n
                <|begin_of_thought|>\\n\\n
    response    {trace}<|end_of_thought|>

and the reasoner's with `think`

    prompt      <|im_start|>assistant\\n<think>\\n
    response    {trace}</think>\\n\\n{solution}

A YAML file defines another family; `family_from_dict` says how.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_yaml_object
from variational_reasoning.method.abstract import BEGIN, END

REASONER = "reasoner"
"""The prompt kind of pi(z, y | x); every other kind of a family shows the model a hint."""

POSTERIOR = "abstract_posterior"
BOTTLENECK = "abstract_bottleneck"
"""Kinds of the family `abstract`: both see the verbal chain, and the second goes on with an answer
that must not see it (host.bottleneck). A family of a file may call them otherwise: ask
`PromptFamily.posteriors` and `PromptFamily.bottleneck`."""

_PLACEHOLDERS = {"{question}", "{hint}", "{separator}"}


@dataclass(frozen=True)
class KindTexts:
    """The texts of one prompt kind.

    system: the system text; empty for none.
    user: the user text, with `{question}`, and with `{hint}` where the hint is shown there.
    opening: what follows the opening of the model's turn, up to the first character of the trace;
    `{hint}` may be here.
    close: closes the trace. `{separator}` in opening or close is the chat format's.
    has_answer: whether the response goes on with the solution although the prompt shows a hint.
    The reasoner's always does.
    """

    system: str
    user: str
    opening: str
    close: str
    has_answer: bool = False

    @property
    def has_hint(self) -> bool:
        """Whether the prompt shows a hint."""
        return "{hint}" in self.user + self.opening


@dataclass(frozen=True)
class PromptFamily:
    """All prompts that belong together.

    kinds: prompt kind to its texts; `reasoner` and at least one posterior.
    answer_open: what follows the reasoner's closing tag, up to the solution.
    answer_close: what closes the solution; empty where only the end of turn does.
    boundary: the text that ends a trace's ids (prompts.py); it begins every closing tag. None: the
    chat format's.
    forbidden: texts that a well-formed trace does not hold.
    hint: what the posteriors see of a question: its `solution`, or the `trace` of the data set.
    """

    name: str
    kinds: Mapping[str, KindTexts]
    answer_open: str
    answer_close: str
    boundary: str | None
    forbidden: tuple[str, ...]
    hint: str = "solution"

    @property
    def posteriors(self) -> tuple[str, ...]:
        """The posterior's prompt kinds; the last one is the default."""
        return tuple(
            kind for kind, texts in self.kinds.items() if kind != REASONER and not texts.has_answer
        )

    @property
    def bottleneck(self) -> str | None:
        """The kind whose answer follows a hint that it must not see; None without one.

        The training hides the hint by the kind's `has_answer`, whatever the kind's name is.
        """
        for kind, texts in self.kinds.items():
            if kind != REASONER and texts.has_answer:
                return kind
        return None

    @property
    def is_abstract(self) -> bool:
        """Whether traces are sequences of reserved symbols (abstract.py).

        Then only symbols are sampled between the delimiters. The constant text between the end
        delimiter and the solution is tokenized apart, never sampled and never trained: the end
        delimiter, which sees the chain in a bottleneck, predicts nothing of the solution.
        """
        return self.boundary == END


def _paper() -> PromptFamily:
    folder = Path(__file__).parent / "system_prompts"

    def texts(kind: str, word: str, hint: str = "") -> KindTexts:
        return KindTexts(
            # interface constants: published models only work with these bytes, misspellings
            # included
            system=(folder / f"{kind}_system.txt").read_bytes().decode("utf-8"),
            user="{question}",
            opening=f"{hint}<|begin_of_{word}|>{{separator}}",
            close=f"<|end_of_{word}|>",
        )

    hint = "<|begin_of_solution|>{hint}<|end_of_solution|>{separator}"
    return PromptFamily(
        name="paper",
        kinds={
            REASONER: texts(REASONER, "thought"),
            "posterior_a": texts("posterior_a", "explanation", hint),
            "posterior_b": texts("posterior_b", "thought", hint),
        },
        answer_open="{separator}<|begin_of_solution|>",
        answer_close="<|end_of_solution|>",
        boundary=None,
        forbidden=("<|begin_of",),
    )


_THINK_HINT = (
    "{question}\n\n"
    "A correct solution is given below. Think the question through step by step, as if you had not "
    "seen it, and arrive at its answer. Do not mention that you were given a solution.\n\n"
    "{hint}"
)

FAMILIES = {
    "paper": _paper(),
    "think": PromptFamily(
        name="think",
        kinds={
            REASONER: KindTexts("", "{question}", "<think>\n", "</think>"),
            "posterior": KindTexts("", _THINK_HINT, "<think>\n", "</think>"),
        },
        answer_open="\n\n",
        answer_close="",
        boundary="</think>",
        forbidden=("<think>",),
    ),
    "abstract": PromptFamily(
        name="abstract",
        kinds={
            REASONER: KindTexts("", "{question}", BEGIN, END),
            POSTERIOR: KindTexts("", "{question}", "{hint}" + BEGIN, END),
            BOTTLENECK: KindTexts("", "{question}", "{hint}" + BEGIN, END, has_answer=True),
        },
        answer_open="\n",
        answer_close="",
        boundary=END,
        forbidden=(BEGIN,),
        hint="trace",
    ),
}

HINTS = ("solution", "trace")
"""What `hint` of a family may be."""


def load_family(name_or_path: str) -> PromptFamily:
    """A prompt family by name, or from a YAML file (`family_from_dict`).

    Raises: ValueError for an unknown name, a missing file, and a file whose family does not fit,
    with all faults.
    """
    if name_or_path in FAMILIES:
        return FAMILIES[name_or_path]
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
        raise ValueError(
            f"prompt_family {name_or_path!r} is neither one of {', '.join(FAMILIES)} nor an "
            f"existing .yaml file"
        )
    return family_from_dict(read_yaml_object(path, "correct it"), source=str(path))


def family_from_dict(values: Mapping[str, Any], source: str) -> PromptFamily:
    """A family from a YAML mapping, or from a record.

        name: mine
        boundary: "</think>"             # ends a trace's ids; every `close` begins with it
        answer_open: "\\n\\n"              # between the reasoner's close and the solution
        answer_close: ""                 # after the solution; empty: only the end of turn
        forbidden: ["<think>"]           # texts that a well-formed trace does not hold (optional)
        hint: solution                   # what posteriors see; or the data's `trace` (optional)
        kinds:
          reasoner: {system: "", user: "{question}", opening: "<think>\\n", close: "</think>"}
          posterior: {system: "", user: "{question}\\nSolution: {hint}", opening: "<think>\\n",
              close: "</think>"}         # in a family of symbols: has_answer: true, phase A

    Raises: ValueError with all faults at once; `source` names the file.
    """
    faults: list[str] = []
    known = {f.name for f in fields(PromptFamily)}
    optional = {"forbidden", "boundary", "hint"}
    if unknown := sorted(set(values) - known):
        faults.append(f"unknown fields {unknown}; allowed are {sorted(known)}")
    if missing := sorted(known - optional - set(values)):
        faults.append(f"missing fields {missing}")
    for name in ("name", "answer_open", "answer_close"):
        if name in values and not isinstance(values[name], str):
            faults.append(f"{name} is {values[name]!r}; text is needed")
    kinds = _kinds_of(values.get("kinds", {}), faults)
    boundary = values.get("boundary")
    if boundary is not None and not (isinstance(boundary, str) and boundary):
        faults.append(f"boundary is {boundary!r}; text is needed")
    elif boundary:
        faults += [
            f"kinds.{kind}.close: {texts.close!r} does not begin with the boundary {boundary!r}"
            for kind, texts in kinds.items()
            if not texts.close.startswith(boundary)
        ]
    forbidden = values.get("forbidden", ())
    if isinstance(forbidden, str) or not all(isinstance(text, str) and text for text in forbidden):
        faults.append(f"forbidden is {forbidden!r}; a list of texts is needed")
    has_lead = bool(values.get("answer_open"))
    faults += _faults_of_bottlenecks(kinds, boundary == END, has_lead)
    hint = values.get("hint", "solution")
    if hint not in HINTS:
        faults.append(f"hint is {hint!r}; allowed are {', '.join(HINTS)}")
    if faults:
        raise ValueError("\n".join(f"{source}: {fault}" for fault in faults))
    return PromptFamily(
        name=values["name"],
        kinds=kinds,
        answer_open=values["answer_open"],
        answer_close=values["answer_close"],
        boundary=boundary,
        forbidden=tuple(forbidden),
        hint=hint,
    )


def _faults_of_bottlenecks(
    kinds: Mapping[str, KindTexts], is_abstract: bool, has_lead: bool
) -> list[str]:
    """What is wrong with kinds that answer although their prompt shows a hint.

    Args:
        has_lead: whether a constant text is between the end of a trace and its answer.
    """
    answering = []
    for kind, texts in kinds.items():
        if kind != REASONER and texts.has_answer:
            answering.append(kind)
    faults = []
    for kind in answering:
        where = f"kinds.{kind}.has_answer"
        if not is_abstract:
            faults.append(
                f"{where}: the answer would see the hint, which only a family of symbols "
                f"(boundary: {END!r}) can hide from it; remove it"
            )
            continue
        if "{hint}" not in kinds[kind].opening:
            faults.append(
                f"{where}: the hint is in `user`, where it cannot be hidden from the answer; move "
                "{hint} to `opening`"
            )
        if not has_lead:
            faults.append(
                f"answer_open: is empty, and kinds.{kind} has an answer after a chain and a trace; "
                "the end of the trace, which sees the chain, would predict the answer's first "
                'token. Put a constant text between them, such as "\\n"'
            )
    if len(answering) > 1:
        faults.append(
            f"kinds: {', '.join(answering)} have has_answer: true; one kind of a family can have it"
        )
    return faults


def _kinds_of(values: Any, faults: list[str]) -> dict[str, KindTexts]:
    """The kinds that fit; what does not is added to `faults`."""
    if not isinstance(values, Mapping) or REASONER not in values or len(values) < 2:
        faults.append("kinds: needs `reasoner` and at least one posterior")
        return {}
    names = {f.name for f in fields(KindTexts)} - {"has_answer"}
    kinds = {}
    for kind, texts in values.items():
        where = f"kinds.{kind}"
        if not isinstance(texts, Mapping) or set(texts) - {"has_answer"} != names:
            faults.append(f"{where}: has to hold exactly {sorted(names)}")
            continue
        if not isinstance(texts.get("has_answer", False), bool):
            faults.append(
                f"{where}.has_answer: is {texts['has_answer']!r}; true or false is needed"
            )
            continue
        wrong = [name for name in names if not isinstance(texts[name], str)]
        if wrong:
            faults.append(f"{where}: {', '.join(wrong)} must be text")
            continue
        found = KindTexts(**texts)
        if found.user.count("{question}") != 1:
            faults.append(f"{where}.user: needs the placeholder {{question}} once")
        hints = (found.user + found.opening).count("{hint}")
        if hints != (kind != REASONER):
            needs = "needs the placeholder {hint} once, in user or opening"
            faults.append(f"{where}: {needs if kind != REASONER else 'has no hint to show'}")
        if not found.close:
            faults.append(f"{where}.close: is empty; nothing would tell the end of a trace")
        if not found.opening:
            faults.append(f"{where}.opening: is empty; nothing would tell where a trace begins")
        kinds[kind] = found
    return kinds


def family_to_dict(family: PromptFamily) -> dict[str, Any]:
    """What records and manifests store: the inverse of `family_from_dict`."""
    values = asdict(family)
    values["kinds"] = {kind: _kind_to_dict(texts) for kind, texts in family.kinds.items()}
    values["forbidden"] = list(family.forbidden)
    if family.hint == "solution":
        del values["hint"]  # what earlier records, which do not know it, mean
    return values


def _kind_to_dict(texts: KindTexts) -> dict[str, Any]:
    """Without `has_answer` where it says nothing, as in the records of earlier releases."""
    values = asdict(texts)
    if not texts.has_answer:
        del values["has_answer"]
    return values
