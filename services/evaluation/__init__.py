"""A suite's videos made by the service: `tav eval run --service`. `tav.eval` scores them and writes the report.

methods  the methods and settings that the service offers
run      a tuning job for each clip, seed and kind of tuning, then its videos
"""
