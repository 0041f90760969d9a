"""vLLM as an engine: paged cache, continuous batching, prefix caching.

It is vLLM's asynchronous engine, the one behind its server. Requests of the next group enter while
the last ones of the group before it run; and a core process that is killed is noticed, where vLLM's
own `LLM` would wait for it forever.

Requests of a group are sorted by their ids, so that those with a common prefix are neighbors and
find it in the cache. They stop where the embedded engine's stop: at the end tokens of model and
tokenizer, and at the token that completes a stop string, which stays.

A core that dies is started again. The requests that it was at are then drawn by halves, each half
without company, until they are done or one kills the core alone: that one fails, with its reason.
The same requests give the same ids as far as the kernels do not depend on the batch: on a GPU, set
VLLM_BATCH_INVARIANT=1 for that."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from variational_reasoning.packages import need
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.engines.base import (
    Completion,
    Engine,
    Request,
    check_requests,
    end_tokens,
    load_tokenizer,
    text_codec,
)

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",  # one progress bar, not a page of settings
    # A GPU worker sends them otherwise, and nothing here uses the network unasked.
    "VLLM_NO_USAGE_STATS": "1",
    # A forked core would inherit a CUDA driver that torch.cuda.is_available() has begun; on a CPU
    # vLLM spawns by itself.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""Environment variables for vLLM, unless the user has set them."""

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that describe our processes, and would be taken for those of vLLM's."""


