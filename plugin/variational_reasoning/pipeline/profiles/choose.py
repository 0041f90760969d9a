"""What a profile says, and why: from a model, a file of questions and a machine.

`choose` reads the model's config.json and tokenizer, looks at the first rows and counts the others,
and collects everything that will not work before anything is written: columns, golds, lengths, the
chat format, the memory. The data may be larger than memory.
"""

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from variational_reasoning.chat_template import chat_template_of, refuses_system
from variational_reasoning.files import is_plain_name
from variational_reasoning.method.chat_formats import CHAT_FORMATS, TEMPLATE, load_chat_format
from variational_reasoning.method.families import FAMILIES, load_family
from variational_reasoning.method.prompts import Renderer, make_renderer
from variational_reasoning.packages import need
from variational_reasoning.pipeline.config import Config, GymConfig, load_config
from variational_reasoning.pipeline.engines.base import load_tokenizer, text_codec
from variational_reasoning.pipeline.profiles.choices import Choices, HeldOut
from variational_reasoning.pipeline.profiles.evaluation_questions import (
    check_test_file,
    note_shared_questions,
)
from variational_reasoning.pipeline.profiles.memory import (
    USABLE,
    ModelShape,
    WayToTrain,
    fitting_training,
    parallel_size,
    read_shape,
    ways_to_train,
)
from variational_reasoning.pipeline.profiles.options import ProfileOptions
from variational_reasoning.pipeline.profiles.write import (
    family_text,
    gpus_text,
    machine,
    profile_files,
)
from variational_reasoning.pipeline.questions.checks import QuestionChecks
from variational_reasoning.pipeline.questions.gym import gym_rows, is_gym
from variational_reasoning.pipeline.questions.sources import stream_source, to_columns
from variational_reasoning.pipeline.questions.subsets import IdChooser
from variational_reasoning.pipeline.questions.usable_rows import example_tokens, usable_rows
from variational_reasoning.pipeline.verify import open_pool, read_checks, try_golds

FIRST_ROWS = 500
"""Rows whose checks, lengths and golds are looked at."""
LONGEST = 16384
"""cutoff_len where the model's context and the memory allow it; half of it is tried next."""
LONGEST_ON_A_CPU = 1024
SHORTEST = 256
TEST_SHARE = 10
"""One question in so many is for the test, where the user names no others."""
ANSWER_ROOM = 64
"""Tokens that a prompt must leave in cutoff_len."""

GUESSES = {
    "question": ("question", "problem", "prompt", "instruction", "query", "input"),
    "gold": ("gold", "answer", "final_answer", "target", "ground_truth", "expected_answer"),
    "solution": ("solution", "response", "output"),
    "trace": ("trace", "reasoning", "thinking", "thought", "reasoning_content"),
}
"""Our column to what data sets call it, the first that is there counts."""

INSTRUCTIONS = {
    "math": "Please reason step by step, and put your final answer within \\boxed{}.",
    "exact": "After your reasoning, write the final answer only, without any other word.",
}
"""What is added to a question that does not say how to answer; a check reads exactly this."""


def choose(name: str, folder: Path, options: ProfileOptions, root: Path) -> Choices:
    """Decide everything, or say all that does not fit.

    Args:
        root: the folder that relative paths of a run are relative to.

    Raises: ValueError that lists every fault.
    """
    choices = Choices(name, folder, options, run_dir=f"runs/{name}")
    if not is_plain_name(name):
        choices.faults.append(
            f"NAME: {name!r} cannot be the name of a folder; use letters, digits, '-', '_' and '.'"
        )
    elif folder.exists() and any(folder.iterdir()):
        choices.faults.append(f"{folder} is there already; remove it or choose another NAME")
    data, test = _read_data(choices, root)
    first = data.first if data else []
    if first:
        _choose_columns(choices, first)
        _choose_check(choices, first)
    if first and test and "question" in choices.columns:
        _look_at_test(choices, test)
    _choose_family(choices, first, root)
    _choose_model(choices, root)
    if data and not choices.faults:
        _split_rows(choices, data, root)
        _look_at_rows(choices, first)
        _explain_sampling(choices)
    if choices.faults:
        raise ValueError("\n".join(choices.faults))
    _look_at_machine(choices)
    return choices


def path_text(path: Path, root: Path) -> str:
    """A path as a profile writes it: relative to the repository where it is inside, else whole."""
    path = path.resolve()
    if path.is_relative_to(root):
        path = path.relative_to(root)
    return str(path)


