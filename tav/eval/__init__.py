"""Evaluation: suites of clips and edits, methods that make them, scores, and the report. Loads nothing by itself."""
