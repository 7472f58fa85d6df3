"""How good a model is, and at what: metrics, the report, photographs of one's own.

May import plotting and what that may."""
