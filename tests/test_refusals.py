"""What `stsfs explain` remembers of refusals."""

from stsfs.vfs.refusals import Refusals


def test_what_the_kernel_repeats_unseen_does_not_hide_what_a_caller_was_told():
    """Both are among the last; of the path, the one counts that somebody has met."""
    refusals = Refusals()
    refusals.note("/f", "open", "ESTALE", "replaced", "", is_repeated=True)
    assert refusals.of_path("/f").operation == "open"
    refusals.note("/f", "flush", "ESTALE", "changed by another client", "")
    refusals.note("/f", "open", "ESTALE", "replaced", "", is_repeated=True)
    assert refusals.of_path("/f").operation == "flush"
    assert [each.operation for each in refusals.last(9)] == ["open", "flush", "open"]
