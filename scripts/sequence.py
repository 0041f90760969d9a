"""The whole sequence, stages 0 to 9, evaluation and report: the commands of the README's table, in
their order (Algorithm 1).

Every command finds out by itself what is done already, so a run that was killed goes on when it is
asked for again. Commands are lists of words and never pass through a shell.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from sequence_done import is_done

from variational_reasoning.model_record import masked_word
from variational_reasoning.pipeline.config import (
    Config,
    OutputConfig,
    SequenceConfig,
    load_config,
)
from variational_reasoning.pipeline.trainings import is_trained, read_recipe
from variational_reasoning.pipeline.work.timings import record

Result = TypeVar("Result")

PROFILES = Path("examples/variational_reasoning")
OWN_PROFILES = Path("profiles")
REASONER_RECIPE = "1_train_reasoner.yaml"
POSTERIOR_RECIPES = ("2_train_posterior_weighted.yaml", "2_train_posterior.yaml")
"""Of the posterior by forward KL (Eq. 9), and of the first one."""
TAUGHT = "posterior_weighted"
FORWARD_KL = "target: posterior, ratio: none, selection: weighted"
"""The train file of Eq. 9 where a profile names none."""
OWN = (
    "run",
    "seed",
    "base",
    "rounds",
    "carry",
    "finals",
    "hints",
    "gpus",
    "dry_run",
)
"""Keys of the call itself; all others go to the stages."""
HINTS = ("answer", "none", "other_question")
"""What `hints` may name; the reference is always sampled."""
SEED_STEP = 1000
"""Round t has the seed of the call plus this, t - 1 times."""
CHUNK = 65536
"""At most so many bytes of a training's output are copied at once."""
SHOWN_LINES = 30
"""Of the log of a training that failed without its output being shown."""


@dataclass(frozen=True)
class Plan:
    """What one call asks for. examples: the profile's folder; settings: key=value for the stages;
    rounds: None where the call does not say; hints: controls of round 1; sequence: what the profile
    needs of this program.
    """

    examples: Path
    run: Path
    seed: int
    base: str | None
    rounds: int | None
    carry: str
    finals: list[str]
    hints: list[str]
    dry_run: bool
    settings: list[str]
    sequence: SequenceConfig

    @property
    def has_adapters(self) -> bool:
        """LoRA: trainings write adapters, and the other stages take whole models."""
        return (self.examples / "export.yaml").is_file()

    def setting(self, name: str) -> str | None:
        """The value of the last key=value for `name` among the settings."""
        found = None
        for word in self.settings:
            key, value = word.split("=", 1)
            if key == name:
                found = value
        return found

    @cached_property
    def config(self) -> Config:
        """The profile's pipeline.yaml with the settings of the call."""
        return load_config(self.examples / "pipeline.yaml", self.settings)

    @property
    def trained_outputs(self) -> list[OutputConfig]:
        """The train files that the trainings of stage 9 read: those of their names."""
        return [output for output in self.config.build.outputs if output.name in self.finals]

    @property
    def needs_posterior(self) -> bool:
        """Whether a final model or a control is made from the posterior's traces; False for
        rejection sampling alone.
        """
        outputs = self.trained_outputs
        has_other_finals = len(outputs) < len(self.finals)
        samples_posterior = any(output.sampler == "posterior" for output in outputs)
        return bool(self.hints) or has_other_finals or samples_posterior

    @property
    def posterior_output(self) -> str | None:
        """The profile's train file for a posterior that learns by forward KL (Eq. 9)."""
        for output in self.config.build.outputs:
            if output.target == "posterior":
                return output.name
        return None

    @property
    def added_output(self) -> list[str]:
        """That train file as a setting of stage 8, where the profile has none."""
        if self.posterior_output:
            return []
        place = len(self.config.build.outputs)
        return [f"build.outputs.{place}={{name: {TAUGHT}, {FORWARD_KL}}}"]


