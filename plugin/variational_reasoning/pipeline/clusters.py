"""First traces that hold information: every step of a verbal chain becomes the index of its
cluster.

Two parts. `steps` (a table, shard by shard, so it goes on after a kill) holds per step the mean of
the hidden states over the step's tokens. Then all steps are clustered at once:

    mean of the states of a step      not the state at its end, which encodes what comes next
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
from variational_reasoning.method.steps import Step, entropy, mutual_information, split_steps
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
    open_stage,
    read_manifest,
    read_rows,
    write_table,
)
from variational_reasoning.pipeline.work.job import Shard, ShardByShard, StageJob, do_shards
from variational_reasoning.pipeline.work.summary import StageSummary

if TYPE_CHECKING:
    import numpy as np

CLUSTERS = "clusters.json"
NUM_INITS = 4
"""k-means starts this often and keeps the best."""
FEW_ANSWERS = 0.1
"""More different answers per question than this, and a figure about the answer says little."""


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
    states = do_states(config, model_folder)
    assert states.manifest is not None
    settings = resolved(config, "steps.clusters", "steps.max_fitted")
    identity = Identity({"steps": digest_of(states.manifest)}, settings, seed=config.seed)
    path = folder / CLUSTERS
    is_done = (folder / MANIFEST).is_file() and path.is_file()
    if is_done and _is_same(read_manifest(folder, "step_clusters"), identity):
        return read_json_object(path, f"remove {folder}")
    steps = read_rows(config.folder("steps"), "steps")
    labels = fit(steps, config.steps.clusters, config.seed, config.steps.max_fitted)
    rows = []
    for step, label in zip(steps, labels, strict=True):
        row = {"question_id": step["question_id"], "step": step["step"], "cluster": label}
        rows.append(row)
    write_table(folder, "step_clusters", rows, identity)
    reader, _ = training_questions(config)
    question_ids = {step["question_id"] for step in steps}
    answers = _answers(reader, question_ids)
    figures = describe(steps, labels, answers, config.steps.clusters)
    write_json(path, figures)
    return figures


def _is_same(manifest: Mapping[str, Any], identity: Identity) -> bool:
    wanted = identity.to_dict()
    return all(manifest.get(name) == wanted[name] for name in wanted)


def _answers(reader: TableReader, question_ids: set[str]) -> dict[str, str]:
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
    settings = resolved(config, "cutoff_len", "steps.pattern", "steps.layer", "scoring.dtype")
    identity = Identity(
        inputs={"questions": reader.digest},
        config=renderer.to_record() | settings,
        model=model_identity(model_folder),
    )
    folder = config.folder("steps")
    job = StageJob(
        stage=open_stage(folder, "steps", identity, units, config.scoring.questions_per_shard),
        title=f"reads {len(units)} training questions, {model_folder}; writes {folder}",
        row="question",
        size=lambda unit: 1,
        cost=lambda unit: 1.0,
        load=lambda: StepReader(config, reader, model_folder),
    )
    return do_shards(job, set(range(len(job.stage.shards))))


class _Chain(NamedTuple):
    """One question with its chain: ids of both, and each step with the positions of its tokens."""

    question_id: str
    ids: list[int]
    steps: list[tuple[Step, range]]


class StepReader(ShardByShard):
    """The worker that runs the model over question and chain."""

    def __init__(
        self, config: Config, questions: "TableReader | GivenChains", model_folder: Path
    ) -> None:
        self.config, self.questions = config, questions
        self.renderer = make_renderer(config.chat_format, config.steps.family)
        scoring = config.scoring
        self.model = load_model(str(model_folder), scoring.dtype, scoring.device)
        self.tokenizer = load_tokenizer(str(model_folder))
        self.encode, _ = text_codec(self.tokenizer)
        num_layers = self.model.config.get_text_config().num_hidden_layers
        self.layer = config.steps.layer or max(1, num_layers * 3 // 4)
        if self.layer > num_layers:
            raise ValueError(
                f"steps.layer is {self.layer}, but {model_folder} has {num_layers} layers"
            )

    def facts(self) -> dict[str, Any]:
        """See ShardFiller."""
        return {"layer": self.layer}

    def fill_one(self, index: int, units: Sequence[str], progress: Callable[[int], Any]) -> Shard:
        """See ShardByShard."""
        found = self.questions.rows_of(units, ["question", "trace"])
        rows: list[dict[str, Any]] = []
        dropped = []
        batch: list[_Chain] = []
        for question_id in units:
            row = found[question_id][0]
            chain = self._chain(question_id, row["question"], row["trace"])
            reason = ""
            if not chain.steps:
                reason = "no step in its chain"
            elif len(chain.ids) > self.config.cutoff_len:
                reason = "beyond cutoff_len"
            if reason:
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
        return Shard(rows, Counter(steps=len(rows), dropped=len(dropped)), dropped)

    def _is_full(self, batch: Sequence[_Chain]) -> bool:
        """Whether one more chain, padded to the longest, is more than scoring.batch_tokens."""
        longest = max(len(chain.ids) for chain in batch)
        return longest * (len(batch) + 1) > self.config.scoring.batch_tokens

    def _chain(self, question_id: str, question: str, trace: str) -> _Chain:
        """Prompt and chain as ids, and where each step's tokens are.

        Example: a prompt of 4 tokens, and the chain "+5=1*4=4" of the tokens `+5`, `=1*`, `4=`,
        `4`. A token belongs to the step in which its text begins:

            step 0, "+5=1", characters 0 to 4    `+5`, `=1*`    positions 4, 5
            step 1, "*4=4", characters 4 to 8    `4=`, `4`      positions 6, 7
        """
        prompt = self.encode(self.renderer.prompt(REASONER, question))
        encoded = self.tokenizer(trace, add_special_tokens=False, return_offsets_mapping=True)
        starts = [start for start, _ in encoded["offset_mapping"]]
        steps = []
        for step in split_steps(trace, self.config.steps.pattern):
            # starts is in order, so a step's tokens are neighbors.
            first = bisect_left(starts, step.start)
            stop = bisect_left(starts, step.stop)
            if first < stop:
                steps.append((step, range(len(prompt) + first, len(prompt) + stop)))
        return _Chain(question_id, prompt + encoded["input_ids"], steps)

    def _states(self, batch: Sequence[_Chain]) -> list[dict[str, Any]]:
        """A row of the table `steps` for every step of these chains."""
        torch = need("torch", "train")
        longest = max(len(chain.ids) for chain in batch)
        # Padding on the right changes nothing to its left under a causal mask.
        padded = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for number, chain in enumerate(batch):
            length = len(chain.ids)
            padded[number, :length] = torch.tensor(chain.ids)
            mask[number, :length] = 1
        with torch.inference_mode():
            output = self.model(
                input_ids=padded.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                output_hidden_states=True,
                use_cache=False,
            )
        states = output.hidden_states[self.layer].float().cpu()
        rows = []
        for number, chain in enumerate(batch):
            for index, (step, span) in enumerate(chain.steps):
                vector = states[number, span.start : span.stop].mean(0)
                row = {
                    "question_id": chain.question_id,
                    "step": index,
                    "text": step.text,
                    "value": step.value,
                    "token_ids": chain.ids[span.start : span.stop],
                    "vector": vector.tolist(),
                }
                rows.append(row)
        return rows


def fit(steps: Sequence[Mapping[str, Any]], num_clusters: int, seed: int, limit: int) -> list[int]:
    """The cluster of every step, by size: 0 is the largest.

    Raises: ValueError for fewer different steps than clusters; ModuleNotFoundError with the install
    command.
    """
    import numpy as np

    need("sklearn", "abstract")
    from sklearn.cluster import KMeans

    points = directions(steps)
    different = len(np.unique(points, axis=0))
    if different < num_clusters:
        raise ValueError(
            f"steps.clusters is {num_clusters}, but the chains hold only {different} different "
            "steps; lower it, or take more questions"
        )
    chosen = np.random.default_rng(seed).permutation(len(points))[:limit]
    model = KMeans(num_clusters, n_init=NUM_INITS, random_state=seed)
    model.fit(points[np.sort(chosen)])
    labels = model.predict(points).tolist()
    # Labels 0, 1, 2 with 5, 9, 5 steps get the ranks 1, 0, 2.
    sizes = Counter(labels)
    by_size = sorted(sizes, key=lambda label: (-sizes[label], label))
    rank = {label: place for place, label in enumerate(by_size)}
    return [rank[label] for label in labels]


def directions(steps: Sequence[Mapping[str, Any]]) -> "np.ndarray":
    """Unit vectors [steps, width]: each step's states, centered over the steps of its place."""
    return _directions(steps, place_means(steps))


