"""The plots: arrays in, PNG bytes out. Only axes, labels and colors are made here.

Color-blind readers can distinguish the palette of Okabe and Ito. Lines and bars also differ by
marker or hatch, so that a print in gray can be read. Figures are made without pyplot. So nothing
global is changed and no display is needed.
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from variational_reasoning.method.evaluation import Estimate
from variational_reasoning.report.bound import Bound
from variational_reasoning.report.leakage import Leakage
from variational_reasoning.report.traces import ACCURACY_BINS
from variational_reasoning.report.training import CURVES, Training

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX<"
"""One more than colors, so that the pairs repeat after 56 lines and not after 7."""
DASHES = ("-", "--", "-.", ":")
LINE_GRAY = "#dddddd"
"""Of the grid, and of the lines between groups of points."""
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE_GRAY,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
}
WIDTH = 7.2
"""Of every figure but the narrow ones, in inches."""
DPI = 160
"""Pixels per inch: a figure is 1152 pixels wide."""
COLUMNS = 3
"""Panels next to each other in a plot with one per task."""
PANEL_HEIGHT = 2.3
"""Of each of these panels, in inches."""
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:g}%")


def _plot(draw: Callable[..., None]) -> Callable[..., bytes]:
    """Turn `draw(figure, ...)` into a function from the other arguments to the bytes of a PNG."""

    def plot(*args: Any) -> bytes:
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
            draw(figure, *args)
            stream = io.BytesIO()
            figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
        return stream.getvalue()

    plot.__doc__ = draw.__doc__
    return plot


@_plot
def plot_sources(
    figure: Figure, names: Sequence[str], means: Sequence[float], errors: Sequence[float]
) -> None:
    """Accuracy by source as bars from the top, with standard errors over questions; in [0, 1]."""
    figure.set_size_inches(WIDTH, 0.9 + 0.28 * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.barh(
        places,
        means,
        0.7,
        xerr=errors,
        color=PALETTE[5],
        error_kw={"capsize": 2, "linewidth": 1},
    )
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("share of verified answers")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(axis="y", visible=False)


@_plot
def plot_weights(
    figure: Figure,
    weights: Mapping[str, np.ndarray],
    sizes: Mapping[str, np.ndarray],
    num_traces: int,
) -> None:
    """Histograms of rho~ over traces (log scale) and of effective sample size over questions."""
    left, right = figure.subplots(1, 2)
    weight_bins = np.linspace(0, 1, 26)
    # Whole numbers are the most frequent sizes. They are in the middle of a bin: 0.75 .. 1.25.
    size_bins = np.arange(0.75, num_traces + 0.5, 0.5)
    for name, color, dash in zip(weights, cycle(PALETTE), cycle(DASHES), strict=False):
        look = {"color": color, "linestyle": dash}
        _outline(left, weights[name].ravel(), weight_bins, label=name, **look)
        mean_size = sizes[name].mean()
        _outline(right, sizes[name], size_bins, label=f"{name}, mean {mean_size:.2f}", **look)
    left.axvline(1 / num_traces, color="#666666", linewidth=0.8, linestyle=":")
    left.set(
        xlabel=r"weight $\tilde\rho$ (dotted: 1/K)",
        ylabel="share of traces",
        yscale="log",
        xlim=(0, 1),
    )
    right.set_xlabel(f"effective sample size, of K = {num_traces}")
    right.set_ylabel("share of questions")
    # The upper third is room for the legend. It gets no ticks, so they are taken before.
    shares = [tick for tick in right.get_yticks() if 0 <= tick <= 1]
    _, top = right.get_ylim()
    right.set_ylim(0, 1.35 * top)
    right.set_yticks(shares)
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PERCENT)
        axes.legend(loc="upper right")


@_plot
def plot_bound(figure: Figure, panels: Mapping[str, Mapping[str, Bound]]) -> None:
    """L_1 .. L_K with the bootstrap's 95 % bands; a panel per ratio, a line per answer term."""
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, bounds) in zip(row, panels.items(), strict=True):
        for name, (color, marker) in zip(bounds, _styles(), strict=False):
            _bound_curve(axes, bounds[name], color, marker, name)
        axes.set_title(title)
        axes.set_xlabel("k, traces per question")
        axes.set_ylabel("$L_k$ (nats)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()


@_plot
def plot_lengths(figure: Figure, panels: Sequence[tuple[str, str, np.ndarray, np.ndarray]]) -> None:
    """Panels (label of x, label of y, x, y): densities of points, and a line of running medians."""
    num_rows = math.ceil(len(panels) / 2)
    figure.set_size_inches(WIDTH, 2.7 * num_rows)
    grid = figure.subplots(num_rows, 2, squeeze=False).ravel()
    count_format = FuncFormatter(lambda count, _: f"{count:,.0f}")
    for axes, (x_label, y_label, x, y) in zip(grid, panels, strict=False):
        cells = axes.hexbin(
            x,
            y,
            gridsize=32,
            bins="log" if len(x) > 1 else None,
            cmap="cividis_r",
            mincnt=1,
            linewidths=0.1,
        )
        middle, medians = running_median(x, y)
        axes.plot(
            middle,
            medians,
            color=PALETTE[1],
            marker="o",
            markersize=3,
            linewidth=1.2,
        )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(x) and x.min() == x.max():  # keep whole numbers on the axis if all are the same
            axes.set_xlim(x[0] - 1, x[0] + 1)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        bar = figure.colorbar(
            cells,
            ax=axes,
            label="traces",
            pad=0.01,
            format=count_format,
        )
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    _hide(grid[len(panels) :])


@_plot
def plot_difficulty(figure: Figure, shares: np.ndarray, masses: Mapping[str, np.ndarray]) -> None:
    """Share of the questions, and of each method's weight, by range of question accuracy."""
    axes = figure.subplots()
    places = np.arange(len(shares))
    bars = {"questions": shares}
    for name, mass in masses.items():
        bars[f"weight, {name}"] = mass
    colors = ("#bbbbbb", *PALETTE)
    hatches = ("", "", "///", "...", "xxx", "\\\\\\")
    # The bars of a range fill 0.84 of its space: four bars have the offsets -0.315, -0.105, ...
    width = 0.84 / len(bars)
    for i, (name, values) in enumerate(bars.items()):
        offset = width * (i + 0.5) - 0.42
        axes.bar(
            places + offset,
            values,
            width,
            label=name,
            color=colors[i],
            hatch=hatches[i],
            edgecolor="white",
        )
    axes.set_xticks(places, ACCURACY_BINS)
    axes.set_xlabel("share of verified answers to the question")
    axes.set_ylabel("share")
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=len(bars))


