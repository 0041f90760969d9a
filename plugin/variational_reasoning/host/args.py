"""Our YAML keys, and every check that needs no tokenizer, model or data set.

All faults of a YAML are collected and raised together; each says what is wrong, with which value,
and where to change it.
"""

import difflib
import json
import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from variational_reasoning.chat_template import chat_template_of
from variational_reasoning.host import formats
from variational_reasoning.host.formats import CUT_CHAIN, OVERLONG_POLICIES
from variational_reasoning.method.abstract import BEGIN, END, symbol_names
from variational_reasoning.method.families import BOTTLENECK, FAMILIES, POSTERIOR, REASONER
from variational_reasoning.method.prompts import Renderer, make_renderer

if TYPE_CHECKING:
    from variational_reasoning.host.dataset import RowFacts


AUTO_ATTENTION = "auto"
FLEX = "flex"
BOTTLENECK_ATTENTIONS = (AUTO_ATTENTION, FLEX)


@dataclass
class VariationalArguments:
    """The keys under `### variational` in a training YAML."""

    constant_loss_normalizer: str | None = field(
        default=None,
        metadata={
            "help": "Switches weighted Dr. SFT on. C in target tokens per row, or `auto`: "
            "mean weight x mean target tokens of the training set."
        },
    )
    prompt_kind: str | None = field(
        default=None,
        metadata={
            "help": "What the rows of our data formats are rendered as, or were: a prompt kind "
            "of the family, reasoner, posterior_a or posterior_b in the family paper."
        },
    )
    chat_format: str | None = field(
        default=None,
        metadata={
            "help": "How our data formats write turns: chatml, llama3, gemma, mistral, a .json "
            "file, or template, the model's own chat template."
        },
    )
    prompt_family: str = field(
        default="paper",
        metadata={
            "help": "What prompts say, and how thought and solution are marked: paper, think, "
            "or a .yaml file."
        },
    )
    overlong: str = field(
        default="drop",
        metadata={
            "help": "Rows of our data formats longer than cutoff_len: one of "
            f"{', '.join(OVERLONG_POLICIES)}. The last shortens the verbal chain before symbols, "
            "and leaves out rows that do not fit then."
        },
    )
    trace_loss_weight: float = field(
        default=1.0,
        metadata={
            "help": "Factor of the loss of a trace of symbols and its end, against the answer's "
            "(prompt_family abstract); 0 trains the answer alone."
        },
    )
    bottleneck_attention: str = field(
        default="auto",
        metadata={
            "help": "How a GPU or CPU attends under the bottleneck mask (prompt_kind "
            f"{BOTTLENECK}): one of {', '.join(BOTTLENECK_ATTENTIONS)}. auto: as flash_attn says, "
            "by default SDPA; flex: FlexAttention, on a GPU."
        },
    )
    rows_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Data rows of one optimizer step, on all processes together. The plugin "
            "packs them into micro-batches of equal cost, so that the YAML fits any number of "
            "GPUs."
        },
    )
    tokens_per_micro_batch: int | None = field(
        default=None,
        metadata={
            "help": "The most tokens that one process computes at once, with rows_per_step; "
            "by default 1.5 x cutoff_len, at least 8192."
        },
    )


@dataclass
class VariationalConfig:
    """The checked keys, as the host's argument objects carry them in the attribute `variational`.

    The host makes it a part of the cache key of tokenized data. Except for C, it therefore only
    holds what tokenization depends on.
    """

    constant_loss_normalizer: float | str | None
    prompt_kind: str | None
    renderer: Renderer | None
    overlong: str

    @property
    def is_bottleneck(self) -> bool:
        """Whether the rows' answers must not see the verbal chain before the symbols.

        The kind's `has_answer` decides, and not its name, which a family of a file chooses.
        """
        if self.renderer is None or self.prompt_kind is None:
            return False
        return self.prompt_kind == self.renderer.family.bottleneck

    @property
    def shows_chain(self) -> bool:
        """Whether prompts hold a verbal chain before the symbols, in ids of its own."""
        if self.renderer is None or not self.renderer.is_abstract or self.prompt_kind is None:
            return False
        texts = self.renderer.family.kinds.get(self.prompt_kind)
        return texts is not None and "{hint}" in texts.opening

    @property
    def has_parts(self) -> bool:
        """Whether rows are symbols and an answer, whose losses are weighted and logged apart."""
        if self.renderer is None or self.renderer.boundary != END:
            return False
        return self.prompt_kind == REASONER or self.is_bottleneck


