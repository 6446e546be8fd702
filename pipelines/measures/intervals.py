"""Confidence intervals of means. Numpy only, no random numbers: equal values have equal intervals wherever they are
printed.

Nearly every figure with an interval is a mean: a share of right answers, a win rate, a reward, a difference of two
policies on the same prompts. Several values of one prompt tell less than as many of different prompts, so prompts are
what is counted. docs/intervals.md says which figure has which interval, and how often each covers.
"""

import math
from collections.abc import Hashable, Iterable
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

Bounds = tuple[float, float]
"""The lowest and the highest value that is possible."""

Interval = tuple[float, float]
"""Lower and upper end."""

ALL_ALIKE = 0.5  # of a group
FEW, FEW_SHARE = 3.5, 0.35  # values off a bound
ALIKE = 1e-6  # scores of one response in two batches may differ in their last bits
ROUNDING = 1e-9  # a sum of weights may be a last bit above its bound


def mean_interval(
    values: ArrayLike, groups: ArrayLike | None = None, bounds: Bounds | None = None, level: float = 0.95
) -> Interval | None:
    """Interval of a mean: `score_interval` where the bounds of the values are known, else `unskewed_t_interval`."""
    if bounds is None:
        return unskewed_t_interval(values, groups, level)
    return score_interval(values, bounds, groups, level)


