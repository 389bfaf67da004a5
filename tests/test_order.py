"""Fast tests come before those that mount, and long files before the short ones of their kind."""

from types import SimpleNamespace

from tests.order import in_order


def item(path, name, *marks):
    found = [SimpleNamespace(name=each) for each in marks]
    return SimpleNamespace(path=path, name=name, iter_markers=lambda: found)


def test_files_that_mount_come_last_and_long_ones_begin_first():
    files = {
        "attacks/test_a.py": ["mount"],
        "model/test_b.py": ["long"],
        "mount/test_c.py": ["mount", "long"],
        "strict/test_d.py": ["strict"],
        "test_e.py": [],
        "test_f.py": ["parametrize"],
    }
    ordered = in_order([item(path, "test", *marks) for path, marks in files.items()])
    assert [each.path for each in ordered] == [
        "model/test_b.py", "test_e.py", "test_f.py",
        "mount/test_c.py", "attacks/test_a.py", "strict/test_d.py",
    ]  # fmt: skip


def test_a_file_of_which_one_test_mounts_stays_together_in_its_order():
    mixed = [item("x", "1"), item("x", "2", "mount", "long"), item("x", "3")]
    others = [item("y", "1", "mount"), item("z", "1")]
    assert in_order([*others, *mixed]) == [others[1], *mixed, others[0]]
