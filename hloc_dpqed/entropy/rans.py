"""Interleaved range asymmetric numeral systems (rANS) over numpy lanes.

Source: Duda, "Asymmetric numeral systems", arXiv 1311.2540, and Giesen, "Interleaved entropy
coders", arXiv 1402.3392; the layout of the stream is ours (docs/format.md, "Streams").

Writing and reading share one interface, so that a section is described once: ``Recorder`` is given
the values, ``Player`` returns them. Both know three kinds of values: coins (bits with a
probability for each context), symbols (with a frequency table for each context) and uniform bits.
"""

import functools
from typing import NamedTuple, Protocol

import numpy as np

PRECISION = 12  # bits of a probability
TOTAL = 1 << PRECISION
LOW = 1 << 16  # a state lies in LOW .. 2**32 - 1
# Steps beyond which a reader gives up: a damaged file must not keep it busy with one lane.
MAX_STEPS = 1 << 14
VALUES_PER_STEP = 64
SCALAR_LANES = 8  # up to which lanes are read one by one
_SLOT_MASK, _SHIFT, _LOW, _WORD = (np.array(n) for n in (TOTAL - 1, PRECISION, LOW, 16))
# Chance, out of 4096, that a coin shows 1: evenly spaced in log-odds from -5.5 to 5.5.
COINS = np.array(
    [17, 35, 71, 146, 292, 565, 1023, 1677, 2419, 3073, 3531, 3804, 3950, 4025, 4061, 4079]
)


class DamagedStream(ValueError):
    """The stream ends early or does not end as its writer left it."""


