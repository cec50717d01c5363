"""Using trained networks: prediction, evaluation, comparison, export, latency, robustness, the page."""