def place_means(steps: Sequence[Mapping[str, Any]]) -> "dict[int, np.ndarray]":
    """The mean over all first (second, third, ...) steps of their states."""
    import numpy as np

    points = np.array([step["vector"] for step in steps], dtype=np.float64)
    places = np.array([step["step"] for step in steps])
    means = {}
    for place in np.unique(places):
        means[int(place)] = points[places == place].mean(0)
    return means


def _directions(
    steps: Sequence[Mapping[str, Any]], means: "Mapping[int, np.ndarray]"
) -> "np.ndarray":
    import numpy as np

    points = np.array([step["vector"] for step in steps], dtype=np.float64)
    for number, step in enumerate(steps):
        points[number] -= means[step["step"]]
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    # A place that only one chain has is centered to zero; it stays there.
    return points / np.maximum(lengths, 1e-12)


class GivenChains:
    """Questions with their chains that are in no table, as StepReader reads them."""

    def __init__(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        self._rows = rows

    def rows_of(
        self, question_ids: Sequence[str], columns: Sequence[str]
    ) -> dict[str, list[Mapping[str, Any]]]:
        """See TableReader."""
        return {question_id: [self._rows[question_id]] for question_id in question_ids}


def states_model(config: Config) -> Path | None:
    """The model whose hidden states the clusters are of; None where it is not there any more."""
    if not (config.folder("step_clusters") / MANIFEST).is_file():
        return None
    manifest = read_manifest(config.folder("steps"), "steps")
    folder = Path((manifest["model"] or {}).get("path", ""))
    return folder if (folder / "config.json").is_file() else None


def symbols_of(config: Config, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[int]]:
    """The clusters of the steps of other chains than those that the clusters were found on.

    A step gets the cluster whose mean is nearest. A chain with more steps than every chain of the
    run, without a step, or beyond cutoff_len has none.

    Args:
        rows: by question_id, with question and trace.

    Raises: ValueError for a run without clusters.
    """
    import numpy as np

    folder = config.folder("step_clusters")
    model_folder = states_model(config)
    if model_folder is None:
        raise ValueError(
            f"{config.folder('steps')}: the model whose hidden states it holds is not there, so "
            "other chains cannot get clusters; run from the folder that its path starts from"
        )
    known = read_rows(config.folder("steps"), "steps")
    labels_of = {}
    for row in read_rows(folder, "step_clusters"):
        labels_of[row["question_id"], row["step"]] = row["cluster"]
    means = place_means(known)
    points = _directions(known, means)
    labels = np.array([labels_of[step["question_id"], step["step"]] for step in known])
    names = np.unique(labels)
    centers = np.stack([points[labels == name].mean(0) for name in names])
    reader = StepReader(config, GivenChains(rows), model_folder)
    found_steps = reader.fill_one(0, list(rows), lambda count: None).rows
    # A chain with a step at a place that no known chain has is left out as a whole.
    unknown = {step["question_id"] for step in found_steps if step["step"] not in means}
    steps = [step for step in found_steps if step["question_id"] not in unknown]
    symbols: dict[str, list[int]] = defaultdict(list)
    if not steps:
        return symbols
    # [steps, 1, width] - [1, clusters, width]: every step with every center.
    differences = _directions(steps, means)[:, None] - centers[None]
    nearest = np.linalg.norm(differences, axis=2).argmin(1)
    for step, number in zip(steps, nearest, strict=True):
        symbols[step["question_id"]].append(int(names[number]))
    return dict(symbols)


def describe(
    steps: Sequence[Mapping[str, Any]],
    labels: Sequence[int],
    answers: Mapping[str, str],
    num_clusters: int,
) -> dict[str, Any]:
    """What clusters.json holds; information in bits."""
    of_value: dict[int, list[tuple[int, str]]] = defaultdict(list)
    of_answer: dict[int, list[tuple[int, str]]] = defaultdict(list)
    counts: list[Counter[int]] = [Counter() for _ in range(num_clusters)]
    for step, label in zip(steps, labels, strict=True):
        place = step["step"]
        answer = answers[step["question_id"]]
        if step["value"] is not None:
            of_value[place].append((label, step["value"]))
        of_answer[place].append((label, answer))
        counts[label].update(step["token_ids"])
    sizes = Counter(labels)
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
        "different_answers": len(set(answers.values())),
        "num_questions": len(answers),
        "clusters": [_by_token(counted) for counted in counts],
    }


