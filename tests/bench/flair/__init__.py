"""Training in Flair with live and with stored vectors."""