class VllmEngine(Engine):
    """See the module docstring."""

    def __init__(self, config: Config, model_folder: str, **options: Any) -> None:
        """
        Args:
            options: more of vLLM's engine arguments.

        Raises: ModuleNotFoundError with the install command when vLLM is not installed.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        _take_own_gpus(config.sampling.tensor_parallel_size)
        self._vllm = need("vllm", "vllm")
        super().__init__(load_tokenizer(model_folder))
        self._arguments = _engine_arguments(config, model_folder) | options
        self._ends = _end_tokens_of(model_folder, self.tokenizer)
        self._vocabulary = len(self.tokenizer)
        self._decode = text_codec(self.tokenizer)[1]
        self._ids = count()
        self._num_deaths = 0
        self._max_restarts = config.sampling.max_engine_restarts
        self._loop = asyncio.new_event_loop()
        self._start()

    def statistics(self) -> dict[str, int]:
        """See Engine; shared prompt tokens are those that vLLM reports as found in its prefix
        cache.
        """
        return super().statistics() | {"engine_deaths": self._num_deaths}

    def execution(self) -> dict[str, Any]:
        """See Engine."""
        return {
            "vllm": self._vllm.__version__,
            "device": self._vllm.platforms.current_platform.get_device_name(),
            "requests_at_once": self._capacity,
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
        }

    def close(self) -> None:
        """See Engine."""
        self._stop()
        self._loop.close()

    def stream(
        self, groups: Iterable[Sequence[Request]], progress: Callable[[int], Any] | None = None
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See Engine.

        Raises: ChildProcessError when the engine dies more often than sampling.max_engine_restarts.
        """
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        flow = _Flow(groups, progress or (lambda num: None))
        running: dict[asyncio.Task, _Ticket] = {}
        ended: asyncio.Queue[asyncio.Task] = asyncio.Queue()
        lost: list[_Ticket] = []  # requests that a dead engine had
        try:
            while True:
                if lost and not running:  # all that it had has been heard of
                    self._bury()
                    flow.suspect(sorted(lost), self._capacity)
                    lost = []
                if not lost:
                    self._start_requests(flow, running, ended)
                yield from flow.whole_groups()
                if not running:
                    return
                task = self._loop.run_until_complete(ended.get())
                ticket = running.pop(task)
                try:
                    flow.finish(ticket, task.result())
                except EngineDeadError:
                    lost.append(ticket)
                except (ValueError, EngineGenerateError) as error:
                    flow.finish(ticket, Completion([], "error", f"vLLM refused it: {error}"))
        finally:
            for task in running:
                task.cancel()
            if running:
                self._loop.run_until_complete(asyncio.wait(running))

    def _start_requests(
        self,
        flow: "_Flow",
        running: dict[asyncio.Task, "_Ticket"],
        ended: "asyncio.Queue[asyncio.Task]",
    ) -> None:
        """Give the engine requests until it has twice what it runs at once, so that it never waits
        for us.
        """
        while len(running) < 2 * self._capacity:
            ticket = flow.take(is_idle=not running)
            if ticket is None:
                return
            if self._engine is None:
                self._start()
            task = self._loop.create_task(self._sample(ticket.request))
            task.add_done_callback(ended.put_nowait)
            running[task] = ticket

    def _start(self) -> None:
        from vllm.usage.usage_lib import UsageContext

        # Batch sizes by default are those of vLLM's LLM: 1,024 requests at once on an H100, where
        # an engine of unknown use would get 128.
        self._engine = self._vllm.AsyncLLMEngine.from_engine_args(
            self._vllm.AsyncEngineArgs(**self._arguments), usage_context=UsageContext.LLM_CLASS
        )
        self._capacity = self._engine.vllm_config.scheduler_config.max_num_seqs

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._loop.run_until_complete(asyncio.sleep(0))  # its tasks hear that they are canceled
            self._engine = None

    def _bury(self) -> None:
        """Count a death; the next request starts the engine again."""
        self._stop()
        self._num_deaths += 1
        if self._num_deaths > self._max_restarts:
            raise ChildProcessError(
                f"vLLM's engine died {self._num_deaths} times, and sampling.max_engine_restarts is "
                f"{self._max_restarts}; its own log says why. Finished shards are valid: the same "
                "command goes on"
            )

    async def _sample(self, request: Request) -> Completion:
        """The sample of a request; of two requests to vLLM where it begins with a trace.

        vLLM knows the ids of a trace by `allowed_token_ids`, and its shortest length by
        `min_tokens`, which keeps the stop tokens from being drawn. A trace that reaches its longest
        length has no end yet, and gets it here; so does the separator, which is never drawn.
        """
        if request.span is None:
            return await self._generate(request, self._ends)
        span = request.span
        symbols = request._replace(
            max_new_tokens=span.max_symbols, stop=(), temperature=span.temperature
        )
        trace = await self._generate(
            symbols,
            [span.end_id],
            allowed_token_ids=[*span.symbol_ids, span.end_id],
            min_tokens=span.min_symbols,
        )
        if trace.error:
            return trace
        token_ids = trace.token_ids
        if token_ids[-1] != span.end_id:
            token_ids = [*token_ids, span.end_id]
        if self._decode([span.end_id]) in request.stop:
            return Completion(token_ids, "stop")
        token_ids = [*token_ids, *span.separator_ids]
        room = request.max_new_tokens - len(token_ids)
        if room <= 0:
            return Completion(token_ids[: request.max_new_tokens], "length")
        # A seed of its own: the answer must not repeat the noise of the trace.
        rest = request._replace(
            prompt_ids=[*request.prompt_ids, *token_ids],
            max_new_tokens=room,
            seed=request.seed + 1,
            span=None,
        )
        answer = await self._generate(rest, self._ends)
        if answer.error:
            return answer
        return answer._replace(token_ids=[*token_ids, *answer.token_ids])

    async def _generate(
        self, request: Request, stop_token_ids: list[int], **constraints: Any
    ) -> Completion:
        """One request to vLLM.

        Args:
            constraints: more of vLLM's SamplingParams.
        """
        params = self._vllm.SamplingParams(
            seed=request.seed,
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_new_tokens,
            stop=list(request.stop),
            stop_token_ids=stop_token_ids,
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
            **constraints,
        )
        prompt = self._vllm.TokensPrompt(prompt_token_ids=list(request.prompt_ids))
        outputs = self._engine.generate(prompt, params, str(next(self._ids)))
        [output] = [output async for output in outputs]
        return self._result(request, output)

    def _result(self, request: Request, output: Any) -> Completion:
        num_prompt = len(request.prompt_ids)
        num_cached = output.num_cached_tokens or 0
        self._prompt_tokens += num_prompt
        self._computed += num_prompt - num_cached
        [sample] = output.outputs
        token_ids = list(sample.token_ids)
        self._sampled += len(token_ids)
        if sample.finish_reason not in ("stop", "length"):
            return Completion([], "error", f"vLLM ended it with {sample.finish_reason!r}")
        if not token_ids or max(token_ids) >= self._vocabulary:
            message = "vLLM drew no id, or one of the rows that only pad the embedding matrix"
            return Completion([], "error", message)
        return Completion(token_ids, sample.finish_reason)


def _engine_arguments(config: Config, model_folder: str) -> dict[str, Any]:
    """vLLM's engine arguments for a run."""
    sampling = config.sampling
    arguments = {
        "model": str(model_folder),
        "dtype": sampling.dtype,
        "max_model_len": config.cutoff_len,
        "tensor_parallel_size": sampling.tensor_parallel_size,
        "gpu_memory_utilization": sampling.gpu_memory_utilization,
        "enable_prefix_caching": True,
        "enforce_eager": sampling.enforce_eager,
        "disable_log_stats": True,
        "seed": config.seed,  # of the engine itself; every request has its own
        "generation_config": "vllm",  # not the model folder's sampling defaults: ours are explicit
    }
    if not need("torch", "vllm").cuda.is_available():
        # A prefill in parts rewinds the request's generator, which a CPU's generator cannot, and
        # the engine dies.
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = max(config.cutoff_len, 4096)
    return arguments