@_plot
def plot_leakage(figure: Figure, kinds: Mapping[str, Leakage]) -> None:
    """Share of traces with the hint's answer so far, over fractions of a trace; a line per kind."""
    axes = figure.subplots()
    for name, color, dash in zip(kinds, cycle(PALETTE), cycle(DASHES), strict=False):
        # Two of five traces have the answer, at 0.1 and 0.4: steps to 0.2 and 0.4, level after it.
        fractions = np.sort(kinds[name].fractions)
        shares = np.arange(1, len(fractions) + 1) / kinds[name].num_traces
        last = shares[-1] if len(shares) else 0
        axes.step(
            [0, *fractions, 1],
            [0, *shares, last],
            where="post",
            color=color,
            linestyle=dash,
            label=name,
        )
    axes.set_xlabel("fraction of the trace")
    axes.set_ylabel("traces with the answer so far")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.legend(loc="upper left")


@_plot
def plot_trainings(figure: Figure, trainings: Sequence[Training]) -> None:
    """A panel per logged value, a line per training over its optimizer steps."""
    logged = set().union(*(training.curves for training in trainings))
    names = [name for name in CURVES if name in logged]
    legend_rows = math.ceil(len(trainings) / 3)
    figure.set_size_inches(WIDTH, 2.6 + 0.18 * legend_rows)
    row = figure.subplots(1, len(names), squeeze=False)[0]
    handles = {}
    for axes, name in zip(row, names, strict=True):
        # A training has the same style in all panels, also where one of them lacks its curve.
        for training, color, dash in zip(trainings, cycle(PALETTE), cycle(DASHES), strict=False):
            if name not in training.curves:
                continue
            steps, values = training.curves[name]
            (line,) = axes.plot(
                steps,
                values,
                color=color,
                linestyle=dash,
                linewidth=1,
            )
            handles[training.name] = line
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(CURVES[name])
        axes.set_ylim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)


