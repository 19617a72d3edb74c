"""Trainings that go on where they were stopped: their checkpoints, and signals kept waiting."""
