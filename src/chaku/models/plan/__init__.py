"""How much memory a model takes, how much there is, and how it lies on GPUs. Arithmetic; nothing is loaded."""