def _end_tokens_of(model_folder: str, tokenizer: Any) -> list[int]:
    """The ids that end a text, by the model folder's generation_config.json and the tokenizer."""
    transformers = need("transformers", "vllm")
    settings = None
    if (Path(model_folder) / "generation_config.json").is_file():
        settings = transformers.GenerationConfig.from_pretrained(
            str(model_folder), local_files_only=True
        )
    return sorted(end_tokens(settings, tokenizer))


class _Ticket(NamedTuple):
    """A request on its way: its turn, the number of its group, and its place there."""

    turn: int
    group: int
    place: int
    request: Request


class _Flow:
    """Which request is next, and what has come back.

    Requests are taken in the order of their turns. When the engine dies, those that can have been
    running are suspects: they are drawn again in parts, each part alone, and a part on which the
    engine dies again is halved. Of the requests a to f, d kills the engine:

        running when it died    suspects    part that is drawn    what happens
        a b c d e f             abc def     abc                   done
                                def         def                   the engine dies: halves d, ef
                                d ef        d                     it dies on d alone: d fails
                                ef          ef                    done

    Only then do the requests that were still waiting follow (`again`), and after them new ones
    (`incoming`).
    """

    def __init__(self, groups: Iterable[Sequence[Request]], progress: Callable[[int], Any]) -> None:
        self.progress = progress
        self.results: dict[int, list[Any]] = {}  # of groups that are not whole yet
        self.num_left: dict[int, int] = {}
        self.incoming = self._tickets(groups)
        self.again: deque[_Ticket] = deque()  # the engine had them, but was not running them
        self.suspects: list[list[_Ticket]] = []  # parts; the last is drawn next
        self.part: deque[_Ticket] = deque()  # what is left to take of the part that is being drawn
        self.is_part_running = False

    def _tickets(self, groups: Iterable[Sequence[Request]]) -> Iterator[_Ticket]:
        """All requests; within a group sorted by their ids, so that equal prefixes are
        neighbors.
        """
        turns = count()
        for group, requests in enumerate(groups):
            check_requests(requests)
            self.results[group] = [None] * len(requests)
            self.num_left[group] = len(requests)
            by_ids = sorted(enumerate(requests), key=lambda pair: tuple(pair[1].prompt_ids))
            for place, request in by_ids:
                yield _Ticket(next(turns), group, place, request)

    def take(self, is_idle: bool) -> _Ticket | None:
        """The next request, or None while a part of the suspects has to run alone.

        Args:
            is_idle: nothing is running, so the next part may begin.
        """
        if is_idle:
            self.part = deque()
            if self.suspects:
                self.part.extend(self.suspects.pop())
            self.is_part_running = bool(self.part)
        if self.is_part_running:
            if not self.part:
                return None
            return self.part.popleft()
        if self.again:
            return self.again.popleft()
        return next(self.incoming, None)

    def suspect(self, lost: list[_Ticket], capacity: int) -> None:
        """Take back what the engine had when it died.

        Args:
            lost: in the order of turns. The first `capacity` of them can have been running.
        """
        self.again.extendleft(reversed(lost[capacity:]))
        suspects = lost[:capacity]
        if len(suspects) > 1:
            half = len(suspects) // 2
            self.suspects += [suspects[half:], suspects[:half]]
        elif self.is_part_running:
            reason = "vLLM's engine died on it twice, the second time on it alone"
            self.finish(suspects[0], Completion([], "error", reason))
        else:
            self.suspects.append(suspects)

    def finish(self, ticket: _Ticket, result: Completion) -> None:
        """Keep a result."""
        self.results[ticket.group][ticket.place] = result
        self.num_left[ticket.group] -= 1
        self.progress(1)

    def whole_groups(self) -> Iterator[tuple[int, list[Completion]]]:
        """Groups all of whose results are there, once each."""
        whole = [group for group, num in self.num_left.items() if num == 0]
        for group in whole:
            del self.num_left[group]
            yield group, self.results.pop(group)


def _take_own_gpus(num: int) -> None:
    """Under torchrun, where every process does a share of its own, leave a process only its GPUs,
    because vLLM takes the first ones that it sees.

    With two GPUs each, the process of LOCAL_RANK 1 keeps 2,3 of 0,1,2,3.

    Args:
        num: GPUs of one process.
    """
    if "LOCAL_RANK" not in os.environ:
        return
    first = int(os.environ["LOCAL_RANK"]) * num
    after = first + num
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        mine = visible.split(",")[first:after]
    else:
        mine = [str(index) for index in range(first, after)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    for name in TORCHRUN:
        os.environ.pop(name, None)