def read_plan(words: Sequence[str]) -> Plan:
    """The command line. Raises: ValueError that names what does not fit, before anything is run."""
    name = words[0] if words else "nothing"
    examples = find_profile(name)
    own, settings = _own_and_settings(words[1:])
    config = load_config(examples / "pipeline.yaml", settings)
    run = Path(own.get("run", config.run_dir))
    settings = [*moved_files(config, run), *settings]
    base = own.get("base")
    reasoner = config.models.reasoner
    if base and reasoner and reasoner == config.base:
        # A profile that starts from questions names one model twice.
        settings = [f"models.reasoner={base}", *settings]
    recipes = _final_recipes(examples)
    if not recipes:
        raise ValueError(f"{examples} has no 9_train_*.yaml, so there is no final model to train")
    finals = recipes
    if own.get("finals"):
        finals = own["finals"].split(",")
    hints = [name for name in own.get("hints", "").split(",") if name]
    seed = _number("seed", own.get("seed", "0"), at_least=0)
    rounds = None
    if own.get("rounds"):
        rounds = _number("rounds", own["rounds"], at_least=1)
    dry_run = own.get("dry_run", "false")
    plan = Plan(
        examples=examples,
        run=run,
        seed=seed,
        base=base,
        rounds=rounds,
        carry=own.get("carry") or config.sequence.carry or finals[0],
        finals=finals,
        hints=hints,
        dry_run=dry_run == "true",
        settings=settings,
        sequence=config.sequence,
    )
    if dry_run not in ("true", "false"):
        raise ValueError(f"dry_run is {dry_run!r}; it is true or false")
    if unknown := [name for name in finals if name not in recipes]:
        raise ValueError(
            f"finals: {plan.examples} has no 9_train_*.yaml for {', '.join(unknown)}; it has "
            f"{', '.join(recipes)}"
        )
    if faults := _start_faults(plan):
        raise ValueError("\n".join(faults))
    if "gpus" in own:
        _check_gpus(plan.examples, own["gpus"])
    return plan


