"""Suites of drawn clips, whose edits a plain-numpy oracle judges frame by frame: nothing is downloaded, nothing is learnt.

world    one object on one textured ground, drawn, and the captions that describe it
clips    the drawn clips as mp4
oracle   reads colour, shape, ground and position off a picture
scores   what these readings say about motion and steadiness
suite    the suites `offline` and `offline-development`
"""
