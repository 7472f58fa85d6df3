"""Pictures: the network's diagram, the preview of augmented images, and the style of all figures.

May import run and what that may."""