class Coder(Protocol):
    """What ``Recorder`` and ``Player`` have in common; a player ignores ``values``."""

    def coins(self, context: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """One bit for each context: (n,) int64."""
        ...

    def symbols(self, context: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """One symbol for each context: (n,) int64."""
        ...

    def bits(self, widths: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Uniform integers of the given numbers of bits, 0 to 62: (n,) int64."""
        ...


def code_integers(
    coder: Coder, context: np.ndarray, values: np.ndarray | None = None
) -> np.ndarray:
    """Integers from 0 to 2**62 - 1: the number of bits as a symbol, the bits below the first."""
    lengths = coder.symbols(context, None if values is None else bit_length(values))
    widths = np.maximum(lengths - 1, 0)
    top = np.where(lengths > 0, np.int64(1) << widths, 0)
    return top | coder.bits(widths, None if values is None else values ^ top)


def bit_length(values: np.ndarray) -> np.ndarray:
    """Number of binary digits of each integer (0 for 0), exact up to 2**62."""
    values = np.asarray(values, np.int64)
    high, low = values >> 31, values & 0x7FFFFFFF
    part = np.where(high > 0, high, low).astype(np.float64)
    return np.frexp(part)[1] + np.where(high > 0, 31, 0)


def frequencies(weights: np.ndarray) -> np.ndarray:
    """(A,) weights 0 .. 255 to (A,) frequencies that sum to 4096; weight 0 is frequency 0."""
    weights = np.asarray(weights, np.int64)
    used = np.count_nonzero(weights)
    if used == 0:
        return np.zeros(len(weights), np.int64)
    result = np.where(weights > 0, 1 + weights * (TOTAL - used) // weights.sum(), 0)
    result[np.argmax(weights)] += TOTAL - result.sum()
    return result


def weights_of_counts(counts: np.ndarray) -> np.ndarray:
    """(A,) counts to (A,) uint8 weights, the most frequent symbol 255."""
    most = max(int(counts.max(initial=0)), 1)
    scaled = np.round(counts * (255.0 / most)).astype(np.int64)
    return np.where(counts > 0, np.maximum(scaled, 1), 0).astype(np.uint8)


def table_bytes(weights: np.ndarray) -> bytes:
    """A table as stored: a bitmap of the used symbols, then their weights."""
    return np.packbits(weights > 0, bitorder="little").tobytes() + weights[weights > 0].tobytes()


class Recorder:
    """Collects values, then measures the probabilities and writes a stream.

    Args:
        coin_contexts: number of contexts of ``coins``.
        symbol_contexts: number of contexts of ``symbols``.
        alphabet: symbols are below it, a multiple of 8.
    """

    def __init__(self, coin_contexts: int = 0, symbol_contexts: int = 0, alphabet: int = 64):
        self._alphabet = alphabet
        self._coin_counts = np.zeros((coin_contexts, 2), np.int64)
        self._symbol_counts = np.zeros((symbol_contexts, alphabet), np.int64)
        self._batches: list[tuple[str, np.ndarray, np.ndarray]] = []

    def coins(self, context: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        return self._record("coins", context, values, self._coin_counts)

    def symbols(self, context: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        return self._record("symbols", context, values, self._symbol_counts)

    def bits(self, widths: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        assert values is not None
        for shift in range(0, int(widths.max(initial=0)), PRECISION):
            rows = np.flatnonzero(widths > shift)
            part = np.minimum(widths[rows] - shift, PRECISION)
            self._batches.append(("bits", part, values[rows] >> shift & (1 << part) - 1))
        return values

    def _record(
        self, kind: str, context: np.ndarray, values: np.ndarray | None, counts: np.ndarray
    ) -> np.ndarray:
        assert values is not None
        size = counts.shape[1]
        counts += np.bincount(context * size + values, minlength=counts.size).reshape(-1, size)
        self._batches.append((kind, context, values))
        return values

    def finish(self, steps: int = 1024) -> bytes:
        """The stream; it has as many lanes as keep it near ``steps`` steps."""
        coins = best_coins(self._coin_counts)
        tables = [weights_of_counts(counts) for counts in self._symbol_counts]
        freq = np.array([frequencies(w) for w in tables]).reshape(-1, self._alphabet)
        start = np.cumsum(freq, 1) - freq
        total = sum(len(context) for _, context, _ in self._batches)
        log_lanes = max(0, int(np.ceil(np.log2(max(total, 1) / steps))))
        lanes = 1 << log_lanes
        starts, freqs = [], []
        for kind, context, values in self._batches:
            if kind == "coins":
                heads = COINS[coins[context]]
                s = np.where(values, TOTAL - heads, 0)
                f = np.where(values, heads, TOTAL - heads)
            elif kind == "symbols":
                s, f = start[context, values], freq[context, values]
            else:
                f = TOTAL >> context
                s = values * f
            pad = -len(s) % lanes  # a symbol of probability 1 leaves the state as it is
            starts.append(np.concatenate([s, np.zeros(pad, np.int64)]))
            freqs.append(np.concatenate([f, np.full(pad, TOTAL)]))
        nibbles = np.concatenate([coins, np.zeros(len(coins) % 2, np.int64)]).reshape(-1, 2)
        head = (nibbles[:, 0] | nibbles[:, 1] << 4).astype(np.uint8).tobytes()
        head += b"".join(table_bytes(w) for w in tables) + bytes([log_lanes])
        if not starts:
            starts, freqs = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        return head + _encode(np.concatenate(starts), np.concatenate(freqs), lanes)


def best_coins(counts: np.ndarray) -> np.ndarray:
    """(C, 2) counts of 0 and 1 to (C,) rows of COINS that cost the fewest bits."""
    chance = COINS / TOTAL
    cost = -counts[:, :1] * np.log2(1 - chance) - counts[:, 1:] * np.log2(chance)
    return cost.argmin(1)


def _encode(start: np.ndarray, freq: np.ndarray, lanes: int) -> bytes:
    start, freq = start.reshape(-1, lanes), freq.reshape(-1, lanes)
    state = np.full(lanes, LOW, np.int64)
    words = []
    for s, f in zip(start[::-1], freq[::-1], strict=True):
        full = state >= f << (32 - PRECISION)
        words.append(state[full].astype("<u2"))  # keeps the low 16 bits
        state = np.where(full, state >> 16, state)
        state = (state // f << PRECISION) + state % f + s
    return b"".join([state.astype("<u4").tobytes(), *(w.tobytes() for w in reversed(words))])


class _Tables(NamedTuple):
    """For each row and each of its ``TOTAL`` slots, flat: what a reader needs to know.

    Attributes:
        packed: int64, frequency of the value << ``PRECISION`` | how far the slot is from the first
            of the value's.
        values: int64, the value.
    """

    packed: np.ndarray
    values: np.ndarray

    @staticmethod
    def of_frequencies(freq: np.ndarray) -> "_Tables":
        """From (T, A) frequencies, each row with sum ``TOTAL`` or empty."""
        packed = np.zeros((len(freq), TOTAL), np.int64)
        values = np.zeros((len(freq), TOTAL), np.int64)
        slot = np.arange(TOTAL)
        first = np.cumsum(freq, 1) - freq
        for row in np.flatnonzero(freq.sum(1)).tolist():
            value = np.repeat(np.arange(freq.shape[1]), freq[row])
            values[row] = value
            packed[row] = freq[row][value] << PRECISION | slot - first[row][value]
        return _Tables(packed.ravel(), values.ravel())


@functools.cache
def _coin_tables() -> _Tables:
    """A row for each of ``COINS``."""
    return _Tables.of_frequencies(np.stack([TOTAL - COINS, COINS], 1))


@functools.cache
def _bit_tables() -> _Tables:
    """Row w is of uniform integers of w bits, 0 to ``PRECISION``."""
    return _Tables.of_frequencies(
        np.array([[TOTAL >> w] * (1 << w) + [0] * (TOTAL - (1 << w)) for w in range(PRECISION + 1)])
    )


class Player:
    """Reads what a ``Recorder`` of the same arguments wrote.

    Raises:
        DamagedStream: the stream is too short; ``finish`` raises it for one that is too long or
            otherwise not as written.
    """

    def __init__(
        self, data: bytes, coin_contexts: int = 0, symbol_contexts: int = 0, alphabet: int = 64
    ):
        raw = np.frombuffer(data, np.uint8)
        position: int = (coin_contexts + 1) // 2
        nibbles = np.stack([raw[:position] & 15, raw[:position] >> 4], 1).ravel()
        nibbles = nibbles[:coin_contexts]
        freq = np.zeros((symbol_contexts, alphabet), np.int64)
        for row in range(symbol_contexts):
            bitmap = raw[position : position + alphabet // 8]
            used = np.flatnonzero(np.unpackbits(bitmap, bitorder="little"))
            position += alphabet // 8
            weights = raw[position : position + len(used)]
            position += len(used)
            if len(weights) < len(used) or (weights == 0).any():
                raise DamagedStream("a frequency table is damaged")
            full = np.zeros(alphabet, np.int64)
            full[used] = weights
            freq[row] = frequencies(full)
        if position >= len(raw) or raw[position] > 24:
            raise DamagedStream("the stream is too short")
        if len(nibbles) < coin_contexts:
            raise DamagedStream("the stream is too short")
        lanes = 1 << int(raw[position])
        position += 1
        if (len(raw) - position) % 2 or len(raw) - position < 4 * lanes:
            raise DamagedStream("the stream is too short")
        self._state = np.frombuffer(data, "<u4", lanes, position).astype(np.int64)
        self._words = np.frombuffer(data, "<u2", -1, position + 4 * lanes).astype(np.int64)
        if (self._state < LOW).any():
            raise DamagedStream("a state is out of range")
        self._next: int = 0
        self._steps, self._values = 0, 0
        self._coins = nibbles.astype(np.int64)
        self._usable = freq.sum(1) > 0
        self._symbols = _Tables.of_frequencies(freq)

    def coins(self, context: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        return self._read(_coin_tables(), self._coins[context])

    def symbols(self, context: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        if not self._usable[context].all():
            raise DamagedStream("a frequency table is empty")
        return self._read(self._symbols, context)

    def bits(self, widths: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        out = np.zeros(len(widths), np.int64)
        if widths.max(initial=0) > 62:
            raise DamagedStream("an integer is too large")
        for shift in range(0, int(widths.max(initial=0)), PRECISION):
            rows = np.flatnonzero(widths > shift)
            part = np.minimum(widths[rows] - shift, PRECISION)
            out[rows] |= self._read(_bit_tables(), part) << shift
        return out

    def _read(self, tables: _Tables, rows: np.ndarray) -> np.ndarray:
        """One value of each of the (n,) rows of ``tables``: (n,) int64."""
        lanes = self._begin(len(rows))
        slots = np.multiply(rows, TOTAL, dtype=np.int64)
        if lanes <= SCALAR_LANES:
            self._read_scalars(tables, slots)
        else:
            self._read_lanes(tables, slots)
        return tables.values.take(slots)

    def _read_lanes(self, tables: _Tables, slots: np.ndarray) -> None:
        """Replace row starts by the slots that the lanes read, a step of all lanes at a time.

        Small maps spend their reading time in the calls below, not in the arithmetic: constants
        are arrays, and results go where there is space already.
        """
        packed, state, words = tables.packed, self._state, self._words
        lanes, position = len(state), self._next
        quotient = np.empty(lanes, np.int64)
        for first in range(0, len(slots), lanes):
            slot = slots[first : first + lanes]
            if len(slot) < lanes:
                state, quotient = state[: len(slot)], quotient[: len(slot)]
            np.bitwise_and(state, _SLOT_MASK, quotient)
            np.add(slot, quotient, slot)
            entry = packed.take(slot)
            np.right_shift(state, _SHIFT, state)
            np.right_shift(entry, _SHIFT, quotient)
            np.multiply(state, quotient, state)
            np.bitwise_and(entry, _SLOT_MASK, entry)
            np.add(state, entry, state)
            short = np.less(state, _LOW).nonzero()[0]
            if count := len(short):
                end = position + count
                if end > len(words):
                    raise DamagedStream("the stream is too short")
                low = state.take(short)
                np.left_shift(low, _WORD, low)
                np.bitwise_or(low, words[position:end], low)
                state[short] = low
                position = end
        self._next = position

    def _read_scalars(self, tables: _Tables, slots: np.ndarray) -> None:
        """``_read_lanes`` for few lanes, where Python's own integers are quicker."""
        states = self._state.tolist()
        position, words = self._next, self._words.tolist()
        packed, found = tables.packed, []
        lanes = len(states)
        for i, slot in enumerate(slots.tolist()):
            state = states[i % lanes]
            slot += state & (TOTAL - 1)
            found.append(slot)
            entry = packed.item(slot)
            state = (state >> PRECISION) * (entry >> PRECISION) + (entry & (TOTAL - 1))
            if state < LOW:
                if position >= len(words):
                    raise DamagedStream("the stream is too short")
                state = state << 16 | words[position]
                position += 1
            states[i % lanes] = state
        slots[:] = found
        self._state[:] = states
        self._next = position

    def _begin(self, count: int) -> int:
        """Account for a batch of ``count`` values; returns the number of lanes."""
        lanes = len(self._state)
        self._steps += -(-count // lanes)
        self._values += count
        if self._steps > MAX_STEPS + self._values // VALUES_PER_STEP:
            raise DamagedStream("a stream has too few lanes for its values")
        return lanes

    def finish(self) -> None:
        """Check that the stream ends here, in the state in which its writer started."""
        if self._next != len(self._words) or (self._state != LOW).any():
            raise DamagedStream("the stream does not end where it should")
