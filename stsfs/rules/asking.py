"""Asking the table: what `vfs`, `location` and `explain` call. Pure."""

from stsfs.errors import StsfsError
from stsfs.rules.conditions import key_bytes
from stsfs.rules.question import Place, Question
from stsfs.rules.table import ROWS, Rule

_NOUNS = {"symlink": "symbolic link", "link": "hard link", "fifo": "FIFO"}


def ask(question: Question) -> StsfsError | None:
    """The error that an operation meets by the first rule that applies; None if it is allowed."""
    rule = rule_for(question)
    if rule is None:
        return None
    words = _words(rule, question)
    return rule.error(rule.sentence.format_map(words), remedy=rule.remedy)


def check(question: Question) -> None:
    """Raise what `ask` answers, if it answers anything."""
    if (error := ask(question)) is not None:
        raise error


def rule_for(question: Question) -> Rule | None:
    """The first row that applies; None if the operation is allowed."""
    return next((rule for rule in ROWS if rule.covers(question)), None)


def concerning(place: Place) -> list[Rule]:
    """The rows that something in this place can meet, in order."""
    met = []
    for rule in ROWS:
        if rule.concerns(place):
            met.append(rule)
            if rule.is_last_word:
                break
    return met


def _words(rule: Rule, question: Question) -> dict[str, str]:
    """What the placeholders of a sentence stand for."""
    named = question.made or question.at
    uid, gid = question.owner or (0, 0)
    return {
        "at": next(filter(rule.concerns, question.places)).label,
        "to": question.places[-1].label,
        "bucket": question.at.place.bucket,
        "thing": _NOUNS.get(question.operation, question.operation),
        "mode": f"{(question.mode or 0) & 0o7777:04o}",
        "owner": f"{uid}:{gid}",
        "name": repr(named.name.decode("utf-8", "backslashreplace")),
        "name_bytes": str(len(named.name)),
        "key_bytes": str(key_bytes(question)),
    }
