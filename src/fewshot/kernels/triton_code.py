"""The GPU code of kernels/triton.py: attention over key intervals, forward and backward. Needs Triton to import.

A program takes one tile of an interval's queries (or keys) in one head of one row, and walks over the keys (or queries)
that have to do with it: an edge, whole tiles that need no mask, an edge. The host has laid out in a table, an integer a
column, where each tile lies and where its walk starts and ends: no length is compiled in. Scores are in base 2.

Positions of an interval are first + step * i, or, with GATHER, looked up in a list. Tiles are [queries, keys]; those
whose name ends in _t are transposed.
"""

from __future__ import annotations

import triton
import triton.language as tl

COLUMNS = tl.constexpr(16)  # integers of a table's row: see _query_tiles and _key_tiles in kernels/triton.py
NOTHING = tl.constexpr(float("-inf"))

# Lengths and numbers of heads: code for each of their divisibilities would be compiled for nothing.
OPEN = ("n_queries", "n_keys", "q_start", "head_first", "head_step", "heads_of_kind", "n_heads")


@triton.jit
def _places(numbers, first, step, stride, positions, inside, shift, GATHER: tl.constexpr):
    """Return where rows `numbers` of an interval lie in memory, in elements, and which rows of the tensor they are."""
    if GATHER:
        rows = tl.load(positions + numbers, mask=inside, other=shift) - shift
    else:
        rows = first + step * numbers
    return rows.to(tl.int64) * stride, rows


@triton.jit
def _tile(base, places, columns, inside, WIDTH: tl.constexpr, PADDED: tl.constexpr, WHOLE: tl.constexpr):
    """Load the rows [n, PADDED] at these places; zeros where they are not inside."""
    pointers = base + places[:, None] + columns[None, :]
    if WHOLE:
        if WIDTH == PADDED:
            return tl.load(pointers)
        return tl.load(pointers, mask=(columns < WIDTH)[None, :], other=0.0)
    return tl.load(pointers, mask=inside[:, None] & (columns < WIDTH)[None, :], other=0.0)


@triton.jit
def _dot(left, right, before, PRECISION: tl.constexpr):
    """Return the matrix product, added to `before` if that is not None."""
    if PRECISION == "widened":  # Triton's interpreter multiplies the bits of bfloat16, not the numbers
        product = tl.dot(left.to(tl.float32), right.to(tl.float32), before, input_precision="ieee")
    else:
        product = tl.dot(left, right, before, input_precision=PRECISION)
    return product


@triton.jit
def _readable(index, low, high, doc_q, doc_k, DOCUMENTS: tl.constexpr):
    """Return which query reads which key; `index` numbers the keys of a tile within the interval."""
    allowed = (index[None, :] >= low[:, None]) & (index[None, :] < high[:, None])
    if DOCUMENTS:
        allowed = allowed & (doc_q[:, None] == doc_k[None, :])
    return allowed


# ---- forward --------------------------------------------------------------------------------------------------------


