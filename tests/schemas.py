"""The JSON of the commands, against the schemas that ship with them."""

import json
from importlib import resources

from jsonschema import Draft202012Validator

NAMES = ("status", "list", "explain", "rules", "info", "refresh", "verify", "find", "credentials",
         "cache", "recover")  # fmt: skip


def schema(name):
    text = (resources.files("stsfs.cli") / "schemas" / f"{name}.json").read_text()
    return json.loads(text)


def checked(name, text):
    """The value of a command's output, which must be as its schema says."""
    value = json.loads(text)
    Draft202012Validator(schema(name)).validate(value)
    return value