@dataclass
class VariationalRun:
    """What one training keeps from its YAML to its record.

    The host's argument objects carry it in the attribute `variational`: `finetuning_args` and
    `training_args` the whole, `data_args` only the `config`, since the host hashes that object.

    config: our keys, checked. yaml: all keys as given, the host's too.
    constant_loss_normalizer: C in target tokens per row; None for the host's own loss. A number
        once the training set is tokenized.
    facts: of the training set. None before it is tokenized, for a stream, and where a run only
        evaluates.
    sources: data set name -> where its rows come from.
    expects_run_sft: whether the host's training has begun, but not yet its `run_sft`. That is the
        only workflow with our loss.
    inputs: what the record says about the data, the models and the files that the training starts
        from.
    trace_loss_weight: factor of the loss of a trace of symbols.
    bottleneck_attention: how attention is computed under the bottleneck mask.
    rows_per_step: N of an optimizer step; None where the host's batch keys decide.
    tokens_per_micro_batch: the most tokens of a micro-batch, with rows_per_step.
    """

    config: VariationalConfig
    yaml: dict[str, Any]
    constant_loss_normalizer: float | None = None
    facts: "RowFacts | None" = None
    trace_loss_weight: float = 1.0
    bottleneck_attention: str = AUTO_ATTENTION
    rows_per_step: int | None = None
    tokens_per_micro_batch: int | None = None
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    expects_run_sft: bool = False
    inputs: dict[str, Any] = field(default_factory=dict)


OUR_KEYS = tuple(f.name for f in fields(VariationalArguments))


def split_arguments(
    raw: dict[str, Any] | list[str], host_keys: set[str]
) -> tuple[dict[str, Any], Any, list[str]]:
    """Separate our keys from the host's.

    Args:
        raw: the host's arguments, a mapping (YAML) or command-line words.
        host_keys: names that the host knows. They tell a misspelled key of ours from a key of the
            host.

    Returns: (our keys, the rest in the form it came in, faults). A key that nobody knows but
        resembles one of ours is a fault. It is left out of the rest, so that the host does not stop
        before the other faults are found.
    """
    if isinstance(raw, dict):
        return _split_mapping(raw, host_keys)
    ours, rest = _split_words(raw)
    return ours, rest, []


