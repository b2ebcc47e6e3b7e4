"""The training loop of one worker: plain PyTorch, with and without Ray."""
