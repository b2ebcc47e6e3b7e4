"""Resizing against Pillow, whose definition it follows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_client.resize import covering, filters, resize

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
side = st.integers(1, 70)
smooth = st.sampled_from(["bilinear", "bicubic"])


def noise(height: int, width: int, planes: int = 3) -> np.ndarray:
    rng = np.random.default_rng(height * 100 + width)
    return rng.integers(0, 256, (height, width, planes), dtype=np.uint8)


@given(side, side, side, side, smooth)
def test_pixels_are_those_of_pillow_width_first(h, w, to_h, to_w, how):
    image = noise(h, w)
    turned = Image.fromarray(image).resize((to_w, h), PILLOW[how])
    expected = np.asarray(turned.resize((to_w, to_h), PILLOW[how]))
    np.testing.assert_array_equal(resize(image, to_h, to_w, how), expected)


@given(side, side, side, side)
def test_bilinear_is_within_a_level_of_pillow_in_one_go(h, w, to_h, to_w):
    image = noise(h, w)
    expected = np.asarray(Image.fromarray(image).resize((to_w, to_h), PILLOW["bilinear"]))
    assert np.abs(resize(image, to_h, to_w, "bilinear").astype(int) - expected).max() <= 1


@given(side, side, side, side)
def test_nearest_takes_the_pixel_that_pillow_takes(h, w, to_h, to_w):
    image = noise(h, w)
    expected = np.asarray(Image.fromarray(image).resize((to_w, to_h), PILLOW["nearest"]))
    np.testing.assert_array_equal(resize(image, to_h, to_w, "nearest"), expected)


@given(side, side, side, side, smooth)
def test_floats_are_those_of_pillow(h, w, to_h, to_w, how):
    image = noise(h, w, 1).astype(np.float32) / 255
    expected = np.asarray(Image.fromarray(image[:, :, 0]).resize((to_w, to_h), PILLOW[how]))
    found = resize(image, to_h, to_w, how)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :, 0], expected, atol=1e-5)


@given(side, side, smooth)
def test_a_plain_area_stays_plain_and_the_same_size_is_the_same_image(h, w, how):
    plain = np.full((h, w, 1), 137, np.uint8)
    assert (resize(plain, 31, 17, how) == 137).all()
    image = noise(h, w)
    np.testing.assert_array_equal(resize(image, h, w, how), image)


@given(st.integers(1, 500), st.integers(1, 500), smooth)
def test_every_place_is_made_of_rows_that_are_there(size, wanted, how):
    for start, weights in filters(size, wanted, how):
        assert start >= 0
        assert len(weights) > 0
        assert start + len(weights) <= size
        assert abs(weights.sum() - 1) < 1e-9


@given(st.integers(1, 3000), st.integers(1, 3000), side, side)
def test_a_kept_aspect_covers_and_touches(h, w, to_h, to_w):
    height, width = covering(h, w, to_h, to_w)
    assert height >= to_h
    assert width >= to_w
    assert height == to_h or width == to_w
