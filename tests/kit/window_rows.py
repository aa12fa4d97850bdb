"""Rows for rolling windows, and what a window is exactly."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

FIELDS = ("a", "b")
EPSILON = np.finfo(np.float64).eps
SECOND = 1_000_000
Row = tuple[str, int, float, float]


def exact(numbers: list[float]) -> tuple[Fraction, Fraction, float]:
    """Sum, mean and population standard deviation without rounding before the last step."""
    parts = [Fraction(number) for number in numbers]
    total = sum(parts, Fraction(0))
    mean = total / len(parts)
    variance = sum(((part - mean) ** 2 for part in parts), Fraction(0)) / len(parts)
    # a root of a huge fraction: scaled into the range of floats first
    scale = Fraction(max(abs(number) for number in numbers) or 1.0)
    return total, mean, math.sqrt(variance / scale**2) * float(scale)


levels = st.sampled_from([0.0, 1e9, -1e9, 1e15])
near_a_level = st.builds(lambda level, noise: level + noise, levels, st.floats(-10, 10))
wild = st.sampled_from([0.0, 0.1, 1e200, -1e200, 1e15, 5e-324, -0.0, 3.4e38])
numbers_ = st.one_of(near_a_level, wild, st.floats(-1e6, 1e6), st.integers(-3, 3).map(float))
keys = st.sampled_from(["a", "b", "c", "d"])


cuts_ = st.lists(st.integers(0, 60), max_size=8)
