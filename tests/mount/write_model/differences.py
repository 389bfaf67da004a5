"""In what a mount may differ from a local directory: all of it stands here.

What an STS folder refuses (links, pipes, exchanging two names, setuid) the oracle refuses, too.
"""

ANY = "any"


class Judge:
    """Compares the answers of one history."""

    def __init__(self):
        self._lost = set()

    def same(self, operation, expected, found, marks):
        """Whether an answer is right.

        A handle of a file that has lost its name keeps what is cached or staged here; the rest is
        ESTALE (EFAULT or SIGBUS in a mapping). From then on nothing is expected of that file.
        """
        inode = marks.get("inode")
        if inode in self._lost:
            return True
        if marks.get("nameless") and found in (["error", "ESTALE"], ["error", "EFAULT"]):
            self._lost.add(inode)
            return True
        return _alike(expected, found)


def _alike(expected, found):
    if expected == ANY:
        return True
    if isinstance(expected, dict) and isinstance(found, dict):
        names = expected.keys() == found.keys()
        return names and all(_alike(expected[each], found[each]) for each in expected)
    if isinstance(expected, list) and isinstance(found, list):
        pairs = zip(expected, found, strict=False)
        return len(expected) == len(found) and all(_alike(one, two) for one, two in pairs)
    return expected == found
