"""The parts of a training: checked data, averages, stopping, random numbers, what a checkpoint holds."""
