"""Arrays as columns of bytes, each as it is or entropy-coded, whichever is smaller (ours)."""

import math

import numpy as np

from .rans import TOTAL, DamagedStream, Player, Recorder, frequencies, weights_of_counts

DTYPES = {
    name: np.dtype(kind)
    for name, kind in {
        "F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "U8": "u1", "I16": "<i2",
        "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8", "BOOL": "?",
    }.items()
}  # fmt: skip
MAX_COLUMNS = 64


def dtype_name(array: np.ndarray) -> str:
    """The format's name of the array's dtype (safetensors' names)."""
    for name, dtype in DTYPES.items():
        if dtype == array.dtype.newbyteorder("<"):
            return name
    raise ValueError(f"arrays of {array.dtype} cannot be stored")


def encode_arrays(arrays: list[np.ndarray]) -> bytes:
    """Arrays of any shapes, one after the other.

    The columns of an array are the bytes of its items; those of a matrix of bytes are its columns,
    or all of it is one column where that is smaller.
    """
    head, raw, coded = b"", b"", []
    for array in arrays:
        table, gains = _columns(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
        head += bytes([len(gains)]) + np.packbits(gains, bitorder="little").tobytes()
        for column, is_coded in enumerate(gains):
            if is_coded:
                coded.append(table[:, column].astype(np.int64))
            else:
                raw += table[:, column].tobytes()
    if not coded:
        return head + raw
    recorder = Recorder(symbol_contexts=len(coded), alphabet=256)
    for i, values in enumerate(coded):
        recorder.symbols(np.full(len(values), i), values)
    return head + raw + recorder.finish()


def _columns(array: np.ndarray) -> tuple[np.ndarray, list[bool]]:
    """The array's bytes as (n, c) columns, and which of them are smaller when coded."""
    data = np.frombuffer(array.tobytes(), np.uint8)
    choices = [array.itemsize]
    if array.itemsize == 1 and array.ndim == 2 and 2 <= array.shape[1] <= MAX_COLUMNS:
        choices.append(array.shape[1])
    best: tuple[float, np.ndarray, list[bool]] | None = None
    for columns in choices:
        table = data.reshape(-1, columns)
        costs = [_coded_bytes(table[:, c]) for c in range(columns)]
        total = sum(min(cost, len(table)) for cost in costs)
        if best is None or total < best[0]:
            best = total, table, [cost < len(table) for cost in costs]
    assert best is not None
    return best[1:]


def _coded_bytes(column: np.ndarray) -> float:
    """Bytes of a coded column, its table included."""
    if len(column) == 0:
        return 0.0  # never smaller than what it replaces
    counts = np.bincount(column, minlength=256)
    used = counts > 0
    chance = frequencies(weights_of_counts(counts))[used] / TOTAL
    return 32 + np.count_nonzero(used) + 8 - (counts[used] * np.log2(chance)).sum() / 8


def decode_arrays(data: bytes, specs: list[tuple[str, tuple[int, ...]]]) -> list[np.ndarray]:
    """The arrays of these dtypes (names of ``DTYPES``) and shapes.

    Raises:
        DamagedStream: the data are of other arrays.
    """
    plan = []
    position = 0
    for kind, shape in specs:
        if position >= len(data) or data[position] == 0:
            raise DamagedStream("an array is damaged")
        columns = data[position]
        mask_bytes = np.frombuffer(data, np.uint8)[position + 1 :][: (columns + 7) // 8]
        position += 1 + len(mask_bytes)
        mask = np.unpackbits(mask_bytes, bitorder="little")[:columns]
        size = math.prod(shape) * DTYPES[kind].itemsize
        if len(mask) < columns or size % columns:
            raise DamagedStream("an array is damaged")
        plan.append((mask.astype(bool), size // columns))
    contexts = sum(int(mask.sum()) for mask, _ in plan)
    raw_bytes = sum(int((~mask).sum()) * rows for mask, rows in plan)
    stream = data[position + raw_bytes :]
    if len(data) < position + raw_bytes or (contexts == 0 and stream):
        raise DamagedStream("an array is too short or too long")
    player = Player(stream, symbol_contexts=contexts, alphabet=256) if contexts else None
    arrays = []
    context = 0
    for (mask, rows), (kind, shape) in zip(plan, specs, strict=True):
        table = np.empty((rows, len(mask)), np.uint8)
        for column, is_coded in enumerate(mask):
            if is_coded:
                assert player is not None
                table[:, column] = player.symbols(np.full(rows, context))
                context += 1
            else:
                table[:, column] = np.frombuffer(data, np.uint8, rows, position)
                position += rows
        arrays.append(np.frombuffer(table.tobytes(), DTYPES[kind]).reshape(shape))
    if player is not None:
        player.finish()
    return arrays
