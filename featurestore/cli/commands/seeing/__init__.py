"""Commands that look into stores."""
