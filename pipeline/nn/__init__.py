"""GoogLeNet and its optimizers: from a recipe to a compiled network.

May import dataset and what that may."""
