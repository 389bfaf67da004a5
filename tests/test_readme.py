"""The README is true where a machine can tell: tests, options, exit codes, commands, targets."""

import ast
import re
from pathlib import Path

import click
import pytest

from stsfs.cli import exit_codes
from stsfs.cli.main import main
from stsfs.cli.mount import mount
from tests.test_house import FUNCTION

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def section(title):
    """The text below a heading of the second level."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text):
    """The rows of all tables as lists of cells, without headers."""
    bodies = re.findall(r"^\|[-|]+\|\n((?:\|.*\n?)+)", text, re.MULTILINE)
    lines = [line for body in bodies for line in body.splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def options():
    return [each for each in mount.params if isinstance(each, click.Option)]


SECURITY = (ROOT / "docs/security.md").read_text().split("\n## What stsfs promises\n")[1]
SECURITY = SECURITY.split("\n## ")[0]


@pytest.mark.parametrize("table", [section("How it behaves"), SECURITY], ids=["README", "security"])
def test_every_row_that_promises_something_names_tests_that_exist(table):
    promises = rows(table)
    assert len(promises) > 20
    for row in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
        assert named, row
        for path, name in named:
            module = ast.parse((ROOT / path).read_text())
            assert name in {node.name for node in module.body if isinstance(node, FUNCTION)}, row


def test_the_table_of_options_is_that_of_the_command():
    told = [name for row in rows(section("Options")) for name in re.findall(r"`(-[\w-]+)`", row[0])]
    assert told == [name for option in options() for name in option.opts]


def test_the_defaults_of_options_are_those_of_the_command():
    told = {row[0].split("`")[-2]: row[1].strip("`") for row in rows(section("Options"))}
    for option in options():
        if isinstance(option.show_default, str):
            assert told[option.opts[-1]] == option.show_default
        elif option.show_default:
            default = option.default
            text = f"{default:g}" if isinstance(default, int | float) else default
            assert told[option.opts[-1]] == text


def test_the_table_of_exit_codes_is_complete():
    told = [int(row[0]) for row in rows(section("Exit codes"))]
    known = {*exit_codes._CODES.values(), 0, exit_codes.INTERRUPTED}
    assert told == sorted(known)


def test_every_command_is_there():
    told = set(re.findall(r"^\| `stsfs (\w+)", section("Quick start"), re.MULTILINE))
    assert told == set(main.list_commands(click.Context(main)))


@pytest.mark.parametrize("word", sorted(set(re.findall(r"\bmake ([a-z][a-z-]+)", README))))
def test_what_it_says_to_make_can_be_made(word):
    assert f"\n{word}:" in (ROOT / "Makefile").read_text() or word == "setup"


def test_every_folder_of_the_program_is_in_its_picture():
    told = re.findall(r"^      (\w+)/ ", section("Developing"), re.MULTILINE)
    assert sorted(told) == sorted(p.parent.name for p in ROOT.glob("stsfs/*/__init__.py"))