def _own_and_settings(pairs: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(the keys of the call itself, the settings of the stages).

    ["seed=1", "sampling.top_p=0.9"]
        {"seed": "1"}, ["sampling.top_p=0.9"]

    Raises: ValueError that lists what is not of the form key=value.
    """
    wrong = [repr(pair) for pair in pairs if not re.match(r"[\w.]+=", pair)]
    if wrong:
        raise ValueError(f"not of the form key=value: {', '.join(wrong)}")
    own = {}
    settings = []
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key in OWN:
            own[key] = value
        else:
            settings.append(pair)
    return own, settings


def _final_recipes(examples: Path) -> list[str]:
    """NAME of every 9_train_NAME.yaml of a profile."""
    names = []
    for path in examples.glob("9_train_*.yaml"):
        names.append(path.stem.removeprefix("9_train_"))
    return sorted(names)


def _start_faults(plan: Plan) -> list[str]:
    """What does not fit the start of round 1, and the rounds."""
    config = plan.config
    if config.arms:
        return _arm_faults(plan)
    faults = []
    is_taught = config.posterior == "own_traces" and not config.models.posterior
    has_rounds = plan.rounds is not None and plan.rounds > 1
    if has_rounds and plan.carry not in plan.finals:
        faults.append(
            f"rounds={plan.rounds} needs carry={plan.carry} among the finals "
            f"{', '.join(plan.finals)}: it is the next round's reasoner"
        )
    is_trained_later = config.posterior != "prompted" and (has_rounds or is_taught)
    has_recipe = any((plan.examples / name).is_file() for name in POSTERIOR_RECIPES)
    if is_trained_later and not has_recipe:
        faults.append(
            f"{plan.examples} has no {' or '.join(POSTERIOR_RECIPES)} to train a posterior with"
        )
    reasoner_recipe = plan.examples / REASONER_RECIPE
    if config.models.reasoner is None and not reasoner_recipe.is_file():
        faults.append(
            f"models.reasoner is not set and {plan.examples} has no {REASONER_RECIPE}; name the "
            "model to start from (docs/own_questions.md)"
        )
    if unknown := [name for name in plan.hints if name not in HINTS]:
        faults.append(
            f"hints: {', '.join(unknown)} is not among {', '.join(HINTS)}; the reference "
            "is always sampled"
        )
    return faults


def _arm_faults(plan: Plan) -> list[str]:
    """What does not fit a profile of arms."""
    config = plan.config
    faults = []
    has_rounds = plan.rounds is not None and plan.rounds > 1
    if has_rounds and not config.loops:
        faults.append(f"rounds={plan.rounds}: arms are given traces, which have one round")
    if config.base is None and plan.base is None:
        faults.append(f"{plan.examples}/pipeline.yaml has no base, the model that arms start from")
    known = {arm.name for arm in config.arms}
    known |= {output.name for output in config.build.outputs}
    without_entry = sorted(set(plan.finals) - known)
    if without_entry:
        faults.append(
            "finals: there is no entry of arms, nor of build.outputs, for "
            f"{', '.join(without_entry)}"
        )
    return faults


def find_profile(name: str) -> Path:
    """The folder of a profile, by its path or by its name in examples/variational_reasoning or
    profiles, where new_profile.py writes.

    Raises: ValueError for anything else.
    """
    folders = (PROFILES / name, OWN_PROFILES / name, Path(name))
    for folder in folders:
        if (folder / "pipeline.yaml").is_file():
            return folder
    names = [path.parent.name for path in PROFILES.glob("*/pipeline.yaml")]
    known = ", ".join(sorted(names))
    raise ValueError(
        f"{name!r} is not a profile; there are {known}, or give the path of a folder with a "
        "pipeline.yaml"
    )


def moved_files(config: Config, run: Path) -> list[str]:
    """Settings for data files that the profile makes in its run folder: they follow run=DIR.

    run_dir: runs/tiny, data.train: runs/tiny/source/train.jsonl, run=runs/b
        ["data.train=runs/b/source/train.jsonl"]
    """
    files = {
        "data.train": config.data.train,
        "data.test": config.data.test,
    }
    settings = []
    for key, file in files.items():
        if file and Path(file).is_relative_to(config.run_dir):
            inside = Path(file).relative_to(config.run_dir)
            settings.append(f"{key}={run / inside}")
    return settings


def _check_gpus(examples: Path, gpus: str) -> None:
    """gpus=N changes no command: with rows_per_step, a YAML has its batch on any number of GPUs."""
    _number("gpus", gpus, at_least=1)
    for recipe in sorted(examples.glob("[129]_train_*.yaml")):
        if "rows_per_step" not in read_recipe(recipe):
            raise ValueError(
                f"gpus={gpus}: {recipe} has no key rows_per_step, so its batch depends on the "
                "number of GPUs; add the key, or leave gpus out"
            )


def _number(name: str, text: str, at_least: int) -> int:
    if not text.isdecimal() or int(text) < at_least:
        raise ValueError(f"{name}={text} is not a whole number from {at_least}")
    return int(text)


def run_all(plan: Plan) -> bool:
    """Stages 0 to 9 of every round, evaluation and report; False where a model could not be
    evaluated.

    Raises: CalledProcessError for the first command that failed otherwise, after its own output.
    """
    prepare_profile(plan)
    given = plan.config.models
    models = Models(given.reasoner, given.posterior)
    num_rounds = plan.rounds or 1
    is_evaluated = True
    for number in range(1, num_rounds + 1):
        models, evaluates = run_round(plan, number, models)
        is_evaluated &= evaluates
    execute(plan, python("scripts/report.py", plan.run))
    return is_evaluated


class Models(NamedTuple):
    """The models that a round begins with; None: round 1 trains it."""

    reasoner: str | None
    posterior: str | None


def run_round(plan: Plan, number: int, models: Models) -> tuple[Models, bool]:
    """One round of Algorithm 1; the models that the next one begins with, and whether all could be
    evaluated.

    What differs between rounds is where reasoner and posterior come from:

        posterior    round 1: reasoner, posterior        round t > 1: reasoner, posterior
        trained      stages 1 and 2                      the carried final; Eq. 9
        prompted     stage 1 or models.reasoner; itself  the carried final; itself
        own_traces   stage 1 or models.reasoner; Eq. 9   the carried final; Eq. 9
    """
    this = Round(plan, number, models)
    this.stage("prepare_data")  # 0
    this.train_starts()  # 1, 2
    this.use_own_traces()  # 2
    hints = []
    if plan.needs_posterior:
        hints.append("reference")
    if number == 1:
        hints += hints_of(plan)
    for hint in hints:
        sample_and_weigh(plan, this.stage, hint)  # 3 to 8
    this.train_finals()  # 9
    is_evaluated = this.evaluate()
    this.stage("write_cards")  # README.md next to data and models
    carried = f"{this.folder}/models/{plan.carry}"
    return Models(carried, this.posterior), is_evaluated


class Round:
    """The parts of a round, and the models that it has come to. None: not trained yet."""

    def __init__(self, plan: Plan, number: int, models: Models) -> None:
        self.plan = plan
        self.number = number
        self.reasoner = models.reasoner
        self.posterior = models.posterior
        self.folder = plan.run
        base = plan.base
        if number > 1:
            self.folder = plan.run / f"round{number}"
            base = models.reasoner
        self.seed = plan.seed + SEED_STEP * (number - 1)
        self.start = [f"model_name_or_path={base}"] if base else []
        kind = plan.setting("posterior_prompt")
        self.prompt = [f"prompt_kind={kind}"] if kind else []
        self.settings = [f"run_dir={self.folder}", f"seed={self.seed}"]
        if plan.base:
            self.settings.append(f"base={plan.base}")
        self.settings += plan.settings

    def stage(self, name: str, *more: str) -> None:
        """One of the stages between the trainings."""
        run_stage(self.plan, self.settings, name, *more)

    def train(self, name: str, recipe: str, *more: str) -> None:
        """One of the trainings."""
        settings = [f"dataset_dir={self.folder}/train", f"seed={self.seed}"]
        train_model(self.plan, self.folder, settings, name, recipe, *more)

    def train_starts(self) -> None:
        """Stages 1 and 2, for the models that are not there."""
        plan = self.plan
        trainings = []
        if self.reasoner is None:
            trainings.append(partial(self.train, "reasoner", REASONER_RECIPE, *self.start))
        has_stage_2 = plan.config.posterior == "trained" and plan.needs_posterior
        if self.posterior is None and has_stage_2:
            recipe = POSTERIOR_RECIPES[1]
            words = [*self.start, *self.prompt]
            trainings.append(partial(self.train, "posterior", recipe, *words))
        side_by_side(plan, trainings)
        if self.number > 1:
            self.settings.append(f"models.reasoner={self.reasoner}")
        self.reasoner = self.reasoner or f"{self.folder}/models/reasoner"

    @property
    def is_taught(self) -> bool:
        """Whether the posterior learns from the reasoner's own traces (Eq. 9)."""
        mode = self.plan.config.posterior
        if mode == "prompted" or not self.plan.needs_posterior:
            return False
        if self.number > 1:
            return True
        return mode == "own_traces" and not self.posterior

    def use_own_traces(self) -> None:
        """Stages 3 to 8 on the reasoner's own traces, where something learns from them; then the
        posterior does.
        """
        is_taught = self.is_taught
        plan = self.plan
        has_own = any(output.sampler == "reasoner" for output in plan.trained_outputs)
        if is_taught or has_own:
            own = "sampling.traces_from=reasoner"
            self.stage("sample_traces", own)  # 3
            self.stage("sample_answers", own)  # 6
            self.stage("verify_answers", own)  # 7
            added = plan.added_output if is_taught else []
            self.stage("build_dataset", own, *added)  # 8
        if is_taught:
            self.teach_posterior()
            if self.number > 1:
                self.settings.append(f"models.posterior={self.posterior}")
        self.posterior = self.posterior or f"{self.folder}/models/posterior"

    def teach_posterior(self) -> None:
        """Stage 2 by forward KL (Eq. 9), from the posterior of the round before, or the reasoner:
        with a YAML of its own where the profile has one, else with that of stage 2 on the other
        train file.
        """
        plan = self.plan
        start = self.posterior or self.reasoner
        words = [f"model_name_or_path={start}", *self.prompt]
        recipe, other_recipe = POSTERIOR_RECIPES
        if not (plan.examples / recipe).is_file():
            recipe = other_recipe
            output = plan.posterior_output or TAUGHT
            words.append(f"dataset={plan.config.data.name}_{output}")
        self.train("posterior", recipe, *words)
        self.posterior = f"{self.folder}/models/posterior"

    def train_finals(self) -> None:
        """Stage 9."""
        finals = []
        for name in self.plan.finals:
            recipe = f"9_train_{name}.yaml"
            finals.append(partial(self.train, name, recipe, *self.start))
        side_by_side(self.plan, finals)

    def evaluate(self) -> bool:
        """The reasoner and the finals, in round 1 the base too; False where one could not be
        evaluated.
        """
        assert self.reasoner is not None  # train_starts has trained it
        models = {"reasoner": self.reasoner}
        for name in self.plan.finals:
            models[name] = f"{self.folder}/models/{name}"
        is_first = self.number == 1
        return evaluate(self.plan, self.settings, models, with_base=is_first)


def hints_of(plan: Plan) -> list[str]:
    """The hints other than the reference: those that the call names, and those of the finals."""
    used = [output.traces_hint for output in plan.trained_outputs]
    hints = dict.fromkeys([*plan.hints, *used])
    return [hint for hint in hints if hint != "reference"]


def sample_and_weigh(plan: Plan, stage: Callable[..., None], hint: str) -> None:
    """Stages 3 to 8 with one hint in the posterior's prompt."""
    more = [] if hint == "reference" else [f"sampling.hint={hint}"]

    def score() -> None:  # 4, 5
        scorings = []
        for name in ("reasoner", "posterior"):
            scorings.append(partial(stage, "score_traces", f"model={name}", *more))
        side_by_side(plan, scorings)

    def judge() -> None:  # 6, 7
        stage("sample_answers", *more)
        stage("verify_answers", *more)

    stage("sample_traces", *more)  # 3
    if plan.config.scoring.score_only == "verified":
        # Only traces with a right answer are scored, so the verdicts come first.
        judge()
        score()
    else:
        score()
        judge()
    hints = set()
    for output in plan.config.build.outputs:
        if output.sampler == "posterior":
            hints.add(output.traces_hint)
    if hint in hints:
        stage("build_dataset", *more)  # 8


def prepare_profile(plan: Plan) -> None:
    """What comes before stage 0: the profile's own commands, and its trainings 0_*.yaml."""
    os.environ |= plan.sequence.environment
    places = {
        "profile": plan.examples,
        "run": plan.run,
        "seed": plan.seed,
    }
    for line in plan.sequence.before:
        # The line is split first, so that a folder with a space in its name stays one word.
        words = shlex.split(line)
        command = [word.format(**places) for word in words]
        if command[0] == "python":
            command[0] = sys.executable
        execute(plan, command)
    for recipe in sorted(plan.examples.glob("0_*.yaml")):
        name = recipe.stem.rpartition("_")[2]
        train_command(plan, plan.run, name, recipe, [], is_shown=True)


def run_stage(plan: Plan, settings: Sequence[str], name: str, *more: str) -> None:
    """One of the stages between the trainings, with the profile's pipeline.yaml."""
    script = f"scripts/{name}.py"
    command = python(script, plan.examples / "pipeline.yaml", *settings, *more)
    execute(plan, command)


def train_model(
    plan: Plan,
    folder: Path,
    settings: Sequence[str],
    name: str,
    recipe: str,
    *more: str,
) -> None:
    """Stage 1, 2 or 9: the whole model is folder/models/NAME; an adapter, folder/adapters/NAME, is
    merged into it.
    """
    model = folder / "models" / name
    output = folder / "adapters" / name if plan.has_adapters else model
    words = [f"output_dir={output}", *settings, *more]
    is_alone = plan.sequence.at_once == 1
    train_command(plan, folder, name, plan.examples / recipe, words, is_shown=is_alone)
    if not plan.has_adapters:
        return
    # An adapter that was trained again is merged again.
    is_merged = _is_newer(model / "config.json", output / "train_results.json")
    if not is_merged:
        base = [word for word in more if word.startswith("model_name_or_path=")]
        command = [
            "llamafactory-cli",
            "export",
            f"{plan.examples}/export.yaml",
            f"adapter_name_or_path={output}",
            f"export_dir={model}",
            *base,
        ]
        execute(plan, command)


def train_command(
    plan: Plan,
    folder: Path,
    name: str,
    recipe: Path,
    settings: list[str],
    is_shown: bool,
) -> None:
    """One training, unless its output_dir holds the finished model of the same YAML and data; its
    seconds and its log.
    """
    trainer = os.environ.get("TRAIN_COMMAND", "llamafactory-cli train")
    command = [*shlex.split(trainer), str(recipe), *settings]
    if plan.dry_run:
        execute(plan, command)
        return
    if is_trained(recipe, settings):
        return
    started = time.monotonic()
    log = folder / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"train {name}: {recipe}, log in {log}", flush=True)
    execute(plan, command, log, is_shown)
    seconds = time.monotonic() - started
    record(folder, f"train {name}", seconds)
    print(f"trained {name} in {seconds:.0f} s", flush=True)


