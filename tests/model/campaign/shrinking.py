"""Makes the history of a finding as short as it gets."""

from tests.model.campaign.world import play


def first_of(result, what):
    """The first violation of a kind, or None."""
    return next((each for each in result.violations if each.what == what), None)


def shrunk(kind, seed, history, what):
    """The history without the steps that the finding does not need, and the finding then."""
    found = first_of(play(kind, seed, history), what)
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for index in reversed(range(len(history))):
            for candidate in smaller(history, index):
                violation = first_of(play(kind, seed, candidate), what)
                if violation is not None:
                    history, found, is_shorter = candidate, violation, True
                    break
    return history, found


def smaller(history, index):
    """The history without a step, or with less in it."""
    yield history[:index] + history[index + 1 :]
    step = history[index]
    if step.op == "session":
        path, mode, acts = step.args
        for at in range(len(acts)):
            args = (path, mode, acts[:at] + acts[at + 1 :])
            yield (*history[:index], step._replace(args=args), *history[index + 1 :])


def repeat_line(kind, seed, history):
    """A line that plays it once more."""
    steps = ", ".join(f"Step{tuple(each)!r}" for each in history)
    return f"replay({kind!r}, {seed}, [{steps}])"
