"""Peak memory and time of a job before it is paid for: counts of the real network's work, fitted to measured runs.

trace     counts a pass of the network without computing it
profile   an architecture's counts as functions of frames and size
device    what a device offers, from its data sheet or as measured
measure   measures this machine's device
probes    what was measured, stored for all processes of the user
model     the three put together for a job
video     and for one video

Only `trace` and `measure` need torch.
"""

from tav.estimate.device import Device
from tav.estimate.model import Estimate, Work, estimate, fastest_that_fits
from tav.estimate.profile import Profile

__all__ = ["Device", "Estimate", "Profile", "Work", "estimate", "fastest_that_fits"]
