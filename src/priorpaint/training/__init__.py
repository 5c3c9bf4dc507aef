"""Training of a prior: pictures, loss, optimizers, loop."""
