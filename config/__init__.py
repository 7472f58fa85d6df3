"""Every value a user may want to change."""