def evaluate(
    plan: Plan,
    settings: Sequence[str],
    models: dict[str, str],
    with_base: bool,
) -> bool:
    """Avg@k of the models, and of the base; False where one could not be evaluated, which its
    output explains.
    """
    file = plan.examples / "pipeline.yaml"
    config = load_config(file, settings)
    has_questions = config.data.test or config.eval.file or config.eval.tasks
    if not has_questions:
        print("nothing is evaluated: data.test, eval.file and eval.tasks are empty", flush=True)
        return True
    run = partial(python, "evals/run.py", file, *settings)
    commands = []
    for name, model in models.items():
        commands.append(run(f"name={name}", f"model={model}"))
    base = config.base
    if with_base and base and base not in models.values():
        commands.append(run("name=base", f"model={base}", "models.allow_unrecorded=true"))
    tasks = [partial(execute, plan, command) for command in commands]
    try:
        side_by_side(plan, tasks)
    except subprocess.CalledProcessError as error:
        report_failure(error)
        return False
    return True


def side_by_side(plan: Plan, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run the tasks, sequence.at_once at a time; all of them, even when one fails.

    Returns: what they return, in their order. Raises: what the first failed one raised.
    """
    # A dry run prints, so one at a time keeps the order of its lines.
    at_once = 1 if plan.dry_run else plan.sequence.at_once
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(task) for task in tasks]
    return [future.result() for future in futures]


def python(script: str | Path, *words: str | Path) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, str(script), *map(str, words)]


def execute(
    plan: Plan,
    command: list[str],
    log: Path | None = None,
    is_shown: bool = True,
) -> None:
    """Run a command, or print it, and whether its results are there.

    With a log its output goes there, and to the terminal too where `is_shown`.

    Raises: CalledProcessError for an exit code other than 0, after the log's end was shown.
    """
    if plan.dry_run:
        line = shown(command)
        if is_done(command):
            line += "  # done"
        print(line)
        return
    # The commands next to this interpreter come first, whether or not its environment is activated.
    own_folder = str(Path(sys.executable).parent)
    folders = [own_folder, os.environ.get("PATH", "")]
    environment = os.environ | {"PATH": os.pathsep.join(folders)}
    if log is None:
        subprocess.run(command, env=environment, check=True)
        return
    exit_code = _run_with_log(command, environment, log, is_shown)
    if exit_code:
        if not is_shown:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            end = "\n".join(lines[-SHOWN_LINES:])
            print(end, file=sys.stderr)
        raise subprocess.CalledProcessError(exit_code, command)


def _run_with_log(
    command: list[str],
    environment: dict[str, str],
    log: Path,
    is_shown: bool,
) -> int:
    """Run a command whose output goes into a file, and to the terminal where `is_shown`.

    Returns: its exit code.
    """
    with (
        log.open("wb") as file,
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout is not None
        output = process.stdout.fileno()
        # As it comes, since progress bars write no lines.
        while chunk := os.read(output, CHUNK):
            file.write(chunk)
            file.flush()
            if is_shown:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
    return process.returncode


def shown(command: Sequence[str]) -> str:
    """A command as a user would type it, with secrets masked."""
    words = []
    for word in command:
        if word == sys.executable:
            words.append("python")
        else:
            words.append(masked_word(word))
    return shlex.join(words)


def report_failure(error: subprocess.CalledProcessError) -> None:
    message = f"failed with exit code {error.returncode}: {shown(error.cmd)}"
    print(message, file=sys.stderr, flush=True)


def _is_newer(path: Path, than: Path) -> bool:
    if not path.is_file() or not than.is_file():
        return False
    return path.stat().st_mtime_ns > than.stat().st_mtime_ns
