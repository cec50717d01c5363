"""Index stages in few passes that keep little: their hidden layer, and what follows the logits; by Triton, too."""