@triton.jit
def _attend_keys(
    mixed, top, total, q_tile, low, high, doc_q, from_, to, k, v, k_stride, v_stride, k_first, k_step, keys, documents,
    columns, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, KEYS: tl.constexpr, GATHER_K: tl.constexpr, DOCUMENTS: tl.constexpr,
    EDGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Carry the online softmax over keys from_ to `to` of the interval; return its three sums."""
    for j in range(from_, to, KEYS):
        index = j + tl.arange(0, KEYS)
        inside = index < to
        k_places, k_rows = _places(index, k_first, k_step, k_stride, keys, inside, 0, GATHER_K)
        v_places, _ = _places(index, k_first, k_step, v_stride, keys, inside, 0, GATHER_K)
        k_tile = _tile(k, k_places, columns, inside, WIDTH, PADDED, not EDGE)
        scores = _dot(q_tile, tl.trans(k_tile), None, PRECISION) * scale
        if EDGE or DOCUMENTS:
            doc_k = k_rows
            if DOCUMENTS:
                doc_k = tl.load(documents + k_rows, mask=inside, other=-1)
            scores = tl.where(_readable(index, low, high, doc_q, doc_k, DOCUMENTS), scores, NOTHING)
        higher = tl.maximum(top, tl.max(scores, 1))
        shift = tl.where(higher == NOTHING, 0.0, higher)  # a query may have met no key yet
        weights = tl.exp2(scores - shift[:, None])
        shrink = tl.exp2(top - shift)
        total = total * shrink + tl.sum(weights, 1)
        v_tile = _tile(v, v_places, columns, inside, WIDTH, PADDED, not EDGE)
        mixed = _dot(weights.to(v_tile.dtype), v_tile, mixed * shrink[:, None], PRECISION)
        top = higher
    return mixed, top, total


@triton.jit(do_not_specialize=OPEN)
def attend_queries(
    q, k, v, out, lse, q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t,
    table, lows, highs, queries, keys, documents, scale,
    n_queries, n_keys, q_start, head_first, head_step, heads_of_kind, n_heads,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    GATHER_Q: tl.constexpr, GATHER_K: tl.constexpr, JOIN: tl.constexpr, DOCUMENTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Store the result and the log-sum-exp of a tile of queries; with JOIN, joined with those of earlier phases."""
    row = table + tl.program_id(0) * COLUMNS
    b = (tl.program_id(1) // heads_of_kind).to(tl.int64)
    h = (head_first + tl.program_id(1) % heads_of_kind * head_step).to(tl.int64)
    flat, count, q_first, q_step = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    k_flat, k_first, k_step = tl.load(row + 4), tl.load(row + 5), tl.load(row + 6)
    from_, whole_from, whole_to, to = tl.load(row + 7), tl.load(row + 8), tl.load(row + 9), tl.load(row + 10)

    columns, numbers = tl.arange(0, PADDED), tl.arange(0, QUERIES)
    inside = numbers < count
    low = tl.load(lows + flat + numbers, mask=inside, other=0)
    high = tl.load(highs + flat + numbers, mask=inside, other=0)
    q_places, rows = _places(numbers, q_first, q_step, q_t, queries + flat, inside, q_start, GATHER_Q)
    q_tile = _tile(q + b * q_b + h * q_h, q_places, columns, inside, WIDTH, PADDED, False)
    documents += b * n_keys
    doc_q = rows
    if DOCUMENTS:
        doc_q = tl.load(documents + q_start + rows, mask=inside, other=-2)
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    keys += k_flat

    mixed = tl.zeros([QUERIES, PADDED], tl.float32)
    top = tl.full([QUERIES], NOTHING, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed, top, total = _attend_keys(
        mixed, top, total, q_tile, low, high, doc_q, from_, whole_from, k, v, k_t, v_t, k_first, k_step, keys,
        documents, columns, scale, WIDTH, PADDED, KEYS, GATHER_K, DOCUMENTS, True, PRECISION,
    )  # fmt: skip
    mixed, top, total = _attend_keys(
        mixed, top, total, q_tile, low, high, doc_q, whole_from, whole_to, k, v, k_t, v_t, k_first, k_step, keys,
        documents, columns, scale, WIDTH, PADDED, KEYS, GATHER_K, DOCUMENTS, False, PRECISION,
    )  # fmt: skip
    mixed, top, total = _attend_keys(
        mixed, top, total, q_tile, low, high, doc_q, whole_to, to, k, v, k_t, v_t, k_first, k_step, keys, documents,
        columns, scale, WIDTH, PADDED, KEYS, GATHER_K, DOCUMENTS, True, PRECISION,
    )  # fmt: skip

    some = tl.where(total > 0, total, 1.0)
    result = mixed / some[:, None]
    level = tl.where(total > 0, top + tl.log2(some), NOTHING)
    lse += (b * n_heads + h) * n_queries + rows
    out_places = rows.to(tl.int64) * o_t
    out_pointers = out + b * o_b + h * o_h + out_places[:, None] + columns[None, :]
    out_inside = inside[:, None] & (columns < WIDTH)[None, :]
    if JOIN:
        before = tl.load(lse, mask=inside, other=NOTHING)
        higher = tl.maximum(before, level)
        shift = tl.where(higher == NOTHING, 0.0, higher)
        old, new = tl.exp2(before - shift), tl.exp2(level - shift)
        both = tl.where(old + new > 0, old + new, 1.0)
        earlier = tl.load(out_pointers, mask=out_inside, other=0.0)
        result = earlier * (old / both)[:, None] + result * (new / both)[:, None]
        level = tl.where(old + new > 0, shift + tl.log2(both), NOTHING)
    tl.store(out_pointers, result.to(out.dtype.element_ty), mask=out_inside)
    tl.store(lse, level, mask=inside)


# ---- backward -------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=OPEN)
def dot_results(
    out, grad, delta, o_b, o_h, o_t, g_b, g_h, g_t, n_queries, n_heads,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Store in delta, for each query, the inner product of the result and its gradient."""
    b, h = (tl.program_id(1) // n_heads).to(tl.int64), (tl.program_id(1) % n_heads).to(tl.int64)
    rows, columns = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, PADDED)
    inside = rows < n_queries
    result = _tile(out + b * o_b + h * o_h, rows.to(tl.int64) * o_t, columns, inside, WIDTH, PADDED, False)
    gradient = _tile(grad + b * g_b + h * g_h, rows.to(tl.int64) * g_t, columns, inside, WIDTH, PADDED, False)
    product = tl.sum(result.to(tl.float32) * gradient.to(tl.float32), 1)
    tl.store(delta + tl.program_id(1).to(tl.int64) * n_queries + rows, product, mask=inside)


@triton.jit
def _add_gradient(pointers, inside, gradient, JOIN: tl.constexpr):
    if JOIN:
        gradient += tl.load(pointers, mask=inside, other=0.0)
    tl.store(pointers, gradient.to(pointers.dtype.element_ty), mask=inside)


@triton.jit
def _gradient_from_keys(
    gradient, q_tile, grad_tile, level, delta, low, high, doc_q, from_, to, k, v, k_stride, v_stride, k_first, k_step,
    keys, documents, columns, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, KEYS: tl.constexpr, GATHER_K: tl.constexpr, DOCUMENTS: tl.constexpr,
    EDGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradient of a tile of queries, not yet scaled, with what keys from_ to `to` add to it."""
    for j in range(from_, to, KEYS):
        index = j + tl.arange(0, KEYS)
        inside = index < to
        k_places, k_rows = _places(index, k_first, k_step, k_stride, keys, inside, 0, GATHER_K)
        v_places, _ = _places(index, k_first, k_step, v_stride, keys, inside, 0, GATHER_K)
        k_tile = _tile(k, k_places, columns, inside, WIDTH, PADDED, not EDGE)
        v_tile = _tile(v, v_places, columns, inside, WIDTH, PADDED, not EDGE)
        scores = _dot(q_tile, tl.trans(k_tile), None, PRECISION) * scale
        if EDGE or DOCUMENTS:
            doc_k = k_rows
            if DOCUMENTS:
                doc_k = tl.load(documents + k_rows, mask=inside, other=-1)
            scores = tl.where(_readable(index, low, high, doc_q, doc_k, DOCUMENTS), scores, NOTHING)
        weights = tl.exp2(scores - level[:, None])
        change = _dot(grad_tile, tl.trans(v_tile), None, PRECISION) - delta[:, None]
        gradient = _dot((weights * change).to(k_tile.dtype), k_tile, gradient, PRECISION)
    return gradient


@triton.jit(do_not_specialize=OPEN)
def differentiate_queries(
    q, k, v, grad, lse, delta, grad_q,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, g_b, g_h, g_t, o_b, o_h, o_t,
    table, lows, highs, queries, keys, documents, scale, width_scale,
    n_queries, n_keys, q_start, head_first, head_step, heads_of_kind, n_heads,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    GATHER_Q: tl.constexpr, GATHER_K: tl.constexpr, JOIN: tl.constexpr, DOCUMENTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Store the gradient of a tile of queries; with JOIN, added to that of earlier phases."""
    row = table + tl.program_id(0) * COLUMNS
    b = (tl.program_id(1) // heads_of_kind).to(tl.int64)
    h = (head_first + tl.program_id(1) % heads_of_kind * head_step).to(tl.int64)
    flat, count, q_first, q_step = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    k_flat, k_first, k_step = tl.load(row + 4), tl.load(row + 5), tl.load(row + 6)
    from_, whole_from, whole_to, to = tl.load(row + 7), tl.load(row + 8), tl.load(row + 9), tl.load(row + 10)

    columns, numbers = tl.arange(0, PADDED), tl.arange(0, QUERIES)
    inside = numbers < count
    low = tl.load(lows + flat + numbers, mask=inside, other=0)
    high = tl.load(highs + flat + numbers, mask=inside, other=0)
    q_places, rows = _places(numbers, q_first, q_step, q_t, queries + flat, inside, q_start, GATHER_Q)
    q_tile = _tile(q + b * q_b + h * q_h, q_places, columns, inside, WIDTH, PADDED, False)
    grad_tile = _tile(grad + b * g_b + h * g_h, rows.to(tl.int64) * g_t, columns, inside, WIDTH, PADDED, False)
    number = (b * n_heads + h) * n_queries + rows
    level = tl.load(lse + number, mask=inside, other=0.0)
    delta_tile = tl.load(delta + number, mask=inside, other=0.0)
    documents += b * n_keys
    doc_q = rows
    if DOCUMENTS:
        doc_q = tl.load(documents + q_start + rows, mask=inside, other=-2)
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    keys += k_flat

    gradient = tl.zeros([QUERIES, PADDED], tl.float32)
    gradient = _gradient_from_keys(
        gradient, q_tile, grad_tile, level, delta_tile, low, high, doc_q, from_, whole_from, k, v, k_t, v_t, k_first,
        k_step, keys, documents, columns, scale, WIDTH, PADDED, KEYS, GATHER_K, DOCUMENTS, True, PRECISION,
    )  # fmt: skip
    gradient = _gradient_from_keys(
        gradient, q_tile, grad_tile, level, delta_tile, low, high, doc_q, whole_from, whole_to, k, v, k_t, v_t, k_first,
        k_step, keys, documents, columns, scale, WIDTH, PADDED, KEYS, GATHER_K, DOCUMENTS, False, PRECISION,
    )  # fmt: skip
    gradient = _gradient_from_keys(
        gradient, q_tile, grad_tile, level, delta_tile, low, high, doc_q, whole_to, to, k, v, k_t, v_t, k_first,
        k_step, keys, documents, columns, scale, WIDTH, PADDED, KEYS, GATHER_K, DOCUMENTS, True, PRECISION,
    )  # fmt: skip
    pointers = grad_q + b * o_b + h * o_h + (rows.to(tl.int64) * o_t)[:, None] + columns[None, :]
    _add_gradient(pointers, inside[:, None] & (columns < WIDTH)[None, :], gradient * width_scale, JOIN)


@triton.jit
def _gradient_from_queries(
    grad_k, grad_v, k_tile, v_tile, index, doc_k, from_, to, q, grad, q_stride, g_stride, q_first, q_step, lse, delta,
    lows, highs, queries, documents, q_start, columns, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, GATHER_Q: tl.constexpr, DOCUMENTS: tl.constexpr,
    EDGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradients of a tile of keys, not yet scaled, and of its values; queries from_ to `to` add to them."""
    for i in range(from_, to, QUERIES):
        numbers = i + tl.arange(0, QUERIES)
        inside = numbers < to
        q_places, rows = _places(numbers, q_first, q_step, q_stride, queries, inside, q_start, GATHER_Q)
        q_tile = _tile(q, q_places, columns, inside, WIDTH, PADDED, not EDGE)
        grad_tile = _tile(grad, rows.to(tl.int64) * g_stride, columns, inside, WIDTH, PADDED, not EDGE)
        level, delta_tile = tl.load(lse + rows, mask=inside, other=0.0), tl.load(delta + rows, mask=inside, other=0.0)
        scores_t = _dot(k_tile, tl.trans(q_tile), None, PRECISION) * scale
        if EDGE or DOCUMENTS:
            low, high = tl.load(lows + numbers, mask=inside, other=0), tl.load(highs + numbers, mask=inside, other=0)
            allowed_t = (index[:, None] >= low[None, :]) & (index[:, None] < high[None, :])
            if DOCUMENTS:
                doc_q = tl.load(documents + q_start + rows, mask=inside, other=-2)
                allowed_t = allowed_t & (doc_k[:, None] == doc_q[None, :])
            scores_t = tl.where(allowed_t, scores_t, NOTHING)
        weights_t = tl.exp2(scores_t - level[None, :])
        grad_v = _dot(weights_t.to(grad_tile.dtype), grad_tile, grad_v, PRECISION)
        change_t = _dot(v_tile, tl.trans(grad_tile), None, PRECISION) - delta_tile[None, :]
        grad_k = _dot((weights_t * change_t).to(q_tile.dtype), q_tile, grad_k, PRECISION)
    return grad_k, grad_v


@triton.jit(do_not_specialize=OPEN)
def differentiate_keys(
    q, k, v, grad, lse, delta, grad_k, grad_v,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, g_b, g_h, g_t, o_b, o_h, o_t,
    table, lows, highs, queries, keys, documents, scale, width_scale,
    n_queries, n_keys, q_start, head_first, head_step, heads_of_kind, n_heads,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    GATHER_Q: tl.constexpr, GATHER_K: tl.constexpr, JOIN: tl.constexpr, DOCUMENTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Store the gradients of a tile of keys and of their values; with JOIN, added to those of earlier phases."""
    row = table + tl.program_id(0) * COLUMNS
    b = (tl.program_id(1) // heads_of_kind).to(tl.int64)
    h = (head_first + tl.program_id(1) % heads_of_kind * head_step).to(tl.int64)
    k_flat, count, k_first, k_step = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    flat, q_first, q_step = tl.load(row + 4), tl.load(row + 5), tl.load(row + 6)
    from_, whole_from, whole_to, to = tl.load(row + 7), tl.load(row + 8), tl.load(row + 9), tl.load(row + 10)
    index = tl.load(row + 11) + tl.arange(0, KEYS)

    columns, numbers = tl.arange(0, PADDED), tl.arange(0, KEYS)
    inside = numbers < count
    k_places, k_rows = _places(numbers, k_first, k_step, k_t, keys + k_flat, inside, 0, GATHER_K)
    k_tile = _tile(k + b * k_b + h * k_h, k_places, columns, inside, WIDTH, PADDED, False)
    v_tile = _tile(v + b * v_b + h * v_h, k_rows.to(tl.int64) * v_t, columns, inside, WIDTH, PADDED, False)
    documents += b * n_keys
    doc_k = k_rows
    if DOCUMENTS:
        doc_k = tl.load(documents + k_rows, mask=inside, other=-1)
    q += b * q_b + h * q_h
    grad += b * g_b + h * g_h
    lse += (b * n_heads + h) * n_queries
    delta += (b * n_heads + h) * n_queries
    lows, highs, queries = lows + flat, highs + flat, queries + flat

    key_sum = tl.zeros([KEYS, PADDED], tl.float32)
    value_sum = tl.zeros([KEYS, PADDED], tl.float32)
    key_sum, value_sum = _gradient_from_queries(
        key_sum, value_sum, k_tile, v_tile, index, doc_k, from_, whole_from, q, grad, q_t, g_t, q_first, q_step, lse,
        delta, lows, highs, queries, documents, q_start, columns, scale,
        WIDTH, PADDED, QUERIES, GATHER_Q, DOCUMENTS, True, PRECISION,
    )  # fmt: skip
    key_sum, value_sum = _gradient_from_queries(
        key_sum, value_sum, k_tile, v_tile, index, doc_k, whole_from, whole_to, q, grad, q_t, g_t, q_first, q_step, lse,
        delta, lows, highs, queries, documents, q_start, columns, scale,
        WIDTH, PADDED, QUERIES, GATHER_Q, DOCUMENTS, False, PRECISION,
    )  # fmt: skip
    key_sum, value_sum = _gradient_from_queries(
        key_sum, value_sum, k_tile, v_tile, index, doc_k, whole_to, to, q, grad, q_t, g_t, q_first, q_step, lse,
        delta, lows, highs, queries, documents, q_start, columns, scale,
        WIDTH, PADDED, QUERIES, GATHER_Q, DOCUMENTS, True, PRECISION,
    )  # fmt: skip
    places = b * o_b + h * o_h + (k_rows.to(tl.int64) * o_t)[:, None] + columns[None, :]
    stored = inside[:, None] & (columns < WIDTH)[None, :]
    _add_gradient(grad_k + places, stored, key_sum * width_scale, JOIN)
    _add_gradient(grad_v + places, stored, value_sum, JOIN)
