"""First traces that hold information: every step of a verbal chain becomes the index of its
cluster.

Two parts. `steps` (a table, shard by shard, so it goes on after a kill) holds per step the mean of
the hidden states over the step's tokens. Then all steps are clustered at once:

    mean of the states of a step      without the one at its end, which encodes what comes next
    minus the mean over all first (second, third, ...) steps, so that a cluster is not a place
    divided by its length, so that k-means compares directions
    k-means with fixed seeds; the cluster of most steps is symbol 0, and so on

A token belongs to the step in which its text begins. `clusters.json` keeps what the symbols tell:
per place in the chain the mutual information with the step's value, where the task knows it, and
with the answer; and per cluster how often each token occurs in its steps, from which
extend_vocabulary starts the symbol's row (init=steps clusters=FILE).
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from variational_reasoning.files import read_json_object, write_json
from variational_reasoning.method.prompts import REASONER, make_renderer
from variational_reasoning.method.steps import (
    Step,
    entropy,
    mutual_information,
    split_steps,
)
from variational_reasoning.model_record import model_identity
from variational_reasoning.packages import need
from variational_reasoning.pipeline.config import Config, resolved
from variational_reasoning.pipeline.engines import load_model, load_tokenizer, text_codec
from variational_reasoning.pipeline.questions.table import training_questions
from variational_reasoning.pipeline.reading import TableReader
from variational_reasoning.pipeline.rows import (
    MANIFEST,
    Identity,
    digest_of,
    is_written,
    open_stage,
    read_manifest,
    read_rows,
    write_table,
)
from variational_reasoning.pipeline.work.job import (
    Shard,
    ShardByShard,
    StageJob,
    do_shards,
)
from variational_reasoning.pipeline.work.summary import StageSummary

if TYPE_CHECKING:
    import numpy as np
    import torch

CLUSTERS = "clusters.json"
NUM_INITS = 4
"""k-means starts this often and keeps the best."""
FEW_ANSWERS = 0.1
"""More different answers per question than this, and a figure about the answer says little."""
SHOWN_PLACES = 20
"""The command prints what the symbols tell of the answer for so many places of the chain."""

Row = Mapping[str, Any]
"""A row of a table; of the table `steps` where it is a step."""
PairsOfPlaces = dict[int, list[tuple[int, str]]]
"""Place in the chain to (symbol, text) of each step there."""


def cluster_steps(config: Config, model_folder: Path) -> dict[str, Any]:
    """Fill run_dir/steps and run_dir/step_clusters, and write clusters.json next to the second.

    Args:
        model_folder: the model whose hidden states are taken; the one that all trainings start
            from, before its vocabulary is extended.

    Returns: what clusters.json holds.

    Raises: ValueError for a chain without a step, fewer different steps than clusters, a layer that
    the model does not have, and folders that hold something else.
    """
    folder = config.folder("step_clusters")
    path = folder / CLUSTERS
    states = do_states(config, model_folder)
    assert states.manifest is not None
    identity = Identity(
        inputs={"steps": digest_of(states.manifest)},
        config=resolved(config, "steps.clusters", "steps.max_fitted"),
        seed=config.seed,
    )
    if path.is_file() and is_written(folder, "step_clusters", identity):
        return read_json_object(path, f"remove {folder}")
    settings = config.steps
    steps = read_rows(config.folder("steps"), "steps")
    labels = fit(steps, settings.clusters, config.seed, settings.max_fitted)
    rows = []
    for step, label in zip(steps, labels, strict=True):
        row = {
            "question_id": step["question_id"],
            "step": step["step"],
            "cluster": label,
        }
        rows.append(row)
    write_table(folder, "step_clusters", rows, identity)
    answers = _answers(config, steps)
    figures = describe(steps, labels, answers, settings.clusters)
    write_json(path, figures)
    return figures


def _answers(config: Config, steps: Sequence[Row]) -> dict[str, str]:
    """question_id to solution, of the questions that have a step."""
    reader, _ = training_questions(config)
    question_ids = {step["question_id"] for step in steps}
    rows = reader.rows_of(sorted(question_ids), ["solution"])
    answers = {}
    for question_id in question_ids:
        [row] = rows[question_id]
        answers[question_id] = row["solution"]
    return answers


def do_states(config: Config, model_folder: Path) -> StageSummary:
    """Fill run_dir/steps: hidden states per step of every training question's chain."""
    reader, units = training_questions(config)
    renderer = make_renderer(config.chat_format, config.steps.family)
    settings = resolved(
        config,
        "cutoff_len",
        "steps.pattern",
        "steps.layer",
        "steps.states",
        "scoring.dtype",
    )
    identity = Identity(
        inputs={"questions": reader.digest},
        config=renderer.to_record() | settings,
        model=model_identity(model_folder),
    )
    folder = config.folder("steps")
    per_shard = config.scoring.questions_per_shard
    job = StageJob(
        stage=open_stage(folder, "steps", identity, units, per_shard),
        title=f"reads {len(units)} training questions, {model_folder}; writes {folder}",
        row="question",
        size=lambda unit: 1,
        cost=lambda unit: 1.0,
        load=lambda: StepReader(config, reader, model_folder),
    )
    # All shards, whatever the share of this process: k-means needs every step.
    num_shards = len(job.stage.shards)
    return do_shards(job, set(range(num_shards)))


