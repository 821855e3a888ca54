"""Services and workers that leak, and others that only look like it; run live and judged (docs/judged.md).

Each is a program of its own, whose first line says what it does. ``catalog`` says what is expected of each and which
requests it gets, ``load`` sends them, ``run`` runs all and holds the verdicts against what is expected.
"""