class _Data(NamedTuple):
    """The training data: the first rows, the number of all, and the questions for a test."""

    first: list[dict[str, Any]]
    num_rows: int
    test: IdChooser


def _read_data(choices: Choices, root: Path) -> tuple[_Data | None, _Data | None]:
    """Read every row of the data and of the test questions once; None for what cannot be read, and
    for a test that the user does not name.
    """
    options = choices.options
    data = None
    test = None
    for key, source in {"data": options.data, "test": options.test}.items():
        if source is None or not source:
            continue
        split = "train" if key == "data" else "test"
        try:
            found = _scan(_rows_of(source, split, options), options)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            choices.faults.append(f"{key}: {error}")
            continue
        text = source
        if not is_gym(source) and Path(source).exists():
            text = path_text(Path(source), root)
        if key == "data":
            data = found
            choices.train = text
            choices.num_train = found.num_rows
        else:
            test = found
            choices.test = text
    return data, test


def _look_at_test(choices: Choices, test: _Data) -> None:
    """Whether the user's test questions fit the data."""
    options = choices.options
    assert options.test is not None
    if is_gym(options.test) or is_gym(options.data):
        return  # with our columns, and with questions of another seed
    questions = check_test_file(choices, test.first, _rows_of(options.test, "test", options))
    if questions:
        note_shared_questions(choices, questions, _rows_of(options.data, "train", options))


def _scan(rows: Iterable[dict[str, Any]], options: ProfileOptions) -> _Data:
    """Only the first rows are kept, and as many texts of questions as a test may have."""
    remaining = iter(rows)
    first = list(itertools.islice(remaining, FIRST_ROWS))
    column = _column_of("question", options, _names(first)) or ""
    enough = TEST_SHARE * options.test_size  # more questions change nothing
    test = IdChooser(at_most=options.test_size, seed=0, count_up_to=enough)
    num_rows = 0
    for row in itertools.chain(first, remaining):
        num_rows += 1
        test.add(str(row.get(column)))
    return _Data(first, num_rows, test)


def _rows_of(source: str, split: str, options: ProfileOptions) -> Iterable[dict[str, Any]]:
    if is_gym(source):
        gym = GymConfig(train_size=options.train_size, test_size=options.test_size)
        return gym_rows(source, split, gym)[0]
    return stream_source(source, split, options.allow_hub)


