"""What `indexnet bench` measures: each figure is one form of a computation against another, in turns in one process."""

PARTS = {
    "stages": "index stages, forward and backward, against the papers' literal form and their own convolutions",
    "operators": "one stage of every operator, forward and backward, against bilinear",
    "networks": "training steps of whole networks, against literal index stages or max unpooling",
    "fast": "training steps in half precision, channels-last, with a fused optimizer, with activations recomputed and "
    "compiled, against the step as by default; the compiled form takes minutes: neither --quick nor `all` has it",
    "data": "training samples of every kind of data set, against one photograph decoded and the published order",
    "train": "steps of runs, with all that they do beside, against bare loops with the same network, loss and loader",
    "metrics": "Grad and Conn of matting against their published form",
    "inference": "prediction of a large image against the network with literal index stages",
    "kernels": "the tail of index stages by Triton's kernels, against what torch.compile makes; on CUDA alone",
}
"""The parts, each a module here with a function ``figures``, and what they say."""

ALL = "all"

TOLERANCE = 0.25
"""By which share a ratio may be larger than that of a baseline."""
