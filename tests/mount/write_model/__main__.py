"""Hunt: `python -m tests.mount.write_model KIND SEED COUNT`.

Plays COUNT histories, from that seed on, and shortens those that fail. With COUNT 1 the log of
the mount is shown, too.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

from tests.mount.live_mount import Host
from tests.mount.stage import Stage
from tests.mount.write_model.arena import Arena, Difference
from tests.mount.write_model.histories import make_history
from tests.mount.write_model.shrink import shrink

SHORTENED_MAX = 6
PATIENCE_S = 3


@contextlib.contextmanager
def arena_for(kind, *, shows_log):
    """An arena on servers of its own."""
    with tempfile.TemporaryDirectory(prefix="model-") as name, contextlib.ExitStack() as stack:
        root = Path(name)
        for each in ("s3", "home", "run", "local"):
            (root / each).mkdir()
        stage = stack.enter_context(Stage(root / "s3"))
        host, lives = Host(root / "home", root / "run", stage), []

        def mount(*arguments):
            lives.append(host.mount(*arguments))
            return lives[-1]

        ttl_s = 0 if kind == "foreign" else 30
        arena = Arena(stage.folder(), mount, root / "local", ttl_s=ttl_s, patience_s=PATIENCE_S)
        try:
            with arena:
                yield arena
        finally:
            for live in lives:
                if live.is_mounted():
                    live.unmount()
                live.destroy()
                if shows_log:
                    print(live.log())


def main():
    """Play."""
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    failed = 0
    with arena_for(kind, shows_log=count == 1) as arena:
        for seed in range(first, first + count):
            history = make_history(seed, kind)
            try:
                arena.play(history)
            except Difference as difference:
                failed += 1
                print(f"{kind} {seed}: {difference}", flush=True)
                if failed <= SHORTENED_MAX:
                    shorter, why = shrink(history, arena)
                    print("shorter:", *shorter, sep="\n  ")
                    print(why, flush=True)
    print(f"{count} histories, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
