"""The scheduler's process: one actor, which decides and computes nothing. It imports no torch.

actor             the actor: what gateway and tuners call, and its loop
lifecycle         a job's way through its statuses
open_jobs         an open job in memory; its changes are written to its run
deadlines         until when jobs may wait and run
policy            which tuners to start and to end; pure
tuners            which tuners wait, and which job each has
launcher          starts tuners as Ray Train runs, and ends them
placement_groups  removes the placement groups of ended tuners
retention         metrics of each round; removal of old jobs and videos
background        tasks that nothing awaits
"""
