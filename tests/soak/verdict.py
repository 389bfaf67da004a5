"""The end of a soak: what was done, what it took, and every problem there is."""

import re
import time
from collections import Counter
from dataclasses import asdict

from tests.mount.stage import PATIENCE_S
from tests.soak.objects import NAMES


def verdict(soak):
    """The report as JSON values; the mount is still there, and at rest."""
    live, judge, weather = soak.live, soak.judge, soak.weather
    neighbours, crews = soak.neighbours, soak.crews
    status = live.settled_status()
    levels = soak.meters.levels(soak.plan.rss_tolerance_mib, soak.plan.sockets_tolerance)
    writing = soak.writing.report()
    levels |= {
        f"writing: {name}": level
        for name, level in soak.writing.meters.levels(
            soak.plan.rss_tolerance_mib, soak.plan.sockets_tolerance
        ).items()
    }
    inodes, sts = _forgotten_inodes(live), _sts_calls(soak, status)
    problems = [
        *(f"{each['reason']}: {each}" for each in judge.wrong),
        *crews.complaints,
        *neighbours.complaints,
        *writing.pop("problems"),
        *(f"{name} is not level: {each}" for name, each in levels.items() if not each.is_level),
    ]
    if sts["calls"] > sts["at_most"]:
        problems.append(f"too many STS calls: {sts}")
    if inodes > NAMES:
        problems.append(f"{inodes} inodes for {NAMES} names after all was forgotten")
    denied = {each.verdict for each in soak.stage.gate.denied} - {"ExpiredToken"}
    if denied:
        problems.append(f"requests that the policy denies: {denied}")
    return {
        "plan": asdict(soak.plan),
        "elapsed_s": round(soak.elapsed_s, 1),
        "attempts": dict(judge.attempts),
        "read_bytes": {kind: n for kind, n in judge.read_bytes.items() if n},
        "errnos": {f"{kind} {name}": n for (kind, name), n in sorted(judge.errnos.items())},
        "wrong": judge.wrong_count,
        "faults": dict(weather.applied),
        "outages_s": round(weather.outages_s, 1),
        "sts": sts,
        "levels": soak.meters.as_json(levels),
        "rss_mib": soak.meters.rss_mib,
        "writing": writing | {"rss_mib": soak.writing.meters.rss_mib},
        "inodes_at_the_end": inodes,
        "replacements": neighbours.replacements,
        "readers_killed": crews.kills,
        "bytes_flipped": neighbours.flips,
        "cache_clears": neighbours.clears,
        "commands": dict(sorted(neighbours.commands.items())),
        "log_lines": dict(Counter(re.findall(r" (WARNING|ERROR|CRITICAL) ", live.log()))),
        "requests": status["requests"],
        "throttled": status["throttled"],
        "cache": status["cache"],
        "disk_cache": status["disk_cache"],
        "problems": problems,
    }


def _sts_calls(soak, status):
    """Calls, and how many are explained: a session is renewed when three tenths of its life are
    left at the earliest, when S3 calls it over, and again after each failure."""
    by_time = round((time.monotonic() - soak.begun_s) / (0.7 * soak.plan.lifetime_s))
    expired, failures = soak.weather.applied["ExpiredToken"], status["credentials"]["failures"]
    return {
        "calls": soak.folder.sts_calls,
        "by_time": by_time,
        "called_expired": expired,
        "failures": failures,
        "at_most": 1 + by_time + expired + failures,
    }


def _forgotten_inodes(live):
    """Inodes known once the kernel has been told to forget all names; it takes its time."""
    assert live.host.stsfs("refresh", live.path).returncode == 0
    deadline_s = time.monotonic() + PATIENCE_S
    while (inodes := live.status()["inodes"]) > NAMES and time.monotonic() < deadline_s:
        pass
    return inodes
