"""The tuners' processes: the ranks of a Ray Train run that tune one job after the other on a warm network."""
