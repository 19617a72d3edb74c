"""The store: bytes on disk. NumPy, h5py and the standard library; never torch."""
