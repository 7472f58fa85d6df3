"""What the four scripts share: one idea a module, each usable on its own."""
