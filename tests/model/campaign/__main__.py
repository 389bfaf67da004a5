"""python -m tests.model.campaign: many histories of one kind, and what they find, shrunk."""

import argparse
import logging
import sys
import time
from collections import Counter

from tests.model.campaign.history import KINDS, made
from tests.model.campaign.shrinking import repeat_line, shrunk
from tests.model.campaign.world import play


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.model.campaign", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the first history")
    parser.add_argument("--what", default="", help="look only for this word of the books")
    parser.add_argument("--show", type=int, default=3, help="findings of each word to shrink")
    chosen = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    found, kills, turns, begun_s = Counter(), 0, 0, time.monotonic()
    first_s = begun_s
    for number, seed in enumerate(range(chosen.seed, chosen.seed + chosen.histories), 1):
        history = made(chosen.kind, seed)
        result = play(chosen.kind, seed, history)
        kills, turns = kills + result.kills, turns + result.turns
        if result.violations:
            what = result.violations[0].what
            found[what] += 1
            if found[what] <= chosen.show and chosen.what in ("", what):
                show(chosen.kind, seed, history, what)
        if time.monotonic() - begun_s > 10:
            begun_s = time.monotonic()
            tell(number, kills, turns, found, first_s)
    tell(chosen.histories, kills, turns, found, first_s)
    return 1 if found else 0


def show(kind, seed, history, what):
    """Print a finding with the fewest steps that still do it."""
    small, violation = shrunk(kind, seed, history, what)
    print(f"\n{kind} {seed}: {str(violation)[:3000]}\n{repeat_line(kind, seed, small)}", flush=True)


def tell(number, kills, turns, found, first_s):
    per_s = number / (time.monotonic() - first_s)
    print(f"{number} histories, {per_s:.0f}/s, {kills} kills, {turns} turns, {dict(found)}",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
