"""The largest frames that are allowed take a device no more than 16 MiB."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import io, os, sys, tempfile
import numpy as np
from backports import zstd
from edge_client.patch import apply
from schemas.patch import *

size, dictionary = 2 * 1024**2, 4 * 1024**2
noise = np.random.default_rng(1).bytes(dictionary)
frames = []
def add(method, base_bytes, plain, raw=None):
    options = {zstd.CompressionParameter.compression_level: 12,
               zstd.CompressionParameter.window_log: 23}
    data = zstd.compress(plain, options=options, zstd_dict=raw)
    frame = FrameHeader(32 * len(frames), 32, method, 0, base_bytes, len(data), method and 1)
    frames.append(encode_frame(frame) + data)

for _ in range(4):
    add(Method.DICT, dictionary, noise[:size], zstd.ZstdDict(noise, is_raw=True).as_prefix)
    add(Method.DIFF4, size, noise[: size - 4096 * 16] + bytes(4096 * 16))
    add(Method.DIFF2, size, bytes(size))
header = encode_header(PatchHeader(len(frames), dictionary, size * len(frames)))
patch, base = tempfile.TemporaryFile(), tempfile.TemporaryFile()
patch.write(header + b"".join(frames)); patch.seek(0)
base.write(noise); base.seek(0)
count = len(frames)
del frames, noise, header

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak counts from here on
before = status("VmRSS")
done = apply(patch, base, wanted=lambda _: True, write=lambda index, data: True)
assert done.made == 32 * count, done
print(status("VmHWM") - before)
"""


def test_the_largest_frames_fit_into_16_mib() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 16 * 1024, f"{done.stdout} KiB"
