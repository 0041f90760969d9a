"""The bottleneck of phase A: an answer does not see the verbal chain, only the symbols after it.

A row is X (prompt), C (verbal chain), Z (symbols with both delimiters), Y (separator and answer).
One rectangle is removed from causal attention, the queries of Y times the keys of C. Example, with
two tokens of X, C and Z each and one of Y; a dot is a key that is not seen:

           X X C C Z Z Y
        X  1 . . . . . .
        X  1 1 . . . . .
        C  1 1 1 . . . .
        C  1 1 1 1 . . .
        Z  1 1 1 1 1 . .
        Z  1 1 1 1 1 1 .
        Y  1 1 . . 1 1 1

Y reads what Z computed with C in view, so the channel is the hidden states of Z.

A batch carries the rows as one tensor, `layout`, int32 [batch, 1, 4, rows + 1]. Each line of the
batch holds one row or, in a pack, several, from its first token on. The row above is

        0 7     where rows begin and end
        2 0     first token of C; the last column is not used
        4 0     first token after C
        6 0     first token of Y

All numbers count in the line. A line with fewer rows repeats its last boundary. A row without C has
two equal numbers there. The model's attention gets one of four forms of the layout:

    dense      bool [batch, 1, tokens, tokens], the reference, for SDPA
    additive   the same in the compute dtype, 0 or its minimum, for eager attention
    layout     itself, for `row_attention`: two calls per row, exact, without a square mask
    BlockMask  for FlexAttention, kept on the layout, because not every model lets one pass
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from variational_reasoning.method.losses import IGNORE_INDEX

LAYOUT_LINES = 4
"""Lines of a layout: boundaries of rows, first token of C, first after C, first of Y."""

PADDED_GROUP_RATIO = 1.25
"""Rows share a call while the longest is at most this many times as long as the shortest."""

SHORT_ROW = 64
"""Rows up to this length share a call in any case: the call costs more than the padding."""

DENSE_ROW = 256
"""Rows up to this length share a call with a dense mask; longer ones take two calls each.

By benchmarks/bottleneck.py on a CPU: at 256 tokens the dense call is faster, at 384 neither, and
from 512 on two calls are.
"""

Segments = tuple[int, int, int]
"""Of a row, counted from its first token: first token of C, first after C, first of Y."""

Row = tuple[int, Segments]
"""A row's length and its segments."""


def layout_of(lines: Sequence[Sequence[Row]]) -> Tensor:
    """The layout of a batch, int32 [batch, 1, 4, rows + 1].

    Args:
        lines: for each line of the batch, (length, segments) of its rows in order.

    Example: rows of 7 and 3 tokens in one line, (7, (2, 4, 6)) and (3, (3, 3, 3)), the second
    without C and Y, give

        0 7 10 | 2 10 0 | 4 10 0 | 6 10 0
    """
    width = max(len(rows) for rows in lines) + 1
    shape = (len(lines), 1, LAYOUT_LINES, width)
    layout = torch.zeros(shape, dtype=torch.int32)
    for line, rows in enumerate(lines):
        start = 0
        for number, (length, segments) in enumerate(rows):
            # The second row of the example: 0, 3, 3, 3 in the row are 7, 10, 10, 10 in the line.
            in_row = torch.tensor([0, *segments], dtype=torch.int32)
            layout[line, 0, :, number] = start + in_row
            start += length
        # Rows that are missing in this line begin and end where its last one ends.
        layout[line, 0, 0, len(rows) :] = start
    return layout


def rows_of(segments: Sequence[int]) -> list[Row]:
    """(length, segments) of the rows of an example, from its column `row_segments`.

    That column has four numbers per row: tokens of X, C, Z and Y. 2 2 2 1 gives (7, (2, 4, 6)).
    """
    rows = []
    for first in range(0, len(segments), 4):
        x, chain, trace, answer = segments[first : first + 4]
        c_start = x
        c_stop = c_start + chain
        y_start = c_stop + trace
        length = y_start + answer
        rows.append((length, (c_start, c_stop, y_start)))
    return rows


