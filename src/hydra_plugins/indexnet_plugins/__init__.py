"""Hydra plugins of indexnet: where experiment files are found, and how ``-m`` expands and runs a sweep.

Hydra finds them by their namespace, ``hydra_plugins``, and executes every module here whenever it starts: nothing heavy
is imported at their tops. It executes them without registering them in ``sys.modules``, where ``dataclass`` looks up
annotations that are texts; so modules with dataclasses do without ``from __future__ import annotations``.
"""
