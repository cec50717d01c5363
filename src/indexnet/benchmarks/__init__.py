"""What `indexnet bench` measures: each figure is one form of a computation against another, in turns in one process."""
