"""Threshold rules that the application adds and takes away while the probe runs: ``add_rule`` and ``remove_rule``.

Owns nothing: the running probe keeps its rules, and a forked child goes on with those of its parent.
"""

from __future__ import annotations

from otel_memory.probe.rules import MAX_RULES, parse_rule
from otel_memory.probe.thresholds import Rule


def add_rule(rule: Rule | str) -> bool:
    """Judge by ``rule`` too, from the next reading on; it takes the place of one of the same name.

    ``rule`` is a ``Rule`` or its text form (``"rss>512MiB:critical"``). Returns False, and does nothing, where no probe
    runs. The rule is gone when the probe stops.

    Raises:
        ValueError: the text is not a rule, or there are 64 rules already.
    """
    new = parse_rule(rule) if isinstance(rule, str) else rule
    if not isinstance(new, Rule):
        raise ValueError(f"expected a Rule or its text form, not {new!r}")

    def change(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        others = tuple(other for other in rules if other.name != new.name)
        if len(others) >= MAX_RULES:
            raise ValueError(f"expected at most {MAX_RULES} rules")
        return (*others, new)

    from otel_memory.probe.lifecycle import running_probe

    probe = running_probe()
    if probe is None:
        return False
    probe.change_rules(change)
    return True


def remove_rule(name: str) -> bool:
    """Judge no longer by the rule ``name``, which may be a built-in one; a crossing of it that stands is not recovered.

    Returns whether a running probe had such a rule.
    """
    from otel_memory.probe.lifecycle import running_probe

    probe, found = running_probe(), False

    def change(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        nonlocal found
        others = tuple(rule for rule in rules if rule.name != name)
        found = len(others) < len(rules)
        return others

    if probe is not None:
        probe.change_rules(change)
    return found