def _split_mapping(
    raw: dict[str, Any], host_keys: set[str]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    ours: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    faults: list[str] = []
    for key, value in raw.items():
        if key in OUR_KEYS:
            ours[key] = value
            continue
        near = difflib.get_close_matches(key, OUR_KEYS, n=1, cutoff=0.75)
        if key not in host_keys and near:
            faults.append(f"unknown key `{key}`; did you mean `{near[0]}`?")
        else:
            rest[key] = value
    return ours, rest, faults


def _split_words(raw: list[str]) -> tuple[dict[str, Any], list[str]]:
    """`--prompt-kind reasoner --seed=1` gives ({"prompt_kind": "reasoner"}, ["--seed=1"])."""
    ours: dict[str, Any] = {}
    rest = []
    words = iter(raw)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        name = key.replace("-", "_")
        if word.startswith("--") and name in OUR_KEYS:
            ours[name] = value if equals else next(words, "")
        else:
            rest.append(word)
    return ours, rest


def data_formats(dataset_names: list[str], dataset_dir: Any) -> dict[str, str]:
    """Name -> formatting of the data sets that `dataset_info.json` knows.

    Unknown names are left out.
    """
    info, _ = formats.read_dataset_info(dataset_dir)
    return {name: info[name].get("formatting", "alpaca") for name in dataset_names if name in info}


def as_mapping(raw: dict[str, Any] | list[str]) -> dict[str, Any]:
    """The host's arguments as a mapping.

    Of command-line words, `--key value` and `--key=value` are read.
    """
    if isinstance(raw, dict):
        return raw
    found = {}
    for word, following in zip(raw, [*raw[1:], ""], strict=True):
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            found[key.replace("-", "_")] = value if equals else following
    return found


def uses_our_features(raw: dict[str, Any] | list[str]) -> bool:
    """Whether a YAML or a command line sets one of our keys, or names a data set in our formats.

    It needs nothing of the host, so that it also works with a host that does not fit.
    """
    raw = as_mapping(raw)
    if not raw.keys().isdisjoint(OUR_KEYS):
        return True
    names = [*_names(raw.get("dataset")), *_names(raw.get("eval_dataset"))]
    found = data_formats(names, raw.get("dataset_dir", "data"))
    return not formats.FORMATS.keys().isdisjoint(found.values())


def check(
    ours: dict[str, Any],
    faults: list[str],
    model_args: Any,
    data_args: Any,
    training_args: Any,
    finetuning_args: Any,
    given_batch: dict[str, Any] | None = None,
) -> VariationalConfig:
    """Check our keys against each other and against the host's arguments.

    Args:
        ours: our keys as the YAML gives them. faults: faults found so far.
        model_args, data_args, training_args, finetuning_args: the host's parsed arguments.
        given_batch: what `take_batch_keys` took out of the host's arguments.

    Raises: ValueError with all faults, one per line.
    """
    faults = list(faults)
    normalizer = _check_constant_loss_normalizer(ours.get("constant_loss_normalizer"), faults)
    prompt_kind, overlong = ours.get("prompt_kind"), ours.get("overlong", "drop")
    if overlong not in OVERLONG_POLICIES:
        faults.append(f"overlong: {overlong!r} is not one of {', '.join(OVERLONG_POLICIES)}")
    renderer = None
    try:
        # Without a chat format the family is checked all the same.
        made = make_renderer(
            str(ours.get("chat_format", "chatml")),
            str(ours.get("prompt_family", "paper")),
            model_args.model_name_or_path,
            chat_template_of,
        )
    except ValueError as error:
        faults += str(error).splitlines()
    else:
        renderer = made if "chat_format" in ours else None
        if prompt_kind is not None and prompt_kind not in made.kinds:
            faults.append(
                f"prompt_kind: {prompt_kind!r} is not one of {', '.join(made.kinds)} "
                f"(prompt_family {made.family.name!r})"
            )
    _check_steps(ours, given_batch or {}, data_args, training_args, finetuning_args, faults)
    _check_datasets(ours, renderer, data_args, faults)
    _check_host_flags(normalizer, model_args, data_args, training_args, finetuning_args, faults)
    config = VariationalConfig(normalizer, prompt_kind, renderer, overlong)
    _check_symbols(config, ours, model_args, faults)
    _check_bottleneck_attention(config, ours, model_args, training_args, faults)
    _check_model_path(model_args.model_name_or_path, faults)
    _check_added_tokens(model_args, faults)
    _check_tied_head(model_args, finetuning_args, faults)
    if faults:
        listing = "".join(f"\n  {number}. {fault}" for number, fault in enumerate(faults, 1))
        raise ValueError(
            "variational_reasoning: this training is refused, nothing was loaded or "
            f"written.{listing}"
        )
    return config


def _check_symbols(
    config: VariationalConfig, ours: dict[str, Any], model_args: Any, faults: list[str]
) -> None:
    """What only rows with symbols have, and what they cannot have."""
    flash = str(getattr(model_args.flash_attn, "value", model_args.flash_attn))
    if config.is_bottleneck and flash in ("fa2", "fa3"):
        faults.append(
            f"flash_attn: {flash} takes no mask that hides the chain from the answer "
            f"(prompt_kind {config.prompt_kind}); set it to sdpa, which computes a row in two "
            "calls, with flash kernels where there are any"
        )
    if config.overlong == CUT_CHAIN and not config.shows_chain:
        faults.append(
            f"overlong: {CUT_CHAIN} shortens a verbal chain before symbols, which the prompt kind "
            f"{config.prompt_kind} does not show; set it to drop, truncate or error, or choose "
            f"the prompt kind {POSTERIOR} or {BOTTLENECK} of the prompt family abstract"
        )
    if "trace_loss_weight" not in ours:
        return
    weight = ours["trace_loss_weight"]
    try:
        is_weight = float(weight) >= 0 and math.isfinite(float(weight))
    except (TypeError, ValueError):
        is_weight = False
    if isinstance(weight, bool) or not is_weight:
        faults.append(f"trace_loss_weight: {weight!r} is not a number of zero or more")
    elif not config.has_parts:
        faults.append(
            "trace_loss_weight: has no effect, because the rows are not symbols and an answer; "
            f"only the prompt kinds {REASONER} and {BOTTLENECK} of the prompt family abstract have "
            "both (and a kind with has_answer of a family of your own)"
        )
    elif config.constant_loss_normalizer is None:
        faults.append(
            "trace_loss_weight: the host's own loss would ignore it; set "
            "`constant_loss_normalizer: auto`, or remove the key"
        )


def _check_bottleneck_attention(
    config: VariationalConfig,
    ours: dict[str, Any],
    model_args: Any,
    training_args: Any,
    faults: list[str],
) -> None:
    """A known name, and nothing next to it that chooses another attention."""
    name = ours.get("bottleneck_attention", AUTO_ATTENTION)
    if name not in BOTTLENECK_ATTENTIONS:
        allowed = ", ".join(BOTTLENECK_ATTENTIONS)
        faults.append(f"bottleneck_attention: {name!r} is not one of {allowed}")
        return
    if name == AUTO_ATTENTION:
        return
    if not config.is_bottleneck:
        faults.append(
            f"bottleneck_attention: has no effect, because nothing is hidden in rows of the prompt "
            f"kind {config.prompt_kind}; only {BOTTLENECK} has the mask"
        )
    flash = str(getattr(model_args.flash_attn, "value", model_args.flash_attn))
    if flash not in ("auto", "sdpa"):
        faults.append(
            f"bottleneck_attention: {name}, but flash_attn: {flash} chooses another attention; "
            "remove flash_attn"
        )
    if training_args.torch_compile:
        faults.append(
            f"bottleneck_attention: {name} is compiled by itself, and not tested in a model that "
            "is compiled as a whole; remove torch_compile"
        )


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")]
    return list(value)


def _check_constant_loss_normalizer(value: Any, faults: list[str]) -> float | str | None:
    if value is None or value == "auto":
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not (number > 0 and math.isfinite(number)):
        faults.append(
            f"constant_loss_normalizer: {value!r} is neither `auto` nor a number above zero "
            "(target tokens per row; `python scripts/compute_normalizer.py TRAIN.yaml` prints it)"
        )
    return number


def take_batch_keys(ours: dict[str, Any], rest: Any) -> tuple[Any, dict[str, Any]]:
    """Set the host's batch keys to 1 where `rows_per_step` decides the batch.

    The host derives DeepSpeed's settings from them, so they must be 1 before it parses them.

    Args:
        ours, rest: as `split_arguments` returns them.

    Returns: (the host's arguments to parse, the batch keys as they were given).
    """
    if ours.get("rows_per_step") is None:
        return rest, {}
    mapping = as_mapping(rest)
    given = {key: mapping[key] for key in BATCH_KEYS if mapping.get(key) is not None}
    if isinstance(rest, dict):
        return rest | dict.fromkeys(BATCH_KEYS, 1), given
    # A later word of the command line wins.
    words = [f"--{key}=1" for key in BATCH_KEYS]
    return [*rest, *words], given


def step_keys(ours: dict[str, Any], cutoff_len: int) -> dict[str, Any]:
    """`rows_per_step` and `tokens_per_micro_batch` as numbers, the latter with its default.

    The default is 1.5 x cutoff_len: with gradient checkpointing a token of an 8B model holds 0.55
    MB of activations, so 24,576 tokens take 13 GB (docs/steps.md), and 192 rows on 8 or 16 ranks
    are then within 1 % of perfect balance, where micro-batches of cutoff_len leave 2 % and 6 %.
    Short rows get 8,192 tokens, which fill a GPU's matrix units.
    """
    if ours.get("rows_per_step") is None:
        return {}
    limit = ours.get("tokens_per_micro_batch")
    default = max(8192, cutoff_len * 3 // 2)
    return {
        "rows_per_step": int(ours["rows_per_step"]),
        "tokens_per_micro_batch": default if limit is None else int(limit),
    }


def _check_steps(
    ours: dict[str, Any],
    given_batch: dict[str, Any],
    data_args: Any,
    training_args: Any,
    finetuning_args: Any,
    faults: list[str],
) -> None:
    """Refuse by name what cannot be arranged into balanced steps."""
    for key, unit in (("rows_per_step", "data rows"), ("tokens_per_micro_batch", "tokens")):
        value = ours.get(key)
        is_number = re.fullmatch(r"[1-9]\d*", str(value)) and not isinstance(value, bool)
        if value is not None and not is_number:
            faults.append(f"{key}: {value!r} is not a whole number of {unit} above zero")
            return
    rows = ours.get("rows_per_step")
    if rows is None:
        if ours.get("tokens_per_micro_batch") is not None:
            faults.append("tokens_per_micro_batch: has no effect without rows_per_step; set both")
        return
    if not training_args.do_train:
        return
    if ours.get("constant_loss_normalizer") is None:
        faults.append(
            "rows_per_step: the host's own loss is not a sum over rows; set "
            "`constant_loss_normalizer: auto`, or remove the key"
        )
    _check_given_batch(int(rows), given_batch, training_args, faults)
    strategy = getattr(training_args, "train_sampling_strategy", "random")
    by_length = getattr(training_args, "group_by_length", False) or strategy == "group_by_length"
    refused = {
        "packing (the rows of a step are packed anyway)": (
            data_args.packing or data_args.neat_packing
        ),
        "streaming (the order of all rows must be known)": data_args.streaming,
        "fsdp": bool(training_args.fsdp) or _is_true(os.environ.get("ACCELERATE_USE_FSDP")),
        "auto_find_batch_size (set tokens_per_micro_batch)": training_args.auto_find_batch_size,
        "grouping by length (rows of a step are balanced anyway)": by_length,
        "dataloader_drop_last (the last step takes the rows that are left)": (
            training_args.dataloader_drop_last
        ),
        "a layer-wise optimizer (it steps in each backward pass)": (
            _is_layerwise(training_args, finetuning_args)
        ),
    }
    for name, is_set in refused.items():
        if is_set:
            faults.append(
                f"rows_per_step: is not supported together with {name}; remove one of them"
            )
    batch_numbers = _deepspeed_batch(training_args)
    fixed = [name for name, value in batch_numbers if value not in ("auto", None)]
    if fixed:
        faults.append(
            f"deepspeed: {training_args.deepspeed} fixes {', '.join(fixed)}, which rows_per_step "
            'decides; write "auto" there'
        )


def _is_layerwise(training_args: Any, finetuning_args: Any) -> bool:
    name = str(getattr(training_args.optim, "value", training_args.optim))
    return bool(
        finetuning_args.use_badam
        or finetuning_args.galore_layerwise
        or finetuning_args.apollo_layerwise
        or "layerwise" in str(training_args.optim)
        or name in ("lomo", "adalomo")
    )


BATCH_KEYS = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""The host's keys that `rows_per_step` replaces."""


def _check_given_batch(
    rows: int, given: dict[str, Any], training_args: Any, faults: list[str]
) -> None:
    """Refuse batch keys whose product is not `rows_per_step`; warn about those that agree.

    rows_per_step 16 on 2 processes agrees with per_device_train_batch_size 4 and
    gradient_accumulation_steps 2: 4 x 2 x 2 = 16.
    """
    if not given:
        return
    from llamafactory.extras import logging

    logger = logging.get_logger(__name__)
    processes = training_args.world_size
    factors = [int(given.get(key, 1)) for key in BATCH_KEYS]
    listed = " x ".join(f"{key} {value}" for key, value in given.items())
    product = math.prod(factors) * processes
    if product == rows:
        logger.warning_rank0(
            f"variational_reasoning: {' and '.join(given)} have no effect, because rows_per_step "
            f"{rows} decides the batch; remove them, and the YAML fits any number of GPUs"
        )
    else:
        faults.append(
            f"rows_per_step: {rows}, but {listed} x {processes} process(es) = {product}; "
            f"remove {' and '.join(given)}, which rows_per_step replaces"
        )


def _deepspeed_batch(training_args: Any) -> list[tuple[str, Any]]:
    """The batch numbers of a DeepSpeed file, (name, value)."""
    source = training_args.deepspeed
    if isinstance(source, str) and Path(source).is_file():
        source = json.loads(Path(source).read_text(encoding="utf-8"))
    if not isinstance(source, dict):
        return []
    names = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    return [(name, source.get(name)) for name in names]


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "y", "yes")


def _check_datasets(
    ours: dict[str, Any], renderer: Renderer | None, data_args: Any, faults: list[str]
) -> None:
    names = [*_names(data_args.dataset), *_names(data_args.eval_dataset)]
    info, where = formats.read_dataset_info(data_args.dataset_dir)
    is_listed = data_args.dataset_dir != "ONLINE"  # with ONLINE a name is one of the hub
    if is_listed and names and not info:
        faults.append(
            f"dataset_dir: {where} does not exist or is empty, or cannot be downloaded; set "
            "`dataset_dir` to the folder that holds it"
        )
    unknown = [name for name in names if name not in info]
    if is_listed and info:
        for name in unknown:
            near = difflib.get_close_matches(name, info, n=1)
            hint = f"it knows {', '.join(sorted(info))}"
            if near:
                hint = f"did you mean {near[0]!r}?"
            faults.append(f"dataset: {name!r} is not in {where}; {hint}")
    known = [name for name in names if name in info]
    used = {info[name].get("formatting", "alpaca") for name in known}
    our_formats = used & set(formats.FORMATS)
    for key in ("prompt_kind", "chat_format", "prompt_family", "overlong"):
        if key in ours and not our_formats and not faults:
            faults.append(
                f"{key}: has no effect, because no data set of this run is "
                f"{' or '.join(formats.FORMATS)}"
            )
    if our_formats and "chat_format" not in ours:
        faults.append(
            "chat_format: is missing; data sets in our formats need it (chatml, llama3, gemma, "
            "mistral, template, or a .json file)"
        )
    rendered = [name for name in formats.RENDERED if name in our_formats]
    if rendered and ours.get("prompt_kind") is None:
        family = renderer.family if renderer else FAMILIES["paper"]
        faults.append(
            f"prompt_kind: is missing; `{rendered[0]}` rows are rendered as one of "
            f"{', '.join(family.kinds)}"
        )
    if our_formats and our_formats == used and data_args.template not in (None, "empty"):
        faults.append(
            f"template: {data_args.template!r} would wrap texts that `chat_format` already "
            "renders; remove the key (it only serves data sets in the host's own formats)"
        )
    for name in known:
        entry = info[name]
        if entry.get("formatting") in formats.FORMATS:
            faults += formats.check_source(
                name, entry, data_args.dataset_dir, ours.get("prompt_kind"), renderer
            )


def _check_host_flags(
    normalizer: float | str | None,
    model_args: Any,
    data_args: Any,
    training_args: Any,
    finetuning_args: Any,
    faults: list[str],
) -> None:
    """Refuse by name what would bypass our loss or our formats."""
    key = f"the formats {', '.join(formats.FORMATS)}"
    if normalizer is not None:
        key = "constant_loss_normalizer"
    if finetuning_args.stage != "sft":
        faults.append(f"stage: {finetuning_args.stage!r} does not fit {key}; only `sft` does")
    uses_megatron = os.environ.get("USE_MCA", "0").lower() in ("1", "true", "y")
    refused = {
        "USE_MCA=1 (Megatron)": finetuning_args.use_mca or uses_megatron,
        "use_kt (KTransformers)": model_args.use_kt,
        "use_hyper_parallel": finetuning_args.use_hyper_parallel,
        "predict_with_generate (sampling is a stage of its own)": (
            training_args.predict_with_generate
        ),
        "train_on_prompt (the loss is on responses only)": data_args.train_on_prompt,
        "tokenized_path (the host would ignore a changed weight; the data sets cache already "
        "keeps tokenized rows)": (data_args.tokenized_path is not None),
    }
    if normalizer is not None:
        dispatches = getattr(training_args.accelerator_config, "dispatch_batches", False)
        refused |= {
            "ignore_pad_token_for_loss: false (padding is never a target)": (
                not data_args.ignore_pad_token_for_loss
            ),
            "accelerator_config.dispatch_batches: true (names of rows cannot be sent)": (
                bool(dispatches) and not data_args.streaming
            ),
            "moe_aux_loss_coef (a router's loss is not a sum over rows)": bool(
                model_args.moe_aux_loss_coef
            ),
            "use_dft_loss": finetuning_args.use_dft_loss,
            "use_eaft_loss": finetuning_args.use_eaft_loss,
            "use_asft_loss": finetuning_args.use_asft_loss,
            "label_smoothing_factor": training_args.label_smoothing_factor != 0,
            "enable_liger_kernel (its fused loss would bypass ours, which needs as little "
            "memory)": (model_args.enable_liger_kernel),
            "use_unsloth (its fused loss would bypass ours)": model_args.use_unsloth,
        }
    for name, is_set in refused.items():
        if is_set:
            faults.append(f"{name}: is not supported together with {key}; remove it")
    if normalizer == "auto" and not training_args.do_train:
        faults.append(
            "constant_loss_normalizer: `auto` needs a training set; give the number for an "
            "evaluation alone"
        )
    if normalizer == "auto" and data_args.streaming:
        faults.append(
            "constant_loss_normalizer: `auto` cannot see all rows of a stream; give the number "
            "that `python scripts/compute_normalizer.py TRAIN.yaml` prints"
        )


def settle_best_metric(given: dict[str, Any], training_args: Any) -> list[str]:
    """Make the checkpoint with the lowest `eval_token_nll`, or that of a part, the best one.

    The host assumes that a greater metric is better, unless its name ends in "loss".

    Args:
        given: the host's keys as the YAML gives them. training_args: the host's, which are changed.

    Returns: faults.
    """
    metric = str(training_args.metric_for_best_model or "")
    if "token_nll" not in metric:
        return []
    if given.get("greater_is_better") is None:
        training_args.greater_is_better = False
    if training_args.greater_is_better:
        return [
            f"greater_is_better: true would choose the worst checkpoint, since {metric} is better "
            "when lower; set it to false, or remove it"
        ]
    return []


def _check_model_path(model: str | None, faults: list[str]) -> None:
    """A hub id is `name` or `owner/name`; anything else must be a folder on this machine."""
    if model is None:
        faults.append("model_name_or_path: is missing")
        return
    is_hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) and not model.startswith(".")
    is_local = Path(model).exists()
    parent_is_local = "/" in model and Path(model).parent.is_dir()
    if not is_local and (not is_hub_id or parent_is_local):
        faults.append(
            f"model_name_or_path: the folder {model!r} does not exist; train or download the "
            "model first"
        )


