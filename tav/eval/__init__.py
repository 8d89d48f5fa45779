"""Evaluation: suites of clips and edits, methods that make them, scores, and the report. Loads nothing by itself.

suite        clips, and the edits asked of them
layout       a suite and its videos in the LOVEU-TGVE 2023 layout
offline/     suites of drawn clips that an oracle judges
figures/     the drawn world of figures
methods/     what is compared: the tuned model, its ablations, baselines
plan         what a run of a suite does
local        a run on this machine
results      what a run leaves behind, and finds again
scores       scores that suit any video
flow         scores by optical flow
models       models that score: CLIP and feature extractors
statistics   means over videos, and how sure they are
report       one HTML file that shows a run
"""
