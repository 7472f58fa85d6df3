"""A run from its first epoch to its last: its state, its checkpoints, its devices.

May import nn and what that may."""
