"""How sure counting lets a cohort's rates be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.domain.judging.compare import Array


@dataclass(frozen=True, slots=True)
class Counting:
    """What rates of devices were counted of; devices along the last axis.

    per: of each, one over its inferences, summed over what was subtracted; NaN where it is not
    counted. share: the mean over devices without what their values add to it: of a change the
    share before, of a level 0. weight: what a value adds to its device's share, 1/2 of a change
    and 1 of a level.
    """

    per: Array
    share: Array
    weight: float

    def noise(self, mean: Array) -> Array:
        """Of each device the variance of its value, if the cohort's values had this mean.

        The share is the cohort's, and half a hit more. As many inferences as a device claims to
        have made add next to nothing to that, so that none can make zero hits look certain.
        """
        there = np.isfinite(self.per)
        some = np.maximum(there.sum(axis=-1), 1)
        hit = 0.5 * np.where(there, self.per, 0.0).sum(axis=-1) / some**2
        share = np.minimum(0.5, np.maximum(0.0, self.share + self.weight * mean) + hit)
        return np.asarray(self.per * (share * (1 - share))[..., None])
