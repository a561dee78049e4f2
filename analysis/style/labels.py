"""Labels beside points, on the sides where they run into each other least."""

from collections.abc import Sequence

SIDES = {
    "top center": (0, 1),
    "bottom center": (0, -1),
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top right": (1, 1),
    "top left": (-1, 1),
    "bottom right": (1, -1),
    "bottom left": (-1, -1),
}


PLOT = (400, 320)  # pixels; about what a panel has


LABEL = (20, 15)  # of a two-letter code


SWEEPS = 4


Point = tuple[float, float]


def label_sides(
    x: Sequence[float], y: Sequence[float], *, spans: Sequence[Sequence[float]], reach: float = 15.0
) -> list[str]:
    """A plotly `textposition` for each point's short label, clear of the other points and labels where it can be.

    Args:
        spans: the (low, high) of the x and y axes.
        reach: pixels from a point to the middle of its label.
    """
    columns = [
        [(value - low) / (high - low) * size for value in values]
        for values, (low, high), size in zip((x, y), spans, PLOT, strict=True)
    ]
    points: list[Point] = list(zip(*columns, strict=True))
    sides = ["top center"] * len(points)
    for _ in range(SWEEPS):
        for i, point in enumerate(points):
            others = [other for j, other in enumerate(points) if j != i]
            labels = [_middle(other, sides[j], reach) for j, other in enumerate(points) if j != i]
            sides[i] = min(SIDES, key=lambda side: _crowding(_middle(point, side, reach), others, labels))
    return sides


def _middle(point: Point, side: str, reach: float) -> Point:
    return point[0] + reach * SIDES[side][0], point[1] + reach * SIDES[side][1]


def _crowding(label: Point, points: Sequence[Point], labels: Sequence[Point]) -> float:
    """How far a label overlaps other labels, and, counted half, other points."""
    return sum(_overlap(label, other, 1.0) for other in labels) + 0.5 * sum(
        _overlap(label, other, 0.8) for other in points
    )


def _overlap(a: Point, b: Point, size: float) -> float:
    """The shared part of two boxes of a label's size, the second times `size`; 0 to 1."""
    wide, high = (side * (1 + size) / 2 for side in LABEL)
    return max(0.0, 1 - abs(a[0] - b[0]) / wide) * max(0.0, 1 - abs(a[1] - b[1]) / high)
