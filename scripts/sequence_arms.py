"""The sequence of a profile with `arms` (docs/abstract.md): models that learn from given traces,
then loops that sample traces and learn from them.

    stage 0, clusters of the chain's steps, the model with untrained symbols, the train files
    arms that loops begin with
    the other arms, and the loops: each trained and evaluated, sequence.at_once of them at a time
    one table of all

A loop is rounds of phases. In each phase the models of that moment sample (stage 3), and where a
train file asks for it they score and answer (stages 4 to 7); stage 8 or build_arms.py writes the
train files, and the trainings go on from the reasoner. Its first model is the next phase's
reasoner. With phases [[a], [b]], the first of which samples with the chain in view:

    round 1    first: given traces, trained from loops.reasoner    b: sampled by first's model
    round 2    a: sampled by b's model of round 1                  b: sampled by a's model
"""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from sequence import (
    SEED_STEP,
    Plan,
    execute,
    prepare_profile,
    python,
    report_failure,
    run_stage,
    side_by_side,
    train_model,
)

from variational_reasoning.method.families import load_family
from variational_reasoning.pipeline.build.open_tables import needed_tables
from variational_reasoning.pipeline.config import (
    ArmConfig,
    LoopConfig,
    OutputConfig,
    VocabularyConfig,
)


@dataclass(frozen=True)
class ArmPlan:
    """What a call asks for of a profile with arms."""

    plan: Plan

    @cached_property
    def base(self) -> str:
        """The model that arms start from."""
        base = self.plan.base or self.plan.config.base
        assert base is not None  # read_plan refuses a profile without one
        return base

    @property
    def extended(self) -> str:
        """The same with symbols that are not trained."""
        return str(self.plan.run / "models/extended")

    @cached_property
    def arms(self) -> dict[str, ArmConfig]:
        """All arms by name."""
        return {arm.name: arm for arm in self.plan.config.arms}

    @cached_property
    def outputs(self) -> dict[str, OutputConfig]:
        """Train files of stage 8 by name."""
        return {output.name: output for output in self.plan.config.build.outputs}

    @cached_property
    def loops(self) -> list[LoopConfig]:
        """The loops that train one of the finals."""
        finals = set(self.plan.finals)
        loops = []
        for loop in self.plan.config.loops:
            if any(finals.intersection(phase.train) for phase in loop.phases):
                loops.append(loop)
        return loops

    @cached_property
    def starts(self) -> list[ArmConfig]:
        """The arms of given traces that loops begin with."""
        starts = {}
        for loop in self.loops:
            for name in (loop.reasoner, loop.posterior):
                if name is not None:
                    starts[name] = self.arms[name]
        return list(starts.values())

    @cached_property
    def others(self) -> list[ArmConfig]:
        """The arms of given traces that nothing waits for."""
        waited_for = {arm.name for arm in self.starts}
        for loop in self.loops:
            if loop.first:
                waited_for.add(loop.first)
        others = []
        for name, arm in self.arms.items():
            is_wanted = name in self.plan.finals and name not in waited_for
            if is_wanted and not arm.is_sampled:
                others.append(arm)
        return others

    @cached_property
    def given(self) -> list[ArmConfig]:
        """The arms of given traces that are trained in this call."""
        firsts = []
        for loop in self.loops:
            if loop.first:
                firsts.append(self.arms[loop.first])
        return [*self.starts, *firsts, *self.others]

    @property
    def needs_clusters(self) -> bool:
        """Whether the steps of the chains have to be clustered."""
        is_of_clusters = any(arm.trace == "clusters" for arm in self.given)
        return is_of_clusters or self.plan.config.vocabulary.init == "steps"

    @property
    def settings(self) -> list[str]:
        """Of the stages in the run's own folder."""
        plan = self.plan
        return [
            f"run_dir={plan.run}",
            f"seed={plan.seed}",
            f"base={self.base}",
            *plan.settings,
        ]

    def recipe(self, name: str) -> str:
        """The training YAML of an arm or of a train file of stage 8."""
        stage = 2 if self.target(name) == "posterior" else 9
        return f"{stage}_train_{name}.yaml"

    def target(self, name: str) -> str:
        """What a model learns: reasoner, posterior or bottleneck."""
        return self.entry(name).target

    def entry(self, name: str) -> ArmConfig | OutputConfig:
        """What says how a train file is made."""
        if name in self.arms:
            return self.arms[name]
        return self.outputs[name]


def run_arms(plan: Plan) -> bool:
    """All of it, and the report; False where a model could not be evaluated.

    Raises: CalledProcessError for the first command that failed otherwise, after its own output.
    """
    prepare_profile(plan)
    of_arms = ArmPlan(plan)
    stage = partial(run_stage, plan, of_arms.settings)
    stage("prepare_data")  # 0
    if of_arms.needs_clusters:
        stage("cluster_steps", f"model={of_arms.base}")
    extend(of_arms)
    given = ",".join(arm.name for arm in of_arms.given)
    if given:
        stage("build_arms", f"model={of_arms.extended}", f"names={given}")  # 8
    starts = [partial(train_arm, of_arms, arm) for arm in of_arms.starts]
    side_by_side(plan, starts)
    tasks = _tasks(of_arms)
    is_evaluated = all(side_by_side(plan, tasks))
    execute(plan, python("scripts/compare_arms.py", plan.run))
    execute(plan, python("scripts/report.py", plan.run))
    return is_evaluated


