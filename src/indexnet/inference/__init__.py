"""Use of trained networks, from a checkpoint alone: predict, evaluate, compare, export, latency, robustness, page."""
