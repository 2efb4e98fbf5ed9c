"""``hasten rule``: the rules in their order, or one rule's documentation."""

from __future__ import annotations

import difflib

from hasten.core.errors import UsageError
from hasten.core.finding import Rule


def text(code: str) -> str:
    """The documentation of the rule with this code or name; a list of all for an empty one.

    Raises:
        UsageError: there is no such rule.
    """
    return page(_find(code)) if code else listing()


def listing() -> str:
    """Every rule, one a line, in the order in which their remedies are tried."""
    from hasten.report.layout import Line, columns, plain
    from hasten.rules import all_rules

    rows: list[Line] = [[("code", ""), ("name", ""), ("remedy", ""), ("fidelity", "")]]
    for rule in all_rules():
        remedies = ", ".join(kind.__name__ for kind in rule.remedies)
        fidelities = ", ".join(dict.fromkeys(kind.fidelity.value for kind in rule.remedies))
        rows.append([(rule.code, ""), (rule.name, ""), (remedies or "advice", ""), (fidelities, "")])
    return plain(columns(rows, "llll"))


def page(rule: Rule) -> str:
    """One rule's own words."""
    return f"{rule.code} {rule.name}\n\n{rule.doc.strip()}"


def _find(code: str) -> Rule:
    from hasten.rules import all_rules

    known = {name: rule for rule in all_rules() for name in (rule.code.lower(), rule.name)}
    rule = known.get(code.lower())
    if rule is None:
        near = [n for n in known if n.startswith(code.lower())] or difflib.get_close_matches(code.lower(), known, 1)
        change = f"hasten rule {known[near[0]].code}" if near else "hasten rule, for all of them"
        raise UsageError(f"there is no rule {code!r}", "a typing error", change)
    return rule
