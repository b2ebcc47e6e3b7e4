"""Structured pruning: whole channels go, and the net that is left is a smaller plain one.

The dependency graph is torch-pruning's (Fang et al., DepGraph, CVPR 2023, arXiv 2301.12900):
channels that are added, concatenated or normalized together go together. Each group loses
the same share, those of the smallest weights (Li et al., 2017, arXiv 1608.08710).

What a library makes of a net that somebody else wrote is not taken on trust: after each
group the net must give what the unpruned one gives with the same channels at zero, else
that group is left as it was.
"""

from __future__ import annotations

import copy
import importlib
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workers.blame import user_code
from workers.errors import UsageError
from workers.optimization.executor import beat
from workers.optimization.pruning.masked import mask, supported

ALIGN = 16
"""Channels are kept in multiples of this: the kernels' blocks. Narrow layers: see ``kept``."""

SHARE_OF_STEP = 4
TOLERANCE = 1e-3
"""Of a logit against the masked net, in shares of the largest logit: rounding differs."""

MAX_KEPT_OUT = 64
_CONV = nn.modules.conv._ConvNd  # noqa: SLF001 - all convolutions at once
_ADVICE = "leave optimize.prune empty"


@dataclass(frozen=True, slots=True)
class Pruned:
    """A smaller net.

    channels: output channels by layer, before and after, of those that lost some.
    parameters: before and after. kept_out: layers that are as they were, as pruning them
    would have broken the net.
    """

    net: nn.Module
    channels: dict[str, tuple[int, int]]
    parameters: tuple[int, int]
    kept_out: tuple[str, ...] = ()


