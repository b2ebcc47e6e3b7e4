from __future__ import annotations

import traceback

import numpy as np
import pytest

from edge_client.checks import compile_check, finite, fits
from edge_client.errors import InputError
from schemas.signature import DType, TensorSpec

FLOAT = TensorSpec(name="x", dtype="float32", shape=(-1, 4), range=(-100, 100))
GOOD = np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4)


def check(value, spec: TensorSpec = FLOAT):
    return compile_check((spec,), ())(value)[spec.name]


def spec_of(dtype: DType, shape=(-1, 4), limits=None) -> TensorSpec:
    return TensorSpec(name="x", dtype=dtype, shape=shape, range=limits)


def test_what_fits_is_passed_on_as_it_is():
    assert check(GOOD) is GOOD
    assert check({"x": GOOD}) is GOOD


@pytest.mark.parametrize(
    "value",
    [
        np.asfortranarray(GOOD),
        GOOD.astype(">f4"),
        np.repeat(GOOD, 2, axis=1)[:, ::2],
        np.broadcast_to(GOOD[:1], (2, 4)),
        GOOD.view(np.recarray).view(type("Sub", (np.ndarray,), {})),
        type("Tensor", (), {"__array__": lambda *_a, **_k: GOOD})(),
    ],
    ids=["fortran", "big-endian", "strided", "broadcast", "subclass", "arraylike"],
)
def test_what_has_the_right_values_in_another_form_is_put_right(value):
    found = check(value)
    assert type(found) is np.ndarray
    assert found.flags.c_contiguous
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, np.asarray(value))


@pytest.mark.parametrize(
    ("value", "says", "hint"),
    [
        ([[1, 2, 3, 4]], "array of float32, not list", "np.asarray"),
        ("abc", "not str", None),
        (b"abcd", "not bytes", None),
        (3.0, "not float", "np.asarray"),
        (None, "not NoneType", None),
        ({"x": None}, "missing", r"float32\[-1, 4\]"),
        (object(), "not object", None),
        (np.array(3, np.float32), r"shape \[-1, 4\], not \[\]", None),
        (np.float32(3), r"not \[\]", None),
        (GOOD.astype(np.float64), "float32, not float64", r"x.astype\('float32'\)"),
        (GOOD.astype(object), "not object", "tolist"),
        (GOOD.astype(str), "not str", "numbers"),
        (GOOD.astype(complex), "not complex", "astype"),
        (np.ma.masked_less(GOOD, 0), "masked array", "filled"),
        (GOOD[0], r"not \[4\]", r"x\[None\]"),
        (GOOD.reshape(-1), r"not \[8\]", r"reshape\(-1, 4\)"),
        (GOOD[:0], r"not \[0, 4\]", "empty"),
        ({"y": GOOD}, "no input 'y'; it has 'x'", None),
        ({}, "'x' is missing", None),
        (np.broadcast_to(np.float32(0), (2**27, 4)), "bytes, more than", "fewer samples"),
        (type("T", (), {"__array__": lambda *_: 1 / 0})(), "cannot be read", None),
    ],
)
def test_what_does_not_fit_is_explained_with_what_to_do(value, says, hint):
    with pytest.raises(InputError, match=says) as found:
        check(value)
    if hint is not None:
        with pytest.raises(AssertionError, match=hint):
            raise AssertionError(found.value.hint)
        assert "hint: " in "".join(traceback.format_exception(found.value))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("limits", [None, (0, 1), (-1, 1), (0.5, 2)])
@pytest.mark.parametrize("place", [0, 3, 7, 66, 999])
def test_a_value_that_is_no_number_is_found_wherever_it_stands(bad, dtype, limits, place):
    spec = spec_of(dtype, (-1, 10), limits)
    value = np.full((100, 10), 0.75, dtype)
    assert check(value, spec) is value
    value.flat[place] = bad
    said = "NaN" if np.isnan(bad) else "an infinity"
    row, column = divmod(place, 10)
    with pytest.raises(InputError, match=rf"{said}: the first at \[{row}, {column}\]"):
        check(value, spec)


