"""A shorter history that fails, from a long one."""

from tests.mount.write_model.arena import Difference

TRIES_MAX = 200


def shrink(history, arena):
    """The shortest found that still fails, and its Difference; None: it did not fail again."""
    tries = 0

    def failure(candidate):
        nonlocal tries
        tries += 1
        try:
            arena.play(candidate)
        except Difference as difference:
            return difference
        return None

    if (why := failure(history)) is None:
        return history, None
    size = max(1, len(history) // 2)
    is_shorter = True
    while tries < TRIES_MAX and (size > 1 or is_shorter):
        if not is_shorter:
            size = max(1, size // 2)
        at, is_shorter = 0, False
        while at < len(history) and tries < TRIES_MAX:
            candidate = history[:at] + history[at + size :]
            if candidate and (found := failure(candidate)) is not None:
                history, why, is_shorter = candidate, found, True
            else:
                at += size
    return history, why
