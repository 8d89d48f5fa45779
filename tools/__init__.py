"""What builds the things this project ships."""