def count_trace_targets(labels: Sequence[int], segments: Sequence[int]) -> list[int]:
    """How many targets of each of an example's rows are in Z; both are columns of the example.

    Example: labels -100 -100 7 8 -100 9 and segments 1 0 3 2, X b z e | sep y, give 2.
    """
    counts = []
    start = 0
    for length, (_, c_stop, y_start) in rows_of(segments):
        in_trace = labels[start + c_stop : start + y_start]
        num_targets = sum(label != IGNORE_INDEX for label in in_trace)
        counts.append(num_targets)
        start += length
    return counts


def is_layout(mask: Tensor | None) -> bool:
    """Whether what the attention got as its mask is a layout.

    The boundaries of a pack without the bottleneck (host.attention) are int32 too, in one line.
    """
    if mask is None or mask.dtype != torch.int32:
        return False
    return mask.dim() == 4 and mask.shape[2] == LAYOUT_LINES


def token_facts(layout: Tensor, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """What each token is: (number of its row from 1, 0 for padding; is in C; is in Y).

    Example: rows of lengths 4 (X C Z Y) and 2 (X Y) in a line of 7 tokens give

        row    1 1 1 1 2 2 0
        in C   . 1 . . . . .
        in Y   . . . 1 . 1 .

    Returns: int64, bool and bool, [batch, tokens] each.
    """
    position = torch.arange(tokens, device=layout.device)
    # [batch, rows + 1, 1] each, so that a comparison with `position` is over rows and tokens.
    lines = layout[:, 0].unsqueeze(-1)
    boundaries, c_starts, c_stops, y_starts = lines.unbind(1)
    # [batch, rows, tokens] each.
    in_row = _is_between(position, boundaries[:, :-1], boundaries[:, 1:])
    in_c = in_row & _is_between(position, c_starts[:, :-1], c_stops[:, :-1])
    in_y = in_row & (position >= y_starts[:, :-1])
    # A token is in at most one row, so the sum over rows is the number of that row, or 0.
    num_rows = in_row.shape[1]
    numbers = torch.arange(1, num_rows + 1, device=layout.device)
    row = (in_row * numbers.unsqueeze(1)).sum(1)
    return row, in_c.any(1), in_y.any(1)


def _is_between(position: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    return (position >= start) & (position < stop)


def dense_mask(layout: Tensor, tokens: int) -> Tensor:
    """bool [batch, 1, tokens, tokens], True where a query (third axis) sees a key (last axis).

    Padding sees the padding before it and itself, so that no softmax is over nothing.
    """
    row, in_c, in_y = token_facts(layout, tokens)
    # Queries are rows of the square and keys its columns.
    same_row = row.unsqueeze(2) == row.unsqueeze(1)
    blocked = in_y.unsqueeze(2) & in_c.unsqueeze(1)
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=layout.device)
    seen = same_row & causal.tril() & ~blocked
    return seen.unsqueeze(1)


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a boolean mask is True, and this dtype's minimum elsewhere.

    It is made in the compute dtype: float32's minimum becomes -inf when it is cast to bf16.
    """
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return zero.masked_fill(~mask, torch.finfo(dtype).min)


def block_mask(layout: Tensor, tokens: int) -> Any:
    """A BlockMask for FlexAttention.

    FlexAttention takes no boolean tensor: transformers would add it to the scores as 0 and 1.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    row, in_c, in_y = token_facts(layout, tokens)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_row = row[batch, query] == row[batch, key]
        blocked = in_y[batch, query] & in_c[batch, key]
        return (query >= key) & same_row & ~blocked

    return create_block_mask(
        sees,
        B=len(layout),
        H=None,
        Q_LEN=tokens,
        KV_LEN=tokens,
        device=str(layout.device),
    )


def block_mask_of(layout: Tensor, tokens: int) -> Any:
    """The BlockMask of a layout; made in the first layer, and kept on the tensor for the others."""
    if hasattr(layout, "block_mask"):
        return layout.block_mask
    made = block_mask(layout, tokens)
    setattr(layout, "block_mask", made)  # noqa: B010, a plain assignment has no type
    return made


def line_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> Tensor:
    """Attention of lines of rows under the bottleneck, without a mask of the line's square.

    Args:
        module: the layer. query: [batch, heads, tokens, width]. key, value: the same with their
            heads. layout: as in the module's docstring.

    Returns: [batch, tokens, heads, width]; zeros for padding.
    """
    lines = []
    for line, calls in enumerate(_calls(layout)):
        this = slice(line, line + 1)
        states = (query[this], key[this], value[this])
        outputs = []
        for call in calls:
            output = _attend(module, states, call, dropout, scaling)
            outputs.append(output)
        num_seen = sum(output.shape[1] for output in outputs)
        num_padding = query.shape[2] - num_seen
        if num_padding:
            shape = (1, num_padding, query.shape[1], value.shape[3])
            outputs.append(query.new_zeros(shape))
        lines.append(torch.cat(outputs, dim=1))
    return torch.cat(lines)


def _attend(
    module: torch.nn.Module,
    states: tuple[Tensor, ...],
    call: "Call",
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """The rows of one call.

    Args:
        states: query, key and value of the whole line, [1, heads, tokens, width] each.

    Returns: [1, tokens of the call, heads, width].
    """
    start, lengths, mask, segments = call
    if segments is None:
        q, k, v = (rows_first(tensor, start, lengths) for tensor in states)
        output, _ = sdpa_attention_forward(
            module,
            q,
            k,
            v,
            mask,
            dropout,
            scaling,
        )
        return rows_joined(output, lengths)
    stop = start + lengths[0]
    q, k, v = (tensor[:, :, start:stop] for tensor in states)
    return _two_calls(
        module,
        q,
        k,
        v,
        segments,
        mask,
        dropout,
        scaling,
    )


def _two_calls(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    mask: Tensor,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """One row: X, C, Z causally over themselves, then Y over X, Z, Y under `_answer_mask`.

    Example, X X C C Z Z Y: the first call has the queries and the keys X X C C Z Z. The second has
    the query Y and the keys X X Z Z Y.
    """
    c_start, c_stop, y_start = segments
    first, _ = sdpa_attention_forward(
        module,
        query[:, :, :y_start],
        key[:, :, :y_start],
        value[:, :, :y_start],
        None,
        dropout,
        scaling,
    )
    asking = query[:, :, y_start:]
    if asking.shape[2] == 0:
        return first
    second, _ = sdpa_attention_forward(
        module,
        asking,
        _cut(key, c_start, c_stop),
        _cut(value, c_start, c_stop),
        mask,
        dropout,
        scaling,
    )
    return torch.cat([first, second], dim=1)


def _cut(tensor: Tensor, start: int, stop: int) -> Tensor:
    """[1, heads, tokens, width] without the tokens from `start` to before `stop`."""
    before = tensor[:, :, :start]
    after = tensor[:, :, stop:]
    return torch.cat([before, after], dim=2)


def _answer_mask(length: int, segments: Segments, device: torch.device) -> Tensor:
    """bool [1, 1, tokens of Y, tokens of X, Z and Y] of one row.

    Example, X X C C Z Z Y Y: Y's two queries over six keys, aligned at the last one,

        1 1 1 1 1 .
        1 1 1 1 1 1
    """
    c_start, c_stop, y_start = segments
    num_queries = length - y_start
    num_keys = length - (c_stop - c_start)
    shape = (1, 1, num_queries, num_keys)
    mask = torch.ones(shape, dtype=torch.bool, device=device)
    # The first query is the first token of Y: it sees all keys of X and Z, and itself.
    num_before_y = num_keys - num_queries
    return mask.tril(num_before_y)


class Call(NamedTuple):
    """One attention call of several short rows, or the two calls of one long row.

    start: first token in the line. lengths: of the rows. mask: their dense mask, or the long row's
    `_answer_mask`. segments: of the long row; None for short ones.
    """

    start: int
    lengths: list[int]
    mask: Tensor
    segments: Segments | None


def _calls(layout: Tensor) -> list[list[Call]]:
    """The attention calls of each line; kept on the tensor for the next layer."""
    if hasattr(layout, "calls"):
        return layout.calls
    lines = []
    for boundaries, c_starts, c_stops, y_starts in layout[:, 0].tolist():
        segments = list(zip(c_starts, c_stops, y_starts, strict=True))
        segments.pop()  # the last column is not used
        lines.append(_calls_of_line(boundaries, segments, layout.device))
    setattr(layout, "calls", lines)  # noqa: B010, a plain assignment has no type
    return lines


def _calls_of_line(
    boundaries: list[int], row_segments: list[Segments], device: torch.device
) -> list[Call]:
    """The attention calls of one line, in the order of its rows.

    A short row joins the call before it if their lengths are similar. Example, with rows of 100,
    90, 20 and 400 tokens, where a row may be padded to 1.25 times its length:

        call   start   lengths
           1       0   100 90     20 is too short to be padded to 100
           2     190   20         400 is longer than DENSE_ROW
           3     210   400        two calls of its own
    """
    calls: list[Call] = []
    short: list[Row] = []  # the rows that will share the next call

    def close(stop: int) -> None:
        if not short:
            return
        lengths = [length for length, _ in short]
        start = stop - sum(lengths)
        mask = _mask_of(short, device)
        calls.append(Call(start, lengths, mask, None))
        short.clear()

    spans = zip(itertools.pairwise(boundaries), row_segments, strict=True)
    for (start, stop), (c_start, c_stop, y_start) in spans:
        length = stop - start
        if length == 0:  # a repeated boundary
            continue
        segments = (c_start - start, c_stop - start, y_start - start)
        if short and not can_share_call(length, longest=short[0][0]):
            close(start)
        if length <= DENSE_ROW:
            short.append((length, segments))
            continue
        close(start)
        mask = _answer_mask(length, segments, device)
        calls.append(Call(start, [length], mask, segments))
    close(boundaries[-1])
    return calls


def _mask_of(rows: list[Row], device: torch.device) -> Tensor:
    """The dense mask of rows that share a call, each a line of its own, padded on the right."""
    layout = layout_of([[row] for row in rows])
    longest, _ = rows[0]
    return dense_mask(layout, longest).to(device)


def can_share_call(length: int, longest: int) -> bool:
    """Whether a row may join the call that a row of `longest` tokens began.

    `rows_first` pads to a call's first row, so the rows of a call fall in length.
    """
    most = max(SHORT_ROW, PADDED_GROUP_RATIO * length)
    return length <= longest <= most


def rows_first(tensor: Tensor, start: int, lengths: list[int]) -> Tensor:
    """[1, heads, tokens, width] -> [rows, heads, longest, width], padded on the right."""
    longest = lengths[0]
    stop = start + sum(lengths)
    piece = tensor[0, :, start:stop]
    if len(lengths) == 1:
        return piece.unsqueeze(0)
    # Lengths only fall, so the rows are equally long if the last one is as long as the first.
    if lengths[-1] == longest:
        heads_first = piece.unflatten(1, (len(lengths), longest))
        return heads_first.transpose(0, 1)
    rows = piece.transpose(0, 1).split(lengths)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded.transpose(1, 2)


def rows_joined(output: Tensor, lengths: list[int]) -> Tensor:
    """[rows, longest, heads, width] -> [1, tokens, heads, width], without the padding."""
    if lengths[-1] == lengths[0]:
        return output.flatten(0, 1).unsqueeze(0)
    rows = []
    for row, length in zip(output, lengths, strict=True):
        rows.append(row[:length])
    return torch.cat(rows).unsqueeze(0)
