"""The options that plan a rollout, in the groups in which its help lists them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import rich_click as click

from orchestrator.cli.options import F, Share, Span

_MODES = ("forced", "soft", "time-forced", "download-only")

_plan = partial(click.option, panel="Plan")
_PLAN = (
    _plan(
        "-f",
        "--file",
        "plan_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A plan in YAML; options come before what it says.",
    ),
    _plan(
        "--waves",
        metavar="WAVES",
        help="Counts, percents or selectors in order, as in '1,[tag = lab],10%,100%'  [1,100%].",
    ),
    _plan("--variant", metavar="NAME", help="This variant for all  [the best for each]."),
    _plan("--priority", type=int, metavar="N", help="Where rollouts overlap, 0 to 100  [50]."),
    _plan("--approval", is_flag=True, help="A second person has to agree."),
)

_target = partial(click.option, panel="Target")
_TARGET = (
    _target("--where", metavar="SELECTOR", help="Only devices that it matches."),
    _target("--fleet", metavar="NAME", help="Only devices of this fleet, as it is now."),
    _target("--exclude", metavar="SELECTOR", help="Never devices that it matches."),
    _target("--class", "device_class", metavar="CLASS", help="Only devices of this class."),
    _target(
        "--tag",
        "tags",
        multiple=True,
        metavar="TAG",
        help="Only devices with this tag; repeatable.",
    ),
    _target(
        "--dynamic",
        is_flag=True,
        help="Devices that come to match later join, until `argosy rollout finish`.",
    ),
)

_pace = partial(click.option, panel="Pace")
_PACE = (
    _pace("--per-minute", type=float, metavar="N", help="Offers a minute  [no limit]."),
    _pace("--grow", metavar="FACTOR/AFTER", help="Faster by FACTOR after every AFTER successes."),
    _pace(
        "--max-per-minute",
        type=float,
        metavar="N",
        help="The rate that it grows to at most  [no limit].",
    ),
    _pace("--concurrent", type=int, metavar="N", help="Devices at work at once  [no limit]."),
    _pace("--jitter", type=Span(), help="Each waits a random part of it first, as in 10m  [0s]."),
    _pace(
        "--window",
        multiple=True,
        metavar="CRON FOR ZONE",
        help="When devices switch, as in '0 2 * * * 2h Europe/Berlin'; repeatable  [any time].",
    ),
    _pace(
        "--window-covers",
        type=click.Choice(["activation", "all"]),
        help="What waits for a window: the switch, or the download too  [activation].",
    ),
    _pace(
        "--mode",
        type=click.Choice(_MODES),
        metavar="MODE",
        help=f"How urgent it is: {', '.join(_MODES)}  [forced].",
    ),
    _pace(
        "--force-at", metavar="TIME", help="From then on it is forced, as in 2027-01-31T02:00:00Z."
    ),
    _pace("--max-deferral", type=Span(), help="How long a device may put it off  [1d]."),
)

_gate = partial(click.option, panel="Gates")
_GATES = (
    _gate(
        "--gate",
        multiple=True,
        metavar="METRIC=VALUE",
        help="No worse than that, as in accuracy=0.05 or latency_p95=1.2x; a ? behind it: only"
        " harm that is shown counts; none: without the standard ones. Repeatable.",
    ),
    _gate("--watch-gate", multiple=True, metavar="METRIC=VALUE", help="The same with a ?."),
    _gate(
        "--fail",
        multiple=True,
        metavar="KIND=RATE/MIN",
        help="Failures of a kind, from MIN devices on, as in rolled_back=0.05/3 or"
        " golden_mismatch=0/1; repeatable.",
    ),
    _gate(
        "--min-success",
        type=Share(),
        help="Least share that serves it at the end, as in 95%  [no gate].",
    ),
    _gate("--max-failure-rate", type=Share(), help="Largest share of devices that fail  [10%]."),
    _gate("--max-error-rate", type=Share(), help="Largest share of inferences that fail  [2%]."),
    _gate(
        "--min-accuracy",
        type=Share(),
        help="Least share of right answers, where devices have labels  [no gate].",
    ),
    _gate("--min-inferences", type=int, metavar="N", help="Evidence of each device  [50]."),
    _gate("--min-devices", type=int, metavar="N", help="Of a class, to be compared  [5]."),
    _gate(
        "--alpha",
        type=float,
        metavar="P",
        help="Chance to stop a version that is no worse  [0.01].",
    ),
    _gate("--baseline", type=Span(), help="How far a device's own past reaches  [1h]."),
    _gate("--soak", type=Span(), help="Least time from activation to verdict, as in 10m  [5s]."),
    _gate("--evidence", type=Span(), help="How long missing evidence is waited for  [60s]."),
    _gate(
        "--on-failure",
        type=click.Choice(["pause", "roll-back"]),
        help="What a wave that failed leads to  [pause].",
    ),
    _gate("--rollback-to", metavar="VERSION", help="What devices get then  [what each had]."),
)

_device = partial(click.option, panel="On the device")
_DEVICE = (
    _device(
        "--shadow", type=Span(), help="First try it so long beside the version that serves  [not]."
    ),
    _device("--shadow-agreement", type=Share(), help="Least share of equal answers  [90%]."),
    _device(
        "--shadow-compared", type=int, metavar="N", help="Answers that must be compared  [50]."
    ),
    _device("--shadow-cpu", type=Share(), help="Share of a core it may use  [25%]."),
    _device("--shadow-max", type=Span(), help="With fewer answers, end it then  [1h]."),
    _device(
        "--probation-inferences", type=int, metavar="N", help="So many it must serve to stay  [20]."
    ),
    _device("--probation-errors", type=Share(), help="Share of them that may fail  [5%]."),
    _device("--probation-boots", type=int, metavar="N", help="Starts before it is put back  [3]."),
    _device(
        "--probation-latency",
        type=float,
        metavar="FACTOR",
        help="Its median time over that before  [5].",
    ),
    _device("--probation-memory", type=int, metavar="MB", help="Memory more than before  [any]."),
    _device(
        "--probation-max",
        type=Span(),
        help="With fewer inferences, golden vectors decide then  [10m].",
    ),
    _device("--offer", type=Span(), help="How long an offer may be unanswered  [2m]."),
    _device("--step", type=Span(), help="How long it may make no progress  [5m]."),
    _device("--straggler", type=Span(), help="How long the absent are waited for  [1d]."),
    _device("--attempts", type=int, metavar="N", help="How often a device tries  [3]."),
    _device("--retry-after", type=Span(), help="Before the second attempt  [10s]."),
)


_ALWAYS_KEPT = frozenset({"mode", "force_at", "max_deferral", "rollback_to"})
_AWAY = (
    _pace("--no-rate", is_flag=True, help="As fast as offers can be sent."),
    _pace("--no-concurrent", is_flag=True, help="Any number of devices at work at once."),
    _pace("--no-windows", is_flag=True, help="Devices switch at any time."),
)


def frozen_options() -> frozenset[str]:
    """The options of a plan that no edit takes, as they are written."""
    made = (one(lambda: None) for one in (plan_options, edit_options))
    plan, edit = (
        {word for option in getattr(one, "__click_params__", []) for word in option.opts}
        for one in made
    )
    return frozenset(plan - edit)


def edit_options(command: F) -> F:
    """The options that change a rollout which is planned already."""
    priority = _plan("--priority", type=int, metavar="N", help="Where rollouts overlap, 0 to 100.")
    for option in reversed((priority, *_PACE, *_AWAY, *_GATES)):
        command = option(command)
    kept = getattr(command, "__click_params__", [])
    kept[:] = [one for one in kept if one.name not in _ALWAYS_KEPT]
    return command


def plan_options(command: F) -> F:
    """Every option of a plan; a figure in brackets is what holds without the option."""
    for option in reversed((*_PLAN, *_TARGET, *_PACE, *_GATES, *_DEVICE)):
        command = option(command)
    return command
