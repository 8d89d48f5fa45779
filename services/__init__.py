"""What runs: tuning, sampling, the HTTP gateway, and the one-machine stack."""