@_plot
def plot_pass_curves(
    figure: Figure, panels: Mapping[str, Mapping[str, Sequence[Estimate]]]
) -> None:
    """Pass@1 .. Pass@n in [0, 1] on a log scale of k, with bands of one standard error.

    Args:
        panels: by title, which may be empty, the curve of each model.
    """
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / COLUMNS)
    if len(panels) > 1:
        width = WIDTH * max(columns, 2) / COLUMNS
        height = PANEL_HEIGHT * rows + 0.5
    else:
        width = 0.8 * WIDTH
        height = PANEL_HEIGHT + 1.2
    figure.set_size_inches(width, height)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    # A model has the same style in all panels: it takes the next unused one where it comes first.
    unused = _styles()
    styles: dict[str, tuple[str, str]] = {}
    handles = {}
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        for model, curve in curves.items():
            if model not in styles:
                styles[model] = next(unused)
            handles[model] = _pass_curve(axes, curve, *styles[model])
        longest = max(map(len, curves.values()))
        _scale_by_powers_of_two(axes, longest)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_title(title)
    _hide(grid[len(panels) :])
    figure.supxlabel("k, samples per question", fontsize="medium")
    figure.supylabel("Pass@k, ± standard error", fontsize="medium")
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper center",
        ncols=min(len(handles), 3),
    )


@_plot
def plot_scores(
    figure: Figure,
    tasks: Sequence[str],
    scores: Mapping[str, Mapping[str, Estimate]],
    paper: Mapping[str, Mapping[str, float]],
) -> None:
    """Avg@k in [0, 1] by task: a point with its standard error for each model.

    The paper's points are open.

    Args:
        scores, paper: by model, by task; a model may lack tasks.
    """
    width = max(WIDTH / 2, 1.6 + 0.72 * len(tasks))
    figure.set_size_inches(width, 3.6)
    axes = figure.subplots()
    names = [*scores, *paper]
    handles: list[Any] = []
    for i, (model, (color, marker)) in enumerate(zip(names, _styles(), strict=False)):
        look: dict[str, Any] = {
            "color": color,
            "marker": marker,
            "markersize": 5,
            "linestyle": "none",
            "clip_on": False,
        }
        by_task: Mapping[str, Any] = scores[model] if model in scores else paper[model]
        known = [place for place, task in enumerate(tasks) if task in by_task]
        offset = _offset(i, len(names))
        places = [place + offset for place in known]
        values = [by_task[tasks[place]] for place in known]
        if model in paper:
            look["markerfacecolor"] = "white"
            handles += axes.plot(places, values, **look)
            continue
        means = [estimate.mean for estimate in values]
        errors = [estimate.standard_error or 0.0 for estimate in values]
        points = axes.errorbar(
            places,
            means,
            yerr=errors,
            capsize=2,
            elinewidth=1,
            **look,
        )
        handles.append(points)
    _label_groups(axes, tasks)
    axes.set_ylabel("Avg@k, ± standard error")
    axes.set_ylim(0, None)
    columns = min(len(names), 3)
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


@_plot
def plot_controls(
    figure: Figure,
    kinds: Sequence[str],
    models: Mapping[str, Mapping[str, tuple[float, float, float]]],
) -> None:
    """Accuracy in [0, 1] by the trace that was put in: a point with its interval for each model.

    Args:
        models: by name, (mean, low, high) by kind; a model may lack kinds.
    """
    width = max(WIDTH, 1.2 + 0.9 * len(kinds))
    figure.set_size_inches(width, 3.6)
    axes = figure.subplots()
    handles: list[Any] = []
    for i, (values, (color, marker)) in enumerate(zip(models.values(), _styles(), strict=False)):
        known = [place for place, kind in enumerate(kinds) if kind in values]
        offset = _offset(i, len(models))
        means = []
        below = []
        above = []
        for place in known:
            mean, low, high = values[kinds[place]]
            means.append(mean)
            below.append(max(0.0, mean - low))
            above.append(max(0.0, high - mean))
        points = axes.errorbar(
            [place + offset for place in known],
            means,
            yerr=[below, above],
            color=color,
            marker=marker,
            markersize=5,
            capsize=2,
            linestyle="none",
            elinewidth=1,
            clip_on=False,
        )
        handles.append(points)
    _label_groups(axes, kinds)
    axes.set_xlabel("trace")
    axes.set_ylabel("accuracy, 95 % interval")
    axes.set_ylim(0, 1)
    columns = min(len(models), 4)
    figure.legend(handles, list(models), loc="outside lower center", ncols=columns)


