"""Which backbone suits the data: candidates race on growing samples of the training rows, within a budget of work."""