def _tasks(of_arms: ArmPlan) -> list[Callable[[], bool]]:
    """What follows the arms that loops begin with. A task returns False where an evaluation
    failed.
    """
    tasks: list[Callable[[], bool]] = []
    # A loop is a long chain of short commands, so the loops begin first.
    for loop in of_arms.loops:
        tasks.append(partial(run_loop, of_arms, loop))
    for arm in of_arms.starts:
        if arm.target == "reasoner":
            tasks.append(partial(evaluate_arm, of_arms, arm))
    for arm in of_arms.others:
        tasks.append(partial(train_and_evaluate, of_arms, arm))
    if not of_arms.plan.config.renderer.is_abstract:  # the base has no symbols to write
        tasks.append(partial(evaluate_base, of_arms))
    return tasks


def extend(of_arms: ArmPlan) -> None:
    """The model with untrained symbols, unless it is there."""
    plan = of_arms.plan
    if not plan.dry_run and Path(of_arms.extended).exists():
        return
    vocabulary = plan.config.vocabulary
    words = [
        f"base={of_arms.base}",
        f"out={of_arms.extended}",
        f"symbols={plan.config.steps.clusters}",
        f"init={vocabulary.init}",
    ]
    if vocabulary.init == "steps":
        words.append(f"clusters={plan.run}/step_clusters/clusters.json")
    if vocabulary.noise != VocabularyConfig.noise:
        words.append(f"noise={vocabulary.noise}")
    if vocabulary.untie:
        words.append("untie=true")
    words.append(f"seed={plan.seed}")
    execute(plan, python("scripts/extend_vocabulary.py", *words))


def train_arm(of_arms: ArmPlan, arm: ArmConfig) -> None:
    """The model of an arm of given traces: of the base, or of the extended one where it writes
    symbols.
    """
    plan = of_arms.plan
    family = load_family(arm.family or plan.config.prompt_family)
    start = of_arms.extended if family.is_abstract else of_arms.base
    settings = [f"dataset_dir={plan.run}/train", f"seed={plan.seed}"]
    recipe = of_arms.recipe(arm.name)
    train_model(plan, plan.run, settings, arm.name, recipe, f"model_name_or_path={start}")


def train_and_evaluate(of_arms: ArmPlan, arm: ArmConfig) -> bool:
    """An arm of given traces."""
    train_arm(of_arms, arm)
    return evaluate_arm(of_arms, arm)


def evaluate_arm(of_arms: ArmPlan, arm: ArmConfig) -> bool:
    """The evaluation of an arm of given traces; False where it failed."""
    model = f"{of_arms.plan.run}/models/{arm.name}"
    more = [f"prompt_family={arm.family}"] if arm.family else []
    more += arm.evaluation
    return evaluate_model(of_arms, arm.name, model, more)


def evaluate_base(of_arms: ArmPlan) -> bool:
    """The evaluation of the base; False where it failed."""
    more = ["models.allow_unrecorded=true"]
    return evaluate_model(of_arms, "base", of_arms.base, more)


def evaluate_model(
    of_arms: ArmPlan,
    name: str,
    model: str,
    more: Sequence[str],
    script: str = "scripts/evaluate_arm.py",
) -> bool:
    """Accuracy and tokens of a model and its answers after other traces; False where it failed,
    which its output explains.
    """
    plan = of_arms.plan
    words = [f"name={name}", f"model={model}", *more]
    command = python(script, plan.examples / "pipeline.yaml", *of_arms.settings, *words)
    try:
        execute(plan, command)
    except subprocess.CalledProcessError as error:
        report_failure(error)
        return False
    return True


def run_loop(of_arms: ArmPlan, loop: LoopConfig) -> bool:
    """All rounds of a loop, one command at a time; False where a model could not be evaluated."""
    plan = of_arms.plan
    sequence = replace(plan.sequence, at_once=1)
    plan_alone = replace(plan, sequence=sequence)
    alone = replace(of_arms, plan=plan_alone)
    reasoner = of_arms.extended
    if loop.reasoner:
        reasoner = f"{plan.run}/models/{loop.reasoner}"
    rounds = Rounds(alone, loop, reasoner)
    is_evaluated = True
    for number in range(1, rounds.num_rounds + 1):
        is_evaluated &= rounds.run(number)
    return is_evaluated


