"""What heads do with stored vectors before they read them."""