def _names(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """The columns that any row has."""
    names: set[str] = set()
    for row in rows:
        names.update(row)
    return names


def _column_of(ours: str, options: ProfileOptions, present: set[str]) -> str | None:
    """The data's name of one of our columns: as the user says, else the first guess that is
    there.
    """
    named = getattr(options, ours)
    if named is not None:
        return named
    for guess in GUESSES[ours]:
        if guess in present:
            return guess
    return None


def _choose_columns(choices: Choices, rows: Sequence[Mapping[str, Any]]) -> None:
    """Which of the data's columns are ours, and whether there are traces to start from."""
    options = choices.options
    present = _names(rows)
    listed = ", ".join(sorted(present))
    found: dict[str, str] = {}
    for ours in GUESSES:
        theirs = _column_of(ours, options, present)
        if theirs is not None and theirs not in present:
            choices.faults.append(f"{ours}={theirs}: the data has no such column; it has {listed}")
        if theirs is not None:
            found[ours] = theirs
    choices.start = options.start
    if choices.start == "auto":
        choices.start = "questions"
        why = "no column of traces"
        if "trace" in found:
            choices.start = "traces"
            why = f"{found['trace']!r} is there"
        choices.reasons.append(f"start: {choices.start} ({why})")
    if choices.start == "questions":
        found.pop("trace", None)
    elif "solution" not in found and "gold" in found:
        found["solution"] = found["gold"]
    needs = {"question": "question=COLUMN"}
    if choices.start == "traces":
        needs |= {"trace": "trace=COLUMN", "solution": "solution=COLUMN"}
    for ours, how in needs.items():
        if ours not in found and getattr(options, ours) is None:
            choices.faults.append(f"the data has no column of the {ours}: {listed}; name it: {how}")
    if not found.keys() & {"gold", "solution"} and "check" not in present:
        choices.faults.append(
            f"the data has nothing to verify an answer against: {listed}; name the column of the "
            "answer (gold=COLUMN), or of solutions with a box (solution=COLUMN)"
        )
    choices.columns = found
    if not is_gym(choices.train):
        shown = ", ".join(f"{ours} is {theirs!r}" for ours, theirs in found.items())
        choices.reasons.append(f"columns: {shown}; the data has {listed}")


def _choose_check(choices: Choices, rows: Sequence[Mapping[str, Any]]) -> None:
    """How answers are compared: as math, unless the golds are words."""
    column = choices.columns.get("gold")
    golds: list[str] = []
    if column:
        golds = [str(row.get(column) or "") for row in rows]
    num_solutions = sum("####" in gold for gold in golds)
    if num_solutions > len(golds) / 2:
        choices.faults.append(
            f"gold={column}: its texts hold '####', such as {golds[0][-40:]!r}, so they are whole "
            "solutions; make a column with what follows '####' and name it (gold=COLUMN)"
        )
    choices.check_kind = choices.options.check_kind
    if choices.check_kind == "auto":
        words = [gold for gold in golds if gold and not _has_digit_or_command(gold)]
        choices.check_kind = "math"
        why = "compared by value, in the last box"
        if golds and len(words) > len(golds) / 2:
            choices.check_kind = "exact"
            why = "most golds are words"
        if is_gym(choices.train):
            why = "the task's own verifier decides"
        choices.reasons.append(f"check_kind: {choices.check_kind} ({why})")


def _has_digit_or_command(gold: str) -> bool:
    """Whether a gold looks like math: it has a digit or a LaTeX command."""
    return "\\" in gold or any(map(str.isdigit, gold))


def _choose_family(choices: Choices, rows: Sequence[Mapping[str, Any]], root: Path) -> None:
    """The prompts, with an instruction where the questions do not say how to answer."""
    options = choices.options
    try:
        family = load_family(options.family)
    except ValueError as error:
        choices.faults.append(f"family: {error}")
        return
    if family.is_abstract:
        choices.faults.append(
            f"family: {options.family} is of abstract traces, which need a vocabulary, first "
            "traces and a loop of trainings that this command does not write; copy "
            "examples/variational_reasoning/qwen3_4b_abstract_lora and change its base and data "
            "(docs/abstract.md)"
        )
        return
    choices.family = options.family
    choices.posterior_prompt = family.posteriors[-1]
    if options.family not in FAMILIES:
        choices.family = path_text(Path(options.family), root)
    instruction = options.instruction
    if instruction is None and options.family == "think":
        column = choices.columns.get("question", "question")
        asks = sum("boxed" in str(row.get(column)) for row in rows)
        instruction = INSTRUCTIONS[choices.check_kind]
        if rows and asks > len(rows) / 2:
            instruction = "none"
            choices.reasons.append("instruction: none, since the questions ask for a box")
    if instruction in (None, "none"):
        return
    choices.family_text = family_text(family, choices.name, str(instruction))
    choices.family = path_text(choices.folder / "prompts.yaml", root)
    choices.reasons.append(
        f"prompts.yaml: {options.family}, and after each question: {instruction}"
    )


def _choose_model(choices: Choices, root: Path) -> None:
    """Chat format, memory and lengths, from the model's folder."""
    options = choices.options
    folder = Path(options.base)
    _check_chat_format_name(choices)
    if not options.base:
        choices.faults.append("base=... is missing: the folder of the model to start from")
        return
    if not folder.is_dir():
        choices.faults.append(
            f"base: there is no model folder {options.base}; a model of the hub becomes one by "
            f"base=$(hf download --quiet {options.base})"
        )
        return
    choices.base = path_text(folder, root)
    try:
        choices.shape = read_shape(folder)
    except ValueError as error:
        choices.faults.append(str(error))
    try:
        tokenizer = load_tokenizer(str(folder))
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        choices.faults.append(f"base: {folder} has no tokenizer that can be read ({first})")
    else:
        _choose_chat_format(choices, folder, tokenizer)
    if choices.shape is not None:
        _choose_training(choices, choices.shape)


def _check_chat_format_name(choices: Choices) -> None:
    """A chat format that does not exist is a fault whatever the model is."""
    name = choices.options.chat_format
    if name in ("auto", TEMPLATE):
        return
    try:
        load_chat_format(name)
    except ValueError as error:
        choices.faults += str(error).splitlines()


def _choose_chat_format(choices: Choices, folder: Path, tokenizer: Any) -> None:
    """The model's own template, or the format whose control tokens the tokenizer knows."""
    options = choices.options
    vocabulary = tokenizer.get_vocab()
    choices.refuses_system = refuses_system(tokenizer)
    why = ""
    if options.chat_format == "auto":
        choices.chat_format = TEMPLATE
        why = "the model's own"
        try:
            make_renderer(TEMPLATE, "think", str(folder), chat_template_of)
        except ValueError as error:
            known = []
            for name, chat in CHAT_FORMATS.items():
                if set(chat.control_texts) <= vocabulary.keys():
                    known.append(name)
            if not known:
                choices.faults.append(
                    f"{error}. Its tokenizer knows the control tokens of none of "
                    f"{', '.join(CHAT_FORMATS)}; name one nevertheless (chat_format=chatml), or a "
                    ".json file"
                )
                return
            choices.chat_format = known[0]
            why = f"its tokens are in the vocabulary; {str(error).partition(';')[0]}"
    else:
        choices.chat_format = options.chat_format
        absent = []
        if options.chat_format in CHAT_FORMATS:
            control_texts = CHAT_FORMATS[options.chat_format].control_texts
            absent = [text for text in control_texts if text not in vocabulary]
        if absent:
            choices.notes.append(
                f"chat_format {options.chat_format}: {', '.join(absent)} are not tokens of the "
                "model, but several pieces each"
            )
    try:
        renderer = make_renderer(choices.chat_format, options.family, str(folder), chat_template_of)
        encode, decode = text_codec(tokenizer)
        renderer.check_codec(encode, decode, str(folder))
    except ValueError as error:
        for fault in str(error).splitlines():
            if fault not in choices.faults:
                choices.faults.append(fault)
        return
    if why:
        choices.reasons.append(f"chat_format: {choices.chat_format} ({why})")


def _choose_training(choices: Choices, shape: ModelShape) -> None:
    """The longest cutoff_len, and for it the first way to train, that fit the GPUs."""
    options = choices.options
    context = shape.context or LONGEST
    longest = min(context, LONGEST if choices.is_on_gpu else LONGEST_ON_A_CPU)
    if options.cutoff_len > context:
        choices.faults.append(
            f"cutoff_len={options.cutoff_len} is more than the {context} tokens that the model is "
            "made for"
        )
    lengths = _halves(longest)
    if options.cutoff_len:
        lengths = [options.cutoff_len]
    for length in lengths:
        found = fitting_training(shape, options.gpus, options.gpu_gb, options.lora, length)
        if found is not None:
            choices.training = found
            choices.cutoff_len = length
            break
    else:
        shortest = lengths[-1]
        needs = {
            way.name: f"{way.name} takes {way.states:.1f} GB + {way.activations:.1f} GB"
            for way in ways_to_train(shape, options.gpus, options.lora, shortest)
        }
        remedies = ["more GPUs or memory"]
        if options.lora == "false":
            remedies.append("lora=auto")
        remedies.append("a smaller cutoff_len" if options.cutoff_len else "a smaller model")
        choices.faults.append(
            f"gpus={options.gpus} gpu_gb={options.gpu_gb:g}: {shape.parameters / 1e9:.2f} billion "
            f"parameters and {shortest} tokens do not fit ({'; '.join(needs.values())} per GPU, of "
            f"{USABLE * options.gpu_gb:.1f} GB). Give {' or '.join(remedies)}"
        )
        return
    size = parallel_size(shape, options.gpus, options.gpu_gb)
    if size is None:
        choices.faults.append(
            f"gpus={options.gpus} gpu_gb={options.gpu_gb:g}: bf16 weights of "
            f"{2 * shape.parameters / 1e9:.0f} GB do not fit for sampling"
        )
        return
    choices.parallel = size
    _explain_training(choices, shape, found, context)


def _halves(length: int) -> list[int]:
    """16384, 8192 and so on down to SHORTEST; a shorter length alone."""
    lengths = []
    while length >= SHORTEST:
        lengths.append(length)
        length //= 2
    return lengths or [length]


def _explain_training(
    choices: Choices, shape: ModelShape, training: WayToTrain, context: int
) -> None:
    """How it is trained, and what it was chosen from."""
    options = choices.options
    choices.reasons.append(
        f"model: {shape.architecture}, {shape.parameters:,} parameters, context {context}"
    )
    if not choices.is_on_gpu:
        choices.reasons.append(f"training: {training.name} in float32 on the CPU (gpus=0)")
    else:
        choices.reasons.append(
            f"training: {training.name}, {training.states:.1f} GB of states and "
            f"{training.activations:.1f} GB of activations per GPU, of {options.gpu_gb:g} GB "
            "(arithmetic of docs/scale.md)"
        )
    why = "as asked for" if options.cutoff_len else "the longest that context and memory allow"
    choices.reasons.append(f"cutoff_len: {choices.cutoff_len} ({why})")
    if training.tokens is not None and choices.is_on_gpu:
        choices.reasons.append(f"tokens_per_micro_batch: {training.tokens}, to save memory")
    if choices.parallel > 1:
        choices.reasons.append(f"tensor_parallel_size: {choices.parallel}, so that weights fit")


def _explain_sampling(choices: Choices) -> None:
    """How much is sampled, which takes most of the time."""
    options = choices.options
    questions = choices.num_train
    traces = questions * options.num_traces
    answers = traces * options.num_answers
    choices.reasons.append(
        f"sampling: {options.num_traces} traces for each of {questions} questions (num_traces) and "
        f"{options.num_answers} answers after each (num_answers): {traces:,} traces, "
        f"{answers:,} answers"
    )


def _split_rows(choices: Choices, data: _Data, root: Path) -> None:
    """Test questions from the user's file, where there are none: written next to the YAMLs."""
    options = choices.options
    if choices.test is not None:
        return
    if is_gym(choices.train):
        choices.test = choices.train
        choices.reasons.append(
            f"data: {options.train_size} training and {options.test_size} test questions, which "
            "share none"
        )
        return
    num_questions = data.test.num_different
    count = min(options.test_size, num_questions // TEST_SHARE)
    if count < 2:
        choices.notes.append(
            f"nothing is evaluated: the data has too few questions ({num_questions}) to keep some "
            "for a test; name a file of others (test=FILE)"
        )
        return
    held_out = data.test.chosen(count)
    choices.held_out = HeldOut(
        rows=lambda: _rows_of(options.data, "train", options),
        column=choices.columns["question"],
        questions=frozenset(held_out),
    )
    choices.num_train = data.num_rows - sum(held_out.values())
    among = f"{num_questions} questions"
    if count == options.test_size:  # the questions were not all counted
        among = f"the questions of {data.num_rows} rows"
    choices.reasons.append(
        f"data: {count} of {among} are kept for the test (test=FILE names others); train.jsonl and "
        "test.jsonl are copies"
    )
    choices.train = path_text(choices.folder / "train.jsonl", root)
    choices.test = path_text(choices.folder / "test.jsonl", root)


def _look_at_rows(choices: Choices, first: list[dict[str, Any]]) -> None:
    """The first rows as stage 0 will see them: what is dropped, lengths, golds."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in profile_files(choices).items():
            Path(folder, name).write_text(text, encoding="utf-8")
        changed = [f"base={Path(choices.options.base).resolve()}"]
        if choices.family_text is not None:
            changed.append(f"prompt_family={folder}/prompts.yaml")
        config = load_config(Path(folder, "pipeline.yaml"), changed)
        try:
            table, dropped = _usable(first, config)
            checks = read_checks(table)
        except ValueError as error:
            choices.faults += str(error).splitlines()
            return
        if dropped:
            listed = ", ".join(f"{len(ids)} ({reason})" for reason, ids in dropped.items())
            choices.notes.append(f"of the first {len(first)} rows these are dropped: {listed}")
        if not table:
            choices.faults.append(f"none of the first {len(first)} rows of the data can be used")
            return
        _look_at_lengths(choices, table, config)
        _look_at_golds(choices, table, checks, config)


def _look_at_golds(
    choices: Choices,
    table: Sequence[Mapping[str, Any]],
    checks: Mapping[str, dict[str, Any]],
    config: Config,
) -> None:
    """Whether the golds pass their own checks, which stage 7 asks before it judges anything."""
    solutions = {row["question_id"]: row["solution"] for row in table}
    tests = {name: check for name, check in checks.items() if check["kind"] != "program"}
    try:
        with open_pool(config, None) as pool:
            tried = try_golds(tests, solutions, pool)
    except RuntimeError as error:
        choices.notes.append(f"golds were not tried: {error}")
        return
    wrong = [name for name, result in tried.items() if result["verdict"] != "correct"]
    if not wrong:
        return
    name = wrong[0]
    result = tried[name]
    why = result["reason"] or result["verdict"]
    example = f"{checks[name].get('gold')!r:.60}: {why}"
    if len(wrong) == len(tried):
        choices.faults.append(
            f"none of the first {len(tried)} golds is accepted by its own check ({example}); name "
            "another column (gold=COLUMN) or check_kind"
        )
    else:
        choices.notes.append(
            f"{len(wrong)} of the first {len(tried)} golds are not accepted by their own check "
            f"({example}); their questions are left out (verify.bad_golds: exclude)"
        )


def _usable(rows: list[dict[str, Any]], config: Config) -> tuple[list[dict[str, Any]], Any]:
    """(rows of the table of questions, ids of the dropped ones by reason), as stage 0 has them."""
    data = config.data
    layout = data
    if is_gym(data.train):
        layout = replace(data, columns={})
    table = to_columns(rows, data.train, config.renderer, layout, config.traces_are_optional)
    return usable_rows(table, data.train, "train", {}, QuestionChecks(data), config)


def _look_at_lengths(choices: Choices, table: Sequence[Mapping[str, Any]], config: Config) -> None:
    """Prompts against cutoff_len; with traces, whole examples."""
    renderer = config.renderer
    cutoff_len = config.cutoff_len
    assert config.base is not None
    encode, _ = text_codec(load_tokenizer(config.base))
    lengths = [_prompt_length(row, renderer, config, encode) for row in table]
    too_long = sum(length + ANSWER_ROOM > cutoff_len for length in lengths)
    choices.reasons.append(
        f"lengths: the first {len(table)} questions have prompts of {median(lengths):.0f} tokens "
        f"(median), {max(lengths)} at most, of cutoff_len {cutoff_len}"
    )
    if too_long > len(table) / 2:
        choices.faults.append(
            f"lengths: {too_long} of the first {len(table)} prompts leave no room for a trace in "
            f"cutoff_len {cutoff_len} (median {median(lengths):.0f} tokens); give more "
            "memory, a model of a longer context, or shorter questions"
        )
    elif too_long:
        choices.notes.append(f"{too_long} of the first {len(table)} prompts are too long")
    if choices.start == "traces":
        dropped = 0
        for row in table:
            of_reasoner = sum(example_tokens("reasoner", renderer, row, encode))
            of_posterior = sum(example_tokens(config.posterior_prompt, renderer, row, encode))
            if max(of_reasoner, of_posterior) > cutoff_len:
                dropped += 1
        if dropped > len(table) / 2:
            choices.faults.append(
                f"lengths: {dropped} of the first {len(table)} rows with their traces are longer "
                f"than cutoff_len {cutoff_len}; give more memory or another model"
            )
        elif dropped:
            choices.notes.append(
                f"{dropped} of the first {len(table)} rows are longer than cutoff_len "
                f"{cutoff_len} and are dropped"
            )


def _prompt_length(row: Mapping[str, Any], renderer: Renderer, config: Config, encode: Any) -> int:
    """Tokens of the longer prompt, which is mostly the posterior's: it shows the solution too, or
    the data's trace in a family whose hint is that.
    """
    hint = row[renderer.family.hint]
    prompts = [
        renderer.prompt("reasoner", row["question"]),
        renderer.prompt(config.posterior_prompt, row["question"], hint=hint),
    ]
    return max(len(encode(prompt)) for prompt in prompts)


def _look_at_machine(choices: Choices) -> None:
    """Whether this machine is the one that the profile is for."""
    options = choices.options
    cuda = need("torch", "train").cuda
    if not choices.is_on_gpu:
        choices.notes.append(
            "a CPU may need hours: fewer questions, num_traces, num_answers and a smaller "
            "cutoff_len make it shorter"
        )
        return
    count = cuda.device_count() if cuda.is_available() else 0
    wanted = machine(options)
    if count == 0:
        choices.notes.append(
            f"no GPU is visible here; the profile is for a machine with {wanted} (gpus=0 writes "
            "one for a CPU)"
        )
        return
    smallest = min(cuda.get_device_properties(i).total_memory for i in range(count))
    memory = smallest / 1e9
    if count < options.gpus or memory < options.gpu_gb:
        choices.notes.append(
            f"this machine has {gpus_text(count, round(memory))}; the profile is for {wanted}"
        )
