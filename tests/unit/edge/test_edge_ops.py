from __future__ import annotations

import io
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from edge_client.errors import InferenceError, InputError, LoadError
from edge_client.images import decode
from edge_client.inference import Prediction
from edge_client.ops import Postprocessor, Preprocessor
from schemas.model import Manifest
from schemas.ops import CenterCrop, Decode, Resize, Threshold, TopK, Transpose, Window
from schemas.signature import Signature, TensorSpec
from tests.fakes.edge_models import linear_onnx, release

MANIFEST = Manifest.model_validate_json(release(linear_onnx()).manifest)
PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def manifest(*ops, dtype="uint8", shape=(-1, 3, 8, 8), post=()) -> Manifest:
    spec = TensorSpec(name="pixels", dtype=dtype, shape=shape)
    signature = Signature(inputs=(spec,), outputs=MANIFEST.signature.outputs)
    return MANIFEST.model_copy(
        update={"signature": signature, "preprocess": ops, "postprocess": post}
    )


def encoded(pixels: np.ndarray, kind: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


IMAGE_STEPS = (
    Decode(),
    Resize(height=8, width=8, keep_aspect=True),
    CenterCrop(height=8, width=8),
    Transpose(axes=(2, 0, 1)),
)


def test_a_picture_becomes_what_the_graph_takes_as_torchvision_would_make_it():
    feed = Preprocessor(manifest(*IMAGE_STEPS)).prepare(encoded(PICTURE))
    small = Image.fromarray(PICTURE).resize((12, 8), Image.Resampling.BILINEAR)
    expected = np.asarray(small.crop((2, 0, 10, 8))).transpose(2, 0, 1)[None]
    assert feed.keys() == {"pixels"}
    assert feed["pixels"].dtype == np.uint8
    assert np.abs(feed["pixels"].astype(int) - expected).max() <= 1


def test_bytes_pixels_and_lists_of_both_are_the_same_picture():
    made = Preprocessor(manifest(*IMAGE_STEPS))
    one = made.prepare(encoded(PICTURE))["pixels"]
    np.testing.assert_array_equal(made.prepare(PICTURE)["pixels"], one)
    np.testing.assert_array_equal(made.prepare(PICTURE[None])["pixels"], one)
    both = made.prepare([encoded(PICTURE), PICTURE[:, :20].copy()])["pixels"]
    assert both.shape == (2, 3, 8, 8)
    np.testing.assert_array_equal(both[:1], one)


def test_uint8_becomes_float_where_the_graph_wants_it_and_a_float_never_becomes_uint8():
    steps = (Decode(mode="L"),)
    made = Preprocessor(manifest(*steps, dtype="float32", shape=(-1, 20, 30, 1)))
    assert made.prepare(encoded(PICTURE))["pixels"].dtype == np.float32
    crop = Preprocessor(manifest(CenterCrop(height=2, width=2)))
    assert crop.prepare(PICTURE[None].astype(np.float32))["pixels"].dtype == np.float32


def test_a_camera_that_was_turned_gives_an_upright_picture():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    data = encoded(PICTURE, "JPEG", quality=95, exif=exif)
    assert decode(data, "RGB").shape == (30, 20, 3)


def test_alpha_and_palettes_are_read():
    alpha = np.dstack([PICTURE, np.full((20, 30, 1), 7, np.uint8)])
    np.testing.assert_array_equal(decode(encoded(alpha), "RGB"), PICTURE)
    file = io.BytesIO()
    Image.fromarray(PICTURE[:, :, 0]).convert("P").save(file, "PNG")
    assert decode(file.getvalue(), "L").shape == (20, 30, 1)


def test_what_is_no_picture_is_refused_in_words(monkeypatch):
    made = Preprocessor(manifest(*IMAGE_STEPS))
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "GIF")
    deep = Image.fromarray(np.zeros((4, 4), np.uint16))
    deep_file = io.BytesIO()
    deep.save(deep_file, "PNG")
    for data, says in (
        (b"", "no PNG or JPEG"),
        (file.getvalue(), "no PNG or JPEG"),
        (encoded(PICTURE)[:-400], "cannot be decoded"),
        (deep_file.getvalue(), "more than 8 bits"),
        (PICTURE.astype(np.float32), "pixels must be uint8"),
        (PICTURE[:, :, :2].copy(), "pixels must be uint8"),
        ("picture.png", "not str"),
        ([], "1 to"),
        ([PICTURE, "x"], "sample 1 must be an array or bytes, not str"),
    ):
        with pytest.raises(InputError, match=says):
            made.prepare(data)
    monkeypatch.setattr("edge_client.images.MAX_IMAGE_PIXELS", 20 * 30 - 1)
    with pytest.raises(InputError, match="30 x 20 pixels"):
        made.prepare(encoded(PICTURE))


def test_a_file_that_claims_a_huge_size_is_refused_before_it_is_decoded():
    data = bytearray(encoded(PICTURE))
    data[16:24] = (8000).to_bytes(4, "big") * 2  # IHDR: width, height
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(InputError, match="8000 x 8000"):
        decode(bytes(data), "RGB")