def score_interval(
    values: ArrayLike, bounds: Bounds = (0.0, 1.0), groups: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """Score interval of the mean of bounded values. It knows of what was not seen: 20 wins of 20 give [0.84, 1].

    Each end is the mean m furthest out at which (mean of the values - m)² <= z² V(m) / n. V(m) is the variance of the
    likeliest distribution with mean m: probabilities 1 / (n (1 + λ (value - m))) of what was seen, and where the values
    alone cannot reach m, the rest on the bound. For values 0 and 1 that is the interval of Wilson 1927, for 0, 1/2 and
    1 that of Tango 1998, for others the score test of empirical likelihood (Owen 1988; Qin and Lawless 1994). Where
    only a few values are off a bound, the end at that bound is that of their Poisson number, as Brown, Cai and
    DasGupta 2001 modify Wilson's interval, which there covers in 84 % of cases only.

    Args:
        values: float (n,), n >= 1.
        bounds: lowest and highest possible value.
        groups: (n,), equal for values of one prompt; default every value has its own. With groups n is that of
            `_effective_count`.
        level: float in (0, 1). Coverage.

    Returns:
        (low, high).

    Raises:
        ValueError: no values, other than one dimension, or a value outside `bounds`.
    """
    values = _checked(values)
    lowest, highest = values.min(), values.max()
    if not (lowest >= bounds[0] - ROUNDING and highest <= bounds[1] + ROUNDING):
        raise ValueError(f"Expected values in [{bounds[0]:g}, {bounds[1]:g}]. Received: {lowest:g} to {highest:g}")
    count, is_one_draw = (values.size, True) if groups is None else _effective_count(values, np.asarray(groups))
    low, high = _score_low(values, bounds[0], count, level), -_score_low(-values, -bounds[1], count, level)
    if is_one_draw:
        low = min(low, _low_of_few(values, bounds[0], count, level))
        high = max(high, -_low_of_few(-values, -bounds[1], count, level))
    return low, high


def unskewed_t_interval(values: ArrayLike, groups: ArrayLike | None = None, level: float = 0.95) -> Interval | None:
    """Student's interval for a cubic of the mean that is not skewed, carried back.

    Args:
        values, groups, level: as of `score_interval`; nothing is known of the values' bounds.

    Returns:
        (low, high); None with fewer than two groups and where all are alike, as nothing then says how far values
        spread.

    Raises:
        ValueError: no values, or other than one dimension.

    Source: Hall 1992, On the removal of skewness by transformation; with the quantile of t in place of the normal.
    """
    values = _checked(values) if groups is None else _by_group(_checked(values), np.asarray(groups))
    count, mean = values.size, float(values.mean())
    if count < 2:
        return None
    spread = float(values.std())
    if spread <= ALIKE * max(1.0, abs(mean)):
        return None
    skewness = float(np.mean(((values - mean) / spread) ** 3))
    error = spread * math.sqrt(count / (count - 1))
    t = t_quantile((1 + level) / 2, count - 1) / math.sqrt(count)

    def standardized(cubic: float) -> float:
        """The inverse of w + γ w² / 3 + γ² w³ / 27 + γ / (6 n)."""
        shifted = cubic - skewness / (6 * count)
        return shifted if abs(skewness) < 1e-9 else float(np.cbrt(1 + skewness * shifted) - 1) * 3 / skewness

    return mean - error * standardized(t), mean - error * standardized(-t)


def groups_of(keys: Iterable[Hashable]) -> np.ndarray:
    """Numbers for names: int (n,), equal where the keys are."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _checked(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"An interval needs at least one value in one dimension. Received: shape {values.shape}")
    return values


def _by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """One value a group, with the mean of all: where groups are equally large, the means of the groups. Where they are
    not, the mean is a ratio of two sums, and is linearised (Cochran 1977, Sampling Techniques, chapter 6)."""
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return values.mean() + np.bincount(place, values - values.mean()) / sizes.mean()


def _effective_count(values: np.ndarray, groups: np.ndarray) -> tuple[float, bool]:
    """How many independent values tell as much as these: their number by the design effect, which is the variance of
    the mean over groups by that of as many independent values (Kish 1965). And whether groups are as one value each.

    Few groups that differ from the others say little of how alike the values of a group are, and at 20 right prompts of
    20 nothing does. So half a group is added in which all are alike; by simulation, see docs/intervals.md.
    """
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    most = float((sizes**2).sum()) / values.size
    of_groups = np.round(np.bincount(place, values) / sizes, 9)
    differing = len(sizes) - np.unique(of_groups, return_counts=True)[1].max()
    if differing == 0 or most == 1:
        return values.size / most, True
    over_groups = _by_group(values, groups).var() / (len(sizes) - 1)
    found = over_groups / (values.var() / values.size)
    effect = min(max(1.0, (differing * found + ALL_ALIKE * most) / (differing + ALL_ALIKE)), most)
    return values.size / effect, effect > most - ROUNDING


def _score_low(values: np.ndarray, low: float, count: float, level: float) -> float:
    """Lower end of the score interval of the mean of values that are at least `low` and tell as much as `count`
    independent ones."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    low = float(min(low, values.min()))
    seen, counts = np.unique(values - low, return_counts=True)
    scale = seen[-1]
    if scale == 0:
        return low
    seen, shares = seen / scale, counts / values.size
    mean = float(shares @ seen)
    # What has to give way for a lower mean goes to the bound: the equation is then a linear one.
    with_mass_at_bound = mean / (1 + z * z / count)
    if seen[0] > 0 and with_mass_at_bound <= 1 / float(shares @ (1 / seen)):
        return float(low + scale * with_mass_at_bound)
    # Probabilities in proportion to 1 / (c + value): a smaller c is a lower mean.
    near, far = -36.0, 36.0
    for _ in range(50):
        middle = (near + far) / 2
        weights = shares / (math.exp(middle) + seen)
        weights /= weights.sum()
        tilted = float(weights @ seen)
        variance = float(weights @ (seen - tilted) ** 2)
        if count * (mean - tilted) ** 2 > z * z * variance:
            near = middle
        else:
            far = middle
    return float(low + scale * tilted)


def _low_of_few(values: np.ndarray, low: float, count: float, level: float) -> float:
    """Lower end where nearly all values are `low`, infinity elsewhere: that of the mean of a Poisson number at `level`
    on one side (quantile of the gamma distribution by Wilson and Hilferty 1931)."""
    above = values - low
    square = float(np.mean(above**2))
    if square == 0:
        return low
    number = count * float(above.mean()) ** 2 / square  # as many of equal size would have this mean and this spread
    if number > min(FEW, count * FEW_SHARE):
        return math.inf
    cube_root = 1 - 1 / (9 * number) - NormalDist().inv_cdf(level) / (3 * math.sqrt(number))
    return low + max(0.0, cube_root) ** 3 * float(above.mean())


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t, within 1 % from three degrees of freedom on.

    Source: Abramowitz and Stegun 1964, 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))