@pytest.mark.parametrize(
    ("dtype", "limits", "good", "bad"),
    [
        ("float32", (0, 1), [0, -0.0, 1], [-1e-38, 1.0001]),
        ("float32", (0, 0.3), [0.3], [0.30001]),
        ("float16", (0, 1e9), [65504], []),
        ("float64", (-1, 1), [-1, 1], [1.0000001]),
        ("uint8", (0, 255), [0, 255], []),
        ("uint8", (0, 100), [100], [101]),
        ("uint8", (5, 300), [5, 255], [4]),
        ("int8", (-0.5, 3.5), [0, 3], [-1, 4]),
        ("int64", (-1e30, 1e30), [-(2**63), 2**63 - 1], []),
        ("int64", (-1e300, 7), [-(2**63), 7], [8]),
        ("bool", (0, 0), [True], []),
    ],
)
def test_a_range_is_inclusive_in_the_input_s_own_precision(dtype, limits, good, bad):
    spec = spec_of(dtype, (-1,), limits)
    for value in good:
        check(np.array([value], dtype), spec)
    for value in bad:
        with pytest.raises(InputError, match="must lie in"):
            check(np.array([value], dtype), spec)


def test_a_value_out_of_range_is_named_with_its_place_and_a_guess():
    pixels = np.full((1, 4), 200, np.float32)
    with pytest.raises(InputError, match=r"0..1.0, not 200.0..200.0; .* at \[0, 0\]") as found:
        check(pixels, spec_of("float32", limits=(0, 1)))
    assert "255" in found.value.hint


def test_shapes_may_leave_any_side_open_or_none():
    assert fits(spec_of("float32", (2, 4)))(GOOD)
    assert fits(spec_of("float32", (-1, -1)))(GOOD)
    assert not fits(spec_of("float32", (-1, -1)))(GOOD[:0])
    assert not fits(spec_of("float32", (-1, -1, 4)))(GOOD)
    scalar = np.array(3, np.float32)
    assert check(scalar, spec_of("float32", ())) is scalar
    with pytest.raises(InputError, match="exactly 3 samples") as found:
        check(GOOD, spec_of("float32", (3, 4)))
    assert "hint" in found.value.__notes__[0]


def test_channels_on_the_wrong_side_are_recognized():
    image = np.zeros((1, 8, 9, 3), np.uint8)
    with pytest.raises(InputError) as found:
        check(image, spec_of("uint8", (-1, 3, 8, 9)))
    assert "transpose(0, 3, 1, 2)" in found.value.hint
    with pytest.raises(InputError) as found:
        check(image.transpose(0, 3, 1, 2), spec_of("uint8", (-1, 8, 9, 3)))
    assert "transpose(0, 2, 3, 1)" in found.value.hint


class TestSeveralInputs:
    SPECS = (FLOAT, TensorSpec(name="y", dtype="int64", shape=(-1,)))

    def check(self, value):
        return compile_check(self.SPECS, ("x", "y"))(value)

    def test_all_are_passed_on_in_the_signature_s_order(self):
        found = self.check({"y": np.arange(2), "x": GOOD})
        assert list(found) == ["x", "y"]
        assert found["x"] is GOOD

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            (GOOD, "2 inputs: give a mapping with 'x', 'y'"),
            ({"x": GOOD}, "'y' is missing"),
            ({"x": GOOD, "y": np.arange(2), "z": 1}, "no input 'z'"),
            ({"x": GOOD, "y": np.arange(3)}, "'x' 2, 'y' 3"),
            ({"x": GOOD, "y": np.arange(2.0)}, "'y' must be int64"),
        ],
    )
    def test_what_does_not_fit_is_named(self, value, says):
        with pytest.raises(InputError, match=says):
            self.check(value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_outputs_with_a_bad_value_anywhere_are_seen(dtype):
    for size in (1, 3, 17, 1000):
        value = np.random.default_rng(size).normal(size=(1, size)).astype(dtype)
        assert finite(value)
        for bad in (np.nan, np.inf, -np.inf):
            for place in {0, size // 2, size - 1}:
                broken = value.copy()
                broken[0, place] = bad
                assert not finite(broken)
    assert finite(np.array([np.finfo(dtype).max, np.finfo(dtype).min], dtype))
    assert finite(np.empty((0, 3), dtype))
    assert finite(np.arange(3))
