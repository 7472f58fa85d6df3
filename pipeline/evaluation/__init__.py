"""How good a model is, and at what: metrics, the report, photographs of one's own.

May import plotting and what that may."""

REPORT_PAGE = "report.html"
REPORT_FILES = (
    REPORT_PAGE, "per_class.csv", "predictions.csv", "confusion_matrix.png", "calibration.png",
)  # fmt: skip
"""Here, where a script learns of them before it imports Keras."""
