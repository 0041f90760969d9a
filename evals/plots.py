"""The plots of evals/report.py: numbers in, PNG bytes out."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import matplotlib
from matplotlib.figure import Figure

from variational_reasoning.method.evaluation import Estimate
from variational_reasoning.report.figures import DPI, MARKERS, PALETTE, STYLE, WIDTH

COLUMNS = 3
PANEL_HEIGHT = 2.3
"""Inches."""


def plot_scores(
    tasks: Sequence[str],
    scores: Mapping[str, Mapping[str, Estimate]],
    paper: Mapping[str, Mapping[str, float]],
) -> bytes:
    """Avg@k of every model by task as points with their standard errors; the paper's as open points. In [0, 1]."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(max(WIDTH / 2, 1.6 + 0.72 * len(tasks)), 3.6)
        axes = figure.subplots()
        num = len(scores) + len(paper)
        styles = zip(cycle(PALETTE), cycle(MARKERS), strict=False)
        handles = []
        for i, (model, by_task) in enumerate({**scores, **paper}.items()):
            offset = 0.7 * ((i + 0.5) / num - 0.5)
            color, marker = next(styles)
            places = [place + offset for place, task in enumerate(tasks) if task in by_task]
            found = [by_task[task] for task in tasks if task in by_task]
            options = {
                "color": color,
                "marker": marker,
                "markersize": 5,
                "linestyle": "none",
                "clip_on": False,
            }
            if model in paper:
                handles += axes.plot(
                    places, [100 * value for value in found], markerfacecolor="white", **options
                )
                continue
            means = [100 * estimate.mean for estimate in found]
            errors = [100 * (estimate.standard_error or 0.0) for estimate in found]
            handles.append(
                axes.errorbar(places, means, yerr=errors, capsize=2, elinewidth=1, **options)
            )
        axes.set_xticks(range(len(tasks)), tasks)
        axes.tick_params(axis="x", length=0)
        for place in range(1, len(tasks)):
            axes.axvline(place - 0.5, color="#dddddd", linewidth=0.6)
        axes.set(
            ylabel="Avg@k (%), ± standard error", xlim=(-0.5, len(tasks) - 0.5), ylim=(0, None)
        )
        axes.grid(axis="x", visible=False)
        figure.legend(handles, [*scores, *paper], loc="outside lower center", ncols=min(num, 3))

    return _png(draw)


def plot_pass_curves(curves: Mapping[str, Mapping[str, Sequence[Estimate]]]) -> bytes:
    """Pass@1 .. Pass@n of every model, a panel per task, with bands of one standard error. In [0, 1]."""

    def draw(figure: Figure) -> None:
        columns, rows = min(COLUMNS, len(curves)), math.ceil(len(curves) / COLUMNS)
        figure.set_size_inches(WIDTH * max(columns, 2) / COLUMNS, PANEL_HEIGHT * rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False)
        models = list(dict.fromkeys(model for by_model in curves.values() for model in by_model))
        looks = dict(zip(models, zip(cycle(PALETTE), cycle(MARKERS), strict=False), strict=False))
        handles = {}
        for axes, (task, by_model) in zip(grid.ravel(), curves.items(), strict=False):
            for model, estimates in by_model.items():
                k = range(1, len(estimates) + 1)
                means = [100 * estimate.mean for estimate in estimates]
                errors = [100 * (estimate.standard_error or 0.0) for estimate in estimates]
                color, marker = looks[model]
                marked = [2**i - 1 for i in range(len(k)) if 2**i <= len(k)]
                (handles[model],) = axes.plot(
                    k,
                    means,
                    color=color,
                    marker=marker,
                    markevery=marked,
                    markersize=4,
                    linewidth=1.3,
                )
                low, high = (
                    [mean + sign * error for mean, error in zip(means, errors, strict=True)]
                    for sign in (-1, 1)
                )
                axes.fill_between(k, low, high, color=color, alpha=0.18, linewidth=0)
            longest = max(map(len, by_model.values()))
            axes.set_xscale("log", base=2)
            ticks = [2**i for i in range(longest.bit_length())]
            axes.set_xticks(ticks, map(str, ticks))
            axes.minorticks_off()
            axes.set_title(task)
        for axes in grid.ravel()[len(curves) :]:
            axes.set_visible(False)
        figure.supxlabel("k, samples per question", fontsize="medium")
        figure.supylabel("Pass@k (%), bands: ± standard error", fontsize="medium")
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 3)
        )

    return _png(draw)


def _png(draw: Callable[[Figure], None]) -> bytes:
    with matplotlib.rc_context(STYLE):
        figure = Figure(layout="constrained")
        draw(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()
