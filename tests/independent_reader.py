"""Reads codes, points and visibility of a map file; written from docs/format.md alone."""

import bisect
import hashlib
import json

import numpy as np

ONE = [17, 35, 71, 146, 292, 565, 1023, 1677, 2419, 3073, 3531, 3804, 3950, 4025, 4061, 4079]


class Stream:
    def __init__(self, data, coins, tables, alphabet):
        data = np.frombuffer(data, np.uint8).astype(np.int64)
        at = (coins + 1) // 2
        chances = [ONE[data[i // 2] >> i % 2 * 4 & 15] for i in range(coins)]
        self.coins = [[0, 4096 - one, 4096] for one in chances]
        self.tables = []
        for _ in range(tables):
            used = [s for s in range(alphabet) if data[at + s // 8] >> s % 8 & 1]
            at += alphabet // 8 + len(used)
            w = np.zeros(alphabet, np.int64)
            w[used] = data[at - len(used) : at]
            frequency = (w > 0) * (1 + w * (4096 - len(used)) // max(w.sum(), 1))
            frequency[w.argmax()] += 4096 - frequency.sum()
            self.tables.append([0, *np.cumsum(frequency).tolist()])
        lanes = 1 << data[at]
        words = (data[at + 1 :: 2] + 256 * data[at + 2 :: 2]).tolist()
        self.x = [words[2 * j] + 65536 * words[2 * j + 1] for j in range(lanes)]
        self.words = iter(words[2 * lanes :])

    def read(self, tables):
        values = []
        for first in range(0, len(tables), len(self.x)):
            for j, starts in enumerate(tables[first : first + len(self.x)]):
                slot = self.x[j] & 4095
                v = bisect.bisect_right(starts, slot) - 1
                values.append(v)
                self.x[j] = (starts[v + 1] - starts[v]) * (self.x[j] >> 12) + slot - starts[v]
            for j, x in enumerate(self.x):
                self.x[j] = x << 16 | next(self.words) if x < 65536 else x
        return values

    def bits(self, widths):
        values = [0] * len(widths)
        for t in range(0, max(widths, default=0), 12):
            rows = [i for i, b in enumerate(widths) if b > t]
            tables = [range(0, 4097, 4096 >> min(widths[i] - t, 12)) for i in rows]
            for i, part in zip(rows, self.read(tables), strict=True):
                values[i] |= part << t
        return values

    def integers(self, contexts):
        lengths = self.read([self.tables[context] for context in contexts])
        low = self.bits([max(n - 1, 0) for n in lengths])
        return [(1 << n >> 1) | v for n, v in zip(lengths, low, strict=True)]


def read_array(data, size):
    c, at = data[0], 1 + (data[0] + 7) // 8
    table = np.zeros((size // c, c), np.int64)
    coded = [j for j in range(c) if data[1 + j // 8] >> j % 8 & 1]
    for j in sorted({*range(c)} - {*coded}):
        table[:, j] = np.frombuffer(data, np.uint8, len(table), at)
        at += len(table)
    stream = Stream(data[at:], 0, len(coded), 256) if coded else None
    for context, j in enumerate(coded):
        table[:, j] = stream.read([stream.tables[context]] * len(table))
    return table


def rotation_matrix(q):
    n = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    w, x, y, z = (v / n for v in q)
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def read_points(data, count, grid, frame):
    numbers = np.cumsum(Stream(data, 0, 1, 64).integers([0] * count), dtype=np.int64)
    u = [sum((numbers >> 3 * k + 2 - a & 1) << k for k in range(21)) for a in range(3)]
    q, half = np.stack(u, 1) - 2**20, 1 << grid["core"] - 1
    o, r = np.divmod(np.maximum(abs(q) - 2 * half, 0), half)
    g = np.where(abs(q) < 2 * half, abs(q), half + r << o + 1) * np.sign(q)
    y = g * (2 * grid["xyz_error"])
    if frame is None:  # version 1
        return q.tolist(), np.array(grid["origin"]) + y
    r, o = rotation_matrix(frame["rotation"]), frame["origin"]
    x = [o[a] + (y[:, 0] * r[0][a] + y[:, 1] * r[1][a] + y[:, 2] * r[2][a]) for a in range(3)]
    return q.tolist(), np.stack(x, 1)


def find_candidates(p, stride, reach, cells, tracks, num_images):
    steps = [d * (2 * j + 1) * stride for j in range(reach) for d in (-1, 1)]
    near = [p + step for step in steps if 0 <= p + step < len(cells)]
    e = [1 + sum((a - b) ** 2 for a, b in zip(cells[p], cells[k], strict=True)) for k in near]
    votes = {}
    weights = [max(1, 12 - 2 * sum(own >= min(e) << t for t in range(1, 7))) for own in e]
    for k, weight in zip(near, weights, strict=True):
        for image in tracks[k]:
            votes[image] = votes.get(image, 0) + weight
    images = sorted({i + d for i in votes for d in (-1, 0, 1)} & set(range(num_images)))
    for t, i in enumerate(images):
        share = 64 * votes.get(i, 0) // sum(weights)
        bucket = (i in votes) + sum(share >= x for x in (3, 6, 10, 16, 26, 39, 52))
        yield p, i, bucket, t, len(images)


def read_visibility(data, cells, num_images, reach):
    stream = Stream(data, 117, 6, 64)
    chain = stream.bits([max(num_images - 1, 0).bit_length()] * num_images)
    tracks = [set() for _ in cells]
    stride = 1 << max(len(cells) - 1, 0).bit_length()
    blocks = [([0], stride)] if cells else []
    while stride > 1:
        stride //= 2
        new = list(range(stride, len(cells), 2 * stride))
        blocks += [(new[i : i + 8192], stride) for i in range(0, len(new), 8192)]
    for points, stride in blocks:
        args = stride, reach, cells, tracks, num_images
        candidates = [c for p in points for c in find_candidates(p, *args)]
        seen = [0] * (len(candidates) + 8)
        for b, g in enumerate((8, 4, 2, 1)):
            coins = {}
            for k, (_, _, bucket, t, n) in enumerate(candidates):
                if t % min(2 * g, 8) == g % 8:
                    beside = 2 * seen[k - g] + (t + g < n and seen[k + g])
                    context = bucket if g == 8 else 36 * b - 27 + 4 * bucket + beside
                    coins[k] = stream.coins[context]
            for k, value in zip(coins, stream.read([*coins.values()]), strict=True):
                seen[k] = value
        for (p, i, *_), value in zip(candidates, seen, strict=False):
            tracks[p] |= {i} if value else set()
        counts = stream.integers([min(3, len(tracks[p])) for p in points])
        gaps = iter(stream.integers([4 if k == 0 else 5 for n in counts for k in range(n)]))
        for p, n in zip(points, counts, strict=True):
            tracks[p] |= set((np.cumsum([next(gaps) + 1 for _ in range(n)]) - 1).astype(int))
    return [sorted(chain[i] for i in track) for track in tracks]


def read(path):
    """Codes (R, B), points (P, 3) float64, and for each point the images that see it."""
    data = path.read_bytes()
    n = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:n])
    text = header.pop("__metadata__")["hloc_dpqed"]
    meta = json.loads(text)
    hashed = {"": text.replace('"sha256":"' + meta["sha256"], '"sha256":"' + "0" * 16).encode()}
    part = {k: data[n + v["data_offsets"][0] : n + v["data_offsets"][1]] for k, v in header.items()}
    hashed |= {name: name.encode() + b"\0" + content for name, content in part.items()}
    for name, digest in {"": meta["sha256"], **meta["sections"]}.items():
        assert hashlib.sha256(hashed[name]).hexdigest()[:16] == digest
    (images, points, _), (rows, size) = meta["counts"], meta["codes"]
    codes = read_array(part["codes"], rows * size).reshape(rows, size)
    cells, xyz = read_points(part["points"], points, meta["points"], meta.get("frame"))
    tracks = read_visibility(part["visibility"], cells, images, meta["visibility"]["neighbours"])
    if "order" in part:
        width = 2 if points <= 65536 else 4
        order = read_array(part["order"], points * width).reshape(-1, width)
        back = np.argsort((order << 8 * np.arange(width)).sum(1))
        xyz, tracks = xyz[back], [tracks[k] for k in back]
    return codes, xyz, tracks
