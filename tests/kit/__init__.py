"""What tests in several rooms share: one module per idea."""
