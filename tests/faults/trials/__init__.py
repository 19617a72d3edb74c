"""The faults themselves: what a store does, what goes wrong meanwhile, and what must hold afterwards."""
