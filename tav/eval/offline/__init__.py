"""Suites of drawn clips, whose edits a plain-numpy oracle judges frame by frame: nothing is downloaded, nothing is learnt."""
