"""The fast look at inputs against the slow one: they must agree on everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_client.checks import finite, fits
from edge_client.errors import InputError
from edge_client.refuse import fitting
from schemas.signature import TensorSpec

DTYPES = ["uint8", "int8", "int32", "int64", "float16", "float32", "float64", "bool"]
FLOATS = ["float16", "float32", "float64"]
limit = st.floats(-300, 300)


@given(st.data(), st.sampled_from(DTYPES), st.none() | st.tuples(limit, limit))
def test_what_the_fast_look_accepts_the_slow_one_does_and_gives_back_unchanged(data, dtype, limits):
    spec = TensorSpec(
        name="x", dtype=dtype, shape=(-1, 3), range=None if limits is None else sorted(limits)
    )
    value = data.draw(arrays.arrays(dtype, (data.draw(st.integers(0, 4)), 3)))
    quick = fits(spec)(value)
    try:
        slow = fitting(spec, value) is value
    except InputError:
        slow = False
    zero_with_a_sign = value.dtype.kind == "f" and bool(np.any(np.signbit(value) & (value == 0)))
    assert quick == slow or (slow and zero_with_a_sign)


@given(st.data(), st.sampled_from(FLOATS))
def test_finite_is_what_numpy_says(data, dtype):
    value = data.draw(arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=20)))
    assert finite(value) == bool(np.isfinite(value).all())


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_bound_of_minus_zero_is_zero(dtype) -> None:
    good = fits(TensorSpec(name="x", dtype=dtype, shape=(-1,), range=(0.0, -0.0)))
    assert good(np.zeros(2, dtype))
    assert not good(np.ones(2, dtype))
