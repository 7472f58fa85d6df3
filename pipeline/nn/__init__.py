"""GoogLeNet, its optimizers with Muon, loss and metrics.

May import dataset and what that may."""