def test_a_narrow_picture_does_not_grow_without_bounds():
    made = Preprocessor(manifest(Resize(height=4000, width=4000, keep_aspect=True)))
    with pytest.raises(InputError, match="it would become"):
        made.prepare([np.zeros((1, 10_000, 1), np.uint8)])


def test_what_is_narrow_and_high_is_not_large_in_between():
    made = Preprocessor(manifest(Resize(height=224, width=224)))
    for shape in ((300_000, 1, 1), (1, 1, 500_000)):
        with pytest.raises(InputError, match="it would become 224 x"):
            made.prepare([np.zeros(shape, np.uint8)])
    with pytest.raises(InputError, match="65535 at a side"):
        decode(encoded(np.zeros((70_000, 1), np.uint8)), "L")
    wide = Preprocessor(manifest(Resize(height=224, width=1, interpolation="nearest")))
    assert wide.prepare([np.zeros((1, 300_000, 3), np.uint8)])["pixels"].shape == (1, 224, 1, 3)


def test_small_files_of_large_pictures_are_decoded_one_at_a_time(monkeypatch):
    large = encoded(np.zeros((1000, 1000, 3), np.uint8))
    made = Preprocessor(manifest(Decode(), Resize(height=8, width=8)))
    tracemalloc.start()
    assert made.prepare([large] * 30)["pixels"].shape == (30, 8, 8, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # one has 3 MB
    monkeypatch.setattr("edge_client.ops.MAX_MADE_BYTES", 3 * 8 * 8 * 30 - 1)
    with pytest.raises(InputError, match="the first 30 samples make 30 of 5760 bytes"):
        made.prepare([large] * 30)
    series = Preprocessor(manifest(Window(length=50, step=1), dtype="float32", shape=(-1, 50)))
    with pytest.raises(InputError, match="the first 1 samples make 51 of 10200 bytes"):
        series.prepare(np.zeros(100, np.float32))


def test_a_missing_pillow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(LoadError, match="Pillow is not installed") as found:
        Preprocessor(manifest(Decode()))
    assert "argosy[images]" in found.value.hint


def test_steps_that_make_no_sense_are_refused():
    with pytest.raises(LoadError, match="only be the first"):
        Preprocessor(manifest(Window(length=2, step=1), Decode()))
    two = manifest().signature.inputs[0].model_copy(update={"name": "other"})
    several = manifest(Window(length=2, step=1))
    signature = several.signature.model_copy(update={"inputs": (*several.signature.inputs, two)})
    with pytest.raises(LoadError, match="which of 2 inputs"):
        Preprocessor(several.model_copy(update={"signature": signature}))
    with pytest.raises(InputError, match="smaller than"):
        Preprocessor(manifest(CenterCrop(height=99, width=1))).prepare([PICTURE])
    with pytest.raises(InputError, match="transpose"):
        Preprocessor(manifest(Transpose(axes=(0, 0)))).prepare([PICTURE[0]])
    with pytest.raises(InputError, match="sample 1 became"):
        Preprocessor(manifest(Transpose(axes=(1, 0)))).prepare([np.zeros((2, 3)), np.eye(2)])


def test_a_series_becomes_windows(monkeypatch):
    made = Preprocessor(manifest(Window(length=4, step=3), dtype="float32", shape=(-1, 4, 2)))
    series = np.arange(24, dtype=np.float32).reshape(12, 2)
    found = made.prepare(series)["pixels"]
    np.testing.assert_array_equal(found, np.stack([series[0:4], series[3:7], series[6:10]]))
    assert made.prepare([series, series[:4]])["pixels"].shape == (4, 4, 2)
    with pytest.raises(InputError, match="3 values, a window takes 4"):
        made.prepare(series[:3])
    monkeypatch.setattr("edge_client.ops.MAX_SAMPLES", 2)
    with pytest.raises(InputError, match="makes 3 windows"):
        made.prepare(series)


def test_findings_have_names_in_order_and_know_what_they_do_not_know():
    post = Postprocessor(manifest(post=(TopK(k=2), Threshold(min=0.5))))
    scores = np.array([[0.1, 0.6, 0.3], [0.4, 0.3, 0.3]], np.float32)
    sure, unsure = post.finish(Prediction({"y": scores}, 2, ("a", "b", "c")))
    assert [(g.index, g.label) for g in sure.top] == [(1, "b"), (2, "c")]
    assert sure.top[0].probability == pytest.approx(0.6)
    assert (sure.label, sure.record()["class"]) == ("b", 1)
    assert not unsure.known
    assert unsure.record()["label"] is None
    assert [g.index for g in unsure.top] == [0, 1]  # of equals the first


def test_findings_of_logits_are_probabilities_and_need_no_names():
    logits = np.array([[2.0, -1.0, 0.0]], np.float32)
    (found,) = Postprocessor(manifest()).finish(Prediction({"y": logits}, 1))
    assert found.top[0].probability == pytest.approx(np.exp(2) / np.exp([2, -1, 0]).sum())
    assert (found.label, found.top[0].label) == ("0", None)
    with pytest.raises(InferenceError, match="no scores"):
        Postprocessor(manifest()).finish(Prediction({"y": np.zeros((1, 4, 4))}, 1))
