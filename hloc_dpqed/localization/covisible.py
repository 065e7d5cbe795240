"""Retrieved images that see the same place, as in hloc."""

from collections.abc import Sequence

from ..maps.compressed import CompressedMap


def covisible_groups(compressed: CompressedMap, images: Sequence[int]) -> list[list[int]]:
    """Positions in ``images`` of each co-visible group, the largest first (hloc's clustering).

    Two images are connected where they see a common point of the map.
    """
    parent = list(range(len(images)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    first_seen_by: dict[int, int] = {}
    for k, image in enumerate(images):
        for point in compressed.places_seen(image).tolist():
            other = first_seen_by.setdefault(point, k)
            low, high = sorted((root(other), root(k)))
            parent[high] = low
    groups: dict[int, list[int]] = {}
    for k in range(len(images)):
        groups.setdefault(root(k), []).append(k)
    return sorted(groups.values(), key=len, reverse=True)