def _information(pairs: Mapping[int, list[tuple[int, str]]]) -> tuple[list[float], list[float]]:
    """Per place in the chain: (bits that the symbol tells of the text, bits of the text itself).

    Args:
        pairs: place to (symbol, text) of each step there.
    """
    told = []
    whole = []
    for place in sorted(pairs):
        texts = [text for _, text in pairs[place]]
        told.append(round(mutual_information(pairs[place]), 4))
        whole.append(round(entropy(texts), 4))
    return told, whole


def _by_token(counted: Counter[int]) -> dict[str, int]:
    """How often each token occurs, as JSON can hold it."""
    return {str(token): counted[token] for token in sorted(counted)}


def describe_clusters(figures: Mapping[str, Any]) -> str:
    """The lines that the command prints."""
    sizes = figures["sizes"]
    lines = [
        f"{figures['num_steps']} steps of {figures['num_questions']} questions in "
        f"{figures['num_clusters']} clusters of {min(sizes)} to {max(sizes)}"
    ]
    for place, bits in enumerate(figures["bits_about_value"]):
        whole = figures["bits_of_value"][place]
        lines.append(f"step {place}: symbol tells {bits:.2f} of {whole:.2f} bits of the value")
    for place, bits in enumerate(figures["bits_about_answer"][:20]):
        whole = figures["bits_of_answer"][place]
        lines.append(f"step {place}: symbol tells {bits:.2f} of {whole:.2f} bits of the answer")
    if figures["different_answers"] > FEW_ANSWERS * figures["num_questions"]:
        lines.append(
            f"{figures['different_answers']} different answers of {figures['num_questions']} "
            "questions: so few of each that the bits about the answer are mostly chance"
        )
    return "\n".join(lines)


def clusters_of(config: Config) -> tuple[dict[str, list[int]], str]:
    """({question_id: symbols of its steps, in order}, digest of the table)."""
    folder = config.folder("step_clusters")
    manifest = read_manifest(folder, "step_clusters")
    found: dict[str, list[int]] = defaultdict(list)
    for row in read_rows(folder, "step_clusters"):
        found[row["question_id"]].append(row["cluster"])
    return dict(found), digest_of(manifest)
