"""What reading vectors costs, beside other layouts."""
