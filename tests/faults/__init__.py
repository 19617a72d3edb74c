"""What a store survives, fault by fault; crashtest.py does the same by hand and for longer."""