class _Chain(NamedTuple):
    """One question with its chain: ids of both, and each step with the positions of its tokens."""

    question_id: str
    ids: list[int]
    steps: list[tuple[Step, range]]


class StepReader(ShardByShard):
    """The worker that runs the model over question and chain."""

    def __init__(
        self,
        config: Config,
        questions: "TableReader | GivenChains",
        model_folder: Path,
    ) -> None:
        self.config = config
        self.questions = questions
        self.renderer = make_renderer(config.chat_format, config.steps.family)
        name = str(model_folder)
        self.model = load_model(name, config.scoring.dtype, config.scoring.device)
        self.tokenizer = load_tokenizer(name)
        self.encode, _ = text_codec(self.tokenizer)
        num_layers = self.model.config.get_text_config().num_hidden_layers
        default_layer = max(1, num_layers * 3 // 4)
        self.layer = config.steps.layer or default_layer
        if self.layer > num_layers:
            raise ValueError(
                f"steps.layer is {self.layer}, but {model_folder} has {num_layers} layers"
            )

    def facts(self) -> dict[str, Any]:
        """See ShardFiller."""
        return {"layer": self.layer}

    def fill_one(
        self,
        index: int,
        units: Sequence[str],
        progress: Callable[[int], Any],
    ) -> Shard:
        """See ShardByShard."""
        found = self.questions.rows_of(units, ["question", "trace"])
        rows: list[dict[str, Any]] = []
        dropped = []
        batch: list[_Chain] = []
        for question_id in units:
            row = found[question_id][0]
            chain = self._chain(question_id, row["question"], row["trace"])
            reason = self._why_dropped(chain)
            if reason is not None:
                dropped.append({"question_id": question_id, "reason": reason})
                progress(1)
                continue
            batch.append(chain)
            if self._is_full(batch):
                rows += self._states(batch)
                progress(len(batch))
                batch = []
        if batch:
            rows += self._states(batch)
            progress(len(batch))
        counts = Counter(steps=len(rows), dropped=len(dropped))
        return Shard(rows, counts, dropped)

    def _why_dropped(self, chain: _Chain) -> str | None:
        """The reason why a chain has no row; None where it has some."""
        if not chain.steps:
            return "no step in its chain"
        if len(chain.ids) > self.config.cutoff_len:
            return "beyond cutoff_len"
        return None

    def _is_full(self, batch: Sequence[_Chain]) -> bool:
        """Whether one more chain, padded to the longest, is more than scoring.batch_tokens.

        Chains of 40 and 60 tokens, and room for 150: a third one makes 3 * 60, so it is full.
        """
        longest = max(len(chain.ids) for chain in batch)
        num_chains = len(batch) + 1
        return num_chains * longest > self.config.scoring.batch_tokens

    def _chain(self, question_id: str, question: str, trace: str) -> _Chain:
        """Prompt and chain as ids, and where each step's tokens are.

        Example: a prompt of 4 tokens, and the chain "+5=1*4=4" of the tokens `+5`, `=1*`, `4=`,
        `4`. A token belongs to the step in which its text begins:

            step 0, "+5=1", characters 0 to 4    `+5`, `=1*`    positions 4, 5
            step 1, "*4=4", characters 4 to 8    `4=`, `4`      positions 6, 7
        """
        prompt = self.encode(self.renderer.prompt(REASONER, question))
        encoded = self.tokenizer(
            trace,
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        starts = [start for start, _ in encoded["offset_mapping"]]
        offset = len(prompt)
        steps = []
        for step in split_steps(trace, self.config.steps.pattern):
            # starts is in order, so a step's tokens are neighbors.
            first = bisect_left(starts, step.start)
            stop = bisect_left(starts, step.stop)
            if first < stop:
                span = range(offset + first, offset + stop)
                steps.append((step, span))
        ids = prompt + encoded["input_ids"]
        return _Chain(question_id, ids, steps)

    def _states(self, batch: Sequence[_Chain]) -> list[dict[str, Any]]:
        """A row of the table `steps` for every step of these chains."""
        states = self._hidden_states(batch)
        rows = []
        for number, chain in enumerate(batch):
            for place, (step, span) in enumerate(chain.steps):
                tokens = slice(span.start, span.stop)
                vector = step_vector(states[number, tokens], self.config.steps.states)
                row = {
                    "question_id": chain.question_id,
                    "step": place,
                    "text": step.text,
                    "value": step.value,
                    "token_ids": chain.ids[tokens],
                    "vector": vector.tolist(),
                }
                rows.append(row)
        return rows

    def _hidden_states(self, batch: Sequence[_Chain]) -> "torch.Tensor":
        """[chains, longest, width]: the states that `layer` puts out, in float32 on the CPU."""
        need("torch", "train")
        import torch

        longest = max(len(chain.ids) for chain in batch)
        # Padding on the right changes nothing to its left under a causal mask.
        padded = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for number, chain in enumerate(batch):
            length = len(chain.ids)
            padded[number, :length] = torch.tensor(chain.ids)
            mask[number, :length] = 1
        device = self.model.device
        with torch.inference_mode():
            output = self.model(
                input_ids=padded.to(device),
                attention_mask=mask.to(device),
                output_hidden_states=True,
                use_cache=False,
            )
        states = output.hidden_states[self.layer]
        return states.float().cpu()


def step_vector(states: "torch.Tensor", which: str) -> "torch.Tensor":
    """[width]: the mean of a step's states, [tokens, width]; see steps.states.

    The state at the last token encodes what comes next. Of the step `-6=3` in `-6=3+4=0`, the state
    at `3` says that a plus follows, and so does the mean over all three tokens. A step of one token
    has no other state.
    """
    if which == "all_but_last" and len(states) > 1:
        states = states[:-1]
    return states.mean(0)


def fit(steps: Sequence[Row], num_clusters: int, seed: int, limit: int) -> list[int]:
    """The cluster of every step, by size: 0 is the largest.

    Raises: ValueError for fewer different steps than clusters; ModuleNotFoundError with the install
    command.
    """
    import numpy as np

    need("sklearn", "abstract")
    from sklearn.cluster import KMeans

    points = directions(steps)
    distinct = np.unique(points, axis=0)
    different = len(distinct)
    if different < num_clusters:
        raise ValueError(
            f"steps.clusters is {num_clusters}, but the chains hold only {different} different "
            "steps; lower it, or take more questions"
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(points))
    fitted = np.sort(shuffled[:limit])
    model = KMeans(num_clusters, n_init=NUM_INITS, random_state=seed)
    model.fit(points[fitted])
    labels = model.predict(points).tolist()
    return _by_size(labels)


def _by_size(labels: Sequence[int]) -> list[int]:
    """The labels renamed by how often they occur: 0 is the most frequent.

    Labels 0, 1, 2 that occur 5, 9 and 5 times become 1, 0, 2.
    """
    sizes = Counter(labels)

    def largest_first(label: int) -> tuple[int, int]:
        return -sizes[label], label

    rank = {}
    for place, label in enumerate(sorted(sizes, key=largest_first)):
        rank[label] = place
    return [rank[label] for label in labels]


def directions(steps: Sequence[Row]) -> "np.ndarray":
    """Unit vectors [steps, width]: each step's states, centered over the steps of its place."""
    points = _points(steps)
    means = _place_means(steps, points)
    return _directions(steps, points, means)


def _place_means(steps: Sequence[Row], points: "np.ndarray") -> "dict[int, np.ndarray]":
    """The mean over all first (second, third, ...) steps of their states, points [steps, width]."""
    import numpy as np

    places = np.array([step["step"] for step in steps])
    means = {}
    for place in np.unique(places):
        at_place = places == place
        means[int(place)] = points[at_place].mean(0)
    return means


def _points(steps: Sequence[Row]) -> "np.ndarray":
    """[steps, width]: the states of the steps as they are in the table."""
    import numpy as np

    vectors = [step["vector"] for step in steps]
    return np.array(vectors, dtype=np.float64)


def _directions(
    steps: Sequence[Row],
    points: "np.ndarray",
    means: "Mapping[int, np.ndarray]",
) -> "np.ndarray":
    """Unit vectors [steps, width]: points of this shape, centered by the means of the places."""
    import numpy as np

    centered = np.empty_like(points)
    for number, step in enumerate(steps):
        place = step["step"]
        centered[number] = points[number] - means[place]
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    # A place that only one chain has is centered to zero; it stays there.
    return centered / np.maximum(lengths, 1e-12)


class GivenChains:
    """Questions with their chains that are in no table, as StepReader reads them."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows

    def rows_of(
        self,
        question_ids: Sequence[str],
        columns: Sequence[str],
    ) -> dict[str, list[Row]]:
        """See TableReader."""
        found = {}
        for question_id in question_ids:
            found[question_id] = [self._rows[question_id]]
        return found


def states_model(config: Config) -> Path | None:
    """The model whose hidden states the clusters are of; None where it is not there any more."""
    clustered = config.folder("step_clusters", MANIFEST)
    if not clustered.is_file():
        return None
    manifest = read_manifest(config.folder("steps"), "steps")
    model = manifest["model"] or {}
    folder = Path(model.get("path", ""))
    if not (folder / "config.json").is_file():
        return None
    return folder


def symbols_of(config: Config, rows: Mapping[str, Row]) -> dict[str, list[int]]:
    """The clusters of the steps of other chains than those that the clusters were found on.

    A step gets the cluster whose mean is nearest. A chain with more steps than every chain of the
    run, without a step, or beyond cutoff_len has none.

    Args:
        rows: by question_id, with question and trace.

    Raises: ValueError for a run without clusters.
    """
    import numpy as np

    model_folder = states_model(config)
    if model_folder is None:
        raise ValueError(
            f"{config.folder('steps')}: the model whose hidden states it holds is not there, so "
            "other chains cannot get clusters; run from the folder that its path starts from"
        )
    known = read_rows(config.folder("steps"), "steps")
    known_points = _points(known)
    means = _place_means(known, known_points)
    names, centers = _centers(config, known, _directions(known, known_points, means))
    reader = StepReader(config, GivenChains(rows), model_folder)
    shard = reader.fill_one(0, list(rows), lambda count: None)
    steps = _at_known_places(shard.rows, means)
    symbols: dict[str, list[int]] = defaultdict(list)
    if not steps:
        return symbols
    points = _directions(steps, _points(steps), means)
    # [steps, 1, width] - [1, clusters, width]: every step with every center.
    differences = points[:, None] - centers[None]
    distances = np.linalg.norm(differences, axis=2)
    nearest = distances.argmin(1)
    for step, number in zip(steps, nearest, strict=True):
        name = int(names[number])
        symbols[step["question_id"]].append(name)
    return dict(symbols)


def _centers(
    config: Config,
    known: Sequence[Row],
    points: "np.ndarray",
) -> "tuple[np.ndarray, np.ndarray]":
    """(the clusters that have a step, their means [clusters, width]).

    The clusters 0 and 2 with the centers a and c: ([0, 2], [a, c]).

    Args:
        known: all steps that were clustered. points: their directions.
    """
    import numpy as np

    label_of = {}
    for row in read_rows(config.folder("step_clusters"), "step_clusters"):
        key = row["question_id"], row["step"]
        label_of[key] = row["cluster"]
    labels = np.array([label_of[step["question_id"], step["step"]] for step in known])
    names = np.unique(labels)
    centers = []
    for name in names:
        of_cluster = labels == name
        centers.append(points[of_cluster].mean(0))
    return names, np.stack(centers)


def _at_known_places(steps: Sequence[Row], means: "Mapping[int, np.ndarray]") -> list[Row]:
    """The steps of chains all of whose places have a mean.

    A chain with a step at a place that no known chain has is left out as a whole.
    """
    unknown = set()
    for step in steps:
        if step["step"] not in means:
            unknown.add(step["question_id"])
    return [step for step in steps if step["question_id"] not in unknown]


def describe(
    steps: Sequence[Row],
    labels: Sequence[int],
    answers: Mapping[str, str],
    num_clusters: int,
) -> dict[str, Any]:
    """What clusters.json holds; information in bits."""
    of_value: PairsOfPlaces = defaultdict(list)
    of_answer: PairsOfPlaces = defaultdict(list)
    token_counts: dict[int, Counter[int]] = defaultdict(Counter)
    for step, label in zip(steps, labels, strict=True):
        place = step["step"]
        value = step["value"]
        answer = answers[step["question_id"]]
        if value is not None:
            of_value[place].append((label, value))
        of_answer[place].append((label, answer))
        token_counts[label].update(step["token_ids"])
    sizes = Counter(labels)
    clusters = [_by_token(token_counts[label]) for label in range(num_clusters)]
    different_answers = set(answers.values())
    about_value, of_whole_value = _information(of_value)
    about_answer, of_whole_answer = _information(of_answer)
    return {
        "num_steps": len(steps),
        "num_clusters": num_clusters,
        "sizes": [sizes[label] for label in range(num_clusters)],
        "bits_about_value": about_value,
        "bits_of_value": of_whole_value,
        "bits_about_answer": about_answer,
        "bits_of_answer": of_whole_answer,
        "different_answers": len(different_answers),
        "num_questions": len(answers),
        "clusters": clusters,
    }


def _information(of_places: PairsOfPlaces) -> tuple[list[float], list[float]]:
    """Per place in the chain: (bits that the symbol tells of the text, bits of the text itself)."""
    told = []
    whole = []
    for place in sorted(of_places):
        pairs = of_places[place]
        texts = [text for _, text in pairs]
        bits_told = mutual_information(pairs)
        bits_of_text = entropy(texts)
        told.append(round(bits_told, 4))
        whole.append(round(bits_of_text, 4))
    return told, whole


def _by_token(counted: Counter[int]) -> dict[str, int]:
    """How often each token occurs, in the tokens' order; names in JSON are texts."""
    by_token = {}
    for token in sorted(counted):
        by_token[str(token)] = counted[token]
    return by_token


def describe_clusters(figures: Mapping[str, Any]) -> str:
    """The lines that the command prints."""
    sizes = figures["sizes"]
    num_questions = figures["num_questions"]
    different = figures["different_answers"]
    lines = [
        f"{figures['num_steps']} steps of {num_questions} questions in "
        f"{figures['num_clusters']} clusters of {min(sizes)} to {max(sizes)}"
    ]
    for place, bits in enumerate(figures["bits_about_value"]):
        whole = figures["bits_of_value"][place]
        lines.append(f"step {place}: symbol tells {bits:.2f} of {whole:.2f} bits of the value")
    shown = figures["bits_about_answer"][:SHOWN_PLACES]
    for place, bits in enumerate(shown):
        whole = figures["bits_of_answer"][place]
        lines.append(f"step {place}: symbol tells {bits:.2f} of {whole:.2f} bits of the answer")
    if different > FEW_ANSWERS * num_questions:
        lines.append(
            f"{different} different answers of {num_questions} "
            "questions: so few of each that the bits about the answer are mostly chance"
        )
    return "\n".join(lines)


def clusters_of(config: Config) -> tuple[dict[str, list[int]], str]:
    """({question_id: symbols of its steps, in order}, digest of the table)."""
    folder = config.folder("step_clusters")
    manifest = read_manifest(folder, "step_clusters")
    symbols: dict[str, list[int]] = defaultdict(list)
    for row in read_rows(folder, "step_clusters"):
        question_id = row["question_id"]
        symbols[question_id].append(row["cluster"])
    return dict(symbols), digest_of(manifest)