def kept(channels: int, share: float, groups: int = 1) -> int:
    """How many of a layer's channels stay.

    A multiple of ``ALIGN``, of a smaller power of two below 64 channels (a fourth of them at
    most), rounded to the nearest; never none. groups: that must stay alike.
    """
    fourth = max(1, channels // SHARE_OF_STEP)
    step = max(1, min(ALIGN, 1 << (fourth.bit_length() - 1)) // groups)
    size = channels // groups
    wanted = size * (1.0 - share)
    return min(size, max(step, math.floor(wanted / step + 0.5) * step)) * groups


def prune(net: nn.Module, example: Tensor, share: float, *, classes: int) -> Pruned:
    """A copy of ``net`` without a share of its channels, on the CPU and in eval mode.

    Args:
        net: trained. It is not changed.
        example: real inputs in the served dtype, (n ≥ 2, …).
        share: of each group's channels to take out, 0 < share < 1.
        classes: of the logits (n, classes), which stay.

    Raises:
        UsageError: the net cannot be pruned, and why.
        JobFailed: user_code, if the net's own forward raises.
    """
    library = _library()
    original = copy.deepcopy(net).eval().cpu()
    with user_code(), torch.inference_mode():
        shape = tuple(original(example).shape)
    if shape != (len(example), classes):
        msg = f"the net gives {list(shape)}, not {[len(example), classes]}"
        raise UsageError(msg, "its logits must be one per label")
    kept_out: list[str] = []
    while len(kept_out) <= MAX_KEPT_OUT:
        attempt = _Attempt(library, original, example, kept_out, classes)
        broken = attempt.run(share)
        if broken is None:
            return _whole(original, attempt.net, kept_out)
        kept_out.append(broken)
    msg = f"the net cannot be pruned: more than {MAX_KEPT_OUT} of its layers would break"
    raise UsageError(msg, _ADVICE)


def _library() -> Any:
    try:
        return importlib.import_module("torch_pruning")
    except ModuleNotFoundError as error:
        msg = "optimize.prune needs the package torch-pruning, which is not installed"
        raise UsageError(msg, "install argosy[train] on the cluster") from error


def _whole(original: nn.Module, net: nn.Module, kept_out: list[str]) -> Pruned:
    before, after = _size(original), _size(net)
    channels = _changed(original, net)
    if after >= before or not channels:
        left = f" (kept out: {', '.join(kept_out[:5])})" if kept_out else ""
        msg = f"the net cannot be pruned: none of its channels can go at this share{left}"
        raise UsageError(msg, f"prune a larger share, or {_ADVICE}")
    return Pruned(net, channels, (before, after), tuple(kept_out))


def _size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _changed(original: nn.Module, net: nn.Module) -> dict[str, tuple[int, int]]:
    after = dict(net.named_modules())
    found = {name: (_width(m), _width(after[name])) for name, m in original.named_modules()}
    return {name: (a, b) for name, (a, b) in found.items() if a is not None and b and a != b}


def _width(module: nn.Module) -> int | None:
    return getattr(module, "out_channels", getattr(module, "out_features", None))


class _Attempt:
    """One pass over a fresh copy, with some layers left alone."""

    def __init__(
        self,
        library: Any,
        original: nn.Module,
        example: Tensor,
        kept_out: list[str],
        classes: int,
    ) -> None:
        self.net = copy.deepcopy(original)
        self._example, self._classes = example, classes
        self._frozen = {name for name, p in self.net.named_parameters() if not p.requires_grad}
        for parameter in self.net.parameters():
            parameter.requires_grad = True  # the graph is read off the gradients'
        self._names = {module: name for name, module in self.net.named_modules()}
        self._ignored = [self.net.get_submodule(name) for name in kept_out]
        self._importance = library.importance.GroupMagnitudeImportance(p=2)
        try:
            with _silent():
                self._graph = library.DependencyGraph().build_dependency(
                    self.net, example_inputs=example, verbose=False
                )
        except Exception as error:
            msg = f"the net cannot be pruned: torch-pruning cannot follow it: {_first(error)}"
            raise UsageError(msg, _ADVICE) from error

    def run(self, share: float) -> str | None:
        """Prune every group; the name of a layer that broke the net by it, or None."""
        for name, function, indices in self._plan(share):
            beat()
            root = self.net.get_submodule(name)
            before = copy.deepcopy(self.net)
            try:
                with _silent():
                    group = self._graph.get_pruning_group(root, function, indices)
                if not self._graph.check_pruning_group(group):
                    continue
                expected = self._expected(before, group)
                group.prune()
                fine = expected is not None and self._gives(expected)
            except Exception:  # noqa: BLE001 - the library or the smaller net: either way it is broken
                fine = False
            if not fine:
                return name
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad = name not in self._frozen
            parameter.grad = None
        return None

    def _plan(self, share: float) -> list[tuple[str, Any, list[int]]]:
        """Layer, function and the channels to go, of each group, from the weights as given.

        Those as wide as the output come first: if one is the output, that shows at once.
        """
        found = []
        for name, group in self._groups():
            scores = self._importance(group)
            together = self._together(group)
            if not isinstance(scores, Tensor) or len(scores) % together:
                continue
            channels = len(scores)
            size = channels // together
            stay = kept(channels, share, together) // together
            gone = scores.view(together, -1).mean(0).argsort(stable=True)[: size - stay].tolist()
            if gone:
                indices = sorted(part * size + i for part in range(together) for i in gone)
                found.append((name, group[0].dep.handler, indices))
        return sorted(found, key=lambda one: self._width_of(one[0]) != self._classes)

    def _width_of(self, name: str) -> int | None:
        return _width(self.net.get_submodule(name))

    def _groups(self) -> Iterator[tuple[str, Any]]:
        """Each group by the name of its first layer, but for those that are left alone."""
        seen: set[nn.Module] = set(self._ignored)
        for module, name in self._names.items():
            if not isinstance(module, (_CONV, nn.Linear)) or module in seen:
                continue
            if module not in self._graph.module2node:
                continue  # the forward does not use it
            function = self._graph.get_pruner_of_module(module).prune_out_channels
            every = list(range(_width(module) or 0))
            try:
                with _silent():
                    group = self._graph.get_pruning_group(module, function, every)
            except Exception:  # noqa: BLE001, S112 - a layer that the library cannot follow
                continue
            giving = {d.target.module for d, _ in group if self._gives_channels(d)}
            if not giving & set(self._ignored):
                yield name, group
            seen |= giving

    def _gives_channels(self, dep: Any) -> bool:
        return bool(self._graph.is_out_channel_pruning_fn(dep.handler))

    def _together(self, group: Any) -> int:
        """Into how many alike parts the group's channels fall, as grouped layers ask for."""
        found = 1
        for dep, _ in group:
            module = dep.target.module
            if module not in self._names or _depthwise(module):
                continue
            pruner = self._graph.get_pruner_of_module(module)
            if self._gives_channels(dep):
                found = math.lcm(found, pruner.get_out_channel_groups(module))
            else:
                found = math.lcm(found, pruner.get_in_channel_groups(module))
        return found

    def _expected(self, before: nn.Module, group: Any) -> Tensor | None:
        """What the net must give without the group's channels; None: it cannot be pruned.

        Where norms reckon over channels, removing some is not zeroing them: then only the
        shape is expected, as zeros.
        """
        parameters = {id(p): name for name, p in self.net.named_parameters()}
        comparable = True
        for dep, indices in group:
            target = dep.target.module
            if isinstance(target, nn.Parameter):
                if id(target) not in parameters:
                    return None
                comparable = False
                continue
            name = self._names.get(target)
            if name is None:
                continue  # an operation, without weights
            if not supported(target):
                return None
            inputs = not self._gives_channels(dep)
            comparable &= mask(before.get_submodule(name), indices, inputs=inputs)
        with torch.inference_mode():
            logits: Tensor = before(self._example)
        return logits if comparable else torch.full_like(logits, torch.nan)

    def _gives(self, expected: Tensor) -> bool:
        with torch.inference_mode():
            found = self.net(self._example)
        if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
            return False
        if bool(torch.isnan(expected).all()):
            return True
        room = TOLERANCE * (1.0 + float(expected.abs().max()))
        return bool((found - expected).abs().max() <= room)


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, _CONV) and module.groups == module.out_channels


@contextmanager
def _silent() -> Iterator[None]:
    """The library warns of what is checked here anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"
