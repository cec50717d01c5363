"""What all that handles class labels must agree on."""

from __future__ import annotations

IGNORE = 255
"""The label of pixels that count neither in a loss nor in a metric, whatever a data set's files call it."""