@_plot
def plot_symbol_use(figure: Figure, curves: Mapping[str, Sequence[float]]) -> None:
    """The share of each symbol, the most frequent first, on logarithmic axes; a line per table."""
    legend_rows = math.ceil(len(curves) / 3)
    figure.set_size_inches(WIDTH, 3.0 + 0.18 * legend_rows)
    axes = figure.subplots()
    for name, (color, marker), dash in zip(curves, _styles(), cycle(DASHES), strict=False):
        shares = curves[name]
        axes.plot(
            range(1, len(shares) + 1),
            shares,
            color=color,
            marker=marker,
            markevery=_powers_of_two(len(shares)),
            markersize=4,
            linestyle=dash,
            linewidth=1.2,
            label=name,
        )
    longest = max(map(len, curves.values()))
    _scale_by_powers_of_two(axes, longest)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xlabel("rank of the symbol")
    axes.set_ylabel("share of all symbols")
    figure.legend(loc="outside lower center", ncols=3)


def running_median(
    x: np.ndarray, y: np.ndarray, num_groups: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """(median of x, median of y) in groups of about equal size by x.

    Equal x stay in one group. A group of fewer than 1 % of the points is left out, because its
    median would be noise.

    Args:
        x, y: [N], not empty.
    """
    # Quantiles are the inner bounds: x = 1, 2, 3, 4 and two groups have the bound 2.5.
    inner = np.linspace(0, 1, num_groups + 1)[1:-1]
    bounds = np.unique(np.quantile(x, inner))
    groups = np.searchsorted(bounds, x, side="left")
    middle = []
    medians = []
    for group in np.unique(groups):
        is_member = groups == group
        if is_member.mean() >= 0.01:
            middle.append(np.median(x[is_member]))
            medians.append(np.median(y[is_member]))
    return np.array(middle), np.array(medians)


def _styles() -> Iterator[tuple[str, str]]:
    """(color, marker) of the first line, the second, ..., without an end."""
    return zip(cycle(PALETTE), cycle(MARKERS), strict=False)


def _pass_curve(axes: Any, curve: Sequence[Estimate], color: str, marker: str) -> Any:
    """One model's curve and its band; markers at the powers of two. Returns the line."""
    k = range(1, len(curve) + 1)
    means = np.array([estimate.mean for estimate in curve])
    errors = np.array([estimate.standard_error or 0.0 for estimate in curve])
    (line,) = axes.plot(
        k,
        means,
        color=color,
        marker=marker,
        markevery=_powers_of_two(len(curve)),
        markersize=4,
        linewidth=1.3,
    )
    axes.fill_between(
        k,
        means - errors,
        means + errors,
        color=color,
        alpha=0.18,
        linewidth=0,
    )
    return line


def _bound_curve(axes: Any, bound: Bound, color: str, marker: str, label: str) -> None:
    """L_1 .. L_K and their band."""
    k = np.arange(1, len(bound.means) + 1)
    axes.plot(
        k,
        bound.means,
        color=color,
        marker=marker,
        markersize=3.5,
        label=label,
    )
    axes.fill_between(
        k,
        bound.lows,
        bound.highs,
        color=color,
        alpha=0.2,
        linewidth=0,
    )


def _powers_of_two(num_points: int) -> list[int]:
    """Positions of k = 1, 2, 4, ... on a curve over k = 1, 2, 3, ...

    Example: a curve of 5 has three powers of two, at the positions 0, 1 and 3.
    """
    return [2**i - 1 for i in range(num_points.bit_length())]


def _scale_by_powers_of_two(axes: Any, longest: int) -> None:
    """A logarithmic x axis with ticks at 1, 2, 4, ... up to the longest curve's end."""
    ticks = [position + 1 for position in _powers_of_two(longest)]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, map(str, ticks))


def _offset(number: int, count: int) -> float:
    """How far the points of a model are from the middle of their group.

    The points of a group are next to each other and fill 0.7 of the space between two groups.
    Example: the second of two models is 0.175 to the right.
    """
    return 0.7 * ((number + 0.5) / count - 0.5)


def _label_groups(axes: Any, names: Sequence[str]) -> None:
    """Name the groups of points at x = 0, 1, 2, ..., with lines between them and shares on y."""
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0)
    for place in range(1, len(names)):
        axes.axvline(place - 0.5, color=LINE_GRAY, linewidth=0.6)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.grid(axis="x", visible=False)


def _hide(unused: Iterable[Any]) -> None:
    """Hide the axes of a grid that no panel is left for."""
    for axes in unused:
        axes.set_visible(False)


def _outline(axes: Any, values: np.ndarray, bins: np.ndarray, **look: str) -> None:
    """A histogram of shares as an outline, so that several do not cover each other."""
    counts, _ = np.histogram(values, bins=bins)
    shares = counts / max(len(values), 1)
    axes.stairs(shares, bins, linewidth=1.3, **look)