class Rounds:
    """A loop and the models that it has come to."""

    def __init__(self, of_arms: ArmPlan, loop: LoopConfig, reasoner: str) -> None:
        plan = of_arms.plan
        self.of_arms = of_arms
        self.plan = plan
        self.loop = loop
        self.reasoner = reasoner
        self.posterior: str | None = None
        if loop.posterior:
            self.posterior = f"{plan.run}/models/{loop.posterior}"
        self.num_rounds = plan.rounds or loop.rounds

    def run(self, number: int) -> bool:
        """Round `number`, from 1; False where a model could not be evaluated."""
        folder = self.plan.run / self.loop.name / f"round{number}"
        seed = self.plan.seed + SEED_STEP * (number - 1)
        run_stage(self.plan, self._settings(folder, seed), "prepare_data")  # 0
        is_evaluated = True
        for place, phase in enumerate(self.loop.phases):
            is_very_first = number == 1 and place == 0
            if is_very_first and self.loop.first:
                # Its train file is of given traces, and is there.
                names = [self.loop.first]
                data = self.plan.run / "train"
            else:
                # A phase of several models is a choice of arms; a chain needs all its phases.
                chosen = [name for name in phase.train if name in self.plan.finals]
                names = chosen or phase.train
                # Every phase has its own settings: _go_on has changed a model since the last one.
                self._sample_and_build(self._settings(folder, seed), names)  # 3 to 8
                data = folder / "train"
            for name in names:
                self._train(folder, data, seed, name)  # 9
                is_evaluated &= self._evaluate(folder, name, phase.train[0], number)
            self._go_on(folder, names[0])
        return is_evaluated

    def _settings(self, folder: Path, seed: int) -> list[str]:
        """Of the stages, with the models of this moment."""
        loop = self.loop
        settings = [
            f"run_dir={folder}",
            f"seed={seed}",
            f"base={self.of_arms.extended}",
        ]
        if loop.family:
            settings.append(f"prompt_family={loop.family}")
        settings.append(f"models.reasoner={self.reasoner}")
        if self.posterior:
            settings.append(f"models.posterior={self.posterior}")
        return [*settings, *self.plan.settings, *loop.settings]

    def _sample_and_build(self, settings: Sequence[str], names: Sequence[str]) -> None:
        """Stages 3 to 8 for the train files of these names, by whose traces they are made from."""
        stage = partial(run_stage, self.plan, settings)
        by_sampler: dict[str, list[str]] = {}
        for name in names:
            sampler = self.of_arms.entry(name).sampler
            by_sampler.setdefault(sampler, []).append(name)
        for sampler, made in by_sampler.items():
            more = []
            if sampler == "reasoner":
                more.append("sampling.traces_from=reasoner")
            stage("sample_traces", *more)  # 3
            arms = [name for name in made if name in self.of_arms.arms]
            outputs = [name for name in made if name not in self.of_arms.arms]
            needed: set[str] = set()
            for name in outputs:
                output = self.of_arms.outputs[name]
                needed.update(needed_tables(output))
            for model in ("reasoner", "posterior"):
                if model in needed:
                    stage("score_traces", f"model={model}", *more)  # 4, 5
            if "verdicts" in needed:
                stage("sample_answers", *more)  # 6
                stage("verify_answers", *more)  # 7
            if outputs:
                stage("build_dataset", *more)  # 8
            if arms:
                model = f"model={self.of_arms.extended}"
                stage("build_arms", model, f"names={','.join(arms)}", *more)  # 8

    def _train(self, folder: Path, data: Path, seed: int, name: str) -> None:
        is_posterior = self.of_arms.target(name) == "posterior"
        start = self.posterior if is_posterior else self.reasoner
        settings = [f"dataset_dir={data}", f"seed={seed}"]
        recipe = self.of_arms.recipe(name)
        more = f"model_name_or_path={start or self.reasoner}"
        train_model(self.plan, folder, settings, name, recipe, more)

    def _evaluate(self, folder: Path, name: str, phase: str, number: int) -> bool:
        """The evaluation of a model of a phase, under its name and round; False where it failed.

        Args:
            phase: the name of the phase's first model, which `loops.first` takes the place of.
        """
        target = self.of_arms.target(name)
        if target == "posterior":
            return True  # it does not answer
        if target == "bottleneck" and self.plan.config.data.test is None:
            return True  # no question of the test has a chain
        shown = phase if name == self.loop.first else name
        if self.num_rounds > 1:
            shown += f"_{number}"
        more = [f"prompt_family={self.loop.family}"] if self.loop.family else []
        model = f"{folder}/models/{name}"
        if target == "bottleneck":
            script = "scripts/bottleneck_oracle.py"
            return evaluate_model(self.of_arms, shown, model, more, script)
        return evaluate_model(self.of_arms, shown, model, more)

    def _go_on(self, folder: Path, name: str) -> None:
        """What a phase's first model is from now on."""
        model = f"{folder}/models/{name}"
        if self.of_arms.target(name) == "posterior":
            self.posterior = model
        else:
            self.reasoner = model