def _check_added_tokens(model_args: Any, faults: list[str]) -> None:
    """The host initializes the rows of tokens that it is told to add, also where the model has
    them, and has trained them.
    """
    added = [*(model_args.add_tokens or ()), *(model_args.add_special_tokens or ())]
    reserved = {BEGIN, END, *symbol_names(len(added))}
    found = [token for token in added if token in reserved]
    if found:
        faults.append(
            f"add_tokens, add_special_tokens or new_special_tokens_config: {found[0]} belongs to "
            "abstract traces, and every training would initialize its rows again; remove it, and "
            "extend the base once with scripts/extend_vocabulary.py"
        )
    tokenizer = Path(model_args.model_name_or_path or "") / "tokenizer.json"
    if model_args.resize_vocab and not found and _names_symbols(tokenizer):
        faults.append(
            "resize_vocab: the model has the tokens of abstract traces already, and the host could "
            "initialize their rows again; remove it"
        )


def _names_symbols(tokenizer: Path) -> bool:
    """Whether a model's tokenizer.json has the delimiter of abstract traces."""
    return tokenizer.is_file() and f'"{BEGIN}"' in tokenizer.read_text(encoding="utf-8")


def _check_tied_head(model_args: Any, finetuning_args: Any, faults: list[str]) -> None:
    """An adapter trains whole copies of its additional targets. Of a tied model, embedding and head
    become two copies, and only one of them is in the merged model, which is tied still.
    """
    targets = finetuning_args.additional_target or ()
    config = Path(model_args.model_name_or_path or "") / "config.json"
    if finetuning_args.finetuning_type != "lora" or "lm_head" not in targets:
        return
    if config.is_file() and _is_tied(config):
        faults.append(
            "additional_target: lm_head would be trained as a copy apart from the embedding, but "
            f"{model_args.model_name_or_path} ties the two, and a merged model would lose the "
            "head; train a base whose head is a table of its own "
            "(scripts/extend_vocabulary.py untie=true), or finetuning_type: full"
        )


def _is_tied(config: Path) -> bool:
    """Whether a model's configuration ties head and embedding, which is the default of
    transformers.
    """
    values = json.loads(config.read_text(encoding="utf-8"))
    text_config = values.get("text_config", {})
    return bool(text_config.get("tie_word_embeddings", values.get("tie_word_embeddings", True)))
